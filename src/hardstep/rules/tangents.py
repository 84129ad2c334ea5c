"""Rules that differentiate a hyperbolic tangent: the soft hinge, EDE, DSQ, SwishSign."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from hardstep.rules.surrogate import Surrogate, positive, window

__all__ = ["DSQ", "EDE", "Sech2", "SwishSign"]


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
        positive("slope", self.slope)

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
class EDE(Surrogate):
    """Differentiate a hyperbolic tangent that starts flat, as the identity, and ends steep: the error decay estimator.

    Forward step(x); backward h = (k t/2) sech²(t x) with t = temperature and k = max(1/t, 1), so that the slope at 0 of
    the sign never falls below 1; area k. As published t grows geometrically in training:
    `Annealed(EDE(1e-3), EDE(10.0), GeometricPath())`.

    Parameters
    ----------
    temperature
        Steepness t > 0.

    References
    ----------
    Qin et al. 2020, IR-Net [qin2020]. Differs: halved for the 0/1 step.

    Examples
    --------
    >>> EDE(0.1).derivative(torch.tensor([0.0, 5.0]))
    tensor([0.5000, 0.3932])
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        positive("temperature", self.temperature)

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return (1 + k tanh(t x))/2."""
        return 0.5 + 0.5 * self.area * torch.tanh(self.temperature * x)

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return (k t/2) sech²(t x)."""
        return Sech2(self.temperature).derivative(x).mul_(self.area)

    @property
    def area(self) -> float:
        """Return k = max(1/t, 1)."""
        return max(1 / self.temperature, 1.0)


@dataclass(frozen=True)
class DSQ(Surrogate):
    """Differentiate the soft quantiser of two levels: a hyperbolic tangent, rescaled to meet -1 and 1 at -1 and 1.

    Forward step(x); backward h = (s k/2) sech²(k x) for |x| <= 1, else 0, with s = 1/(1 - alpha) and
    k = log(2/alpha - 1)/2; area 1. The smaller alpha, the nearer the step. A learned clip range [-c, c] is the gain 1/c
    of a normalisation in front: the step does not change, and gradients are those of the curve at x/c.

    Parameters
    ----------
    alpha
        How far tanh(k x) stays below 1 at x = 1, in (0, 1).

    References
    ----------
    Gong et al. 2019 [gong2019]. Differs: two levels, alpha given or annealed, not learned; one clip range for
    both sides; halved for the 0/1 step.

    Examples
    --------
    >>> DSQ().derivative(torch.tensor([0.0, 1.0, 1.1]))
    tensor([0.6866, 0.2472, 0.0000])
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha of DSQ lies in (0, 1), got {self.alpha}")

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return (1 + s tanh(k x))/2 within, 0 and 1 beyond."""
        return 0.5 + 0.5 * torch.tanh(self._steepness * x.clamp(-1.0, 1.0)) / (1 - self.alpha)

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return (s k/2) sech²(k x) within, 0 beyond."""
        return window(Sech2(self._steepness).derivative(x).mul_(1 / (1 - self.alpha)), x, 1.0)

    @property
    def area(self) -> float:
        """Return 1."""
        return 1.0

    @property
    def _steepness(self) -> float:
        return 0.5 * log(2 / self.alpha - 1)


@dataclass(frozen=True)
class SwishSign(Surrogate):
    """Differentiate the derivative of the swish: a steep peak between shallow negative lobes.

    Forward step(x); backward h = (b/2)(2 - b x tanh(b x/2))/(1 + cosh(b x)) with b = slope; area 1, of which the lobes
    beyond b |x| = 2.4 take away a fifth. Computed from exp(-b|x|), since cosh overflows in half precision.

    Parameters
    ----------
    slope
        Steepness b > 0; the peak of h is b/2.

    References
    ----------
    Darabi et al. 2018, BNN+ [darabi2018]. Differs: halved for the 0/1 step.

    Examples
    --------
    >>> SwishSign().derivative(torch.tensor([0.0, 0.7]))
    tensor([ 2.5000, -0.1842])
    """

    slope: float = 5.0

    def __post_init__(self) -> None:
        positive("slope", self.slope)

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return s(1 + b x (1 - s)) with s = sigmoid(b x)."""
        u = (self.slope * x).clamp(-700.0, 700.0)  # beyond, s is 0 or 1, and 0 times infinity would be NaN
        return torch.sigmoid(u) * (1 + u * torch.sigmoid(-u))

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return b (2 - u (1 - e)/(1 + e)) e/(1 + e)² with u = b|x|, e = exp(-u)."""
        u = (self.slope * x.abs()).clamp_(max=700.0)
        e = torch.exp(-u)
        return self.slope * (2 - u * (1 - e) / (1 + e)) * e / (1 + e).square()

    @property
    def area(self) -> float:
        """Return 1."""
        return 1.0
