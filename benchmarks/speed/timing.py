"""Time several callables in turn inside one process, so that neighbours' load falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

FLUSHED = np.zeros(1 << 26, np.uint8)  # 64 MB, more than the last level of cache


def measure(
    runs: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 5,
    seconds: float = 0.02,
    cold: bool = False,
    threads: Mapping[str, int] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return for each callable the seconds of one call: median and least over the rounds, of two clocks.

    In each round each callable warms up and is then called for about `seconds`; every second round goes backwards. CPU
    time (`cpu`, of all threads of the process) is the fair clock on shared cores and for one thread, wall time (`wall`)
    the only one for more; `seconds` and `least` repeat the one that counts.

    Parameters
    ----------
    cold
        Write and read 64 MB before every call and time the call alone.
    threads
        How many each callable uses, 1 where not given.
    """
    plan = {name: _repeats(run, seconds, cold=cold) for name, run in runs.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            found[name].append(_round(runs[name], plan[name], cold=cold))
    results = {}
    for name, times in found.items():
        clocks = dict(zip(("wall", "cpu"), zip(*times, strict=True), strict=True))
        used = (threads or {}).get(name, 1)
        counts = clocks["cpu" if used == 1 else "wall"]
        results[name] = {
            "seconds": statistics.median(counts),
            "least": min(counts),
            "clock": "cpu" if used == 1 else "wall",
            "threads": used,
            "calls": plan[name],
            "cold": cold,
        }
        for clock, values in clocks.items():
            results[name] |= {clock: statistics.median(values), f"{clock}_least": min(values)}
    return results


def flush() -> int:
    """Push everything out of the caches."""
    FLUSHED[...] += 1
    return int(FLUSHED[:: 1 << 12].sum())


def _repeats(run: Callable[[], Any], seconds: float, *, cold: bool) -> int:
    """Return how many calls last about `seconds`; cold ones are few, for the flushes take longer."""
    run()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds / 2:
        run()
        calls += 1
    calls = max(1, round(calls * seconds / (time.perf_counter() - start)))
    return min(calls, 20) if cold else calls


def _round(run: Callable[[], Any], calls: int, *, cold: bool) -> tuple[float, float]:
    """Return the wall and CPU seconds of one call, the mean over `calls` of them."""
    wall = cpu = 0.0
    if cold:
        for _ in range(calls):
            flush()
            before, start = time.process_time(), time.perf_counter()
            run()
            wall += time.perf_counter() - start
            cpu += time.process_time() - before
    else:
        for _ in range(calls // 4 + 1):  # back into the caches; the threads of others come to rest
            run()
        before, start = time.process_time(), time.perf_counter()
        for _ in range(calls):
            run()
        wall, cpu = time.perf_counter() - start, time.process_time() - before
    return wall / calls, cpu / calls
