"""Numbers of benchmarks/quality/exactness.py: its last line."""

from __future__ import annotations

from pathlib import Path

from .lines import Shown, lines


def numbers(results: Path) -> dict[str, str]:
    """Return cases and mutants, how many differ and how many were run."""
    line = lines(results, "exactness")[-1]
    return {name: f"{line[name]:,}" for name in ("networks", "cases", "differing", "mutants", "opened")}


SHOWN = Shown({}, numbers)
