"""All hyperplanes in any dimension, for few enough rows: exact enumeration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import comb
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from hardstep.convex.lattice import independent_columns, lattice
from hardstep.convex.oracles import Found, Oracle, Search, checked_weights, ranked
from hardstep.convex.patterns import Distinct, checked_rows, distinct
from hardstep.convex.pencils import Pencils, general_pencils, line_pencils, plane_pencils
from hardstep.convex.sweep import best_cells, realised

__all__ = ["Enumeration", "enumeration_steps"]

LIMIT = 10**9  # steps of a search


def enumeration_steps(x: Float64[np.ndarray, "n d"]) -> int:
    """Return how many sums a search of `Enumeration` takes, C(m, r - 2) (m + 2^(r - 2)).

    m distinct rows have rank r, bias included.

    Examples
    --------
    >>> enumeration_steps(np.eye(5))
    130
    """
    merged = distinct(x)
    return _steps(len(merged.x), len(_columns(merged.x)[0]))


def _steps(rows: int, rank: int) -> int:
    """Return the sums along all pencils and of all choices on their axes."""
    axis = max(rank - 2, 0)
    return comb(rows, axis) * (rows + (1 << axis))


@dataclass(frozen=True)
class Enumeration(Oracle):
    """Search max_d |V'd|_2 over the patterns of all hyperplanes, exactly, in C(m, r - 2) (m + 2^(r - 2)) steps.

    m distinct rows of rank r (bias included): through every r - 2 of them a hyperplane turns over all others; sums on
    its left are cumulative. In general position the r - 2 rows on the axis may have any bits; where more rows lie on
    it their patterns are enumerated in their own, smaller space. Features that depend on others are left out; rank,
    ties and rows on an axis are decided in integers, so that degenerate data are exact too.

    Parameters
    ----------
    limit
        Refuse data that need more steps.
    gigabytes
        Tables are kept between searches up to this size, else made again by each.

    Raises
    ------
    ValueError
        If a search takes more than `limit` steps.

    References
    ----------
    Ergen et al. 2023 [ergen2023], the convex program over all patterns. Differs: edges of the arrangement instead of
    vertices, one factor n less.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(20, 3))
    >>> v = np.where(x @ [1.0, -2.0, 1.0] > 0.3, 1.0, -1.0)[:, None]
    >>> found = Enumeration().prepare(x).find(v, 1, np.random.default_rng(0))
    >>> bool(found.scores[0] == max((v > 0).sum(), (v < 0).sum()))
    True
    """

    kind: ClassVar[str] = "exact-enumeration"
    exact: ClassVar[bool] = True
    proves: ClassVar[bool] = True
    limit: int = LIMIT
    gigabytes: float = 1.0

    def prepare(self, x: Float64[np.ndarray, "n d"]) -> Search:
        """Count the steps, and make the tables if they fit."""
        x = checked_rows(x)
        merged = distinct(x)
        columns, whole = _columns(merged.x)
        m, rank = len(merged.x), len(columns)
        steps = _steps(m, rank)
        if steps > self.limit:
            raise ValueError(
                f"{m} distinct rows of rank {rank} take {steps:.2e} steps a search, limit={self.limit:.0e}; raise "
                "limit, take fewer rows or features, or use MixedInteger or a heuristic oracle"
            )
        h = np.concatenate([merged.x, np.ones((m, 1))], axis=1)[:, columns]
        pencils: Iterable[Pencils] = _Remade(h, whole[:, columns])
        if rank <= 3 or 2 * steps <= self.gigabytes * 2**30:
            pencils = tuple(pencils)
        return _EnumerationSearch(x, merged, tuple(columns), pencils)


@dataclass(frozen=True, eq=False)
class _EnumerationSearch(Search):
    """The distinct rows, the features that span the others, and the pencils."""

    x: Float64[np.ndarray, "n d"]
    merged: Distinct
    columns: tuple[int, ...]
    pencils: Iterable[Pencils]

    def find(self, v: Float64[np.ndarray, "n c"], count: int, generator: np.random.Generator) -> Found:
        """Return the best cells of different pencils."""
        v = checked_weights(v, len(self.x), count)
        rank = len(self.columns)
        meet = (rank - 1) * 2 ** max(rank - 2, 0)
        cells = best_cells(self.pencils, self.merged.sum(v), count, meet=meet)
        narrow = realised(np.ascontiguousarray(self.merged.x[:, list(self.columns[:-1])]), cells)
        planes = np.zeros((len(narrow) + 1, self.x.shape[1] + 1))
        planes[:-1, list(self.columns)] = narrow
        planes[-1, -1] = 1.0
        return ranked(self.x, planes, v, count, cells.bound)


@dataclass(frozen=True, eq=False)
class _Remade(Iterable[Pencils]):
    """The pencils of rows of full rank, made anew each time they are asked for."""

    h: Float64[np.ndarray, "m r"]
    whole: NDArray[Any]

    def __iter__(self) -> Iterator[Pencils]:
        rank = self.h.shape[1]
        if rank == 2:
            yield from line_pencils(self.whole)
        elif rank == 3:
            yield from plane_pencils(self.h[:, :2], self.whole[:, :2])
        elif rank > 3:
            yield from general_pencils(self.h, self.whole)


def _columns(points: Float64[np.ndarray, "m d"]) -> tuple[list[int], NDArray[Any]]:
    """Return the columns that span all, the bias last, and the rows as integers with the bias."""
    whole = np.concatenate([lattice(points), np.array([[1]] * len(points), object)], axis=1)
    return independent_columns(whole), whole
