"""A scattering front end as a layer of a HardNet: a small program on planes of integers, in plain NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

__all__ = ["Activate", "Emit", "Filter", "Instruction", "Load", "PlanePool", "Scatter", "activated", "filtered"]

LIMIT = 2**31 - 1  # of the engine's int32
ACTIVATIONS = ("abs", "relu", "step", "edge")
POOLS = ("max", "sum")
ROWS = 128  # images at a time
HEAD = 4  # words before the first instruction: registers, height and width of a loaded plane, pixels of reflection

Size = tuple[int, int]


class Load(NamedTuple):
    """Register `target` becomes a channel of the codes, zeros behind it, continued by reflection on all sides."""

    source: int
    target: int
    size: Size

    def words(self) -> list[int]:
        """Return the instruction as numbers."""
        return [0, self.source, self.target, *self.size]


class Filter(NamedTuple):
    """target[y, x] = sum_k taps[k] source[y + shifts[k], x] on the torus; along x if `axis` is 1."""

    source: int
    target: int
    size: Size
    axis: int
    taps: tuple[int, ...]
    shifts: tuple[int, ...]

    def words(self) -> list[int]:
        """Return the instruction as numbers."""
        pairs = [number for pair in zip(self.taps, self.shifts, strict=True) for number in pair]
        return [1, self.source, self.target, *self.size, self.axis, len(self.taps), *pairs]


class Activate(NamedTuple):
    """|u|, max(u, 0), u > threshold or |u| > threshold ("abs", "relu", "step", "edge"), number by number."""

    source: int
    target: int
    size: Size
    kind: str
    threshold: int = 0

    def words(self) -> list[int]:
        """Return the instruction as numbers."""
        return [2, self.source, self.target, *self.size, ACTIVATIONS.index(self.kind), self.threshold]


class PlanePool(NamedTuple):
    """The largest number or the sum of each window ("max", "sum") on the torus; window 1 keeps every stride-th one."""

    source: int
    target: int
    size: Size
    kind: str
    window: int
    stride: int

    def words(self) -> list[int]:
        """Return the instruction as numbers."""
        return [3, self.source, self.target, *self.size, POOLS.index(self.kind), self.window, self.stride]


class Emit(NamedTuple):
    """Output places[i] becomes floor((u - least) / 2^shift) of the number at positions[i] = y width + x."""

    source: int
    size: Size
    least: int
    shift: int
    positions: tuple[int, ...]
    places: tuple[int, ...]

    def words(self) -> list[int]:
        """Return the instruction as numbers."""
        pairs = [number for pair in zip(self.positions, self.places, strict=True) for number in pair]
        return [4, self.source, 0, *self.size, self.least, self.shift, len(self.places), *pairs]


Instruction = Load | Filter | Activate | PlanePool | Emit


@dataclass(frozen=True, eq=False)
class Scatter:
    """Filters on the torus, activations and pooling of 8-bit images, in whole numbers; some results, as 8-bit codes.

    A fixed program without weights, the first layer of a network. Every number fits 32 bits, and every output 8.

    Parameters
    ----------
    shape
        Channels, height and width of the codes it reads.
    outputs
        Codes that it gives.
    program
        Registers, height and width of a loaded plane, pixels of reflection; then instructions, as `words` has them.

    Raises
    ------
    ValueError
        If the program is damaged, or a number of it could leave 32 bits or an output 8.

    Examples
    --------
    >>> wide = [Load(0, 0, (2, 2)), Filter(0, 1, (2, 2), 1, (1, 1), (0, 1)), Emit(1, (2, 2), 0, 1, (0, 2), (0, 1))]
    >>> layer = Scatter.of((1, 2, 2), 2, wide)
    >>> layer.run(np.array([[[[4, 5], [6, 8]]]], np.uint8), None)
    array([[4, 7]], dtype=uint8)
    """

    shape: tuple[int, int, int]
    outputs: int
    program: NDArray[np.int64]

    def __post_init__(self) -> None:
        self.reach()

    @classmethod
    def of(
        cls, shape: tuple[int, int, int], outputs: int, instructions: Sequence[Instruction], *, reflect: int = 0
    ) -> Scatter:
        """Return the layer of these instructions, as many registers as they use."""
        registers = 1 + max((i.target for i in instructions if not isinstance(i, Emit)), default=0)
        planes = [i.size for i in instructions if isinstance(i, Load)] or [shape[1:]]
        words = [registers, *planes[0], reflect, *(number for each in instructions for number in each.words())]
        return cls(shape, outputs, np.array(words, np.int64))

    @property
    def registers(self) -> int:
        """Planes that are alive together, at most."""
        return int(self.program[0])

    @property
    def plane(self) -> Size:
        """Height and width of a loaded plane, the largest there are."""
        return int(self.program[1]), int(self.program[2])

    @property
    def reflect(self) -> int:
        """Pixels of reflection on each side."""
        return int(self.program[3])

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""
        return (self.outputs,)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return how many terms the sums and maxima of one sample have."""
        terms = 0
        for each in self.instructions():
            if isinstance(each, Filter):
                terms += prod(each.size) * len(each.taps)
            elif isinstance(each, PlanePool):
                terms += prod(each.size) // each.stride**2 * each.window**2
        return terms

    def instructions(self) -> Iterator[Instruction]:
        """Read the program.

        Raises
        ------
        ValueError
            If it is damaged.
        """
        words = self.program.tolist()
        at = HEAD
        sound = len(words) >= HEAD and self._framed()
        while sound and at < len(words):
            each, after = _read(words, at)
            sound = each is not None and after <= len(words) and self._fits(each)
            if sound and each is not None:
                yield each
            at = after
        if not sound:
            raise ValueError(f"the program of a scattering layer is damaged at word {at}; freeze the network again")

    def reach(self) -> int:
        """Return the largest magnitude of any number, partial sum or word of the program, by intervals.

        Raises
        ------
        ValueError
            If that is beyond 32 bits, an output could leave 8 bits or is not given, or a plane that is not there is
            read.
        """
        planes: dict[int, tuple[Size, int, int]] = {}
        most = max(255, int(self.program.max(initial=0)), -int(self.program.min(initial=0)) - 1)
        given = set[int]()
        for each in self.instructions():
            if isinstance(each, Load):
                planes[each.target] = each.size, 0, 255
                continue
            size, low, high = planes.get(each.source, ((0, 0), 0, 0))
            if size != each.size:
                raise ValueError(f"{each} of a scattering layer reads a plane that is not there; freeze it again")
            if isinstance(each, Emit):
                if low < each.least or (high - each.least) >> each.shift > 255:
                    raise ValueError(f"an output of a scattering layer from {low} to {high} does not fit 8 bits")
                most, given = max(most, high - each.least), given | set(each.places)
                continue
            if isinstance(each, Filter):
                most = max(most, sum(map(abs, each.taps)) * max(high, -low))
                low, high = filtered(each.taps, low, high)
            elif isinstance(each, Activate):
                low, high = activated(each.kind, low, high)
            else:
                growth = each.window**2 if each.kind == "sum" else 1
                size, low, high = (size[0] // each.stride, size[1] // each.stride), low * growth, high * growth
            planes[each.target] = size, low, high
            most = max(most, high, -low)
        if most > LIMIT:
            raise ValueError(
                f"sums of a scattering layer reach {most}, beyond the {LIMIT} of an int32; use fewer layers or scales"
            )
        if given != set(range(self.outputs)):
            raise ValueError(f"a scattering layer gives {len(given)} of its {self.outputs} outputs; freeze it again")
        return most

    def run(self, codes: UInt8[np.ndarray, "n c h w"], product: object) -> UInt8[np.ndarray, "n d"]:
        """Return the codes of a batch."""
        out = np.zeros((len(codes), self.outputs), np.uint8)
        for start in range(0, len(codes), ROWS):
            self._run(codes[start : start + ROWS], out[start : start + ROWS])
        return out

    def _run(self, codes: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Write the codes of some samples."""
        planes: dict[int, NDArray[np.int32]] = {}
        for each in self.instructions():
            if isinstance(each, Load):
                planes[each.target] = self.loaded(codes[:, each.source])
            elif isinstance(each, Filter):
                parts = (
                    tap * np.roll(planes[each.source], -shift, axis=each.axis + 1)
                    for tap, shift in zip(each.taps, each.shifts, strict=True)
                )
                planes[each.target] = sum(parts, np.zeros((), np.int32))
            elif isinstance(each, Activate):
                planes[each.target] = _activate(planes[each.source], each.kind, each.threshold)
            elif isinstance(each, PlanePool):
                planes[each.target] = _pooled(planes[each.source], each)
            else:
                rows = planes[each.source].reshape(len(codes), -1)[:, each.positions]
                out[:, each.places] = (rows - each.least) >> each.shift

    def loaded(self, codes: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return channels (n, h, w) as planes: zeros behind them, reflected on all sides."""
        edge = self.reflect
        height, width = (length - 2 * edge for length in self.plane)
        behind = ((0, 0), (0, height - codes.shape[1]), (0, width - codes.shape[2]))
        sides = ((0, 0), (edge, edge), (edge, edge))
        return np.pad(np.pad(codes.astype(np.int32), behind), sides, mode="reflect")

    def _framed(self) -> bool:
        """Whether the head is sound."""
        inner = [length - 2 * self.reflect for length in self.plane]
        fits = all(each >= own for each, own in zip(inner, self.shape[1:], strict=True))
        return self.registers >= 1 and 0 <= self.reflect < min(inner) and fits

    def _fits(self, each: Instruction) -> bool:
        """Whether an instruction names what there is."""
        (height, width), planes, own = each.size, self.registers, True
        if isinstance(each, Emit):
            inside = all(0 <= position < height * width for position in each.positions)
            own = inside and all(0 <= place < self.outputs for place in each.places) and 0 <= each.shift < 32
        elif isinstance(each, Load):
            own = each.size == self.plane
        elif isinstance(each, Filter):
            own = each.source != each.target and all(0 <= shift < each.size[each.axis] for shift in each.shifts)
        elif isinstance(each, PlanePool):
            even = each.stride >= 1 and height % each.stride == 0 and width % each.stride == 0
            own = even and each.source != each.target and 1 <= each.window <= min(each.size)
        sources = self.shape[0] if isinstance(each, Load) else planes
        target = 0 if isinstance(each, Emit) else each.target
        size = 1 <= height <= self.plane[0] and 1 <= width <= self.plane[1]
        return size and 0 <= each.source < sources and 0 <= target < planes and own


def activated(kind: str, low: int, high: int) -> tuple[int, int]:
    """Return the least and the largest number that an activation makes of those from low to high.

    Examples
    --------
    >>> activated("abs", -3, 2), activated("step", -3, 2)
    ((0, 3), (0, 1))
    """
    if kind == "abs":
        return (0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))
    return (max(low, 0), max(high, 0)) if kind == "relu" else (0, 1)


def filtered(taps: Sequence[int], low: int, high: int) -> tuple[int, int]:
    """Return the least and the largest number that taps make of those from low to high.

    Examples
    --------
    >>> filtered((2, -1), 0, 3)
    (-3, 6)
    """
    return sum(t * (low if t > 0 else high) for t in taps), sum(t * (high if t > 0 else low) for t in taps)


def _read(words: Sequence[int], at: int) -> tuple[Instruction | None, int]:
    """Return the instruction that begins at a word, None if there is none, and where it ends."""
    code, source, target, height, width, *rest = (*words[at : at + 8], *8 * [-1])[:8]
    size = (height, width)
    if code == 0:
        return Load(source, target, size), at + 5
    if code == 1 and rest[0] in (0, 1) and rest[1] >= 1:
        end = at + 7 + 2 * rest[1]
        taps, shifts = tuple(words[at + 7 : end : 2]), tuple(words[at + 8 : end : 2])
        return Filter(source, target, size, rest[0], taps, shifts), end
    if code == 2 and 0 <= rest[0] < len(ACTIVATIONS):
        return Activate(source, target, size, ACTIVATIONS[rest[0]], rest[1]), at + 7
    if code == 3 and 0 <= rest[0] < len(POOLS):
        return PlanePool(source, target, size, POOLS[rest[0]], rest[1], rest[2]), at + 8
    if code == 4 and rest[2] >= 1:
        end = at + 8 + 2 * rest[2]
        positions, places = tuple(words[at + 8 : end : 2]), tuple(words[at + 9 : end : 2])
        return Emit(source, size, rest[0], rest[1], positions, places), end
    return None, at


def _activate(u: NDArray[np.int32], kind: str, threshold: int) -> NDArray[np.int32]:
    """Apply an activation."""
    if kind == "relu":
        return np.maximum(u, 0)
    size: NDArray[np.int32] = np.abs(u) if kind in ("abs", "edge") else u
    return size if kind == "abs" else (size > threshold).astype(np.int32)


def _pooled(u: NDArray[np.int32], pool: PlanePool) -> NDArray[np.int32]:
    """Pool on the torus."""
    more, every = max(pool.window - pool.stride, 0), slice(None, None, pool.stride)
    around = np.pad(u, ((0, 0), (0, more), (0, more)), mode="wrap")
    length = [size - pool.stride + 1 for size in u.shape[1:]]
    parts = [
        around[:, i : i + length[0], j : j + length[1]][:, every, every]
        for i in range(pool.window)
        for j in range(pool.window)
    ]
    pooled: NDArray[np.int32] = np.maximum.reduce(parts) if pool.kind == "max" else np.add.reduce(parts, dtype=np.int32)
    return pooled
