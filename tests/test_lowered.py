"""Lowering: sums over codes give every code and score of the frozen network."""

from __future__ import annotations

import numpy as np
import pytest

import hardstep as hs
from hardstep.hard_layers import Conv, Dense, Encoding, Flatten, Pool, exact_product
from hardstep.hardnet import HardNet
from hardstep.lowered import Sums, lower
from tests.networks import drawn, samples


@pytest.mark.parametrize("seed", range(60))
def test_lowered_network_gives_the_same_codes_and_scores(seed: int) -> None:
    net = drawn(seed)
    x = samples(np.random.default_rng(seed), net.shape, 40)
    wanted = [codes for layer, codes in zip(net.layers, net.trace(x), strict=True) if not isinstance(layer, Flatten)]
    codes = x.reshape(len(x), *lower(net)[0].shape)
    for layer, want in zip(lower(net), wanted, strict=True):
        if isinstance(layer, Sums):
            assert layer.top >= codes.max()
            assert layer.threshold is None or layer.least - 1 <= layer.threshold.min()
        codes = layer.run(codes) if isinstance(layer, Sums) else layer.run(codes, exact_product)
        assert np.array_equal(codes.reshape(len(x), -1), want.reshape(len(x), -1))


def test_sign_layers_become_binary_weights_on_bits() -> None:
    weight = np.array([[1, -1, 1]], np.int8)
    sign = Encoding(np.array(2), np.array(1))
    net = HardNet((3,), hs.Grid(1.0, 0), (Dense(weight, np.array([[0]]), sign), Dense(weight[:, :1], None, sign)))
    first, last = lower(net)
    assert isinstance(first, Sums)
    assert isinstance(last, Sums)
    assert first.weight.ravel().tolist() == [1, -1, 1]
    assert last.weight.ravel().tolist() == [2]
    assert last.bias.tolist() == [-1]


def test_thresholds_depend_on_the_position_only_where_padding_meets_a_zero() -> None:
    weight = np.ones((2, 1, 3, 3), np.int8)
    step, sign = Encoding(), Encoding(np.array(2), np.array(1))
    read = Dense(np.ones((1, 32), np.int8), None)
    for value, size in ((step, 1), (sign, 4)):
        conv = Conv(weight, np.zeros((2, 1), np.int64), value, padding=(1, 1))
        net = HardNet((1, 4, 4), hs.Grid(1.0, 0), (conv, Flatten(), read))
        first = lower(net)[0]
        assert isinstance(first, Sums)
        assert first.threshold is not None
        assert first.threshold.shape == (2, 1, size, size)


def test_sum_that_could_leave_32_bits_is_refused_by_name() -> None:
    weight = np.full((1, 300), 2**15 - 1, np.int16)
    net = HardNet((300,), hs.Grid(1.0, 0), (Dense(weight, None, bias=np.array([0])),))
    with pytest.raises(ValueError, match="layer 0 sums 300 codes of at most 255 and could span 2506675501"):
        lower(net)


def test_gain_that_differs_between_positions_is_refused_in_a_convolution() -> None:
    gain = np.arange(1, 17).reshape(1, 4, 4)
    conv = Conv(np.ones((1, 1, 1, 1), np.int8), np.zeros((1, 1), np.int64), Encoding(gain, np.array(0)))
    net = HardNet(
        (1, 4, 4), hs.Grid(1.0, 0), (conv, Pool((2, 2), (2, 2)), Flatten(), Dense(np.ones((1, 4), np.int8), None))
    )
    with pytest.raises(ValueError, match="layer 0 reads codes whose gain differs between positions"):
        lower(net)
