"""Commands on a frozen network: summary, simplify, export."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console

from hardstep.data import load
from hardstep.engine import Engine
from hardstep.export.c import write_c
from hardstep.hard_layers import Conv, Dense
from hardstep.hard_sums import Rescaled
from hardstep.hardnet import HardNet
from hardstep.parts import batches
from hardstep.run_folder import RunFolder
from hardstep.simplify import simplify
from hardstep.storage import write_bytes

__all__ = ["Export", "Simplify", "Summary", "load_hardnet"]

SIMPLIFIED = "simplified.safetensors"
WORD = 64  # bits of a machine word
TARGETS = ("c", "onnx", "qonnx", "verilog")


@dataclass(frozen=True)
class Summary:
    """Print the layers of a frozen network: shapes, bits, bytes, MACs, zeros, and which kernels run it here and why.

    Where `hardstep simplify` has written a smaller network into the run folder, sizes are shown before and after.

    Parameters
    ----------
    run
        A run folder, or a file hardnet.safetensors.
    data
        Name or path of data: the share of set bits that each layer reads there is measured on training rows, shown, and
        used to choose kernels.
    """

    run: tyro.conf.Positional[Path]
    data: str | None = None

    def print(self, console: Console) -> int:
        """Print the table."""
        hard = load_hardnet(self.run)
        sample = None if self.data is None else some_rows(self.data, hard)
        console.print(hard.summary(), highlight=False, soft_wrap=True)
        small = self.run / SIMPLIFIED
        nets = [hard, HardNet.load(small)] if small.is_file() else [hard]
        if not same_origin(hard, nets[-1]):
            console.print(f"{small} is of another network: run `hardstep simplify` again", style="dim", soft_wrap=True)
            nets = [hard]
        console.print(sizes(*nets), highlight=False, soft_wrap=True)
        console.print(kernels(hard, sample), highlight=False, soft_wrap=True)
        return 0


@dataclass(frozen=True)
class Simplify:
    """Remove what a frozen network does not need; every score stays the same integer for every input.

    Writes the smaller network beside the frozen one, which stays as it is, and prints its layers.

    Parameters
    ----------
    run
        A run folder, or a file hardnet.safetensors.
    out
        The file to write; by default simplified.safetensors in the same folder.
    """

    run: tyro.conf.Positional[Path]
    out: Path | None = None

    def print(self, console: Console) -> int:
        """Simplify, write the file, print the table and all sizes before and after."""
        before = load_hardnet(self.run)
        after = simplify(before)
        out = self.out or (self.run if self.run.is_dir() else self.run.parent) / SIMPLIFIED
        after.save(out)
        console.print(after.summary(), highlight=False, soft_wrap=True)
        console.print(f"{sizes(before, after)}\nwritten to {out}", style="dim", highlight=False, soft_wrap=True)
        return 0


@dataclass(frozen=True)
class Export:
    """Write a frozen network as C, ONNX, QONNX or Verilog; the scores stay the same integers.

    Parameters
    ----------
    run
        A run folder, or a file hardnet.safetensors.
    to
        c, onnx, qonnx or verilog.
    out
        The file to write, or the folder for C in another layout than "file"; by default from the name.
    name
        Name of the functions or of the module.
    layout
        Of C: file, folder (with the runtime for all instruction sets), cmake or arduino.
    lanes
        Of C: bits of a vector, 64 to run everywhere.
    small
        Of C: 2 kB less flash, slower.
    pipelined
        Of Verilog: registers between layers.
    """

    run: tyro.conf.Positional[Path]
    to: str = "c"
    out: Path | None = None
    name: str = "net"
    layout: str = "file"
    lanes: int = 64
    small: bool = False
    pipelined: bool = False

    def print(self, console: Console) -> int:
        """Write the export and say where it is."""
        if self.to not in TARGETS:
            raise ValueError(f"--to takes one of {', '.join(TARGETS)}; got {self.to!r}")
        hard = load_hardnet(self.run)
        written = self._c(hard) if self.to == "c" else [self._one(hard)]
        for path in written:
            console.print(f"{path}  {path.stat().st_size:,} bytes", highlight=False, soft_wrap=True)
        return 0

    def _c(self, hard: HardNet) -> list[Path]:
        """Write C: one file, or a folder."""
        name, folder = self.name, self.out or Path(self.name)
        if self.layout == "file":
            folder = Path() if self.out is None else self.out.parent
            name = name if self.out is None or name != "net" else identifier(self.out.stem)
        return write_c(hard, folder, layout=self.layout, name=name, lanes=self.lanes, small=self.small)

    def _one(self, hard: HardNet) -> Path:
        """Write what is one file."""
        if self.to == "verilog":
            from hardstep.export.verilog import to_verilog

            content = to_verilog(hard, name=self.name, pipelined=self.pipelined).encode()
        else:
            from hardstep.export.onnx import to_onnx, to_qonnx

            content = to_onnx(hard) if self.to == "onnx" else to_qonnx(hard)
        ending = {"onnx": "onnx", "qonnx": "qonnx.onnx", "verilog": "v"}[self.to]
        out = self.out or Path(f"{self.name}.{ending}")
        write_bytes(out, content)
        return out


def some_rows(name: str, hard: HardNet) -> NDArray[Any]:
    """Return at most 2,048 training rows of data, in the shape that a network takes."""
    data = load(name)
    x, _ = next(batches(data.train, [torch.arange(min(2048, len(data.train)))]))
    if x[0].numel() != prod(hard.shape):
        raise ValueError(f"{name} has samples of shape {tuple(x.shape[1:])}, the network takes {hard.shape}")
    rows: NDArray[Any] = x.numpy().reshape(len(x), *hard.shape)
    return rows


def sizes(*nets: HardNet) -> str:
    """Return bytes, MACs and zeros of a network, or of one before and after it was simplified, in all and by layer.

    A word is 64 weights of a row that lie together: channels innermost in a convolution. It is zero if all are.
    """

    def line(name: str, values: list[str]) -> str:
        return f"{name}: {values[0]}" + "".join(f" before, {value} after" for value in values[1:])

    lines = [line("bytes", [f"{net.nbytes:,}" for net in nets]), line("MACs", [f"{net.macs:,}" for net in nets])]
    for i, layers in enumerate(zip(*(net.parts() for net in nets), strict=True)):
        maps = [layer for layer in layers if isinstance(layer, Dense | Conv | Rescaled)]
        if maps:
            lines.append(line(f"  layer {i}", [f"{len(layer.weight):,} units, {zeros(layer)}" for layer in maps]))
    return "\n".join(lines)


def zeros(layer: Dense | Conv | Rescaled) -> str:
    """Return which shares of the weights of a layer, and of their words, are 0."""
    rows = np.moveaxis(layer.weight, 1, -1).reshape(len(layer.weight), -1) != 0
    words = np.logical_or.reduceat(rows, np.arange(0, rows.shape[1], WORD), axis=1)
    return f"{1 - rows.mean():.1%} of weights and {1 - words.mean():.1%} of words zero"


def same_origin(one: HardNet, other: HardNet) -> bool:
    """Return whether two networks come from one that was frozen: what simplifying never changes is equal."""
    kept = [(net.shape, net.scale, [type(layer) for layer in net.layers]) for net in (one, other)]
    return kept[0] == kept[1]


def kernels(hard: HardNet, sample: NDArray[Any] | None = None) -> str:
    """Return which kernels run a network here, for one sample and for many, and why."""
    engine = Engine(hard, sample=sample)
    if engine.reason:
        return f"run by the NumPy reference: {engine.reason}"
    if not hard.of_codes:
        return f"run by the C runtime, {engine.isa}: one program, sample by sample, since real sums travel"
    lines = [f"run by the C runtime, {engine.isa}, vectors of {engine.lanes} bits:"]
    one, many = engine.kernels(1), engine.kernels(10**6)
    for few, lots in zip(one, many, strict=True):
        lines.append(f"  {few}" + (f"; in large batches {lots}" if lots.kernel != few.kernel else ""))
    shares = zip(one, engine.density, strict=False)
    lines += [f"  {choice.name} reads codes of which {share:.1%} of the bits are set" for choice, share in shares]
    return "\n".join(lines)


def identifier(text: str) -> str:
    """Return a name that C allows, from that of a file."""
    kept = "".join(c if c.isascii() and c.isalnum() else "_" for c in text)
    return kept if kept[:1].isalpha() else f"net_{kept}"


def load_hardnet(run: Path) -> HardNet:
    """Load a frozen network from a run folder or a file."""
    path = RunFolder(run).hardnet if run.is_dir() else run
    if run.is_dir() and RunFolder(run).model.is_file() and not path.is_file():
        raise ValueError(f"{run} holds a trained network that is not frozen; `hardstep train` said why")
    return HardNet.load(path)
