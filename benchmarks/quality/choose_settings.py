"""Validation accuracy of candidate settings of `hardstep train`; no test part is looked at.

    python benchmarks/quality/choose_settings.py digits --seeds 10           # 6 minutes on two cores
    python benchmarks/quality/choose_settings.py fashion-mnist --seeds 2     # 25 minutes, HARDSTEP_DATA set

The defaults of `GradientDescent` are the settings with the best mean over both data sets (docs/results.md).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import hardstep as hs
from hardstep.cli import Train

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables.choose_settings import validation
from tables.lines import mean

CANDIDATES = [
    hs.GradientDescent(rule=rule, loss=hs.CrossEntropy(smoothing=smoothing), optimiser=hs.Adam(lr=lr))
    for rule, lr, smoothing in (
        (hs.Clipped(1.0), 1e-3, 0.0),
        (hs.Clipped(0.5), 1e-3, 0.0),
        (hs.Clipped(0.5), 1e-3, 0.1),
        (hs.Clipped(1.0), 2e-3, 0.1),
        (hs.Clipped(0.5), 2e-3, 0.1),
        (hs.Sech2(2.0), 1e-3, 0.1),
        (hs.ReSTE(), 1e-3, 0.1),
    )
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=["digits", "fashion-mnist"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sweeps", type=int, default=None)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    for method in CANDIDATES:
        scores = []
        for seed in range(options.seeds):
            train = Train(data=options.data, method=method, seed=seed, sweeps=options.sweeps)
            data, net = train.load()
            report = hs.fit(net, data, method, sweeps=train.budget(data), seed=seed, progress=False)
            # the last sweep, not the best one: the best of many is an optimistic estimate
            scores.append(report.records[-1].score or 0.0)
        record(
            options.results,
            "choose_settings",
            data=options.data,
            rule=repr(method.rule),
            lr=method.optimiser.lr,
            loss=repr(method.loss),
            seeds=options.seeds,
            validation=round(mean(scores)[0], 4),
            sd=round(mean(scores)[1], 4),
        )
    print(validation(options.results))


if __name__ == "__main__":
    main()
