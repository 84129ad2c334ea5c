"""A network with real sums as one step of the C runtime: a program on numbers in fixed point, and its weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardstep.export.pack import Packed, assembled
from hardstep.export.steps import KINDS, Step
from hardstep.hard_layers import Conv, Dense, Encoding, Flatten, Pool
from hardstep.hard_sums import Bent, Carried, Clip, Ends, Rescaled, Residual, Stage, Threshold, Windows
from hardstep.hardnet import HardNet
from hardstep.lowered import as_image

__all__ = ["pack_sums"]

LIMIT = 2**31 - 1
INSTRUCTIONS = ("load", "sum", "count", "windows", "carry", "clip", "bend", "add", "scores")
UNITS = 4  # whose weights lie together
VECTORS = 64  # bytes of the sums that are added together
LINE = 64  # bytes


def pack_sums(hard: HardNet) -> Packed:
    """Write a network with real sums as one buffer for the C runtime, which runs it sample by sample.

    Every sum is added in the fewest bits, 16, 32 or 64, that provably hold it. Numbers take 64 bits in memory, since
    totals may leave 32; what is not read any more makes room.

    Raises
    ------
    ValueError
        If a sum could leave 32 bits, or a layer reads codes that are worth more at some places than at others; the
        layer is named.
    """
    program = _Program()
    codes = program.load(hard.shape)
    scores = program.way("layer", hard.layers, codes)
    program.add("scores", scores)
    words = np.array([program.room, *program.words], np.int64).astype("<u4").tobytes()
    behind = bytes(-len(words) % LINE)
    (c, h, w), outputs = as_image(hard.shape), prod(scores.shape)
    step = Step(
        KINDS["sums"], c=c, h=h, w=w, kh=h, kw=w, units=outputs, shift=program.room + program.work,
        weights_bytes=len(words), thresholds=len(words + behind), thresholds_bytes=len(program.weights),
    )  # fmt: skip
    sections = words + behind + program.weights
    return assembled([step], sections, tile=1, inputs=prod(hard.shape), outputs=outputs)


@dataclass(frozen=True, eq=False)
class _Numbers:
    """Numbers of a sample: where they begin, their shape, the least and the largest of each channel."""

    at: int
    shape: tuple[int, ...]
    ends: Ends


@dataclass
class _Program:
    """Instructions as `program.h` has them, their weights, and the memory that they take, in numbers."""

    words: list[int] = field(default_factory=list)
    weights: bytearray = field(default_factory=bytearray)
    room: int = 0
    work: int = 0  # beside the room: what the largest sum works in
    held: dict[int, int] = field(default_factory=dict)  # where what is alive begins and ends

    def load(self, shape: tuple[int, ...]) -> _Numbers:
        """Begin with 8-bit codes."""
        channels = as_image(shape)[0]
        codes = _Numbers(0, shape, (np.zeros(channels, np.int64), np.full(channels, 255, np.int64)))
        return self._made("load", codes, shape, codes.ends)

    def way(self, name: str, layers: Iterable[Stage], given: _Numbers) -> _Numbers:
        """Add layers one behind the other; what is given stays alive."""
        out = given
        for i, layer in enumerate(layers):
            after = self._layer(f"{name} {i}", layer, out)
            if out.at not in (given.at, after.at):
                del self.held[out.at]
            out = after
        return out

    def add(self, kind: str, source: _Numbers, rest: Iterable[int] = (), target: int = 0) -> None:
        """Add an instruction."""
        own = [source.at, target, *as_image(source.shape), *rest]
        self.words += [INSTRUCTIONS.index(kind), 2 + len(own), *own]

    def _layer(self, name: str, layer: Stage, x: _Numbers) -> _Numbers:
        if isinstance(layer, Flatten):
            low, high = (np.repeat(end, prod(x.shape[1:])) for end in x.ends)
            return _Numbers(x.at, layer.out_shape(x.shape), (low, high))
        if isinstance(layer, Residual):
            return self._residual(name, layer, x)
        if isinstance(layer, Dense | Conv):
            sums = self._sum(name, _plain(layer), x)
            if layer.threshold is None:
                return sums
            codes = self._layer(name, Threshold(np.clip(layer.threshold, -LIMIT - 1, LIMIT)), sums)
            del self.held[sums.at]
            return codes
        if isinstance(layer, Rescaled):
            return self._sum(name, layer, x)
        if isinstance(layer, Pool):
            layer = Windows(layer.size, layer.stride)
        rest: list[int]
        if isinstance(layer, Threshold):
            kind, rest = "count", [layer.threshold.shape[1], *layer.threshold.ravel().tolist()]
        elif isinstance(layer, Windows):
            kind, rest = "windows", [*layer.size, *layer.stride, *layer.padding, int(layer.total)]
        elif isinstance(layer, Carried):
            kind, rest = "carry", [layer.stride, *layer.channels]
        elif isinstance(layer, Clip):
            kind, rest = "clip", [layer.low, layer.high]
        elif isinstance(layer, Bent):
            bends = np.stack([layer.knee, layer.slope, layer.lift], axis=1)
            kind, rest = "bend", [layer.shift, *bends.ravel().tolist()]
        else:
            raise ValueError(f"{name} ({type(layer).__name__}) has no form in C between layers with real sums")
        return self._made(kind, x, layer.out_shape(x.shape), layer.ends(*x.ends), rest)

    def _residual(self, name: str, layer: Residual, x: _Numbers) -> _Numbers:
        """Add what both ways make of the same numbers."""
        ways = [self.way(f"{name}, {way}", getattr(layer, way), x) for way in ("body", "shortcut")]
        one, other = ways
        ends = one.ends[0] + other.ends[0], one.ends[1] + other.ends[1]
        out = self._made("add", one, one.shape, ends, [other.at])
        for each in ways:
            if each.at != x.at:
                del self.held[each.at]
        return out

    def _sum(self, name: str, layer: Rescaled, x: _Numbers) -> _Numbers:
        """Add sums in fixed point, in cells as narrow as they can be."""
        image, units = as_image(x.shape), len(layer.weight)
        gain, zero = (_of_channels(name, a, x.shape) for a in (layer.encoding.gain, layer.encoding.zero))
        wide = (-1, *[1] * (layer.weight.ndim - 2))
        layer = replace(layer, encoding=Encoding(gain.reshape(wide), zero.reshape(wide)))
        ends, reach = layer.ends(*x.ends), _reach(layer.sums(*x.ends))
        if _reach(ends) > LIMIT:
            raise ValueError(f"{name} could give {_reach(ends)}, beyond the {LIMIT} of an int32; use fewer weight_bits")
        cell = next((size for size in (2, 4) if reach < 2 ** (8 * size - 1)), 8)
        kernel = layer.weight.reshape(units, image[0], *(layer.weight.shape[2:] or (1, 1)))
        weights = _grouped(name, kernel.reshape(units, -1))
        bounds = np.tile([-LIMIT - 1, LIMIT], (units, 1)) if layer.bounds is None else layer.bounds
        rest = [units, *kernel.shape[2:], *layer.stride, *layer.padding, cell, weights.itemsize, len(self.weights)]
        tables = (
            np.stack([gain, zero], axis=1),
            np.stack([*_halves(layer.multiplier), *_halves(layer.offset), *bounds.T], axis=1),
        )
        rest += [layer.shift, *(number for table in tables for number in table.ravel().tolist())]
        self.work = max(self.work, _work(image, kernel.shape[2:], layer, cell))
        self.weights += weights.tobytes()
        return self._made("sum", x, layer.out_shape(x.shape), ends, rest)

    def _made(self, kind: str, x: _Numbers, shape: tuple[int, ...], ends: Ends, rest: Iterable[int] = ()) -> _Numbers:
        """Add an instruction that makes numbers, in the first gap that holds them."""
        at, size = 0, prod(shape)
        for begin in sorted(self.held):
            if at + size <= begin:
                break
            at = self.held[begin]
        self.held[at] = at + size
        self.room = max(self.room, at + size)
        self.add(kind, x, rest, at)
        return _Numbers(at, shape, ends)


def _plain(layer: Dense | Conv) -> Rescaled:
    """Return the sums of a layer on codes as they are."""
    units = len(layer.weight)
    ones, zeros = np.ones(units, np.int64), np.zeros(units, np.int64)
    if isinstance(layer, Conv):
        return Rescaled(layer.weight, ones, zeros, 0, None, layer.encoding, layer.stride, layer.padding)
    return Rescaled(layer.weight, ones, zeros if layer.bias is None else layer.bias, 0, None, layer.encoding)


def _of_channels(name: str, a: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return one number a channel, from what broadcasts against a sample."""
    spread = np.broadcast_to(a, shape).reshape(shape[0], -1)
    if (spread != spread[:, :1]).any():
        raise ValueError(f"{name} reads codes worth more at some places than at others; C takes one encoding a channel")
    return spread[:, 0]


def _halves(a: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the low and the high 32 bits."""
    return a & 0xFFFFFFFF, a >> 32


def _reach(ends: Ends) -> int:
    """Return how far numbers reach, as bits count it: -2^31 no farther than 2^31 - 1."""
    return max(-int(ends[0].min()) - 1, int(ends[1].max()))


def _grouped(name: str, rows: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Return weights in 8 or 16 bits, those of some units together, term by term, zeros behind the last unit."""
    filled = np.pad(rows, [(0, -len(rows) % UNITS), (0, 0)]).reshape(-1, UNITS, rows.shape[1]).transpose(0, 2, 1)
    for kind in ("<i1", "<i2"):
        if np.array_equal(filled.astype(kind), filled):
            return filled.astype(kind)
    raise ValueError(f"{name} has a weight of {np.abs(rows).max()}, beyond 16 bits; freeze with fewer weight_bits")


def _work(image: tuple[int, int, int], kernel: tuple[int, ...], layer: Rescaled, cell: int) -> int:
    """Return the numbers that a sum works in, as `program.h` counts them."""
    high, wide = (size + 2 * pad for size, pad in zip(image[1:], layer.padding, strict=True))
    (sy, sx), terms = layer.stride, image[0] * prod(kernel)
    pitch = -(-wide // sx)
    places = ((high - kernel[0]) // sy) * pitch + (wide - kernel[1]) // sx + 1
    span = -(-places * cell // VECTORS) * VECTORS // cell
    cells = image[0] * sy * sx * -(-high // sy) * pitch
    return -(-terms // 2) + -(-cell * (cells + (UNITS + 1) * span + UNITS * terms) // 8)
