"""Freeze and HardNet: integers that say what the float network says."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hardstep as hs
from hardstep.hard_layers import Conv, Dense
from hardstep.hardnet import HardNet
from hardstep.verify import packed_product

from .conftest import planted_net


def trained(net: nn.Module, data: hs.data.Data, sweeps: int = 3) -> nn.Module:
    hs.fit(net, data, hs.GradientDescent(batch_size=64), sweeps=sweeps, progress=False)
    return net


def images(n: int = 120, shape: tuple[int, int, int] = (2, 12, 12)) -> hs.data.Data:
    x = np.random.default_rng(0).integers(0, 256, (n, *shape)).astype(np.uint8)
    y = (x[:, 0, :6].mean(axis=(1, 2)) > x[:, 0, 6:].mean(axis=(1, 2))).astype(np.int64)
    return hs.data.from_arrays(x, y, name="halves")


def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """Give normalisation gains of both signs and zero, and statistics of their own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                gain = torch.randn(module.num_features, generator=generator)
                gain[:2] = 0
                module.weight.copy_(gain)
                module.bias.copy_(torch.randn(module.num_features, generator=generator))
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
    return net.eval()


def test_planted_whole_number_network_freezes_without_any_change(
    planted: tuple[nn.Sequential, hs.data.Data],
) -> None:
    net, data = planted
    hard = hs.freeze(net, calibrate=data.train, weight_bits=3)
    assert hard.rounding is not None
    assert (hard.rounding.steps_changed, hard.rounding.predictions_changed) == (0, 0)
    assert data.test is not None
    scores = hard(data.test.x.numpy())
    with torch.no_grad():
        wanted = net(data.test.x)
    np.testing.assert_allclose(scores * hard.scale, wanted.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("activation", [hs.Step(), hs.Sign(), hs.Staircase(3)], ids=["step", "sign", "staircase"])
@pytest.mark.parametrize("norm", [True, False])
def test_sixteen_bit_network_keeps_almost_every_step(activation: nn.Module, norm: bool, digits: hs.data.Data) -> None:
    net = randomise(hs.nets.MLP(hidden=(48, 32), norm=norm, activation=activation)(digits.shape, 10))
    rounding = hs.freeze(net, calibrate=digits.train, weight_bits=16).rounding
    assert rounding is not None
    assert rounding.step_outputs == len(digits.train) * 80
    assert rounding.steps_changed <= 2e-4 * rounding.step_outputs


@pytest.mark.parametrize("activation", [hs.Step(), hs.Sign(), hs.Staircase(2)], ids=["step", "sign", "staircase"])
def test_convolution_with_padding_pooling_and_negative_gains_is_folded(activation: nn.Module) -> None:
    data = images()
    net = randomise(hs.nets.ConvNet4(channels=(6, 8), units=20, activation=activation)(data.shape, 2))
    hard = hs.freeze(net, calibrate=data.train, weight_bits=16)
    assert hard.rounding is not None
    assert hard.rounding.steps_changed <= 1e-3 * hard.rounding.step_outputs
    assert data.test is not None
    x = data.test.x[:5].numpy()
    assert np.array_equal(hard(x), hard(x, product=packed_product))


def test_pooling_after_the_step_and_strides_are_folded() -> None:
    data = images()
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3, stride=2, padding=1), nn.BatchNorm2d(5), hs.Step(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(45, 8), hs.Sign(), nn.Linear(8, 2), nn.BatchNorm1d(2),
    )  # fmt: skip
    hard = hs.freeze(randomise(net), calibrate=data.train, weight_bits=16)
    assert hard.rounding is not None
    assert hard.rounding.steps_changed <= 1e-3 * hard.rounding.step_outputs
    assert hard.rounding.predictions_changed <= 1


def test_binary_and_ternary_weights_are_kept_exactly(digits: hs.data.Data) -> None:
    net = hs.nets.mlp(64, 32, 32, 10, norm=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        scale = torch.rand(32, 1, generator=generator) + 0.1
        net[1].weight.copy_(scale * (2.0 * torch.randint(2, (32, 64), generator=generator) - 1))
        net[4].weight.copy_(scale * (torch.randint(3, (32, 32), generator=generator) - 1.0))
    randomise(net)
    hard = hs.freeze(net, calibrate=digits.train)
    first, second = (layer for layer in hard.layers if isinstance(layer, Dense) and layer.threshold is not None)
    signs = np.sign(net[2].weight.detach().numpy())[:, None] + (net[2].weight.detach().numpy() == 0)[:, None]
    assert np.array_equal(first.weight, np.sign(net[1].weight.detach().numpy()) * signs)
    assert set(np.unique(second.weight)) == {-1, 0, 1}
    assert [row.bits for row in hard.rows() if row.weights][:2] == [1, 2]


def test_more_weight_bits_change_fewer_steps(digits: hs.data.Data) -> None:
    net = trained(hs.nets.mlp(64, 64, 64, 10), digits)
    changed = []
    for weight_bits in (2, 4, 8, 16):
        rounding = hs.freeze(net, calibrate=digits.train, weight_bits=weight_bits).rounding
        assert rounding is not None
        changed.append(rounding.steps_changed)
    assert all(fewer < more for more, fewer in pairwise(changed))
    assert changed[-1] <= 20


def test_number_features_get_a_grid_per_column() -> None:
    generator = np.random.default_rng(0)
    x = (generator.normal(size=(300, 5)) * [1, 10, 0.01, 1, 1] + [0, 100, 0, -5, 0]).astype(np.float32)
    data = hs.data.from_arrays(x, (x[:, 0] * x[:, 2] > 0).astype(np.int64))
    net = hs.nets.MLP(hidden=(16,), norm=False)(data.shape, 2)
    hard = hs.freeze(net, calibrate=data.train, weight_bits=16)
    assert hard.grid.scale.shape == (5,)
    assert hard.rounding is not None
    assert hard.rounding.steps_changed <= 0.02 * hard.rounding.step_outputs


def test_features_far_from_zero_do_not_multiply_the_rounding() -> None:
    generator = np.random.default_rng(0)
    x = (1e5 + generator.normal(size=(300, 5))).astype(np.float32)
    data = hs.data.from_arrays(x, (x[:, 0] > 1e5).astype(np.int64))
    net = hs.nets.MLP(hidden=(16,), norm=False)(data.shape, 2).double().float()
    with torch.no_grad():
        net[1].bias.copy_(-(net[1].weight.double() * 1e5).sum(dim=1))
    rounding = hs.freeze(net, calibrate=data.train).rounding
    assert rounding is not None
    assert rounding.steps_changed <= 0.03 * rounding.step_outputs


def test_saved_network_comes_back_bit_for_bit_and_is_as_small_as_it_says(tmp_path: Path, digits: hs.data.Data) -> None:
    for weight_bits in (2, 4, 8, 12):
        hard = hs.freeze(hs.nets.mlp(64, 256, 256, 10), calibrate=digits.train, weight_bits=weight_bits)
        hard.save(tmp_path / "net")
        back = HardNet.load(tmp_path / "net")
        assert digits.test is not None
        x = digits.test.x.numpy()
        assert np.array_equal(back(x), hard(x))
        assert back.rounding == hard.rounding
        assert back.summary() == hard.summary()
        assert hard.nbytes <= (tmp_path / "net").stat().st_size <= hard.nbytes + 3000


def test_convolution_comes_back_from_its_file(tmp_path: Path) -> None:
    data = images()
    hard = hs.freeze(randomise(hs.nets.ConvNet4(channels=(3, 4), units=9)(data.shape, 2)), calibrate=data.train)
    hard.save(tmp_path / "net")
    back = HardNet.load(tmp_path / "net")
    assert any(isinstance(layer, Conv) for layer in back.layers)
    assert np.array_equal(back(data.train.x.numpy()), hard(data.train.x.numpy()))


def test_saved_network_with_a_flipped_byte_is_refused(tmp_path: Path, digits: hs.data.Data) -> None:
    path = tmp_path / "net"
    hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=digits.train).save(path)
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="damaged: its content does not match its digest"):
        HardNet.load(path)


def test_summary_counts_weights_bytes_and_macs(digits: hs.data.Data) -> None:
    hard = hs.freeze(hs.nets.mlp(64, 256, 256, 10), calibrate=digits.train)
    weights = 64 * 256 + 256 * 256 + 256 * 10
    assert hard.macs == weights
    assert hard.nbytes == weights + 4 * (256 + 256 + 10)
    assert f"total: {hard.nbytes:,} bytes, {weights:,} MACs" in hard.summary()


def test_highest_score_is_the_first_of_equals() -> None:
    net = planted_net(0, (4, 3, 3))
    with torch.no_grad():
        net[-1].weight.zero_()
        net[-1].bias.zero_()
    data = hs.data.from_arrays(np.eye(4, dtype=np.float32).repeat(10, 0), np.arange(40) % 2)
    hard = hs.freeze(net, calibrate=data.train)
    assert hard.predict(data.train.x.numpy()).max() == 0


REFUSED = [
    (
        nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 8), hs.Step(), nn.Linear(8, 2)),
        r"'2' \(Linear\).*only a ReLU",
    ),
    (nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 8), hs.Step(), nn.Linear(8, 2)), r"'1' \(Linear\).*merge the two"),
    (nn.Sequential(nn.Linear(64, 8), hs.Step()), "must end in a linear read-out"),
    (nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 8), hs.Step(), nn.Linear(8, 2)), r"'0' \(BatchNorm1d\)"),
    (nn.Sequential(hs.Step(), nn.Linear(64, 2)), r"'0' \(Step\).*must follow a linear"),
    (nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 2)), "the network has no step"),
    (
        nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8, track_running_stats=False), hs.Step(), nn.Linear(8, 2)),
        "keeps no running statistics",
    ),
]


@pytest.mark.parametrize(("net", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_layer_that_cannot_be_frozen_is_named(net: nn.Module, message: str) -> None:
    data = hs.data.from_arrays(np.random.default_rng(0).random((60, 64), np.float32), np.arange(60) % 2)
    with pytest.raises(ValueError, match=message):
        hs.freeze(net, calibrate=data.train)


def test_sum_beyond_the_accumulator_is_refused() -> None:
    net = nn.Sequential(nn.Linear(600, 2), hs.Step(), nn.Linear(2, 2))
    data = hs.data.from_arrays(np.random.default_rng(0).random((60, 600), np.float32), np.arange(60) % 2)
    with pytest.raises(ValueError, match=r"a sum over 600 inputs could reach \d+, beyond 2147483647"):
        hs.freeze(net, calibrate=data.train, weight_bits=16)


@pytest.mark.parametrize("weight_bits", [1, 17])
def test_weight_bits_out_of_range_are_named(weight_bits: int, digits: hs.data.Data) -> None:
    with pytest.raises(ValueError, match=f"weight_bits must be 2 to 16, got {weight_bits}"):
        hs.freeze(hs.nets.mlp(64, 8, 10), calibrate=digits.train, weight_bits=weight_bits)


def test_samples_of_another_shape_are_refused(digits: hs.data.Data) -> None:
    hard = hs.freeze(hs.nets.mlp(64, 8, 10), calibrate=digits.train)
    with pytest.raises(ValueError, match=r"samples of shape \(64,\) do not fit a network for \(1, 8, 8\)"):
        hard(np.zeros((3, 64)))


def test_verify_sees_a_form_that_differs(digits: hs.data.Data) -> None:
    hard = hs.freeze(hs.nets.mlp(64, 8, 10), calibrate=digits.train)
    x = digits.train.x[:100].numpy()
    assert hs.verify(hard, x, factories={})
    off = hs.verify(
        hard,
        x,
        forms={"off by one in row 3": lambda rows: hard(rows) + (np.arange(len(rows)) == 3)[:, None]},
        factories={},
    )
    assert not off
    assert {check.form: check.scores_differing for check in off.checks if check.scores_differing} == {
        "off by one in row 3": 1
    }
    with pytest.raises(ValueError, match="got none; pass at least one"):
        hs.verify(hard, x[:0])


def test_module_that_is_used_twice_is_read_twice() -> None:
    norm, step = nn.BatchNorm1d(8), hs.Step()
    with torch.no_grad():
        norm.running_mean.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(0))
        norm.bias.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(1))
    net = nn.Sequential(nn.Linear(8, 8), norm, step, nn.Linear(8, 8), norm, step, nn.Linear(8, 3)).eval()
    data = hs.data.from_arrays(
        torch.rand(300, 8, generator=torch.Generator().manual_seed(2)), torch.arange(300) % 3, name="random"
    )
    hard = hs.freeze(net, calibrate=data.train, weight_bits=16)
    assert hard.rounding is not None
    assert hard.rounding.steps_changed < 0.01 * hard.rounding.step_outputs
