"""Penalties on weights, each with its value and its proximal map; ties of a threshold go to 0."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["L0", "L1", "L2", "GroupL0", "NoPenalty", "Penalty"]


class Penalty(ABC):
    """A penalty P(w) with prox(v, step) = argmin_w P(w) + |w - v|²/(2 step)."""

    convex: ClassVar[bool]
    """Whether P is convex, so that the prox is single-valued and non-expansive."""

    @abstractmethod
    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return P(w)."""

    @abstractmethod
    def prox(self, v: Float[Tensor, "*n"], step: float) -> Float[Tensor, "*n"]:
        """Return a minimiser of P(w) + |w - v|²/(2 step)."""


@dataclass(frozen=True)
class NoPenalty(Penalty):
    """No penalty: P = 0, prox(v) = v.

    Examples
    --------
    >>> NoPenalty().prox(torch.tensor([2.0]), step=1.0)
    tensor([2.])
    """

    convex: ClassVar[bool] = True

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return 0."""
        return torch.zeros((), dtype=w.dtype, device=w.device)

    def prox(self, v: Float[Tensor, "*n"], step: float) -> Float[Tensor, "*n"]:
        """Return v."""
        return v


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
    convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _not_negative(self.strength)

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return strength/2 |w|²."""
        return 0.5 * self.strength * w.square().sum()

    def prox(self, v: Float[Tensor, "*n"], step: float) -> Float[Tensor, "*n"]:
        """Shrink by a factor."""
        return v / (1 + step * self.strength)


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
    convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _not_negative(self.strength)

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return strength |w|_1."""
        return self.strength * w.abs().sum()

    def prox(self, v: Float[Tensor, "*n"], step: float) -> Float[Tensor, "*n"]:
        """Move towards 0 by strength * step, at most to 0."""
        return torch.nn.functional.softshrink(v, self.strength * step)


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
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _not_negative(self.strength)

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return strength times the number of nonzeros."""
        return self.strength * (w != 0).sum().to(w.dtype)

    def prox(self, v: Float[Tensor, "*n"], step: float) -> Float[Tensor, "*n"]:
        """Keep what is worth its price: |v| > sqrt(2 strength step)."""
        return torch.where(v.abs() > (2 * self.strength * step) ** 0.5, v, 0.0)


@dataclass(frozen=True)
class GroupL0(Penalty):
    """Number of nonzero rows or columns: P = strength |w|_2,0, prox = hard thresholding of their Euclidean norms.

    Row j holds the incoming weights of unit j, column k the outgoing weights of unit k below (in the first layer:
    of an input feature; of an image's channel). Weights of one dimension are groups of one.

    Parameters
    ----------
    strength
        Price of a group, >= 0; 0 turns it off.
    columns
        Whether the groups are columns (dimension 1) or rows (dimension 0).

    References
    ----------
    Zhang et al. 2023 [zhang2023] penalise by l2,0.

    Examples
    --------
    >>> GroupL0(0.5).prox(torch.tensor([[3.0, 0.1], [4.0, 0.1]]), step=1.0)
    tensor([[3., 0.],
            [4., 0.]])
    """

    strength: float = 1e-4
    columns: bool = True
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _not_negative(self.strength)

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return strength times the number of groups that are not 0."""
        return self.strength * (self._squares(w) > 0).sum().to(w.dtype)

    def prox(self, v: Float[Tensor, "*n"], step: float) -> Float[Tensor, "*n"]:
        """Keep the groups that are worth their price: |v_g| > sqrt(2 strength step)."""
        return torch.where(self._squares(v) > 2 * self.strength * step, v, 0.0)

    def _squares(self, w: Tensor) -> Tensor:
        """Return the squared norm of each group, in a shape that broadcasts against w."""
        if w.ndim < 2:
            return w.square()
        group = int(self.columns)
        return w.square().sum(dim=[i for i in range(w.ndim) if i != group], keepdim=True)


def _not_negative(strength: float) -> None:
    if not (strength >= 0 and strength < float("inf")):
        raise ValueError(f"strength must be finite and at least 0 (0 turns the penalty off), got {strength}")
