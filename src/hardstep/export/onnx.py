"""A frozen network as standard ONNX that gives the same integers in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardstep.export.onnx_front import scattered
from hardstep.export.onnx_graph import INT32, UINT8, Graph, Value, coded_layers, is_dense, linear, package
from hardstep.export.qonnx import to_qonnx
from hardstep.hard_layers import Pool
from hardstep.hardnet import HardNet
from hardstep.lowered import Sums

__all__ = ["onnx_form", "to_onnx", "to_qonnx"]

OPSET = 13
PAIR = 2**15 - 1  # two products that x86 without VNNI adds in 16 bits, saturating
DIGIT = 6  # bits of a digit: 2 * 255 * 63 stays within a pair


def to_onnx(hard: HardNet) -> bytes:
    """Return the network as a standard ONNX model that gives exactly `hard(x)` for 8-bit codes x.

    Input "codes": uint8 (n, *hard.shape); output "scores": int32 (n, k); n is free. Opset 13 of the default domain and
    IR version 7, those of ONNX 1.8; checked with ONNX Runtime 1.15, 1.19, 1.20 and 1.31. Turning numbers into codes
    (`hard.grid`) stays outside: give `hard.codes(x)`. The grid, `hard.scale` and hardstep's version stand in the
    metadata. A scattering front end is int32 operators on planes.

    Every layer is a MatMulInteger or ConvInteger, then Greater against thresholds, added up where there are several.
    ONNX demands exact products and 32-bit sums, but with int8 weights ONNX Runtime on x86 without VNNI adds products
    in pairs that saturate at 16 bits. So, with T the largest code that a layer reads:

    - int8 weights where 2 T max|w| <= 32767: no pair saturates, and all partial sums lie between the least and the
      largest sum, which `lower` keeps in 32 bits;
    - else uint8 weights w + 128 with zero point 128, where w fits int8 and 255 T terms < 2^31: with them ONNX Runtime
      adds products in 32 bits from the start. Convolutions take it wherever the bound holds, with digits too, for
      older runtimes know no other;
    - wider weights as digits w = sum_j 64^j d_j of w's own sign, |d_j| < 64: 2 * 255 * 63 <= 32767, and what any of
      the digits of any of the terms add up to lies between the least and the largest sum.

    Raises
    ------
    ImportError
        If the package onnx is missing.
    ValueError
        If a sum could leave 32 bits or a unit has more than 255 thresholds; the layer and the bound are named.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hard = hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=data.train)
    >>> form = onnx_form(to_onnx(hard))
    >>> codes = hard.codes(data.test.x.numpy())
    >>> bool((form(codes) == hard(codes)).all())
    True
    """
    graph = Graph(package("onnx"))
    codes = Value("codes", hard.shape)
    if hard.front is not None:
        codes = scattered(graph, codes, hard.front)
    for layer in coded_layers(hard, behind_front=True):
        if isinstance(layer, Pool):
            codes = graph.pool(codes, layer)
        else:
            acc = _integer_sums(graph, codes, layer)
            codes = _scores(graph, acc, layer) if layer.threshold is None else _count(graph, acc, layer.threshold)
    graph.add("Identity", [codes.name], output="scores")
    return graph.model(hard, (UINT8, INT32), codes.shape[0], {"": OPSET})


def onnx_form(model: bytes, threads: int = 1) -> Callable[[NDArray[Any]], NDArray[np.int64]]:
    """Return a function from codes (uint8) to integer scores that runs a model of `to_onnx` in ONNX Runtime.

    It is a form for `verify`: `verify(hard, hard.codes(x), forms={"onnx": onnx_form(to_onnx(hard))})`.

    Parameters
    ----------
    threads
        Threads inside an operator.

    Raises
    ------
    ImportError
        If the package onnxruntime is missing.
    ValueError
        By the function returned, if it gets anything but uint8.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hard = hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=data.train)
    >>> form = onnx_form(to_onnx(hard))
    >>> hs.verify(hard, hard.codes(data.test.x.numpy()), forms={"onnx": form}).ok
    True
    """
    runtime = package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def form(codes: NDArray[Any]) -> NDArray[np.int64]:
        codes = np.asarray(codes)
        if codes.dtype != np.uint8:
            raise ValueError(f"the ONNX form reads codes (uint8), got {codes.dtype}; give hard.codes(x)")
        scores: NDArray[np.int64] = session.run(["scores"], {"codes": codes})[0].astype(np.int64)
        return scores

    return form


def _integer_sums(graph: Graph, codes: Value, layer: Sums) -> Value:
    """Add a layer's sums in int32; of a read-out over the gcd of each row."""
    weight = layer.weight
    if layer.threshold is None:
        weight = weight // _row_gcd(weight)[:, None, None, None]
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


def _row_gcd(weight: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the gcd of each unit's weights, 1 where all are 0."""
    gcd: NDArray[np.int64] = np.maximum(np.gcd.reduce(weight.reshape(len(weight), -1), axis=1), 1)
    return gcd


def _scores(graph: Graph, acc: Value, layer: Sums) -> Value:
    """Add what makes sums scores."""
    name, gcd = graph.row(acc).name, _row_gcd(layer.weight)
    if gcd.max() > 1:
        name = graph.add("Mul", [name, graph.constant(gcd.astype(np.int32), "factor")])
    name = graph.add("Add", [name, graph.constant(layer.bias.astype(np.int32), "bias")])
    return Value(name, (len(gcd),))


def _count(graph: Graph, acc: Value, threshold: NDArray[np.int64]) -> Value:
    """Add the count of thresholds below sums."""
    bounds = threshold.astype(np.int32)
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
