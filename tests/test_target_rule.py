"""Layer losses and the two ways to descend them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import hardstep as hs
from hardstep.cuts import Call, Cuts, recorder, replayer
from hardstep.rules import BackwardRule

from .contracts.test_rules import LAYER_LOSSES, concrete

every_loss = pytest.mark.parametrize("loss", LAYER_LOSSES, ids=lambda loss: type(loss).__name__)
EVEN = {hs.LinearLoss: hs.Identity(), hs.SaturatedHingeLoss: hs.Clipped(), hs.SoftHingeLoss: hs.Sech2()}


class Residual(nn.Module):
    """A convolution with normalisation around which its input goes too."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm(self.conv(x)) + x)
        return out


class LongSkip(nn.Module):
    """The first bits are read by two layers."""

    def __init__(self, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.one, self.two = activation(), activation()

    def forward(self, x: Tensor) -> Tensor:
        low = self.one(self.first(x.flatten(1)))
        out: Tensor = self.third(self.two(self.second(low)) + low)
        return out


def networks(activation: Callable[[], nn.Module]) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    pooled = [nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4), activation(), nn.Flatten(), nn.Linear(36, 3)]
    layers = [nn.Linear(6, 9), activation(), nn.Linear(9, 7), nn.BatchNorm1d(7), activation(), nn.Linear(7, 3)]
    residual = [nn.Conv2d(1, 3, 3), activation(), Residual(3, activation()), nn.Flatten(), nn.Linear(108, 3)]
    return {
        "mlp": (nn.Sequential(*layers), (6,)),
        "pooled": (nn.Sequential(*pooled), (1, 8, 8)),
        "residual": (nn.Sequential(*residual), (1, 8, 8)),
        "long skip": (LongSkip(activation), (6,)),
    }


def set_rule(net: nn.Module, rule: BackwardRule) -> None:
    for module in net.modules():
        if isinstance(module, hs.Step):
            module.rule = rule


def gradients(net: nn.Module) -> list[Tensor]:
    found = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
    net.zero_grad()
    return found


def test_every_loss_is_listed() -> None:
    assert concrete(hs.LayerLoss) == {type(loss) for loss in LAYER_LOSSES}


@every_loss
def test_slope_is_minus_the_derivative_of_the_value_also_at_the_kinks(loss: hs.LayerLoss) -> None:
    u = torch.tensor([-30.0, -2.0, -1.0, -0.3, 0.0, 0.3, 1.0, 1.7, 30.0], dtype=torch.float64, requires_grad=True)
    loss.value(u).sum().backward()
    assert u.grad is not None
    torch.testing.assert_close(loss.slope(u.detach()), -u.grad, rtol=1e-12, atol=1e-15)
    assert loss.slope(torch.zeros(1, dtype=torch.float64)).item() == (0.5 if isinstance(loss, hs.LogLoss) else 1.0)


@pytest.mark.parametrize(
    ("loss", "most"),
    [
        (hs.HingeLoss(), 1.0),
        (hs.PerceptronLoss(), 1.0),
        (hs.LogLoss(), 0.905),
        (hs.SquaredHingeLoss(), 4.0),
        *((kind(), 0.0) for kind in EVEN),
    ],
    ids=str,
)
def test_slopes_are_as_uneven_as_published(loss: hs.LayerLoss, most: float) -> None:
    u = torch.linspace(0, 3, 3001, dtype=torch.float64)[1:]
    assert (loss.slope(u) - loss.slope(-u)).abs().max().item() == pytest.approx(most, abs=2e-3)


def test_slope_of_the_soft_hinge_keeps_its_digits_far_out() -> None:
    u = torch.tensor([9.0, 20.0, 40.0, 1e4])
    wanted = 1 / torch.cosh(u.double()) ** 2
    torch.testing.assert_close(hs.SoftHingeLoss().slope(u).double(), wanted, rtol=1e-5, atol=0)
    assert torch.equal(hs.SoftHingeLoss().slope(u), hs.SoftHingeLoss().slope(-u))


@pytest.mark.parametrize("kind", EVEN, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("width", [1.0, 0.4])
def test_linear_is_straight_through_saturated_hinge_the_clip_and_soft_hinge_sech2(
    kind: type[hs.LayerLoss], width: float
) -> None:
    x = torch.linspace(-3, 3, 997, dtype=torch.float64)
    grad = torch.randn(997, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known = {
        hs.LinearLoss: hs.Identity(),
        hs.SaturatedHingeLoss: hs.Clipped(width),
        hs.SoftHingeLoss: hs.Sech2(1 / width),
    }
    factor = 1.0 if kind is hs.SoftHingeLoss else 1 / width  # the area under psi(x/c)/c does not depend on c
    out = hs.TargetRule(kind(), width=width).pullback(x, grad)
    torch.testing.assert_close(out, factor * known[kind].pullback(x, grad), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(hs.TargetRule(kind(), width=width).pullback(x, -grad), -out, rtol=0, atol=0)


@every_loss
@pytest.mark.parametrize("activation", [hs.Step, hs.Sign, hs.Staircase], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("form", ["mlp", "pooled", "residual", "long skip"])
@pytest.mark.parametrize("options", [{}, {"weighted": False}, {"width": 0.7, "relative": "channel"}], ids=str)
def test_layer_by_layer_gives_the_gradients_of_one_backward_pass(
    loss: hs.LayerLoss, activation: type[nn.Module], form: str, options: dict[str, object]
) -> None:
    torch.manual_seed(3)
    net, shape = networks(activation)[form]
    net.double()
    rule = hs.TargetRule(loss, **options)  # type: ignore[arg-type]
    set_rule(net, rule)
    x, y = torch.randn(11, *shape, dtype=torch.float64), torch.randint(3, (11,))
    value = nn.functional.cross_entropy
    value(net(x), y).backward()
    fused = gradients(net)
    calls: list[Call] = []
    with Cuts(net, recorder(calls)):
        value(net(x), y).backward(retain_graph=True)
        for call in reversed(calls):
            assert call.bits.grad is not None
            rule.target(call.x.detach(), call.bits.grad).value(call.x).backward(retain_graph=True)
    local = gradients(net)
    assert len(fused) == len(local) == len(list(net.parameters()))
    size = max(float(gradient.abs().max()) for gradient in fused)
    for one, other in zip(fused, local, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12 * size)


def test_equal_weights_count_every_entry_with_a_credit_alike() -> None:
    target = hs.TargetRule(weighted=False).target(torch.zeros(4), torch.tensor([1.0, -3.0, 0.0, 0.0]))
    assert target.weight.tolist() == [0.5, 0.5, 0.0, 0.0]
    assert target.t.tolist() == [-1.0, 1.0, 0.0, 0.0]


def test_relative_width_makes_the_pullback_free_of_the_scale_of_its_input() -> None:
    x = (
        torch.randn(50, 4, 3, 3, generator=torch.Generator().manual_seed(1))
        * torch.tensor([1.0, 5, 20, 0.1])[:, None, None]
    )
    grad = torch.randn(50, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    by_channel = hs.TargetRule(relative="channel")
    scaled = x / x.std(dim=(0, 2, 3), correction=0, keepdim=True)
    spread = x.std(dim=(0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(by_channel.pullback(x, grad) * spread, hs.TargetRule().pullback(scaled, grad))
    by_layer = hs.TargetRule(relative="layer")
    torch.testing.assert_close(by_layer.pullback(7 * x, grad), by_layer.pullback(x, grad) / 7)
    assert by_channel.pullback(torch.ones(3, 2), torch.ones(3, 2)).isfinite().all()  # no spread at all


def test_recorded_bits_can_be_replayed_and_changed_and_hooks_go() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), hs.Staircase(2), nn.Linear(5, 6), hs.Sign(), nn.Linear(6, 2))
    x = torch.randn(7, 4)
    calls: list[Call] = []
    with Cuts(net, recorder(calls)) as cuts:
        out = net(x)
        assert [call.step for call in calls] == [net[1].step, net[1].step, net[3].step]
        inputs: list[Tensor] = []
        with cuts.answering(replayer([call.bits.detach() for call in calls], inputs)):
            torch.testing.assert_close(net(x), out)
        assert len(inputs) == 3
        with torch.no_grad(), cuts.answering(replayer([calls[0].bits, 1 - calls[1].bits], [])):
            changed = net(x)
    stairs = (calls[0].bits.detach() + 1 - calls[1].bits.detach()) / 2
    torch.testing.assert_close(changed, net[4](net[3](net[2](stairs))))
    assert torch.equal(net(x), out)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hs.TargetRule(width=0.0), "width must be positive and finite, got 0.0"),
        (lambda: hs.TargetRule(relative="row"), "'no', 'layer',( or)? 'channel'"),  # type: ignore[arg-type]
        (lambda: hs.TargetProp(base=hs.GradientDescent()), "needs a TargetRule"),
        (lambda: hs.TargetProp(inner=0), "inner counts steps of the optimiser and must be at least 1, got 0"),
        (lambda: hs.TargetProp(momentum=1.0), r"momentum is a share in \[0, 1\), got 1.0"),
        (lambda: hs.FlipSearch(flips=0), "flips must be at least 1, or None for all bits, got 0"),
        (lambda: hs.FlipSearch(trust=0.0), r"trust is a share in \(0, 1\], got 0.0"),
    ],
)
def test_bad_setting_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):  # the tests check types too
        make()
