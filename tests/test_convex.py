"""Convex training: column generation against the whole program, degenerate inputs, depth, and what is called proved."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

import hardstep as hs
from hardstep.convex.bit_matrix import BitMatrix
from hardstep.convex.data_terms import Squared
from hardstep.convex.margins import widened
from hardstep.convex.oracle_plane import PlaneSweep
from hardstep.convex.oracle_stumps import Stumps
from hardstep.convex.oracle_vertices import Enumeration
from hardstep.convex.patterns import patterns
from hardstep.convex.pool import Pool
from hardstep.convex.solvers import solve
from hardstep.methods.convex_parts import data_term

from .half_spaces import separable


def problem(x: np.ndarray, y: np.ndarray) -> hs.data.Data:
    targets = torch.from_numpy(y).float() if y.dtype.kind == "f" else torch.from_numpy(y)
    outputs = targets.shape[1] if y.dtype.kind == "f" else int(targets.max()) + 1
    rows = torch.utils.data.TensorDataset(torch.from_numpy(x).float(), targets)
    return hs.data.from_parts(rows, outputs=outputs)


def fit(
    data: hs.data.Data,
    beta: float,
    *,
    relative: bool = False,
    units: tuple[int, ...] = (60,),
    sweeps: int = 30,
    **options: object,
) -> tuple[nn.Sequential, hs.Report]:
    net = hs.nets.mlp(data.train.shape[0], *units, data.outputs, norm=False)
    settings: dict[str, object] = {"loss": hs.Squared(), "tol": 1e-7, "slide": hs.Sliding(0.0), **options}
    method = hs.ConvexTraining(correction=hs.GroupLasso(beta, relative=relative), **settings)
    return net, hs.fit(net, data, method, sweeps=sweeps, progress=False)


def rows(seed: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32).astype(np.float64)


def outputs(net: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return net(torch.from_numpy(x).float()).double().numpy()


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_column_generation_equals_the_program_over_all_half_spaces(seed: int, d: int) -> None:
    x, y = rows(seed, 8, d), rows(seed + 10, 8, 1)
    design = BitMatrix.from_bools(np.ascontiguousarray(separable(x).T.astype(bool)))
    best = solve(design, y, Squared(), 0.3, tol=1e-10).objective
    oracle = {1: Stumps(), 2: PlaneSweep(), 3: Enumeration()}[d]
    net, report = fit(problem(x, y), 0.3, oracle=oracle)
    assert report.stopped.startswith("proved: relative gap")
    assert report.objective == pytest.approx(best, rel=1e-6)
    readout = net[-1].weight.detach().double().numpy()
    value = 0.5 * np.square(outputs(net, x) - y).sum() + 0.3 * np.abs(readout).sum()
    assert value == pytest.approx(best, rel=1e-5)  # the network itself, in float32


@pytest.mark.parametrize("loss", [hs.Squared(), hs.SquaredHinge(), hs.CrossEntropy()])
def test_objective_never_rises_bound_never_falls_and_gap_closes(loss: hs.Loss) -> None:
    x = rows(0, 60, 2)
    _, report = fit(problem(x, (x[:, 0] * x[:, 1] > 0).astype(np.int64)), 0.05, relative=True, loss=loss, tol=1e-5)
    assert report.stopped.startswith("proved"), report.stopped
    objectives = [record.objective for record in report.records]
    duals = [record.extra["dual"] for record in report.records]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(objectives))
    assert all(later >= earlier for earlier, later in pairwise(duals))
    assert all(0 <= record.extra["relative_gap"] < np.inf for record in report.records)
    assert duals[-1] <= objectives[-1] * (1 + 1e-12)
    assert report.records[-1].extra["relative_gap"] <= 1e-5


def test_network_is_empty_from_beta_max_on_and_not_below() -> None:
    data = problem(rows(0, 30, 2), rows(1, 30, 1))
    for share, empty in ((1.001, True), (0.99, False)):
        net, report = fit(data, share, relative=True)
        assert (float(net[-1].weight.detach().abs().max()) == 0) == empty
        assert report.stopped.startswith("proved")


DEGENERATE = {
    "one row": (np.ones((1, 2)), np.ones((1, 1))),
    "constant target": (rows(0, 20, 2), np.full((20, 1), 3.0)),
    "zero target": (rows(0, 20, 2), np.zeros((20, 1))),
    "contradictory rows": (np.repeat(rows(0, 5, 2), 4, axis=0), rows(1, 20, 1)),
    "constant feature": (np.c_[rows(0, 20, 1), np.ones(20)], rows(1, 20, 1)),
    "collinear rows": (np.outer(np.arange(12.0), [1.0, 2.0]), rows(1, 12, 1)),
    "grid": (np.stack(np.meshgrid(range(4), range(4)), -1).reshape(-1, 2).astype(float), rows(1, 16, 1)),
    "all rows alike": (np.ones((6, 2)), rows(1, 6, 1)),
    "fewer rows than features": (rows(0, 4, 6), rows(1, 4, 1)),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_data_get_the_optimum(name: str) -> None:
    x, y = DEGENERATE[name]
    net, report = fit(problem(x, y), 0.2)
    assert report.stopped.startswith("proved"), report.stopped
    if name in ("constant target", "zero target", "one row", "all rows alike"):
        assert float(net[-1].weight.detach().abs().max()) == 0
        assert outputs(net, x) == pytest.approx(np.broadcast_to(y.mean(axis=0), y.shape), abs=1e-6)


def test_one_class_is_refused_by_the_data() -> None:
    x = torch.from_numpy(rows(0, 20, 2)).float()
    alike = torch.utils.data.TensorDataset(x, torch.zeros(20, dtype=torch.int64))
    with pytest.raises(ValueError, match="one class only, 0; give at least two"):
        hs.data.from_parts(alike, outputs=2)


def test_bad_settings_name_value_and_remedy() -> None:
    with pytest.raises(ValueError, match=r"beta must be positive and finite, got 0\.0.*choose beta > 0"):
        hs.GroupLasso(0.0)
    with pytest.raises(ValueError, match="columns is a count and must be at least 1, got 0"):
        hs.ConvexTraining(columns=0)
    with pytest.raises(ValueError, match=r"tol is a relative gap, in \(0, 1\), got 0"):
        hs.ConvexTraining(tol=0.0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        problem(np.full((3, 2), np.nan), np.ones((3, 1)))
    with pytest.raises(ValueError, match="length is a share"):
        hs.Sliding(length=1.5)
    with pytest.raises(ValueError, match="steps is a count and must be at least 1, got 0"):
        hs.BatchedAscent(steps=0)


def test_heuristic_oracle_and_ridge_never_say_proved() -> None:
    x = rows(0, 80, 4)
    data = problem(x, (x[:, :1] > 0) + 0.3 * rows(1, 80, 1))
    _, report = fit(data, 0.02, relative=True, oracle=hs.BatchedAscent(), units=(30,), sweeps=6)
    assert "proved" not in report.stopped
    net = hs.nets.mlp(4, 30, 1, norm=False)
    report = hs.fit(net, data, hs.ConvexTraining(loss=hs.Squared(), oracle=Stumps()), sweeps=4, progress=False)
    assert "proved" not in report.stopped


def test_proof_needs_the_networks_own_bits() -> None:
    """Between 1 and the next float32 there is no float32 threshold; in float64 there is."""
    x = np.array([[1.0], [np.nextafter(np.float32(1), np.float32(2))]]).astype(np.float64).repeat(5, axis=0)
    data = problem(x, np.repeat([[0.0], [4.0]], 5, axis=0))
    _, report = fit(data, 0.5)
    assert "the network rounds 5 bits otherwise: no proof" in report.stopped
    method = hs.ConvexTraining(loss=hs.Squared(), correction=hs.GroupLasso(0.5, relative=False), tol=1e-7)
    fabric = Fabric(accelerator="cpu", devices=1, precision="64-true")
    fabric.launch()
    net = hs.nets.mlp(1, 4, 1, norm=False)
    report = hs.fit(net, data, method, sweeps=10, progress=False, fabric=fabric)
    assert report.stopped.startswith("proved")
    assert len(np.unique(net(torch.from_numpy(x)).detach().numpy())) == 2


def test_deeper_layers_begin_where_the_layer_below_ended_and_only_gain() -> None:
    x = rows(0, 40, 2)
    data = problem(x, np.sign(x[:, :1] * x[:, 1:]) + 0.2 * rows(1, 40, 1))
    ascent = hs.BatchedAscent()
    net, report = fit(data, 0.05, relative=True, units=(60, 60), oracle=ascent, columns=20, sweeps=10)
    objectives = [record.objective for record in report.records]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(objectives))
    assert objectives[-1] < 0.99 * objectives[4]  # the second layer's share of 10 sweeps begins at 5
    assert float(np.square(outputs(net, x) - data.train.take(list(range(40)))[1].numpy()).sum()) / 2 <= objectives[-1]


def test_layer_wider_than_needed_keeps_its_other_units_off() -> None:
    net, report = fit(problem(rows(0, 20, 2), rows(1, 20, 1)), 0.3, relative=True, units=(200,))
    used = int(report.records[-1].extra["nonzeros"])
    assert 0 < used < 200
    assert not net[1].weight[used:].any() and not net[-1].weight[:, used:].any()


def test_a_cap_below_the_optimum_is_kept_and_the_objective_still_falls() -> None:
    x, y = rows(0, 60, 2), rows(1, 60, 1)
    _, free = fit(problem(x, y), 0.05, relative=True)
    net, capped = fit(problem(x, y), 0.05, relative=True, units=(6,), columns=20, sweeps=6)
    assert "proved" not in capped.stopped
    assert int((net[-1].weight != 0).sum()) <= 6
    assert free.objective < capped.objective < capped.records[0].objective


def test_sliding_lowers_the_objective_of_a_full_layer(digits: hs.data.Data) -> None:
    settings = {"correction": hs.Ridge(1e-3), "columns": 20}
    reports = []
    for slide in (hs.Sliding(), hs.Sliding(0.0)):
        net = hs.nets.MLP(hidden=(40,), norm=False)(digits.shape, digits.outputs)
        reports.append(hs.fit(net, digits, hs.ConvexTraining(slide=slide, **settings), sweeps=5, progress=False))
    assert reports[0].records[0].objective == reports[1].records[0].objective  # the first round is the same
    assert reports[0].objective < 0.95 * reports[0].records[1].objective
    assert reports[0].objective < reports[1].objective


def test_ridge_of_the_squared_loss_is_the_closed_form() -> None:
    x, y = rows(0, 50, 3), rows(1, 50, 2)
    planes = rows(2, 7, 4)
    bits = patterns(x, planes)
    pool = Pool.empty(rows=50, inputs=3, outputs=2).admit(planes, bits)
    solved = hs.Ridge(0.1, steps=3).solve(pool, y, Squared(), 5.0, 1e-12)
    d = pool.design.unpack() - pool.design.unpack().mean(axis=0)
    wanted = np.linalg.solve(d.T @ d + 5.0 * np.eye(len(pool)), d.T @ (y - y.mean(axis=0)))
    np.testing.assert_allclose(solved.u, wanted, atol=1e-10)
    np.testing.assert_allclose((y - solved.outputs()).mean(axis=0), 0, atol=1e-10)


def test_pool_holds_each_pattern_once_and_forgets_what_is_idle() -> None:
    x = rows(0, 30, 2)
    planes = rows(1, 20, 3)
    pool = Pool.empty(rows=30, inputs=2, outputs=1)
    pool = pool.admit(planes, patterns(x, planes))
    assert len(pool.admit(-planes, ~patterns(x, planes))) == len(pool)
    u = np.zeros((len(pool), 1))
    u[:3] = 1
    pool = pool.solved(u, np.zeros(1))
    for _ in range(3):
        pool = pool.aged(np.zeros(len(pool)), price=1.0, rounds=1)
    assert len(pool) == 6 and pool.active.sum() == 3
    assert len(pool.heaviest(2)) == 2


def test_widened_planes_keep_their_pattern_and_gain_margin() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((200, 2))
    for _ in range(20):
        plane = generator.standard_normal(3)
        bits = patterns(x, plane[None])[:, 0]
        wide = widened(x, plane, bits)
        assert (patterns(x, wide[None])[:, 0] == bits).all()
        if bits.any() and not bits.all():
            least = [np.abs(x @ p[:2] + p[2]).min() / np.abs(p[:2]).max() for p in (wide, plane)]
            assert least[0] >= 0.99 * least[1]


def test_losses_become_their_data_terms() -> None:
    y = torch.tensor([0, 2, 1])
    out = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for loss in (hs.Squared(), hs.SquaredHinge(), hs.CrossEntropy(), hs.CrossEntropy(smoothing=0.2)):
        term, targets = data_term(loss, y, 3)
        assert term.value(out.numpy(), targets) == pytest.approx(float(loss.value(out, y).sum()))
        np.testing.assert_allclose(term.residual(out.numpy(), targets), loss.residual(out, y).numpy(), atol=1e-12)


def test_chosen_half_spaces_beat_as_many_random_ones(digits: hs.data.Data) -> None:
    net = hs.nets.MLP(hidden=(100,), norm=False)(digits.shape, digits.outputs)
    chosen = hs.fit(net, digits, hs.ConvexTraining(correction=hs.Ridge(1e-3), columns=25), sweeps=8, progress=False)
    drawn = hs.fit(net, digits, hs.RandomFeatures(), sweeps=40, progress=False)
    assert chosen.score is not None and drawn.score is not None
    assert chosen.score >= drawn.score + 0.02
