"""Rules of other published estimators: the power function of ReSTE, a Fourier series."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, pi

import torch
from jaxtyping import Float
from torch import Tensor

from hardstep.rules.surrogate import Surrogate, positive, window

__all__ = ["Fourier", "ReSTE"]


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
    Differs: the power is constant here, `Annealed` lets it grow; a sign-domain slope halved for the 0/1 step.

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
        return window(size.log_().mul_(decay).exp_().mul_(0.5 / self.power), x, self.outer)

    @property
    def area(self) -> float:
        """Return outer^(1/power)."""
        return float(self.outer ** (1 / self.power))

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """One within the box and one beyond where the power is 1, else none."""
        return (0.0, inf) if self.power == 1 else ()

    @property
    def _plateau(self) -> float:
        return float(self.inner ** (1 / self.power - 1))


@dataclass(frozen=True)
class Fourier(Surrogate):
    """Differentiate the first terms of the Fourier series of a square wave: frequency domain approximation.

    Forward step(x); backward h = (2 w/pi) sum_{j=0..terms} cos((2j+1) w x) for |x| <= pi/(2w), else 0, with
    w = frequency. The window is ours: the series is periodic, so without it the gradient would return beyond. The peak,
    2 w (terms + 1)/pi, is high and has negative lobes beside it; the area tends to 1 with more terms.

    Parameters
    ----------
    terms
        Terms beyond the first, >= 0.
    frequency
        Frequency w > 0 of the square wave.

    References
    ----------
    Xu et al. 2021, FDA-BNN [xu2021]. Differs: the window; no noise adaptation module; halved for the
    0/1 step.

    Examples
    --------
    >>> Fourier(terms=2).derivative(torch.tensor([0.0, 0.25, 1.5]))
    tensor([3.0000, 0.9239, 0.0000])
    """

    terms: int = 10
    frequency: float = pi / 2

    def __post_init__(self) -> None:
        positive("frequency", self.frequency)
        if self.terms < 0:
            raise ValueError(f"terms counts those beyond the first and is at least 0, got {self.terms}")

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + (2/pi) sum sin((2j+1) w x)/(2j+1), constant beyond the window."""
        angle = self.frequency * x.clamp(-self._limit, self._limit)
        waves = (torch.sin((2 * j + 1) * angle) / (2 * j + 1) for j in range(self.terms + 1))
        return 0.5 + 2 / pi * sum(waves, torch.zeros_like(x))

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return the sum of cosines within the window, by cos((2j+3) a) = 2 cos(2a) cos((2j+1) a) - cos((2j-1) a)."""
        angle = self.frequency * x.clamp(-self._limit, self._limit)
        before = wave = torch.cos(angle)
        total, twice = wave.clone(), 2 * torch.cos(2 * angle)
        for _ in range(self.terms):
            before, wave = wave, twice * wave - before
            total += wave
        return window(total.mul_(2 * self.frequency / pi), x, self._limit)

    @property
    def area(self) -> float:
        """Return (4/pi) sum (-1)^j/(2j+1)."""
        return 4 / pi * sum(1 / (2 * j + 1) * (1 - 2 * (j % 2)) for j in range(self.terms + 1))

    @property
    def _limit(self) -> float:
        return pi / (2 * self.frequency)
