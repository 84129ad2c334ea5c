"""Plots of rules, layer losses and penalties, drawn from the functions that the library itself computes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import hardstep as hs

__all__ = ["draw"]

INK, BLUE, ORANGE = "#8a8f98", "#3b82c4", "#d9701e"  # to be read on white and on black
STYLE = {
    "svg.hashsalt": "hardstep",  # the same file in every build
    "font.size": 8,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
X = torch.linspace(-2.5, 2.5, 501)

Panels = dict[str, list[tuple[Tensor, str, str]]]  # by title: values over X, colour, label


def draw(folder: Path) -> dict[str, str]:
    """Draw every public rule, layer loss and penalty that is a curve; return the files' names in this folder."""
    folder.mkdir(exist_ok=True)
    found = {}
    for name in hs.__all__:
        kind = getattr(hs, name)
        if not inspect.isclass(kind) or inspect.isabstract(kind):
            continue
        panels = next((panels for abstract, panels in KINDS.items() if issubclass(kind, abstract)), None)
        drawn = panels(kind) if panels else {}
        if drawn:
            found[name] = f"{name}.svg"
            _save(folder / found[name], drawn)
    return found


def _rule(kind: type[hs.BackwardRule]) -> Panels:
    """Return the pullback of a gradient of 1; for a rule that looks at the sign of the gradient, of -1 too."""
    rule, one = kind(), torch.ones_like(X)
    ahead, back = rule.pullback(X, one), rule.pullback(X, -one)
    lines = [(ahead, ORANGE, "of a gradient of 1")]
    if not torch.allclose(ahead, -back):
        lines.append((back, BLUE, "of -1"))
    return {f"{kind.__name__}: pullback": lines}


def _surrogate(kind: type[hs.Surrogate]) -> Panels:
    rule = kind()
    curve = [(hs.step(X), INK, "step"), (rule.curve(X), BLUE, "curve")]
    return {f"{rule!r}: curve": curve, "derivative": [(rule.derivative(X), ORANGE, "")]}


def _layer_loss(kind: type[hs.LayerLoss]) -> Panels:
    loss = kind()
    return {f"{kind.__name__}: value": [(loss.value(X), BLUE, "")], "slope": [(loss.slope(X), ORANGE, "")]}


def _penalty(kind: type[hs.Penalty]) -> Panels:
    """Return value and prox of a penalty of one weight that has a strength; of groups and counts there is no curve."""
    if "strength" not in {item.name for item in fields(kind)}:
        return {}
    try:
        penalty = replace(kind(), strength=0.5)
    except TypeError:  # it needs more than a strength: groups
        return {}
    value = torch.stack([penalty.value(w[None]) for w in X])
    prox = [(X, INK, "v"), (penalty.prox(X, 1.0), ORANGE, "prox")]
    return {f"{penalty!r}: value": [(value, BLUE, "")], "prox, step 1": prox}


KINDS: dict[type, Callable[[Any], Panels]] = {
    hs.Surrogate: _surrogate,
    hs.LayerLoss: _layer_loss,
    hs.Penalty: _penalty,
    hs.BackwardRule: _rule,
}


def _save(path: Path, panels: Panels) -> None:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.3 * len(panels), 1.9), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (title, lines) in zip(axes, panels.items(), strict=True):
            _panel(axis, title, lines)
        figure.savefig(path, transparent=True, metadata={"Date": None})


def _panel(axis: Axes, title: str, lines: list[tuple[Tensor, str, str]]) -> None:
    for values, colour, label in lines:
        grey = colour == INK
        axis.plot(X, values, color=colour, label=label, linewidth=1 if grey else 1.8, linestyle=":" if grey else "-")
    axis.set_title(title, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.axhline(0, color=INK, linewidth=0.4)
    if any(label for *_, label in lines):
        axis.legend(frameon=False, fontsize=7)
