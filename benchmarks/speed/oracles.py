"""Exact oracles of the convex program: tables once, a search per round, and the independent check of a bound.

    python benchmarks/speed/oracles.py [--rounds 5] [--tiny]

CPU seconds of one thread (medians over rounds of searches): `prepare`, `find` of 100 half-spaces for one output and for
ten, and the check of the same bound by `check_optimality` in whole numbers. The bound and the check must agree to 1e-9.
Expected on a core with AVX2: a search of the plane at n = 1,000 in 0.02 s, at n = 5,000 in 0.3 s; five minutes in all.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from hardstep.certify.check_optimality import largest_sum
from hardstep.convex.oracle_pairs import Pairs
from hardstep.convex.oracle_plane import PlaneSweep
from hardstep.convex.oracle_stumps import Stumps
from hardstep.convex.oracle_vertices import Enumeration
from hardstep.convex.oracles import Oracle

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables.oracles import seconds as table

CASES: list[tuple[Oracle, int, int]] = [
    (PlaneSweep(), 200, 2),
    (PlaneSweep(), 1000, 2),
    (PlaneSweep(), 5000, 2),
    (Stumps(), 5000, 100),
    (Pairs(), 300, 8),
    (Pairs(), 500, 10),
    (Enumeration(), 200, 3),
    (Enumeration(), 50, 5),
]
TINY: list[tuple[Oracle, int, int]] = [
    (PlaneSweep(), 30, 2),
    (Stumps(), 30, 3),
    (Pairs(), 20, 3),
    (Enumeration(), 12, 3),
]
CHECKED = 10**7  # rows to the power of features up to which the check is timed


def clocked(action: Callable[[], Any]) -> tuple[float, Any]:
    """Return CPU seconds and result."""
    start = time.process_time()
    result = action()
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="small cases only, to see that it runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    for oracle, n, d in TINY if options.tiny else CASES:
        generator = np.random.default_rng(0)
        x = generator.normal(size=(n, d))
        prepared, search = clocked(lambda x=x, oracle=oracle: oracle.prepare(x))
        seconds: dict[str, float] = {"prepare": prepared}
        for outputs in (1, 10):
            whole = generator.integers(-(2**30), 2**30, (n, outputs))
            v = whole / 2.0**30
            runs = [
                clocked(lambda v=v, s=search: s.find(v, 100, np.random.default_rng(0))) for _ in range(options.rounds)
            ]
            seconds[f"find, {outputs} outputs"] = median(run[0] for run in runs)
            found = runs[0][1]
            if n ** (d if oracle.kind.startswith("exact") else 1) <= CHECKED or d == 2:
                checked, largest = clocked(lambda w=whole, x=x, kind=oracle.kind: largest_sum(x, w, kind) / 2.0**30)
                assert abs(found.bound - largest) <= 1e-7 * largest
                seconds[f"check, {outputs} outputs"] = checked
        record(
            options.results,
            "speed_oracles",
            oracle=repr(oracle),
            rows=n,
            features=d,
            found=len(found.planes),
            seconds={name: round(value, 4) for name, value in seconds.items()},
            rounds=options.rounds,
        )
    print(table(options.results))


if __name__ == "__main__":
    main()
