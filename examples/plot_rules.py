"""What stands in for the derivative of a step
===========================================

Forwards every step is exact; backwards its derivative is 0, and a rule takes its place. Left: the curves that the rules
pretend the step to be. Middle: their derivatives, by which gradients are multiplied. Right: what they do to a 2-24-24-2
network on two noisy half-moons, mean validation accuracy over seeds; no normalisation, so that the widths of the rules
matter. ::

    python examples/plot_rules.py    # writes docs/pictures/rules.png; 20 seconds on one core

Expected: rules that weigh what is near the plane (``Clipped(0.1)``, ``Sech2(2.0)``, ``ReSTE()``) end above 98 %; those
that pass gradients on from far away end near 93 %. With normalisation in front of the steps they come closer together.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import make_moons

import hardstep as hs

RULES = (hs.Identity(), hs.Clipped(1.0), hs.Clipped(0.1), hs.Sech2(2.0), hs.ReSTE())
COLOURS = ("#7f7f7f", "#1f77b4", "#9ecae1", "#d95f02", "#2ca02c")


def train(rule: hs.BackwardRule, seed: int, sweeps: int) -> list[float]:
    """Return the validation accuracy after each sweep."""
    x, y = make_moons(600, noise=0.15, random_state=seed)
    data = hs.data.from_arrays(x.astype(np.float32), y, name="moons", seed=seed, val_share=0.4)
    net = hs.nets.MLP(hidden=(24, 24), norm=False)(data.shape, data.outputs, seed)
    method = hs.GradientDescent(rule=rule, optimiser=hs.Adam(lr=0.01), batch_size=64)
    report = hs.fit(net, data, method, sweeps=sweeps, seed=seed, progress=False)
    return [record.score or 0.0 for record in report.records]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    curves, slopes, scores = figure.subplots(1, 3)
    x = torch.linspace(-2, 2, 801)
    curves.plot(x, hs.step(x), color="black", linewidth=0.8, linestyle=":", label="step")
    for rule, colour in zip(RULES, COLOURS, strict=True):
        curves.plot(x, rule.curve(x), color=colour, label=repr(rule))
        slopes.plot(x, rule.derivative(x), color=colour)
        runs = [train(rule, seed, options.sweeps) for seed in range(options.seeds)]
        scores.plot(np.mean(runs, axis=0), color=colour, label=repr(rule))
    curves.set(title="curve", xlabel="input of the step", ylim=(-0.3, 1.3))
    curves.legend(frameon=False, fontsize=6.5)
    slopes.set(title="derivative", xlabel="input of the step")
    scores.set(title="two half-moons: validation accuracy", xlabel="sweep", ylim=(0.75, 1))
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "rules.png", dpi=150)


if __name__ == "__main__":
    main()
