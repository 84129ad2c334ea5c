"""The whole path in one picture
=============================

What a step network computes, how it is trained, what freezing costs. Left: a 2-32-2 step network on two half-moons;
each hidden unit is a line, each region between lines has one label. Middle: training 64-256-256-10 on the digits.
Right: the same network frozen at 2 to 8 bits a weight, size against validation accuracy. ::

    python examples/plot_whole_path.py    # writes docs/pictures/whole_path.png; 40 seconds on two cores

Expected: from 4 bits on, within half a point of the float network at an eighth of its size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import make_moons

import hardstep as hs
from hardstep.freeze import as_torch


def draw_regions(axis: Axes, sweeps: int) -> None:
    """Train on two half-moons and draw labels and units."""
    x, y = make_moons(600, noise=0.12, random_state=0)
    data = hs.data.from_arrays(x.astype(np.float32), y, name="moons")
    net = hs.nets.mlp(2, 32, 2, norm=False)
    method = hs.GradientDescent(rule=hs.Sech2(), optimiser=hs.Adam(lr=0.03), batch_size=64)
    hs.fit(net, data, method, sweeps=sweeps, progress=False)
    grid = np.stack(np.meshgrid(np.linspace(-1.8, 2.8, 300), np.linspace(-1.3, 1.8, 300)), axis=-1)
    with torch.no_grad():
        margin = net(torch.from_numpy(grid.reshape(-1, 2).astype(np.float32))).diff(dim=1).reshape(300, 300)
    axis.contourf(grid[..., 0], grid[..., 1], margin > 0, levels=[-0.5, 0.5, 1.5], colors=["#cfe3f5", "#fde2c5"])
    weight, bias = net[1].weight.detach().numpy(), net[1].bias.detach().numpy()
    for (a, b), c in zip(weight, bias, strict=True):
        axis.plot([-1.8, 2.8], [-(a * s + c) / b for s in (-1.8, 2.8)], color="grey", linewidth=0.4)
    axis.scatter(*x.T, c=np.array(["#1f77b4", "#d95f02"])[y], s=4)
    accuracy = hs.score(net, data.test)
    axis.set(xlim=(-1.8, 2.8), ylim=(-1.3, 1.8), title=f"32 steps, test accuracy {accuracy:.1%}", xticks=[], yticks=[])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    draw_regions(left, options.sweeps)

    data = hs.data.load("digits")
    net = hs.nets.MLP()(data.shape, data.outputs)
    report = hs.fit(net, data, hs.GradientDescent(), sweeps=options.sweeps, progress=False)
    middle.plot([record.objective for record in report.records], color="#1f77b4", label="objective")
    middle.plot([record.score for record in report.records], color="#d95f02", label="validation accuracy")
    middle.set(xlabel="sweep", title="64-256-256-10 on the digits", ylim=(0, 1.5))
    middle.legend(frameon=False)

    floats = sum(parameter.numel() for parameter in net.parameters()) * 4
    right.axhline(hs.score(net, data.val), color="grey", linewidth=0.8, linestyle=":")
    for weight_bits in range(2, 9):
        hard = hs.freeze(net, calibrate=data.train, weight_bits=weight_bits)
        right.plot(hard.nbytes / 1024, hs.score(as_torch(hard), data.val), "o", color="#1f77b4")
        right.annotate(f" {weight_bits} bits", (hard.nbytes / 1024, hs.score(as_torch(hard), data.val)), fontsize=7)
    right.set(xlabel="KiB", title=f"frozen (float32: {floats / 1024:.0f} KiB)", ylabel="validation accuracy")
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "whole_path.png", dpi=130)
    report.plot().savefig(options.out / "fit.png", dpi=110)


if __name__ == "__main__":
    main()
