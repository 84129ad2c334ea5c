"""Crops and mirror images: against brute force by row, the same whatever the batches, codes kept, one clear error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

import hardstep as hs
from hardstep.fit import Work
from hardstep.parts import Samples, Streamed
from hardstep.ranks import launched_fabric

SHAPES = (60, 100), (100, 60), (80, 80), (50, 120)  # of photographs
BOTH = hs.Augment(crop=2, mirror=True)


class Items(Dataset[Any]):
    """Samples without their tensors: a dataset that is read row by row."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def images(n: int = 60, shape: tuple[int, ...] = (3, 5, 7), grid: hs.Grid = hs.Grid(1.0, 0)) -> hs.data.Data:  # noqa: B008
    x = torch.randint(1, 256, (n, *shape), generator=torch.Generator().manual_seed(0)).byte()
    x.flatten(1)[:, 0] = torch.arange(n)  # the label names the row; 0 is the frame but there
    return hs.data.Data("images", Samples(x, torch.arange(n), grid), None, None, outputs=n)


def sweep(data: hs.data.Data, size: int = 8, rank: int = 0, ranks: int = 1, **place: Any) -> dict[int, Tensor]:
    """The images of a sweep, by row."""
    fabric = Mock(Fabric, world_size=ranks, global_rank=rank, device=torch.device("cpu"))
    work = Work(data, fabric, **{"seed": 0, "sweeps": 4} | place)
    return {int(y): x for batch in work.batches(size, shuffle=True) for x, y in zip(batch.x, batch.y, strict=True)}


def windows(image: np.ndarray[Any, Any], crop: int, *, mirror: bool, frame: Any = 0) -> Iterator[np.ndarray[Any, Any]]:
    """All that may become of an image, one by one."""
    c, h, w = image.shape
    framed = np.broadcast_to(frame, (c, h + 2 * crop, w + 2 * crop)).copy()
    framed[:, crop : crop + h, crop : crop + w] = image
    for top in range(2 * crop + 1):
        for left in range(2 * crop + 1):
            window = framed[:, top : top + h, left : left + w]
            yield window
            if mirror:
                yield window[:, :, ::-1]


@pytest.mark.parametrize("augment", [hs.Augment(crop=1), hs.Augment(mirror=True), BOTH])
def test_every_window_of_every_row_is_drawn_and_nothing_else(augment: hs.Augment) -> None:
    data = replace(images(4), augment=augment)
    train = data.train
    assert isinstance(train, Samples)
    allowed = [
        {window.astype(np.float32).tobytes() for window in windows(image.numpy(), augment.crop, mirror=augment.mirror)}
        for image in train.x
    ]
    seen: list[set[bytes]] = [set() for _ in allowed]
    for number in range(500):
        for row, x in sweep(data, 2, sweeps=500, **{"sweep": number}).items():
            seen[row].add(x.contiguous().numpy().tobytes())
    assert seen == allowed


def test_rows_of_a_sweep_are_drawn_apart_and_sweeps_and_seeds_differ() -> None:
    one = torch.zeros(400, 1, 5, 5).byte()
    one[:, :, 2, 1] = 9
    data = hs.data.Data("one", Samples(one, torch.arange(400), hs.Grid(1.0, 0)), None, None, 400, augment=BOTH)
    first = sweep(data, 100)
    counts = torch.stack(list(first.values())).sum(dim=0)[0] / 9
    assert counts.sum(dim=1).tolist() == pytest.approx([64] * 5, abs=30)  # a window in five cuts the pixel off
    assert counts.sum(dim=0).tolist() == pytest.approx([40, 80, 80, 80, 40], abs=30)
    assert any(not torch.equal(x, sweep(data, 100, **{"sweep": 1})[row]) for row, x in first.items())
    assert any(not torch.equal(x, sweep(data, 100, seed=1)[row]) for row, x in first.items())


@pytest.mark.parametrize("augment", [BOTH, replace(BOTH, zoom=(0.2, 1.0))])
def test_images_do_not_depend_on_batches_ranks_or_where_rows_are_kept(augment: hs.Augment) -> None:
    data = replace(images(), augment=augment)
    whole = sweep(data, 60)
    streamed = replace(data, train=Streamed(Items(data.train), 60, data.train.grid, workers=1))  # type: ignore[arg-type]
    shared = sweep(data, 8, rank=0, ranks=2) | sweep(data, 8, rank=1, ranks=2)
    for other in (sweep(data, 7), shared, sweep(streamed, 7)):
        assert other.keys() == whole.keys()
        assert all(torch.equal(x, whole[row]) for row, x in other.items())
    assert any(not torch.equal(x, data.train.take([row])[0][0].float()) for row, x in whole.items())


def test_codes_stay_codes_and_the_frame_is_the_code_of_zero() -> None:
    grid = hs.Grid(np.full((3, 1, 1), 0.5), np.array([7, 300, -4]).reshape(3, 1, 1))
    data = images(grid=grid)
    assert isinstance(data.train, Samples)
    changes = BOTH.draw(60, torch.Generator().manual_seed(1))
    assert changes is not None
    rows = torch.arange(60)
    codes = changes.of(data.train.x, rows, grid)
    assert codes.dtype == torch.uint8
    frame = np.array([7, 255, 0]).reshape(3, 1, 1)  # the nearest there is
    for before, after in zip(data.train.x, codes, strict=True):
        assert any(np.array_equal(after, window) for window in windows(before.numpy(), 2, mirror=True, frame=frame))
    values = data.train.x.float()
    assert torch.equal(changes.of(values, rows, None), changes.of(data.train.x, rows, hs.Grid(1.0, 0)).float())


def test_validation_part_and_unshuffled_rows_stay_as_they_are() -> None:
    data = replace(images(), augment=BOTH)
    work = Work(replace(data, val=data.train), launched_fabric(), 0, 1)
    for part in (None, data.train):
        x = torch.cat([batch.x for batch in work.batches(16, part=part)])
        assert torch.equal(x, data.train.take(list(range(60)))[0].float())


def test_resumed_fit_sees_the_images_of_an_unbroken_one(tmp_path: Path, digits: hs.data.Data) -> None:
    data = replace(digits, augment=hs.Augment(crop=1))
    method = hs.GradientDescent(schedule=hs.Constant())

    def train(folder: Path | None) -> list[float]:
        report = hs.fit(hs.nets.mlp(64, 16, 10), data, method, sweeps=4, folder=folder, progress=False)
        assert report.data == "digits, Augment(crop=1, mirror=False, zoom=None)"
        return [record.objective for record in report.records]

    whole = train(None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hs.GradientDescent, "sweep", stopping(hs.GradientDescent.sweep, after=2))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert train(tmp_path) == whole
    with pytest.raises(ValueError, match=r"another fit: data was 'digits, Augment\(crop=1.*Name another folder"):
        hs.fit(hs.nets.mlp(64, 16, 10), digits, method, sweeps=4, folder=tmp_path, progress=False)


def stopping(sweep: Any, after: int) -> Any:
    """A sweep that is interrupted the next time after so many."""
    done: list[int] = []

    def stopped(*arguments: Any, **options: Any) -> Any:
        done.append(1)
        if len(done) > after:
            raise KeyboardInterrupt
        return sweep(*arguments, **options)

    return stopped


def photographs(folder: Path) -> Path:
    """Two classes of images in which red says the column and green the line, in steps of two."""
    for label in range(2):
        (folder / f"{label}").mkdir()
        for i, (height, width) in enumerate(SHAPES):
            lines, columns = np.mgrid[:height, :width]
            pixels = np.stack([2 * columns, 2 * lines, np.full_like(lines, 40 * i + label)], axis=2).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{label}" / f"{i}.png")
    return folder


def test_margin_keeps_proportions_and_cuts_the_middle(tmp_path: Path) -> None:
    folder = photographs(tmp_path)
    data = hs.data.load(folder, size=(20, 20), margin=10, val_share=0.0, test_share=0.0)
    x, _ = data.train.take(list(range(8)))
    for image in x:
        i = int(image[2, 0, 0]) // 40
        height, width = SHAPES[i]
        side = min(height, width) * 20 / 30  # of the square in the middle
        places = (np.arange(20) + 0.5) * side / 20 - 0.5
        for channel, length in ((0, width), (1, height)):
            line = image[channel].float().mean(dim=channel).numpy() / 2  # mean over lines, or over columns
            np.testing.assert_allclose(line, places + (length - side) / 2, atol=0.4)
    squeezed = hs.data.load(folder, size=(20, 20), val_share=0.0, test_share=0.0).train.take([0])[0][0]
    assert squeezed[0].max() > 2 * 90 and squeezed[1].max() > 2 * 55


def test_zoom_takes_windows_of_the_files_in_the_published_range(tmp_path: Path) -> None:
    augment = hs.Augment(mirror=True, zoom=(0.08, 1.0))
    data = hs.data.load(photographs(tmp_path), size=(20, 20), val_share=0.0, test_share=0.0)
    areas, mirrored, generator = [], 0, torch.Generator().manual_seed(0)
    for _ in range(60):
        images, _ = next(data.train.stream([torch.arange(8)], augment.draw(8, generator)))
        assert images.dtype == torch.uint8
        for x in images.float():
            i = int(x[2, 10, 10]) // 40
            height, width = SHAPES[i]
            steps = [x[c].mean(dim=c).diff().mean() / 2 for c in (0, 1)]  # source pixels for each pixel
            wide, high = (abs(float(step)) * 20 for step in steps)
            mirrored += int(steps[0] < 0)
            assert 3 / 4 - 0.1 <= wide / high <= 4 / 3 + 0.2 and steps[1] > 0
            areas.append(wide * high / (height * width))
    assert mirrored == pytest.approx(240, abs=60)
    assert 0.06 <= min(areas) < 0.12 and 0.75 < max(areas) <= 1.02
    share = np.random.default_rng(0).uniform(0.08, 1, (20_000, 1))
    ratio = np.exp(np.random.default_rng(1).uniform(-np.log(4 / 3), np.log(4 / 3), (20_000, 1)))
    height, width = np.array(SHAPES).T
    fits = (share * width * ratio <= height) & (share * height / ratio <= width)
    wanted = (fits * share).sum(axis=0) / fits.sum(axis=0)
    assert np.mean(areas) == pytest.approx(wanted.mean(), abs=0.04)


def test_zoom_without_a_window_that_fits_takes_the_largest_in_the_middle() -> None:
    x = torch.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8).float()
    numbers = torch.tensor([3, 4])
    assert hs.Augment(zoom=(1.0, 1.0)).images(x, numbers).shape == x.shape
    tall = torch.arange(90.0).reshape(1, 1, 15, 6)  # no window of all the area fits the range of proportions
    middle = hs.Augment(zoom=(1.0, 1.0)).images(tall, numbers[:1], size=(8, 6))
    assert torch.equal(middle[0, 0], tall[0, 0, 4:12])


def test_what_cannot_be_augmented_is_named() -> None:
    for zoom in ((0.0, 1.0), (0.5, 0.2), (1.1, 1.2)):
        with pytest.raises(ValueError, match=r"zoom is the least and the largest share of the area.* got \("):
            hs.Augment(zoom=zoom)
    with pytest.raises(ValueError, match="crop is the number of pixels put on each side, at least 0, got -1"):
        hs.Augment(crop=-1)
    table = hs.data.from_arrays(np.eye(20, dtype=np.float32), np.arange(20) % 2)
    with pytest.raises(ValueError, match=r"needs images of shape \(channels, height, width\).* shape \(20,\)"):
        replace(table, augment=hs.Augment(mirror=True))
    with pytest.raises(ValueError, match=r"higher and wider than crop, got samples of shape \(3, 5, 7\)"):
        replace(images(), augment=hs.Augment(crop=5))
    with pytest.raises(ValueError, match=r"the grid of the data differs from pixel to pixel"):
        replace(images(grid=hs.Grid(np.ones((3, 5, 7)), 0)), augment=hs.Augment(mirror=True))
    with pytest.raises(ValueError, match=r"BCD needs the same training rows in every sweep, and Augment\(crop=1"):
        hs.fit(hs.nets.mlp(64, 8, 10), hs.data.load("digits", augment=hs.Augment(1)), hs.BCD(), progress=False)
