"""Networks and recipes: published sizes, hard activations, gradients, seeds, freezing."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)
from torch.nn.utils import parametrize

import hardstep as hs
from hardstep.blocks import Activation, ResidualBlock

from .test_freeze import images, randomise

Plain = hs.nets.MLP | hs.nets.ConvNet4 | hs.nets.ConvNet8 | hs.nets.AlexNet | hs.nets.VGGSmall
Residual = hs.nets.ResNet18 | hs.nets.ResNet20 | hs.nets.ResNet34
Net = Plain | Residual
REACT = hs.nets.RealSums(shifted=True, after=hs.nets.RPReLU())
CLIPPED = hs.nets.RealSums(every=2, rectified=True, after=hs.nets.HardTanh())

SMALL: list[tuple[Net, tuple[int, int, int]]] = [
    (hs.nets.MLP(hidden=(9,)), (2, 5, 4)),
    (hs.nets.ConvNet4(channels=(3, 4), units=9), (2, 9, 12)),
    (hs.nets.ConvNet8(channels=(4, 5, 6, 7)), (2, 20, 26)),
    (hs.nets.AlexNet(channels=(4, 5, 6, 7, 8), units=9), (2, 64, 81)),
    (hs.nets.ResNet18(channels=(4, 4, 6, 8)), (2, 32, 41)),
    (hs.nets.ResNet18(channels=(4, 4, 6, 8), small=True), (2, 8, 13)),
    (hs.nets.VGGSmall(channels=(4, 5, 6), rectified=True), (2, 8, 13)),
    (hs.nets.ResNet20(channels=(4, 6, 9)), (2, 8, 13)),
    (hs.nets.ResNet20(channels=(4, 6, 9), sums=CLIPPED, readout_norm=True), (2, 8, 13)),
    (hs.nets.ResNet18(channels=(4, 4, 6, 8), small=True, sums=REACT), (2, 8, 13)),
    (hs.nets.ResNet34(channels=(4, 4, 6, 8), sums=hs.nets.RealSums()), (2, 32, 41)),
]
NAMES = [f"{i} {type(recipe).__name__}" for i, (recipe, _) in enumerate(SMALL)]
every_net = pytest.mark.parametrize(("recipe", "shape"), SMALL, ids=NAMES)
ACTIVATIONS = [hs.Step(), hs.Sign(), hs.Staircase(3)]
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=["step", "sign", "staircase"])


def outputs_of_activations(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What the activations put out, in the order in which they run."""
    seen: list[torch.Tensor] = []
    found = [module for module in net.modules() if isinstance(module, Activation)]
    inner = {part for module in found for part in module.children()}
    for module in found:
        if module not in inner:
            module.register_forward_hook(lambda module, args, out: seen.append(out))
    net(x)
    return seen


@pytest.mark.parametrize(
    ("recipe", "shape", "outputs", "parameters", "sides"),
    [
        (hs.nets.ConvNet4(norm=False), (3, 32, 32), 10, 4_259_274, [17, 8]),
        (hs.nets.ConvNet8(), (3, 32, 32), 10, 1_492_554, [16, 16, 8, 6, 6, 4, 1]),
        (hs.nets.AlexNet(), (3, 224, 224), 1000, 62_394_344, [55, 27, 13, 13, 6]),
        (hs.nets.ResNet18(), (3, 224, 224), 1000, 11_689_512, [56] * 5 + [28] * 4 + [14] * 4 + [7] * 4),
        (hs.nets.ResNet18(small=True), (3, 32, 32), 10, 11_173_962, [32] * 5 + [16] * 4 + [8] * 4 + [4] * 4),
        (hs.nets.VGGSmall(), (3, 32, 32), 10, 4_660_106, [32, 16, 16, 8, 8, 4]),
        (hs.nets.ResNet20(), (3, 32, 32), 10, 269_722, [32] * 7 + [16] * 6 + [8] * 6),
        (hs.nets.ResNet34(), (3, 224, 224), 1000, 21_797_672, [56] * 7 + [28] * 8 + [14] * 12 + [7] * 6),
    ],
    ids=["convnet4", "convnet8", "alexnet", "resnet18", "small resnet18", "vgg-small", "resnet20", "resnet34"],
)
def test_published_networks_have_the_published_parameters_and_sizes(
    recipe: Net, shape: tuple[int, int, int], outputs: int, parameters: int, sides: list[int]
) -> None:
    with torch.device("meta"):  # shapes only: no memory, no arithmetic
        net = recipe(shape, outputs)
        seen = outputs_of_activations(net, torch.empty(2, *shape))
    assert sum(weight.numel() for weight in net.parameters()) == parameters
    assert [out.shape[2] for out in seen if out.ndim == 4] == sides


@pytest.mark.parametrize(
    ("recipe", "shape", "outputs", "published"),
    [
        (hs.nets.ResNet18(), (3, 224, 224), 1000, 1.8e9),
        (hs.nets.ResNet34(), (3, 224, 224), 1000, 3.6e9),
        (hs.nets.ResNet18(small=True), (3, 32, 32), 10, 0.56e9),
        (hs.nets.ResNet20(), (3, 32, 32), 10, 40.6e6),
    ],
    ids=["resnet18", "resnet34", "small resnet18", "resnet20"],
)
@pytest.mark.parametrize("sums", [hs.nets.HardSums(), hs.nets.RealSums(), hs.nets.RealSums(2)], ids=repr)
def test_residual_networks_cost_what_is_published_whatever_their_sums(
    recipe: Residual, shape: tuple[int, int, int], outputs: int, published: float, sums: hs.nets.sums.Sums
) -> None:
    macs = []
    with torch.device("meta"):
        net = replace(recipe, sums=sums)(shape, outputs)
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.register_forward_hook(lambda module, _, out: macs.append(out.numel() * module.weight[0].numel()))
        net(torch.empty(1, *shape))
    assert sum(macs) == pytest.approx(published, rel=0.025)


@every_net
@pytest.mark.parametrize("weights", [hs.Binary(), hs.Libra(), hs.Ternary()], ids=lambda form: type(form).__name__)
def test_hidden_weights_are_hard_and_the_first_the_last_and_shortcuts_are_real(
    recipe: Net, shape: tuple[int, int, int], weights: hs.Weights
) -> None:
    net = replace(recipe, weights=weights)(shape, 3)
    maps = {name: module for name, module in net.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    real = [name for i, name in enumerate(maps) if i in (0, len(maps) - 1) or ".shortcut." in name]
    for name, module in maps.items():
        assert isinstance(module.weight, torch.Tensor)
        values = [len(row.abs().unique()) for row in module.weight.detach().flatten(1)]
        assert max(values) <= (2 if weights == hs.Ternary() else 1) or name in real
        assert parametrize.is_parametrized(module) == (name not in real)
    like = recipe(shape, 3).state_dict()
    for name, value in net.state_dict().items():  # the same initial weights
        assert torch.equal(value, like[name.replace("parametrizations.weight.original", "weight")])
    net(torch.rand(2, *shape)).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters())


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("padded", [False, True])
def test_real_sums_are_their_formula(every: int, padded: bool) -> None:
    torch.manual_seed(0)
    sums = hs.nets.RealSums(every, shifted=True, rectified=True, after=hs.nets.HardTanh())
    blocks = sums.pair(4, 6, stride=2, norm=True, activation=hs.Sign(), padded=padded)
    net = randomise(nn.Sequential(*blocks))
    for module in net.modules():
        if isinstance(module, hs.Shift):
            module.threshold.data.normal_()
    x = torch.randn(3, 4, 7, 6)

    def body(parts: list[nn.Module], x: torch.Tensor) -> torch.Tensor:
        shift, _, conv, _, norm = parts
        signs = 2.0 * (x > shift.threshold.view(-1, 1, 1)) - 1
        out = F.conv2d(signs, conv.weight, None, conv.stride, conv.padding).clamp_min(0)
        return F.batch_norm(out, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    if padded:
        around = torch.zeros(3, 6, 4, 3)
        around[:, 1:5] = x[:, :, ::2, ::2]
    else:
        around = blocks[0].shortcut(x)
        assert isinstance(blocks[0].shortcut[0], nn.AvgPool2d)
        torch.testing.assert_close(blocks[0].shortcut[0](x)[:, :, -1], x[:, :, -1].unfold(2, 2, 2).mean(dim=3))
    parts = [list(block.body) for block in blocks]
    if every == 2:
        wanted = (body(parts[0][5:], body(parts[0][:5], x)) + around).clamp(-1, 1)
    else:
        middle = (body(parts[0], x) + around).clamp(-1, 1)
        wanted = (body(parts[1], middle) + middle).clamp(-1, 1)
    torch.testing.assert_close(net(x), wanted)


def test_shortcuts_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"every=1 \(Bi-Real\) or 2 \(plain\) convolutions, got 3"):
        hs.nets.RealSums(3)
    with pytest.raises(ValueError, match="cannot go from 4 channels to 3"):
        hs.nets.ResNet20(channels=(4, 3, 3))((1, 8, 8), 2)


@every_net
@every_activation
def test_every_activation_is_hard_and_every_weight_gets_a_finite_gradient(
    recipe: Net, shape: tuple[int, int, int], activation: Activation
) -> None:
    net = replace(recipe, activation=activation)(shape, 3)
    x = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0))
    seen = outputs_of_activations(net, x)
    levels = {"Step": [0.0, 1.0], "Sign": [-1.0, 1.0], "Staircase": [0.0, 1 / 3, 2 / 3, 1.0]}[type(activation).__name__]
    assert seen
    for out in seen:
        assert torch.isin(out, torch.tensor(levels)).all()
    out = net(x)
    assert out.shape == (6, 3)
    hs.CrossEntropy().value(out, torch.arange(6) % 3).sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
    assert all(weight.grad.any() for weight in net.parameters() if weight.grad is not None and weight.ndim > 1)


@every_net
def test_copies_of_the_activation_are_separate(recipe: Net, shape: tuple[int, int, int]) -> None:
    steps = [module for module in recipe(shape, 3).modules() if isinstance(module, hs.Step)]
    assert len({id(step) for step in [*steps, recipe.activation]}) == len(steps) + 1


@every_net
def test_initial_weights_depend_on_the_seed_only(recipe: Net, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = recipe(shape, 3, 1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    again, other = recipe(shape, 3, 1).state_dict(), recipe(shape, 3, 2).state_dict()
    for name, weight in first.named_parameters():
        assert torch.equal(weight, again[name])
        if weight.ndim > 1:
            assert not torch.equal(weight, other[name])


@every_net
def test_without_normalisation_every_map_has_a_bias(recipe: Net, shape: tuple[int, int, int]) -> None:
    net = replace(recipe, norm=False)(shape, 3)
    maps = [module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    assert all(module.bias is not None for module in maps)
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in net.modules())
    assert net(torch.zeros(1, *shape)).shape == (1, 3)


@pytest.mark.parametrize(
    ("recipe", "least", "message"),
    [
        (hs.nets.ConvNet4(channels=(2, 2), units=3), 4, r"convnet4 needs samples.*height >= 4"),
        (hs.nets.ConvNet8(channels=(2, 2, 2, 2)), 20, r"convnet8 needs samples.*height >= 20"),
        (hs.nets.AlexNet(channels=(2, 2, 2, 2, 2), units=3), 64, r"alexnet needs samples.*height >= 64"),
        (hs.nets.ResNet18(channels=(2, 2, 2, 2)), 32, r"resnet18 needs samples.*height >= 32.*small=True takes"),
        (hs.nets.ResNet18(channels=(2, 2, 2, 2), small=True), 8, r"resnet18 needs samples.*height >= 8"),
        (hs.nets.VGGSmall(channels=(2, 2, 2)), 8, r"vgg_small needs samples.*height >= 8"),
        (hs.nets.ResNet20(channels=(2, 2, 2)), 8, r"resnet20 needs samples.*height >= 8"),
        (hs.nets.ResNet34(channels=(2, 2, 2, 2)), 32, r"resnet34 needs samples.*height >= 32.*small=True takes"),
    ],
    ids=["convnet4", "convnet8", "alexnet", "resnet18", "small resnet18", "vgg-small", "resnet20", "resnet34"],
)
def test_samples_that_are_too_small_are_refused_and_the_smallest_are_not(recipe: Net, least: int, message: str) -> None:
    for shape in ((1, least, least - 1), (1, least - 1, least), (least * least,)):
        with pytest.raises(ValueError, match=message):
            recipe(shape, 2)
    assert recipe((1, least, least), 2).eval()(torch.zeros(1, 1, least, least)).shape == (1, 2)


def test_share_of_dropped_channels_is_checked() -> None:
    with pytest.raises(ValueError, match=r"dropout is a share in \[0, 1\), got 1"):
        hs.nets.ConvNet8(dropout=1.0)


@pytest.mark.parametrize(("outputs", "stride"), [(4, 1), (6, 1), (4, 2), (6, 2)])
def test_residual_block_is_its_formula(outputs: int, stride: int) -> None:
    torch.manual_seed(0)
    block = randomise(ResidualBlock(4, outputs, stride=stride, activation=hs.Sign()))
    x = torch.randn(3, 4, 6, 6).sign()
    weights = block.state_dict()

    def normalised(x: torch.Tensor, conv: str, norm: str, stride: int, padding: int) -> torch.Tensor:
        statistics = [weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(F.conv2d(x, weights[f"{conv}.weight"], None, stride, padding), *statistics)

    hidden = 2.0 * (normalised(x, "body.0", "body.1", stride, 1) > 0) - 1
    around = x if (outputs, stride) == (4, 1) else normalised(x, "shortcut.0", "shortcut.1", stride, 0)
    wanted = 2.0 * (normalised(hidden, "body.3", "body.4", 1, 1) + around > 0) - 1
    assert torch.equal(block(x), wanted)


def test_residual_network_starts_with_the_published_variance() -> None:
    net = hs.nets.ResNet18(small=True)((3, 8, 8), 10)
    last = [module for module in net.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)][-1]
    assert last.weight.std().item() == pytest.approx(sqrt(2 / (9 * 512)), rel=0.01)


@every_activation
@pytest.mark.parametrize(
    "recipe",
    [hs.nets.ConvNet8(channels=(4, 5, 6, 7)), hs.nets.AlexNet(channels=(4, 5, 6, 7, 8), units=9)],
    ids=["convnet8", "alexnet"],
)
def test_convolutional_networks_freeze_to_what_they_say(recipe: Net, activation: Activation) -> None:
    data = images(40, (2, 64, 64) if isinstance(recipe, hs.nets.AlexNet) else (2, 24, 20))
    net = randomise(replace(recipe, activation=activation)(data.shape, 2))
    hard = hs.freeze(net, calibrate=data.train, weight_bits=16)
    assert hard.rounding is not None
    assert hard.rounding.steps_changed <= 1e-3 * hard.rounding.step_outputs
    x, _ = data.train.take(list(range(len(data.train))))
    with torch.no_grad():
        wanted = net(torch.from_numpy(hard.grid.value(x.numpy()))).numpy()
    agree = np.isclose(hard(x.numpy()) * hard.scale, wanted, rtol=1e-3, atol=1e-3).all(axis=1)
    assert agree.mean() >= 0.9  # a step that falls on its threshold may move a row


def test_channel_dropout_is_no_obstacle_after_freeze_and_before() -> None:
    data = images(40, (2, 20, 20))
    net = hs.nets.ConvNet8(channels=(4, 5, 6, 7))(data.shape, 2).train()
    assert any(isinstance(module, nn.Dropout2d) for module in net)
    x = data.train.take([0, 1])[0].float() / 255
    assert len(hs.dead_rates(net, data.train).layers) == 7
    assert torch.equal(hs.shrink(net)(x), net.eval()(x))


def test_freeze_names_what_it_does_not_take_of_a_residual_network() -> None:
    data = images(40, (2, 32, 32))
    net = hs.nets.ResNet18(channels=(3, 3, 3, 3))(data.shape, 2)
    with pytest.raises(ValueError, match=r"layer '2' \(MaxPool2d\) cannot be frozen"):
        hs.freeze(net, calibrate=data.train)


@pytest.mark.parametrize("staircase", [False, True])
def test_rates_of_the_published_recipes_fall_at_the_start_of_their_sweeps(staircase: bool) -> None:
    falls = {"convnet4": (200, 250), "convnet8": (200, 250), "alexnet": (56, 64), "resnet18": (30, 60)}
    recipes = hs.recipes.friesen2018(staircase=staircase)
    assert set(recipes) == set(falls)
    for name, recipe in recipes.items():
        factors = [recipe.method.schedule.factor(done / recipe.sweeps) for done in range(recipe.sweeps)]
        steps = [sweep for sweep in range(2, recipe.sweeps + 1) if factors[sweep - 1] < factors[sweep - 2]]
        assert tuple(steps) == falls[name]
        assert factors[-1] == pytest.approx(0.01)


def test_decay_and_stairs_of_the_published_recipes_go_with_the_activation() -> None:
    signs, stairs = hs.recipes.friesen2018(rule=hs.Clipped()), hs.recipes.friesen2018(staircase=True)
    decay = {
        name: (signs[name].method.optimiser.weight_decay, stairs[name].method.optimiser.weight_decay) for name in signs
    }
    assert decay == {
        "convnet4": (5e-4, 5e-4), "convnet8": (5e-4, 5e-4), "alexnet": (5e-6, 5e-5), "resnet18": (5e-7, 1e-5)
    }  # fmt: skip
    for name, recipe in stairs.items():
        assert isinstance(signs[name].net.activation, hs.Sign)
        assert isinstance(recipe.net.activation, hs.Staircase)
        assert recipe.net.activation.stairs == (5 if name == "resnet18" else 3)
        assert (signs[name].method.rule, recipe.method.rule) == (hs.Clipped(), hs.Sech2())


def test_published_recipe_learns_in_a_few_sweeps_of_a_small_network() -> None:
    x = np.random.default_rng(0).integers(0, 128, (200, 1, 20, 20)).astype(np.uint8)
    x[::2, :, :10] += 128  # every second image is bright above
    data = hs.data.from_arrays(x, np.arange(200) % 2)
    recipe = hs.recipes.friesen2018()["convnet8"]
    net = replace(recipe.net, channels=(8, 8, 8, 16))(data.shape, data.outputs)
    method = replace(recipe.method, batch_size=16)
    report = hs.fit(net, data, method, sweeps=6, progress=False)
    first, last = (record.extra["train_accuracy"] for record in (report.records[0], report.records[-1]))
    assert last > first
    assert last > 0.9


def test_coupled_decay_is_part_of_the_gradient_and_decoupled_of_the_step() -> None:
    start = torch.tensor([2.0, -0.5, 4.0])
    gradient = torch.tensor([0.1, 0.2, -0.3])
    found = []
    for coupled in (True, False):
        weight = nn.Parameter(start.clone())
        weight.grad = gradient.clone()
        hs.Adam(lr=0.01, weight_decay=0.1, coupled=coupled).build([weight]).step()
        found.append(weight.detach())
    # the first step of Adam goes by the sign of what it takes for the gradient
    torch.testing.assert_close(found[0], start - 0.01 * (gradient + 0.1 * start).sign())
    torch.testing.assert_close(found[1], start * (1 - 0.01 * 0.1) - 0.01 * gradient.sign())
