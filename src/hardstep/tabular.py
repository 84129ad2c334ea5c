"""Tables: columns of any scale as 8-bit codes, weights of rows as copies, rows held out. NumPy only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from numpy.typing import NDArray
from scipy import sparse

from hardstep.grid import LEVELS, Grid

__all__ = ["canonical_order", "column_grid", "held_out", "row_counts", "standard_grid", "to_codes"]

BLOCK = 2**22  # numbers that are dense at a time
MIDDLE = (0.005, 0.995)  # the share of a column that its codes resolve best
MOST = 10  # copies a row on average


def column_grid(x: Any, counts: Int64[np.ndarray, " n"]) -> Grid:
    """Return which number each code of each column stands for: value = scale (code - zero).

    The 256 codes of a column are evenly spaced from a to b. Whole numbers that span fewer than 256 keep scale 1. Else
    a = max(least, q - w) and b = min(largest, r + w), with q and r the 0.5 % and 99.5 % quantiles and w = r - q: a few
    far values cannot take the resolution from all others, and are cut to the ends. Where w = 0, all values are covered.

    Parameters
    ----------
    x
        Finite numbers (n, d), an array or a sparse matrix, which is made dense a few columns at a time.
    counts
        How often each row counts, at least once.

    Raises
    ------
    ValueError
        If the span of a column is not a finite number.

    Examples
    --------
    >>> column_grid(np.array([[0.0, 5.0], [1.0, 60.0]]), np.array([1, 1])).scale
    array([1., 1.])
    """
    n, d = x.shape
    weights = None if (counts == 1).all() else counts
    by_column = sparse.csc_array(x) if sparse.issparse(x) else x
    scales, zeros = [], []
    for start in range(0, d, max(1, BLOCK // n)):
        block = _dense(by_column[:, start : start + max(1, BLOCK // n)])
        low, high = block.min(axis=0), block.max(axis=0)
        with np.errstate(over="ignore"):
            wide = np.flatnonzero(~np.isfinite(high - low))
        if len(wide):
            j = wide[0]
            raise ValueError(f"column {start + j} spans {low[j]} to {high[j]}, more than a number holds; rescale it")
        whole = (block == np.rint(block)).all(axis=0) & (high - low < LEVELS)
        q, r = np.quantile(block, MIDDLE, axis=0, method="inverted_cdf", weights=weights)
        middle = r - q
        with np.errstate(over="ignore"):
            cut_low, cut_high = np.maximum(low, q - middle), np.minimum(high, r + middle)
        cut = (middle > 0) & ~whole
        low, high = np.where(cut, cut_low, low), np.where(cut, cut_high, high)
        scale = np.where(whole & (high > low), 1.0, (high - low) / (LEVELS - 1))
        scale[scale == 0] = np.maximum(1.0, np.abs(low))[scale == 0]
        scales.append(scale)
        zeros.append(np.rint(-low / scale))
    return Grid(np.concatenate(scales), np.concatenate(zeros))


def to_codes(x: Any, grid: Grid) -> UInt8[np.ndarray, "n d"]:
    """Return the codes of numbers (n, d), an array or a sparse matrix, which is made dense a few rows at a time."""
    codes = np.empty(x.shape, np.uint8)
    for rows in _blocks(*x.shape):
        codes[rows] = grid.code(_dense(x[rows]))
    return codes


def standard_grid(codes: UInt8[np.ndarray, "n d"], counts: Int64[np.ndarray, " n"]) -> Grid:
    """Return the grid on which each column of codes has deviation 1 and a mean within half a code of 0.

    All sums are of whole numbers, so neither the order of the rows nor copies in place of counts change a bit.
    """
    total = np.zeros(codes.shape[1])
    squares = np.zeros(codes.shape[1])
    for rows in _blocks(*codes.shape):
        values, weights = codes[rows].astype(np.float64), counts[rows].astype(np.float64)
        total += weights @ values
        squares += weights @ values**2
    n = float(counts.sum())
    variance = np.maximum(squares / n - (total / n) ** 2, 0)
    deviation = np.where(codes.min(axis=0) == codes.max(axis=0), 1.0, np.sqrt(variance))
    return Grid(1 / np.maximum(deviation, 1e-3), np.rint(total / n))


def row_counts(
    weights: Float[np.ndarray, " n"], groups: Shaped[np.ndarray, " n"], generator: np.random.Generator
) -> Int64[np.ndarray, " n"]:
    """Return how many copies of each row stand for its weight.

    Whole weights of at most 10 a row on average are the copies. Else row i gets floor or ceiling of
    e_i = m n w_i / sum w, its mean over the seeds being e_i (systematic sampling), with the least m <= 10 for which
    all positive weights have e_i >= 1. So no row is lost but where weights differ by more than a factor of about ten.
    The heaviest row of each group keeps a copy.

    Parameters
    ----------
    groups
        The class of each row, or anything constant.

    Examples
    --------
    >>> row_counts(np.array([1.0, 3.0, 0.0]), np.zeros(3), np.random.default_rng(0))
    array([1, 3, 0])
    """
    n, total = len(weights), float(weights.sum())
    if (weights == np.rint(weights)).all() and total <= MOST * n:
        counts = weights.astype(np.int64)
    else:
        least = float(weights[weights > 0].min())
        expected = weights * (n * min(MOST, np.ceil(total / (n * least))) / total)
        ends = np.floor(np.cumsum(expected) + generator.uniform())
        counts = np.diff(ends, prepend=0.0).astype(np.int64)
    by_weight = np.argsort(-weights, kind="stable")
    _, first = np.unique(groups[by_weight], return_index=True)
    heaviest = by_weight[first]
    counts[heaviest] = np.maximum(counts[heaviest], 1)
    return counts


def canonical_order(codes: UInt8[np.ndarray, "n d"], y: Shaped[np.ndarray, "n ..."]) -> Int64[np.ndarray, " n"]:
    """Return the order of rows by their bytes, codes first: the same whatever order they came in."""
    told = np.ascontiguousarray(y).view(np.uint8).reshape(len(y), -1)
    rows = np.ascontiguousarray(np.hstack([codes, told]))
    order: NDArray[np.int64] = np.argsort(rows.view(f"V{rows.shape[1]}").reshape(-1), kind="stable")
    return order


def held_out(groups: Shaped[np.ndarray, " n"], share: float, generator: np.random.Generator) -> Bool[np.ndarray, " n"]:
    """Return which rows are held out: the share of each group, rounded, but never its last row.

    Raises
    ------
    ValueError
        If that is no row at all.
    """
    out = np.zeros(len(groups), bool)
    for group in np.unique(groups):
        members = generator.permutation(np.flatnonzero(groups == group))
        out[members[: min(round(share * len(members)), len(members) - 1)]] = True
    if not out.any():
        raise ValueError(
            f"a share of {share} of {len(groups)} rows holds none of them out; raise the share, or set holdout=None"
        )
    return out


def _dense(block: Any) -> NDArray[np.float64]:
    array: NDArray[np.float64] = block.toarray() if sparse.issparse(block) else np.asarray(block)
    return array


def _blocks(n: int, d: int) -> Iterator[slice]:
    """Yield the rows in blocks."""
    size = max(1, BLOCK // d)
    return (slice(start, start + size) for start in range(0, n, size))
