"""Restricted programs against a generic solver, duality against random points, purification and path."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from numpy.typing import NDArray

from hardstep.convex import descent, solvers, support_newton
from hardstep.convex.bit_matrix import BitMatrix
from hardstep.convex.data_terms import DataTerm, Logistic, Multinomial, Squared, SquaredHinge, lower_bound
from hardstep.convex.gram_descent import Quadratic, exact_step, minimise
from hardstep.convex.patterns import patterns
from hardstep.convex.purify import merge, purify, split
from hardstep.convex.solvers import evaluate, largest_beta, path, solve

Array = NDArray[Any]
CASES = [
    (Squared(), 1),
    (Squared(), 3),
    (Logistic(), 1),
    (Logistic(), 3),
    (SquaredHinge(), 1),
    (SquaredHinge(), 3),
    (Multinomial(), 2),
    (Multinomial(), 3),
]
every_case = pytest.mark.parametrize(("term", "outputs"), CASES, ids=lambda case: str(case).partition("(")[0])
either = pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "none"])


def planes(n: int, p: int, seed: int, d: int = 4) -> tuple[Array, Array]:
    """Points and the bits of random planes on them."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((n, d))
    return x, patterns(x, generator.standard_normal((p, d + 1)))


def answers(term: DataTerm, outputs: int, x: Array, seed: int) -> Array:
    """Targets or labels that the points explain in part."""
    generator = np.random.default_rng(1000 + seed)
    scores = np.sin(2 * x[:, :1] + np.arange(outputs)) + 0.3 * generator.standard_normal((len(x), outputs))
    if term.quadratic:
        return scores
    return scores.argmax(axis=1) if outputs > 1 else (scores[:, 0] > 0).astype(np.int64)


def program(term: DataTerm, y: Array, d: Array, beta: float, *, intercept: bool) -> float:
    """The same program as the generic solver sees it."""
    weights = cp.Variable((d.shape[1], y.shape[1]))
    bias = cp.Variable((1, y.shape[1]))
    f = d.astype(np.float64) @ weights + (np.ones((len(d), 1)) @ bias if intercept else 0)
    if isinstance(term, Squared):
        loss = 0.5 * cp.sum_squares(f - y)
    elif isinstance(term, Logistic):
        loss = cp.sum(cp.logistic(-cp.multiply(y, f)))
    elif isinstance(term, SquaredHinge):
        loss = 0.5 * cp.sum_squares(cp.pos(1 - cp.multiply(y, f)))
    else:
        loss = cp.sum(cp.log_sum_exp(f, axis=1)) - cp.sum(cp.multiply(y, f))
    problem = cp.Problem(cp.Minimize(loss + beta * cp.sum(cp.norm(weights, 2, axis=1))))
    return float(problem.solve(solver=cp.CLARABEL))


@every_case
@either
@pytest.mark.parametrize("share", [0.4, 0.04])
def test_solver_reaches_the_optimum_of_a_generic_solver(
    term: DataTerm, outputs: int, intercept: bool, share: float
) -> None:
    x, d = planes(50, 30, seed=outputs)
    y = answers(term, outputs, x, seed=outputs)
    design = BitMatrix.from_bools(d)
    beta = share * largest_beta(design, y, term, intercept=intercept)
    found = solve(design, y, term, beta, intercept=intercept, tol=1e-9)
    assert found.reached
    assert found.gap <= 1e-9
    wanted = program(term, term.targets(y), d, beta, intercept=intercept)
    assert found.objective == pytest.approx(wanted, rel=2e-7)
    assert found.dual <= wanted * (1 + 2e-7)
    again = evaluate(design, y, term, beta, found.u, found.intercept if intercept else None)
    assert again[0] == pytest.approx(found.objective, rel=1e-12)
    assert again[2] <= 2e-9


@every_case
@either
def test_scaled_residuals_are_below_every_objective(term: DataTerm, outputs: int, intercept: bool) -> None:
    generator = np.random.default_rng(3)
    x, d = planes(30, 20, seed=5)
    y = term.targets(answers(term, outputs, x, seed=5))
    design = BitMatrix.from_bools(d)
    bounds, objectives = [], []
    for _ in range(60):
        u = generator.standard_normal((20, y.shape[1])) * generator.choice([0.0, 0.1, 1.0], (20, 1))
        b = generator.standard_normal(y.shape[1]) * intercept
        f = design.push(u) + b
        objectives.append(term.value(f, y) + 0.7 * np.linalg.norm(u, axis=1).sum())
        v = term.balance(term.residual(f, y), y) if intercept else term.residual(f, y)
        largest = float(np.linalg.norm(design.pull(v), axis=1).max())
        bounds.append(lower_bound(term, v, y, 0.7, largest))
        assert lower_bound(term, v, y, 0.7, 2 * largest) <= bounds[-1] + 1e-9
        for t in generator.random(5) * min(1.0, 0.7 / max(largest, 1e-9)):
            bounds.append(term.dual(t * v, y))
    assert max(bounds) <= min(objectives)
    best = solve(design, y, term, 0.7, intercept=intercept, tol=1e-9).objective
    assert max(bounds) <= best * (1 + 1e-12) <= min(objectives)


@every_case
def test_gap_identity_at_restricted_optima(term: DataTerm, outputs: int) -> None:
    """P(u) - D(t v) over a larger class, from the restricted optimum, without the loss of either being looked at."""
    x, d = planes(40, 60, seed=7)
    y = term.targets(answers(term, outputs, x, seed=7))
    part, whole = BitMatrix.from_bools(d[:, :8]), BitMatrix.from_bools(d)
    beta = 0.2 * largest_beta(part, y, term, intercept=False)
    found = solve(part, y, term, beta, intercept=False, tol=1e-12)
    v = found.residual
    largest = float(np.linalg.norm(whole.pull(v), axis=1).max())
    assert largest > beta
    t = beta / largest
    gap = found.objective - lower_bound(term, v, y, beta, largest)
    price = np.linalg.norm(found.u, axis=1).sum()
    if term.quadratic:
        formula = 0.5 * (1 - t) ** 2 * np.square(v).sum() + (1 - t) * beta * price
        assert gap == pytest.approx(formula, rel=1e-9)
        assert found.objective <= largest / beta * solve(whole, y, term, beta, intercept=False).objective
    else:  # value(f) = D(v) - <v, f> and <v, f> = beta |u|_1 at a restricted optimum
        assert found.objective == pytest.approx(term.dual(v, y), rel=1e-9)
    assert 0 <= gap <= (1 - t) * found.objective * (1 + 1e-9)


@every_case
def test_residual_is_minus_the_gradient_and_bend_the_hessian(term: DataTerm, outputs: int) -> None:
    generator = np.random.default_rng(0)
    x, _ = planes(20, 1, seed=0)
    y = term.targets(answers(term, outputs, x, seed=0))
    f, move = 2 * generator.standard_normal((2, *y.shape))
    h = 1e-5
    slope = (term.value(f + h * move, y) - term.value(f - h * move, y)) / (2 * h)
    assert -float((term.residual(f, y) * move).sum()) == pytest.approx(slope, rel=1e-6)
    bent = (term.residual(f - h * move, y) - term.residual(f + h * move, y)) / (2 * h)
    np.testing.assert_allclose(term.bend(f, y, move), bent, atol=1e-4)
    assert float((bent * move).sum()) <= term.curvature * float(np.square(move).sum()) * (1 + 1e-9)


@every_case
def test_free_intercept_leaves_residuals_that_sum_to_zero(term: DataTerm, outputs: int) -> None:
    generator = np.random.default_rng(1)
    x, _ = planes(60, 1, seed=1)
    y = term.targets(answers(term, outputs, x, seed=1))
    for scale in (0.1, 3.0, 30.0):
        f = scale * generator.standard_normal(y.shape)
        b = term.shift(f, y)
        v = term.residual(f + b, y)
        np.testing.assert_allclose(v.sum(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(term.balance(v, y), v, atol=1e-9)
        rough = term.balance(term.residual(f, y), y)
        np.testing.assert_allclose(rough.sum(axis=0), 0, atol=1e-11)
        assert np.isfinite(term.dual(rough, y))
        for other in generator.standard_normal((20, y.shape[1])):
            assert term.value(f + b, y) <= term.value(f + b + other, y) + 1e-12


@either
@every_case
def test_solution_is_empty_from_the_largest_beta_on_and_not_below(
    term: DataTerm, outputs: int, intercept: bool
) -> None:
    x, d = planes(40, 300, seed=2)
    y = answers(term, outputs, x, seed=2)
    design = BitMatrix.from_bools(d)
    top = largest_beta(design, y, term, intercept=intercept)
    above = solve(design, y, term, 1.0001 * top, intercept=intercept, tol=1e-10)
    assert not above.u.any()
    assert above.gap <= 1e-10
    assert above.objective == pytest.approx(
        term.value(np.zeros_like(above.residual) + above.intercept, term.targets(y)), rel=1e-12
    )
    assert solve(design, y, term, 0.999 * top, intercept=intercept, tol=1e-10).u.any()


def test_working_set_finds_what_all_columns_at_once_do(monkeypatch: pytest.MonkeyPatch) -> None:
    x, d = planes(150, 700, seed=4)
    design, y = BitMatrix.from_bools(d), answers(Squared(), 1, x, seed=4)
    few = solve(design, y, Squared(), 1.0, tol=1e-10)
    monkeypatch.setattr(solvers, "ALL", 1000)
    whole = solve(design, y, Squared(), 1.0, tol=1e-10)
    assert len(few.held.columns) < 350
    assert few.objective == pytest.approx(whole.objective, rel=1e-9)


@pytest.mark.parametrize("term", [Logistic(), Multinomial()], ids=lambda term: type(term).__name__)
@either
def test_packed_products_in_the_newton_step_change_nothing(
    term: DataTerm, intercept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, d = planes(80, 60, seed=4)
    design, y = BitMatrix.from_bools(d), answers(term, 3, x, seed=4)
    dense = solve(design, y, term, 1.0, intercept=intercept, tol=1e-9)
    monkeypatch.setattr(support_newton, "DENSE", 0)
    packed = solve(design, y, term, 1.0, intercept=intercept, tol=1e-9)
    assert dense.reached
    assert packed.reached
    assert packed.objective == pytest.approx(dense.objective, rel=1e-8)
    move, v = np.random.default_rng(0).standard_normal((2, 80, 3))
    columns = support_newton.Columns.of(design, centred=intercept)
    centred = d - d.mean(axis=0) if intercept else d.astype(np.float64)
    np.testing.assert_allclose(columns.push(move[:60]), centred @ move[:60], atol=1e-9)
    np.testing.assert_allclose(columns.pull(v), centred.T @ v, atol=1e-9)


@every_case
def test_objective_never_rises_from_any_start(term: DataTerm, outputs: int) -> None:
    x, d = planes(60, 300, seed=11)
    design, y = BitMatrix.from_bools(d), answers(term, outputs, x, seed=11)
    before = solve(design, y, term, 2.0, tol=1e-3)
    for beta in (2.0, 0.9, 0.3):
        start = evaluate(design, y, term, beta, before.u, before.intercept)[0]
        for rounds in (0, 1, 2):
            after = solve(design, y, term, beta, tol=1e-9, start=before, rounds=rounds)
            assert after.objective <= start * (1 + 1e-12)
            start = after.objective
        before = after


def test_path_falls_in_beta_and_each_point_has_its_own_gap() -> None:
    x, d = planes(120, 500, seed=6)
    design, y = BitMatrix.from_bools(d), answers(Logistic(), 1, x, seed=6)
    betas = [largest_beta(design, y, Logistic()) * 10 ** (-0.25 * k) for k in range(8)]
    found = list(path(design, y, Logistic(), betas, tol=1e-7))
    assert all(point.reached for point in found)
    assert not found[0].u.any()
    for (before, after), beta in zip(pairwise(found), betas[1:], strict=True):
        assert after.objective < before.objective
        cold = solve(design, y, Logistic(), beta, tol=1e-7)
        assert after.objective == pytest.approx(cold.objective, rel=2e-7)


def test_start_goes_on_after_columns_come_and_go() -> None:
    x, d = planes(100, 400, seed=8)
    y = answers(Squared(), 3, x, seed=8)
    first = solve(BitMatrix.from_bools(d[:, :300]), y, Squared(), 1.5, tol=1e-9)
    more = BitMatrix.from_bools(d)
    grown = solve(more, y, Squared(), 1.5, tol=1e-9, start=first)
    assert grown.objective == pytest.approx(solve(more, y, Squared(), 1.5, tol=1e-9).objective, rel=1e-8)
    kept = np.random.default_rng(0).permutation(np.union1d(grown.support, np.arange(50)))
    fewer = solve(more.take(kept), y, Squared(), 1.5, tol=1e-9, start=grown.take(kept))
    assert fewer.objective == pytest.approx(grown.objective, rel=1e-8)
    assert fewer.rounds <= 1
    np.testing.assert_array_equal(more.take(kept).take(fewer.held.columns).words, fewer.held.bits.words)
    with pytest.raises(ValueError, match="the start has weights of shape"):
        solve(more.take(kept), y, Squared(), 1.5, start=grown)


def test_rounds_that_do_not_suffice_are_owned_up() -> None:
    x, d = planes(100, 400, seed=8)
    design, y = BitMatrix.from_bools(d), answers(Squared(), 1, x, seed=8)
    found = solve(design, y, Squared(), 0.3, tol=1e-9, rounds=1)
    assert not found.reached
    assert found.gap > 1e-9
    assert found.objective >= solve(design, y, Squared(), 0.3, tol=1e-9).objective


@pytest.mark.parametrize("outputs", [1, 3])
def test_compiled_descent_equals_the_reference(outputs: int) -> None:
    generator = np.random.default_rng(0)
    d = generator.random((50, 37)) > 0.5
    gram = BitMatrix.from_bools(d).gram()
    gram[5, 5] = 0.0
    cross = generator.standard_normal((outputs, 37)) * 10
    columns = generator.permutation(37)[:30]
    results = []
    for descend in (descent.descend, descent.descend_reference):
        u, pull = np.zeros((outputs, 37)), cross.copy()
        descend(gram, 3.0, columns, 7, u, pull)
        np.testing.assert_allclose(pull, cross - u @ gram, atol=1e-9)
        results.append(u)
    np.testing.assert_allclose(*results, atol=1e-10)
    assert 0 < results[0].any(axis=0).sum() < 30
    with pytest.raises(ValueError, match="contiguous"):
        descent.descend(gram[:, ::-1], 3.0, columns, 1, *results)


@pytest.mark.parametrize("outputs", [1, 2, 9])
def test_quadratic_is_solved_with_dependent_columns(outputs: int) -> None:
    generator = np.random.default_rng(outputs)
    d = np.repeat(generator.random((12, 20)) > 0.5, 3, axis=1).astype(np.float64)  # rank 12, every column three times
    z = 4 * generator.standard_normal((12, outputs))
    quadratic = Quadratic(d.T @ d, np.ascontiguousarray((d.T @ z).T), float(np.square(z).sum()))
    u = minimise(quadratic, 0.8, np.zeros((outputs, 60)), 1e-10)
    objective, gap = quadratic.gap(u, quadratic.pull(u), 0.8)
    assert gap <= 1e-9 * objective
    assert objective == pytest.approx(0.5 * np.square(d @ u.T - z).sum() + 0.8 * np.linalg.norm(u, axis=0).sum())


def test_exact_step_is_the_least_on_a_grid() -> None:
    generator = np.random.default_rng(0)
    grid = np.linspace(0, 30, 30001)
    for _ in range(50):
        start, move = generator.standard_normal((2, 2, 4))
        slope, curvature = -5 * generator.random(), generator.random() + 0.2
        norms = np.linalg.norm(start[:, None] + grid[:, None] * move[:, None], axis=0).sum(axis=1)
        values = slope * grid + 0.5 * curvature * grid**2 + norms
        t = exact_step(1.0, slope, curvature, start, move)
        assert t == pytest.approx(grid[values.argmin()], abs=2e-3)


@pytest.mark.parametrize("outputs", [1, 3])
@either
def test_purified_networks_are_the_same_with_at_most_rank_neurons(outputs: int, intercept: bool) -> None:
    for seed in (0, 2):
        generator = np.random.default_rng(seed)
        x, d = planes(14, 60, seed=seed, d=2)
        d[:, :3] = [False, True, False]
        design, y = BitMatrix.from_bools(d), answers(Squared(), outputs, x, seed)
        free = solve(design, y, Squared(), 0.3, intercept=intercept, tol=1e-7)
        spread = np.concatenate([free.u, free.u])  # an optimum again: every neuron twice, at half its weight
        spread *= 0.5
        twice = design.hstack(design)
        b = free.intercept if intercept else None
        for u in (spread, generator.standard_normal(spread.shape)):
            after, lifted = purify(twice, u, b)
            before = evaluate(twice, y, Squared(), 0.3, u, b)[0]
            now = evaluate(twice, y, Squared(), 0.3, after, lifted)[0]
            neurons = int(after.any(axis=1).sum())
            centred = d - d.mean(axis=0) if intercept else d.astype(np.float64)
            rank = int(np.linalg.matrix_rank(centred))
            assert neurons <= (rank if outputs == 1 else 14 * outputs)
            assert now <= before * (1 + 1e-9)
            f = [twice.push(w) + (0 if c is None else c) for w, c in ((u, b), (after, lifted))]
            np.testing.assert_allclose(f[0], f[1], atol=1e-9)
            if u is spread:
                assert now == pytest.approx(before, rel=1e-9)
            once, same = purify(twice, after, lifted)
            np.testing.assert_allclose(once, after, atol=1e-10)
            assert (same is None) == (lifted is None)


def test_merging_keeps_the_function_and_handles_complements_only_with_an_intercept() -> None:
    d = np.array([[1, 1, 0, 0, 1], [0, 0, 1, 0, 1], [1, 1, 0, 0, 1]], np.bool_)
    design, u = BitMatrix.from_bools(d), np.array([[1.0], [-3.0], [2.0], [5.0], [1.0]])
    merged, none = merge(design, u, None)
    assert none is None
    assert merged.ravel().tolist() == [-2, 0, 2, 0, 1]
    merged, b = merge(design, u, np.zeros(1))
    assert merged.ravel().tolist() == [-4, 0, 0, 0, 0]
    assert b is not None
    np.testing.assert_array_equal(design.push(merged) + b, design.push(u))


@pytest.mark.parametrize("outputs", [1, 3])
def test_split_amplitudes_decay_like_the_convex_price(outputs: int) -> None:
    x, d = planes(40, 30, seed=9)
    design, y = BitMatrix.from_bools(d), answers(Squared(), outputs, x, seed=9)
    found = solve(design, y, Squared(), 0.5, tol=1e-9)
    s, a = split(found.u)
    f = (design.unpack() * s) @ a + found.intercept
    decayed = Squared().value(f, y) + 0.25 * (np.square(s).sum() + np.square(a).sum())
    assert decayed == pytest.approx(found.objective, rel=1e-10)
    for factor in (0.9, 1.2):  # any other split costs more
        assert np.square(factor * s).sum() + np.square(a / factor).sum() > np.square(s).sum() + np.square(a).sum()


def test_one_class_constant_targets_and_empty_problems() -> None:
    design = BitMatrix.from_bools(np.array([[True, False], [False, False], [True, True]]))
    for term in (Logistic(), SquaredHinge(), Multinomial()):
        for label in (0, 1):
            found = solve(design, np.full(3, label), term, 0.1)
            assert not found.u.any()
            assert found.objective < 1e-12
            assert found.reached
    assert solve(design, np.full(3, 7.0), Squared(), 0.1).objective == 0
    assert not solve(design, np.zeros(3), Squared(), 0.1, intercept=False).u.any()
    none = BitMatrix.from_bools(np.zeros((3, 0), np.bool_))
    assert solve(none, np.array([1.0, 2.0, 3.0]), Squared(), 0.1).objective == 1.0
    one = solve(BitMatrix.from_bools(np.ones((1, 1), np.bool_)), np.array([2.0]), Squared(), 0.5, intercept=False)
    assert one.u[0, 0] == pytest.approx(1.5)
    three = solve(design, np.array([0, 0, 2]), Multinomial(), 0.01, tol=1e-9)  # class 1 never occurs
    assert three.reached
    np.testing.assert_allclose(three.u[:, 1], 0, atol=1e-12)
    assert three.objective == pytest.approx(solve(design, np.array([0, 0, 1]), Multinomial(), 0.01).objective, rel=1e-6)


def test_equal_rows_with_contradictory_labels_share_their_outputs() -> None:
    d = np.array([[True], [True], [False], [False]])
    found = solve(BitMatrix.from_bools(d), np.array([1, 0, 0, 0]), Logistic(), 0.05, tol=1e-9)
    f = d @ found.u + found.intercept
    assert f[0] == f[1]
    assert found.objective > np.log(2) * 2 * 0.9  # the two rows cannot both be served


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"beta": 0.0}, "beta must be positive"),
        ({"beta": -1.0}, "beta must be positive"),
        ({"beta": float("nan")}, "beta must be positive"),
        ({"tol": 0.0}, "tol is a relative gap above 0"),
        ({"y": np.array([1.0, np.nan, 2.0])}, "y holds 1 NaN or infinite"),
        ({"y": np.array([1.0, np.inf, 2.0])}, "y holds 1 NaN or infinite"),
        ({"y": np.array([1.0, 2.0])}, "the design has 3 rows, but y has 2"),
        ({"y": np.zeros(0)}, "nothing to fit"),
        ({"term": Logistic()}, "takes integer labels"),
        ({"term": Multinomial(), "y": np.array([0, -1, 1])}, "label -1 is out of range"),
        ({"term": Multinomial(2), "y": np.array([0, 2, 1])}, "label 2 is out of range"),
        ({"term": Logistic(1), "y": np.array([0, 2, 1])}, "label 2 is out of range"),
        ({"term": Logistic(), "y": np.array([[0], [1], [1]])}, "labels are one vector of integers"),
    ],
)
def test_bad_input_is_refused_with_the_value_and_the_remedy(change: dict[str, Any], match: str) -> None:
    given = {"y": np.array([1.0, 2.0, 3.0]), "term": Squared(), "beta": 1.0, "tol": 1e-6} | change
    design = BitMatrix.from_bools(np.array([[True], [False], [True]]))
    with pytest.raises(ValueError, match=match):
        solve(design, given["y"], given["term"], given["beta"], tol=given["tol"])


@pytest.mark.parametrize(("beta", "largest"), [(0.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, float("nan"))])
def test_lower_bound_refuses_what_proves_nothing(beta: float, largest: float) -> None:
    with pytest.raises(ValueError, match=r"beta must be positive|a number >= 0"):
        lower_bound(Squared(), np.ones((2, 1)), np.ones((2, 1)), beta, largest)


def test_unknown_largest_score_gives_the_bound_of_nothing() -> None:
    y = np.array([[1.0], [-2.0]])
    assert lower_bound(Squared(), y, y, 1.0, float("inf")) == 0.0
