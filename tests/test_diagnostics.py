"""Dead units: the table against counting, the bounds against every input, what removing weights does to it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hardstep as hs
from hardstep.diagnostics import dead_rates, select
from hardstep.parts import Samples
from hardstep.units import certified, codes

ACTIVATIONS = [hs.Step(), hs.Sign(), hs.Staircase(3), nn.ReLU()]
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda module: type(module).__name__)


def part(x: Tensor) -> Samples:
    return Samples(x.float(), torch.zeros(len(x), dtype=torch.int64))


def every_input(size: int) -> Tensor:
    return torch.tensor(list(product((0.0, 1.0), repeat=size)))


def drawn(seed: int, activation: nn.Module, inputs: int = 8) -> nn.Sequential:
    """Two hidden layers of small whole weights, many of them 0, some rows without any."""
    generator = torch.Generator().manual_seed(seed)
    first, second, last = nn.Linear(inputs, 12), nn.Linear(12, 10), nn.Linear(10, 3)
    with torch.no_grad():
        for layer in (first, second, last):
            layer.weight.copy_(torch.randint(-2, 3, layer.weight.shape, generator=generator))
            layer.weight[torch.rand(layer.weight.shape, generator=generator) < 0.5] = 0
            layer.weight[:3] = 0
            layer.bias.copy_(torch.randint(-3, 3, layer.bias.shape, generator=generator))
    return nn.Sequential(first, activation, nn.Sequential(second, activation), last)


def drawn_images(seed: int, activation: nn.Module) -> nn.Sequential:
    """A padded convolution, pooling and normalisation with gains of both signs, on 3 x 3 images."""
    generator = torch.Generator().manual_seed(seed)
    conv, norm, linear = nn.Conv2d(1, 6, 2, padding=1), nn.BatchNorm2d(6), nn.Linear(24, 5)
    with torch.no_grad():
        for layer in (conv, linear):
            layer.weight.copy_(torch.randint(-2, 3, layer.weight.shape, generator=generator))
            layer.bias.copy_(torch.randint(-2, 3, layer.bias.shape, generator=generator))
        conv.weight[0] = 0
        norm.weight.copy_(torch.randint(-2, 3, (6,), generator=generator))
        norm.bias.copy_(torch.randint(-2, 3, (6,), generator=generator))
        norm.weight[0], norm.bias[0] = 1, -3  # the channel without weights is silent
        norm.running_var.fill_(1 - norm.eps)
    return nn.Sequential(conv, nn.MaxPool2d(2), norm, activation, nn.Flatten(), linear, activation, nn.Linear(5, 2))


@every_activation
@pytest.mark.parametrize("seed", range(4))
def test_table_is_what_counting_gives(seed: int, activation: nn.Module) -> None:
    net, x = drawn(seed, activation), torch.randn(50, 8, generator=torch.Generator().manual_seed(seed)).round()
    rates = dead_rates(net, part(x), batch_size=7)
    levels = {hs.Sign: lambda a: (a + 1) / 2, nn.ReLU: lambda a: (a > 0).float()}.get(type(activation), lambda a: a)
    a = x
    for layer, (linear, name) in zip(rates.layers, ((net[0], "0"), (net[2][0], "2.0")), strict=True):
        a = activation(linear(a)).detach()
        fires = levels(a).double()
        never, always = (fires == 0).all(dim=0), (fires == 1).all(dim=0)
        assert (layer.name, layer.rows, layer.units, layer.channels) == (name, 50, a.shape[1], a.shape[1])
        assert layer.total == int((fires == 0).sum())
        assert layer.static == 50 * int(never.sum())
        assert (layer.never, layer.always) == (int(never.sum()), int(always.sum()))
        assert layer.dead == int(never.sum()) + (0 if isinstance(activation, nn.ReLU) else int(always.sum()))
        assert layer.distinct == len(fires.unique(dim=0))
        p = fires.mean(dim=0).numpy()
        q = np.clip(p, 1e-300, 1 - 1e-16)
        assert layer.entropy == pytest.approx(np.mean(-p * np.log2(q) - (1 - p) * np.log2(1 - q)), abs=1e-6)
        varying = fires.mean(dim=0)[~(never | always)]
        assert layer.on == pytest.approx(float(varying.mean()))
        assert layer.off == pytest.approx(float((1 - varying).mean()))


@every_activation
@pytest.mark.parametrize("seed", range(3))
def test_dynamic_and_static_make_the_total_exactly_and_batches_do_not_matter(seed: int, activation: nn.Module) -> None:
    x = torch.rand(101, 8, generator=torch.Generator().manual_seed(seed))
    net = drawn(seed, activation)
    rates = dead_rates(net, part(x))
    for layer in rates.layers:
        assert layer.dynamic + layer.static == layer.total
        assert layer.static == layer.rows * layer.never
    assert all(dead_rates(net, part(x), batch_size=size) == rates for size in (1, 10, 100))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for values in (net[0].weight, net[0].bias):
            values.copy_(values[order])
        net[2][0].weight.copy_(net[2][0].weight[:, order])
    assert dead_rates(net, part(x)) == rates


@every_activation
@pytest.mark.parametrize("seed", range(6))
def test_structural_implies_certified_implies_constant_for_every_input(seed: int, activation: nn.Module) -> None:
    x = every_input(8)
    net = drawn(seed, activation)
    proved = certified(net, torch.zeros(8), torch.ones(8))
    some = dead_rates(net, part(x[::5]), box=(0.0, 1.0))
    for (layer, code), (never, always), rates in zip(codes(net, x), proved, some.layers, strict=True):
        assert bool((code[:, never] == 0).all())
        assert bool((code[:, always] == layer.top).all())
        unread = (layer.affine.weight == 0).all(dim=1) & (layer.affine.bias <= 0)
        assert bool(never[unread].all())
        assert rates.structural == int(unread.sum())
        assert rates.structural <= int(never.sum()) <= rates.never
        assert rates.certified == int(never.sum()) + (0 if layer.passes_on else int(always.sum()))
    with torch.no_grad():
        net[0].bias.add_(0.25)  # no ties: on the inputs themselves the bounds are reached
    layer, first = next(codes(net, x))
    never, always = certified(net, torch.zeros(8), torch.ones(8))[0]
    assert torch.equal((first == 0).all(dim=0), never)
    assert torch.equal((first == layer.top).all(dim=0), always)


@every_activation
@pytest.mark.parametrize("seed", range(4))
def test_bounds_of_padded_convolutions_hold_for_every_image(seed: int, activation: nn.Module) -> None:
    net, x = drawn_images(seed, activation).eval(), every_input(9).reshape(-1, 1, 3, 3)
    proved = certified(net, x[0], x[-1])
    for (layer, code), (never, always) in zip(codes(net, x), proved, strict=True):
        by_channel = code.transpose(0, 1).flatten(1)
        assert bool((by_channel[never] == 0).all())
        assert bool((by_channel[always] == layer.top).all())
    rates = dead_rates(net, part(x), box=(0.0, 1.0))
    assert [(layer.units, layer.channels) for layer in rates.layers] == [(24, 6), (5, 5)]
    assert rates.layers[0].never * 4 * len(x) <= rates.layers[0].static
    assert rates.layers[0].certified > 0


def test_constants_of_a_lower_layer_tighten_the_bounds_above() -> None:
    net = nn.Sequential(nn.Linear(1, 2), hs.Step(), nn.Linear(2, 1), hs.Step(), nn.Linear(1, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [0.0]]))
        net[0].bias.copy_(torch.tensor([-0.5, 1.0]))  # the second unit is always on
        net[2].weight.copy_(torch.tensor([[1.0, -2.0]]))
        net[2].bias.copy_(torch.tensor([0.5]))  # at most 1 - 2 + 0.5 < 0, though 1 + 0.5 > 0 if it could be off
    (never, always), above = certified(net, torch.zeros(1), torch.ones(1))
    assert (never.tolist(), always.tolist()) == ([False, False], [False, True])
    assert above[0].tolist() == [True]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("activation", [hs.Step(), nn.ReLU()], ids=["Step", "ReLU"])
def test_negative_weights_less_never_silence_a_unit_on_inputs_that_are_not_negative(
    seed: int, activation: nn.Module
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(60, 8, generator=generator)
    net = nn.Sequential(nn.Linear(8, 20), activation, nn.Linear(20, 2))
    with torch.no_grad():
        net[0].weight.normal_(generator=generator)
        net[0].bias.normal_(generator=generator)
        before, sums = dead_rates(net, part(x)).layers[0], net[0](x)
        net[0].weight[(net[0].weight < 0) & (torch.rand(20, 8, generator=generator) < 0.5)] = 0
        after = dead_rates(net, part(x)).layers[0]
        assert bool((net[0](x) >= sums - 1e-5).all())
    assert after.total < before.total
    assert after.static <= before.static
    assert after.always >= before.always


def test_dynamic_rate_may_rise_when_a_static_unit_wakes_up() -> None:
    net = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
    x = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[-1.0, 0.5]]))
        net[0].bias.zero_()
        before = dead_rates(net, part(x)).layers[0]
        net[0].weight[0, 0] = 0
    after = dead_rates(net, part(x)).layers[0]
    assert (before.total, before.static, before.dynamic) == (2, 2, 0)
    assert (after.total, after.static, after.dynamic) == (1, 0, 1)


def test_unit_that_always_fires_is_dead_but_for_a_relu() -> None:
    for activation, dead in ((hs.Step(), 1), (nn.ReLU(), 0)):
        net = nn.Sequential(nn.Linear(1, 1), activation, nn.Linear(1, 1))
        with torch.no_grad():
            net[0].weight.fill_(1.0)
            net[0].bias.fill_(1.0)
        rates = dead_rates(net, part(torch.tensor([[0.0], [1.0]])))
        assert (rates.layers[0].always, rates.layers[0].dead) == (1, dead)
        assert rates.dead == dead


def test_table_names_layers_and_probe_and_grid_codes_are_numbers(digits: hs.data.Data) -> None:
    assert digits.val is not None
    net = hs.nets.MLP(hidden=(30, 20))(digits.shape, digits.outputs)
    rates = dead_rates(net, digits.val)
    lines = str(rates).splitlines()
    assert lines[0].split() == ["layer", "units", *rates.layers[0].shares, "entropy", "distinct"]
    assert [line.split()[:2] for line in lines[1:3]] == [["1", "30"], ["4", "20"]]
    assert lines[3] == "144 rows, evaluation mode; certified for every input of the grid"
    assert net.training
    numbers = part(digits.val.take(range(144))[0].float() / 16)
    assert dead_rates(net, numbers).layers[0].total == rates.layers[0].total
    assert rates.total == pytest.approx(sum(layer.total for layer in rates.layers) / (144 * 50))
    assert rates.dynamic == pytest.approx(sum(layer.dynamic for layer in rates.layers) / (144 * 50))


def test_network_that_cannot_be_read_is_refused_by_name() -> None:
    probe = part(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"layer '1' is Tanh\(\)"):
        dead_rates(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), probe)
    with pytest.raises(ValueError, match="the network has no hidden layer"):
        dead_rates(nn.Sequential(nn.Linear(4, 2)), probe)


@pytest.mark.parametrize("seed", range(8))
def test_select_removes_exactly_the_lowest_ties_by_position(seed: int) -> None:
    generator = np.random.default_rng(seed)
    alive, candidates = generator.random((2, 30)) < 0.7
    score = generator.integers(0, 5, 30)
    ranked = sorted((score[i], i) for i in range(30) if alive[i] and candidates[i])
    for count in (0, 3, len(ranked), 40):
        expected = alive.copy()
        expected[[i for _, i in ranked[:count]]] = False
        left = select(torch.from_numpy(alive), torch.from_numpy(candidates), torch.from_numpy(score), count)
        assert np.array_equal(left.numpy(), expected)
