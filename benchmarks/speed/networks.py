"""Whole trained networks: images a second of the engine, onnxruntime and PyTorch, and bytes on disk.

    HARDSTEP_DATA=... python benchmarks/speed/networks.py fashion-mnist [--sweeps 2] [--rounds 5]

Trains the default multi-layer perceptron and convnet4 for a few sweeps (weights are real, accuracy is not the point),
freezes them to 8 bits, and once more with every weight replaced by its sign. All run the same integers: the engine by
its Python call, the peers by their leanest (peer_networks.py; their 8-bit sums saturate on CPUs without VNNI, the count
of wrong scores is printed), and our own ONNX export, which is exact everywhere, in onnxruntime. Batch 1 and 256, one
thread and two. Seven minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import hardstep as hs
from hardstep.bench.networks import Network, made_network
from hardstep.bench.peer import ready
from hardstep.bench.peer_networks import Exported, network_peers
from hardstep.bench.timing import measure
from hardstep.hardnet import HardNet

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables.networks import speeds

BATCHES = (1, 256)


def binary(net: nn.Module, x: torch.Tensor) -> nn.Module:
    """Replace every weight by its sign, in place; normalisation takes its statistics anew from some rows."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.copy_(torch.where(module.weight > 0, 1.0, -1.0))
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        net.train()
        for _ in range(3):
            net(x)
        net.eval()
    return net


def sizes(hard: HardNet, net: nn.Module) -> dict[str, int]:
    """Return bytes on disk: the frozen file, the model of the C runtime, ONNX, and the float weights."""
    with tempfile.TemporaryDirectory() as folder:
        hard.save(Path(folder) / "net")
        found = {"hardnet": (Path(folder) / "net").stat().st_size}
    found["float32"] = sum(4 * p.numel() for p in net.parameters())
    try:
        from hardstep.export.onnx import to_onnx

        found["onnx"] = len(to_onnx(hard))
    except ImportError:
        pass
    return found


def compare(name: str, hard: HardNet, x: np.ndarray, rounds: int) -> dict[str, dict[str, Any]]:
    """Return the times of every form at every batch and number of threads."""
    found: dict[str, dict[str, Any]] = {}
    for batch in BATCHES:
        rows = np.ascontiguousarray(x[:batch])
        for threads in (1, 2) if (os.cpu_count() or 1) > 1 else (1,):
            several = [*network_peers(threads), Exported("", threads)]
            forwards, wrongs, _ = ready(Network(hard, rows), several)
            labels = {peer.name: peer.label for peer in several}
            runs, wrong = ({labels[name]: value for name, value in d.items()} for d in (forwards, wrongs))
            engine = hs.Engine(hard, sample=x[:64], threads=threads)
            assert np.array_equal(engine(rows), hard(rows))
            runs["hardstep"] = partial(engine, rows)
            times = measure(runs, rounds=rounds, threads=dict.fromkeys(runs, threads))
            mine = times["hardstep"]["seconds"]
            line = f"{name}, batch {batch}, {threads} threads: {batch / mine:,.0f} images/s"
            for peer, timed in times.items():
                if peer != "hardstep":
                    line += f"; {timed['seconds'] / mine:.2f} x {peer}" + (
                        f" ({wrong[peer]} wrong)" * bool(wrong[peer])
                    )
            print(line, flush=True)
            found[f"{batch}, {threads} threads"] = {k: batch / v["seconds"] for k, v in times.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="fashion-mnist")
    parser.add_argument("--sweeps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wide", action="store_true", help="only 784-4096-4096-10 with random -1/+1 weights")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.wide:
        x = np.random.default_rng(0).integers(0, 256, (256, 784)).astype(np.uint8)
        found = compare("784-4096-4096-10, binary", made_network((784,), (), (4096, 4096, 10)), x, options.rounds)
        record(options.results, "speed_networks", net="784-4096-4096-10", weights="binary", speeds=found)
        return
    data = hs.data.load(options.data)
    assert data.test is not None
    x = data.test.take(list(range(min(256, len(data.test)))))[0].numpy()
    for name, recipe in (("mlp", hs.nets.MLP()), ("convnet4", hs.nets.ConvNet4())):
        net = recipe(data.shape, data.outputs, 0)
        hs.fit(net, data, hs.GradientDescent(), sweeps=options.sweeps, progress=False)
        for kind in ("8-bit", "binary"):
            if kind == "binary":
                rows = data.train.take(list(range(1000)))[0]
                values = torch.from_numpy(data.train.grid.value(rows.numpy())) if data.train.grid else rows.float()
                net = binary(net, values)
            hard = hs.freeze(net, calibrate=data.train)
            codes = hard.codes(x)
            found = compare(f"{name}, {kind}", hard, codes, options.rounds)
            on_disk = sizes(hard, net)
            print(f"{name}, {kind}: bytes on disk {on_disk}", flush=True)
            record(
                options.results, "speed_networks", data=options.data, net=name, weights=kind, nbytes=on_disk,
                kernels=[str(choice) for choice in hs.Engine(hard).kernels(256)], speeds=found,
            )  # fmt: skip
    print(speeds(options.results, options.data))


if __name__ == "__main__":
    main()
