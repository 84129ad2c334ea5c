"""Half-spaces with a margin, by mixed-integer programming: a bound that holds whenever it is stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from hardstep.convex.oracle_local import LocalSearch
from hardstep.convex.oracles import Found, Oracle, Search, checked_weights, ranked, rounding
from hardstep.convex.patterns import Distinct, checked_rows, distinct

__all__ = ["MixedInteger"]

FEASIBILITY = 1e-6  # of the solver: share of the weights by which its bound is widened


@dataclass(frozen=True)
class MixedInteger(Oracle):
    """Bound max_d |V'd|_2 over half-spaces whose normalised margin is at least eps, by HiGHS with a time limit.

    With rows h = (x, 1) scaled to |h|_1 = 1 and |w|_inf <= 1, max v'z over z in {0, 1}^n, where v_i > 0 asks for
    h_i.w >= eps - (1 + eps)(1 - z_i) and v_i < 0 for h_i.w <= -eps + (1 + eps) z_i. The solver's dual bound holds at
    any time; it never exceeds max(sum v_+, sum v_-). Several outputs: |V'd|_2 <= (sum_c M_c²)^(1/2) with M_c the bound
    of one output. What is found is at least what `LocalSearch` finds.

    Parameters
    ----------
    eps
        The margin that defines the class, in (0, 1); patterns that only thinner half-spaces have are outside it.
    seconds
        Time limit of one search, shared by its outputs and signs.

    Raises
    ------
    ValueError
        If eps or the time is out of range.

    References
    ----------
    Ergen et al. 2023 [ergen2023] names the problem; the program with big-M constraints is the usual one.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(12, 2))
    >>> v = np.where(x[:, 0] * x[:, 1] > 0, 1.0, -1.0)[:, None]
    >>> found = MixedInteger().prepare(x).find(v, 1, np.random.default_rng(0))
    >>> bool(found.scores[0] <= found.bound)
    True
    """

    kind: ClassVar[str] = "milp"
    exact: ClassVar[bool] = False
    proves: ClassVar[bool] = True
    eps: float = 1e-4
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.eps < 1:
            raise ValueError(f"eps is a margin in (0, 1), at 0 the program is vacuous; got {self.eps}")
        if not self.seconds > 0:
            raise ValueError(f"seconds is a time limit and must be positive, got {self.seconds}")

    def prepare(self, x: Float64[np.ndarray, "n d"]) -> Search:
        """Merge rows that are alike and scale them."""
        x = checked_rows(x)
        merged = distinct(x)
        h = np.concatenate([merged.x, np.ones((len(merged.x), 1))], axis=1)
        return _MilpSearch(self, x, merged, h / np.abs(h).sum(axis=1, keepdims=True), LocalSearch().prepare(x))


@dataclass(frozen=True, eq=False)
class _MilpSearch(Search):
    """The scaled distinct rows, and the local search that supplies planes."""

    oracle: MixedInteger
    x: Float64[np.ndarray, "n d"]
    merged: Distinct
    h: Float64[np.ndarray, "m d1"]
    local: Search

    def find(self, v: Float64[np.ndarray, "n c"], count: int, generator: np.random.Generator) -> Found:
        """Return planes of the solver and of the local search, and the solver's bound."""
        v = checked_weights(v, len(self.x), count)
        weights = self.merged.sum(v)
        planes = [self.local.find(v, count, generator).planes]
        slack = rounding(v)
        # a complement has minus the score where the weights add up to 0: one sign is enough
        both = np.abs(weights.sum(axis=0)) > slack
        share = self.oracle.seconds / (len(both) + int(both.sum()))
        squares = 0.0
        for pull, two_signs in zip(weights.T, both, strict=True):
            found = [self._solved(side * pull, share) for side in ((1.0, -1.0) if two_signs else (1.0,))]
            squares += (max(bound for bound, _ in found) + slack) ** 2
            planes += [plane for _, plane in found]
        return ranked(self.x, np.concatenate(planes), v, count, float(np.sqrt(squares)))

    def _solved(self, v: NDArray[np.float64], seconds: float) -> tuple[float, NDArray[np.float64]]:
        """Return an upper bound on max v'z, and the plane found, or none."""
        trivial = max(v.clip(min=0).sum(), 0.0)
        used = np.flatnonzero(v)
        n, width, eps = len(used), self.h.shape[1], self.oracle.eps
        if n == 0:
            return 0.0, np.zeros((0, width))
        up = v[used] > 0
        h = self.h[used]
        # h.w - (1 + eps) z >= -1 where v > 0;  h.w - (1 + eps) z <= -eps where v < 0
        system = np.concatenate([h, -(1 + eps) * np.eye(n)], axis=1)
        limits = LinearConstraint(system, np.where(up, -1.0, -np.inf), np.where(up, np.inf, -eps))
        solved = milp(
            np.concatenate([np.zeros(width), -v[used]]),
            integrality=np.concatenate([np.zeros(width), np.ones(n)]),
            bounds=Bounds(np.concatenate([-np.ones(width), np.zeros(n)]), np.ones(width + n)),
            constraints=limits,
            options={"time_limit": seconds, "mip_rel_gap": 1e-9},
        )
        dual = solved.mip_dual_bound
        bound = trivial if dual is None or not np.isfinite(dual) else -dual + FEASIBILITY * np.abs(v).sum()
        plane = np.zeros((0, width)) if solved.x is None else solved.x[None, :width]
        return min(float(bound), float(trivial)), plane
