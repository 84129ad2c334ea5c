"""Shrink: fewer units in a PyTorch network, the same outputs."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

import hardstep as hs
from hardstep.hard_layers import Conv, Dense
from hardstep.shrink import Size, size

ACTIVATIONS = {"step": hs.Step(), "sign": hs.Sign(), "staircase": hs.Staircase(2), "relu": nn.ReLU()}  # halves: exact
every_activation = pytest.mark.parametrize("kind", ACTIVATIONS)
with_and_without_norm = pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
Map = nn.Linear | nn.Conv2d
Norm = nn.BatchNorm1d | nn.BatchNorm2d


def maps(net: nn.Module) -> list[Map]:
    return [module for module in net.modules() if isinstance(module, Map)]


def widths(net: nn.Module) -> list[int]:
    """Units of every layer with weights, the read-out last."""
    return [len(module.weight) for module in maps(net)]


def activated(net: nn.Sequential, kind: str) -> nn.Sequential:
    return nn.Sequential(*(deepcopy(ACTIVATIONS[kind]) if isinstance(layer, hs.Step) else layer for layer in net))


def mlp(kind: str, norm: bool, *, hidden: tuple[int, ...] = (14, 12, 10)) -> nn.Sequential:
    return activated(hs.nets.MLP(hidden=hidden, norm=norm, dropout=0.5)((2, 4), 3), kind)


def convnet(kind: str, norm: bool) -> nn.Sequential:
    return activated(hs.nets.ConvNet4(channels=(6, 5), units=9, norm=norm)((2, 8, 8), 3), kind)


@torch.no_grad()
def exact(net: nn.Sequential, seed: int = 0) -> nn.Sequential:
    """Give all numbers small binary fractions, normalisation gains of both signs and a deviation of exactly 1."""
    generator = torch.Generator().manual_seed(seed)

    def quarters(like: Tensor) -> Tensor:
        return torch.randint(-6, 7, like.shape, generator=generator) / 4

    for module in net.modules():
        if isinstance(module, Map | Norm):
            module.weight.copy_(quarters(module.weight))
            if module.bias is not None:
                module.bias.copy_(quarters(module.bias))
        if isinstance(module, Norm):
            module.eps = 0.25
            module.running_var.fill_(0.75)
            module.running_mean.copy_(quarters(module.running_mean))
            module.weight[module.weight == 0] = -0.5
    return net.eval()


@torch.no_grad()
def plant(net: nn.Sequential, unread: list[int], constant: list[int]) -> nn.Sequential:
    """Make units of every hidden layer unread, and others constant; return the network."""
    for layer, reader in pairwise(maps(net)):
        layer.weight[constant] = 0
        reader.weight.reshape(len(reader.weight), len(layer.weight), -1)[:, unread] = 0
    return net


def inputs(net: nn.Sequential, n: int = 60) -> Tensor:
    shape = (2, 8, 8) if isinstance(net[0], nn.Conv2d) else (2, 4)
    return torch.randint(-8, 9, (n, *shape), generator=torch.Generator().manual_seed(9)) / 4


@torch.no_grad()
def readings(net: nn.Module, x: Tensor) -> list[Tensor]:
    """What every layer with weights but the first reads, and the outputs."""
    seen: list[Tensor] = []
    handles = [m.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for m in maps(net)[1:]]
    seen.append(net(x))
    for handle in handles:
        handle.remove()
    return seen


@torch.no_grad()
def checked(net: nn.Sequential, x: Tensor, tolerance: float = 0.0) -> nn.Module:
    """Shrink and check what must hold for every network: outputs, the original untouched, nothing left to do."""
    before = deepcopy(net.state_dict())
    small = hs.shrink(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    torch.testing.assert_close(small(x), deepcopy(net).eval()(x), rtol=tolerance, atol=tolerance)
    again = hs.shrink(small)
    assert [(name, value.tolist()) for name, value in again.state_dict().items()] == [
        (name, value.tolist()) for name, value in small.state_dict().items()
    ]
    for layer, reader in pairwise(maps(small)):
        read = reader.weight.reshape(len(reader.weight), len(layer.weight), -1).any(dim=2).any(dim=0)
        assert read.all() or len(layer.weight) == 1
    return small


@every_activation
@with_and_without_norm
def test_planted_units_of_an_mlp_go_and_every_step_stays_bit_for_bit(kind: str, norm: bool) -> None:
    for seed in range(3):
        net = plant(exact(mlp(kind, norm), seed), unread=[0, 3], constant=[3, 5, 9])
        x = inputs(net)
        small = checked(net, x)
        assert widths(small) == [14 - 4, 12 - 4, 10 - 4, 3]
        kept = [[i for i in range(width) if i not in (0, 3, 5, 9)] for width in (14, 12, 10)]
        for old, new, units in zip(readings(net, x), readings(small, x), [*kept, slice(None)], strict=True):
            assert torch.equal(old[:, units], new)
        assert small[1].in_features == 8 and small[1].out_features == 10
        assert all(m.num_features == len(m.running_mean) for m in small if isinstance(m, Norm))


@every_activation
@with_and_without_norm
def test_planted_channels_of_a_convnet_go_and_every_step_stays_bit_for_bit(kind: str, norm: bool) -> None:
    for seed in range(2):
        net = exact(convnet(kind, norm), seed)
        bias = (net[2] if norm else net[0]).bias
        with torch.no_grad():
            bias[3], bias[4] = -100.0, 100.0  # never on: worth 0 to all but sign, as the border is; always on
        plant(net, unread=[0], constant=[3, 4])
        x = inputs(net)
        small = checked(net, x)
        first = [1, 2, 3, 4, 5] if kind == "sign" else [1, 2, 4, 5]  # the next convolution is padded
        assert widths(small) == [len(first), 5 - 3, 9 - 3, 3]
        second = [i for i in range(5) if i not in (0, 3, 4)]
        old, new = readings(net, x), readings(small, x)
        assert torch.equal(old[0][:, first], new[0])
        places = old[1].shape[1] // 5
        assert torch.equal(old[1].reshape(-1, 5, places)[:, second].flatten(1), new[1])
        assert torch.equal(old[2][:, [1, 2, 5, 6, 7, 8]], new[2])


@every_activation
@pytest.mark.parametrize("make", [mlp, convnet])
def test_random_weights_keep_their_outputs_up_to_rounding(make: object, kind: str) -> None:
    net = make(kind, True)  # type: ignore[operator]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, Norm):
                for tensor in (module.weight, module.bias, module.running_mean):
                    tensor.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
    small = checked(plant(net.eval(), unread=[1], constant=[2]), inputs(net), tolerance=1e-5)
    assert sum(widths(small)) < sum(widths(net))


@pytest.mark.parametrize("kind", ["step", "sign", "staircase"])
@with_and_without_norm
@pytest.mark.parametrize("constant", [[], [3]], ids=["unread", "constant"])
def test_frozen_network_of_the_smaller_one_equals_the_simplified_one_of_the_original(
    kind: str, norm: bool, constant: list[int]
) -> None:
    for make in (mlp, convnet):
        net = plant(exact(make(kind, norm)), unread=[0, 2], constant=constant)
        x = torch.randint(0, 256, (200, *inputs(net).shape[1:]), generator=torch.Generator().manual_seed(0))
        data = hs.data.from_arrays(x.numpy().astype(np.uint8), np.arange(200) % 3, name="random")
        codes = x.numpy().astype(np.uint8)
        original, shrunk = (hs.freeze(each, calibrate=data.train) for each in (net, hs.shrink(net)))
        simplified = hs.simplify(original)
        assert np.array_equal(original(codes), simplified(codes))
        for hard in (shrunk, hs.simplify(shrunk)):
            if not constant:
                assert np.array_equal(hard(codes), simplified(codes))
            # a constant takes its column with it, maybe the largest one, which sets the unit of the scores
            np.testing.assert_allclose(hard(codes) * hard.scale, simplified(codes) * simplified.scale, rtol=1e-12)
            assert np.array_equal(hard.predict(codes), simplified.predict(codes))
        counts = [
            [len(layer.weight) for layer in hard.layers if isinstance(layer, Dense | Conv)]
            for hard in (hs.simplify(shrunk), simplified, shrunk)
        ]
        assert counts[0] == counts[1]
        assert all(a <= b for a, b in zip(counts[1], counts[2], strict=True))


def test_units_that_only_a_removed_unit_reads_go_too_and_constants_climb() -> None:
    net = nn.Sequential(nn.Linear(2, 3), hs.Step(), nn.Linear(3, 3), hs.Step(), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 1.0]]))
        net[0].bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
        net[2].weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]))
        net[2].bias.copy_(torch.tensor([0.0, -1.0, 0.0]))
        net[4].weight.copy_(torch.tensor([[1.0, 5.0, 0.0], [2.0, 7.0, 0.0]]))  # unit 2 is unread, so 2 below
    small = checked(net, torch.randn(50, 2, generator=torch.Generator().manual_seed(0)))
    assert widths(small) == [1, 1, 2]  # the constant 1 makes unit 1 above the constant step(2 - 1)
    assert small[4].bias.tolist() == [5.0, 7.0]
    assert small[4].weight.tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(("kind", "value"), [("step", 0.0), ("sign", -1.0), ("staircase", 0.0), ("relu", 0.0)])
def test_constant_behind_a_negative_gain_moves_into_the_bias(kind: str, value: float) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), ACTIVATIONS[kind], nn.Linear(2, 1)).eval()
    with torch.no_grad():
        net[0].weight[1] = 0
        net[0].bias[1] = 4.0
        net[1].weight[1] = -1.0
    bias = net[3].bias.item() + value * net[3].weight[0, 1].item()
    small = checked(net, torch.randn(9, 2, generator=torch.Generator().manual_seed(0)), tolerance=1e-6)
    assert widths(small) == [1, 1]
    assert small[3].bias.item() == pytest.approx(bias, abs=1e-7)


@pytest.mark.parametrize("make", [mlp, convnet])
def test_network_of_which_nothing_is_read_keeps_one_unit_a_layer(make: object) -> None:
    net = exact(make("sign", True))  # type: ignore[operator]
    with torch.no_grad():
        maps(net)[-1].weight.zero_()
    small = checked(net, inputs(net))
    assert widths(small) == [1] * (len(widths(net)) - 1) + [3]
    assert not any(module.weight.any() for module in maps(small))


@every_activation
@pytest.mark.parametrize("make", [mlp, convnet])
def test_network_that_never_changes_keeps_one_unit_a_layer_and_its_outputs(make: object, kind: str) -> None:
    net = exact(make(kind, False))  # type: ignore[operator]
    with torch.no_grad():
        net[-4 if isinstance(net[-2], nn.Dropout) else -3].weight.zero_()  # the layer below the read-out
    small = checked(net, inputs(net))
    assert widths(small) == [1] * (len(widths(net)) - 1) + [3]
    assert not any(module.weight.any() for module in maps(small))
    assert torch.equal(small(inputs(net))[0], small[-1].bias)


@every_activation
@with_and_without_norm
def test_network_without_needless_units_keeps_its_shapes_and_numbers(kind: str, norm: bool) -> None:
    for net in (mlp(kind, norm), convnet(kind, norm)):
        small = hs.shrink(net)
        assert repr(small) == repr(net)
        assert not small.training and net.training
        assert all(torch.equal(value, net.state_dict()[name]) for name, value in small.state_dict().items())


def test_normalisation_behind_flatten_gives_a_channel_a_constant_for_each_place() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.MaxPool2d(2, padding=1)),
        nn.Sequential(nn.Flatten(), nn.Identity(), nn.BatchNorm1d(16), hs.Sign(), nn.Dropout(0.5)),
        nn.Linear(16, 3, bias=False),
    )
    with torch.no_grad():
        net[1][2].bias.normal_()
        net[1][2].weight[::2] *= -1
        net[0][0].weight[2] = 0
        net[2].weight[:, 4:8] = 0
        net[2].weight[:, :3] = 0  # channel 0 is still read at one place
    small = checked(net.eval(), torch.randn(20, 1, 7, 7), tolerance=1e-6)
    assert widths(small) == [2, 3]
    assert small[1][2].num_features == 8
    assert small[2].bias is not None


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({"padding": 1}, 2),
        ({"padding": (0, 1)}, 2),
        ({"padding": "same"}, 2),
        ({"padding": 0}, 1),
        ({"padding": "valid"}, 1),
        ({"padding": 1, "padding_mode": "replicate"}, 1),
        ({"stride": 2, "dilation": 2}, 1),
    ],
)
def test_constant_channel_goes_where_the_border_sees_it_too(arguments: dict[str, object], left: int) -> None:
    torch.manual_seed(0)
    reader = nn.Conv2d(3, 4, 3, **arguments)  # type: ignore[arg-type]
    net = nn.Sequential(nn.Conv2d(1, 3, 1), hs.Step(), reader, hs.Step(), nn.Flatten(), nn.LazyLinear(2))
    x = torch.randn(20, 1, 7, 7)
    net(x)
    with torch.no_grad():
        net[0].weight[:2] = 0
        net[0].bias[0], net[0].bias[1] = 1.0, -1.0  # always, never
    assert widths(checked(net, x, tolerance=1e-6))[0] == left


def test_a_smaller_network_trains_freezes_and_keeps_what_was_frozen_of_it(digits: hs.data.Data) -> None:
    net = hs.nets.mlp(64, 30, 20, 10)
    net = nn.Sequential(nn.Flatten(), *list(net)[1:])
    hs.fit(net, digits, hs.GradientDescent(batch_size=64), sweeps=2, progress=False)
    plant(net, unread=[0, 1, 2], constant=[4, 5])
    net[1].weight.requires_grad_(False)
    small = hs.shrink(net)
    assert not small[1].weight.requires_grad and small[4].weight.requires_grad
    assert small[4].bias is not None and small[4].bias.requires_grad  # took the constants of the layer below
    assert widths(small) == [25, 15, 10]
    hard, simplified = (hs.freeze(each, calibrate=digits.train) for each in (small, net))
    assert hard.nbytes < simplified.nbytes and hard.macs == 64 * 25 + 25 * 15 + 15 * 10
    small[1].weight.requires_grad_(True)
    report = hs.fit(small, digits, hs.GradientDescent(batch_size=64), sweeps=2, progress=False)
    assert report.records[-1].objective < report.records[0].objective


def test_size_counts_parameters_zeros_and_products() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), hs.Step(), nn.Flatten(), nn.Linear(48, 5))
    with torch.no_grad():
        net[0].weight[0] = 0
        net[0].bias.fill_(1)
        net[4].bias.fill_(1)
    parameters = 54 + 3 + 6 + 240 + 5
    assert size(net, (2, 4, 4)) == Size(parameters, parameters - 18 - 3, 54 * 16 + 240)
    assert net.training
    small = hs.shrink(net)
    assert size(small, (2, 4, 4)) == Size(36 + 2 + 4 + 160 + 5, 36 + 2 + 2 + 160 + 5, 36 * 16 + 160)


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + super().forward(x)
        return out


def twice() -> nn.Sequential:
    linear = nn.Linear(4, 4)
    return nn.Sequential(linear, hs.Step(), linear, hs.Step(), nn.Linear(4, 2))


def masked() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(4, 4), hs.Step(), nn.Linear(4, 2))
    prune.l1_unstructured(net[2], "weight", amount=0.5)
    return net


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh())), r"layer '1.0' \(Tanh\).* of another kind"),
        (nn.Sequential(Residual(nn.Linear(4, 4))), r"layer '0' \(Residual\).* of another kind"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), r"layer '0' \(Conv2d\).* 2 groups"),
        (nn.Sequential(nn.Conv2d(4, 4, 3), nn.MaxPool2d(2, dilation=2)), "layer '1' .* pools with dilation"),
        (nn.Sequential(nn.Conv2d(4, 4, 3), nn.Flatten(2)), "layer '1' .* does not flatten whole samples"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)), "layer '1' .* no running"),
        (nn.Sequential(nn.Linear(4, 4), hs.Step(), weight_norm(nn.Linear(4, 4))), "layer '2' .* make them permanent"),
        (masked(), "layer '2' .* make them permanent"),
        (twice(), r"layer '2' \(Linear\) .* used twice"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), hs.Step(), nn.Linear(4, 4)), r"layer '2' .* put one nn.Flatten\(\)"),
        (nn.Sequential(nn.Linear(4, 4), hs.Step(), nn.Conv2d(4, 4, 1)), r"layer '2' .* put one nn.Flatten\(\)"),
        (nn.Sequential(nn.Linear(4, 4), nn.MaxPool2d(2), nn.Linear(2, 4)), r"layer '2' .* put one nn.Flatten\(\)"),
        (nn.Sequential(nn.Linear(4, 4), hs.Step(), nn.Flatten(), nn.Linear(8, 4)), "layer '3' .* not the 4 units"),
    ],
)
def test_what_cannot_be_read_is_named(net: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hs.shrink(net)


def test_steps_and_poolings_may_stand_in_several_places() -> None:
    torch.manual_seed(0)
    step, pool = hs.Step(), nn.MaxPool2d(2)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), pool, step, nn.Conv2d(3, 3, 2), pool, step, nn.Flatten(), nn.Linear(27, 2))
    with torch.no_grad():
        net[0].weight[0] = 0
        net[3].weight[1] = 0
    assert widths(checked(net, torch.randn(10, 1, 16, 16), tolerance=1e-6)) == [2, 2, 2]
