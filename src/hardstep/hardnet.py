"""HardNet: a frozen network in integers. Its plain NumPy forward pass is the truth for every deployed form.

Between layers travel small unsigned *codes* (one bit after a step). A layer sees the integer *value*
gain * code - zero of each code: 0/1 for a step, -1/+1 for a sign, q - zero point for an 8-bit input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, Integer
from numpy.typing import NDArray

from hardstep import bits
from hardstep.grid import Grid
from hardstep.storage import read_arrays, write_arrays

__all__ = ["Conv", "Dense", "Encoding", "Flatten", "HardNet", "Pool", "Product", "Rounding", "exact_product"]

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
        values = self.encoding.value(codes)
        values = np.pad(values, [(0, 0), (0, 0), *((pad, pad) for pad in self.padding)])
        windows = np.lib.stride_tricks.sliding_window_view(values, self.weight.shape[2:], axis=(2, 3))
        windows = windows[:, :, :: self.stride[0], :: self.stride[1]].transpose(0, 2, 3, 1, 4, 5)
        n, height, width = windows.shape[:3]
        acc = product(windows.reshape(n * height * width, -1), self.weight.reshape(len(self.weight), -1))
        out = _count(acc, self.threshold).reshape(n, height, width, -1)
        return np.ascontiguousarray(out.transpose(0, 3, 1, 2))


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


Layer = Dense | Conv | Pool | Flatten
KINDS: dict[str, type[Layer]] = {kind.__name__: kind for kind in (Dense, Conv, Pool, Flatten)}


class Row(NamedTuple):
    """A layer in numbers: shapes, weights and their bits, thresholds and biases, bytes, products a sample needs."""

    layer: str
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    weights: int
    bits: int
    numbers: int
    nbytes: int
    macs: int


@dataclass(frozen=True)
class Rounding:
    """What freezing changed on the calibration rows, against the float network.

    Step outputs are counted where the next layer reads them, after pooling; predictions are arg-maxima
    (0 of 0 for regression).
    """

    rows: int
    step_outputs: int
    steps_changed: int
    predictions_changed: int

    def __str__(self) -> str:
        share = self.steps_changed / max(self.step_outputs, 1)
        return (
            f"{self.steps_changed} of {self.step_outputs} step outputs ({share:.3%}) and "
            f"{self.predictions_changed} of {self.rows} predictions changed by rounding"
        )


@dataclass(frozen=True, eq=False)
class HardNet:
    """An exact integer network: 8-bit input codes, layers of integer weights and thresholds, integer scores.

    Parameters
    ----------
    shape
        Shape of one sample.
    grid
        How input numbers become codes.
    layers
        The layers; the last one is a `Dense` without thresholds.
    scale
        Value of one unit of the scores in the float network's outputs.
    rounding
        What freezing changed; None if it was not measured.

    References
    ----------
    Jacob et al. 2018 [jacob2018], integer inference. Differs: no requantisation, only thresholds; normalisation
    is folded into them as in Umuroglu et al. 2017, Sec. 4 [umuroglu2017].
    """

    shape: tuple[int, ...]
    grid: Grid
    layers: tuple[Layer, ...]
    scale: float = 1.0
    rounding: Rounding | None = None

    def __call__(self, x: NDArray[Any], *, product: Product = exact_product) -> Int64[np.ndarray, "n k"]:
        """Return the integer scores of samples, given as codes (uint8) or as numbers (floats)."""
        scores: NDArray[np.int64]
        *_, scores = self.trace(x, product=product)
        return scores

    def trace(self, x: NDArray[Any], *, product: Product = exact_product) -> Iterator[NDArray[Any]]:
        """Yield the output of every layer, the scores last."""
        codes = self.codes(x)
        for layer in self.layers:
            codes = layer.run(codes, product)
            yield codes

    def codes(self, x: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the input codes of samples.

        Raises
        ------
        ValueError
            If the samples have another shape or hold NaN.
        """
        x = np.asarray(x)
        if x.shape[1:] != self.shape:
            raise ValueError(f"samples of shape {x.shape[1:]} do not fit a network for {self.shape}; reshape them")
        return x if x.dtype == np.uint8 else self.grid.code(x)

    def predict(self, x: NDArray[Any]) -> Int64[np.ndarray, " n"]:
        """Return the label of each sample: the smallest index among the highest scores."""
        labels: NDArray[np.int64] = self(x).argmax(axis=1)
        return labels

    def rows(self) -> list[Row]:
        """Return one line per layer."""
        shape, rows = self.shape, []
        for layer in self.layers:
            after = layer.out_shape(shape)
            weight = layer.weight if isinstance(layer, Dense | Conv) else np.zeros(0, np.int8)
            wide = weight_bits(weight) if weight.size else 0
            numbers = _numbers(layer)
            nbytes = -(-weight.size * wide // 8) + 4 * numbers
            rows.append(Row(type(layer).__name__, shape, after, weight.size, wide, numbers, nbytes, layer.macs(shape)))
            shape = after
        return rows

    @property
    def nbytes(self) -> int:
        """Bytes of all weights at their width and of all thresholds and biases at 32 bits."""
        return sum(row.nbytes for row in self.rows())

    @property
    def macs(self) -> int:
        """Products of a weight and an input that one sample needs; with bits they are selections."""
        return sum(row.macs for row in self.rows())

    def summary(self) -> str:
        """Return the layers as a text table, with totals and the size as float32 and int8."""
        rows = self.rows()
        lines = [Row._fields, *([_cell(value) for value in row] for row in rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(Row._fields))]
        text = [
            "  ".join(
                f"{cell:{'<' if i < 3 else '>'}{w}}" for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        weights, others = sum(row.weights for row in rows), sum(row.numbers for row in rows)
        text.append(f"total: {self.nbytes:,} bytes, {self.macs:,} MACs a sample")
        text.append(f"as int8: {weights + 4 * others:,} bytes, as float32: {4 * (weights + others):,} bytes")
        if self.rounding is not None:
            text.append(str(self.rounding))
        return "\n".join(text)

    def save(self, path: Path | str) -> None:
        """Write the network, its weights packed to their width; the file appears whole or not at all."""
        arrays: dict[str, NDArray[Any]] = {"grid.scale": self.grid.scale, "grid.zero": self.grid.zero}
        meta = []
        for i, layer in enumerate(self.layers):
            meta.append({"kind": type(layer).__name__, **_pack_layer(layer, f"{i}.", arrays)})
        head = {
            "shape": self.shape,
            "scale": self.scale,
            "layers": meta,
            "rounding": None if self.rounding is None else vars(self.rounding),
        }
        write_arrays(Path(path), arrays, head, "hardnet")

    @classmethod
    def load(cls, path: Path | str) -> HardNet:
        """Read a network back, bit for bit.

        Raises
        ------
        ValueError
            If the file is damaged, of another kind or of another format.
        """
        arrays, head = read_arrays(Path(path), "hardnet")
        rounding = None if head["rounding"] is None else Rounding(**head["rounding"])
        layers = tuple(_unpack_layer(meta, f"{i}.", arrays) for i, meta in enumerate(head["layers"]))
        grid = Grid(arrays["grid.scale"], arrays["grid.zero"])
        return cls(tuple(head["shape"]), grid, layers, head["scale"], rounding)


def weight_bits(weight: NDArray[np.integer[Any]]) -> int:
    """Return the bits a weight takes: 1 if all are -1 or +1, else the two's complement width."""
    return 1 if bool((np.abs(weight) == 1).all()) else bits.width(weight, signed=True)


def _cell(value: str | int | tuple[int, ...]) -> str:
    """Return a table cell."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else value


def _count(acc: NDArray[np.int64], threshold: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return how many of each unit's thresholds lie below its sum."""
    count = np.zeros(acc.shape, np.uint8)
    for stair in threshold.T:
        count += acc > stair
    return count


def _numbers(layer: Layer) -> int:
    """Return how many thresholds and biases a layer stores."""
    if not isinstance(layer, Dense | Conv):
        return 0
    bias = layer.bias if isinstance(layer, Dense) else None
    return sum(array.size for array in (layer.threshold, bias) if array is not None)


def _pack_layer(layer: Layer, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
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


def _unpack_layer(meta: dict[str, Any], prefix: str, arrays: dict[str, NDArray[Any]]) -> Layer:
    """Make a layer from what `_pack_layer` returned."""
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
        for name in ("threshold", "bias"):
            if prefix + name in arrays:
                fields[name] = arrays[prefix + name].astype(np.int64)
    layer: Layer = kind(**fields)
    return layer
