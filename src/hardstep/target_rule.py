"""Layer losses: a step is asked for a target. One definition for the local and the fused backward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from math import nan
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's name for it)

from hardstep.rules import BackwardRule, Sech2, widened

__all__ = ["HingeLoss", "LayerLoss", "LinearLoss", "LogLoss", "PerceptronLoss", "QuadraticLoss"]
__all__ += ["SaturatedHingeLoss", "SoftHingeLoss", "SquaredHingeLoss", "Target", "TargetRule"]


class LayerLoss(ABC):
    """A loss l(u) of a threshold unit, u = t z with its pre-activation z and its target t = -1 or +1.

    References
    ----------
    Friesen and Domingos 2018, Sec. 3.2 [friesen2018], layer losses.
    """

    @abstractmethod
    def value(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return l(u), differentiable."""

    @abstractmethod
    def slope(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return psi(u) = -l'(u) >= 0 in a new tensor; at a kink the slope that is not 0."""

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """Inputs of which `slope` takes every z for one, for either target; none if it needs z itself."""
        return ()


@dataclass(frozen=True)
class LinearLoss(LayerLoss):
    """The linear loss -u: the straight-through estimator.

    References
    ----------
    Friesen and Domingos 2018, Sec. 3.2 [friesen2018].
    """

    def value(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return -u."""
        return -u

    def slope(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1."""
        return torch.ones_like(u)

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """Any number."""
        return (0.0,)


@dataclass(frozen=True)
class PerceptronLoss(LayerLoss):
    """The loss of the perceptron, max(0, -u).

    References
    ----------
    Friesen and Domingos 2018, Sec. 3.2 [friesen2018].
    """

    def value(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return max(0, -u)."""
        return -u.clamp_max(0)

    def slope(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1 where u <= 0, else 0."""
        return (u <= 0).to(u.dtype)

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """One on each side of 0, 0, and none of them."""
        return (-2.0, 0.0, 2.0, nan)


@dataclass(frozen=True)
class HingeLoss(LayerLoss):
    """The hinge, max(0, 1 - u). Rows that are hopeless pull as hard as any: it may stall.

    References
    ----------
    Friesen and Domingos 2018, Sec. 3.2 [friesen2018].
    """

    def value(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return max(0, 1 - u)."""
        return 1 - u.clamp_max(1)

    def slope(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1 where u <= 1, else 0."""
        return (u <= 1).to(u.dtype)

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """One on each side of the margin, one within, and none of them."""
        return (-2.0, 0.0, 2.0, nan)


@dataclass(frozen=True)
class SquaredHingeLoss(LayerLoss):
    """Half the squared hinge, max(0, 1 - u)²/2.

    References
    ----------
    Friesen and Domingos 2018 [friesen2018], named there; has a backward pass here.
    """

    def value(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return max(0, 1 - u)²/2."""
        return 0.5 * (1 - u.clamp_max(1)).square()

    def slope(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return max(0, 1 - u)."""
        return 1 - u.clamp_max(1)


@dataclass(frozen=True)
class SaturatedHingeLoss(LayerLoss):
    """The hinge cut off at 2, clip(1 - u, 0, 2): the clipped straight-through estimator.

    References
    ----------
    Friesen and Domingos 2018, Sec. 3.2 [friesen2018].
    """

    def value(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return clip(1 - u, 0, 2)."""
        return 1 - u.clamp(-1, 1)

    def slope(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1 where |u| <= 1, else 0."""
        return (u.abs() <= 1).to(u.dtype)

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """One within the margin and one beyond."""
        return (0.0, 2.0)


@dataclass(frozen=True)
class SoftHingeLoss(LayerLoss):
    """The soft hinge, 1 - tanh(u), whose slope sech² never vanishes; computed without overflow or early zeros.

    References
    ----------
    Friesen and Domingos 2018, Sec. 3.2 [friesen2018].

    Examples
    --------
    >>> SoftHingeLoss().slope(torch.tensor([0.0, 1.0]))
    tensor([1.0000, 0.4200])
    """

    def value(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1 - tanh(u)."""
        return 1 - u.tanh()

    def slope(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return sech²(u)."""
        return Sech2().derivative(u).mul_(2)


@dataclass(frozen=True)
class LogLoss(LayerLoss):
    """The logistic loss, log(1 + exp(-u)).

    References
    ----------
    Friesen and Domingos 2018, Sec. 3.2 [friesen2018].
    """

    def value(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return log(1 + exp(-u))."""
        return -F.logsigmoid(u)

    def slope(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/(1 + exp(u))."""
        return torch.sigmoid(-u)


@dataclass(frozen=True)
class QuadraticLoss(LayerLoss):
    """Half the squared distance to the target, (z - t)²/2 = (1 - u)²/2: the loss of Adaline.

    Beyond u = 1 its slope has the other sign: units are called back.

    References
    ----------
    Friesen and Domingos 2018 [friesen2018], authors' code.
    """

    def value(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return (1 - u)²/2."""
        return 0.5 * (1 - u).square()

    def slope(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1 - u."""
        return 1 - u


@dataclass(frozen=True, eq=False)
class Target:
    """What the calls of a step are asked for: targets t, how much each counts (w), and the width c of the loss.

    With x the step's input it stands for the layer loss sum w l(t x/c).
    """

    loss: LayerLoss
    t: Float[Tensor, "*n"]
    weight: Float[Tensor, "*n"]
    width: Float[Tensor, "#*n"] | float

    def value(self, x: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return the layer loss sum w l(t x/c), differentiable in x."""
        return (self.weight * self.loss.value(self.t * x / self.width)).sum()

    def slope(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return the derivative -w t psi(t x/c)/c of the layer loss, 0 wherever psi is 0 and w infinite."""
        psi = self.loss.slope(self.t * x / self.width)
        return torch.where(psi == 0, 0.0, -self.t * self.weight * psi / self.width)


@dataclass(frozen=True)
class TargetRule(BackwardRule):
    """Ask each step for the target that lowers the loss, and descend a layer loss towards it.

    With g = dL/dh for the sign h = 2 step - 1: t = -sign(g), weight w = |g|, layer loss sum w l(t x/c), so the pullback
    is g psi(-sign(g) x/c)/c. In one backward pass this is a rule like any other (`GradientDescent`); `TargetProp` takes
    it layer by layer. Where psi is even the targets vanish from it: the linear loss is `Identity`, the saturated hinge
    `Clipped`, the soft hinge `Sech2`, which are faster. Where psi is not, it depends on the sign of g.

    Parameters
    ----------
    loss
        The layer loss.
    width
        Width c > 0 of the loss, in units of the pre-activation; the area under psi(x/c)/c does not depend on it.
    relative
        "layer" or "channel" measures the width in standard deviations of the pre-activations of the batch (of the
        rank's rows), for networks without normalisation. A width cannot be learned by descent of the layer loss:
        where all targets are met it would shrink to 0, where none is, grow without end.
    weighted
        If not, all entries with g != 0 count alike, as much as the mean of |g|.

    References
    ----------
    Friesen and Domingos 2018, Sec. 3.2 [friesen2018]; the equality of both passes, widths and the equal weights' scale
    are ours.

    Examples
    --------
    >>> TargetRule(HingeLoss()).pullback(torch.tensor([-2.0, 2.0]), torch.ones(2))
    tensor([0.0000, 0.5000])
    """

    loss: LayerLoss = field(default_factory=SoftHingeLoss)
    width: float = 1.0
    relative: Literal["no", "layer", "channel"] = "no"
    weighted: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.width < float("inf"):
            raise ValueError(f"width must be positive and finite, got {self.width}")
        if self.relative not in ("no", "layer", "channel"):
            raise ValueError(f"relative is 'no', 'layer' or 'channel', got {self.relative!r}")

    def target(self, x: Float[Tensor, "*n"], grad: Float[Tensor, "*n"]) -> Target:
        """Return the target of a step from its input x and grad = dL/dstep, which is 2 dL/dsign."""
        size = 0.5 * grad.abs()
        weight = size if self.weighted else torch.where(grad == 0, 0.0, size.mean())
        return Target(self.loss, -grad.sign(), weight, self._width(x))

    def pullback(self, x: Float[Tensor, "*n"], grad: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return the slope of the layer loss at x."""
        wide = widened(x)
        return self.target(wide, grad.to(wide.dtype)).slope(wide).to(grad.dtype)

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """Those of the loss by the width, unless that is measured."""
        return tuple(self.width * z for z in self.loss.stand_ins) if self.relative == "no" else ()

    def _width(self, x: Tensor) -> Tensor | float:
        if self.relative == "no":
            return self.width
        across = [i for i in range(x.ndim) if i != 1 or self.relative == "layer"]
        spread = x.std(dim=across, correction=0, keepdim=True)
        return self.width * torch.where(spread > 0, spread, 1.0)
