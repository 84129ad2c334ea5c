"""Accuracy against sparsity: relaxed variable splitting in its modes and penalties beside magnitude pruning.

    python benchmarks/quality/sparse.py digits [--seeds 3]     # ten minutes on one core
    python benchmarks/quality/sparse.py small [--seeds 3]      # Fashion-MNIST, 10,000 rows, 784-256-256-10: 40 minutes
    python benchmarks/quality/sparse.py convnet [--seeds 3]    # Fashion-MNIST, 10,000 rows; HARDSTEP_DATA set
    python benchmarks/quality/sparse.py wide [--seeds 3]       # Fashion-MNIST, all rows, 784-1024-1024-10: hours
    python benchmarks/quality/sparse.py wide --seeds 0         # the table of what is recorded

Every network of a seed has the same split, initial weights and number of epochs in all (pruning rounds and the phase
with fixed zeros included), so all are paired. The read-out stays dense, and the first
layer of the convolution network, 200 weights. Cardinality meets the share of zeros exactly;
the thresholds of l0, l1 and transformed l1 are set where a Gaussian row has that share. Settings were chosen on the
validation parts of other seeds (--validation). Each test part is scored once per network. Expected: docs/results.md.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
from torch import nn

import hardstep as hs

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, first_rows, record
from tables import sparse


@dataclass(frozen=True)
class Case:
    """A network, the number of training rows (None: all) and of epochs, and the layers to make sparse (all: none)."""

    data: str
    net: hs.nets.MLP | hs.nets.ConvNet4
    rows: int | None
    epochs: int
    layers: tuple[str, ...] = ()


CASES = {
    "digits": Case("digits", hs.nets.MLP(hidden=(256, 256)), None, 30),
    "small": Case("fashion-mnist", hs.nets.MLP(hidden=(256, 256)), 10_000, 18),
    "convnet": Case("fashion-mnist", hs.nets.ConvNet4(channels=(8, 16), units=128), 10_000, 8, ("4", "9")),
    "wide": Case("fashion-mnist", hs.nets.MLP(hidden=(1024, 1024)), None, 10),
}
SPARSITIES = (0.8, 0.9, 0.95, 0.98)
DENSE = "dense"


def methods(sparsity: float) -> dict[str, hs.Splitting | hs.MagnitudePruning]:
    """Return all ways to so many zeros, by name."""
    keep, threshold = hs.Cardinality(1 - sparsity), NormalDist().inv_cdf(0.5 + sparsity / 2)
    return {
        "one-shot magnitude": hs.MagnitudePruning(sparsity),
        "iterative magnitude": hs.MagnitudePruning(sparsity, rounds=4),
        "iterative magnitude, rewound": hs.MagnitudePruning(sparsity, rounds=4, rewind=True),
        "one-shot magnitude by layer": hs.MagnitudePruning(sparsity, scope=hs.LayerWise()),
        "iterative magnitude by layer": hs.MagnitudePruning(sparsity, rounds=4, scope=hs.LayerWise()),
        "iterative magnitude by layer, rewound": hs.MagnitudePruning(
            sparsity, rounds=4, rewind=True, scope=hs.LayerWise()
        ),
        "A, cardinality": hs.Splitting(penalty=keep, sparse_forward=False, rho=0.05),
        "B, cardinality": hs.Splitting(penalty=keep, rho=0.01),
        "C, cardinality": hs.Splitting(penalty=keep),
        "C, l0": hs.Splitting(penalty=hs.L0.at(threshold)),
        "C, transformed l1": hs.Splitting(penalty=hs.TransformedL1.at(threshold)),
        "C, l1": hs.Splitting(penalty=hs.L1.at(threshold)),
    }


def zeros(net: nn.Module) -> float:
    """Return the share of zero weights below the read-out."""
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)][:-1]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def load(case: Case, seed: int) -> hs.data.Data:
    """Return the data, with the first rows of the training part only if the case says so."""
    return first_rows(hs.data.load(case.data, seed=seed), case.rows)


def run(options: argparse.Namespace, seed: int) -> None:
    """Train every network of a seed and write a line for each."""
    case = CASES[options.case]
    data, epochs = load(case, seed), options.epochs or case.epochs
    cases: list[tuple[float, str, hs.Method[Any], int]] = [(0.0, DENSE, hs.GradientDescent(), epochs)]
    for sparsity in options.sparsities:
        cases += [
            (sparsity, name, replace(method, layers=case.layers), epochs) for name, method in methods(sparsity).items()
        ]
    assert data.test is not None
    for sparsity, name, method, sweeps in cases:
        if options.methods and name not in options.methods:
            continue
        net = case.net(data.shape, data.outputs, seed)
        report = hs.fit(net, data, method, sweeps=sweeps, seed=seed, progress=False)
        record(
            options.results,
            "sparse",
            case=options.case,
            data=data.name,
            net=repr(case.net),
            rows=len(data.train),
            seed=seed,
            sparsity=sparsity,
            way=name if sweeps == case.epochs else f"{name}, {sweeps} epochs",
            method=report.method,
            epochs=sweeps,
            zeros=round(zeros(net), 4),
            zero_words=report.records[report.best].extra.get("zero_words"),
            validation=report.score,
            dense_copy=report.records[report.best].extra.get("score_dense"),
            test=None if options.validation else hs.score(net, data.test),
            seconds=round(report.seconds, 1),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--epochs", type=int, default=None, help="other than those of the case; the name says so")
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--methods", nargs="+", default=None, help="names from the table; all if not given")
    parser.add_argument("--validation", action="store_true", help="do not look at the test part")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(options.first, options.first + options.seeds):
        run(options, seed)
    for table in (sparse.accuracy, sparse.paired):
        print(table(options.results, options.case, options.epochs, "validation" if options.validation else "test"))


if __name__ == "__main__":
    main()
