"""A small frozen network as text: every unit a half-space in the units of the input, every output a weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardstep.hard_layers import Pool
from hardstep.hardnet import HardNet
from hardstep.lowered import Sums, lower
from hardstep.simplify import simplify

__all__ = ["Rule", "Total", "half_spaces"]

MOST = 100  # hidden units that a person may want to read

Terms = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Rule:
    """A hidden unit: how many of its thresholds lie below a weighted sum (one threshold: a half-space, 0 or 1).

    Parameters
    ----------
    name
        Name of the unit, such as "h2" or, of the second layer, "h2.7".
    terms
        Name and weight of what it reads.
    thresholds
        Ascending.

    Examples
    --------
    >>> print(Rule("h1", (("petal length", 1.0), ("sepal width", -0.5)), (2.45,)))
    h1 = [petal length - 0.5 sepal width > 2.45]
    """

    name: str
    terms: Terms
    thresholds: tuple[float, ...]

    def __call__(self, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return what the unit says of each sample, given what it reads by name."""
        total = _total(self.terms, values)
        count: NDArray[np.int64] = (total[:, None] > np.array(self.thresholds)).sum(axis=1)
        return count

    def __str__(self) -> str:
        if len(self.terms) == 1:
            (name, weight), sign = self.terms[0], ">" if self.terms[0][1] > 0 else "<"
            parts = [f"[{name} {sign} {threshold / weight:.4g}]" for threshold in self.thresholds]
        else:
            parts = [f"[{_text(self.terms)} > {threshold:.4g}]" for threshold in self.thresholds]
        return f"{self.name} = {' + '.join(parts)}"


@dataclass(frozen=True)
class Total:
    """An output: a constant and a weighted sum of what the last hidden units say.

    Examples
    --------
    >>> print(Total("score of cat", (("h1", 1.5), ("h2", -1.0)), 0.25))
    score of cat = 1.5 h1 - h2 + 0.25
    """

    name: str
    terms: Terms
    constant: float

    def __call__(self, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the output of each sample, given what the last hidden units say by name."""
        return self.constant + _total(self.terms, values)

    def __str__(self) -> str:
        last = f"{'-' if self.constant < 0 else '+'} {abs(self.constant):.4g}"
        return f"{self.name} = {_text(self.terms)} {last}"


def half_spaces(
    hard: HardNet,
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    scale: NDArray[np.float64] | None = None,
    shift: NDArray[np.float64] | None = None,
) -> tuple[Rule | Total, ...]:
    """Return the units of a small frozen network layer by layer, then its outputs.

    The network is simplified first, which changes no score: dead, constant and repeated units are gone. A unit of the
    first layer fires iff sum_j w_j q_j > t with q_j = x_j / s_j + z_j the code of x_j before it is rounded, so the text
    is sum_j (w_j / s_j) x_j > t + 1/2 - sum_j w_j z_j, divided by its largest weight. For inputs on the grid it holds
    exactly, as it does for any input where one column is read; else it is off by half a code in each column at most.

    Parameters
    ----------
    inputs, outputs
        Their names.
    scale, shift
        Value of an output, shift + scale * score, by output; by default that of the network.

    Raises
    ------
    ValueError
        If the network has convolutions or more than 100 hidden units.
    """
    layers = lower(simplify(hard))
    wide = sum(len(layer.weight) for layer in layers[:-1] if isinstance(layer, Sums))
    if wide > MOST or any(isinstance(layer, Pool) or layer.weight.shape[2:] != (1, 1) for layer in layers):
        raise ValueError(
            f"a network of {wide} hidden units cannot be read as rules; allowed are {MOST} in fully connected layers: "
            "train a smaller one, such as hidden=(8,)"
        )
    maps = [layer for layer in layers if isinstance(layer, Sums)]
    rules: list[Rule | Total] = []
    names = list(inputs)
    for i, layer in enumerate(maps[:-1]):
        weight = layer.weight[:, :, 0, 0].astype(np.float64)
        assert layer.threshold is not None
        levels = layer.threshold[:, :, 0, 0] + 0.5
        if i == 0:
            levels = levels - (weight @ _wide(hard.grid.zero, weight))[:, None]
            weight = weight / _wide(hard.grid.scale, weight)
            largest = np.abs(weight).max(axis=1, keepdims=True)
            largest[largest == 0] = 1.0
            weight, levels = weight / largest, levels / largest
        units = [f"h{j + 1}" if len(maps) == 2 else f"h{i + 1}.{j + 1}" for j in range(len(weight))]
        for unit, row, level in zip(units, weight, levels, strict=True):
            rules.append(Rule(unit, _terms(names, row), tuple(level.tolist())))
        names = units
    readout = maps[-1]
    size = np.full(len(outputs), hard.scale) if scale is None else scale
    rows = size[:, None] * readout.weight[:, :, 0, 0]
    constants = size * readout.bias + (0.0 if shift is None else shift)
    for output, row, constant in zip(outputs, rows, constants, strict=True):
        rules.append(Total(output, _terms(names, row), float(constant)))
    return tuple(rules)


def _wide(a: NDArray[Any], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one number a column."""
    return np.broadcast_to(a.reshape(-1), weight.shape[1:]).astype(np.float64)


def _terms(names: Sequence[str], row: NDArray[np.float64]) -> Terms:
    return tuple((name, float(weight)) for name, weight in zip(names, row, strict=True) if weight)


def _total(terms: Terms, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the weighted sum."""
    rows = len(next(iter(values.values())))
    return sum((weight * values[name] for name, weight in terms), np.zeros(rows))


def _text(terms: Terms) -> str:
    """Return a weighted sum as text."""
    text = ""
    for name, weight in terms:
        size = "" if abs(weight) == 1 else f"{abs(weight):.4g} "
        text += f" {'-' if weight < 0 else '+'} {size}{name}"
    return f"-{text[3:]}" if text.startswith(" - ") else text[3:] or "0"
