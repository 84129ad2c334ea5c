"""The step itself: exact forwards at every special value, and under every transformation of torch."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

import hardstep as hs

RULES = [hs.Identity(), hs.Clipped(), hs.Sech2(), hs.ReSTE()]
ACTIVATIONS = [hs.Step, hs.Sign, hs.Staircase]
every_rule = pytest.mark.parametrize("rule", RULES, ids=repr)
every_activation = pytest.mark.parametrize("kind", ACTIVATIONS)


def net_and_input(rule: hs.BackwardRule, kind: type[nn.Module] = hs.Step) -> tuple[nn.Sequential, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), kind(rule=rule), nn.Linear(8, 3)), torch.randn(7, 5)


def gradients(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(net(x).sum(), list(net.parameters())))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_step_is_exact_at_every_special_value(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal
    x = torch.tensor([-math.inf, -1.0, -tiny, -0.0, 0.0, tiny, 1.0, math.inf, math.nan], dtype=dtype)
    wanted = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 0], dtype=dtype)
    out = hs.step(x)
    assert out.dtype == dtype
    assert torch.equal(out, wanted)
    assert not out.signbit().any()
    assert torch.equal(hs.Sign()(x), 2 * wanted - 1)


def test_smallest_subnormal_number_is_above_zero() -> None:
    assert hs.step(torch.tensor([5e-324], dtype=torch.float64)).item() == 1.0


@pytest.mark.parametrize("stairs", [1, 2, 3, 4, 5, 7, 8, 11, 16])
def test_staircase_counts_the_thresholds_below_even_beside_them(stairs: int) -> None:
    module = hs.Staircase(stairs)
    at = torch.tensor(module.thresholds, dtype=torch.float32)
    x = torch.cat([at, at.nextafter(at + 1), at.nextafter(at - 1), torch.linspace(-1, 2, 301)])
    wanted = (x[:, None].double() > at.double()).sum(dim=1)
    assert torch.equal((module(x) * stairs).round().long(), wanted)
    assert module(torch.tensor([9.0])).item() == 1.0


@pytest.mark.parametrize("stairs", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_flight_of_stairs_goes_forward_as_one_by_one(stairs: int, dtype: torch.dtype) -> None:
    thresholds = torch.tensor(hs.Staircase(stairs).thresholds).to(dtype)
    x = torch.cat([thresholds, torch.linspace(-1, 2, 301).to(dtype), -torch.zeros(1, dtype=dtype)])
    assert torch.equal(hs.Staircase(stairs, whole=True)(x), hs.Staircase(stairs)(x))


def test_flight_of_stairs_goes_back_by_one_rule_in_its_middle() -> None:
    x = torch.linspace(-1, 2, 301, dtype=torch.float64, requires_grad=True)
    known = {
        hs.UnitArea(hs.Clipped(0.5)): ((x >= 0) & (x <= 1)).double(),
        hs.Sech2(2.0): torch.cosh(2 * x - 1) ** -2,
    }
    for rule, wanted in known.items():
        (slope,) = torch.autograd.grad(hs.Staircase(3, rule, whole=True)(x).sum(), x)
        torch.testing.assert_close(slope, wanted.detach(), rtol=1e-9, atol=1e-12)
    (sum_of_windows,) = torch.autograd.grad(hs.Staircase(3, hs.Scaled(hs.Clipped(1.0), 2.0))(x).sum(), x)
    count = sum(((x - i / 2).abs() <= 1).double() for i in range(3))  # the saturated-hinge sum, grad/k times a count
    torch.testing.assert_close(sum_of_windows, count / 3)


def test_staircase_without_stairs_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 stair, got 0"):
        hs.Staircase(0)


@every_rule
def test_sign_passes_twice_the_slope_of_the_step(rule: hs.Surrogate) -> None:
    x = torch.linspace(-2, 2, 101, requires_grad=True)
    (g,) = torch.autograd.grad(hs.Sign(rule)(x).sum(), x)
    torch.testing.assert_close(g, 2 * rule.derivative(x.detach()))


@every_rule
@every_activation
def test_vmap_of_grad_equals_the_batch(rule: hs.BackwardRule, kind: type[nn.Module]) -> None:
    net, x = net_and_input(rule, kind)
    parameters = dict(net.named_parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        each = vmap(grad(lambda p, row: functional_call(net, p, (row,)).sum()), in_dims=(None, 0))(parameters, x)
    for one, whole in zip(each.values(), gradients(net, x), strict=True):
        torch.testing.assert_close(one.sum(dim=0), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_network_gives_the_same_output_and_gradients(backend: str) -> None:
    if backend == "inductor" and shutil.which("c++") is None:
        pytest.skip("torch's native compiler needs a C++ compiler")
    script = Path(__file__).with_name("compile_script.py")
    command = [sys.executable, "-W", "ignore", str(script), backend]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


@every_rule
def test_autocast_to_bfloat16_keeps_bits_exact_and_gradients_close(rule: hs.BackwardRule) -> None:
    net, x = net_and_input(rule)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = net[1](net[0](x))
        assert hidden.dtype == torch.bfloat16
        assert set(hidden.unique().tolist()) <= {0.0, 1.0}
        approximate = gradients(net, x)
    for a, b in zip(approximate, gradients(net, x), strict=True):
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.1)


@every_activation
def test_exported_network_gives_the_same_output(kind: type[nn.Module]) -> None:
    net, x = net_and_input(hs.Clipped(), kind)
    program = torch.export.export(net.eval(), (x,))
    assert torch.equal(program.module()(x), net(x))


def test_second_derivative_is_refused() -> None:
    x = torch.randn(3, requires_grad=True)
    (first,) = torch.autograd.grad(hs.step(x, hs.Sech2()).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(first.sum(), x)


def test_rule_is_shown() -> None:
    assert "Clipped(width=1.0)" in repr(hs.Step())
    assert "stairs=3" in repr(hs.Staircase())
