"""Relaxed variable splitting: what the network holds, its scale, its zeros."""

from __future__ import annotations

from dataclasses import replace
from math import erf, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hardstep as hs
from hardstep.fit import Method, Work
from hardstep.methods.splitting import relative_prox
from hardstep.parts import batches
from hardstep.penalties import Penalty
from hardstep.ranks import launched_fabric

MODES = [
    hs.Splitting(penalty=hs.Cardinality(0.1), sparse_forward=False, rho=0.05),
    hs.Splitting(penalty=hs.Cardinality(0.1), rho=0.02),
    hs.Splitting(penalty=hs.Cardinality(0.1)),
]


def net_of(data: hs.data.Data, *, norm: bool = True) -> nn.Sequential:
    return hs.nets.MLP(hidden=(64, 48), norm=norm)(data.shape, data.outputs)


def trained(data: hs.data.Data, method: Method[Any], sweeps: int = 6, *, norm: bool = True) -> nn.Sequential:
    net = net_of(data, norm=norm)
    hs.fit(net, data, method, sweeps=sweeps, progress=False)
    return net


def gaussian(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sparse_forward", [False, True])
def test_without_penalty_and_normalisation_it_is_its_base_bit_for_bit(
    digits: hs.data.Data, *, sparse_forward: bool
) -> None:
    method = hs.Splitting(
        penalty=hs.L0(0.0), sparse_forward=sparse_forward, freeze_support=0.0, ramp=0.0, normalise=False
    )
    split, base = trained(digits, method, 3), trained(digits, hs.GradientDescent(), 3)
    for (name, one), other in zip(split.state_dict().items(), base.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("penalty", [hs.L0.at(1.0), hs.L1.at(0.7), hs.TransformedL1.at(1.0), hs.Cardinality(0.2)])
def test_relative_prox_commutes_with_the_scale_of_a_row(penalty: Penalty) -> None:
    w = gaussian(20, 30)
    u = relative_prox(penalty, w)
    assert 0 < int((u == 0).sum()) < u.numel()
    rows = 2.0 ** torch.randint(-9, 9, (20, 1), generator=torch.Generator().manual_seed(1))
    assert torch.equal(relative_prox(penalty, rows * w), rows * u)
    torch.testing.assert_close(relative_prox(penalty, 3.7 * w), 3.7 * u, rtol=1e-5, atol=1e-6)


def test_relative_prox_leaves_the_bits_of_what_it_keeps_and_survives_a_row_of_zeros() -> None:
    w = gaussian(20, 30)
    w[3] = 0
    u = relative_prox(hs.L0.at(1.0), w)
    assert torch.equal(u[u != 0], w[u != 0])
    assert not u[3].any()


@pytest.mark.parametrize("norm", [False, True])
def test_rows_of_unit_norm_leave_every_step_as_it_was(digits: hs.data.Data, *, norm: bool) -> None:
    net = trained(digits, hs.GradientDescent(), 2, norm=norm)
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.Linear):
                module.weight.mul_(torch.linspace(0.1, 3, len(module.weight))[:, None])
    x, _ = next(batches(digits.train, [torch.arange(500)]))
    first = hs.GradientDescent(optimiser=hs.Adam(lr=0.0))
    net.eval()
    pre, after = net[:3] if norm else net[:2], net[:4] if norm else net[:3]
    before, bits = pre(x), after(x)
    hs.Splitting(penalty=hs.L0(0.0), base=first).init(net, Work(digits, launched_fabric(), 0, 1))
    net.eval()
    torch.testing.assert_close(net[1].weight.norm(dim=1), torch.ones(64))
    clear = before.abs() > 1e-4
    assert clear.float().mean() > 0.99
    assert torch.equal(after(x)[clear], bits[clear])


@pytest.mark.parametrize("method", MODES, ids=["gradient at w", "gradient at u, pull", "gradient at u"])
def test_network_holds_the_prox_of_the_dense_weights_then_a_fixed_support(
    method: hs.Splitting, digits: hs.data.Data
) -> None:
    net, work = net_of(digits), Work(digits, launched_fabric(), 0, 6)
    state = method.init(net, work)
    support = {}
    for sweep in range(6):
        work.sweep = sweep
        done = method.sweep(state, work)
        assert done.admissible  # the ramp is a fifth of four sweeps
        for name, layer in state.layers.items():
            zero = net.get_submodule(name).weight == 0
            assert done.extra[f"sparsity {name}"] == zero.float().mean()
            if sweep < 4:
                eased = method.penalty.eased(min(1.0, (sweep + 1) / 4 / 0.2))
                assert torch.equal(net.get_submodule(name).weight, relative_prox(eased, layer.dense))
                support[name] = zero
            else:
                assert torch.equal(zero, support[name])
                assert round(0.1 * zero.numel()) == int((~zero).sum())


def test_freezing_keeps_every_zero(digits: hs.data.Data) -> None:
    net = trained(digits, hs.Splitting(penalty=hs.Cardinality(0.2)))
    hard = hs.freeze(net, calibrate=digits.train)
    maps = [layer for layer in hard.layers if hasattr(layer, "weight")]
    linear = [module for module in net if isinstance(module, nn.Linear)]
    for one, module in zip(maps[:-1], linear[:-1], strict=True):
        assert (one.weight[(module.weight == 0).numpy()] == 0).all()


@pytest.mark.parametrize("threshold", [0.5, 1.0, 1.5, 2.0])
def test_sparsity_of_gaussian_weights_stays_what_their_distribution_says(
    threshold: float, digits: hs.data.Data
) -> None:
    net = net_of(digits)
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.Linear):
                module.weight.copy_(0.1 * gaussian(*module.weight.shape))
    method = hs.Splitting(penalty=hs.L0.at(threshold), ramp=0.0, base=hs.GradientDescent(optimiser=hs.Adam(1e-4)))
    report = hs.fit(net, digits, method, sweeps=2, progress=False)
    assert report.records[-1].extra["sparsity"] == pytest.approx(erf(threshold / sqrt(2)), abs=0.015)


def test_groups_leave_units_that_simplify_deletes(digits: hs.data.Data) -> None:
    method = hs.Splitting(penalty=hs.Grouped(hs.Cardinality(0.5), hs.Columns()), layers=("4", "7"))
    net = trained(digits, method, 6)
    assert [int(net[i].weight.any(dim=0).sum()) for i in (1, 4, 7)] == [64, 32, 24]
    hard = hs.freeze(net, calibrate=digits.train)
    x = digits.train.take(list(range(300)))[0].numpy()
    small = hs.simplify(hard)
    assert (small.layers[1].weight.shape[0], small.layers[2].weight.shape[0]) == (32, 24)
    assert (small(x) == hard(x)).all()
    assert small.nbytes < hard.nbytes


def test_dense_copy_is_scored_beside_the_network(digits: hs.data.Data) -> None:
    net = net_of(digits)
    report = hs.fit(net, digits, replace(MODES[0], ramp=0.5), sweeps=6, progress=False)
    assert all("score_dense" in record.extra for record in report.records[:4])
    assert report.records[report.best].admissible
    assert report.records[0].rank < report.records[1].rank


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: hs.Splitting(rho=-0.1), r"rho is the share .* got -0\.1"),
        (lambda: hs.Splitting(ramp=1.5), r"ramp is a share .* got 1\.5"),
        (lambda: hs.Splitting(freeze_support=1.0), r"freeze_support is a share .* got 1\.0"),
    ],
)
def test_bad_numbers_are_named(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_layer_that_is_not_there_is_named_with_those_that_are(digits: hs.data.Data) -> None:
    with pytest.raises(ValueError, match=r"no layer 'hidden' with weights; it has 1, 4, 7"):
        trained(digits, hs.Splitting(layers=("1", "hidden")))


@pytest.mark.parametrize("penalty", [hs.L0.at(99.0), hs.Grouped(hs.L1(9.0), hs.Columns())])
def test_penalty_that_kills_a_layer_is_named(penalty: Penalty, digits: hs.data.Data) -> None:
    with pytest.raises(ValueError, match=r"sets all 4,096 weights of layer '1' to 0.* lower the threshold"):
        trained(digits, hs.Splitting(penalty=penalty))
