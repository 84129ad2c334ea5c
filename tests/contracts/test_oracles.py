"""What every oracle promises."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from hardstep.convex.oracle_ascent import BatchedAscent
from hardstep.convex.oracle_choice import choose_oracle
from hardstep.convex.oracle_local import LocalSearch
from hardstep.convex.oracle_milp import MixedInteger
from hardstep.convex.oracle_pairs import Pairs
from hardstep.convex.oracle_plane import PlaneSweep
from hardstep.convex.oracle_stumps import Stumps
from hardstep.convex.oracle_vertices import Enumeration
from hardstep.convex.oracles import Found, Oracle
from hardstep.convex.patterns import patterns

from ..half_spaces import PLANES, on_features, separable
from .test_rules import concrete

Class = Callable[[np.ndarray], np.ndarray]
ORACLES: list[tuple[Oracle, Class]] = [
    (Stumps(), partial(on_features, count=1)),
    (PlaneSweep(), separable),
    (Pairs(), partial(on_features, count=2)),
    (Enumeration(), separable),
    (Enumeration(gigabytes=0.0), separable),
    (MixedInteger(seconds=20.0), partial(separable, margin=1e-4)),
    (LocalSearch(chains=6), separable),
    (BatchedAscent(), separable),
]
every_oracle = pytest.mark.parametrize(("oracle", "allowed"), ORACLES, ids=[repr(oracle) for oracle, _ in ORACLES])
every_proof = pytest.mark.parametrize(
    ("oracle", "allowed"), [(o, c) for o, c in ORACLES if o.proves], ids=[repr(o) for o, _ in ORACLES if o.proves]
)
every_data = pytest.mark.parametrize("x", PLANES.values(), ids=PLANES.keys())


def weights(n: int, outputs: int, seed: int, *, centred: bool) -> np.ndarray:
    v = np.random.default_rng(seed).normal(size=(n, outputs))
    return v - v.mean(axis=0) if centred else v


def find(oracle: Oracle, x: np.ndarray, v: np.ndarray, count: int = 6) -> Found:
    return oracle.prepare(x).find(v, count, np.random.default_rng(0))


def scores(v: np.ndarray, bits: np.ndarray) -> np.ndarray:
    return np.linalg.norm(bits @ v, axis=1)


def test_every_subclass_is_listed() -> None:
    assert concrete(Oracle) == {type(oracle) for oracle, _ in ORACLES}


@every_oracle
@every_data
@pytest.mark.parametrize("outputs", [1, 3])
def test_planes_are_scored_by_their_bits_best_first_without_repetition(
    oracle: Oracle, allowed: Class, x: np.ndarray, outputs: int
) -> None:
    for seed in range(2):
        v = weights(len(x), outputs, seed, centred=seed == 1)
        found = find(oracle, x, v)
        bits = patterns(x, found.planes).T
        assert 1 <= len(found.planes) <= 6
        np.testing.assert_allclose(found.scores, scores(v, bits), rtol=1e-12, atol=1e-12)
        assert (np.diff(found.scores) <= 0).all()
        assert bits.any(axis=1).all()
        folded = bits ^ bits[:, :1] if seed == 1 else bits
        assert len(np.unique(folded, axis=0)) == len(bits)
        assert {tuple(row) for row in bits} <= {tuple(row) for row in separable(x)}


@every_oracle
@every_data
@pytest.mark.parametrize("outputs", [1, 2])
def test_bound_holds_over_the_whole_class(oracle: Oracle, allowed: Class, x: np.ndarray, outputs: int) -> None:
    whole = allowed(x)
    for seed in range(2):
        v = weights(len(x), outputs, 10 + seed, centred=seed == 0)
        found = find(oracle, x, v)
        largest = scores(v, whole).max()
        assert found.bound >= largest - 1e-9 * largest
        assert found.bound >= found.scores[0]
        assert not oracle.exact or found.bound <= largest * (1 + 1e-9)
        assert not oracle.exact or found.scores[0] >= largest * (1 - 1e-9)
        assert oracle.proves == bool(np.isfinite(found.bound))


@every_proof
@every_data
def test_bound_does_not_depend_on_the_order_of_the_rows(oracle: Oracle, allowed: Class, x: np.ndarray) -> None:
    v = weights(len(x), 1, 20, centred=False)
    order = np.random.default_rng(3).permutation(len(x))
    one, other = find(oracle, x, v).bound, find(oracle, x[order], v[order]).bound
    assert other == pytest.approx(one, rel=1e-4)


@every_proof
@every_data
def test_bound_is_that_of_the_opposite_weights(oracle: Oracle, allowed: Class, x: np.ndarray) -> None:
    v = weights(len(x), 1, 30, centred=True)
    assert find(oracle, x, -v).bound == pytest.approx(find(oracle, x, v).bound, rel=1e-4)


@every_oracle
def test_same_generator_finds_the_same(oracle: Oracle, allowed: Class) -> None:
    x, v = PLANES["random"], weights(8, 2, 40, centred=False)
    one, other = find(oracle, x, v), find(oracle, x, v)
    np.testing.assert_array_equal(one.planes, other.planes)


@every_oracle
def test_degenerate_data_and_weights(oracle: Oracle, allowed: Class) -> None:
    for x in (np.ones((1, 2)), np.ones((3, 2)), np.array([[0.0, 1.0], [0.0, 2.0]])):
        v = weights(len(x), 1, 50, centred=False)
        found = find(oracle, x, v)
        assert found.scores[0] >= scores(v, allowed(x)).max() - 1e-9 or not oracle.exact
    assert find(oracle, PLANES["grid"], np.zeros((9, 1))).bound in (0.0, np.inf)


@every_oracle
def test_bad_input_is_named(oracle: Oracle, allowed: Class) -> None:
    with pytest.raises(ValueError, match=r"x\[1, 0\] is nan"):
        oracle.prepare(np.array([[0.0, 1.0], [np.nan, 0.0]]))
    with pytest.raises(ValueError, match="no row"):
        oracle.prepare(np.zeros((0, 2)))
    search = oracle.prepare(PLANES["grid"])
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="v has 4 rows, the data 9"):
        search.find(np.zeros((4, 1)), 1, generator)
    with pytest.raises(ValueError, match="NaN or infinite"):
        search.find(np.full((9, 1), np.inf), 1, generator)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        search.find(np.zeros((9, 1)), 0, generator)


def test_choice_prefers_the_strongest_affordable_proof() -> None:
    generator = np.random.default_rng(0)
    shapes = {(50, 1): Stumps, (50, 2): PlaneSweep, (50, 3): Enumeration, (90, 12): MixedInteger}
    shapes |= {(300, 12): LocalSearch, (20_000, 60): BatchedAscent}
    for shape, kind in shapes.items():
        choice = choose_oracle(generator.normal(size=shape))
        assert type(choice.oracle) is kind
        assert choice.reason
