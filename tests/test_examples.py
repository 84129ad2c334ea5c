"""Every example and benchmark runs, at a tiny size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from docs._site.small import SMALL

ROOT = Path(__file__).parents[1]
COMMANDS = {
    **{f"examples/{name}.py": [*arguments, "--out", "{tmp}"] for name, arguments in SMALL.items()},
    "benchmarks/quality/reste_authors.py": [
        *("run", "--data", "digits", "--rows", "300", "--widths", "2", "2", "2", "2", "3", "3"),
        *("--seeds", "1", "--epochs", "1", "--results", "{tmp}"),
    ],
    "benchmarks/quality/surrogates.py": [
        *("choose", "run", "lengthen", "long", "refit", "table", "--net", "tiny", "--seeds", "1"),
        *("--rules", "clipped", "EDE", "--results", "{tmp}", "--networks", "{tmp}/networks"),
    ],
    "benchmarks/quality/layer_targets.py": [
        *("choose", "run", "table", "--net", "tiny", "--seeds", "1", "--results", "{tmp}")
    ],
    "benchmarks/speed/epoch.py": ["--rounds", "1", "--rows", "256", "--results", "{tmp}"],
    "benchmarks/speed/memory.py": ["--tiny", "--batch", "16", "--timed", "4", "--rounds", "1", "--results", "{tmp}"],
    "benchmarks/quality/whole_path.py": ["digits", "--seeds", "1", "--sweeps", "1", "--results", "{tmp}"],
    "benchmarks/quality/sparse.py": [
        *("digits", "--seeds", "1", "--epochs", "6", "--sparsities", "0.8", "--results", "{tmp}"),
    ],
    "benchmarks/quality/sparse_units.py": ["digits", "--seeds", "1", "--epochs", "3", "--results", "{tmp}"],
    "benchmarks/quality/planted_support.py": ["population", "--seeds", "2", "--steps", "5", "--results", "{tmp}"],
    "benchmarks/speed/bcd_sweep.py": ["--rounds", "1", "--rows", "4000", "--results", "{tmp}"],
    "benchmarks/quality/prune_units.py": ["digits", "--seeds", "1", "--sweeps", "1", "--results", "{tmp}"],
    "benchmarks/quality/bcd.py": ["digits", "--seeds", "1", "--sweeps", "1", "--depth", "1", "--results", "{tmp}"],
    "benchmarks/speed/engine.py": ["--tiny", "--rounds", "1", "--results", "{tmp}"],
    "benchmarks/speed/networks.py": ["digits", "--sweeps", "1", "--rounds", "1", "--results", "{tmp}"],
    "benchmarks/quality/exactness.py": ["--cases", "2000", "--sums", "2000", "--mutants", "0", "--results", "{tmp}"],
    "benchmarks/speed/peers.py": ["--rounds", "1", "--results", "{tmp}"],
    "benchmarks/speed/peer_networks.py": ["--rounds", "1", "--batches", "3", "--results", "{tmp}"],
    "benchmarks/quality/choose_settings.py": ["digits", "--seeds", "1", "--sweeps", "1", "--results", "{tmp}"],
    "benchmarks/speed/oracles.py": ["--tiny", "--rounds", "1", "--results", "{tmp}"],
    "benchmarks/speed/bit_matrix.py": ["--rounds", "1", "--size", "700", "300", "--results", "{tmp}"],
    "benchmarks/quality/convex_certified.py": ["--case", "tiny", "--seeds", "1", "--results", "{tmp}"],
    "benchmarks/quality/convex_images.py": [
        *("digits", "--seeds", "1", "--units", "30", "--growth", "2", "--slides", "1", "--results", "{tmp}"),
    ],
    "benchmarks/quality/activate_pruning.py": [
        *("digits", "--seeds", "1", "--epochs", "1", "--sparsities", "0.9", "--results", "{tmp}"),
    ],
    "benchmarks/speed/convex_solvers.py": ["--case", "tiny", "--results", "{tmp}"],
    "benchmarks/quality/convex_authors.py": ["--case", "tiny", "--seeds", "1", "--results", "{tmp}"],
    "benchmarks/quality/scattering.py": [
        *("run", "time", "frozen", "table", "--data", "digits", "--rows", "300", "--seeds", "1", "--sweeps", "2"),
        *("--units", "16", "--select", "3", "--images", "100", "--results", "{tmp}"),
    ],
    "benchmarks/quality/target_prop_exact.py": ["--case", "tiny", "--seeds", "1", "--results", "{tmp}"],
}
MODULES = {
    *(str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks" / "tables").glob("*.py")),
    "benchmarks/record.py",
    "benchmarks/report.py",  # test_results.py runs it
    "benchmarks/quality/interior_point.py",
    "benchmarks/speed/peer_convex.py",
}


def test_every_script_is_listed() -> None:
    found = {
        str(path.relative_to(ROOT)) for folder in ("examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    }
    assert found - MODULES == set(COMMANDS)


@pytest.mark.parametrize("script", COMMANDS)
def test_script_runs_and_leaves_its_result(script: str, tmp_path: Path) -> None:
    arguments = [argument.format(tmp=tmp_path) for argument in COMMANDS[script]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(ROOT / script), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert any(path.stat().st_size > 100 for path in tmp_path.iterdir())
