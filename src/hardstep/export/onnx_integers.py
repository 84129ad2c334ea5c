"""Exact 8-bit products and counts of thresholds in standard ONNX, for layers on codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardstep.export.onnx_graph import INT32, UINT8, Graph, Value, is_dense, linear
from hardstep.lowered import Sums

__all__ = ["count", "integer_sums", "row_gcd"]

PAIR = 2**15 - 1  # two products that x86 without VNNI adds in 16 bits, saturating
DIGIT = 6  # bits of a digit: 2 * 255 * 63 stays within a pair


def integer_sums(graph: Graph, codes: Value, layer: Sums) -> Value:
    """Add a layer's sums in int32; of a read-out over the gcd of each row."""
    weight = layer.weight
    if layer.threshold is None:
        weight = weight // row_gcd(weight)[:, None, None, None]
    total: Value | None = None
    for factor, part, shifted in _parts(weight, layer):
        # older runtimes crash on a convolution that gives the weights' zero point only
        zero = [graph.constant(np.array(at, np.uint8), "zero") for at in (0, 128)] if shifted else []
        acc = linear(graph, codes, layer, part, "Integer", zero)
        if factor > 1:
            acc = Value(graph.add("Mul", [acc.name, graph.constant(np.array(factor, np.int32), "factor")]), acc.shape)
        total = acc if total is None else Value(graph.add("Add", [total.name, acc.name]), acc.shape)
    assert total is not None
    return total


def _parts(weight: NDArray[np.int64], layer: Sums) -> list[tuple[int, NDArray[np.integer[Any]], bool]]:
    """Return 8-bit weights with their factors, and whether 128 is added to them; see `to_onnx` for why it is exact."""
    magnitude = np.abs(weight)
    most = int(magnitude.max(initial=0))
    pairs_fit = 2 * layer.top * most <= PAIR
    shifts_fit = 255 * layer.top * layer.terms < 2**31
    parts = [(1, weight)]
    if weight.min(initial=0) < -128 or weight.max(initial=0) > 127 or not (pairs_fit or shifts_fit):
        places = range(0, most.bit_length(), DIGIT)
        parts = [(1 << at, np.sign(weight) * (magnitude >> at & (1 << DIGIT) - 1)) for at in places]
        pairs_fit = True
    shifted = shifts_fit and not (pairs_fit and is_dense(layer))
    kind, zero = (np.uint8, 128) if shifted else (np.int8, 0)
    return [(factor, (part + zero).astype(kind), shifted) for factor, part in parts]


def row_gcd(weight: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the gcd of each unit's weights, 1 where all are 0."""
    gcd: NDArray[np.int64] = np.maximum(np.gcd.reduce(weight.reshape(len(weight), -1), axis=1), 1)
    return gcd


def count(graph: Graph, acc: Value, threshold: NDArray[np.integer[Any]]) -> Value:
    """Add the count of thresholds (units, stairs, height, width), of the type of the sums, below these."""
    bounds = threshold
    if len(acc.shape) == 1:
        bounds = bounds[:, :, 0, 0]
    name = acc.name
    if bounds.shape[1] == 1:
        above = graph.add("Greater", [name, graph.constant(bounds[:, 0], "threshold")])
    else:
        axis = graph.constant(np.array([2], np.int64), "axis")
        name = graph.add("Unsqueeze", [name, axis])
        above = graph.add("Greater", [name, graph.constant(bounds, "threshold")])
        above = graph.add("ReduceSum", [graph.add("Cast", [above], {"to": INT32}), axis], {"keepdims": 0})
    return Value(graph.add("Cast", [above], {"to": UINT8}), acc.shape)
