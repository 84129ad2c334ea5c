"""Backward rules: what stands in for the derivative of a step. The forward pass is always the exact step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import frexp, inf, ldexp, nextafter

import torch
from jaxtyping import Float
from torch import Tensor

_mask = torch.ops.aten.threshold_backward  # (a, b, t) -> a where b > t, else 0

__all__ = ["BackwardRule", "Clipped", "Identity", "ReSTE", "Rectified", "Sech2", "Surrogate", "widened"]


class BackwardRule(ABC):
    """What a step does backwards: a frozen dataclass that maps dL/dstep to dL/dx.

    `pullback` must be positively homogeneous, pullback(x, c g) = c pullback(x, g) for c > 0, so that
    loss scaling in half precision is safe, and must never return NaN for finite x.
    """

    @abstractmethod
    def pullback(self, x: Float[Tensor, "*n"], grad: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return dL/dx from the step's input x and grad = dL/dstep, in the dtype of grad."""

    def at(self, progress: float) -> BackwardRule:
        """Return the rule for this share of the training, in [0, 1). A rule without a schedule returns itself."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is a share of the training in [0, 1], got {progress}")
        return self


class Surrogate(BackwardRule):
    """A rule that is the derivative h = C' of a smooth stand-in C of the step: pullback = grad * h(x).

    The curve runs from 0 to 1 in the Heaviside domain (a sign network doubles it). 16-bit inputs
    are computed in float32 and the result is cast back.
    """

    @abstractmethod
    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return C(x), the stand-in of step(x); C(-x) = 1 - C(x)."""

    @abstractmethod
    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return h(x) = C'(x), an even function, in a new tensor."""

    @property
    @abstractmethod
    def area(self) -> float:
        """Return the integral of h; the jump of the step is 1."""

    def pullback(self, x: Float[Tensor, "*n"], grad: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return grad * h(x), and 0 where h is 0 even for an infinite grad (inf * 0 would be NaN)."""
        h = self.derivative(widened(x))
        # where(|h| <= 0, 0, grad h) in one fused kernel; torch.where costs ten times as much on a CPU
        back: Tensor = _mask(grad.to(h.dtype) * h, h.abs_(), 0.0)
        return back.to(grad.dtype)


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
        _positive("width", self.width)

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + clip(x)/2."""
        return 0.5 + 0.5 * x.clamp(-self.width, self.width)

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 where |x| <= width, else 0."""
        return _window(x.new_full((), 0.5), x, self.width)

    def pullback(self, x: Float[Tensor, "*n"], grad: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return grad * h(x), the window laid on the gradient itself: two kernels instead of four."""
        wide = widened(x)
        return _window(0.5 * grad.to(wide.dtype), wide, self.width).to(grad.dtype)

    @property
    def area(self) -> float:
        """Return `width`."""
        return self.width


@dataclass(frozen=True)
class Sech2(Surrogate):
    """Differentiate a hyperbolic tangent: the soft-hinge rule, whose tails never vanish.

    Forward step(x); backward h = slope/2 sech²(slope x), C = (1 + tanh(slope x))/2, of area 1. Computed as
    4s(1-s) with s = sigmoid(-2|z|), since 1 - tanh² is 0 in float32 from |z| = 9 on.

    Parameters
    ----------
    slope
        Steepness, > 0; the peak of h is slope/2.

    References
    ----------
    Friesen and Domingos 2018, soft hinge (FTP-SH) [friesen2018]. Differs: halved for the 0/1 step.

    Examples
    --------
    >>> Sech2().derivative(torch.tensor([0.0, 1.0]))
    tensor([0.5000, 0.2100])
    """

    slope: float = 1.0

    def __post_init__(self) -> None:
        _positive("slope", self.slope)

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return (1 + tanh(slope x))/2, which is sigmoid(2 slope x)."""
        return torch.sigmoid(2 * self.slope * x)

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return slope/2 sech²(slope x)."""
        s = x.abs().mul_(-2 * self.slope).sigmoid_()  # at most 1/2, so that s - s² keeps its digits
        return s.addcmul(s, s, value=-1).mul_(2 * self.slope)

    @property
    def area(self) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class ReSTE(Surrogate):
    """Differentiate a power function that moves from the identity to the sign as its power grows.

    With f(x) = sign(x)|x|^(1/power): forward step(x); backward h = f'/2 for inner < |x| <= outer, the secant
    slope inner^(1/power - 1)/2 within, and 0 beyond. Area outer^(1/power).

    Parameters
    ----------
    power
        Power o >= 1: 1 is a box, large values approach the sign.
    inner
        Truncation m > 0 around zero, where f' would be infinite.
    outer
        Truncation t > inner, beyond which the gradient is 0.

    References
    ----------
    Wu et al. 2023, Eq. (5) and (9) [wu2023]; the primitive `curve` under the truncations is ours.
    Differs: constant power here, a sign-domain slope halved for the 0/1 step.

    Examples
    --------
    >>> ReSTE(power=2.0).derivative(torch.tensor([0.0, 0.25, 2.0]))
    tensor([1.5811, 0.5000, 0.0000])
    """

    power: float = 3.0
    inner: float = 0.1
    outer: float = 1.5

    def __post_init__(self) -> None:
        if not self.power >= 1:
            raise ValueError(f"the power of ReSTE is at least 1 (1 is the identity), got {self.power}")
        if not 0 < self.inner < self.outer:
            raise ValueError(f"ReSTE needs 0 < inner < outer, got inner={self.inner}, outer={self.outer}")

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return the primitive of the truncated derivative."""
        size = x.abs().clamp(self.inner, self.outer)
        root = torch.where(x.abs() <= self.inner, self._plateau * x.abs(), size ** (1 / self.power))
        return 0.5 + 0.5 * torch.sign(x) * root

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return the truncated derivative, halved."""
        decay = 1 / self.power - 1
        # the size whose slope is that of the plateau; with power 1 every size has slope 1
        flat = self.inner * self.power ** (1 / decay) if decay else self.inner
        size = torch.threshold(x.abs(), self.inner, flat).clamp_max_(self.outer)
        return _window(size.log_().mul_(decay).exp_().mul_(0.5 / self.power), x, self.outer)

    @property
    def area(self) -> float:
        """Return outer^(1/power)."""
        return float(self.outer ** (1 / self.power))

    @property
    def _plateau(self) -> float:
        return float(self.inner ** (1 / self.power - 1))


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


def widened(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return 16-bit numbers as float32, in which rules compute, others as they are.

    Examples
    --------
    >>> widened(torch.zeros(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _window(h: Tensor, x: Tensor, limit: float) -> Tensor:
    """Return h where |x| <= limit, else 0, in one fused kernel whose own window is open."""
    edge = _above(limit) if x.dtype == torch.float32 else nextafter(limit, inf)
    out: Tensor = torch.ops.aten.hardtanh_backward(h, x, -edge, edge)
    return out


def _above(limit: float) -> float:
    """Return the float32 after a number rounded to float32, by its bits (torch's compiler can trace it)."""
    fraction, exponent = frexp(limit)
    whole = round(ldexp(fraction, 24))  # round half to even, as float32 does
    return ldexp(whole + 1, exponent - 24)


def _positive(name: str, value: float) -> None:
    if not (value > 0 and value < float("inf")):
        raise ValueError(f"{name} must be positive and finite, got {value}")
