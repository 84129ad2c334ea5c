"""Exact target propagation: XOR and parity, planted networks, proofs and refusals, and that the loss never rises."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from itertools import product as words
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hardstep as hs
from hardstep.certify.certificate import Certificate, Verdict
from hardstep.certify.feasible import Feasible
from hardstep.certify.separability import check
from hardstep.certify.shapes import dichotomies, exhausted
from hardstep.methods.target_net import BitNet, Place, Rows, centred, correct, credits
from hardstep.parts import Samples

from .conftest import planted_net

CORNERS = np.array(list(words((0.0, 1.0), repeat=2)))
XOR = np.array([0, 1, 1, 0])


def table(x: Any, y: Any, outputs: int | None = None) -> hs.data.Data:
    """All rows for training."""
    rows = Samples(torch.tensor(np.asarray(x, np.float32)), torch.tensor(np.asarray(y, np.int64)))
    return hs.data.Data("table", rows, None, None, outputs or int(np.max(y)) + 1)


def parity(bits: int) -> hs.data.Data:
    x = np.array(list(words((0, 1), repeat=bits)))
    return table(x, x.sum(axis=1) % 2)


def trained(
    data: hs.data.Data, *hidden: int, seed: int = 0, sweeps: int = 20, **options: Any
) -> tuple[nn.Module, hs.Report]:
    net = hs.nets.mlp(data.shape[0], *hidden, data.outputs, norm=False, seed=seed)
    return net, hs.fit(net, data, hs.ExactTargetProp(**options), sweeps=sweeps, seed=seed, progress=False)


def rows_of(data: hs.data.Data) -> tuple[np.ndarray, np.ndarray]:
    x, y = data.train.take(list(range(len(data.train))))
    return x.numpy(), y.numpy()


def proved(net: nn.Module, data: hs.data.Data, folder: Path) -> Certificate:
    """Freeze, certify, write, read again and check."""
    hard = hs.freeze(net, calibrate=data.train, weight_bits=16)
    certifier = Feasible(*rows_of(data))
    certifier.certify(hard).save(folder / "feasible.safetensors")
    certificate = Certificate.load(folder / "feasible.safetensors")
    assert certifier.check(certificate, hard)
    return certificate


def spent(report: hs.Report) -> int:
    return int(report.records[-1].extra["proposals"])


@pytest.mark.parametrize("units", [2, 3, 4])
def test_search_solves_xor_within_sixty_proposals(units: int) -> None:
    solved = [
        spent(report) <= 60 and report.stopped.startswith("proved feasible")
        for _, report in (trained(parity(2), units, seed=seed, sweeps=1, proposals=60) for seed in range(30))
    ]
    assert sum(solved) >= 29


def test_published_proposal_solves_no_more_of_xor_than_its_start_had() -> None:
    starts, ends = 0, 0
    for seed in range(30):
        _, report = trained(parity(2), 2, seed=seed, sweeps=1, proposals=60, proposal=hs.GradientSign())
        solved = report.stopped.startswith("proved feasible")
        starts, ends = starts + (solved and spent(report) == 0), ends + solved
    assert starts <= ends <= starts + 2 <= 15


@pytest.mark.parametrize(("units", "seeds"), [(4, 30), (6, 10)])
def test_search_solves_parity_of_three_bits_within_three_hundred_proposals(units: int, seeds: int) -> None:
    reports = [trained(parity(3), units, seed=seed, sweeps=3)[1] for seed in range(seeds)]
    assert sum(report.stopped.startswith("proved feasible") for report in reports) >= seeds - seeds // 30


def test_network_is_right_in_floats_and_in_integers_and_the_certificate_holds(tmp_path: Path) -> None:
    for seed in range(2):
        data = parity(4)
        net, report = trained(data, 6, seed=seed)
        assert report.stopped == "proved feasible: each of 6 hidden units separates its targets, all 16 rows are right"
        assert hs.score(net, data.train) == 1.0
        assert hs.freeze(net, calibrate=data.train).rounding.steps_changed == 0
        certificate = proved(net, data, tmp_path)
        assert certificate.verdict is Verdict.PROVED
        assert certificate.bounds["right"] == 16


def test_planted_targets_are_feasible_at_once() -> None:
    generator = np.random.default_rng(0)
    teacher = planted_net(0, (6, 5, 4, 2))
    x = generator.integers(0, 4, (60, 6)).astype(np.float32)
    with torch.no_grad():
        y = teacher(torch.from_numpy(x)).argmax(dim=1).numpy()
    assert len(np.unique(y)) > 1
    report = hs.fit(teacher, table(x, y), hs.ExactTargetProp(warm=True), sweeps=3, progress=False)
    assert report.stopped.startswith("proved feasible: each of 9 hidden units")
    assert spent(report) == 0


def test_deeper_networks_are_searched_in_all_layers(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    x = generator.integers(0, 4, (24, 5)).astype(np.float32)
    data = table(x, (x[:, :2].sum(axis=1) > 2.5) ^ (x[:, 2] > x[:, 3]))
    net, report = trained(data, 8, 6, seed=2, sweeps=10)
    assert report.stopped.startswith("proved feasible: each of 14 hidden units")
    assert proved(net, data, tmp_path).verdict is Verdict.PROVED


def test_three_classes_and_a_beam_find_a_proof(tmp_path: Path) -> None:
    x = np.array(list(words((0, 1, 2), repeat=2)))
    data = table(x, (x.sum(axis=1)) % 3)
    net, report = trained(data, 6, seed=0, sweeps=20, beam=3)
    assert report.stopped.startswith("proved feasible")
    assert proved(net, data, tmp_path).verdict is Verdict.PROVED


def test_too_few_units_are_proved_by_trying_every_set_of_patterns(tmp_path: Path) -> None:
    net, report = trained(parity(2), 1, sweeps=50, stuck=20, proposals=20)
    assert report.stopped == (
        "proved infeasible: 1 hidden units have 6 sets of patterns on these rows, and no read-out of any of them is "
        "right on all rows"
    )
    found = exhausted(CORNERS, XOR, 2, units=1)
    assert found is not None
    assert len(found.patterns) == 6
    for pattern, refusal in zip(found.patterns, found.refusals, strict=True):
        assert check(refusal, pattern[:, None].astype(int), XOR)
    certificate = proved(net, parity(2), tmp_path)
    assert certificate.verdict is Verdict.REFUTED
    assert exhausted(np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2, 2, units=5) is None


def test_exhaustion_agrees_with_brute_force_over_all_labels() -> None:
    patterns = dichotomies(CORNERS)
    for labels in words((0, 1), repeat=4):
        y = np.array(labels)
        one = any((pattern == y).all() for pattern in patterns)
        found = exhausted(CORNERS, y, 2, units=1)
        assert found is not None
        assert (found.planes is not None) == one


def test_rows_that_contradict_each_other_end_the_fit_with_the_two_rows() -> None:
    data = table([[0, 0], [1, 2], [0, 0], [3, 3]], [0, 1, 1, 0])
    net, report = trained(data, 3)
    assert report.stopped == "proved infeasible: rows 0 and 2 are alike, with labels 0 and 1"
    assert len(report.records) == 1
    assert hs.score(net, data.train) == 0.75


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([[1.0, 2.0], [1.0, 3.0]], [1, 0]),
        ([[5.0, 0.0], [5.0, 1.0], [5.0, 2.0]], [0, 1, 0]),
        ([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], [1, 1, 0]),
        ([[0.0, 1e-6], [0.0, 2e-6], [0.0, 3e-6]], [1, 0, 1]),
    ],
    ids=["one row a class", "constant feature", "duplicates", "tiny"],
)
def test_degenerate_rows_are_proved(x: Any, y: Any) -> None:
    data = table(x, y, 2)
    net, report = trained(data, 3, sweeps=5)
    assert report.stopped.startswith("proved feasible")
    assert hs.score(net, data.train) == 1.0


def test_one_row_is_a_network_of_constant_units_and_no_training_data() -> None:
    rows = Rows(np.array([[3.0, 4.0]]), np.array([1]), hs.LinearPrograms())
    net = rows.net([np.ones((2, 3))], np.zeros((2, 3)))
    assert net.loss == 0
    assert correct(rows.widened(net), rows.y)
    assert rows.moved(net, Place(0, 0), np.array([True])) is None
    with pytest.raises(ValueError, match="the training part holds one class only, 1; give at least two"):
        table([[3, 4]], [1])


def test_weights_that_the_network_cannot_hold_are_no_proof() -> None:
    close = (1 + 2.0**-23 * np.arange(8)[:, None]).astype(np.float32)  # no bias of 32 bits lies between two of them
    _, report = trained(table(close, np.arange(8) % 2), 9, sweeps=20)
    assert report.stopped.startswith("all rows are right in double precision, but not with the weights as written")
    assert not any(record.admissible for record in report.records)


def test_network_that_is_returned_is_the_proved_one_whatever_the_validation_rows_say() -> None:
    x = np.array(list(words((0, 1), repeat=3)))
    rows = table(x, x.sum(axis=1) % 2).train
    against = Samples(torch.tensor(x, dtype=torch.float32), torch.tensor(1 - x.sum(axis=1) % 2))
    net, report = trained(hs.data.Data("parity", rows, against, None, 2), 4, sweeps=60, proposals=3)
    assert report.stopped.startswith("proved feasible")
    assert report.best == len(report.records) - 1
    assert hs.score(net, rows) == 1.0


def test_budgets_are_kept_and_prove_nothing() -> None:
    _, report = trained(parity(4), 2, sweeps=3, proposals=7, exhaust=0)
    assert [record.extra["proposals"] for record in report.records] == [7, 14, 21]
    assert report.stopped == "all 3 sweeps done"
    _, late = trained(parity(4), 2, sweeps=100, seconds=0.05, exhaust=0)
    assert late.stopped.startswith("the 0.05 seconds are spent: the best found has ")
    assert late.stopped.endswith("of 16 rows wrong (UNKNOWN)")


@pytest.mark.parametrize("beam", [1, 3])
def test_loss_never_rises_and_the_seed_decides_everything(beam: int) -> None:
    runs = [trained(parity(4), 3, seed=4, sweeps=5, proposals=30, stuck=60, beam=beam, exhaust=0) for _ in range(2)]
    losses = [record.objective for record in runs[0][1].records]
    assert losses == [record.objective for record in runs[1][1].records]
    assert all(later <= earlier for earlier, later in pairwise(losses))
    for a, b in zip(runs[0][0].parameters(), runs[1][0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_each_move_is_what_fitting_from_scratch_gives() -> None:
    generator = np.random.default_rng(3)
    x, y = generator.integers(0, 3, (20, 4)).astype(float), generator.integers(0, 3, 20)
    rows = Rows(x, y, hs.LinearPrograms())
    start = [generator.normal(size=(5, 5)), generator.normal(size=(4, 6))]
    net = rows.net(start, np.zeros((3, 5)))
    for _ in range(40):
        place = Place(int(generator.integers(2)), int(generator.integers(4)))
        targets = hs.Flip(0.3).propose(net.bits[place.layer][:, place.unit], np.zeros(20), generator)
        found = rows.moved(net, place, targets)
        if found is None:
            continue
        again = Rows(x, y, hs.LinearPrograms()).net(found.weights, np.zeros((3, 5)))
        assert all(np.array_equal(a, b) for a, b in zip(found.bits, again.bits, strict=True))
        assert found.loss == pytest.approx(again.loss, abs=1e-6)
        wide = rows.widened(found)
        assert all(
            np.array_equal((v @ w[:, :-1].T + w[:, -1] > 0), b)
            for v, w, b in zip([x, found.bits[0]], wide.weights, wide.bits, strict=True)
        )
        net = found


def test_credits_are_the_slopes_of_the_hinges() -> None:
    generator = np.random.default_rng(4)
    y = generator.integers(0, 3, 12)
    bits = (generator.random((12, 5)) < 0.5, generator.random((12, 4)) < 0.5)
    weights = (generator.normal(size=(5, 4)), generator.normal(size=(4, 6)))
    readout = generator.normal(size=(3, 5))
    found = credits(BitNet(weights, bits, readout, 0.0), y)
    h = torch.tensor(bits[1], dtype=torch.float64, requires_grad=True)
    scores = h @ torch.from_numpy(readout[:, :-1].T) + torch.from_numpy(readout[:, -1])
    own = scores[torch.arange(12), torch.from_numpy(y)][:, None]
    ((1 - own + scores).relu().sum() - 12).backward()
    torch.testing.assert_close(torch.from_numpy(found[1]), h.grad)
    below = torch.tensor(bits[0], dtype=torch.float64, requires_grad=True)
    side = torch.where(h.grad < 0, 1.0, -1.0)
    heights = below @ torch.from_numpy(weights[1][:, :-1].T) + torch.from_numpy(weights[1][:, -1])
    (h.grad.abs() * (1 - side * heights).relu()).sum().backward()
    torch.testing.assert_close(torch.from_numpy(found[0]), below.grad)


def test_proposals_flip_what_they_say() -> None:
    generator = np.random.default_rng(5)
    bits, credit = np.array([True, True, False, False, True]), np.array([2.0, -1.0, -3.0, 1.0, 0.0])
    assert hs.GradientSign().propose(bits, credit, generator).tolist() == [False, True, True, False, True]
    for _ in range(50):
        assert 1 <= (hs.Flip(0.01).propose(bits, credit, generator) ^ bits).sum() <= 5
        flipped = hs.SplitCredit(1.0).propose(bits, credit, generator) ^ bits
        assert set(np.flatnonzero(flipped)) <= {0, 2}
        assert flipped.any()
        assert (hs.SplitCredit().propose(bits, 0 * credit, generator) ^ bits).sum() == 1
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"is a probability in \(0, 1\]"):
            hs.Flip(share)


def test_planes_are_put_into_the_widest_gap_beside_them() -> None:
    x = np.array([[0.0], [1.0], [1.0 + 1e-12], [4.0]])
    assert centred(x, np.array([1.0, -1.0])) == pytest.approx([1.0, -2.5])
    assert centred(x, np.array([0.0, 0.0])).tolist() == [0.0, -1.0]
    assert centred(x, np.array([1.0, 9.0])).tolist() == [0.0, 1.0]
    generator = np.random.default_rng(6)
    for _ in range(50):
        rows, unit = generator.normal(size=(9, 3)), generator.normal(size=4)
        moved = centred(rows, unit)
        assert ((rows @ moved[:-1] + moved[-1] > 0) == (rows @ unit[:-1] + unit[-1] > 0)).all()
        on = generator.integers(0, 3, (9, 3)).astype(float)  # some rows on the plane itself
        plane = generator.integers(-2, 3, 4).astype(float)
        kept = centred(on, plane, near=0.0)
        assert ((on @ kept[:-1] + kept[-1] > 0) == (on @ plane[:-1] + plane[-1] > 0)).all()


def test_certificate_of_another_network_or_of_other_rows_is_rejected(tmp_path: Path) -> None:
    data = parity(2)
    net, _ = trained(data, 3)
    hard = hs.freeze(net, calibrate=data.train)
    x, y = rows_of(data)
    certificate = Feasible(x, y).certify(hard)
    other = hs.freeze(trained(data, 1, sweeps=1)[0], calibrate=data.train)
    assert not Feasible(x, y).check(certificate, other)
    assert not Feasible(x, 1 - y).check(certificate, hard)
    refuted = Feasible(x, y).certify(other)
    assert refuted.verdict is Verdict.REFUTED
    forged = refuted.witness["multipliers"].copy()
    forged[0, 0] += 1
    assert not Feasible(x, y).check(replace(refuted, witness={**refuted.witness, "multipliers": forged}), other)
    assert not Feasible(x, y).check(replace(refuted, verdict=Verdict.PROVED), other)
    with pytest.raises(ValueError, match="one label a row"):
        Feasible(x, y[:1])


def test_bad_settings_and_number_targets_are_named() -> None:
    with pytest.raises(ValueError, match="beam, proposals and stuck must be at least 1"):
        hs.ExactTargetProp(beam=0)
    with pytest.raises(ValueError, match="steps must be at least 1 and ridge positive"):
        hs.Descents(steps=0)
    numbers = hs.data.from_arrays(np.eye(9, dtype=np.float32), np.eye(9, dtype=np.float32))
    with pytest.raises(ValueError, match=r"ExactTargetProp takes integer labels, got y of torch\.float32"):
        trained(numbers, 3)


def test_descents_are_right_where_programs_are_on_easy_rows() -> None:
    generator = np.random.default_rng(7)
    x = generator.normal(size=(50, 3))
    t = x[:, 0] > 0.3 * x[:, 1]
    unit = hs.Descents(steps=200).unit(x, t)
    assert ((x @ unit[:-1] + unit[-1] > 0) == t).all()
    rows = Rows(x, t.astype(np.int64), hs.Descents())
    net = rows.net([generator.normal(size=(6, 4))], np.zeros((2, 7)))
    later = [net]
    for _ in range(20):
        found = rows.moved(later[-1], Place(0, int(generator.integers(6))), t)
        later += [found] if found is not None and found.loss <= later[-1].loss else []
    assert later[-1].loss < net.loss
    assert correct(later[-1], t.astype(np.int64))
