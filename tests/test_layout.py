"""The shape of the code itself: import directions, sizes, what must not appear."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import hardstep as hs

SOURCE = Path(hs.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))

# module -> what it may import from the package; a folder stands for its files
LEFT = {"step", "rules", "losses", "penalties", "cardinality", "group_penalties", "closed_form", "target_rule"}
RIGHT = {
    *("storage", "grid", "formats", "bits", "hard_scatter", "hard_values", "hard_sums", "hard_layers", "hardnet"),
    *("simplify", "fold", "lowered"),
    *("engine", "export", "verify", "certify", "convex", "version"),
}
ALLOWED = {
    "version": set(),
    "storage": set(),
    "grid": set(),
    "formats": set(),
    "rules": {"rules"},
    "losses": set(),
    "penalties": set(),
    "cardinality": {"penalties"},
    "group_penalties": {"penalties"},
    "closed_form": set(),
    "step": {"rules"},
    "target_rule": {"rules"},
    "cuts": {"step"},
    "indicators": {"layers", "rules", "step"},
    "no_overlap": {"rules"},
    "relaxed_splitting": {"no_overlap", "penalties"},
    "splitting_bounds": {"no_overlap", "relaxed_splitting"},
    "bits": set(),
    "hard_scatter": set(),
    "hard_values": set(),
    "hard_sums": {"hard_values"},
    "hard_layers": {"bits", "hard_scatter", "hard_sums", "hard_values"},
    "hardnet": {"grid", "hard_layers", "hard_scatter", "hard_sums", "storage"},
    "simplify": {"hard_layers", "hard_scatter", "hardnet"},
    "fold": {"hard_layers", "hardnet", "simplify"},
    "lowered": {"hard_layers", "hard_sums", "hard_values", "hardnet"},
    "engine": {"export", "hard_layers", "hardnet", "lowered"},
    "export": {
        *("export", "bits", "hard_layers", "hard_scatter", "hard_sums", "hardnet", "lowered", "storage", "version"),
    },
    "verify": {"bits", "engine", "export", "hard_layers", "hardnet"},
    "certify": {"hard_layers", "hard_scatter", "hardnet", "certify", "convex", "storage"},
    "convex": {"convex", "bits", "export"},
    "blocks": {"step"},
    "weights": {"rules", "step"},
    "layers": {"rules", "step", "weights"},
    "nets": {"blocks", "layers", "nets", "step", "weights"},
    "recipes": {"augment", "losses", "methods", "nets", "rules", "step", "weights"},
    "augment": {"grid"},
    "parts": {"augment", "grid"},
    "images": set(),
    "intake": {"grid", "parts"},
    "data": {"augment", "formats", "grid", "images", "intake", "parts"},
    "checkpoint": {"storage"},
    "report": {"storage", "version"},
    "progress": {"report"},
    "ranks": set(),
    "teachers": {"data", "engine", "hardnet"},
    "work": {"data", "parts"},
    "fit": {"augment", "checkpoint", "data", "indicators", "parts", "progress", "ranks", "report", "work", *LEFT},
    "chain": {"step"},
    "kept": {"rules", "step"},
    "memory": {"chain", "kept", "step"},
    "flips": {"chain", "cuts", "step"},
    "target_diagnostics": {"certify", "cuts", "diagnostics", "flips", "parts", *LEFT},
    "pruning": {"chain", "closed_form", "data", "parts"},
    "units": {"chain", "layers", "step"},
    "diagnostics": {"parts", "units"},
    "methods": {
        *(
            "methods",
            "certify",
            "chain",
            "convex",
            "cuts",
            "diagnostics",
            "flips",
            "fit",
            "indicators",
            "memory",
            "layers",
            "parts",
            "ranks",
            "nets",
            "teachers",
            "units",
        ),
        *LEFT,
    },
    "shrink": {"chain", "step"},
    "folding": {"hard_layers", "layers", "scattering_front", "step"},
    "fixed_point": {"folding", "hard_layers", "hard_sums", "step"},
    "freeze_sums": {
        *("blocks", "chain", "fixed_point", "folding", "hard_layers", "hard_sums", "layers", "nets", "step"),
    },
    "freeze": {
        *("blocks", "chain", "folding", "freeze_sums", "grid", "hard_layers", "hard_sums", "hardnet", "nets", "parts"),
        *("step", "unroll"),
    },
    "unroll": {"blocks", "chain", "step"},
    "frames": set(),
    "banks": {"frames"},
    "selection": set(),
    "scattering_layers": {"frames", "rules", "step"},
    "scattering_paths": set(),
    "scattering_bounds": set(),
    "scattering": {"banks", "frames", "scattering_bounds", "scattering_layers", "scattering_paths"},
    "scattering_program": {"banks", "frames", "hard_scatter", "scattering", "scattering_paths"},
    "scattering_front": {"hard_scatter", "scattering", "scattering_program"},
    "scattering_features": {
        *("frames", "scattering", "scattering_front", "scattering_layers", "scattering_paths", "scattering_program"),
        "selection",
    },
    "proofs": {"certify", "convex", "data", "hardnet", "storage"},
    "svg": set(),
    "compare_run": {
        *("certify", "data", "diagnostics", "engine", "fit", "freeze", "hard_layers", "hard_sums", "hardnet"),
        *("methods", "nets", "parts", "proofs", "report", "run_folder", "simplify", "storage"),
    },
    "compare": {
        *("compare_report", "compare_run", "data", "diagnostics", "fit", "nets", "report", "storage"),
    },
    "compare_plots": {"compare", "report", "svg"},
    "compare_report": {"compare", "compare_plots", "compare_run"},
    "run_folder": {"report", "storage", "version"},
    "hyperparameters": set(),
    "tabular": {"grid"},
    "readable": {"hard_layers", "hardnet", "lowered", "simplify"},
    "estimator_core": {
        *("checkpoint", "data", "engine", "export", "fit", "freeze", "grid", "hardnet", "hyperparameters", "nets"),
        *("parts", "readable", "report", "storage", "tabular"),
    },
    "estimator": {"estimator_core", "fit", "losses", "methods"},
    "bench": {
        *("bench", "bits", "commands", "engine", "export", "grid", "hard_layers", "hardnet", "lowered", "report"),
        *("storage", "version"),
    },
}
ANYTHING = {"choices", "cli", "commands", "compare_command", "__main__", "__init__"}


def imported(path: Path) -> set[str]:
    """The package's own modules that a file imports, folders by their name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hardstep":
            parts = (node.module or "").split(".")[1:]
            names |= {parts[0]} if parts else {alias.name for alias in node.names}
    return names


@every_file
def test_imports_point_one_way(path: Path) -> None:
    module = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if module not in ANYTHING:
        assert imported(path) <= ALLOWED[module]


@every_file
def test_file_is_short_documented_and_lists_its_names(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(tree)
    if path.name not in ("__init__.py", "__main__.py"):
        assert any(isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__" for n in tree.body)


@every_file
def test_no_eval_no_print_and_pickle_only_where_it_is_restricted(path: Path) -> None:
    calls = {
        n.func.id
        for n in ast.walk(ast.parse(path.read_text()))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert not calls & {"eval", "exec", "print"}
    imports = {
        alias.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import) for alias in n.names
    }
    assert "pickle" not in imports or path.name == "formats.py"


@pytest.mark.parametrize("module", sorted(RIGHT))
def test_right_of_freeze_nothing_imports_torch(module: str) -> None:
    names = [f"hardstep.{module}"]
    if (SOURCE / module).is_dir():
        names = [f"hardstep.{module}.{path.stem}" for path in (SOURCE / module).glob("*.py") if path.stem != "__init__"]
    code = f"import {', '.join(names)}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_exists_and_is_documented() -> None:
    for name in hs.__all__:
        value = getattr(hs, name)
        assert name == "__version__" or inspect.getdoc(value), name


def test_no_public_function_takes_more_than_eight_arguments_beside_the_data() -> None:
    for name in hs.__all__:
        value = getattr(hs, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            parameters = [p for p in inspect.signature(value).parameters if p not in ("self", "data", "x")]
            assert len(parameters) <= 8, name


def test_version_has_one_source() -> None:
    project = SOURCE.parents[1] / "pyproject.toml"
    if not project.exists():
        pytest.skip("the package is installed without its project file")
    assert 'dynamic = ["version"]' in project.read_text()
