"""The command `hardstep bench`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.live import Live

from hardstep.bench.contest import Contest, contest
from hardstep.bench.machine import cores, machine
from hardstep.bench.networks import Network
from hardstep.bench.peer import Peer
from hardstep.bench.peer_networks import Exported, OurEngine, Reference, network_peers
from hardstep.bench.peers import peers
from hardstep.bench.rows import Row, short_table
from hardstep.bench.tables import case_table, form_table, peer_table
from hardstep.commands import load_hardnet, some_rows
from hardstep.hardnet import HardNet
from hardstep.storage import write_bytes

__all__ = ["Bench"]


@dataclass(frozen=True)
class Bench:
    """Time the engine beside the peers that are installed here, in turn in one process; print ratios.

    Without a run: layers and networks drawn at random, about a minute. With one: that frozen network, beside the NumPy
    reference, its ONNX export (to_onnx) in onnxruntime, and chains of onnxruntime's and PyTorch's own operators.

    A ratio is a peer's median time over ours; above 1 we are faster. What each peer gives is checked against NumPy: one
    with a wrong output is shown with their count and is never the best peer (8-bit sums saturate in 16 bits on x86
    without VNNI). With one thread CPU time counts, with more wall time. Status 1 if ours gives a wrong output.

    Parameters
    ----------
    run
        A run folder, or a file hardnet.safetensors.
    batches
        Samples of a forward.
    threads
        Threads of ours and of the peers; peers that have one thread stay out of more.
    rounds
        How often each is timed in turn.
    data
        Name or path of data that a run is timed on; by default on random codes, whose bits may be set more often.
    only
        Rows of the table without a run whose names begin so.
    out
        A file to which all times are appended as JSON lines, with versions and machine.
    """

    run: tyro.conf.Positional[Path | None] = None
    batches: tuple[int, ...] = (1, 256)
    threads: int = 1
    rounds: int = 5
    data: str | None = None
    only: tuple[str, ...] = ()
    out: Path | None = None

    def print(self, console: Console) -> int:
        """Measure and print."""
        self.check()
        contests = self.print_rows(console) if self.run is None else self.print_run(console, self.run)
        print_end(console, [*peers(self.threads), *self.forms()])
        return 1 if any(one.ours.wrong for one in contests) else 0

    def check(self) -> None:
        """Raise ValueError or FileNotFoundError if an option makes no sense, before anything is timed."""
        if self.run is not None and not self.run.exists():
            raise FileNotFoundError(f"there is no run {self.run}; make one by `hardstep train --name {self.run.name}`")
        if not self.batches or min(self.batches) < 1:
            raise ValueError(f"--batches takes whole numbers of at least 1; got {' '.join(map(str, self.batches))}")
        if self.rounds < 1:
            raise ValueError(f"--rounds must be at least 1; got {self.rounds}")
        if not 1 <= self.threads <= cores():
            raise ValueError(f"--threads must be 1 to {cores()}, the cores this process may use; got {self.threads}")
        if self.run is None and self.data is not None:
            raise ValueError(f"--data {self.data} needs a run: hardstep bench runs/NAME --data {self.data}")
        if self.run is not None and self.only:
            raise ValueError(f"--only {' '.join(self.only)} is for the table without a run")
        if self.out is not None and self.out.is_dir():
            raise ValueError(f"--out takes a file, {self.out} is a folder; name a file in it")

    def rows(self) -> list[Row]:
        """Return the rows to be timed."""
        rows = [row for row in short_table() if not self.only or row.name.startswith(self.only)]
        if not rows:
            names = "; ".join(row.name for row in short_table())
            raise ValueError(f"no row begins with {' or '.join(map(repr, self.only))}; there are {names}")
        return rows

    def print_rows(self, console: Console) -> list[Contest]:
        """Time the short table; it grows on a terminal as it is measured."""
        title = f"Best right peer / ours: {self.setting()}"
        contests: list[Contest] = []
        rows = self.rows()
        # no thread redraws it: its time would count
        with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
            for row in rows:
                for batch in self.batches:
                    contests.append(row.play(batch, threads=self.threads, rounds=self.rounds))
                    self.append(contests[-1:])
                    live.update(case_table(contests, title), refresh=True)
        if not console.is_terminal:
            console.line()  # there the last table ends without one
        console.print(peer_table(contests, "Every peer / ours, over its cases"))
        return contests

    def print_run(self, console: Console, run: Path) -> list[Contest]:
        """Time the user's own network, a table a batch."""
        hard = load_hardnet(run)
        codes = self.codes(hard)
        contests = []
        for batch in self.batches:
            task = Network(hard, codes[np.arange(batch) % len(codes)])
            one = contest(str(run), task, OurEngine("", self.threads), self.forms(), batch=batch, rounds=self.rounds)
            contests.append(one)
            self.append([one], data=self.data)
            on = "random codes" if self.data is None else self.data
            console.print(form_table(one, f"{run} on {on}, batch {batch:,}: {self.setting()}"))
            for label, reason in one.refused.items():
                console.print(f"not made: {label}, for {reason}", style="dim", highlight=False, markup=False)
        return contests

    def forms(self) -> list[Peer[Network]]:
        """Return the other forms of a network."""
        return [Reference("", self.threads), *network_peers(self.threads), Exported("", self.threads)]

    def codes(self, hard: HardNet) -> NDArray[np.uint8]:
        """Return the codes that a network is timed on, at most as many as needed."""
        if self.data is not None:
            return hard.codes(some_rows(self.data, hard))
        return np.random.default_rng(0).integers(0, 256, (max(self.batches), *hard.shape)).astype(np.uint8)

    def setting(self) -> str:
        """Return what all times have in common."""
        clock = "CPU time of 1 thread" if self.threads == 1 else f"wall time of {self.threads} threads"
        return f"{clock}, medians of {self.rounds} rounds"

    def append(self, contests: Sequence[Contest], **more: Any) -> None:
        """Append contests to the file of JSON lines, if there is one; it is whole at any time."""
        if self.out is None:
            return
        before = self.out.read_bytes() if self.out.exists() else b""
        head = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **machine(), **more}
        lines = "".join(json.dumps(head | one.line()) + "\n" for one in contests)
        write_bytes(self.out, before + (b"\n" if before and not before.endswith(b"\n") else b"") + lines.encode())


def print_end(console: Console, several: Iterable[Peer[Any]]) -> None:
    """Print versions and machine, and what is missing with how to have it."""
    about = ", ".join(f"{key} {value}" for key, value in machine().items())
    console.print(about, style="dim", highlight=False, markup=False, soft_wrap=True)
    absent = {peer.family: (why, peer.install) for peer in several if (why := peer.available())}
    text = "; ".join(f"{family}: {why}; have it by: {install}" for family, (why, install) in absent.items())
    text = f"missing {text}" if text else "no peer is missing"
    console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)
