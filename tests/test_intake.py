"""Intake: what becomes of foreign datasets and loaders, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from hardstep.grid import Grid
from hardstep.intake import to_part
from hardstep.parts import Samples, Streamed


class Items(Dataset[Any]):
    """A dataset of what it is given."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Unsized(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(2), 0


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


ROWS = TensorDataset(torch.arange(12.0).reshape(6, 2), torch.arange(6) % 2)
PAIRS = Items(*[(torch.full((2,), float(i)), i % 2) for i in range(6)])


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Items(), r"the dataset \(Items\) has zero samples"),
        (Endless(), "Endless cannot be indexed, but `fit` owns the order; give a map-style Dataset with a length"),
        (DataLoader(Endless()), "Endless cannot be indexed"),
        (Unsized(), "Unsized cannot be indexed"),
        (Items(torch.zeros(3)), r"Items gives Tensor, allowed are pairs \(x, y\)"),
        (Items((torch.zeros(3), 1, 2)), r"Items gives tuple, allowed are pairs"),
        (Items((Image.new("L", (2, 2)), 1)), r"Items gives \(Image, int\), allowed are tensors, arrays and numbers"),
        (Items((torch.zeros(3), "cat")), r"Items gives \(Tensor, str\), allowed are"),
        (Items((0.5, 1)), r"x of torch.float32 and shape \(\), allowed are arrays of floats or uint8"),
        (Items((torch.zeros(3).long(), 1)), r"x of torch.int64 and shape \(3,\), allowed are arrays of floats"),
        (Items((torch.zeros(3), 0.5)), r"y of torch.float32 and shape \(\), allowed are one integer label or 2"),
        (Items((torch.zeros(3), torch.zeros(3))), r"y of torch.float32 and shape \(3,\), allowed are"),
        (Items((torch.zeros(3), torch.zeros(1).long())), r"y of torch.int64 and shape \(1,\), allowed are"),
    ],
)
def test_dataset_that_does_not_fit_is_named(dataset: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_part(dataset, 2, None)


@pytest.mark.parametrize("dataset", [ROWS, PAIRS], ids=["in memory", "streamed"])
@pytest.mark.parametrize(
    "sampler",
    [
        SubsetRandomSampler([0, 1]),
        WeightedRandomSampler([1.0] * 6, 6),
        RandomSampler(PAIRS, replacement=True),
        RandomSampler(PAIRS, num_samples=3),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_loader_that_chooses_samples_is_refused(dataset: Dataset[Any], sampler: Any) -> None:
    with pytest.raises(ValueError, match=f"{type(sampler).__name__} chooses among the samples.*Subset"):
        to_part(DataLoader(dataset, batch_size=2, sampler=sampler), 2, None)
    with pytest.raises(ValueError, match="chooses among the samples"):
        to_part(DataLoader(dataset, batch_sampler=[[0], [1]]), 2, None)


def test_loader_that_changes_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="has a collate_fn of its own, which `fit` would not call"):
        to_part(DataLoader(PAIRS, collate_fn=lambda items: items), 2, None)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("size", [1, 4, 6])
def test_loader_that_only_shuffles_is_its_dataset(shuffle: bool, size: int) -> None:
    part = to_part(DataLoader(PAIRS, batch_size=size, shuffle=shuffle, drop_last=True), 2, None)
    assert isinstance(part, Streamed)
    assert part.dataset is PAIRS


def test_subset_of_rows_in_memory_stays_in_memory() -> None:
    part = to_part(Subset(Subset(ROWS, [5, 3, 1]), [2, 0]), 2, None)
    assert isinstance(part, Samples)
    assert part.x.tolist() == [[2.0, 3.0], [10.0, 11.0]]
    assert part.y.tolist() == [1, 1]
    assert isinstance(to_part(Subset(PAIRS, [1]), 2, None), Streamed)


def test_part_is_taken_as_it_is() -> None:
    for dataset in (ROWS, PAIRS):
        part = to_part(dataset, 2, None)
        assert to_part(part, 2, None) is part
    samples = to_part(ROWS, 2, None)
    assert isinstance(samples, Samples)
    assert to_part(DataLoader(samples, collate_fn=lambda batch: batch), 2, None) is samples


def test_codes_of_a_dataset_take_the_grid_that_is_given() -> None:
    codes = Items((np.zeros((1, 2, 2), np.uint8), 1))
    assert to_part(codes, 2, None).grid is not None
    grid = Grid(0.5, 3)
    assert to_part(codes, 2, grid).grid is grid
    assert to_part(TensorDataset(torch.zeros(2, 3, dtype=torch.uint8), torch.arange(2)), 2, grid).grid is grid
    assert to_part(PAIRS, 2, grid).grid is None


def test_targets_of_a_dataset_are_streamed() -> None:
    part = to_part(Items(*[(np.ones(3), np.array([0.5, i])) for i in range(4)]), 2, None)
    x, y = part.take([3, 1])
    assert (x.dtype, y.dtype) == (torch.float32, torch.float32)
    assert y.tolist() == [[0.5, 3.0], [0.5, 1.0]]
