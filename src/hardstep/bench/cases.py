"""One layer as a task, drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hardstep.hard_layers import convolve

__all__ = ["Case", "Draw", "binary", "eight_bit", "gaussian", "made", "ternary"]

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.int64]]
"""Draws weights of a shape."""


@dataclass(frozen=True, eq=False)
class Case:
    """One layer: codes x up to `top`, (n, k) or (n, c, h, w); weight (m, k) or (m, c, 3, 3) with padding 1."""

    x: NDArray[np.uint8]
    weight: NDArray[np.int64]
    threshold: NDArray[np.int64]
    top: int = 1

    @property
    def conv(self) -> bool:
        """Whether it is a convolution."""
        return self.x.ndim == 4

    @property
    def operations(self) -> int:
        """Multiplications and additions of one forward, counted apart."""
        return 2 * self.x.size * self.weight.size // int(self.x.shape[1])

    @cached_property
    def sums(self) -> NDArray[np.int64]:
        """The right sums, (n, m) or (n, m, h, w)."""
        return self.sums_of(self.x)

    @property
    def fires(self) -> NDArray[np.bool_]:
        """Where the sums are above the thresholds."""
        return self.sums > (self.threshold[:, None, None] if self.conv else self.threshold)

    def sums_of(self, x: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the sums of other codes."""
        if self.conv:
            return convolve(x.astype(np.int64), self.weight, (1, 1), (1, 1))
        return convolve(x[..., None, None].astype(np.int64), self.weight[..., None, None], (1, 1), (0, 0))[..., 0, 0]


def binary(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Weights -1 and +1."""
    return generator.choice(np.array([-1, 1]), shape)


def ternary(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Weights -1, 0 and +1, half of them 0."""
    return generator.choice(np.array([-1, 0, 0, 1]), shape)


def eight_bit(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Normal weights of 8 bits."""
    return gaussian(8, shape, generator)


def gaussian(bits: int, shape: tuple[int, ...], seed: int | np.random.Generator = 0) -> NDArray[np.int64]:
    """Weights with 4 standard deviations at the largest that so many bits hold."""
    top = 2 ** (bits - 1) - 1
    drawn = np.random.default_rng(seed).normal(0, top / 4, shape)
    return np.clip(np.rint(drawn), -top, top).astype(np.int64)


def made(shape: tuple[int, ...], units: int, *, draw: Draw = binary, top: int = 1, seed: int = 0) -> Case:
    """A case drawn at random; half of the codes are 0 if top is 1, thresholds near the middle of the sums.

    Examples
    --------
    >>> case = made((2, 8), 3, draw=ternary)
    >>> case.sums.shape, case.operations
    ((2, 3), 96)
    """
    generator = np.random.default_rng(seed)
    x = generator.integers(0, top + 1, shape, dtype=np.uint8)
    weight = draw(generator, (units, shape[1], *[3] * (len(shape) - 2)))
    middle = weight.reshape(units, -1).sum(axis=1) * top // 2
    return Case(x, weight, middle + generator.integers(-9, 10, units), top)
