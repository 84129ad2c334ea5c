"""The table of benchmarks/speed/oracles.py; of lines equal in oracle and sizes the last counts."""

from __future__ import annotations

from pathlib import Path

from .lines import Shown, Table, last, lines

NAMES = {
    "PlaneSweep": "all half-spaces of the plane",
    "Stumps": "half-spaces on one feature",
    "Pairs": "half-spaces on two features",
    "Enumeration": "all half-spaces, by enumeration",
}


def seconds(results: Path) -> Table:
    """Return processor seconds to prepare, to search and to check, for one output and for ten."""
    rows = []
    for line in last(lines(results, "speed_oracles"), "oracle", "rows", "features"):
        spent = line["seconds"]
        cells = [
            " / ".join(
                f"{spent[f'{what}, {k} outputs']:.3g}" if f"{what}, {k} outputs" in spent else "not checked"
                for k in (1, 10)
            )
            for what in ("find", "check")
        ]
        name = line["oracle"].split("(")[0]
        size = f"{line['rows']:,} x {line['features']}"
        rows.append(
            (
                f"`{name}`: {NAMES[name]}",
                size,
                f"{spent['prepare']:.3g}",
                cells[0],
                cells[1].replace("not checked / not checked", "not checked"),
            )
        )
    head = (
        "oracle",
        "rows x features",
        "tables, once",
        "search, one output / ten",
        "check of the bound, one output / ten",
    )
    return Table(head, tuple(rows))


SHOWN = Shown({"seconds": seconds})
