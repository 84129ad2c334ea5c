"""What every penalty promises."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

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
    *(hs.TransformedL1(strength, a) for strength, a in ((0.5, 1.0), (0.2, 3.0), (2.0, 0.1), (0.3, 100.0))),
    hs.Separable(l0=0.3, l1=0.2, l2=0.5, limit=1.5),
    hs.Separable(l1=0.4, limit=2.0),
    hs.Separable(l0=0.4, limit=1.0),
    hs.Cardinality(0.3),
    hs.Cardinality(60),
    hs.Grouped(hs.L0(0.5), hs.Columns()),
    hs.Grouped(hs.L0(0.2), hs.Rows()),
    hs.Grouped(hs.L1(0.2), hs.Words(32)),
    hs.Grouped(hs.TransformedL1(0.3), hs.Rows()),
    hs.Grouped(hs.Cardinality(50), hs.Words(1)),
    hs.SparseGroupL0(0.2, 0.3, hs.Rows()),
]
every_penalty = pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
STEPS = [0.05, 0.5, 3.0]


def points() -> Tensor:
    return torch.cat([torch.linspace(-5, 5, 201, dtype=torch.float64), torch.tensor([0.0, -0.0], dtype=torch.float64)])


def entrywise(penalty: Penalty, v: Tensor, step: float) -> Tensor:
    """The prox of each entry alone: of a penalty that is not separable, as the vector of one entry."""
    return torch.cat([penalty.prox(entry[None], step) for entry in v])


def scalar_value(penalty: Penalty, w: Tensor) -> Tensor:
    return torch.stack([penalty.value(entry) for entry in w.reshape(-1)]).reshape(w.shape)


def test_every_subclass_is_listed() -> None:
    assert {kind for kind in Penalty.__subclasses__() if not inspect.isabstract(kind)} == {type(p) for p in PENALTIES}


@every_penalty
@pytest.mark.parametrize("step", STEPS)
def test_prox_is_the_minimum_over_a_grid(penalty: Penalty, step: float) -> None:
    v = points()
    grid = torch.linspace(-5, 5, 801, dtype=torch.float64)
    costs = scalar_value(penalty, grid)[None, :] + (grid[None, :] - v[:, None]).square() / (2 * step)
    best = entrywise(penalty, v, step)
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
    assert not penalty.separable or torch.equal(u, entrywise(penalty, v, step))
    if not penalty.convex:  # what is not convex does expand: the trait must be claimed where it can be
        assert (u.diff().abs() > v.diff().abs() + 1e-9).any()
        return
    assert ((u[:, None] - u).abs() <= (v[:, None] - v).abs() + 1e-12).all()
    # Moreau: v - u is a subgradient, step * (P(w) - P(u)) >= (v - u)(w - u) for every w
    w = torch.linspace(-5, 5, 101, dtype=torch.float64)
    gain = step * (scalar_value(penalty, w)[None, :] - scalar_value(penalty, u)[:, None])
    assert (gain >= (v - u)[:, None] * (w[None, :] - u[:, None]) - 1e-12).all()


@every_penalty
def test_value_adds_up_over_entries(penalty: Penalty) -> None:
    w = points().clamp(-1, 1)
    total = scalar_value(penalty, w).sum()
    assert penalty.separable == bool(torch.isclose(penalty.value(w), total))


@pytest.mark.parametrize("kind", [hs.L0, hs.L1, hs.L2, hs.TransformedL1])
def test_negative_strength_is_named(kind: type) -> None:
    with pytest.raises(ValueError, match=r"strength must be finite and at least 0 .* got -1\.0"):
        kind(-1.0)


@every_penalty
def test_eased_runs_from_nothing_to_the_full_penalty(penalty: Penalty) -> None:
    v = points()
    full = penalty.prox(v, 1.0)
    torch.testing.assert_close(penalty.eased(1.0).prox(v, 1.0), full)
    zeros = [int((penalty.eased(share).prox(v, 1.0).abs() < 1e-9).sum()) for share in (0.0, 0.3, 0.7, 1.0)]
    assert zeros == sorted(zeros)
    assert zeros[0] == int((v.abs() < 1e-9).sum())


@every_penalty
def test_step_may_differ_by_entry(penalty: Penalty) -> None:
    v = points()
    steps = torch.linspace(0.1, 2.0, len(v), dtype=torch.float64)
    one_by_one = torch.cat([penalty.prox(entry[None], float(step)) for entry, step in zip(v, steps, strict=True)])
    if penalty.separable:
        torch.testing.assert_close(penalty.prox(v, steps), one_by_one)
    else:
        torch.testing.assert_close(penalty.prox(v, steps), penalty.prox(v, 1.0))  # no step matters


@pytest.mark.parametrize("kind", [hs.L1, hs.L0, hs.TransformedL1])
@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.5, 4.0])
def test_penalty_at_a_threshold_has_it(kind: Any, threshold: float) -> None:
    around = torch.tensor([threshold - 1e-9, threshold + 1e-9], dtype=torch.float64)
    assert (kind.at(threshold).prox(around, 1.0) != 0).tolist() == [False, True]
    for a in (0.01, 1.0, 50.0):
        assert float(hs.TransformedL1.at(threshold, a=a).threshold()) == pytest.approx(threshold, abs=1e-12)


def random_cases(count: int) -> Iterator[tuple[float, float, float]]:
    draws = torch.rand(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for mu, a, v in draws.tolist():
        yield 3 * mu, 10 ** (4 * a - 2), 5 * v


def test_transformed_l1_is_optimal_in_both_regimes_and_a_threshold_at_mu_is_not() -> None:
    grid = torch.linspace(0, 5, 20001, dtype=torch.float64)
    excess = []
    for mu, a, v in random_cases(400):
        penalty, point = hs.TransformedL1(mu, a), torch.tensor([v], dtype=torch.float64)

        def cost(w: Tensor, mu: float = mu, a: float = a, v: float = v) -> Tensor:
            return mu * (a + 1) * w.abs() / (a + w.abs()) + (w - v).square() / 2

        least = cost(grid).min()
        assert cost(penalty.prox(point, 1.0))[0] <= least + 1e-9
        if v <= mu:  # the trap: 0 up to mu, whatever the regime
            excess.append(float(cost(0 * point)[0] - least))
    assert max(excess) > 0.1


def test_transformed_l1_thresholds_meet_and_its_ends_are_soft_and_hard() -> None:
    for a in (0.1, 1.0, 7.0):
        meet = a**2 / (2 * (a + 1))
        assert meet * (a + 1) / a == pytest.approx((2 * meet * (a + 1)) ** 0.5 - a / 2, abs=1e-12)
        mu = 3 * meet
        penalty = hs.TransformedL1(mu, a)
        above = penalty.threshold() * (1 + 1e-12)
        assert float(penalty.prox(above[None], 1.0)) == pytest.approx((2 * mu * (a + 1)) ** 0.5 - a, abs=1e-6)
    v = points()
    torch.testing.assert_close(hs.TransformedL1(0.7, 1e6).prox(v, 1.0), hs.L1(0.7).prox(v, 1.0), atol=1e-5, rtol=0)
    off = (v.abs() - 1.4**0.5).abs() > 1e-5
    torch.testing.assert_close(
        hs.TransformedL1(0.7, 1e-6).prox(v, 1.0)[off], hs.L0(0.7).prox(v, 1.0)[off], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("layout", [hs.Rows(), hs.Columns(), hs.Words(3)])
def test_prox_of_groups_equals_the_enumeration_of_supports(layout: hs.Layout) -> None:
    v = torch.randn(3, 4, 2, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v *= torch.tensor([0.3, 1.0, 0.7, 2.0], dtype=torch.float64)[None, :, None, None]
    v *= torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)[:, None, None, None]
    groups = layout.split(v)
    for penalty in (hs.Grouped(hs.L0(0.9), layout), hs.Grouped(hs.Cardinality(2), layout)):
        costs = []
        for support in range(2 ** len(groups)):
            kept = torch.tensor([bool(support >> g & 1) for g in range(len(groups))])
            w = layout.join(groups * kept[:, None], v)
            costs.append(float(penalty.value(w) + (w - v).square().sum() / 3.4))
        best = penalty.prox(v, 1.7)
        assert float(penalty.value(best) + (best - v).square().sum() / 3.4) == pytest.approx(min(costs))
        assert 0 < int(layout.split(best).any(dim=1).sum()) < len(groups)  # some group of each kind


@pytest.mark.parametrize("inner", [hs.L1(0.4), hs.TransformedL1(0.6, 0.5), hs.L0(0.5), hs.Separable(l0=0.2, l2=0.5)])
def test_prox_of_groups_is_radial_and_the_best_of_all_radii(inner: Penalty) -> None:
    v = torch.randn(6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    penalty = hs.Grouped(inner, hs.Words(4))  # short last words
    best = penalty.layout.split(penalty.prox(v, 0.8))
    for group, found in zip(penalty.layout.split(v), best, strict=True):
        root = int((group != 0).sum()) ** 0.5 if inner.norm else 1.0
        radii = torch.linspace(0, 1.2, 401, dtype=torch.float64)
        costs = [
            root * inner.value(radius * group.norm()[None]) + ((1 - radius) * group.norm()).square() / 1.6
            for radius in radii
        ]
        reached = root * inner.value(found.norm()[None]) + (found - group).square().sum() / 1.6
        assert float(reached) <= float(min(costs)) + 1e-9
        assert float((found @ group) ** 2) == pytest.approx(float((found @ found) * (group @ group)))


def test_sparse_groups_equal_the_enumeration_of_all_supports() -> None:
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        v = torch.randn(1, 5, generator=generator, dtype=torch.float64) * 1.5
        penalty = hs.SparseGroupL0(0.3, 0.8, hs.Rows())
        costs = []
        for support in range(2**5):
            w = v * torch.tensor([[float(support >> i & 1) for i in range(5)]])
            costs.append(float(penalty.value(w) + (w - v).square().sum() / 1.4))
        best = penalty.prox(v, 0.7)
        assert float(penalty.value(best) + (best - v).square().sum() / 1.4) == pytest.approx(min(costs), abs=1e-12)


@pytest.mark.parametrize("shape", [(5,), (4, 7), (3, 4, 2, 3)])
@pytest.mark.parametrize("layout", [hs.Rows(), hs.Columns(), hs.Words(4), hs.Words(64)])
def test_layouts_divide_and_put_together(layout: hs.Layout, shape: tuple[int, ...]) -> None:
    w = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    groups = layout.split(w)
    assert torch.equal(layout.join(groups, w), w)
    assert torch.equal(layout.sizes(w), (groups != 0).sum(dim=1).to(w))


def test_words_are_those_of_the_packed_network() -> None:
    """A convolution is packed position by position, channels innermost, as the engine reads it."""
    w = torch.arange(2 * 3 * 2 * 2, dtype=torch.float32).reshape(2, 3, 2, 2)
    assert hs.Words(3).split(w)[0].tolist() == w[0, :, 0, 0].tolist()
    assert hs.Words(3).split(w)[1].tolist() == w[0, :, 0, 1].tolist()


def test_columns_may_span_the_positions_of_a_channel() -> None:
    w = torch.arange(12.0).reshape(2, 6)
    assert hs.Columns(span=3).split(w).tolist() == [[0, 6, 1, 7, 2, 8], [3, 9, 4, 10, 5, 11]]
    with pytest.raises(ValueError, match=r"shape \(2, 6\) has no groups of span=4 columns"):
        hs.Columns(span=4).split(w)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: hs.Cardinality(0.0), r"keep is a share .* got 0\.0"),
        (lambda: hs.Cardinality(0), r"keep is a share .* got 0"),
        (lambda: hs.Cardinality(1.5), r"keep is a share .* got 1\.5"),
        (lambda: hs.TransformedL1(1.0, 0.0), r"a must be 1e-6 to 1e6 .* got 0\.0"),
        (lambda: hs.Separable(l1=-1.0), r"l1 must be finite .* got -1\.0"),
        (lambda: hs.Separable(limit=0.0), r"limit .* must be positive, got 0\.0"),
        (lambda: hs.SparseGroupL0(1.0, -1.0, hs.Rows()), r"group must be finite .* got -1\.0"),
        (lambda: hs.Words(0), r"bits .* at least 1, got 0"),
        (lambda: hs.Columns(0), r"span .* at least 1, got 0"),
    ],
)
def test_bad_numbers_are_named(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_group_whose_norm_underflows_is_zero() -> None:
    tiny = torch.full((2, 4), 1e-24)
    for inner in (hs.L0(1.0), hs.L1(1.0)):
        assert not hs.Grouped(inner, hs.Rows()).prox(tiny, 1.0).any()


@pytest.mark.parametrize("share", [0.001, 0.3, 0.95, 0.9999])
@pytest.mark.parametrize("kind", ["normal", "sorted", "ties", "mostly zero"])
def test_cardinality_of_many_entries_keeps_the_largest(kind: str, share: float) -> None:
    v = torch.randn(300_000, generator=torch.Generator().manual_seed(4))
    if kind == "sorted":
        v = v.sort().values
    if kind == "ties":
        v = (3 * v).round()
    if kind == "mostly zero":
        v = v * (torch.arange(len(v)) % 37 == 0)
    kept = hs.Cardinality(share).prox(v, 1.0)
    wanted = torch.zeros_like(v)
    largest = v.abs().argsort(descending=True, stable=True)[: round(share * len(v))]
    wanted[largest] = v[largest]
    assert torch.equal(kept, wanted)
