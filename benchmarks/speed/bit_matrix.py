"""Packed 0/1 matrices against float32 BLAS on the same numbers, unpacked before the clock starts.

    python benchmarks/speed/bit_matrix.py [--rounds 5] [--threads 1 2] [--size 61440 16384] [--small]

Products of one matrix with vectors (`pull`: D'V, at the default accuracy of 1e-12 and at 1e-6 for screening; `push`: DU
with 500 columns in use) and Gram matrices of 2,048 of its columns. Rivals: matrix-vector and matrix-matrix products of
BLAS in float32 (`sgemv`, `sgemm`; of a Gram matrix also the half, `ssyrk`), and the NumPy reference, which unpacks
blocks. All take turns inside one process; ratios are a rival's time over that of the first (medians, and least over
least), above 1 the first is faster. With one thread the clock is CPU time, with more wall time. Expected on two cores
with AVX2: pull at least 6 times as fast as `sgemv`, Gram at least 2 times as fast as `sgemm`, 1/32 of the memory.
9 GB of memory; about ten minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg.blas import sgemm, ssyrk
from threadpoolctl import threadpool_limits

from hardstep.bench.timing import measure
from hardstep.convex.bit_kernels import best_isa
from hardstep.convex.bit_matrix import BitMatrix

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables.bit_matrix import products

GRAM, ACTIVE, REFERENCE = 2048, 500, 1 << 26  # columns, columns, entries up to which the reference is timed
Runs = dict[str, Callable[[], Any]]


def made(rows: int, columns: int, threads: int) -> BitMatrix:
    """Return random bits."""
    generator = np.random.default_rng(0)
    words = BitMatrix.from_bools(np.zeros((rows, 0), bool)).words
    words = generator.integers(0, 1 << 63, (columns, words.shape[1]), np.uint64, endpoint=True)
    words[:, rows // 64 + 1 :] = 0
    words[:, rows // 64 : rows // 64 + 1] &= np.uint64((1 << rows % 64) - 1)
    return BitMatrix(words, rows, threads)


def pull(packed: BitMatrix, dense: np.ndarray, outputs: int) -> Runs:
    """Return the ways to D'V; they must agree."""
    v = np.random.default_rng(1).standard_normal((packed.rows, outputs))
    single = v.astype(np.float32)
    reference = BitMatrix(packed.words, packed.rows, packed.threads, "numpy")
    error = np.abs(packed.pull(v) - dense.astype(np.float64, copy=False) @ v) if dense.size < REFERENCE else 0.0
    assert np.max(error) <= 1e-12 * np.abs(v).sum(axis=0).max()
    runs: Runs = {
        "ours": lambda: packed.pull(v),
        "ours, screening": lambda: packed.pull(v, accuracy=1e-6),
        "sgemv" if outputs == 1 else "sgemm": lambda: dense @ single,
    }
    return runs | ({"unpack and gemm": lambda: reference.pull(v)} if dense.size < REFERENCE else {})


def push(packed: BitMatrix, dense: np.ndarray, outputs: int) -> Runs:
    """Return the ways to DU over some columns; gathering them is not timed for the rival."""
    active = np.random.default_rng(2).permutation(packed.shape[1])[:ACTIVE]
    u = np.zeros((packed.shape[1], outputs))
    u[active] = np.random.default_rng(3).standard_normal((len(active), outputs))
    some, single = np.ascontiguousarray(dense[active]).T, u[active].astype(np.float32)
    assert np.allclose(packed.push(u), some @ single, rtol=0, atol=1e-3)
    return {"ours": lambda: packed.push(u), "sgemv" if outputs == 1 else "sgemm": lambda: some @ single}


def gram(packed: BitMatrix, dense: np.ndarray, columns: int) -> Runs:
    """Return the ways to D'D over the first columns."""
    some = packed.take(np.arange(columns))
    other = BitMatrix(some.words.copy(), some.rows, packed.threads)
    few = dense[:columns].T  # column by column, as BLAS likes it
    assert np.array_equal(some.gram()[:100, :100], few[:, :100].T @ few[:, :100])
    return {
        "ours, half": some.gram,
        "ours": lambda: some.gram(other),
        "ssyrk": lambda: ssyrk(1.0, few, trans=1),
        "sgemm": lambda: sgemm(1.0, few, few, trans_a=1),
    }


CASES: dict[str, Callable[[BitMatrix, np.ndarray], Runs]] = {
    "pull, 1 output": lambda packed, dense: pull(packed, dense, 1),
    "pull, 10 outputs": lambda packed, dense: pull(packed, dense, 10),
    "push, 1 output": lambda packed, dense: push(packed, dense, 1),
    "push, 10 outputs": lambda packed, dense: push(packed, dense, 10),
    "gram": lambda packed, dense: gram(packed, dense, min(GRAM, packed.shape[1])),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=int, nargs=2, default=(61_440, 16_384))
    parser.add_argument("--small", action="store_true", help="also 16,000 x 8,000, 5,000 x 5,000 and 1,000 x 1,000")
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    sizes = [tuple(options.size), *([(16_000, 8_000), (5_000, 5_000), (1_000, 1_000)] if options.small else [])]
    for rows, columns in sizes:
        dense = made(rows, columns, 1).unpack().T.astype(np.float32)
        for threads in options.threads:
            packed = made(rows, columns, threads)
            for case in options.case:
                runs = CASES[case](packed, dense)
                with threadpool_limits(threads):
                    times = measure(runs, rounds=options.rounds, threads=dict.fromkeys(runs, threads))
                first = next(iter(times))
                record(
                    options.results,
                    "speed_bit_matrix",
                    case=case,
                    rows=rows,
                    columns=columns,
                    threads=threads,
                    isa=best_isa(),
                    milliseconds={name: round(1e3 * time["seconds"], 3) for name, time in times.items()},
                    least={name: round(1e3 * time["least"], 3) for name, time in times.items()},
                    ratio={n: round(t["seconds"] / times[first]["seconds"], 2) for n, t in times.items()},
                    ratio_least={n: round(t["least"] / times[first]["least"], 2) for n, t in times.items()},
                    memory=round(dense.nbytes / packed.nbytes, 1),
                    rounds=options.rounds,
                )
    print(products(options.results))


if __name__ == "__main__":
    main()
