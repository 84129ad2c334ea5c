"""A frozen network in the QONNX dialect, which the FPGA flows (FINN) read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardstep.export.onnx_graph import FLOAT32, Graph, Value, coded_layers, integer_type, linear, package
from hardstep.hard_layers import Pool
from hardstep.hardnet import HardNet
from hardstep.lowered import Sums

__all__ = ["to_qonnx"]

OPSET = 11
DOMAIN = "qonnx.custom_op.general"
LIMIT = 2**24


def to_qonnx(hard: HardNet, *, batch: int = 1) -> bytes:
    """Return the network in the QONNX dialect that FINN reads: float tensors that hold integers, with their types.

    Input "codes": float32 (batch, *hard.shape), annotated UINT8; output "scores": float32 (batch, k); `hard.grid`
    stays outside. FINN wants batch 1. Opset 11 and the domain `qonnx.custom_op.general`.

    MultiThreshold counts acc >= T and a code here counts acc > t, so T = t + 1. FINN's matrix unit refuses 0/1 inputs
    and takes -1/+1, so one-bit codes c travel as b = 2 c - 1, BIPOLAR (the thresholds' scale 2 and bias -1):

        sum_d w_d c_d > t    iff    sum_d w_d b_d >= 2 (t + 1) - sum_d w_d

    Before a padded convolution they stay 0/1, for padding is the code 0, and are annotated UINT2. BipolarQuant is not
    used: it compares with 0 only, so it would need a node more, and FINN makes it a MultiThreshold of this form.
    Where thresholds depend on the position, every position is a channel of its MultiThreshold; that runs exactly in
    qonnx, but FINN has no hardware for it.

    Exact, for float32 holds every integer up to 2^24 and all partial sums lie between the least and the largest.

    Raises
    ------
    ImportError
        If the package onnx is missing.
    ValueError
        If a sum could reach beyond 2^24 or a unit has more than 255 thresholds; the layer and the bound are named.

    References
    ----------
    Umuroglu et al. 2017, Sec. 4 [umuroglu2017]: thresholds in place of normalisation and activation.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hard = hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=data.train)
    >>> b"MultiThreshold" in to_qonnx(hard)
    True
    """
    graph = Graph(package("onnx"), batch)
    codes = graph.typed(Value("codes", hard.shape), "UINT8")
    layers = coded_layers(hard)
    bipolar = False
    for i, layer in enumerate(layers):
        if isinstance(layer, Pool):
            codes = graph.typed(graph.pool(codes, layer), graph.kinds[codes.name])
        elif layer.threshold is None:
            codes = _scores(graph, codes, layer, bipolar=bipolar)
        else:
            reader = next(later for later in layers[i + 1 :] if isinstance(later, Sums))
            bits = _Bits(bipolar, layer.stairs == 1 and reader.padding == (0, 0))
            codes, bipolar = _codes(graph, codes, layer, layer.threshold, bits), bits.gives
    graph.add("Identity", [codes.name], output="scores")
    graph.kinds["scores"] = graph.kinds[codes.name]
    return graph.model(hard, (FLOAT32, FLOAT32), codes.shape[0], {"": OPSET, DOMAIN: 1})


@dataclass(frozen=True)
class _Bits:
    """Whether the one-bit codes that a layer reads and gives are -1/+1."""

    reads: bool
    gives: bool


def _float_sums(
    graph: Graph, codes: Value, layer: Sums, weight: NDArray[np.int64], added: int, *, bipolar: bool
) -> Value:
    """Add sums in float32 of codes 0, 1, ... or of -1/+1; `added` is the most that is added to them after."""
    least, largest = _range(layer, weight, bipolar=bipolar)
    reach = max(largest, -least) + added
    if reach > LIMIT:
        raise ValueError(
            f"{layer.name} sums {layer.terms} codes of at most {layer.top} and could reach {reach}, beyond the "
            f"{LIMIT} up to which float32 holds every integer; freeze with fewer weight_bits, or use to_onnx"
        )
    acc = graph.note(linear(graph, codes, layer, weight.astype(np.float32)), least, largest)
    low, high = int(weight.min(initial=-1)), int(weight.max(initial=0))  # signed types; FINN refuses BINARY weights too
    ones = bool((np.abs(weight) == 1).all())
    kind = "BIPOLAR" if ones else "TERNARY" if max(-low, high) == 1 else integer_type(low, high)
    graph.kinds[graph.nodes[-1].input[1]] = kind
    return acc


def _range(layer: Sums, weight: NDArray[np.int64], *, bipolar: bool) -> tuple[int, int]:
    """Return the least and the largest sum."""
    absolute = int(np.abs(weight).sum(axis=(1, 2, 3)).max(initial=0))
    return (-absolute, absolute) if bipolar else (layer.least, layer.largest)


def _codes(graph: Graph, codes: Value, layer: Sums, threshold: NDArray[np.int64], bits: _Bits) -> Value:
    """Add sums and the MultiThreshold that makes codes of them."""
    acc = _float_sums(graph, codes, layer, layer.weight, 1, bipolar=bits.reads)
    bounds = threshold + 1
    if bits.reads:
        bounds = 2 * bounds - layer.weight.sum(axis=(1, 2, 3))[:, None, None, None]
    least, largest = _range(layer, layer.weight, bipolar=bits.reads)
    bounds = np.clip(bounds, least, largest + 1)
    units, stairs, height, width = bounds.shape
    if height * width > 1:
        flat = graph.row(acc)
        channels, shape, layout = units * height * width, flat.shape, "NC"
    else:
        flat, channels, shape, layout = acc, units, acc.shape, "NC" if len(acc.shape) == 1 else "NCHW"
    limits = graph.constant(bounds.transpose(0, 2, 3, 1).reshape(channels, stairs).astype(np.float32), "threshold")
    graph.kinds[limits] = integer_type(int(bounds.min()), int(bounds.max()))
    kind, scale, bias = ("BIPOLAR", 2.0, -1.0) if bits.gives else (integer_type(0, stairs), 1.0, 0.0)
    attributes = {"out_dtype": kind, "out_scale": scale, "out_bias": bias, "data_layout": layout}
    name = graph.add("MultiThreshold", [flat.name, limits], attributes, domain=DOMAIN)
    given = graph.typed(Value(name, shape), kind)
    return given if shape == acc.shape else graph.image(given, acc.shape)


def _scores(graph: Graph, codes: Value, layer: Sums, *, bipolar: bool) -> Value:
    """Add the read-out; from -1/+1 it is sum_d (w_d / 2) b_d + sum_d w_d / 2 + bias."""
    least, largest, span = layer.least, layer.largest, _span(layer.bias)
    weight, bias, twice = layer.weight, layer.bias, False
    if bipolar:
        twice = bool((weight % 2).any())
        weight = weight if twice else weight // 2
        bias = weight.sum(axis=(1, 2, 3)) + (2 * bias if twice else bias)
    acc = graph.row(_float_sums(graph, codes, layer, weight, _span(bias), bipolar=bipolar))
    name = graph.constant(bias.astype(np.float32), "bias")
    graph.kinds[name] = integer_type(int(bias.min()), int(bias.max()))
    name = graph.add("Add", [acc.name, name])
    if twice:
        graph.note(Value(name, acc.shape), 2 * (least - span), 2 * (largest + span))
        name = graph.add("Mul", [name, graph.constant(np.array(0.5, np.float32), "half")])
    return graph.note(Value(name, acc.shape), least - span, largest + span)


def _span(bias: NDArray[np.int64]) -> int:
    """Return the largest magnitude."""
    return int(np.abs(bias).max(initial=0))
