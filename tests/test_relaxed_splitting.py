"""Relaxed splitting on the no-overlap network: its potential, its limits, and what is not true of it, as tests."""

from __future__ import annotations

from itertools import islice, pairwise
from math import cos, pi, sin, sqrt

import pytest
import torch
from torch import Tensor

from hardstep.no_overlap import angle, coarse_gradient, kappa, minibatches, population, unit
from hardstep.penalties import L0, L1, NoPenalty
from hardstep.relaxed_splitting import fixed_point_residual, iterate, objective, potential, relaxed_splitting
from hardstep.rules import Clipped, Rectified, Sech2
from hardstep.splitting_bounds import (
    coupling_limit,
    recovery_bound,
)
from tests.planted_filters import every_penalty, limit, planted, problem, random


def test_iterates_are_the_updates_written_out() -> None:
    target, start = planted((12,), 4, seed=0)
    coupling, lr, penalty = 0.3, 0.5, L1(0.02)
    w = start / start.norm()
    for found_w, found_u in islice(iterate(population(target, 4), start, penalty, coupling=coupling, lr=lr), 6):
        u = torch.sign(w) * (w.abs() - 0.02 / 0.3).clamp_min(0)
        torch.testing.assert_close(found_w, w)
        torch.testing.assert_close(found_u, u)
        w = w - lr * kappa(4) * (w - target) - lr * coupling * (w - u)
        w = w / w.norm()
    run = relaxed_splitting(population(target, 4), start, target, penalty, units=4, coupling=coupling, lr=lr, steps=5)
    assert torch.equal(run.w, found_w)
    assert torch.equal(run.u, found_u)
    assert len(run.angles) == len(run.supports) == 6
    assert float(run.angles[-1]) == angle(run.w, target)
    assert float(run.export_angles[-1]) == angle(run.u, target)
    assert float(run.losses[-1]) == pytest.approx(4 * angle(run.w, target) / (2 * pi))
    assert int(run.supports[-1]) == int((run.u != 0).sum())


def test_bad_input_is_named() -> None:
    target, start = planted((12,), 4, seed=0)
    pull = population(target, 4)
    for arguments, message in (
        ({"coupling": 0.0, "lr": 1.0}, r"coupling must be positive and finite, got 0\.0"),
        ({"coupling": 1.0, "lr": -1.0}, r"lr must be positive and finite, got -1\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            next(iterate(pull, start, L1(0.1), **arguments))
    with pytest.raises(ValueError, match=r"a filter of norm 0\.0 has no direction"):
        next(iterate(pull, 0 * start, L1(0.1), coupling=1.0, lr=1.0))
    with pytest.raises(ValueError, match=r"must have norm 1, got 2\.0"):
        relaxed_splitting(pull, start, 2 * target, L1(0.1), units=4, coupling=1.0, lr=1.0, steps=1)
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        relaxed_splitting(pull, start, target, L1(0.1), units=4, coupling=1.0, lr=1.0, steps=-1)
    with pytest.raises(ValueError, match=r"delta must be an angle in \(0, pi/2\], got 2\.0"):
        coupling_limit(2.0, 4)
    with pytest.raises(ValueError, match=r"proved for a coupling up to 0\.564.*, got 0\.7; lower it"):
        recovery_bound(0.1, coupling=0.7, units=4)


@every_penalty
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_potential_falls_by_exactly_the_stated_amount(name: str, share: float) -> None:
    """Each step on w lowers it by (|z| + A)/(2 eta) |w+ - w|², each step on u too: it never rises."""
    units, coupling = 8, 0.8 * kappa(8)
    lr = share / (kappa(units) + coupling)
    rest = 1 - lr * (kappa(units) + coupling)
    penalty, target, start = problem(name, 0.1, coupling, seed=1)
    before = float("inf")
    pairs = iterate(population(target, units), start, penalty, coupling=coupling, lr=lr)
    for (w, u), (moved, _) in islice(pairwise(pairs), 60):
        now, then = (potential(x, u, target, penalty, units=units, coupling=coupling) for x in (w, moved))
        z = rest * w + lr * (kappa(units) * target + coupling * u)
        fall = (float(z.norm()) + rest) / (2 * lr) * float((moved - w).square().sum())
        assert now - then == pytest.approx(fall, abs=1e-12)
        assert now <= before + 1e-10
        before = now


def test_potential_falls_for_longer_steps_within_the_wider_condition() -> None:
    units, coupling = 8, 0.4 * kappa(8)
    penalty, target, start = problem("l0", 0.1, coupling, seed=3)
    lr = 1.3 / (kappa(units) + coupling)
    before, wider = float("inf"), 0
    for w, u in islice(iterate(population(target, units), start, penalty, coupling=coupling, lr=lr), 60):
        now = potential(w, u, target, penalty, units=units, coupling=coupling)
        pull = float((kappa(units) * target + coupling * u).norm())
        assert lr * (2 * (kappa(units) + coupling) - pull) <= 2
        assert now <= before + 1e-12
        before, wider = now, wider + 1
    assert wider == 60


def test_objective_with_the_true_loss_rises_where_the_potential_falls() -> None:
    """Why convergence must not be argued by the objective: from the teacher itself it rises by a third."""
    units, coupling, penalty = 10, 0.8 * kappa(10), L1(0.03)
    target = unit(torch.cat([torch.arange(10, 0, -1), torch.zeros(10)]).double())
    lr = 0.3 / (kappa(units) + coupling)
    run = relaxed_splitting(
        population(target, units), target, target, penalty, units=units, coupling=coupling, lr=lr, steps=300
    )
    assert float(run.objectives[-1] - run.objectives[0]) > 0.03
    assert bool((run.potentials.diff() <= 1e-12).all())
    assert [float(run.objectives[i]) for i in (0, -1)] == pytest.approx([0.0813, 0.1168], abs=1e-4)
    assert [float(run.potentials[i]) for i in (0, -1)] == pytest.approx([0.08127, 0.08077], abs=1e-5)


def test_steps_without_a_penalty_turn_to_the_teacher_up_to_twice_the_inverse_of_kappa_and_no_further() -> None:
    def turned(share: float, theta: float) -> float:
        target, weight = (torch.tensor([cos(x), sin(x)], dtype=torch.float64) for x in (0.0, theta))
        lr = share / kappa(4)
        pairs = iterate(population(target, 4), weight, NoPenalty(), coupling=1.0, lr=lr)
        return angle(list(islice(pairs, 2))[1][0], target) - theta

    thetas = [pi * (i + 0.5) / 400 for i in range(400)]
    assert all(turned(1.999, theta) < 0 for theta in thetas)
    assert any(turned(2.001, theta) > 0 for theta in thetas)


@every_penalty
def test_limits_are_the_stated_fixed_points(name: str) -> None:
    units, coupling = 8, 0.4 * kappa(8)
    penalty, target, start = problem(name, 0.12, coupling, seed=4)
    w, u = limit(target, start, penalty, units=units, coupling=coupling)
    size = float((kappa(units) * target + coupling * u).norm())
    torch.testing.assert_close((size * w - coupling * u) / kappa(units), target, rtol=0, atol=1e-10)
    gap = float(((w - u) * w).sum())
    assert size - coupling == pytest.approx(kappa(units) * cos(angle(w, target)) - coupling * gap, abs=1e-10)
    assert torch.equal(u, penalty.prox(w, 1 / coupling))


def test_limit_of_l1_in_closed_form() -> None:
    units, coupling, strength = 8, 0.6 * kappa(8), 0.1
    target = unit(random(30, seed=5))
    w, u = limit(target, random(30, seed=6), L1(strength), units=units, coupling=coupling)
    size = float((kappa(units) * target + coupling * u).norm())
    threshold = size * strength / (coupling * kappa(units))
    soft = torch.sign(target) * (target.abs() - threshold).clamp_min(0)
    assert 0 < int((soft != 0).sum()) < 30
    torch.testing.assert_close(u, kappa(units) / (size - coupling) * soft, rtol=0, atol=1e-10)
    kept = (kappa(units) * target - strength * torch.sign(target)) / (size - coupling)
    torch.testing.assert_close(w, torch.where(u != 0, kept, kappa(units) * target / size), rtol=0, atol=1e-10)


def test_limit_of_l0_in_closed_form() -> None:
    units, coupling, strength = 8, 0.6 * kappa(8), 0.02
    target = unit(random(30, seed=5))
    w, u = limit(target, random(30, seed=6), L0(strength), units=units, coupling=coupling)
    size = float((kappa(units) * target + coupling * u).norm())
    assert 0 < int((u != 0).sum()) < 30
    wanted = kappa(units) * target / (size - coupling * (u != 0).double())
    torch.testing.assert_close(w, wanted, rtol=0, atol=1e-10)


def test_limit_of_l0_depends_on_the_start() -> None:
    """An entry between (|s| - beta)/kappa and |s|/kappa times the threshold may stay or go: there are two limits."""
    units, coupling, strength = 8, 0.6 * kappa(8), 0.04
    target = unit(torch.tensor([1, 0.8, 0.6, 0.25, 0, 0]).double())
    lr = 0.1 / (kappa(units) + coupling)
    supports = set()
    for start in [target, *(random(6, seed=seed) for seed in range(10))]:
        *_, (w, u) = islice(iterate(population(target, units), start, L0(strength), coupling=coupling, lr=lr), 200)
        assert fixed_point_residual(w, u, target, units=units, coupling=coupling) < 1e-4
        supports.add(tuple((u != 0).tolist()))
        size = float((kappa(units) * target + coupling * u).norm())
        there = kappa(units) * float(target[2]) / sqrt(2 * strength / coupling)
        assert size - coupling < there < size  # the third entry is within the band
    assert supports == {(True, True, kept, False, False, False) for kept in (False, True)}


def test_antipode_is_an_unstable_fixed_point_of_short_steps() -> None:
    """Why the start must be off the antipode: exactly there nothing turns."""
    units, coupling = 8, 0.4 * kappa(8)
    target = torch.eye(12, dtype=torch.float64)[0]
    lr = 0.5 / (kappa(units) + coupling)
    for first, wanted in ((-target, pi), (-target + 1e-6 * random(12, seed=8), 0.0)):
        *_, (w, _) = islice(iterate(population(target, units), first, L0(1e-4), coupling=coupling, lr=lr), 100)
        assert angle(w, target) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("rule", [Clipped(), Sech2(2.0)])
def test_other_rules_recover_the_support_too(rule: Clipped | Sech2) -> None:
    """With small steps; the pull of these rules depends on the angle, so no potential of them is known."""
    target, start = planted((30,), 4, seed=1)
    ones = torch.ones(8, dtype=torch.float64)
    coupling = 0.3 * kappa(8)

    def pull(w: Tensor) -> Tensor:
        return coarse_gradient(rule, w, target, ones, ones)

    *_, (_, u) = islice(iterate(pull, start, L1(0.05 * coupling), coupling=coupling, lr=0.3), 30)
    assert torch.equal(u != 0, target != 0)
    assert angle(u, target) < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_support_is_recovered_from_minibatches(seed: int) -> None:
    units, coupling = 4, 0.5 * kappa(4)
    target, start = planted((64,), 8, seed)
    lr = 0.05 / (kappa(units) + coupling)
    pull = minibatches(Rectified(), target, units, batch_size=64, seed=seed)
    *_, (_, u) = islice(iterate(pull, start, L0(0.005 * coupling), coupling=coupling, lr=lr), 501)
    assert torch.equal(u != 0, target != 0)
    assert angle(u, target) < 3 * pi / 180


@pytest.mark.parametrize("loss", ["squares", "logistic"])
def test_objective_of_a_smooth_loss_falls_up_to_the_limit_of_lr(loss: str) -> None:
    """On a linear model, without the sphere, the objective is a Lyapunov function."""
    x, y = random(40, 10, seed=1), random(40, seed=2)
    gram = float(torch.linalg.eigvalsh(x.T @ x)[-1])

    def value(w: Tensor) -> Tensor:
        return (
            (x @ w - y).square().sum() / 2
            if loss == "squares"
            else torch.nn.functional.softplus(-torch.sign(y) * (x @ w)).sum()
        )

    def slope(w: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(value(w.requires_grad_()), w)
        return found

    lipschitz, coupling = gram if loss == "squares" else gram / 4, 5.0
    for penalty in (L1(3.0), L0(1.0)):
        pairs = iterate(
            slope, 3 * random(10, seed=3), penalty, coupling=coupling,
            lr=1.9 / (coupling + lipschitz), project=lambda w: w.detach(),
        )  # fmt: skip
        values = [
            float(value(w) + penalty.value(u) + coupling / 2 * (w - u).square().sum()) for w, u in islice(pairs, 200)
        ]
        assert all(then <= now + 1e-10 for now, then in pairwise(values))
        assert values[-1] < 0.9 * values[0]


def test_filter_collapses_without_the_sphere() -> None:
    """The loss does not see |w|, the pull shrinks it, and a fixed threshold then kills entries of the teacher."""
    units, coupling = 4, 0.3 * kappa(4)
    target, start = planted((30,), 6, seed=0)

    def slope(w: Tensor) -> Tensor:
        return -units / (2 * pi) * (target - (target * unit(w)).sum() * unit(w)) / w.norm()

    penalty = L1(0.05 * coupling)
    pairs = iterate(slope, unit(start), penalty, coupling=coupling, lr=0.02, project=lambda w: w)
    *_, (w, u) = islice(pairs, 5001)
    assert float(w.norm()) < 0.2
    assert int((u != 0).sum()) < 6
    *_, (_, u) = islice(iterate(slope, start, penalty, coupling=coupling, lr=0.02), 501)
    assert torch.equal(u != 0, target != 0)


def test_potential_and_objective_differ_by_their_losses() -> None:
    target, start = planted((12,), 4, seed=0)
    w = unit(start)
    values = [f(w, 0 * w, target, L1(0.3), units=6, coupling=0.2) for f in (objective, potential)]
    theta = angle(w, target)
    assert values[0] == pytest.approx(6 * theta / (2 * pi) + 0.1)
    assert values[1] == pytest.approx(kappa(6) * (1 - cos(theta)) + 0.1)
