"""The sampled program of Ergen et al. 2023, by an open interior-point solver, in a process of its own.

    python benchmarks/quality/interior_point.py FOLDER

Solves min_u 1/2 |y - D u|² + beta |u|_1 (no intercept) with CVXPY and Clarabel for design.npy (bool), y.npy and
beta.npy of FOLDER, writes weights.npy there and prints one line of JSON: objective, seconds, versions. Imports nothing
of hardstep, so that it can run where CVXPY is installed; exit status 3 where it is not.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np


def main() -> int:
    if not find_spec("cvxpy") or not find_spec("clarabel"):
        return 3
    import cvxpy

    folder = Path(sys.argv[1])
    design, y, beta = (np.load(folder / f"{name}.npy") for name in ("design", "y", "beta"))
    design = design.astype(np.float64)
    u = cvxpy.Variable(design.shape[1])
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(design @ u - y) / 2 + float(beta) * cvxpy.norm(u, 1)))
    clock, cpu = time.perf_counter(), time.process_time()
    problem.solve(solver=cvxpy.CLARABEL)
    seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu
    np.save(folder / "weights.npy", u.value)
    objective = float(np.square(y - design @ u.value).sum() / 2 + beta * np.abs(u.value).sum())
    versions = {name: metadata.version(name) for name in ("cvxpy", "clarabel")}
    print(json.dumps({"objective": objective, "seconds": seconds, "cpu_seconds": cpu_seconds, **versions}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
