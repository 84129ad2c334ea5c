"""The command line: every command as a user types it, names read off the classes, errors in one line."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import hardstep as hs
from hardstep import cli
from hardstep.certify import check_optimality
from hardstep.hard_layers import Conv, Dense, Flatten
from hardstep.storage import read_arrays

SMALL = ["--net.hidden", "24", "--sweeps", "2", "--no-progress"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; return status, output, errors."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.fixture(autouse=True)
def wide_and_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def test_train_prints_one_table_and_fills_the_run_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = run(capsys, "train", *SMALL, "--name", "first")
    assert status == 0
    for word in ("float test", "frozen test", "bytes", "MACs", "seconds", "runs/first/"):
        assert word in out
    files = {path.name for path in (tmp_path / "runs" / "first").iterdir()}
    expected = {"config.json", "report.json", "metrics.csv", "model.safetensors", "hardnet.safetensors"}
    assert files == expected | {"checkpoint.safetensors"}
    report = hs.Report.from_json(tmp_path / "runs" / "first" / "report.json")
    assert len(report.records) == 2


def test_network_without_an_integer_form_is_trained_and_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("layer '0' cannot be frozen")

    monkeypatch.setattr(cli, "freeze", refuse)
    status, out, _ = run(capsys, "train", *SMALL, "--name", "real")
    assert status == 0
    assert "not frozen: layer" in out and "float test" in out and "frozen test" not in out
    files = {path.name for path in (tmp_path / "runs" / "real").iterdir()}
    assert {"model.safetensors", "report.json"} <= files and "hardnet.safetensors" not in files
    status, _, err = run(capsys, "summary", "runs/real")
    assert status == 2
    assert "runs/real holds a trained network that is not frozen" in err


def test_network_with_real_sums_is_trained_frozen_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    network = ("--net", "res-net20", "--net.channels", "2", "2", "2", "--net.sums", "real-sums")
    status, out, _ = run(capsys, "train", *network, "--sweeps", "1", "--no-progress", "--name", "real")
    assert status == 0
    assert "frozen test" in out
    status, out, _ = run(capsys, "summary", "runs/real")
    assert status == 0
    assert "real sums have 16 of 32 bits behind the point" in out
    assert "one program, sample by sample" in out or "the NumPy reference" in out
    status, out, _ = run(capsys, "verify", "runs/real")
    assert status == 0, out


def test_certify_writes_certificates_that_are_checked_from_their_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(capsys, "train", *SMALL, "--name", "c")
    status, out, _ = run(capsys, "certify", "runs/c", "--rows", "60", "--beta", "0.01")
    assert status == 0
    assert "every partial sum fits a signed accumulator of 32 bits" in out
    assert "PROVED  P <= (1 + " in out
    files = [str(tmp_path / "runs" / "c" / f"optimality.{ending}") for ending in ("safetensors", "npz")]
    assert check_optimality.main(files) == 0
    assert capsys.readouterr().out.startswith("PROVED: P <= (1 + ")
    status, out, _ = run(capsys, "certify", "runs/c", "--rows", "60", "--beta", "0.01", "--gap", "0.001")
    assert status == 1
    assert "REFUTED P <= (1 + 0.001) P*" in out


def test_summary_and_verify_read_the_run_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(capsys, "train", *SMALL, "--name", "a", "--weight-bits", "4")
    status, out, _ = run(capsys, "summary", "runs/a")
    assert status == 0
    assert "Dense" in out and "64x24" not in out and "1x8x8" in out and "total:" in out
    status, out, _ = run(capsys, "verify", "runs/a")
    assert status == 0
    for form in ("file", "packed bits", "frozen again", "float network"):
        assert form in out
    assert "DIFFERS" not in out


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ([], ["net.c", "net.h"]),
        (["--out", "deep/cat-1.c"], ["deep/cat_1.c", "deep/cat_1.h"]),
        (["--layout", "cmake", "--name", "cat"], ["cat/cat.c", "cat/hardstep.c", "cat/CMakeLists.txt"]),
        (["--to", "verilog", "--name", "cat"], ["cat.v"]),
        (["--to", "onnx"], ["net.onnx"]),
        (["--to", "qonnx", "--out", "finn.onnx"], ["finn.onnx"]),
    ],
)
def test_export_writes_what_it_names(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], files: list[str]
) -> None:
    if "onnx" in str(arguments):
        pytest.importorskip("onnx")
    run(capsys, "train", *SMALL, "--name", "a")
    status, out, err = run(capsys, "export", "runs/a", *arguments)
    assert status == 0, err
    for file in files:
        assert file in out
        assert (tmp_path / file).stat().st_size > 200


def test_summary_measures_the_set_bits_that_each_layer_reads(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "train", *SMALL, "--name", "a")
    _, out, _ = run(capsys, "summary", "runs/a", "--data", "digits")
    if "the NumPy reference" in out:
        pytest.skip("the C runtime is not built")
    hard, data = hs.HardNet.load("runs/a/hardnet.safetensors"), hs.data.load("digits")
    rows = data.train.x[:2048].float() * float(data.train.grid.scale)
    bits = next(
        codes for codes, layer in zip(hard.trace(rows.numpy()), hard.layers, strict=True) if codes.shape[1] == 24
    )
    assert f"layer 2 reads codes of which {bits.mean():.1%} of the bits are set" in out


def test_summary_shows_bytes_macs_and_zeros_before_and_after_simplify(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    weight = np.zeros((4, 130), np.int8)
    weight[0, :3] = weight[1, 70] = weight[2, 129] = weight[3, 0] = 1
    image = Conv(np.eye(2, 70, dtype=np.int8)[:, :, None, None].repeat(3, axis=3), np.array([[9], [9]]))
    readout = Dense(np.array([[1, 2, 3, 0]], np.int8), None, bias=np.zeros(1, np.int64))
    rows = hs.HardNet((130,), hs.Grid(1.0, 0), (Dense(weight, np.array([[9], [9], [9], [9]])), readout))
    rows.save(tmp_path / "hardnet.safetensors")
    _, out, _ = run(capsys, "summary", ".")
    assert f"bytes: {rows.nbytes}\nMACs: 524\n" in out and "before" not in out
    first = f"{1 - 6 / 520:.1%} of weights and {1 - 4 / 12:.1%} of words zero"  # three words a row, the last of two
    assert f"layer 0: 4 units, {first}\n" in out
    run(capsys, "simplify", ".")
    small = hs.HardNet.load("simplified.safetensors")
    for command in ("summary", "simplify"):
        _, out, _ = run(capsys, command, ".")
        assert f"bytes: {rows.nbytes} before, {small.nbytes} after\nMACs: 524 before, 393 after\n" in out
        after = f"3 units, {1 - 5 / 390:.1%} of weights and {1 - 3 / 9:.1%} of words zero after"
        assert f"layer 0: 4 units, {first} before, {after}\n" in out
    assert "1 units, 25.0% of weights and 0.0% of words zero before, 1 units, 0.0% of weights" in out
    net = hs.HardNet(
        (70, 2, 5), hs.Grid(1.0, 0), (image, Flatten(), replace(readout, weight=np.ones((1, 12), np.int8)))
    )
    net.save(tmp_path / "hardnet.safetensors")
    _, out, _ = run(capsys, "summary", ".")
    assert "simplified.safetensors is of another network: run `hardstep simplify` again" in out
    # words of the 70 channels of three places, place by place: one of four has none of the weights 0, 70 and 140
    assert f"layer 0: 2 units, {1 - 3 / 210:.1%} of weights and 25.0% of words zero\n" in out


def test_summary_says_which_kernels_run_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "train", *SMALL, "--name", "a")
    _, out, _ = run(capsys, "summary", "runs/a")
    assert "layer 1: bytes" in out or "the NumPy reference" in out


def test_verify_fails_where_the_shipped_network_is_not_the_trained_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(capsys, "train", *SMALL, "--name", "a")
    run(capsys, "train", *SMALL, "--name", "b", "--seed", "1")
    (tmp_path / "runs/b/hardnet.safetensors").replace(tmp_path / "runs/a/hardnet.safetensors")
    status, out, _ = run(capsys, "verify", "runs/a")
    assert status == 1
    assert "DIFFERS" in out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--method", "re-ste"], hs.GradientDescent(rule=hs.ReSTE())),
        (["--method", "gradient-descent", "--method.rule", "sech2"], hs.GradientDescent(rule=hs.Sech2())),
        (["--method.rule", "re-ste", "--method.rule.power", "2"], hs.GradientDescent(rule=hs.ReSTE(power=2.0))),
        (["--method=random-features", "--method.loss=squared"], hs.RandomFeatures(loss=hs.Squared())),
        (
            ["--method.optimiser", "sgd", "--method.optimiser.lr", "0.3", "--method.penalty", "l1"],
            hs.GradientDescent(optimiser=hs.SGD(lr=0.3), penalty=hs.L1()),
        ),
    ],
)
def test_classes_are_chosen_by_their_own_names(arguments: list[str], wanted: object) -> None:
    assert cli.parse_train(arguments).method == wanted


def test_augmentation_reaches_the_data() -> None:
    data, _ = cli.parse_train(
        ["digits", "--augment.crop", "2", "--augment.mirror", "--augment.zoom", "0.5", "1"]
    ).load()
    assert data.augment == hs.Augment(crop=2, mirror=True, zoom=(0.5, 1.0))
    assert cli.parse_train([]).load()[0].augment == hs.Augment()


def test_images_of_class_folders_get_the_size_that_is_asked_for(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (40, 36 + i), (10 * i, 0, 90)).save(tmp_path / "pets" / label / f"{i}.png")
    arguments = [str(tmp_path / "pets"), "--net", "vgg-small", "--net.channels", "2", "2", "2"]
    data, _ = cli.parse_train([*arguments, "--size", "16", "24", "--margin", "4"]).load()
    assert data.shape == (3, 16, 24)
    assert torch.equal(
        data.train.take([0])[0], hs.data.load(tmp_path / "pets", size=(16, 24), margin=4).train.take([0])[0]
    )
    with pytest.raises(ValueError, match=r"size=\(16, 24\).*digits has none"):
        cli.parse_train(["digits", "--size", "16", "24"]).load()


def test_precision_reaches_the_training_and_what_is_kept_is_float32(capsys: pytest.CaptureFixture[str]) -> None:
    weights = []
    for precision in ("32-true", "bf16-mixed"):
        assert run(capsys, "train", *SMALL, "--precision", precision, "--name", precision)[0] == 0
        weights.append(read_arrays(Path("runs") / precision / "model.safetensors", "model")[0])
        assert run(capsys, "verify", f"runs/{precision}")[0] == 0
    assert all(np.any(a != b) for name, a in weights[0].items() if (b := weights[1][name]).dtype == np.float32)
    assert run(capsys, "train", "--precision", "8-bit")[0] != 0


def test_memory_is_chosen_by_name_also_inside_a_method() -> None:
    assert cli.parse_train(["--method.memory", "recomputed"]).method == hs.GradientDescent(memory=hs.Recomputed())
    inside = cli.parse_train(["--method", "splitting", "--method.base.memory", "packed"]).method
    assert inside == hs.Splitting(base=hs.GradientDescent(memory=hs.Packed()))


def test_teacher_is_chosen_by_name_and_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "train", *SMALL, "--name", "large")[0] == 0
    path = "runs/large/hardnet.safetensors"
    taught = ["--method.teacher", "frozen-teacher", "--method.teacher.path", path, "--method.teacher.share", "0.5"]
    assert cli.parse_train(taught).method == hs.GradientDescent(teacher=hs.FrozenTeacher(path, share=0.5))
    assert run(capsys, "train", *SMALL, *taught, "--name", "small")[0] == 0
    code, _, err = run(capsys, "train", *SMALL, "--method.teacher", "frozen-teacher", "--name", "none")
    assert code != 0
    assert "there is no frozen network at 'hardnet.safetensors'" in err


def test_net_and_activation_are_chosen_by_name() -> None:
    train = cli.parse_train(["--net", "conv-net4", "--net.activation", "sign", "--net.units", "7"])
    assert isinstance(train.net, hs.nets.ConvNet4)
    assert isinstance(train.net.activation, hs.Sign)
    assert train.net.units == 7


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["conv-net8", "--net.dropout", "0.2"], hs.nets.ConvNet8(dropout=0.2)),
        (["alex-net", "--net.units", "8"], hs.nets.AlexNet(units=8)),
        (["res-net18", "--net.small"], hs.nets.ResNet18(small=True)),
    ],
)
def test_published_networks_are_chosen_by_name(arguments: list[str], wanted: object) -> None:
    train = cli.parse_train(["--net", *arguments])
    assert type(train.net) is type(wanted)
    assert repr(train.net) == repr(wanted)


def test_binary_weights_are_chosen_by_name_trained_shipped_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [
        "--net.hidden",
        "24",
        "24",
        "--net.weights",
        "binary",
        "--net.weights.scale",
        "per-layer",
        "--method",
        "annealed",
    ]
    train = cli.parse_train(["digits", *chosen, "--net.weights.scale.detach"])
    assert train.net == hs.nets.MLP(
        hidden=(24, 24), weights=hs.Binary(hs.PerLayer(detach=True)), activation=train.net.activation
    )
    assert run(capsys, "train", *chosen, "--sweeps", "2", "--no-progress", "--name", "b")[0] == 0
    status, out, _ = run(capsys, "verify", "runs/b")
    assert status == 0, out


def test_networks_with_shortcuts_are_chosen_by_name() -> None:
    train = cli.parse_train(
        [
            "digits",
            "--net",
            "res-net20",
            "--net.sums",
            "real-sums",
            "--net.sums.after",
            "hard-tanh",
            "--net.weights",
            "libra",
        ]
    )
    assert train.net.sums == hs.nets.RealSums(after=hs.nets.HardTanh())
    assert train.net.weights == hs.Libra()
    assert cli.parse_train(["digits", "--net", "vgg-small", "--net.no-norm"]).net.channels == (128, 256, 512)


def test_help_shows_every_choice_and_hyperparameter_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "train", "--help")
    assert status == 0
    for word in ("--method {bcd,convex-training,exact-target-prop,", "--method.optimiser {adam,sgd}", "--weight-bits"):
        assert word in out
    assert "--method.batch-size" in out
    assert "Rows of a global batch" in out
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "hardstep verify" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--method", "magic"], "--method takes one of bcd, convex-training, exact-target-prop,"),
        (
            ["train", "--net", "vgg"],
            "vgg-small, res-net18, res-net20, res-net34; got 'vgg'",
        ),
        (["train", "--net", "conv-net8", "--sweeps", "1"], "convnet8 needs samples of shape (channels, height >= 20"),
        (["fly"], "there is no command 'fly'"),
        (["summary", "runs/none"], "there is no file runs/none"),
        (["export", "runs/none"], "there is no file runs/none"),
        (["export", "runs/none", "--to", "vhdl"], "--to takes one of c, onnx, qonnx, verilog; got 'vhdl'"),
        (["verify", "runs/none"], "is no run folder: it has no config.json"),
        (["train", "--weight-bits", "99", *SMALL], "weight_bits must be 2 to 16, got 99"),
        (["train", "--method.batch-size", "5000", *SMALL], "batch_size=5000 is larger than the data"),
        (["train", "no-such-data", *SMALL], "no-such-data"),
    ],
)
def test_bad_value_is_one_line_on_stderr_and_status_two(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in the tests")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", refuse)
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


def test_run_folder_of_another_command_or_version_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, "train", *SMALL, "--name", "a")
    status, _, err = run(capsys, "train", *SMALL, "--name", "a", "--seed", "4")
    assert status == 2
    assert "holds the run of another command" in err
    monkeypatch.setattr("hardstep.run_folder.__version__", "9.9.9")
    status, _, err = run(capsys, "verify", "runs/a")
    assert status == 2
    assert f"was written by hardstep {hs.__version__}, this is 9.9.9" in err


def test_killed_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    arguments = [
        sys.executable, "-m", "hardstep", "train", "--net.hidden", "128", "128", "--sweeps", "30", "--no-progress",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "timeout": 200}
    subprocess.run([*arguments, "--name", "whole"], check=True, **quiet)  # type: ignore[call-overload]
    checkpoint = tmp_path / "runs" / "broken" / "checkpoint.safetensors"
    child = subprocess.Popen([*arguments, "--name", "broken"], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.SystemRandom().uniform(0, 0.5))  # a moment nobody chose
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / "runs" / "broken" / "model.safetensors").exists()
    subprocess.run([*arguments[:4], "--resume", "runs/broken"], check=True, **quiet)  # type: ignore[call-overload]
    whole, broken = (
        read_arrays(tmp_path / "runs" / name / "model.safetensors", "model")[0] for name in ("whole", "broken")
    )
    assert set(whole) == set(broken)
    for name, array in whole.items():
        assert np.array_equal(array, broken[name]), name


def test_console_shows_a_progress_bar_with_the_score(capsys: pytest.CaptureFixture[str]) -> None:
    data = hs.data.load("digits")
    hs.fit(hs.nets.mlp(64, 16, 10), data, hs.GradientDescent(), sweeps=2)
    assert Console is not None
    out, _ = capsys.readouterr()
    assert "2/2" in out
    assert "validation" in out


def test_every_penalty_is_known_in_a_process_of_its_own() -> None:
    arguments = ["--method", "splitting", "--method.penalty", "cardinality", "--method.penalty.keep", "0.05"]
    code = f"from hardstep.cli import parse_train; print(parse_train({arguments!r}).method.penalty)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.startswith("Cardinality(keep=0.05"), result.stderr[-2000:]
