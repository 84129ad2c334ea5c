"""A frozen network as standard ONNX that gives the same integers in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardstep.export.onnx_front import scattered
from hardstep.export.onnx_graph import INT32, UINT8, Graph, Value, coded_layers, package
from hardstep.export.onnx_integers import count, integer_sums, row_gcd
from hardstep.export.onnx_sums import fixed_point_scores
from hardstep.export.qonnx import to_qonnx
from hardstep.hard_layers import Pool
from hardstep.hardnet import HardNet
from hardstep.lowered import Sums

__all__ = ["onnx_form", "to_onnx", "to_qonnx"]

OPSET = 13


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

    Real sums in fixed point are int64: Mul, Add and Div rescale what a convolution adds, MatMul reads them.

    Raises
    ------
    ImportError
        If the package onnx is missing.
    ValueError
        If a sum could leave 32 bits or a unit has more than 255 thresholds; the layer and the bound are named. If a
        convolution of real sums is larger than 1x1.

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
    if not hard.of_codes:
        graph.add("Cast", [fixed_point_scores(graph, codes, hard).name], {"to": INT32}, output="scores")
        return graph.model(hard, (UINT8, INT32), hard.layers[-1].out_shape(())[0], {"": OPSET})
    if hard.front is not None:
        codes = scattered(graph, codes, hard.front)
    for layer in coded_layers(hard, behind_front=True):
        if isinstance(layer, Pool):
            codes = graph.pool(codes, layer)
        else:
            acc = integer_sums(graph, codes, layer)
            bounds = None if layer.threshold is None else layer.threshold.astype(np.int32)
            codes = _scores(graph, acc, layer) if bounds is None else count(graph, acc, bounds)
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


def _scores(graph: Graph, acc: Value, layer: Sums) -> Value:
    """Add what makes sums scores."""
    name, gcd = graph.row(acc).name, row_gcd(layer.weight)
    if gcd.max() > 1:
        name = graph.add("Mul", [name, graph.constant(gcd.astype(np.int32), "factor")])
    name = graph.add("Add", [name, graph.constant(layer.bias.astype(np.int32), "bias")])
    return Value(name, (len(gcd),))
