"""Tables of benchmarks/quality/convex_images.py; of lines equal in name, growth, slides and seed the last counts."""

from __future__ import annotations

from pathlib import Path

from .lines import Line, Shown, Table, bare, gain, grouped, last, lines, mean, reach, spread

NAMES = {
    "chosen, 2000": "2,000 chosen half-spaces",
    "chosen, 500": "500 chosen",
    "random, 2000": "2,000 random",
    "random, 500": "500 random",
    "straight-through, 2000": "straight-through, 2,000 units, 8 epochs, no batch normalisation",
    "linear SVM": "linear SVM",
    "logistic regression": "multinomial logistic regression",
}


def by_name(results: Path, data: str) -> dict[str, list[Line]]:
    """Return the lines by name."""
    return grouped(last(lines(results, "convex_images", data=data), "line", "growth", "slides", "seed"), "line")


def test(results: Path, data: str = "fashion-mnist") -> Table:
    """Return accuracy and time of every way of one layer."""
    found = by_name(results, data)
    names = [name for name in NAMES if name in found] + [n for n in found if n not in NAMES and " x " not in n]
    rows = [
        (
            NAMES.get(name, name),
            spread(found[name]),
            str(len(found[name])),
            *(reach((line[key] for line in found[name]), "{:,.0f}") for key in ("cpu_seconds", "seconds")),
        )
        for name in names
    ]
    return Table(("", "test", "seeds", "processor seconds", "wall seconds, loaded machine"), tuple(rows))


def depth(results: Path, units: int = 500) -> Table:
    """Return validation and test accuracy by depth, on the seeds that all depths have."""
    found = by_name(results, "fashion-mnist")
    depths = {1: found[f"chosen, {units}"]} | {
        int(name.rpartition(" x ")[2]): group for name, group in found.items() if name.startswith(f"chosen, {units} x ")
    }
    seeds = set.intersection(*({line["seed"] for line in group} for group in depths.values()))
    rows = []
    for layers, group in sorted(depths.items()):
        kept = [line for line in group if line["seed"] in seeds]
        rows.append((str(layers), *(bare(mean([x[part] for x in kept])[0]) for part in ("validation", "test"))))
    return Table((f"layers of {units}", "validation", f"test, {len(seeds)} seed"), tuple(rows))


def numbers(results: Path) -> dict[str, str]:
    """Return what choosing gains over drawing, in points."""
    found = by_name(results, "fashion-mnist")
    return {
        "chosen_2000": spread(found["chosen, 2000"]),
        "chosen_500": spread(found["chosen, 500"]),
        "gain_2000": gain(found["chosen, 2000"], found["random, 2000"]),
        "gain_500": gain(found["chosen, 500"], found["random, 2000"]),
    }


SHOWN = Shown({"test": test, "depth": depth}, numbers)
