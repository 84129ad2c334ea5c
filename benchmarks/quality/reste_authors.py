"""ReSTE beside its authors' public code: same rows, network, initial weights, batches and epochs, paired by seed.

    git clone https://github.com/DravenALG/ReSTE PEER
    python benchmarks/quality/reste_authors.py check run table --peer PEER [--seeds 5] [--epochs 8]

Fashion-MNIST (HARDSTEP_DATA set), or digits. A VGG of six 3x3 convolutions in the authors' order (convolution, ReLU,
normalisation; a pool after the second, fourth and sixth) with binary weights and activations in all but the first one
and the read-out, one attached scale a layer; SGD 0.1 with momentum 0.9 and decay 1e-4 along a cosine, the power of
ReSTE from 1 to 3. Theirs: their layers in a plain loop over the same batches, which does nothing else; ours: `fit`,
whose seconds are those of the sweeps. One thread, CPU time, in turn; the network after the last epoch is scored. An
hour and a half on one core for 10,000 rows. `check` compares outputs and gradients of one layer. Expected: equal to
the rounding of our scale (2^-9), accuracy level, an epoch in at most 0.8 of their time.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

import hardstep as hs
from hardstep.fit import Batch, Work
from hardstep.ranks import launched_fabric

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import first_rows, record, run_verbs
from tables import reste_authors

RULE = hs.published_rules()["ReSTE"]
RATE, DECAY, MOMENTUM = 0.1, 1e-4, 0.9


def network(
    data: hs.data.Data, widths: tuple[int, ...], sign: Callable[[], nn.Module], conv: Callable[[int, int], nn.Module]
) -> nn.Sequential:
    """Build the network of an activation and a binary convolution; that of the authors has the sign within."""
    channels, height, width = data.shape
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)]
    for i, (before, after) in enumerate(pairwise((channels, *widths))):
        layers += [sign(), conv(before, after)] if i else []
        layers += [nn.ReLU(), nn.BatchNorm2d(after)]
        layers += [nn.MaxPool2d(2)] if i % 2 else []
    flat = widths[-1] * (height // 8) * (width // 8)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, data.outputs))


def ours(data: hs.data.Data, widths: tuple[int, ...]) -> nn.Sequential:
    """Build the network of our pieces."""

    def conv(before: int, after: int) -> nn.Module:
        return hs.quantise(nn.Conv2d(before, after, 3, padding=1, bias=False), hs.Binary(hs.PerLayer()))

    return network(data, widths, hs.Sign, conv)


def theirs(data: hs.data.Data, widths: tuple[int, ...], peer: Path) -> nn.Sequential:
    """Build the network of the authors' layers, which read their settings from the command line when imported."""
    arguments, sys.argv = sys.argv, ["main.py", "--estimator", "ReSTE"]
    sys.path.insert(0, str(peer))
    try:
        kind = importlib.import_module("model.binary_module.binarized_modules").BinarizeConv2d
    finally:
        sys.argv = arguments
        sys.path.remove(str(peer))
    return network(data, widths, nn.Identity, lambda before, after: kind(before, after, 3, padding=1, bias=False))


def batches(work: Work, size: int) -> Iterator[Batch]:
    """Return the batches of every epoch, as `fit` draws them."""
    for epoch in range(work.sweeps):
        yield from replace(work, sweep=epoch).batches(size, shuffle=True)


def train_theirs(net: nn.Module, data: hs.data.Data, options: argparse.Namespace, seed: int) -> float:
    """Train in a plain loop; return the CPU seconds."""
    work = Work(data, launched_fabric(), seed, options.epochs)
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    loss, schedule = nn.CrossEntropyLoss(), hs.Cosine()
    binary = [module for module in net.modules() if hasattr(module, "o_a")]  # theirs, by their own attribute
    net.train()
    start = time.process_time()
    for batch in batches(work, options.batch_size):
        power = torch.tensor(RULE.at(int(batch.progress * work.sweeps) / work.sweeps).power)
        for module in binary:
            module.o = module.o_a = power
        for group in optimiser.param_groups:
            group["lr"] = RATE * schedule.factor(batch.progress)
        optimiser.zero_grad()
        loss(net(batch.x), batch.y).backward()
        optimiser.step()
    return time.process_time() - start


def train_ours(net: nn.Module, data: hs.data.Data, options: argparse.Namespace, seed: int) -> float:
    """Train by `fit`; return the CPU seconds, those of its readings after each sweep included."""
    method = hs.GradientDescent(
        rule=RULE,
        loss=hs.CrossEntropy(),
        optimiser=hs.SGD(RATE, momentum=MOMENTUM, weight_decay=DECAY),
        batch_size=options.batch_size,
    )
    start = time.process_time()
    # without a validation part the network after the last epoch is kept
    hs.fit(net, replace(data, val=None), method, sweeps=options.epochs, seed=seed, progress=False)
    return time.process_time() - start


def check(options: argparse.Namespace) -> None:
    """Compare one binary layer of both: its outputs, and the gradients of its input and its latent weights."""
    data = hs.data.load(options.data)
    torch.manual_seed(0)
    width = options.widths[-1]
    other = [module for module in theirs(data, options.widths, options.peer).modules() if hasattr(module, "o_a")][-1]
    layer = hs.quantise(nn.Conv2d(width, width, 3, padding=1, bias=False), hs.Binary(hs.PerLayer()))
    form = layer.parametrizations.weight[0]  # type: ignore[index, union-attr]
    mine = layer.parametrizations.weight.original  # type: ignore[union-attr]
    with torch.no_grad():
        mine.copy_(other.weight)
    x, back = torch.randn(2, 8, width, 8, 8)
    for power in (1.0, 1.5, 2.0, 3.0):
        form.rule = hs.ReSTE(power=power)
        other.o = other.o_a = torch.tensor(power)  # type: ignore[assignment]
        found = []
        for net, weight in ((nn.Sequential(hs.Sign(form.rule), layer), mine), (other, other.weight)):
            given = x.clone().requires_grad_()
            out = net(given)
            found.append((out.detach(), *torch.autograd.grad(out, (given, weight), back)))
        errors = [float((a - b).norm() / b.norm()) for a, b in zip(*found, strict=True)]
        values = dict(zip(("outputs", "input_gradients", "weight_gradients"), errors, strict=True))
        record(options.results, "reste_authors", kind="check", power=power, **values)


def run(options: argparse.Namespace) -> None:
    """Train both on the same batches from the same weights, and score the test part once."""
    command = ["git", "-C", str(options.peer), "describe", "--always"]
    version = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    for seed in range(options.first, options.first + options.seeds):
        data = first_rows(hs.data.load(options.data, seed=seed), options.rows)
        torch.manual_seed(seed)
        net = ours(data, options.widths)
        ways: dict[str, tuple[nn.Module, Callable[..., float]]] = {"hardstep": (net, train_ours)}
        if options.peer:
            other = theirs(data, options.widths, options.peer)
            with torch.no_grad():  # the latent weights of both in the same order
                for a, b in zip(net.parameters(), other.parameters(), strict=True):
                    b.copy_(a)
            ways["authors"] = other, train_theirs
        for way in list(ways)[:: -1 if seed % 2 else 1]:
            net, train = ways[way]
            seconds = train(net, data, options, seed)
            setting: dict[str, Any] = {"data": options.data, "rows": options.rows, "widths": list(options.widths)}
            setting |= {"epochs": options.epochs, "batch_size": options.batch_size, "peer": version}
            test = hs.score(net, data.test)
            record(
                options.results,
                "reste_authors",
                kind="run",
                way=way,
                seed=seed,
                **setting,
                test=test,
                seconds=round(seconds, 2),
            )


def table(options: argparse.Namespace) -> None:
    """Print accuracy, the paired difference and the ratio of times, where both were run."""
    print(reste_authors.test(options.results, options.data))


WHAT = {"check": check, "run": run, "table": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="a clone of the authors' repository; without it ours alone")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--widths", type=int, nargs=6, default=(32, 32, 64, 64, 128, 128))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=100)
    run_verbs(parser, WHAT)


if __name__ == "__main__":
    main()
