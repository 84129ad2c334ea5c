"""Files: whole or not there, and damage is always seen."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hardstep as hs
from hardstep.checkpoint import load_tree, save_tree
from hardstep.storage import read_arrays, read_json, write_arrays, write_bytes, write_json

ARRAYS = {"a": np.arange(1000, dtype=np.int16), "b": np.ones((3, 4)), "c": np.zeros((0, 2), np.uint8)}


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    write_arrays(tmp_path / "f", ARRAYS, {"note": [1, "two"]}, "thing")
    arrays, meta = read_arrays(tmp_path / "f", "thing")
    assert meta == {"note": [1, "two"]}
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)


def test_every_flipped_byte_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_arrays(path, {"a": np.arange(40, dtype=np.int16)}, {"note": "x"}, "thing")
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(ValueError, match=r"damaged|holds|format"):
            read_arrays(path, "thing")


@pytest.mark.parametrize("length", [0, 4, 60, -1])
def test_truncated_file_is_seen(tmp_path: Path, length: int) -> None:
    path = tmp_path / "f"
    write_arrays(path, ARRAYS, {}, "thing")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="is damaged: not a whole safetensors file"):
        read_arrays(path, "thing")


def test_other_kind_and_other_format_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_arrays(tmp_path / "f", ARRAYS, {}, "model")
    with pytest.raises(ValueError, match="holds 'model', not a 'hardnet'"):
        read_arrays(tmp_path / "f", "hardnet")
    monkeypatch.setattr("hardstep.storage.FORMAT", "2")
    with pytest.raises(ValueError, match="has format '1', this hardstep reads format '2'"):
        read_arrays(tmp_path / "f", "model")


def test_missing_file_and_broken_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a hardnet written by hardstep"):
        read_arrays(tmp_path / "none", "hardnet")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is not JSON"):
        read_json(tmp_path / "bad.json")


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_bytes(path, b"old")

    def write() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # the kernel refuses the bytes beyond, as a full disk
        try:
            write_bytes(path, bytes(100_000))
        except OSError:
            os._exit(7)
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=write)
    child.start()
    child.join()
    assert child.exitcode == 7
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_kill_during_saving_never_leaves_half_a_file_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "f"
    versions = [{"a": np.full(200_000, value, np.int64)} for value in (0, 1)]
    write_arrays(path, versions[0], {}, "thing")

    def write_on() -> None:
        turn = 0
        while True:
            turn = 1 - turn
            write_arrays(path, versions[turn], {}, "thing")

    delays = np.random.default_rng(0).uniform(0.005, 0.08, 12)
    for delay in delays:
        child = multiprocessing.get_context("fork").Process(target=write_on)
        child.start()
        time.sleep(delay)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        arrays, _ = read_arrays(path, "thing")
        assert len(np.unique(arrays["a"])) == 1


def test_tree_comes_back_with_its_types_and_bits(tmp_path: Path) -> None:
    tree: dict[str, Any] = {
        "tensors": [
            torch.randn(3, 4),
            torch.tensor(2.5, dtype=torch.bfloat16),
            torch.zeros(0, 3),
            torch.tensor([True]),
        ],
        0: {"betas": (0.9, 0.999), "none": None, "flag": False, "name": "x"},
        "strided": torch.arange(12.0).reshape(3, 4).T,
    }
    save_tree(tmp_path / "f", tree, "checkpoint")
    back = load_tree(tmp_path / "f", "checkpoint")
    assert back[0] == tree[0]
    for a, b in zip([*tree["tensors"], tree["strided"]], [*back["tensors"], back["strided"]], strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert torch.equal(a, b)


def test_tree_with_foreign_content_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="holds tensors, numbers, text and containers of them, got object"):
        save_tree(tmp_path / "f", {"x": object()}, "checkpoint")


def test_report_comes_back_from_json_and_lists_its_sweeps(tmp_path: Path) -> None:
    records = (hs.Record(0, 2.0, 0.5, 0.1, {"train_accuracy": 0.4}), hs.Record(1, 1.0, None, 0.2))
    report = hs.Report("M()", "digits", 3, records, 0, "all 2 sweeps done", {"hardstep": "0"})
    report.to_json(tmp_path / "r.json")
    assert hs.Report.from_json(tmp_path / "r.json") == report
    report.to_csv(tmp_path / "m.csv")
    lines = (tmp_path / "m.csv").read_text().splitlines()
    assert lines == ["sweep,objective,score,seconds,train_accuracy", "0,2.0,0.5,0.1,0.4", "1,1.0,,0.2,"]
    assert report.seconds == pytest.approx(0.3)
    write_json(tmp_path / "r.json", {"method": "M()"})
    with pytest.raises(ValueError, match="is not a report of hardstep"):
        hs.Report.from_json(tmp_path / "r.json")


def test_report_draws_one_line_a_panel(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    records = tuple(hs.Record(i, 2.0 / (i + 1), 0.5 + 0.1 * i, 0.1) for i in range(4))
    figure = hs.Report("M()", "digits", 3, records, 3, "done", {}).plot()
    assert [len(axis.lines[0].get_xdata()) for axis in figure.axes] == [4, 4]
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
