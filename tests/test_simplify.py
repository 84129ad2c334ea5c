"""Simplify: fewer units, the same scores for every input."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import hardstep as hs
from hardstep import cli
from hardstep.hard_layers import Conv, Dense, Encoding, Flatten, Layer, Pool
from hardstep.hardnet import HardNet

from .networks import SIGN, STEP, dense, encoding, hard, units

PAIRS = np.array(list(product(range(256), repeat=2)), np.uint8)  # all samples of two inputs
WEIGHTS: dict[str, list[int]] = {
    "binary": [-1, 1],
    "ternary": [-1, 0, 1],
    "multiples": [-6, -3, 0, 3],
    "8-bit": [-128, -90, -7, 0, 1, 50, 127],
}


def checked(net: HardNet, x: NDArray[np.uint8]) -> HardNet:
    """Simplify and check what must hold for every network."""
    small = hs.simplify(net)
    assert np.array_equal(small(x), net(x))
    assert small.nbytes <= net.nbytes
    assert (small.shape, small.grid, small.scale, small.rounding) == (net.shape, net.grid, net.scale, net.rounding)
    again = hs.simplify(small)
    assert again.rows() == small.rows()
    for one, other in zip(again.layers, small.layers, strict=True):
        if isinstance(one, Dense | Conv) and isinstance(other, Dense | Conv):
            assert one.weight.dtype == other.weight.dtype
            assert np.array_equal(one.weight, other.weight)
            assert one.threshold is other.threshold is None or np.array_equal(one.threshold, other.threshold)
    return small


def planted(
    generator: np.random.Generator, rows: tuple[int, ...], weights: str, stairs: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Weights and thresholds with a constant unit, an equal one and a complement among random ones."""
    weight = generator.choice(WEIGHTS[weights], rows)
    reach = np.abs(weight).reshape(len(weight), -1).sum(axis=1, keepdims=True) * 2 + 1
    threshold = np.sort(generator.integers(-reach // 2, reach, (len(weight), stairs)), axis=1)
    one, other, constant, source = generator.permutation(len(weight))[:4]
    weight[one], threshold[one] = weight[source], threshold[source]
    weight[other], threshold[other] = -np.maximum(weight[source], -127), -threshold[source, ::-1] - 1
    threshold[constant] = generator.choice([-1, 1]) * 10**6
    return weight, threshold


def readout(generator: np.random.Generator, count: int, size: int, weights: str, code: Encoding) -> Dense:
    """Two scores that do not read one of the units."""
    weight = generator.choice(WEIGHTS[weights], (2, count, size // count))
    weight[:, generator.integers(count)] = 0
    return Dense(weight.reshape(2, -1).astype(np.int16), None, code, generator.integers(-9, 9, 2))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("kind", ["step", "sign", "mixed", "staircase"])
def test_dense_networks_keep_every_score_of_all_inputs(kind: str, weights: str) -> None:
    generator = np.random.default_rng(0)
    top, code, width, layers = 3 if kind == "staircase" else 1, STEP, 2, []
    for count in (7, 6):
        weight, threshold = planted(generator, (count, width), weights, top)
        layers.append(Dense(weight.astype(np.int16), threshold * (1 if layers else 100), code))
        code, width = encoding(generator, kind, (count,), top), count
    net = hard((2,), *layers, readout(generator, width, width, weights, code))
    assert sum(units(checked(net, PAIRS))) < sum(units(net))


@pytest.mark.parametrize("kind", ["step", "sign", "mixed", "staircase"])
def test_networks_of_bits_keep_every_score_of_all_patterns(kind: str) -> None:
    bits = dense(np.eye(8), np.full(8, 127))
    patterns = np.array(list(product([0, 127, 128, 255], repeat=4)), np.uint8).repeat(2, axis=1)
    patterns = np.concatenate([patterns, np.array(list(product([0, 255], repeat=8)), np.uint8)])
    for seed in range(8):
        generator = np.random.default_rng(seed)
        top = 2 if kind == "staircase" else 1
        weight, threshold = planted(generator, (9, 8), "ternary", top)
        code = encoding(generator, kind, (9,), top)
        net = hard((8,), bits, Dense(weight, threshold, STEP), readout(generator, 9, 9, "ternary", code))
        assert units(checked(net, patterns))[1] < 9


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("padding", [(0, 0), (1, 0), (1, 1)])
@pytest.mark.parametrize("kind", ["step", "sign", "mixed", "staircase"])
def test_convolutions_with_padding_pooling_and_flatten_keep_every_score(
    kind: str, padding: tuple[int, int], pooled: bool
) -> None:
    for weights in ("binary", "ternary", "8-bit"):
        generator = np.random.default_rng(0)
        top, shape = 2 if kind == "staircase" else 1, (2, 6, 9)
        code = Encoding(np.array(1), np.array([[[100]], [[3]]]))
        layers: list[Layer] = []
        for count, size in ((6, (2, 3)), (5, (2, 2))):
            weight, threshold = planted(generator, (count, shape[0], *size), weights, top)
            added = [Conv(weight, threshold * (1 if layers else 60), code, (1, 1), padding), Pool((2, 2), (1, 2))]
            for layer in added[: 1 + pooled]:
                layers.append(layer)
                shape = layer.out_shape(shape)
            code = encoding(generator, kind, shape, top)
        last = readout(generator, 5, int(np.prod(shape)), weights, code.flat(shape))
        net = hard((2, 6, 9), *layers, Flatten(), last)
        x = generator.integers(0, 256, (100, 2, 6, 9)).astype(np.uint8)
        x[::2] = np.where(x[::2] > 127, 255, 0)
        assert sum(units(checked(net, x))) < sum(units(net))


def test_each_kind_of_needless_unit_is_removed_and_nothing_else() -> None:
    first = dense(
        [[1, 2], [1, -1], [3, 1], [2, 4], [-1, -2], [1, 1], [-2, 2], [1, 0]],
        # kept, kept, dead, equal to 0 (2a > 301 <=> a > 150), complement of 0, always on, complement of 1, never on
        [150, 0, 9, 301, -151, -1, -1, 255],
    )
    scores = dense([[5, 1, 0, 2, 1, 7, 1, 9], [-3, 2, 0, 4, 0, 1, 3, 9]], bias=[10, 20])
    small = checked(hard((2,), first, scores), PAIRS)
    assert units(small) == [2]
    assert isinstance(small.layers[1], Dense) and small.layers[1].bias is not None
    assert small.layers[1].weight.tolist() == [[5 + 2 - 1, 1 - 1], [-3 + 4 - 0, 2 - 3]]
    assert small.layers[1].bias.tolist() == [10 + 1 + 7 + 1, 20 + 0 + 1 + 3]


def test_removal_reaches_back_and_forth_through_the_layers() -> None:
    net = hard(
        (2,),
        dense([[1, 0], [0, 1], [1, 1]], [10, 20, 30]),
        dense([[1, 1, 0], [0, 0, 1], [1, 1, 1]], [1, 0, 3]),  # the last one never fires, the second is not read
        dense([[1, 0, 5], [0, 0, 1]], [0, 0]),  # so its second unit never fires
        dense([[4, 2]]),
    )
    assert units(checked(net, PAIRS)) == [2, 1, 1]


def test_constant_network_keeps_one_unit_a_layer_and_its_scores() -> None:
    net = hard(
        (2,), dense([[1, 2], [3, 4]], [5, 6]), dense([[1, 1], [2, -1]], [-1, -2]), dense([[7, 8], [1, 2]], bias=[1, 0])
    )
    small = checked(net, PAIRS)
    assert units(small) == [1, 1]
    assert small(PAIRS[:1]).tolist() == [[16, 3]]


def test_rows_are_brought_to_lowest_terms() -> None:
    small = checked(hard((2,), dense([[40, 20], [60, 90]], [1010, 999]), dense([[1, 2]])), PAIRS)
    first = small.layers[0]
    assert isinstance(first, Dense) and first.threshold is not None
    assert first.weight.tolist() == [[2, 1], [2, 3]]
    assert first.threshold.tolist() == [[50], [33]]


def test_sums_of_signs_skip_every_second_integer() -> None:
    bits = dense(np.eye(2), [127, 127])
    net = hard((2,), bits, dense([[1, 1], [1, 1], [1, -1]], [0, 1, 0], SIGN), dense([[1, 2, 3]], encoding=SIGN))
    assert units(checked(net, PAIRS)) == [2, 2]  # a > 0 <=> a > 1 where a is even


def test_sums_of_signs_beside_padding_skip_nothing() -> None:
    bits = Conv(np.ones((1, 1, 1, 1), np.int64), np.array([[127]]))
    rows = np.array([[1, 1, 1], [1, 1, 1]]).reshape(2, 1, 1, 3)
    scores = dense(np.random.default_rng(0).integers(1, 9, (3, 8)), encoding=SIGN)
    net = hard((1, 1, 4), bits, Conv(rows, np.array([[0], [1]]), SIGN, (1, 1), (0, 1)), Flatten(), scores)
    x = np.array(list(product([0, 255], repeat=4)), np.uint8)[:, None, None]
    assert units(checked(net, x)) == [1, 2]


def test_stairs_count_as_one_unit() -> None:
    first = dense([[1, 1], [1, 1], [-1, -1], [1, 1]], [[9, 90], [9, 91], [-91, -10], [-1, 600]])
    small = checked(hard((2,), first, dense([[1, 2, 4, 8]])), PAIRS)
    assert units(small) == [2]  # the third is 2 - the first, the last is always 1
    assert isinstance(small.layers[1], Dense) and small.layers[1].bias is not None
    assert small.layers[1].weight.tolist() == [[1 - 4, 2]]
    assert small.layers[1].bias.tolist() == [2 * 4 + 8]


@pytest.mark.parametrize(
    ("code", "padding", "left"),
    [
        (STEP, (0, 0), 2),  # constant, equal and complement go
        (STEP, (0, 1), 4),  # the constants 1 are one; the value 1 of padded places cannot move into a threshold
        (SIGN, (0, 1), 3),  # minus a sign is a sign, at borders too, but a constant is not 0
        (Encoding(np.array(1), np.array(1)), (1, 1), 3),  # the constant is worth 0, as padding is
    ],
)
def test_before_a_convolution_only_what_padding_allows_is_removed(
    code: Encoding, padding: tuple[int, int], left: int
) -> None:
    rows = np.array([[[[1]]], [[[2]]], [[[-1]]], [[[1]]], [[[1]]], [[[1]]]])
    rows = np.concatenate([rows, -np.roll(rows, 1)], axis=1)
    rows[1], rows[2] = 2 * rows[0], -rows[0]
    threshold = np.array([10, 21, -11, 60, -1000, -900])[:, None]
    weight = np.random.default_rng(0).integers(-9, 10, (3, 6, 2, 2))
    second = Conv(weight, np.array([[4], [1], [-3]]), code, (1, 1), padding)
    shape = second.out_shape((6, 3, 3))
    scores = np.random.default_rng(1).integers(-9, 9, (2, int(np.prod(shape))))
    net = hard((2, 3, 3), Conv(rows, threshold), second, Flatten(), dense(scores))
    x = np.random.default_rng(2).integers(0, 256, (500, 2, 3, 3)).astype(np.uint8)
    x[::2] //= 12
    assert units(checked(net, x))[0] == left


@pytest.mark.parametrize(("pooled", "left"), [(False, 1), (True, 2)])
def test_complements_are_not_merged_through_pooling(pooled: bool, left: int) -> None:
    first = Conv(np.array([1, 1, -1]).reshape(3, 1, 1, 1), np.array([[99], [99], [-100]]))
    middle: list[Layer] = [Pool((1, 2), (1, 2)), Flatten()] if pooled else [Flatten()]
    scores = dense([[1, 2, 4]] if pooled else [[1, 3, 2, 5, 4, 6]])
    assert units(checked(hard((1, 1, 2), first, *middle, scores), PAIRS[:, None, None])) == [left]


def test_channel_is_dead_only_if_none_of_its_places_is_read() -> None:
    first = Conv(np.array([1, 2, 3]).reshape(3, 1, 1, 1), np.array([[99], [299], [8]]))
    scores = dense([[1, 0, 0, 0, 0, 5]])
    assert units(checked(hard((1, 1, 2), first, Flatten(), scores), PAIRS[:, None, None])) == [2]


@pytest.mark.parametrize(("equal", "left"), [(2, 40), (39, 2)])
def test_binary_columns_are_added_only_if_that_makes_the_network_smaller(equal: int, left: int) -> None:
    generator = np.random.default_rng(0)
    net = hard(
        (2,),
        dense(np.ones((40, 2)), np.r_[np.full(equal, 100), 101 + np.arange(40 - equal)]),
        dense(generator.choice([-1, 1], (20, 40))),
    )
    assert units(checked(net, PAIRS)) == [left]


def test_columns_are_added_while_they_fit_their_bits() -> None:
    weight = np.random.default_rng(0).integers(-30, 30, (20, 30))
    weight[0, :4] = [100, 27, 1, 0]
    net = hard((2,), dense(np.ones((30, 2)), np.r_[9, 9, 9, 10:37]), dense(weight))
    small = checked(net, PAIRS)
    assert units(small) == [29]  # 100 + 27 fits 8 bits, 100 + 27 + 1 would make all 20 rows wider
    assert small.rows()[1].bits == 8


def test_unused_inputs_stay_part_of_the_shape() -> None:
    net = hard((3,), dense([[1, 0, 0], [0, 0, 1]], [10, 20]), dense([[1, 0]]))
    small = checked(net, np.random.default_rng(0).integers(0, 256, (500, 3)).astype(np.uint8))
    assert small.rows()[0].takes == (3,)
    assert small.layers[0].weight.tolist() == [[1, 0, 0]]  # type: ignore[union-attr]


@pytest.mark.parametrize(("room", "left"), [(0, 3), (99, 3), (100, 2), (-1, 2)])
def test_sums_stay_within_the_accumulator(room: int, left: int) -> None:
    first = dense([[1, 1], [-1, -1], [1, 0]], [9, -10, 7])
    # 100 a - 100 (1 - a) = 200 a - 100: the bias moves by 100; with room -1 the sums did not fit before
    scores = dense([[100, -100, 1]], bias=[201 - (2**31 - 1) + room])
    assert units(checked(hard((2,), first, scores), PAIRS)) == [left]


@pytest.mark.parametrize(
    "method", [hs.GradientDescent(batch_size=64), hs.MarginBCD()], ids=["gradient descent", "block descent"]
)
def test_trained_network_loses_exactly_the_units_that_are_no_longer_read(
    method: hs.Method[Any], digits: hs.data.Data, tmp_path: Path
) -> None:
    net = hs.nets.mlp(64, 40, 24, 10, norm=isinstance(method, hs.GradientDescent))
    net = torch.nn.Sequential(torch.nn.Flatten(), *list(net)[1:])
    hs.fit(net, digits, method, sweeps=2, progress=False)
    with torch.no_grad():
        net[-1].weight[:, [0, 3, 4, 17]] = 0
    hard = hs.freeze(net, calibrate=digits.train)
    assert digits.test is not None
    x = digits.test.x.numpy()
    small = checked(hard, x)
    assert units(small) == [40, 20]
    assert isinstance(hard.layers[2], Dense) and isinstance(small.layers[2], Dense)
    kept = np.setdiff1d(np.arange(24), [0, 3, 4, 17])
    assert np.array_equal(np.sign(small.layers[2].weight), np.sign(hard.layers[2].weight[kept]))
    assert hs.verify(small, x, forms={"before": hard}, factories={})
    small.save(tmp_path / "net")
    assert HardNet.load(tmp_path / "net").summary() == small.summary()
    assert np.array_equal(HardNet.load(tmp_path / "net")(x), hard(x))


def test_weights_of_minus_one_and_zero_come_back_from_a_file(tmp_path: Path) -> None:
    net = hard((2,), dense([[-1, 0], [0, -1]], [-9, -8]), dense(np.zeros((1, 2)), bias=[3]))
    for each in (net, checked(net, PAIRS)):
        each.save(tmp_path / "net")
        assert np.array_equal(HardNet.load(tmp_path / "net")(PAIRS), net(PAIRS))


def test_command_writes_a_smaller_file_beside_the_frozen_hard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = hard((2,), dense([[1, 2], [2, 4], [1, 1]], [9, 18, 600]), dense([[1, 2, 3]]))
    net.save(tmp_path / "hardnet.safetensors")
    for run in (tmp_path, tmp_path / "hardnet.safetensors"):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["simplify", str(run)])
        assert not stopped.value.code
        small = HardNet.load(tmp_path / "simplified.safetensors")
        assert units(small) == [1]
        out = capsys.readouterr().out.replace("\n", "")
        assert f"bytes: {net.nbytes} before, {small.nbytes} after" in out and "simplified.safetensors" in out
    assert HardNet.load(tmp_path / "hardnet.safetensors").nbytes == net.nbytes
