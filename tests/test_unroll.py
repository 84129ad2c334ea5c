"""Residual networks of steps as plain layers: the same bits before and after freezing, whatever the shortcut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import hardstep as hs
from hardstep.blocks import Activation, ResidualBlock
from hardstep.unroll import unroll

from .test_freeze import images, randomise

NETS = {
    "padded": hs.nets.ResNet20(channels=(3, 4, 6)),
    "readout norm": hs.nets.ResNet20(channels=(3, 3, 4), readout_norm=True),
    "projected": hs.nets.ResNet18(channels=(3, 4, 4, 6), small=True),
    "without norms": hs.nets.ResNet18(channels=(3, 4, 4, 6), small=True, norm=False),
}
every_net = pytest.mark.parametrize("recipe", NETS.values(), ids=NETS)
ACTIVATIONS = {"step": hs.Step(), "sign": hs.Sign(), "two stairs": hs.Staircase(2), "five stairs": hs.Staircase(5)}
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)


def bits_of(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What residual blocks put out."""
    seen: list[torch.Tensor] = []
    handles = [
        module.register_forward_hook(lambda module, args, out: seen.append(out))
        for module in net.modules()
        if isinstance(module, ResidualBlock)
    ]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return seen


@every_net
@every_activation
def test_unrolled_blocks_put_out_the_same_steps(
    recipe: hs.nets.ResNet18 | hs.nets.ResNet20, activation: Activation
) -> None:
    net = randomise(replace(recipe, activation=activation)((2, 9, 11), 3).double())
    plain = unroll(net, (2, 9, 11))
    assert not any(isinstance(module, ResidualBlock) for module in plain.modules())
    x = torch.rand(8, 2, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted, found, out = bits_of(net, x), [], x
    with torch.no_grad():
        for module in plain:
            out = module(out)
            if isinstance(module, Activation):
                found.append(out)
        torch.testing.assert_close(out, net(x), rtol=1e-9, atol=1e-9)
    assert len(found) == 2 * len(wanted) + 1
    for bits, block in zip(found[2::2], wanted, strict=True):
        torch.testing.assert_close(bits, block, rtol=0, atol=1e-9)
    assert sum(bool(block.std() > 0) for block in wanted) >= len(wanted) // 2  # they do say something


@every_net
@pytest.mark.parametrize("weights", [hs.Real(), hs.Binary(), hs.Ternary()], ids=lambda form: type(form).__name__)
def test_residual_network_freezes_to_what_it_says_and_the_engine_runs_it(
    recipe: hs.nets.ResNet18 | hs.nets.ResNet20, weights: hs.Weights
) -> None:
    data = images(40, (2, 9, 8))
    net = randomise(replace(recipe, activation=hs.Sign(), weights=weights)(data.shape, 3))
    hard = hs.freeze(net, calibrate=data.train, weight_bits=16)
    assert hard.rounding is not None
    assert hard.rounding.steps_changed <= 2e-3 * hard.rounding.step_outputs
    x = data.train.take(list(range(len(data.train))))[0].numpy()
    with torch.no_grad():
        wanted = net(torch.from_numpy(hard.grid.value(x))).numpy()
    scores = hard(x)
    assert np.isclose(scores * hard.scale, wanted, rtol=1e-2, atol=1e-2).all(axis=1).mean() >= 0.8
    np.testing.assert_array_equal(hs.Engine(hard)(x), scores)


def test_block_of_whole_numbers_is_exact_ties_included() -> None:
    recipe = hs.nets.ResNet20(channels=(4, 4, 4), norm=False, activation=hs.Sign(), weights=hs.Binary(hs.Unscaled()))
    data = images(60, (1, 8, 8))
    net = recipe(data.shape, 2, 1)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith("bias"):
                value.copy_(value.mul(8).round())
    hard = hs.freeze(net, calibrate=data.train, weight_bits=16)
    x = data.train.take(list(range(len(data.train))))[0].numpy()
    codes = [code for code in hard.trace(x) if code.ndim == 4]
    values = torch.from_numpy(codes[0].astype(np.float32)) * 2 - 1  # the stem's signs; all that follows is whole
    ties = 0
    with torch.no_grad():
        for i, block in enumerate(module for module in net if isinstance(module, ResidualBlock)):
            ties += int((block.body(values) + block.shortcut(values) == 0).sum())
            values = block(values)
            np.testing.assert_array_equal(codes[2 * i + 2], (values > 0).numpy())
    assert ties > 100


def test_network_without_blocks_is_left_alone_and_mixed_activations_are_refused() -> None:
    data = images(20, (1, 8, 8))
    plain = hs.nets.mlp(4, 3, 2)
    assert unroll(plain, (4,)) is plain
    net = hs.nets.ResNet20(channels=(2, 2, 2))(data.shape, 2)
    net[2] = hs.Staircase(3)
    with pytest.raises(ValueError, match=r"layer '3' \(ResidualBlock\) cannot be frozen"):
        hs.freeze(net, calibrate=data.train)
