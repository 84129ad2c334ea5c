"""The table of benchmarks/quality/convex_certified.py; runs of one thread have hardly more wall than processor seconds.

The number of threads is not in the line: a run counts as one of two threads if it took more than 1.4 times as much
processor time as wall time. Of lines equal in case, threads and seed the last counts.
"""

from __future__ import annotations

from pathlib import Path

from .lines import Line, Shown, Table, grouped, last, lines, reach

BARS = {"plane-200": 10, "plane-1000": 20, "stumps-5000": 60}
NAMES = {
    "plane-200": ("plane-200: 200 rows, all half-spaces", "1e-3 n"),
    "plane-1000": ("plane-1000: 1,000 rows, all half-spaces", "1e-2 n"),
    "stumps-5000": ("stumps-5000: 5,000 x 100, half-spaces on one feature", "1e-2 n"),
}


def runs(results: Path, cases: tuple[str, ...]) -> list[Line]:
    """Return the lines of these cases, with their number of threads."""
    found = [
        line | {"threads": 2 if line["cpu_seconds"] > 1.4 * line["seconds"] else 1}
        for line in lines(results, "convex_certified")
        if line["case"] in cases
    ]
    return last(found, "case", "threads", "seed")


def accepted(line: Line) -> bool:
    """Return whether the optimum was proved and the independent check agreed."""
    return bool(line["verdict"] == "PROVED" and line["accepted"])


def optima(results: Path, cases: tuple[str, ...] = tuple(NAMES)) -> Table:
    """Return what each case took, the range over seeds."""
    rows = []
    for (case, threads), group in grouped(runs(results, cases), "case", "threads").items():
        proved = sum(accepted(line) for line in group)
        name, beta = NAMES.get(case, (case, f"{group[0]['beta']:g}"))
        spent = (reach(line[key] for line in group) for key in ("cpu_seconds", "seconds"))
        rest = ", ".join(reach((line[key] for line in group), "{:.2f}") for key in ("certify_seconds", "check_seconds"))
        sizes = (reach((line[key] for line in group), "{}") for key in ("units", "rounds"))
        rows.append(
            (name, beta, str(threads), f"{proved} of {len(group)}", *sizes, *spent, rest, str(BARS.get(case, "")))
        )
    rows.sort(key=lambda row: (list(NAMES.values()).index(row[:2]) if row[:2] in NAMES.values() else -1, row[2]))
    head = ("case", "beta", "threads", "proved and accepted", "units", "rounds", "processor seconds", "wall seconds")
    return Table((*head, "certificate, check: wall seconds", "bar, wall seconds"), tuple(rows))


SHOWN = Shown({"optima": optima})
