"""Target propagation in mini-batches: soft hinge, saturated hinge, inner steps and measured flips, paired by seed.

    python benchmarks/quality/layer_targets.py choose run --net mlp --activation sign [--seeds 5]    # an hour
    python benchmarks/quality/layer_targets.py table --net mlp --activation sign

Fashion-MNIST, 10,000 rows (HARDSTEP_DATA set), or digits. `choose` trains every way at every learning rate and width
of the grid and scores the validation part of seed 100 (of a small data set 101 too); `run` takes the best from there,
trains on seeds 0, 1, ... and scores each test part once. All ways have the same split, initial weights and passes
over the data; a way with more inner steps or a search computes more in a pass. Expected: docs/results.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

import hardstep as hs

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import first_rows, record, run_verbs
from tables import layer_targets
from tables.lines import NoLinesError, lines


@dataclass(frozen=True)
class Net:
    """A data set, a network, how many times the data are passed, flips measured a row, learning rates, their seeds."""

    data: str
    net: hs.nets.MLP | hs.nets.ConvNet4
    sweeps: int
    flips: int | None
    rates: tuple[float, ...]
    seeds: tuple[int, ...]


NETS = {
    "tiny": Net("digits", hs.nets.MLP(hidden=(8,)), 2, 2, (8e-3,), (100,)),
    "mlp": Net("fashion-mnist", hs.nets.MLP(hidden=(128, 128)), 8, 16, (2e-3, 8e-3), (100,)),
    "convnet": Net("fashion-mnist", hs.nets.ConvNet4(channels=(8, 16), units=64), 5, 8, (2e-3, 8e-3), (100,)),
    "digits": Net("digits", hs.nets.MLP(hidden=(12, 12, 12, 12)), 60, None, (4e-3, 8e-3, 1.6e-2, 3.2e-2), (100, 101)),
}
ACTIVATIONS = {"step": hs.Step(), "sign": hs.Sign(), "2-bit": hs.Staircase(3)}
WIDTHS = (1.0, 0.5)


def ways(net: str) -> dict[str, Callable[[float, float], hs.Method[Any]]]:
    """Return makers of methods by name; they take the learning rate and the width of the layer loss."""

    def local(lr: float, width: float, **options: Any) -> hs.TargetProp:
        base = hs.GradientDescent(rule=hs.TargetRule(width=width), optimiser=hs.Adam(lr=lr))
        return hs.TargetProp(base=base, **options)

    flips = NETS[net].flips
    half = hs.FlipSearch(flips, trust=0.5)
    return {
        "soft hinge": lambda lr, width: hs.GradientDescent(rule=hs.Sech2(1 / width), optimiser=hs.Adam(lr=lr)),
        "saturated hinge": lambda lr, width: hs.GradientDescent(rule=hs.Clipped(width), optimiser=hs.Adam(lr=lr)),
        "4 inner steps": partial(local, inner=4),
        "search": partial(local, search=hs.FlipSearch(flips)),
        "search, half trusted": partial(local, search=half),
        "search, half trusted, 4 inner steps": partial(local, search=half, inner=4),
        "momentum on targets": partial(local, momentum=0.5),
    }


def train(net: Net, activation: str, method: hs.Method[Any], seed: int) -> tuple[hs.Report, torch.nn.Module, Any]:
    """Train one network; return its report, itself and its data."""
    data = first_rows(hs.data.load(net.data, seed=seed), 10_000)
    built = replace(net.net, activation=ACTIVATIONS[activation])(data.shape, data.outputs, seed)
    return hs.fit(built, data, method, sweeps=net.sweeps, seed=seed, progress=False), built, data


def choose(options: argparse.Namespace) -> None:
    """Train every way at every rate and width on validation data only."""
    net = NETS[options.net]
    done = {(line["way"], line["lr"], line["width"]) for line in recorded(options, "choose")}
    for name, make in ways(options.net).items():
        if options.methods and name not in options.methods:
            continue
        for lr, width in product(options.rates or net.rates, WIDTHS):
            if (name, lr, width) in done:
                continue
            reports = [train(net, options.activation, make(lr, width), seed)[0] for seed in net.seeds]
            write(
                options,
                "choose",
                way=name,
                lr=lr,
                width=width,
                validation=[round(report.score or 0.0, 4) for report in reports],
                seconds=round(sum(report.seconds for report in reports), 1),
            )


def recorded(options: argparse.Namespace, kind: str) -> list[dict[str, Any]]:
    """Return what is recorded of this kind for the net and activation."""
    try:
        return lines(options.results, "layer_targets", kind=kind, net=options.net, activation=options.activation)
    except NoLinesError:
        return []


def write(options: argparse.Namespace, kind: str, **values: Any) -> None:
    """Record a line for the net and activation."""
    named = {"kind": kind, "net": options.net, "activation": options.activation}
    record(options.results, "layer_targets", **named, **values)


def run(options: argparse.Namespace) -> None:
    """Train every way at its best setting and score the test part once."""
    net = NETS[options.net]
    done = {(line["way"], line["lr"], line["width"], line["seed"]) for line in recorded(options, "run")}
    for seed in range(options.first, options.first + options.seeds):
        for name, make in ways(options.net).items():
            if options.methods and name not in options.methods:
                continue
            best = layer_targets.chosen(options.results, options.net, options.activation, name)
            lr, width = best["lr"], best["width"]
            if (name, lr, width, seed) in done:
                continue
            report, built, data = train(net, options.activation, make(lr, width), seed)
            extra = report.records[report.best].extra
            write(
                options,
                "run",
                way=name,
                method=report.method,
                lr=lr,
                width=width,
                seed=seed,
                sweeps=net.sweeps,
                validation=report.score,
                test=hs.score(built, data.test),
                seconds=round(report.seconds, 1),
                **{key: round(value, 4) for key, value in extra.items() if key != "train_accuracy"},
            )


def table(options: argparse.Namespace) -> None:
    """Print accuracy, time, and the paired differences to both fused rules, of the settings that are best now."""
    print(layer_targets.test(options.results, ((options.net, options.activation),)))


WHAT = {"choose": choose, "run": run, "table": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", choices=list(NETS), default="digits")
    parser.add_argument("--activation", choices=list(ACTIVATIONS), default="sign")
    parser.add_argument("--methods", nargs="+", default=None, help="names of the ways; all if not given")
    parser.add_argument("--rates", type=float, nargs="+", default=None, help="of choose; those of the net if not given")
    run_verbs(parser, WHAT)


if __name__ == "__main__":
    main()
