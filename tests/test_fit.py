"""The loop: seeds, best model, early stop, checkpoints, bad input, devices."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hardstep as hs
from hardstep.fit import Method, Sweep, Work
from hardstep.ranks import launched_fabric


@dataclass
class Scripted:
    """A state that plays a list of read-out biases."""

    net: nn.Module
    turn: int = 0

    def state_dict(self) -> dict[str, Any]:
        return {"turn": self.turn}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        self.turn = state_dict["turn"]


@dataclass(frozen=True)
class Script(Method[Scripted]):
    """Answer class 0 with a share of the rows that the script gives, so that the scores are known."""

    labels: tuple[int, ...] = ()
    objectives: tuple[float, ...] = field(default=())
    inadmissible: int = 0  # sweeps at the beginning

    def init(self, net: nn.Module, work: Work) -> Scripted:
        return Scripted(net)

    def sweep(self, state: Scripted, work: Work) -> Sweep:
        readout = state.net[-1]  # type: ignore[index]
        with torch.no_grad():
            readout.weight.zero_()
            readout.bias.zero_()
            readout.bias[self.labels[state.turn]] = 1
        state.turn += 1
        objective = self.objectives[state.turn - 1] if self.objectives else 1.0
        return Sweep(
            objective,
            stop="the script ended" if state.turn == len(self.labels) else "",
            admissible=state.turn > self.inadmissible,
        )


def uneven() -> hs.data.Data:
    """Classes 0, 1, 2 with 20, 40, 80 rows in every hundred and forty."""
    y = np.repeat([0, 1, 2], [40, 80, 160])
    return hs.data.from_arrays(np.random.default_rng(0).random((280, 3), np.float32), y)


def test_best_network_is_kept_and_patience_counts_from_it() -> None:
    net = hs.nets.mlp(3, 4, 3)
    report = hs.fit(net, uneven(), Script((0, 2, 1, 0, 1, 2, 0)), sweeps=9, patience=3, progress=False)
    assert report.stopped == "no better validation score for 3 sweeps"
    assert (len(report.records), report.best) == (5, 1)
    assert net[-1].bias.argmax() == 2


def test_admissible_network_is_kept_before_any_other_and_patience_counts_from_it() -> None:
    net = hs.nets.mlp(3, 4, 3)
    script = Script((2, 2, 2, 2, 0, 1, 0, 0, 2), inadmissible=4)
    report = hs.fit(net, uneven(), script, sweeps=9, patience=2, progress=False)
    assert [record.admissible for record in report.records] == [False] * 4 + [True] * 4
    assert report.best == 5
    assert report.stopped == "no better validation score for 2 sweeps"
    assert net[-1].bias.argmax() == 1


def test_fit_that_ends_before_any_admissible_network_keeps_the_best() -> None:
    report = hs.fit(hs.nets.mlp(3, 4, 3), uneven(), Script((0, 2, 1), inadmissible=9), patience=1, progress=False)
    assert (report.best, report.stopped) == (1, "the script ended")


def test_later_of_equal_networks_is_kept_and_a_method_can_stop() -> None:
    report = hs.fit(hs.nets.mlp(3, 4, 3), uneven(), Script((2, 0, 2)), sweeps=9, progress=False)
    assert report.stopped == "the script ended"
    assert report.best == 2


def test_without_a_validation_part_the_last_network_is_kept() -> None:
    rows = torch.utils.data.TensorDataset(torch.rand(30, 3), torch.arange(30) % 3)
    data = hs.data.from_parts(rows, outputs=3)
    report = hs.fit(hs.nets.mlp(3, 4, 3), data, Script((2, 0, 1)), sweeps=3, progress=False)
    assert report.best == 2
    assert report.score is None


def test_objective_that_is_not_finite_is_an_error_that_says_what_to_do() -> None:
    method = Script((0, 0, 0), objectives=(1.0, float("nan"), 1.0))
    with pytest.raises(FloatingPointError, match=r"became nan in sweep 1 of Script.*lower the learning rate"):
        hs.fit(hs.nets.mlp(3, 4, 3), uneven(), method, sweeps=3, progress=False)


@dataclass(frozen=True)
class Interrupted(Script):
    """Spoil the network in the last sweep of the script and go on, or be interrupted."""

    error: BaseException | None = None

    def sweep(self, state: Scripted, work: Work) -> Sweep:
        done = super().sweep(state, work)
        if done.stop:
            with torch.no_grad():
                state.net[-1].weight.fill_(float("nan"))  # type: ignore[index]
            if self.error is not None:
                raise self.error
        return done


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), RuntimeError("disk gone")], ids=repr)
def test_best_network_is_back_after_any_error_in_a_sweep(error: BaseException | None) -> None:
    net = hs.nets.mlp(3, 4, 3)
    kind = FloatingPointError if error is None else type(error)
    with pytest.raises(kind, match="'4.weight' NaN or infinite in sweep 3" if error is None else None) as caught:
        hs.fit(net, uneven(), Interrupted((0, 2, 1, 0), error=error), sweeps=9, progress=False)
    assert net[-1].bias.argmax() == 2
    assert "the network is that of sweep 1 again" in caught.value.__notes__[0]
    with pytest.raises(kind) as caught:
        hs.fit(net, uneven(), Interrupted((0,), error=error), sweeps=9, progress=False)
    assert "no sweep was done before it" in caught.value.__notes__[-1]


def test_checkpoint_of_another_fit_is_refused(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"sweeps": 2, "progress": False, "folder": tmp_path}
    hs.fit(hs.nets.mlp(3, 4, 3), uneven(), Script((0, 1)), **arguments)
    with pytest.raises(ValueError, match="belongs to another fit: seed was 0, is 1"):
        hs.fit(hs.nets.mlp(3, 4, 3), uneven(), Script((0, 1)), seed=1, **arguments)
    with pytest.raises(ValueError, match="belongs to another fit: net was"):
        hs.fit(hs.nets.mlp(3, 5, 3), uneven(), Script((0, 1)), **arguments)


def test_checkpoint_of_other_images_or_another_precision_is_refused(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"sweeps": 1, "progress": False, "folder": tmp_path}
    data = hs.data.load("digits")
    method = hs.GradientDescent()
    hs.fit(hs.nets.mlp(64, 4, 10), data, method, **arguments)
    changed = replace(data, augment=hs.Augment(crop=1))
    with pytest.raises(ValueError, match=r"another fit: data was 'digits, 1293 .*, is 'digits, Augment\(crop=1"):
        hs.fit(hs.nets.mlp(64, 4, 10), changed, method, **arguments)
    with pytest.raises(ValueError, match="another fit: precision was '32-true', is 'bf16-mixed'"):
        hs.fit(hs.nets.mlp(64, 4, 10), data, method, fabric=launched_fabric("bf16-mixed"), **arguments)


def test_checkpoint_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"sweeps": 2, "progress": False, "folder": tmp_path}
    hs.fit(hs.nets.mlp(3, 4, 3), uneven(), Script((0, 1)), **arguments)
    monkeypatch.setattr("hardstep.report.__version__", "9.9.9")
    with pytest.raises(ValueError, match=r"hardstep was '.*', is '9\.9\.9'"):
        hs.fit(hs.nets.mlp(3, 4, 3), uneven(), Script((0, 1)), **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sweeps": 0}, "sweeps counts sweeps and must be at least 1, got 0"), ({"patience": 0}, "patience .* got 0")],
)
def test_count_out_of_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hs.fit(hs.nets.mlp(3, 4, 3), uneven(), Script((0,)), progress=False, **options)


def test_batch_larger_than_the_data_is_named() -> None:
    method = hs.GradientDescent(batch_size=1000)
    with pytest.raises(
        ValueError, match=r"batch_size=1000 is larger than the data \(201 rows\); choose batch_size <= 201"
    ):
        hs.fit(hs.nets.mlp(3, 4, 3), uneven(), method, progress=False)


def test_batches_cover_every_row_once_and_none_is_a_small_rest() -> None:
    work = Work(uneven(), launched_fabric(), seed=0, sweeps=4, sweep=1)
    batches = list(work.batches(50, shuffle=True))
    assert [len(batch.y) for batch in batches] == [41, 40, 40, 40, 40]
    assert [batch.total for batch in batches] == [41, 40, 40, 40, 40]
    rows = torch.cat([batch.x for batch in batches])
    assert torch.equal(rows.sort(dim=0).values, work.data.train.x.sort(dim=0).values)
    assert not torch.equal(rows, work.data.train.x)
    assert [batch.progress for batch in batches] == pytest.approx([0.25, 0.3, 0.35, 0.4, 0.45])


def test_score_is_accuracy_or_r_squared() -> None:
    data = uneven()
    assert data.test is not None
    share = (data.test.y == 2).float().mean().item()
    assert hs.score(lambda x: torch.eye(3)[2].expand(len(x), 3), data.test) == pytest.approx(share)
    x, y = torch.rand(200, 2), torch.rand(200, 1)
    numbers = hs.data.from_arrays(x, y)
    mean = float(numbers.train.y.double().mean())
    assert hs.score(lambda rows: torch.full((len(rows), 1), mean), numbers.train) == pytest.approx(0, abs=1e-6)


def test_xor_is_learnt_to_the_last_row(xor: hs.data.Data) -> None:
    net = hs.nets.mlp(2, 16, 2)
    report = hs.fit(net, xor, hs.GradientDescent(batch_size=16, optimiser=hs.Adam(lr=0.02)), sweeps=60, progress=False)
    assert hs.score(net, xor.train) == 1.0
    hard = hs.freeze(net, calibrate=xor.train)
    assert np.array_equal(hard.predict(xor.train.x.numpy()), xor.train.y.numpy())
    assert report.stopped == "all 60 sweeps done"


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precision_of_fabric_reaches_the_network(precision: Any) -> None:
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    fabric.launch()
    data = hs.data.load("digits")
    net = hs.nets.mlp(64, 64, 10)
    report = hs.fit(net, data, hs.GradientDescent(), sweeps=10, fabric=fabric, progress=False)
    assert report.score is not None and report.score > 0.75
    assert hs.freeze(net, calibrate=data.train).rounding is not None


def test_dropout_is_drawn_from_the_seed() -> None:
    data = hs.data.load("digits")
    nets = [hs.nets.MLP(hidden=(32,), dropout=0.3)(data.shape, 10) for _ in range(2)]
    for turn, net in enumerate(nets):
        torch.manual_seed(turn)
        hs.fit(net, data, hs.GradientDescent(), sweeps=1, progress=False)
    assert torch.equal(nets[0][1].weight, nets[1][1].weight)


@pytest.mark.parametrize("activation", [hs.Step(), hs.Sign(), hs.Staircase(3)])
def test_flip_rate_is_the_share_of_step_outputs_a_sweep_changed(activation: nn.Module, digits: hs.data.Data) -> None:
    net = hs.nets.MLP(hidden=(20, 10), activation=activation)(digits.shape, digits.outputs)
    assert digits.val is not None and digits.val.grid is not None
    x = torch.from_numpy(digits.val.grid.value(digits.val.x.numpy()))
    before = hs.read_steps(net, x)
    report = hs.fit(net, digits, hs.GradientDescent(), sweeps=1, progress=False)
    after = hs.read_steps(net, x)
    calls = 3 if isinstance(activation, hs.Staircase) else 1
    assert sum(step.bits.numel() for step in after.values()) == len(x) * 30 * calls
    flipped = sum(int((before[name].bits ^ step.bits).sum()) for name, step in after.items())
    assert report.records[0].extra["flip_rate"] == pytest.approx(flipped / (len(x) * 30 * calls))
    assert flipped > 0
