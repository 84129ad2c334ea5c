"""Activate-while-Pruning against its base pruner, on ReLU and step networks, with the rates of dead units.

    python benchmarks/quality/activate_pruning.py digits [--seeds 5]
    python benchmarks/quality/activate_pruning.py fashion-mnist [--seeds 5]   # 25 minutes on a core; HARDSTEP_DATA set
    python benchmarks/quality/activate_pruning.py fashion-mnist --seeds 0           # the table of what is recorded

The base pruner is global magnitude in four rounds with rewinding (lottery tickets). On top of it AP as published, where
a tenth of each round's removals are the negative weights that moved least, and the two-sided form. All three share
split, initial weights and order of rows, so they are paired by seed; they train alike; the last network is scored.
Fashion-MNIST: 10,000 training rows, 784-256-256-10; the read-out stays dense. ReLU networks are no business of
`hardstep.fit`, so the method's own `init` and `sweep` are called here, for both kinds. Dead units are counted on up
to 10,000 validation rows. Each test part is scored once per network. Expected: level at 80 % zeros, a gain of about a
point at 98 %, where the base pruner leaves a tenth of the units dead. With `--layer-wise`, where every layer gets the
same sparsity, no unit is dead, the base pruner is better, and nothing is gained; see docs/results.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from torch import nn

import hardstep as hs
from hardstep.parts import Samples
from hardstep.ranks import launched_fabric

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables import activate_pruning

VALIDATION = {"digits": 0.1, "fashion-mnist": 5 / 6}
EPOCHS = {"digits": 10, "fashion-mnist": 3}
SPARSITIES = (0.8, 0.9, 0.95, 0.98)
ROUNDS = 4


def network(kind: str, data: hs.data.Data, *, norm: bool, seed: int) -> nn.Sequential:
    """Build a network; steps and ReLUs start from the same weights."""
    net = hs.nets.MLP(hidden=(256, 256), norm=norm)(data.shape, data.outputs, seed)
    return net if kind == "step" else nn.Sequential(*(nn.ReLU() if isinstance(m, hs.Step) else m for m in net))


def train(net: nn.Module, data: hs.data.Data, method: hs.Method[Any], sweeps: int, seed: int) -> float:
    """Run the sweeps of a method on a network of any activation; return the seconds."""
    work = hs.Work(data, launched_fabric(), seed, sweeps)
    start = time.perf_counter()
    state = method.init(net, work)
    for sweep in range(sweeps):
        work.sweep = sweep
        method.sweep(state, work)
    return time.perf_counter() - start


def stages(share: float) -> dict[str, hs.Activate | None]:
    """Return what stands on top of the base pruner."""
    return {
        "base": None,
        "negative": hs.Activate(share=share),
        "two-sided": hs.Activate(share=share, sides=hs.TwoSided()),
    }


def run(options: argparse.Namespace, seed: int) -> None:
    """Train every network of a seed and write a line for each."""
    data = hs.data.load(options.data, seed=seed, val_share=VALIDATION[options.data])
    assert isinstance(data.val, Samples)
    assert data.test is not None
    probe = Samples(data.val.x[:10_000], data.val.y[:10_000], data.val.grid)
    epochs = options.epochs or EPOCHS[options.data]
    for kind in options.kinds:
        for sparsity in (0.0, *options.sparsities):
            for name, stage in (stages(options.share) if sparsity else {"base": None}).items():
                net = network(kind, data, norm=not options.no_norm, seed=seed)
                method: hs.Method[Any] = hs.GradientDescent()
                if sparsity:
                    scope = hs.LayerWise() if options.layer_wise else hs.Global()
                    method = hs.MagnitudePruning(sparsity, rounds=ROUNDS, rewind=True, scope=scope, activate=stage)
                seconds = train(net, data, method, epochs * (ROUNDS + 1 if sparsity else 1), seed)
                rates = hs.dead_rates(net, probe)
                record(
                    options.results,
                    "activate_pruning",
                    data=data.name,
                    seed=seed,
                    kind=kind,
                    norm=not options.no_norm,
                    sparsity=sparsity,
                    pruner=name,
                    share=options.share,
                    method=repr(method),
                    epochs=epochs,
                    validation=hs.score(net, data.val),
                    test=None if options.validation else hs.score(net, data.test),
                    total=rates.total,
                    dynamic=rates.dynamic,
                    dead=rates.dead,
                    layers=[layer.shares | {"distinct": layer.distinct} for layer in rates.layers],
                    seconds=round(seconds, 1),
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=list(VALIDATION))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--epochs", type=int, default=None, help="of each round, for a quick look")
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--kinds", nargs="+", choices=("relu", "step"), default=("relu", "step"))
    parser.add_argument("--share", type=float, default=0.1, help="of the removals; 0.1 as published")
    parser.add_argument("--no-norm", action="store_true", help="without batch normalisation")
    parser.add_argument("--layer-wise", action="store_true", help="every layer gets the same sparsity")
    parser.add_argument("--validation", action="store_true", help="do not look at the test part")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    for seed in range(options.first, options.first + options.seeds):
        run(options, seed)
    norm, share = not options.no_norm, options.share
    cells = activate_pruning.recorded(
        options.results, options.data, norm=norm, share=share, layer_wise=options.layer_wise
    )
    print(activate_pruning.table(cells, "validation" if options.validation else "test"))


if __name__ == "__main__":
    main()
