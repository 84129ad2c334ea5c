"""The group lasso on a Gram matrix: block coordinate descent, finished by Newton steps on the support."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from hardstep.convex.descent import descend

__all__ = ["Quadratic", "conjugate_gradients", "exact_step", "factor", "minimise"]

DENSE = 500  # unknowns up to which the Newton system of several outputs is factored whole
PATIENCE = 3  # rounds without progress before it ends
RIDGE = 1e-10  # share of the mean diagonal that keeps a Gram matrix of dependent columns definite
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class Quadratic:
    """The data term 1/2 |D U - Z|² of p columns and c outputs, seen through products only.

    Parameters
    ----------
    gram
        D'D.
    cross
        (D'Z)', one row an output.
    energy
        |Z|².

    Examples
    --------
    >>> Quadratic(np.eye(2), np.array([[3.0, 1.0]]), 10.0).objective(np.zeros((1, 2)), beta=1.0)
    5.0
    """

    gram: Float64[np.ndarray, "p p"]
    cross: Float64[np.ndarray, "c p"]
    energy: float

    def pull(self, u: Float64[np.ndarray, "c p"]) -> Float64[np.ndarray, "c p"]:
        """Return D'(Z - D U), one row an output."""
        used = np.flatnonzero(u.any(axis=0))
        few = 8 * len(used) < u.shape[1]
        pulled: Float64[np.ndarray, "c p"] = self.cross - (u[:, used] @ self.gram[used] if few else u @ self.gram)
        return pulled

    def objective(self, u: Float64[np.ndarray, "c p"], beta: float) -> float:
        """Return 1/2 |D U - Z|² + beta sum_j |U_j|."""
        return 0.5 * self._square(u, self.pull(u)) + beta * float(_norms(u).sum())

    def gap(self, u: Float64[np.ndarray, "c p"], pull: Float64[np.ndarray, "c p"], beta: float) -> tuple[float, float]:
        """Return the objective and its distance to the dual value of the scaled residual (clip form)."""
        square, along = self._square(u, pull), self.energy - float((self.cross * u).sum())
        objective = 0.5 * square + beta * float(_norms(u).sum())
        reach = beta / max(float(_norms(pull).max(initial=0.0)), TINY)
        t = float(np.clip(along / max(square, TINY), -reach, reach))
        return objective, objective - (t * along - 0.5 * t * t * square)

    def _square(self, u: np.ndarray, pull: np.ndarray) -> float:
        """Return |Z - D U|²."""
        return max(0.0, self.energy - float(((self.cross + pull) * u).sum()))


def minimise(
    quadratic: Quadratic, beta: float, u: Float64[np.ndarray, "c p"], tol: float, *, rounds: int = 200
) -> Float64[np.ndarray, "c p"]:
    """Minimise 1/2 |D U - Z|² + beta sum_j |U_j|_2 from u until the relative duality gap is at most tol.

    Passes of block coordinate descent find the support; a Newton step on it, by a factored Gram matrix, ends what
    descent alone would need thousands of passes for: exactly, for one output, once the signs are right. The step goes
    to the least value on its line; where groups would change sign, setting them to 0 is tried as well. The objective
    never rises. Stops early where rounding allows no progress.

    References
    ----------
    Coordinate descent as in Friedman, Hastie, Tibshirani 2010 [friedman2010]. Differs: on the Gram matrix, for groups,
    with Newton steps on the support.

    Examples
    --------
    >>> minimise(Quadratic(np.eye(2), np.array([[3.0, 1.0]]), 10.0), 1.5, np.zeros((1, 2)), 1e-9)
    array([[1.5, 0. ]])
    """
    u = np.ascontiguousarray(u, np.float64).copy()
    alive = np.flatnonzero(quadratic.gram.diagonal() > 1e-9)  # a constant column has no length once centred
    u[:, np.setdiff1d(np.arange(u.shape[1]), alive)] = 0.0
    pull, last, least, still = quadratic.pull(u), np.inf, np.inf, 0
    for _ in range(rounds):
        descend(quadratic.gram, beta, alive, 1, u, pull)
        support = np.flatnonzero(u.any(axis=0))
        passes = int(np.clip((len(support) * len(u)) ** 2 // (24 * u.shape[1]), 4, 40))
        descend(quadratic.gram, beta, support, passes, u, pull)
        support = np.flatnonzero(u.any(axis=0))
        if len(support):
            _newton(quadratic, beta, u, pull, support)
            pull = quadratic.pull(u)
        objective, gap = quadratic.gap(u, pull, beta)
        # the gap is of first order in what is missing, the objective of second: it falls on where that stands
        still = still + 1 if objective >= last * (1 - 1e-15) and gap >= least else 0
        if gap <= tol * objective or still == PATIENCE:
            break
        last, least = min(last, objective), min(least, gap)
    return u


def exact_step(
    value: float, slope: float, curvature: float, start: Float64[np.ndarray, "c a"], move: Float64[np.ndarray, "c a"]
) -> float:
    """Return argmin_t slope t + curvature t²/2 + value sum_j |start_j + t move_j| over t >= 0, by bisection.

    Examples
    --------
    >>> round(exact_step(1.0, -3.0, 1.0, np.array([[1.0]]), np.array([[1.0]])), 9)
    2.0
    """
    square, cross, fixed = np.square(move).sum(axis=0), (start * move).sum(axis=0), np.square(start).sum(axis=0)

    def rises(t: float) -> bool:
        norms = np.sqrt(np.maximum(fixed + t * (2 * cross + t * square), TINY))
        return bool(slope + curvature * t + value * float(((cross + t * square) / norms).sum()) >= 0.0)

    low, high = 0.0, 1.0
    while not rises(high) and high < 1e9:
        low, high = high, 2 * high
    for _ in range(48):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if rises(middle) else (middle, high)
    return high


def _newton(quadratic: Quadratic, beta: float, u: np.ndarray, pull: np.ndarray, support: np.ndarray) -> None:
    """Move u on its support to the best of a Newton step's line and its projection, if that lowers the objective."""
    gram = quadratic.gram[np.ix_(support, support)]
    start, push = u[:, support], pull[:, support]
    norms = _norms(start)
    move = _direction(gram, beta, start, push - beta * start / norms, norms)
    bent = move @ gram
    slope, curvature = -float((push * move).sum()), float((bent * move).sum())
    best, after = 0.0, start
    for wanted in _candidates(start, move, exact_step(beta, slope, curvature, start, move)):
        change = wanted - start
        straight = bool((np.abs(change - move) <= 1e-12 * np.abs(move)).all())
        quad = curvature if straight else float(((change @ gram) * change).sum())
        bend = beta * (start + wanted) / (norms + _norms(wanted))  # |a| - |b| = (a - b)(a + b)/(|a| + |b|)
        rise = float(((bend - push) * change).sum()) + 0.5 * quad
        if rise < best:
            best, after = rise, wanted
    u[:, support] = after


def _candidates(start: np.ndarray, move: np.ndarray, step: float) -> list[np.ndarray]:
    """Return where to go: the line's best point, and the full and the half step with turned groups set to 0."""
    found = []
    turned = ((start + move) * start).sum(axis=0) <= 0
    if turned.any():
        for length in (1.0, 0.5):
            there = start + length * move
            found.append(np.where((there * start).sum(axis=0) > 0, there, 0.0))
        line = start + step * move
        scale = np.finfo(float).eps * 64 * (np.abs(start) + step * np.abs(move))
        found.append(np.where((np.abs(line) <= scale).all(axis=0), 0.0, line))  # the step ends at a kink
    else:
        found.append(start + (1.0 if len(start) == 1 else step) * move)
    return found


def _direction(gram: np.ndarray, beta: float, start: np.ndarray, force: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Solve (G x I + beta diag((I - e e')/|U_j|)) d = force, e = U_j/|U_j|."""
    c, a = start.shape
    ridge = RIDGE * float(gram.diagonal().mean())
    bend = beta / norms
    if c == 1:
        return _solve(gram, ridge, force)
    unit = start / norms
    if c * a <= DENSE:
        system = np.zeros((c, a, c, a))
        spot = np.arange(a)
        for k in range(c):
            system[k, :, k, :] = gram
            for m in range(c):
                system[k, spot, m, spot] += bend * ((k == m) - unit[k] * unit[m])
        return _solve(system.reshape(c * a, c * a), ridge, force.reshape(1, -1)).reshape(c, a)
    whole = factor(gram, ridge + bend * (c - 1) / c)

    def apply(d: np.ndarray) -> np.ndarray:
        product: np.ndarray = d @ gram + ridge * d + bend * (d - unit * (unit * d).sum(axis=0))
        return product

    return conjugate_gradients(apply, lambda r: cho_solve(whole, r.T, check_finite=False).T, force)


def _solve(system: np.ndarray, ridge: float, right: np.ndarray) -> np.ndarray:
    """Solve (system + diag ridge) x = right for each row of right."""
    solved: np.ndarray = cho_solve(factor(system, ridge), right.T, check_finite=False).T
    return solved


def factor(system: np.ndarray, ridge: float | np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the Cholesky factor of system + diag ridge; the ridge grows until there is one."""
    while True:
        try:
            whole = system.copy()
            whole.ravel()[:: len(whole) + 1] += ridge
            found: tuple[np.ndarray, bool] = cho_factor(whole, lower=True, overwrite_a=True, check_finite=False)
            return found
        except LinAlgError:
            ridge = 100 * ridge


def conjugate_gradients(
    apply: Callable[[np.ndarray], np.ndarray],
    precondition: Callable[[np.ndarray], np.ndarray],
    right: np.ndarray,
    *,
    steps: int = 40,
    tol: float = 1e-8,
) -> np.ndarray:
    """Solve apply(x) = right by preconditioned conjugate gradients, as far as `steps` products go."""
    x, residual = np.zeros_like(right), right
    z = precondition(residual)
    along, weight = z, float((residual * z).sum())
    first = weight
    for _ in range(steps):
        if not weight > tol * tol * first:
            break
        product = apply(along)
        length = weight / float((along * product).sum())
        x, residual = x + length * along, residual - length * product
        z = precondition(residual)
        before, weight = weight, float((residual * z).sum())
        along = z + (weight / before) * along
    return x


def _norms(u: np.ndarray) -> np.ndarray:
    """Return the length of every column."""
    norms: np.ndarray = np.abs(u[0]) if len(u) == 1 else np.sqrt(np.square(u).sum(axis=0))
    return norms
