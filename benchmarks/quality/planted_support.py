"""Exact supports and angles on planted no-overlap networks, by relaxed splitting with three penalties.

    python benchmarks/quality/planted_support.py population [--seeds 60]    # a minute on one core
    python benchmarks/quality/planted_support.py sampled [--seeds 5]        # two minutes on one core

Population gradient: 100 weights of which 10 are not 0, 20 units. One line of results for each penalty and kind of
teacher: entries of about one size, all above `recovery_bound`, or normal entries, of which many are below it.
Expected: every support of the first kind is exact; of the second kind those that the bound promises.

Minibatches: 64 weights of which 8 are not 0, 4 units, 64 samples a batch, 800 steps, the rule `Rectified`. One line
for each penalty, threshold and seed; no penalty for comparison. Expected: 8 of 8 true entries and no false one with
l0 at the threshold .1 (mu = .005), l1 at .02 and the transformed l1 at .02 (mu = .01).
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import hardstep as hs
from hardstep.no_overlap import kappa, minibatches, population, unit
from hardstep.relaxed_splitting import Iterates, relaxed_splitting
from hardstep.splitting_bounds import recovery_bound

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables import planted_support

PENALTIES = {"l1": hs.L1, "l0": hs.L0, "transformed l1": hs.TransformedL1}
COUPLING = 0.5  # in units of kappa


@dataclass(frozen=True)
class Setting:
    """Sizes, thresholds and steps of one of the two cases; lr in units of 1/(kappa + coupling)."""

    weights: int
    nonzero: int
    units: int
    lr: float
    steps: int
    thresholds: tuple[float, ...]


CASES = {
    "population": Setting(weights=100, nonzero=10, units=20, lr=0.1, steps=250, thresholds=(0.05,)),
    "sampled": Setting(weights=64, nonzero=8, units=4, lr=0.03, steps=800, thresholds=(0.02, 0.05, 0.1, 0.15)),
}


def planted(setting: Setting, seed: int, normal: bool) -> tuple[Tensor, Tensor]:
    """Return a teacher, of entries from 1/2 to 3/2 before normalisation or of normal ones, and a random start."""
    generator = torch.Generator().manual_seed(seed)
    entries = torch.randn(setting.nonzero, generator=generator, dtype=torch.float64)
    if not normal:
        entries = entries.sign() * (0.5 + torch.rand(setting.nonzero, generator=generator, dtype=torch.float64))
    target = torch.zeros(setting.weights, dtype=torch.float64)
    target[torch.randperm(setting.weights, generator=generator)[: setting.nonzero]] = entries
    return unit(target), torch.randn(setting.weights, generator=generator, dtype=torch.float64)


def penalty_at(name: str, threshold: float, coupling: float) -> hs.Penalty:
    """Return the penalty whose prox with step 1/coupling has this threshold."""
    if name == "none":
        return hs.NoPenalty()
    penalty = PENALTIES[name].at(threshold)
    return replace(penalty, strength=penalty.strength * coupling)


def degrees(angles: Tensor) -> float:
    return round(math.degrees(float(angles[-1])), 3)


def settled(run: Iterates) -> int:
    """Return the first step from which on the number of nonzero entries is the last one."""
    other = (run.supports != run.supports[-1]).nonzero()
    return int(other[-1]) + 1 if len(other) else 0


def from_population(options: argparse.Namespace) -> None:
    setting = CASES["population"]
    coupling = COUPLING * kappa(setting.units)
    (threshold,) = setting.thresholds
    bound = recovery_bound(threshold, coupling=coupling, units=setting.units)
    for normal in (False, True):
        for name in PENALTIES:
            penalty = penalty_at(name, threshold, coupling)
            exact, promised, kept, false, steps, angles = 0, 0, 0, 0, [], []
            for seed in range(options.seeds or 60):
                target, start = planted(setting, seed, normal)
                run = relaxed_splitting(
                    population(target, setting.units), start, target, penalty,
                    units=setting.units, coupling=coupling, lr=setting.lr / (kappa(setting.units) + coupling),
                    steps=options.steps or setting.steps,
                )  # fmt: skip
                true = target != 0
                promise = float(target[true].abs().min()) > bound
                recovered = torch.equal(run.u != 0, true)
                exact, promised, kept = exact + recovered, promised + promise, kept + (promise and recovered)
                false += int((run.u[~true] != 0).sum())
                steps.append(settled(run))
                angles.append((degrees(run.angles), degrees(run.export_angles)))
            record(
                options.results, "planted_support", case="population", teacher="normal" if normal else "even",
                penalty=repr(penalty), threshold=threshold, lr=setting.lr, teachers=len(steps), exact=exact,
                promised=promised, promised_and_exact=kept, false_entries=false,
                median_steps=statistics.median(steps), most_steps=max(steps),
                degrees_trained=round(statistics.mean(w for w, _ in angles), 3),
                degrees_exported=round(statistics.mean(u for _, u in angles), 3),
            )  # fmt: skip


def from_minibatches(options: argparse.Namespace) -> None:
    setting = CASES["sampled"]
    coupling = COUPLING * kappa(setting.units)
    choices = [("none", 0.0), *((name, threshold) for name in PENALTIES for threshold in setting.thresholds)]
    for name, threshold in choices:
        penalty = penalty_at(name, threshold, coupling)
        for seed in range(options.seeds or 5):
            target, start = planted(setting, seed, normal=False)
            pull = minibatches(hs.Rectified(), target, setting.units, batch_size=64, seed=seed)
            run = relaxed_splitting(
                pull, start, target, penalty, units=setting.units, coupling=coupling,
                lr=setting.lr / (kappa(setting.units) + coupling), steps=options.steps or setting.steps,
            )  # fmt: skip
            kept, false = (int((run.u[where] != 0).sum()) for where in (target != 0, target == 0))
            record(
                options.results, "planted_support", case="sampled", penalty=repr(penalty), threshold=threshold,
                lr=setting.lr, seed=seed, true_entries=kept, false_entries=false,
                degrees_trained=degrees(run.angles), degrees_exported=degrees(run.export_angles),
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None, help="for a quick look")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.case == "population":
        from_population(options)
        print(planted_support.population(options.results))
    else:
        from_minibatches(options)
        print(planted_support.sampled(options.results))


if __name__ == "__main__":
    main()
