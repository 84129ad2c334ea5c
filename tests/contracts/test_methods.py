"""What every method promises."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hardstep as hs
from hardstep import checkpoint
from hardstep.fit import Method, Work
from hardstep.ranks import launched_fabric

from .test_rules import concrete

METHODS = [
    hs.GradientDescent(batch_size=64),
    hs.GradientDescent(
        rule=hs.ReSTE(), loss=hs.SquaredHinge(), penalty=hs.L1(1e-5), optimiser=hs.SGD(lr=0.02), schedule=hs.Drops()
    ),
    hs.GradientDescent(batch_size=64, memory=hs.Packed()),
    hs.GradientDescent(batch_size=64, memory=hs.Recomputed()),
    hs.RandomFeatures(),
    hs.RandomFeatures(loss=hs.Squared(), batch_size=100),
    hs.BCD(rho=1.0),
    hs.BCD(margin=0.3, penalty=hs.Grouped(hs.L0(1e-5), hs.Columns())),
    hs.MarginBCD(),
    hs.MarginBCD(aim=hs.Flips(), fits=hs.Fits(ridge=0.1, lr=0.4)),
    hs.MarginBCD(loss=hs.SquaredHinge(), growth=0.5, batch_size=300),
    hs.ConvexTraining(correction=hs.Ridge(1e-3)),
    hs.ConvexTraining(
        loss=hs.Squared(), correction=hs.GroupLasso(0.01), oracle=hs.BatchedAscent(scaling=0.5), slide=hs.Sliding(0.0)
    ),
    hs.ConvexTraining(loss=hs.SquaredHinge(), columns=40),
    hs.Splitting(),
    hs.Splitting(penalty=hs.TransformedL1.at(1.0), sparse_forward=False, rho=0.05),
    hs.MagnitudePruning(0.5, base=hs.GradientDescent(batch_size=64)),
    hs.MagnitudePruning(0.7, rewind=True, scope=hs.LayerWise(), base=hs.GradientDescent(batch_size=64)),
    hs.MagnitudePruning(0.5, activate=hs.Activate(sides=hs.TwoSided(2)), base=hs.GradientDescent(batch_size=64)),
    hs.MagnitudePruning(0.5, rewind=True, activate=hs.Activate(share=0.3), base=hs.GradientDescent(batch_size=64)),
    hs.TargetProp(),
    hs.TargetProp(inner=2, momentum=0.5, search=hs.FlipSearch(flips=2, trust=0.5)),
    hs.ExactTargetProp(refit=hs.Descents(steps=20), proposals=5),
]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: repr(method)[:60])


def train(method: Method[Any], data: hs.data.Data, sweeps: int = 5, **options: Any) -> tuple[nn.Module, hs.Report]:
    net = hs.nets.MLP(hidden=(256, 128))(data.shape, data.outputs)
    return net, hs.fit(net, data, method, sweeps=sweeps, progress=False, **options)


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(name == other and torch.equal(x, y) for (name, x), (other, y) in pairs)


AUGMENTED = hs.GradientDescent(batch_size=64), hs.data.load("digits", augment=hs.Augment(crop=1, mirror=True))


def test_every_subclass_is_listed() -> None:
    assert concrete(Method) == {type(method) for method in METHODS}


@every_method
def test_repr_makes_the_method_again(method: Method[Any]) -> None:
    assert eval(repr(method), {name: getattr(hs, name) for name in hs.__all__}) == method


@every_method
def test_learns_the_digits_and_the_network_is_the_answer(method: Method[Any], digits: hs.data.Data) -> None:
    net, report = train(method, digits)
    assert report.score is not None and report.score >= 0.75
    assert digits.val is not None
    assert hs.score(net, digits.val) == report.score
    assert report.records[report.best].rank == max(record.rank for record in report.records)


@every_method
def test_objective_of_a_monotone_method_never_rises(method: Method[Any], digits: hs.data.Data) -> None:
    _, report = train(method, digits, sweeps=8)
    objectives = [record.objective for record in report.records]
    rises = [later - earlier for earlier, later in pairwise(objectives)]
    assert objectives[-1] < objectives[0] or len(objectives) <= 2
    if method.monotone:
        assert max(rises, default=0.0) <= 1e-9


@every_method
def test_same_seed_gives_the_same_bits_whatever_the_callers_generator(
    method: Method[Any], digits: hs.data.Data
) -> None:
    torch.manual_seed(1)
    first, _ = train(method, digits, sweeps=2)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    second, _ = train(method, digits, sweeps=2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert same(first, second)
    third, _ = train(method, digits, sweeps=2, seed=1)
    assert not same(first, third)


@every_method
def test_resumed_fit_ends_in_the_bits_of_an_unbroken_one(
    method: Method[Any], digits: hs.data.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, report = train(method, digits, sweeps=4)
    written = []

    def killed(*arguments: Any) -> None:
        written.append(checkpoint.save_tree(*arguments))
        if len(written) == min(2, len(report.records) - 1):
            raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["hardstep.fit"], "save_tree", killed)
    with pytest.raises(KeyboardInterrupt):
        train(method, digits, sweeps=4, folder=tmp_path)
    monkeypatch.undo()
    resumed, again = train(method, digits, sweeps=4, folder=tmp_path)
    assert same(whole, resumed)
    assert [record.objective for record in again.records] == [record.objective for record in report.records]
    assert again.stopped == report.stopped
    # a finished fit is not run again
    finished, _ = train(method, digits, sweeps=4, folder=tmp_path)
    assert same(whole, finished)


@every_method
def test_incremental_method_starts_from_the_weights_that_it_finds(method: Method[Any], digits: hs.data.Data) -> None:
    if not method.incremental:
        return
    net = hs.nets.MLP(hidden=(256, 128))(digits.shape, digits.outputs)
    found = copy.deepcopy(net)
    method.init(net, Work(digits, launched_fabric(), 0, 1))
    assert same(net, found)


@every_method
def test_method_trains_on_images_that_change_or_refuses_them(method: Method[Any], digits: hs.data.Data) -> None:
    changed = replace(digits, augment=hs.Augment(crop=1))
    if method.augments:
        assert not same(train(method, digits, sweeps=2)[0], train(method, changed, sweeps=2)[0])
    else:
        with pytest.raises(ValueError, match=f"{type(method).__name__} needs the same training rows in every sweep"):
            train(method, changed, sweeps=2)


def planted_steps() -> hs.data.Data:
    x = torch.rand(600, 4, generator=torch.Generator().manual_seed(0))
    return hs.data.from_arrays(x, (x[:, :2] > 0.5).float() - 0.5 * (x[:, 2:] > 0.3).float(), name="planted steps")


REGRESSION = [
    hs.GradientDescent(loss=hs.Squared()),
    hs.RandomFeatures(loss=hs.Squared()),
    hs.MarginBCD(loss=hs.Squared()),
    hs.ConvexTraining(loss=hs.Squared(), correction=hs.GroupLasso(0.01)),
]


@pytest.mark.parametrize("method", REGRESSION)
def test_regression_reaches_a_planted_step_function(method: Method[Any]) -> None:
    _, report = train(method, planted_steps(), sweeps=30)
    assert report.score is not None and report.score > 0.5


@pytest.mark.parametrize("method", [hs.GradientDescent(), hs.RandomFeatures(), hs.MarginBCD(), hs.ConvexTraining()])
def test_classification_loss_on_number_targets_is_refused(method: Method[Any]) -> None:
    with pytest.raises(ValueError, match=r"takes integer labels, got y of torch.float\d\d; for number targets use"):
        train(method, planted_steps())


@every_method
def test_network_without_a_step_is_refused(method: Method[Any], digits: hs.data.Data) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    with pytest.raises(ValueError, match=r"the network has no step: put hardstep\.Step"):
        hs.fit(net, digits, method, progress=False)


@pytest.fixture(scope="module")
def on_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, str]]:
    """Run all methods on one rank and on two; where the weights are, and what was said if a fit failed."""
    script = Path(__file__).with_name("ranks_script.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    found = {}
    for ranks in (1, 2):
        folder = tmp_path_factory.mktemp(f"ranks{ranks}")
        command = [*launcher, str(ranks), str(script), str(folder)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        found[ranks] = folder, result.stderr[-3000:] if result.returncode else ""
    return found


@pytest.mark.parametrize("index", range(len(METHODS) + 1))
def test_two_ranks_give_the_weights_of_one(index: int, on_ranks: dict[int, tuple[Path, str]]) -> None:
    for folder, said in on_ranks.values():
        assert (folder / f"{index}.pt").is_file(), said
    one, two = (torch.load(folder / f"{index}.pt", weights_only=True) for folder, _ in on_ranks.values())
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-7, atol=1e-8, msg=lambda text, n=name: f"{n}: {text}")
