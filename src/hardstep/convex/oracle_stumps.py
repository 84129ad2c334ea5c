"""Stumps: half-spaces on one feature, searched exactly by one sort per feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from hardstep.convex.oracles import Found, Oracle, Search, checked_weights, ranked, rounding
from hardstep.convex.patterns import checked_rows

__all__ = ["Stumps"]

BLOCK = 1 << 21  # numbers handled at a time


@dataclass(frozen=True)
class Stumps(Oracle):
    """Search max_d |V'd|_2 over the bits 1{+-(x_j - t) > 0} of one feature and the constant one.

    Cumulative sums of V along each sorted feature, over distinct values, in both directions: O(n d) a search after one
    sort per feature. With a single feature these are all hyperplanes.

    References
    ----------
    Bengio et al. 2005 [bengio2005], insertion of one unit at a time. Differs: the units are stumps, so that the search
    is exact.

    Examples
    --------
    >>> x, v = np.array([[0.0], [1.0], [2.0]]), np.array([[-1.0], [2.0], [3.0]])
    >>> found = Stumps().prepare(x).find(v, 1, np.random.default_rng(0))
    >>> found.planes, found.scores
    (array([[ 1. , -0.5]]), array([5.]))
    """

    kind: ClassVar[str] = "class:stumps"
    exact: ClassVar[bool] = True
    proves: ClassVar[bool] = True

    def prepare(self, x: Float64[np.ndarray, "n d"]) -> Search:
        """Sort every feature."""
        x = checked_rows(x)
        order = np.argsort(x, axis=0, kind="stable").T.astype(np.int32)
        values = np.take_along_axis(x.T, order, axis=1)
        return _StumpSearch(x, order, values[:, 1:] > values[:, :-1])


@dataclass(frozen=True, eq=False)
class _StumpSearch(Search):
    """Rows in the order of each feature, and between which of them a threshold fits."""

    x: Float64[np.ndarray, "n d"]
    order: Int32[np.ndarray, "d n"]
    cuts: Bool[np.ndarray, "d n1"]

    def find(self, v: Float64[np.ndarray, "n c"], count: int, generator: np.random.Generator) -> Found:
        """Return the best stumps, local maxima along their feature before others."""
        v = checked_weights(v, len(self.x), count)
        total = v.sum(axis=0)
        n, d = self.x.shape
        chosen = [np.zeros((0, 4))]
        step = max(1, BLOCK // n)
        for start in range(0, d if n > 1 else 0, step):
            below, above = self._squares(v, total, slice(start, min(start + step, d)))
            for side, squares in ((-1.0, below), (1.0, above)):
                feature, place = _peaks(squares, count)
                score = squares[feature, place]
                chosen.append(np.stack([score, feature + float(start), place.astype(np.float64), 0 * score + side], 1))
        best = np.concatenate(chosen)
        largest = max(float(best[:, 0].max(initial=0.0)), float(total @ total))
        # the same pattern may come from several features: keep more than were asked for
        best = best[np.argsort(-best[:, 0], kind="stable")[: 2 * count + 16]]
        planes = self._planes(best[:, 1].astype(np.int64), best[:, 2].astype(np.int64), best[:, 3])
        return ranked(self.x, planes, v, count, float(np.sqrt(largest)) + rounding(v))

    def _squares(
        self, v: Float64[np.ndarray, "n c"], total: Float64[np.ndarray, " c"], part: slice
    ) -> tuple[Float64[np.ndarray, "d n1"], Float64[np.ndarray, "d n1"]]:
        """Return |V'd|² of the rows below and of those above every cut of some features, -1 where none fits."""
        below = np.zeros(self.cuts[part].shape)
        above = np.zeros_like(below)
        for weights, whole in zip(v.T, total, strict=True):
            sums = np.cumsum(weights[self.order[part]], axis=1)[:, :-1]
            below += sums * sums
            sums = whole - sums
            above += sums * sums
        closed = ~self.cuts[part]
        below[closed] = above[closed] = -1.0
        return below, above

    def _planes(
        self, feature: Int64[np.ndarray, " k"], place: Int64[np.ndarray, " k"], side: Float64[np.ndarray, " k"]
    ) -> Float64[np.ndarray, "p d1"]:
        """Return the planes of cuts, thresholds half-way between two values; the constant unit last."""
        d = self.x.shape[1]
        planes = np.zeros((len(feature) + 1, d + 1))
        planes[-1, d] = 1.0
        low, high = (self.x[self.order[feature, place + i], feature] for i in (0, 1))
        middle = low / 2 + high / 2
        # between neighbouring floats the middle is one of them: the strict step must still tell them apart
        middle = np.where(side > 0, np.where(middle < high, middle, low), np.where(middle > low, middle, high))
        planes[np.arange(len(feature)), feature] = side
        planes[np.arange(len(feature)), d] = -side * middle
        return planes


def _peaks(squares: Float64[np.ndarray, "d m"], count: int) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Return the places of the largest entries that no neighbour in their row exceeds."""
    peak = squares >= 0
    peak[:, 1:] &= squares[:, 1:] >= squares[:, :-1]
    peak[:, :-1] &= squares[:, :-1] >= squares[:, 1:]
    row, column = np.nonzero(peak)
    if len(row) > 2 * count + 16:
        top = np.argpartition(-squares[row, column], 2 * count + 16)[: 2 * count + 16]
        row, column = row[top], column[top]
    return row, column
