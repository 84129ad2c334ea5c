"""The peers of one layer, each at its best settings; all but PyTorch are optional."""

from __future__ import annotations

from hardstep.bench.cases import Case
from hardstep.bench.peer import Peer
from hardstep.bench.peer_bits import BnnLab, OpenVino, Xnor
from hardstep.bench.peer_bytes import Onnx, Torch

__all__ = ["peers"]

ONNX = ("MatMulInteger", "QLinearMatMul", "QGemm", "Gemm", "QLinearConv", "QLinearConv NHWC", "Conv")
TORCH = (
    *("_int_mm", "quantized linear fbgemm", "quantized linear onednn", "linear", "mm"),
    *("quantized conv fbgemm", "quantized conv onednn", "conv2d", "conv2d channels last"),
)


def peers(threads: int = 1) -> list[Peer[Case]]:
    """Return all peers; those made of bits alone have one thread."""
    several: list[Peer[Case]] = [Onnx(kind, threads) for kind in ONNX]
    several += [Torch(kind, threads) for kind in TORCH]
    several += [OpenVino(kind, threads) for kind in ("int8", "float", "binary")]
    return several + ([BnnLab(), Xnor()] if threads == 1 else [])
