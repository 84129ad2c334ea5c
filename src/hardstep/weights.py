"""What weights of a layer can be: real, binary or ternary, and where their scales come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from hardstep.rules import BackwardRule
from hardstep.step import step

__all__ = ["Binary", "Learned", "Libra", "PerChannel", "PerLayer", "Real", "Scale", "Ternary", "Unscaled", "Weights"]


@dataclass(frozen=True)
class Unscaled:
    """Leave the weights at -1, 0 and 1.

    References
    ----------
    Courbariaux, Bengio, David 2015 [courbariaux2015].
    """

    def start(self, weight: Float[Tensor, "h ..."]) -> Tensor | None:
        """Return the first value of a learned scale; there is none."""
        return None

    def of(self, weight: Float[Tensor, "h ..."], signs: Float[Tensor, "h ..."], learned: Tensor | None) -> Tensor:
        """Return 1."""
        return weight.new_ones(())


@dataclass(frozen=True)
class PerLayer:
    """Scale a whole layer by alpha = mean of |w| over the weights that are not cut to 0.

    Parameters
    ----------
    detach
        Send no gradient through the scale.

    References
    ----------
    Rastegari et al. 2016 [rastegari2016]: it minimises |w - alpha sgn(w)|. Wu et al. 2023, authors' code
    [wu2023], for one scale a layer, not detached.
    """

    detach: bool = False

    def start(self, weight: Float[Tensor, "h ..."]) -> Tensor | None:
        """Return the first value of a learned scale; there is none."""
        return None

    def of(self, weight: Float[Tensor, "h ..."], signs: Float[Tensor, "h ..."], learned: Tensor | None) -> Tensor:
        """Return the scale, in a shape that broadcasts against the weights."""
        return _mean_size(weight.detach() if self.detach else weight, signs, 0)


@dataclass(frozen=True)
class PerChannel:
    """Scale each output unit or channel by alpha = mean of |w| over those of its weights that are not cut to 0.

    Parameters
    ----------
    detach
        Send no gradient through the scale.

    References
    ----------
    Rastegari et al. 2016 [rastegari2016]; Liu et al. 2018 [liu2018], detached.
    """

    detach: bool = False

    def start(self, weight: Float[Tensor, "h ..."]) -> Tensor | None:
        """Return the first value of a learned scale; there is none."""
        return None

    def of(self, weight: Float[Tensor, "h ..."], signs: Float[Tensor, "h ..."], learned: Tensor | None) -> Tensor:
        """Return the scales, in a shape that broadcasts against the weights."""
        return _mean_size(weight.detach() if self.detach else weight, signs, 1)


@dataclass(frozen=True)
class Learned:
    """Scale each output unit or channel by a parameter that starts at its mean of |w|."""

    def start(self, weight: Float[Tensor, "h ..."]) -> Tensor | None:
        """Return the first value of the parameter, one a unit."""
        return weight.detach().abs().flatten(1).mean(dim=1)

    def of(self, weight: Float[Tensor, "h ..."], signs: Float[Tensor, "h ..."], learned: Tensor | None) -> Tensor:
        """Return the parameter, in a shape that broadcasts against the weights."""
        assert learned is not None
        return learned.reshape(-1, *[1] * (weight.ndim - 1))


Scale = Unscaled | PerLayer | PerChannel | Learned


class Weights(ABC):
    """What the weights of a layer are: a frozen dataclass that computes them from latent real ones."""

    @abstractmethod
    def start(self, weight: Float[Tensor, "h ..."]) -> Tensor | None:
        """Return the first value of a parameter that is learned beside the latent weights; None for none."""

    @abstractmethod
    def inputs(self, latent: Float[Tensor, "h ..."]) -> Float[Tensor, "..."]:
        """Return the numbers of which the weights take steps."""

    @abstractmethod
    def values(
        self, latent: Float[Tensor, "h ..."], rule: BackwardRule, learned: Tensor | None
    ) -> Float[Tensor, "h ..."]:
        """Return the weights with which the layer computes; each step in them goes backwards by the rule."""


@dataclass(frozen=True)
class Real(Weights):
    """Keep the weights real numbers; `freeze` rounds them."""

    def start(self, weight: Float[Tensor, "h ..."]) -> Tensor | None:
        """Return None."""
        return None

    def inputs(self, latent: Float[Tensor, "h ..."]) -> Float[Tensor, "..."]:
        """Return none."""
        return latent[:0]

    def values(
        self, latent: Float[Tensor, "h ..."], rule: BackwardRule, learned: Tensor | None
    ) -> Float[Tensor, "h ..."]:
        """Return the weights as they are."""
        return latent


@dataclass(frozen=True)
class Binary(Weights):
    """Compute with alpha sgn(w), sgn(0) = -1.

    With G the gradient of alpha sgn(w), n weights a scale and the slope g = 2h of the rule, an attached mean gives
    dL/dw_i = alpha g(w_i) G_i + (sgn(w_i)/n) sum_j G_j sgn(w_j); detached, the second term is absent.

    The scale is rounded to eight significant bits, so that sums of up to 65,536 terms +-alpha are exact in float32, in
    any order (and a product of TF32 or bfloat16 is too): a unit whose sum ties with its threshold does what the frozen
    network does. Gradients pass the rounding unchanged.

    Parameters
    ----------
    scale
        Where alpha comes from.

    References
    ----------
    Courbariaux, Bengio, David 2015 [courbariaux2015]; Rastegari et al. 2016 [rastegari2016]. Differs: the scale is
    rounded, latent weights are not clipped.

    Examples
    --------
    >>> from hardstep.layers import quantise
    >>> layer = quantise(torch.nn.Linear(4, 1, bias=False), Binary(PerLayer()))
    >>> layer.parametrizations.weight.original.data = torch.tensor([[0.5, -0.25, 1.0, 0.25]])
    >>> layer.weight.detach()
    tensor([[ 0.5000, -0.5000,  0.5000,  0.5000]])
    """

    scale: Scale = field(default_factory=PerChannel)

    def start(self, weight: Float[Tensor, "h ..."]) -> Tensor | None:
        """Return the first value of a learned scale, None for another scale."""
        return self.scale.start(weight)

    def inputs(self, latent: Float[Tensor, "h ..."]) -> Float[Tensor, "..."]:
        """Return w."""
        return latent

    def values(
        self, latent: Float[Tensor, "h ..."], rule: BackwardRule, learned: Tensor | None
    ) -> Float[Tensor, "h ..."]:
        """Return alpha sgn(w)."""
        signs = 2 * step(self.inputs(latent), rule) - 1
        return _short(self.scale.of(latent, signs, learned)) * signs


@dataclass(frozen=True)
class Libra(Weights):
    """Compute with s sgn(v), v = (w - mean)/std and s = 2^round(log2 mean|v|) of each output unit or channel.

    The mean makes the signs balanced; s is a shift of bits and gets no gradient. Where all weights of a unit are equal,
    v = 0 and s = 1. The gradient passes through mean and std.

    References
    ----------
    Qin et al. 2020, authors' code [qin2020]. Differs: units of equal weights, there 0/0.

    Examples
    --------
    >>> from hardstep.layers import quantise
    >>> layer = quantise(torch.nn.Linear(4, 1, bias=False), Libra())
    >>> layer.parametrizations.weight.original.data = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    >>> layer.weight.detach()
    tensor([[-1., -1.,  1.,  1.]])
    """

    def start(self, weight: Float[Tensor, "h ..."]) -> Tensor | None:
        """Return None."""
        return None

    def inputs(self, latent: Float[Tensor, "h ..."]) -> Float[Tensor, "..."]:
        """Return v, a row a unit."""
        rows = latent.flatten(1)
        centred = rows - rows.mean(dim=1, keepdim=True)
        fixed = centred.detach()
        noise = 4 * torch.finfo(rows.dtype).eps * rows.detach().abs().amax(dim=1, keepdim=True)  # of the mean
        equal = fixed.abs().amax(dim=1, keepdim=True) <= noise
        centred = centred - torch.where(equal, fixed, 0.0)  # exactly 0 there, the gradient goes on
        variance = centred.square().sum(dim=1, keepdim=True) / max(rows.shape[1] - 1, 1)
        return centred / torch.where(equal, 1.0, variance).sqrt()

    def values(
        self, latent: Float[Tensor, "h ..."], rule: BackwardRule, learned: Tensor | None
    ) -> Float[Tensor, "h ..."]:
        """Return s sgn(v)."""
        v = self.inputs(latent)
        size = v.detach().abs().mean(dim=1, keepdim=True)
        shift = torch.where(size == 0, 1.0, size).log2().round().exp2()
        return (shift * (2 * step(v, rule) - 1)).view_as(latent)


@dataclass(frozen=True)
class Ternary(Weights):
    """Compute with alpha t, t = step(w - d) - step(-w - d) in {-1, 0, 1} and d = ratio * mean|w| of each output unit.

    The gradient of d is left out. The scale is rounded as in `Binary`; a mean is over the weights with t not 0.

    Parameters
    ----------
    scale
        Where alpha comes from.
    ratio
        Threshold in units of mean|w|, >= 0.

    Raises
    ------
    ValueError
        If the ratio is negative.

    References
    ----------
    Li, Zhang, Liu 2016 [li2016], for 0.7, which is nearly best for Gaussian and uniform weights. Differs: one
    threshold a unit, not a layer, and the rule's window.

    Examples
    --------
    >>> from hardstep.layers import quantise
    >>> layer = quantise(torch.nn.Linear(4, 1, bias=False), Ternary())
    >>> layer.parametrizations.weight.original.data = torch.tensor([[0.5, -0.125, 1.0, -0.75]])
    >>> layer.weight.detach()
    tensor([[ 0.7500,  0.0000,  0.7500, -0.7500]])
    """

    scale: Scale = field(default_factory=PerChannel)
    ratio: float = 0.7

    def __post_init__(self) -> None:
        if not self.ratio >= 0:
            raise ValueError(f"ratio is the threshold in units of mean|w|, at least 0, got {self.ratio}")

    def start(self, weight: Float[Tensor, "h ..."]) -> Tensor | None:
        """Return the first value of a learned scale, None for another scale."""
        return self.scale.start(weight)

    def inputs(self, latent: Float[Tensor, "h ..."]) -> Float[Tensor, "..."]:
        """Return w - d and -w - d."""
        mean = latent.detach().abs().flatten(1).mean(dim=1)
        threshold = self.ratio * mean.reshape(-1, *[1] * (latent.ndim - 1))
        return torch.stack([latent - threshold, -latent - threshold])

    def values(
        self, latent: Float[Tensor, "h ..."], rule: BackwardRule, learned: Tensor | None
    ) -> Float[Tensor, "h ..."]:
        """Return alpha t."""
        steps = step(self.inputs(latent), rule)
        signs = steps[0] - steps[1]
        return _short(self.scale.of(latent, signs, learned)) * signs


def _mean_size(weight: Tensor, signs: Tensor, first: int) -> Tensor:
    """Return the mean of |w| over the weights whose sign is not 0, over all dimensions from `first` on."""
    fixed, dims = signs.detach(), tuple(range(first, weight.ndim))
    count = fixed.abs().sum(dim=dims, keepdim=True).clamp_min(1)
    return (weight * fixed).sum(dim=dims, keepdim=True) / count


def _short(scale: Tensor) -> Tensor:
    """Round to eight significant bits, those of bfloat16; the gradient is that of the identity."""
    fixed = scale.detach()
    return scale + (fixed.to(torch.bfloat16).to(fixed.dtype) - fixed)  # exact: the two lie within a factor of 2
