"""Tables and picture of benchmarks/speed/networks.py; of lines equal in network and weights the last counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .lines import Line, Picture, Shown, Table, last, lines

OURS = "hardstep"
PEERS = {
    "to_onnx": "/ to_onnx",
    "onnxruntime integer": "/ ORT integer",
    "onnxruntime saturated": "/ ORT 8-bit fused",
    "onnxruntime float": "/ ORT float",
    "torch float": "/ torch float",
}
COLOURS = ("#d95f02", "#fdae6b", "#08519c", "#4292c6", "#9ecae1", "#bdbdbd")
WIDE = "784-4096-4096-10"


def networks(results: Path, data: str = "fashion-mnist") -> dict[str, Line]:
    """Return the lines by name of network and weights, for networks of this data and drawn ones."""
    fitting = [line for line in lines(results, "speed_networks") if line.get("data", data) == data]
    found = last(fitting, "net", "weights")
    return {f"{line['net']}, {line['weights']}" + " (`--wide`)" * (line["net"] == WIDE): line for line in found}


def speeds(results: Path, data: str = "fashion-mnist") -> Table:
    """Return images a second and by how much the peers are slower."""
    rows = [
        (
            name,
            setting,
            f"{each[OURS]:,.0f}",
            *(f"{each[OURS] / each[peer]:.2f}" if peer in each else "" for peer in PEERS),
        )
        for name, line in networks(results, data).items()
        for setting, each in line["speeds"].items()
    ]
    return Table(("network", "batch", "images/s", *PEERS.values()), tuple(rows))


def sizes(results: Path) -> Table:
    """Return bytes on disk."""
    rows = [
        (
            name,
            *(f"{line['nbytes'][form]:,}" if form in line["nbytes"] else "" for form in ("hardnet", "onnx", "float32")),
        )
        for name, line in networks(results).items()
        if "nbytes" in line
    ]
    return Table(("bytes on disk", "HardNet", "ONNX", "float32"), tuple(rows))


def drawn(results: Path) -> Any:
    """Return images a second on one thread by batch, form and network."""
    found = {name.replace(" (`--wide`)", ""): line["speeds"] for name, line in networks(results).items()}
    return {
        batch: {
            form: {name: each[f"{batch}, 1 threads"].get(form) for name, each in found.items()}
            for form in (OURS, *PEERS)
        }
        for batch in ("1", "256")
    }


def draw(panels: Any) -> Any:
    """Draw images a second at one thread, a panel a batch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    for axis, (batch, forms) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        for i, (form, speed) in enumerate(forms.items()):
            places = [place + 0.14 * (i - 2.5) for place, value in enumerate(speed.values()) if value is not None]
            values = [value for value in speed.values() if value is not None]
            axis.bar(places, values, 0.14, label=form, color=COLOURS[i])
        names = list(forms[OURS])
        axis.set(title=f"batch {batch}, one thread", yscale="log")
        axis.set_xticks(range(len(names)), [name.replace(", ", "\n") for name in names], fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("images a second")
    figure.axes[-1].legend(fontsize=7, frameon=False, ncols=2, loc="upper right")
    return figure


def numbers(results: Path) -> dict[str, str]:
    """Return images a second of the default networks at batch 1, one thread."""
    return {
        name.replace(", ", "_").replace("-", ""): f"{line['speeds']['1, 1 threads'][OURS]:,.0f}"
        for name, line in networks(results).items()
        if line["net"] != WIDE
    }


SHOWN = Shown({"speeds": speeds, "sizes": sizes}, numbers, {"engine": Picture(drawn, draw)})
