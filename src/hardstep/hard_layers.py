"""The layer kinds of a HardNet, in plain NumPy: the truth that every faster form must equal.

Between layers travel small unsigned *codes* (one bit after a step). A layer sees the integer *value*
gain * code - zero of each code: 0/1 for a step, -1/+1 for a sign, q - zero point for an 8-bit input.
In residual networks whose sums stay real travel fixed-point numbers as well: `hard_sums.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from hardstep import bits
from hardstep.hard_scatter import Scatter
from hardstep.hard_sums import Bent, Carried, Clip, Rescaled, Residual, Stage, Threshold, Windows
from hardstep.hard_values import Encoding, Product, convolve, count, exact_product, places

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
        return acc + (0 if self.bias is None else self.bias) if self.threshold is None else count(acc, self.threshold)


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
        return (len(self.weight), *places(shape[1:], self.weight.shape[2:], self.stride, self.padding))

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return how many products one sample needs."""
        return self.weight.size * prod(self.out_shape(shape)[1:])

    def run(self, codes: NDArray[np.uint8], product: Product) -> NDArray[Any]:
        """Return the codes of a batch."""
        acc = convolve(self.encoding.value(codes), self.weight, self.stride, self.padding, product)
        return np.ascontiguousarray(count(acc.transpose(0, 2, 3, 1), self.threshold).transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class Pool:
    """The largest code of each window: of bits, their OR."""

    size: tuple[int, int]
    stride: tuple[int, int]

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an output sample."""
        return (shape[0], *places(shape[1:], self.size, self.stride))

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

    def run(self, codes: NDArray[Any], product: Product) -> NDArray[Any]:
        """Return the flattened codes of a batch."""
        return codes.reshape(len(codes), -1)


Layer = Dense | Conv | Pool | Flatten | Scatter | Threshold | Rescaled | Windows | Carried | Clip | Bent | Residual
KINDS: dict[str, type[Layer]] = {kind.__name__: kind for kind in get_args(Layer)}


def weight_bits(weight: NDArray[np.integer[Any]]) -> int:
    """Return the bits a weight takes: 1 if all are -1 or +1, else the two's complement width, at least 2."""
    return 1 if bool((np.abs(weight) == 1).all()) else max(2, bits.width(weight, signed=True))


def numbers(layer: Stage) -> int:
    """Return how many numbers of 32 bits a layer stores beside its weights: thresholds, biases, words of a program."""
    arrays = (value for name, value in vars(layer).items() if name != "weight" and isinstance(value, np.ndarray))
    return sum(_stored(array).nbytes for array in arrays) // 4


def pack_layer(layer: Stage, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Put a layer's arrays into the dictionary and return the rest of it as JSON."""
    meta: dict[str, Any] = {"kind": type(layer).__name__}
    for name, value in vars(layer).items():
        if name == "weight":
            wide = weight_bits(value)
            flat = value.reshape(1, -1)
            arrays[prefix + name] = bits.to_planes((flat > 0).astype(np.int8) if wide == 1 else flat, wide)
            meta |= {"weight_shape": value.shape, "weight_bits": wide}
        elif isinstance(value, Encoding):
            arrays[prefix + "gain"], arrays[prefix + "zero"] = value.gain, value.zero
        elif isinstance(value, np.ndarray):
            arrays[prefix + name] = _stored(value)
        elif isinstance(layer, Residual):
            meta[name] = [pack_layer(part, f"{prefix}{name}.{i}.", arrays) for i, part in enumerate(value)]
        else:
            meta[name] = value
    return meta


def unpack_layer(meta: dict[str, Any], prefix: str, arrays: dict[str, NDArray[Any]]) -> Layer:
    """Make a layer from what `pack_layer` returned."""
    kind = KINDS[meta["kind"]]
    own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    fields: dict[str, Any] = {name: array.astype(np.int64) for name, array in own.items() if "." not in name}
    fields |= {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in meta.items()
        if name not in ("kind", "weight_shape", "weight_bits")
    }
    if "weight_shape" in meta:
        wide, shape = meta["weight_bits"], meta["weight_shape"]
        flat = bits.from_planes(own["weight"], prod(shape), signed=wide > 1)
        weight = 2 * flat - 1 if wide == 1 else flat
        fields["weight"] = weight.reshape(shape).astype(np.int8 if wide <= 8 else np.int16)
        fields["encoding"] = Encoding(fields.pop("gain"), fields.pop("zero"))
    if kind is Residual:
        for name in ("body", "shortcut"):
            parts = enumerate(meta[name])
            fields[name] = tuple(unpack_layer(part, f"{prefix}{name}.{i}.", arrays) for i, part in parts)
    layer: Layer = kind(**fields)
    return layer


def _stored(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in 32 bits, or in 64 where it needs them."""
    narrow = array.astype(np.int32)
    return narrow if np.array_equal(narrow, array) else array
