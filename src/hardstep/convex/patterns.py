"""Patterns of hyperplanes on rows of data: the one place where bits are computed, and rows that are alike merged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

__all__ = ["Distinct", "checked_rows", "distinct", "pattern_keys", "patterns"]


def patterns(x: Float64[np.ndarray, "n d"], planes: Float64[np.ndarray, "k d1"]) -> Bool[np.ndarray, "n k"]:
    """Return the bits 1{x_i . w_k + b_k > 0} of hyperplanes (w, b), bias last; the step is strict.

    Raises
    ------
    ValueError
        If a plane has not one number more than a row.

    Examples
    --------
    >>> patterns(np.array([[0.0], [1.0], [2.0]]), np.array([[1.0, -1.0]]))[:, 0]
    array([False, False,  True])
    """
    if planes.shape[1] != x.shape[1] + 1:
        raise ValueError(
            f"a plane over {x.shape[1]} features has {x.shape[1] + 1} numbers, the bias last; got {planes.shape[1]}"
        )
    bits: Bool[np.ndarray, "n k"] = x @ planes[:, :-1].T + planes[:, -1] > 0
    return bits


def pattern_keys(bits: Bool[np.ndarray, "n k"], *, complements: bool) -> list[bytes]:
    """Return a key of each pattern, a column: the same for patterns that are equal, to be looked up in a set.

    Parameters
    ----------
    complements
        Give a pattern and its complement one key.

    Examples
    --------
    >>> one, other, third = pattern_keys(np.array([[0, 1, 1], [1, 0, 1]], bool), complements=True)
    >>> one == other, one == third
    (True, False)
    """
    folded = bits ^ bits[:1] if complements else bits
    return [row.tobytes() for row in np.packbits(folded.T, axis=1)]


@dataclass(frozen=True, eq=False)
class Distinct:
    """The distinct rows of a matrix, and to which of them each row belongs."""

    x: Float64[np.ndarray, "m d"]
    group: Int64[np.ndarray, " n"]

    def sum(self, v: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, "m c"]:
        """Add the weights of rows that are alike: no half-space tells them apart."""
        added = np.zeros((len(self.x), v.shape[1]))
        np.add.at(added, self.group, v)
        return added


def distinct(x: Float64[np.ndarray, "n d"]) -> Distinct:
    """Merge identical rows; -0.0 and 0.0 are one number.

    Examples
    --------
    >>> distinct(np.array([[1.0], [0.0], [1.0]])).group
    array([1, 0, 1])
    """
    if x.shape[1] == 0:
        return Distinct(x[:1], np.zeros(len(x), np.int64))
    rows, group = np.unique(x + 0.0, axis=0, return_inverse=True)
    return Distinct(rows, group.reshape(-1).astype(np.int64))


def checked_rows(x: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Return the data if a search can run on it.

    Raises
    ------
    ValueError
        If there is no row, or a number is not finite.
    """
    if len(x) == 0:
        raise ValueError("the data has no row; give at least one")
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        raise ValueError(f"x[{row}, {column}] is {x[row, column]}; drop or impute rows that are not finite")
    return x
