"""Pruning of units: exact where units are idle, sized as asked, better than magnitude, and open to further training."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import hardstep as hs
from hardstep.pruning import UnitChoice

CHOICES: list[UnitChoice] = [hs.BackwardElimination(), hs.ColumnsL20(), hs.RowsL20(), hs.ColumnNorm()]


def widths(net: nn.Module) -> list[int]:
    return [layer.out_features for layer in net.modules() if isinstance(layer, nn.Linear)]


def rows(data: hs.data.Data) -> Tensor:
    return data.train.x.float() / 16


@pytest.fixture(scope="module")
def trained(digits: hs.data.Data) -> nn.Sequential:
    net = hs.nets.MLP(hidden=(80, 60), norm=False)(digits.shape, digits.outputs)
    hs.fit(net, digits, hs.MarginBCD(), sweeps=16, progress=False)
    return net


@pytest.mark.parametrize("norm", [False, True])
def test_units_that_nothing_needs_go_without_any_change(digits: hs.data.Data, norm: bool) -> None:
    net = hs.nets.MLP(hidden=(40, 30), norm=norm)(digits.shape, digits.outputs).eval()
    idle = [torch.arange(0, 40, 4), torch.arange(1, 30, 3)]
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        linear[1].weight[:, idle[0]] = 0
        linear[2].weight[:, idle[1]] = 0
    smaller = hs.prune_units(net, digits, [30, 20], ridge=1e-10)
    assert widths(smaller) == [30, 20, 10]
    assert widths(net) == [40, 30, 10]  # the network itself stays
    torch.testing.assert_close(smaller(rows(digits)), net(rows(digits)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("by", CHOICES, ids=lambda by: type(by).__name__)
@pytest.mark.parametrize(
    ("keep", "wanted"), [(1.0, [80, 60]), (0.5, [40, 30]), ([1, 60], [1, 60]), (0.001, [1, 1])], ids=str
)
def test_sizes_are_as_asked_and_all_units_change_nothing(
    trained: nn.Sequential, digits: hs.data.Data, by: UnitChoice, keep: float | Sequence[int], wanted: list[int]
) -> None:
    smaller = hs.prune_units(trained, digits, keep, by=by, ridge=1e-9)
    assert widths(smaller) == [*wanted, 10]
    assert all(bool(value.isfinite().all()) for value in smaller.state_dict().values())
    if keep == 1.0:
        assert hs.score(smaller, digits.train) == pytest.approx(hs.score(trained, digits.train), abs=2e-3)


def test_elimination_beats_magnitude_and_the_smaller_network_trains_on(
    trained: nn.Sequential, digits: hs.data.Data
) -> None:
    whole = hs.score(trained, digits.train)
    kept = {
        type(by): hs.score(hs.prune_units(trained, digits, 0.2, by=by), digits.train)
        for by in (hs.BackwardElimination(), hs.ColumnNorm())
    }
    assert whole - 0.1 < kept[hs.BackwardElimination]
    assert kept[hs.BackwardElimination] > kept[hs.ColumnNorm]
    smaller = hs.prune_units(trained, digits, 0.2)
    smaller[1].requires_grad_(False)
    first = smaller[1].weight.clone()
    hs.fit(smaller, digits, hs.MarginBCD(warm=True), sweeps=8, progress=False)
    assert hs.score(smaller, digits.train) > kept[hs.BackwardElimination]
    torch.testing.assert_close(nn.functional.normalize(smaller[1].weight), nn.functional.normalize(first))


def test_pruned_network_with_normalisation_is_alike_in_training_mode(digits: hs.data.Data) -> None:
    net = hs.nets.MLP(hidden=(60,), norm=True)(digits.shape, digits.outputs)
    hs.fit(net, digits, hs.GradientDescent(), sweeps=10, progress=False)
    smaller = hs.prune_units(net, digits, 0.5)
    quiet = smaller(rows(digits)).argmax(dim=1)
    smaller.train()
    assert (smaller(rows(digits)).argmax(dim=1) == quiet).float().mean() > 0.99
    hs.fit(smaller, digits, hs.GradientDescent(), sweeps=5, progress=False)
    assert hs.score(smaller, digits.train) > 0.95


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (0.0, r"share of units in \(0, 1\].*got 0"),
        (1.5, r"got 1.5"),
        ([5], r"for each hidden layer of \[80, 60\], got \[5\]"),
        ([5, 61], r"got \[5, 61\]"),
        ([0, 5], r"got \[0, 5\]"),
    ],
)
def test_shares_and_numbers_out_of_range_are_named(
    trained: nn.Sequential, digits: hs.data.Data, keep: float | Sequence[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        hs.prune_units(trained, digits, keep)


def test_other_bad_input_is_named(trained: nn.Sequential, digits: hs.data.Data) -> None:
    with pytest.raises(ValueError, match="ridge must be positive and finite, got 0"):
        hs.prune_units(trained, digits, 0.5, ridge=0.0)
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        hs.prune_units(trained, digits, 0.5, rows=0)
    with pytest.raises(ValueError, match="stages and steps must be at least 1, got 0 and 20"):
        hs.ColumnsL20(stages=0)
    with pytest.raises(ValueError, match="prune_units takes chains"):
        hs.prune_units(hs.nets.convnet4((1, 8, 8), 10), digits, 0.5)
