"""Planted teachers, penalties with a given threshold, and limits of relaxed splitting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import Tensor

from hardstep.cardinality import Cardinality
from hardstep.group_penalties import Grouped, Rows
from hardstep.no_overlap import kappa, population, unit
from hardstep.penalties import L0, L1, NoPenalty, Penalty, TransformedL1
from hardstep.relaxed_splitting import fixed_point_residual, iterate

GROUP = 5  # entries of a group; a filter of several groups has the shape (groups, GROUP)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(shape: tuple[int, ...], nonzero: int, seed: int, low: float = 0.5) -> tuple[Tensor, Tensor]:
    """A teacher with a number of nonzero rows (entries, in one dimension) of about equal size, and a random start."""
    generator = torch.Generator().manual_seed(seed)
    sizes = low + torch.rand(nonzero, generator=generator, dtype=torch.float64)
    target = torch.zeros(shape, dtype=torch.float64)
    for row, size in zip(torch.randperm(shape[0], generator=generator)[:nonzero], sizes, strict=True):
        target[row] = size * unit(torch.randn(shape[1:], generator=generator, dtype=torch.float64))
    return unit(target), torch.randn(shape, generator=generator, dtype=torch.float64)


def support(w: Tensor) -> Tensor:
    """Which entries, or rows by their norms (whose squares may underflow), are not 0."""
    return w.reshape(len(w), -1).square().sum(dim=1) > 0 if w.ndim > 1 else w != 0


def limit(
    target: Tensor, start: Tensor, penalty: Penalty, *, units: int, coupling: float, lr: float | None = None
) -> tuple[Tensor, Tensor]:
    """The pair at which the iteration stands still."""
    lr = 1 / (kappa(units) + coupling) if lr is None else lr
    pairs = iterate(population(target, units), start, penalty, coupling=coupling, lr=lr)
    every = islice(pairs, 0, None, 10)
    return next((w, u) for w, u in every if fixed_point_residual(w, u, target, units=units, coupling=coupling) < 1e-13)


def scaled(kind: type[L1 | L0 | TransformedL1], **fields: float) -> Callable[[float, float], Penalty]:
    """Make penalties whose prox with step 1/coupling has a given threshold."""

    def make(threshold: float, coupling: float) -> Penalty:
        penalty = kind.at(threshold, **fields)
        return replace(penalty, strength=penalty.strength * coupling)

    return make


def grouped(make: Callable[[float, float], Penalty]) -> Callable[[float, float], Penalty]:
    """Make the penalties on rows, whose norms have the threshold: norms weigh a group by the root of its size."""

    def wrapped(threshold: float, coupling: float) -> Penalty:
        inner = make(threshold, coupling)
        return Grouped(make(threshold, coupling / GROUP**0.5) if inner.norm else inner, Rows())

    return wrapped


# name -> penalty for a threshold and a coupling; whether it sees groups
MAKE: dict[str, tuple[Callable[[float, float], Penalty], bool]] = {
    "l1": (scaled(L1), False),
    "l0": (scaled(L0), False),
    "tl1": (scaled(TransformedL1, a=1.0), False),
    "tl1 that jumps": (scaled(TransformedL1, a=0.1), False),
    "group l1": (grouped(scaled(L1)), True),
    "group l0": (grouped(scaled(L0)), True),
    "group tl1": (grouped(scaled(TransformedL1, a=1.0)), True),
    "none": (lambda threshold, coupling: NoPenalty(), False),
    "at most three": (lambda threshold, coupling: Cardinality(3), False),
    "at most three groups": (lambda threshold, coupling: Grouped(Cardinality(3), Rows()), True),
}
THRESHOLDS = list(MAKE)[:7]
every_threshold = pytest.mark.parametrize("name", THRESHOLDS)
every_penalty = pytest.mark.parametrize("name", list(MAKE))


def problem(name: str, threshold: float, coupling: float, seed: int, size: int = 8) -> tuple[Penalty, Tensor, Tensor]:
    """A penalty, and a sparse teacher and a start of the shape it is for."""
    make, groups = MAKE[name]
    target, start = planted((size, GROUP) if groups else (2 * size,), 3, seed)
    return make(threshold, coupling), target, start
