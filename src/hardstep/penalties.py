"""Penalties on weights, each with its value and its proximal map; ties of a threshold go to 0."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["L0", "L1", "L2", "NoPenalty", "Penalty", "Separable", "TransformedL1", "above", "not_negative"]


class Penalty(ABC):
    """A penalty P(w) with prox(v, step) = argmin_w P(w) + |w - v|²/(2 step).

    Steps may be a number or a tensor that broadcasts against v, one for each entry.
    """

    norm: ClassVar[bool] = False
    """Whether P grows in proportion to |w| near 0, as a norm does: a group then weighs the root of its size, else 1."""

    @property
    def separable(self) -> bool:
        """Whether P is a sum over the entries (of groups: over the groups)."""
        return True

    @property
    @abstractmethod
    def convex(self) -> bool:
        """Whether P is convex, so that the prox is single-valued and non-expansive."""

    @abstractmethod
    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return P(w)."""

    @abstractmethod
    def prox(self, v: Float[Tensor, "*n"], step: float | Tensor) -> Float[Tensor, "*n"]:
        """Return a minimiser of P(w) + |w - v|²/(2 step)."""

    @abstractmethod
    def eased(self, share: float) -> Penalty:
        """Return the penalty as it is this far, from 0 (no penalty) to 1, on the way to its full strength."""


@dataclass(frozen=True)
class NoPenalty(Penalty):
    """No penalty: P = 0, prox(v) = v.

    Examples
    --------
    >>> NoPenalty().prox(torch.tensor([2.0]), step=1.0)
    tensor([2.])
    """

    convex = True

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return 0."""
        return w.new_zeros(())

    def prox(self, v: Float[Tensor, "*n"], step: float | Tensor) -> Float[Tensor, "*n"]:
        """Return v."""
        return v

    def eased(self, share: float) -> NoPenalty:
        """Return itself."""
        return self


@dataclass(frozen=True)
class L2(Penalty):
    """Weight decay: P = strength/2 |w|², prox(v) = v/(1 + step strength).

    Parameters
    ----------
    strength
        Weight of the penalty, >= 0; 0 turns it off.

    Examples
    --------
    >>> L2(1.0).prox(torch.tensor([2.0]), step=1.0)
    tensor([1.])
    """

    strength: float = 1e-4
    convex = True

    def __post_init__(self) -> None:
        not_negative("strength", self.strength)

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return strength/2 |w|²."""
        return 0.5 * self.strength * w.square().sum()

    def prox(self, v: Float[Tensor, "*n"], step: float | Tensor) -> Float[Tensor, "*n"]:
        """Shrink by a factor."""
        return v / (1 + step * self.strength)

    def eased(self, share: float) -> L2:
        """Return it with this share of the strength."""
        return replace(self, strength=share * self.strength)


@dataclass(frozen=True)
class L1(Penalty):
    """Sum of absolute values: P = strength |w|_1, prox = soft thresholding at strength * step.

    Parameters
    ----------
    strength
        Weight of the penalty, >= 0; 0 turns it off.

    Examples
    --------
    >>> L1(0.5).prox(torch.tensor([2.0]), step=1.0)
    tensor([1.5000])
    """

    strength: float = 1e-4
    norm: ClassVar[bool] = True
    convex = True

    def __post_init__(self) -> None:
        not_negative("strength", self.strength)

    @classmethod
    def at(cls, threshold: float) -> L1:
        """Return the penalty whose prox at step 1 has this threshold."""
        return cls(threshold)

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return strength |w|_1."""
        return self.strength * w.abs().sum()

    def prox(self, v: Float[Tensor, "*n"], step: float | Tensor) -> Float[Tensor, "*n"]:
        """Move towards 0 by strength * step, at most to 0."""
        return _soft(v, self.strength * step)

    def eased(self, share: float) -> L1:
        """Return it with this share of the threshold."""
        return replace(self, strength=share * self.strength)


@dataclass(frozen=True)
class L0(Penalty):
    """Number of nonzero weights: P = strength |w|_0, prox = hard thresholding at sqrt(2 strength step).

    Parameters
    ----------
    strength
        Weight of the penalty, >= 0; 0 turns it off.

    References
    ----------
    Dinh et al. 2020, Sec. 2 [dinh2020].

    Examples
    --------
    >>> L0(0.5).prox(torch.tensor([1.0, 1.5]), step=1.0)
    tensor([0.0000, 1.5000])
    """

    strength: float = 1e-4
    convex = False

    def __post_init__(self) -> None:
        not_negative("strength", self.strength)

    @classmethod
    def at(cls, threshold: float) -> L0:
        """Return the penalty whose prox at step 1 has this threshold."""
        return cls(threshold**2 / 2)

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return strength times the number of nonzeros."""
        return self.strength * (w != 0).sum().to(w.dtype)

    def prox(self, v: Float[Tensor, "*n"], step: float | Tensor) -> Float[Tensor, "*n"]:
        """Keep what is worth its price: |v| > sqrt(2 strength step)."""
        return above(v, (2 * self.strength * step) ** 0.5)

    def eased(self, share: float) -> L0:
        """Return it with this share of the threshold."""
        return replace(self, strength=share**2 * self.strength)


@dataclass(frozen=True)
class TransformedL1(Penalty):
    """Transformed l1: P = strength sum_i (a + 1)|w_i|/(a + |w_i|), between l0 (a -> 0) and l1 (a -> infinity).

    With mu = strength * step the prox is 0 up to a threshold t, beyond it the largest root of a cubic:
    t = mu (a + 1)/a where mu <= a²/(2(a + 1)), and the map is continuous; else t = sqrt(2 mu (a + 1)) - a/2, and it
    jumps. Computed in float64.

    Parameters
    ----------
    strength
        Weight of the penalty, >= 0; 0 turns it off.
    a
        Shape, 1e-6 to 1e6.

    References
    ----------
    Zhang and Xin 2017 [zhang2017]: thresholds and root. Differs: much public code thresholds at mu in both
    regimes, which is right for large a only.

    Examples
    --------
    >>> TransformedL1(0.5, a=1.0).prox(torch.tensor([0.9, 1.1]), step=1.0)
    tensor([0.0000, 0.7868])
    """

    strength: float = 1e-4
    a: float = 1.0
    norm: ClassVar[bool] = True
    convex = False

    def __post_init__(self) -> None:
        not_negative("strength", self.strength)
        if not 1e-6 <= self.a <= 1e6:
            raise ValueError(f"a must be 1e-6 to 1e6 (use L0 or L1 beyond), got {self.a}")

    @classmethod
    def at(cls, threshold: float, *, a: float = 1.0) -> TransformedL1:
        """Return the penalty whose prox at step 1 has this threshold."""
        if threshold <= a / 2:
            return cls(threshold * a / (a + 1), a)
        return cls((threshold + a / 2) ** 2 / (2 * (a + 1)), a)

    def threshold(self, step: float | Tensor = 1.0) -> Tensor:
        """Return up to which |v| the prox is 0."""
        mu, a = torch.as_tensor(self.strength * step, dtype=torch.float64), self.a
        continuous, jumping = mu * (a + 1) / a, (2 * mu * (a + 1)).sqrt() - a / 2
        return torch.where(mu <= a**2 / (2 * (a + 1)), continuous, jumping)

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return strength sum (a + 1)|w|/(a + |w|)."""
        size = w.abs()
        return self.strength * ((self.a + 1) * size / (self.a + size)).sum()

    def prox(self, v: Float[Tensor, "*n"], step: float | Tensor) -> Float[Tensor, "*n"]:
        """Return 0 up to the threshold, beyond it the root that is the minimum."""
        a, size = self.a, v.abs().double()
        mu, limit = self.strength * torch.as_tensor(step, device=v.device).double(), self.threshold(step).to(v.device)
        cosine = 1 - 13.5 * mu * a * (a + 1) / (a + size) ** 3
        angle = torch.arccos(cosine.clamp(-1, 1))
        root = 2 / 3 * (a + size) * torch.cos(angle / 3) - 2 * a / 3 + size / 3
        return torch.where(size > limit, v.sign() * root.clamp(min=0).minimum(size), 0.0).to(v.dtype)

    def eased(self, share: float) -> TransformedL1:
        """Return it with this share of the threshold."""
        return self.at(share * float(self.threshold()), a=self.a)


@dataclass(frozen=True)
class Separable(Penalty):
    """Any sum of l0, l1, weight decay and a box: P = sum_i l0 [w_i != 0] + l1 |w_i| + l2/2 w_i² where |w_i| <= limit.

    The prox is exact: the best nonzero point is soft thresholding, shrinking and clipping in this order; it is kept if
    it gains more than its price.

    Parameters
    ----------
    l0
        Price of a nonzero weight, >= 0.
    l1
        Weight of |w|, >= 0.
    l2
        Weight of w²/2, >= 0.
    limit
        Half-width of the box, > 0; infinite for none.

    Examples
    --------
    >>> Separable(l1=0.5, limit=1.0).prox(torch.tensor([0.4, 1.0, 3.0]), step=1.0)
    tensor([0.0000, 0.5000, 1.0000])
    """

    l0: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    limit: float = inf

    def __post_init__(self) -> None:
        for name, strength in (("l0", self.l0), ("l1", self.l1), ("l2", self.l2)):
            not_negative(name, strength)
        if not self.limit > 0:
            raise ValueError(f"limit is the half-width of the box and must be positive, got {self.limit}")

    @property
    def convex(self) -> bool:
        """Whether there is no l0."""
        return self.l0 == 0

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return the sum, infinite outside the box."""
        smooth = self.l1 * w.abs() + 0.5 * self.l2 * w.square()
        inside = torch.where(w.abs() <= self.limit, smooth + self.l0 * (w != 0), inf)
        return inside.sum()

    def prox(self, v: Float[Tensor, "*n"], step: float | Tensor) -> Float[Tensor, "*n"]:
        """Return the best nonzero point where it is worth its price, else 0."""
        best = (_soft(v, self.l1 * step) / (1 + self.l2 * step)).clamp(-self.limit, self.limit)
        gain = best * (v - 0.5 * best * (1 + self.l2 * step)) - self.l1 * step * best.abs()
        return best * (gain > self.l0 * step)

    def eased(self, share: float) -> Separable:
        """Return it with this share of l1 and of the threshold of l0; decay and box stay."""
        return replace(self, l0=share**2 * self.l0, l1=share * self.l1)


def not_negative(name: str, strength: float) -> None:
    """Raise a ValueError unless a strength is finite and at least 0."""
    if not (strength >= 0 and isfinite(strength)):
        raise ValueError(f"{name} must be finite and at least 0 (0 turns the penalty off), got {strength}")


def above(v: Tensor, threshold: float | Tensor) -> Tensor:
    """Return v where |v| is above the threshold, else 0."""
    if isinstance(threshold, Tensor):
        return torch.where(v.abs() > threshold, v, 0.0)
    out: Tensor = torch.ops.aten.threshold_backward(v, v.abs(), threshold)
    return out


def _soft(v: Tensor, threshold: float | Tensor) -> Tensor:
    """Move every entry towards 0 by the threshold, at most to 0."""
    if isinstance(threshold, Tensor):
        return v - v.clamp(-threshold, threshold)
    return torch.nn.functional.softshrink(v, threshold)
