"""Exact geometry: floats as integers, ranks and annihilators without rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

__all__ = ["annihilator", "independent_columns", "lattice", "narrowed", "signs", "vanishing"]

LARGEST = 1e150  # beyond, differences and products of floats may overflow


def lattice(x: Float64[np.ndarray, "n d"]) -> NDArray[Any]:
    """Return integers with the same geometry: each column times a power of two, exactly.

    The result is of Python's integers (dtype object); `narrowed` turns small ones into int64.

    Raises
    ------
    ValueError
        If a number is so large that sums of products overflow.

    Examples
    --------
    >>> lattice(np.array([[0.5, 3.0], [0.25, -1.0]]))
    array([[2, 3],
           [1, -1]], dtype=object)
    """
    if np.abs(x).max(initial=0.0) > LARGEST:
        raise ValueError(f"x reaches {np.abs(x).max():.3g}, exact searches stop at {LARGEST:.0e}; scale the features")
    mantissa, exponent = np.frexp(x)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    low = np.where(whole == 0, 0, whole & -whole)  # the lowest set bit
    zeros = np.where(whole == 0, 0, np.frexp(low.astype(np.float64))[1] - 1)
    power = np.where(whole == 0, np.iinfo(np.int64).max, exponent.astype(np.int64) - 53 + zeros)
    shift = np.where(whole == 0, 0, power - power.min(axis=0, initial=np.iinfo(np.int64).max))
    return (whole >> zeros).astype(object) << shift.astype(object)  # type: ignore[no-any-return]


def narrowed(x: NDArray[Any], bits: int) -> NDArray[Any]:
    """Return integers as int64 where all are below 2^bits in size, else unchanged.

    Examples
    --------
    >>> narrowed(np.array([3, -4], object), 3).dtype.name, narrowed(np.array([8], object), 3).dtype.name
    ('int64', 'object')
    """
    small = all(abs(value) < 1 << bits for value in x.reshape(-1).tolist())
    return x.astype(np.int64) if small else x


def signs(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the signs of integers of any size.

    Examples
    --------
    >>> signs(np.array([-(10**30), 0, 7], object))
    array([-1,  0,  1])
    """
    return (values > 0).astype(np.int64) - (values < 0).astype(np.int64)


def independent_columns(h: NDArray[Any]) -> list[int]:
    """Return the first columns of an integer matrix that span all its columns; the last column comes first.

    The last column is that of the bias, so that it is always kept where it is not 0.

    Examples
    --------
    >>> independent_columns(np.array([[1, 2, 1], [2, 4, 1], [3, 6, 1]], object))
    [0, 2]
    """
    width = h.shape[1]
    order = [width - 1, *range(width - 1)]
    rows = h[:, order].astype(object)
    kept: list[int] = []
    previous = 1
    for place, column in enumerate(order):
        rank = len(kept)
        at = np.flatnonzero(rows[rank:, place].astype(bool))
        if not len(at):
            continue
        swap = rank + int(at[0])
        rows[[rank, swap]] = rows[[swap, rank]]
        pivot = rows[rank, place]
        # Bareiss: every division is exact
        below = rows[rank + 1 :]
        rows[rank + 1 :] = (below * pivot - below[:, [place]] * rows[[rank]]) // previous
        previous = pivot
        kept.append(column)
        if len(kept) == len(rows):
            break
    return sorted(kept)


def annihilator(rows: NDArray[Any]) -> NDArray[Any] | None:
    """Return an integer basis (r, r - q) of all g with rows @ g = 0, or None if the q rows are dependent.

    Fraction-free Gauss-Jordan elimination: exact.

    Examples
    --------
    >>> annihilator(np.array([[3, 5, 1]], object)).T.tolist()
    [[-5, 3, 0], [-1, 0, 3]]
    """
    matrix = [list(row) for row in rows.tolist()]
    width = rows.shape[1]
    pivots: list[int] = []
    previous = 1
    for step in range(len(matrix)):
        found = next(
            ((i, j) for j in range(width) for i in range(step, len(matrix)) if matrix[i][j] and j not in pivots), None
        )
        if found is None:
            return None
        i, j = found
        matrix[step], matrix[i] = matrix[i], matrix[step]
        pivot = matrix[step][j]
        for k, row in enumerate(matrix):
            if k != step:
                factor = row[j]
                matrix[k] = [(a * pivot - factor * b) // previous for a, b in zip(row, matrix[step], strict=True)]
        previous = pivot
        pivots.append(j)
    free = [j for j in range(width) if j not in pivots]
    basis = np.zeros((width, len(free)), dtype=object)
    for column, j in enumerate(free):
        basis[j, column] = previous
        for row, at in zip(matrix, pivots, strict=True):
            basis[at, column] = -row[j]
    return basis


def vanishing(h: NDArray[Any]) -> Bool[np.ndarray, " n"]:
    """Return which rows of integers are 0."""
    filled: Bool[np.ndarray, " n"] = np.any(h.astype(bool), axis=1)
    return ~filled
