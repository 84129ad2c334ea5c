"""The complete arrangement, where every pattern is a neuron: closed forms, and a bound for any depth and width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from hardstep.convex.bit_matrix import BitMatrix
from hardstep.convex.data_terms import DataTerm, Squared, lower_bound
from hardstep.convex.solvers import solve

__all__ = ["Shattered", "chain", "complete_fit", "realise", "shattered"]

Outputs = Float64[np.ndarray, "n c"]
Given = Shaped[np.ndarray, " n"] | Shaped[np.ndarray, "n _"]

KINDS = 10  # different targets up to which all unions of them are tried as patterns


@dataclass(frozen=True, eq=False)
class Shattered:
    """The program over all 2^n patterns, solved or bounded.

    Parameters
    ----------
    outputs
        f at its solution, intercept included.
    intercept
        b; 0 where it is not free.
    objective
        Its objective; where there is no closed form, one that can be reached.
    bound
        D(v) <= the least objective over all patterns, hence over any network of steps on any data with these targets.
    """

    outputs: Float64[np.ndarray, "n c"]
    intercept: Float64[np.ndarray, " c"]
    objective: float
    bound: float


def shattered(y: Given, term: DataTerm, beta: float, *, intercept: bool = True) -> Shattered:
    """Minimise loss(f + b) + beta gauge(f) over all outputs f: what a network that shatters its n points reaches.

    The gauge is the least sum_j |U_j| with f = D U over all 0/1 columns; for one output it is max(f)_+ + max(-f)_+.
    - One output, squared loss: `complete_fit`, one sort; the free intercept by bisection on the sum of residuals.
    - Few different targets (labels): rows of equal targets may share their outputs, since averaging over them raises
      neither term; so the unions of targets are all the patterns needed: a small group lasso.
    - Otherwise a valid bound only: squared loss sum_c of the scalar programs at beta/sqrt(c), since |U_j|_2 >=
      |U_j|_1/sqrt(c); any other loss the null model's residual, scaled.

    Every column of bits of n rows is among these, so `bound` holds for every network, of any depth and width.

    Raises
    ------
    ValueError
        If beta is not positive or y does not fit the loss.

    References
    ----------
    Ergen, Gulluk, Lacotte, Pilanci 2023 [ergen2023], the shattering program. The closed form, labels and intercept are
    ours.

    Examples
    --------
    >>> found = shattered(np.array([1.0, 1.0, 1.0, -1.0]), Squared(), 1.0, intercept=False)
    >>> round(found.objective, 9), round(found.bound, 9)  # 1 - 1/6 for three alike, 1/2 for one
    (1.333333333, 1.333333333)
    """
    if not 0 < beta < np.inf:
        raise ValueError(f"beta must be positive and finite, got {beta}: without a price there is no dual bound")
    targets = term.targets(y)
    c = targets.shape[1]
    if term.quadratic and c == 1:
        return _scalar(targets[:, 0], beta, intercept=intercept)
    kinds, kind = np.unique(targets, axis=0, return_inverse=True)
    if len(kinds) <= KINDS:
        codes = np.arange(1, 2 ** len(kinds))
        unions = ((codes >> np.arange(len(kinds))[:, None]) & 1).astype(np.bool_)
        grouped = _Grouped(term, np.bincount(kind.ravel()).astype(np.float64))
        found = solve(BitMatrix.from_bools(unions), kinds, grouped, beta, intercept=intercept, tol=1e-9)
        outputs = (unions @ found.u + found.intercept)[kind.ravel()]
        return Shattered(outputs, found.intercept, found.objective, found.dual)
    if term.quadratic:
        parts = [_scalar(targets[:, k], beta / np.sqrt(c), intercept=intercept) for k in range(c)]
        f, b = np.hstack([part.outputs for part in parts]), np.concatenate([part.intercept for part in parts])
        reached = term.value(f, targets) + beta * sum(_gauge(f[:, k] - b[k]) for k in range(c))
        return Shattered(f, b, reached, sum(part.bound for part in parts))
    b = term.null(targets, intercept=intercept)
    f = np.zeros_like(targets) + b
    v = term.balance(term.residual(f, targets), targets) if intercept else term.residual(f, targets)
    return Shattered(f, b, term.value(f, targets), lower_bound(term, v, targets, beta, _reach(v)))


def complete_fit(y: Float64[np.ndarray, " n"], beta: float) -> Float64[np.ndarray, " n"]:
    """Return argmin_f 1/2 |f - y|² + beta (max(f)_+ + max(-f)_+): y cut at one height above and one below 0.

    The height is (the sum of the k largest - beta)/k for the largest k at which it stays below the k-th; 0 if all
    positive y together are at most beta.

    Examples
    --------
    >>> complete_fit(np.array([3.0, 2.0, 0.5, -1.0]), 1.5)
    array([ 1.75,  1.75,  0.5 , -0.  ])
    """
    f: Float64[np.ndarray, " n"] = np.clip(y, -_height(-y, beta), _height(y, beta))
    return f


def chain(f: Float64[np.ndarray, " n"]) -> tuple[Bool[np.ndarray, "n m"], Float64[np.ndarray, " m"]]:
    """Return patterns and weights with f = sum of them and sum |weights| = max(f)_+ + max(-f)_+: one a level.

    Examples
    --------
    >>> patterns, weights = chain(np.array([1.75, 0.5, -1.0]))
    >>> patterns.astype(int), weights
    (array([[1, 1, 0],
           [1, 0, 0],
           [0, 0, 1]]), array([ 0.5 ,  1.25, -1.  ]))
    """
    columns, weights = [np.zeros((len(f), 0), np.bool_)], [np.zeros(0)]
    for sign in (1.0, -1.0):
        levels = np.unique(sign * f[sign * f > 0])
        columns.append(sign * f[:, None] >= levels)
        weights.append(sign * np.diff(levels, prepend=0.0))
    return np.hstack(columns), np.concatenate(weights)


def realise(x: Float64[np.ndarray, "n d"], patterns: Bool[np.ndarray, "n m"]) -> Float64[np.ndarray, "m e"]:
    """Return a plane (bias last) for each pattern, where x and the bias have rank n: w = [x 1]^+ (2 p - 1).

    Raises
    ------
    ValueError
        If the rank is below n: then not every pattern is cut out by a plane.

    Examples
    --------
    >>> planes = realise(np.array([[0.0], [1.0]]), np.array([[True], [False]]))
    >>> planes.round(6)
    array([[-2.,  1.]])
    """
    extended = np.hstack([x, np.ones((len(x), 1))])
    rank = int(np.linalg.matrix_rank(extended)) if extended.size else 0
    if rank < len(x):
        raise ValueError(
            f"x with a bias has rank {rank} for {len(x)} rows: it does not shatter them; use column generation"
        )
    planes: np.ndarray = (np.linalg.pinv(extended) @ (2.0 * patterns - 1.0)).T
    return planes


@dataclass(frozen=True)
class _Grouped(DataTerm):
    """A data term of rows that stand for many alike: row k counts `counts[k]` times."""

    term: DataTerm
    counts: np.ndarray

    @property
    def curvature(self) -> float:  # type: ignore[override]
        """Return that of the row that counts most."""
        return self.term.curvature * float(self.counts.max())

    def targets(self, y: Given) -> Outputs:
        """Return what the term has made before."""
        return self.term.targets(y)

    def value(self, f: Outputs, y: Outputs) -> float:
        """Return the weighted sum."""
        rows = zip(self.counts, np.vsplit(f, len(f)), np.vsplit(y, len(y)), strict=True)
        return sum(float(count) * self.term.value(there, wanted) for count, there, wanted in rows)

    def residual(self, f: Outputs, y: Outputs) -> Outputs:
        """Return the summed residuals of each group."""
        v: Outputs = self.counts[:, None] * self.term.residual(f, y)
        return v

    def bend(self, f: Outputs, y: Outputs, move: Outputs) -> Outputs:
        """Return the weighted product."""
        bent: Outputs = self.counts[:, None] * self.term.bend(f, y, move)
        return bent

    def dual(self, v: Outputs, y: Outputs) -> float:
        """Return the weighted sum of the dual values of one row each."""
        each = v / self.counts[:, None]
        rows = zip(self.counts, np.vsplit(each, len(v)), np.vsplit(y, len(y)), strict=True)
        return sum(float(count) * self.term.dual(part, wanted) for count, part, wanted in rows)

    def stretch(self, v: Outputs, y: Outputs) -> float:
        """Return 1, safe for all."""
        return 1.0

    def balance(self, v: Outputs, y: Outputs) -> Outputs:
        """Let the term balance all rows; equal ones stay equal."""
        many, first = self._spread()
        v = self.counts[:, None] * self.term.balance((v / self.counts[:, None])[many], y[many])[first]
        return v

    def shift(self, f: Outputs, y: Outputs) -> Float64[np.ndarray, " c"]:
        """Take Newton steps on the weighted rows; a single group has no need of them."""
        many, _ = self._spread()
        if len(f) == 1:
            return self.term.shift(f[many], y[many])
        b, units = np.zeros(f.shape[1]), np.eye(f.shape[1])
        now = self.value(f, y)
        for _ in range(100):
            pull = self.residual(f + b, y).sum(axis=0)
            if float(np.abs(pull).max()) <= 1e-13 * float(self.counts.sum()):
                break
            bend = np.stack([self.bend(f + b, y, np.tile(unit, (len(f), 1))).sum(axis=0) for unit in units])
            move = np.linalg.solve(bend + (1e-12 * np.trace(bend) + 1e-12) * units, pull)
            length = 1.0
            while length > 1e-8 and self.value(f + b + length * move, y) > now + 1e-14 * abs(now):
                length /= 2
            b = b + length * move
            now = self.value(f + b, y)
        return b

    def _spread(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the group of every row, and the first row of every group."""
        counts = self.counts.astype(np.int64)
        return np.repeat(np.arange(len(counts)), counts), np.cumsum(counts) - counts


def _scalar(y: np.ndarray, beta: float, *, intercept: bool) -> Shattered:
    """Solve for one output and the squared loss; the bound is the dual value of the residual, whatever rounding did."""
    b = 0.0
    if intercept:
        low, high = float(y.min()), float(y.max())  # the sum of residuals falls as b grows
        for _ in range(100):
            b = 0.5 * (low + high)
            pull = float((y - b - complete_fit(y - b, beta)).sum())
            low, high = (b, high) if pull > 0 else (low, b)
    f = complete_fit(y - b, beta)
    targets, outputs = y[:, None], (f + b)[:, None]
    v = targets - outputs
    v = v - v.mean() if intercept else v
    objective = 0.5 * float(np.square(y - b - f).sum()) + beta * _gauge(f)
    return Shattered(outputs, np.array([b]), objective, lower_bound(Squared(), v, targets, beta, _reach(v)))


def _height(y: np.ndarray, beta: float) -> float:
    """Return where the positive part of y is cut."""
    falling = -np.sort(-y[y > 0])
    if falling.sum() <= beta:
        return 0.0
    heights = (np.cumsum(falling) - beta) / np.arange(1, len(falling) + 1)
    return float(heights[np.flatnonzero(falling > heights)[-1]])


def _gauge(f: np.ndarray) -> float:
    """Return max(f)_+ + max(-f)_+."""
    return max(0.0, float(f.max())) + max(0.0, float(-f.min()))


def _reach(v: np.ndarray) -> float:
    """Return a bound on |v'd|_2 over all 0/1 columns d; exact for one output."""
    sides = np.maximum(np.maximum(v, 0.0).sum(axis=0), np.maximum(-v, 0.0).sum(axis=0))
    return float(np.sqrt(np.square(sides).sum()))
