"""The buffer that the C runtime runs: the steps of a network, its weights in the lanes of the chosen kernels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardstep.export.number_weights import byte_weights, row_weights
from hardstep.export.plan import Choice, Kernel, digits, offset_planes
from hardstep.export.steps import KINDS, Step, front_step, list_bytes
from hardstep.hard_layers import Pool
from hardstep.hard_scatter import Scatter
from hardstep.lowered import Sums

__all__ = ["Packed", "assembled", "pack"]

MAGIC, VERSION = b"HSTP", 1
HEAD, STEP = 64, 128
NEVER = 2**31 - 1


@dataclass(frozen=True)
class Packed:
    """A network as one buffer, and the bytes of memory that running it takes."""

    data: bytes
    scratch: int


def pack(
    layers: Sequence[Sums | Pool],
    choices: Sequence[Choice],
    *,
    tile: int,
    front: Scatter | None = None,
    packed: bool = False,
    plain: bool = False,
) -> Packed:
    """Write a network as one buffer for the C runtime.

    Parameters
    ----------
    layers
        What `lower` gives.
    choices
        The kernel of every layer with weights, from `plan`.
    tile
        Samples that go through the network together, 1 to 512; with lanes of samples at most the lanes.
    front
        The front end that makes the codes which the layers read.
    packed
        The input is packed bits in place of bytes: 64-bit words of each position, channels lowest first. Layers that
        do not end in a read-out then give the bits of their last codes in the same form.
    plain
        For what never saturates products of bytes, the baseline alone or VNNI: weights are laid out as they are.
    """
    first = next(layer for layer in layers if isinstance(layer, Sums))
    builder = _Builder(list(layers), dict(zip((c.name for c in choices), choices, strict=True)), plain)
    inputs = prod(first.shape) if front is None else builder.begin_front(front)
    if packed:
        inputs = builder.begin_packed(first)
    for i, layer in enumerate(layers):
        builder.add(i, layer)
    outputs = builder.end_packed() if builder.steps[-1].stairs else builder.state.c
    return assembled(builder.steps, builder.data, tile=tile, inputs=inputs, outputs=outputs)


def assembled(steps: Sequence[Step], sections: bytes | bytearray, *, tile: int, inputs: int, outputs: int) -> Packed:
    """Return steps and the sections they name, counted from the first one, as one buffer with its head."""
    begin = HEAD + STEP * len(steps)
    body = b"".join(struct.pack("<32I", *(value & 0xFFFFFFFF for value in _moved(step, begin))) for step in steps)
    rest = struct.pack("<4I", len(steps), tile, inputs, outputs) + bytes(HEAD - 32) + body + bytes(sections)
    data = MAGIC + struct.pack("<3I", VERSION, 16 + len(rest), zlib.crc32(rest)) + rest
    maps, lists = (max(size(step, tile) for step in steps) for size in (_map_bytes, list_bytes))
    return Packed(data, 2 * _lines(maps) + _lines(lists))


def _map_bytes(step: Step, tile: int) -> int:
    """Return the bytes of what stands behind a step."""
    high, wide = step.oh + 2 * (step.frame >> 16), step.ow + 2 * (step.frame & 0xFFFF)
    if _gives_samples(step):
        return high * wide * (step.out_planes * step.units + 1) * step.out_words * 8
    return tile * step.oh * step.ow * step.out_planes * step.out_words * 8


def _gives_samples(step: Step) -> bool:
    """Whether lanes of samples stand behind a step."""
    return step.kind in (KINDS["samples"], KINDS["turn"]) or (step.kind == KINDS["pool"] and step.lanes > 0)


def _lines(count: int) -> int:
    """Return bytes rounded up to whole cache lines."""
    return -(-count // 64) * 64


def _moved(step: Step, begin: int) -> list[int]:
    """Return the fields of a step, its sections counted from the start of the buffer."""
    sections = {
        name: getattr(step, name) + begin
        for name in ("weights", "thresholds", "places")
        if getattr(step, f"{name}_bytes")
    }
    return [getattr(replace(step, **sections), each.name) for each in fields(step)]


@dataclass(frozen=True)
class _State:
    """What stands between two steps."""

    c: int
    h: int
    w: int
    planes: int
    words: int = 0
    lanes: int = 0  # of samples; 0 for the other layout
    raw: bool = False


@dataclass
class _Builder:
    layers: list[Sums | Pool]
    choices: dict[str, Choice]
    plain: bool
    steps: list[Step] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    state: _State = field(default_factory=lambda: _State(0, 0, 0, 8, raw=True))

    def add(self, i: int, layer: Sums | Pool) -> None:
        """Take the next layer."""
        if isinstance(layer, Pool):
            self._pool(i, layer)
            return
        choice = self.choices[layer.name]
        if self.state.raw:
            self.state = _State(*layer.shape, 8, raw=True)
            if choice.kernel is not Kernel.BYTES:
                self._emit(
                    Step(
                        KINDS["planes"],
                        c=layer.shape[0],
                        in_planes=8,
                        units=layer.shape[0],
                        out_planes=8,
                        out_words=-(-layer.shape[0] // 64),
                    )
                )
        wants_samples = choice.kernel is Kernel.SAMPLES
        if wants_samples and not self.state.lanes:
            self._turn("turn", choice.lanes, choice.lanes // 64, _frame(layer))
        if not wants_samples and self.state.lanes:
            self._turn("back", self.state.lanes, -(-self.state.c // 64), 0)
        step = self._summed(layer)
        if choice.kernel is Kernel.BYTES:
            self._bytes(step, layer)
        elif choice.kernel is Kernel.OUTPUTS:
            self._outputs(step, layer, choice.lanes)
        elif choice.kernel is Kernel.SAMPLES:
            self._samples(step, layer, choice.lanes, self._next_frame(i))
        else:
            self._rows(step, layer)

    def begin_front(self, front: Scatter) -> int:
        """Take images for a front end, whose codes are the input of what follows; return the bytes of a sample."""
        step, program = front_step(front)
        where, length = self._put(program)
        self.steps.append(replace(step, weights=where, weights_bytes=length))
        return prod(front.shape)

    def begin_packed(self, layer: Sums) -> int:
        """Take packed bits as input; return the bytes of a sample."""
        c, h, w = layer.shape
        words = -(-c // 64)
        self._emit(Step(KINDS["bits"], c=c, h=h, w=w, units=c, oh=h, ow=w, out_planes=1, out_words=words))
        return h * w * words * 8

    def end_packed(self) -> int:
        """Give packed bits as output; return the 32-bit words of a sample."""
        if self.state.lanes:
            self._turn("back", self.state.lanes, -(-self.state.c // 64), 0)
        s = self.state
        self._emit(
            Step(KINDS["emit"], **self._read(), units=s.c, oh=s.h, ow=s.w, out_planes=s.planes, out_words=s.words)
        )
        return s.h * s.w * s.planes * s.words * 2

    def _next_frame(self, i: int) -> int:
        """Return the frame that the next layer wants around its input, where it takes lanes of samples too."""
        after = self.layers[i + 1] if i + 1 < len(self.layers) else None
        takes = isinstance(after, Sums) and self.choices[after.name].kernel is Kernel.SAMPLES
        return _frame(after) if isinstance(after, Sums) and takes else 0

    def _emit(self, step: Step) -> None:
        self.steps.append(step)
        lanes = step.lanes if _gives_samples(step) else 0
        self.state = _State(step.units, step.oh, step.ow, step.out_planes, step.out_words, lanes)

    def _put(self, array: NDArray[Any]) -> tuple[int, int]:
        """Store an array on a line of its own; return where, from the first section, and its bytes."""
        self.data.extend(bytes(-len(self.data) % 64))
        where, raw = len(self.data), np.ascontiguousarray(array).tobytes()
        self.data.extend(raw)
        self.data.extend(bytes(-len(self.data) % 8))
        return where, len(raw)

    def _read(self) -> dict[str, int]:
        s = self.state
        return {"c": s.c, "h": s.h, "w": s.w, "in_planes": s.planes, "in_words": s.words}

    def _turn(self, kind: str, lanes: int, words: int, frame: int) -> None:
        s = self.state
        self._emit(
            Step(KINDS[kind], lanes, **self._read(), units=s.c, oh=s.h, ow=s.w, out_planes=s.planes, out_words=words,
                 frame=frame)
        )  # fmt: skip

    def _pool(self, i: int, layer: Pool) -> None:
        s = self.state
        _, oh, ow = layer.out_shape((s.c, s.h, s.w))
        size = {"kh": layer.size[0], "kw": layer.size[1], "sy": layer.stride[0], "sx": layer.stride[1]}
        frame = self._next_frame(i) if s.lanes else 0
        self._emit(
            Step(KINDS["pool"], s.lanes, **self._read(), units=s.c, **size, oh=oh, ow=ow, out_planes=s.planes,
                 out_words=s.words, frame=frame)
        )  # fmt: skip

    def _summed(self, layer: Sums) -> Step:
        """Return what all steps with weights have in common."""
        units, oh, ow = layer.out_shape
        kh, kw = layer.weight.shape[2:]
        (sy, sx), (py, px) = layer.stride, layer.padding
        return Step(
            0, **self._read(), units=units, kh=kh, kw=kw, sy=sy, sx=sx, py=py, px=px, oh=oh, ow=ow,
            stairs=layer.stairs, out_planes=layer.stairs.bit_length()
        )  # fmt: skip

    def _finish(
        self, step: Step, weights: NDArray[Any], thresholds: NDArray[Any], places: NDArray[Any], **more: int
    ) -> None:
        """Store the arrays of a step and append it."""
        sections: dict[str, int] = {}
        for name, array in (("weights", weights), ("thresholds", thresholds), ("places", places)):
            if array.size:
                sections[name], sections[f"{name}_bytes"] = self._put(array)
        self._emit(replace(step, **sections, **more))

    def _bytes(self, step: Step, layer: Sums) -> None:
        raw = step.in_words == 0
        rows = (layer.weight if raw else layer.weight.transpose(0, 2, 3, 1)).reshape(step.units, -1)
        found = byte_weights(rows, plain=self.plain or (not raw and layer.top <= 127))
        more = {"weight_planes": found.bits, "shift": found.entries}
        self._compared(step, layer, found.data, kind=KINDS["bytes"], **more)

    def _rows(self, step: Step, layer: Sums) -> None:
        found = row_weights(layer.weight.transpose(0, 2, 3, 1).reshape(step.units, step.terms))
        more = {"weight_planes": found.bits, "shift": found.flush, "offset": found.factor}
        self._compared(step, layer, found.data, kind=KINDS["rows"], **more)

    def _compared(self, step: Step, layer: Sums, weight: NDArray[Any], **more: int) -> None:
        """Append a step whose sums are numbers: thresholds or biases in groups of 16 units."""
        padded = -(-step.units // 16) * 16
        if layer.threshold is None:
            bias = np.zeros(padded, "<i4")
            bias[: step.units] = layer.bias
            self._finish(step, weight, bias, np.zeros(0), **more)
            return
        sets, places = _sets(layer.threshold)
        threshold = np.full((len(sets), step.stairs, padded), NEVER, "<i4")
        threshold[:, :, : step.units] = sets.transpose(0, 2, 1)
        self._finish(step, weight, threshold, places, classes=len(sets), out_words=-(-step.units // 64), **more)

    def _outputs(self, step: Step, layer: Sums, lanes: int) -> None:
        assert layer.threshold is not None
        units, terms = step.units, step.terms
        padded = -(-units // lanes) * lanes
        offset, shift, planes = offset_planes(layer.weight.transpose(0, 2, 3, 1).reshape(units, terms))
        rows = np.zeros((padded // lanes, len(planes), terms + 1, lanes), bool)
        for q, plane in enumerate(planes):
            wide = np.zeros((padded, terms), bool)
            wide[:units] = plane
            rows[:, q, :-1] = wide.reshape(-1, lanes, terms).transpose(0, 2, 1)
        start = 1 - layer.least
        acc_planes = (layer.largest + start).bit_length()
        sets, places = _sets(layer.threshold + start)
        threshold = np.full((len(sets), padded, step.stairs), 2**acc_planes - 1, np.int64)
        threshold[:, :units] = sets
        bits = threshold[:, :, :, None] >> np.arange(acc_planes) & 1
        bits = bits.reshape(len(sets), -1, lanes, step.stairs, acc_planes).transpose(0, 1, 3, 4, 2)
        self._finish(
            step, _packed(rows), _packed(bits), places, kind=KINDS["outputs"], lanes=lanes, acc_planes=acc_planes,
            weight_planes=len(planes), shift=shift, offset=offset, start=start, classes=len(sets),
            out_words=padded // 64
        )  # fmt: skip

    def _samples(self, step: Step, layer: Sums, lanes: int, frame: int) -> None:
        pitch, rows = step.w + 2 * step.px, step.in_planes * step.c + 1
        tap = (np.arange(step.kh)[:, None] * pitch + np.arange(step.kw)) * rows
        row = tap[None, None] + np.arange(step.in_planes * step.c).reshape(step.in_planes, step.c, 1, 1)
        if row.max(initial=0) >= 2**16:
            raise ValueError(
                f"{layer.name} reaches row {row.max()}, beyond the 65,535 that lanes of samples can name; use outputs"
            )
        half = step.in_planes == 1 and bool((np.abs(layer.weight) == 1).all())  # +-1: only the +1, less all
        stream: list[int] = [*_listed(row.ravel(), rows - 1)] if half else []
        weight = np.stack([(layer.weight + half) << p for p in range(step.in_planes)], axis=1)
        parts, low = digits(weight), np.zeros(step.units, np.int64)
        for unit in range(step.units):
            used = [(q, part[unit]) for q, part in enumerate(parts) if part[unit].any()]
            stream.append(len(used))
            for q, part in used:
                minus = row[part < 0]
                stream += [q, *_listed(minus, rows - 1), *_listed(row[part > 0], rows - 1)]
                low[unit] += (1 << q) * bool(minus.size)
        start = 1 - layer.least + int(low.max())
        sets, places = (layer.bias + low - start)[None], np.zeros(0, "<u2")
        if layer.threshold is not None:
            sets, places = _sets(layer.threshold + (start - low)[:, None, None, None])
        acc_planes = (layer.largest + start).bit_length()
        self._finish(
            step, np.array(stream, "<u2"), sets.astype("<u4"), places, kind=KINDS["samples"], lanes=lanes,
            acc_planes=acc_planes, offset=-int(half), start=start, classes=len(sets), out_words=lanes // 64, frame=frame
        )  # fmt: skip


def _frame(layer: Sums) -> int:
    """Return the padding of a layer as one number."""
    return layer.padding[0] << 16 | layer.padding[1]


def _packed(bits: NDArray[Any]) -> NDArray[np.uint8]:
    """Pack 0/1 along the last axis, lowest first."""
    return np.packbits(bits.astype(bool), axis=-1, bitorder="little")


def _listed(rows: NDArray[np.integer[Any]], zero: int) -> list[int]:
    """Return a list with its length, padded to 8 by the row of zeros."""
    padded = [*np.sort(rows).tolist(), *[zero] * (-rows.size % 8)]
    return [len(padded), *padded]


def _sets(threshold: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Return the different thresholds (sets, units, stairs), and the set of each position; none where there is one."""
    units, stairs = threshold.shape[:2]
    sets, places = np.unique(threshold.reshape(units * stairs, -1).T, axis=0, return_inverse=True)
    where = places.astype("<u2") if len(sets) > 1 else np.zeros(0, "<u2")
    return sets.reshape(-1, units, stairs), where
