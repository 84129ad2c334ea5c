"""The table of benchmarks/quality/sparse_units.py; of lines equal in data, way and seed the last counts."""

from __future__ import annotations

from pathlib import Path

from .lines import Line, Shown, Table, gain, grouped, last, lines, reach, spread

WAYS = {
    "dense": "dense",
    "splitting": "`Splitting`, `Grouped(Cardinality(0.5), Columns())`",
    "prune_units": "`prune_units(keep=0.5)` after two thirds of the epochs, trained on",
}
TEST_ROWS = {"digits": 360, "fashion-mnist": 10_000}


def by_way(results: Path, data: str) -> dict[str, list[Line]]:
    """Return the lines by way."""
    return grouped(last(lines(results, "sparse_units", data=data), "way", "seed"), "way")


def units(results: Path, data: str = "fashion-mnist") -> Table:
    """Return accuracy and size with half of the units gone; the range where a size differs by seed."""
    ways, rows = by_way(results, data), []
    for way, found in ways.items():
        hidden = list(zip(*(line["units"][:-1] for line in found), strict=True))
        widths = [reach(width, "{:,}") for width in hidden]
        named = f"{widths[0]} x {len(widths)}" if len(set(widths)) == 1 else ", ".join(widths)
        sizes = (reach((line[key][1] for line in found), "{:,}") for key in ("nbytes", "macs"))
        differ = f"{max(line['scores_differing'] for line in found)} of {TEST_ROWS[data]:,}"
        test = spread(found) + (f", {gain(found, ways['dense'])}" if way != "dense" else "")
        rows.append((WAYS[way], named, test, *sizes, differ))
    head = ("", "units", "test, paired difference to dense", "bytes frozen", "MACs")
    return Table((*head, "scores that differ after `simplify`, at most"), tuple(rows))


def numbers(results: Path) -> dict[str, str]:
    """Return bytes and MACs of splitting before `simplify`."""
    found = lines(results, "sparse_units", data="fashion-mnist", way="splitting")
    (nbytes,) = {line["nbytes"][0] for line in found}
    (macs,) = {line["macs"][0] for line in found}
    return {"bytes_before": f"{nbytes:,}", "macs_before": f"{macs:,}"}


SHOWN = Shown({"units": units}, numbers)
