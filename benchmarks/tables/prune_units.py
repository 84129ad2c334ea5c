"""Tables of benchmarks/quality/prune_units.py; of lines equal in data, share, rule and seed the last counts."""

from __future__ import annotations

from pathlib import Path

from .lines import Line, Shown, Table, differences, gain, grouped, last, lines, mean, spread

RULES = ("BackwardElimination", "ColumnsL20", "RowsL20", "ColumnNorm")
BASE, FRESH, WHOLE = "ColumnNorm", "trained at this size", "none"
BEFORE = "validation_before_refit"


def cells(results: Path, data: str) -> dict[tuple[float, str], list[Line]]:
    """Return the lines by share and name of the rule, in order of falling share."""
    found = [line | {"name": line["rule"].split("(")[0]} for line in lines(results, "prune_units", data=data)]
    groups = grouped(last(found, "share", "name", "seed"), "share", "name")
    return dict(sorted(groups.items(), key=lambda item: -item[0][0]))


def share_of(share: float) -> str:
    """Return a share of units."""
    return f"{share:.0%}".replace("%", " %")


def test(results: Path, data: str = "fashion-mnist") -> Table:
    """Return test accuracy after the refit; in brackets the paired difference to norms of columns."""
    found = cells(results, data)
    whole = found[1.0, WHOLE]
    width = " + ".join(map(str, whole[0]["units"]))
    rows = [(f"all, {width}", *[""] * len(RULES), spread(whole))]
    for share in dict.fromkeys(share for share, name in found if name == BASE):
        base = found[share, BASE]
        scores = (
            spread(found[share, rule]) + ("" if rule == BASE else f" ({gain(found[share, rule], base)})")
            for rule in RULES
        )
        units = " + ".join(map(str, base[0]["units"]))
        rows.append((f"{share_of(share)}, {units}", *scores, spread(found[share, FRESH])))
    heads = (f"`{rule}`" + (" (magnitude)" if rule == BASE else "") for rule in RULES)
    return Table(("share of units, by layer", *heads, FRESH), tuple(rows))


def before(results: Path, data: str = "fashion-mnist") -> Table:
    """Return validation accuracy before the refit, as paired differences to norms of columns in points."""
    found = cells(results, data)
    rows = []
    for share in dict.fromkeys(share for share, name in found if name == BASE):
        base = found[share, BASE]
        others = (gain(found[share, rule], base, BEFORE) for rule in RULES if rule != BASE)
        rows.append((share_of(share), *others, spread(base, BEFORE)))
    return Table(("share", *(f"`{rule}`" for rule in RULES)), tuple(rows))


def lost(results: Path, data: str = "fashion-mnist") -> Table:
    """Return what each rule loses to the whole network after the refit, in points: mean +- sd, and at most."""
    found = cells(results, data)
    rows = []
    for share in dict.fromkeys(share for share, name in found if name == BASE):
        losses = [differences(found[1.0, WHOLE], found[share, rule]) for rule in RULES]
        rows.append((share_of(share), *("{:.2f} +- {:.2f}, {:.2f}".format(*mean(each), max(each)) for each in losses)))
    return Table(("share", *(f"`{rule}`" for rule in RULES)), tuple(rows))


SHOWN = Shown({"test": test, "before": before, "lost": lost})
