"""Tables of benchmarks/quality/sparse.py; of lines equal in case, epochs, way, zeros and seed the last counts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from .lines import NOT_RUN, Line, Picture, Shown, Table, differences, gain, grouped, last, lines, mean, spread

DENSE = "dense"
WAYS = {
    "one-shot magnitude": "one-shot magnitude",
    "iterative magnitude": "iterative magnitude",
    "iterative magnitude, rewound": "iterative magnitude, rewound",
    "one-shot magnitude by layer": "one-shot magnitude by layer",
    "iterative magnitude by layer": "iterative magnitude by layer",
    "iterative magnitude by layer, rewound": "iterative magnitude by layer, rewound",
    "A, cardinality": "`Splitting`, A (published): gradient at w, pull .05; `Cardinality`",
    "B, cardinality": "B: gradient at u, pull .01; `Cardinality`",
    "C, cardinality": "**C: gradient at u, no pull (default); `Cardinality`**",
    "C, l0": "C, `L0.at(c)`",
    "C, l1": "C, `L1.at(c)`",
    "C, transformed l1": "C, `TransformedL1.at(c)`",
}
RIVALS = ("iterative magnitude by layer", "one-shot magnitude by layer", "iterative magnitude", "one-shot magnitude")
CURVES = {
    "C, cardinality": ("C, cardinality (default)", "#d95f02", "-"),
    "A, cardinality": ("A, cardinality (published form)", "#fdae6b", "-"),
    "C, l1": ("C, l1", "#9ecae1", "-"),
    "iterative magnitude": ("iterative magnitude", "black", ":"),
    "iterative magnitude by layer": ("iterative magnitude by layer", "black", "--"),
}
EPOCHS = {"digits": 30, "small": 18, "convnet": 8, "wide": 10}

Cells = dict[tuple[float, str], list[Line]]


def cells(results: Path, case: str, epochs: int | None = None) -> Cells:
    """Return the lines of a case by share of zeros and way; epochs are those of the case if not given."""
    epochs = epochs or EPOCHS[case]
    found = last(lines(results, "sparse", case=case, epochs=epochs), "way", "sparsity", "seed")
    plain = [line | {"way": line["way"].removesuffix(f", {epochs} epochs")} for line in found]
    return dict(sorted(grouped(plain, "sparsity", "way").items()))


def cell(found: Cells, sparsity: float, way: str, part: str) -> str:
    """Return accuracy, the paired difference to dense, and the share of zeros where `Cardinality` has another one."""
    mine, dense = found.get((sparsity, way)), found[0.0, DENSE]
    if not mine:
        return NOT_RUN
    zeros, exact = (
        mean([line["zeros"] for line in each])[0] for each in (mine, found.get((sparsity, "C, cardinality"), mine))
    )
    text = f"{spread(mine, part)}, {mean(differences(mine, dense, part))[0]:+.2f}"
    text += f" ({zeros:.1%})".replace("%", " %") if abs(zeros - exact) > 1e-3 else ""
    return text + (f", {len(mine)} of {len(dense)} seeds" if len(mine) < len(dense) else "")


def accuracy(results: Path, case: str, epochs: int | None = None, part: str = "test") -> Table:
    """Return all ways at all shares of zeros; the first row is the dense network."""
    found = cells(results, case, epochs)
    shares = sorted({sparsity for sparsity, _ in found} - {0.0})
    ways = [way for way in WAYS if any((share, way) in found for share in shares)]
    rows = [(f"dense: {spread(found[0.0, DENSE], part)}", *[""] * len(shares))]
    rows += [(WAYS[way], *(cell(found, share, way, part) for share in shares)) for way in ways]
    return Table(("", *(f"{share:.0%} zeros".replace("%", " %") for share in shares)), tuple(rows))


def paired(results: Path, case: str, epochs: int | None = None, part: str = "test") -> Table:
    """Return the default less dense and less each magnitude pruning, paired by seed."""
    found = cells(results, case, epochs)
    shares = sorted({sparsity for sparsity, way in found if way == "C, cardinality"})
    rows = [(DENSE, *(gain(found[s, "C, cardinality"], found[0.0, DENSE], part) for s in shares))]
    rows += [
        (
            way,
            *(gain(found[s, "C, cardinality"], found[s, way], part) if (s, way) in found else NOT_RUN for s in shares),
        )
        for way in RIVALS
        if any((share, way) in found for share in shares)
    ]
    return Table(("C with `Cardinality` less", *(f"{s:.0%} zeros".replace("%", " %") for s in shares)), tuple(rows))


def numbers(results: Path) -> dict[str, str]:
    """Return the paired differences that are quoted."""
    wide = cells(results, "wide")
    iterative = differences(wide[0.95, "C, cardinality"], wide[0.95, "iterative magnitude by layer"])
    return {
        "wide_95_lost": gain(wide[0.95, "C, cardinality"], wide[0.0, DENSE]),
        "wide_95_seeds": ", ".join(f"{each:+.2f}" for each in iterative),
    }


def drawn(results: Path) -> Any:
    """Return accuracy against the share of zeros, for the two small networks."""
    panels = {}
    for case, title in (("small", "784-256-256-10"), ("convnet", "convnet4, 8 and 16 channels")):
        found = cells(results, case)
        curves = {
            way: [
                [mean([line["zeros"] for line in group])[0], *mean([line["test"] for line in group])]
                for (share, other), group in found.items()
                if other == way
            ]
            for way in CURVES
        }
        panels[title] = {"dense": mean([line["test"] for line in found[0.0, DENSE]])[0], "curves": curves}
    return panels


def draw(panels: Any) -> Any:
    """Draw accuracy with its spread against the share of weights that are left."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, PercentFormatter

    figure = Figure(figsize=(10.5, 3.8), layout="constrained")
    for axis, (title, panel) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        axis.axhline(panel["dense"], color="grey", linewidth=0.8, linestyle=":", label="dense")
        for way, points in panel["curves"].items():
            label, colour, style = CURVES[way]
            zeros, middle, deviation = zip(*points, strict=True)
            left = [1 - share for share in zeros]
            axis.errorbar(left, middle, deviation, color=colour, linestyle=style, marker=".", capsize=2, label=label)
        axis.set(xscale="log", xlabel="share of weights that are left", title=f"Fashion-MNIST, {title}")
        axis.set_xticks([0.2, 0.1, 0.05, 0.02])
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.invert_xaxis()
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("test accuracy, mean +- sd of three seeds")
    figure.axes[0].legend(frameon=False, fontsize=8, loc="lower left")
    return figure


SHOWN = Shown(
    {case: partial(accuracy, case=case) for case in ("wide", "small", "convnet")}
    | {f"{case}_paired": partial(paired, case=case) for case in ("wide", "small", "convnet")}
    | {"convnet_16": partial(accuracy, case="convnet", epochs=16)}
    | {"convnet_16_paired": partial(paired, case="convnet", epochs=16)},
    numbers,
    {"sparse_fashion": Picture(drawn, draw)},
)
