"""The table of benchmarks/speed/bit_matrix.py; of lines equal in case, sizes and threads the last counts."""

from __future__ import annotations

from pathlib import Path

from .lines import Line, Shown, Table, last, lines

NAMES = {
    "pull, 1 output": "D'v, one output",
    "pull, 10 outputs": "D'v, ten outputs",
    "push, 1 output": "D u over 500 columns, one output",
    "push, 10 outputs": "D u over 500 columns, ten outputs",
    "gram": "Gram matrix D'D",
}
FORMS = {  # ours, its rival, what it does
    "ours": (("sgemv", "sgemm"), "error below 1e-12 of sum \\|v\\|"),
    "ours, screening": (("sgemv", "sgemm"), "error below 1e-6 (`accuracy=1e-6`)"),
    "ours, half": (("ssyrk",), "exact, the half"),
}


def compared(line: Line) -> list[tuple[str, ...]]:
    """Return a row for each of our forms."""
    spent = line["milliseconds"]
    rows: list[tuple[str, ...]] = []
    for ours, (rivals, what) in FORMS.items():
        for rival in (name for name in rivals if name in spent and ours in spent):
            does = {"gram": "exact", "push": ""}.get(line["case"].split(",")[0], what) if ours == "ours" else what
            size = f"{line['rows']:,} x {line['columns']:,}, {line['threads']}"
            times = f"{spent[rival] / spent[ours]:.2f}"
            rows.append(
                (NAMES[line["case"]], size, does, f"{spent[ours]:,.1f}", f"{rival}: {spent[rival]:,.1f}", times)
            )
    return rows


def products(results: Path) -> Table:
    """Return milliseconds of ours and of BLAS in float32, and how many times faster ours is."""
    found = last(lines(results, "speed_bit_matrix"), "case", "rows", "columns", "threads")
    ordered = sorted(found, key=lambda line: (line["threads"], list(NAMES).index(line["case"]), line["rows"]))
    rows = [row for line in ordered for row in compared(line)]
    head = ("product", "rows x columns, threads", "ours", "ours, ms", "BLAS, float32, ms", "times as fast")
    return Table(head, tuple(rows))


SHOWN = Shown({"products": products})
