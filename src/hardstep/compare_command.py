"""The command `hardstep compare`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro
from joblib import cpu_count
from rich.console import Console
from rich.table import Table

from hardstep.choices import METHODS, kebab, named, usual_sweeps
from hardstep.compare import Comparison, compare
from hardstep.data import load
from hardstep.fit import Method
from hardstep.nets import MLP, AlexNet, ConvNet4, ConvNet8, ResNet18

__all__ = ["Compare"]

ALL = "all"


@dataclass(frozen=True)
class Compare:
    """Compare methods, several seeds each, on one task: a table here, and one page with plots to keep and to show.

    The same command goes on where it was: finished runs are read, others go on from their checkpoints.

    Parameters
    ----------
    data
        "digits", "mnist", "fashion-mnist", "cifar-10", a path, or the name of an OpenML data set.
    net
        The network.
    methods
        Names that `hardstep train --method` takes, with their default settings; "all" is every method, no rules.
    seeds
        Each method runs with the seeds 0, 1, ... below this: split, initial weights, order.
    sweeps
        Sweeps over the data; by default about 540,000 rows in all, at least 10 and at most 100 sweeps.
    weight_bits
        Bits of a rounded weight, 2 to 16.
    jobs
        Runs at a time, one thread each; by default one a core.
    out
        The folder for report and runs; by default compare/<data>.
    progress
        Show a bar over the runs.
    """

    data: tyro.conf.Positional[str] = "digits"
    net: MLP | ConvNet4 | ConvNet8 | AlexNet | ResNet18 = field(default_factory=MLP)
    methods: tuple[str, ...] = (ALL,)
    seeds: int = 3
    sweeps: int | None = None
    weight_bits: int = 8
    jobs: int | None = None
    out: Path | None = None
    progress: bool = True

    def chosen(self) -> dict[str, Method[Any]]:
        """Return the methods by name.

        Raises
        ------
        ValueError
            If there is no method of a name.
        """
        known: Mapping[str, Method[Any]] = named(Method)
        names = [each for name in self.methods for each in (map(kebab, METHODS) if name == ALL else [name])]
        for name in names:
            if name not in known:
                raise ValueError(f"--methods takes {ALL} or some of {', '.join(known)}; got {name!r}")
        return {name: known[name] for name in names}

    def run(self, console: Console, arguments: list[str]) -> int:
        """Do the runs, write report.html and comparison.json, print the table."""
        methods = self.chosen()
        sweeps = usual_sweeps(len(load(self.data).train)) if self.sweeps is None else self.sweeps
        folder = Path("compare") / Path(self.data).name if self.out is None else self.out
        found = compare(
            methods,
            self.data,
            self.net,
            sweeps=sweeps,
            seeds=self.seeds,
            weight_bits=self.weight_bits,
            folder=folder,
            jobs=self.jobs or cpu_count(),
            progress=self.progress,
        )
        found = replace(found, command=shlex.join(["hardstep", "compare", *arguments]))
        found.to_json(folder / "comparison.json")
        found.to_html(folder / "report.html")
        console.print(_table(found))
        for run in found.runs:
            if run.failed:
                text = f"{run.name}, seed {run.seed}: {run.failed}"
                console.print(text, style="red", highlight=False, markup=False, soft_wrap=True)
        console.print(f"written to {folder / 'report.html'}", style="dim", highlight=False, soft_wrap=True)
        return 0 if any("frozen" in run.figures for run in found.runs) else 1


def _table(found: Comparison) -> Table:
    """Return the methods, the best one first: means, of the score with the deviation."""
    table = Table(title=f"{found.task['data']}: {found.task['seeds']} seeds, frozen {found.task['score']}")
    heads = {"small_nbytes": "bytes", "us_1": "µs alone", "seconds": "train s"}
    for head in ("method", f"{found.task['part']}", "behind", *heads.values()):
        table.add_column(head, justify="left" if head == "method" else "right", no_wrap=True)
    for name in found.names:
        score, behind = found.spread(name, "frozen"), found.behind(name)
        cells = ["-", "-"]
        if score and behind:
            cells = [
                found.share(score.mean) + ("" if score.sd is None else f" ± {found.share(score.sd)}"),
                found.share(behind.mean),
            ]
        for key in heads:
            spread = found.spread(name, key)
            cells.append("-" if spread is None else f"{spread.mean:,.{0 if key == 'small_nbytes' else 1}f}")
        table.add_row(name, *cells)
    return table
