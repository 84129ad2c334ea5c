"""Whole networks of steps in onnxruntime and PyTorch, the work that the engine does in one call.

    python benchmarks/speed/peer_networks.py [--whole] [--batches 1 256] [--rounds 5] [--threads 1]

times two small networks, or with --whole 784-4096-4096-10 and a convnet 64-64-pool-128-128-pool-256-10 on 28x28, with
-1/+1 weights after 8-bit pixels. Inputs are ready in the peer's type. What each peer gives is checked against NumPy.
Two minutes with --whole.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import Case, Run, UnsuitedError
from numpy.typing import NDArray
from peer_bytes import Node, Onnx, onnx_run, with_threads
from timing import measure

from hardstep.hard_layers import convolve

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record

POOL: Node = ("MaxPool", {}, {"kernel_shape": [2, 2], "strides": [2, 2]})
FLAT: Node = ("Flatten", {}, {})
ZERO, SIGNED_ZERO = np.uint8(0), np.int8(0)


@dataclass(frozen=True, eq=False)
class Layer:
    """Weights (m, k), or (m, c, i, j) with padding, and thresholds, none for the read-out; then a 2x2 pooling."""

    weight: NDArray[np.int64]
    threshold: NDArray[np.int64] | None  # (m,), or (m, h, w) where they depend on the position
    pool: bool = False
    padding: int = 1
    bias: NDArray[np.int64] | None = None  # of the read-out

    @property
    def conv(self) -> bool:
        """Whether it is a convolution."""
        return self.weight.ndim == 4

    @property
    def limit(self) -> NDArray[np.int64]:
        """The thresholds, shaped to be compared with the sums."""
        given = np.zeros(len(self.weight), np.int64) if self.threshold is None else self.threshold
        return given[:, None, None] if self.conv and given.ndim == 1 else given

    @property
    def pads(self) -> dict[str, list[int]]:
        """Padding and kernel as ONNX wants them."""
        return {"pads": [self.padding] * 4, "kernel_shape": list(self.weight.shape[2:])}

    def run(self, codes: NDArray[np.uint8]) -> NDArray[Any]:
        """Return codes or scores."""
        if self.conv:
            sums = convolve(codes.astype(np.int64), self.weight, (1, 1), (self.padding, self.padding))
        else:
            flat = codes.reshape(len(codes), -1)
            sums = Case(flat, self.weight, np.zeros(len(self.weight), np.int64)).sums
        if self.threshold is None:
            return sums + (0 if self.bias is None else self.bias)
        fires = (sums > self.limit).astype(np.uint8)
        if self.pool:
            n, m, h, w = fires.shape
            fires = fires[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, m, h // 2, 2, w // 2, 2).max(axis=(3, 5))
        return fires


def made_network(
    shape: tuple[int, ...], convs: tuple[int, ...], denses: tuple[int, ...], *, seed: int = 0
) -> tuple[Layer, ...]:
    """A network drawn at random, 3x3 convolutions with a pooling after every second, thresholds at medians of sums."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 256, (16, *shape)).astype(np.uint8)
    layers: list[Layer] = []
    for i, m in enumerate((*convs, *denses)):
        if i >= len(convs):
            codes = codes.reshape(len(codes), -1)
        weight = generator.choice([-1, 1], (m, codes.shape[1], *[3] * (codes.ndim - 2)))
        layer = Layer(weight, None)
        if i < len(convs) + len(denses) - 1:
            sums = np.moveaxis(layer.run(codes), 1, 0).reshape(m, -1)
            layer = Layer(weight, np.floor(np.median(sums, axis=1)).astype(np.int64), i < len(convs) and i % 2 == 1)
        layers.append(layer)
        codes = layer.run(codes)
    return tuple(layers)


def operations(layers: tuple[Layer, ...], shape: tuple[int, ...]) -> int:
    """Return the multiplications and additions of one sample."""
    codes, total = np.zeros((1, *shape), np.uint8), 0
    for layer in layers:
        sums_per_unit = codes[0, 0].size if layer.conv else 1
        total += 2 * layer.weight.size * sums_per_unit
        codes = layer.run(codes)
    return total


def onnx_integer(layers: tuple[Layer, ...], x: NDArray[np.uint8], scores: NDArray[np.int64], threads: int) -> Run:
    """MatMulInteger or ConvInteger, Greater, Cast."""
    nodes: list[Node] = []
    for i, layer in enumerate(layers):
        nodes += [FLAT] if i and layers[i - 1].conv and not layer.conv else []
        signed = layer.weight.astype(np.int8)
        rest = {"xz": ZERO, "wz": SIGNED_ZERO}
        if layer.conv:
            nodes.append(("ConvInteger", {"w": signed} | rest, layer.pads))
        else:
            nodes.append(("MatMulInteger", {"w": np.ascontiguousarray(signed.T)} | rest, {}))
        if layer.threshold is not None:
            nodes += [("Greater", {"t": layer.limit.astype(np.int32)}, {}), ("Cast", {}, {"to": 2})]
        nodes += [POOL] if layer.pool else []
    return onnx_run(nodes, x, np.zeros(scores.shape, np.int32), threads)


def onnx_saturated(layers: tuple[Layer, ...], x: NDArray[np.uint8], scores: NDArray[np.int64], threads: int) -> Run:
    """QGemm or QLinearConv whose codes saturate to 0 and 255: no operators between; scores come 255-fold."""
    if any(layer.limit.shape[1:] > (1, 1) for layer in layers if layer.conv):
        raise UnsuitedError("one bias a channel cannot be a threshold that depends on the position")
    nodes: list[Node] = []
    one, fine = np.float32(1), np.float32(1 / 255)
    for i, layer in enumerate(layers):
        nodes += [FLAT] if i and layers[i - 1].conv and not layer.conv else []
        signed = layer.weight.astype(np.int8)
        turned = signed if layer.conv else np.ascontiguousarray(signed.T)
        if layer.threshold is None:
            nodes.append(("MatMulInteger", {"w": turned, "xz": ZERO, "wz": SIGNED_ZERO}, {}))
            continue
        given = {"xs": one, "xz": ZERO, "w": turned, "ws": one, "wz": SIGNED_ZERO}
        bias = {"b": (-layer.threshold * (255 if i else 1)).astype(np.int32)}
        target = {"ys": one if i else fine, "yz": ZERO}
        if layer.conv:
            nodes.append(("QLinearConv", given | target | bias, layer.pads))
        else:
            nodes.append(("QGemm", given | bias | target, {"domain": "com.microsoft"}))
        nodes += [POOL] if layer.pool else []
    return onnx_run(nodes, x, np.zeros(scores.shape, np.int32), threads)


def onnx_float(layers: tuple[Layer, ...], x: NDArray[np.uint8], scores: NDArray[np.int64], threads: int) -> Run:
    """Gemm or Conv, Greater, Cast."""
    nodes: list[Node] = []
    for i, layer in enumerate(layers):
        nodes += [FLAT] if i and layers[i - 1].conv and not layer.conv else []
        weight = layer.weight.astype(np.float32)
        nodes.append(("Conv", {"w": weight}, layer.pads) if layer.conv else ("Gemm", {"w": weight}, {"transB": 1}))
        if layer.threshold is not None:
            nodes += [("Greater", {"t": layer.limit.astype(np.float32)}, {}), ("Cast", {}, {"to": 1})]
        nodes += [POOL] if layer.pool else []
    return onnx_run(nodes, x.astype(np.float32), np.zeros(scores.shape, np.float32), threads)


def torch_float(layers: tuple[Layer, ...], x: NDArray[np.uint8], scores: NDArray[np.int64], threads: int) -> Run:
    """Plain float32 layers and comparisons in inference mode, convolutions with channels last."""
    functional, form = torch.nn.functional, torch.channels_last
    with torch.inference_mode():
        first = torch.from_numpy(x.copy()).float()
        first = first.to(memory_format=form) if x.ndim == 4 else first
        weights = [torch.from_numpy(layer.weight).float() for layer in layers]
        weights = [w.to(memory_format=form) if w.ndim == 4 else w for w in weights]
        limits = [torch.from_numpy(layer.limit.copy()).float() for layer in layers]

    def forward() -> torch.Tensor:
        value = first
        with torch.inference_mode():
            for layer, weight, limit in zip(layers, weights, limits, strict=True):
                if layer.conv:
                    value = functional.conv2d(value, weight, padding=layer.padding)
                else:
                    value = functional.linear(value.flatten(1), weight)
                if layer.threshold is not None:
                    value = (value > limit).float()
                if layer.pool:
                    value = functional.max_pool2d(value, 2)
        return value

    return with_threads(forward, threads)


NETWORKS: dict[str, tuple[Callable[..., Run], int]] = {  # and what the scores are multiplied by
    "onnxruntime integer": (onnx_integer, 1),
    "onnxruntime saturated": (onnx_saturated, 255),
    "onnxruntime float": (onnx_float, 1),
    "torch float": (torch_float, 1),
}


def ready_networks(
    layers: tuple[Layer, ...], x: NDArray[np.uint8], threads: int = 1
) -> tuple[dict[str, Run], dict[str, int]]:
    """Return the forwards of the peers that are there, and how many scores of each are wrong."""
    scores: NDArray[Any] = x
    for layer in layers:
        scores = layer.run(scores)
    runs, wrong = {}, {}
    for name, (prepare, factor) in NETWORKS.items():
        if name.startswith("torch") or Onnx().available() is None:
            try:
                runs[name] = prepare(layers, x, scores, threads)
            except UnsuitedError:
                continue
            bias = 0 if layers[-1].bias is None else layers[-1].bias  # added by no peer: not worth a node
            wrong[name] = int((np.asarray(runs[name]()) != factor * (scores - bias)).sum())
    return runs, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    small: dict[str, tuple[Any, ...]] = {"64-64-10": ((64,), (), (64, 10)), "conv 8-8-10": ((1, 8, 8), (8, 8), (10,))}
    whole: dict[str, tuple[Any, ...]] = {
        "784-4096-4096-10": ((784,), (), (4096, 4096, 10)),
        "conv 64-64-128-128-256-10": ((1, 28, 28), (64, 64, 128, 128), (256, 10)),
    }
    for name, (shape, convs, denses) in (whole if options.whole else small).items():
        layers = made_network(shape, convs, denses)
        for n in options.batches:
            x = np.random.default_rng(1).integers(0, 256, (n, *shape)).astype(np.uint8)
            runs, wrong = ready_networks(layers, x, options.threads)
            times = measure(runs, rounds=options.rounds, threads=dict.fromkeys(runs, options.threads))
            print(f"\n{name}, batch {n}, {options.threads} threads")
            for peer, timed in times.items():
                speed = n * operations(layers, shape) / timed["seconds"] / 1e9
                right = "right" if not wrong[peer] else f"{wrong[peer]} wrong"
                print(f"  {peer:30} {timed['seconds'] * 1e6:10.1f} us {speed:8.1f} GOP/s  {right}")
            lines = {peer: timed | {"wrong": wrong[peer]} for peer, timed in times.items()}
            record(options.results, "speed_peer_networks", net=name, batch=n, threads=options.threads, peers=lines)


if __name__ == "__main__":
    main()
