"""Diagnostics of a network: which of its units are dead, and how many."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

__all__ = ["select"]


def select(
    alive: Bool[Tensor, " n"], candidates: Bool[Tensor, " n"], score: Shaped[Tensor, " n"], count: int
) -> Bool[Tensor, " n"]:
    """Return what is alive after `count` candidates with the lowest scores are gone, all of them if they are fewer.

    Exact by rank; of equal scores the one with the lower index goes first.

    Examples
    --------
    >>> everything = torch.ones(4, dtype=torch.bool)
    >>> select(everything, everything, torch.tensor([3.0, 1.0, 1.0, 2.0]), 1)
    tensor([ True, False,  True,  True])
    """
    places = torch.nonzero(alive & candidates)[:, 0]
    gone = places[score[places].argsort(stable=True)[:count]]
    return alive.index_fill(0, gone, value=False)
