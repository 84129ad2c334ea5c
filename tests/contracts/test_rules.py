"""What every backward rule promises."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import hardstep as hs
from hardstep.rules import BackwardRule, Surrogate

LAYER_LOSSES = [
    hs.LinearLoss(),
    hs.PerceptronLoss(),
    hs.HingeLoss(),
    hs.SquaredHingeLoss(),
    hs.SaturatedHingeLoss(),
    hs.SoftHingeLoss(),
    hs.LogLoss(),
    hs.QuadraticLoss(),
]
RULES = [
    hs.Identity(),
    hs.Clipped(),
    hs.Clipped(0.25),
    hs.Sech2(),
    hs.Sech2(3.0),
    hs.ReSTE(),
    hs.ReSTE(power=1.0),
    hs.ReSTE(power=2.0, inner=0.05, outer=2.0),
    hs.Rectified(),
    *(hs.TargetRule(loss) for loss in LAYER_LOSSES),
    *(hs.TargetRule(hs.LogLoss(), width=0.5, relative=relative) for relative in ("layer", "channel")),
    hs.TargetRule(weighted=False),
]
SURROGATES = [rule for rule in RULES if isinstance(rule, Surrogate)]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]

every_rule = pytest.mark.parametrize("rule", RULES, ids=repr)
every_surrogate = pytest.mark.parametrize("rule", SURROGATES, ids=repr)


def concrete(kind: type) -> set[type]:
    subs = {sub for direct in kind.__subclasses__() for sub in concrete(direct) | {direct}}
    return {sub for sub in subs if not inspect.isabstract(sub) and sub.__module__.startswith("hardstep.")}


def special(dtype: torch.dtype) -> torch.Tensor:
    info = torch.finfo(dtype)
    return torch.tensor([info.min, -1.0, -info.tiny, -0.0, 0.0, info.tiny, 1.0, info.max], dtype=dtype)


def test_every_subclass_is_listed() -> None:
    assert concrete(BackwardRule) == {type(rule) for rule in RULES}


@every_rule
def test_repr_makes_the_rule_again(rule: BackwardRule) -> None:
    assert eval(repr(rule), {name: getattr(hs, name) for name in hs.__all__}) == rule


@every_surrogate
def test_derivative_is_the_slope_of_the_curve_off_its_kinks(rule: Surrogate) -> None:
    x = torch.linspace(-4, 4, 4001, dtype=torch.float64) + 1e-4
    slope = (rule.curve(x + 1e-6) - rule.curve(x - 1e-6)) / 2e-6
    wrong = (slope - rule.derivative(x)).abs() > 1e-5
    jumps = (rule.derivative(x + 1e-3) - rule.derivative(x - 1e-3)).abs() > 1e-2
    assert not (wrong & ~jumps).any()
    assert wrong.sum() <= 4


@every_surrogate
def test_derivative_integrates_to_the_stated_area(rule: Surrogate) -> None:
    if rule.area == float("inf"):
        assert float(rule.derivative(torch.tensor(1e6))) > 0
        return
    kinks = sorted({getattr(rule, name) for name in ("width", "inner", "outer") if hasattr(rule, name)})
    value = (
        2
        * quad(
            lambda x: float(rule.derivative(torch.tensor(x, dtype=torch.float64))),
            0,
            40,
            points=kinks or [1.0],
            limit=400,
        )[0]
    )
    assert value == pytest.approx(rule.area, rel=1e-6)


@every_surrogate
def test_curve_is_odd_about_one_half_and_derivative_even(rule: Surrogate) -> None:
    x = torch.linspace(0, 5, 501, dtype=torch.float64)
    torch.testing.assert_close(rule.curve(x) + rule.curve(-x), torch.ones_like(x), rtol=0, atol=1e-12)
    assert torch.equal(rule.derivative(x), rule.derivative(-x))


@every_rule
@pytest.mark.parametrize("dtype", DTYPES)
def test_pullback_is_finite_and_keeps_the_dtype_of_the_gradient(rule: BackwardRule, dtype: torch.dtype) -> None:
    out = rule.pullback(special(dtype), torch.ones(8, dtype=dtype))
    assert out.dtype == dtype
    assert out.isfinite().all()


@every_surrogate
def test_infinite_gradient_outside_the_support_gives_zero_not_nan(rule: Surrogate) -> None:
    x = torch.tensor([-1e6, 1e6])
    out = rule.pullback(x, torch.full((2,), float("inf")))
    assert torch.equal(out, torch.where(rule.derivative(x) == 0, 0.0, float("inf")))


@every_surrogate
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_value_is_the_float32_value_cast(rule: Surrogate, dtype: torch.dtype) -> None:
    x = torch.linspace(-3, 3, 97).to(dtype)
    wanted = rule.derivative(x.float()).to(dtype)
    assert torch.equal(rule.pullback(x, torch.ones_like(x)), wanted)


@every_rule
def test_pullback_is_positively_homogeneous(rule: BackwardRule) -> None:
    x, grad = torch.randn(200, generator=torch.Generator().manual_seed(0)), torch.linspace(-2, 2, 200)
    torch.testing.assert_close(rule.pullback(x, 1024 * grad), 1024 * rule.pullback(x, grad))


@every_rule
def test_pullback_leaves_its_arguments_alone(rule: BackwardRule) -> None:
    x, grad = torch.linspace(-2, 2, 64), torch.ones(64)
    kept = copy.deepcopy((x, grad))
    rule.pullback(x, grad)
    assert torch.equal(x, kept[0])
    assert torch.equal(grad, kept[1])


@every_rule
def test_schedule_gives_a_rule_at_every_progress(rule: BackwardRule) -> None:
    for progress in (0.0, 0.5, 1.0):
        assert isinstance(rule.at(progress), BackwardRule)
    with pytest.raises(ValueError, match=r"share of the training in \[0, 1\], got 1.5"):
        rule.at(1.5)


@pytest.mark.parametrize("limit", [0.1, 0.25, 0.3, 0.5, 1.0, 1.5, 3.0, 1e-3, 700.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_window_is_closed_to_the_last_bit(limit: float, dtype: torch.dtype) -> None:
    edge = torch.tensor([limit, -limit], dtype=dtype)
    beyond = edge.nextafter(edge * 2)
    for rule in (hs.Clipped(limit), hs.ReSTE(inner=limit / 2, outer=limit)):
        assert (rule.derivative(edge) > 0).all()
        assert (rule.derivative(beyond) == 0).all()


# Test oracles of the specification (sign domain, z ~ N(0,1)): E g and E (sign - F)^2, by quadrature.
ORACLES = [
    (hs.Clipped(), 0.682689, 0.253551),
    (hs.Sech2(), 0.605706, 0.282336),
    (hs.ReSTE(power=1.0), 0.866386, 0.299923),
    (hs.ReSTE(power=2.0), 0.811272, 0.145105),
    (hs.ReSTE(power=3.0), 0.801319, 0.095396),
]


@pytest.mark.parametrize(("rule", "mean", "error"), ORACLES, ids=str)
def test_rule_matches_its_published_oracle(rule: Surrogate, mean: float, error: float) -> None:
    z = torch.linspace(-9, 9, 1_800_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / np.sqrt(2 * np.pi)
    g, f = 2 * rule.derivative(z), 2 * rule.curve(z) - 1
    assert torch.trapezoid(density * g, z).item() == pytest.approx(mean, abs=2e-5)
    assert torch.trapezoid(density * (torch.sign(z) - f).square(), z).item() == pytest.approx(error, abs=2e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hs.Clipped(0.0), "width must be positive and finite, got 0.0"),
        (lambda: hs.Sech2(-1.0), "slope must be positive and finite, got -1.0"),
        (lambda: hs.ReSTE(power=0.5), "at least 1"),
        (lambda: hs.ReSTE(inner=2.0), "0 < inner < outer, got inner=2.0, outer=1.5"),
    ],
)
def test_bad_hyperparameter_is_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
