"""Residual networks with real sums in fixed point: every number within its bound, exact where nothing is rounded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import hardstep as hs
from hardstep.blocks import Activation
from hardstep.certify.overflow import NoOverflow
from hardstep.export.compiler import compiler
from hardstep.export.verilog import to_verilog
from hardstep.hard_layers import Conv, exact_product
from hardstep.hard_sums import Bent, Clip, Rescaled, Residual, Stage, Threshold, Windows
from hardstep.hardnet import HardNet
from hardstep.lowered import lower
from hardstep.nets.sums import RealBlock
from hardstep.simplify import extremes
from hardstep.verify import packed_product

from .test_freeze import images

SHAPE = (2, 9, 12)  # an odd side: windows of shortcuts are cut by the border
TINY = hs.nets.ResNet20(channels=(3, 4, 6))
SMALL = hs.nets.ResNet18(channels=(3, 4, 4, 6), small=True)
FULL = hs.nets.ResNet18(channels=(3, 4, 4, 5))
SIGNS = {"activation": hs.Sign(), "weights": hs.Binary()}


def recipe(name: str, published: dict[str, hs.recipes.Recipe]) -> hs.nets.ResNet20 | hs.nets.ResNet18:
    """A published network with few channels."""
    net = published[name].net
    assert isinstance(net, hs.nets.ResNet18 | hs.nets.ResNet20)
    return replace(net, channels=TINY.channels if isinstance(net, hs.nets.ResNet20) else FULL.channels)


NETS = {
    "wu2023 plain": recipe("resnet20", hs.recipes.wu2023()),
    "wu2023 bi-real": recipe("bi-real resnet20", hs.recipes.wu2023()),
    "wu2023 imagenet": recipe("imagenet resnet18", hs.recipes.wu2023()),
    "liu2018": recipe("resnet18", hs.recipes.liu2018()),
    "qin2020": recipe("resnet20", hs.recipes.qin2020()),
    "react": replace(SMALL, **SIGNS, sums=hs.nets.RealSums(shifted=True, after=hs.nets.RPReLU())),
    "stairs": replace(
        TINY, activation=hs.Staircase(3), sums=hs.nets.RealSums(2, shifted=True, rectified=True, after=hs.nets.RPReLU())
    ),
    "no norms": replace(SMALL, norm=False, sums=hs.nets.RealSums(2, rectified=True, after=hs.nets.HardTanh())),
    "full stem": replace(
        FULL, activation=hs.Step(), weights=hs.Ternary(), sums=hs.nets.RealSums(after=hs.nets.RPReLU())
    ),
}
every_net = pytest.mark.parametrize("name", NETS)


def spread(net: nn.Module, seed: int = 0) -> nn.Module:
    """Give statistics, gains of both signs and zero, thresholds and slopes of their own, all of everyday size."""
    generator = torch.Generator().manual_seed(seed)

    def draw(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.copy_(draw(module.weight, 0.3, 1.2))
                module.weight[-1] = -0.5
                module.bias.copy_(draw(module.bias, -0.5, 0.5))
                module.bias[0] = 0
                module.running_mean.copy_(draw(module.running_mean, -1, 1))
                module.running_var.copy_(draw(module.running_var, 0.5, 8))
            elif isinstance(module, hs.layers.Shift):
                module.threshold.copy_(draw(module.threshold, -0.3, 0.3))
            elif isinstance(module, nn.PReLU):
                module.weight.copy_(draw(module.weight, -0.2, 0.6))
    return net.eval()


def network(name: str) -> tuple[nn.Module, hs.data.Data]:
    data = images(40, (2, 32, 41) if name in ("wu2023 imagenet", "liu2018", "full stem") else SHAPE)
    return spread(NETS[name](data.shape, 3)), data


def rows(data: hs.data.Data, n: int = 12) -> NDArray[np.uint8]:
    x: NDArray[np.uint8] = data.train.take(list(range(n)))[0].numpy()
    return x


def whole(net: nn.Module) -> nn.Module:
    """Round real weights to few bits, so that freezing rounds none of them."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and not nn.utils.parametrize.is_parametrized(module):
                module.weight.copy_((module.weight * 64).round().clamp(-100, 100) / 64)
            elif isinstance(module, nn.BatchNorm1d):  # what the read-out takes into its weights
                module.weight.copy_((module.running_var + module.eps).sqrt())
    return net


def own_error(layer: Stage, values: NDArray[np.int64], error: float) -> float:
    """How far numbers may be from the real ones behind a layer, in units, if they were that far before it."""
    if isinstance(layer, Rescaled):
        size = np.abs(layer.weight.astype(np.int64)).reshape(len(layer.weight), -1).sum(axis=1)
        reach = np.abs(layer.encoding.value(values)).max() * size
        passed = error * (size * np.abs(layer.multiplier)).max() * 2.0**-layer.shift
        return float(passed + 0.5 + (reach.max() + 1) * 2.0 ** -(layer.shift + 1))
    if isinstance(layer, Bent):
        slope, t = np.abs(layer.slope).max() * 2.0**-layer.shift, np.abs(values).max() + np.abs(layer.knee).max()
        return float(max(1, slope) * (error + 0.5) + 1 + t * 2.0 ** -(layer.shift + 1))
    if isinstance(layer, Threshold | Conv):
        return 0.0  # steps are forced to be the same
    return error * prod(layer.size) if isinstance(layer, Windows) and layer.total else error


def walk(
    layers: Iterable[Stage], values: NDArray[Any], error: float, read: list[tuple[NDArray[Any], float]]
) -> tuple[NDArray[Any], float]:
    """Run layers and bound the errors; `read` gets what every block reads."""
    for layer in layers:
        if isinstance(layer, Residual):
            read.append((values, error))
            body, shortcut = (walk(way, values, error, read) for way in (layer.body, layer.shortcut))
            values, error = body[0] + shortcut[0], body[1] + shortcut[1]
        else:
            error = own_error(layer, values, error)
            values = layer.run(values, exact_product)
    return values, error


def forced(
    net: nn.Module, hard: HardNet, x: NDArray[np.uint8]
) -> tuple[list[NDArray[Any]], NDArray[Any], list[NDArray[Any]]]:
    """Run the float network on the steps of the frozen one: what blocks read, the outputs, how far wrong steps were."""
    steps = iter([out for layer, out in hard.every(x) if isinstance(layer, Threshold | Conv)])
    inner = {id(module.step) for module in net.modules() if isinstance(module, hs.Sign | hs.Staircase)}
    read: list[NDArray[Any]] = []
    missed: list[NDArray[Any]] = []

    def force(module: Activation, args: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        codes = torch.from_numpy(next(steps))
        levels = torch.tensor(module.thresholds if isinstance(module, hs.Staircase) else (0.0,))
        far = (args[0][..., None] - levels).abs().amin(dim=-1)
        missed.append(far[module.coded(out)[0] != codes].numpy())
        given: torch.Tensor = module.coded(out)[1].to(out)[codes.long()]
        return given

    handles = [
        module.register_forward_hook(force)
        for module in net.modules()
        if isinstance(module, Activation) and id(module) not in inner
    ]
    handles += [
        module.register_forward_pre_hook(lambda module, args: read.append(args[0].numpy()))
        for module in net.modules()
        if isinstance(module, RealBlock)
    ]
    with torch.no_grad():
        out = net(torch.from_numpy((x - hard.grid.zero) * hard.grid.scale)).numpy()
    for handle in handles:
        handle.remove()
    assert next(steps, None) is None
    return read, out, missed


@every_net
def test_every_sum_is_within_its_bound_and_a_step_differs_only_there(name: str) -> None:
    net, data = network(name)
    net = whole(net.double())
    hard = hs.freeze(net, calibrate=data.train)
    x = rows(data)
    assert hard.rounding is not None
    assert hard.rounding.point == 16
    unit = 2.0**-16
    read: list[tuple[NDArray[Any], float]] = []
    scores, last = walk(hard.layers, hard.codes(x), 0.0, read)
    np.testing.assert_array_equal(scores, hard(x))
    floats, out, missed = forced(net, hard, x)
    for (numbers, error), wanted in zip(read, floats, strict=True):
        assert np.abs(numbers - wanted / unit).max() <= error + 1e-3
        assert numbers.std() * unit > 0.05  # they do say something
    assert np.abs(scores - out / hard.scale).max() <= last + 1e-3
    worst = max(error for _, error in read)
    assert all((far <= worst * unit + 1e-9).all() for far in missed)
    if name in ("wu2023 bi-real", "qin2020"):  # no bends, no real shortcuts: half a unit for each addition
        for i, (_, error) in enumerate(read):
            assert error <= 0.51 * (i + 1)


@every_net
def test_network_keeps_almost_every_step_and_onnx_runtime_gives_the_same_integers(name: str) -> None:
    pytest.importorskip("onnxruntime")
    from hardstep.export.onnx import onnx_form, to_onnx

    net, data = network(name)
    hard = hs.freeze(net, calibrate=data.train, weight_bits=16)
    assert hard.rounding is not None
    assert hard.rounding.step_outputs > 1000
    assert hard.rounding.steps_changed <= 1e-3 * hard.rounding.step_outputs
    x = rows(data)
    np.testing.assert_array_equal(onnx_form(to_onnx(hard))(x), hard(x))


def test_nothing_is_rounded_where_gains_are_powers_of_two_ties_included() -> None:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 4, (60, 1, 8, 8)).astype(np.float32)
    data = hs.data.from_arrays(x, np.arange(60) % 2)
    sums = hs.nets.RealSums(after=hs.nets.HardTanh())
    net = whole(replace(TINY, norm=False, activation=hs.Sign(), weights=hs.Libra(), sums=sums)((1, 8, 8), 2))
    with torch.no_grad():
        for path, value in net.named_parameters():
            if path.endswith("bias"):
                value.copy_(value.mul(8).round() / 8)
    hard = hs.freeze(net, calibrate=data.train)
    assert hard.rounding is not None
    assert (hard.rounding.steps_changed, hard.rounding.predictions_changed) == (0, 0)
    ties = sum(int((out == layer.threshold[0, 0]).sum()) for layer, out in before_steps(hard, x))
    assert ties > 100
    with torch.no_grad():
        np.testing.assert_array_equal(hard(x) * hard.scale, net(torch.from_numpy(x)).numpy())


def before_steps(hard: HardNet, x: NDArray[Any]) -> list[tuple[Threshold, NDArray[Any]]]:
    """Each layer of thresholds with the sums that it reads."""
    found, values = [], hard.codes(x)
    for layer in hard.layers:
        if isinstance(layer, Residual) and isinstance(layer.body[0], Threshold):
            found.append((layer.body[0], values))
        values = layer.run(values, exact_product)
    return found


def test_saved_network_comes_back_and_its_packed_evaluation_is_the_same(tmp_path: Path) -> None:
    for name in ("react", "stairs"):
        net, data = network(name)
        hard = hs.freeze(net, calibrate=data.train)
        hard.save(tmp_path / "net")
        back, x = HardNet.load(tmp_path / "net"), rows(data, 3)
        np.testing.assert_array_equal(back(x), hard(x))
        np.testing.assert_array_equal(hard(x, product=packed_product), hard(x))
        assert back.summary() == hard.summary()
        assert "real sums have 16 of 32 bits behind the point" in hard.summary()
        assert hard.macs == sum(row.macs for row in hard.rows()) > 0
        assert sum(row.weights for row in hard.rows()) == sum(
            module.weight.numel() for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d)
        )


def test_verify_runs_what_takes_real_sums_and_says_why_the_rest_does_not() -> None:
    net, data = network("wu2023 plain")
    hard = hs.freeze(net, calibrate=data.train)
    result = hs.verify(hard, rows(data))
    assert result.ok
    run = {check.form for check in result.checks if not check.refused}
    refused = {check.form for check in result.checks if check.refused}
    assert refused <= {"Verilog"}
    assert "C" in run or compiler() is None
    assert all("layer 0 (Rescaled)" in check.refused for check in result.checks if check.form in refused)
    assert hs.simplify(hard) is hard
    for refuses in (lower, to_verilog, hs.fold_constants, NoOverflow().certify, extremes):
        with pytest.raises(ValueError, match=r"layer 0 \(Rescaled\) computes with real sums"):
            refuses(hard)


def test_bits_behind_the_point_give_way_to_large_sums_and_beyond_them_freezing_names_the_layer() -> None:
    net, data = network("wu2023 bi-real")
    points = []
    for gain in (1.0, 1e5, 1e9):
        with torch.no_grad():
            net[1].weight.mul_(gain)
        if gain == 1e9:
            with pytest.raises(ValueError, match=r"layer '0' cannot be frozen: a sum could reach .*beyond 2147483647"):
                hs.freeze(net, calibrate=data.train)
        else:
            hard = hs.freeze(net, calibrate=data.train)
            assert hard.rounding is not None
            points.append(hard.rounding.point)
            reach = [
                np.abs(out).max() for layer, out in hard.every(rows(data)) if isinstance(layer, Residual | Rescaled)
            ]
            assert max(reach) < 2**31
    assert points[0] == 16 > points[1] > 0


def test_module_without_an_integer_form_on_sums_is_named() -> None:
    net, data = network("qin2020")
    for i, module, message in (
        (3, nn.Tanh(), "no integer form of it on real sums"),
        (3, nn.BatchNorm2d(3), "must be read by a linear layer"),
        (len(net) - 4, nn.AdaptiveAvgPool2d(2), "only a mean over all places"),
    ):
        changed = nn.Sequential(*net[:i], module, *net[i:]).eval()
        with pytest.raises(ValueError, match=rf"cannot be frozen: .*{message}|{message}"):
            hs.freeze(changed, calibrate=data.train)


def test_clipped_sums_never_leave_their_interval() -> None:
    net, data = network("qin2020")
    hard = hs.freeze(net, calibrate=data.train)
    clips = [out for layer, out in hard.every(rows(data)) if isinstance(layer, Clip)]
    assert len(clips) == 19
    assert all(np.abs(out).max() == 2**16 for out in clips)
