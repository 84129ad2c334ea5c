"""Peers that hold a bit for each number, -1/+1 weights only, and OpenVINO, which has both."""

from __future__ import annotations

import ctypes
import importlib
import subprocess
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardstep.bench.cases import Case
from hardstep.bench.peer import Peer, Run, aligned
from hardstep.export.compiler import compiler

__all__ = ["BnnLab", "OpenVino", "Xnor"]


def require_binary(peer: Peer[Case], case: Case, *, conv: bool = False) -> None:
    """Raise UnsuitedError unless codes and weights have two values each."""
    peer.require(conv or not case.conv, "has no convolution")
    peer.require(case.top == 1 and bool((np.abs(case.weight) == 1).all()), "has 0/1 codes and -1/+1 weights")


def as_signs(case: Case) -> NDArray[np.int64]:
    """Return the sums of -1/+1 inputs; at the border a convolution counts nothing."""
    return 2 * case.sums - case.sums_of(np.ones_like(case.x[:1]))


class OpenVino(Peer[Case]):
    """OpenVINO's CPU plugin for lowest latency: float32, 8 bits by FakeQuantize, or binary by BinaryConvolution.

    8-bit: codes in, float sums out. Binary: float inputs are packed as part of the forward (no packed ones can be
    given), float sums of -1/+1 inputs come out with channels last (inputs so crash it in 2026.4). A dense layer is a
    1x1 convolution.
    """

    family = "openvino"
    needs = ("openvino",)
    install = "pip install openvino"

    def expected(self, task: Case) -> NDArray[Any]:
        """Return what a forward should give, in its own terms."""
        given = as_signs(task) if self.kind == "binary" else task.sums
        return given.transpose(0, 2, 3, 1) if self.kind == "binary" and task.conv else given

    def prepare(self, task: Case) -> Run:
        """Return what does one forward of the layer."""
        ov = importlib.import_module("openvino")
        ops = importlib.import_module("openvino.opset13")
        if self.kind == "binary":
            require_binary(self, task, conv=True)
            self.require(task.x.shape[1] % 8 == 0, "gives wrong sums unless inputs come by the eight")
            model, x, held = self._binary(ov, ops, task)
        else:
            model, x, held = self._plain(ov, ops, task)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
        x, out = aligned(x), aligned(np.zeros(self.expected(task).shape, np.float32))
        shape = tuple(model.output(0).shape)
        request.set_input_tensor(ov.Tensor(x, shared_memory=True))
        request.set_output_tensor(ov.Tensor(out.reshape(shape), shared_memory=True))

        def run(held: Any = (x, held)) -> NDArray[Any]:  # OpenVINO shares their memory
            request.infer()
            return out

        return run

    def _plain(self, ov: Any, ops: Any, case: Case) -> tuple[Any, NDArray[Any], NDArray[Any]]:
        """Return a model in 8 bits or float32, its inputs and its weights."""
        small = self.kind == "int8"
        self.require(not small or int(np.abs(case.weight).max()) < 128, "has 8-bit weights")
        taken = ops.parameter(list(case.x.shape), ov.Type.u8 if small else ov.Type.f32)
        held = case.weight.astype(np.float32)
        value, weight = taken, ops.constant(held)
        if small:
            ends = [np.full([1] * case.x.ndim, end, np.float32) for end in (0, 255, -127, 127)]
            value = ops.fake_quantize(ops.convert(taken, ov.Type.f32), *ends[:2], *ends[:2], 256)
            weight = ops.fake_quantize(weight, *ends[2:], *ends[2:], 255)
        ones = [1, 1]
        given = (
            ops.convolution(value, weight, ones, ones, ones, ones)
            if case.conv
            else ops.matmul(value, weight, False, True)
        )
        return ov.Model([given], [taken]), case.x.astype(np.uint8 if small else np.float32), held

    def _binary(self, ov: Any, ops: Any, case: Case) -> tuple[Any, NDArray[Any], NDArray[Any]]:
        """Return a binary model, its inputs and its weights."""
        x = case.x if case.conv else case.x[..., None, None]
        weight = case.weight if case.conv else case.weight[..., None, None]
        x = x.astype(np.float32)
        taken = ops.parameter(list(x.shape), ov.Type.f32)
        half, low, high = (np.full((1, 1, 1, 1), end, np.float32) for end in (0.5, 0, 1))
        value = ops.fake_quantize(taken, half, half, low, high, 2)
        bits = np.packbits((weight > 0).ravel(), bitorder="little")
        packed = ops.constant(ov.Tensor(bits, ov.Shape(weight.shape), ov.Type.u1))
        pads = [weight.shape[2] // 2] * 2
        given = ops.binary_convolution(value, packed, [1, 1], pads, pads, [1, 1], "xnor-popcount", 0.0)
        return ov.Model([ops.transpose(given, np.array([0, 2, 3, 1]))], [taken]), x, bits


class BnnLab(Peer[Case]):
    """bnn-lab's XNOR-popcount kernel on words of 64 bits, packed beforehand: float sums of -1/+1 inputs.

    Its kernel is called by address, as its own wrapper does, so the torch < 2.13 and numpy < 2 it asks for need
    not be there.
    """

    family = "bnn-lab"
    install = "pip install --no-deps bnn-lab==1.0.0"

    def available(self) -> str | None:
        """Return why it cannot be used, None if it can."""
        try:
            return (
                None if self._path() else "bnn-lab has no kernel bnn/kernels/_binary_gemm_native*.so for this machine"
            )
        except PackageNotFoundError:
            return "bnn-lab is not installed"

    def version(self) -> str:
        """Return the version in use."""
        return distribution("bnn-lab").version

    def expected(self, task: Case) -> NDArray[Any]:
        """Return what a forward should give, in its own terms."""
        return as_signs(task)

    def prepare(self, task: Case) -> Run:
        """Return what does one forward of the layer."""
        require_binary(self, task)
        kernel = ctypes.CDLL(str(self._path()))
        kernel.binary_gemm_set_num_threads(self.threads)
        k = task.x.shape[1]
        x, weight = (aligned(packed(bits, 8)) for bits in (task.x == 0, task.weight < 0))
        out = aligned(np.zeros((len(x), len(weight)), np.float32))
        given = [ctypes.c_void_p(a.ctypes.data) for a in (x, weight, out)]
        sizes = [ctypes.c_int(size) for size in (*out.shape, x.shape[1] // 8, k)]

        def run(held: Any = (x, weight)) -> NDArray[Any]:
            kernel.binary_gemm_u64(*given, *sizes)
            return out

        return run

    def _path(self) -> Path | None:
        folder = Path(str(distribution("bnn-lab").locate_file("bnn/kernels")))
        return next(folder.glob("_binary_gemm_native*.so"), None)


class Xnor(Peer[Case]):
    """Our XNOR-popcount layer of xnor.c, packed inputs to packed outputs: popcounts at their best, nothing more."""

    family = "xnor.c (ours)"
    install = "a C compiler, on x86 with AVX2 or AVX-512"

    def available(self) -> str | None:
        """Return why it cannot be used, None if it can."""
        if compiler() is None:
            return "there is no C compiler"
        try:
            xnor_library()
        except (OSError, subprocess.CalledProcessError):
            return "xnor.c does not compile here"
        return None

    def version(self) -> str:
        """Return the version in use."""
        return f"{8 * xnor_library().xnor_bytes()} bits"

    def expected(self, task: Case) -> NDArray[Any]:
        """Return what a forward should give, in its own terms."""
        return np.packbits(task.fires, axis=1, bitorder="little")

    def prepare(self, task: Case) -> Run:
        """Return what does one forward of the layer."""
        require_binary(self, task)
        self.require(len(task.weight) % 8 == 0, "has units by the eight")
        library = xnor_library()
        width = library.xnor_bytes()
        x, weight = (aligned(packed(bits, width)) for bits in (task.x, task.weight > 0))
        counts, threshold = (aligned(a.astype(np.int32)) for a in (task.x.sum(axis=1), task.threshold))
        out = aligned(np.zeros((len(x), len(weight) // 8), np.uint8))
        given = [ctypes.c_void_p(a.ctypes.data) for a in (x, counts, weight, threshold, out)]
        sizes = [ctypes.c_long(size) for size in (len(x), len(weight), x.shape[1])]

        def run(held: Any = (x, counts, weight, threshold)) -> NDArray[Any]:
            library.xnor_layer(*given, None, *sizes)
            return out

        return run


@cache
def xnor_library() -> ctypes.CDLL:
    """Return xnor.c compiled for this machine."""
    source = Path(__file__).with_name("xnor.c")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "libxnor.so"
        command = [compiler() or "cc", "-O2", "-march=native", "-shared", "-fPIC", "-o", str(built), str(source)]
        subprocess.run(command, check=True, capture_output=True)
        return ctypes.CDLL(str(built))


def packed(bits: NDArray[Any], width: int) -> NDArray[np.uint8]:
    """Return bits (n, k) as bytes, low bit first, rows filled up with 0 to a multiple of `width` bytes."""
    filled = np.pad(bits.astype(bool), [(0, 0), (0, -bits.shape[1] % (8 * width))])
    return np.packbits(filled, axis=1, bitorder="little")
