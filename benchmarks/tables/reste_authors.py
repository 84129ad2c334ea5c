"""The table of benchmarks/quality/reste_authors.py; of equal settings, way and seed the last line counts."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from .lines import Line, NoLinesError, Shown, Table, gain, grouped, last, lines, mean, spread

SETTING = ("data", "rows", "widths", "epochs", "batch_size")


def test(results: Path, data: str = "fashion-mnist") -> Table:
    """Return accuracy of both, paired difference, CPU seconds of an epoch and their ratio, paired by seed."""
    rows = []
    for (_, count, widths, epochs, _), found in grouped(
        last(lines(results, "reste_authors", kind="run", data=data), *SETTING, "way", "seed"), *SETTING
    ).items():
        by_way = grouped(found, "way")
        mine, other = by_way["hardstep"], by_way["authors"]
        beside = {line["seed"]: line["seconds"] for line in other}
        ratios = [line["seconds"] / beside[line["seed"]] for line in mine if line["seed"] in beside]
        seconds = (f"{mean([line['seconds'] for line in way])[0] / epochs:.1f}" for way in (mine, other))
        network = ", ".join(map(str, widths))
        cells = (spread(mine), spread(other), gain(mine, other), str(len(ratios)), *seconds)
        rows.append((f"{count:,} rows, {epochs} epochs, {network}", *cells, "{:.2f} +- {:.2f}".format(*mean(ratios))))
    head = ("", "hardstep, test", "authors, test", "less authors, points", "seeds")
    return Table((*head, "seconds an epoch", "authors'", "ratio of times"), tuple(rows))


def numbers(results: Path) -> dict[str, str]:
    """Return by how much one layer differs at most, as far as that was measured."""
    found: list[Line] = []
    with suppress(NoLinesError):
        found = lines(results, "reste_authors", kind="check")
    errors = [line[key] for line in found for key in ("outputs", "input_gradients", "weight_gradients")]
    return {"differs": f"{max(errors):.1e}"} if errors else {}


SHOWN = Shown({"test": test}, numbers)
