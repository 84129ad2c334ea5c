"""What is measured of steps in training: by hand on small networks, against closed forms, in every fit."""

from __future__ import annotations

from dataclasses import replace
from math import gamma, pi, sqrt

import pytest
import torch
from torch import nn

import hardstep as hs
from hardstep.indicators import indicators, read_gradients


def test_reading_counts_bits_units_and_saturation_by_hand() -> None:
    net = nn.Sequential(nn.Identity(), hs.Step(hs.Clipped(1.0)))
    x = torch.tensor([[0.5, -2.0, 0.5, -0.5], [3.0, -2.0, -0.5, -0.5]])
    (reading,) = hs.read_steps(net, x).values()
    assert reading.bits[:, 0].tolist() == [[True, False, True, False], [True, False, False, False]]
    assert reading.constant == (0.5, 0.25)
    assert reading.saturated == pytest.approx(3 / 8)
    errors = [0.5, 0.0, 0.5, 0.5, 0.0, 0.0, 0.5, 0.5]
    assert reading.error == pytest.approx(sqrt(sum(e**2 for e in errors) / 8))


def test_bits_that_flip_are_those_that_differ_between_two_readings() -> None:
    net = nn.Sequential(nn.Linear(1, 4, bias=False), hs.Step())
    x = torch.tensor([[1.0], [2.0]])
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]))
        before = hs.read_steps(net, x)
        net[0].weight[0] = -1.0
        found = indicators(before, hs.read_steps(net, x))
    assert found["flip_rate"] == found["flip_rate/1"] == 0.25
    assert found["always"] == 0.25
    assert found["silent"] == 0.75


def test_reading_does_not_depend_on_the_size_of_the_batches() -> None:
    net = hs.nets.ConvNet4(channels=(2, 3), units=5, activation=hs.Staircase(3))((1, 8, 8), 4)
    x = torch.randn(23, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    whole, parts = (hs.read_steps(net, x, batch_size=size) for size in (23, 5))
    assert list(whole) == ["3.step", "7.step", "11.step"]
    for name, reading in whole.items():
        assert reading.bits.shape[:2] == (23, 3)
        assert torch.equal(reading.bits, parts[name].bits)
        assert reading.saturated == pytest.approx(parts[name].saturated)
        assert reading.error == pytest.approx(parts[name].error, rel=1e-5)


@pytest.mark.parametrize(("deviation", "known"), [(0.05, 0.477062), (0.1, 0.3768), (0.5, 0.144212), (1.0, 0.087305)])
def test_error_of_the_untruncated_power_on_normal_weights_is_its_closed_form(deviation: float, known: float) -> None:
    def moment(q: float) -> float:
        return 2 ** (q / 2) * gamma((q + 1) / 2) / sqrt(pi)

    a = 1 / 3
    wanted = 1 - 2 * deviation**a * moment(a) + deviation ** (2 * a) * moment(2 * a)
    assert wanted == pytest.approx(known, abs=2e-6)
    quantiles = torch.special.ndtri((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)
    error = hs.estimating_error(hs.ReSTE(power=3.0, inner=1e-30, outer=1e30), deviation * quantiles)
    assert error**2 / 200_000 == pytest.approx(wanted, rel=1e-3)


def test_error_falls_as_the_power_grows() -> None:
    z = torch.randn(10_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    powers = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
    errors = [hs.estimating_error(hs.ReSTE(power=p, inner=1e-30, outer=1e30), z) for p in powers]
    assert errors == sorted(errors, reverse=True)


def test_stability_is_the_variance_of_the_sizes_of_all_entries() -> None:
    gradients = [torch.tensor([[1.0, -2.0]]), torch.tensor([3.0])]
    assert hs.gradient_stability(gradients) == pytest.approx(2 / 3)
    assert hs.gradient_stability(gradients, unbiased=True) == pytest.approx(1.0)


def test_fit_reports_indicators_of_every_layer_and_sweep_and_draws_them() -> None:
    pytest.importorskip("matplotlib")
    data = hs.data.load("digits")
    net = hs.nets.mlp(64, 16, 16, 10)
    report = hs.fit(net, data, hs.GradientDescent(rule=hs.Annealed()), sweeps=3, progress=False)
    names = {"flip_rate", "silent", "always", "saturated", "estimating_error"}
    for record in report.records:
        assert {name for name in record.extra if "/" in name} == {f"{name}/{layer}" for name in names for layer in "36"}
        assert names | {"gradient_stability", "train_accuracy"} <= set(record.extra)
        assert record.extra["gradient_stability"] > 0
        both = [record.extra[f"flip_rate/{layer}"] for layer in "36"]
        assert record.extra["flip_rate"] == pytest.approx(sum(both) / 2)
    assert report.records[0].extra["flip_rate"] > 0
    labels = [axis.get_ylabel() for axis in report.plot().axes]
    assert {"objective", "validation score", "flip rate", "gradient stability"} <= set(labels)


def test_a_rule_without_a_curve_has_no_estimating_error() -> None:
    net = nn.Sequential(nn.Identity(), hs.Step(hs.Rectified()))
    reading = hs.read_steps(net, torch.zeros(2, 3))
    assert "estimating_error" not in indicators(reading, reading)


def hard_network(weights: hs.Weights) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(8, 6), nn.Sequential(hs.Sign(), nn.Linear(6, 5)), hs.Sign(), nn.Linear(5, 4))
    for layer in (net[1][1], net[3]):
        hs.quantise(layer, weights)
    return net


def test_error_of_hard_weights_is_that_of_the_numbers_they_take_steps_of() -> None:
    rule = hs.ReSTE(power=2.0)
    for weights in (hs.Binary(), hs.Libra(), hs.Ternary(ratio=0.5)):
        net = hard_network(weights)
        found = {}
        for name, layer in (("1.1", net[1][1]), ("3", net[3])):
            layer.parametrizations.weight[0].rule = rule
            w = layer.parametrizations.weight.original.detach()
            standard = (w - w.mean(dim=1, keepdim=True)) / w.std(dim=1, keepdim=True)
            d = 0.5 * w.abs().mean(dim=1, keepdim=True)
            z = {hs.Binary: w, hs.Libra: standard, hs.Ternary: torch.cat([w - d, -w - d])}[type(weights)]
            found[f"weight_error/{name}"] = float((z.sign() - 2 * rule.curve(z) + 1).norm())
        assert hs.read_weights(net) == pytest.approx({"weight_error": sum(found.values())} | found, rel=1e-5)
    assert hs.read_weights(hs.nets.mlp(4, 3, 2)) == {}


def test_stability_of_hard_weights_is_summed_over_their_layers() -> None:
    net = hard_network(hs.Binary(hs.Learned()))
    net(torch.randn(20, 8, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    variances = {}
    for name, layer in (("1.1", net[1][1]), ("3", net[3])):
        sizes = layer.parametrizations.weight.original.grad.abs()
        variances[f"weight_stability/{name}"] = float((sizes - sizes.mean()).square().sum() / (sizes.numel() - 1))
    found = read_gradients(net)
    assert found.pop("gradient_stability") == hs.gradient_stability([p.grad for p in net.parameters()])
    assert found == pytest.approx({"weight_stability": sum(variances.values())} | variances, rel=1e-5)


def test_fit_reports_indicators_of_hard_weights_and_draws_them() -> None:
    pytest.importorskip("matplotlib")
    data = replace(hs.data.load("digits"), val=None)  # the last sweep is the one that is kept
    net = hs.quantise_hidden(hs.nets.mlp(64, 16, 12, 8, 10), hs.Binary())
    report = hs.fit(net, data, hs.GradientDescent(rule=hs.published_rules()["ReSTE"]), sweeps=2, progress=False)
    for record in report.records:
        for key in ("weight_error", "weight_stability"):
            layers = {name: value for name, value in record.extra.items() if name.startswith(f"{key}/")}
            assert len(layers) == 2 and min(layers.values()) > 0
            assert record.extra[key] == pytest.approx(sum(layers.values()))
    last = {name: value for name, value in report.records[-1].extra.items() if name.startswith("weight_error")}
    assert hs.read_weights(net) == last
    assert {"weight error", "weight stability"} <= {axis.get_ylabel() for axis in report.plot().axes}


def test_hard_weights_of_a_rule_without_a_curve_have_no_error() -> None:
    net = hard_network(hs.Binary())
    for layer in (net[1][1], net[3]):
        layer.parametrizations.weight[0].rule = hs.Rectified()
    assert hs.read_weights(net) == {}
