"""Rules of spiking networks, by how their tails fall: powers, exponentials, Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from hardstep.rules.surrogate import Surrogate, positive

__all__ = ["ArcTan", "Gaussian", "Laplace", "LogTail", "PseudoSpike"]


@dataclass(frozen=True)
class PseudoSpike(Surrogate):
    """Differentiate a curve whose tails fall like a power: the q-pseudo-spike; with exponent 2 the fast sigmoid.

    Forward step(x); backward h = p (1 + 2p|x|/(q - 1))^-q with p = peak, q = exponent; area 1. With q = 2 and k = 2p
    it is (k/2)/(1 + k|x|)², the fast sigmoid, SoftSign or SuperSpike rule, which authors scale in different ways:
    1/(1 + k|x|)² is `Scaled(PseudoSpike(peak=k/2), 2/k)`.

    Parameters
    ----------
    peak
        Value of h at 0, > 0.
    exponent
        Power q > 1 of the tails: small for heavy ones.

    References
    ----------
    Herranz-Celotti and Rouat 2022 [herranz2022]; Zenke and Ganguli 2018, SuperSpike [zenke2018], q = 2.
    Differs: area 1 at every peak.

    Examples
    --------
    >>> PseudoSpike().derivative(torch.tensor([0.0, 0.5]))
    tensor([1.0000, 0.2500])
    """

    peak: float = 1.0
    exponent: float = 2.0

    def __post_init__(self) -> None:
        positive("peak", self.peak)
        if not 1 < self.exponent < float("inf"):
            raise ValueError(f"the tails of a pseudo-spike need an exponent above 1, got {self.exponent}")

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + sign(x)(1 - (1 + 2p|x|/(q - 1))^(1 - q))/2."""
        return 0.5 + 0.5 * torch.sign(x) * (1 - self._base(x).pow(1 - self.exponent))

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return p (1 + 2p|x|/(q - 1))^-q."""
        return self._base(x).pow_(-self.exponent).mul_(self.peak)

    def _base(self, x: Tensor) -> Tensor:
        return x.abs().mul_(2 * self.peak / (self.exponent - 1)).add_(1.0)

    @property
    def area(self) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class ArcTan(Surrogate):
    """Differentiate an arc tangent, whose tails fall like 1/x².

    Forward step(x); backward h = (a/2)/(1 + (pi a x/2)²) with a = slope; area 1.

    Parameters
    ----------
    slope
        Steepness a > 0; the peak of h is a/2.

    References
    ----------
    Fang et al. 2021 [fang2021].

    Examples
    --------
    >>> ArcTan().derivative(torch.tensor([0.0, 1.0]))
    tensor([1.0000, 0.0920])
    """

    slope: float = 2.0

    def __post_init__(self) -> None:
        positive("slope", self.slope)

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + arctan(pi a x/2)/pi."""
        return 0.5 + torch.atan(pi / 2 * self.slope * x) / pi

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return (a/2)/(1 + (pi a x/2)²)."""
        return (x * (pi / 2 * self.slope)).square_().add_(1.0).reciprocal_().mul_(self.slope / 2)

    @property
    def area(self) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Gaussian(Surrogate):
    """Differentiate an error function: a bell curve.

    Forward step(x); backward h = (a/sqrt(pi)) exp(-a²x²) with a = slope; area 1.

    Parameters
    ----------
    slope
        Steepness a > 0; the standard deviation of the bell is 1/(a sqrt(2)).

    References
    ----------
    Wu et al. 2018, STBP [wu2018].

    Examples
    --------
    >>> Gaussian().derivative(torch.tensor([0.0, 1.0]))
    tensor([0.5642, 0.2076])
    """

    slope: float = 1.0

    def __post_init__(self) -> None:
        positive("slope", self.slope)

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return (1 + erf(a x))/2."""
        return 0.5 + 0.5 * torch.erf(self.slope * x)

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return (a/sqrt(pi)) exp(-a²x²)."""
        return (x * self.slope).square_().neg_().exp_().mul_(self.slope / sqrt(pi))

    @property
    def area(self) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Laplace(Surrogate):
    """Differentiate two exponentials that meet at 0.

    Forward step(x); backward h = (a/2) exp(-a|x|) with a = slope; area 1.

    Parameters
    ----------
    slope
        Rate a > 0; the peak of h is a/2.

    References
    ----------
    Shrestha and Orchard 2018, SLAYER [shrestha2018].

    Examples
    --------
    >>> Laplace().derivative(torch.tensor([0.0, 1.0]))
    tensor([0.5000, 0.1839])
    """

    slope: float = 1.0

    def __post_init__(self) -> None:
        positive("slope", self.slope)

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + sign(x)(1 - exp(-a|x|))/2."""
        return 0.5 - 0.5 * torch.sign(x) * torch.expm1(-self.slope * x.abs())

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return (a/2) exp(-a|x|)."""
        return x.abs().mul_(-self.slope).exp_().mul_(self.slope / 2)

    @property
    def area(self) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class LogTail(Surrogate):
    """Differentiate a logarithm: tails so heavy that every unit keeps a gradient.

    Forward step(x); backward h = a/(1 + a|x|) with a = slope; the curve grows without bound, the area is infinite.

    Parameters
    ----------
    slope
        Peak a > 0 of h.

    Examples
    --------
    >>> LogTail().derivative(torch.tensor([0.0, 1.0]))
    tensor([1.0000, 0.5000])
    """

    slope: float = 1.0

    def __post_init__(self) -> None:
        positive("slope", self.slope)

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + sign(x) log(1 + a|x|)."""
        return 0.5 + torch.sign(x) * torch.log1p(self.slope * x.abs())

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return a/(1 + a|x|)."""
        return x.abs().mul_(self.slope).add_(1.0).reciprocal_().mul_(self.slope)

    @property
    def area(self) -> float:
        """Return infinity."""
        return float("inf")
