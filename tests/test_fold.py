"""Fold: units that are constant, by proof or on a probe, leave a frozen network."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

import hardstep as hs
from hardstep.fold import Folded
from hardstep.hard_layers import Conv, Dense, Encoding, Flatten, Pool
from hardstep.hardnet import HardNet, Rounding
from hardstep.simplify import extremes

from .networks import CODES, SIGN, STEP, dense, drawn, hard, network, samples, units

PAIRS = np.array(list(product(range(0, 256, 3), repeat=2)), np.uint8)  # every third code: 0, 3, ..., 255
PATTERNS = np.array(list(product([0, 255], repeat=8)), np.uint8)


def constants(net: HardNet, x: NDArray[np.uint8]) -> list[Folded]:
    """The units that give one code on all rows and at all places, by running the network and looking."""
    *outputs, _ = net.trace(x)
    found = []
    for i, (layer, codes) in enumerate(zip(net.layers, outputs, strict=False)):
        if isinstance(layer, Dense | Conv):
            for unit in range(len(layer.weight)):
                values = set(codes.reshape(len(x), len(layer.weight), -1)[:, unit].ravel().tolist())
                found += [Folded(i, unit, *values)] if len(values) == 1 else []
    return found


def checked(net: HardNet, x: NDArray[np.uint8]) -> HardNet:
    """Fold on a probe and check what must hold for every network."""
    small, folded = hs.fold_constants(net, x)
    assert np.array_equal(small(x), net(x))
    assert folded == constants(net, x)
    assert set(hs.fold_constants(net)[1]) <= set(folded)
    assert small.nbytes <= hs.simplify(net).nbytes <= net.nbytes
    again, left = hs.fold_constants(small, x)
    assert again.rows() == small.rows() and left == constants(small, x)
    for one, other in zip(again.layers, small.layers, strict=True):
        if isinstance(one, Dense | Conv) and isinstance(other, Dense | Conv):
            assert np.array_equal(one.weight, other.weight)
            assert one.threshold is other.threshold is None or np.array_equal(one.threshold, other.threshold)
    return small


@pytest.mark.parametrize("stairs", [1, 3])
@pytest.mark.parametrize("code", CODES)
def test_certified_units_are_constant_on_all_inputs_and_no_score_changes(code: str, stairs: int) -> None:
    x = np.array(list(product(range(256), repeat=2)), np.uint8)
    for seed in range(3):
        net = network(seed, shape=(2,), widths=(8, 6), codes=(code, code), stairs=(stairs, stairs))
        generator = np.random.default_rng(seed)
        for layer in net.layers[:-1]:
            assert isinstance(layer, Dense) and layer.threshold is not None
            layer.weight[0] = 0  # no weight: constant whatever the thresholds are
            layer.threshold[1] = np.sort(generator.choice([-(10**6), 10**6], stairs))
        small, folded = hs.fold_constants(net)
        assert np.array_equal(small(x), net(x))
        assert {(0, 0), (0, 1), (1, 0), (1, 1)} <= {(each.layer, each.unit) for each in folded}
        assert set(folded) <= set(constants(net, x))
        assert [row.nbytes for row in small.rows()] == [row.nbytes for row in hs.simplify(net).rows()]
        assert all(a <= b - 2 for a, b in zip(units(small), units(net), strict=True))
        assert hs.fold_constants(small)[1] == []


@pytest.mark.parametrize("code", CODES)
def test_a_unit_without_weights_is_certified_and_a_certified_one_constant_on_any_probe(code: str) -> None:
    bits = dense(np.eye(8), np.full(8, 127))
    for seed in range(2):
        middle = network(seed, shape=(8,), widths=(12, 9), kinds=("ternary",) * 3, codes=(code, code))
        generator = np.random.default_rng(seed)
        for layer in middle.layers[:-1]:
            layer.weight[generator.random(layer.weight.shape) < 0.5] = 0  # type: ignore[union-attr]
        net = hard((8,), bits, *middle.layers)
        bare = {
            (i, unit)
            for i, layer in enumerate(net.layers[:-1])
            if isinstance(layer, Dense)
            for unit in np.flatnonzero(~layer.weight.any(axis=1)).tolist()
        }
        certified = hs.fold_constants(net)[1]
        assert bare <= {(each.layer, each.unit) for each in certified}
        assert set(certified) <= set(constants(net, PATTERNS))
        chosen = PATTERNS[generator.integers(0, 256, 20)]
        assert set(constants(net, PATTERNS)) <= set(hs.fold_constants(net, chosen)[1])
        checked(net, PATTERNS)
        checked(net, chosen)


def test_bounds_tighten_behind_a_constant() -> None:
    always = dense([[1, 1], [1, 0]], [-1, 99])
    net = hard((2,), always, dense([[2, -1], [1, 1]], [0, 1]), dense([[4, 2]], bias=[1]))
    small, folded = hs.fold_constants(net)  # 2 - a > 0 for both codes a; 2 b - a > 0 would not do
    assert folded == [Folded(0, 0, 1), Folded(1, 0, 1)]
    assert units(small) == [1, 1]
    assert np.array_equal(small(PAIRS), net(PAIRS))


def test_bounds_hold_at_every_place_of_every_layer() -> None:
    for seed in range(20):
        net = drawn(seed)
        x = samples(np.random.default_rng(seed), net.shape, 40)
        *outputs, _ = net.trace(x)
        for (low, high), codes in zip(extremes(net), outputs, strict=True):
            assert low.shape == codes.shape[1:]
            assert (low <= codes).all() and (codes <= high).all()


def test_scores_stay_equal_on_the_probe_whatever_the_network() -> None:
    smaller = 0
    for seed in range(20):
        net = drawn(seed)
        x = samples(np.random.default_rng(seed), net.shape, 12)
        smaller += sum(units(checked(net, x))) < sum(units(hs.simplify(net)))
    assert smaller > 5


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("code", CODES)
def test_convolutions_keep_their_scores_on_the_probe(code: str, padding: int, pooled: bool) -> None:
    for seed in range(2):
        net = network(
            seed,
            shape=(2, 6, 7),
            widths=(8, 7, 9),
            kinds=("8-bit", "binary", "ternary", "8-bit"),
            codes=(code,) * 3,
            stairs=(1, 2, 1),
            padding=padding,
            pool=2 * pooled,
        )
        x = samples(np.random.default_rng(seed), net.shape, 9)
        small = checked(net, x[1::4])
        assert sum(units(small)) < sum(units(net))


def test_other_inputs_may_get_other_scores() -> None:
    net = hard((2,), dense([[1, 0], [0, 1]], [99, 99]), dense([[5, 7]]))
    probe = np.array([[200, 0], [200, 200]], np.uint8)
    small, folded = hs.fold_constants(net, probe)
    assert folded == [Folded(0, 0, 1)]
    assert small(np.array([[0, 0], [0, 200]], np.uint8)).tolist() == [[5], [12]]
    assert net(np.array([[0, 0], [0, 200]], np.uint8)).tolist() == [[0], [7]]


@pytest.mark.parametrize(
    ("code", "padding", "value", "left"),
    [
        (STEP, 0, 1, 1),
        (STEP, 1, 0, 1),  # worth 0, as the border is
        (STEP, 1, 1, 2),
        (SIGN, 0, 0, 1),
        (SIGN, 1, 0, 2),  # worth -1
        (Encoding(np.array(1), np.array(1)), 1, 1, 1),  # worth 0
        (Encoding(np.array(-1), np.array(-1)), 1, 1, 1),  # 1 - code, as freezing makes it
    ],
)
def test_constant_channel_goes_where_the_border_sees_it_too(
    code: Encoding, padding: int, value: int, left: int
) -> None:
    first = Conv(np.ones((2, 1, 1, 1), np.int8), np.array([[99], [200 if value == 0 else 10]]))
    weight = np.random.default_rng(0).choice([-1, 1], (3, 2, 3, 3)).astype(np.int8)
    second = Conv(weight, np.array([[1], [-2], [0]]), code, (1, 1), (padding,) * 2)
    shape = second.out_shape((2, 4, 4))
    scores = np.random.default_rng(1).integers(1, 9, (2, int(np.prod(shape))))
    net = hard((1, 4, 4), first, second, Flatten(), dense(scores))
    probe = np.random.default_rng(2).integers(50, 180, (300, 1, 4, 4)).astype(np.uint8)
    assert Folded(0, 1, value) in constants(net, probe)
    small = checked(net, probe)
    assert units(small)[0] == left
    assert small.rows()[1].bits == net.rows()[1].bits == 1  # no zeros among binary weights


def test_channel_that_differs_between_border_and_middle_is_not_constant() -> None:
    bits = Conv(np.ones((1, 1, 1, 1), np.int8), np.array([[-1]]))  # always 1
    framed = Conv(np.ones((1, 1, 3, 3), np.int8), np.array([[8]]), STEP, (1, 1), (1, 1))  # 1 where nine ones are seen
    net = hard((1, 4, 4), bits, framed, Flatten(), dense(np.arange(1, 17).reshape(1, -1)))
    probe = np.zeros((5, 1, 4, 4), np.uint8)
    assert hs.fold_constants(net, probe)[1] == [Folded(0, 0, 1)]
    assert checked(net, probe)(probe).tolist() == [[6 + 7 + 10 + 11]] * 5


def test_stairs_stop_at_any_level() -> None:
    net = hard((2,), dense([[1, 1], [1, 0]], [[9, 99, 600], [9, 99, 200]]), dense([[3, 4]], bias=[1]))
    probe = np.array([[60, 50], [210, 20], [110, 110]], np.uint8)
    small, folded = hs.fold_constants(net, probe)
    assert folded == [Folded(0, 0, 2)]
    assert isinstance(small.layers[1], Dense) and small.layers[1].bias is not None
    assert small.layers[1].bias.tolist() == [1 + 3 * 2]
    assert checked(net, probe)(probe).tolist() == [[7 + 4], [7 + 12], [7 + 8]]


def test_probe_of_one_row_leaves_one_unit_a_layer_and_its_scores() -> None:
    for seed in range(5):
        net = network(seed, codes=("sign", "step"))
        row = samples(np.random.default_rng(seed), net.shape, 1)
        small = checked(net, row)
        assert units(small) == [1, 1]
        assert len(small(row)[0]) == 4  # the read-out keeps its outputs


def test_units_below_a_folded_one_are_read_no_more() -> None:
    net = hard((2,), dense([[1, 0], [0, 1]], [99, 99]), dense([[1, 0], [0, 1]], [0, 0]), dense([[1, 2]]))
    assert units(checked(net, PAIRS[PAIRS[:, 0] > 99])) == [1, 1]


def test_nothing_constant_is_nothing_folded() -> None:
    net = hard((2,), dense([[1, 2], [-3, 1]], [150, -9]), dense([[1, 2]]))
    small, folded = hs.fold_constants(net, PAIRS)
    assert folded == [] and units(small) == [2]


def test_numbers_and_codes_are_the_same_probe() -> None:
    net = replace(network(0), grid=hs.Grid(0.5, 3))
    codes = samples(np.random.default_rng(0), net.shape, 700)[::4]
    assert hs.fold_constants(net, net.grid.value(codes))[1] == hs.fold_constants(net, codes)[1] == constants(net, codes)


def test_rounding_is_no_longer_known_once_a_probe_decides() -> None:
    net = replace(network(0), rounding=Rounding(1, 2, 3, 4))
    assert hs.fold_constants(net)[0].rounding == net.rounding
    assert hs.fold_constants(net, np.zeros((2, 12), np.uint8))[0].rounding is None


@pytest.mark.parametrize(
    ("probe", "message"),
    [(np.zeros((0, 12), np.uint8), "the probe has no rows"), (np.zeros((3, 5), np.uint8), r"shape \(5,\)")],
)
def test_bad_probe_is_refused(probe: NDArray[np.uint8], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hs.fold_constants(network(0), probe)


def test_trained_network_loses_the_units_that_its_training_rows_never_move(digits: hs.data.Data) -> None:
    net = hs.nets.mlp(64, 40, 24, 10, norm=False)
    net[1].bias.data[:6] = 8.0  # on for every digit, though an input exists that turns them off
    frozen = hs.freeze(hs.nets.mlp(64, 40, 24, 10, norm=False), calibrate=digits.train)
    started = hs.freeze(net, calibrate=digits.train)
    x = digits.train.x.numpy()
    for each in (frozen, started):
        small, folded = hs.fold_constants(each, x)
        assert np.array_equal(small(x), each(x))
        assert units(small)[0] == 40 - sum(one.layer == 1 for one in folded)
    assert {(1, unit) for unit in range(6)} <= {(one.layer, one.unit) for one in folded}
    assert not hs.fold_constants(started)[1]


def test_pooling_between_changes_nothing_of_it() -> None:
    first = Conv(np.array([1, 1]).reshape(2, 1, 1, 1), np.array([[99], [250]]))
    net = hard((1, 4, 4), first, Pool((2, 2), (2, 2)), Flatten(), dense(np.arange(1, 9).reshape(1, -1)))
    probe = np.random.default_rng(0).integers(0, 240, (50, 1, 4, 4)).astype(np.uint8)
    assert units(checked(net, probe)) == [1]
