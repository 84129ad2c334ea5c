"""The 0/1 design matrix in bits: products with real vectors and Gram matrices without ever unpacking it whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt64

from hardstep.bits import popcount, unpack

__all__ = ["BitMatrix"]

WORD = 64
ROWS = 512  # a column is padded to a multiple of these
BLOCK = 1 << 24  # entries of the dense block that a reference product unpacks at a time


@dataclass(frozen=True, eq=False)
class BitMatrix:
    """Hold an n x p matrix of 0 and 1 in n p / 8 bytes, and multiply with it.

    Column j is row j of `words`: its entry i is bit i mod 64 of word i div 64, padded with zeros to 512 entries.

    Parameters
    ----------
    words
        The packed columns.
    rows
        Number of rows n.

    Raises
    ------
    ValueError
        If the words do not fit the number of rows.

    Examples
    --------
    >>> d = BitMatrix.from_bools(np.array([[True, False], [True, True], [False, True]]))
    >>> d.pull(np.array([[1.0], [2.0], [4.0]]))
    array([[3.],
           [6.]])
    >>> d.gram()
    array([[2., 1.],
           [1., 2.]])
    """

    words: UInt64[np.ndarray, "p w"]
    rows: int

    def __post_init__(self) -> None:
        if self.words.shape[1] != _width(self.rows):
            raise ValueError(
                f"a column of {self.rows} rows takes {_width(self.rows)} words, got {self.words.shape[1]}; "
                f"make the matrix by BitMatrix.from_bools"
            )

    @classmethod
    def from_bools(cls, d: Bool[np.ndarray, "n p"]) -> BitMatrix:
        """Pack a dense matrix."""
        n, p = d.shape
        words = np.zeros((p, _width(n)), np.uint64)
        octets = words.view(np.uint8)
        step = max(1, BLOCK // max(n, 1))
        for i in range(0, p, step):
            packed = np.packbits(np.ascontiguousarray(d[:, i : i + step].T), axis=1, bitorder="little")
            octets[i : i + step, : packed.shape[1]] = packed
        return cls(words.view("<u8").astype(np.uint64, copy=False), n)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, len(self.words)

    @property
    def nbytes(self) -> int:
        """Bytes that the packed columns take."""
        return int(self.words.nbytes)

    def unpack(self) -> Bool[np.ndarray, "n p"]:
        """Return the dense matrix."""
        return _dense(self.words, self.rows).T

    def hstack(self, other: BitMatrix) -> BitMatrix:
        """Put the columns of another matrix of as many rows behind these."""
        _same_rows("columns", self.rows, other.rows)
        return BitMatrix(np.concatenate([self.words, other.words]), self.rows)

    def take(self, columns: Integer[np.ndarray, " q"] | Bool[np.ndarray, " p"]) -> BitMatrix:
        """Return the columns of these numbers, or those marked."""
        return BitMatrix(self.words[columns], self.rows)

    def counts(self) -> Float[np.ndarray, " p"]:
        """Return the number of ones in each column."""
        return popcount(self.words).astype(np.float64)

    def pull(self, v: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "p c"]:
        """Return D'V: of each column, the sums of V over the rows where it is 1.

        Raises
        ------
        ValueError
            If V has another number of rows, or is not finite.
        """
        _same_rows("V", self.rows, len(v))
        out = np.zeros((len(self.words), v.shape[1]))
        for part, dense in self._blocks():
            out[part] = dense @ v
        return _finite("V", out)

    def push(self, u: Float[np.ndarray, "p c"]) -> Float[np.ndarray, "n c"]:
        """Return DU; columns whose row of U is 0 cost nothing.

        Raises
        ------
        ValueError
            If U has another number of rows than there are columns, or is not finite.
        """
        if len(u) != len(self.words):
            raise ValueError(f"U has {len(u)} rows, but the matrix has {len(self.words)} columns; one row a column")
        used = np.flatnonzero(u.any(axis=1))
        out = np.zeros((self.rows, u.shape[1]))
        active, values = self.take(used), u[used]
        for part, dense in active._blocks():
            out += dense.T @ values[part]
        return _finite("U", out)

    def gram(self, other: BitMatrix | None = None) -> Float[np.ndarray, "p q"]:
        """Return D'D, or D'E with the columns of another matrix: whole numbers, exact."""
        second = self if other is None else other
        _same_rows("columns", self.rows, second.rows)
        out = np.zeros((len(self.words), len(second.words)))
        for part, dense in self._blocks():
            for others, right in second._blocks():
                out[part, others] = dense @ right.T
        return out

    def _blocks(self) -> Iterator[tuple[slice, Float[np.ndarray, "q n"]]]:
        """Yield parts of the columns with their dense transposes."""
        step = max(1, BLOCK // max(self.rows, 1))
        for i in range(0, len(self.words), step):
            part = slice(i, i + step)
            yield part, _dense(self.words[part], self.rows).astype(np.float64)


def _width(rows: int) -> int:
    """Return the words of a column of so many rows."""
    return -(-rows // ROWS) * (ROWS // WORD)


def _dense(words: UInt64[np.ndarray, "q w"], rows: int) -> Bool[np.ndarray, "q n"]:
    """Return packed columns as rows of bools."""
    return unpack(words, rows).view(np.bool_)


def _same_rows(name: str, rows: int, given: int) -> None:
    if rows != given:
        raise ValueError(f"the matrix has {rows} rows, the {name} given {given}; both must be of the same data")


def _finite(name: str, out: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Return a product, if what was multiplied is finite."""
    if not np.isfinite(out).all():
        raise ValueError(f"{name} is not finite (NaN or infinity), or its sums overflow; clean or scale it first")
    return out
