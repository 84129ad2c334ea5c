"""Surrogate gradients side by side: eight published rules on Fashion-MNIST, settings chosen on validation data, paired.

    python benchmarks/quality/surrogates.py choose run table --net mlp [--seeds 5]    # two hours, one core
    python benchmarks/quality/surrogates.py lengthen long --net mlp                   # an hour
    python benchmarks/quality/surrogates.py long --net vgg-step                       # four hours, after mlp
    python benchmarks/quality/surrogates.py choose run table --net binary             # an hour; signs, binary weights
    python benchmarks/quality/surrogates.py long --net vgg-binary                     # five hours, after binary
    python benchmarks/quality/surrogates.py refit --net vgg-binary                    # five hours more

HARDSTEP_DATA names the folder above fashion-mnist/. `choose` trains every rule at two shapes and two learning rates for
a part of the epochs and scores the validation part of seed 100; `run` takes the best from there, trains on seeds 0, 1,
... and scores each test part once. `lengthen` trains the rule that is best on the validation parts of `run` (of a
smaller network, where one is named) for more epochs with each regularisation, on validation rows of seed 100; `long`
takes the best of these to all seeds, scores each test part once and keeps checkpoints and the frozen network; `refit`
does so on training and validation rows together, as published figures are made: nothing is left to choose by, the
network is that of the last epoch. Where one network teaches another, the teacher is that of the same seed, trained
without the validation rows; it is trained first if it was not kept. Rules are compared in float32; the long runs
multiply in bfloat16, which on a CPU without such instructions is slow. Same split, initial weights and epochs for all
rules of a seed. Expected: docs/results.md.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

import hardstep as hs
from hardstep.ranks import Precision, launched_fabric

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import first_rows, joined, record, run_verbs
from tables import surrogates
from tables.lines import NoLinesError, lines


@dataclass(frozen=True)
class Longer:
    """Epochs of a run; of a long one also its regularisation and rate."""

    epochs: int
    augment: hs.Augment = hs.Augment()  # noqa: RUF009 (frozen)
    dropout: float = 0.0  # in networks that have it
    lr: float | None = field(default=None, repr=False)  # if not that of the shorter runs; recorded by itself
    whole: bool = field(default=False, repr=False)  # on training and validation rows; recorded as the kind

    @property
    def kind(self) -> str:
        """What the lines of such a run are called."""
        return "refit" if self.whole else "long"


@dataclass(frozen=True)
class Net:
    """A data set, a network, the epochs of choosing and of a run, and long runs to choose from; rows None are all."""

    data: str
    net: hs.nets.MLP | hs.nets.ConvNet4 | hs.nets.VGGSmall
    epochs: tuple[int, int]
    longer: tuple[Longer, ...]
    rows: int | None = None
    like: str = ""  # the network whose runs choose the rule of long ones, if not this one
    teacher: str = ""  # the network whose long run of the same seed, frozen, teaches long runs of this one


MIRROR, NUDGE, SHIFT = (hs.Augment(crop=crop, mirror=True) for crop in range(3))
BITS: dict[str, Any] = {"activation": hs.Sign(), "weights": hs.Binary()}  # but for the first and the last layer
NETS = {
    "tiny": Net(
        "digits",
        hs.nets.MLP(hidden=(16,)),
        (1, 2),
        (Longer(2, SHIFT, 0.2), Longer(2, lr=2e-3)),
        500,
        teacher="tiny-teacher",
    ),
    "tiny-teacher": Net("digits", hs.nets.MLP(hidden=(32,)), (1, 2), (Longer(2),), 500, like="tiny"),
    "mlp": Net(
        "fashion-mnist",
        hs.nets.MLP(hidden=(1024, 1024)),
        (4, 10),
        (
            *(Longer(40, augment, dropout) for augment in (hs.Augment(), MIRROR) for dropout in (0.2, 0.4)),
            Longer(60, NUDGE, 0.2),
        ),
    ),
    "binary": Net(
        "fashion-mnist", hs.nets.ConvNet4(channels=(16, 32), units=256, **BITS), (3, 8), (Longer(30, MIRROR),), 10_000
    ),
    "vgg-step": Net(
        "fashion-mnist",
        hs.nets.VGGSmall(channels=(32, 96, 192)),
        (2, 8),
        (Longer(20, MIRROR, lr=2e-3),),
        like="mlp",
    ),
    "vgg-binary": Net(
        "fashion-mnist",
        hs.nets.VGGSmall(channels=(48, 96, 192), **BITS),
        (2, 8),
        (Longer(20, MIRROR),),
        like="binary",
        teacher="vgg-step",
    ),
}
RATES = (1e-3, 3e-3)


def annealed(start: hs.Surrogate, end: hs.Surrogate) -> hs.Annealed:
    """Return a rule on its published geometric path."""
    return hs.Annealed(start, end, hs.GeometricPath())


def rules() -> dict[str, tuple[hs.BackwardRule, hs.BackwardRule]]:
    """Return of each rule its published shape and one half as wide, or less steep at its end."""
    known = hs.published_rules()
    flat = hs.ReSTE(power=1.0)
    return {
        "clipped": (known["clipped"], hs.Clipped(0.5)),
        "ApproxSign": (known["ApproxSign"], hs.ApproxSign(2.0)),
        "EDE": (known["EDE"], annealed(hs.EDE(1e-1), hs.EDE(3.0))),
        "RBNN": (known["RBNN"], annealed(hs.RBNN(1e-1), hs.RBNN(3.0))),
        "DSQ": (known["DSQ"], hs.DSQ(0.05)),
        "tanh": (known["tanh"], hs.Sech2(2.0)),
        "arctan": (known["arctan"], hs.ArcTan(4.0)),
        "ReSTE": (known["ReSTE"], hs.Annealed(flat, hs.ReSTE(power=2.0), hs.CosinePath())),
    }


def train(
    net: Net,
    rule: hs.BackwardRule,
    lr: float,
    seed: int,
    how: Longer,
    precision: Precision = "32-true",
    teacher: hs.NoTeacher | hs.FrozenTeacher = hs.NoTeacher(),  # noqa: B008 (frozen)
    folder: Path | None = None,
) -> tuple[hs.Report, torch.nn.Module, Any]:
    """Train one network, from the checkpoint in the folder if there is one; return its report, itself and its data."""
    lr = lr if how.lr is None else how.lr
    data = replace(first_rows(hs.data.load(net.data, seed=seed), net.rows), augment=how.augment)
    data = joined(data) if how.whole else data
    recipe = replace(net.net, dropout=how.dropout) if how.dropout else net.net
    built = recipe(data.shape, data.outputs, seed).to(memory_format=torch.channels_last)
    method = hs.GradientDescent(rule=rule, optimiser=hs.Adam(lr=lr), teacher=teacher)
    fabric = launched_fabric(precision)
    report = hs.fit(built, data, method, sweeps=how.epochs, seed=seed, folder=folder, fabric=fabric, progress=False)
    return report, built.cpu(), data


def recorded(options: argparse.Namespace, kind: str) -> list[dict[str, Any]]:
    """Return what is recorded of this kind for the net."""
    try:
        return lines(options.results, "surrogates", kind=kind, net=options.net)
    except NoLinesError:
        return []


def choose(options: argparse.Namespace) -> None:
    """Train every rule at both shapes and rates, on validation data only."""
    net = NETS[options.net]
    done = {(line["rule"], line["shape"], line["lr"]) for line in recorded(options, "choose")}
    for (name, shapes), (shape, lr) in product(rules().items(), product((0, 1), RATES)):
        if (options.rules and name not in options.rules) or (name, shape, lr) in done:
            continue
        report, _, _ = train(net, shapes[shape], lr, 100, Longer(net.epochs[0]))
        setting = {"net": options.net, "rule": name, "shape": shape, "lr": lr, "text": repr(shapes[shape])}
        # the last sweep, not the best one: the best of several is an optimistic estimate
        score = round(report.records[-1].score or 0.0, 4)
        record(options.results, "surrogates", kind="choose", **setting, epochs=net.epochs[0], validation=score)


def run(options: argparse.Namespace) -> None:
    """Train every rule at its best setting and score the test part once."""
    net = NETS[options.net]
    done = {(line["rule"], line["shape"], line["lr"], line["seed"]) for line in recorded(options, "run")}
    for seed in range(options.first, options.first + options.seeds):
        for name, shapes in rules().items():
            if options.rules and name not in options.rules:
                continue
            best = surrogates.chosen(options.results, options.net, name)
            setting = {key: best[key] for key in ("net", "rule", "shape", "lr", "text")}
            if (name, best["shape"], best["lr"], seed) in done:
                continue
            report, built, data = train(net, shapes[best["shape"]], best["lr"], seed, Longer(net.epochs[1]))
            hard = hs.freeze(built, calibrate=data.train)
            scored(options, "run", report, built, hard, data, **setting, seed=seed, epochs=net.epochs[1])


def lengthen(options: argparse.Namespace) -> None:
    """Train the best rule for longer with each regularisation, on validation data only."""
    net = NETS[options.net]
    setting, rule = settled(options, options.net)
    done = {(line["longer"], line["rule"]) for line in recorded(options, "lengthen")}
    for longer in net.longer:
        if (repr(longer), setting["rule"]) in done:
            continue
        teacher = teacher_of(options, net, 100)
        report, _, _ = train(net, rule, setting["lr"], 100, longer, "bf16-mixed", teacher)
        score = round(report.records[-1].score or 0.0, 4)
        record(options.results, "surrogates", kind="lengthen", **(setting | told(longer)), validation=score)


def long(options: argparse.Namespace) -> None:
    """Train the best rule with the best regularisation and score the test part once."""
    score_long(options, regularised(options, options.net))


def refit(options: argparse.Namespace) -> None:
    """Do the same on training and validation rows together."""
    score_long(options, replace(regularised(options, options.net), whole=True))


def score_long(options: argparse.Namespace, longer: Longer) -> None:
    """Train long runs of one kind that are not recorded yet and score the test part of each once."""
    setting, _ = settled(options, options.net)
    done = {(line["rule"], line["longer"], line["seed"]) for line in recorded(options, longer.kind)}
    for seed in range(options.first, options.first + options.seeds):
        if (setting["rule"], repr(longer), seed) in done:
            continue
        report, built, hard, data = train_long(options, options.net, seed, longer)
        scored(options, longer.kind, report, built, hard, data, **(setting | told(longer)), seed=seed)


def train_long(
    options: argparse.Namespace, name: str, seed: int, longer: Longer
) -> tuple[hs.Report, torch.nn.Module, hs.HardNet, Any]:
    """Train one network for long and keep it frozen; return its report, itself, its frozen form and its data."""
    net, (setting, rule) = NETS[name], settled(options, name)
    teacher, path = teacher_of(options, net, seed), kept(options, f"{name}-whole" if longer.whole else name, seed)
    folder = path.with_name(f"{path.stem}-{longer.epochs}")
    report, built, data = train(net, rule, setting["lr"], seed, longer, "bf16-mixed", teacher, folder)
    hard = hs.freeze(built, calibrate=data.train)
    hard.save(path)
    return report, built, hard, data


def teacher_of(options: argparse.Namespace, net: Net, seed: int) -> hs.NoTeacher | hs.FrozenTeacher:
    """Return who teaches a network; a long run that was not kept is trained anew, its test part not scored."""
    if not net.teacher:
        return hs.NoTeacher()
    path = kept(options, net.teacher, seed)
    if not path.is_file():
        train_long(options, net.teacher, seed, regularised(options, net.teacher))
    return hs.FrozenTeacher(str(path))


def kept(options: argparse.Namespace, name: str, seed: int) -> Path:
    """Return the file of the frozen network of a long run."""
    return Path(options.networks) / f"{name}-{seed}.safetensors"


def settled(options: argparse.Namespace, name: str) -> tuple[dict[str, Any], hs.BackwardRule]:
    """Return what is recorded of rule and teacher of a long run, and the rule."""
    net = NETS[name]
    setting = surrogates.settled(options.results, name, net.like) | ({"teacher": net.teacher} if net.teacher else {})
    return setting, rules()[setting["rule"]][setting["shape"]]


def regularised(options: argparse.Namespace, name: str) -> Longer:
    """Return what is best on validation data of the long runs of a network."""
    names = {repr(longer): longer for longer in NETS[name].longer}
    return names[surrogates.regularised(options.results, name, tuple(names))]


def told(longer: Longer) -> dict[str, Any]:
    """Return what is recorded of a long run."""
    names = {"longer": repr(longer), "augment": repr(longer.augment)}
    return {**names, "epochs": longer.epochs, "dropout": longer.dropout, **({"lr": longer.lr} if longer.lr else {})}


def scored(
    options: argparse.Namespace,
    kind: str,
    report: hs.Report,
    built: torch.nn.Module,
    hard: hs.HardNet,
    data: Any,
    **values: Any,
) -> None:
    """Score the test part and record a line."""
    right = hs.Engine(hard).predict(data.test.x.numpy()) == data.test.y.numpy()
    record(
        options.results,
        "surrogates",
        kind=kind,
        **values,
        validation=report.score,
        test=hs.score(built, data.test),
        frozen=round(float(right.mean()), 4),
        seconds=round(report.seconds, 1),
    )


def table(options: argparse.Namespace) -> None:
    """Print accuracy, paired differences and seconds of what is recorded."""
    print(surrogates.test(options.results, options.net))


WHAT = {"choose": choose, "run": run, "lengthen": lengthen, "long": long, "refit": refit, "table": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=list(NETS), default="mlp")
    parser.add_argument("--networks", type=Path, default=Path("runs/surrogates"), help="where long runs are kept")
    parser.add_argument("--rules", nargs="+", default=None, help="names of the rules; all if not given")
    parser.add_argument("--threads", type=int, default=1)
    run_verbs(parser, WHAT)


if __name__ == "__main__":
    main()
