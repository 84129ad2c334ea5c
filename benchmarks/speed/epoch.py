"""What an epoch with steps costs beside the same network with ReLU in plain PyTorch.

    python benchmarks/speed/epoch.py [--rounds 16] [--rows 3840]

Both train the same shapes on the same made 28x28 images with fused Adam and plain cross-entropy, batches of 128
gathered from memory; ours through `hardstep.fit`, the other in a loop as short as PyTorch allows. The two are timed in
turn inside one process; the figure is the median of the ratios of neighbours. Expected: at most 1.10 for the
MLP and for convnet4. About eight minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import hardstep as hs

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables import epoch


def plain_epoch(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Train one epoch in plain PyTorch; return its seconds."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    net.train()
    start = time.perf_counter()
    for rows in torch.randperm(len(x)).split(128):
        loss = functional.cross_entropy(net(x[rows]), y[rows])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return time.perf_counter() - start


def with_relu(net: nn.Sequential) -> nn.Sequential:
    """Return the same layers with ReLU for each step."""
    return nn.Sequential(*(nn.ReLU() if isinstance(module, hs.Step) else module for module in net))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--rows", type=int, default=3840)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (options.rows + 128, 1, 28, 28)).astype(np.uint8)
    y = np.arange(len(x)) % 10
    data = hs.data.from_arrays(x, y, name="made", val_share=0.0, test_share=128 / len(x))
    values = torch.from_numpy(data.train.grid.value(data.train.x.numpy()))
    for name, recipe in (("mlp 784-1024-1024-10", hs.nets.MLP()), ("convnet4", hs.nets.ConvNet4())):
        for rule in (hs.Clipped(0.5), hs.Sech2(), hs.ReSTE()):
            ratios, seconds, plain_seconds = [], [], []
            for turn in range(options.rounds + 1):
                method = hs.GradientDescent(rule=rule, loss=hs.CrossEntropy())
                if turn % 2:  # who goes first alternates
                    plain = plain_epoch(with_relu(recipe(data.shape, 10)), values, data.train.y)
                report = hs.fit(recipe(data.shape, 10), data, method, sweeps=1, progress=False, seed=turn)
                if turn % 2 == 0:
                    plain = plain_epoch(with_relu(recipe(data.shape, 10)), values, data.train.y)
                if turn:  # the first round warms up
                    ratios.append(report.seconds / plain)
                    seconds.append(report.seconds)
                    plain_seconds.append(plain)
            record(
                options.results,
                "speed_epoch",
                net=name,
                rule=repr(rule),
                ratio=round(statistics.median(ratios), 3),
                ratio_min=round(min(ratios), 3),
                ratio_max=round(max(ratios), 3),
                ratio_of_least=round(min(seconds) / min(plain_seconds), 3),
                rounds=options.rounds,
                seconds=round(statistics.median(seconds), 3),
                threads=torch.get_num_threads(),
            )
    print(epoch.ratios(options.results))


if __name__ == "__main__":
    main()
