"""Tables and picture of benchmarks/quality/activate_pruning.py; of lines equal in settings and seed the last counts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from .lines import Line, Picture, Shown, Table, bare, differences, gain, grouped, last, lines, mean, spread

DATA = "fashion-mnist"
NAMES = {"relu": "ReLU", "step": "step"}
PRUNERS = ("base", "negative", "two-sided")
COLOURS = {"base": "black", "negative": "tab:orange", "two-sided": "tab:blue"}

Cells = dict[tuple[str, str, float], list[Line]]


def recorded(results: Path, data: str = DATA, *, norm: bool = True, share: float = 0.1, layer_wise: bool) -> Cells:
    """Return the lines of these settings, by kind, pruner and sparsity; dense networks belong to both scopes."""
    found = [
        line
        for line in lines(results, "activate_pruning", data=data, norm=norm, share=share)
        if not line["sparsity"] or layer_wise == ("scope=LayerWise()" in line["method"])
    ]
    return grouped(last(found, "kind", "pruner", "sparsity", "seed"), "kind", "pruner", "sparsity")


def table(cells: Cells, part: str = "test") -> Table:
    """Return accuracy of the base pruner, the paired gains, and the dead units."""
    rows = []
    for kind, name in NAMES.items():
        sparsities = sorted({sparsity for other, _, sparsity in cells if other == kind and sparsity})
        for i, sparsity in enumerate(sparsities):
            base, *others = (cells[kind, pruner, sparsity] for pruner in PRUNERS)
            dense = cells[kind, "base", 0.0]
            named = f"{name} (dense, {dense[-1]['epochs']} epochs: {bare(mean([x[part] for x in dense])[0])})"
            dead = ", ".join(
                f"{100 * mean([line['dead'] for line in each])[0]:.1f}".removesuffix(".0") for each in (base, *others)
            )
            gains = (gain(other, base, part) for other in others)
            zeros = f"{sparsity:.0%}".replace("%", " %")
            rows.append(("" if i else named, zeros, spread(base, part), *gains, f"{dead} %"))
    head = ("", "zeros", "base pruner", "as published (negative), points", "two-sided, points")
    return Table((*head, "dead: base, negative, two-sided"), tuple(rows))


def shown(results: Path, *, layer_wise: bool) -> Table:
    """Return the table of a scope."""
    return table(recorded(results, layer_wise=layer_wise))


def drawn(results: Path) -> Any:
    """Return gains and rates of silent and dead units by kind and pruner, against the sparsity."""
    cells = recorded(results, layer_wise=False)
    panels: dict[str, Any] = {}
    for kind in sorted({kind for kind, _, _ in cells}):
        sparsities = sorted({sparsity for other, _, sparsity in cells if other == kind and sparsity})
        panels[kind] = {"zeros": [f"{sparsity:.0%}" for sparsity in sparsities]}
        for pruner in PRUNERS:
            found = [(cells[kind, pruner, s], cells[kind, "base", s]) for s in sparsities]
            panels[kind][pruner] = {
                "gain": [list(mean(differences(mine, base))) for mine, base in found],
                **{
                    rate: [mean([line[rate] for line in mine])[0] for mine, _ in found]
                    for rate in ("total", "dynamic", "dead")
                },
            }
    return panels


def draw(panels: Any) -> Any:
    """Draw the gain over the base pruner, and the rates of silent and of dead units, against the sparsity."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(10.5, 2.9 * len(panels)), layout="constrained")
    for row, (kind, panel) in zip(figure.subplots(len(panels), 3, squeeze=False), panels.items(), strict=True):
        places = range(len(panel["zeros"]))
        for pruner, colour in COLOURS.items():
            middle, deviation = zip(*panel[pruner]["gain"], strict=True)
            row[0].errorbar(places, middle, yerr=deviation, color=colour, label=pruner, marker=".", capsize=2)
            row[1].plot(places, panel[pruner]["total"], color=colour, marker=".")
            row[1].plot(places, panel[pruner]["dynamic"], color=colour, linestyle=":", marker=".")
            row[2].plot(places, panel[pruner]["dead"], color=colour, marker=".")
        titles = ("gain in test accuracy, points", "silent units, total and dynamic (dotted)", "dead hidden units")
        for axis, title in zip(row, titles, strict=True):
            axis.set_title(f"{NAMES[kind]}: {title}", fontsize=10)
        row[1].set(ylim=(0.3, 0.6))
        row[2].set(ylim=(-0.005, 0.15), yticks=(0, 0.05, 0.1, 0.15))
        for axis in row[1:]:
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        for axis in row:
            axis.set_xlabel("zeros")
            axis.set_xticks(places, panel["zeros"])
            axis.spines[["top", "right"]].set_visible(False)
        row[0].legend(fontsize=8, frameon=False)
    return figure


def numbers(results: Path) -> dict[str, str]:
    """Return the gains at 98 % zeros on a global rank."""
    cells = recorded(results, layer_wise=False)
    return {f"{kind}_98": gain(cells[kind, "negative", 0.98], cells[kind, "base", 0.98]) for kind in NAMES}


SHOWN = Shown(
    {"ranked": partial(shown, layer_wise=False), "by_layer": partial(shown, layer_wise=True)},
    numbers,
    {"activate_pruning": Picture(drawn, draw)},
)
