"""Half-spaces on two features: the exact sweep of every pair of features."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from hardstep.convex.oracle_plane import planar_pencils
from hardstep.convex.oracles import Found, Oracle, Search, checked_weights, ranked
from hardstep.convex.patterns import Distinct, checked_rows, distinct
from hardstep.convex.pencils import Pencils
from hardstep.convex.sweep import Cells, best_cells, realised

__all__ = ["Pairs"]


@dataclass(frozen=True)
class Pairs(Oracle):
    """Search max_d |V'd|_2 over the patterns of all half-spaces on at most two features, exactly.

    The sweep of `PlaneSweep` over every pair of features: O(d² n² C) a search. Stumps are among them.

    Parameters
    ----------
    gigabytes
        Refuse data whose tables, 2 bytes per pair of rows and pair of features, would take more memory.

    Raises
    ------
    ValueError
        If there is no feature, or the tables would be too large.

    References
    ----------
    Ergen et al. 2023 [ergen2023]. Differs: a class of neurons small enough to be searched exactly in any dimension.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(30, 4))
    >>> v = np.where(x[:, 1] > x[:, 3], 1.0, -1.0)[:, None]
    >>> found = Pairs().prepare(x).find(v, 1, np.random.default_rng(0))
    >>> bool(found.scores[0] == (v > 0).sum())
    True
    """

    kind: ClassVar[str] = "class:pairs"
    exact: ClassVar[bool] = True
    proves: ClassVar[bool] = True
    gigabytes: float = 8.0

    def prepare(self, x: Float64[np.ndarray, "n d"]) -> Search:
        """Sort the turns about every row in every pair of features."""
        x = checked_rows(x)
        d = x.shape[1]
        if d == 0:
            raise ValueError("pairs need at least one feature, got 0")
        merged = distinct(x)
        pairs = tuple(combinations(range(d), 2)) if d > 1 else ((0,),)
        nbytes = len(pairs) * len(merged.x) ** 2 * (2 if len(merged.x) < 1 << 15 else 4)
        if nbytes > self.gigabytes * 2**30:
            raise ValueError(
                f"{len(merged.x):,} distinct rows and {len(pairs):,} pairs of features need {nbytes / 2**30:.1f} GiB "
                f"and each search about {nbytes * 6e-9:,.0f} s per output, gigabytes={self.gigabytes}; raise it, drop "
                "rows or features, or use Stumps"
            )
        views = tuple(distinct(np.ascontiguousarray(merged.x[:, list(pair)])) for pair in pairs)
        return _PairSearch(x, merged, pairs, views, tuple(planar_pencils(view.x) for view in views))


@dataclass(frozen=True, eq=False)
class _PairSearch(Search):
    """The distinct rows and the pencils of every pair of features."""

    x: Float64[np.ndarray, "n d"]
    merged: Distinct
    pairs: tuple[tuple[int, ...], ...]
    views: tuple[Distinct, ...]
    pencils: tuple[tuple[Pencils, ...], ...]

    def find(self, v: Float64[np.ndarray, "n c"], count: int, generator: np.random.Generator) -> Found:
        """Return the best half-spaces over all the pairs."""
        v = checked_weights(v, len(self.x), count)
        weights = self.merged.sum(v)
        share = max(4, 4 * count // len(self.pairs))
        cells = [
            best_cells(pencils, view.sum(weights), min(count, share))
            for view, pencils in zip(self.views, self.pencils, strict=True)
        ]
        bound = max(each.bound for each in cells)
        scores = [
            np.linalg.norm(each.bits @ view.sum(weights), axis=1) for view, each in zip(self.views, cells, strict=True)
        ]
        least = np.sort(np.concatenate(scores))[::-1][: 2 * count][-1] if any(map(len, scores)) else 0.0
        planes = [np.zeros((1, self.x.shape[1] + 1))]
        planes[0][0, -1] = 1.0
        for pair, view, each, score in zip(self.pairs, self.views, cells, scores, strict=True):
            good = np.flatnonzero(score >= least)
            narrow = realised(view.x, Cells(each.bits[good], tuple(each.anchors[i] for i in good), bound))
            wide = np.zeros((len(narrow), self.x.shape[1] + 1))
            wide[:, [*pair, -1]] = narrow
            planes.append(wide)
        return ranked(self.x, np.concatenate(planes), v, count, bound)
