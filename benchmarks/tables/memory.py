"""The table of benchmarks/speed/memory.py; of lines equal in network and way the last counts."""

from __future__ import annotations

from pathlib import Path

from .lines import Line, Shown, Table, grouped, last, lines


def saved(results: Path) -> Table:
    """Return bytes by network, and of the two leaner ways how much less they keep, and their time."""
    rows = []
    for net, found in grouped(last(lines(results, "speed_memory"), "net", "memory"), "net").items():
        by_way = {line["memory"]: line for line in found}
        leaner = [by_way[way] for way in ("Packed()", "Recomputed()")]
        rows.append((net, _megabytes(by_way["Whole()"]), *(cell for line in leaner for cell in _cells(line))))
    head = ("network", "`Whole`, MB", "`Packed`, MB", "times less", "time", "`Recomputed`, MB", "times less", "time")
    return Table(head, tuple(rows))


def _megabytes(line: Line) -> str:
    return f"{line['bytes'] / 1e6:,.2f}"


def _cells(line: Line) -> tuple[str, str, str]:
    times = f"{line['ratio']:.2f} ({line['ratio_min']:.2f} to {line['ratio_max']:.2f}); {line['ratio_of_least']:.2f}"
    return _megabytes(line), f"{line['less']:.1f}", times


SHOWN = Shown({"saved": saved})
