"""Simplify: the same integer network with fewer units and smaller numbers, equal in every score for every input."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardstep.hard_layers import Conv, Dense, Layer, Pool, exact_product, weight_bits
from hardstep.hard_scatter import Scatter
from hardstep.hardnet import HardNet

__all__ = ["extremes", "simplify"]

LIMIT = 2**31 - 1  # sums must fit the engine's int32
WIDEST = 16  # bits of a weight that a file can hold

Map = Dense | Conv


def simplify(net: HardNet) -> HardNet:
    """Remove what a frozen network does not need; every score stays the same integer for every input.

    A pruned or trained network holds units that never change, that no one reads, or that say what another unit
    says. Each is written as value = factor * (value of another unit) + shift and put into the layer that reads it:

    - dead: its columns in the next layer are zero; factor and shift are 0;
    - constant, by the bounds of its sum over all codes; factor 0, the shift moves into thresholds or bias;
    - equal to another unit, rows and thresholds being brought to lowest terms first; the columns are added;
    - the complement of another unit, not(a > t) <=> -a > -t - 1, if no pooling stands between.

    Rows are divided by their gcd. Thresholds move to sums that occur. Repeats until nothing changes. The size
    `nbytes` never grows: equal units that would widen the next layer's weights beyond what they save stay. So does
    a constant unit before a convolution with padding, unless its value is 0: padding is the value 0 and would
    otherwise differ from it at the borders. Stairs and inputs of the network are kept, and one unit of each layer.
    A network with real sums comes back as it is: all its blocks read them.

    Parameters
    ----------
    net
        The frozen network.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> net = hs.nets.mlp(64, 32, 10)
    >>> net[-1].weight.data[:, :8] = 0  # no one reads the first eight units
    >>> hard = hs.freeze(net, calibrate=data.train)
    >>> small = simplify(hard)
    >>> hard.nbytes, small.nbytes, bool((small(data.test.x.numpy()) == hard(data.test.x.numpy())).all())
    (2536, 1912, True)
    """
    if not net.of_codes:
        return net
    before = replace(net, layers=tuple(_cast(layer, 64) for layer in net.layers))
    while not _same(before, after := _sweep(before)):
        before = after
    return replace(net, layers=tuple(_cast(layer) for layer in after.layers))


def extremes(net: HardNet) -> list[NDArray[np.uint8]]:
    """Return, for each layer but the read-out, the least and the largest code of every unit by the bounds of its sum.

    Where the two are equal the unit is certified to be constant; the others may still be.

    Examples
    --------
    >>> import hardstep as hs
    >>> hard = hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=hs.data.load("digits").train)
    >>> [ends.shape for ends in extremes(hard)]
    [(2, 64), (2, 32)]
    """
    net.check_codes("extremes")
    return list(accumulate(net.layers[:-1], _through, initial=_all_codes(net.shape)))[1:]


class Substitution(NamedTuple):
    """The value of `unit` is factor * (value of `into`) + shift, for every input and at every position.

    `into` is `unit` itself if the factor is 0. Factor and shift broadcast over the positions of the unit.
    """

    unit: int
    into: int
    factor: NDArray[np.int64]
    shift: NDArray[np.int64]


def _all_codes(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the least and the largest sample of 8-bit codes."""
    return np.stack([np.full(shape, code, np.uint8) for code in (0, 255)])


def _sweep(net: HardNet) -> HardNet:
    """Shrink every layer but the read-out once, in order; `ends` are the least and the largest codes it can see."""
    ends = _all_codes(net.shape)
    maps = [i for i, layer in enumerate(net.layers) if isinstance(layer, Dense | Conv)]
    for before, i, j in zip([0, *maps], maps, maps[1:], strict=False):
        ends = reduce(_through, net.layers[before:i], ends)
        net = _shrink(net, i, j, ends)
    return net


def _shrink(net: HardNet, i: int, j: int, ends: NDArray[np.uint8]) -> HardNet:
    """Bring layer i to lowest terms and put what it can do without into its reader, layer j, if that costs nothing."""
    layer, reader = _tidy(_map(net, i), ends), _map(net, j)
    columns = _columns(reader, len(layer.weight))
    still = _still(layer, ends, read=np.logical_or.reduce(columns != 0, axis=(0, 2)))
    if weight_bits(still.weight) <= weight_bits(layer.weight):
        layer = still
    seen = reduce(_through, net.layers[i:j], ends)
    mirrored = not any(isinstance(between, Pool) for between in net.layers[i + 1 : j])
    found = _substitutions(still, reader, seen.shape[1:], _forms(still, ends, mirrored=mirrored))
    free = [each for each in found if each.unit == each.into]
    merges = [each for each in found if each.unit != each.into]
    choices: list[list[Substitution]] = [found, free + _within(merges, columns, weight_bits(reader.weight)), free, []]
    trials = (_with(net, i, j, _substitute(layer, reader, seen.shape[1:], chosen)) for chosen in choices)
    room = _fits(net, i, j, ends)
    return next(trial for trial in trials if trial.nbytes <= net.nbytes and (_fits(trial, i, j, ends) or not room))


def _tidy(layer: Map, ends: NDArray[np.uint8]) -> Map:
    """Divide every row by its gcd and move its thresholds to sums that occur: w.v > t <=> (w/g).v > floor(t/g)."""
    flat = layer.weight.reshape(len(layer.weight), -1)
    gcd = np.maximum(np.gcd.reduce(flat, axis=1), 1)
    weight = (flat // gcd[:, None]).reshape(layer.weight.shape)
    layer = replace(layer, weight=weight, threshold=_thresholds(layer) // gcd[:, None])
    return replace(layer, threshold=_snap(_thresholds(layer), *_sums(layer, ends)))


def _still(layer: Map, ends: NDArray[np.uint8], read: NDArray[np.bool_]) -> Map:
    """Set the rows of units that are constant, or that no one reads, to zero."""
    low, high, _ = _sums(layer, ends)
    threshold = _thresholds(layer)
    always, sometimes = low[:, None] > threshold, high[:, None] > threshold
    idle = (always == sometimes).all(axis=1) | ~read
    weight = np.where(idle.reshape(-1, *[1] * (layer.weight.ndim - 1)), 0, layer.weight)
    return replace(layer, weight=weight, threshold=np.where(idle[:, None], -always.astype(np.int64), threshold))


def _forms(layer: Map, ends: NDArray[np.uint8], *, mirrored: bool) -> list[tuple[bytes, bool]]:
    """Return what tells units apart, equal for a unit and its complement, and which of the two each one is."""
    low, high, step = _sums(layer, ends)
    flat, threshold = layer.weight.reshape(len(layer.weight), -1), _thresholds(layer)
    plain = np.concatenate([flat, threshold], axis=1)
    mirror = np.concatenate([-flat, _snap(-threshold[:, ::-1] - 1, -high, -low, step)], axis=1)
    pairs = [(a.tobytes(), b.tobytes()) for a, b in zip(plain, mirror, strict=True)]
    return [(min(pair), pair[1] < pair[0]) if mirrored else (pair[0], False) for pair in pairs]


def _substitutions(
    layer: Map, reader: Map, shape: tuple[int, ...], forms: list[tuple[bytes, bool]]
) -> list[Substitution]:
    """Return the units of a still layer that its reader can do without, the first of equals left."""
    units, top = _thresholds(layer).shape
    worth = (reader.encoding.gain, reader.encoding.zero)
    gain, zero = (np.broadcast_to(a, shape).reshape(units, -1).astype(np.int64) for a in worth)
    first: dict[bytes, tuple[int, bool]] = {}
    found: list[Substitution] = []
    for unit, (form, complement) in enumerate(forms):
        trials: list[Substitution] = []
        if not layer.weight[unit].any():
            code = int((_thresholds(layer)[unit] < 0).sum())
            trials.append(Substitution(unit, unit, np.zeros_like(gain[unit]), gain[unit] * code - zero[unit]))
        into, other = first.get(form, (unit, complement))
        # the code top - code of the complement is worth gain * (top - code) - zero = -gain * code - (zero - gain * top)
        slope, start = (gain[unit], zero[unit]) if complement == other else (-gain[unit], zero[unit] - gain[unit] * top)
        if into != unit and gain[into].all() and not (slope % gain[into]).any():
            factor = slope // gain[into]
            trials.append(Substitution(unit, into, factor, factor * zero[into] - start))
        exact = [each for each in (_as_read(trial, reader, units) for trial in trials) if each is not None]
        found += exact[:1]
        if not exact:
            first.setdefault(form, (unit, complement))
    return found


def _as_read(each: Substitution, reader: Map, units: int) -> Substitution | None:
    """Return the substitution as the reader sees it, None if it is not exact there.

    A convolution has one column for all positions of a unit, and sees the value 0 where there is padding.
    """
    if isinstance(reader, Dense):
        return each
    unread = not _columns(reader, units)[:, each.unit].any()
    uniform = np.ptp(each.factor) == 0 and np.ptp(each.shift) == 0
    if unread or (uniform and not (any(reader.padding) and each.shift.any())):
        return each._replace(factor=each.factor[:1], shift=each.shift[:1])
    return None


def _within(merges: list[Substitution], columns: NDArray[np.int64], wide: int) -> list[Substitution]:
    """Return the merges that leave the columns at this many bits."""
    columns, chosen = columns.copy(), []
    for each in merges:
        merged = columns[:, each.into] + each.factor * columns[:, each.unit]
        if weight_bits(merged) <= wide:
            columns[:, each.into] = merged
            chosen.append(each)
    return chosen


def _substitute(layer: Map, reader: Map, shape: tuple[int, ...], chosen: list[Substitution]) -> tuple[Map, Map]:
    """Return both layers without the chosen units, whose values go into the reader; one unit is left at least."""
    units = len(layer.weight)
    columns = _columns(reader, units).copy()
    shift = np.zeros(len(columns), np.int64)
    for each in chosen:
        columns[:, each.into] += each.factor * columns[:, each.unit]
        shift += (each.shift * columns[:, each.unit]).sum(axis=1)
        columns[:, each.unit] = 0
    kept = np.setdiff1d(np.arange(units), [each.unit for each in chosen])
    kept = kept if kept.size else np.arange(1)
    weight = columns[:, kept].reshape(len(columns), -1, *reader.weight.shape[2:])
    reader = replace(reader, weight=weight, encoding=reader.encoding.take(kept, units, shape))
    if reader.threshold is not None:
        reader = replace(reader, threshold=reader.threshold - shift[:, None])
    elif isinstance(reader, Dense) and shift.any():
        reader = replace(reader, bias=shift + (0 if reader.bias is None else reader.bias))
    return replace(layer, weight=layer.weight[kept], threshold=_thresholds(layer)[kept]), reader


def _through(ends: NDArray[np.uint8], layer: Layer) -> NDArray[np.uint8]:
    """Return the least and the largest codes that a layer gives, from those that it takes."""
    if isinstance(layer, Scatter):
        return _all_codes(layer.out_shape(ends.shape[1:]))
    if not isinstance(layer, Dense | Conv):
        codes: NDArray[np.uint8] = layer.run(ends, exact_product)  # both kinds are monotone
        return codes
    low, high, _ = _sums(layer, ends)
    codes = (np.stack([low, high])[:, :, None] > _thresholds(layer)).sum(axis=2, dtype=np.uint8)
    shape = layer.out_shape(ends.shape[1:])
    return np.broadcast_to(codes.reshape(2, -1, *[1] * (len(shape) - 1)), (2, *shape))


def _sums(layer: Map, ends: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return of every unit a least and a largest sum, and a step: sums differ from the least by multiples of it."""
    low, high, step = _values(layer, ends)
    units = len(layer.weight)
    one, other, steps = ((layer.weight * a).reshape(units, -1) for a in (low, high, step))
    gcd: NDArray[np.int64] = np.gcd.reduce(steps, axis=1)
    return np.minimum(one, other).sum(axis=1), np.maximum(one, other).sum(axis=1), np.maximum(gcd, 1)


def _values(layer: Map, ends: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the least value, the largest and the step between values for the inputs of one row of weights."""
    values = layer.encoding.value(ends)
    low, high = values.min(axis=0), values.max(axis=0)
    step = np.where(low < high, np.abs(layer.encoding.gain), 0)
    if isinstance(layer, Dense):
        return low, high, step
    # a weight of a convolution meets all positions of its channel, and padding
    frame = [(0, 0), *((pad, pad) for pad in layer.padding)]
    low, high, step = (np.pad(a, frame).reshape(len(a), -1) for a in (low, high, step))
    least = low.min(axis=1, keepdims=True)
    gcd = np.gcd(np.gcd.reduce(step, axis=1, keepdims=True), np.gcd.reduce(low - least, axis=1, keepdims=True))
    channel = (-1, 1, 1)
    return least.reshape(channel), high.max(axis=1).reshape(channel), gcd.reshape(channel)


def _snap(
    threshold: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64], step: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return each threshold as the largest sum that is not above it, low - 1 if there is none."""
    low, high, step = low[:, None], high[:, None], step[:, None]
    return np.clip(low + (threshold - low) // step * step, low - 1, high)


def _fits(net: HardNet, i: int, j: int, ends: NDArray[np.uint8]) -> bool:
    """Return whether a file can hold the weights of layer j and an int32 its every partial sum."""
    layer = _map(net, j)
    low, high, _ = _values(layer, reduce(_through, net.layers[i:j], ends))
    terms = np.abs(layer.weight) * np.maximum(np.abs(low), np.abs(high))
    bias = layer.bias if isinstance(layer, Dense) and layer.bias is not None else np.zeros(1, np.int64)
    reach = terms.reshape(len(terms), -1).sum(axis=1) + np.abs(bias)
    return weight_bits(layer.weight) <= WIDEST and bool(reach.max() <= LIMIT)


def _with(net: HardNet, i: int, j: int, changed: tuple[Map, Map]) -> HardNet:
    """Return the network with two of its layers replaced."""
    return replace(net, layers=tuple({i: changed[0], j: changed[1]}.get(k, old) for k, old in enumerate(net.layers)))


def _map(net: HardNet, i: int) -> Map:
    """Return a layer that has weights."""
    layer = net.layers[i]
    assert isinstance(layer, Dense | Conv)
    return layer


def _columns(reader: Map, units: int) -> NDArray[np.int64]:
    """Return the weights by unit read: (rows, units, positions)."""
    return reader.weight.reshape(len(reader.weight), units, -1).astype(np.int64, copy=False)


def _thresholds(layer: Map) -> NDArray[np.int64]:
    """Return the thresholds of a layer that is not the read-out."""
    assert layer.threshold is not None
    return layer.threshold


def _cast(layer: Layer, bits: int | None = None) -> Layer:
    """Return the layer with weights as integers of this many bits; by default 8, or 16 where they need it."""
    if not isinstance(layer, Dense | Conv):
        return layer
    bits = bits or next((b for b in (8, 16) if weight_bits(layer.weight) <= b), 64)
    return replace(layer, weight=layer.weight.astype(f"int{bits}"))


def _same(one: HardNet, other: HardNet) -> bool:
    """Return whether two networks hold the same numbers."""
    arrays = (
        [array for layer in net.layers for array in vars(layer).values() if isinstance(array, np.ndarray)]
        for net in (one, other)
    )
    return all(map(np.array_equal, *arrays))
