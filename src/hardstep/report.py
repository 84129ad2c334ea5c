"""Report: what a fit did, sweep by sweep, and why it stopped."""

from __future__ import annotations

import csv
import io
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hardstep.storage import read_json, write_bytes, write_json
from hardstep.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Record", "Report", "versions"]

LABELLED = 8  # more layers than this have no legend


@dataclass(frozen=True)
class Record:
    """One sweep: its objective, the score on the validation part and the seconds the method took.

    `score` is the accuracy (classification) or R² (regression) of the network as it stands after the sweep;
    None without a validation part. `extra` holds the share of bits that flipped and what the method itself measured.
    `admissible` says whether the method may end with this network; where any is, the one kept is among them.
    """

    sweep: int
    objective: float
    score: float | None
    seconds: float
    extra: Mapping[str, float] = field(default_factory=dict)
    admissible: bool = True

    @property
    def rank(self) -> tuple[bool, float]:
        """What the kept sweep has most of: admissible before not, then the better score."""
        return self.admissible, 0.0 if self.score is None else self.score


@dataclass(frozen=True)
class Report:
    """The result of a fit.

    Parameters
    ----------
    method
        `repr` of the method: code that makes it again.
    data
        Name of the data, and how its images were augmented.
    seed
        The seed given to `fit`; with the method, the data and the versions it determines the weights.
    records
        One `Record` a sweep.
    best
        Index in `records` of the sweep whose network was kept.
    stopped
        Why the fit stopped.
    versions
        Versions of hardstep and of what the numbers depend on.
    ranks
        Number of processes.
    """

    method: str
    data: str
    seed: int
    records: tuple[Record, ...]
    best: int
    stopped: str
    versions: Mapping[str, str]
    ranks: int = 1

    @property
    def objective(self) -> float:
        """The objective of the kept sweep."""
        return self.records[self.best].objective

    @property
    def score(self) -> float | None:
        """The validation score of the kept sweep."""
        return self.records[self.best].score

    @property
    def seconds(self) -> float:
        """Seconds of all sweeps, without validation."""
        return sum(record.seconds for record in self.records)

    def to_json(self, path: Path) -> None:
        """Write the report; the file appears whole or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def from_json(cls, path: Path) -> Report:
        """Read a report back.

        Raises
        ------
        ValueError
            If the file is not a report of this version's form.
        """
        content: dict[str, Any] = read_json(path)
        wanted = {item.name for item in fields(cls)}
        if not isinstance(content, dict) or set(content) != wanted:
            raise ValueError(f"{path} is not a report of hardstep {__version__}: expected exactly {sorted(wanted)}")
        return cls(**{**content, "records": tuple(Record(**record) for record in content["records"])})

    def to_csv(self, path: Path) -> None:
        """Write one line a sweep, the method's own measurements as further columns."""
        names = sorted({name for record in self.records for name in record.extra})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["sweep", "objective", "score", "seconds", *names])
        for record in self.records:
            extra = [record.extra.get(name, "") for name in names]
            score = "" if record.score is None else record.score
            writer.writerow([record.sweep, record.objective, score, record.seconds, *extra])
        write_bytes(path, text.getvalue().encode())

    def plot(self) -> Figure:
        """Draw objective, validation score and all that was measured besides, sweep by sweep; needs matplotlib.

        A panel for each name in the records' `extra`: the measure of the whole network, and thin beside it those of its
        layers ("name/layer").
        """
        from matplotlib.figure import Figure

        sweeps = [record.sweep for record in self.records]
        names = list(dict.fromkeys(name.partition("/")[0] for record in self.records for name in record.extra))
        figure = Figure(figsize=(7.0, 0.4 + 2.4 * (1 + math.ceil(len(names) / 2))), layout="constrained")
        figure.suptitle(f"{self.method.partition('(')[0]}, {self.data}, seed {self.seed}")
        objective, score, *panels = figure.subplots(1 + math.ceil(len(names) / 2), 2).flat
        objective.plot(sweeps, [record.objective for record in self.records], color="tab:blue", marker=".")
        objective.set(ylabel="objective")
        scores = [np.nan if record.score is None else record.score for record in self.records]
        score.plot(sweeps, scores, color="tab:orange", marker=".")
        score.axvline(self.records[self.best].sweep, color="grey", linewidth=0.8, linestyle=":")
        score.set(ylabel="validation score")
        for panel, name in zip(panels, names, strict=False):
            layers = list(dict.fromkeys(k for r in self.records for k in r.extra if k.startswith(f"{name}/")))
            for i, key in enumerate(layers):
                shade = str(0.15 + 0.65 * i / max(len(layers) - 1, 1))
                panel.plot(sweeps, self._measured(key), color=shade, linewidth=0.8, label=key.partition("/")[2])
            if any(name in record.extra for record in self.records):
                panel.plot(sweeps, self._measured(name), color="tab:green", marker=".", label="all")
            if 0 < len(layers) <= LABELLED:
                panel.legend(fontsize=7, title="module", title_fontsize=7)
            panel.set(ylabel=name.replace("_", " "))
        for panel in panels[len(names) :]:
            panel.set_axis_off()
        for panel in (objective, score, *panels):
            panel.set(xlabel="sweep")
        return figure

    def _measured(self, name: str) -> list[float]:
        """Return one measurement sweep by sweep, NaN where it was not made."""
        return [record.extra.get(name, np.nan) for record in self.records]


def versions() -> dict[str, str]:
    """Return the versions that the numbers of a fit depend on."""
    return {
        "hardstep": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
