"""Certified global optima of two-layer step networks: how long they take, each certificate re-checked on its own.

    python benchmarks/quality/convex_certified.py            # all cases but the long one; 3 minutes on two cores
    python benchmarks/quality/convex_certified.py --case plane-5000

A case trains by `ConvexTraining` in double precision until its relative gap is proved, then `Optimality` writes the
certificate of the network's own units, and `python -m hardstep.certify.check_optimality` recomputes it from that file
and the data alone, in whole numbers. `seconds` is the training, from data to proof; `certify_seconds` and
`check_seconds` the rest. Bars on two cores: plane-200 10 s, plane-1000 20 s, stumps-5000 60 s; plane-5000 to 1e-4 in
ten minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

import hardstep as hs
from hardstep.certify.optimality import Optimality, Units
from hardstep.convex.oracle_plane import PlaneSweep
from hardstep.convex.oracle_stumps import Stumps
from hardstep.convex.oracles import Oracle

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables.convex_certified import optima


@dataclass(frozen=True)
class Case:
    """Data and strength of one optimum."""

    rows: int
    features: int
    beta: float  # times rows
    oracle: Oracle = field(default_factory=PlaneSweep)
    tol: float = 1e-6
    columns: int = 60
    units: int = 1000

    def data(self, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return normal rows and targets +-1 by a curved border, one in ten turned over."""
        generator = np.random.default_rng(seed)
        x = generator.standard_normal((self.rows, self.features)).astype(np.float32)
        y = np.sign(np.sin(2 * x[:, 0]) + x[:, 1] * x[:, -1] + 0.1)
        y[generator.random(self.rows) < 0.1] *= -1
        return x.astype(np.float64), y[:, None].astype(np.float64)


CASES = {
    "plane-200": Case(200, 2, 1e-3),
    "plane-1000": Case(1000, 2, 1e-2),
    "stumps-5000": Case(5000, 100, 1e-2, Stumps()),
    "plane-5000": Case(5000, 2, 1e-2, PlaneSweep(), 1e-4, 200, 2000),
    "tiny": Case(40, 2, 1e-2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=["plane-200", "plane-1000", "stumps-5000"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    fabric = Fabric(accelerator="cpu", devices=1, precision="64-true")
    fabric.launch()
    for name in options.case:
        case = CASES[name]
        for seed in range(options.seeds):
            x, y = case.data(seed)
            rows = torch.utils.data.TensorDataset(torch.from_numpy(x).float(), torch.from_numpy(y).float())
            data = hs.data.from_parts(rows, outputs=1, name=name)
            beta = case.beta * case.rows
            method = hs.ConvexTraining(
                loss=hs.Squared(),
                correction=hs.GroupLasso(beta, relative=False),
                oracle=case.oracle,
                columns=case.columns,
                tol=case.tol / 2,
                drop=2,
            )
            net = hs.nets.mlp(case.features, case.units, 1, norm=False)
            start, cpu = time.perf_counter(), time.process_time()
            report = hs.fit(net, data, method, sweeps=100, progress=False, fabric=fabric)
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
            first, last = (module for module in net if isinstance(module, torch.nn.Linear))
            planes = torch.cat([first.weight, first.bias[:, None]], dim=1).detach().numpy().astype(np.float64)
            u = last.weight.detach().numpy().T.astype(np.float64)
            used = u.any(axis=1)
            units = Units(planes[used], u[used], last.bias.detach().numpy().astype(np.float64))
            start = time.perf_counter()
            certificate = Optimality(x, y[:, 0], beta, gap=case.tol, oracle=case.oracle).certify_units(units)
            certify_seconds = time.perf_counter() - start
            with tempfile.TemporaryDirectory() as folder:
                certificate.save(Path(folder) / "certificate.safetensors")
                np.savez(Path(folder) / "data.npz", x=x, y=y[:, 0])
                start = time.perf_counter()
                command = [
                    sys.executable,
                    "-m",
                    "hardstep.certify.check_optimality",
                    "certificate.safetensors",
                    "data.npz",
                ]
                environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
                checked = subprocess.run(
                    command, cwd=folder, env=environment, capture_output=True, text=True, check=False
                )
                check_seconds = time.perf_counter() - start
            record(
                options.results,
                "convex_certified",
                case=name,
                seed=seed,
                beta=beta,
                method=repr(method),
                objective=report.objective,
                gap=report.records[-1].extra.get("relative_gap"),
                stopped=report.stopped,
                verdict=certificate.verdict.value,
                accepted=checked.returncode == 0,
                units=int(used.sum()),
                columns=int(report.records[-1].extra["columns"]),
                rounds=len(report.records),
                seconds=round(seconds, 2),
                cpu_seconds=round(cpu_seconds, 2),
                certify_seconds=round(certify_seconds, 2),
                check_seconds=round(check_seconds, 2),
            )
    print(optima(options.results, tuple(options.case)))


if __name__ == "__main__":
    main()
