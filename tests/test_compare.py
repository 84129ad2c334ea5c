"""Comparisons: same splits and weights for all, resumed after a kill, failures shown, one report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hardstep as hs
from hardstep import cli
from hardstep.certify.certificate import Certificate
from hardstep.certify.overflow import NoOverflow
from hardstep.compare_run import Run, Task, train_run

NET = hs.nets.MLP(hidden=(16,))
TIMED = ("seconds", "us_1", "us_256", "memory")


def table(seed: int = 0) -> hs.data.Data:
    x = torch.rand(300, 4, generator=torch.Generator().manual_seed(seed))
    return hs.data.from_arrays(x, (x[:, 0] > x[:, 1]).long(), name="table")


def untimed(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what a clock or the operating system said."""
    for run in runs:
        run["figures"] = {name: value for name, value in run["figures"].items() if name not in TIMED}
        for record in run["report"]["records"]:
            del record["seconds"]
    return runs


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[hs.Comparison, Path]:
    folder = tmp_path_factory.mktemp("compare")
    methods = [hs.GradientDescent(batch_size=60), hs.RandomFeatures(), hs.MagnitudePruning(rounds=9)]
    return hs.compare(methods, table(), NET, sweeps=3, seeds=2, folder=folder, jobs=2, progress=False), folder


def test_every_run_is_measured_and_names_come_from_the_classes(compared: tuple[hs.Comparison, Path]) -> None:
    found, _ = compared
    assert set(found.names) == {"GradientDescent", "RandomFeatures", "MagnitudePruning"}
    for run in found.of("GradientDescent") + found.of("RandomFeatures"):
        assert not run.failed
        assert run.figures["frozen"] > 0.5
        assert run.figures["small_nbytes"] <= run.figures["nbytes"]
        assert min(run.figures["us_1"], run.figures["us_256"]) > 0
        assert run.report is not None and len(run.report.records) == 3
        assert run.proofs[0].verdict == "PROVED"
        assert len(run.proofs) == 2
    assert "GradientDescent" in str(found)


def test_a_method_that_refuses_is_named_with_its_reason_and_stops_no_other(
    compared: tuple[hs.Comparison, Path],
) -> None:
    found, _ = compared
    for run in found.of("MagnitudePruning"):
        assert "9 rounds of pruning after a dense one need at least 10 sweeps" in run.failed
        assert run.report is None
    assert found.names[-1] == "MagnitudePruning"
    assert found.behind("MagnitudePruning") is None


def test_scores_sizes_and_certificates_are_those_of_the_files(compared: tuple[hs.Comparison, Path]) -> None:
    found, folder = compared
    test = table().test
    assert test is not None
    for run in found.of("GradientDescent"):
        own = folder / f"GradientDescent-{run.seed}"
        hard, small = hs.HardNet.load(own / "hardnet.safetensors"), hs.HardNet.load(own / "simplified.safetensors")
        right = hard.predict(test.x.numpy()) == test.y.numpy()
        assert right.mean() == pytest.approx(run.figures["frozen"])
        assert (hard.nbytes, small.nbytes) == (run.figures["nbytes"], run.figures["small_nbytes"])
        assert NoOverflow().check(Certificate.load(own / "overflow.safetensors"), hard)
        command = [sys.executable, "-m", "hardstep.certify.check_optimality"]
        files = [str(own / f"optimality.{ending}") for ending in ("safetensors", "npz")]
        assert subprocess.run([*command, *files], capture_output=True, check=False).returncode == 0


def test_a_run_is_the_fit_of_its_seed(compared: tuple[hs.Comparison, Path]) -> None:
    found, _ = compared
    net = NET((4,), 2, 1)
    report = hs.fit(net, table(), hs.GradientDescent(batch_size=60), sweeps=3, seed=1, progress=False)
    run = found.of("GradientDescent")[1]
    assert run.report is not None
    assert [r.objective for r in run.report.records] == pytest.approx([r.objective for r in report.records], rel=1e-5)


def test_difference_to_the_best_is_taken_seed_by_seed() -> None:
    scores = {"a": (0.9, 0.8, 0.7), "b": (0.89, 0.79, 0.69)}
    runs = tuple(Run(name, seed, name, {"frozen": s}) for name, all_s in scores.items() for seed, s in enumerate(all_s))
    found = hs.Comparison({"score": "accuracy"}, runs)
    behind, own = found.behind("b"), found.spread("b", "frozen")
    assert behind is not None and behind.sd is not None and own is not None
    assert behind.mean == pytest.approx(-0.01)
    assert behind.sd == pytest.approx(0.0, abs=1e-12)
    assert own.sd == pytest.approx(0.1)


def test_json_gives_the_comparison_back(compared: tuple[hs.Comparison, Path], tmp_path: Path) -> None:
    found, _ = compared
    found.to_json(tmp_path / "c.json")
    assert hs.Comparison.from_json(tmp_path / "c.json") == found
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(ValueError, match="holds no comparison"):
        hs.Comparison.from_json(tmp_path / "c.json")


def test_finished_runs_are_read_and_those_of_something_else_refused(tmp_path: Path) -> None:
    methods = {"random": hs.RandomFeatures()}
    options = {"sweeps": 2, "folder": tmp_path, "progress": False}
    first = hs.compare(methods, table(), NET, seeds=1, **options)  # type: ignore[arg-type]
    written = (tmp_path / "random-0" / "run.json").stat().st_mtime_ns
    more = {**methods, "ste": hs.GradientDescent(batch_size=60)}
    second = hs.compare(more, table(), NET, seeds=2, **options)  # type: ignore[arg-type]
    assert (tmp_path / "random-0" / "run.json").stat().st_mtime_ns == written
    assert second.of("random")[0].report == first.runs[0].report
    assert len(second.runs) == 4
    for changed in ({"data": table(1)}, {"net": hs.nets.MLP(hidden=(17,))}, {"sweeps": 3}):
        given = {"data": table(), "net": NET, **options, **changed}
        with pytest.raises(ValueError, match=r"random-0 holds a run of something else: .* was .*, is "):
            hs.compare(methods, seeds=1, **given)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Killer(hs.Method[Any]):
    """A method whose process dies, as if memory had run out."""

    def init(self, net: nn.Module, work: hs.Work) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    def sweep(self, state: Any, work: hs.Work) -> hs.Sweep:
        raise AssertionError


def test_a_process_that_dies_takes_no_other_run_with_it(tmp_path: Path) -> None:
    methods = {"killer": Killer(), "random": hs.RandomFeatures()}
    found = hs.compare(methods, table(), NET, sweeps=1, seeds=1, folder=tmp_path, jobs=2, progress=False)
    assert "its process was killed" in found.of("killer")[0].failed
    assert found.of("random")[0].figures["frozen"] > 0.5


def test_what_cannot_be_frozen_keeps_its_float_score(tmp_path: Path) -> None:
    def recipe(shape: tuple[int, ...], outputs: int, seed: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), hs.Step(), nn.Linear(8, outputs), nn.Tanh())

    run = train_run(Task(table(), recipe, 1, 8), "ste", hs.GradientDescent(batch_size=60), 0, tmp_path)
    assert run.failed.startswith("trained, but not frozen: ")
    assert run.figures["float"] >= 0
    assert run.report is not None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the operating system keeps no high-water mark")
def test_memory_is_that_of_the_run_whatever_was_before_it(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Hungry(hs.Method[Any]):
        mbytes: int

        def init(self, net: nn.Module, work: hs.Work) -> Any:
            return hs.RandomFeatures().init(net, work)

        def sweep(self, state: Any, work: hs.Work) -> hs.Sweep:
            total = float(np.ones(self.mbytes * 2**20, np.uint8).sum())  # touched, then freed
            return hs.Sweep(total, stop="enough")

    task = Task(table(), NET, 1, 8)
    found = [
        train_run(task, "hungry", Hungry(size), 0, tmp_path / str(i)).figures["memory"]
        for i, size in enumerate((300, 60))
    ]
    for memory, size in zip(found, (300, 60), strict=True):
        assert 0.9 * size < memory / 2**20 < size + 40


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        ([], {}, "give each method a name of its own"),
        ([hs.BCD(), hs.BCD()], {}, "give each method a name of its own"),
        ([hs.BCD()], {"seeds": 0}, "seeds is a count and must be at least 1, got 0"),
        ([hs.BCD()], {"jobs": 0}, "jobs is a count and must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_clear_error(methods: Any, options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hs.compare(methods, table(), NET, progress=False, **options)


def command(out: Path, *more: str) -> list[str]:
    methods = ["--methods", "random-features", "bcd", "--seeds", "2", "--sweeps", "12", "--net.hidden", "64"]
    return [sys.executable, "-m", "hardstep", "compare", "digits", *methods, "--no-progress", "--out", str(out), *more]


def test_killed_comparison_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    quiet: dict[str, Any] = {"env": environment, "stdout": subprocess.DEVNULL}
    child = subprocess.Popen(command(broken, "--jobs", "2"), start_new_session=True, **quiet)
    deadline = time.monotonic() + 120
    while not ((broken / "random-features-0" / "run.json").exists() and list(broken.glob("bcd-*/checkpoint*"))):
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    finished = {path: path.stat().st_mtime_ns for path in broken.glob("*/run.json")}
    assert 1 <= len(finished) < 4
    assert not (broken / "report.html").exists()
    again = subprocess.run(command(broken, "--jobs", "2"), env=environment, capture_output=True, text=True, check=True)
    assert "bcd" in again.stdout and "report.html" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    subprocess.run(command(whole, "--jobs", "1"), check=True, **quiet)
    one, other = (json.loads((folder / "comparison.json").read_text()) for folder in (whole, broken))
    assert untimed(one["runs"]) == untimed(other["runs"])
    assert (whole / "report.html").stat().st_size > 10_000


def test_command_knows_all_methods_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    from hardstep.choices import METHODS
    from hardstep.compare_command import Compare

    assert [type(method) for method in Compare().chosen().values()] == list(METHODS)
    assert Compare(methods=("re-ste", "bcd")).chosen() == {
        "re-ste": hs.GradientDescent(rule=hs.ReSTE()),
        "bcd": hs.BCD(),
    }
    with pytest.raises(SystemExit) as stopped:
        cli.main(["compare", "digits", "--methods", "magic"])
    assert stopped.value.code == 2
    assert "--methods takes all or some of bcd, convex-training" in capsys.readouterr().err
