"""The restricted solver against public Lasso solvers: time to an equal duality gap, which we verify for all of them.

    HARDSTEP_PEERS_CONVEX=PYTHON HARDSTEP_PEERS_ADELIE=PYTHON python benchmarks/speed/convex_solvers.py [--case 5k]

Designs are the bits of random planes on Gaussian points (d = 20), targets the ±1 of a random network. Each peer is
asked for tighter and tighter tolerances of its own until the gap that `hardstep.convex.solvers.evaluate` computes from
its weights is small enough; the time of that fit alone counts, from nothing, warmed up, its data already in the type
and order it likes. Ours starts from packed bits. One thread each, CPU seconds of the process. Every case is run without
an intercept, on the 0/1 columns themselves, and with a free one, where the peers are given centred columns and so do
not pay for it at all. Peers live in environments of their own, whose python the variables name:

    pip install celer skglm scikit-learn cvxpy clarabel        (HARDSTEP_PEERS_CONVEX)
    pip install adelie                                         (HARDSTEP_PEERS_ADELIE, it wants an older numpy)

Needs 6 GB for the case 20k; hours in all, for the peers. A line of benchmarks/results/speed_convex.jsonl is one case.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hardstep.convex.bit_matrix import BitMatrix
from hardstep.convex.data_terms import Squared
from hardstep.convex.patterns import patterns
from hardstep.convex.solvers import evaluate, solve

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables.convex_solvers import factors

PEER = Path(__file__).parent / "peer_convex.py"


@dataclass(frozen=True)
class Case:
    """Rows, columns, beta as a share of n, the gap to reach, and the peers that finish in reasonable time."""

    n: int
    p: int
    beta: float
    gap: float
    peers: tuple[str, ...]


FAST = ("celer", "skglm", "scikit-learn gram", "adelie")
CASES = {
    "tiny": Case(200, 150, 1e-2, 1e-5, ()),
    "1k": Case(1000, 1000, 1e-2, 1e-5, (*FAST, "scikit-learn", "clarabel")),
    "5k": Case(5000, 5000, 1e-2, 1e-5, (*FAST, "scikit-learn")),
    "20k": Case(20_000, 10_000, 1e-2, 1e-5, ("celer", "skglm")),
    "5k-small-beta": Case(5000, 5000, 1e-3, 1e-6, FAST),
}
FIRST = {
    "celer": 1e-3,
    "skglm": 1e-2,
    "clarabel": 1e-4,
    "scikit-learn": 1e-4,
    "scikit-learn gram": 1e-4,
    "adelie": 1e-6,
}


def made(case: Case, seed: int = 0) -> tuple[BitMatrix, np.ndarray]:
    """Return the design and the targets."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((case.n, 20))
    first, second, third = (generator.uniform(-1, 1, shape) for shape in ((21, 20), (20, 20), (20,)))
    y = np.sign(np.tanh(np.tanh(np.hstack([x, np.ones((case.n, 1))]) @ first) @ second) @ third)
    return BitMatrix.from_bools(patterns(x, generator.standard_normal((case.p, 21)))), y


def ours(design: BitMatrix, y: np.ndarray, case: Case, *, intercept: bool, rounds: int = 3) -> dict[str, Any]:
    """Return the median time of our solver and its gap, recomputed."""
    times, found = [], None
    for _ in range(rounds):
        cpu, wall = time.process_time(), time.perf_counter()
        found = solve(design, y, Squared(), case.beta * case.n, intercept=intercept, tol=case.gap)
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    b = found.intercept if intercept else None
    gap = evaluate(design, y, Squared(), case.beta * case.n, found.u, b)[2]
    cpu, wall = (statistics.median(clock) for clock in zip(*times, strict=True))
    return {"cpu": cpu, "wall": wall, "gap": gap, "objective": found.objective, "nonzeros": len(found.support)}


def theirs(name: str, design: BitMatrix, y: np.ndarray, case: Case, limit: float, *, intercept: bool) -> dict[str, Any]:
    """Tighten a peer's tolerance until its verified gap is small enough; report that fit, or how far it came."""
    variable = "HARDSTEP_PEERS_ADELIE" if name == "adelie" else "HARDSTEP_PEERS_CONVEX"
    python = os.environ.get(variable)
    if python is None:
        return {"missing": f"set {variable}"}
    beta = case.beta * case.n
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "design.npy", design.unpack())
        np.save(Path(folder) / "targets.npy", y)
        np.save(Path(folder) / "beta.npy", beta)
        command = [python, str(PEER), name, folder, str(limit), "centred" if intercept else "plain"]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        ) as peer:
            head = peer.stdout.readline()
            if not head:
                return {"missing": "does not start"}
            found, tol = json.loads(head), FIRST[name]
            while tol > 1e-15:
                peer.stdin.write(f"{tol}\n")
                peer.stdin.flush()
                answer = peer.stdout.readline()
                if not answer:
                    return found | {"finished": False, "limit": limit, "tol": tol}
                u = np.load(Path(folder) / "weights.npy")[:, None]
                b = (y - design.push(u)[:, 0]).mean(keepdims=True) if intercept else None
                gap = evaluate(design, y, Squared(), beta, u, b)[2]
                found |= json.loads(answer) | {"gap": gap, "tol": tol, "finished": gap <= case.gap}
                print(f"    {name} at tolerance {tol:.0e}: {found['cpu']:.2f} s, gap {gap:.1e}", flush=True)
                if gap <= case.gap:
                    break
                tol *= min(0.3, max(0.01, case.gap / gap))
            peer.stdin.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, nargs="+", default=list(CASES)[1:])
    parser.add_argument("--limit", type=float, default=600.0, help="CPU seconds of one fit of a peer")
    parser.add_argument("--peers", nargs="*", help="only these")
    parser.add_argument(
        "--intercept", type=lambda text: text == "yes", nargs="+", default=[False, True], metavar="yes/no"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name in options.case:
        case = CASES[name]
        design, y = made(case)
        for intercept in options.intercept:
            mine = ours(design, y, case, intercept=intercept)
            print(f"{name}, intercept {intercept}: ours {mine['cpu']:.3f} s, gap {mine['gap']:.1e}", flush=True)
            peers = {}
            for peer in options.peers or case.peers:
                peers[peer] = theirs(peer, design, y, case, options.limit, intercept=intercept)
            ratios = {peer: seen["cpu"] / mine["cpu"] for peer, seen in peers.items() if seen.get("finished")}
            late = {peer: options.limit / mine["cpu"] for peer, seen in peers.items() if seen.get("finished") is False}
            settings = {"n": case.n, "p": case.p, "beta": case.beta, "wanted": case.gap, "intercept": intercept}
            results = {"ours": mine, "peers": peers, "ratios": ratios, "more_than": late}
            record(options.results, "speed_convex", case=name, threads=1, **settings, **results)
    print(factors(options.results, tuple(options.case)))


if __name__ == "__main__":
    main()
