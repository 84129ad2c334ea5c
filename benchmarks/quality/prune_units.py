"""Accuracy against units kept: l2,0 by columns and rows and backward elimination against norms of columns, with refit.

    python benchmarks/quality/prune_units.py digits [--seeds 5]           # three minutes on one core
    python benchmarks/quality/prune_units.py fashion-mnist [--seeds 5]    # an hour on one core, HARDSTEP_DATA set

Each seed trains one network of two hidden layers with `MarginBCD(growth=0)`, prunes it to shares of its units with
every rule and trains the rest on: `MarginBCD(warm=True, fits=Fits(lr=0.03))` for two sweeps (digits: 15). All rules
share network, numbers of units by layer and refit, so they are paired. As a baseline, networks of these sizes are
trained from the start with as many sweeps as both trainings have together. Of the units kept three quarters are in
the first layer (chosen on the validation part of seed 0, see docs/results.md). Each test part is scored once per
network. Expected on Fashion-MNIST: with half of the units at most 0.5 points less than with all.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from torch import nn

import hardstep as hs

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables import prune_units

WIDTH = {"digits": 200, "fashion-mnist": 1000}
SWEEPS = {"digits": 30, "fashion-mnist": 5}
AGAIN = {"digits": 15, "fashion-mnist": 2}
SHARES = (0.5, 0.25, 0.1, 0.05)
RULES: tuple[hs.UnitChoice, ...] = (hs.BackwardElimination(), hs.ColumnsL20(), hs.RowsL20(), hs.ColumnNorm())
REFIT = hs.MarginBCD(warm=True, fits=hs.Fits(lr=0.03))


def numbers(share: float, width: int) -> list[int]:
    """Return how many units of each of two layers stay: three to one, at most all."""
    first = min(width, round(1.5 * share * width))
    return [first, round(2 * share * width) - first]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=list(WIDTH))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--sweeps", type=int, default=None, help="of the first training, for a quick look")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    width, sweeps, again = WIDTH[options.data], options.sweeps or SWEEPS[options.data], AGAIN[options.data]
    for seed in range(options.first, options.first + options.seeds):
        data = hs.data.load(options.data, seed=seed)

        def note(
            share: float,
            units: list[int],
            rule: str,
            net: nn.Module,
            seconds: float,
            data: hs.data.Data = data,
            seed: int = seed,
            **more: float,
        ) -> None:
            """Look at the test part, once; write the line."""
            validation, test = (hs.score(net, part) for part in (data.val, data.test) if part is not None)
            record(
                options.results,
                "prune_units",
                data=data.name,
                seed=seed,
                rule=rule,
                share=share,
                units=units,
                validation=validation,
                test=test,
                seconds=round(seconds, 1),
                **more,
            )

        net = hs.nets.MLP(hidden=(width, width), norm=False)(data.shape, data.outputs, seed)
        whole = hs.MarginBCD(growth=0.0)
        report = hs.fit(net, data, whole, sweeps=sweeps, seed=seed, progress=False)
        note(1.0, [width, width], "none", net, report.seconds)
        for share in SHARES:
            units = numbers(share, width)
            for rule in RULES:
                start = time.perf_counter()
                small = hs.prune_units(net, data, units, by=rule)
                seconds = time.perf_counter() - start
                assert data.val is not None
                pruned = hs.score(small, data.val)
                seconds += hs.fit(small, data, REFIT, sweeps=again, seed=seed, progress=False).seconds
                note(share, units, repr(rule), small, seconds, validation_before_refit=pruned)
            fresh = hs.nets.MLP(hidden=tuple(units), norm=False)(data.shape, data.outputs, seed)
            report = hs.fit(fresh, data, whole, sweeps=sweeps + again, seed=seed, progress=False)
            note(share, units, "trained at this size", fresh, report.seconds)
    print(prune_units.test(options.results, options.data))


if __name__ == "__main__":
    main()
