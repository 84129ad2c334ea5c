"""Layer kinds of residual networks whose sums stay real: fixed-point numbers travel between them, not codes.

A number S stands for S 2^-f, with one f a network. Every S fits 32 bits, as `ends` proves when a network is frozen;
products inside a layer take 64. Only three things round, each to the nearest whole S: what a convolution adds
(`Rescaled`), the bent side of a `Bent`, and the constants of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hardstep.hard_values import Encoding, Product, convolve, count, places

__all__ = ["Bent", "Carried", "Clip", "Ends", "Rescaled", "Residual", "Stage", "Threshold", "Windows"]

Ends = tuple[NDArray[np.int64], NDArray[np.int64]]
"""The least and the largest number that each channel can hold."""


@runtime_checkable
class Stage(Protocol):
    """What a layer kind can do."""

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return how many products one sample needs."""

    def run(self, codes: NDArray[Any], product: Product) -> NDArray[Any]:
        """Return what comes out for a batch."""


@dataclass(frozen=True, eq=False)
class Threshold:
    """The code of a number is how many of its channel's thresholds lie below it."""

    threshold: NDArray[np.int64]  # (c, stairs), ascending

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""
        return shape

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return 0."""
        return 0

    def run(self, codes: NDArray[Any], product: Product) -> NDArray[Any]:
        """Return the codes of a batch of numbers."""
        return np.ascontiguousarray(np.moveaxis(count(np.moveaxis(codes, 1, -1), self.threshold), -1, 1))

    def ends(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> Ends:
        """Return the least and the largest code."""
        return np.zeros_like(low), np.full_like(high, self.threshold.shape[1])


@dataclass(frozen=True, eq=False)
class Rescaled:
    """Sums acc = weight @ value in fixed point: S = (multiplier acc + offset) >> shift, then clipped to `bounds`.

    The multiplier of a unit is its gain in units of S, the offset holds its constant and the half that makes the
    shift round to the nearest; the bounds are those of a ReLU in between. It reads codes or numbers. Weights
    (k, c, height, width) are a convolution, whose padding is the value 0; weights (k, d) read rows.
    """

    weight: NDArray[np.integer[Any]]
    multiplier: NDArray[np.int64]  # (k,)
    offset: NDArray[np.int64]  # (k,)
    shift: int
    bounds: NDArray[np.int64] | None = None  # (k, 2)
    encoding: Encoding = field(default_factory=Encoding)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""
        if self.weight.ndim == 2:
            return (len(self.weight),)
        return (len(self.weight), *places(shape[1:], self.weight.shape[2:], self.stride, self.padding))

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return how many products one sample needs."""
        return self.weight.size * prod(self.out_shape(shape)[1:])

    def run(self, codes: NDArray[Any], product: Product) -> NDArray[Any]:
        """Return the numbers of a batch."""
        value = self.encoding.value(codes)
        if self.weight.ndim == 2:
            return self._rescale(product(value, self.weight))
        return self._rescale(convolve(value, self.weight, self.stride, self.padding, product))

    def sums(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> Ends:
        """Return the least and the largest sum of each unit, before it is rescaled."""
        wide = (-1, *[1] * (self.weight.ndim - 2))
        one, other = (self.encoding.value(end.reshape(wide)) for end in (low, high))
        least, most = np.minimum(one, other), np.maximum(one, other)
        if any(self.padding):
            least, most = np.minimum(least, 0), np.maximum(most, 0)
        axes, weight = tuple(range(1, self.weight.ndim)), self.weight.astype(np.int64)
        up, down = np.maximum(weight, 0), np.minimum(weight, 0)
        return (up * least + down * most).sum(axis=axes), (up * most + down * least).sum(axis=axes)

    def ends(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> Ends:
        """Return the least and the largest number of each unit."""
        one, other = (self._rescale(end[None])[0] for end in self.sums(low, high))
        return np.minimum(one, other), np.maximum(one, other)

    def _rescale(self, acc: NDArray[np.int64]) -> NDArray[np.int64]:
        wide = (-1, *[1] * (acc.ndim - 2))
        out: NDArray[np.int64] = acc * self.multiplier.reshape(wide) + self.offset.reshape(wide) >> self.shift
        return out if self.bounds is None else np.clip(out, *(end.reshape(wide) for end in self.bounds.T))


@dataclass(frozen=True)
class Windows:
    """The largest number of each window, or the total; outside the border (top, bottom, left, right) it is repeated."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    total: bool = False

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""
        padded = (shape[1] + sum(self.padding[:2]), shape[2] + sum(self.padding[2:]))
        return (shape[0], *places(padded, self.size, self.stride))

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return 0."""
        return 0

    def run(self, codes: NDArray[Any], product: Product) -> NDArray[Any]:
        """Return one number a window."""
        padded = np.pad(codes, [(0, 0), (0, 0), self.padding[:2], self.padding[2:]], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.size, axis=(2, 3))
        windows = windows[:, :, :: self.stride[0], :: self.stride[1]]
        found: NDArray[np.int64] = windows.sum(axis=(4, 5)) if self.total else windows.max(axis=(4, 5))
        return found

    def ends(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> Ends:
        """Return the least and the largest number of each channel."""
        many = prod(self.size) if self.total else 1
        return low * many, high * many


@dataclass(frozen=True)
class Carried:
    """The numbers at every stride-th place, with so many channels of zeros before and behind."""

    stride: int
    channels: tuple[int, int]

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""
        return (shape[0] + sum(self.channels), *(-(-size // self.stride) for size in shape[1:]))

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return 0."""
        return 0

    def run(self, codes: NDArray[Any], product: Product) -> NDArray[Any]:
        """Return the numbers that are left, between zeros."""
        kept: NDArray[Any] = codes[:, :, :: self.stride, :: self.stride]
        return np.pad(kept, [(0, 0), self.channels, (0, 0), (0, 0)])

    def ends(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> Ends:
        """Return the least and the largest number of each channel."""
        return np.pad(low, self.channels), np.pad(high, self.channels)


@dataclass(frozen=True)
class Clip:
    """Numbers no less than `low` and no more than `high`."""

    low: int
    high: int

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""
        return shape

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return 0."""
        return 0

    def run(self, codes: NDArray[Any], product: Product) -> NDArray[Any]:
        """Return the clipped numbers."""
        clipped: NDArray[Any] = np.clip(codes, self.low, self.high)
        return clipped

    def ends(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> Ends:
        """Return the least and the largest number of each channel."""
        return np.clip(low, self.low, self.high), np.clip(high, self.low, self.high)


@dataclass(frozen=True, eq=False)
class Bent:
    """Numbers bent at a knee: with t = S - knee, t + lift where t > 0, else (slope t, shifted and rounded) + lift."""

    knee: NDArray[np.int64]  # (c,)
    slope: NDArray[np.int64]  # (c,)
    shift: int
    lift: NDArray[np.int64]  # (c,)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""
        return shape

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return one product a number."""
        return prod(shape)

    def run(self, codes: NDArray[Any], product: Product) -> NDArray[Any]:
        """Return the bent numbers."""
        wide = (-1, *[1] * (codes.ndim - 2))
        knee, slope, lift = (a.reshape(wide) for a in (self.knee, self.slope, self.lift))
        t = codes - knee
        out: NDArray[np.int64] = np.where(t > 0, t, slope * t + self.half >> self.shift) + lift
        return out

    @property
    def half(self) -> int:
        """Half of what the shift divides by."""
        return 1 << self.shift >> 1

    def ends(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> Ends:
        """Return the least and the largest number of each channel: at an end, or at the knee."""
        found = self.run(np.stack([low, high, np.clip(self.knee, low, high)]), np.matmul)
        return found.min(axis=0), found.max(axis=0)


@dataclass(frozen=True)
class Residual:
    """The sum of what two ways make of the same numbers; an empty way hands them on."""

    body: tuple[Stage, ...]
    shortcut: tuple[Stage, ...]

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""
        for layer in self.body:
            shape = layer.out_shape(shape)
        return shape

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return 0: products are counted where they are, in the layers of both ways."""
        return 0

    def run(self, codes: NDArray[Any], product: Product) -> NDArray[Any]:
        """Return the sums of a batch."""
        *_, (_, out) = self.trace(codes, product)
        return out

    def trace(self, numbers: NDArray[Any], product: Product) -> Iterator[tuple[Stage, NDArray[Any]]]:
        """Yield every layer of both ways with its output, then the block itself with the sum."""
        ends = []
        for way in (self.body, self.shortcut):
            out = numbers
            for layer in way:
                out = layer.run(out, product)
                yield layer, out
            ends.append(out)
        yield self, ends[0] + ends[1]
