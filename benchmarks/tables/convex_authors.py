"""Tables of benchmarks/quality/convex_authors.py, a line a seed; of equal case, method and seed the last."""

from __future__ import annotations

from pathlib import Path

from .lines import Line, Shown, Table, bare, grouped, last, lines, mean

OURS, SAMPLED, FREE = "ConvexTraining", "authors, interior point", "random planes, same loss"
BASELINES = ("random planes, ridge", "logistic regression", "linear SVM", "straight-through MLP")
NAMES = {
    "n100-d20": "n 100, d 20",
    "n100-d5": "n 100, d 5",
    "n200-d10": "n 200, d 10",
    "n500-d20": "n 500, d 20",
    "plane": "n 1,000, d 2",
}


def runs(results: Path, case: str) -> dict[str, list[Line]]:
    """Return the lines of a case by method, in order of seeds."""
    found = [line for line in lines(results, "convex_authors", case=case) if "method" in line]
    kept = sorted(last(found, "method", "seed"), key=lambda line: int(line["seed"]))
    return grouped(kept, "method")


def paired_ratios(mine: list[Line], other: list[Line], value: str = "objective") -> list[float]:
    """Return the ratios of two methods, seed by seed."""
    beside = {line["seed"]: line[value] for line in other}
    return [line[value] / beside[line["seed"]] for line in mine if line["seed"] in beside]


def few(value: float) -> str:
    """Return three figures."""
    return bare(value, 3) if value < 1 else f"{value:.3g}" if value < 10 else f"{value:.1f}"


def middle(found: list[Line], value: str) -> float:
    """Return the mean over seeds."""
    return mean([line[value] for line in found])[0]


def compared(results: Path, cases: tuple[str, ...] = tuple(NAMES)) -> Table:
    """Return objectives, their ratio, accuracies and seconds by case."""
    rows = []
    for case in cases:
        found = runs(results, case)
        mine, other = found[OURS], found.get(SAMPLED, found[FREE])
        ratio = mean(paired_ratios(mine, other))
        bold = "**" if ratio[0] < 0.5 else ""
        pairs = (
            " / ".join(show(middle(each, key)) for each in (mine, other))
            for key, show in (("objective", few), ("test", lambda value: bare(value, 3)))
        )
        objective, test = pairs
        seconds = " / ".join(f"{middle(each, 'cpu_seconds'):.1f}" for each in (mine, other))
        baselines = (bare(middle(found[name], "test"), 3) for name in BASELINES)
        shown = f"{bold}{bare(ratio[0], 3)} +- {bare(ratio[1], 3)}{bold}"
        rows.append((NAMES.get(case, case), objective, shown, test, *baselines, seconds))
    head = ("", "objective, ours / sampled", "ratio", "test, ours / sampled", "ridge on random planes", "logistic")
    return Table((*head, "linear SVM", "straight-through MLP", "seconds, ours / sampled"), tuple(rows))


def numbers(results: Path) -> dict[str, str]:
    """Return the plane against the program with a free intercept, and the solvers over equal patterns."""
    plane, equal = runs(results, "plane"), runs(results, "equal")
    lower = [100 * (1 - ratio) for ratio in paired_ratios(plane[OURS], plane[FREE])]
    ours, sampled = equal["solve, same patterns"], equal[SAMPLED]
    return {
        "plane_lower": ", ".join(f"{each:.1f}" for each in lower),
        "plane_proved": f"{sum(line['verdict'] == 'PROVED' for line in plane[OURS])} of {len(plane[OURS])}",
        "equal_ours": bare(middle(ours, "cpu_seconds"), 3),
        "equal_sampled": f"{middle(sampled, 'cpu_seconds'):.1f}",
        "equal_times": "{:.0f} +- {:.0f}".format(*mean([line["speedup"] for line in ours])),
    }


SHOWN = Shown({"compared": compared}, numbers)
