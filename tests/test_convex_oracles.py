"""The oracles against brute force: counts of cells, sweeps over many weights, degenerate and nearly degenerate data."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from hardstep.convex.lattice import annihilator, independent_columns, lattice
from hardstep.convex.oracle_milp import MixedInteger
from hardstep.convex.oracle_pairs import Pairs
from hardstep.convex.oracle_plane import PlaneSweep
from hardstep.convex.oracle_stumps import Stumps
from hardstep.convex.oracle_vertices import Enumeration, enumeration_steps
from hardstep.convex.oracles import Oracle
from hardstep.convex.patterns import distinct, patterns
from hardstep.convex.pencils import all_patterns
from hardstep.convex.sweep import separating_plane

from .half_spaces import COLLINEAR, GRID, PLANES, REPEATED, on_features, separable


def cells(x: np.ndarray) -> set[tuple[bool, ...]]:
    """Every pattern by enumeration in integers, rows that are alike given the same bit."""
    merged = distinct(x)
    whole = np.concatenate([lattice(merged.x), np.array([[1]] * len(merged.x), object)], axis=1)
    return {tuple(bits[merged.group].tolist()) for bits in all_patterns(whole)}


def exact_patterns(x: np.ndarray) -> set[tuple[bool, ...]]:
    """Every pattern of the plane in fractions, from vertices: a line through two points, turned and cut on itself."""
    points = [tuple(Fraction(value) for value in row) for row in x.tolist()]
    n = len(points)
    found = {(False,) * n, (True,) * n}
    for i in range(n):
        for k in range(n):
            (ax, ay), (bx, by) = points[i], points[k]
            if points[i] == points[k]:
                continue
            turn = [(bx - ax) * (y - ay) - (by - ay) * (px - ax) for px, y in points]
            along = [(bx - ax) * (px - ax) + (by - ay) * (y - ay) for px, y in points]
            for cut in [*sorted(set(along)), max(along) + 1]:
                for on_left in (True, False):
                    bits = tuple(t > 0 or (t == 0 and (a < cut) == on_left) for t, a in zip(turn, along, strict=True))
                    found |= {bits, tuple(not bit for bit in bits)}
    return found


def largest(v: np.ndarray, allowed: np.ndarray) -> float:
    return float(np.linalg.norm(allowed @ v, axis=1).max())


@pytest.mark.parametrize(("n", "d"), [(7, 1), (7, 2), (8, 2), (9, 3)])
def test_cells_in_general_position_are_as_many_as_the_formula_says(n: int, d: int) -> None:
    x = np.random.default_rng(n).normal(size=(n, d))
    assert len(cells(x)) == 2 * sum(comb(n - 1, k) for k in range(d + 1))


@pytest.mark.parametrize(("x", "count"), [(GRID, 58), (REPEATED, 28), (COLLINEAR, 24)])
def test_cells_of_degenerate_data_are_those_of_the_linear_programs(x: np.ndarray, count: int) -> None:
    listed = {tuple(row) for row in separable(x).tolist()}
    assert cells(x) == listed == exact_patterns(x)
    assert len(listed) == count
    assert {tuple(row) for row in separable(x, closed=True).tolist()} == listed  # with a bias > and >= agree


@pytest.mark.parametrize("x", PLANES.values(), ids=PLANES.keys())
def test_sweep_equals_brute_force_for_two_hundred_weights(x: np.ndarray) -> None:
    generator = np.random.default_rng(0)
    listed, search = separable(x), PlaneSweep().prepare(x)
    for trial in range(200):
        v = generator.normal(size=(len(x), 1 + trial % 2))
        v = np.round(v) if trial % 5 == 0 else v
        v = v - v.mean(axis=0) if trial % 3 == 0 else v
        found, wanted = search.find(v, 3, generator), largest(v, listed)
        assert found.bound == pytest.approx(wanted, rel=1e-9, abs=1e-9)
        assert found.scores[:1] == pytest.approx(wanted, rel=1e-9, abs=1e-9) or wanted < 1e-9


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("kind", ["cube", "flat", "tenths", "random", "wide"])
def test_enumeration_equals_brute_force_in_higher_dimensions(kind: str, outputs: int) -> None:
    generator = np.random.default_rng(1)
    x = {
        "cube": np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float),
        "flat": np.insert(generator.integers(0, 3, (8, 2)).astype(float), 1, 7.0, axis=1)
        @ np.array([[1, 0, 1], [0, 1, 1.0], [2, 1, 0]]),
        "tenths": generator.integers(-1, 2, (7, 4)) * 0.1,
        "random": generator.normal(size=(7, 3)),
        "wide": generator.normal(size=(5, 7)),
    }[kind]
    listed, search = separable(np.ascontiguousarray(x)), Enumeration().prepare(x)
    for _ in range(15):
        v = generator.normal(size=(len(x), outputs))
        found, wanted = search.find(v, 4, generator), largest(v, listed)
        assert found.bound == pytest.approx(wanted, rel=1e-9)
        assert found.scores[0] == pytest.approx(wanted, rel=1e-9)


def test_pairs_equal_brute_force_over_pairs_of_features() -> None:
    generator = np.random.default_rng(2)
    x = generator.integers(0, 3, (8, 3)).astype(float)
    listed, search = on_features(x, 2), Pairs().prepare(x)
    for _ in range(30):
        v = generator.normal(size=(8, 2))
        found = search.find(v, 3, generator)
        assert found.bound == pytest.approx(largest(v, listed), rel=1e-9)
        assert found.scores[0] == pytest.approx(largest(v, listed), rel=1e-9)
        assert ((found.planes[:, :-1] != 0).sum(axis=1) <= 2).all()


def test_nearly_collinear_points_are_counted_in_exact_arithmetic() -> None:
    generator = np.random.default_rng(3)
    line = np.array([[k, k] for k in range(5)]) * 0.1  # 0.1 k is not k times 0.1
    x = np.concatenate([line, [[0.25, 0.1], [0.1, np.nextafter(0.1, 1)]]])
    listed = exact_patterns(x)
    assert cells(x) == listed
    allowed = np.array(sorted(listed))
    search = PlaneSweep().prepare(x)
    for _ in range(30):
        v = generator.normal(size=(len(x), 1))
        found = search.find(v, 5, generator)
        assert found.bound == pytest.approx(largest(v, allowed), rel=1e-9)
        assert {tuple(bits) for bits in patterns(x, found.planes).T.tolist()} <= listed


def test_stumps_between_neighbouring_floats() -> None:
    x = np.array([[1.0], [np.nextafter(1.0, 2)], [5e-324], [0.0]])
    v = np.array([[-1.0], [3.0], [2.0], [-5.0]])
    found = Stumps().prepare(x).find(v, 10, np.random.default_rng(0))
    assert found.scores.tolist() == [5.0, 4.0, 3.0, 2.0, 1.0] or found.scores[0] == 5.0
    assert found.scores[0] == largest(v, separable(np.array([[2.0], [3.0], [1.0], [0.0]])))


def test_rows_that_are_alike_share_their_weights() -> None:
    x = np.array([[0.0, 1.0], [-0.0, 1.0], [2.0, 0.0]])
    merged = distinct(x)
    assert len(merged.x) == 2
    np.testing.assert_array_equal(merged.sum(np.array([[1.0], [2.0], [4.0]]))[merged.group, 0], [3.0, 3.0, 4.0])


def test_many_different_local_maxima_come_back() -> None:
    generator = np.random.default_rng(4)
    x, v = generator.normal(size=(200, 2)), generator.normal(size=(200, 1))
    found = PlaneSweep().prepare(x).find(v, 100, generator)
    bits = patterns(x, found.planes)
    assert len(found.planes) == 100
    assert len(np.unique(bits, axis=1).T) == 100


@pytest.mark.parametrize(
    ("oracle", "x", "message"),
    [
        (PlaneSweep(), np.zeros((3, 3)), "takes 1 or 2 features, got 3"),
        (PlaneSweep(rows=5), np.random.default_rng(0).normal(size=(6, 2)), "6 distinct rows are more than rows=5"),
        (Enumeration(), np.random.default_rng(0).normal(size=(60, 20)), r"take \d.\d\de\+\d\d steps"),
        (Pairs(gigabytes=1e-6), np.random.default_rng(0).normal(size=(60, 3)), "GiB"),
        (Pairs(), np.zeros((3, 0)), "at least one feature, got 0"),
        (PlaneSweep(), np.array([[1e200, 0.0], [0.0, 1.0]]), "scale the features"),
    ],
)
def test_what_is_too_large_is_refused_with_numbers(oracle: Oracle, x: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        oracle.prepare(x)


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match=r"eps is a margin in \(0, 1\)"):
        MixedInteger(eps=0.0)
    with pytest.raises(ValueError, match="seconds is a time limit"):
        MixedInteger(seconds=0.0)


def test_steps_of_an_enumeration() -> None:
    assert enumeration_steps(np.random.default_rng(0).normal(size=(10, 3))) == comb(10, 2) * (10 + 4)
    assert enumeration_steps(np.ones((10, 3))) == 2


def test_rank_and_annihilator_are_exact() -> None:
    generator = np.random.default_rng(5)
    for _ in range(50):
        q, r = int(generator.integers(1, 5)), int(generator.integers(5, 7))
        rows = generator.integers(-2, 3, (q, r)).astype(object)
        basis = annihilator(rows)
        rank = np.linalg.matrix_rank(rows.astype(float))
        assert (basis is None) == (rank < q)
        assert basis is None or not (rows @ basis).astype(bool).any()
        assert len(independent_columns(rows)) == rank
    huge = np.array([[2**200, 1], [2**200 + 1, 1]], object)
    assert independent_columns(huge) == [0, 1]


def test_no_plane_where_there_is_none() -> None:
    x = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert separating_plane(x, np.array([True, True, False, False])) is None
    plane = separating_plane(x, np.array([True, True, False, True]))
    assert plane is not None
    assert patterns(x, plane[None])[:, 0].tolist() == [True, True, False, True]
