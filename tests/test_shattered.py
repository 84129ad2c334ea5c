"""The complete arrangement: the sort against generic solvers and all 2^n columns, and the bound under every network."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from numpy.typing import NDArray

from hardstep.convex.bit_matrix import BitMatrix
from hardstep.convex.data_terms import DataTerm, Logistic, Multinomial, Squared, SquaredHinge
from hardstep.convex.patterns import patterns
from hardstep.convex.shattered import chain, complete_fit, realise, shattered
from hardstep.convex.solvers import evaluate, solve

Array = NDArray[Any]
either = pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "none"])


def every_column(n: int) -> BitMatrix:
    """All 2^n columns but the one of zeros."""
    return BitMatrix.from_bools(((np.arange(1, 2**n) >> np.arange(n)[:, None]) & 1).astype(np.bool_))


def targets(n: int, seed: int) -> Array:
    """Numbers with ties, zeros and both signs."""
    return np.random.default_rng(seed).normal(size=n).round(1 if seed % 2 else 6) * 2


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
@either
def test_closed_form_equals_the_generic_solver(beta: float, intercept: bool) -> None:
    for seed in range(4):
        y = targets(12, seed)
        f, b = cp.Variable(12), cp.Variable()
        gauge = cp.pos(cp.max(f)) + cp.pos(cp.max(-f))
        loss = 0.5 * cp.sum_squares(f + (b if intercept else 0) - y)
        wanted = cp.Problem(cp.Minimize(loss + beta * gauge)).solve(solver=cp.CLARABEL)
        found = shattered(y, Squared(), beta, intercept=intercept)
        assert found.objective == pytest.approx(wanted, rel=1e-6, abs=1e-7)
        assert found.bound == pytest.approx(found.objective, rel=1e-9, abs=1e-12)


@either
@pytest.mark.parametrize("term", [Squared(), Logistic(), SquaredHinge(), Multinomial()], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("beta", [0.2, 0.9])
def test_it_equals_the_program_over_all_columns(term: DataTerm, beta: float, intercept: bool) -> None:
    generator = np.random.default_rng(5)
    cases = [targets(8, 1), targets(8, 2)] if term.quadratic else [generator.integers(0, k, 8) for k in (2, 3)]
    for y in cases:
        whole = solve(every_column(8), y, term, beta, intercept=intercept, tol=1e-9)
        found = shattered(y, term, beta, intercept=intercept)
        assert found.objective == pytest.approx(whole.objective, rel=1e-8)
        assert found.bound <= whole.objective * (1 + 1e-12)
        assert found.bound == pytest.approx(whole.objective, rel=1e-7)


@pytest.mark.parametrize(("up", "down"), [(5, 3), (8, 0), (1, 7)])
@pytest.mark.parametrize("beta", [0.5, 2.0, 6.0])
def test_labels_cost_what_two_neurons_do(up: int, down: int, beta: float) -> None:
    def side(k: int) -> float:
        return beta - beta**2 / (2 * k) if k > beta else k / 2

    y = np.repeat([1.0, -1.0], [up, down])
    found = shattered(y, Squared(), beta, intercept=False)
    assert found.objective == pytest.approx(side(up) + side(down), rel=1e-12)


def test_chain_makes_the_outputs_again_at_the_price_of_its_ends() -> None:
    for seed in range(20):
        y = targets(30, seed)
        f = complete_fit(y, 0.7)
        columns, weights = chain(f)
        np.testing.assert_allclose(columns @ weights, f, atol=1e-12)
        assert np.abs(weights).sum() == pytest.approx(max(0, f.max()) + max(0, -f.min()), abs=1e-12)
        assert columns.shape[1] == len(np.unique(f[f != 0])) <= 30
        objective = evaluate(BitMatrix.from_bools(columns), y, Squared(), 0.7, weights[:, None], None)[0]
        assert objective == pytest.approx(shattered(y, Squared(), 0.7, intercept=False).objective, rel=1e-12)


def test_points_of_full_rank_are_shattered_by_planes() -> None:
    x = np.random.default_rng(0).normal(size=(7, 6))
    wanted = np.array(every_column(7).unpack())
    np.testing.assert_array_equal(patterns(x, realise(x, wanted)), wanted)
    with pytest.raises(ValueError, match="rank 7 for 9 rows"):
        realise(np.random.default_rng(0).normal(size=(9, 6)), np.ones((9, 1), np.bool_))


@either
@pytest.mark.parametrize("term", [Squared(), Logistic(), SquaredHinge(), Multinomial()], ids=lambda t: type(t).__name__)
def test_bound_is_below_every_network_of_any_depth(term: DataTerm, intercept: bool) -> None:
    generator = np.random.default_rng(2)
    for seed in range(2):
        x = generator.normal(size=(40, 3))
        first = patterns(x, generator.normal(size=(20, 4)))
        second = patterns(first.astype(np.float64), generator.normal(size=(30, 21)))
        y = np.sin(3 * x[:, :2]) if term.quadratic else generator.integers(0, 2 + seed % 2, 40)
        found = shattered(y, term, 0.6, intercept=intercept)
        for bits in (first, second):
            trained = solve(BitMatrix.from_bools(bits), y, term, 0.6, intercept=intercept)
            assert 0 < found.bound <= trained.objective
            noise = trained.u + 0.1 * generator.normal(size=trained.u.shape)
            b = trained.intercept if intercept else None
            assert found.bound <= evaluate(BitMatrix.from_bools(bits), y, term, 0.6, noise, b)[0]


def test_bound_without_a_closed_form_still_holds() -> None:
    generator = np.random.default_rng(4)
    y = generator.normal(size=(7, 2))  # numbers of two outputs, all different: bounded output by output
    for intercept in (True, False):
        whole = solve(every_column(7), y, Squared(), 0.8, intercept=intercept, tol=1e-6)
        found = shattered(y, Squared(), 0.8, intercept=intercept)
        assert 0.5 * whole.objective < found.bound <= whole.objective <= found.objective * (1 + 1e-9)
    labels = np.arange(12)  # more classes than unions are tried for
    found = shattered(labels, Multinomial(), 0.5, intercept=True)
    assert 0 <= found.bound < found.objective


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="beta must be positive"):
        shattered(np.ones(3), Squared(), 0.0)
    with pytest.raises(ValueError, match="y holds 1 NaN"):
        shattered(np.array([1.0, np.nan]), Squared(), 1.0)


def test_degenerate_targets() -> None:
    for y in (np.zeros(4), np.full(4, 3.0)):
        assert shattered(y, Squared(), 0.5).objective == pytest.approx(0, abs=1e-12)
    one = shattered(np.array([2.0]), Squared(), 0.5, intercept=False)
    assert one.objective == pytest.approx(0.5 * 2 - 0.5 * 0.25)
    assert shattered(np.array([1, 1]), Logistic(), 0.5).objective == pytest.approx(0, abs=1e-12)
