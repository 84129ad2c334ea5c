"""Read benchmarks/results/NAME.jsonl, select by settings, summarise over seeds, write Markdown tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
NOT_RUN = "not recorded"

Line = dict[str, Any]


class NoLinesError(LookupError):
    """Nothing is recorded of what a table wants."""


@dataclass(frozen=True)
class Table:
    """A table in Markdown; cells are text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError(f"every row of a table needs {len(self.head)} cells, one for each of {self.head}")

    def __str__(self) -> str:
        rule = ("---",) * len(self.head)
        cells = ((f" {cell} " if cell else " " for cell in row) for row in (self.head, rule, *self.rows))
        return "\n".join(f"|{'|'.join(row)}|" for row in cells)


@dataclass(frozen=True)
class Picture:
    """A picture: `drawn` is what it shows, as plain numbers, and `draw` makes the matplotlib figure of that."""

    drawn: Callable[[Path], Any]
    draw: Callable[[Any], Any]


def no_numbers(results: Path) -> dict[str, str]:
    """Return no numbers."""
    return {}


@dataclass(frozen=True)
class Shown:
    """What docs/results.md shows of a benchmark, each piece made from the folder of recorded lines."""

    tables: Mapping[str, Callable[[Path], Table]]
    numbers: Callable[[Path], dict[str, str]] = no_numbers
    pictures: Mapping[str, Picture] = field(default_factory=dict)


def lines(results: Path, name: str, **where: Any) -> list[Line]:
    """Return the lines of a benchmark with these settings, in order of time; raise NoLinesError if there are none."""
    path = results / f"{name}.jsonl"
    found = [json.loads(text) for text in path.read_text().splitlines()] if path.is_file() else []
    kept = [line for line in found if where.items() <= {key: line.get(key) for key in where}.items()]
    if not kept:
        settings = ", ".join(f"{key} = {value!r}" for key, value in where.items()) or "any settings"
        raise NoLinesError(f"{name}.jsonl in {results} has no line with {settings}: run the benchmark first")
    return sorted(kept, key=lambda line: str(line["time"]))


def key_of(line: Line, keys: Sequence[str]) -> Any:
    """Return the values of some keys, hashable; the value alone if there is one key."""
    values = tuple(tuple(v) if isinstance(v := line.get(key), list) else v for key in keys)
    return values[0] if len(keys) == 1 else values


def grouped(found: Iterable[Line], *keys: str) -> dict[Any, list[Line]]:
    """Return the lines by the values of some keys, in order of appearance."""
    groups: dict[Any, list[Line]] = {}
    for line in found:
        groups.setdefault(key_of(line, keys), []).append(line)
    return groups


def last(found: Iterable[Line], *keys: str) -> list[Line]:
    """Return of all lines that are equal in some keys the last one."""
    return [group[-1] for group in grouped(found, *keys).values()]


def mean(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation, which is 0 for one value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def bare(value: float, digits: int = 4) -> str:
    """Return a share without its leading zero: .8978."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def spread(found: Sequence[Line], value: str = "test", digits: int = 4) -> str:
    """Return mean +- standard deviation of a share over seeds, as .8978 +- .0018; of one line the share alone."""
    middle, deviation = mean([line[value] for line in found])
    return bare(middle, digits) + (f" +- {bare(deviation, digits)}" if len(found) > 1 else "")


def differences(mine: Iterable[Line], other: Iterable[Line], value: str = "test") -> list[float]:
    """Return the differences in points, paired by seed."""
    beside = {line["seed"]: line[value] for line in other}
    return [100 * (line[value] - beside[line["seed"]]) for line in mine if line["seed"] in beside]


def gain(mine: Iterable[Line], other: Iterable[Line], value: str = "test") -> str:
    """Return the mean paired difference in points +- its standard deviation, as +0.98 +- 0.28."""
    middle, deviation = mean(pairs := differences(mine, other, value))
    return f"{middle:+.2f}" + (f" +- {deviation:.2f}" if len(pairs) > 1 else "")


def reach(values: Iterable[float], form: str = "{:.1f}") -> str:
    """Return the least and the greatest of some values, as 6.5 to 8.5; one number if they read alike."""
    ordered = sorted(values)
    return " to ".join(dict.fromkeys(form.format(value) for value in (ordered[0], ordered[-1])))
