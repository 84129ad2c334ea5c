"""One run of a comparison: train, freeze, measure, prove; the result lies in a folder and is read back from there."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hardstep import data as data_module
from hardstep.certify.overflow import NoOverflow
from hardstep.data import Data, from_arrays
from hardstep.diagnostics import dead_rates
from hardstep.engine import Engine
from hardstep.fit import CHECKPOINT, Method, fit, score
from hardstep.freeze import as_torch, freeze
from hardstep.hard_layers import Conv, Dense
from hardstep.hard_sums import Rescaled
from hardstep.hardnet import HardNet
from hardstep.methods.gradient import GradientDescent
from hardstep.nets import mlp
from hardstep.parts import Part
from hardstep.proofs import prove_optimality
from hardstep.report import Report, versions
from hardstep.run_folder import RunFolder
from hardstep.simplify import simplify
from hardstep.storage import read_json, write_json

__all__ = ["Proof", "Recipe", "Run", "Task", "run_times", "train_run"]

SIMPLIFIED = "simplified.safetensors"
RUN, IDENTITY = "run.json", "identity.json"
CERTIFIED = 300  # rows of the certificate of optimality: a second or two
LOOKED_AT = 1000  # rows of a part that stand for it in the identity of a run

Recipe = Callable[[tuple[int, ...], int, int], nn.Module]


@dataclass(frozen=True)
class Proof:
    """What a certificate in the folder of a run says."""

    claim: str
    verdict: str


@dataclass(frozen=True)
class Run:
    """What came of one method with one seed.

    Parameters
    ----------
    name
        Name of the method in the comparison.
    seed
        Seed of the split, the initial weights and the fit.
    method
        `repr` of the method: code that makes it again.
    figures
        What was measured, by name; what could not be measured is not there.
    proofs
        What the certificates say.
    report
        What the fit did.
    failed
        Why the run did not end well; empty if it did.
    """

    name: str
    seed: int
    method: str
    figures: Mapping[str, float] = field(default_factory=dict)
    proofs: tuple[Proof, ...] = ()
    report: Report | None = None
    failed: str = ""


@dataclass(frozen=True, eq=False)
class Task:
    """What all runs have in common.

    Parameters
    ----------
    data
        The data, one split for all seeds; or what `hardstep.data.load` takes, split anew by every seed.
    net
        The recipe of the network, called with the shape of a sample, the number of outputs and the seed.
    sweeps
        Of `fit`.
    weight_bits
        Of `freeze`.
    """

    data: Data | str | Path
    net: Recipe
    sweeps: int
    weight_bits: int

    def load(self, seed: int) -> tuple[Data, nn.Module]:
        """Return the data and the initial network of a seed."""
        data = self.data if isinstance(self.data, Data) else data_module.load(self.data, seed=seed)
        return data, self.net(data.shape, data.outputs, seed)

    def identity(self, seed: int) -> dict[str, Any]:
        """Return what the result of a seed depends on beside the method."""
        data, net = self.load(seed)
        return {
            "data": f"{data.name}, {len(data.train)} x {data.shape} -> {data.outputs}, {_digest(data)}",
            "net": repr(net),
            "seed": seed,
            "sweeps": self.sweeps,
            "weight_bits": self.weight_bits,
            **versions(),
        }


def train_run(task: Task, name: str, method: Method[Any], seed: int, folder: Path) -> Run:
    """Do one run on one thread, or go on with it, or read its result; an error becomes the reason why it failed.

    A failed run leaves its checkpoint and no result, so that it is tried again the next time.
    """
    done = _finished(folder, name, seed)
    if done is not None:
        return done
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _trained(task, name, method, seed, folder)
    except Exception as error:  # whatever it is, the other runs go on and the report says it
        return Run(name, seed, repr(method), failed=f"{type(error).__name__}: {error}")
    finally:
        torch.set_num_threads(threads)


def run_times(folder: Path, x: NDArray[Any], *, seconds: float = 0.05) -> dict[str, float]:
    """Return the CPU microseconds a sample that the frozen network of a run takes, one by one and in batches of 256.

    Parameters
    ----------
    x
        Rows of the data.
    seconds
        For about so long each is timed, five times; the median counts.
    """
    engine = Engine(HardNet.load(folder / SIMPLIFIED))
    return {f"us_{batch}": _microseconds(engine, np.resize(x, (batch, *x.shape[1:])), seconds) for batch in (1, 256)}


def _finished(folder: Path, name: str, seed: int) -> Run | None:
    """Read the result of a finished run."""
    path = folder / RUN
    if not path.is_file():
        return None
    content = read_json(path)
    proofs = tuple(Proof(**proof) for proof in content["proofs"])
    report = Report.from_json(folder / "report.json")
    return Run(name, seed, content["method"], content["figures"], proofs, report, content["failed"])


def _trained(task: Task, name: str, method: Method[Any], seed: int, folder: Path) -> Run:
    data, net = task.load(seed)
    _warm_up()
    resumed = (folder / CHECKPOINT).exists()
    with _peak() as peak:
        report = fit(net, data, method, sweeps=task.sweeps, seed=seed, folder=folder, progress=False)
    part = data.test or data.val or data.train
    figures = {"seconds": report.seconds, "sweeps": float(len(report.records)), "float": score(net, part)}
    if peak and not resumed:  # of a part of the training nothing is said
        figures["memory"] = float(peak[0])
    try:
        hard = freeze(net, calibrate=data.train, weight_bits=task.weight_bits)
        small = simplify(hard)
        figures["dead"] = dead_rates(net, data.val or data.train).dead
    except ValueError as error:
        return Run(name, seed, repr(method), figures, (), report, f"trained, but not frozen: {error}")
    weights = [layer.weight for layer in hard.parts() if isinstance(layer, Dense | Conv | Rescaled)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    figures |= {
        "frozen": score(as_torch(hard), part),
        "nbytes": float(hard.nbytes),
        "small_nbytes": float(small.nbytes),
        "macs": float(small.macs),
        "sparsity": zeros / sum(weight.size for weight in weights),
    }
    run_folder = RunFolder(folder)
    run_folder.keep(net, report)
    hard.save(run_folder.hardnet)
    small.save(folder / SIMPLIFIED)
    run = Run(name, seed, repr(method), figures, tuple(_proofs(hard, data, folder)), report)
    write_json(folder / RUN, {key: value for key, value in asdict(run).items() if key != "report"})  # last: it is done
    return run


def _proofs(hard: HardNet, data: Data, folder: Path) -> Iterator[Proof]:
    """Make the certificates: no sum overflows; how far the read-out is from the best one, where there is a proof."""
    overflow = NoOverflow().certify(hard)
    overflow.save(folder / "overflow.safetensors")
    yield Proof(overflow.claim, overflow.verdict.name)
    try:
        best = prove_optimality(hard, data, folder, rows=CERTIFIED)
    except ValueError:
        return  # another kind of network
    yield Proof(best.claim, best.verdict.name)


def _warm_up() -> None:
    """Train two units: what torch loads at the first training of a process is not of the run that comes first."""
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    corners = from_arrays(x, np.array([0, 1, 1, 0]), val_share=0.0, test_share=0.0)
    fit(mlp(2, 2, 2), corners, GradientDescent(batch_size=4), sweeps=1, progress=False)


@contextmanager
def _peak() -> Iterator[list[int]]:
    """Lend a list that afterwards holds the bytes by which the resident memory of the process rose at most.

    It stays empty where the operating system does not say (Linux does, and starts anew on demand).
    """
    found: list[int] = []
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(
            0
        )  # what earlier runs have freed goes back, else it would hide what this one takes
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmRSS")
    except (OSError, AttributeError, StopIteration):
        yield found
        return
    yield found
    found.append(max(_resident("VmHWM") - before, 0))


def _resident(name: str) -> int:
    """Return VmRSS (now) or VmHWM (the highest) of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def _microseconds(engine: Engine, x: NDArray[Any], seconds: float) -> float:
    """Return the median over five rounds of the CPU time of a sample: beside it others may run."""
    codes = engine.hard.codes(x)
    engine(codes)
    start = time.process_time()
    engine(codes)
    calls = max(1, round(seconds / 5 / max(time.process_time() - start, 1e-7)))
    rounds = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(calls):
            engine(codes)
        rounds.append((time.process_time() - start) / calls / len(x))
    return 1e6 * float(np.median(rounds))


def _digest(data: Data) -> str:
    """Return a digest of at most 1,000 evenly spaced rows of each part."""
    sha = hashlib.sha256()
    for part in (data.train, data.val, data.test):
        if part is not None:
            x, y = part.take(_spaced(part))
            sha.update(f"{len(part)}".encode() + x.numpy().tobytes() + y.numpy().tobytes())
    return sha.hexdigest()[:16]


def _spaced(part: Part) -> torch.Tensor:
    return torch.linspace(0, len(part) - 1, min(len(part), LOOKED_AT)).long()
