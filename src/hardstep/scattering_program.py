"""A scattering network of hard steps as a program on planes of integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from jaxtyping import Integer

from hardstep.banks import Cascade, read_ahead
from hardstep.frames import Wavelets
from hardstep.hard_scatter import Activate, Emit, Filter, Instruction, Load, PlanePool, Scatter, activated, filtered
from hardstep.scattering import Scattering
from hardstep.scattering_paths import Path, prefixes

__all__ = ["code_range", "compile_scattering"]

LIMIT = 2**31 - 1
BITS = 8
Ends = tuple[int, int]


def code_range(net: Scattering) -> list[tuple[int, int]]:
    """Return least and k of each order, so that floor((phi - least) / 2^k) of all its features fits 8 bits.

    least is a bound by the taps and activations, not the least value of any data; k is the smallest that fits the
    largest value there can be.

    Raises
    ------
    ValueError
        If the network does not run in whole numbers (a hard step makes it so), or features span more than 32 bits.

    Examples
    --------
    >>> from hardstep.frames import haar
    >>> from hardstep.scattering_layers import HardStep, ScatteringLayer
    >>> code_range(Scattering((8, 8), [ScatteringLayer(haar(), HardStep())], haar()))
    [(0, 6), (0, 0)]
    """
    if not net.exact:
        raise ValueError(
            "features are codes of whole numbers, and this scattering network has none; use HardStep in a layer"
        )
    found, ends = [], (0, 255)
    for n, frame in enumerate(_frames(net)):
        low, high = _atom(frame, ends, frame.scales)
        if high - low > LIMIT:
            raise ValueError(
                f"features of order {n} span {high - low}, beyond the {LIMIT} of an int32; use fewer layers or scales"
            )
        found.append((low, max(0, (high - low).bit_length() - BITS)))
        if n < len(net.layers):
            layer, behind = net.layers[n], []
            for level in range(frame.scales):
                kind, _ = layer.activation.in_integers(level)
                rough = filtered(frame.high, *_atom(frame, ends, level))
                behind += [activated(kind, *filtered(taps, *rough)) for taps in (frame.low, frame.high)]
            growth = layer.pooling.growth
            ends = min(low for low, _ in behind) * growth, max(high for _, high in behind) * growth
    return found


def compile_scattering(net: Scattering, shape: tuple[int, int, int], columns: Integer[np.ndarray, " d"]) -> Scatter:
    """Return the layer that computes some features as codes, from images of 8-bit codes.

    The tree of paths is walked depth first, so that few planes are alive; nothing is computed that no feature needs,
    and the low passes of a node serve its atom and all its children.

    Parameters
    ----------
    shape
        Channels, height and width of the images; zeros behind them up to the network's size.
    columns
        Places of the features wanted, in the features of all orders flattened one after the other.

    Raises
    ------
    ValueError
        If the network does not run in whole numbers, or sums could leave 32 bits.
    """
    writer = _Writer(net, code_range(net), *_wanted(net, shape[0], columns.tolist()))
    height, width = (length + 2 * net.reflect for length in net.size)
    for channel in sorted({channel for channel, _ in writer.emitted}):
        plane = writer.take()
        writer.program.append(Load(channel, plane, (height, width)))
        writer.node(channel, (), plane, (height, width))
    return Scatter.of(shape, len(columns), writer.program, reflect=net.reflect)


Places = dict[tuple[int, Path], list[tuple[int, int]]]


@dataclass
class _Writer:
    """Writes a program; a register is taken when a plane is made and given back behind its last use."""

    net: Scattering
    ranges: list[tuple[int, int]]
    emitted: Places  # (position in the plane, place in the output) of each channel and path
    needed: frozenset[tuple[int, Path]]
    program: list[Instruction] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    registers: int = 0

    def take(self) -> int:
        """Return a free register, the lowest."""
        if not self.free:
            self.registers += 1
            return self.registers - 1
        self.free.sort()
        return self.free.pop(0)

    def node(self, channel: int, path: Path, plane: int, size: tuple[int, int]) -> None:
        """Write what a node emits and its children, from its signal; the register is given back."""
        order = len(path)
        frame = _frames(self.net)[order]
        positions = self.emitted.get((channel, path), [])
        count = 3 * frame.scales if order < len(self.net.layers) else 0
        wanted = [i for i in range(count) if (channel, (*path, i)) in self.needed]
        last = frame.scales - 1 if positions else max((i // 3 for i in wanted), default=-1)
        for level in range(last + 1):
            across, along, both = (3 * level + i in wanted for i in range(3))
            deeper = level < last or bool(positions)
            if across or both:
                rough = self.filtered(plane, size, frame, level, 1, high=True, free=not (along or deeper))
                if across:
                    wide = self.filtered(rough, size, frame, level, 0, high=False, free=not both)
                    self.child(channel, (*path, 3 * level), wide, size)
                if both:
                    edges = self.filtered(rough, size, frame, level, 0, high=True, free=True)
                    self.child(channel, (*path, 3 * level + 2), edges, size)
            if along or deeper:
                smooth = self.filtered(plane, size, frame, level, 1, high=False, free=True)
                tall = self.filtered(smooth, size, frame, level, 0, high=True, free=not deeper) if along else -1
                plane = self.filtered(smooth, size, frame, level, 0, high=False, free=True) if deeper else -1
                if along:
                    self.child(channel, (*path, 3 * level + 1), tall, size)
        if positions:
            least, shift = self.ranges[order]
            where, places = zip(*positions, strict=True)
            self.program.append(Emit(plane, size, least, shift, where, places))
            self.free.append(plane)

    def child(self, channel: int, path: Path, plane: int, size: tuple[int, int]) -> None:
        """Write the activation and pooling of a detail, and its node."""
        n, detail = len(path) - 1, path[-1]
        layer = self.net.layers[n]
        kind, threshold = layer.activation.in_integers(detail // 3)
        self.program.append(Activate(plane, plane, size, kind, max(-LIMIT - 1, min(threshold, LIMIT))))
        name, window = layer.pooling.in_integers()
        stride = layer.pooling.stride
        if (window, stride) != (1, 1):
            pooled = self.take()
            self.program.append(PlanePool(plane, pooled, size, name, window, stride))
            self.free.append(plane)
            plane, size = pooled, (size[0] // stride, size[1] // stride)
        self.node(channel, path, plane, size)

    def filtered(
        self, source: int, size: tuple[int, int], frame: Wavelets, level: int, axis: int, *, high: bool, free: bool
    ) -> int:
        """Write a pass along an axis and return its register; the source is given back if `free`."""
        taps, start = (frame.high, frame.high_start) if high else (frame.low, frame.low_start)
        target = self.take()
        shifts = tuple(read_ahead(taps, start, 2**level, size[axis]))
        self.program.append(Filter(source, target, size, axis, taps, shifts))
        if free:
            self.free.append(source)
        return target


def _wanted(net: Scattering, channels: int, columns: Sequence[int]) -> tuple[Places, frozenset[tuple[int, Path]]]:
    """Return what each node emits, and the nodes on the way there."""
    grids = [net.output_grid(order) for order in range(len(net.levels))]
    widths = [channels * len(level.paths) * prod(grid) for level, grid in zip(net.levels, grids, strict=True)]
    starts = np.concatenate([[0], np.cumsum(widths)])
    found: Places = {}
    for place, column in enumerate(columns):
        order = int(np.searchsorted(starts, column, side="right")) - 1
        where = (channels, len(net.levels[order].paths), *grids[order])
        channel, node, row, across = (int(i) for i in np.unravel_index(column - int(starts[order]), where))
        margin, width = net.reflect // net.strides[order], net.bounds[order].grid[1]
        y, x = (margin + i * net.output_stride for i in (row, across))
        found.setdefault((channel, net.levels[order].paths[node]), []).append((y * width + x, place))
    needed = {(channel, start) for channel, path in found for start in prefixes([path])}
    return found, frozenset(needed)


def _frames(net: Scattering) -> list[Wavelets]:
    """Return the taps of each layer and of the output frame."""
    return [bank.frame for bank in net.banks if isinstance(bank, Cascade)]


def _atom(frame: Wavelets, ends: Ends, levels: int) -> Ends:
    """Return the least and the largest number behind the low passes of so many levels."""
    for _ in range(2 * levels):
        ends = filtered(frame.low, *ends)
    return ends
