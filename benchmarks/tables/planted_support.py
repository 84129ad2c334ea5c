"""Tables of benchmarks/quality/planted_support.py; of equal penalty, threshold and seed (teacher) the last."""

from __future__ import annotations

from pathlib import Path

from .lines import Line, Shown, Table, bare, grouped, last, lines, mean

NAMES = {"L1": "l1", "L0": "l0", "TransformedL1": "transformed l1, a = 1"}
NONZERO = 8  # of the sampled case


def degrees(value: float) -> str:
    """Return three figures of an angle."""
    return bare(value, 2) if value < 10 else f"{value:.1f}"


def population(results: Path) -> Table:
    """Return supports and angles with the population gradient, by kind of teacher."""
    found = [
        line | {"name": line["penalty"].split("(")[0]} for line in lines(results, "planted_support", case="population")
    ]
    rows = []
    for line in last(found, "teacher", "name", "threshold"):
        teachers, exact = line["teachers"], line["exact"]
        kind = {"even": "equal sizes", "normal": "normal"}[line["teacher"]]
        promised = f"{line['promised_and_exact']} of {line['promised']}"
        steps = f"{line['median_steps']:g} / {line['most_steps']}"
        angles = f"{line['degrees_trained']:.2f} / {line['degrees_exported']:.2f}"
        rows.append(
            (kind, NAMES[line["name"]], f"{exact} of {teachers}", promised, str(line["false_entries"]), steps, angles)
        )
    head = ("teachers", "penalty", "exact supports", "of those promised", "false weights", "steps, median / most")
    return Table((*head, "angle to the teacher of w / of u, degrees"), tuple(rows))


def angle(found: list[Line]) -> str:
    """Return the angle of the exported weights, mean (worst), and the true weights that were lost."""
    angles, kept = [line["degrees_exported"] for line in found], min(line["true_entries"] for line in found)
    lost = f", {kept} of {NONZERO} true" if kept < NONZERO else ""
    false = max(line["false_entries"] for line in found)
    return f"{degrees(mean(angles)[0])} ({degrees(max(angles))}){lost}" + (f", {false} false" if false else "")


def sampled(results: Path) -> Table:
    """Return the angle of the exported weights by penalty and threshold, with minibatches."""
    found = [
        line | {"name": line["penalty"].split("(")[0]} for line in lines(results, "planted_support", case="sampled")
    ]
    cells = grouped(last(found, "name", "threshold", "seed"), "name", "threshold")
    thresholds = sorted({threshold for _, threshold in cells if threshold})
    rows = [("none", angle(cells["NoPenalty", 0.0]), *[""] * (len(thresholds) - 1))]
    rows += [(NAMES[name], *(angle(cells[name, threshold]) for threshold in thresholds)) for name in NAMES]
    return Table(("penalty", f"threshold {bare(thresholds[0], 2)}", *(bare(t, 2) for t in thresholds[1:])), tuple(rows))


SHOWN = Shown({"population": population, "sampled": sampled})
