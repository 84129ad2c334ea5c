"""Targets in narrow deep networks
===============================

What a flip of a bit does, and what comes of aiming by it, on the digits, 64-12-12-12-12-10. Left and middle: the change
of a row's loss if a bit flips, as the backward pass predicts it and as measured, in the first and the last layer of a
trained network. Right: validation accuracy sweep by sweep of the soft hinge in one backward pass, and of the same layer
losses with targets aimed by measured flips; mean over seeds. ::

    python examples/plot_targets.py    # writes docs/pictures/targets.png; two minutes on one core

Expected: straight below the read-out the prediction is good; three layers down most flips do nothing and the others
little that was predicted; measured flips train the better network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import hardstep as hs

METHODS = {
    "soft hinge, one backward pass": hs.GradientDescent(rule=hs.Sech2(2.0), optimiser=hs.Adam(lr=3.2e-2)),
    "soft hinge, targets by measured flips": hs.TargetProp(
        base=hs.GradientDescent(rule=hs.TargetRule(), optimiser=hs.Adam(lr=1.6e-2)), search=hs.FlipSearch(trust=0.5)
    ),
}  # widths and rates as chosen in docs/results.md


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    for (name, method), colour in zip(METHODS.items(), ("#9ecae1", "#d95f02"), strict=True):
        curves = []
        for seed in range(options.seeds):
            data = hs.data.load("digits", seed=seed, val_share=0.3)
            net = hs.nets.MLP(hidden=(12, 12, 12, 12))(data.shape, data.outputs, seed)
            report = hs.fit(net, data, method, sweeps=options.sweeps, seed=seed, progress=False)
            curves.append([record.score for record in report.records])
            if seed == 0 and isinstance(method, hs.GradientDescent):
                found = hs.diagnose_targets(net, data.val, flips=None)
        axes[2].plot(np.mean(curves, axis=0), color=colour, label=name)
    for axis, call, where in zip(axes, (found.calls[0], found.calls[-1]), ("first", "last"), strict=False):
        reach = 1.05 * max(abs(call.predicted).max(), abs(call.measured).max())
        axis.scatter(call.predicted, call.measured, s=3, alpha=0.3, linewidths=0)
        axis.axline((0, 0), slope=1, color="grey", linewidth=0.8, linestyle=":")
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="predicted change of the loss", ylabel="measured")
        axis.set_title(f"flips in the {where} layer: correlation {call.correlation:.2f}", fontsize=9)
    axes[2].set(xlabel="sweep", ylim=(0.5, 1))
    axes[2].set_title("validation accuracy", fontsize=9)
    axes[2].legend(frameon=False, fontsize=7, loc="lower right")
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "targets.png", dpi=150)


if __name__ == "__main__":
    main()
