"""Every deployed form of a network that can run here, as functions from codes to scores; and inputs to try them on."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from hardstep.export.c import to_c
from hardstep.export.compiler import compiler
from hardstep.hard_layers import Dense, Flatten
from hardstep.hardnet import HardNet

__all__ = ["Factory", "Form", "c_form", "export_forms", "trouble"]

Form = Callable[[NDArray[Any]], NDArray[Any]]
"""A deployed form: codes or numbers to integer scores."""

Factory = Callable[[HardNet], Form]
"""Makes a form of a network."""

ALL = 2**16  # inputs that are tried one and all


def export_forms() -> dict[str, Factory]:
    """Return the exports that can run here, by name: compiled C, ONNX Runtime, a simulator of Verilog."""
    found: dict[str, Factory] = {}
    if compiler():
        found["C"] = c_form
    if find_spec("onnx") and find_spec("onnxruntime"):
        found["ONNX"] = _onnx_form
    if shutil.which("iverilog") or shutil.which("verilator"):
        found["Verilog"] = _verilog_form
    return found


def c_form(hard: HardNet, *, options: tuple[str, ...] = ("-O1",), lanes: int = 64) -> Form:
    """Return the exported C of a network, compiled alone, as a form.

    Raises
    ------
    RuntimeError
        If the compiler refuses it.
    """
    folder = tempfile.mkdtemp(prefix="hardstep-")
    source, program = Path(folder) / "net.c", Path(folder) / "net"
    source.write_text(to_c(hard, lanes=lanes))
    command = [str(compiler()), "-std=c99", *options, "-DNET_MAIN", str(source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")

    def run(x: NDArray[Any]) -> NDArray[np.int64]:
        codes = hard.codes(x)
        out = subprocess.run([program], input=codes.tobytes(), capture_output=True, check=True).stdout
        return np.array(out.split(), np.int64).reshape(len(codes), -1)

    weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    return run


def _onnx_form(hard: HardNet) -> Form:
    """Return the ONNX model in ONNX Runtime."""
    from hardstep.export.onnx import onnx_form, to_onnx

    run = onnx_form(to_onnx(hard))
    return lambda x: run(hard.codes(x))


def _verilog_form(hard: HardNet) -> Form:
    """Return the Verilog in a simulator."""
    from hardstep.export.verilog_bench import verilog_form

    return verilog_form(hard)


def trouble(hard: HardNet, seed: int = 0) -> UInt8[np.ndarray, "n *d"]:
    """Return codes that look for trouble: extremes, sparse and dense noise, sums on a threshold and one beside it.

    All inputs of a network where there are at most 2^16.
    """
    generator = np.random.default_rng(seed)
    count = prod(hard.shape)
    if 256**count <= ALL:
        return np.array(list(product(range(256), repeat=count)), np.uint8).reshape(-1, *hard.shape)
    noise = generator.integers(0, 256, (64, count)).astype(np.uint8)
    noise[16:32] *= generator.random((16, count)) < 0.05
    noise[32:48] = 255 * (noise[32:48] > 127)
    noise[48:56] = (noise[48:56] > 127).astype(np.uint8)
    noise[56], noise[57] = 0, 255
    first = next((layer for layer in hard.layers if not isinstance(layer, Flatten)), None)
    ties = _ties(first, noise[:16], generator) if isinstance(first, Dense) and first.threshold is not None else []
    return np.concatenate([noise, *ties]).reshape(-1, *hard.shape)


def _ties(layer: Dense, start: NDArray[np.uint8], generator: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Return inputs whose sum of some unit is one of its thresholds, or next to it: codes moved one after the other."""
    assert layer.threshold is not None
    found = []
    for unit in generator.permutation(len(layer.weight))[:32]:
        codes = start[generator.integers(len(start))].astype(np.int64)
        gain = np.broadcast_to(layer.encoding.gain, codes.shape)
        step = layer.weight[unit].astype(np.int64) * gain
        acc = int(layer.weight[unit].astype(np.int64) @ layer.encoding.value(codes.astype(np.uint8)))
        missing = int(layer.threshold[unit, 0]) + int(generator.integers(-1, 2)) - acc
        for k in np.argsort(-np.abs(step), kind="stable"):
            if step[k] and missing:
                moved = int(np.clip(codes[k] + int(missing / step[k]), 0, 255))
                missing -= int(step[k]) * (moved - int(codes[k]))
                codes[k] = moved
        found.append(codes.astype(np.uint8)[None])
    return found
