"""Tables of benchmarks/quality/whole_path.py; of lines equal in data, method and seed the last counts."""

from __future__ import annotations

from pathlib import Path

from .lines import Line, Shown, Table, bare, differences, grouped, last, lines, mean, spread

NAMES = {
    "digits": "digits, 64-256-256-10, 100 sweeps",
    "fashion-mnist": "Fashion-MNIST, 784-1024-1024-10, 10 epochs",
}


def runs(results: Path, data: str) -> dict[str, list[Line]]:
    """Return the lines of a data set by the name of the method, with its last settings."""
    named = [line | {"name": line["method"].split("(")[0]} for line in lines(results, "whole_path", data=data)]
    return grouped(last(named, "name", "seed"), "name")


def test(results: Path, data: tuple[str, ...] = tuple(NAMES)) -> Table:
    """Return accuracy, float and frozen."""
    rows = []
    for each in data:
        for i, (method, found) in enumerate(runs(results, each).items()):
            changed = f"{100 * mean([line['steps_changed'] for line in found])[0]:.1f} %"
            least = bare(min(line["test_frozen"] for line in found))
            scores = (spread(found, "test_float"), spread(found, "test_frozen"), least)
            rows.append(("" if i else NAMES[each], f"`{method}`", *scores, f"{found[-1]['nbytes']:,}", changed))
    head = ("data, network", "method", "test, float", "test, frozen", "least frozen", "bytes")
    return Table((*head, "step outputs changed by rounding"), tuple(rows))


def numbers(results: Path) -> dict[str, str]:
    """Return what freezing costs on Fashion-MNIST, in points."""
    found = runs(results, "fashion-mnist")["GradientDescent"]
    frozen = [{"seed": line["seed"], "test_float": line["test_frozen"]} for line in found]
    lost = differences(found, frozen, "test_float")
    return {
        "lost": f"{mean(lost)[0]:.2f}",
        "most_lost": f"{max(lost):.2f}",
        "digits": spread(runs(results, "digits")["GradientDescent"], "test_frozen"),
        "fashion": spread(found, "test_frozen"),
    }


SHOWN = Shown({"test": test}, numbers)
