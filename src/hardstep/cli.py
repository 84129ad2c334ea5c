"""The `hardstep` command. Names of methods, rules, networks and their fields are read off the classes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn

from hardstep import data as data_module
from hardstep.augment import Augment
from hardstep.bench.command import Bench
from hardstep.certify.certificate import Verdict
from hardstep.certify.overflow import NoOverflow
from hardstep.choices import kebab, parse, usual_sweeps
from hardstep.commands import Export, Simplify, Summary, load_hardnet
from hardstep.compare_command import Compare
from hardstep.data import Data
from hardstep.fit import Method, fit, score
from hardstep.freeze import as_torch, check_bits, freeze
from hardstep.hardnet import HardNet
from hardstep.methods.gradient import GradientDescent
from hardstep.nets import MLP, AlexNet, ConvNet4, ConvNet8, ResNet18, ResNet20, ResNet34, VGGSmall
from hardstep.proofs import prove_optimality
from hardstep.ranks import Precision, launched
from hardstep.run_folder import RunFolder
from hardstep.verify import verify

__all__ = ["Certify", "Train", "Verify", "main"]


@dataclass(frozen=True)
class Train:
    """Train a network of hard steps, freeze it to integers, and print one table.

    Parameters
    ----------
    data
        "digits", "mnist", "fashion-mnist", "cifar-10", a path, or the name of an OpenML data set.
    net
        The network.
    method
        How it is trained.
    sweeps
        Sweeps over the data; by default about 540,000 rows in all, at least 10 and at most 100 sweeps.
    seed
        Source of all randomness: split, initial weights, order.
    patience
        Stop after so many sweeps without a better validation score.
    weight_bits
        Bits of a rounded weight, 2 to 16; 8 if not given, 16 where real sums go from block to block.
    name
        The run folder is runs/<name>; by default <data>-<method>-<seed>.
    progress
        Show a progress bar.
    augment
        Crops and mirror images of training images.
    size
        Height and width to which the images of class folders are resized; those of the first image if not given.
    margin
        Keep the proportions of such images: cover so many pixels more than the size, then cut out the middle.
    precision
        What layers multiply in while they are trained: 32-true, or bf16-mixed or 16-mixed where the machine is faster
        so.
    """

    data: tyro.conf.Positional[str] = "digits"
    net: MLP | ConvNet4 | ConvNet8 | AlexNet | VGGSmall | ResNet18 | ResNet20 | ResNet34 = field(default_factory=MLP)
    method: Method[Any] = field(default_factory=GradientDescent)
    sweeps: int | None = None
    seed: int = 0
    patience: int | None = None
    weight_bits: int | None = None
    name: str | None = None
    progress: bool = True
    augment: Augment = field(default_factory=Augment)
    size: tuple[int, int] | None = None
    margin: int | None = None
    precision: Precision = "32-true"

    def load(self) -> tuple[Data, nn.Module]:
        """Load the data and build the network."""
        data = data_module.load(self.data, seed=self.seed, size=self.size, margin=self.margin, augment=self.augment)
        return data, self.net(data.shape, data.outputs, self.seed)

    def budget(self, data: Data) -> int:
        """Return the number of sweeps."""
        return usual_sweeps(len(data.train)) if self.sweeps is None else self.sweeps

    @property
    def folder(self) -> RunFolder:
        """The run folder."""
        name = self.name or f"{Path(self.data).name}-{kebab(type(self.method))}-{self.seed}"
        return RunFolder(Path("runs") / name)

    def run(self, console: Console, arguments: list[str], folder: RunFolder) -> int:
        """Train, freeze, write the run folder, print the table."""
        if self.weight_bits is not None:
            check_bits(self.weight_bits)
        with launched(self.precision) as fabric:
            return self._run(console, arguments, folder, fabric)

    def _run(self, console: Console, arguments: list[str], folder: RunFolder, fabric: Fabric) -> int:
        start = time.perf_counter()
        data, net = self.load()
        if fabric.is_global_zero:
            folder.begin(arguments)
        fabric.barrier()
        report = fit(
            net,
            data,
            self.method,
            sweeps=self.budget(data),
            seed=self.seed,
            patience=self.patience,
            folder=folder.path,
            fabric=fabric,
            progress=self.progress,
        )
        if not fabric.is_global_zero:
            return 0
        folder.keep(net, report)
        columns = {"method": kebab(type(self.method)), "sweeps": f"{report.best + 1} of {len(report.records)}"}
        if data.test is not None:
            columns["float test"] = _share(data, score(net, data.test))
        try:
            hard = freeze(net, calibrate=data.train, weight_bits=self.weight_bits)
        except ValueError as error:  # some networks train but have no integer form: what was trained is not lost
            remark = f"not frozen: {error}"
        else:
            hard.save(folder.hardnet)
            remark = str(hard.rounding)
            if data.test is not None:
                columns["frozen test"] = _share(data, score(as_torch(hard), data.test))
            columns |= {"bytes": f"{hard.nbytes:,}", "MACs": f"{hard.macs:,}"}
        columns["seconds"] = f"{time.perf_counter() - start:.1f}"
        table = Table(title=f"{data.name}: {report.stopped}")
        for column in columns:
            table.add_column(column, justify="right")
        table.add_row(*columns.values())
        console.print(table)
        console.print(f"{remark}\nwritten to {folder.path}/", style="dim", highlight=False)
        return 0


@dataclass(frozen=True)
class Resume:
    """Go on with a run that was interrupted, to the same numbers as an unbroken one."""

    resume: Path


@dataclass(frozen=True)
class Verify:
    """Check that what was shipped is what was trained, and that all its forms agree bit for bit.

    Freezes the run's float network again (must give the same integers), then compares every form of the frozen
    network that can run here (file, engine, C, ONNX, Verilog) with the NumPy reference on the test part and on inputs
    that look for trouble. Ends with status 1 where a form differs.

    Parameters
    ----------
    run
        A run folder.
    """

    run: tyro.conf.Positional[Path]

    def print(self, console: Console) -> int:
        """Check and print one line a form."""
        folder = RunFolder(self.run)
        train = parse_train(folder.arguments())
        hard = load_hardnet(self.run)
        data, net = train.load()
        folder.load_into(net)
        again = freeze(net, calibrate=data.train, weight_bits=train.weight_bits)
        part = data.train if data.test is None else data.test
        x = part.take(list(range(len(part))))[0].numpy()
        result = verify(hard, x, forms={"frozen again": again}, floats={"float network": as_numpy(net, hard)})
        table = Table(title=f"{self.run}: against the NumPy reference")
        for column in ("form", "samples", "other scores", "other labels", ""):
            table.add_column(column, justify="left" if column in ("form", "") else "right", no_wrap=column == "form")
        for check in result.checks:
            verdict = ("equal" if check.ok else f"DIFFERS: {check.first}") if check.exact else "before rounding"
            scores = f"{check.scores_differing}" if check.exact else "-"
            if check.refused:
                verdict = f"not made: {check.refused}"
            table.add_row(check.form, f"{check.rows:,}", scores, f"{check.labels_differing}", verdict)
        console.print(table)
        return 0 if result else 1


@dataclass(frozen=True)
class Certify:
    """Prove of a frozen network what can be proved: no sum overflows, and how far it is from the best of its shape.

    Writes the certificates into the run folder, and beside that of optimality the data that
    `python -m hardstep.certify.check_optimality CERTIFICATE DATA` needs to check it again.

    Parameters
    ----------
    run
        A run folder.
    bits
        Width of the accumulator that must not overflow.
    beta
        Price of an amplitude per row, for the objective that is compared: loss + beta * rows * sum of |amplitudes|.
    gap
        Claim that the objective is at most 1 + gap times the least; by default the smallest gap that is found.
    layers
        2: the last hidden layer and the read-out, given the layers below; 1: the read-out, given all hidden bits.
    rows
        Training rows that the objective is over, the first ones.
    """

    run: tyro.conf.Positional[Path]
    bits: int = 32
    beta: float = 1e-3
    gap: float | None = None
    layers: int = 1
    rows: int = 1000

    def print(self, console: Console) -> int:
        """Certify, write the files, print one line a certificate."""
        folder = RunFolder(self.run)
        data, _ = parse_train(folder.arguments()).load()
        hard = load_hardnet(self.run)
        overflow = NoOverflow(self.bits).certify(hard)
        overflow.save(self.run / "overflow.safetensors")
        best = prove_optimality(hard, data, self.run, beta=self.beta, gap=self.gap, layers=self.layers, rows=self.rows)
        found = {"overflow": overflow, "optimality": best}
        for name, certificate in found.items():
            path = self.run / f"{name}.safetensors"
            console.print(f"{certificate.verdict.name:8}{certificate.claim}", highlight=False, soft_wrap=True)
            console.print(f"        written to {path}", style="dim", highlight=False, soft_wrap=True)
        return 1 if any(certificate.verdict is Verdict.REFUTED for certificate in found.values()) else 0


Command = Summary | Simplify | Export | Verify | Certify | Bench


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a bad value is one line on stderr and status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        sys.exit(_dispatch(arguments, Console()))
    except (ValueError, OSError, FloatingPointError) as error:
        Console(stderr=True).print(f"hardstep: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)


def _dispatch(arguments: list[str], console: Console) -> int:
    command, rest = (arguments or ["--help"])[0], arguments[1:]
    if command == "train":
        if "--resume" in rest:
            folder = RunFolder(tyro.cli(Resume, args=rest, prog="hardstep train").resume)
            rest = folder.arguments()
            return parse_train(rest).run(console, rest, folder)
        train = parse_train(rest)
        return train.run(console, rest, train.folder)
    if command == "compare":
        return parse(Compare(), rest, "hardstep compare").run(console, rest)
    kinds: tuple[type[Command], ...] = (Summary, Simplify, Export, Verify, Certify, Bench)
    for kind in kinds:
        if command == kebab(kind):
            return tyro.cli(kind, args=rest, prog=f"hardstep {command}").print(console)
    text = "\n".join(
        f"  hardstep {kebab(kind):9}{(kind.__doc__ or '').splitlines()[0]}" for kind in (Train, Compare, *kinds)
    )
    known = command in ("-h", "--help")
    out = console if known else Console(stderr=True)
    if not known:
        out.print(f"hardstep: there is no command {command!r}", style="red", markup=False)
    out.print(f"{text}\n\n`hardstep COMMAND --help` shows every option.", highlight=False, markup=False, soft_wrap=True)
    return 0 if known else 2


def parse_train(arguments: list[str]) -> Train:
    """Read the command line of `train`."""
    return parse(Train(), arguments, "hardstep train")


def as_numpy(net: nn.Module, hard: HardNet) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a float network as a function from codes or numbers to outputs, in NumPy."""
    net.eval()

    def run(x: NDArray[Any]) -> NDArray[Any]:
        values = torch.from_numpy(hard.grid.value(x) if x.dtype == np.uint8 else x)
        with torch.no_grad():
            return np.concatenate([net(rows).numpy() for rows in values.tensor_split(-(-len(values) // 1000))])

    return run


def _share(data: Data, value: float) -> str:
    return f"{value:.2%}" if data.classification else f"R² {value:.4f}"
