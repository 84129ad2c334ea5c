"""Corrective steps: the amplitudes of all columns held are solved for again, by group lasso or by ridge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64
from scipy.linalg import cho_factor, cho_solve

from hardstep.convex.data_terms import DataTerm
from hardstep.convex.pool import Pool
from hardstep.convex.purify import purify
from hardstep.convex.solvers import Solution, solve
from hardstep.convex.working_set import WorkingSet

__all__ = ["Correction", "GroupLasso", "Ridge"]

DENSE = 10**7  # entries of the system up to which units are made as few as carry the outputs


class Correction(ABC):
    """The penalty of the program and how its amplitudes are found on the columns held."""

    certified: ClassVar[bool]
    """Whether the penalty is that of the convex program, so that dual bounds hold."""
    sparse: ClassVar[bool]
    """Whether columns end at amplitude 0, so that the pool may hold more of them than the network."""

    @abstractmethod
    def strength(self, largest: float, rows: int) -> float:
        """Return beta, given beta_max and the number of rows."""

    @abstractmethod
    def penalty(self, u: Float64[np.ndarray, "p c"], strength: float) -> float:
        """Return what is added to the loss."""

    @abstractmethod
    def solve(self, pool: Pool, y: Float64[np.ndarray, "n c"], term: DataTerm, strength: float, tol: float) -> Pool:
        """Return the pool with amplitudes whose objective is not higher, from where it stands.

        Parameters
        ----------
        tol
            Relative gap, or relative fall of the objective, at which to stop.
        """


@dataclass(frozen=True)
class GroupLasso(Correction):
    """The program itself: beta sum_j |u_j|_2. With one output that is the lasso.

    Weight decay on both layers of a step network with trainable amplitudes is this penalty, since the length of a
    half-space's normal does not matter and (s² + a²)/2 >= |s a|; the network stores the product.

    Parameters
    ----------
    beta
        Price of an amplitude, > 0.
    relative
        Count beta in units of beta_max, above which the best network is empty; otherwise as it stands.

    References
    ----------
    Ergen, Gulluk, Lacotte, Pilanci 2023 [ergen2023], the convex program of two layers. Differs: intercept free.

    Examples
    --------
    >>> GroupLasso(0.5).strength(8.0, 100), GroupLasso(0.5, relative=False).strength(8.0, 100)
    (4.0, 0.5)
    """

    beta: float = 0.01
    relative: bool = True

    certified: ClassVar[bool] = True
    sparse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.beta < float("inf"):
            raise ValueError(
                f"beta must be positive and finite, got {self.beta}: without a price on the weights there is no dual "
                "bound; choose beta > 0"
            )

    def strength(self, largest: float, rows: int) -> float:
        """Return beta, or its share of beta_max (a positive number even where beta_max is 0)."""
        return self.beta * (max(largest, np.finfo(np.float64).tiny ** 0.5) if self.relative else 1.0)

    def penalty(self, u: Float64[np.ndarray, "p c"], strength: float) -> float:
        """Return beta sum_j |u_j|."""
        return strength * float(np.linalg.norm(u, axis=1).sum())

    def solve(self, pool: Pool, y: Float64[np.ndarray, "n c"], term: DataTerm, strength: float, tol: float) -> Pool:
        """Solve to a relative gap, then leave as few units as carry the same outputs."""
        before = term.value(pool.outputs(), y) + self.penalty(pool.u, strength)
        solution = solve(pool.design, y, term, strength, tol=tol, start=_start(pool))
        u, intercept = solution.u, solution.intercept
        if y.size * int(u.any(axis=1).sum()) <= DENSE:
            u, shift = purify(pool.design, u, intercept)
            intercept = intercept if shift is None else shift
        found = pool.solved(u, intercept)
        after = term.value(found.outputs(), y) + self.penalty(found.u, strength)
        return found if after <= before else pool


@dataclass(frozen=True)
class Ridge(Correction):
    """A squared penalty in place of the program's: strength n/2 |U|². Good predictors, no certificate.

    k copies of a column divide their squared penalty by k, so over all half-spaces there is no optimum to compare
    with. The amplitudes come from the majoriser U <- U + (kappa G + beta I)^-1 (D'V - beta U) of the loss, G = D'D
    centred, kappa the curvature bound, with Nesterov's momentum that is dropped where it overshoots. For the squared
    loss one step is the solution.

    Parameters
    ----------
    beta
        Strength relative to mean losses, > 0.
    steps
        At most so many steps a round.

    References
    ----------
    Majoriser of Böhning 1992 [bohning1992].

    Examples
    --------
    >>> Ridge(0.01).strength(8.0, 100)
    1.0
    """

    beta: float = 0.01
    steps: int = 12

    certified: ClassVar[bool] = False
    sparse: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"beta must be positive and finite, got {self.beta}; columns may be alike")
        if self.steps < 1:
            raise ValueError(f"steps is a count and must be at least 1, got {self.steps}")

    def strength(self, largest: float, rows: int) -> float:
        """Return beta n."""
        return self.beta * rows

    def penalty(self, u: Float64[np.ndarray, "p c"], strength: float) -> float:
        """Return beta n/2 |U|²."""
        return 0.5 * strength * float(np.square(u).sum())

    def solve(self, pool: Pool, y: Float64[np.ndarray, "n c"], term: DataTerm, strength: float, tol: float) -> Pool:
        """Take majoriser steps until the objective falls by less than a share `tol` of itself."""
        rows = len(y)
        mean = pool.design.counts() / rows
        gram = pool.design.gram() - rows * np.outer(mean, mean)
        gram *= term.curvature
        gram[np.diag_indices_from(gram)] += strength
        factor = cho_factor(gram, overwrite_a=True, check_finite=False)

        def objective(outputs: Float64[np.ndarray, "n c"], u: Float64[np.ndarray, "p c"]) -> float:
            return term.value(outputs, y) + self.penalty(u, strength)

        point = before = (pool.u, pool.intercept)
        outputs = pool.outputs()
        now, young = objective(outputs, pool.u), 0
        for _ in range(self.steps):
            v = term.residual(outputs, y)
            total = v.sum(axis=0)
            move = cho_solve(factor, pool.design.pull(v) - strength * point[0] - np.outer(mean, total))
            best = (point[0] + move, point[1] + total / (term.curvature * rows) - mean @ move)
            share = young / (young + 3)
            tried = (best[0] + share * (best[0] - before[0]), best[1] + share * (best[1] - before[1]))
            outputs = pool.design.push(tried[0]) + tried[1]
            after, young = objective(outputs, tried[0]), young + 1
            if after > now and share > 0:  # the majoriser's own minimum cannot rise
                tried, young = best, 0
                outputs = pool.design.push(tried[0]) + tried[1]
                after = objective(outputs, tried[0])
            if after > now:
                break
            fell, now, before, point = now - after, after, best, tried
            if fell <= tol * abs(now):
                break
        return pool.solved(*point)


def _start(pool: Pool) -> Solution:
    """Return where a pool stands as a start that depends on nothing but the pool: a resumed fit goes the same way."""
    held = WorkingSet.empty(pool.design, centred=True).grown(pool.design, np.flatnonzero(pool.active))
    unknown = np.zeros((pool.design.shape[0], pool.u.shape[1]))
    return Solution(pool.u, pool.intercept, np.inf, -np.inf, np.inf, np.inf, unknown, False, 0, held)
