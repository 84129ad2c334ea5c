"""What every backward rule promises."""

from __future__ import annotations

import copy
import inspect
from itertools import pairwise

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
    hs.Trapezoid(),
    hs.Trapezoid(inner=0.0, outer=0.7),
    hs.LeakyBox(),
    hs.LeakyBox(width=0.3, leak=0.0),
    hs.ApproxSign(),
    hs.ApproxSign(2.0),
    hs.RBNN(0.5),
    hs.RBNN(3.0),
    hs.EDE(0.1),
    hs.EDE(3.0),
    hs.DSQ(),
    hs.DSQ(0.01),
    hs.SwishSign(),
    hs.SwishSign(1.0),
    hs.Fourier(),
    hs.Fourier(terms=0, frequency=3.0),
    hs.PseudoSpike(),
    hs.PseudoSpike(peak=2.0, exponent=1.5),
    hs.ArcTan(),
    hs.Gaussian(),
    hs.Laplace(),
    hs.LogTail(),
    hs.Scaled(hs.Sech2(), 0.25),
    hs.UnitArea(hs.ReSTE()),
    hs.UnitPeak(hs.SwishSign()),
    hs.Annealed(),
    hs.Apart(),
    hs.Apart(hs.Annealed(), hs.Annealed(hs.EDE(1e-3), hs.EDE(10.0))),
    hs.Annealed(hs.UnitArea(hs.EDE(1e-3)), hs.UnitArea(hs.EDE(10.0)), hs.GeometricPath()),
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
    kinks = (rule.derivative(x + 1e-3) - rule.derivative(x - 1e-3)).abs() > 1e-2
    assert not (wrong & ~kinks).any()
    assert wrong.sum() <= 4


def jumps(rule: Surrogate) -> list[float]:
    """Where the derivative jumps on x > 0, found to the last digits by bisection."""

    def h(x: float) -> float:
        return float(rule.derivative(torch.tensor(x, dtype=torch.float64)))

    grid, found = np.linspace(1e-9, 20, 20_001), []
    change = np.abs(np.diff(rule.derivative(torch.from_numpy(grid)).numpy()))
    around = np.maximum(np.append(change[1:], 0.0), np.insert(change[:-1], 0, 0.0))
    for i in np.flatnonzero(change > 20 * around + 1e-3 * abs(rule.peak)):
        low, high = grid[i], grid[i + 1]
        while high - low > 1e-12:
            middle = (low + high) / 2
            low, high = (low, middle) if abs(h(middle) - h(low)) > abs(h(high) - h(middle)) else (middle, high)
        if abs(h(high) - h(low)) > 1e-6:
            found.append(high)
    return found


@every_surrogate
def test_derivative_integrates_to_the_stated_area(rule: Surrogate) -> None:
    if rule.area == float("inf"):
        assert float(rule.derivative(torch.tensor(1e6))) > 0
        return

    def h(x: float) -> float:
        return float(rule.derivative(torch.tensor(x, dtype=torch.float64)))

    edges = [0.0, *jumps(rule), 25.0]
    pieces = [quad(h, a, b - 1e-12, limit=400)[0] for a, b in pairwise(edges)]
    tail = quad(lambda t: h(1 / t) / t**2, 0, 1 / 25, limit=400)[0]  # the tails, x = 1/t
    assert 2 * (sum(pieces) + tail) == pytest.approx(rule.area, rel=1e-6)


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


# Test oracles of the specification (sign domain, z ~ N(0,1)): peak, area, E (sign - F)^2, E g, Var g.
ORACLES = [
    (hs.Clipped(), 1, 2, 0.253551, 0.682689, 0.216625),
    (hs.ApproxSign(), 2, 2, 0.155929, 0.737493, 0.470310),
    (hs.SwishSign(5.0), 5, 2, 0.066540, 0.834097, 2.795934),
    (hs.Sech2(), 1, 2, 0.282336, 0.605706, 0.097524),
    (hs.EDE(0.1), 1, 20, 0.395250, 0.990195, 0.000185),
    (hs.EDE(3.0), 3, 2, 0.101601, 0.764500, 0.983604),
    (hs.EDE(10.0), 10, 2, 0.030790, 0.794631, 4.679240),
    (hs.RBNN(1.0), 1.4142, 2, 0.215750, 0.687400, 0.213933),
    (hs.RBNN(3.0), 4.2426, 2, 0.074831, 0.783431, 1.618311),
    (hs.DSQ(0.2), 1.3733, 2, 0.202061, 0.709982, 0.285627),
    (hs.Fourier(10), 22, 2.0578, 0.014872, 0.811860, 16.79287),
    (hs.ReSTE(power=1.0), 1, 3, 0.299923, 0.866386, 0.115762),
    (hs.ReSTE(power=2.0), 3.1623, 2.4495, 0.145105, 0.811272, 0.591942),
    (hs.ReSTE(power=3.0), 4.6416, 2.2894, 0.095396, 0.801319, 1.373665),
    (hs.UnitArea(hs.ReSTE(power=3.0)), 4.0548, 2, 0.125162, 0.700016, 1.048303),
    (hs.Sech2(2.0), 2, 2, 0.150382, 0.729478, 0.491664),  # the sigmoid of slope 4
    (hs.PseudoSpike(1.0), 2, 2, 0.266918, 0.533835, 0.215920),  # SoftSign, k = 2
    (hs.ArcTan(2.0), 2, 2, 0.188777, 0.629720, 0.372011),
    (hs.Gaussian(1.0), 1.1284, 2, 0.248212, 0.651470, 0.144997),
    (hs.UnitArea(hs.Clipped(0.5)), 2, 2, 0.131348, 0.765850, 0.945174),  # the rectangle
    (hs.Laplace(1.0), 1, 2, 0.336204, 0.523157, 0.062511),
    (hs.PseudoSpike(1.0, 3.0), 2, 2, 0.227671, 0.595769, 0.246764),
]


@pytest.mark.parametrize(("rule", "peak", "area", "error", "mean", "variance"), ORACLES, ids=str)
def test_rule_matches_its_published_oracle(
    rule: Surrogate, peak: float, area: float, error: float, mean: float, variance: float
) -> None:
    z = torch.linspace(-9, 9, 1_800_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / np.sqrt(2 * np.pi)
    g, f = 2 * rule.derivative(z), 2 * rule.curve(z) - 1
    assert 2 * rule.peak == pytest.approx(peak, abs=5e-5)
    assert 2 * rule.area == pytest.approx(area, abs=5e-5)
    found = torch.trapezoid(density * g, z).item()
    assert found == pytest.approx(mean, abs=2e-5)
    assert torch.trapezoid(density * g.square(), z).item() - found**2 == pytest.approx(variance, rel=1e-4, abs=1e-6)
    assert torch.trapezoid(density * (torch.sign(z) - f).square(), z).item() == pytest.approx(error, abs=2e-5)


IDENTITIES = [
    (hs.UnitArea(hs.Clipped(1.0)), hs.Clipped(1.0)),
    (hs.RBNN(2**0.5), hs.ApproxSign(1.0)),
    (hs.EDE(3.0), hs.Sech2(3.0)),
    (hs.ReSTE(power=1.0), hs.Clipped(1.5)),
    (hs.LeakyBox(1.0, 0.0), hs.Clipped(1.0)),
    (hs.Trapezoid(0.0, 1.0), hs.Scaled(hs.ApproxSign(1.0), 0.5)),
]


@pytest.mark.parametrize("pair", IDENTITIES, ids=str)
def test_identities_between_rules_hold(pair: tuple[Surrogate, Surrogate]) -> None:
    x = torch.linspace(-4, 4, 1601, dtype=torch.float64)
    torch.testing.assert_close(pair[0].derivative(x), pair[1].derivative(x), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(pair[0].curve(x), pair[1].curve(x), rtol=1e-12, atol=1e-12)


def test_published_scales_are_those_of_the_papers() -> None:
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)
    known = hs.published_rules()
    formulas = {
        "scaled tanh": 1.7159 / 3 * torch.cosh(2 / 3 * x) ** -2,
        "half-peak sigmoid": 0.25 * torch.cosh(x) ** -2,
        "sigmoid": 4 * torch.sigmoid(4 * x) * torch.sigmoid(-4 * x),
        "fast sigmoid": (1 + 25 * x.abs()) ** -2,
        "SoftSign": (1 + 2 * x.abs()) ** -2,
        "SuperSpike": (1 + x.abs()) ** -2,
        "pseudo-spike": (1 + 2 * x.abs()) ** -2,
        "Fourier": torch.where(x.abs() <= 1, sum(torch.cos((2 * j + 1) * np.pi / 2 * x) for j in range(11)), 0.0),
    }
    for name, formula in formulas.items():
        rule = known[name]
        assert isinstance(rule, Surrogate)
        torch.testing.assert_close(rule.derivative(x), formula, rtol=1e-9, atol=1e-9)
    assert {type(rule) for rule in known.values()} >= {hs.Annealed, hs.Rectified, hs.LeakyBox, hs.LogTail}


def test_published_schedules_take_their_published_values() -> None:
    known = hs.published_rules()
    assert known["ReSTE"].at(0.5).power == pytest.approx(1.5858, abs=1e-4)
    assert known["ReSTE"].at(999 / 1000).power == pytest.approx(2.99686, abs=1e-5)
    assert known["EDE"].at(0.5).temperature == pytest.approx(0.1)
    assert known["EDE"].at(0.0).derivative(torch.zeros(1)).item() == pytest.approx(0.5)  # slope 1 of the sign
    assert known["RBNN"].at(1.0).temperature == pytest.approx(10.0)
    area = hs.Annealed(hs.UnitArea(hs.ReSTE(power=1.0)), hs.UnitArea(hs.ReSTE()), hs.LinearPath()).at(0.25)
    assert area == hs.UnitArea(hs.ReSTE(power=1.5))


def test_swish_sign_has_the_published_negative_lobes() -> None:
    rule = hs.SwishSign(5.0)
    x = torch.linspace(0, 4, 400_001, dtype=torch.float64)
    g = 2 * rule.derivative(x)
    assert x[g < 0].min().item() == pytest.approx(2.39936 / 5, abs=1e-4)
    assert g.min().item() == pytest.approx(-0.3691, abs=1e-4)
    assert x[g.argmin()].item() == pytest.approx(0.687, abs=1e-3)
    assert 2 * torch.trapezoid(g.clamp(max=0), x).item() == pytest.approx(-0.3994, abs=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hs.Clipped(0.0), "width must be positive and finite, got 0.0"),
        (lambda: hs.Sech2(-1.0), "slope must be positive and finite, got -1.0"),
        (lambda: hs.ReSTE(power=0.5), "at least 1"),
        (lambda: hs.ReSTE(inner=2.0), "0 < inner < outer, got inner=2.0, outer=1.5"),
        (lambda: hs.EDE(-1.0), "temperature must be positive and finite, got -1.0"),
        (lambda: hs.RBNN(0.0), "temperature must be positive and finite, got 0.0"),
        (lambda: hs.DSQ(1.0), r"alpha of DSQ lies in \(0, 1\), got 1.0"),
        (lambda: hs.SwishSign(0.0), "slope must be positive and finite, got 0.0"),
        (lambda: hs.Fourier(terms=-1), "terms counts those beyond the first and is at least 0, got -1"),
        (lambda: hs.PseudoSpike(exponent=1.0), "exponent above 1, got 1.0"),
        (lambda: hs.Trapezoid(2.0, 1.0), "0 <= inner < outer, got inner=2.0, outer=1.0"),
        (lambda: hs.LeakyBox(leak=-1.0), "the leak is a slope, at least 0 and finite, got -1.0"),
        (lambda: hs.Scaled(hs.ReSTE(), 0.0), "factor must be positive and finite, got 0.0"),
        (lambda: hs.UnitArea(hs.Identity()), "Identity.. has infinite area"),
        (lambda: hs.Annealed(hs.ReSTE(), hs.Sech2()).at(0.5), "same class can become one another, got ReSTE"),
        (
            lambda: hs.Annealed(hs.LeakyBox(leak=0.0), hs.LeakyBox(), hs.GeometricPath()).at(0.5),
            "a geometric path needs positive ends, got 0.0 and 0.01",
        ),
    ],
)
def test_bad_hyperparameter_is_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_gain_in_front_of_a_step_is_a_learned_clip_range_of_its_rule() -> None:
    x, grad = torch.randn(2, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, gain = x.requires_grad_(), torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    hs.step(gain * x, hs.DSQ()).backward(grad)
    z, clip = x.detach().requires_grad_(), (1 / gain).detach().requires_grad_()
    hs.DSQ().curve(z / clip).backward(grad)
    torch.testing.assert_close(x.grad, z.grad)
    torch.testing.assert_close(gain.grad, -clip.grad * clip.detach() ** 2)
