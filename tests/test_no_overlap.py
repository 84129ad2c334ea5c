"""Loss and gradients of the no-overlap network: every closed form against sampling, differences or back-propagation."""

from __future__ import annotations

from functools import cache
from math import cos, erf, pi, sin, sqrt, tan

import pytest
import torch
from torch import Tensor

import hardstep as hs
from hardstep.no_overlap import (
    angle,
    coarse_gradient,
    gradient,
    identity_gradient,
    kappa,
    kappa_m,
    minibatches,
    output,
    population,
    population_loss,
    rectified_gradient,
    sampled_gradient,
    unit,
)
from hardstep.rules import BackwardRule, Rectified
from tests.contracts.test_rules import RULES as ALL_RULES

CHUNKS = 25
ONES = torch.ones(3, dtype=torch.float64)
READOUTS = {  # student and teacher
    "ones": (ONES, ONES),
    "any": (torch.tensor([0.7, -1.2, 2.0]).double(), torch.tensor([1.5, 0.4, -0.3]).double()),
}
every_readout = pytest.mark.parametrize("readouts", list(READOUTS))
# those whose pullback is the gradient times a function of x: all but what asks for targets
RULES = [rule for rule in ALL_RULES if not isinstance(rule, hs.TargetRule)]
every_rule = pytest.mark.parametrize("rule", RULES, ids=repr)
either_sign = pytest.mark.parametrize("sign", [False, True])


def filters(theta: float, size: float = 1.0) -> tuple[Tensor, Tensor]:
    """A filter of some length and the teacher's, at an angle."""
    generator = torch.Generator().manual_seed(7)
    frame = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    return size * frame[0], cos(theta) * frame[0] + sin(theta) * frame[1]


@cache
def draw(samples: int = 50_000) -> Tensor:
    return torch.randn(samples, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_mean(patches: Tensor, rule: BackwardRule, arguments: tuple[Tensor, ...], sign: bool, wanted: Tensor) -> None:
    """Each entry of the sampled gradient is within five standard errors."""
    means = torch.stack([sampled_gradient(rule, part, *arguments, sign=sign) for part in patches.chunk(CHUNKS)])
    error = means.std(dim=0) / CHUNKS**0.5
    assert bool(((means.mean(dim=0) - wanted).abs() < 5 * error).all())
    assert float(error.max()) < 0.12  # an accuracy worth the name: gradients are of size 1


@pytest.mark.parametrize("theta", [1e-9, 0.3, pi / 2, pi - 1e-9])
def test_angle_is_exact_at_both_ends(theta: float) -> None:
    weight, target = filters(theta, size=3.0)
    assert min(angle(weight, target), pi - angle(weight, target)) == pytest.approx(min(theta, pi - theta), rel=1e-6)
    assert torch.tensor(angle(0 * weight, target)).isnan()


def test_filter_without_a_direction_and_network_without_units_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a filter of norm 0\.0 has no direction"):
        unit(torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="at least 1 unit, got 0"):
        kappa(0)


@either_sign
@every_readout
@pytest.mark.parametrize("theta", [0.4, 1.3, 2.6])
def test_population_loss_is_the_mean_over_samples(theta: float, readouts: str, sign: bool) -> None:
    student, teacher = READOUTS[readouts]
    weight, target = filters(theta, size=0.5)
    patches = draw(400_000)
    residual = output(patches, weight, student) - output(patches, target, teacher)
    if sign:
        residual = 2 * residual - student.sum() + teacher.sum()
    mean = float(residual.square().mean() / 2)
    assert population_loss(theta, student, teacher, sign=sign) == pytest.approx(mean, rel=0.01)


def test_loss_of_equal_readouts_is_the_angle_and_four_times_that_for_signs() -> None:
    for theta in (0.4, 1.3, 2.6):
        assert population_loss(theta, ONES, ONES) == pytest.approx(3 * theta / (2 * pi))
        assert population_loss(theta, ONES, ONES, sign=True) == pytest.approx(4 * 3 * theta / (2 * pi))


@either_sign
@every_readout
@pytest.mark.parametrize("theta", [0.01, 1.3, 3.1])
def test_true_gradient_is_that_of_the_loss(theta: float, readouts: str, sign: bool) -> None:
    student, teacher = READOUTS[readouts]
    weight, target = filters(theta, size=2.0)
    slopes = []
    for axis in 1e-6 * torch.eye(3, dtype=torch.float64):
        ends = [population_loss(angle(w, target), student, teacher, sign=sign) for w in (weight + axis, weight - axis)]
        slopes.append((ends[0] - ends[1]) / 2e-6)
    found = gradient(weight, target, student, teacher, sign=sign)
    torch.testing.assert_close(found, torch.tensor(slopes).double(), rtol=0, atol=1e-6)


def test_true_gradient_does_not_fall_towards_the_teacher() -> None:
    """The loss is a cone: a quotient of gradients by distances grows like 1/theta, so no Lipschitz constant holds."""
    quotients = []
    for theta in (1e-1, 1e-3, 1e-5):
        (left, target), (_, mirrored) = filters(theta), filters(-theta)
        right = 2 * (left @ target) * target - left  # the mirror image of the filter on the teacher's other side
        assert angle(mirrored, left) == pytest.approx(theta)
        slopes = [gradient(w, target, ONES, ONES) for w in (left, right)]
        assert float(slopes[0].norm()) == pytest.approx(3 / (2 * pi))
        quotients.append(float((slopes[0] - slopes[1]).norm() / (left - right).norm()) * theta)
    assert quotients == pytest.approx([3 / (2 * pi)] * 3, rel=0.01)
    assert not gradient(target, target, ONES, ONES).any()


@either_sign
@every_rule
def test_sampled_gradient_is_what_back_propagation_computes(rule: BackwardRule, sign: bool) -> None:
    student, teacher = READOUTS["any"]
    weight, target = filters(1.3, size=0.7)
    patches = draw()[:500]
    w = weight.clone().requires_grad_()
    activation = hs.Sign(rule) if sign else hs.Step(rule)
    residual = activation(patches @ w) @ student - activation(patches @ target) @ teacher
    (wanted,) = torch.autograd.grad((residual.square() / 2).mean(), w)
    found = sampled_gradient(rule, patches, weight, target, student, teacher, sign=sign)
    torch.testing.assert_close(found, wanted)


@either_sign
@every_readout
def test_closed_coarse_gradients_are_the_means_over_samples(readouts: str, sign: bool) -> None:
    for theta in (0.4, 2.6):
        arguments = (*filters(theta, size=1.7), *READOUTS[readouts])
        patches = draw(200_000)
        assert_mean(patches, Rectified(), arguments, sign, rectified_gradient(*arguments, sign=sign))
        assert_mean(patches, hs.Identity(), arguments, sign, identity_gradient(*arguments, sign=sign))


@either_sign
@every_readout
@pytest.mark.parametrize("theta", [0.01, 1.3, 3.1])
def test_quadrature_equals_the_closed_forms(theta: float, readouts: str, sign: bool) -> None:
    arguments = (*filters(theta, size=1.7), *READOUTS[readouts])
    for rule, closed in ((Rectified(), rectified_gradient), (hs.Identity(), identity_gradient)):
        torch.testing.assert_close(coarse_gradient(rule, *arguments, sign=sign), closed(*arguments, sign=sign))


def test_equal_readouts_pull_with_kappa() -> None:
    weight, target = filters(1.3, size=1.7)
    wanted = kappa(3) * (unit(weight) - target)
    for found in (
        rectified_gradient(weight, target, ONES, ONES),
        identity_gradient(weight, target, ONES, ONES),
        population(target, units=3)(weight),
        rectified_gradient(weight, target, ONES, ONES, sign=True) / 4,
        identity_gradient(weight, target, ONES, ONES, sign=True) / 4,
    ):
        torch.testing.assert_close(found, wanted)


@either_sign
@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
@every_rule
def test_every_rule_turns_towards_the_teacher_by_its_kappa(rule: BackwardRule, size: float, sign: bool) -> None:
    weight, target = filters(0.9, size)
    tangent = unit(target - cos(0.9) * unit(weight))
    arguments = (weight, target, ONES, ONES)
    mean = coarse_gradient(rule, *arguments, sign=sign)
    pull = kappa_m(rule, 0.9, size, units=3)
    assert pull > 0
    assert float(mean @ tangent) == pytest.approx(-(4 if sign else 1) * sin(0.9) * pull)
    assert_mean(draw(), rule, arguments, sign, mean)


@either_sign
def test_coarse_gradient_of_any_readouts_is_the_mean_over_samples(sign: bool) -> None:
    for rule in (hs.Clipped(), hs.Sech2(3.0)):
        arguments = (*filters(2.2, 0.6), *READOUTS["any"])
        assert_mean(draw(), rule, arguments, sign, coarse_gradient(rule, *arguments, sign=sign))


THETAS = (0.1, pi / 4, pi / 2)
# the specification's table, for derivatives of the 0/1 step that are not halved: rule, factor, values at the angles
TABLE = [
    (Rectified(), 1, [0.1995, 0.1995, 0.1995]),
    (hs.Identity(), 2, [0.3989, 0.3989, 0.3989]),
    (hs.Clipped(), 2, [0.3989, 0.3361, 0.2724]),
    (hs.Sech2(), 2, [0.3950, 0.2898, 0.2416]),
    (hs.Sech2(0.5), 1, [0.0995, 0.0896, 0.0824]),  # the slope of the logistic curve
]


@pytest.mark.parametrize(("rule", "factor", "wanted"), TABLE, ids=repr)
def test_kappa_of_rules_as_tabulated(rule: BackwardRule, factor: int, wanted: list[float]) -> None:
    assert [factor * kappa_m(rule, theta) for theta in THETAS] == pytest.approx(wanted, abs=1e-4)


def test_kappa_of_the_window_is_an_error_function() -> None:
    for theta in (0.2, 1.0, 2.5):
        wanted = erf(1 / (sqrt(2) * sin(theta))) / (2 * sqrt(2 * pi))
        assert kappa_m(hs.Clipped(), theta) == pytest.approx(wanted, rel=1e-4)


def test_norm_of_the_filter_is_the_temperature_of_its_rule() -> None:
    x = torch.linspace(-1, 1, 21)
    for rule in RULES:
        if torch.equal(rule.pullback(x, torch.ones(21)), rule.pullback(4 * x, torch.ones(21))):  # no width of its own
            assert kappa_m(rule, 1.0, 4.0) == pytest.approx(kappa_m(rule, 1.0, 1.0))
        else:
            assert kappa_m(rule, 1.0, 4.0) < kappa_m(rule, 1.0, 1.0)


def test_coarse_gradient_descends_but_is_not_bounded_by_the_true_one_at_the_antipode() -> None:
    for theta in (0.4, 1.3, 3.1, pi - 1e-4):
        weight, target = filters(theta, size=1.7)
        coarse = rectified_gradient(weight, target, ONES, ONES)
        descent = float(coarse @ gradient(weight, target, ONES, ONES))
        assert descent == pytest.approx(9 * sin(theta) / (2 * (2 * pi) ** 1.5 * 1.7))
        assert float(coarse @ coarse) / descent == pytest.approx(sqrt(2 * pi) * tan(theta / 2) * 1.7)


def test_minibatches_are_new_at_each_call_and_the_same_for_a_seed() -> None:
    weight, target = filters(1.3)
    shaped = (weight[None], target[None])  # a filter of any shape
    one, two = (minibatches(hs.Clipped(), shaped[1], 3, batch_size=64, seed=5) for _ in range(2))
    first = one(shaped[0])
    assert first.shape == (1, 3)
    assert torch.equal(first, two(shaped[0]))
    assert not torch.equal(first, one(shaped[0]))
    assert not one(shaped[1]).any()  # at the teacher no sample has a residual
