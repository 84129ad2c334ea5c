"""Target propagation in mini-batches: the local pass, inner steps, measured flips, momentum."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import hardstep as hs
from hardstep.flips import measured_credit

DATA = hs.data.load("digits")
BASE = hs.GradientDescent(rule=hs.TargetRule(hs.HingeLoss()), batch_size=64)


def double() -> Fabric:
    fabric = Fabric(accelerator="cpu", devices=1, precision="64-true")
    fabric.launch()
    return fabric


def trained(method: hs.Method[Any], sweeps: int = 2, **options: Any) -> tuple[nn.Module, hs.Report]:
    net = hs.nets.MLP(hidden=(12, 8), **options)(DATA.shape, DATA.outputs)
    return net, hs.fit(net, DATA, method, sweeps=sweeps, progress=False, fabric=double())


def weights(net: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


@pytest.mark.parametrize("activation", [hs.Step(), hs.Sign(), hs.Staircase(3)], ids=repr)
def test_without_search_it_takes_the_steps_of_the_fused_pass(activation: Any) -> None:
    fused, one = trained(BASE, activation=activation)
    local, other = trained(hs.TargetProp(base=BASE), activation=activation)
    torch.testing.assert_close(weights(local), weights(fused), rtol=0, atol=1e-7)
    assert [record.score for record in one.records] == [record.score for record in other.records]


def test_inner_steps_lower_the_layer_losses_of_a_batch_further() -> None:
    data = hs.data.from_arrays(DATA.train.x[:64], DATA.train.y[:64], test_share=0.0, val_share=0.0)
    rule = hs.TargetRule(hs.LogLoss())  # convex: short steps on it cannot but go down
    base = hs.GradientDescent(rule=rule, optimiser=hs.SGD(lr=1e-3, momentum=0.0), schedule=hs.Constant(), batch_size=64)
    moved = []
    for inner in (1, 4):
        net = hs.nets.MLP(hidden=(12,), norm=False)(DATA.shape, DATA.outputs).double()
        start = weights(net)
        hs.fit(net, data, hs.TargetProp(base=base, inner=inner), sweeps=1, progress=False, fabric=double())
        moved.append(weights(net) - start)
    along = torch.dot(moved[0], moved[1]) / moved[0].norm() ** 2
    assert 3 < along < 4.5  # four steps down nearly the same slope


def test_measured_credit_is_the_difference_of_the_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(2, (5, 6), generator=generator).double()
    w = torch.randn(6, generator=generator, dtype=torch.float64)

    def losses(variants: Tensor, copies: int) -> Tensor:
        assert len(variants) == 5 * copies
        return (variants @ w).tanh().square()

    found = measured_credit(bits, torch.zeros_like(bits), losses)
    for row, unit in itertools.product(range(5), range(6)):
        on, off = bits[row].clone(), bits[row].clone()
        on[unit], off[unit] = 1, 0
        wanted = losses(torch.stack([on] * 5), 1)[0] - losses(torch.stack([off] * 5), 1)[0]
        assert found[row, unit].item() == pytest.approx(wanted.item(), abs=1e-12)
    credit = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    some = measured_credit(bits, credit, losses, flips=2)
    assert (~some.isnan()).sum(dim=1).tolist() == [2] * 5
    largest = credit.abs() >= credit.abs().topk(2, dim=1).values[:, -1:]
    assert torch.equal(~some.isnan(), largest)
    torch.testing.assert_close(some[largest], found[largest])


def test_measured_credit_in_parts_is_that_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = torch.randint(2, (5, 2, 3), generator=torch.Generator().manual_seed(1)).float()

    def losses(variants: Tensor, copies: int) -> Tensor:
        return variants.flatten(1).cumsum(dim=1).square().sum(dim=1)

    whole = measured_credit(bits, bits, losses)
    monkeypatch.setattr("hardstep.flips.CHUNK", 1)
    assert torch.equal(measured_credit(bits, bits, losses), whole)


def test_prediction_is_exact_where_the_loss_is_linear_in_the_bits() -> None:
    y = torch.randn(len(DATA.train), 1, generator=torch.Generator().manual_seed(0))
    data = hs.data.from_arrays(DATA.train.x[:], y, test_share=0.0)
    net = hs.nets.MLP(hidden=(8,), norm=False)(data.shape, 1)
    nn.init.constant_(net[-1].weight, 1e-4)  # so small that the squared loss is as good as linear
    base = hs.GradientDescent(rule=hs.TargetRule(), loss=hs.Squared(), optimiser=hs.SGD(lr=1e-9, momentum=0.0))
    report = hs.fit(net, data, hs.TargetProp(base=base, search=hs.FlipSearch()), sweeps=1, progress=False)
    assert report.records[0].extra["effect correlation 0"] > 0.999
    assert report.records[0].extra["effect agreement 0"] > 0.99


@pytest.mark.parametrize("activation", [hs.Step(), hs.Sign(), hs.Staircase(2)], ids=repr)
def test_search_learns_and_says_how_well_flips_are_predicted(activation: Any) -> None:
    _, report = trained(hs.TargetProp(search=hs.FlipSearch(flips=4)), sweeps=20, activation=activation)
    assert report.score is not None
    assert report.score > 0.6
    extra = report.records[-1].extra
    for kind in ("agreement", "active", "ties", "effect agreement"):
        assert 0 <= extra[f"{kind} 0"] <= 1
    assert -1 <= extra["effect correlation 0"] <= 1


def test_search_works_in_a_convolution_network() -> None:
    net = hs.nets.ConvNet4(channels=(2, 3), units=8)(DATA.shape, DATA.outputs)
    method = hs.TargetProp(search=hs.FlipSearch(flips=3), momentum=0.3)
    report = hs.fit(net, DATA, method, sweeps=2, progress=False)
    assert {f"effect correlation {i}" for i in range(3)} <= set(report.records[0].extra)


def test_momentum_pulls_the_credit_to_the_mean_of_its_class() -> None:
    plain, _ = trained(hs.TargetProp())
    slow, report = trained(hs.TargetProp(momentum=0.9))
    assert not torch.equal(weights(plain), weights(slow))
    none, _ = trained(hs.TargetProp(momentum=0.0))
    assert torch.equal(weights(plain), weights(none))
    assert report.score is not None


def test_momentum_needs_classes_and_search_layers_that_follow_one_another() -> None:
    numbers = hs.data.from_arrays(DATA.train.x[:], torch.randn(len(DATA.train), 2))
    net = hs.nets.MLP(hidden=(4,))(numbers.shape, 2)
    base = hs.GradientDescent(rule=hs.TargetRule(), loss=hs.Squared())
    with pytest.raises(ValueError, match="these targets are numbers; set momentum=0"):
        hs.fit(net, numbers, hs.TargetProp(base=base, momentum=0.5), sweeps=1, progress=False)

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = hs.Step()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.step(x) + x
            return out

    skipping = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Skip(), nn.Linear(8, 10))
    with pytest.raises(ValueError, match="'2' is a Skip with steps of its own; in a fit set search=None"):
        hs.fit(skipping, DATA, hs.TargetProp(search=hs.FlipSearch()), sweeps=1, progress=False)
    assert hs.fit(skipping, DATA, hs.TargetProp(), sweeps=1, progress=False).score is not None
