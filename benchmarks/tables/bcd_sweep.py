"""The table of benchmarks/speed/bcd_sweep.py: its last line of each number of rows and threads."""

from __future__ import annotations

from pathlib import Path

from .lines import Shown, Table, last, lines


def cost(results: Path) -> Table:
    """Return what a sweep costs beside its products, and its memory."""
    rows = [
        (
            f"{line['rows']:,}, {line['threads']}",
            f"{line['ratio']:.2f} ({line['ratio_min']:.2f} to {line['ratio_max']:.2f})",
            f"{line['ratio_with_solves']:.2f}",
            f"{line['seconds']:.1f}",
            f"{line['memory_mib']:.0f} MiB",
            f"{line['memory_ratio']:.2f}",
        )
        for line in last(lines(results, "speed_bcd_sweep"), "rows", "threads")
    ]
    head = ("rows, threads", "over products (range)", "over products and solves", "seconds", "memory at the peak")
    return Table((*head, "over all activations in float32"), tuple(rows))


def numbers(results: Path) -> dict[str, str]:
    """Return the ratio of the run before the last one."""
    found = lines(results, "speed_bcd_sweep", rows=60_000, threads=1)
    return {"before": f"{found[-2]['ratio']:.2f}"} if len(found) > 1 else {}


SHOWN = Shown({"cost": cost}, numbers)
