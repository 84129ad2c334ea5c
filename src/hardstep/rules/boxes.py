"""Rules that pass the gradient on within a window, or everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from hardstep.rules.surrogate import BackwardRule, Surrogate, positive, widened, window

__all__ = ["Clipped", "Identity", "LeakyBox", "Rectified", "Trapezoid"]


@dataclass(frozen=True)
class Identity(Surrogate):
    """Pass the gradient on everywhere: the plain straight-through estimator.

    Forward step(x); backward h = 1/2 (g = 1 in a sign network), C = 1/2 + x/2, of infinite area.

    References
    ----------
    Bengio, Léonard, Courville 2013, Sec. 4 [bengio2013]. Differs: h is half of the sign-domain slope.

    Examples
    --------
    >>> Identity().derivative(torch.tensor([-3.0, 0.0]))
    tensor([0.5000, 0.5000])
    """

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + x/2."""
        return 0.5 + 0.5 * x

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2."""
        return torch.full_like(x, 0.5)

    @property
    def area(self) -> float:
        """Return infinity."""
        return float("inf")

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """Any number."""
        return (0.0,)


@dataclass(frozen=True)
class Clipped(Surrogate):
    """Pass the gradient on within a closed window: the clipped (saturated) straight-through estimator.

    Forward step(x); backward h = 1/2 [|x| <= width], C = 1/2 + clip(x, -width, width)/2, of area `width`.

    Parameters
    ----------
    width
        Half-width of the window, > 0, in units of the pre-activation.

    References
    ----------
    Courbariaux, Hubara et al. 2016, Eq. (4) [courbariaux2016]; equals the saturated hinge of
    Friesen and Domingos 2018 [friesen2018].

    Examples
    --------
    >>> Clipped().derivative(torch.tensor([-1.5, -1.0, 0.0]))
    tensor([0.0000, 0.5000, 0.5000])
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        positive("width", self.width)

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + clip(x)/2."""
        return 0.5 + 0.5 * x.clamp(-self.width, self.width)

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 where |x| <= width, else 0."""
        return window(x.new_full((), 0.5), x, self.width)

    def pullback(self, x: Float[Tensor, "*n"], grad: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return grad * h(x), the window laid on the gradient itself: two kernels instead of four."""
        wide = widened(x)
        return window(0.5 * grad.to(wide.dtype), wide, self.width).to(grad.dtype)

    @property
    def area(self) -> float:
        """Return `width`."""
        return self.width

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """One within the window and one beyond."""
        return (0.0, inf)


@dataclass(frozen=True)
class Rectified(BackwardRule):
    """Pass the gradient on where x > 0: the derivative of the ReLU in the place of the step's.

    Forward step(x); backward 1[x > 0], for the 0/1 step as published. No surrogate: neither even nor of finite area.
    In a sign network its mean over inputs of either sign is that of `Identity`.

    References
    ----------
    Yin et al. 2019, Sec. 2, vanilla ReLU [yin2019].

    Examples
    --------
    >>> Rectified().pullback(torch.tensor([-1.0, 0.0, 2.0]), torch.ones(3))
    tensor([0., 0., 1.])
    """

    def pullback(self, x: Float[Tensor, "*n"], grad: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return grad where x > 0, else 0."""
        return torch.where(x > 0, grad, 0.0)

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """One at most 0 and one above."""
        return (0.0, 1.0)


@dataclass(frozen=True)
class Trapezoid(Surrogate):
    """Pass the gradient on within a window whose flanks fall off linearly.

    Forward step(x); backward h = 1/2 for |x| <= inner, falling to 0 at outer; area (inner + outer)/2, by default 3/2,
    above the jump of the step, as published.

    Parameters
    ----------
    inner
        Half-width of the flat part, >= 0.
    outer
        Where h becomes 0, > inner.

    Examples
    --------
    >>> Trapezoid().derivative(torch.tensor([0.0, 1.5, 2.5]))
    tensor([0.5000, 0.2500, 0.0000])
    """

    inner: float = 1.0
    outer: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.inner < self.outer < float("inf"):
            raise ValueError(f"a trapezoid needs 0 <= inner < outer, got inner={self.inner}, outer={self.outer}")

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return the primitive: linear, then parabolic, then constant."""
        size, flank = x.abs().clamp(max=self.outer), self.outer - self.inner
        fallen = (size - self.inner).clamp(min=0.0).square() / (2 * flank)
        return 0.5 + 0.5 * torch.sign(x) * (size - fallen)

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return clip((outer - |x|)/(outer - inner), 0, 1)/2."""
        return x.abs().neg_().add_(self.outer).mul_(1 / (self.outer - self.inner)).clamp_(0.0, 1.0).mul_(0.5)

    @property
    def area(self) -> float:
        """Return (inner + outer)/2."""
        return (self.inner + self.outer) / 2


@dataclass(frozen=True)
class LeakyBox(Surrogate):
    """Pass the gradient on within a closed window, and a small share of it beyond: no unit is ever dead.

    Forward step(x); backward h = 1/(2 width) for |x| <= width, else leak. Area 1 without a leak, else infinite.

    Parameters
    ----------
    width
        Half-width of the window, > 0.
    leak
        The slope beyond it, >= 0.

    Examples
    --------
    >>> LeakyBox().derivative(torch.tensor([0.0, 5.0]))
    tensor([0.5000, 0.0100])
    """

    width: float = 1.0
    leak: float = 0.01

    def __post_init__(self) -> None:
        positive("width", self.width)
        if not 0 <= self.leak < float("inf"):
            raise ValueError(f"the leak is a slope, at least 0 and finite, got {self.leak}")

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + clip(x)/(2 width) + leak (x - clip(x))."""
        inside = x.clamp(-self.width, self.width)
        return 0.5 + inside / (2 * self.width) + self.leak * (x - inside)

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/(2 width) where |x| <= width, else leak."""
        height = 1 / (2 * self.width)
        return window(x.new_full((), height - self.leak), x, self.width).add_(self.leak)

    @property
    def area(self) -> float:
        """Return 1, or infinity with a leak."""
        return float("inf") if self.leak else 1.0

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """One within the window and one beyond."""
        return (0.0, inf)
