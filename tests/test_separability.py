"""Linear separability: against brute force, Cover's count and exact certificates."""

from __future__ import annotations

from dataclasses import replace
from itertools import product as words
from math import comb, inf

import numpy as np
import pytest

from hardstep.certify.alternatives import largest_margin, least_slack, whole_multipliers, whole_rows, whole_weights
from hardstep.certify.separability import check, class_rows, separate, separate_classes, unit_rows
from hardstep.certify.shapes import dichotomies

CORNERS = np.array(list(words((0, 1), repeat=2)))


def every_pattern(n: int) -> np.ndarray:
    return np.array(list(words((False, True), repeat=n)))


def reached(weights: np.ndarray, x: np.ndarray) -> set[bytes]:
    """Patterns that some of these planes make on the rows."""
    return {pattern.tobytes() for pattern in (x @ weights[:, :-1].T + weights[:, -1] > 0).T}


@pytest.mark.parametrize(
    ("name", "t", "separable"),
    [
        ("and", [0, 0, 0, 1], True),
        ("or", [0, 1, 1, 1], True),
        ("xor", [0, 1, 1, 0], False),
        ("nor", [1, 0, 0, 0], True),
    ],
)
def test_truth_tables_are_decided_with_certificates_in_whole_numbers(name: str, t: list[int], separable: bool) -> None:
    answer = separate(CORNERS, np.array(t))
    assert (answer.separable, answer.exact, answer.tol) == (separable, True, 0.0), name
    assert check(answer, CORNERS, np.array(t))
    assert not check(answer, CORNERS, np.array([1, 0, 1, 0]))


def test_every_pattern_of_small_sets_is_decided_as_a_dense_grid_of_planes_says() -> None:
    directions = np.array(list(words(range(-4, 5), repeat=2)))
    shifts = np.arange(-40, 41) / 4
    planes = np.concatenate([np.repeat(directions, len(shifts), 0), np.tile(shifts, len(directions))[:, None]], axis=1)
    for seed in range(4):
        x = np.random.default_rng(seed).integers(0, 3, (6, 2))
        known = reached(planes, x)
        for t in every_pattern(6):
            answer = separate(x, t)
            assert answer.exact
            assert check(answer, x, t)
            assert answer.separable == (t.tobytes() in known)


@pytest.mark.parametrize(("n", "d"), [(5, 1), (6, 2), (5, 3), (7, 2)])
def test_patterns_of_points_in_general_position_are_as_many_as_cover_counts(n: int, d: int) -> None:
    x = np.random.default_rng(n + d).normal(size=(n, d))
    answers = [separate(x, t) for t in every_pattern(n)]
    assert sum(answer.separable for answer in answers) == 2 * sum(comb(n - 1, i) for i in range(d + 1))
    assert all(check(answer, x, t) for answer, t in zip(answers, every_pattern(n), strict=True))  # real rows, exactly
    found = dichotomies(x)
    assert {t.tobytes() for t in found} == {
        t.tobytes() for answer, t in zip(answers, every_pattern(n), strict=True) if answer.separable
    }


def test_too_many_patterns_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 20 patterns of one unit on 8 rows; raise limit"):
        dichotomies(np.random.default_rng(0).normal(size=(8, 3)), limit=20)


def test_margin_is_half_the_distance_of_the_hulls() -> None:
    cube = np.array(list(words((0.0, 1.0), repeat=3)))
    x = np.concatenate([cube, cube + np.array([4.0, 0.5, 0.0])])
    t = np.arange(16) >= 8
    # sup-norm weights: the L1 distance; the cubes overlap in the last two coordinates and are 3 apart in the first
    assert separate(x, t).margin == pytest.approx(1.5)
    generator = np.random.default_rng(0)
    for _ in range(20):
        x, t = generator.normal(size=(9, 2)) + 3 * (np.arange(9) > 4)[:, None], np.arange(9) > 4
        answer = separate(x, t)
        if not answer.separable:
            continue
        shares = generator.dirichlet(np.full(5, 0.3), 4000), generator.dirichlet(np.full(4, 0.3), 4000)
        apart = np.abs(shares[0] @ x[~t] - shares[1] @ x[t]).sum(axis=1)
        assert 2 * answer.margin <= apart.min() + 1e-9
        best = largest_margin(unit_rows(x, t), 1)
        left, right = 2 * best.multipliers[~t] @ x[~t], 2 * best.multipliers[t] @ x[t]
        assert np.abs(left - right).sum() == pytest.approx(2 * answer.margin)
        heights = x @ answer.weights[0] + answer.bias[0]
        assert np.abs(answer.weights).max() == pytest.approx(1)
        assert np.where(t, heights, -heights).min() == pytest.approx(answer.margin)


def test_sets_that_need_large_weights_are_separable() -> None:
    below = np.tri(14, k=-1, dtype=int) * (np.add.outer(range(14), range(14)) % 2)  # those that vote otherwise
    rows = np.concatenate([np.eye(14, dtype=int), np.eye(14, dtype=int) + below])
    highest = np.array([np.flatnonzero(row).max() for row in rows])
    t = highest % 2 == 0  # odd-max-bit: the highest bit that is set decides
    answer = separate(rows, t)
    assert answer.separable
    assert check(answer, rows, t)
    assert sum(map(abs, answer.whole[0])) >= 600
    assert answer.margin < 0.01


def test_inseparable_rows_of_every_kind_have_whole_multipliers() -> None:
    generator = np.random.default_rng(1)
    for kind in (
        generator.integers(0, 2, (40, 6)),
        2 * generator.integers(0, 2, (40, 6)) - 1,
        generator.integers(0, 256, (40, 6)),
        generator.normal(size=(40, 6)),
        generator.normal(size=(40, 6)).astype(np.float32),
    ):
        t = generator.random(40) < 0.5
        answer = separate(kind, t)
        assert not answer.separable
        assert answer.exact
        assert check(answer, kind, t)
        weights = np.array(answer.multipliers, object)
        side = np.where(t, 1, -1)
        assert (weights * side).sum() == 0
        wrong = replace(answer, multipliers=(answer.multipliers[0] + 1, *answer.multipliers[1:]))
        assert not check(wrong, kind, t)


def test_duplicates_with_opposite_labels_are_refused_by_the_two_rows() -> None:
    x, t = np.array([[0.5, 1], [2, 3], [7, 7], [0.5, 1]]), np.array([0, 1, 1, 1])
    answer = separate(x, t)
    assert (answer.separable, answer.multipliers) == (False, (1, 0, 0, 1))
    assert check(answer, x, t)
    several = separate_classes(x, np.array([0, 1, 2, 2]), 3)
    assert not several.separable
    assert sum(several.multipliers) == 2
    assert check(several, x, np.array([0, 1, 2, 2]))


def test_one_class_one_row_and_constant_features_have_a_clear_answer() -> None:
    for t in (np.zeros(3), np.ones(3)):
        answer = separate(np.ones((3, 2)), t)
        assert (answer.separable, answer.margin) == (True, inf)
        assert check(answer, np.ones((3, 2)), t)
    assert separate(np.array([[3.0]]), np.array([1])).separable
    assert not separate(np.ones((2, 4)), np.array([0, 1])).separable
    x = np.array([[1, 5], [1, 6], [1, 7]])
    assert check(separate(x, np.array([0, 0, 1])), x, np.array([0, 0, 1]))
    only = separate_classes(np.ones((3, 2)), np.zeros(3, int), 2)
    assert only.separable
    assert check(only, np.ones((3, 2)), np.zeros(3, int))


def test_huge_tiny_and_far_away_rows_are_decided_exactly() -> None:
    for rows in (1e-300 * CORNERS, 1e200 * CORNERS, 1e12 + CORNERS.astype(float), CORNERS * [1e-9, 1e9]):
        for t in every_pattern(4):
            answer = separate(rows, t)
            assert answer.exact
            assert check(answer, rows, t)
            assert answer.separable == (tuple(t) not in ((False, True, True, False), (True, False, False, True)))


def test_read_outs_are_decided_as_drawn_ones_say() -> None:
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(100_000, 3, 2)) @ x.T + generator.normal(size=(100_000, 3, 1))
    seen = {labels.tobytes() for labels in np.unique(scores.argmax(axis=1), axis=0)}
    found = set()
    for y in words(range(3), repeat=4):
        labels = np.array(y)
        answer = separate_classes(x, labels, 3)
        assert answer.exact
        assert check(answer, x, labels)
        if answer.separable:
            found.add(labels.tobytes())
            assert ((x @ answer.weights.T + answer.bias).argmax(axis=1) == labels).all()
    assert found == seen


def test_two_classes_of_a_read_out_are_one_unit() -> None:
    generator = np.random.default_rng(2)
    for _ in range(40):
        x, y = generator.integers(0, 3, (7, 2)), generator.integers(0, 2, 7)
        assert separate(x, y).separable == separate_classes(x, y, 2).separable


def test_order_of_rows_columns_and_classes_changes_nothing() -> None:
    generator = np.random.default_rng(3)
    for _ in range(10):
        x, y = generator.integers(0, 4, (9, 3)), generator.integers(0, 3, 9)
        rows, columns, names = (generator.permutation(k) for k in (9, 3, 3))
        first, second = separate_classes(x, y, 3), separate_classes(x[rows][:, columns], names[y][rows], 3)
        assert first.separable == second.separable
        assert first.margin == pytest.approx(second.margin, abs=1e-9)


def test_least_slack_is_the_optimum_and_zero_exactly_where_separable() -> None:
    assert least_slack(unit_rows(CORNERS.astype(float), np.array([False, True, True, False]))).value == pytest.approx(4)
    generator = np.random.default_rng(4)
    for _ in range(20):
        x, t = generator.normal(size=(8, 2)), generator.random(8) < 0.5
        rows = unit_rows(x, t)
        found = least_slack(rows)
        assert (found.value < 1e-6) == separate(x, t).separable
        for _ in range(100):
            other = found.weights + generator.normal(size=3) * generator.choice([1e-3, 0.1, 3])
            assert np.maximum(1 - rows @ other, 0).sum() >= found.value - 1e-7


def test_whole_forms_of_rows_are_exact() -> None:
    x = np.random.default_rng(5).normal(size=(4, 3))
    whole, power = whole_rows(x)
    assert all(a / 2**power == b for a, b in zip(whole.reshape(-1).tolist(), x.reshape(-1).tolist(), strict=True))
    assert whole_weights(np.array([[1], [-1]]), np.array([1.0])) is None
    assert whole_multipliers(np.array([[1], [2]]), np.array([0.5, 0.5])) is None
    assert class_rows(np.array([[2, 1]]), np.array([1]), 3).tolist() == [[-2, 2, 0, -1, 1, 0], [0, 2, -2, 0, 1, -1]]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"one target a row is needed, and at least one row; got x \(0, 1\)"):
        separate(np.zeros((0, 1)), np.zeros(0))
    with pytest.raises(ValueError, match="NaN or infinite"):
        separate(np.array([[np.nan]]), np.zeros(1))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1 with at least 2 classes, got 0 to 2"):
        separate_classes(np.zeros((2, 1)), np.array([0, 2]), 2)
    with pytest.raises(ValueError, match="use fewer rows or a descent"):
        separate_classes(np.arange(4000.0)[:, None] * np.ones(200), np.arange(4000) % 10, 10)
