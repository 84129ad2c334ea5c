"""Parts: the rows of a training, validation or test part, in memory or read one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hardstep.grid import Grid

__all__ = ["Part", "Samples", "Streamed", "batches", "check_labels"]


@dataclass(frozen=True, eq=False)
class Samples(Dataset[tuple[Tensor, Tensor]]):
    """A part in memory.

    Parameters
    ----------
    x
        8-bit codes (uint8) with a grid, or numbers (float32) without one; shape (n, ...).
    y
        Labels (int64, shape (n,)) or number targets (float32, shape (n, k)).
    grid
        Which number a code stands for.

    Raises
    ------
    ValueError
        If there are no rows, a value is NaN or infinite, or shapes and types do not fit.
    """

    x: Tensor
    y: Tensor
    grid: Grid | None = None

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        if x.ndim < 2 or len(x) == 0:
            raise ValueError(f"samples need the shape (n, ...) with n >= 1, got x of shape {tuple(x.shape)}")
        if len(x) != len(y):
            raise ValueError(f"x has {len(x)} rows and y has {len(y)}; give one label or target per row")
        if (x.dtype == torch.uint8) != (self.grid is not None):
            raise ValueError(f"x of type {x.dtype}: uint8 codes need a grid and other numbers must not have one")
        if x.dtype != torch.uint8:
            object.__setattr__(self, "x", x.float())
        if y.is_floating_point():
            if y.ndim != 2:
                raise ValueError(
                    f"y of type {y.dtype} and shape {tuple(y.shape)}: number targets have the shape (n, k), use "
                    "y[:, None]; labels are integers, use y.long()"
                )
            object.__setattr__(self, "y", y.float())
        elif y.ndim != 1 or y.dtype == torch.bool:
            raise ValueError(f"labels are integers of shape (n,), got {y.dtype} of shape {tuple(y.shape)}")
        else:
            object.__setattr__(self, "y", y.long())
        for name, values in (("x", self.x), ("y", self.y)):
            bad = torch.nonzero(~values.isfinite())
            if len(bad):
                raise ValueError(
                    f"{name} holds {len(bad)} values that are NaN or infinite, the first at {bad[0].tolist()}; "
                    "drop these rows or fill them in"
                )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.x.shape[1:])

    def take(self, rows: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Return these rows as they are stored."""
        return self.x[rows], self.y[rows]

    def stream(self, chunks: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows of each chunk."""
        return (self.take(rows) for rows in chunks)


@dataclass(frozen=True, eq=False)
class Streamed:
    """A part that is read row by row from any map-style Dataset of (x, y), by worker processes.

    Parameters
    ----------
    dataset
        Gives tensors or arrays x (uint8 codes with a grid, or floats) and a label or target y.
    outputs
        Number of classes or targets; labels are checked against it.
    grid
        Which number a code stands for.
    workers
        Processes that read ahead; 0 reads in this one.
    """

    dataset: Dataset[Any]
    outputs: int
    grid: Grid | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise ValueError("the dataset has zero samples; give at least one")

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(torch.as_tensor(self.dataset[0][0]).shape)

    def take(self, rows: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Return these rows as they are stored."""
        return next(self.stream([torch.as_tensor(rows)]))

    def stream(self, chunks: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows of each chunk.

        Raises
        ------
        ValueError
            If a label is out of range, or numbers are not finite.
        """
        loader = DataLoader(self.dataset, batch_sampler=[rows.tolist() for rows in chunks], num_workers=self.workers)
        for x, y in loader:
            if not y.is_floating_point():
                check_labels(y, self.outputs, "a batch")
            if x.dtype != torch.uint8 and not x.isfinite().all():
                raise ValueError("a batch of x holds NaN or infinite values; drop these rows or fill them in")
            yield x if x.dtype == torch.uint8 else x.float(), y if y.is_floating_point() else y.long()


Part = Samples | Streamed


def batches(part: Part, chunks: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows of each chunk as float32 numbers, codes turned into values by the part's grid."""
    grid = part.grid
    if grid is None:
        yield from part.stream(chunks)
        return
    scale, zero = (torch.as_tensor(a, dtype=torch.float32) for a in (grid.scale, grid.zero))
    centred = bool((grid.zero != 0).any())
    for x, y in part.stream(chunks):
        value = x.float()
        yield (value.sub_(zero) if centred else value).mul_(scale), y


def check_labels(y: Tensor, outputs: int, place: str) -> None:
    """Raise a ValueError that names the first label outside 0..outputs-1 and where it stands."""
    bad = torch.nonzero((y < 0) | (y >= outputs))
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"label {int(y[row])} at row {row} of {place} is out of range: {outputs} classes are known, allowed are "
            f"0..{outputs - 1}; renumber the labels"
        )
