"""Compare methods on one task: several seeds each, in parallel, resumable, with one report."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn

from hardstep.compare_run import IDENTITY, Proof, Recipe, Run, Task, run_times, train_run
from hardstep.data import Data
from hardstep.diagnostics import aligned
from hardstep.fit import Method
from hardstep.nets import MLP
from hardstep.report import Record, Report, versions
from hardstep.storage import read_json, write_bytes, write_json

__all__ = ["Comparison", "Spread", "compare"]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over the seeds; of one seed there is no deviation."""

    mean: float
    sd: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of some values, None of none.

        Examples
        --------
        >>> Spread.of([1.0, 3.0])
        Spread(mean=2.0, sd=1.4142135623730951, count=2)
        """
        if not values:
            return None
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), sd, len(values))


@dataclass(frozen=True)
class Comparison:
    """What came of several methods on one task.

    Parameters
    ----------
    task
        Facts about the task, by name: data, rows of its parts, network, sweeps, and which part the scores are of.
    runs
        One `Run` for each method and seed, method by method.
    versions
        Versions of what the numbers depend on.
    date
        When it ended, UTC.
    command
        The command line it is of, if it was one.
    """

    task: Mapping[str, str]
    runs: tuple[Run, ...]
    versions: Mapping[str, str] = field(default_factory=versions)
    date: str = ""
    command: str = ""

    @property
    def classification(self) -> bool:
        """Whether scores are accuracies; else they are R²."""
        return self.task["score"] == "accuracy"

    @property
    def names(self) -> tuple[str, ...]:
        """The methods, the best frozen score first, then those without one."""
        spreads = {name: self.spread(name, "frozen") for name in dict.fromkeys(run.name for run in self.runs)}
        means = {name: -np.inf if each is None else each.mean for name, each in spreads.items()}
        return tuple(sorted(means, key=lambda name: -means[name]))

    def of(self, name: str) -> tuple[Run, ...]:
        """Return the runs of a method."""
        return tuple(run for run in self.runs if run.name == name)

    def spread(self, name: str, figure: str) -> Spread | None:
        """Return mean and deviation of a figure over the seeds of a method."""
        return Spread.of([run.figures[figure] for run in self.of(name) if figure in run.figures])

    def behind(self, name: str) -> Spread | None:
        """Return by how much a method's frozen score differs from the best method's, over the seeds that both have."""
        best, own = (
            {run.seed: run.figures["frozen"] for run in self.of(each) if "frozen" in run.figures}
            for each in (self.names[0], name)
        )
        return Spread.of([own[seed] - best[seed] for seed in own if seed in best])

    def share(self, value: float) -> str:
        """Return a score as text."""
        return f"{value:.2%}" if self.classification else f"{value:.4f}"

    def __str__(self) -> str:
        names = ("float", "frozen", "small_nbytes", "macs", "us_1", "seconds")
        lines = [["method", *names]]
        for name in self.names:
            found = [self.spread(name, figure) for figure in names]
            lines.append([name, *("-" if each is None else f"{each.mean:.4g}" for each in found)])
        return aligned(lines)

    def to_json(self, path: Path | str) -> None:
        """Write everything as JSON, whole or not at all."""
        write_json(Path(path), asdict(self))

    @classmethod
    def from_json(cls, path: Path | str) -> Comparison:
        """Read a comparison back.

        Raises
        ------
        ValueError
            If the file holds no comparison.
        """
        content = read_json(Path(path))
        if not isinstance(content, dict) or set(content) != set(cls.__dataclass_fields__):
            raise ValueError(f"{path} holds no comparison; `Comparison.to_json` writes one")
        return cls(**{**content, "runs": tuple(_run(run) for run in content["runs"])})

    def to_html(self, path: Path | str) -> None:
        """Write one page that needs nothing else: tables, plots, curves, certificates; whole or not at all."""
        from hardstep.compare_report import page

        write_bytes(Path(path), page(self).encode())


def compare(
    methods: Mapping[str, Method[Any]] | Sequence[Method[Any]],
    data: Data | str | Path,
    net: Recipe | None = None,
    *,
    sweeps: int = 20,
    seeds: int = 3,
    weight_bits: int = 8,
    folder: Path | str | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> Comparison:
    """Train, freeze and measure one network by several methods with several seeds each.

    Every method gets the same splits, the same initial weights and the same sweeps. A run is a process' work on one
    thread; its scores on the test part are taken once, at its end. A run that fails is shown with its reason and does
    not stop the others.

    Parameters
    ----------
    methods
        Methods by name; of a sequence the names are those of the classes.
    data
        The data, one split for all seeds; or a name or path, split anew by every seed.
    net
        Recipe of the network, called with the shape of a sample, the number of outputs and the seed; `MLP()` if None.
    sweeps
        Of `fit`.
    seeds
        The seeds are 0, 1, ... below this.
    weight_bits
        Of `freeze`.
    folder
        Where each run has a folder of its own. Where they are there already, finished runs are read and others go on
        from their checkpoints.
    jobs
        Runs at a time, each in a process of its own.
    progress
        Show a bar over the runs.

    Raises
    ------
    ValueError
        If there is no method or seed, two methods have one name, or the folder holds runs of something else.

    Examples
    --------
    >>> import hardstep as hs
    >>> methods = {"ste": hs.GradientDescent(), "random": hs.RandomFeatures()}
    >>> found = compare(methods, "digits", hs.nets.MLP((16,)), sweeps=1, seeds=1, progress=False)
    >>> found.names
    ('random', 'ste')
    """
    named = methods if isinstance(methods, Mapping) else {type(method).__name__: method for method in methods}
    if not named or len(named) < len(methods):
        raise ValueError(f"give each method a name of its own, as in {{'ste': GradientDescent()}}; got {methods}")
    for name, count in (("seeds", seeds), ("jobs", jobs), ("sweeps", sweeps)):
        if count < 1:
            raise ValueError(f"{name} is a count and must be at least 1, got {count}")
    task = Task(data, net or MLP(), sweeps, weight_bits)
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="hardstep-compare-") as own:
            return _compared(task, named, seeds, Path(own), jobs, progress=progress)
    return _compared(task, named, seeds, Path(folder), jobs, progress=progress)


@dataclass(frozen=True)
class _Job:
    """A run that is to be done."""

    name: str
    method: Method[Any]
    seed: int
    folder: Path

    def failed(self, reason: str) -> Run:
        """Return the run as one that did not end well."""
        return Run(self.name, self.seed, repr(self.method), failed=reason)


def _compared(
    task: Task, methods: Mapping[str, Method[Any]], seeds: int, folder: Path, jobs: int, *, progress: bool
) -> Comparison:
    """Do all runs, time the frozen networks alone, put everything together."""
    work = [
        _Job(name, method, seed, folder / f"{_file_name(name)}-{seed}")
        for name, method in methods.items()
        for seed in range(seeds)
    ]
    _begin(task, work)
    columns = (
        TextColumn("runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    found: dict[tuple[str, int], Run] = {}
    with Progress(*columns, disable=not progress) as bar:
        shown = bar.add_task("", total=len(work))
        for run in _all_runs(task, work, jobs):
            found[run.name, run.seed] = run
            score = run.figures.get("frozen")
            text = "failed" if score is None else f"{score:.4f}"
            bar.update(shown, advance=1, description=f"{run.name}, seed {run.seed}: {text}")
    data, network = task.load(0)
    part = data.test or data.val or data.train
    x = part.take(list(range(min(256, len(part)))))[0].numpy()
    runs = []
    for job in work:  # one after the other, now that nothing trains beside them
        run = found[job.name, job.seed]
        times = {} if "frozen" not in run.figures else run_times(job.folder, x)
        runs.append(replace(run, figures={**run.figures, **times}))
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Comparison(_facts(task, data, network, seeds, jobs), tuple(runs), date=date)


def _begin(task: Task, work: Sequence[_Job]) -> None:
    """Write down what each run is of; refuse folders that hold runs of something else."""
    common = {seed: task.identity(seed) for seed in {job.seed for job in work}}
    for job in work:
        path, identity = job.folder / IDENTITY, {"method": repr(job.method), **common[job.seed]}
        if path.is_file():
            before = read_json(path)
            differing = [
                f"{key} was {before.get(key)!r}, is {value!r}"
                for key, value in identity.items()
                if before.get(key) != value
            ]
            if differing:
                raise ValueError(
                    f"{job.folder} holds a run of something else: {'; '.join(differing)}. "
                    "Name another folder, or delete this one"
                )
        else:
            write_json(path, identity)


def _all_runs(task: Task, work: Sequence[_Job], jobs: int) -> Iterator[Run]:
    """Yield the runs as they end; where a process is killed, each run that is left gets a process for itself."""
    left = {(job.name, job.seed): job for job in work}
    try:
        for run in _in_processes(task, work, jobs):
            del left[run.name, run.seed]
            yield run
    except TerminatedWorkerError:
        for job in left.values():
            try:
                yield from _in_processes(task, [job], 2)
            except TerminatedWorkerError:
                yield job.failed("its process was killed, most likely because memory ran out")


def _in_processes(task: Task, work: Sequence[_Job], jobs: int) -> Iterator[Run]:
    """Yield the runs as they end, so many at a time; a single job is done in this process."""
    with parallel_config(backend="loky", inner_max_num_threads=1):
        calls = (delayed(train_run)(task, job.name, job.method, job.seed, job.folder) for job in work)
        yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(calls)


def _facts(task: Task, data: Data, net: nn.Module, seeds: int, jobs: int) -> dict[str, str]:
    """Return what all runs have in common, as text."""
    parts = {"training": data.train, "validation": data.val, "test": data.test}
    kinds = f"{data.outputs} classes" if data.classification else f"{data.outputs} number targets"
    weights = [tuple(value.shape) for value in net.parameters() if value.ndim > 1]
    judged = "test" if data.test is not None else "validation" if data.val is not None else "training"
    return {
        "data": data.name,
        "rows": ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part is not None),
        "inputs": " x ".join(map(str, data.shape)),
        "outputs": kinds,
        "net": repr(task.net),
        "weights": ", ".join(" x ".join(map(str, shape)) for shape in weights),
        "sweeps": str(task.sweeps),
        "seeds": str(seeds),
        "splits": "one for all seeds" if isinstance(task.data, Data) else "one for each seed",
        "weight bits": str(task.weight_bits),
        "jobs": str(jobs),
        "part": judged,
        "score": "accuracy" if data.classification else "R²",
    }


def _file_name(name: str) -> str:
    """Return a name of a method as that of a folder."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


def _run(content: Mapping[str, Any]) -> Run:
    """Read a run back from plain data."""
    report = content["report"]
    if report is not None:
        report = Report(**{**report, "records": tuple(Record(**record) for record in report["records"])})
    return Run(**{**content, "proofs": tuple(Proof(**proof) for proof in content["proofs"]), "report": report})
