"""Peers that hold a byte or a float for each number: onnxruntime and PyTorch."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hardstep.bench.cases import Case
from hardstep.bench.machine import cpu
from hardstep.bench.peer import Peer, Run, aligned

__all__ = ["Node", "Onnx", "Torch", "onnx_run", "with_threads"]

Node = tuple[str, dict[str, Any], dict[str, Any]]


class Onnx(Peer[Case]):
    """onnxruntime: sums (MatMulInteger, float) or codes that saturate to 0 and 255, which are steps.

    QLinearMatMul has no bias and compares with 0 instead; QGemm and QLinearConv compare with the thresholds. Inputs and
    outputs are bound to memory once.
    """

    family = "onnxruntime"
    needs = ("onnx", "onnxruntime")
    install = 'pip install "hardstep[onnx]"'

    def expected(self, task: Case) -> NDArray[Any]:
        """Return what a forward should give, in its own terms."""
        if self.kind == "QLinearMatMul":
            return np.where(task.sums > 0, 255, 0)
        given = np.where(task.fires, 255, 0) if self.kind.startswith("Q") else task.sums
        return given.transpose(0, 2, 3, 1) if self.kind.endswith("NHWC") else given

    def prepare(self, task: Case) -> Run:
        """Return what does one forward of the layer."""
        self.require(task.conv == ("Conv" in self.kind), "is for the other kind of layer")
        last = self.kind.endswith("NHWC")
        floats = self.kind in ("Gemm", "Conv")
        x = task.x.astype(np.float32 if floats else np.uint8)
        weight = task.weight.astype(np.float32 if floats else np.int8)
        self.require(bool((weight == task.weight).all()), "has 8-bit weights")
        zero, one, scale = np.uint8(0), np.float32(1), np.float32(1 / 255)
        turned = weight if task.conv else np.ascontiguousarray(weight.T)
        scales = {"xs": one, "xz": zero, "w": turned, "ws": one, "wz": np.int8(0)}
        target = {"ys": scale, "yz": zero}
        bias = {"b": -task.threshold.astype(np.int32)}
        pads = {"pads": [1] * 4, "kernel_shape": [3, 3]}
        ours = {"domain": "com.microsoft"}
        nodes: dict[str, Node] = {
            "MatMulInteger": ("MatMulInteger", {"w": turned, "xz": zero, "wz": np.int8(0)}, {}),
            "QLinearMatMul": ("QLinearMatMul", scales | target, {}),
            "QGemm": ("QGemm", scales | bias | target, ours),
            "Gemm": ("Gemm", {"w": turned}, {}),
            "Conv": ("Conv", {"w": weight}, pads),
            "QLinearConv": ("QLinearConv", scales | target | bias, pads),
            "QLinearConv NHWC": ("QLinearConv", scales | target | bias, pads | ours | {"channels_last": 1}),
        }
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if last else x
        kind = np.float32 if floats else np.int32 if self.kind == "MatMulInteger" else np.uint8
        return onnx_run([nodes[self.kind]], x, np.zeros(self.expected(task).shape, kind), self.threads)


def onnx_run(nodes: list[Node], x: NDArray[Any], out: NDArray[Any], threads: int) -> Run:
    """Return one forward of a chain of operators (name, constants in their order, attributes), memory bound.

    The output has the type and shape of `out`.
    """
    onnx, ort = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    chain, constants, value = [], [], "x"
    kinds = {np.dtype(np.uint8): 2, np.dtype(np.float32): 1, np.dtype(np.int32): 6}
    x, out = aligned(x), aligned(out)
    for i, (op, given, attributes) in enumerate(nodes):
        names = {key: f"{key}{i}" for key in given}
        constants += [onnx.numpy_helper.from_array(np.asarray(a), names[key]) for key, a in given.items()]
        chain.append(onnx.helper.make_node(op, [value, *names.values()], [f"v{i}"], **attributes))
        value = f"v{i}"
    info = onnx.helper.make_tensor_value_info
    ends = [info("x", kinds[x.dtype], x.shape)], [info(value, kinds[out.dtype], out.shape)]
    graph = onnx.helper.make_graph(chain, "peer", *ends, constants)
    sets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=sets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # leaves the cores to the next one timed
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    bound, how = session.io_binding(), ort.RunOptions()
    bound.bind_input("x", "cpu", 0, x.dtype, x.shape, x.ctypes.data)
    bound.bind_output(value, "cpu", 0, out.dtype, out.shape, out.ctypes.data)

    def run(x: NDArray[Any] = x) -> NDArray[Any]:  # holds x, whose address is bound
        session._sess.run_with_iobinding(bound._iobinding, how)  # the public wrapper adds some 40 us
        return out

    return run


class Torch(Peer[Case]):
    """PyTorch: float32 (as it lies, or channels last), `_int_mm` (fast only with VNNI), and quantised layers.

    The latter give codes that saturate to 0 and 255, which are steps.
    """

    family = "torch"
    needs = ("torch",)

    def expected(self, task: Case) -> NDArray[Any]:
        """Return what a forward should give, in its own terms."""
        return np.where(task.fires, 255, 0) if self.kind.startswith("quantized") else task.sums

    def prepare(self, task: Case) -> Run:
        """Return what does one forward of the layer."""
        self.require(task.conv == ("conv" in self.kind), "is for the other kind of layer")
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantised tensors are to go some day
            x, weight = torch.from_numpy(task.x.copy()), torch.from_numpy(task.weight.copy())
            if self.kind.startswith("quantized"):
                forward = self._quantized(x, weight, -torch.from_numpy(task.threshold).float())
            elif self.kind == "_int_mm":
                self.require(len(x) > 16 and task.top < 128, "needs more than 16 samples, codes below 128")
                self.require(task.operations < 2**28 or "avx512_vnni" in cpu("flags"), "is a plain loop without VNNI")
                forward = self._bound(torch._int_mm, x.to(torch.int8), weight.to(torch.int8).T)
            else:
                forward = self._float(x.float(), weight.float())

        return with_threads(forward, self.threads)

    def read(self, given: Any, task: Case) -> NDArray[Any]:
        """Return as an array what a forward gave."""
        array: NDArray[Any] = (given.int_repr() if given.is_quantized else given).numpy()
        return array

    def _float(self, x: torch.Tensor, weight: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Return a forward in float32."""
        if self.kind == "mm":
            return self._bound(torch.mm, x, weight.T.contiguous())
        if self.kind == "linear":
            return self._bound(torch.nn.functional.linear, x, weight)
        if self.kind.endswith("last"):
            x, weight = (a.to(memory_format=torch.channels_last) for a in (x, weight))
        return self._bound(torch.nn.functional.conv2d, x, weight, padding=1)

    def _quantized(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Return a forward of a quantised layer, weights packed."""
        self.require(int(weight.min()) >= -128 and int(weight.max()) < 128, "has 8-bit weights")
        torch.backends.quantized.engine = self.kind.split()[-1]
        quantized, ops = torch._make_per_tensor_quantized_tensor, torch.ops.quantized
        signed = weight.to(torch.int8)
        if x.ndim == 2:
            packed, codes = ops.linear_prepack(quantized(signed, 1.0, 0), bias), quantized(x, 1.0, 0)
            forward = self._bound(ops.linear, codes, packed, 1 / 255, 0)
        else:
            signed, x = (a.to(memory_format=torch.channels_last) for a in (signed, x))
            packed = ops.conv2d_prepack(quantized(signed, 1.0, 0), bias, [1, 1], [1, 1], [1, 1], 1)
            forward = self._bound(ops.conv2d, quantized(x, 1.0, 0), packed, 1 / 255, 0)
        return forward

    @staticmethod
    def _bound(forward: Callable[..., torch.Tensor], *given: Any, **named: Any) -> Callable[[], torch.Tensor]:
        """Return the call without arguments."""
        return lambda: forward(*given, **named)


def with_threads(forward: Callable[[], torch.Tensor], threads: int) -> Run:
    """Return the forward with so many threads, whatever was set before."""

    def run() -> torch.Tensor:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        return forward()

    return run
