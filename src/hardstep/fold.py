"""Fold: units of a frozen network that never change, by proof or on a probe, become constants and disappear."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardstep.hard_layers import Conv, Dense
from hardstep.hardnet import HardNet
from hardstep.simplify import extremes, simplify

__all__ = ["Folded", "fold_constants"]

ROWS = 500  # of the probe, that go through the network together
BEYOND = 2**31 - 1  # no sum is above it, every sum is above -BEYOND - 1: they fit the engine's int32


class Folded(NamedTuple):
    """A unit (of a convolution: a channel) of `net.layers[layer]` that gives the same code always, or on the probe."""

    layer: int
    unit: int
    code: int


def fold_constants(net: HardNet, probe: NDArray[Any] | None = None) -> tuple[HardNet, list[Folded]]:
    """Return the network without the units that are constant, and which they are.

    Three levels, each implying the next: a unit without weights is constant; one whose sum cannot cross a threshold
    is certified constant; one that gives a single code on all rows of a probe, and at all its places, is constant
    there. Its thresholds move beyond every sum, and `simplify` does the rest: the constant goes into the thresholds
    or the bias above, what it alone has read goes too. A constant before a convolution with padding stays a unit,
    unless it is worth 0.

    Without a probe every score of every input is the same integer as before, as `simplify` promises. With one that
    holds for the rows of the probe alone: other inputs may get other scores, so test the accuracy on other data.
    Doing it twice changes nothing more.

    Parameters
    ----------
    net
        The frozen network.
    probe
        Samples as codes (uint8) or as numbers, such as training rows; None for what the bounds certify.

    Returns
    -------
    The smaller network, and all its constant units by their indices in `net`. What freezing changed (`rounding`) is no
    longer known if there was a probe.

    Raises
    ------
    ValueError
        If the probe has no rows, or rows of another shape.

    References
    ----------
    Liu et al. 2023 [liu2023] count the units that a ReLU keeps at 0 on data. Differs: a step that always fires is as
    dead as one that never does, and both are taken out.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hard = hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=data.train)
    >>> zeros = data.train.x.numpy()[data.train.y == 0]
    >>> small, folded = fold_constants(hard, zeros)
    >>> len(small.layers[1].weight) + len(folded), bool((small(zeros) == hard(zeros)).all())
    (32, True)
    """
    net.check_codes("fold_constants")
    layers, folded = list(net.layers), []
    for i, (low, high) in enumerate(extremes(net) if probe is None else _seen(net, probe)):
        layer = layers[i]
        if isinstance(layer, Dense | Conv) and layer.threshold is not None:
            threshold = layer.threshold.copy()
            units, stairs = threshold.shape
            least, most = low.reshape(units, -1).min(axis=1), high.reshape(units, -1).max(axis=1)
            for unit in np.flatnonzero(least == most).tolist():
                code = int(least[unit])
                threshold[unit] = np.repeat([-BEYOND - 1, BEYOND], [code, stairs - code])
                folded.append(Folded(i, unit, code))
            layers[i] = replace(layer, threshold=threshold)
    small = simplify(replace(net, layers=tuple(layers)))
    return small if probe is None else replace(small, rounding=None), folded


def _seen(net: HardNet, probe: NDArray[Any]) -> list[NDArray[np.uint8]]:
    """Return the least and the largest code that each unit gives in each place, on a probe."""
    x = net.codes(probe)
    if not len(x):
        raise ValueError("the probe has no rows; give it samples, or leave it out to fold what is proved")
    ends: list[NDArray[np.uint8]] = []
    for chunk in np.array_split(x, -(-len(x) // ROWS)):
        *outputs, _ = net.trace(chunk)
        now = [np.stack([codes.min(axis=0), codes.max(axis=0)]) for codes in outputs]
        pairs = zip(ends or now, now, strict=True)
        ends = [np.stack([np.minimum(low, new_low), np.maximum(high, new)]) for (low, high), (new_low, new) in pairs]
    return ends
