"""The API pages, made from the names in `hardstep/__init__.pyi`: each name on the page of the module it comes from."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from pathlib import Path

import hardstep as hs

__all__ = ["TOPICS", "Topic", "names", "page", "place"]


@dataclass(frozen=True)
class Topic:
    """One page.

    Parameters
    ----------
    slug
        Name of the file.
    title, text
        Heading and first lines of the page.
    modules
        Modules whose public names stand here.
    further
        Modules that are shown whole: what users reach as `hardstep.MODULE.NAME`.
    """

    slug: str
    title: str
    text: str
    modules: tuple[str, ...]
    further: tuple[str, ...] = ()


TOPICS = (
    Topic("data", "Data", "Where rows come from and how they are kept.", ("data", "augment", "grid")),
    Topic(
        "networks",
        "Networks",
        "The step, networks of steps, published settings.",
        ("step", "layers", "weights", "nets", "recipes"),
    ),
    Topic(
        "training",
        "Training",
        "`fit` trains any network with any method. Sparse and convex training have pages of their own.",
        (
            *(
                "fit",
                "report",
                "methods.gradient",
                "memory",
                "teachers",
                "methods.random_features",
                "methods.bcd",
                "methods.margin_bcd",
            ),
            *(
                "methods.aims",
                "methods.layer_targets",
                "methods.target_prop",
                "methods.target_search",
                "compare",
                "version",
            ),
        ),
    ),
    Topic(
        "rules",
        "Backward rules and layer losses",
        "What stands in for the derivative of a step; forwards it is always the exact step. The plots are drawn from "
        "`curve` and `derivative` of the rules, `value` and `slope` of the layer losses, when these pages are built.",
        ("rules", "target_rule"),
    ),
    Topic("losses", "Losses", "The data term of a training.", ("losses",)),
    Topic(
        "penalties",
        "Penalties",
        "What weights cost. The plots are drawn from `value` and `prox` when these pages are built.",
        ("penalties", "cardinality", "group_penalties"),
    ),
    Topic(
        "sparse",
        "Sparse training and pruning",
        "Weights that are exactly 0, units that go, and the theory on one hidden layer.",
        ("methods.splitting", "methods.magnitude", "methods.activate", "pruning", "shrink"),
        ("no_overlap", "relaxed_splitting", "splitting_bounds"),
    ),
    Topic(
        "convex",
        "Convex training",
        "Half-spaces chosen one by one, and oracles that say when none is missing.",
        ("methods.convex", "convex.corrections", "convex.oracle_ascent", "convex.sliding"),
        (
            *("convex.oracles", "convex.oracle_plane", "convex.oracle_stumps", "convex.oracle_pairs"),
            *("convex.oracle_vertices", "convex.oracle_milp", "convex.oracle_local", "convex.oracle_choice"),
            *("convex.data_terms", "convex.solvers", "convex.bit_matrix"),
        ),
    ),
    Topic(
        "freezing",
        "Freezing",
        "From floats to exact integers, and integers that do the same with less.",
        ("freeze", "hardnet", "simplify", "fold"),
        ("hard_layers", "hard_scatter", "hard_sums", "lowered"),
    ),
    Topic("engine", "Engine", "A frozen network by one call of the C runtime.", ("engine",), ("bits",)),
    Topic(
        "exports",
        "Exports",
        "C, ONNX, QONNX, Verilog. What each promises: [Deploying](../deploy.md).",
        ("export.c",),
        ("export.onnx", "export.qonnx", "export.verilog", "export.verilog_bench"),
    ),
    Topic(
        "certificates",
        "Certificates",
        "Proofs about frozen networks, checked again from file and data alone.",
        (),
        (
            *("certify.certificate", "certify.overflow", "certify.optimality", "certify.feasible"),
            *("certify.separability", "certify.shapes"),
        ),
    ),
    Topic("verify", "Verify", "Every deployed form against the reference.", ("verify",)),
    Topic("estimators", "Estimators", "scikit-learn's `fit` and `predict`.", ("estimator",)),
    Topic(
        "scattering",
        "Scattering",
        "Fixed features in front of a network, and a choice among them.",
        ("scattering", "scattering_features", "scattering_layers", "frames", "selection"),
        ("scattering_bounds", "scattering_front", "scattering_program"),
    ),
    Topic(
        "diagnostics",
        "Diagnostics",
        "What units and their targets do on data.",
        ("diagnostics", "indicators", "target_diagnostics"),
    ),
)


def names() -> dict[str, str]:
    """Return the module that each public name comes from, read off the stub; a module comes from itself."""
    stub = ast.parse((Path(hs.__file__).parent / "__init__.pyi").read_text())
    found = {}
    for node in ast.walk(stub):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name: node.module or alias.name for alias in node.names}
    return {name: found[name] for name in hs.__all__}


def place() -> dict[str, list[str]]:
    """Return the public names of every topic.

    Raises
    ------
    ValueError
        If a name comes from a module that stands on no page.
    """
    pages = {module: topic.slug for topic in TOPICS for module in topic.modules}
    placed: dict[str, list[str]] = {topic.slug: [] for topic in TOPICS}
    for name, module in names().items():
        if module not in pages:
            raise ValueError(
                f"hardstep.{name} is on no page: add its module {module!r} to a topic in docs/_site/api.py"
            )
        placed[pages[module]].append(name)
    order = {module: j for topic in TOPICS for j, module in enumerate(topic.modules)}
    modules = names()

    def key(name: str) -> tuple[int, bool]:
        return order[modules[name]], not inspect.isabstract(getattr(hs, name))  # what is abstract comes first

    return {slug: sorted(found, key=key) for slug, found in placed.items()}


def page(topic: Topic, plots: dict[str, str]) -> str:
    """Return the page of a topic as MyST text; `plots` are pictures by the name they belong to."""
    lines = [f"# {topic.title}", "", topic.text, ""]
    for name in place()[topic.slug]:
        heading, *rest = _entry(name)
        lines += [heading, ""]
        if name in plots:
            lines += ["```{image} " + plots[name], f":alt: plot of {name}", ":class: plot", "```", ""]
        lines += rest
    for module in topic.further:
        lines += [f"## `hardstep.{module}`", "", *_directive("automodule", f"hardstep.{module}", ":members:")]
    return "\n".join(lines)


def _entry(name: str) -> list[str]:
    value = getattr(hs, name)
    if inspect.ismodule(value):
        return [f"## `hardstep.{name}`", "", *_directive("automodule", f"hardstep.{name}", ":members:")]
    if inspect.isclass(value):
        ours = any(base.__module__.startswith("hardstep") for base in value.__bases__)
        options = [":members:", *([":show-inheritance:"] if ours else [])]
        return [f"## {name}", "", *_directive("autoclass", f"hardstep.{name}", *options)]
    if inspect.isroutine(value):
        return [f"## {name}", "", *_directive("autofunction", f"hardstep.{name}")]
    text = f"A `{type(value).__name__}`."
    return [f"## {name}", "", *_directive("py:data", f"hardstep.{name}", f":value: {_short(value)}", "", text)]


def _short(value: object) -> str:
    return value if isinstance(value, str) else type(value).__name__


def _directive(kind: str, argument: str, *lines: str) -> list[str]:
    return ["```{eval-rst}", f".. {kind}:: {argument}", *(f"   {line}".rstrip() for line in lines), "```", ""]
