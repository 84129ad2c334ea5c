"""The table of benchmarks/quality/target_prop_exact.py; of lines equal in case, widths and seed the last counts."""

from __future__ import annotations

import statistics
from pathlib import Path

from .lines import Line, Shown, Table, grouped, last, lines

NAMES = {
    "xor": "XOR",
    "parity": "parity of four bits",
    "spirals": "two spirals",
    "planted-two": "planted, one hidden layer of 6",
    "planted-three": "planted, hidden layers of 6 and 4",
}


def by_widths(results: Path, cases: tuple[str, ...]) -> dict[tuple[str, tuple[int, ...]], list[Line]]:
    """Return the lines by case and widths."""
    found = [line for line in lines(results, "target_prop_exact") if line["case"] in cases]
    return grouped(last(found, "case", "hidden", "seed"), "case", "hidden")


def right(line: Line) -> bool:
    """Return whether the network was proved and its certificate checked."""
    return bool(line["certificate"] == "PROVED" and line["checked"])


def widest(results: Path) -> list[Line]:
    """Return the lines of the widest network of each case."""
    groups = by_widths(results, tuple(NAMES))
    tops = {case: max(hidden for other, hidden in groups if other == case) for case, _ in groups}
    return [line for (case, hidden), group in groups.items() if hidden == tops[case] for line in group]


def proved(results: Path, cases: tuple[str, ...] = tuple(NAMES)) -> Table:
    """Return how many were proved and checked, and what that took, by case and widths; the widest last."""
    groups, rows = by_widths(results, cases), []
    for (case, hidden), group in sorted(groups.items(), key=lambda item: (cases.index(item[0][0]), item[0][1])):
        seconds = [line["seconds"] for line in group]
        numbers = (
            f"{sum(map(right, group))} of {len(group)}",
            f"{statistics.median(line['proposals'] for line in group):.0f}",
        )
        spent = f"{statistics.median(seconds):.1f} / {max(seconds):.1f}"
        rows.append(
            (NAMES.get(case, case), ", ".join(map(str, hidden)), str(group[0]["bounds"]["rows"]), *numbers, spent)
        )
    head = ("case", "hidden units", "rows", "proved and checked", "proposals, median")
    return Table((*head, "seconds, median / most"), tuple(rows))


SHOWN = Shown({"proved": proved})
