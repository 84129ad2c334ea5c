"""The 0/1 design matrix in bits: products with real vectors and Gram matrices without ever unpacking it whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Integer, UInt64

from hardstep.bits import popcount, unpack
from hardstep.convex import bit_kernels
from hardstep.convex.bit_kernels import GROUP, aligned, available_isas, best_isa
from hardstep.convex.patterns import patterns

__all__ = ["BitMatrix"]

WORD = 64
ROWS = 512  # a column is padded to a multiple of these
BLOCK = 1 << 23  # entries of the dense block that is unpacked or packed at a time
EXACT = 1 << 24  # counts below it are exact in float32
START = 100_000  # measured costs on one core, in ns: a call of a kernel
ENTRY = (0.7, 0.12)  # an entry unpacked by NumPy, and its product with one output
TABLE = {"baseline": 35.0}  # tables of a row for one output; with shuffles, 16
LOOK = {"baseline": (0.0, 0.09)}  # an entry in a kernel, and one output; with shuffles, of 128 columns at least
FEW_ROWS = 512  # rows below which unpacking beats the tables of `push`


@dataclass(frozen=True, eq=False)
class BitMatrix:
    """Hold an n x p matrix of 0 and 1 in n p / 8 bytes, and multiply with it.

    Column j is row j of `words`: its entry i is bit i mod 64 of word i div 64, padded with zeros to 512 entries.
    Products run on the packed bits where the C runtime is built, by look-ups of the sums of 4 rows (AVX2, AVX-512) or
    of 8 rows (any machine); otherwise blocks are unpacked and multiplied by NumPy, which is said once by `logging`.

    Parameters
    ----------
    words
        The packed columns.
    rows
        Number of rows n.
    threads
        Threads of a product; small ones are done by one.
    isa
        "numpy" for the reference, "baseline", "avx2", "avx512" or "avx512-vpopcntdq"; empty for the best one here.

    Raises
    ------
    ValueError
        If the words do not fit the number of rows, the threads are none, or the instruction set is not here.

    References
    ----------
    Arlazarov et al. 1970 [arlazarov1970], tables of all sums of a few rows. Differs: tables of 16 numbers of 7 bits,
    looked up by a byte shuffle for 32 or 64 columns at once, as many as the accuracy asked for needs.

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
    threads: int = 1
    isa: str = ""

    def __post_init__(self) -> None:
        if self.words.shape[1] != _width(self.rows) or not self.words.flags.c_contiguous:
            raise ValueError(
                f"a column of {self.rows} rows takes {_width(self.rows)} adjacent words, got {self.words.shape[1]}; "
                f"make the matrix by BitMatrix.from_bools"
            )
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if self.isa and self.isa not in ("numpy", *available_isas()):
            raise ValueError(
                f"instruction set {self.isa!r} is not here, only {', '.join(('numpy', *available_isas()))}"
            )

    @classmethod
    def from_bools(cls, d: Bool[np.ndarray, "n p"], *, threads: int = 1, isa: str = "") -> BitMatrix:
        """Pack a dense matrix."""
        n, p = d.shape
        words = _empty(n, p)
        for part in _parts(n, p):
            _pack(d[:, part], words[part])
        return cls(words, n, threads, isa)

    @classmethod
    def from_planes(
        cls, x: Float64[np.ndarray, "n d"], planes: Float64[np.ndarray, "p d1"], *, threads: int = 1, isa: str = ""
    ) -> BitMatrix:
        """Pack the patterns of hyperplanes (bias last) on the rows of x, block by block: never all of them unpacked."""
        words = _empty(len(x), len(planes))
        for part in _parts(len(x), len(planes)):
            _pack(patterns(x, planes[part]), words[part])
        return cls(words, len(x), threads, isa)

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
        words = _empty(self.rows, len(self.words) + len(other.words))
        words[: len(self.words)], words[len(self.words) :] = self.words, other.words
        return replace(self, words=words)

    def take(self, columns: Integer[np.ndarray, " q"] | Bool[np.ndarray, " p"]) -> BitMatrix:
        """Return the columns of these numbers, or those marked."""
        chosen = np.arange(len(self.words))[columns]
        words = _empty(self.rows, len(chosen))
        self.words.take(chosen, axis=0, out=words)
        return replace(self, words=words)

    def counts(self) -> Float64[np.ndarray, " p"]:
        """Return the number of ones in each column."""
        return popcount(self.words).astype(np.float64)

    def pull(self, v: Float[np.ndarray, "n c"], *, accuracy: float = 1e-12) -> Float64[np.ndarray, "p c"]:
        """Return D'V: of each column, the sums of V over the rows where it is 1.

        Parameters
        ----------
        v
            One column an output.
        accuracy
            Most by which a sum may be off, as a share of the sum of |V| over all rows of that output; the bound
            is proved, what is usual is far below. 1e-6 is enough for screening and takes a little over half the time.

        Raises
        ------
        ValueError
            If V has another number of rows, its sums are not finite, or the accuracy is not positive.
        """
        _same_rows("V", self.rows, len(v))
        if not accuracy > 0:
            raise ValueError(f"accuracy must be positive, got {accuracy}; 1e-12 for certificates, 1e-6 for screening")
        v = np.ascontiguousarray(v, np.float64)
        if self._isa != "numpy" and v.size and (self.isa or self._worth(v.shape[1])):
            return bit_kernels.pull(self._isa, self.words, v, accuracy, self.threads)
        v = _finite("V", v)
        out = np.empty((len(self.words), v.shape[1]))
        for part, dense in self._blocks(np.float64):
            out[part] = dense @ v
        return out

    def push(self, u: Float[np.ndarray, "p c"]) -> Float64[np.ndarray, "n c"]:
        """Return DU; columns whose row of U is 0 cost nothing.

        Raises
        ------
        ValueError
            If U has another number of rows than there are columns, or its sums are not finite.
        """
        if len(u) != len(self.words):
            raise ValueError(f"U has {len(u)} rows, but the matrix has {len(self.words)} columns; one row a column")
        u = _finite("U", u)
        active = np.flatnonzero(u.any(axis=1))
        if self._isa != "numpy" and (self.isa or self.rows >= FEW_ROWS):
            return bit_kernels.push(self.words, active, u[active], self.threads)[: self.rows]
        out = np.zeros((self.rows, u.shape[1]))
        for part, dense in self.take(active)._blocks(np.float64):
            out += dense.T @ u[active[part]]
        return out

    def gram(self, other: BitMatrix | None = None) -> Float64[np.ndarray, "p q"]:
        """Return D'D, or D'E with the columns of another matrix: whole numbers, exact.

        Raises
        ------
        ValueError
            If the other matrix has another number of rows.
        """
        second = self if other is None else other
        _same_rows("columns", self.rows, second.rows)
        if self._isa not in ("numpy", "baseline"):
            return bit_kernels.gram(self._isa, self.words, second.words, self.threads)
        out = np.empty((len(self.words), len(second.words)))
        kind = np.float32 if self.rows <= EXACT else np.float64
        for part, dense in self._blocks(kind):
            for others, right in second._blocks(kind):
                out[part, others] = dense @ right.T
        return out

    @property
    def _isa(self) -> str:
        return self.isa or best_isa()

    def _worth(self, outputs: int) -> bool:
        """Whether a kernel's tables pay."""
        isa, p = self._isa, len(self.words)
        held = p if isa == "baseline" else -(-p // GROUP) * GROUP
        entry, product = LOOK.get(isa, (0.01, 0.021))
        kernel = START / self.rows + TABLE.get(isa, 16.0) * outputs + held * (entry + product * outputs)
        return p * (ENTRY[0] + ENTRY[1] * outputs) > kernel

    def _blocks(self, kind: type[np.floating]) -> Iterator[tuple[slice, Float[np.ndarray, "q n"]]]:
        """Yield parts of the columns with their dense transposes."""
        for part in _parts(self.rows, len(self.words)):
            yield part, _dense(self.words[part], self.rows).astype(kind)


def _width(rows: int) -> int:
    """Return the words of a column of so many rows."""
    return -(-rows // ROWS) * (ROWS // WORD)


def _empty(rows: int, columns: int) -> UInt64[np.ndarray, "p w"]:
    """Return columns of zeros, each on lines of the cache of its own."""
    return aligned(columns * _width(rows) * 8).view(np.uint64).reshape(columns, _width(rows))


def _parts(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of the columns, a block each."""
    step = max(1, BLOCK // max(rows, 1))
    for i in range(0, columns, step):
        yield slice(i, i + step)


def _pack(d: Bool[np.ndarray, "n q"], into: UInt64[np.ndarray, "q w"]) -> None:
    """Pack dense columns."""
    packed = np.packbits(np.ascontiguousarray(d.T), axis=1, bitorder="little")
    octets = np.zeros((len(into), into.shape[1] * 8), np.uint8)
    octets[:, : packed.shape[1]] = packed
    into[...] = octets.view("<u8")


def _dense(words: UInt64[np.ndarray, "q w"], rows: int) -> Bool[np.ndarray, "q n"]:
    """Return packed columns as rows of bools."""
    return unpack(words, rows).view(np.bool_)


def _same_rows(name: str, rows: int, given: int) -> None:
    if rows != given:
        raise ValueError(f"the matrix has {rows} rows, the {name} given {given}; both must be of the same data")


def _finite(name: str, values: Float[np.ndarray, "n c"]) -> Float64[np.ndarray, "n c"]:
    """Return the values as doubles, each row adjacent, if all sums of them are finite."""
    found: Float64[np.ndarray, "n c"] = np.ascontiguousarray(values, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(np.abs(found).sum()):
            raise ValueError(f"{name} is not finite (NaN or infinity), or its sums overflow; clean or scale it first")
    return found
