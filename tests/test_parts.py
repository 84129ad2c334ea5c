"""Parts: what a stream of batches holds, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from hardstep.images import image_folders
from hardstep.parts import Samples, Streamed, batches


class Items(Dataset[Any]):
    """A dataset of what it is given, that counts what is read."""

    def __init__(self, *items: Any) -> None:
        self.items, self.read = items, 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.read += 1
        return self.items[index]


GOOD = (torch.zeros(3), 1)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ((torch.zeros(4), 1), r"samples of shapes \[\(3,\), \(4,\)\] cannot be stacked to a batch; resize or pad"),
        ((torch.tensor([0, float("nan"), 0]), 1), "x holds NaN or infinite values, first in row 2 of the dataset"),
        ((torch.zeros(3), 2), r"label 2 at row 2 of the dataset is out of range: 2 classes are known"),
        ((torch.zeros(3), -1), r"label -1 at row 2 of the dataset is out of range"),
    ],
)
def test_bad_row_of_a_stream_is_named(bad: Any, message: str, workers: int) -> None:
    part = Streamed(Items(GOOD, GOOD, bad), 2, workers=workers)
    with pytest.raises(ValueError, match=message):
        list(part.stream([torch.tensor([1]), torch.tensor([0, 2])]))


def test_rows_unlike_the_first_are_named() -> None:
    part = Streamed(Items(GOOD, (torch.zeros(4), 1), (torch.zeros(3).byte(), 1)), 2)
    with pytest.raises(ValueError, match=r"give torch.float32 of shape \(4,\), the first row numbers of shape \(3,\)"):
        part.take([1])
    with pytest.raises(ValueError, match=r"give torch.uint8 of shape \(3,\), the first row numbers"):
        part.take([2])


def test_shape_is_read_once() -> None:
    items = Items(GOOD)
    part = Streamed(items, 2)
    assert part.shape == part.shape == (3,)
    assert items.read == 1


def test_wide_numbers_are_streamed_as_float32() -> None:
    part = Streamed(Items((np.ones(3), np.ones(2))), 2)
    assert [values.dtype for values in part.take([0])] == [torch.float32, torch.float32]


@pytest.mark.parametrize("y", [torch.tensor([True, False]), torch.tensor([[0], [1]])])
def test_labels_of_another_kind_are_named_with_the_remedy(y: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"labels are integers of shape \(n,\), got .*; use y.long\(\), and y.squeeze"):
        Samples(torch.zeros(2, 3), y)


def folder_of(tmp_path: Path, image: Image.Image, name: str = "b.png", **options: Any) -> Path:
    for sub in ("cat", "dog"):
        (tmp_path / sub).mkdir()
        Image.new("RGB", (4, 4), (9, 8, 7)).save(tmp_path / sub / "a.png")
        image.save(tmp_path / sub / name, **options)
    return tmp_path


def test_image_of_more_than_eight_bits_is_refused_not_clipped(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    found = image_folders(folder_of(tmp_path, deep))
    assert found is not None
    with pytest.raises(ValueError, match=r"b\.png has pixels of more than 8 bits \(mode I;16\)"):
        found[0]["train"][1]
    (tmp_path / "cat" / "a.png").unlink()
    with pytest.raises(ValueError, match="more than 8 bits"):
        image_folders(tmp_path)


def test_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    palette = Image.new("RGB", (4, 4), (200, 100, 50)).convert("P", palette=Image.Palette.ADAPTIVE)
    found = image_folders(folder_of(tmp_path, palette, transparency=bytes([255] * 8)))
    assert found is not None
    x, _ = found[0]["train"][1]
    assert x[:, 0, 0].tolist() == [200, 100, 50]


def test_image_cut_short_is_named(tmp_path: Path) -> None:
    path = folder_of(tmp_path, Image.effect_noise((64, 64), 50)) / "cat" / "b.png"
    whole = path.read_bytes()
    found = image_folders(tmp_path)
    assert found is not None
    for size in (60, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"b\.png is not a readable image"):
            found[0]["train"][1]


def test_codes_without_an_offset_are_not_changed_in_place() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    part = Samples(x.clone(), torch.arange(2))
    next(batches(part, [torch.arange(2)]))[0].mul_(0)
    assert torch.equal(part.x, x)
