"""What every penalty promises."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

import hardstep as hs
from hardstep.penalties import Penalty

PENALTIES = [
    hs.NoPenalty(),
    hs.L2(0.3),
    hs.L1(0.7),
    hs.L0(0.5),
    hs.L1(0.0),
    hs.GroupL0(0.5),
    hs.GroupL0(0.2, columns=False),
]
every_penalty = pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
STEPS = [0.05, 0.5, 3.0]


def points() -> Tensor:
    return torch.cat([torch.linspace(-5, 5, 401, dtype=torch.float64), torch.tensor([0.0, -0.0], dtype=torch.float64)])


def scalar_value(penalty: Penalty, w: Tensor) -> Tensor:
    return torch.stack([penalty.value(entry) for entry in w.reshape(-1)]).reshape(w.shape)


def test_every_subclass_is_listed() -> None:
    assert {kind for kind in Penalty.__subclasses__() if not inspect.isabstract(kind)} == {type(p) for p in PENALTIES}


@every_penalty
@pytest.mark.parametrize("step", STEPS)
def test_prox_is_the_minimum_over_a_grid(penalty: Penalty, step: float) -> None:
    v = points()
    grid = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    costs = scalar_value(penalty, grid)[None, :] + (grid[None, :] - v[:, None]).square() / (2 * step)
    best = penalty.prox(v, step)
    reached = scalar_value(penalty, best) + (best - v).square() / (2 * step)
    assert (reached <= costs.min(dim=1).values + 1e-12).all()


@every_penalty
def test_prox_is_odd_shrinks_and_keeps_order(penalty: Penalty) -> None:
    v = points()[:-2]
    u = penalty.prox(v, 0.5)
    torch.testing.assert_close(penalty.prox(-v, 0.5), -u)
    assert (u.abs() <= v.abs()).all()
    assert (u.diff() >= 0).all()


@every_penalty
@pytest.mark.parametrize("step", STEPS)
def test_prox_of_a_convex_penalty_obeys_moreau_and_does_not_expand(penalty: Penalty, step: float) -> None:
    v = points()
    u = penalty.prox(v, step)
    if not penalty.convex:  # a threshold that jumps does expand: the trait must not be claimed
        assert (u.diff().abs() > v.diff().abs() + 1e-9).any()
        return
    assert ((u[:, None] - u).abs() <= (v[:, None] - v).abs() + 1e-12).all()
    # Moreau: v - u is a subgradient, step * (P(w) - P(u)) >= (v - u)(w - u) for every w
    w = torch.linspace(-5, 5, 101, dtype=torch.float64)
    gain = step * (scalar_value(penalty, w)[None, :] - scalar_value(penalty, u)[:, None])
    assert (gain >= (v - u)[:, None] * (w[None, :] - u[:, None]) - 1e-12).all()


@every_penalty
def test_value_adds_up_over_entries(penalty: Penalty) -> None:
    w = points()
    torch.testing.assert_close(penalty.value(w), scalar_value(penalty, w).sum())


@pytest.mark.parametrize("kind", [hs.L0, hs.L1, hs.L2, hs.GroupL0])
def test_negative_strength_is_named(kind: type) -> None:
    with pytest.raises(ValueError, match=r"strength must be finite and at least 0 .* got -1\.0"):
        kind(-1.0)


@pytest.mark.parametrize("columns", [False, True])
def test_prox_of_groups_equals_the_enumeration_of_supports(columns: bool) -> None:
    v = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v *= torch.tensor([0.3, 1.0, 0.7, 2.0], dtype=torch.float64)[None, :, None]
    v *= torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)[:, None, None]
    penalty, step = hs.GroupL0(0.9, columns=columns), 1.7
    groups = v.shape[int(columns)]
    costs = []
    for support in range(2**groups):
        kept = torch.tensor([bool(support >> g & 1) for g in range(groups)])
        w = torch.where(kept[None, :, None] if columns else kept[:, None, None], v, 0.0)
        costs.append(float(penalty.value(w) + (w - v).square().sum() / (2 * step)))
    best = penalty.prox(v, step)
    assert float(penalty.value(best) + (best - v).square().sum() / (2 * step)) == pytest.approx(min(costs))
    assert 0 < float(penalty.value(best)) < 0.9 * groups  # some group of each kind
