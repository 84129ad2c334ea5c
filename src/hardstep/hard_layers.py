"""The layer kinds of a HardNet, in plain NumPy: the truth that every faster form must equal.

Between layers travel small unsigned *codes* (one bit after a step). A layer sees the integer *value*
gain * code - zero of each code: 0/1 for a step, -1/+1 for a sign, q - zero point for an 8-bit input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer
from numpy.typing import NDArray

from hardstep import bits
from hardstep.hard_scatter import Scatter

__all__ = [
    "Conv",
    "Dense",
    "Encoding",
    "Flatten",
    "Layer",
    "Pool",
    "Product",
    "convolve",
    "exact_product",
    "numbers",
    "pack_layer",
    "unpack_layer",
    "weight_bits",
]

Product = Callable[[NDArray[np.int64], NDArray[np.integer[Any]]], NDArray[np.int64]]
"""Integer matrix product: values (n, d) and weights (k, d) to sums (n, k)."""


def exact_product(values: Int64[np.ndarray, "n d"], weight: Integer[np.ndarray, "k d"]) -> Int64[np.ndarray, "n k"]:
    """Multiply integer matrices exactly through floats wide enough for every partial sum.

    Raises
    ------
    ValueError
        If a sum could reach 2^53.
    """
    bound = int(np.abs(values).max(initial=0)) * int(np.abs(weight.astype(np.int64)).sum(axis=1).max(initial=0))
    if bound >= 2**53:
        raise ValueError(f"a sum could reach {bound}, beyond the exact range 2^53; use fewer weight bits")
    kind = np.float32 if bound < 2**24 else np.float64
    sums: NDArray[np.int64] = (values.astype(kind) @ weight.T.astype(kind)).astype(np.int64)
    return sums


def convolve(
    values: NDArray[np.int64],
    weight: NDArray[np.integer[Any]],
    stride: tuple[int, int],
    padding: tuple[int, int],
    product: Product = exact_product,
) -> Int64[np.ndarray, "n k h w"]:
    """Return the sums of images (n, c, h, w) by kernels (k, c, i, j) at every position; padding is the value 0."""
    values = np.pad(values, [(0, 0), (0, 0), *((pad, pad) for pad in padding)])
    windows = np.lib.stride_tricks.sliding_window_view(values, weight.shape[2:], axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1]].transpose(0, 2, 3, 1, 4, 5)
    n, height, width = windows.shape[:3]
    acc = product(windows.reshape(n * height * width, -1), weight.reshape(len(weight), -1))
    return acc.reshape(n, height, width, -1).transpose(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class Encoding:
    """What a code is worth to a layer: value = gain * code - zero; integers that broadcast against one sample."""

    gain: NDArray[np.int64] = field(default_factory=lambda: np.array(1))
    zero: NDArray[np.int64] = field(default_factory=lambda: np.array(0))

    def value(self, codes: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the integers that the codes stand for."""
        return codes.astype(np.int64) * self.gain - self.zero

    def flat(self, shape: tuple[int, ...]) -> Encoding:
        """Return the encoding of the flattened sample."""
        return Encoding(*(a if a.ndim == 0 else np.broadcast_to(a, shape).reshape(-1) for a in (self.gain, self.zero)))

    def take(self, kept: NDArray[np.intp], units: int, shape: tuple[int, ...]) -> Encoding:
        """Return the encoding of samples of this shape when only some of their units (channels) are left."""
        return Encoding(
            *(
                a if a.ndim < len(shape) or len(a) == 1 else a.reshape(units, -1)[kept].reshape(-1, *a.shape[1:])
                for a in (self.gain, self.zero)
            )
        )


@dataclass(frozen=True, eq=False)
class Dense:
    """Sums acc = weight @ value; the code of unit j is the number of its thresholds below acc_j.

    Without thresholds (`threshold` is None) it is the read-out: its output are the sums plus `bias`.
    """

    weight: NDArray[np.integer[Any]]  # (k, d)
    threshold: NDArray[np.int64] | None  # (k, stairs), ascending
    encoding: Encoding = field(default_factory=Encoding)
    bias: NDArray[np.int64] | None = None  # (k,)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""
        return (len(self.weight),)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return how many products one sample needs."""
        return self.weight.size

    def run(self, codes: NDArray[np.uint8], product: Product) -> NDArray[Any]:
        """Return the codes (or scores) of a batch."""
        acc = product(self.encoding.value(codes), self.weight)
        return acc + (0 if self.bias is None else self.bias) if self.threshold is None else _count(acc, self.threshold)


@dataclass(frozen=True, eq=False)
class Conv:
    """A convolution with thresholds; padding is the value 0, whatever its code."""

    weight: NDArray[np.integer[Any]]  # (k, c, height, width)
    threshold: NDArray[np.int64]  # (k, stairs), ascending
    encoding: Encoding = field(default_factory=Encoding)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""
        sizes = zip(shape[1:], self.weight.shape[2:], self.stride, self.padding, strict=True)
        return (len(self.weight), *((size + 2 * pad - kernel) // step + 1 for size, kernel, step, pad in sizes))

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return how many products one sample needs."""
        return self.weight.size * prod(self.out_shape(shape)[1:])

    def run(self, codes: NDArray[np.uint8], product: Product) -> NDArray[Any]:
        """Return the codes of a batch."""
        acc = convolve(self.encoding.value(codes), self.weight, self.stride, self.padding, product)
        return np.ascontiguousarray(_count(acc.transpose(0, 2, 3, 1), self.threshold).transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class Pool:
    """The largest code of each window: of bits, their OR."""

    size: tuple[int, int]
    stride: tuple[int, int]

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""
        sizes = zip(shape[1:], self.size, self.stride, strict=True)
        return (shape[0], *((size - window) // step + 1 for size, window, step in sizes))

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return 0."""
        return 0

    def run(self, codes: NDArray[np.uint8], product: Product) -> NDArray[Any]:
        """Return the pooled codes of a batch."""
        windows = np.lib.stride_tricks.sliding_window_view(codes, self.size, axis=(2, 3))
        pooled: NDArray[np.uint8] = windows[:, :, :: self.stride[0], :: self.stride[1]].max(axis=(4, 5))
        return pooled


@dataclass(frozen=True)
class Flatten:
    """Lay the codes of a sample in one row, channels first."""

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""
        return (prod(shape),)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return 0."""
        return 0

    def run(self, codes: NDArray[np.uint8], product: Product) -> NDArray[Any]:
        """Return the flattened codes of a batch."""
        return codes.reshape(len(codes), -1)


Layer = Dense | Conv | Pool | Flatten | Scatter
KINDS: dict[str, type[Layer]] = {kind.__name__: kind for kind in (Dense, Conv, Pool, Flatten, Scatter)}


def weight_bits(weight: NDArray[np.integer[Any]]) -> int:
    """Return the bits a weight takes: 1 if all are -1 or +1, else the two's complement width, at least 2."""
    return 1 if bool((np.abs(weight) == 1).all()) else max(2, bits.width(weight, signed=True))


def numbers(layer: Layer) -> int:
    """Return how many thresholds and biases a layer stores, or words of its program."""
    if isinstance(layer, Scatter):
        return layer.program.size
    if not isinstance(layer, Dense | Conv):
        return 0
    bias = layer.bias if isinstance(layer, Dense) else None
    return sum(array.size for array in (layer.threshold, bias) if array is not None)


def pack_layer(layer: Layer, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Put a layer's arrays into the dictionary and return the rest of it as JSON."""
    meta: dict[str, Any] = {}
    for name, value in vars(layer).items():
        if name == "weight":
            wide = weight_bits(value)
            flat = value.reshape(1, -1)
            arrays[prefix + name] = bits.to_planes((flat > 0).astype(np.int8) if wide == 1 else flat, wide)
            meta |= {"weight_shape": value.shape, "weight_bits": wide}
        elif isinstance(value, Encoding):
            arrays[prefix + "gain"], arrays[prefix + "zero"] = value.gain, value.zero
        elif isinstance(value, np.ndarray):
            arrays[prefix + name] = value.astype(np.int32)
        else:
            meta[name] = value
    return meta


def unpack_layer(meta: dict[str, Any], prefix: str, arrays: dict[str, NDArray[Any]]) -> Layer:
    """Make a layer from what `pack_layer` returned."""
    kind = KINDS[meta["kind"]]
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in meta.items()
        if name not in ("kind", "weight_shape", "weight_bits")
    }
    if "weight_shape" in meta:
        wide, shape = meta["weight_bits"], meta["weight_shape"]
        flat = bits.from_planes(arrays[prefix + "weight"], prod(shape), signed=wide > 1)
        weight = 2 * flat - 1 if wide == 1 else flat
        fields["weight"] = weight.reshape(shape).astype(np.int8 if wide <= 8 else np.int16)
        fields["encoding"] = Encoding(arrays[prefix + "gain"], arrays[prefix + "zero"])
    for name in ("threshold", "bias", "program"):
        if prefix + name in arrays:
            fields[name] = arrays[prefix + name].astype(np.int64)
    layer: Layer = kind(**fields)
    return layer


def _count(acc: NDArray[np.int64], threshold: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return how many of each unit's thresholds lie below its sum."""
    count = np.zeros(acc.shape, np.uint8)
    for stair in threshold.T:
        count += acc > stair
    return count
