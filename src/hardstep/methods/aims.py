"""Aims: where the pre-activations of a layer shall move so that its bits lower the loss, and what a move is worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from hardstep.closed_form import bit_gain, flip_pass, flip_price, margin_residual
from hardstep.fit import Work
from hardstep.losses import Loss

__all__ = ["Aim", "Flips", "Ramp", "Seen"]


@dataclass(frozen=True, eq=False)
class Seen:
    """A batch that has run through the network.

    Parameters
    ----------
    pres
        Pre-activations of the hidden layers.
    weights
        Weights of the hidden layers and of the read-out, with the bias as last column.
    out
        Outputs.
    y
        Labels or targets.
    """

    pres: Sequence[Float[Tensor, "n _"]]
    weights: Sequence[Float[Tensor, "_ _"]]
    out: Float[Tensor, "n k"]
    y: Tensor
    loss: Loss
    work: Work
    generator: torch.Generator


class Aim(ABC):
    """How `MarginBCD` chooses what the half-spaces of a layer are fitted to."""

    @abstractmethod
    def pulls(self, seen: Seen, layers: Sequence[int]) -> dict[int, tuple[Tensor, Tensor]]:
        """Return for each of these layers, top first, the pull on its pre-activations and each unit's sum of weights.

        A pull, of shape (n, h), is a wanted move times its weight; the weights are at least 0, their sums over the
        rows at hand have the shape (h,).
        """


@dataclass(frozen=True)
class Ramp(Aim):
    """Lower the ramp loss of every unit: each bit by what it is worth, as long as it lies within the margin.

    To first order the loss changes by -s_jn if bit j of row n goes from 0 to 1, s = r'w_j for the top layer, r minus
    the gradient of the loss at the outputs, w_j the outgoing weights. So unit j faces a classification problem with
    costs: choose the half-space that minimises - sum_n s_jn [c_jn > 0]. The indicator is replaced by the ramp that
    rises from 0 at c = -margin to 1 at c = margin: a bit that is further off is left as it is, right or wrong. For a
    lower layer the s are what the pulls of the layer above make of them. The wanted move is the sign of s, its weight
    |s|.

    Parameters
    ----------
    margin
        Half-width of the ramp in units of a pre-activation's root mean square, > 0.

    References
    ----------
    Ours as a block method. The descent direction of the ramp is that of straight-through training with a clipped rule
    [bengio2013], [courbariaux2016].
    """

    margin: float = 0.5

    def __post_init__(self) -> None:
        _positive(self)

    def pulls(self, seen: Seen, layers: Sequence[int]) -> dict[int, tuple[Tensor, Tensor]]:
        """Return s where |c| < margin, and sums of |s|."""
        found = {}
        worth = seen.loss.residual(seen.out, seen.y)
        for i in layers:
            worth = (worth @ seen.weights[i + 1][:, :-1]).mul_(seen.pres[i].abs() < self.margin)
            found[i] = worth, worth.abs().sum(dim=0)
        return found


@dataclass(frozen=True)
class Flips(Aim):
    """Choose bits that lower the loss at least disturbance, one after the other, and fit squared hinges to them.

    Top layer first, every bit is flipped where that lowers sum_n l(o_n, y_n) + prices, the loss by its majoriser; the
    price is strength/2 times the change of max(0, margin - t c)², t the bit as +-1. Then each unit is fitted to

    sum_n g_jn/2 max(0, fit_margin - t_jn c_jn)²

    with g what the chosen bit is worth: how much the loss would rise with the other one, as a share of `focus` times
    the mean, at most 1. To first order loss(true network) <= loss(chosen bits) + sum of worth x [bit missed], and the
    squared hinge bounds the indicator. Wants `Fits(ridge=0.1, lr=0.4)`. It fits the training rows faster than `Ramp`
    and generalises less well: rows far on the wrong side are not given up.

    Parameters
    ----------
    price
        Strength of the price in the top layer, > 0.
    margin
        How far from its plane a bit shall be for its price, in units of a pre-activation's root mean square, > 0.
    ratio
        Price of a layer as a multiple of that of the layer above, > 0, where layers move together.
    fit_margin
        The hinge's margin, > 0: small fits the training rows better, large generalises better.
    focus
        Where worth is capped, in multiples of its mean, > 0; small treats all bits alike.

    References
    ----------
    Zhang et al. 2023 [zhang2023], the idea of the blocks; Widrow and Lehr 1990 [widrow1990], minimal disturbance;
    Bohning 1992 [bohning1992], the majoriser. Binary bits chosen one by one, prices, worth as weights are ours.
    """

    price: float = 0.1
    margin: float = 1.0
    ratio: float = 1.0
    fit_margin: float = 0.5
    focus: float = 2.0

    def __post_init__(self) -> None:
        _positive(self)

    def pulls(self, seen: Seen, layers: Sequence[int]) -> dict[int, tuple[Tensor, Tensor]]:
        """Return worth times the residuals of the hinges at the chosen bits, and sums of worth."""
        residual: Callable[[Tensor], Tensor] = partial(seen.loss.residual, y=seen.y)
        curvature, strength, reached = seen.loss.curvature, self.price, seen.out
        found = {}
        for i in layers:
            pre, above = seen.pres[i], seen.weights[i + 1][:, :-1]
            order = torch.randperm(pre.shape[1], generator=seen.generator).to(pre.device)
            now = (pre > 0).to(pre.dtype)
            price = flip_price(pre, now, strength, self.margin)
            bits, reached = flip_pass(now, price, reached, above, residual, curvature, order=order)
            worth = bit_gain(bits, residual(reached), above, curvature).clamp_min_(0)
            total, count = seen.work.sum(torch.stack([worth.sum(), worth.new_tensor(worth.numel())]))
            weight = (worth / (self.focus * total / count).clamp_min(1e-30)).clamp_max_(1)
            found[i] = weight * margin_residual(pre, bits, self.fit_margin), weight.sum(dim=0)
            residual, reached = partial(_priced, bits=bits, strength=strength, margin=self.margin), pre
            curvature, strength = strength, strength * self.ratio
        return found


def _priced(out: Tensor, bits: Tensor, strength: float, margin: float) -> Tensor:
    return strength * margin_residual(out, bits, margin)


def _positive(numbers: Ramp | Flips) -> None:
    for name, value in asdict(numbers).items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} of {type(numbers).__name__} must be positive and finite, got {value}")
