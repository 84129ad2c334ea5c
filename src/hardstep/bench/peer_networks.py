"""Ways to run a whole network of steps: our engine, the NumPy reference, our ONNX export, onnxruntime and PyTorch.

Inputs of onnxruntime's and PyTorch's own operators are ready in their type; ours is a Python call like a user's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hardstep.bench.networks import Network
from hardstep.bench.peer import Peer, Run, UnsuitedError
from hardstep.bench.peer_bytes import Node, onnx_run, with_threads
from hardstep.engine import Engine
from hardstep.export.onnx import onnx_form, to_onnx
from hardstep.export.onnx_graph import is_dense
from hardstep.hard_layers import Pool
from hardstep.lowered import Sums
from hardstep.version import __version__

__all__ = ["Exported", "OnnxNetwork", "OurEngine", "Reference", "TorchNetwork", "network_peers"]

Stage = Callable[[torch.Tensor], torch.Tensor]

FLAT: Node = ("Flatten", {}, {})
ZERO, SIGNED_ZERO = np.uint8(0), np.int8(0)
FLOAT, UINT8, INT32 = 1, 2, 6  # of ONNX
SAMPLE = 64  # rows on which the engine measures densities


class OurEngine(Peer[Network]):
    """`hardstep.Engine`, densities measured on the first rows."""

    family = "hardstep"

    def version(self) -> str:
        """Return the version in use."""
        return __version__

    def prepare(self, task: Network) -> Run:
        """Return one call."""
        return partial(Engine(task.hard, sample=task.x[:SAMPLE], threads=self.threads), task.x)


class Reference(Peer[Network]):
    """The plain NumPy forward of the frozen network, with threads as NumPy's BLAS has them."""

    family = "NumPy reference"
    needs = ("numpy",)

    def prepare(self, task: Network) -> Run:
        """Return one call."""
        return partial(task.hard, task.x)


class Exported(Peer[Network]):
    """`to_onnx` in onnxruntime: exact on every CPU."""

    family = "to_onnx"
    needs = ("onnx", "onnxruntime")
    install = 'pip install "hardstep[onnx]"'

    def prepare(self, task: Network) -> Run:
        """Return one call; raise UnsuitedError if the network cannot be exported."""
        try:
            return partial(onnx_form(to_onnx(task.hard), self.threads), task.x)
        except ValueError as error:
            raise UnsuitedError(str(error)) from error


class OnnxNetwork(Peer[Network]):
    """A chain of onnxruntime's operators, of one of three kinds.

    "integer": MatMulInteger or ConvInteger, Greater, Cast. "saturated": QGemm or QLinearConv whose codes saturate to 0
    and 255, no operators between; scores come 255-fold. "float": Gemm or Conv, Greater, Cast.
    """

    family = "onnxruntime"
    needs = ("onnx", "onnxruntime")
    install = 'pip install "hardstep[onnx]"'

    def expected(self, task: Network) -> NDArray[Any]:
        """Return what a forward should give, in its own terms."""
        several = any(isinstance(layer, Sums) and layer.threshold is not None for layer in task.layers)
        return (task.sums - task.bias) * (255 if self.kind == "saturated" and several else 1)

    def prepare(self, task: Network) -> Run:
        """Return what does one forward of the network."""
        nodes: list[Node] = []
        x = inputs(task)
        flat = x.ndim == 2
        for i, layer in enumerate(task.layers):
            if isinstance(layer, Pool):
                self.require(not flat, "cannot pool what lies in a row")
                nodes.append(("MaxPool", {}, {"kernel_shape": list(layer.size), "strides": list(layer.stride)}))
                continue
            dense = is_dense(layer)
            self.require(dense or not flat, "has no convolution over what lies in a row")
            nodes += [FLAT] if dense and not flat else []
            flat = flat or dense
            if self.kind == "saturated" and layer.threshold is not None:
                nodes.append(self._saturated(layer, first=i == 0))
                continue
            nodes.append(self._sums(layer))
            nodes += [] if layer.threshold is None else self._steps(layer.threshold, dense=dense)
        floats = self.kind == "float"
        out = np.zeros(task.sums.shape, np.float32 if floats else np.int32)
        return onnx_run(nodes, x.astype(np.float32) if floats else x, out, self.threads)

    def _sums(self, layer: Sums) -> Node:
        """Return the operator that sums."""
        dense = is_dense(layer)
        weight = layer.weight.reshape(len(layer.weight), -1) if dense else layer.weight
        if self.kind == "float":
            given = {"w": weight.astype(np.float32)}
            return ("Gemm", given, {"transB": 1}) if dense else ("Conv", given, places(layer))
        signed = self._signed(weight)
        rest = {"xz": ZERO, "wz": SIGNED_ZERO}
        if dense:
            return ("MatMulInteger", {"w": np.ascontiguousarray(signed.T)} | rest, {})
        return ("ConvInteger", {"w": signed} | rest, places(layer))

    def _steps(self, threshold: NDArray[np.int64], *, dense: bool) -> list[Node]:
        """Return the operators that count the thresholds below the sums."""
        floats = self.kind == "float"
        limit = threshold.astype(np.float32 if floats else np.int32)
        limit = limit[:, :, 0, 0] if dense else limit
        given: Node = ("Cast", {}, {"to": FLOAT if floats else UINT8})
        if limit.shape[1] == 1:
            return [("Greater", {"t": limit[:, 0]}, {}), given]
        axis = {"axis": np.array([2], np.int64)}
        counted: Node = ("ReduceSum", axis, {"keepdims": 0})
        return [("Unsqueeze", axis, {}), ("Greater", {"t": limit}, {}), ("Cast", {}, {"to": INT32}), counted, given]

    def _saturated(self, layer: Sums, *, first: bool) -> Node:
        """Return the one operator of a hidden layer."""
        threshold = layer.threshold
        assert threshold is not None
        self.require(threshold.shape[1:] == (1, 1, 1), "has one threshold a unit, the same at all positions")
        dense = is_dense(layer)
        signed = self._signed(layer.weight.reshape(len(layer.weight), -1) if dense else layer.weight)
        one, fine = np.float32(1), np.float32(1 / 255)
        turned = np.ascontiguousarray(signed.T) if dense else signed
        given = {"xs": one, "xz": ZERO, "w": turned, "ws": one, "wz": SIGNED_ZERO}
        bias = {"b": (-threshold[:, 0, 0, 0] * (1 if first else 255)).astype(np.int32)}
        target = {"ys": fine if first else one, "yz": ZERO}
        if dense:
            return ("QGemm", given | bias | target, {"domain": "com.microsoft"})
        return ("QLinearConv", given | target | bias, places(layer))

    def _signed(self, weight: NDArray[np.int64]) -> NDArray[np.int8]:
        """Return weights in 8 bits."""
        self.require(int(weight.min()) >= -128 and int(weight.max()) < 128, "has 8-bit weights")
        return weight.astype(np.int8)


class TorchNetwork(Peer[Network]):
    """Plain float32 layers and comparisons in inference mode, convolutions with channels last."""

    family = "torch"
    needs = ("torch",)

    def expected(self, task: Network) -> NDArray[Any]:
        """Return what a forward should give, in its own terms."""
        return task.sums - task.bias

    def prepare(self, task: Network) -> Run:
        """Return what does one forward of the network."""
        with torch.inference_mode():
            first = channels_last(torch.from_numpy(inputs(task).copy()).float())
            stages = [pooled(layer) if isinstance(layer, Pool) else summed(layer) for layer in task.layers]

        def forward() -> torch.Tensor:
            value = first
            with torch.inference_mode():
                for stage in stages:
                    value = stage(value)
            return value

        return with_threads(forward, self.threads)


def network_peers(threads: int = 1) -> list[Peer[Network]]:
    """Return the public peers, each at its leanest."""
    several: list[Peer[Network]] = [OnnxNetwork(kind, threads) for kind in ("integer", "saturated", "float")]
    return [*several, TorchNetwork("float", threads)]


def inputs(task: Network) -> NDArray[np.uint8]:
    """Return the codes as the first layer reads them: in a row, or as images."""
    first = task.layers[0]
    return task.x.reshape(len(task.x), -1) if isinstance(first, Sums) and is_dense(first) else task.x


def places(layer: Sums) -> dict[str, list[int]]:
    """Return where a kernel stands, as ONNX wants it."""
    return {
        "pads": [*layer.padding, *layer.padding],
        "kernel_shape": list(layer.weight.shape[2:]),
        "strides": list(layer.stride),
    }


def pooled(layer: Pool) -> Stage:
    """Return a pooling in torch."""
    return lambda value: functional.max_pool2d(value, layer.size, layer.stride)


def summed(layer: Sums) -> Stage:
    """Return sums and thresholds in torch."""
    dense, stride, padding = is_dense(layer), layer.stride, layer.padding
    weight = torch.from_numpy(layer.weight).float()
    weight = weight.flatten(1) if dense else channels_last(weight)
    if layer.threshold is None:
        return lambda value: functional.linear(value.flatten(1), weight)
    limit = torch.from_numpy(layer.threshold.copy()).float()
    limit = limit[:, :, 0, 0] if dense else limit
    one = limit[:, 0] if limit.shape[1] == 1 else None

    def stage(value: torch.Tensor) -> torch.Tensor:
        sums = (
            functional.linear(value.flatten(1), weight)
            if dense
            else functional.conv2d(value, weight, stride=stride, padding=padding)
        )
        return (sums.unsqueeze(2) > limit).sum(2).float() if one is None else (sums > one).float()

    return stage


def channels_last(value: torch.Tensor) -> torch.Tensor:
    """Return images and kernels with channels last, others as they are."""
    return value.to(memory_format=torch.channels_last) if value.ndim == 4 else value
