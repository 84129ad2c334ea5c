"""One loop for all methods: `fit` seeds, times, validates, keeps the best, stops, checkpoints, resumes and shows."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from hardstep.augment import Augment
from hardstep.checkpoint import load_tree, save_tree
from hardstep.data import Data
from hardstep.indicators import StepReading, indicators, read_steps, read_weights
from hardstep.parts import Part, batches
from hardstep.progress import Progress
from hardstep.ranks import launched_fabric
from hardstep.report import Record, Report, versions
from hardstep.step import Step
from hardstep.work import Batch, Work

__all__ = ["Batch", "Method", "State", "Sweep", "Work", "fit", "score"]

CHECKPOINT = "checkpoint.safetensors"
PROBE = 512  # rows on which the steps are read after each sweep


@runtime_checkable
class State(Protocol):
    """What a method carries from sweep to sweep beside the network: anything with the state protocol of torch."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as tensors, numbers, text and containers of them."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take back what `state_dict` returned."""


@dataclass(frozen=True)
class Sweep:
    """What a method says of one sweep.

    Parameters
    ----------
    objective
        Value of what the method minimises, over the training part.
    stop
        Why no further sweep is needed ("proved optimal", "no bit flipped"); empty to go on.
    extra
        Further measurements for the report, by name.
    admissible
        Whether the network is one the method may end with; False while, say, it is not yet as sparse as asked for.
    """

    objective: float
    stop: str = ""
    extra: Mapping[str, float] = field(default_factory=dict)
    admissible: bool = True


S = TypeVar("S", bound=State)
T = TypeVar("T")


class Method(ABC, Generic[S]):
    """A training algorithm: a frozen dataclass of hyperparameters with a start and one sweep.

    After `init` and after every `sweep` the network itself is the method's current answer: what is
    validated, kept and frozen. All randomness comes from `work.generator`; a sweep depends on nothing but
    network, state and `work`, so that a run resumed between two sweeps ends in the same bits.
    """

    monotone: bool = False
    """Whether the objective never rises from sweep to sweep (up to rounding)."""

    incremental: bool = False
    """Whether a fit goes on from the network's weights, whatever its rows, so that fits on parts of the data add up."""

    latent: bool = False
    """Whether it can train weights from which a layer computes those that it uses (binary, ternary ones)."""

    augments: bool = False
    """Whether its sweeps see the training part in shuffled batches only, whose images may change (`Data.augment`)."""

    @abstractmethod
    def init(self, net: nn.Module, work: Work) -> S:
        """Prepare the network and return the state before the first sweep."""

    @abstractmethod
    def sweep(self, state: S, work: Work) -> Sweep:
        """Improve the network once over the data."""


def fit(
    net: nn.Module,
    data: Data,
    method: Method[Any],
    *,
    sweeps: int = 20,
    seed: int = 0,
    patience: int | None = None,
    folder: Path | str | None = None,
    fabric: Fabric | None = None,
    progress: bool = True,
) -> Report:
    """Train a network of hard steps in place with any method, and report what happened.

    After each sweep the network is scored on `data.val`; the best one is kept and is in `net` at the end
    (the last one where there is no validation part). The test part is not touched. Each
    record's `extra` has the `indicators` of the steps on at most 512 validation rows: flipped bits, silent units, ...;
    and the `weight_error` of layers with hard weights.

    Parameters
    ----------
    sweeps
        At most so many sweeps (a gradient method's epochs).
    seed
        Source of all randomness of the fit; the caller's generators are left alone.
    patience
        Stop after so many sweeps without a better validation score, counted from the first admissible sweep; None never
        stops early.
    folder
        Where a checkpoint is written after each sweep. If it holds one of the same fit, the fit goes on from
        there and ends in the same bits as an unbroken one.
    fabric
        A launched Lightning Fabric: devices, ranks, precision. By default one device, or torchrun's ranks.
    progress
        Show a progress bar.

    Raises
    ------
    ValueError
        If the network has no step, or weights that the method cannot train, it cannot train on images that change, a
        count is out of range, or the folder holds another fit or version.
    FloatingPointError
        If objective or weights are not finite. After this and any other error in a sweep, an interrupt too, the best
        network so far is in `net`, and a folder's checkpoint is that of the last whole sweep.

    Examples
    --------
    >>> import hardstep as hs
    >>> report = hs.fit(hs.nets.mlp(64, 32, 10), hs.data.load("digits"), hs.GradientDescent(), sweeps=2, progress=False)
    >>> report.stopped
    'all 2 sweeps done'
    """
    if not any(isinstance(module, Step) for module in net.modules()):
        raise ValueError("the network has no step: put hardstep.Step() (or Sign, Staircase) between its layers")
    computed = [name for name, module in net.named_modules() if is_parametrized(module)]
    if computed and not method.latent:
        raise ValueError(
            f"layer {computed[0]!r} computes its weights (binary, ternary or the like) from others, which "
            f"{type(method).__name__} cannot train; use GradientDescent, or layers with real weights"
        )
    if data.augment != Augment() and not method.augments:
        raise ValueError(
            f"{type(method).__name__} needs the same training rows in every sweep, and {data.augment} changes them; "
            "leave out augment, or use GradientDescent or a method that wraps it"
        )
    for name, count in (("sweeps", sweeps), ("patience", 1 if patience is None else patience)):
        if count < 1:
            raise ValueError(f"{name} counts sweeps and must be at least 1, got {count}")
    fabric = launched_fabric() if fabric is None else fabric
    fabric.strategy.precision.convert_module(net.to(fabric.device))  # "64-true" and its like
    work = Work(data, fabric, seed, sweeps)
    identity = {
        "method": repr(method),
        "data": f"{data.title}, {len(data.train)} x {data.shape} -> {data.outputs}",
        "net": ", ".join(f"{name} {tuple(value.shape)}" for name, value in net.state_dict().items()),
        "seed": seed,
        "sweeps": sweeps,
        "precision": fabric.strategy.precision.precision,
        **versions(),
    }
    path = None if folder is None else Path(folder) / CHECKPOINT
    with torch.random.fork_rng(), Progress(sweeps, shown=progress and fabric.is_global_zero) as display:
        run = _Run(net, method, work, _reseeded(work, "init", lambda: method.init(net, work)))
        if path is not None and path.exists():
            run.restore(load_tree(path, "checkpoint"), identity, path)
            display.show(run.records[-1])
        work.tick = display.tick
        while not run.stopped:
            run.sweep(patience)
            display.show(run.records[-1])
            if path is not None:
                tree = run.tree(identity)  # on every rank: a state may gather its rows
                if fabric.is_global_zero:
                    save_tree(path, tree, "checkpoint")
                fabric.barrier()
    net.load_state_dict(run.best_net)
    return Report(
        method=repr(method),
        data=data.title,
        seed=seed,
        records=tuple(run.records),
        best=run.best,
        stopped=run.stopped,
        versions=versions(),
        ranks=fabric.world_size,
    )


@dataclass
class _Run:
    """The part of a fit that a checkpoint holds."""

    net: nn.Module
    method: Method[Any]
    work: Work
    state: State
    records: list[Record] = field(default_factory=list)
    best: int = -1
    best_net: dict[str, Tensor] = field(default_factory=dict)
    stopped: str = ""
    steps: dict[str, StepReading] = field(default_factory=dict)

    def sweep(self, patience: int | None) -> None:
        """Do one sweep, time it, score it, keep the best, decide whether to stop."""
        work, done = self.work, len(self.records)
        work.sweep = done
        before = self.steps or self._read_steps()
        start = time.perf_counter()
        try:
            result = _reseeded(work, "sweep", lambda: self.method.sweep(self.state, work))
            self._check(result.objective)
        except BaseException as error:
            if self.best >= 0:
                self.net.load_state_dict(self.best_net)
            kept = (
                f"the network is that of sweep {self.best} again" if self.best >= 0 else "no sweep was done before it"
            )
            error.add_note(f"fit stopped in sweep {done} of {self.method!r}; {kept}")
            raise
        seconds = time.perf_counter() - start
        val = work.data.val
        value = None if val is None else score(self.net, val, work)
        self.steps = self._read_steps()
        extra = {**indicators(before, self.steps), **read_weights(self.net), **result.extra}
        self.records.append(Record(done, result.objective, value, seconds, extra, result.admissible))
        if self.best < 0 or self.records[done].rank >= self.records[self.best].rank:
            # of equals the later one; but patience counts from the last real gain
            self.best, self.best_net = done, deepcopy(self.net.state_dict())
        self.stopped = result.stop
        counts = val is not None and self.records[self.best].admissible
        if not self.stopped and patience is not None and counts and done - self._last_gain() >= patience:
            self.stopped = f"no better validation score for {patience} sweeps"
        if not self.stopped and done + 1 == work.sweeps:
            self.stopped = f"all {work.sweeps} sweeps done"

    def _read_steps(self) -> dict[str, StepReading]:
        """Read the steps on the first rows of the validation part, or where there is none, of the training part."""
        data = self.work.data
        part = data.train if data.val is None else data.val
        x, _ = next(batches(part, [torch.arange(min(PROBE, len(part)))]))
        return read_steps(self.net, x.to(next(self.net.parameters())))

    def _check(self, objective: float) -> None:
        """Raise an error if a sweep ended in numbers that are not finite."""
        bad = [name for name, value in self.net.state_dict().items() if not bool(value.isfinite().all())]
        if bad or not math.isfinite(objective):
            weights = f" and {bad[0]!r} NaN or infinite" if bad else ""
            raise FloatingPointError(
                f"the objective became {objective}{weights} in sweep {len(self.records)} of {self.method!r}; "
                "lower the learning rate or the coupling, or look for extreme features"
            )

    def _last_gain(self) -> int:
        ranks = [record.rank for record in self.records]
        return ranks.index(max(ranks))

    def tree(self, identity: dict[str, Any]) -> dict[str, Any]:
        """Return everything a resumed run needs."""
        return {
            "identity": identity,
            "net": dict(self.net.state_dict()),
            "best_net": dict(self.best_net),
            "state": self.state.state_dict(),
            "records": [asdict(record) for record in self.records],
            "best": self.best,
            "stopped": self.stopped,
        }

    def restore(self, tree: dict[str, Any], identity: dict[str, Any], path: Path) -> None:
        """Go back to where a checkpoint was written, if it is of the same fit."""
        other = tree["identity"]
        differing = [
            f"{name} was {other.get(name)!r}, is {identity.get(name)!r}"
            for name in identity
            if other.get(name) != identity.get(name)
        ]
        if differing:
            raise ValueError(
                f"{path} belongs to another fit: {'; '.join(differing)}. "
                "Name another folder, delete the file, or call fit as it was called then"
            )
        self.net.load_state_dict(tree["net"])
        self.best_net = tree["best_net"]
        self.state.load_state_dict(tree["state"])
        self.records = [Record(**record) for record in tree["records"]]
        self.best, self.stopped = tree["best"], tree["stopped"]


def score(net: Callable[[Tensor], Tensor], part: Part, work: Work | None = None, *, batch_size: int = 1000) -> float:
    """Return the accuracy of a network on a part, or R² where the targets are numbers.

    Parameters
    ----------
    net
        A module (run in evaluation mode) or any function from inputs to outputs.
    work
        Shares the rows among the ranks of a fit; None runs them all here.
    """
    module = net if isinstance(net, nn.Module) else nn.Identity()
    like = next(module.parameters(), torch.zeros(0))  # device and precision
    was_training = module.training
    module.eval()
    source: Iterable[tuple[Tensor, Tensor]]
    if work is None:
        source = batches(part, torch.arange(len(part)).tensor_split(math.ceil(len(part) / batch_size)))
    else:
        source = ((batch.x, batch.y) for batch in work.batches(batch_size, part=part))
    sums = torch.zeros(4, dtype=torch.float64, device=like.device)  # errors or hits; of y: count, sum, squares
    with torch.no_grad():
        for x, y in source:
            out, wanted = net(x.to(like)), y.to(like.device)
            hits = (out - wanted).square() if y.is_floating_point() else (out.argmax(dim=1) == wanted)
            wide = wanted.double()
            count = wide.new_tensor(wide.numel())
            sums += torch.stack([hits.double().sum(), count, wide.sum(), wide.square().sum()])
    module.train(was_training)
    wrong_or_hits, rows, total, squares = (float(value) for value in (sums if work is None else work.sum(sums)))
    if not y.is_floating_point():
        return wrong_or_hits / rows
    return 1 - wrong_or_hits / max(squares - total**2 / rows, 1e-300)


def _reseeded(work: Work, purpose: str, action: Callable[[], T]) -> T:
    """Run an action after seeding torch's global generators (dropout) from seed, sweep and rank."""
    seed = work.generator(f"{purpose}, rank {work.fabric.global_rank}").initial_seed()
    torch.manual_seed(seed)
    return action()
