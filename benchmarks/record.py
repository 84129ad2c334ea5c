"""Append results to benchmarks/results/NAME.jsonl, one JSON line a measurement; tables/lines.py reads them."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hardstep.data import Data
from hardstep.parts import Samples
from hardstep.report import versions
from tables.lines import RESULTS

__all__ = ["RESULTS", "first_rows", "record"]


def first_rows(data: Data, rows: int | None) -> Data:
    """Return the data with so many rows of the training part, all if None."""
    assert isinstance(data.train, Samples)
    return replace(data, train=Samples(data.train.x[:rows], data.train.y[:rows], data.train.grid))


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
