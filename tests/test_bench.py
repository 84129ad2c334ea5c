"""`hardstep bench`: engine and peers in turn, ratios, wrong sums, JSON lines, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

import hardstep as hs
from hardstep import cli
from hardstep.bench import contest as contest_module
from hardstep.bench.cases import Case, eight_bit, made, ternary
from hardstep.bench.command import Bench, print_end
from hardstep.bench.contest import Contest, Ratio, Timed, contest
from hardstep.bench.machine import cores
from hardstep.bench.networks import Network, made_network
from hardstep.bench.our_layer import Hardstep
from hardstep.bench.peer import Peer, Run, ready
from hardstep.bench.peer_bytes import Torch
from hardstep.bench.peer_networks import Exported, OurEngine, Reference, TorchNetwork, network_peers
from hardstep.bench.peers import peers
from hardstep.bench.rows import LayerRow, short_table
from hardstep.bench.tables import case_table, form_table, peer_table
from hardstep.bench.timing import Clocks, measure, take_turns
from hardstep.engine import available_isas
from hardstep.hard_layers import Conv, Dense, Flatten, Pool

built = pytest.mark.skipif(not available_isas(), reason="the C runtime is not built")


class Liar(Peer[Any]):
    """Quick, and wrong in one output."""

    family = "liar"

    def version(self) -> str:
        return "0"

    def prepare(self, task: Any) -> Run:
        given = task.sums.copy()
        given.flat[0] += 1
        return lambda: given


class Absent(Peer[Any]):
    family = "absent"
    needs = ("no_such_package_anywhere",)
    install = "pip install no-such-package"

    def prepare(self, task: Any) -> Run:
        raise AssertionError("never asked")


def clocked(seconds: float) -> Clocks:
    return Clocks((seconds,) * 3, (seconds,) * 3)


@built
def test_a_peer_that_lies_is_marked_and_is_not_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    one = contest("dense", made((2, 512), 512), Hardstep(), [Liar(), Torch("linear")], batch=2, rounds=2)
    liar, torch_linear = one.peers
    assert liar.wrong == 1 and torch_linear.wrong == one.ours.wrong == 0
    assert liar.clocks.seconds < torch_linear.clocks.seconds
    assert one.best is torch_linear
    Console(width=200).print(peer_table([one], "peers"))
    assert "WRONG in 1 of 1, worst 1 of 1,024" in capsys.readouterr().out
    assert one.line()["peers"]["liar"]["right"] is False


@built
def test_without_a_right_peer_there_is_no_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    one = contest("dense", made((2, 16), 8), Hardstep(), [Liar()], batch=2, rounds=1)
    assert one.best is None and one.line()["ratio"] is None
    Console(width=200).print(case_table([one], "cases"))
    assert "none that is right" in capsys.readouterr().out


def test_our_own_wrong_outputs_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    one = contest("dense", made((2, 16), 8), Liar(), [Torch("linear")], batch=2, rounds=1)
    assert one.ours.wrong == 1
    Console(width=200).print(case_table([one], "cases"))
    assert "WRONG in 1" in capsys.readouterr().out


def test_ratio_is_of_medians_with_its_range_over_the_rounds() -> None:
    ours = Timed("ours", "0", Clocks((1.0,) * 3, (1.0, 2.0, 3.0)), 0)
    peer = Timed("peer", "0", Clocks((1.0,) * 3, (4.0, 4.0, 9.0)), 0)
    once = Timed("once", "0", Clocks((1.0,), (6.0,)), 0)
    found = Contest("case", 1, 1, ours, (peer, once), {})
    assert found.ratio(peer) == Ratio(2.0, 2.0, 4.0)
    assert found.ratio(once) == Ratio(3.0, 2.0, 6.0)
    assert found.best is peer
    assert replace(found, peers=(replace(peer, wrong=1), once)).best == once


@pytest.mark.parametrize("threads, clock", [(1, "cpu"), (2, "wall")])
def test_one_thread_counts_cpu_time_and_more_wall_time(threads: int, clock: str) -> None:
    assert Clocks((1.0,), (2.0,), threads).clock == clock
    assert Clocks((1.0,), (2.0,), threads).counts == ((2.0,) if threads == 1 else (1.0,))


def test_measure_sums_up_what_take_turns_gives_round_by_round() -> None:
    calls: list[str] = []
    runs = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    clocks = take_turns(runs, rounds=3, seconds=1e-4, cold=False)
    assert {len(one.wall) for one in clocks.values()} == {3} and set(calls) == {"a", "b"}
    found = measure(runs, rounds=2, seconds=1e-4, threads={"b": 2})
    assert (found["a"]["clock"], found["b"]["clock"]) == ("cpu", "wall")
    assert found["b"]["seconds"] == found["b"]["wall"] >= found["b"]["least"] > 0
    assert measure({"a": runs["a"]}, rounds=1, seconds=1e-4, cold=True)["a"]["cold"]


def test_a_slow_peer_is_timed_by_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest_module, "PATIENCE", 0.0)
    hard = made_network((6,), (), (4, 3))
    x = np.zeros((2, 6), np.uint8)
    one = contest("net", Network(hard, x), Reference(), [TorchNetwork("float")], batch=2, rounds=3)
    assert [len(form.clocks.counts) for form in (one.ours, *one.peers)] == [1, 1]


@built
@pytest.mark.parametrize("shape", [(40, 16), (2, 8, 6, 6)], ids=["dense", "convolution"])
def test_every_peer_that_is_here_is_right_on_a_small_binary_layer(shape: tuple[int, ...]) -> None:
    runs, wrong, refused = ready(made(shape, 8), [Hardstep(), *peers()])
    assert {"hardstep", "torch linear" if len(shape) == 2 else "torch conv2d"} <= set(runs)
    assert set(wrong.values()) == {0}
    assert "is for the other kind of layer" in refused["torch conv2d" if len(shape) == 2 else "torch linear"]


def any_network() -> tuple[hs.HardNet, NDArray[np.uint8]]:
    """Strides, uneven padding, windows that overlap, two thresholds a unit, a bias."""
    generator = np.random.default_rng(0)

    def weight(*shape: int) -> NDArray[np.int8]:
        return generator.integers(-3, 4, shape).astype(np.int8)

    layers = (
        Conv(weight(4, 2, 3, 2), np.array([[-40, 60]] * 4), stride=(2, 1), padding=(1, 0)),
        Pool((3, 2), (1, 2)),
        Conv(weight(5, 4, 2, 2), np.array([[0]] * 5)),
        Flatten(),
        Dense(weight(6, 5 * 2 * 2), np.array([[0, 1]] * 6)),
        Dense(weight(3, 6), None, bias=np.array([1, -2, 3])),
    )
    x = generator.integers(0, 100, (7, 2, 9, 7)).astype(np.uint8)
    return hs.HardNet((2, 9, 7), hs.Grid(1.0, 0), layers), x


def test_every_form_of_a_network_of_all_kinds_gives_its_scores() -> None:
    hard, x = any_network()
    several = [OurEngine(), Reference(), Exported(), *network_peers()]
    runs, wrong, refused = ready(Network(hard, x), several)
    assert len(np.unique(hard(x))) > 5
    assert {"hardstep", "NumPy reference", "torch float"} <= set(runs)
    assert set(wrong.values()) == {0}
    if "onnxruntime integer" in runs:
        assert {"to_onnx", "onnxruntime float"} <= set(runs)
        assert "one threshold a unit" in refused["onnxruntime saturated"]


def test_saturated_operators_are_right_where_no_sum_saturates() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    hard = made_network((1, 6, 6), (4, 4), (5, 3), draw=ternary)
    x = np.random.default_rng(0).integers(0, 256, (3, 1, 6, 6)).astype(np.uint8)
    _, wrong, refused = ready(Network(hard, x), network_peers())
    assert set(wrong.values()) == {0} and not refused


def test_wide_weights_are_refused_by_eight_bit_peers() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    layers = (Dense(np.array([[300, -2]], np.int16), np.array([[5]])), Dense(np.array([[1], [-1]], np.int8), None))
    task = Network(hs.HardNet((2,), hs.Grid(1.0, 0), layers), np.array([[1, 2], [0, 3]], np.uint8))
    runs, wrong, refused = ready(task, network_peers())
    assert set(refused) == {"onnxruntime integer", "onnxruntime saturated"}
    assert all("8-bit weights" in reason for reason in refused.values())
    assert set(wrong.values()) == {0} and len(runs) == 2


def test_absent_peers_are_listed_with_how_to_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert ready(made((1, 4), 2), [Absent()]).runs == {}
    print_end(Console(width=80), [Absent(), Liar()])
    out = capsys.readouterr().out
    assert "missing absent: no_such_package_anywhere is not installed" in out
    assert "have it by: pip install no-such-package" in out
    assert f"hardstep {hs.__version__}" in out
    print_end(Console(width=80), [Liar()])
    assert "no peer is missing" in capsys.readouterr().out


@built
def test_rows_play_on_one_thread_and_on_two() -> None:
    row = LayerRow("small", (64,), 16, eight_bit, top=255)
    for threads in (1, min(2, cores())):
        one = row.play(5, threads=threads, rounds=1)
        assert one.ours.wrong == 0 and one.batch == 5
        assert all(one.ratio(peer).least > 0 for peer in one.peers)
        assert one.line()["threads"] == threads
    assert all("," not in peer.label for peer in one.peers)


def test_rows_have_names_of_their_own() -> None:
    names = [row.name for row in short_table()]
    assert len(set(names)) == len(names)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; return status, output, errors."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


@built
def test_the_table_has_a_row_a_case_and_json_lines_are_appended(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    arguments = ["bench", "--only", "read-out", "dense 1024 -> 1024, binary", "--batches", "1", "3", "--rounds", "1"]
    status, out, err = run(capsys, *arguments, "--out", "speeds/o.jsonl")
    assert (status, err) == (0, "")
    assert sum(line.count("read-out 1024 -> 10, 8-bit") for line in out.splitlines()) == 2
    assert sum(line.count("dense 1024 -> 1024, binary") for line in out.splitlines()) == 2
    assert "torch linear" in out and "Every peer / ours" in out and "CPU time of 1 thread" in out
    lines = [json.loads(line) for line in (elsewhere / "speeds" / "o.jsonl").read_text().splitlines()]
    assert [line["batch"] for line in lines] == [1, 3, 1, 3]
    for line in lines:
        assert line["ratio"]["least"] <= line["ratio"]["median"] <= line["ratio"]["most"]
        assert line["ratio"]["least"] > 0 and line["ours"]["right"] and line["peers"][line["best"]]["right"]
        assert {"hardstep", "torch", "numpy", "isa", "cpu", "cores", "machine", "time"} <= set(line)
    run(capsys, *arguments[:3], "--batches", "2", "--rounds", "1", "--out", "speeds/o.jsonl")
    after = (elsewhere / "speeds" / "o.jsonl").read_text().splitlines()
    assert len(after) == 5 and json.loads(after[-1])["batch"] == 2


def test_a_run_is_timed_in_every_form(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    run(capsys, "train", "--net.hidden", "24", "--sweeps", "1", "--no-progress", "--name", "a")
    options = ["--batches", "1", "9", "--rounds", "1"]
    status, out, _ = run(capsys, "bench", "runs/a", "--data", "digits", *options, "--out", "o.jsonl")
    assert status == 0
    for text in ("runs/a on digits, batch 1", "batch 9", "NumPy reference", "torch float", "samples/s", "0 of 90"):
        assert text in out
    status, out, _ = run(capsys, "bench", "runs/a/hardnet.safetensors", *options)
    assert status == 0 and "on random codes" in out
    lines = [json.loads(line) for line in (elsewhere / "o.jsonl").read_text().splitlines()]
    assert [(line["case"], line["data"], line["outputs"]) for line in lines] == [
        ("runs/a", "digits", 10),
        ("runs/a", "digits", 90),
    ]
    status, _, err = run(capsys, "bench", "runs/a", "--data", "mnist-of-nowhere")
    assert status == 2 and "mnist-of-nowhere" in err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["runs/none"], "there is no run runs/none; make one by `hardstep train --name none`"),
        (["--batches", "1", "0"], "--batches takes whole numbers of at least 1; got 1 0"),
        (["--rounds", "0"], "--rounds must be at least 1; got 0"),
        (["--threads", "100000"], f"--threads must be 1 to {cores()}"),
        (["--threads", "0"], f"--threads must be 1 to {cores()}"),
        (["--only", "xyz"], "no row begins with 'xyz'; there are dense 1024"),
        (["--data", "digits"], "--data digits needs a run"),
        (["--out", "."], "--out takes a file, . is a folder"),
        ([".", "--only", "dense"], "--only dense is for the table without a run"),
        (["."], "hardnet.safetensors"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_values_are_one_clear_error(
    capsys: pytest.CaptureFixture[str], elsewhere: Path, arguments: list[str], words: str
) -> None:
    status, _, err = run(capsys, "bench", *arguments)
    assert status == 2 and words in err


def test_wrong_outputs_of_ours_end_with_status_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Contest("case", 1, 4, Timed("hardstep", "0", clocked(1.0), 2), (), {})
    monkeypatch.setattr(Bench, "print_rows", lambda self, console: [wrong])
    assert Bench().print(Console(width=80)) == 1
    Console(width=200).print(form_table(wrong, "one"))
    assert "2 of 4" in capsys.readouterr().out


def test_cases_count_their_operations_and_draw_what_they_say() -> None:
    case = made((2, 8), 6, draw=ternary, top=255)
    assert isinstance(case, Case) and case.operations == 2 * 2 * 8 * 6
    assert set(np.unique(case.weight)) == {-1, 0, 1} and case.x.max() > 100
    assert int(np.abs(made((2, 64), 64, draw=eight_bit).weight).max()) > 100
