"""Target propagation in mini-batches: soft hinge, saturated hinge, inner steps and measured flips, paired by seed.

    python benchmarks/quality/layer_targets.py choose run --net mlp --activation sign [--seeds 5]    # an hour
    python benchmarks/quality/layer_targets.py table

Fashion-MNIST, 10,000 rows (HARDSTEP_DATA set), or digits. `choose` trains every way at every learning rate of the net's
grid and scores the validation part of seed 100 (of a small data set 101 too); `run` takes the best rate from there,
trains on seeds 0, 1, ... and looks at each test part once. All ways have the same split, initial weights and passes
over the data; a way with more inner steps or a search computes more in a pass. Expected: docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import hardstep as hs
from hardstep.parts import Samples

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, mean, record


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
SOFT, SATURATED = "soft hinge", "saturated hinge"  # the names of fused rules begin so


def ways(net: str) -> dict[str, hs.Method[Any]]:
    """Return the methods by name; the learning rate is filled in later."""
    soft, clipped = hs.GradientDescent(rule=hs.Sech2()), hs.GradientDescent(rule=hs.Clipped())
    local = hs.GradientDescent(rule=hs.TargetRule())
    flips = NETS[net].flips
    return {
        SOFT: soft,
        SATURATED: clipped,
        "soft hinge, half as wide": hs.GradientDescent(rule=hs.Sech2(2.0)),
        "saturated hinge, half as wide": hs.GradientDescent(rule=hs.Clipped(0.5)),
        "4 inner steps": hs.TargetProp(base=local, inner=4),
        "search": hs.TargetProp(base=local, search=hs.FlipSearch(flips)),
        "search, half trusted": hs.TargetProp(base=local, search=hs.FlipSearch(flips, trust=0.5)),
        "search, 4 inner steps": hs.TargetProp(base=local, search=hs.FlipSearch(flips), inner=4),
        "momentum on targets": hs.TargetProp(base=local, momentum=0.5),
    }


def at_rate(method: hs.Method[Any], lr: float) -> hs.Method[Any]:
    """Return the method with this learning rate."""
    if isinstance(method, hs.TargetProp):
        return replace(method, base=replace(method.base, optimiser=hs.Adam(lr=lr)))
    assert isinstance(method, hs.GradientDescent)
    return replace(method, optimiser=hs.Adam(lr=lr))


def train(net: Net, activation: str, method: hs.Method[Any], seed: int) -> tuple[hs.Report, torch.nn.Module, Any]:
    """Train one network; return its report, itself and its data."""
    data = hs.data.load(net.data, seed=seed)
    assert isinstance(data.train, Samples)
    data = replace(data, train=Samples(data.train.x[:10_000], data.train.y[:10_000], data.train.grid))
    built = replace(net.net, activation=ACTIVATIONS[activation])(data.shape, data.outputs, seed)
    return hs.fit(built, data, method, sweeps=net.sweeps, seed=seed, progress=False), built, data


def choose(options: argparse.Namespace) -> None:
    """Train every way at every rate on validation data only."""
    net = NETS[options.net]
    for name, method in ways(options.net).items():
        for lr in net.rates:
            if options.methods and name not in options.methods:
                continue
            scores, seconds = [], 0.0
            for seed in net.seeds:
                report, _, _ = train(net, options.activation, at_rate(method, lr), seed)
                scores.append(report.score or 0.0)
                seconds += report.seconds
            named = {"net": options.net, "activation": options.activation, "way": name, "lr": lr}
            record(
                options.results, "layer_targets", kind="choose", **named, validation=scores, seconds=round(seconds, 1)
            )


def lines(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what is recorded."""
    return [json.loads(text) for text in (options.results / "layer_targets.jsonl").read_text().splitlines()]


def best_rate(options: argparse.Namespace, name: str) -> float:
    """Return the rate that `choose` found best."""
    here = [
        line
        for line in lines(options)
        if (line["kind"], line["net"], line["activation"], line["way"])
        == ("choose", options.net, options.activation, name)
    ]
    if not here:
        raise SystemExit(f"no rate was chosen for {name!r} of {options.net}, {options.activation}: run choose first")
    rate: float = max(here, key=lambda line: sum(line["validation"]))["lr"]
    return rate


def run(options: argparse.Namespace) -> None:
    """Train every way at its best rate and score the test part once."""
    net = NETS[options.net]
    for seed in range(options.first, options.first + options.seeds):
        for name, method in ways(options.net).items():
            if options.methods and name not in options.methods:
                continue
            lr = best_rate(options, name)
            report, built, data = train(net, options.activation, at_rate(method, lr), seed)
            extra = report.records[report.best].extra
            record(
                options.results,
                "layer_targets",
                kind="run",
                net=options.net,
                activation=options.activation,
                way=name,
                method=report.method,
                lr=lr,
                seed=seed,
                sweeps=net.sweeps,
                validation=report.score,
                test=hs.score(built, data.test),
                seconds=round(report.seconds, 1),
                **{key: round(value, 4) for key, value in extra.items() if key != "train_accuracy"},
            )


def table(options: argparse.Namespace) -> None:
    """Print accuracy, time, and the paired differences to soft hinge and to the best fused rule."""
    found: dict[tuple[str, str], dict[str, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines(options):
        if line["kind"] == "run":
            found[line["net"], line["activation"]][line["way"]][line["seed"]] = line
    for (net, activation), by_way in sorted(found.items()):
        fused = [name for name in by_way if name.startswith((SOFT, SATURATED))]
        chosen = max(fused, key=lambda name: mean([line["validation"] for line in by_way[name].values()])[0])
        print(f"{net}, {activation} (best fused rule on validation data: {chosen})")
        for name, seeds in by_way.items():
            against = ""
            for other in dict.fromkeys((SATURATED, chosen)):
                pairs = [100 * (seeds[s]["test"] - by_way[other][s]["test"]) for s in seeds if s in by_way[other]]
                against += (
                    "  {:+.2f} +- {:.2f} against {}".format(*mean(pairs), other) if pairs and name != other else ""
                )
            values, seconds = [[line[key] for line in seeds.values()] for key in ("test", "seconds")]
            text = "  {:30} {:.4f} +- {:.4f}".format(name, *mean(values))
            print(f"{text}, {len(seeds)} seeds, {mean(seconds)[0]:.0f} s{against}")


WHAT = {"choose": choose, "run": run, "table": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=list(WHAT), nargs="+")
    parser.add_argument("--net", choices=list(NETS), default="digits")
    parser.add_argument("--activation", choices=list(ACTIVATIONS), default="sign")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--methods", nargs="+", default=None, help="names of the ways; all if not given")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for what in options.what:
        WHAT[what](options)


if __name__ == "__main__":
    main()
