"""Networks read and written as chains of matrices."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hardstep as hs
from hardstep.chain import chain, with_ones


def trained(norm: bool) -> nn.Sequential:
    data = hs.data.load("digits")
    net = hs.nets.MLP(hidden=(40, 30), norm=norm)(data.shape, data.outputs)
    hs.fit(net, data, hs.GradientDescent(), sweeps=1, progress=False)
    return net


@pytest.mark.parametrize("norm", [False, True])
def test_matrices_give_the_outputs_of_the_network(norm: bool) -> None:
    net = trained(norm).double().eval()
    x = torch.rand(300, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layers = chain(net, "this test")
    a = with_ones(x)
    for layer in layers[:-1]:
        a = with_ones((a @ layer.read().T > 0).double())
    torch.testing.assert_close(a @ layers[-1].read().T, net(x.reshape(300, 1, 8, 8)))


@pytest.mark.parametrize("norm", [False, True])
def test_what_is_written_is_read_again(norm: bool) -> None:
    for layer in chain(trained(norm).double(), "this test"):
        matrix = torch.randn_like(layer.read())
        layer.write(matrix)
        torch.testing.assert_close(layer.read(), matrix)
        layer.write(matrix, torch.eye(matrix.shape[1], dtype=torch.float64) + 1)
        torch.testing.assert_close(layer.read(), matrix)


def test_written_normalisation_acts_alike_in_training_mode() -> None:
    net = hs.nets.mlp(5, 7, 3).double()
    x = torch.rand(1000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer = chain(net, "this test")[0]
    a = with_ones(x)
    matrix = torch.randn(7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layer.write(matrix, a.T @ a / len(a))
    assert layer.norm is not None
    layer.norm.train()
    torch.testing.assert_close(layer.norm(layer.linear(x)), a @ matrix.T)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Conv2d(1, 4, 3), hs.Step(), nn.Linear(4, 2)], r"layer '0' is Conv2d"),
        ([nn.Linear(4, 4), hs.Sign(), nn.Linear(4, 2)], r"layer '1' is Sign"),
        ([nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)], r"layer '1' is ReLU"),
        ([nn.Linear(4, 4), nn.Linear(4, 4), hs.Step(), nn.Linear(4, 2)], r"layer '1' is Linear"),
        ([nn.Linear(4, 4), hs.Step()], r"a Linear as the last layer"),
        ([nn.Linear(4, 2)], r"at least one step"),
        ([nn.Linear(4, 4, bias=False), hs.Step(), nn.Linear(4, 2)], r"needs a bias in every layer"),
    ],
)
def test_networks_of_another_form_are_refused_by_name(layers: list[nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chain(nn.Sequential(*layers), "BCD")
