"""Time several callables in turn inside one process, so that neighbours' load falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Clocks", "measure", "take_turns"]


@dataclass(frozen=True)
class Clocks:
    """Wall and CPU seconds of one call in each round, the mean over `calls` of them.

    CPU time, of all threads of the process, is the fair clock on shared cores and for one thread, wall time the only
    one for more.
    """

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    threads: int = 1
    calls: int = 1

    @property
    def clock(self) -> str:
        """Which clock counts."""
        return "cpu" if self.threads == 1 else "wall"

    @property
    def counts(self) -> tuple[float, ...]:
        """The seconds that count, a round each."""
        return self.cpu if self.threads == 1 else self.wall

    @property
    def seconds(self) -> float:
        """The median of what counts."""
        return statistics.median(self.counts)

    @property
    def least(self) -> float:
        """The least of what counts."""
        return min(self.counts)


def take_turns(
    runs: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 5,
    seconds: float = 0.02,
    cold: bool = False,
    threads: Mapping[str, int] | None = None,
) -> dict[str, Clocks]:
    """Return the seconds of one call of each callable, round by round.

    In each round each callable warms up and is then called for about `seconds`; every second round goes backwards.

    Parameters
    ----------
    cold
        Write and read 64 MB before every call and time the call alone.
    threads
        How many each callable uses, 1 where not given.

    Examples
    --------
    >>> clocks = take_turns({"sum": lambda: sum(range(100)), "nothing": lambda: None}, rounds=3, seconds=0.001)
    >>> clocks["nothing"].seconds < clocks["sum"].seconds
    True
    """
    plan = {name: _repeats(run, seconds, cold=cold) for name, run in runs.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            found[name].append(_round(runs[name], plan[name], cold=cold))
    clocks = {}
    for name, times in found.items():
        wall, cpu = zip(*times, strict=True)
        clocks[name] = Clocks(wall, cpu, (threads or {}).get(name, 1), plan[name])
    return clocks


def measure(
    runs: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 5,
    seconds: float = 0.02,
    cold: bool = False,
    threads: Mapping[str, int] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return for each callable the seconds of one call: median and least over the rounds, of two clocks.

    `take_turns` says what its options are. `seconds` and `least` repeat the clock that counts.
    """
    return {
        name: {
            "seconds": clocks.seconds,
            "least": clocks.least,
            "clock": clocks.clock,
            "threads": clocks.threads,
            "calls": clocks.calls,
            "cold": cold,
            "wall": statistics.median(clocks.wall),
            "wall_least": min(clocks.wall),
            "cpu": statistics.median(clocks.cpu),
            "cpu_least": min(clocks.cpu),
        }
        for name, clocks in take_turns(runs, rounds=rounds, seconds=seconds, cold=cold, threads=threads).items()
    }


@cache
def _far() -> NDArray[np.uint8]:
    """Return 64 MB, more than the last level of cache."""
    return np.zeros(1 << 26, np.uint8)


def _flush() -> int:
    """Push everything out of the caches."""
    far = _far()
    far[...] += 1
    return int(far[:: 1 << 12].sum())


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
            _flush()
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
