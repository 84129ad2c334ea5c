"""Exact target propagation: how often all training rows become right, with a certificate that is read back and checked.

    python benchmarks/quality/target_prop_exact.py [--case xor] [--seeds 30] [--seconds 60]

Cases: XOR with two hidden units; parity of four bits with six; two interleaved spirals of 60 points with 20; labels of
a planted network of six half-spaces (two layers) on 200 rows with 24; of six and then four (three layers) on 120 rows
with 24 and 12. Each seed draws planted data, start and proposals; a fit ends after 60 seconds. The trained network is
frozen with 16-bit weights, its certificate written to a file, read back and checked without a solver. Inputs are whole
numbers, so that freezing does not round them. Expected: at least 28 of 30 seeds in every case. XOR and parity take
a few seconds for all seeds, a spiral about two seconds a seed, the planted ones about six and fifteen.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hardstep as hs
from hardstep.certify.certificate import Certificate
from hardstep.certify.feasible import Feasible
from hardstep.parts import Samples

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables import target_prop_exact

HIDDEN = {
    "tiny": (3,),
    "xor": (2,),
    "parity": (6,),
    "spirals": (20,),
    "planted-two": (24,),
    "planted-three": (24, 12),
}


def parity(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all words and whether they have an odd number of ones."""
    x = (np.arange(2**bits)[:, None] >> np.arange(bits)) & 1
    return x, x.sum(axis=1) % 2


def spirals(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two spirals of one and a half turns, on a grid of 8 bits."""
    radius = np.sqrt(np.linspace(0.05, 1, rows // 2))
    arm = radius[:, None] * np.stack([np.cos(3 * np.pi * radius), np.sin(3 * np.pi * radius)], axis=1)
    return np.rint(127 * np.concatenate([arm, -arm]) + 128), np.repeat([0, 1], rows // 2)


def planted(seed: int, rows: int, features: int, widths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of whole numbers and the labels of a network of balanced half-spaces with whole weights."""
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 4, (rows, features))
    a = x
    for width in (*widths, 1):
        sums = a @ generator.integers(-3, 4, (width, a.shape[1])).T
        a = (sums > np.median(sums, axis=0)).astype(np.int64)
    y = a[:, 0]
    return (x, y) if 0.2 < y.mean() < 0.8 else planted(seed + 1000, rows, features, widths)


def rows_of(case: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and labels of a case."""
    if case == "planted-two":
        return planted(seed, 200, 10, (6,))
    if case == "planted-three":
        return planted(seed, 120, 8, (6, 4))
    return spirals(60) if case == "spirals" else parity(4 if case == "parity" else 2)


def measured(case: str, seed: int, seconds: float) -> dict[str, Any]:
    """Train, freeze, certify, write, read, check."""
    x, y = rows_of(case, seed)
    rows = Samples(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.int64))
    data = hs.data.Data(case, rows, None, None, 2)
    net = hs.nets.mlp(x.shape[1], *HIDDEN[case], 2, norm=False, seed=seed)
    start = time.perf_counter()
    report = hs.fit(net, data, hs.ExactTargetProp(seconds=seconds), sweeps=100_000, seed=seed, progress=False)
    spent = time.perf_counter() - start
    hard = hs.freeze(net, calibrate=rows, weight_bits=16)
    certifier = Feasible(rows.x.numpy(), rows.y.numpy())
    with tempfile.TemporaryDirectory() as folder:
        certifier.certify(hard).save(Path(folder) / "certificate.safetensors")
        certificate = Certificate.load(Path(folder) / "certificate.safetensors")
    return {
        "stopped": report.stopped.split(":")[0],
        "accuracy": hs.score(net, rows),
        "certificate": certificate.verdict.name,
        "checked": certifier.check(certificate, hard),
        "bounds": dict(certificate.bounds),
        "proposals": int(report.records[-1].extra["proposals"]),
        "seconds": round(spent, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(HIDDEN), nargs="+", default=[case for case in HIDDEN if case != "tiny"])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for case in options.case:
        for seed in range(options.first, options.first + options.seeds):
            found = measured(case, seed, options.seconds)
            record(options.results, "target_prop_exact", case=case, seed=seed, hidden=HIDDEN[case], **found)
    print(target_prop_exact.proved(options.results, tuple(options.case)))


if __name__ == "__main__":
    main()
