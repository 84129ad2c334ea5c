"""Whole networks of steps in onnxruntime and PyTorch, the work that the engine does in one call.

    python benchmarks/speed/peer_networks.py [--whole] [--batches 1 256] [--rounds 5] [--threads 1]

times two small networks, or with --whole 784-4096-4096-10 and a convnet 64-64-pool-128-128-pool-256-10 on 28x28, with
-1/+1 weights after 8-bit pixels. Inputs are ready in the peer's type. What each peer gives is checked against NumPy.
Two minutes with --whole.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hardstep.bench.networks import Network, made_network
from hardstep.bench.peer import ready
from hardstep.bench.peer_networks import network_peers
from hardstep.bench.timing import measure

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    small: dict[str, tuple[Any, ...]] = {"64-64-10": ((64,), (), (64, 10)), "conv 8-8-10": ((1, 8, 8), (8, 8), (10,))}
    whole: dict[str, tuple[Any, ...]] = {
        "784-4096-4096-10": ((784,), (), (4096, 4096, 10)),
        "conv 64-64-128-128-256-10": ((1, 28, 28), (64, 64, 128, 128), (256, 10)),
    }
    for name, (shape, convs, denses) in (whole if options.whole else small).items():
        hard = made_network(shape, convs, denses)
        for n in options.batches:
            task = Network(hard, np.random.default_rng(1).integers(0, 256, (n, *shape)).astype(np.uint8))
            runs, wrong, _ = ready(task, network_peers(options.threads))
            times = measure(runs, rounds=options.rounds, threads=dict.fromkeys(runs, options.threads))
            print(f"\n{name}, batch {n}, {options.threads} threads")
            for peer, timed in times.items():
                speed = task.operations / timed["seconds"] / 1e9
                right = "right" if not wrong[peer] else f"{wrong[peer]} wrong"
                print(f"  {peer:30} {timed['seconds'] * 1e6:10.1f} us {speed:8.1f} GOP/s  {right}")
            lines = {peer: timed | {"wrong": wrong[peer]} for peer, timed in times.items()}
            record(options.results, "speed_peer_networks", net=name, batch=n, threads=options.threads, peers=lines)


if __name__ == "__main__":
    main()
