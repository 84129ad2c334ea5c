"""Rules whose curve is made of parabolas: triangles (ApproxSign) and the rule of RBNN."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from hardstep.rules.surrogate import Surrogate, positive

__all__ = ["RBNN", "ApproxSign"]


@dataclass(frozen=True)
class ApproxSign(Surrogate):
    """Differentiate two parabolas: a triangle as wide as it has area 1.

    Forward step(x); backward h = max(0, a - a²|x|) with a = slope, C = 1/2 + sign(x)(1 - max(0, 1 - a|x|)²)/2; area 1.

    Parameters
    ----------
    slope
        Peak a > 0 of h, which is 0 from |x| = 1/a on.

    References
    ----------
    Liu et al. 2018, Bi-Real Net [liu2018], a = 1; Bellec et al. 2018 [bellec2018], the triangle of
    spiking networks. Differs: halved for the 0/1 step.

    Examples
    --------
    >>> ApproxSign().derivative(torch.tensor([0.0, 0.25, 2.0]))
    tensor([1.0000, 0.7500, 0.0000])
    """

    slope: float = 1.0

    def __post_init__(self) -> None:
        positive("slope", self.slope)

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + sign(x)(1 - max(0, 1 - a|x|)²)/2."""
        rest = (1 - self.slope * x.abs()).clamp(min=0.0)
        return 0.5 + 0.5 * torch.sign(x) * (1 - rest.square())

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return max(0, a - a²|x|)."""
        return x.abs().mul_(-(self.slope**2)).add_(self.slope).clamp_(min=0.0)

    @property
    def area(self) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class RBNN(Surrogate):
    """Differentiate two parabolas that start flat and end steep: the training-aware rule of rotated networks.

    Forward step(x); backward h = (k/2) max(0, sqrt(2) t - t²|x|) with t = temperature and k = max(1/t, 1); area k.
    As published t grows geometrically in training: `Annealed(RBNN(1e-2), RBNN(10.0), GeometricPath())`.

    Parameters
    ----------
    temperature
        Steepness t > 0.

    References
    ----------
    Lin et al. 2020, RBNN [lin2020]. Differs: halved for the 0/1 step; no rotation of the weights.

    Examples
    --------
    >>> RBNN().derivative(torch.tensor([0.0, 1.0, 2.0]))
    tensor([0.7071, 0.2071, 0.0000])
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        positive("temperature", self.temperature)

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + k times what the triangle adds to it."""
        return 0.5 + self.area * (self._triangle.curve(x) - 0.5)

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return (k/2) max(0, sqrt(2) t - t²|x|)."""
        return self._triangle.derivative(x).mul_(self.area)

    @property
    def area(self) -> float:
        """Return k = max(1/t, 1)."""
        return max(1 / self.temperature, 1.0)

    @property
    def _triangle(self) -> ApproxSign:
        return ApproxSign(self.temperature / sqrt(2))
