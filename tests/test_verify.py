"""Verify: every form that can run here, on inputs that look for trouble, and where a difference begins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import hardstep as hs
from hardstep.engine import available_isas
from hardstep.export.forms import Form, export_forms, trouble
from hardstep.export.plan import Kernel
from hardstep.hard_layers import Conv, Dense
from hardstep.hardnet import HardNet
from tests.networks import network, samples


@pytest.mark.parametrize("shape", [(12,), (1, 6, 6)])
def test_every_form_here_is_equal(shape: tuple[int, ...]) -> None:
    net = network(4, shape=shape, widths=(6, 9), codes=("sign", "step"))
    result = hs.verify(net, samples(np.random.default_rng(0), shape, 20))
    assert result.ok
    assert all(check.scores_differing == 0 and not check.refused for check in result.checks)
    names = {check.form for check in result.checks}
    assert {"file", "packed bits", *export_forms()} <= names
    assert not available_isas() or "engine, two threads" in names
    assert {f"engine, {isa}, {kernel.value}" for isa in available_isas() for kernel in Kernel} <= names


@pytest.mark.parametrize("wrong", [0, 1])
def test_first_difference_is_named_with_its_layer_and_unit(wrong: int) -> None:
    net = network(4, shape=(12,), widths=(6, 9))

    def broken(hard: HardNet) -> Form:
        layers = list(hard.layers)
        layer = layers[wrong]
        assert isinstance(layer, Dense | Conv)
        if layer.threshold is not None:
            limit = layer.threshold.copy()
            limit[3] += 10**6
            layers[wrong] = replace(layer, threshold=limit)
        return replace(hard, layers=tuple(layers))

    result = hs.verify(net, samples(np.random.default_rng(0), (12,), 50), factories={"broken": broken})
    assert not result
    check = result.checks[-1]
    assert check.scores_differing > 0
    assert f"begins in layer {wrong}, unit 3: code 0, reference 1" in check.first


def test_form_that_cannot_hold_the_network_says_why() -> None:
    def refuses(hard: HardNet) -> Form:
        raise ValueError("layer 1 is too wide")

    result = hs.verify(network(0), samples(np.random.default_rng(0), (12,), 5), factories={"small chip": refuses})
    assert result.checks[-1].refused == "layer 1 is too wide"


def test_inputs_that_look_for_trouble_hold_ties_and_all_inputs_of_a_small_network() -> None:
    net = network(4, shape=(12,), widths=(20, 9))
    codes = trouble(net)
    first = net.layers[0]
    assert isinstance(first, Dense)
    assert first.threshold is not None
    acc = first.encoding.value(codes) @ first.weight.T.astype(np.int64)
    assert (acc == first.threshold[:, 0]).any()
    assert (acc == first.threshold[:, 0] + 1).any()
    assert len(np.unique(trouble(network(0, shape=(2,))), axis=0)) == 2**16
