"""Test accuracy of the whole path, float and frozen, with the settings of `hardstep train`, over seeds.

    python benchmarks/quality/whole_path.py digits [--seeds 5]          # 1 minute on two cores
    python benchmarks/quality/whole_path.py fashion-mnist [--seeds 5]   # 10 minutes, HARDSTEP_DATA set

A seed fixes the split, the initial weights and the order of rows. Settings were chosen on validation data
(docs/results.md says how); each test part is scored once per seed. Expected: digits 64-256-256-10 at least 97 %
on average; Fashion-MNIST 784-1024-1024-10 in 10 epochs at least 89.0 %, at most 0.2 points less when frozen to
8 bits. The gradient-free baseline `RandomFeatures` stands beside it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import hardstep as hs
from hardstep.cli import Train
from hardstep.freeze import as_torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables import whole_path


def run(train: Train, results: Path) -> None:
    """Train, freeze and score once; write the line."""
    start = time.perf_counter()
    data, net = train.load()
    report = hs.fit(net, data, train.method, sweeps=train.budget(data), seed=train.seed, progress=False)
    hard = hs.freeze(net, calibrate=data.train, weight_bits=train.weight_bits)
    assert data.test is not None
    assert hard.rounding is not None
    record(
        results,
        "whole_path",
        data=train.data,
        method=report.method,
        seed=train.seed,
        sweeps=len(report.records),
        validation=report.score,
        test_float=hs.score(net, data.test),
        test_frozen=hs.score(as_torch(hard), data.test),
        weight_bits=train.weight_bits,
        steps_changed=hard.rounding.steps_changed / hard.rounding.step_outputs,
        nbytes=hard.nbytes,
        seconds=round(time.perf_counter() - start, 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=["digits", "fashion-mnist"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sweeps", type=int, default=None)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    for method in (hs.GradientDescent(), hs.RandomFeatures()):
        for seed in range(options.seeds):
            run(Train(options.data, method=method, seed=seed, sweeps=options.sweeps), options.results)
    print(whole_path.test(options.results, (options.data,)))


if __name__ == "__main__":
    main()
