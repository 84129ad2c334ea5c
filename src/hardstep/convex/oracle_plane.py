"""All lines in the plane: the exact sweep over two features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from hardstep.convex.lattice import independent_columns, lattice
from hardstep.convex.oracles import Found, Oracle, Search, checked_weights, ranked
from hardstep.convex.patterns import Distinct, checked_rows, distinct
from hardstep.convex.pencils import Pencils, line_pencils, plane_pencils
from hardstep.convex.sweep import best_cells, realised

__all__ = ["PlaneSweep", "planar_pencils"]


@dataclass(frozen=True)
class PlaneSweep(Oracle):
    """Search max_d |V'd|_2 over the patterns of all lines on two features (or all thresholds on one), exactly.

    A line turns about every row; the sums on its left change by one row at a time. The order of the turns is made once,
    O(n² log n), with ties and near ties decided in integers, so that duplicated, collinear and grid data are exact too;
    a search is then gathers and cumulative sums, O(n² C). Each row gives its best cells, hundreds in all.

    Parameters
    ----------
    rows
        Refuse data with more distinct rows: the table holds 2 to 5 bytes per pair of them.

    Raises
    ------
    ValueError
        If there are other than 1 or 2 features, or too many distinct rows.

    References
    ----------
    Ergen et al. 2023 [ergen2023], the convex program over all patterns. Differs: the patterns are swept, not sampled or
    listed.

    Examples
    --------
    >>> x, v = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), np.array([[1.0], [1.0], [-1.0], [-1.0]])
    >>> found = PlaneSweep().prepare(x).find(v, 4, np.random.default_rng(0))
    >>> found.scores.round(9), round(found.bound, 9)
    (array([1., 1., 1., 1.]), 1.0)
    """

    kind: ClassVar[str] = "exact-sweep-2d"
    exact: ClassVar[bool] = True
    proves: ClassVar[bool] = True
    rows: int = 20_000

    def prepare(self, x: Float64[np.ndarray, "n d"]) -> Search:
        """Sort the turns about every row."""
        x = checked_rows(x)
        if x.shape[1] not in (1, 2):
            raise ValueError(f"the plane sweep takes 1 or 2 features, got {x.shape[1]}; use another oracle")
        merged = distinct(x)
        m = len(merged.x)
        if m > self.rows:
            raise ValueError(
                f"{m:,} distinct rows are more than rows={self.rows:,}: the table would take "
                f"{m * m * (2 if m < 1 << 15 else 4) / 2**30:.1f} GiB, to make it about {m * m * 1.5e-7:,.0f} s "
                f"and each search {m * m * 1.2e-8:,.0f} s per output; raise rows, or use a heuristic oracle"
            )
        return _PlaneSearch(x, merged, planar_pencils(merged.x))


@dataclass(frozen=True, eq=False)
class _PlaneSearch(Search):
    """The pencils of the distinct rows."""

    x: Float64[np.ndarray, "n d"]
    merged: Distinct
    pencils: tuple[Pencils, ...]

    def find(self, v: Float64[np.ndarray, "n c"], count: int, generator: np.random.Generator) -> Found:
        """Return the best cells of different pencils."""
        v = checked_weights(v, len(self.x), count)
        cells = best_cells(self.pencils, self.merged.sum(v), count)
        planes = realised(self.merged.x, cells)
        constant = np.zeros((1, planes.shape[1]))
        constant[0, -1] = 1.0
        return ranked(self.x, np.concatenate([planes, constant]), v, count, cells.bound)


def planar_pencils(points: Float64[np.ndarray, "m d"]) -> tuple[Pencils, ...]:
    """Return the pencils of distinct points of a plane or line; none for a single point."""
    if len(points) == 1:
        return ()
    whole = lattice(points)
    ones = np.array([[1]] * len(points), object)
    columns = independent_columns(np.concatenate([whole, ones], axis=1))
    if len(columns) == 3:
        return tuple(plane_pencils(points, whole))
    return tuple(line_pencils(np.concatenate([whole[:, columns[:1]], ones], axis=1)))
