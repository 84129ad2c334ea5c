"""Parts: the rows of a training, validation or test part, in memory or read one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from hardstep.augment import Changes
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
            raise ValueError(
                f"x of type {x.dtype}: uint8 codes need a grid and other numbers must not have one; for pixels give "
                "grid=Grid(1 / 255, 0), for numbers x.float() without one"
            )
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
            raise ValueError(
                f"labels are integers of shape (n,), got {y.dtype} of shape {tuple(y.shape)}; use y.long(), and "
                "y.squeeze(1) or y.argmax(1) where there is a second axis"
            )
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

    def stream(self, chunks: Sequence[Tensor], changes: Changes | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows of each chunk, their images changed."""
        for rows in chunks:
            x, y = self.take(rows)
            yield x if changes is None else changes.of(x, rows, self.grid), y


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
    originals
        Gives the same rows with images as large as they are, of which `Augment.zoom` takes windows; None for the
        dataset itself.
    """

    dataset: Dataset[Any]
    outputs: int
    grid: Grid | None = None
    workers: int = 0
    originals: Dataset[Any] | None = None
    shape: tuple[int, ...] = field(init=False)
    """Shape of one sample."""

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise ValueError("the dataset has zero samples; give at least one")
        object.__setattr__(self, "shape", tuple(torch.as_tensor(self.dataset[0][0]).shape))

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def take(self, rows: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Return these rows as they are stored, read in this process."""
        return next(replace(self, workers=0).stream([torch.as_tensor(rows)]))

    def stream(self, chunks: Sequence[Tensor], changes: Changes | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows of each chunk, their images changed where they are read.

        Raises
        ------
        ValueError
            If samples differ in shape, a label is out of range, or numbers are not finite; the row is named.
        """
        lists = [rows.tolist() for rows in chunks]
        dataset = self.dataset if changes is None else _Changed(self, changes)
        loader = DataLoader(dataset, batch_sampler=lists, num_workers=self.workers, collate_fn=_stacked)
        for rows, (x, y) in zip(lists, loader, strict=True):
            if tuple(x.shape[1:]) != self.shape or (x.dtype == torch.uint8) != (self.grid is not None):
                raise ValueError(
                    f"rows {rows[:3]}... of the dataset give {x.dtype} of shape {tuple(x.shape[1:])}, the first row "
                    f"{'uint8 codes' if self.grid else 'numbers'} of shape {self.shape}; give all rows the same"
                )
            if not y.is_floating_point():
                _check_labels(y, rows, self.outputs, "the dataset")
            for name, values in (("x", x), ("y", y)):
                bad = torch.nonzero(~values.isfinite().flatten(1).all(dim=1) if values.ndim > 1 else ~values.isfinite())
                if len(bad):
                    raise ValueError(
                        f"{name} holds NaN or infinite values, first in row {rows[int(bad[0])]} of the dataset; drop "
                        "these rows or fill them in"
                    )
            yield x if x.dtype == torch.uint8 else x.float(), y.float() if y.is_floating_point() else y.long()


@dataclass(frozen=True, eq=False)
class _Changed(Dataset[tuple[Tensor, Any]]):
    """The rows of a streamed part with their images changed, one by one."""

    part: Streamed
    changes: Changes

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        part, augment = self.part, self.changes.augment
        x, y = (part.dataset if part.originals is None or augment.zoom is None else part.originals)[index]
        _, height, width = part.shape
        return self.changes.of(torch.as_tensor(x)[None], torch.tensor([index]), part.grid, (height, width))[0], y


Part = Samples | Streamed


def batches(part: Part, chunks: Sequence[Tensor], changes: Changes | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows of each chunk as float32 numbers, codes turned into values by the part's grid.

    Parameters
    ----------
    changes
        What becomes of the images of each row before that.
    """
    grid = part.grid
    if grid is None:
        yield from part.stream(chunks, changes)
        return
    scale, zero = (torch.as_tensor(a, dtype=torch.float32) for a in (grid.scale, grid.zero))
    centred = bool((grid.zero != 0).any())
    for x, y in part.stream(chunks, changes):
        value = x.float()
        if centred:
            value.sub_(zero.to(x.device))
        yield value.mul_(scale.to(x.device)), y


def check_labels(y: Tensor, outputs: int, place: str) -> None:
    """Raise a ValueError that names the first label outside 0..outputs-1 and where it stands."""
    _check_labels(y, range(len(y)), outputs, place)


def _check_labels(y: Tensor, rows: Sequence[int], outputs: int, place: str) -> None:
    bad = torch.nonzero((y < 0) | (y >= outputs))
    if len(bad):
        first = int(bad[0])
        raise ValueError(
            f"label {int(y[first])} at row {rows[first]} of {place} is out of range: {outputs} classes are known, "
            f"allowed are 0..{outputs - 1}; renumber the labels"
        )


def _stacked(items: list[tuple[Any, Any]]) -> list[Tensor]:
    """Stack the samples of a batch; a worker process runs this."""
    try:
        x, y = default_collate(items)
    except (RuntimeError, TypeError, ValueError) as error:
        shapes = sorted({tuple(np.shape(x)) for x, _ in items})
        raise ValueError(f"samples of shapes {shapes} cannot be stacked to a batch; resize or pad them") from error
    return [x, y]
