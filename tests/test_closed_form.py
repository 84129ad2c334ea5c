"""Every closed form against a grid, an enumeration or an optimality condition, over about 1,000 random cases."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from hardstep import closed_form
from hardstep.pruning import backward_elimination

CASES = 1000


def uniform(*shape: int, seed: int, low: float = -2.0, high: float = 2.0) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_bits(*shape: int, seed: int) -> Tensor:
    return (uniform(*shape, seed=seed) > 0).double()


def system(seed: int, outputs: int = 2, columns: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """A Gram matrix, a cross moment and strengths with a free last column."""
    a, y = uniform(12, columns, seed=seed), uniform(12, outputs, seed=seed + 1)
    strength = uniform(columns, seed=seed + 2, low=0.1, high=1.0)
    strength[-1] = 0
    return a.T @ a, y.T @ a, strength


def ridge_value(weight: Tensor, gram: Tensor, cross: Tensor, strength: Tensor) -> Tensor:
    """The objective of `ridge`, for a batch of weights too."""
    quadratic = ((weight @ gram) * weight).sum(dim=(-2, -1)) - 2 * (weight * cross).sum(dim=(-2, -1))
    return 0.5 * (quadratic + (strength * weight.square()).sum(dim=(-2, -1)))


def test_ridge_has_no_gradient_left() -> None:
    for seed in range(CASES):
        gram, cross, strength = system(seed)
        weight = closed_form.ridge(gram, cross, strength)
        torch.testing.assert_close(weight @ gram + weight * strength, cross, rtol=1e-9, atol=1e-9)


def test_singular_ridge_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="the ridge system of 3 columns is singular"):
        closed_form.ridge(torch.ones(3, 3).double(), torch.ones(1, 3).double(), torch.zeros(3).double())


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_step_prox_is_the_least_over_a_grid_and_both_bits(margin: float) -> None:
    pre, relaxed = uniform(CASES, 1, seed=1), uniform(CASES, 1, seed=2, low=-0.5, high=1.5)
    old = random_bits(CASES, 1, seed=3)
    gamma, rho = 0.7, 1.3
    u, s = closed_form.step_prox(pre, relaxed, old, gamma=gamma, rho=rho, margin=margin)
    assert bool((torch.where(s > 0, u, -u) >= margin).all())
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    cost = 0.5 * gamma * (relaxed - s).square() + 0.5 * rho * (u - pre).square()
    for bit in (0.0, 1.0):
        # u > 0 for a bit 1: on the open grid the infimum is approached to within the grid's width
        allowed = grid[grid >= max(margin, 1e-9)] if bit else grid[grid <= -margin]
        there = 0.5 * rho * (allowed[None, :] - pre).square().min(dim=1, keepdim=True).values
        assert bool((cost <= 0.5 * gamma * (relaxed - bit).square() + there + 1e-12).all())


def test_step_prox_at_ties_keeps_the_old_bit_and_closes_the_graph() -> None:
    for old in (0.0, 1.0):
        one = torch.ones(1, 1, dtype=torch.float64)
        u, s = closed_form.step_prox(0 * one, 0.5 * one, old * one, gamma=1.0, rho=1.0)
        assert float(s) == old
        assert float(u) == 0
    # v > 1/2 and slightly negative c: the infimum u -> 0+ is not attained by the step, but is in its closure
    u, s = closed_form.step_prox(-0.1 * one, one, 0 * one, gamma=1.0, rho=1.0)
    assert (float(u), float(s)) == (0.0, 1.0)


@pytest.mark.parametrize(("hidden", "outputs"), [(3, 5), (6, 2)])
def test_relaxed_bits_have_no_gradient_left_in_either_form(hidden: int, outputs: int) -> None:
    bits, target = random_bits(CASES, hidden, seed=1), uniform(CASES, outputs, seed=2)
    weight = uniform(outputs, hidden, seed=3)
    v = closed_form.relaxed_bits(bits, target, weight, ratio=0.4)
    torch.testing.assert_close(0.4 * (v - bits), (target - v @ weight.T) @ weight, rtol=1e-9, atol=1e-9)


def test_flip_price_is_the_difference_of_two_minima_over_a_grid() -> None:
    pre, bits = uniform(CASES, 1, seed=1), random_bits(CASES, 1, seed=2)
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    for margin in (0.25, 1.0):
        price = closed_form.flip_price(pre, bits, strength=0.6, margin=margin)
        costs = [
            0.3 * (grid[grid >= margin][None, :] - pre).square().min(dim=1, keepdim=True).values,
            0.3 * (grid[grid <= -margin][None, :] - pre).square().min(dim=1, keepdim=True).values,
        ]
        wanted = torch.where(bits > 0, costs[1] - costs[0], costs[0] - costs[1])
        torch.testing.assert_close(price, wanted, rtol=0, atol=3e-3)  # the grid's width times the slope


def test_flip_price_of_a_consistent_bit_has_the_two_published_branches() -> None:
    pre = torch.tensor([[0.2, 1.0, 3.0]], dtype=torch.float64)
    price = closed_form.flip_price(pre, torch.ones_like(pre), strength=2.0, margin=1.0)
    torch.testing.assert_close(price, torch.tensor([[4 * 0.2, 4.0, 16.0]], dtype=torch.float64))


def test_margin_residual_is_minus_the_slope_of_the_squared_hinge() -> None:
    pre, bits = uniform(CASES, 1, seed=1), random_bits(CASES, 1, seed=2)
    c = pre.clone().requires_grad_()
    (0.5 * (0.4 - (2 * bits - 1) * c).relu().square()).sum().backward()  # type: ignore[no-untyped-call]
    assert c.grad is not None
    torch.testing.assert_close(closed_form.margin_residual(pre, bits, 0.4), -c.grad)


def total(bits: Tensor, start: Tensor, price: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """What a pass of flips lowers, for the squared loss, row by row."""
    return 0.5 * (target - bits @ weight.T).square().sum(dim=-1) + (price * (bits != start)).sum(dim=-1)


@pytest.mark.parametrize("block", [1, 3, 32])
def test_flip_pass_never_raises_the_sum_and_reports_what_it_reached(block: int) -> None:
    start, price = random_bits(CASES, 8, seed=1), uniform(CASES, 8, seed=2, low=-0.2, high=1.0)
    weight, target = uniform(3, 8, seed=3), uniform(CASES, 3, seed=4, low=-4, high=4)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(5))
    bits, out = closed_form.flip_pass(
        start, price, start @ weight.T, weight, lambda o: target - o, 1.0, order=order, block=block
    )
    torch.testing.assert_close(out, bits @ weight.T)
    before, after = (total(b, start, price, target, weight) for b in (start, bits))
    assert bool((after <= before + 1e-12).all())
    assert bool((after < before - 1e-3).any())
    # the last unit was decided with all others as they are now: enumerating it changes nothing
    other = bits.clone()
    other[:, order[-1]] = 1 - other[:, order[-1]]
    assert bool((after <= total(other, start, price, target, weight) + 1e-12).all())


def test_repeated_flip_passes_end_where_no_single_flip_helps() -> None:
    start, weight = random_bits(200, 6, seed=1), uniform(3, 6, seed=2)
    target = uniform(200, 3, seed=3, low=-4, high=4)
    nothing, bits = torch.zeros(200, 6, dtype=torch.float64), start
    for _ in range(30):
        bits, _ = closed_form.flip_pass(
            bits, nothing, bits @ weight.T, weight, lambda o: target - o, 1.0, order=torch.arange(6)
        )
    now = total(bits, bits, nothing, target, weight)
    for j in range(6):
        other = bits.clone()
        other[:, j] = 1 - other[:, j]
        assert bool((now <= total(other, bits, nothing, target, weight) + 1e-12).all())


def test_bit_gain_is_the_recomputed_change_of_the_squared_loss() -> None:
    bits, weight, target = random_bits(CASES, 5, seed=1), uniform(2, 5, seed=2), uniform(CASES, 2, seed=3)
    residual = target - bits @ weight.T
    gain = closed_form.bit_gain(bits, residual, weight, 1.0)
    for j in range(5):
        other = bits.clone()
        other[:, j] = 1 - other[:, j]
        change = 0.5 * ((target - other @ weight.T).square() - residual.square()).sum(dim=1)
        torch.testing.assert_close(gain[:, j], change)


def test_proximal_ridge_never_rises_and_reaches_the_ridge_solution_without_penalty() -> None:
    for seed in range(50):
        gram, cross, strength = system(seed)
        weight = uniform(2, 4, seed=seed + 9)
        for prox, price in ((lambda v, step: v, 0.0), (lambda v, step: v * (v.abs() > (0.2 * step) ** 0.5), 0.1)):
            values, now = [], weight
            for _ in range(10):
                now = closed_form.proximal_ridge(now, gram, cross, strength, prox, steps=1)
                values.append(float(ridge_value(now, gram, cross, strength) + price * (now[:, :-1] != 0).sum()))
            assert all(b <= a + 1e-12 for a, b in pairwise(values))
        exact = closed_form.proximal_ridge(weight, gram, cross, strength, lambda v, step: v, steps=3000)
        torch.testing.assert_close(exact, closed_form.ridge(gram, cross, strength), rtol=1e-6, atol=1e-6)


def supports(count: int) -> Tensor:
    return torch.tensor(list(product([0.0, 1.0], repeat=count)), dtype=torch.float64)


def test_rows_l20_equals_the_enumeration_of_row_supports() -> None:
    kept = 0
    for seed in range(CASES):
        gram, cross, strength = system(seed, outputs=3)
        full, price = closed_form.ridge(gram, cross, strength), 1.5
        rows = supports(3)[:, :, None]
        values = ridge_value(rows * full, gram, cross, strength) + price * rows.sum(dim=(1, 2))
        found = closed_form.rows_l20(gram, cross, strength, price)
        reached = ridge_value(found, gram, cross, strength) + price * (found != 0).any(dim=1).sum()
        assert float(reached) == pytest.approx(float(values.min()), abs=1e-9)
        kept += int((found != 0).any(dim=1).sum())
    assert CASES < kept < 2 * CASES + CASES // 2  # some of the rows, not all


def test_columns_l20_never_rises_and_ends_at_a_minimum_over_each_column() -> None:
    for seed in range(CASES // 5):
        gram, cross, strength = system(seed)
        price = 0.6

        def value(weight: Tensor, at: tuple[Tensor, ...] = (gram, cross, strength), price: float = price) -> float:
            return float(ridge_value(weight, *at) + price * (weight[:, :-1] != 0).any(dim=0).sum())

        weight = closed_form.ridge(gram, cross, strength)
        values = [value(weight)]
        for _ in range(6):
            weight = closed_form.columns_l20(weight, gram, cross, strength, price, passes=1)
            values.append(value(weight))
        assert all(b <= a + 1e-10 for a, b in pairwise(values))
        for k in range(3):
            without = weight.clone()
            without[:, k] = 0
            assert value(weight) <= value(without) + 1e-10


def test_l20_without_price_is_ridge_and_with_a_huge_one_only_the_bias() -> None:
    gram, cross, strength = system(0)
    full = closed_form.ridge(gram, cross, strength)
    torch.testing.assert_close(closed_form.rows_l20(gram, cross, strength, 0.0), full)
    many = closed_form.columns_l20(full, gram, cross, strength, 0.0, passes=2000)
    torch.testing.assert_close(many, full)
    bias = closed_form.columns_l20(full, gram, cross, strength, 1e9)
    assert bool((bias[:, :-1] == 0).all())
    torch.testing.assert_close(bias[:, -1], cross[:, -1] / gram[-1, -1])


def test_each_elimination_is_the_cheapest_one() -> None:
    for seed in range(CASES // 2):
        gram, cross, strength = system(seed, outputs=3)
        kept, width = [0, 1, 2, 3], 3
        for keep in (2, 1):
            tried = {}
            for k in kept[:-1]:
                rest = [j for j in kept if j != k]
                weight = torch.zeros_like(cross)
                weight[:, rest] = closed_form.ridge(gram[rest][:, rest], cross[:, rest], strength[rest])
                tried[k] = float(ridge_value(weight, gram, cross, strength)), rest, weight
            value, kept, wanted = min(tried.values(), key=lambda item: item[0])
            left, found = backward_elimination(gram, cross, strength, keep)
            assert left.tolist() == kept[:-1]
            torch.testing.assert_close(found, wanted)
            assert float(ridge_value(found, gram, cross, strength)) == pytest.approx(value)
        for keep in (0, width + 1):
            with pytest.raises(ValueError, match=rf"keep must lie in 1..{width}"):
                backward_elimination(gram, cross, strength, keep)
