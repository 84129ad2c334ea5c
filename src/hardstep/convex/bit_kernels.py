"""The compiled products of packed columns: which there are here, and calls that spread over threads."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt64
from numpy.typing import NDArray

from hardstep.export.compiler import LIBRARY, load_runtime

__all__ = ["GROUP", "ISAS", "aligned", "available_isas", "best_isa", "gram", "pull", "push"]

ISAS = ("baseline", "avx2", "avx512", "avx512-vpopcntdq")
GROUP = 128  # columns that a kernel works on together
STEP = 512  # rows of the same
DIGITS = 9  # most digits of 7 bits
TABLES = 1 << 21  # bytes of tables that are made at a time: of many rows if the outputs are few
LEAST = 2.0**-900  # numbers below it are lifted, for their scale would be no double
WORTH = 1 << 24  # entries of the matrix below which one thread does it
ACTIVE = 1024  # columns whose tables `push` holds at a time

_SIZE, _POINTER, _INT, _UNSIGNED = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint
_TAKES = {
    "isa": (),
    "tables_size": (_INT, _SIZE, _UNSIGNED),
    "scratch_size": (_SIZE, _UNSIGNED),
    "sizes": (_POINTER, _SIZE, _SIZE, _POINTER, _POINTER),
    "tables": (_INT, _POINTER, _SIZE, _SIZE, _POINTER, _UNSIGNED, _POINTER),
    "pull": (_INT, _POINTER, _SIZE, _SIZE, _SIZE, _POINTER, _SIZE, _POINTER, _UNSIGNED, _POINTER, _POINTER),
    "push": (_POINTER, _POINTER, _SIZE, _SIZE, _POINTER, _SIZE, _SIZE, _SIZE, _POINTER, _POINTER),
    "gram": (_INT, _POINTER, _SIZE, _POINTER, _SIZE, _SIZE, _POINTER, _SIZE, _POINTER),
}
_GIVES = {"isa": _INT, "tables_size": _SIZE, "scratch_size": _SIZE}


@cache
def _functions(path: Path = LIBRARY) -> dict[str, Callable[..., int]]:
    """Return the functions of the library by their names, none without it."""
    library = load_runtime(path)
    found: dict[str, Callable[..., int]] = {}
    for name, takes in _TAKES.items() if library else ():
        function = getattr(library, f"hs_bits_{name}")
        function.argtypes, function.restype = takes, _GIVES.get(name)
        found[name] = function
    return found


def available_isas(path: Path = LIBRARY) -> list[str]:
    """Return the instruction sets that there are kernels for and that this machine runs, the best one last."""
    functions = _functions(path)
    return list(ISAS[: functions["isa"]() + 1]) if functions else []


@cache
def best_isa(path: Path = LIBRARY) -> str:
    """Return the best instruction set here; "numpy", said once by `logging`, where the library is not built."""
    names = available_isas(path)
    if not names:
        logging.getLogger("hardstep").warning(
            "NumPy multiplies packed matrices: the C runtime is not built; install with a C compiler"
        )
    return names[-1] if names else "numpy"


def aligned(count: int) -> NDArray[np.uint8]:
    """Return zero bytes that begin on a line of the cache."""
    return _from_line(np.zeros(count + 64, np.uint8))


def _aligned(count: int) -> NDArray[np.uint8]:
    """Return bytes that are not set, from a line of the cache."""
    return _from_line(np.empty(count + 64, np.uint8))


def _from_line(room: NDArray[np.uint8]) -> NDArray[np.uint8]:
    start = -room.ctypes.data % 64
    return room[start : len(room) - 64 + start]


def _digits(
    largest: Float64[np.ndarray, " c"], total: Float64[np.ndarray, " c"], n: int, accuracy: float
) -> tuple[int, Float64[np.ndarray, " c"]]:
    """Return how many digits of 7 bits each number needs, and the power of two that makes it whole.

    With d digits, numbers up to 2^e in size are rounded to multiples of 2^(e - 7d + 4): a sum of n of them is off by
    at most n 2^(e - 7d + 3), to be at most `accuracy` times the sum of their sizes. More than 9 digits are too many.
    """
    exponents = np.frexp(largest)[1].astype(np.float64)
    some = total > 0
    needed = exponents[some] - np.log2(total[some]) + np.log2(n) - np.log2(accuracy)
    digits = int(np.ceil((needed.max(initial=0.0) + 3) / 7))
    return digits, np.ldexp(1.0, (7 * min(digits, DIGITS) - 4 - exponents).astype(np.int64))


def pull(
    isa: str,
    words: UInt64[np.ndarray, "p w"],
    v: Float64[np.ndarray, "n c"],
    accuracy: float,
    threads: int = 1,
) -> Float64[np.ndarray, "p c"]:
    """Return D'V, each sum off by at most `accuracy` sum |v_i| beside the rounding of the result."""
    functions, level = _functions(), ISAS.index(isa)
    (p, width), (n, outputs) = words.shape, v.shape
    largest, total = np.empty((2, outputs))
    functions["sizes"](v.ctypes.data, n, outputs, largest.ctypes.data, total.ctypes.data)
    if not np.isfinite(total).all():
        raise ValueError("V is not finite (NaN or infinity), or its sums overflow; clean or scale it first")
    if ((largest > 0) & (largest < LEAST)).any():
        lift = np.where(largest < LEAST, 1 / LEAST, 1.0)  # a power of two
        return pull(isa, words, v * lift, accuracy, threads) / lift
    digits, scale = _digits(largest, total, n, accuracy)
    if digits > DIGITS:  # sums of doubles by steps of rows: off by (n / 512 + 20) 2^-53 sum |v_i| at most
        level = 0
    threads = threads if n * p * outputs > WORTH else 1
    size = functions["tables_size"](level, STEP, digits) * outputs
    chunk = max(1, TABLES // size)
    steps = -(-n // STEP)
    tables, out = _aligned(min(steps, chunk) * size), np.zeros((p, outputs))

    def sums(begin: int, first: int, last: int) -> None:
        rows, into = v[(begin + first) * STEP : (begin + last) * STEP], tables[first * size :]
        given = (rows.ctypes.data, len(rows), outputs, scale.ctypes.data, digits, into.ctypes.data)
        functions["tables"](level, *given)

    def product(begin: int, count: int, first: int, last: int) -> None:
        part = slice(first * GROUP, min(last * GROUP, p))
        scratch = _aligned(functions["scratch_size"](outputs, digits))
        given = words[part, begin * STEP // 64 :].ctypes.data, part.stop - part.start, width, count
        to = out[part].ctypes.data, scratch.ctypes.data
        functions["pull"](level, *given, tables.ctypes.data, outputs, scale.ctypes.data, digits, *to)

    for begin in range(0, steps, chunk):
        count = min(chunk, steps - begin)
        _each(partial(sums, begin), _parts(count, threads), threads)
        _each(partial(product, begin, count), _parts(-(-p // GROUP), threads), threads)
    return out


def push(
    words: UInt64[np.ndarray, "p w"],
    active: Int64[np.ndarray, " a"],
    u: Float64[np.ndarray, "a c"],
    threads: int = 1,
) -> Float64[np.ndarray, "m c"]:
    """Return DU over the active columns, with the rows of zeros that fill the last step."""
    function, width = _functions()["push"], words.shape[1]
    outputs = u.shape[1]
    out = aligned(width * 64 * outputs * 8).view(np.float64).reshape(width * 64, outputs)
    threads = threads if width * 64 * u.size > WORTH else 1
    for i in range(0, len(active), ACTIVE):
        part, values = active[i : i + ACTIVE], np.ascontiguousarray(u[i : i + ACTIVE])
        given = (words.ctypes.data, part.ctypes.data, len(part), width, values.ctypes.data, outputs)

        def rows(first: int, last: int, given: tuple[int, ...] = given, count: int = len(part)) -> None:
            tables = _aligned(-(-count // 8) * 256 * outputs * 8)
            function(*given, first * 8, last * 8, tables.ctypes.data, out.ctypes.data)

        _each(rows, _parts(width // 8, threads), threads)
    return out


def gram(
    isa: str, left: UInt64[np.ndarray, "p w"], right: UInt64[np.ndarray, "q w"], threads: int = 1
) -> Float64[np.ndarray, "p q"]:
    """Return the number of ones that each column of the left shares with each of the right."""
    functions, level = _functions(), ISAS.index(isa)
    (p, width), q = left.shape, len(right)
    same = left is right
    out = np.zeros((p, q))

    def groups(first: int, last: int) -> None:
        for begin in range(first * GROUP, min(last * GROUP, p), GROUP):
            end, start = min(begin + GROUP, p), begin if same else 0  # of a matrix with itself one half
            scratch = _aligned(functions["scratch_size"](0, 0))
            others, to = right[start:].ctypes.data, out[begin:, start:].ctypes.data
            given = (left[begin:].ctypes.data, end - begin, others, q - start, width, to, q, scratch.ctypes.data)
            functions["gram"](level, *given)
            if same:
                out[end:, begin:end] = out[begin:end, end:].T

    blocks = -(-p // GROUP)
    _each(groups, _parts(blocks, blocks), threads if width * 64 * p * q > WORTH else 1)
    return out


def _parts(count: int, parts: int) -> list[tuple[int, int]]:
    """Split a range into equal parts, none of them empty."""
    ends = [count * i // parts for i in range(parts + 1)] if count else []
    return [(first, last) for first, last in pairwise(ends) if first < last]


def _each(run: Callable[[int, int], None], parts: list[tuple[int, int]], threads: int) -> None:
    """Run all parts, the next one by whichever thread is free: the kernels leave Python to the others."""
    if threads == 1:
        for part in parts:
            run(*part)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: run(*part), parts))
