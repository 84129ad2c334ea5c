"""The overview of docs/results.md: what is reached, where, by which script, from the lines of the other tables."""

from __future__ import annotations

from pathlib import Path

from . import (
    activate_pruning,
    bcd,
    convex_authors,
    convex_certified,
    convex_images,
    engine,
    exactness,
    layer_targets,
    networks,
    prune_units,
    scattering,
    sparse,
    sparse_units,
    target_prop_exact,
    whole_path,
)
from .convex_authors import paired_ratios
from .lines import Shown, Table, differences, gain, mean, reach

QUALITY, SPEED = "quality/", "speed/"
FASHION = "Fashion-MNIST"


def link(title: str, folder: str, script: str) -> str:
    """Return the script as a link to its section of the page, by the anchor that GitHub and MyST make of the title."""
    kept = (c for c in title.lower() if c.isalnum() or c in " -")
    return f"[`{folder}{script}.py`](#{''.join(kept).replace(' ', '-')})"


def accuracy(results: Path) -> list[tuple[str, str, str, str]]:
    """Return the rows about trained networks: what, measured, asked for, section and script."""
    whole = whole_path.numbers(results)
    descent = bcd.numbers(results)
    chosen = convex_images.numbers(results)
    thin = sparse.numbers(results)
    units = prune_units.cells(results, "fashion-mnist")
    halved = differences(units[1.0, prune_units.WHOLE], units[0.5, "BackwardElimination"])
    by_way = sparse_units.by_way(results, "fashion-mnist")
    return [
        (
            f"trained end to end, frozen to 8 bits: {FASHION}, two layers of 1,024, 10 epochs; digits",
            f"{whole['fashion']}; {whole['digits']}",
            "at least .890; .970",
            "whole_path",
        ),
        ("what freezing costs there, on average", f"{whole['lost']} points", "at most 0.2", "whole_path"),
        (
            f"block descent less straight-through at equal time, 1, 2, 3 layers of 1,000, {FASHION}",
            ", ".join(descent[f"gain_{depth}"] for depth in (1, 2, 3)),
            "at most 2.0 behind",
            "bcd",
        ),
        (
            f"2,000 chosen half-spaces in one layer, {FASHION}; less 2,000 random ones",
            f"{chosen['chosen_2000']}; {chosen['gain_2000']} points",
            ".885",
            "convex_images",
        ),
        (
            f"95 % of the weights 0, two layers of 1,024, {FASHION}: less dense",
            f"{thin['wide_95_lost']} points",
            "at most 1.0 less",
            "sparse",
        ),
        (
            f"half of the units gone, three layers of 1,024, {FASHION}: less dense",
            f"{gain(by_way['prune_units'], by_way['dense'])} points",
            "at most 0.5 less",
            "sparse_units",
        ),
        (
            "half of the units gone after block descent: less whole",
            "-{:.2f} +- {:.2f} points".format(*mean(halved)),
            "at most 0.5 less",
            "prune_units",
        ),
        (
            "targets by measured flips less the best fused rule, narrow network, digits",
            f"{layer_targets.numbers(results)['narrow_gain']} points",
            "",
            "layer_targets",
        ),
        (
            "Activate-while-Pruning less its base pruner, 98 % zeros on a global rank, steps",
            f"{activate_pruning.numbers(results)['step_98']} points",
            "",
            "activate_pruning",
        ),
    ]


def front_end(results: Path) -> list[tuple[str, str, str, str]]:
    """Return the rows about scattering, as far as it was measured."""
    known = scattering.numbers(results)
    rows = {"1000": "1,000 rows", "all": "all rows"}
    compared = [
        (
            f"scattering before the step MLP, {FASHION}, {text}: less the MLP alone; less convnet4",
            f"{known[f'{name}_less_mlp']}; {known[f'{name}_less_convnet4']} points",
            "",
            "scattering",
        )
        for name, text in rows.items()
        if f"{name}_less_mlp" in known
    ]
    timed = ("its features of 60,000 images", f"{known.get('seconds')} s", "at most 300", "scattering")
    return compared + [timed] * ("seconds" in known)


def proofs(results: Path) -> list[tuple[str, str, str, str]]:
    """Return the rows about certificates and exactness."""
    optima = convex_certified.runs(results, tuple(convex_certified.NAMES))
    accepted = sum(convex_certified.accepted(line) for line in optima)
    exact = target_prop_exact.widest(results)
    right = sum(target_prop_exact.right(line) for line in exact)
    ratios = []
    for case in (case for case in convex_authors.NAMES if case != "plane"):
        found = convex_authors.runs(results, case)
        ratios.append(mean(paired_ratios(found[convex_authors.OURS], found[convex_authors.SAMPLED]))[0])
    cases = exactness.numbers(results)
    return [
        (
            "global optima of two-layer networks, certified and checked",
            f"{accepted} of {len(optima)} runs",
            "all",
            "convex_certified",
        ),
        (
            "objective over that of sampled patterns, by case with five features or more",
            reach(ratios, "{:.3f}").replace("0.", "."),
            "at most 0.5",
            "convex_authors",
        ),
        (
            "all training rows right, with a certificate, five cases",
            f"{right} of {len(exact)} runs",
            "28 of 30",
            "target_prop_exact",
        ),
        ("C runtime against the reference", f"{cases['differing']} of {cases['cases']} cases differ", "0", "exactness"),
    ]


def speeds(results: Path) -> list[tuple[str, str, str, str]]:
    """Return the rows about speed."""
    images = networks.numbers(results)
    return [
        (
            "rows of the engine's target table that reach what was asked for: AVX-512 with VNNI; AVX2 alone",
            "; ".join(engine.numbers(results)[name] for name in ("reached_vnni", "reached")),
            "all",
            "engine",
        ),
        (
            "images a second, batch 1, one thread: default MLP, 8-bit; ±1 weights",
            f"{images['mlp_8bit']}; {images['mlp_binary']}",
            "",
            "networks",
        ),
    ]


SECTIONS = {
    "whole_path": ("The whole path: `hardstep train`, float and frozen to 8 bits", QUALITY),
    "bcd": ("Block coordinate descent, Fashion-MNIST", QUALITY),
    "convex_images": ("Convex training: Fashion-MNIST", QUALITY),
    "convex_certified": ("Convex training: certified optima", QUALITY),
    "convex_authors": ("Convex training: against the program over sampled patterns", QUALITY),
    "sparse": ("Sparse weights: Fashion-MNIST", QUALITY),
    "sparse_units": ("Sparse weights: Fashion-MNIST", QUALITY),
    "prune_units": ("Units pruned, Fashion-MNIST", QUALITY),
    "layer_targets": ("Target propagation in mini-batches", QUALITY),
    "activate_pruning": ("Activate-while-Pruning", QUALITY),
    "target_prop_exact": ("Exact target propagation", QUALITY),
    "exactness": ("Robustness, by test", QUALITY),
    "scattering": ("Scattering before a step network", QUALITY),
    "engine": ("Speed: the engine beside its peers, layer by layer", SPEED),
    "networks": ("Whole networks", SPEED),
}


def reached(results: Path) -> Table:
    """Return what is reached, with section and script."""
    rows = []
    for what, measured, asked, script in (*accuracy(results), *front_end(results), *proofs(results), *speeds(results)):
        title, folder = SECTIONS[script]
        rows.append((what, measured, asked, link(title, folder, script)))
    return Table(("what", "measured", "asked for", "script in `benchmarks/`, and its section"), tuple(rows))


SHOWN = Shown({"reached": reached})
