"""What an oracle is: a search for the half-space whose pattern d has the largest |V'd|, and what its bound proves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64

from hardstep.convex.patterns import pattern_keys, patterns

__all__ = ["Found", "Oracle", "Search", "checked_weights", "ranked", "rounding", "unique_patterns"]


@dataclass(frozen=True, eq=False)
class Found:
    """Half-spaces that an oracle found.

    Parameters
    ----------
    planes
        The hyperplanes, best first. No two have the same pattern on the data (nor complements of each other, where
        the weights add up to 0 and both score the same), and none has the empty pattern.
    scores
        |V'd|_2 of each, recomputed from `patterns`.
    bound
        At least max_d |V'd|_2 over the oracle's class, rounding included; inf where the oracle proves nothing.
    """

    planes: Float64[np.ndarray, "k d1"]
    scores: Float64[np.ndarray, " k"]
    bound: float


class Search(ABC):
    """An oracle prepared for one data matrix."""

    @abstractmethod
    def find(self, v: Float64[np.ndarray, "n c"], count: int, generator: np.random.Generator) -> Found:
        """Return at most `count` half-spaces with large |V'd|_2."""


class Oracle(ABC):
    """A search for max_d |V'd|_2 over the patterns d of a class of hyperplanes: a frozen dataclass of its settings.

    All that depends on the data alone is done once by `prepare`, so that a `find` per round costs little.
    """

    kind: ClassVar[str]
    """Name of the class, as certificates state it."""
    exact: ClassVar[bool]
    """Whether the bound is the largest score over the class, up to rounding."""
    proves: ClassVar[bool]
    """Whether the bound holds."""
    eps: float = 0.0
    """The least normalised margin of a half-space of the class; 0 where all are in it."""

    @abstractmethod
    def prepare(self, x: Float64[np.ndarray, "n d"]) -> Search:
        """Return the search on a data matrix without bias column."""


def checked_weights(v: Float64[np.ndarray, "n c"], rows: int, count: int) -> Float64[np.ndarray, "n c"]:
    """Return the weights if a search can run on them.

    Raises
    ------
    ValueError
        If they are not one row per row of the data, not finite, or no plane is asked for.
    """
    if len(v) != rows:
        raise ValueError(f"v has {len(v)} rows, the data {rows}; give one row of weights per row of data")
    if not np.isfinite(v).all():
        raise ValueError("v holds NaN or infinite weights; the solve before it diverged, lower its step or scale y")
    if count < 1:
        raise ValueError(f"count is the number of planes wanted and must be at least 1, got {count}")
    return v


def rounding(v: Float64[np.ndarray, "n c"]) -> float:
    """Return a bound on the rounding error of any sum of rows of v, in any order, in the 2-norm.

    Examples
    --------
    >>> 0 < rounding(np.ones((10, 1))) < 1e-12
    True
    """
    return float(4 * (len(v) + 8) * np.finfo(np.float64).eps * np.linalg.norm(v, axis=1).sum())


def unique_patterns(bits: Bool[np.ndarray, "k n"], *, complements: bool) -> list[int]:
    """Return the first index of each different row that is not empty, in order.

    Parameters
    ----------
    complements
        Count a row and its complement as one.

    Examples
    --------
    >>> rows = np.array([[0, 1], [0, 1], [1, 0], [0, 0]], bool)
    >>> unique_patterns(rows, complements=False), unique_patterns(rows, complements=True)
    ([0, 2], [0])
    """
    seen: set[bytes] = set()
    kept = []
    for index, key in enumerate(pattern_keys(bits.T, complements=complements)):
        if key not in seen and bits[index].any():
            seen.add(key)
            kept.append(index)
    return kept


def ranked(
    x: Float64[np.ndarray, "n d"],
    planes: Float64[np.ndarray, "k d1"],
    v: Float64[np.ndarray, "n c"],
    count: int,
    bound: float,
) -> Found:
    """Score planes by their bits on the data, drop equal patterns, and keep the `count` best.

    Examples
    --------
    >>> x, v = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    >>> ranked(x, np.array([[1.0, -0.5], [2.0, -0.5], [0.0, 1.0]]), v, 5, 3.0).scores
    array([3., 2.])
    """
    bits = patterns(x, planes)
    scores = np.linalg.norm(v.T @ bits.astype(np.float64), axis=0)
    order = np.argsort(-scores, kind="stable")
    total = np.linalg.norm(v.sum(axis=0))
    kept = order[unique_patterns(bits.T[order], complements=bool(total <= 2 * rounding(v)))][:count]
    largest = float(scores[kept[0]]) if len(kept) else 0.0
    return Found(planes[kept], scores[kept], max(bound, largest))
