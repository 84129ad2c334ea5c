"""Diagnostics of targets: agreement, separability, margins, flips predicted and measured."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import hardstep as hs
from hardstep.blocks import ResidualBlock

DATA = hs.data.load("digits")


def test_counts_are_those_of_a_network_worked_out_by_hand() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), hs.Step(), nn.Linear(2, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        net[1].bias.fill_(-0.5)
        net[3].weight.copy_(torch.tensor([[0.0, 2.0], [0.0, 0.0]]))  # only the second bit counts, for class 0
        net[3].bias.zero_()
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = torch.tensor([0, 0, 0, 1])  # the second bit should be on, but in the last row
    probe = hs.data.from_arrays(x, y, test_share=0.0, val_share=0.0).train
    before = copy.deepcopy(net.state_dict())
    found = hs.diagnose_targets(net, probe, flips=None)
    (call,) = found.calls
    assert call.name == "2"
    assert call.ties == 0.5
    assert call.agreement == 0.25  # right in row 1 alone
    assert call.separable == 1.0
    assert len(call.margins) == 1  # the first unit is asked for nothing
    assert call.margins[0] == pytest.approx(0.5)
    assert np.count_nonzero(call.measured) == 4
    rise = np.log1p(np.exp(-2)) - np.log(2)  # of the loss of class 0 if the second bit comes on
    fall = np.log(2) - np.log1p(np.exp(2))  # of class 1 if it goes
    np.testing.assert_allclose(np.sort(call.measured[call.measured != 0]), [fall, rise, rise, -rise], rtol=1e-5)
    assert call.signs == 1.0
    assert "2" in str(found)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_targets_of_xor_at_one_unit_are_not_separable() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), hs.Step(), nn.Linear(1, 2))
    with torch.no_grad():
        net[3].weight.copy_(torch.tensor([[-1.0], [1.0]]))  # the unit is asked to be the label
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    probe = hs.data.from_arrays(x, torch.tensor([0, 1, 1, 0]), test_share=0.0, val_share=0.0).train
    (call,) = hs.diagnose_targets(net, probe).calls
    assert call.separable == 0.0
    assert call.margins.tolist() == [0.0]


@pytest.mark.parametrize("activation", [hs.Step(), hs.Sign(), hs.Staircase(3)], ids=repr)
def test_all_calls_of_a_network_are_described_and_drawn(activation: hs.Step) -> None:
    net = hs.nets.MLP(hidden=(8, 6), activation=activation)(DATA.shape, DATA.outputs)
    hs.fit(net, DATA, hs.GradientDescent(), sweeps=2, progress=False)
    found = hs.diagnose_targets(net, DATA.val, rows=60, units=3, flips=2)
    stairs = 3 if isinstance(activation, hs.Staircase) else 1
    assert [call.name for call in found.calls] == ["3"] * stairs + ["6"] * stairs
    for call in found.calls:
        assert 0 <= call.separable <= 1
        assert len(call.predicted) == len(call.measured) == 60 * 2
        assert -1 <= call.correlation <= 1
        assert 0 <= call.signs <= 1
    assert len(found.plot().axes) == 2 * len(found.calls)
    assert found.calls[-1].correlation > 0.9  # straight below the read-out the derivative is nearly the effect


def test_convolutions_have_no_separability_and_other_networks_an_error() -> None:
    net = hs.nets.ConvNet4(channels=(2, 3), units=8)(DATA.shape, DATA.outputs)
    first, _, last = hs.diagnose_targets(net, DATA.val, rows=20, units=2, flips=2).calls
    assert np.isnan(first.separable)
    assert len(first.margins) == 0
    assert 0 <= last.separable <= 1
    assert len(last.margins) == 2
    with pytest.raises(ValueError, match="layers must follow one another"):
        hs.diagnose_targets(nn.Sequential(ResidualBlock(1, 2)), DATA.val)
