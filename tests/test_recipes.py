"""Published recipes: their settings, and one sweep of each on files in the formats of their data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.utils import parametrize

import hardstep as hs
from hardstep.recipes import Recipe

from .test_formats import write_cifar_file

RECIPES = {
    f"{paper.__name__} {name}": recipe
    for paper in (hs.recipes.wu2023, hs.recipes.liu2018, hs.recipes.qin2020)
    for name, recipe in paper().items()
}
every_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> hs.data.Data:
    """Ten classes in CIFAR's binary files."""
    folder = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        y = np.arange(10)
        x = generator.integers(0, 60, (10, 3072)) + 19 * y[:, None]
        write_cifar_file(folder / f"{name}.bin", x.astype(np.uint8), y, hundred=False)
    return hs.data.load(folder.parent, val_share=0.2)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> hs.data.Data:
    """Two classes of images in folders, as of ImageNet."""
    folder = tmp_path_factory.mktemp("imagenet")
    for part, n in (("train", 12), ("val", 4)):
        for label, name in enumerate(("n01440764", "n01443537")):
            (folder / part / name).mkdir(parents=True)
            for i in range(n):
                image = Image.new("RGB", (40 + i, 36), (200 * label, 10 * i, 90))
                image.save(folder / part / name / f"{i}.JPEG")
    return hs.data.load(folder, size=(32, 32))


def narrow(recipe: Recipe) -> Recipe:
    """The same recipe of a network with few channels, in batches of a few rows."""
    channels = tuple(4 + i for i in range(len(recipe.net.channels)))
    return replace(recipe, net=replace(recipe.net, channels=channels), method=replace(recipe.method, batch_size=8))


@every_recipe
def test_recipe_runs_from_files_to_a_trained_network(
    recipe: Recipe, cifar: hs.data.Data, photographs: hs.data.Data
) -> None:
    large = isinstance(recipe.net, hs.nets.ResNet18 | hs.nets.ResNet34) and not recipe.net.small
    data, small = photographs if large else cifar, narrow(recipe)
    net = small.net(data.shape, data.outputs)
    before = {name: value.clone() for name, value in net.named_parameters()}
    hidden = [module for module in net.modules() if parametrize.is_parametrized(module)]
    assert len(hidden) == len([m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]) - (
        0 if large else 1  # all 3x3 convolutions but the stem, where that is one
    )
    report = hs.fit(net, replace(data, augment=small.augment), small.method, sweeps=1, progress=False)
    assert np.isfinite(report.records[0].objective)
    moved = [name for name, value in net.named_parameters() if not torch.equal(value, before[name])]
    assert {name for name in before if "original" in name} <= set(moved)
    rules = {module.parametrizations.weight[0].rule for module in hidden}
    assert rules == {small.method.rule.at(0.0).for_weights}


def test_settings_are_those_of_the_papers() -> None:
    reste = hs.recipes.wu2023()["resnet20"]
    assert (reste.sweeps, reste.method.batch_size) == (1000, 256)
    cifar = hs.Augment(crop=4, mirror=True)
    assert reste.augment == hs.recipes.qin2020()["resnet20"].augment == cifar
    assert hs.recipes.wu2023()["imagenet resnet18"].augment == hs.Augment(mirror=True, zoom=(0.08, 1.25))
    assert hs.recipes.liu2018()["resnet18"].augment == hs.Augment(mirror=True, zoom=(0.08, 1.0))
    assert reste.method.optimiser == hs.SGD(0.1, momentum=0.9, weight_decay=1e-4)
    assert reste.method.rule.at(0.5) == hs.ReSTE(power=1 + 2 * (1 - 0.5**0.5))
    factors = [reste.method.schedule.factor(sweep / 1000) for sweep in (0, 1, 4, 5, 1000)]
    assert factors == pytest.approx([0.0, 0.2, 0.8, 1.0, 0.0])
    assert hs.recipes.liu2018()["resnet34"].method.schedule.factor(64 / 256) == 0.75
    ir = hs.recipes.qin2020()["resnet20"].method.rule
    assert (ir.at(0.0), ir.at(1.0)) == (hs.EDE(1e-3), hs.EDE(10.0))


def test_recipe_of_a_network_without_shortcuts_freezes(cifar: hs.data.Data) -> None:
    small = narrow(hs.recipes.wu2023()["vgg-small"])
    net = small.net(cifar.shape, cifar.outputs)
    hs.fit(net, cifar, small.method, sweeps=1, progress=False)
    hard = hs.freeze(net, calibrate=cifar.train, weight_bits=16)
    assert hard.rounding is not None
    assert hard.rounding.steps_changed <= 2e-3 * hard.rounding.step_outputs
    x = cifar.train.take(list(range(len(cifar.train))))[0].numpy()
    np.testing.assert_array_equal(hs.Engine(hard)(x), hard(x))


@pytest.mark.parametrize("name", ["resnet20", "bi-real resnet20"])
def test_recipe_of_a_network_with_shortcuts_freezes(name: str, cifar: hs.data.Data) -> None:
    small = narrow(hs.recipes.wu2023()[name])
    net = small.net(cifar.shape, cifar.outputs)
    hs.fit(net, cifar, small.method, sweeps=1, progress=False)
    hard = hs.freeze(net, calibrate=cifar.train, weight_bits=16)
    assert hard.rounding is not None
    assert hard.rounding.steps_changed <= 2e-3 * hard.rounding.step_outputs
