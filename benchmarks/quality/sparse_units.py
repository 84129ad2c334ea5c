"""Half of the hidden units removed: bytes and MACs before and after, accuracy against dense, outputs the same.

    python benchmarks/quality/sparse_units.py digits [--seeds 3]  # a minute on one core
    python benchmarks/quality/sparse_units.py fashion-mnist [--seeds 3]  # ten minutes on one core; HARDSTEP_DATA set

Networks of three hidden layers of equal width (1,024 on Fashion-MNIST, 10,000 training rows), all trained for the same
number of epochs: dense; relaxed splitting with at most so many columns in every layer that reads hidden units, the
read-out too; `prune_units` after two thirds of the epochs, trained on for the rest. Splitting leaves units that nobody
reads; `shrink` takes them out of the PyTorch network, `simplify` out of the frozen one. The frozen scores of the test
part are compared before and after, integer by integer. Each test part is scored once per network. Expected: at most
0.5 points less than dense with half the units.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import hardstep as hs
from hardstep.parts import Samples

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, first_rows, record
from tables import sparse_units

WIDTH = {"digits": 128, "fashion-mnist": 1024}
ROWS = {"digits": None, "fashion-mnist": 10_000}
EPOCHS = {"digits": 30, "fashion-mnist": 10}
WAYS = ("dense", "splitting", "prune_units")


def linear(net: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, nn.Linear)}


def train(way: str, net: nn.Module, data: hs.data.Data, keep: float, epochs: int, seed: int) -> tuple[nn.Module, float]:
    """Train in one of the ways; return the network with its units gone, and the seconds."""
    base = hs.GradientDescent()
    if way == "splitting":
        penalty = hs.Grouped(hs.Cardinality(keep), hs.Columns())
        method = hs.Splitting(penalty=penalty, layers=tuple(linear(net))[1:])
        report = hs.fit(net, data, method, sweeps=epochs, seed=seed, progress=False)
        return net, report.seconds
    first = epochs if way == "dense" else round(2 * epochs / 3)
    seconds = hs.fit(net, data, base, sweeps=first, seed=seed, progress=False).seconds
    if way == "prune_units":
        net = hs.prune_units(net, data, keep)
        seconds += hs.fit(net, data, base, sweeps=epochs - first, seed=seed, progress=False).seconds
    return net, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=list(WIDTH))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--keep", type=float, default=0.5, help="share of the units of each hidden layer")
    parser.add_argument("--epochs", type=int, default=None, help="for a quick look")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    epochs = options.epochs or EPOCHS[options.data]
    for seed in range(options.first, options.first + options.seeds):
        data = first_rows(hs.data.load(options.data, seed=seed), ROWS[options.data])
        assert isinstance(data.test, Samples)
        x = data.test.x.numpy()
        for way in WAYS:
            net = hs.nets.MLP(hidden=(WIDTH[options.data],) * 3)(data.shape, data.outputs, seed)
            net, seconds = train(way, net, data, options.keep, epochs, seed)
            small = hs.shrink(net)
            hard = hs.freeze(net, calibrate=data.train)
            simple = hs.simplify(hard)
            again = hs.simplify(hs.freeze(small, calibrate=data.train))
            scores, after = hard(x), simple(x)
            record(
                options.results,
                "sparse_units",
                data=options.data,
                rows=len(data.train),
                seed=seed,
                way=way,
                keep=options.keep if way != "dense" else 1.0,
                epochs=epochs,
                units=[len(layer.weight) for layer in linear(small).values()],
                test=hs.score(net, data.test),
                test_shrunk=hs.score(small, data.test),
                scores_differing=int((scores != after).any(axis=1).sum()),
                labels_differing_shrunk=int((again(x).argmax(axis=1) != scores.argmax(axis=1)).sum()),
                nbytes=[hard.nbytes, simple.nbytes],
                macs=[hard.macs, simple.macs],
                test_frozen=float(np.mean(after.argmax(axis=1) == data.test.y.numpy())),
                seconds=round(seconds, 1),
            )
    print(sparse_units.units(options.results, options.data))


if __name__ == "__main__":
    main()
