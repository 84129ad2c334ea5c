"""Block coordinate descent: what falls, what is bounded, what is handed over, and the odd data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hardstep as hs
from hardstep.chain import chain, with_ones
from hardstep.closed_form import margin_residual
from hardstep.fit import Method, Work
from hardstep.methods import aims, bcd, margin_bcd
from hardstep.ranks import launched_fabric


def work_on(data: hs.data.Data, sweeps: int = 10) -> Work:
    return Work(data, launched_fabric(), seed=0, sweeps=sweeps)


def made(rows: int = 120, classes: int = 3, seed: int = 0) -> hs.data.Data:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 6)).astype(np.float32)
    y = (x @ generator.normal(size=(6, classes))).argmax(axis=1)
    return hs.data.from_arrays(x, y, name="made", val_share=0.0, test_share=0.1)


@pytest.mark.parametrize("hidden", [(9,), (9, 7), (9, 7, 5)])
@pytest.mark.parametrize(
    "method",
    [
        hs.BCD(),
        hs.BCD(rho=1.0, gamma=0.3),
        hs.BCD(margin=0.5),
        hs.BCD(penalty=hs.Grouped(hs.L0(1e-3), hs.Columns())),
        hs.BCD(penalty=hs.L1(1e-2)),
    ],
    ids=repr,
)
def test_objective_recomputed_after_every_block_never_rises(
    method: hs.BCD, hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made()
    net = hs.nets.MLP(hidden=hidden)(data.shape, data.outputs).double()
    state = method.init(net, work_on(data))
    values: list[float] = []

    def watched(function: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            values.append(method.objective(state))  # before each block, so after the one before it
            return function(*arguments, **options)

        return run

    for name in ("relaxed_bits", "step_prox", "ridge", "proximal_ridge"):
        monkeypatch.setattr(bcd, name, watched(getattr(bcd, name)))
    method.sweep(state, work_on(data))
    values.clear()  # the start need not keep the margin
    for _ in range(6):
        method.sweep(state, work_on(data))
    assert len(values) > 6 * 3 * len(hidden)
    rises = np.diff(values) / np.abs(values[:-1])
    assert rises.max() <= 1e-10
    assert values[-1] < values[0]


def test_degenerate_optimum_is_tiny_and_worthless_and_the_report_shows_both() -> None:
    data, method = made(classes=3), hs.BCD(ridge_out=1e-9)
    net = hs.nets.MLP(hidden=(3,))(data.shape, data.outputs).double()
    state = method.init(net, work_on(data))
    state.weights[0].zero_()
    state.pres[0] = torch.zeros_like(state.pres[0])
    state.bits[0] = state.relaxed[0] = state.target.clone()
    state.weights[-1] = with_ones(torch.eye(3, dtype=torch.float64))
    state.weights[-1][:, -1] = 0
    assert method.objective(state) < 1e-6
    extra = method._write(state)
    assert extra["relaxed_accuracy"] == 1.0
    assert extra["train_accuracy"] == pytest.approx(float(state.target.mean(dim=0).max()))
    assert extra["agreement"] < 0.7
    assert extra["alive"] == 0


def test_inconsistent_bits_and_errors_of_the_true_network_are_bounded_by_the_hinges() -> None:
    generator = torch.Generator().manual_seed(0)
    for case in range(200):
        margin = 0.2 + 0.8 * (case % 5) / 4
        widths, a = (6, 5), with_ones(torch.randn(40, 4, generator=generator, dtype=torch.float64))
        true = chosen = a
        slack = 0.0
        for width in widths:
            weights = torch.randn(width, chosen.shape[1], generator=generator, dtype=torch.float64)
            pre = chosen @ weights.T
            right = torch.rand(pre.shape, generator=generator) < 0.97
            bits = torch.where(right, (pre > 0).double(), (pre <= 0).double())
            hinge = 0.5 * margin_residual(pre, bits, margin).square().sum()
            missed = int((bits != (pre > 0)).sum())
            assert missed <= float(2 * hinge / margin**2) + 1e-9
            slack += float(2 * hinge / margin**2)
            chosen, true = with_ones(bits), with_ones((true @ weights.T > 0).double())
        readout = torch.randn(3, chosen.shape[1], generator=generator, dtype=torch.float64)
        y = (chosen @ readout.T).argmax(dim=1)
        assert int(((true @ readout.T).argmax(dim=1) != y).sum()) <= slack + 1e-9


def score(net: nn.Module, data: hs.data.Data) -> float:
    return hs.score(net, data.train)


@pytest.mark.parametrize("norm", [False, True])
def test_methods_hand_over_to_each_other_without_losing_what_was_learnt(digits: hs.data.Data, norm: bool) -> None:
    net = hs.nets.MLP(hidden=(60, 40), norm=norm)(digits.shape, digits.outputs)
    hs.fit(net, digits, hs.GradientDescent(), sweeps=15, progress=False)
    learnt = score(net, digits)
    warm = hs.MarginBCD(warm=True)
    warm.init(net, work_on(digits))
    assert score(net, digits) == pytest.approx(learnt, abs=2e-3)  # rescaled, up to rounding the same network
    hs.fit(net, digits, replace(warm, fits=hs.Fits(lr=0.1)), sweeps=10, progress=False)
    better = score(net, digits)
    assert better >= learnt
    hs.fit(net, digits, hs.GradientDescent(optimiser=hs.Adam(lr=1e-5)), sweeps=1, progress=False)
    assert score(net, digits) >= better - 0.02


def test_margin_bcd_beats_the_plain_method_and_reaches_its_bar(digits: hs.data.Data) -> None:
    reached = {}
    for method in (hs.BCD(rho=1.0), hs.MarginBCD()):
        net = hs.nets.MLP(hidden=(50, 50), norm=False)(digits.shape, digits.outputs)
        reached[type(method)] = hs.fit(net, digits, method, sweeps=30, progress=False).score or 0.0
    assert reached[hs.MarginBCD] >= 0.93
    assert reached[hs.MarginBCD] > reached[hs.BCD] + 0.1


def test_growing_layers_hand_the_bits_below_on(digits: hs.data.Data) -> None:
    method = hs.MarginBCD()
    for hidden in ((30, 30), (30, 70), (30, 12)):
        net = hs.nets.MLP(hidden=hidden, norm=False)(digits.shape, digits.outputs)
        state = method.init(net, work_on(digits))
        x = digits.train.x[:200].float() / 16
        bits = (with_ones(x.flatten(1)) @ state.weights[0].T > 0).float()
        above = net[:5](x)
        if hidden[1] >= 30:
            torch.testing.assert_close(above[:, :30], bits)
            torch.testing.assert_close(net(x), with_ones(bits) @ state.weights[-1].T, rtol=1e-4, atol=1e-4)
        else:  # the most used ones, in order
            kept = state.weights[-1][:, :-1].square().sum(dim=0).argsort(descending=True)[:12].sort().values
            torch.testing.assert_close(above, bits[:, kept])


BOTH: list[Method[Any]] = [hs.BCD(), hs.MarginBCD()]


@pytest.mark.parametrize("method", BOTH, ids=repr)
def test_odd_data_train_without_a_crash(method: Method[Any]) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 5)).astype(np.float32)
    x[:, 3] = 1.0  # a constant column
    x[20:40] = x[:20]  # duplicates, with contradicting labels
    y = np.arange(60) % 2
    data = hs.data.from_arrays(x, y, name="odd", val_share=0.0, test_share=0.1)
    net = hs.nets.MLP(hidden=(200, 80), norm=False)(data.shape, data.outputs)  # more units than rows
    report = hs.fit(net, data, method, sweeps=6, progress=False)
    assert all(np.isfinite(record.objective) for record in report.records)
    assert all(bool(value.isfinite().all()) for value in net.state_dict().values())
    assert score(net, data) >= 0.5


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (hs.BCD, {"gamma": 0.0}, "gamma must be positive and finite, got 0"),
        (hs.BCD, {"margin": -1.0}, "margin must be at least 0"),
        (hs.Flips, {"price": -1.0}, "price of Flips must be positive and finite, got -1"),
        (hs.Fits, {"ridge": 0.0}, "ridge must be positive and finite, got 0"),
        (hs.Fits, {"lr": 2.0}, r"lr is the length of a step and lies in \(0, 2\), got 2"),
        (hs.Fits, {"momentum": 1.0}, r"momentum lies in \[0, 1\), got 1"),
        (hs.Ramp, {"margin": 0.0}, "margin of Ramp must be positive and finite, got 0"),
        (hs.MarginBCD, {"growth": 1.5}, r"in \[0, 1\], got 1.5"),
        (hs.MarginBCD, {"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_hyperparameters_out_of_range_are_named(method: type, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**options)


def test_permuting_rows_changes_the_plain_method_by_rounding_only() -> None:
    data = made()
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(3))

    def weights(rows: Tensor) -> Tensor:
        net = hs.nets.MLP(hidden=(8,), norm=False)(data.shape, data.outputs).double()
        shuffled = replace(data, train=replace(data.train, x=data.train.x[rows], y=data.train.y[rows]))
        hs.fit(net, shuffled, hs.BCD(warm=True), sweeps=3, progress=False)
        return chain(net, "this test")[0].read()

    torch.testing.assert_close(weights(order), weights(torch.arange(len(order))), rtol=1e-8, atol=1e-10)


def test_layers_that_stay_must_be_the_lowest_ones_and_do_stay() -> None:
    data = made()
    for warm in (False, True):
        net = hs.nets.MLP(hidden=(9, 7, 5), norm=False)(data.shape, data.outputs)
        layers = chain(net, "this test")
        for layer in layers[:2]:
            layer.linear.requires_grad_(False)
        before = [nn.functional.normalize(layer.read()) for layer in layers]
        hs.fit(net, data, hs.MarginBCD(warm=warm), sweeps=4, progress=False)
        after = [nn.functional.normalize(layer.read()) for layer in layers]
        for i in (0, 1):
            torch.testing.assert_close(after[i], before[i])
        assert not torch.allclose(after[2], before[2], atol=1e-2)
        layers[2].linear.requires_grad_(False)  # only the read-out is left
        fixed = layers[2].read()
        report = hs.fit(net, data, hs.MarginBCD(warm=warm), sweeps=4, progress=False)
        torch.testing.assert_close(layers[2].read(), fixed, rtol=1e-4, atol=1e-4)
        assert report.records[-1].objective <= report.records[0].objective + 1e-3
        layers[0].linear.requires_grad_(True)
        with pytest.raises(ValueError, match=r"must be the lowest ones.*of 4 linear layers these are free: \[0, 3\]"):
            hs.fit(net, data, hs.MarginBCD(warm=warm), sweeps=1, progress=False)


@pytest.mark.parametrize(
    ("method", "module", "name", "calls"),
    [
        (hs.MarginBCD(aim=hs.Flips(), batch_size=30), aims, "margin_residual", 7),
        (hs.MarginBCD(batch_size=30), margin_bcd, "unit_scale", 12),
        (hs.BCD(), bcd, "step_prox", 3),
        (hs.BCD(penalty=hs.Grouped(hs.L0(1e-4), hs.Columns())), bcd, "step_prox", 3),
    ],
    ids=["MarginBCD with flips", "MarginBCD", "BCD", "BCD with a penalty"],
)
def test_nan_in_the_middle_of_a_sweep_stops_with_the_reason_and_the_last_good_network_stays(
    method: Method[Any], module: Any, name: str, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made()
    good, bad = (hs.nets.MLP(hidden=(9,), norm=False)(data.shape, data.outputs) for _ in range(2))
    original, count = getattr(module, name), 0
    hs.fit(good, data, method, sweeps=6, folder=tmp_path / "good", progress=False)

    def poisoned(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        result = original(*arguments, **options)
        if count >= calls:
            (result if isinstance(result, Tensor) else result[0]).view(-1)[0] = float("nan")
        return result

    monkeypatch.setattr(module, name, poisoned)
    with pytest.raises((FloatingPointError, torch.linalg.LinAlgError)) as caught:
        hs.fit(bad, data, method, sweeps=6, folder=tmp_path / "bad", progress=False)
    assert any("the network is that of sweep" in note for note in caught.value.__notes__)
    assert all(bool(value.isfinite().all()) for value in bad.state_dict().values())
    assert score(bad, data) > 0.4
    monkeypatch.setattr(module, name, original)  # the checkpoint is from before: the run goes on to the same end
    hs.fit(bad, data, method, sweeps=6, folder=tmp_path / "bad", progress=False)
    for one, two in zip(good.state_dict().values(), bad.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_ramp_pulls_where_clipped_straight_through_would() -> None:
    generator = torch.Generator().manual_seed(0)
    net = hs.nets.MLP(hidden=(9, 7), norm=False, activation=hs.Step(hs.Clipped(0.5)))((4,), 3).double()
    x = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (50,), generator=generator)
    pres: list[Tensor] = []
    for layer in net:
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda _module, _inputs, out: pres.append(out))
    out = net(x)
    loss = hs.CrossEntropy()
    slopes = torch.autograd.grad(loss.value(out, y).sum(), pres[:2])
    weights = [layer.read() for layer in chain(net, "this test")]
    seen = aims.Seen(pres[:2], weights, out, y, loss, work_on(made()), generator)
    with torch.no_grad():
        pulls = hs.Ramp(0.5).pulls(seen, [1, 0])
    for i in (0, 1):
        pull, size = pulls[i]
        assert 0.05 < float((pull != 0).double().mean()) < 0.95
        torch.testing.assert_close(
            nn.functional.normalize(pull.flatten(), dim=0), nn.functional.normalize(-slopes[i].flatten(), dim=0)
        )
        torch.testing.assert_close(size, pull.abs().sum(dim=0))
