"""Gordan's alternative by linear programs: weights v with A v > 0, or multipliers l >= 0, l != 0, with A'l = 0.

The programs run in floats; what they find is checked in whole numbers. Floats are whole multiples of a power of two, so
that this covers real rows too.
"""

from __future__ import annotations

from fractions import Fraction
from math import gcd, inf, lcm
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from scipy.optimize import linprog

__all__ = ["Program", "largest_margin", "least_slack", "product", "whole_multipliers", "whole_rows", "whole_weights"]

# weights are rounded to multiples of 2^-k of the largest; the last for columns of very different sizes
POWERS = (*range(41), 53, 64, 80, 112, 160, 240, 400)
DENOMINATOR = 10_000  # of multipliers that are tried first
WORK = 3 * 10**7  # products of an exact elimination that is affordable
FREE = 2**30  # multipliers that an elimination leaves open are rounded to multiples of 1/FREE

Rows = NDArray[Any]
"""Whole numbers: int64, or Python's where they are larger."""


class Program(NamedTuple):
    """What a linear program found: its least value, the weights of the columns and the multipliers of the rows."""

    value: float
    weights: Float64[np.ndarray, " p"]
    multipliers: Float64[np.ndarray, " m"]


def largest_margin(rows: Float64[np.ndarray, "m p"], free: int) -> Program:
    """Solve max_v min_i (A v)_i with |v_j| <= 1 but for the last `free` columns.

    The dual is min_l |A'l|_1 with l >= 0, sum l = 1 and A'l = 0 in the free columns. For rows t (x, 1) of two classes
    it is half the L1 distance of their convex hulls.

    Parameters
    ----------
    free
        How many of the last columns have no bound: the biases.

    Raises
    ------
    ArithmeticError
        If the solver gives up; also where the margin has no bound, since the free columns alone reach A v > 0.

    Examples
    --------
    >>> largest_margin(np.array([[2.0, 1.0], [-1.0, -1.0]]), free=1).value
    0.5
    """
    count, width = rows.shape
    boxed = width - free
    # l, and the positive and negative parts of A'l in the columns with a bound
    residual = np.concatenate([-np.eye(boxed), np.eye(boxed)], axis=1)
    equations = np.zeros((width + 1, count + 2 * boxed))
    equations[:-1, :count] = rows.T
    equations[:boxed, count:] = residual
    equations[-1, :count] = 1
    price = np.r_[np.zeros(count), np.ones(2 * boxed)]
    result = _solved(price, equations, np.r_[np.zeros(width), 1.0], np.array(inf))
    return Program(max(float(result.fun), 0.0), -np.asarray(result.eqlin.marginals[:-1]), result.x[:count])


def least_slack(rows: Float64[np.ndarray, "m p"], prices: Float64[np.ndarray, " m"] | None = None) -> Program:
    """Solve min_v sum_i c_i max(0, 1 - (A v)_i); it is 0 exactly where A v > 0 has a solution.

    Solved as its dual, max_l sum l with A'l = 0 and 0 <= l <= c, which has as many equations as weights.

    Parameters
    ----------
    prices
        c, > 0; None for 1: how many rows are alike.

    Raises
    ------
    ArithmeticError
        If the solver gives up.

    References
    ----------
    Bennett and Mangasarian 1992 [bennett1992]. Differs: other prices.

    Examples
    --------
    >>> least_slack(np.array([[1.0], [-1.0]])).value
    2.0
    """
    top = np.ones(len(rows)) if prices is None else prices
    result = _solved(-np.ones(len(rows)), rows.T, np.zeros(rows.shape[1]), top)
    weights = -np.asarray(result.eqlin.marginals)
    return Program(float(top @ np.maximum(1 - rows @ weights, 0)), weights, result.x)


def _solved(price: NDArray[Any], equations: NDArray[Any], right: NDArray[Any], top: NDArray[Any]) -> Any:
    bounds = np.stack([np.zeros(len(price)), np.broadcast_to(top, price.shape)], axis=1)
    result = linprog(price, A_eq=equations, b_eq=right, bounds=bounds, method="highs-ds")
    if result.status != 0:
        raise ArithmeticError(f"the linear program of {equations.shape} was not solved: {result.message}")
    return result


def whole_rows(x: NDArray[Any]) -> tuple[Rows, int]:
    """Return X and q with x = X / 2^q exactly.

    Raises
    ------
    ValueError
        If a number is not finite.

    Examples
    --------
    >>> whole_rows(np.array([[0.5, 3.0]]))
    (array([[1, 6]]), 1)
    """
    if not np.isfinite(x).all():
        raise ValueError("the rows hold NaN or infinite numbers; drop or fill them first")
    if np.equal(x, np.rint(x)).all() and np.abs(x).max(initial=0) < 2**53:
        return x.astype(np.int64), 0
    parts = [Fraction(value) for value in np.asarray(x, np.float64).reshape(-1).tolist()]
    shared = max((part.denominator for part in parts), default=1)  # all are powers of two
    whole = np.array([int(part * shared) for part in parts], object).reshape(x.shape)
    small = max(map(abs, whole.reshape(-1)), default=0) < 2**53
    return whole.astype(np.int64) if small else whole, shared.bit_length() - 1


def whole_weights(rows: Rows, weights: NDArray[np.float64]) -> list[int] | None:
    """Return whole weights V with A V > 0 in every row, near a multiple of these, of the fewest bits; None if none is.

    Examples
    --------
    >>> whole_weights(np.array([[2, -3], [0, 1]]), np.array([0.9, 0.5]))
    [2, 1]
    """
    largest = float(np.abs(weights).max(initial=0.0))
    if not 0 < largest < inf:
        return None
    for power in POWERS:
        whole = [int(value) for value in np.rint(np.ldexp(weights / largest, power)).tolist()]
        if (product(rows, whole) > 0).all():
            return whole
    return None


def whole_multipliers(rows: Rows, multipliers: NDArray[np.float64]) -> list[int] | None:
    """Return whole L >= 0, not all 0, with A'L = 0 exactly, near a multiple of these; None if none was found.

    First the multipliers are taken as fractions with a small denominator; then A'L = 0 is solved over their support.

    Examples
    --------
    >>> whole_multipliers(np.array([[1, 1], [-2, -1], [0, -1]]), np.array([0.5, 0.25, 0.25]))
    [2, 1, 1]
    """
    columns = rows.T
    near = [Fraction(max(value, 0.0)).limit_denominator(DENOMINATOR) for value in multipliers.tolist()]
    shared = lcm(*(value.denominator for value in near))
    found = _reduced([int(value * shared) for value in near])
    if any(found) and not product(columns, found).any():
        return found
    support = [int(i) for i in np.argsort(-multipliers, kind="stable") if multipliers[i] > 1e-9]
    if not support or len(support) * columns.shape[0] * min(len(support), columns.shape[0]) > WORK:
        return None
    inner = _kernel(columns[:, support].astype(object), multipliers[support])
    if inner is None:
        return None
    found = [0] * len(multipliers)
    for i, value in zip(support, _reduced(inner), strict=True):
        found[i] = value
    return found


def product(rows: Rows, whole: list[int]) -> Rows:
    """Return rows @ whole without rounding or overflow."""
    reach = int(np.abs(rows).max(initial=0)) * sum(map(abs, whole))
    if rows.dtype != object and reach < 2**62:
        return np.asarray(rows @ np.array(whole, np.int64))
    return np.asarray(rows.astype(object) @ np.array(whole, object))


def _reduced(values: list[int]) -> list[int]:
    divisor = gcd(*values) or 1
    return [value // divisor for value in values]


def _kernel(matrix: Rows, near: NDArray[np.float64]) -> list[int] | None:
    """Return whole L >= 0 with M L = 0 by elimination without fractions (Bareiss); open ones are near those given."""
    matrix = matrix.copy()
    pivots: list[int] = []
    scale = 1
    for column in range(matrix.shape[1]):
        rank = len(pivots)
        rest = [row for row in range(rank, len(matrix)) if matrix[row, column]]
        if not rest:
            continue
        matrix[[rank, rest[0]]] = matrix[[rest[0], rank]]
        pivot, line = matrix[rank, column], matrix[rank].copy()
        matrix = (matrix * pivot - np.outer(matrix[:, column], line)) // scale
        matrix[rank] = line
        scale = pivot
        pivots.append(column)
    opened = [column for column in range(matrix.shape[1]) if column not in pivots]
    chosen = {column: round(FREE * float(near[column] / near.max())) for column in opened}
    found = [0] * matrix.shape[1]
    for column, value in chosen.items():
        found[column] = value * scale
    for row, column in enumerate(pivots):
        found[column] = -sum(matrix[row, other] * value for other, value in chosen.items())
    found = found if scale > 0 else [-value for value in found]
    return found if any(found) and min(found) >= 0 else None
