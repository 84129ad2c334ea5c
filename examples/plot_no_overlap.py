"""A step network whose training is understood
===========================================

Relaxed splitting on one hidden layer without overlap: a filter of 100 weights learns a teacher's with 10 that are not
0, through 20 step units, by the mean coarse gradient of the ReLU rule. Left: the angle of the trained filter w to the
teacher's, from starts at 10 to 175 degrees for each penalty at the same threshold, and the bound of each limit
(dotted). Middle: the number of weights of the exported filter u that are not 0. Right: from the teacher's own filter
the objective with the true loss rises; what falls is the potential whose gradient the coarse gradient is. ::

    python examples/plot_no_overlap.py    # writes docs/pictures/no_overlap.png; 10 seconds on one core

Expected: every end is below its bound, though the angle may rise again below it; no false weight; the smallest true
ones go, as they are below the threshold; l0 has two limits.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import hardstep as hs
from hardstep.no_overlap import kappa, population, unit
from hardstep.relaxed_splitting import Iterates, relaxed_splitting
from hardstep.splitting_bounds import error_bound

WEIGHTS, NONZERO, UNITS, THRESHOLD = 100, 10, 20, 0.07
COLOURS = {"l1": "#d95f02", "transformed l1": "#7570b3", "l0": "#1f77b4"}


def train(start: Tensor, target: Tensor, penalty: hs.Penalty, share: float, lr: float, steps: int) -> Iterates:
    """Run with the coupling in units of kappa and lr in units of exact minimisation over a block."""
    coupling = share * kappa(UNITS)
    length = lr / (kappa(UNITS) + coupling)
    return relaxed_splitting(
        population(target, UNITS), start, target, penalty, units=UNITS, coupling=coupling, lr=length, steps=steps
    )


def at_threshold(penalty: hs.L1 | hs.L0 | hs.TransformedL1, share: float) -> hs.Penalty:
    """Return the penalty that has with step 1/coupling the threshold which this one has with step 1."""
    return replace(penalty, strength=penalty.strength * share * kappa(UNITS))


def draw_runs(angles: Axes, supports: Axes, target: Tensor, steps: int) -> None:
    """Draw angles, bounds and numbers of weights for three penalties and a fan of starts."""
    share = 0.5
    aside = torch.randn(WEIGHTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    aside = unit(aside - (aside @ target) * target)
    penalties = {"l1": hs.L1, "transformed l1": hs.TransformedL1, "l0": hs.L0}
    bounds: dict[float, list[str]] = {}
    for name, kind in penalties.items():
        killed = 0
        style = {"color": COLOURS[name], "linewidth": 1.0}
        for start in (10, 45, 90, 135, 175):
            theta = math.radians(start)
            first = math.cos(theta) * target + math.sin(theta) * aside
            run = train(first, target, at_threshold(kind.at(THRESHOLD), share), share, 0.1, steps)
            label = name if start == 10 else None
            angles.plot(torch.rad2deg(run.angles), label=label, **style)
            supports.plot(run.supports, label=label, **style)
            killed = max(killed, int(((target != 0) & (run.u == 0)).sum()))
        moved = killed if name == "l0" else NONZERO  # l0 moves only what it kills
        sine = error_bound(THRESHOLD * moved**0.5, coupling=share * kappa(UNITS), units=UNITS)
        bounds.setdefault(math.degrees(math.asin(sine)), []).append(name)
    for bound, names in bounds.items():
        angles.axhline(bound, color=COLOURS[names[-1]], linestyle=":", linewidth=1.2)
        angles.text(steps, bound * 1.08, f"bound: {', '.join(names)}", ha="right", fontsize=7)
    angles.set(yscale="log", ylim=(0.8, 200), xlabel="step", title="angle of w to the teacher, degrees")
    angles.set_yticks([1, 3, 10, 30, 90, 180], ["1", "3", "10", "30", "90", "180"])
    angles.minorticks_off()
    angles.legend(frameon=False, fontsize=8)
    supports.axhline(NONZERO, color="grey", linestyle=":", linewidth=1.2)
    supports.text(steps, NONZERO * 1.04, "not 0 in the teacher", ha="right", fontsize=7)
    supports.set(yscale="log", ylim=(6, 110), xlabel="step", title="weights of u that are not 0")
    supports.set_yticks([7, 10, 20, 50, 100], ["7", "10", "20", "50", "100"])
    supports.minorticks_off()
    supports.legend(frameon=False, fontsize=8)


def draw_potential(above: Axes, below: Axes, target: Tensor, steps: int) -> None:
    """Draw what rises and what falls from the teacher's own filter on."""
    run = train(target, target, at_threshold(hs.L1.at(0.01), 0.8), 0.8, 0.3, steps)
    above.plot(run.objectives, color="#d95f02", linewidth=1.5)
    above.set(title="objective with the true loss")
    below.plot(run.potentials, color="#1f77b4", linewidth=1.5)
    below.set(title="potential of the coarse gradient", xlabel="step from the teacher's filter")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=180)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    figure = Figure(figsize=(11.5, 3.6), layout="constrained")
    axes = figure.subplot_mosaic([["angles", "supports", "above"], ["angles", "supports", "below"]])
    target = torch.zeros(WEIGHTS, dtype=torch.float64)
    target[:NONZERO] = torch.arange(NONZERO, 0, -1)
    draw_runs(axes["angles"], axes["supports"], unit(target), options.steps)
    draw_potential(axes["above"], axes["below"], unit(target), min(options.steps, 40))
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "no_overlap.png", dpi=150)


if __name__ == "__main__":
    main()
