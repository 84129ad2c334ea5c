"""The table of benchmarks/speed/epoch.py; of lines equal in network and rule the last counts."""

from __future__ import annotations

from pathlib import Path

from .lines import NOT_RUN, Shown, Table, bare, grouped, last, lines

RULES = {"Clipped": "`Clipped(0.5)` (default)", "Sech2": "`Sech2()`", "ReSTE": "`ReSTE()`"}


def ratios(results: Path) -> Table:
    """Return the median ratio with its range, by network and rule."""
    rows = []
    for net, found in grouped(last(lines(results, "speed_epoch"), "net", "rule"), "net").items():
        by_rule = {
            line["rule"].split("(")[0]: f"{bare(line['ratio'], 2)} "
            f"({bare(line['ratio_min'], 2)} to {bare(line['ratio_max'], 2)})"
            for line in found
        }
        rows.append((net.removeprefix("mlp "), *(by_rule.get(rule, NOT_RUN) for rule in RULES)))
    return Table(("network", *RULES.values()), tuple(rows))


SHOWN = Shown({"ratios": ratios})
