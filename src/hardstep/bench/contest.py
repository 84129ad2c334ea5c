"""A task done by our engine and by peers, in turn: times, ratios, and whose outputs are right."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from hardstep.bench.peer import Peer, Run, Task, ready
from hardstep.bench.timing import Clocks, take_turns

__all__ = ["Contest", "Ratio", "Timed", "contest"]

PATIENCE = 1.0  # seconds of a call beyond which it is timed once, not in turn

T = TypeVar("T", bound=Task)


class Ratio(NamedTuple):
    """How many times as long as ours: of the medians, and the least and most over the rounds."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Timed:
    """One way to do a task: who, in which version, how long, and how many of its outputs are wrong."""

    label: str
    version: str
    clocks: Clocks
    wrong: int


@dataclass(frozen=True)
class Contest:
    """What was measured on one task.

    Parameters
    ----------
    name
        The task.
    batch
        Samples of a forward.
    outputs
        How many numbers a forward gives.
    ours
        Our engine.
    peers
        All others that can do the task.
    refused
        Why others cannot, by label.
    """

    name: str
    batch: int
    outputs: int
    ours: Timed
    peers: tuple[Timed, ...]
    refused: Mapping[str, str]

    @property
    def best(self) -> Timed | None:
        """The fastest peer all of whose outputs are right."""
        right = [peer for peer in self.peers if not peer.wrong]
        return min(right, key=lambda peer: peer.clocks.seconds, default=None)

    def ratio(self, peer: Timed) -> Ratio:
        """Return a peer's time over ours; above 1 we are faster."""
        ours, theirs = self.ours.clocks.counts, peer.clocks.counts
        rounds = max(len(ours), len(theirs))  # one that was timed once has the same time in all rounds
        pairs = zip(*(counts * (rounds // len(counts)) for counts in (theirs, ours)), strict=True)
        each = [a / b for a, b in pairs]
        return Ratio(statistics.median(theirs) / statistics.median(ours), min(each), max(each))

    def line(self) -> dict[str, Any]:
        """Return all that was measured, for JSON."""
        best = self.best
        ratio = None if best is None else self.ratio(best)

        def measured(one: Timed) -> dict[str, Any]:
            return {
                "version": one.version,
                "seconds": one.clocks.seconds,
                "rounds": one.clocks.counts,
                "wrong": one.wrong,
                "right": not one.wrong,
            }

        return {
            "case": self.name,
            "batch": self.batch,
            "outputs": self.outputs,
            "threads": self.ours.clocks.threads,
            "clock": self.ours.clocks.clock,
            "best": None if best is None else best.label,
            "ratio": None if ratio is None else ratio._asdict(),
            "ours": measured(self.ours),
            "peers": {peer.label: measured(peer) for peer in self.peers},
            "refused": dict(self.refused),
        }


def contest(name: str, task: T, ours: Peer[T], several: Sequence[Peer[T]], *, batch: int, rounds: int) -> Contest:
    """Time our engine and the peers that are there and can do the task, in turn, after checking each one's outputs.

    What takes more than a second a call is timed by one call.

    Raises
    ------
    ValueError
        If our engine is not there.
    """
    if why := ours.available():
        raise ValueError(why)
    everybody = {peer.name: peer for peer in (ours, *several)}
    runs, wrong, refused = ready(task, list(everybody.values()))
    threads = {name: peer.threads for name, peer in everybody.items()}
    clocks = {name: _once(run, threads[name]) for name, run in runs.items()}
    quick = {name: run for name, run in runs.items() if clocks[name].wall[0] <= PATIENCE}
    clocks |= take_turns(quick, rounds=rounds, threads=threads)
    timed = [Timed(everybody[name].label, everybody[name].version(), clocks[name], wrong[name]) for name in runs]
    reasons = {everybody[name].label: reason for name, reason in refused.items()}
    return Contest(name, batch, task.sums.size, timed[0], tuple(timed[1:]), reasons)


def _once(run: Run, threads: int) -> Clocks:
    """Return the seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Clocks((time.perf_counter() - wall,), (time.process_time() - cpu,), threads)
