"""The restricted programs: the penalised loss over given columns, solved to a duality gap over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from hardstep.convex.bit_matrix import BitMatrix
from hardstep.convex.data_terms import DataTerm, lower_bound, relative_gap
from hardstep.convex.gram_descent import Quadratic, minimise
from hardstep.convex.support_newton import Columns, newton_step
from hardstep.convex.working_set import WorkingSet

__all__ = ["Solution", "evaluate", "largest_beta", "path", "solve"]

Given = Shaped[np.ndarray, " n"] | Shaped[np.ndarray, "n _"]

ALL = 256  # columns that are held from the start, without asking which are needed
FIRST = 64  # columns that are added at least


@dataclass(frozen=True, eq=False)
class Solution:
    """What a solve found, with the bound that says how good it is.

    Parameters
    ----------
    u
        Weights, one row a column of the design.
    intercept
        b; 0 where it is not free.
    objective, dual, gap
        loss(D u + b) + beta sum_j |u_j|, the best bound from below, and their distance relative to the objective.
    largest
        max_j |d_j'v| of the residual.
    residual
        v = -gradient at the outputs; with a free intercept its columns sum to 0.
    reached
        Whether the gap is at most the tolerance asked for.
    rounds
        Rounds of the working set.
    held
        Columns and Gram matrix to start the next solve with.
    """

    u: Float64[np.ndarray, "p c"]
    intercept: Float64[np.ndarray, " c"]
    objective: float
    dual: float
    gap: float
    largest: float
    residual: Float64[np.ndarray, "n c"]
    reached: bool
    rounds: int
    held: WorkingSet

    @property
    def support(self) -> Int64[np.ndarray, " m"]:
        """Numbers of the columns in use."""
        return np.flatnonzero(self.u.any(axis=1))

    def take(self, columns: Int64[np.ndarray, " q"]) -> Solution:
        """Return this as a start for the design of these columns only."""
        return replace(self, u=self.u[columns], held=self.held.renumbered(columns))


def solve(
    design: BitMatrix,
    y: Given,
    term: DataTerm,
    beta: float,
    *,
    intercept: bool = True,
    tol: float = 1e-6,
    start: Solution | None = None,
    rounds: int = 100,
) -> Solution:
    """Minimise loss(D U + b) + beta sum_j |U_j|_2 over U and b until the relative duality gap is at most tol.

    A working set holds the columns whose score |d'v| is or was near beta, v the residual. On it the loss is majorised
    by curvature/2 |D U - Z|² with the Gram matrix alone, which `minimise` solves; for the squared loss that is the loss
    itself, else a Newton step on the support follows. Then one product of all columns with the residual gives the gap,
    over the whole design, and the columns to add.

    Parameters
    ----------
    y
        Targets or labels, as `term.targets` takes them.
    beta
        Price of the weights, > 0; from `largest_beta` on the solution is 0.
    tol
        Relative gap at which to stop: never the length of a step.
    start
        A solution of a similar problem: another beta, or the same design with columns added behind. Its Gram matrix is
        used again.
    rounds
        Most rounds of the working set; where they do not do, `reached` is False and `gap` says how far it came.

    Raises
    ------
    ValueError
        If beta or tol is not positive, y does not fit the design or the loss, or the start has more columns than it.

    References
    ----------
    Ergen, Gulluk, Lacotte, Pilanci 2023 [ergen2023], the program. Working sets as in Massias, Gramfort, Salmon 2018
    [massias2018]. Differs: bits, exact Gram matrices, Newton steps on the support.

    Examples
    --------
    >>> from hardstep.convex.data_terms import Squared
    >>> design = BitMatrix.from_bools(np.array([[True], [True], [False], [False]]))
    >>> found = solve(design, np.array([3.0, 3.0, 1.0, 1.0]), Squared(), 0.5)
    >>> found.u.round(6), found.intercept.round(6), found.reached
    (array([[1.5]]), array([1.25]), True)
    """
    targets = _checked(design, y, term, beta, tol)
    state = _State.begin(design, targets, term, beta, intercept=intercept, start=start)
    best, best_round, lowest, wanted = -np.inf, 0, np.inf, tol
    for done in range(rounds + 1):
        state.refresh()
        best = max(best, lower_bound(term, state.residual, targets, beta, state.largest))
        gap = relative_gap(term, targets, state.objective, best)
        if state.objective < lowest * (1 - 1e-14) or lowest <= 0:
            best_round = done
        lowest = min(lowest, state.objective)
        if gap <= tol or done == rounds or done - best_round > 4:
            break
        state.extend()
        wanted = max(0.2 * tol, min(0.1 * gap, 1e-2)) if gap > 2 * tol else 0.1 * wanted
        state.improve(wanted)
    return Solution(
        state.spread(), state.b, state.objective, best, gap, state.largest, state.residual, gap <= tol, done, state.held
    )


def path(
    design: BitMatrix,
    y: Given,
    term: DataTerm,
    betas: Sequence[float],
    *,
    intercept: bool = True,
    tol: float = 1e-6,
) -> Iterator[Solution]:
    """Yield the solution for each beta, each started from the one before; go from large to small.

    Examples
    --------
    >>> from hardstep.convex.data_terms import Squared
    >>> design = BitMatrix.from_bools(np.array([[True], [False]]))
    >>> [len(found.support) for found in path(design, np.array([1.0, 0.0]), Squared(), [0.6, 0.1])]
    [0, 1]
    """
    found: Solution | None = None
    for beta in betas:
        found = solve(design, y, term, beta, intercept=intercept, tol=tol, start=found)
        yield found


def largest_beta(design: BitMatrix, y: Given, term: DataTerm, *, intercept: bool = True) -> float:
    """Return max_j |d_j'v| at the null model: from this beta on every weight is 0.

    Examples
    --------
    >>> from hardstep.convex.data_terms import Squared
    >>> largest_beta(BitMatrix.from_bools(np.array([[True], [False]])), np.array([1.0, 0.0]), Squared())
    0.5
    """
    targets = term.targets(y)
    f = np.zeros_like(targets) + term.null(targets, intercept=intercept)
    v = term.residual(f, targets)
    return _largest(design.pull(term.balance(v, targets) if intercept else v))


def evaluate(
    design: BitMatrix,
    y: Given,
    term: DataTerm,
    beta: float,
    u: Float64[np.ndarray, "p c"],
    intercept: Float64[np.ndarray, " c"] | None,
) -> tuple[float, float, float]:
    """Return objective, dual value and relative gap of any weights, from scratch; None if there is no free intercept.

    Examples
    --------
    >>> from hardstep.convex.data_terms import Squared
    >>> design = BitMatrix.from_bools(np.array([[True], [False]]))
    >>> evaluate(design, np.array([1.0, 0.0]), Squared(), 0.5, np.array([[0.5]]), None)
    (0.375, 0.375, 0.0)
    """
    targets = _checked(design, y, term, beta, 1.0)
    f = design.push(u) + (0.0 if intercept is None else intercept)
    v = term.residual(f, targets)
    v = v if intercept is None else term.balance(v, targets)
    objective = term.value(f, targets) + beta * float(np.sqrt(np.square(u).sum(axis=1)).sum())
    dual = lower_bound(term, v, targets, beta, _largest(design.pull(v)))
    return objective, dual, relative_gap(term, targets, objective, dual)


@dataclass
class _State:
    """Where a solve stands: weights on the working set, outputs and residual on all rows, scores of all columns."""

    design: BitMatrix
    y: np.ndarray
    term: DataTerm
    beta: float
    intercept: bool
    held: WorkingSet
    u: np.ndarray
    b: np.ndarray
    f: np.ndarray
    objective: float = np.inf
    largest: float = np.inf

    @classmethod
    def begin(
        cls, design: BitMatrix, y: np.ndarray, term: DataTerm, beta: float, *, intercept: bool, start: Solution | None
    ) -> _State:
        """Start from a solution, or from nothing."""
        held = WorkingSet.empty(design, centred=intercept)
        u, b = np.zeros((0, y.shape[1])), np.zeros(y.shape[1])
        if start is not None:
            if len(start.u) > design.shape[1] or start.u.shape[1] != y.shape[1]:
                raise ValueError(
                    f"the start has weights of shape {start.u.shape}, the design {design.shape[1]} columns and "
                    f"{y.shape[1]} outputs; Solution.take makes a start for fewer columns"
                )
            fits = start.held.centred == intercept and start.held.bits.rows == design.shape[0]
            held = start.held if fits else held
            support = np.setdiff1d(start.support, held.columns)
            held = held.grown(design, support)
            u, b = start.u[held.columns], start.intercept * intercept
        state = cls(design, y, term, beta, intercept, held, u, b, np.zeros_like(y))
        if design.shape[1] <= ALL:
            state.add(np.setdiff1d(np.arange(design.shape[1]), held.columns))
        return state

    def refresh(self) -> None:
        """Recompute everything from the weights."""
        self.settle()
        self.scores = self.design.pull(self.residual)
        self.largest = _largest(self.scores)

    def extend(self) -> None:
        """Add the columns that break the dual constraint most; of a large set let go what it does not need."""
        scores = _norms(self.scores)
        used = np.asarray(self.u.any(axis=1))
        if len(used) > 4 * FIRST and len(used) > 3 * used.sum():
            places = np.flatnonzero(used | (scores[self.held.columns] > 0.7 * self.beta))
            if len(places) < 0.7 * len(used):
                self.held, self.u = self.held.kept(places), self.u[places]
        scores[self.held.columns] = 0.0
        many = max(FIRST, len(self.held.columns) // 2, int(used.sum()))
        order = np.argsort(-scores)[:many]
        self.add(order[scores[order] > 0.95 * self.beta])

    def add(self, columns: np.ndarray) -> None:
        """Hold further columns, with weight 0."""
        self.held = self.held.grown(self.design, columns)
        self.u = np.concatenate([self.u, np.zeros((len(columns), self.u.shape[1]))])

    def improve(self, tol: float) -> None:
        """Lower the objective on the working set until its own relative gap is about tol."""
        if not len(self.u):
            return
        kappa = self.term.curvature
        pull = self.scores[self.held.columns]
        for turn in range(1 if self.term.quadratic else 30):
            if turn:
                pull = self.held.bits.pull(self.residual)
                bound = lower_bound(self.term, self.residual, self.y, self.beta, _largest(pull))
                if relative_gap(self.term, self.y, self.objective, bound) <= tol:
                    return
            fit = self.held.push(self.u) + self.residual / kappa
            cross = np.ascontiguousarray((pull / kappa + self.held.gram @ self.u).T)
            bent = Quadratic(self.held.gram, cross, float(np.square(fit).sum()))
            rounds = 200 if self.term.quadratic else 1
            before = self.u
            self.u = minimise(bent, self.beta / kappa, self.u.T, tol, rounds=rounds).T.copy()
            if self.term.quadratic:
                return
            self.local(before)

    def local(self, before: np.ndarray) -> None:
        """Bring outputs, intercept and residual up to date, and take a Newton step on the support."""
        mean = self.held.bits.counts() @ (self.u - before) / len(self.y) if self.intercept else 0.0
        self.b = self.b - mean
        self.settle()
        used = np.flatnonzero(self.u.any(axis=1))
        if len(used):
            d = Columns.of(self.held.bits.take(used), centred=self.intercept)
            gram = self.held.gram[np.ix_(used, used)]
            move, lift = newton_step(
                self.term, d, gram, self.y, self.f, self.u[used], self.beta, intercept=self.intercept
            )
            self.u[used] += move
            counts = self.held.bits.counts()[used]
            self.b = self.b + lift - (counts @ move / len(self.y) if self.intercept else 0.0)
            self.settle()

    def settle(self) -> None:
        """Recompute what belongs to the rows, and the objective."""
        self.f = self.held.bits.push(self.u) + self.b
        if self.intercept:
            shift = self.term.shift(self.f, self.y)
            self.b, self.f = self.b + shift, self.f + shift
        v = self.term.residual(self.f, self.y)
        self.residual = self.term.balance(v, self.y) if self.intercept else v
        self.objective = self.term.value(self.f, self.y) + self.beta * float(_norms(self.u).sum())

    def spread(self) -> np.ndarray:
        """Return the weights of all columns."""
        u = np.zeros((self.design.shape[1], self.u.shape[1]))
        u[self.held.columns] = self.u
        return u


def _checked(design: BitMatrix, y: np.ndarray, term: DataTerm, beta: float, tol: float) -> np.ndarray:
    """Return the targets, if all is in order."""
    if not 0 < beta < np.inf:
        raise ValueError(f"beta must be positive and finite, got {beta}: without a price there is no dual bound")
    if not tol > 0:
        raise ValueError(f"tol is a relative gap above 0, got {tol}")
    targets = term.targets(y)
    if len(targets) != design.shape[0]:
        raise ValueError(f"the design has {design.shape[0]} rows, but y has {len(targets)}; one target a row")
    return targets


def _norms(u: np.ndarray) -> np.ndarray:
    """Return the length of every row."""
    norms: np.ndarray = np.sqrt(np.square(u).sum(axis=1))
    return norms


def _largest(scores: np.ndarray) -> float:
    """Return the largest length of a row, 0 if there is none."""
    return float(_norms(scores).max(initial=0.0))
