"""Binary and ternary weights: what they are, their gradients, their fits, and freezing them exactly."""

from __future__ import annotations

import copy
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import hardstep as hs
from hardstep.hard_layers import Conv, Dense
from hardstep.layers import HardWeights
from hardstep.weights import Scale

SCALES = [hs.Unscaled(), hs.PerLayer(), hs.PerLayer(True), hs.PerChannel(), hs.PerChannel(True), hs.Learned()]
FORMS: list[hs.Weights] = [*map(hs.Binary, SCALES), *map(hs.Ternary, SCALES), hs.Ternary(ratio=0.0), hs.Libra()]
every_form = pytest.mark.parametrize("weights", FORMS, ids=repr)
every_scale = pytest.mark.parametrize("scale", SCALES, ids=repr)


def latent(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def quantised(w: torch.Tensor, weights: hs.Weights, rule: hs.BackwardRule = hs.Clipped()) -> nn.Linear:  # noqa: B008
    layer = nn.Linear(w.shape[1], len(w), bias=False, dtype=w.dtype)
    with torch.no_grad():
        layer.weight.copy_(w)
    return hs.quantise(layer, weights, rule=rule)


def parameters(layer: nn.Module) -> tuple[torch.Tensor, HardWeights]:
    form = layer.parametrizations.weight[0]
    assert isinstance(form, HardWeights)
    return layer.parametrizations.weight.original, form


def sizes(scale: object, w: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The scale by its definition: a mean of |w| over what is kept, one for all or one a row."""
    size = w.abs() * kept
    if isinstance(scale, hs.Unscaled):
        return torch.ones((), dtype=w.dtype)
    if isinstance(scale, hs.PerLayer):
        return size.sum() / kept.sum()
    rows = w.abs().mean(dim=1, keepdim=True)  # a learned scale starts at the plain mean
    return rows if isinstance(scale, hs.Learned) else size.sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True)


def rounded(scale: torch.Tensor) -> torch.Tensor:
    """Eight significant bits by arithmetic."""
    mantissa, exponent = torch.frexp(scale)
    return torch.ldexp((mantissa * 256).round(), exponent - 8)


@every_scale
def test_binary_weights_are_the_scaled_sign_and_zero_is_below(scale: Scale) -> None:
    w = latent(5, 7)
    w[0, :2] = torch.tensor([0.0, -0.0])
    wanted = rounded(sizes(scale, w, torch.ones_like(w))) * torch.where(w > 0, 1.0, -1.0)
    assert torch.equal(quantised(w, hs.Binary(scale)).weight, wanted)


@every_scale
def test_ternary_weights_are_zero_up_to_the_threshold_and_there(scale: Scale) -> None:
    w = latent(5, 7)
    w[0] = torch.tensor([2.0, -1.0, 1.0, 0.5, -0.5, 1.0, 1.0])  # mean of |w| is 1, the threshold 1/2: ties
    kept = (w.abs() > 0.5 * w.abs().mean(dim=1, keepdim=True)).double()
    assert kept[0].tolist() == [1, 1, 1, 0, 0, 1, 1]
    wanted = rounded(sizes(scale, w, kept)) * kept * w.sign()
    assert torch.equal(quantised(w, hs.Ternary(scale, ratio=0.5)).weight, wanted)


@pytest.mark.parametrize(("rule", "slope"), [(hs.Clipped(), 1.0), (hs.ApproxSign(), None)], ids=["clipped", "triangle"])
@every_scale
def test_gradient_of_binary_weights_is_the_formula(scale: Scale, rule: hs.Surrogate, slope: float | None) -> None:
    w, push = latent(4, 9), latent(4, 9, seed=1)
    layer = quantised(w, hs.Binary(scale), rule)
    (layer.weight * push).sum().backward()
    original, form = parameters(layer)
    signs = torch.where(w > 0, 1.0, -1.0).double()
    alpha = rounded(sizes(scale, w, torch.ones_like(w)))
    g = (w.abs() <= 1) * slope if slope else (2 - 2 * w.abs()).clamp_min(0)
    wanted = alpha * g * push
    if scale == hs.PerLayer():
        wanted = wanted + signs * (push * signs).mean()
    if scale == hs.PerChannel():
        wanted = wanted + signs * (push * signs).mean(dim=1, keepdim=True)
    torch.testing.assert_close(original.grad, wanted, rtol=1e-12, atol=1e-12)
    if scale == hs.Learned():
        assert form.learned is not None
        torch.testing.assert_close(form.learned.grad, (push * signs).sum(dim=1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [hs.PerLayer(), hs.PerChannel()], ids=repr)
def test_gradient_of_the_attached_scale_is_that_of_autograd(scale: Scale) -> None:
    """10.2 against torch: alpha written with abs and mean, the sign's stand-in with clamp."""
    w, push = latent(3, 8).requires_grad_(), latent(3, 8, seed=1)
    dims = (0, 1) if isinstance(scale, hs.PerLayer) else (1,)
    mean = w.abs().mean(dim=dims, keepdim=True)
    signs = torch.where(w > 0, 1.0, -1.0) + w.clamp(-1, 1) - w.clamp(-1, 1).detach()
    alpha = mean - mean.detach() + rounded(mean.detach())
    (alpha * signs * push).sum().backward()
    layer = quantised(w.detach(), hs.Binary(scale))
    (layer.weight * push).sum().backward()
    torch.testing.assert_close(parameters(layer)[0].grad, w.grad, rtol=1e-12, atol=1e-12)


def test_gradient_of_ternary_weights_is_that_of_both_steps_and_of_the_scale() -> None:
    w, push = latent(4, 9), latent(4, 9, seed=1)
    rule = hs.ApproxSign()
    layer = quantised(w, hs.Ternary(hs.PerChannel()), rule)
    (layer.weight * push).sum().backward()
    d = 0.7 * w.abs().mean(dim=1, keepdim=True)
    t = torch.where(w.abs() > d, w.sign(), 0.0)
    alpha = rounded((w * t).sum(dim=1, keepdim=True) / t.abs().sum(dim=1, keepdim=True))
    slope = rule.derivative(w - d) + rule.derivative(w + d)
    through = t * (push * t).sum(dim=1, keepdim=True) / t.abs().sum(dim=1, keepdim=True)
    torch.testing.assert_close(parameters(layer)[0].grad, alpha * slope * push + through, rtol=1e-12, atol=1e-12)


def test_libra_weights_and_their_gradient_are_the_published_ones() -> None:
    w, push = (latent(4, 9) + 0.3).requires_grad_(), latent(4, 9, seed=1)
    v = (w - w.mean(dim=1, keepdim=True)) / w.std(dim=1, keepdim=True)
    shift = 2.0 ** v.detach().abs().mean(dim=1, keepdim=True).log2().round()
    signs = torch.where(v > 0, 1.0, -1.0)
    assert shift.unique().tolist() == [0.5, 1.0]
    ((signs + v.clamp(-1, 1) - v.clamp(-1, 1).detach()) * shift * push).sum().backward()
    layer = quantised(w.detach(), hs.Libra())
    assert torch.equal(layer.weight, (shift * signs).detach())
    (layer.weight * push).sum().backward()
    torch.testing.assert_close(parameters(layer)[0].grad, w.grad, rtol=1e-10, atol=1e-12)


def test_shift_of_libra_weights_is_a_power_of_two_that_heavy_tails_lower() -> None:
    w = torch.full((1, 100), 1e-3, dtype=torch.float64)
    w[0, 0], w[0, 1] = 50.0, -50.0
    assert quantised(w, hs.Libra()).weight.abs().unique().tolist() == [2.0**-3]  # mean |v| = 0.141


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7])
@pytest.mark.parametrize("inputs", [1, 7])
def test_units_of_equal_weights_get_finite_libra_weights_and_gradients(value: float, inputs: int) -> None:
    layer = quantised(torch.full((2, inputs), value), hs.Libra())
    assert layer.weight.tolist() == [[-1.0] * inputs] * 2
    layer.weight[0, 0].backward()
    assert parameters(layer)[0].grad.isfinite().all()
    assert bool(parameters(layer)[0].grad.any()) == (inputs > 1)  # a single weight is its own mean


@every_form
def test_all_zero_latent_weights_are_no_trouble(weights: hs.Weights) -> None:
    layer = quantised(torch.zeros(3, 4), weights)
    layer.weight.sum().backward()
    assert layer.weight.isfinite().all()
    assert parameters(layer)[0].grad.isfinite().all()


@every_form
def test_weights_of_a_convolution_are_those_of_its_rows(weights: hs.Weights) -> None:
    conv = hs.quantise(nn.Conv2d(3, 4, 2, dtype=torch.float64), weights)
    flat = quantised(parameters(conv)[0].detach().flatten(1), weights)
    torch.testing.assert_close(conv.weight.flatten(1), flat.weight, rtol=1e-12, atol=0)


@every_form
def test_sums_of_signs_are_exact_in_any_order(weights: hs.Weights) -> None:
    w = latent(20, 300).float()
    weight = quantised(w, weights).weight.detach()
    x = torch.where(latent(50, 300, seed=2) > 0, 1.0, -1.0)
    exact = (x.double() @ weight.double().T).float()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    assert torch.equal(x @ weight.T, exact)
    assert torch.equal((x[:, order] * weight[0, order]).cumsum(dim=1)[:, -1], exact[:, 0])
    assert torch.equal(x.bfloat16().double() @ weight.bfloat16().double().T, exact.double())


@pytest.mark.parametrize("activation", [hs.Step(), hs.Sign()], ids=["step", "sign"])
@every_form
def test_frozen_bits_equal_the_float_network_on_every_input_of_a_grid_ties_included(
    weights: hs.Weights, activation: nn.Module
) -> None:
    grid = torch.tensor(list(product([0.0, 1.0, 2.0, 3.0], repeat=5)))
    generator = torch.Generator().manual_seed(4)
    net = nn.Sequential(nn.Linear(5, 12), copy.deepcopy(activation), nn.Linear(12, 9, bias=False))
    net += nn.Sequential(copy.deepcopy(activation), nn.Linear(9, 8), copy.deepcopy(activation), nn.Linear(8, 3))
    for layer in net:
        if isinstance(layer, nn.Linear):
            hs.quantise(layer, weights)
            if layer.bias is not None:  # whole multiples of the scale: sums fall on the thresholds
                scale = layer.weight.detach().abs().amax(dim=1)
                layer.bias.data = scale * torch.randint(-2, 3, scale.shape, generator=generator)
    data = hs.data.from_arrays(grid.numpy().astype(np.uint8), np.arange(1024) % 3, grid=hs.Grid(1.0, 0))
    hard = hs.freeze(net, calibrate=data.train)
    hidden = [layer for layer in hard.layers if isinstance(layer, Dense)][:-1]
    assert all(set(np.unique(layer.weight)) <= {-1, 0, 1} for layer in hidden)
    *codes, _ = hard.trace(grid.numpy().astype(np.uint8))
    x, ties = grid, 0
    with torch.no_grad():
        for linear, step, bits in zip(net[:-1:2], net[1::2], codes, strict=True):
            sums = linear(x)
            ties += int((sums == 0).sum())
            x = step(sums)
            np.testing.assert_array_equal(bits, (x > 0).numpy())
    assert ties > 50


@pytest.mark.parametrize("rectified", [False, True])
@every_form
def test_convolutions_with_normalisation_and_pools_freeze_to_signs(weights: hs.Weights, rectified: bool) -> None:
    x = np.random.default_rng(0).integers(0, 256, (60, 2, 16, 16)).astype(np.uint8)
    data = hs.data.from_arrays(x, np.arange(60) % 2)
    net = hs.nets.VGGSmall(channels=(6, 7, 8), rectified=rectified, activation=hs.Sign(), weights=weights)
    net = net(data.shape, 2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.randn(module.num_features, generator=generator))
                module.weight[0] = 0
                module.bias.copy_(torch.randn(module.num_features, generator=generator))
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
    hard = hs.freeze(net.eval(), calibrate=data.train, weight_bits=16)
    convs = [layer for layer in hard.layers if isinstance(layer, Conv)]
    assert all(set(np.unique(layer.weight)) <= {-1, 0, 1} for layer in convs[1:])
    assert hard.rounding is not None
    assert hard.rounding.steps_changed <= 1e-3 * hard.rounding.step_outputs
    assert any(0 < code.mean() < 1 for code in list(hard.trace(x))[1:-2])


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("early", [False, True])
def test_relu_between_map_and_step_folds_into_the_threshold(pool: bool, early: bool) -> None:
    torch.manual_seed(0)
    gains = torch.tensor([0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 1.0, -1.0])
    norms = [nn.BatchNorm2d(8).eval() for _ in range(2)]
    with torch.no_grad():
        norms[1].weight.copy_(gains)
        norms[1].bias.copy_(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -2.0, 0.0, 0.0]))
        norms[0].weight.copy_(gains.flip(0))
        norms[0].bias.copy_(torch.linspace(-1, 1, 8))
    pools = [nn.MaxPool2d(2)] if pool else []
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), *(norms[:1] if early else []), nn.ReLU(), *pools, norms[1], hs.Staircase(3),
        nn.Flatten(), nn.Linear(8 * (9 if pool else 36), 2),
    )  # fmt: skip
    x = np.random.default_rng(1).integers(0, 256, (50, 1, 8, 8)).astype(np.uint8)
    data = hs.data.from_arrays(x, np.arange(50) % 2)
    hard = hs.freeze(net, calibrate=data.train, weight_bits=16)
    assert hard.rounding is not None
    assert hard.rounding.steps_changed <= 2e-3 * hard.rounding.step_outputs
    with pytest.raises(ValueError, match=r"ReLU.* cannot be frozen"):
        hs.freeze(nn.Sequential(*net[:2], nn.ReLU(), nn.ReLU(), *net[2:]), calibrate=data.train)


def test_learned_thresholds_of_a_sign_move_its_integer_threshold_and_get_minus_the_gradient() -> None:
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    module = hs.rsign(3, hs.ApproxSign())
    module[0].threshold.data = torch.tensor([0.5, 0.0, -1.0])
    out = module(x)
    assert torch.equal(out, torch.where(x > module[0].threshold.view(3, 1, 1), 1.0, -1.0))
    out.square().sum().backward()
    (out.detach() * 0 + module(x) * torch.arange(16.0).view(4, 4)).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(module[0].threshold.grad, -x.grad.sum(dim=(0, 2, 3)))
    data = hs.data.from_arrays(
        np.random.default_rng(1).integers(0, 256, (40, 1, 8, 8)).astype(np.uint8), np.arange(40) % 2
    )
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.MaxPool2d(2), module, nn.Flatten(), nn.Linear(27, 2))
    hard = hs.freeze(net, calibrate=data.train, weight_bits=16)
    assert hard.rounding is not None
    assert hard.rounding.steps_changed <= 2e-3 * hard.rounding.step_outputs
    with pytest.raises(ValueError, match=r"Shift.* cannot be frozen"):
        hs.freeze(nn.Sequential(hs.Shift(1), *net), calibrate=data.train)


def test_learned_prelu_is_its_formula_with_the_stated_slopes() -> None:
    module = hs.rprelu(2)
    u, v, b = torch.tensor([0.5, -1.0]), torch.tensor([1.0, 2.0]), torch.tensor([0.25, 0.5])
    module[0].threshold.data, module[2].threshold.data, module[1].weight.data = u.clone(), -v, b.clone()
    x = torch.tensor([[2.0, -3.0], [0.5, 1.0], [-4.0, -1.0]])
    out = module(x)
    torch.testing.assert_close(out, torch.where(x > u, x - u, b * (x - u)) + v)
    out.sum().backward()
    assert module[0].threshold.grad.tolist() == [-1 - 0.25 - 0.25, -1 - 0.5 - 0.5]
    assert module[2].threshold.grad.tolist() == [-3, -3]
    assert module[1].weight.grad.tolist() == [-4.5, -2.0]


def test_rules_of_activations_and_weights_go_their_own_ways(digits: hs.data.Data) -> None:
    seen = []

    class Spy(HardWeights):
        def forward(self, latent: torch.Tensor) -> torch.Tensor:
            seen.append((self.rule, net[3].rule))
            return super().forward(latent)

    net = hs.nets.MLP(hidden=(8, 8))(digits.shape, 10)
    parametrize.register_parametrization(net[4], "weight", Spy(hs.Binary(), hs.Identity(), None))
    path = hs.Annealed(hs.ReSTE(power=1.0), hs.ReSTE(power=3.0), hs.LinearPath())
    for rule in (path, hs.Apart(hs.Sech2(), path)):
        seen.clear()
        hs.fit(net, digits, hs.GradientDescent(rule=rule), sweeps=2, progress=False)
        found = list(dict.fromkeys(seen))
        grows = [hs.ReSTE(power=1.0), hs.ReSTE(power=2.0)]
        assert [pair[0] for pair in found if pair[0] != hs.Identity()][-2:] == grows
        activations = [hs.Apart(hs.Sech2(), weight) for weight in grows] if isinstance(rule, hs.Apart) else grows
        assert [pair[1] for pair in found][-2:] == activations


@pytest.mark.parametrize("weights", [hs.Binary(), hs.Binary(hs.Learned()), hs.Libra(), hs.Ternary()], ids=repr)
def test_network_with_hard_weights_learns_and_freezes_to_what_it_says(
    weights: hs.Weights, digits: hs.data.Data
) -> None:
    net = hs.nets.MLP(hidden=(64, 64), activation=hs.Sign(), weights=weights)(digits.shape, 10)
    report = hs.fit(net, digits, hs.GradientDescent(), sweeps=8, progress=False)
    assert report.score is not None
    assert report.score > 0.85
    hard = hs.freeze(net, calibrate=digits.train, weight_bits=16)
    assert hard.rounding is not None
    assert hard.rounding.steps_changed <= 1e-3 * hard.rounding.step_outputs
    hidden = [layer for layer in hard.layers if isinstance(layer, Dense)][1]
    assert set(np.unique(hidden.weight)) <= {-1, 0, 1}


def test_resumed_fit_of_binary_weights_ends_in_the_same_bits(digits: hs.data.Data, tmp_path: Path) -> None:
    recipe = hs.nets.MLP(hidden=(16, 16), weights=hs.Binary(hs.Learned()))
    whole, parts = recipe(digits.shape, 10), recipe(digits.shape, 10)
    method = hs.GradientDescent(rule=hs.Annealed(), penalty=hs.L2(1e-3))
    hs.fit(whole, digits, method, sweeps=3, progress=False, folder=tmp_path / "whole")
    hs.fit(parts, digits, method, sweeps=3, progress=False, folder=tmp_path / "parts")
    again = recipe(digits.shape, 10)
    hs.fit(again, digits, method, sweeps=3, progress=False, folder=tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name])
        assert torch.equal(value, again.state_dict()[name])


def test_copies_and_permanent_copies_say_the_same(digits: hs.data.Data) -> None:
    net = hs.nets.MLP(hidden=(8, 8), weights=hs.Binary())(digits.shape, 10).eval()
    x = digits.train.take([0, 1, 2])[0].float()
    twin, plain = copy.deepcopy(net), hs.permanent(net)
    assert torch.equal(twin(x), net(x))
    assert torch.equal(plain(x), net(x))
    assert not any(parametrize.is_parametrized(module) for module in plain.modules())
    assert all(parametrize.is_parametrized(model[4]) for model in (net, twin))
    parameters(twin[4])[0].data.neg_()
    assert not torch.equal(twin(x), net(x))


def test_dead_rates_of_binary_networks_are_measured(digits: hs.data.Data) -> None:
    net = hs.nets.MLP(hidden=(8, 8), weights=hs.Binary())(digits.shape, 10)
    computed, plain = hs.dead_rates(net, digits.train), hs.dead_rates(hs.permanent(net), digits.train)
    assert computed == plain


@pytest.mark.parametrize(
    "method", [hs.RandomFeatures(), hs.MarginBCD(), hs.Splitting(), hs.MagnitudePruning()], ids=repr
)
def test_methods_that_write_weights_refuse_computed_ones(method: hs.Method, digits: hs.data.Data) -> None:
    net = hs.nets.MLP(hidden=(8, 8), weights=hs.Binary())(digits.shape, 10)
    with pytest.raises(ValueError, match=r"layer '4' computes its weights .*use GradientDescent"):
        hs.fit(net, digits, method, sweeps=5, progress=False)


def test_bad_forms_are_refused() -> None:
    layer = hs.quantise(nn.Linear(2, 2), hs.Binary())
    with pytest.raises(ValueError, match="computes its weights already"):
        hs.quantise(layer, hs.Ternary())
    with pytest.raises(ValueError, match="ratio is the threshold in units of mean"):
        hs.Ternary(ratio=-1.0)
    assert not parametrize.is_parametrized(hs.quantise(nn.Linear(2, 2), hs.Real()))
