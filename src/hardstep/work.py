"""What `fit` lends to a method: the data in batches, ranks, randomness, the place in the training."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor

from hardstep.data import Data
from hardstep.parts import Part, batches

__all__ = ["Batch", "Work"]


class Batch(NamedTuple):
    """The share of one rank in a global batch: `total` counts the rows of all ranks, `progress` is in [0, 1).

    `last` says whether it ends the run over the part.
    """

    x: Tensor
    y: Tensor
    total: int
    progress: float
    last: bool = False


@dataclass
class Work:
    """What `fit` lends to a method: the data in batches, the ranks, randomness and the place in the training."""

    data: Data
    fabric: Fabric
    seed: int
    sweeps: int
    sweep: int = 0
    tick: Callable[[float], None] = lambda share: None
    before: int = 0

    def phase(self, first: int, end: int) -> Work:
        """Return the work of the sweeps from `first` to `end` as a training of its own: its progress runs from 0."""
        return replace(self, sweeps=end - first, sweep=self.sweep - first, before=self.before + first)

    @property
    def progress(self) -> float:
        """Share of the training done before this sweep, in [0, 1)."""
        return self.sweep / self.sweeps

    def generator(self, purpose: str) -> torch.Generator:
        """Return a generator fixed by seed, sweep and purpose: the same on every rank and after a resume."""
        digest = hashlib.sha256(f"{self.seed}/{self.before + self.sweep}/{purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def batches(self, size: int, *, part: Part | None = None, shuffle: bool = False) -> Iterator[Batch]:
        """Run once over a part (the training part if None) in global batches of about `size` rows.

        The rows are divided evenly, so no batch is a small rest. Each rank gets every ranks-th row. Where the training
        part is shuffled, its images are changed as `data.augment` says.

        Raises
        ------
        ValueError
            If a shuffled batch is larger than the part, or a batch smaller than the number of ranks.
        """
        source = self.data.train if part is None else part
        rows = len(source)
        if shuffle and size > rows:
            raise ValueError(f"batch_size={size} is larger than the data ({rows} rows); choose batch_size <= {rows}")
        ranks, rank = self.fabric.world_size, self.fabric.global_rank
        count = math.ceil(rows / size)
        if rows // count < ranks:
            raise ValueError(f"{ranks} ranks need at least {ranks} rows a batch, got batch_size={size} of {rows} rows")
        order = torch.randperm(rows, generator=self.generator("order")) if shuffle else torch.arange(rows)
        chunks = order.tensor_split(count)
        shares = [chunk[rank::ranks] for chunk in chunks]
        changes = self.data.augment.draw(rows, self.generator("images")) if shuffle and part is None else None
        for i, (x, y) in enumerate(batches(source, shares, changes)):
            done = i / len(chunks)
            device = self.fabric.device
            last = i + 1 == len(chunks)
            yield Batch(x.to(device), y.to(device), len(chunks[i]), (self.sweep + done) / self.sweeps, last)
            if part is None:
                self.tick((i + 1) / len(chunks))

    def sum(self, value: Tensor) -> Tensor:
        """Sum over all ranks."""
        if self.fabric.world_size == 1:
            return value
        total = self.fabric.all_reduce(value, reduce_op="sum")
        assert isinstance(total, Tensor)
        return total
