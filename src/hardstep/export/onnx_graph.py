"""What the ONNX dialects share: a graph in the making, and the layers it is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardstep.hard_layers import Pool
from hardstep.hardnet import HardNet
from hardstep.lowered import Sums, lower
from hardstep.version import __version__

__all__ = [
    "FLOAT32",
    "INT32",
    "UINT8",
    "Graph",
    "Value",
    "coded_layers",
    "integer_type",
    "is_dense",
    "linear",
    "package",
]

IR_VERSION = 7
INT32, FLOAT32, UINT8 = 6, 1, 2  # TensorProto's numbers


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: its name and the shape of one sample."""

    name: str
    shape: tuple[int, ...]


@dataclass
class Graph:
    """Nodes, constants and types in the making."""

    onnx: Any
    batch: int | str = "n"
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        kind: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
        *,
        output: str = "",
        domain: str = "",
    ) -> str:
        """Add a node and return the name of its output."""
        name = f"{kind}_{len(self.nodes)}"
        output = output or f"{name}_out"
        make = self.onnx.helper.make_node
        self.nodes.append(make(kind, inputs, [output], name=name, domain=domain, **(attributes or {})))
        return output

    def constant(self, array: NDArray[Any], label: str) -> str:
        """Add a constant and return its name."""
        name = f"{label}_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def row(self, value: Value) -> Value:
        """Return a tensor with its samples in rows."""
        if len(value.shape) == 1:
            return value
        return self._moved(value, self.add("Flatten", [value.name], {"axis": 1}), (prod(value.shape),))

    def image(self, value: Value, shape: tuple[int, ...]) -> Value:
        """Return a tensor whose samples have channels, height and width."""
        if value.shape == shape:
            return value
        target = self.constant(np.array([0, *shape], np.int64), "shape")  # 0 keeps the number of samples
        return self._moved(value, self.add("Reshape", [value.name, target]), shape)

    def pool(self, value: Value, layer: Pool) -> Value:
        """Return the largest code of each window."""
        shape = value.shape if len(value.shape) == 3 else (*value.shape, 1, 1)
        windows = {"kernel_shape": layer.size, "strides": layer.stride}
        return Value(self.add("MaxPool", [self.image(value, shape).name], windows), layer.out_shape(shape))

    def typed(self, value: Value, kind: str) -> Value:
        """Write a tensor's shape and the type of its integers into the model."""
        self.kinds[value.name], self.shapes[value.name] = kind, value.shape
        return value

    def note(self, value: Value, least: int, largest: int) -> Value:
        """Write a tensor's shape and the range of its integers into the model."""
        return self.typed(value, integer_type(least, largest))

    def model(self, hard: HardNet, types: tuple[int, int], units: int, opsets: Mapping[str, int]) -> bytes:
        """Return the whole model in bytes; `types` are those of codes and scores."""
        helper = self.onnx.helper
        info = helper.make_tensor_value_info
        inner = [info(name, FLOAT32, [self.batch, *shape]) for name, shape in self.shapes.items() if name != "codes"]
        graph = helper.make_graph(
            self.nodes,
            "hardstep",
            [info("codes", types[0], [self.batch, *hard.shape])],
            [info("scores", types[1], [self.batch, units])],
            self.constants,
            value_info=inner,
        )
        for name, kind in self.kinds.items():
            entry = self.onnx.StringStringEntryProto(key="finn_datatype", value=kind)
            graph.quantization_annotation.append(
                self.onnx.TensorAnnotation(tensor_name=name, quant_parameter_tensor_names=[entry])
            )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(*opset) for opset in opsets.items()],
            ir_version=IR_VERSION,
            producer_name="hardstep",
            producer_version=__version__,
        )
        facts = {"grid.scale": hard.grid.scale.tolist(), "grid.zero": hard.grid.zero.tolist(), "scale": hard.scale}
        properties = {f"hardstep.{name}": json.dumps(value) for name, value in facts.items()}
        helper.set_model_props(model, {**properties, "hardstep.version": __version__})
        whole: bytes = model.SerializeToString(deterministic=True)
        return whole

    def _moved(self, value: Value, name: str, shape: tuple[int, ...]) -> Value:
        """Return a tensor that holds the same integers in another shape."""
        moved = Value(name, shape)
        return self.typed(moved, self.kinds[value.name]) if value.name in self.kinds else moved


def package(name: str) -> Any:
    """Import an optional package."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f'the ONNX export needs the package {name}; pip install "hardstep[onnx]"') from error


def coded_layers(hard: HardNet, *, behind_front: bool = False) -> tuple[Sums | Pool, ...]:
    """Return the lowered network, if every code fits 8 bits; see `lower` for front ends."""
    layers = lower(hard, behind_front=behind_front)
    for layer in layers:
        if isinstance(layer, Sums) and layer.threshold is not None and not 1 <= layer.stairs <= 255:
            raise ValueError(
                f"{layer.name} counts {layer.stairs} thresholds a unit; an 8-bit code counts 1 to 255, "
                "give its step as many"
            )
    return layers


def is_dense(layer: Sums) -> bool:
    """Return whether the kernel stands at one place only, so that a matrix product does."""
    return layer.padding == (0, 0) and layer.weight.shape[1:] == layer.shape


def linear(
    graph: Graph, codes: Value, layer: Sums, weight: NDArray[Any], suffix: str = "", zero: Sequence[str] = ()
) -> Value:
    """Add the product of codes and weights; `suffix` "Integer" names the integer operators."""
    if is_dense(layer):
        matrix = graph.constant(weight.reshape(len(weight), -1).T, "weight")
        name = graph.add(f"MatMul{suffix}", [graph.row(codes).name, matrix, *zero])
        return Value(name, (len(weight),))
    inputs = [graph.image(codes, layer.shape).name, graph.constant(weight, "weight"), *zero]
    attributes = {
        **{"kernel_shape": weight.shape[2:], "strides": layer.stride, "pads": layer.padding * 2},
        **{"dilations": (1, 1), "group": 1},  # FINN's transformations read them
    }
    return Value(graph.add(f"Conv{suffix}", inputs, attributes), layer.out_shape)


def integer_type(least: int, largest: int) -> str:
    """Return the name of the smallest integer type of 2 bits or more; FINN's matrix unit refuses BINARY."""
    if least >= 0:
        return f"UINT{max(largest.bit_length(), 2)}"
    return f"INT{max(largest.bit_length(), (-least - 1).bit_length()) + 1}"
