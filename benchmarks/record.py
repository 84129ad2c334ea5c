"""What benchmarks share: lines appended to benchmarks/results/NAME.jsonl, rows of the data, verbs run in turn."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from hardstep.data import Data
from hardstep.parts import Samples
from hardstep.report import versions
from tables.lines import RESULTS

__all__ = ["RESULTS", "first_rows", "joined", "record", "run_verbs"]


def first_rows(data: Data, rows: int | None) -> Data:
    """Return the data with so many rows of the training part, all if None."""
    assert isinstance(data.train, Samples)
    return replace(data, train=Samples(data.train.x[:rows], data.train.y[:rows], data.train.grid))


def joined(data: Data) -> Data:
    """Return the data with the validation part added to the training part, and none left."""
    assert isinstance(data.train, Samples) and isinstance(data.val, Samples)
    x, y = torch.cat([data.train.x, data.val.x]), torch.cat([data.train.y, data.val.y])
    return replace(data, train=Samples(x, y, data.train.grid), val=None)


def record(folder: Path, name: str, **values: Any) -> None:
    """Add one line to folder/NAME.jsonl, with code version and machine, and print it."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=RESULTS.parent
    ).stdout.strip()
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": f"{platform.machine()}, {platform.system()}",
        **versions(),
        **values,
    }
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(values), flush=True)


def run_verbs(parser: argparse.ArgumentParser, verbs: Mapping[str, Callable[[argparse.Namespace], None]]) -> None:
    """Read which verbs to run, seeds and the folder of results beside the parser's own options, and run them in turn.

    On one thread, unless there is an option `threads`.
    """
    parser.add_argument("what", choices=list(verbs), nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(getattr(options, "threads", 1))
    for what in options.what:
        verbs[what](options)
