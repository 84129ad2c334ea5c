"""The peers that the engine is compared with, each at its best settings, to be timed in turn with ours.

    python benchmarks/speed/peers.py [--table] [--rounds 5] [--threads 1]

prints which are there, and for two small cases the median time of each and whether what it gives is right; with --table
for the cases of the design, about four minutes. `prepare` makes bytes in the peer's own type and layout, outside the
timing; what it returns does one forward. All but torch are optional:

    pip install onnx onnxruntime openvino
    pip install --no-deps bnn-lab==1.0.0
    cc, on x86 with AVX2 or AVX-512, for xnor.c, which is ours

bnn-lab's kernel is called by address, as its own wrapper does, so the torch < 2.13 and numpy < 2 it asks for need not
be there. Larq Compute Engine installs (pip install larq-compute-engine) but has only reference kernels on x86.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hardstep.bench.cases import Case, made
from hardstep.bench.peer import ready
from hardstep.bench.peers import peers
from hardstep.bench.timing import measure

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record


def cases(*, table: bool) -> dict[str, Case]:
    """Return two small cases, or those of the design."""
    if not table:
        return {"16 x 256 -> 256": made((16, 256), 256), "1 x 64 x 8^2 -> 64": made((1, 64, 8, 8), 64)}
    found = {}
    for k, sizes in ((1024, (1, 16, 256, 512)), (4096, (1, 16, 256))):
        found |= {f"{n} x {k} -> {k}": made((n, k), k) for n in sizes}
    for n, c, side, m in ((1, 128, 16, 128), (1, 128, 32, 128), (16, 128, 16, 128), (16, 256, 8, 512)):
        found[f"{n} x {c} x {side}^2 -> {m}"] = made((n, c, side, side), m)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    several = peers(options.threads)
    for peer in several:
        print(f"{peer.name:40} {peer.available() or peer.version()}")
    for name, case in cases(table=options.table).items():
        runs, wrong, _ = ready(case, several)
        used = dict.fromkeys(runs, options.threads)
        times = measure(runs, rounds=options.rounds, cold=options.cold, threads=used)
        print(f"\n{name}, {options.threads} threads{', cold' if options.cold else ''}")
        lines: dict[str, dict[str, Any]] = {}
        for peer, timed in sorted(times.items(), key=lambda item: item[1]["seconds"]):
            speed = case.operations / np.array([timed["seconds"], timed["least"]]) / 1e9
            right = "right" if not wrong[peer] else f"{wrong[peer]} wrong"
            print(f"  {peer:40} {timed['seconds'] * 1e6:10.1f} us {speed[0]:8.1f} GOP/s, best {speed[1]:8.1f}  {right}")
            lines[peer] = {key: timed[key] for key in ("seconds", "least", "clock")} | {"wrong": wrong[peer]}
        record(options.results, "speed_peers", case=name, threads=options.threads, cold=options.cold, peers=lines)


if __name__ == "__main__":
    main()
