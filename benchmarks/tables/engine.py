"""Tables of benchmarks/speed/engine.py: of the last three runs of one thread the middle one; of two threads the last.

Each for the best instruction set of the machine on which it ran. A run without its number of threads is older than the
kernels measured here and is left out.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .lines import Line, Shown, Table, grouped, last, lines

RUNS = 3
NAME, AVX2, VNNI = "speed_engine", "avx2", "avx512-vnni"


def middle(found: list[Line]) -> Line:
    """Return the line whose ratio is the middle one; one without a peer has none."""
    return sorted(found, key=lambda line: line["ratio"] or 0.0)[len(found) // 2]


def verdict(line: Line) -> str:
    """Return how the ratio stands to what was asked for."""
    if line["ratio"] is None:
        return "no peer"
    return "stretch" if line["ratio"] >= line["stretch"] else "" if line["ratio"] >= line["must"] else "**short**"


def layers(results: Path, isa: str | None = None) -> Table:
    """Return our microseconds, the best peer, and the ratio with its range over the runs."""
    rows = []
    known = lines(results, NAME, threads=1, **({} if isa is None else {"isa": isa}))
    for name, found in grouped(known, "row").items():
        runs = found[-RUNS:]
        line = middle(runs)
        ratios = [run["ratio"] or float("nan") for run in runs]
        best = line["peer"] + (" (not exact here)" if line["peer"] and line["peers_wrong"][line["peer"]] else "")
        ratio = f"{line['ratio'] or float('nan'):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        bars = f"{line['must']:g} / {line['stretch']:g}"
        rows.append((name.replace("^2", "²"), f"{1e6 * line['seconds']:,.1f}", best, ratio, bars, verdict(line)))
    return Table(("row", "ours, µs", "best peer", "ratio", "must / stretch", ""), tuple(rows))


def two_threads(results: Path) -> Table:
    """Return the same rows on two threads, where there are peers of two threads."""
    found = [line for line in last(lines(results, NAME, threads=2), "row") if line["ratio"] is not None]
    rows = [
        (
            line["row"].replace("^2", "²"),
            f"{1e6 * line['seconds']:,.1f}",
            line["peer"].removesuffix(", 2 threads")
            + (" (not exact here)" if line["peers_wrong"][line["peer"]] else ""),
            f"{line['ratio']:.2f}",
            f"{line['must']:g} / {line['stretch']:g}",
            verdict(line),
        )
        for line in found
    ]
    return Table(("row, two threads", "ours, µs", "best peer", "ratio", "must / stretch", ""), tuple(rows))


def numbers(results: Path) -> dict[str, str]:
    """Return how many rows reach what was asked for, by instruction set."""
    known = {}
    for name, isa in (("reached", AVX2), ("reached_vnni", VNNI)):
        found = grouped(lines(results, NAME, threads=1, isa=isa), "row").values()
        rows = [middle(runs[-RUNS:]) for runs in found]
        reached = [line for line in rows if line["ratio"] is not None and line["ratio"] >= line["must"]]
        known[name] = f"{len(reached)} of {len(rows)}"
    return known


TABLES = {"layers": partial(layers, isa=AVX2), "layers_vnni": partial(layers, isa=VNNI), "two_threads": two_threads}
SHOWN = Shown(TABLES, numbers)
