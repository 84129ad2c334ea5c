"""What a sweep of `MarginBCD` costs beside the matrix products it must do, and how much memory it takes.

    python benchmarks/speed/bcd_sweep.py [--rounds 5] [--rows 60000] [--threads N]

60,000 x 784 made 8-bit codes, two hidden layers of 1,000, all layers moving (`growth=0`). The products are done alone
on tensors of the same shapes, batch by batch, in turn with the sweep in the same process: forward, worth of the bits,
moments, Gram matrices, Newton steps, forward again, read-out. Linear solves are timed with them as a second figure:
one inverse and one read-out a batch. Memory is by how much a sweep, start included, raises the resident set of a
fresh process at its peak (Linux), over the size of all activations of the data set in float32 (2,000 numbers a row).
Expected: at most 1.5 and 3. About four minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

import hardstep as hs
from hardstep.closed_form import bias_free, inverse, ridge

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables.bcd_sweep import cost

WIDTH, INPUTS, OUTPUTS = 1000, 784, 10


def made(rows: int) -> hs.data.Data:
    """Return codes and labels that have something to learn."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (rows, INPUTS), dtype=np.uint8)
    y = ((x[:, :20].astype(np.float32) - 127.5) @ generator.normal(size=(20, OUTPUTS))).argmax(axis=1)
    return hs.data.from_arrays(x, y, name="made", val_share=0.0, test_share=0.0)


def sweep(data: hs.data.Data, seed: int) -> float:
    """Return the seconds of one sweep, without the start."""
    net = hs.nets.MLP(hidden=(WIDTH, WIDTH), norm=False)(data.shape, data.outputs, seed)
    method = hs.MarginBCD(growth=0.0, batch_size=2000)
    return hs.fit(net, data, method, sweeps=1, seed=seed, progress=False).seconds


def products(rows: int) -> tuple[float, float]:
    """Return the seconds of the products of a sweep, and of its linear solves."""
    n = rows // -(-rows // 2000)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, INPUTS + 1, generator=generator)
    first, second = (torch.rand(n, WIDTH + 1, generator=generator).round() for _ in range(2))
    w1, w2 = torch.randn(WIDTH, INPUTS + 1, generator=generator), torch.randn(WIDTH, WIDTH + 1, generator=generator)
    out, moves = torch.randn(OUTPUTS, WIDTH + 1, generator=generator), torch.randn(n, WIDTH, generator=generator)
    scores = torch.randn(n, OUTPUTS, generator=generator)
    g1, g2 = torch.eye(INPUTS + 1), torch.eye(WIDTH + 1)
    gram = (first.T @ first).double() / n
    strength = bias_free(gram, 0.1)
    spent, solved = 0.0, 0.0
    for _ in range(-(-rows // 2000)):
        start = time.perf_counter()
        for _ in range(2):  # forward, before and after the moves
            x @ w1.T, first @ w2.T, second @ out.T
        scores @ out[:, :-1], moves @ w2[:, :-1]  # what the bits of both layers are worth
        moves.T @ x, moves.T @ first, scores.T @ second
        first.T @ first, second.T @ second
        w1 @ g1, w2 @ g2
        spent += time.perf_counter() - start
        start = time.perf_counter()
        inverse(gram, strength)
        ridge(gram, out.double(), strength)
        solved += time.perf_counter() - start
    return spent, solved


def resident(name: str) -> float:
    """Return VmRSS (now) or VmHWM (peak) of this process, in MiB."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


def memory_of_a_sweep(rows: int) -> float:
    """Return by how much a sweep in a fresh process raises its resident set at the peak, in MiB."""
    command = [sys.executable, __file__, "--memory", "--rows", str(rows)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", action="store_true", help="only print the memory of a sweep, in MiB")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = made(options.rows)
    if options.memory:
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        sweep(data, 0)
        print(resident("VmHWM") - before)
        return
    found = []
    for turn in range(options.rounds + 1):
        seconds, (alone, solves) = sweep(data, turn), products(options.rows)
        if turn:  # the first round warms up
            found.append((seconds / alone, seconds / (alone + solves), seconds, alone, solves))
    ratio, with_solves, seconds, alone, solves = (statistics.median(column) for column in zip(*found, strict=True))
    activations = options.rows * 2 * WIDTH * 4 / 2**20
    memory = memory_of_a_sweep(options.rows)
    record(
        options.results,
        "speed_bcd_sweep",
        rows=options.rows,
        ratio=round(ratio, 3),
        ratio_min=round(min(row[0] for row in found), 3),
        ratio_max=round(max(row[0] for row in found), 3),
        ratio_with_solves=round(with_solves, 3),
        seconds=round(seconds, 2),
        products=round(alone, 2),
        solves=round(solves, 2),
        rounds=options.rounds,
        threads=options.threads,
        memory_mib=round(memory, 1),
        activations_mib=round(activations, 1),
        memory_ratio=round(memory / activations, 3),
    )
    print(cost(options.results))


if __name__ == "__main__":
    main()
