"""Cardinality: at most so many weights that are not 0, and the selection behind its proximal map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hardstep.penalties import Penalty, above

__all__ = ["Cardinality"]

SAMPLE = 2**13  # entries by which the place of a rank is guessed


@dataclass(frozen=True)
class Cardinality(Penalty):
    """At most so many nonzero entries: P = 0 or infinite; the prox keeps the largest, of equals the first.

    Parameters
    ----------
    keep
        Share of the entries in (0, 1), or their number, >= 1; 1.0 keeps all.
    ease
        How far on the way from all entries to `keep`, 0 to 1.

    Examples
    --------
    >>> Cardinality(2).prox(torch.tensor([1.0, -3.0, 2.0]), step=1.0)
    tensor([ 0., -3.,  2.])
    """

    keep: float | int = 0.1
    ease: float = 1.0
    separable = False
    convex = False

    def __post_init__(self) -> None:
        if not (0 < self.keep <= 1 if isinstance(self.keep, float) else self.keep >= 1):
            raise ValueError(f"keep is a share in (0, 1] or a number of entries >= 1, got {self.keep}")
        if not 0 <= self.ease <= 1:
            raise ValueError(f"ease is a share in [0, 1], got {self.ease}")

    def count(self, size: int) -> int:
        """Return how many of so many entries stay."""
        keep = max(1, round(self.keep * size)) if isinstance(self.keep, float) else min(self.keep, size)
        return round(size - self.ease * (size - keep))

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return 0 where few enough entries are nonzero, else infinity."""
        return w.new_tensor(0.0 if int((w != 0).sum()) <= self.count(w.numel()) else inf)

    def prox(self, v: Float[Tensor, "*n"], step: float | Tensor) -> Float[Tensor, "*n"]:
        """Set all but the largest to 0; the step does not matter."""
        size, count = v.detach().abs().flatten(), self.count(v.numel())
        if count == size.numel():
            return v
        largest, larger = _of_rank(size, size.numel() - count)  # of those that go
        kept = above(v, largest)
        if larger < count and largest > 0:  # equals of it stay, the first ones
            ties = torch.nonzero(size == largest)[: count - larger, 0]
            kept.view(-1)[ties] = v.reshape(-1)[ties]
        return kept

    def eased(self, share: float) -> Cardinality:
        """Return it with this share of the entries to go gone."""
        return replace(self, ease=share * self.ease)


def _of_rank(values: Tensor, rank: int) -> tuple[float, int]:
    """Return the value of this rank from below, and how many are larger; exact.

    On a CPU a sample says between which two values it must lie, and only those between them are ranked: several times
    as fast as ranking all. Where the sample misleads all are.
    """
    if values.device.type != "cpu":
        cut = values.kthvalue(rank).values
        return float(cut), int((values > cut).sum())
    a = values.to(torch.promote_types(values.dtype, torch.float32)).numpy()
    sample = np.sort(a[:: max(1, len(a) // SAMPLE)])
    place, spread = rank / len(a) * len(sample), 2 * len(sample) ** 0.5
    low, high = sample[max(0, int(place - spread))], sample[min(len(sample) - 1, int(place + spread))]
    band, below = a[(a >= low) & (a <= high)], int(np.count_nonzero(a < low))
    if not below < rank <= below + len(band):
        band, below = a, 0
    found = np.partition(band, rank - below - 1)[rank - below - 1]
    return float(found), int(len(a) - below - np.count_nonzero(band <= found))
