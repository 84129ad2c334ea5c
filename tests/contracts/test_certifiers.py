"""What every certifier promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hardstep.certify.certificate import Certifier, Verdict
from hardstep.certify.feasible import Feasible
from hardstep.certify.optimality import Optimality
from hardstep.certify.overflow import NoOverflow
from hardstep.convex.oracle_local import LocalSearch
from hardstep.convex.oracle_stumps import Stumps
from hardstep.grid import Grid
from hardstep.hard_layers import Dense
from hardstep.hardnet import HardNet

from .test_rules import concrete

ROWS = np.random.default_rng(3).integers(0, 9, (12, 6)).astype(float)
LABELS = np.random.default_rng(5).integers(0, 3, 12)
TARGETS = np.random.default_rng(4).normal(size=(12, 3))
OVERFLOW = [NoOverflow(8), NoOverflow(12), NoOverflow(14), NoOverflow(32)]
CERTIFIERS: list[Certifier] = [
    *OVERFLOW,
    Optimality(ROWS, TARGETS, 0.5, gap=None, oracle=Stumps()),
    Optimality(ROWS, TARGETS, 0.5, gap=0.1, layers=1),
    Optimality(ROWS, TARGETS, 0.5, gap=0.1, oracle=LocalSearch(chains=4)),
    Feasible(ROWS, LABELS),
    Feasible(ROWS[:1], LABELS[:1]),
]
every_overflow = pytest.mark.parametrize("certifier", OVERFLOW, ids=repr)
every_certifier = pytest.mark.parametrize("certifier", CERTIFIERS, ids=repr)


def nets() -> list[HardNet]:
    found = []
    for seed, size in [(0, 1), (1, 3), (2, 60)]:
        generator = np.random.default_rng(seed)
        first = Dense(generator.integers(-size, size + 1, (5, 6)).astype(np.int8), np.zeros((5, 1), np.int64))
        last = Dense(generator.integers(-100, 101, (3, 5)).astype(np.int8), None, bias=np.arange(3))
        found.append(HardNet((6,), Grid(1.0, 0), (first, last)))
    return found


def test_every_subclass_is_listed() -> None:
    assert concrete(Certifier) == {type(certifier) for certifier in CERTIFIERS}


@every_certifier
@pytest.mark.parametrize("net", nets(), ids=["small", "middle", "large"])
def test_verdict_is_checked_from_its_own_data(certifier: Certifier, net: HardNet) -> None:
    certificate = certifier.certify(net)
    assert certifier.check(certificate, net)
    if certificate.verdict is not Verdict.REFUTED:
        forged = replace(certificate, bounds={name: value // 2 for name, value in certificate.bounds.items()})
        assert not certifier.check(forged, net)
    flipped = {Verdict.PROVED: Verdict.UNKNOWN, Verdict.UNKNOWN: Verdict.PROVED}.get(certificate.verdict)
    if flipped:
        assert not certifier.check(replace(certificate, verdict=flipped), net)


@every_overflow
@pytest.mark.parametrize("net", nets(), ids=["small", "middle", "large"])
def test_verdict_is_sound_against_the_extreme_inputs(certifier: NoOverflow, net: HardNet) -> None:
    first = net.layers[0]
    assert isinstance(first, Dense)
    corners = np.array(np.meshgrid(*[[0, 255]] * 6)).reshape(6, -1).T  # a linear sum is largest at a corner
    largest = int(np.abs(corners @ first.weight.T.astype(np.int64)).max())
    limit = 2 ** (certifier.bits - 1) - 1
    verdict = certifier.certify(net).verdict
    assert verdict is not Verdict.PROVED or largest <= limit
    assert (verdict is Verdict.REFUTED) == (largest > limit)


def test_forged_witness_is_rejected() -> None:
    net = nets()[2]
    certificate = NoOverflow(12).certify(net)
    assert certificate.verdict is Verdict.REFUTED
    forged = replace(certificate, witness={"codes": np.zeros(6, np.uint8)})
    assert not NoOverflow(12).check(forged, net)


def test_width_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match="an accumulator has 8 to 64 bits, got 4"):
        NoOverflow(4)
