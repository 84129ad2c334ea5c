"""Training with a proof
=====================

Two features, a curved border with noise; the convex program over all half-spaces of the plane. Left: the objective
falls, the dual bound rises, until they meet: then no network of one hidden layer, however wide, is better at this
price. Middle: the gap between them, and the same for 1,000 half-spaces drawn at random, which stay above the optimum
for good. Right: the optimum's outputs and half-spaces, thicker where the amplitude is larger. ::

    python examples/plot_convex_training.py    # writes docs/pictures/convex_training.png; 20 seconds on two cores

Expected: proved to 1e-6 in seconds.
"""

from __future__ import annotations

import argparse
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import hardstep as hs
from hardstep.chain import half_spaces, with_ones
from hardstep.convex.bit_matrix import BitMatrix
from hardstep.convex.data_terms import Squared
from hardstep.convex.patterns import patterns
from hardstep.convex.solvers import solve

ROWS, BETA = 300, 3.0


def draw(axis: Axes, net: torch.nn.Sequential, x: torch.Tensor, y: torch.Tensor) -> None:
    """Draw the outputs, the half-spaces in use and the rows."""
    side = torch.linspace(-1, 1, 200)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).reshape(-1, 2)
    with torch.no_grad():
        values = net(grid).reshape(200, 200).numpy()
    axis.imshow(values, extent=(-1, 1, -1, 1), origin="lower", cmap="RdBu", vmin=-1.5, vmax=1.5, alpha=0.8)
    first, last = (module for module in net if isinstance(module, torch.nn.Linear))
    for (a, b), c, u in zip(first.weight.tolist(), first.bias.tolist(), last.weight[0].tolist(), strict=True):
        if u:
            foot, along = np.array([a, b]) * -c / (a * a + b * b), np.array([-b, a]) / np.hypot(a, b)
            ends = np.stack([foot - 3 * along, foot + 3 * along])
            axis.plot(*ends.T, color="black", linewidth=min(2.0, 0.3 + 2 * abs(u)), alpha=0.5)
    axis.scatter(*x.T.numpy(), c=y.numpy(), cmap="RdBu", s=5, edgecolors="black", linewidths=0.2)
    axis.set(xlim=(-1, 1), ylim=(-1, 1), title=f"{int((last.weight != 0).sum())} half-spaces of the optimum")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(ROWS, 2, generator=generator) - 1
    y = torch.sign(x[:, 1] - 0.5 * torch.sin(4 * x[:, 0])) + 0.3 * torch.randn(ROWS, generator=generator)
    rows = torch.utils.data.TensorDataset(x, y[:, None])
    data = hs.data.from_parts(rows, outputs=1, name="curved border")
    method = hs.ConvexTraining(loss=hs.Squared(), correction=hs.GroupLasso(BETA, relative=False), columns=40, tol=1e-6)
    net = hs.nets.mlp(2, 300, 1, norm=False)
    report = hs.fit(net, data, method, sweeps=options.sweeps, progress=False)

    planes = half_spaces(with_ones(x.double()), 1000, generator).numpy()
    design = BitMatrix.from_bools(patterns(x.double().numpy(), planes))
    drawn = solve(design, y.double().numpy(), Squared(), BETA, tol=1e-6).objective

    figure = Figure(figsize=(10.5, 3.3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    seconds = list(accumulate(record.seconds for record in report.records))
    objectives = np.array([record.objective for record in report.records])
    duals = np.array([record.extra["dual"] for record in report.records])
    left.plot(seconds, objectives, ".-", color="tab:blue", label="objective of the network")
    left.plot(seconds, duals, ".-", color="tab:orange", label="proved bound")
    left.axhline(drawn, color="grey", linestyle=":", label="1,000 random half-spaces")
    left.set(xlabel="seconds", ylim=(0, 1.5 * objectives[-1]), title=report.stopped.partition(" (")[0])
    left.legend(frameon=False, fontsize=7)
    best = duals.max()
    middle.semilogy(seconds, np.maximum((objectives - duals) / objectives, 1e-12), ".-", color="tab:green", label="gap")
    middle.axhline((drawn - best) / drawn, color="grey", linestyle=":", label="1,000 random half-spaces")
    middle.set(xlabel="seconds", title="relative gap to the bound")
    middle.legend(frameon=False, fontsize=7)
    draw(right, net, x, y)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "convex_training.png", dpi=150)


if __name__ == "__main__":
    main()
