"""Layers in fixed point from real numbers: gains become multipliers and shifts, constants whole numbers, all checked.

A draft makes a layer for any number of bits behind the point, so that the finest that fits can be found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray
from torch import nn

from hardstep.folding import LIMIT, Affine, whole_rows
from hardstep.hard_layers import Conv, Dense, Encoding, Flatten, Layer
from hardstep.hard_sums import Bent, Carried, Clip, Ends, Rescaled, Residual, Threshold, Windows
from hardstep.step import Sign, Staircase, Step

__all__ = [
    "BeyondError",
    "Draft",
    "Linear",
    "bent",
    "clip",
    "codes",
    "kept",
    "linear",
    "made",
    "residual",
    "threshold",
]

EXACT = 2**53  # below it NumPy's products are exact

Draft = Callable[[int, Ends], tuple[Layer, Ends]]
"""Makes a layer of the bits behind the point and the ends of what it reads, and returns the ends of what it gives."""


class BeyondError(ValueError):
    """A number could leave its bits; the layer is named."""


class _ReachError(ArithmeticError):
    """A number could leave its bits: how far it reaches, and the limit."""


def made(drafts: Iterable[tuple[str, Draft]], bits: int, ends: Ends) -> tuple[tuple[Layer, ...], Ends]:
    """Make layers of named drafts, one behind the other, and return the ends of the last.

    Raises
    ------
    BeyondError
        If a number could leave 32 bits, or a total or sum of products the 53 in which NumPy is exact.
    """
    layers: list[Layer] = []
    for name, draft in drafts:
        try:
            layer, ends = draft(bits, ends)
            total = isinstance(layer, Flatten) or (isinstance(layer, Windows) and layer.total)
            _check(max(-float(ends[0].min()), float(ends[1].max())), EXACT if total else LIMIT)
        except _ReachError as error:
            raise BeyondError(
                f"layer {name!r} cannot be frozen: a sum could reach {error.args[0]}, beyond {error.args[1]}, with "
                f"{bits} bits behind the point; train it with normalisation or smaller weights, or clip its sums"
            ) from None
        layers.append(layer)
    return tuple(layers), ends


def codes(channels: int, top: int) -> Ends:
    """Return the ends of codes up to `top`."""
    return np.zeros(channels, np.int64), np.full(channels, top, np.int64)


def kept(layer: Layer, places: int = 1) -> Draft:
    """Draft a layer that is the same for any number of bits; `places` is how many a channel has that it flattens."""

    def draft(bits: int, ends: Ends) -> tuple[Layer, Ends]:
        if isinstance(layer, Windows | Carried):
            return layer, layer.ends(*ends)
        if isinstance(layer, Flatten):
            return layer, (np.repeat(ends[0], places), np.repeat(ends[1], places))
        if isinstance(layer, Conv | Dense) and layer.threshold is not None:
            return layer, codes(*layer.threshold.shape)
        return layer, ends

    return draft


def threshold(module: Step | Sign | Staircase, knee: NDArray[np.float64]) -> Draft:
    """Draft the activation of sums minus `knee` (c,): x - knee > level <=> S > floor((level + knee) 2^f), exactly."""
    levels = np.array(module.thresholds if isinstance(module, Staircase) else (0.0,))

    def draft(bits: int, ends: Ends) -> tuple[Layer, Ends]:
        bound = np.floor((levels + knee[:, None]) * 2.0**bits)
        layer = Threshold(np.clip(bound, ends[0][:, None] - 1, ends[1][:, None]).astype(np.int64))
        return layer, layer.ends(*ends)

    return draft


@dataclass(frozen=True, eq=False)
class Linear:
    """The draft of a linear layer: its plain sums, and what they are worth.

    Parameters
    ----------
    plain
        The layer, its sums not rescaled.
    gain, shift
        What comes out is gain acc + shift, (k,).
    rectified
        Gain behind a ReLU, of which the sign counts, and what 0 became there.
    of_sums
        Whether it reads sums in fixed point, not codes.
    coarser
        How many bits behind the point fewer it gives than it reads.
    """

    plain: Rescaled
    gain: NDArray[np.float64]
    shift: NDArray[np.float64]
    rectified: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    of_sums: bool
    coarser: int = 0

    def __call__(self, bits: int, ends: Ends) -> tuple[Layer, Ends]:
        """Make the layer: step 2^shift is a multiplier of up to 31 bits, so that no product leaves 63."""
        unit = 2.0 ** (bits - self.coarser)
        low, high = self.plain.sums(*ends)
        reach = np.maximum(np.abs(low), np.abs(high))
        _check(float(reach.max()), EXACT)
        step = np.where(reach == 0, 0.0, self.gain * (2.0**-self.coarser if self.of_sums else unit))
        peak = float((np.abs(step) * reach + np.abs(self.shift) * unit).max())
        _check(peak, LIMIT)
        largest = float(np.abs(step).max())
        room = (60, 61 - ceil(log2(max(peak, 1.0))), 30 - ceil(log2(largest)) if largest else 60)
        shift = max(0, min(room))
        multiplier, offset = (np.rint(a * 2.0**shift).astype(np.int64) for a in (step, self.shift * unit))
        layer = replace(self.plain, multiplier=multiplier, offset=offset + (1 << shift >> 1), shift=shift)
        if self.rectified is not None:
            sign, ground = self.rectified[0], np.rint(self.rectified[1] * unit)
            _check(float(np.abs(ground).max()), LIMIT)
            sides = np.where(sign < 0, -LIMIT, ground), np.where(sign < 0, ground, LIMIT)
            layer = replace(layer, bounds=np.stack(sides, axis=1).astype(np.int64))
        return layer, layer.ends(*ends)


def linear(affine: Affine, encoding: Encoding, weight_bits: int, *, of_sums: bool) -> Linear:
    """Round the weights of a linear layer and draft it."""
    units = len(affine.weight)
    rows, scale = whole_rows(affine.weight.reshape(units, -1), weight_bits)
    ones, zeros = np.ones(units, np.int64), np.zeros(units, np.int64)
    plain = Rescaled(rows.reshape(affine.weight.shape), ones, zeros, 0, encoding=encoding)
    if isinstance(affine.module, nn.Conv2d):
        stride, padding = affine.module.stride, affine.module.padding
        plain = replace(plain, stride=(stride[0], stride[1]), padding=(int(padding[0]), int(padding[1])))
    return Linear(plain, affine.gain * scale, affine.shift, affine.rectified, of_sums)


def bent(knee: NDArray[np.float64], slope: NDArray[np.float64], lift: NDArray[np.float64]) -> Draft:
    """Draft t + lift where t = x - knee > 0, else slope t + lift; all (c,)."""

    def draft(bits: int, ends: Ends) -> tuple[Layer, Ends]:
        unit = 2.0**bits
        _check(float((np.abs(knee) + np.abs(lift)).max()) * unit, LIMIT)
        shift = max(0, min(30, 29 - ceil(log2(max(float(np.abs(slope).max()), 2.0**-30)))))
        moved, tilt, raised = (np.rint(a).astype(np.int64) for a in (knee * unit, slope * 2.0**shift, lift * unit))
        layer = Bent(moved, tilt, shift, raised)
        return layer, layer.ends(*ends)

    return draft


def clip(low: float, high: float) -> Draft:
    """Draft sums cut off at two numbers."""

    def draft(bits: int, ends: Ends) -> tuple[Layer, Ends]:
        least, most = (int(np.clip(np.rint(end * 2.0**bits), -LIMIT, LIMIT)) for end in (low, high))
        layer = Clip(least, most)
        return layer, layer.ends(*ends)

    return draft


def residual(body: Sequence[tuple[str, Draft]], shortcut: Sequence[tuple[str, Draft]]) -> Draft:
    """Draft the sum of two ways."""

    def draft(bits: int, ends: Ends) -> tuple[Layer, Ends]:
        (one, (low, high)), (other, (least, most)) = made(body, bits, ends), made(shortcut, bits, ends)
        return Residual(one, other), (low + least, high + most)

    return draft


def _check(reach: float, limit: int) -> None:
    if reach > limit:
        raise _ReachError(f"{reach:.4g}", limit)
