"""Layers on real sums in fixed point as standard ONNX: int64 numbers, exact in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardstep.export.onnx_graph import Graph, Value
from hardstep.export.onnx_integers import count, integer_sums, row_gcd
from hardstep.hard_layers import Conv, Flatten, Pool
from hardstep.hard_sums import Bent, Carried, Clip, Rescaled, Residual, Stage, Threshold, Windows
from hardstep.hardnet import HardNet
from hardstep.lowered import Sums, as_image, lowered_map, on_codes

__all__ = ["fixed_point_scores"]

INT64 = 7  # TensorProto's number
FAR = 2**62  # beyond every product: Div rounds towards 0, and towards the smaller number behind this shift
LIMIT = 2**31 - 1


def fixed_point_scores(graph: Graph, codes: Value, hard: HardNet) -> Value:
    """Add the layers of a network with real sums; return its scores in int64.

    Raises
    ------
    ValueError
        If a layer cannot be written; it is named.
    """
    return _Writer(graph).way("layer", hard.layers, codes, 255)[0]


class _Writer:
    """Adds layers one by one. A `top` of 0 says that numbers are at hand, not codes up to `top`."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def way(self, name: str, layers: Iterable[Stage], value: Value, top: int) -> tuple[Value, int]:
        """Add layers one behind the other."""
        for i, layer in enumerate(layers):
            value, top = self._layer(f"{name} {i}", layer, value, top)
        return value, top

    def _layer(self, name: str, layer: Stage, value: Value, top: int) -> tuple[Value, int]:
        if top and isinstance(layer, Conv | Pool):
            return self._codes(name, layer, value, top)
        if isinstance(layer, Flatten):
            return self.graph.row(value), top
        if isinstance(layer, Threshold):
            return count(self.graph, value, layer.threshold[:, :, None, None]), layer.threshold.shape[1]
        if isinstance(layer, Rescaled):
            out = self._of_codes(name, layer, value, top) if top else self._of_sums(name, layer, value)
        elif isinstance(layer, Residual):
            body, _ = self.way(f"{name}, body", layer.body, value, 0)
            shortcut, _ = self.way(f"{name}, shortcut", layer.shortcut, value, 0)
            out = self._op("Add", body, shortcut.name)
        elif isinstance(layer, Windows):
            out = self._windows(layer, value)
        elif isinstance(layer, Carried):
            out = self._carried(layer, value)
        elif isinstance(layer, Bent):
            out = self._bent(layer, value)
        elif isinstance(layer, Clip):
            out = self._op("Clip", value, self._whole(layer.low), self._whole(layer.high))
        else:
            raise ValueError(f"{name} ({type(layer).__name__}) has no form in ONNX between layers with real sums")
        return out, 0

    def _codes(self, name: str, layer: Conv | Pool, value: Value, top: int) -> tuple[Value, int]:
        """Add a layer from codes to codes."""
        if isinstance(layer, Pool):
            return self.graph.pool(value, layer), top
        sums = lowered_map(name, layer, as_image(value.shape), top)
        assert sums.threshold is not None
        given = count(self.graph, integer_sums(self.graph, value, sums), sums.threshold.astype(np.int32))
        return self.graph.image(given, sums.out_shape), sums.stairs

    def _of_codes(self, name: str, layer: Rescaled, value: Value, top: int) -> Value:
        """Rescale sums of codes: 8-bit products, from there on int64."""
        shape = as_image(value.shape)
        weight, moved, (stride, padding) = on_codes(name, layer, shape)
        zeros = np.zeros(len(weight), np.int64)
        sums = Sums(name, shape, top, weight, None, zeros, stride, padding)
        if (span := sums.largest - sums.least) > LIMIT:
            raise ValueError(f"{name} sums {sums.terms} codes and could span {span}, beyond the {LIMIT} of an int32")
        acc = integer_sums(self.graph, value, sums)
        acc = Value(self.graph.add("Cast", [acc.name], {"to": INT64}), acc.shape)
        if len(layer.out_shape(value.shape)) == 3:
            acc = self.graph.image(acc, sums.out_shape)
        offset = layer.offset[:, None, None] - layer.multiplier[:, None, None] * moved
        return self._rescaled(layer, acc, layer.multiplier * row_gcd(weight), offset)

    def _of_sums(self, name: str, layer: Rescaled, value: Value) -> Value:
        """Rescale sums of numbers: a matrix product in int64, at every place."""
        matrix = self.graph.constant(layer.weight.reshape(len(layer.weight), -1).T.astype(np.int64), "weight")
        if layer.weight.ndim == 4:
            if layer.weight.shape[2:] != (1, 1) or layer.stride != (1, 1) or layer.padding != (0, 0):
                raise ValueError(
                    f"{name} is a convolution of real sums with kernel {layer.weight.shape[2:]}; ONNX takes 1x1 with "
                    "stride 1; put a step before it"
                )
            last = self.graph.add("Transpose", [value.name], {"perm": (0, 2, 3, 1)})
            acc = self.graph.add("MatMul", [last, matrix])
            acc = self.graph.add("Transpose", [acc], {"perm": (0, 3, 1, 2)})
        else:
            acc = self.graph.add("MatMul", [value.name, matrix])
        offset = layer.offset[:, None, None]
        return self._rescaled(layer, Value(acc, layer.out_shape(value.shape)), layer.multiplier, offset)

    def _rescaled(self, layer: Rescaled, acc: Value, by: NDArray[np.int64], offset: NDArray[np.int64]) -> Value:
        flat = len(acc.shape) == 1
        product = self._op("Mul", acc, self._whole(by if flat else by[:, None, None]))
        out = self._shifted(product, offset[:, 0, 0] if flat else offset, layer.shift)
        if layer.bounds is not None:
            for kind, end in zip(("Max", "Min"), layer.bounds.T, strict=True):
                out = self._op(kind, out, self._whole(end if flat else end[:, None, None]))
        return out

    def _shifted(self, value: Value, offset: NDArray[np.int64] | int, shift: int) -> Value:
        """Add the offset and shift to the right: floor((x + 2^62) / 2^s) - 2^(62 - s)."""
        moved = self._op("Add", value, self._whole(np.asarray(offset) + FAR))
        divided = self._op("Div", moved, self._whole(1 << shift))
        return self._op("Sub", divided, self._whole(FAR >> shift))

    def _windows(self, layer: Windows, value: Value) -> Value:
        shape = layer.out_shape(value.shape)
        name, (top, bottom, left, right) = value.name, layer.padding
        if any(layer.padding):
            pads = self._whole(np.array([0, 0, top, left, 0, 0, bottom, right]))
            name = self.graph.add("Pad", [name, pads], {"mode": "edge"})
        if layer.total and layer.size == value.shape[1:] and not any(layer.padding):
            return Value(self.graph.add("ReduceSum", [name, self._whole(np.array([2, 3]))], {"keepdims": 1}), shape)
        parts = [
            self._places(name, (i, j), (shape[1], shape[2]), layer.stride)
            for i in range(layer.size[0])
            for j in range(layer.size[1])
        ]
        found = parts[0]
        for part in parts[1:]:
            found = self.graph.add("Add" if layer.total else "Max", [found, part])
        return Value(found, shape)

    def _places(self, name: str, start: tuple[int, int], many: tuple[int, int], stride: tuple[int, int]) -> str:
        """Take every stride-th place, so many."""
        ends = [at + (count - 1) * step + 1 for at, count, step in zip(start, many, stride, strict=True)]
        bounds = [self._whole(np.array(a)) for a in (start, ends, (2, 3), stride)]
        return self.graph.add("Slice", [name, *bounds])

    def _carried(self, layer: Carried, value: Value) -> Value:
        shape = layer.out_shape(value.shape)
        name = self._places(value.name, (0, 0), (shape[1], shape[2]), (layer.stride, layer.stride))
        before, behind = layer.channels
        return Value(self.graph.add("Pad", [name, self._whole(np.array([0, before, 0, 0, 0, behind, 0, 0]))]), shape)

    def _bent(self, layer: Bent, value: Value) -> Value:
        wide = (-1, *[1] * (len(value.shape) - 1))
        knee, slope, lift = (self._whole(a.reshape(wide)) for a in (layer.knee, layer.slope, layer.lift))
        t = self._op("Sub", value, knee)
        low = self._shifted(self._op("Mul", t, slope), layer.half, layer.shift)
        above = self.graph.add("Greater", [t.name, self._whole(0)])
        return self._op("Add", Value(self.graph.add("Where", [above, t.name, low.name]), value.shape), lift)

    def _op(self, kind: str, value: Value, *others: str) -> Value:
        """Add an operation that keeps the shape."""
        return Value(self.graph.add(kind, [value.name, *others]), value.shape)

    def _whole(self, a: Any) -> str:
        return self.graph.constant(np.asarray(a, np.int64), "whole")
