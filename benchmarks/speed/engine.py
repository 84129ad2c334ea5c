"""The engine against its peers, layer by layer, in one process: the target table of the engine, with what was measured.

    python benchmarks/speed/engine.py [--rounds 5] [--rows A B] [--threads 2] [--ours "avx2 outputs"]

Every row is one layer, timed in turn with every peer that can do it and gives the right sums (peers.py says how to have
them). Inputs are ready-made: packed bits for us, bytes for the others. Our time includes thresholds, lists of set bits
and changes of layout. The ratio is the best peer's median over ours; above 1 we are faster. "int8" is the best of
onnxruntime's and PyTorch's 8-bit operators. With --threads 2 both sides use two, the batch split between ours, and wall
time counts; peers of one thread stay out. About ten minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hardstep.bench.cases import Case, gaussian, made
from hardstep.bench.our_layer import Hardstep
from hardstep.bench.peer import ready
from hardstep.bench.peers import peers
from hardstep.bench.timing import measure
from hardstep.engine import available_isas

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables.engine import layers, two_threads

INT8 = ("MatMulInteger", "QLinearMatMul", "QGemm", "_int_mm", "quantized", "QLinearConv")
FLOAT = ("torch linear", "torch mm", "torch conv2d")
BITS = ("bnn-lab", "openvino binary")
XNOR = ("xnor.c",)


@dataclass(frozen=True)
class Row:
    """A line of the target table."""

    name: str
    case: Case
    rivals: tuple[str, ...]
    must: float
    stretch: float
    ours: str = ""
    density: float = 0.5
    cold: bool = False
    readout: bool = False


def table() -> list[Row]:
    """The target table."""
    rows = []
    for n, must, stretch in ((1, 5, 10), (16, 4, 8), (256, 5, 8)):
        big = made((n, 4096), 4096)
        rows.append(Row(f"A {n} x 4096^2 +-1", big, INT8, must, stretch, cold=n == 1))
        if n > 1:
            rows.append(Row(f"A {n} x 4096^2 +-1 / bits", big, BITS, 2.5, 6))
            rows.append(Row(f"A {n} x 4096^2 +-1 / xnor.c", big, XNOR, 3, 6))
    for k, n in ((512, 256), (512, 4096), (1024, 256), (1024, 4096)):
        case = made((n, k), k)
        rows.append(Row(f"A {n} x {k}^2 +-1", case, INT8, 2.8, 6))
        rows.append(Row(f"A {n} x {k}^2 +-1 / bits", case, BITS, 2.5, 6))
    rows.append(Row("A 256 x 1024^2 +-1 / xnor.c", made((256, 1024), 1024), XNOR, 3, 6))
    rows.append(Row("A 256 x 1024^2 +-1, scalar / float", made((256, 1024), 1024), FLOAT, 1.5, 3, ours="baseline"))
    for share, must, stretch in ((0.5, 4, 8), (0.9, 6, 15)):
        case = made((512, 1024), 1024)
        kept = np.random.default_rng(1).random(case.weight.shape) >= share
        rows.append(
            Row(
                f"A 512 x 1024^2 ternary, {share:.0%} zeros",
                replace(case, weight=case.weight * kept),
                INT8,
                must,
                stretch,
            )
        )
    for n, must, stretch in ((1, 1.2, 2), (16, 0.95, 1.3), (512, 1.1, 1.8)):
        case = replace(made((n, 1024), 1024), weight=gaussian(8, (1024, 1024)))
        rows.append(Row(f"B {n} x 1024^2 8-bit", case, INT8, must, stretch))
    case = made((512, 1024), 1024)
    rows.append(Row("B 512 x 1024^2 4-bit", replace(case, weight=gaussian(4, (1024, 1024))), INT8, 2.3, 4))
    sparse = (np.random.default_rng(2).random((512, 1024)) < 0.1).astype(np.uint8)
    case = replace(case, x=sparse, weight=gaussian(8, (1024, 1024)), threshold=np.zeros(1024, np.int64))
    rows.append(Row("B 512 x 1024^2 8-bit, 10% of codes", case, INT8, 1.8, 4, density=0.1))
    for n in (1, 16, 256, 4096):
        case = replace(made((n, 784), 1024, top=255), weight=gaussian(8, (1024, 784)))
        rows.append(Row(f"C {n} x 784 -> 1024 8-bit", case, INT8, 0.9, 1.1, density=4))
    pixels = made((256, 784), 1024, top=255)
    lit = pixels.x * (np.random.default_rng(3).random(pixels.x.shape) < 0.25)
    dark = Case(lit, pixels.weight, pixels.weight.sum(axis=1) * 32, 255)
    rows.append(Row("C 256 x 784 -> 1024 +-1, 25% of pixels", dark, INT8, 1.1, 3, density=1))
    for n, must, stretch in ((1, 1.5, 3), (256, 1, 2), (4096, 2, 5)):
        case = replace(made((n, 1024), 10), weight=gaussian(8, (10, 1024)))
        rows.append(Row(f"D {n} x 1024 -> 10 8-bit", case, INT8, must, stretch, readout=True))
    for n, c, side, m in ((1, 128, 16, 128), (1, 128, 32, 128), (16, 128, 16, 128), (16, 256, 8, 512)):
        case = made((n, c, side, side), m)
        rows.append(Row(f"E {n} x {c} x {side}^2 -> {m} +-1", case, INT8, 2 if n == 1 else 3, 4 if n == 1 else 6))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", nargs="+", default=[], help="only rows whose names begin so")
    parser.add_argument("--tiny", action="store_true", help="only the smallest row, for a test")
    parser.add_argument("--ours", default="", help="instruction set and kernel, such as 'avx2 outputs'")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not available_isas():
        parser.error("the C runtime is not built; install hardstep with a C compiler")
    chosen = [row for row in table() if not options.rows or row.name.startswith(tuple(options.rows))]
    for row in [r for r in table() if r.name.startswith("D 1 ")] if options.tiny else chosen:
        rivals = [peer for peer in peers(options.threads) if any(name in peer.name for name in row.rivals)]
        runs, wrong, _ = ready(row.case, rivals)
        runs = {name: run for name, run in runs.items() if not wrong[name] or row.case.top == 255}
        ours = Hardstep(options.ours or row.ours, row.density, readout=row.readout, threads=options.threads)
        runs["hardstep"] = ours.prepare(row.case)
        right = np.array_equal(ours.read(runs["hardstep"](), row.case), ours.expected(row.case))
        used = dict.fromkeys(runs, options.threads)
        times = measure(runs, rounds=options.rounds, cold=row.cold, threads=used)
        mine = times.pop("hardstep")
        best = min(times, key=lambda name: times[name]["seconds"], default="")
        ratio = times[best]["seconds"] / mine["seconds"] if best else float("nan")
        lowest = times[best]["least"] / mine["least"] if best else float("nan")
        speed = row.case.operations / mine["seconds"] / 1e9
        verdict = (
            "no peer" if not best else "stretch" if ratio >= row.stretch else "must" if ratio >= row.must else "SHORT"
        )
        note = "" if right else "  OURS WRONG"
        note += f"  (peer wrong in {wrong[best]} outputs)" if best and wrong[best] else ""
        print(
            f"{row.name:44} {ratio:6.2f} (minima {lowest:5.2f}) of {row.must:4.2f} / {row.stretch:4.2f} {verdict:8}"
            f"{mine['seconds'] * 1e6:9.1f} us {speed:6.0f} GOP/s  {best}{', cold' if row.cold else ''}{note}",
            flush=True,
        )
        record(
            options.results, "speed_engine", row=row.name, ratio=ratio if best else None, must=row.must,
            stretch=row.stretch, peer=best, seconds=mine["seconds"], exact=right, isa=available_isas()[-1],
            chosen=ours.chosen, cold=row.cold,
            threads=options.threads, peers={name: timed["seconds"] for name, timed in times.items()},
            peers_wrong={name: wrong[name] for name in times},
        )  # fmt: skip
    if options.threads <= 2:
        print((layers if options.threads == 1 else two_threads)(options.results))


if __name__ == "__main__":
    main()
