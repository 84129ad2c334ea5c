"""Learning from a frozen network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

import hardstep as hs
from hardstep.fit import Work
from hardstep.ranks import launched_fabric


@pytest.fixture(scope="module")
def data() -> hs.data.Data:
    return hs.data.load("digits")


@pytest.fixture(scope="module")
def teacher(data: hs.data.Data, tmp_path_factory: pytest.TempPathFactory) -> str:
    net = hs.nets.MLP(hidden=(256,))(data.shape, data.outputs)
    hs.fit(net, data, hs.GradientDescent(), sweeps=8, progress=False)
    path = tmp_path_factory.mktemp("teacher") / "hardnet.safetensors"
    hs.freeze(net, calibrate=data.train).save(path)
    return str(path)


def shown(data: hs.data.Data, rows: int) -> torch.Tensor:
    """Return the first training rows as a network sees them."""
    return next(iter(Work(data, launched_fabric(), 0, 1).batches(rows))).x


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 1.0), (2.0, 0.9), (5.0, 0.3)])
def test_lesson_is_its_formula_and_its_gradient(
    data: hs.data.Data, teacher: str, temperature: float, share: float
) -> None:
    hard, x = hs.HardNet.load(teacher), shown(data, 40)
    rng = torch.Generator().manual_seed(0)
    out = torch.randn(40, 10, generator=rng, dtype=torch.float64).mul(3).requires_grad_()
    losses = torch.rand(40, generator=rng, dtype=torch.float64)
    taught = hs.FrozenTeacher(teacher, temperature, share).lesson(data)(x)(out, losses)
    told, mine = hard(x.numpy()) * hard.scale / temperature, out.detach().numpy() / temperature
    p = softmax(told, axis=1)
    apart = (p * (log_softmax(told, axis=1) - log_softmax(mine, axis=1))).sum(axis=1)
    wanted = (1 - share) * losses.numpy() + share * temperature**2 * apart
    np.testing.assert_allclose(taught.detach().numpy(), wanted, rtol=1e-10)
    taught.sum().backward()
    assert out.grad is not None
    np.testing.assert_allclose(out.grad.numpy(), share * temperature * (softmax(mine, axis=1) - p), atol=1e-12)


def test_who_answers_as_the_teacher_has_no_loss_left(data: hs.data.Data, teacher: str) -> None:
    hard, x = hs.HardNet.load(teacher), shown(data, 30)
    out = torch.from_numpy(hard(x.numpy()) * hard.scale)
    lesson = hs.FrozenTeacher(teacher, share=1.0).lesson(data)
    none, ones = torch.zeros(30).double(), torch.ones(30).double()
    torch.testing.assert_close(lesson(x)(out, ones), none)
    assert (lesson(x.flip(0))(out, ones) > 0).any()  # it looks at the samples that it is given
    twice = lesson(x)(torch.cat([out, out.flip(0)]), torch.cat([ones, ones]))  # copies of a batch
    torch.testing.assert_close(twice, torch.cat([none, lesson(x)(out.flip(0), ones)]))


def test_teacher_answers_each_sample_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hs.teachers, "KEPT", 6)
    asked: list[np.ndarray] = []

    def scores(x: np.ndarray) -> np.ndarray:
        asked.append(x)
        return np.stack([10 * x[:, 0], x[:, 1]], axis=1).astype(np.int64)

    sums, x = hs.teachers.once_each(scores), np.arange(40, dtype=np.float32).reshape(20, 2)
    for rows, new in (
        ([0, 1, 2, 0], [0, 1, 2, 0]),
        ([2, 3, 1, 0], [3]),
        ([1, 2], []),
        ([4, 0, 5, 6, 7], [4, 5, 6, 7]),
        ([7, 8, 0], [8]),  # full since the line before
        ([8, 7], [8]),
    ):
        asked.clear()
        np.testing.assert_array_equal(sums(x[rows]), np.stack([10 * x[rows, 0], x[rows, 1]], axis=1))
        assert len(asked) == bool(new)
        assert not new or np.array_equal(asked[0], x[new])


def test_without_a_teacher_losses_stay_what_they_are(data: hs.data.Data) -> None:
    losses = torch.rand(3)
    assert hs.NoTeacher().lesson(data)(torch.rand(3, 64))(torch.rand(3, 10), losses) is losses


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda base: base,
        lambda base: hs.TargetProp(base=replace(base, rule=hs.TargetRule()), search=hs.FlipSearch()),
    ],
    ids=["descent", "search"],
)
def test_pupil_learns_from_the_teacher_alone_where_all_labels_are_wrong(
    data: hs.data.Data, teacher: str, wrapped: Callable[[hs.GradientDescent], Any]
) -> None:
    train = data.train
    assert isinstance(train, hs.data.Samples)
    wrong = replace(data, train=replace(train, y=(train.y + 1) % 10))
    scores = []
    for share in (0.5, 1.0):
        net = hs.nets.MLP(hidden=(64,))(data.shape, data.outputs)
        method = wrapped(hs.GradientDescent(teacher=hs.FrozenTeacher(teacher, share=share)))
        hs.fit(net, wrong, method, sweeps=8, progress=False)
        assert data.val is not None
        scores.append(hs.score(net, data.val))
    assert scores[1] > 0.85
    assert scores[0] < scores[1]


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda base: hs.Splitting(base=base),
        lambda base: hs.MagnitudePruning(0.5, base=base),
        lambda base: hs.TargetProp(base=replace(base, rule=hs.TargetRule()), inner=2),
        lambda base: replace(base, memory=hs.Recomputed()),
    ],
    ids=["splitting", "pruning", "targets", "recomputed"],
)
def test_every_method_of_a_descent_can_have_a_teacher(data: hs.data.Data, teacher: str, wrapped: object) -> None:
    assert callable(wrapped)
    weights = []
    for told in (hs.NoTeacher(), hs.FrozenTeacher(teacher)):
        net = hs.nets.MLP(hidden=(32,))(data.shape, data.outputs)
        report = hs.fit(net, data, wrapped(hs.GradientDescent(teacher=told)), sweeps=3, progress=False)
        assert repr(told) in report.method
        weights.append(next(net.parameters()))
    assert not torch.equal(*weights)


def test_teacher_is_shown_what_the_pupil_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    images = hs.data.load("digits")
    changed = replace(images, augment=hs.Augment(crop=2, mirror=True))
    net = hs.nets.ConvNet4(channels=(2, 4), units=8)(images.shape, images.outputs)
    seen: list[torch.Tensor] = []
    told: list[torch.Tensor] = []

    def lesson(x: torch.Tensor) -> hs.teachers.Marks:
        told.append(x.clone())
        return lambda out, losses: losses

    monkeypatch.setattr(hs.FrozenTeacher, "lesson", lambda self, data: lesson)
    net.register_forward_pre_hook(lambda module, x: seen.append(x[0].clone()) if module.training else None)
    hs.fit(net, changed, hs.GradientDescent(teacher=hs.FrozenTeacher()), sweeps=1, progress=False)
    assert len(told) == len(seen) > 5
    assert all(torch.equal(a, b) for a, b in zip(told, seen, strict=True))


def test_teacher_that_cannot_teach_is_named(data: hs.data.Data, teacher: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="temperature must be greater than 0, got 0"):
        hs.FrozenTeacher(teacher, temperature=0.0)
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"share is the teacher's weight, in \(0, 1\], got"):
            hs.FrozenTeacher(teacher, share=share)
    with pytest.raises(ValueError, match="there is no frozen network at 'nowhere'"):
        hs.FrozenTeacher("nowhere").lesson(data)
    (tmp_path / "text").write_text("no network")
    with pytest.raises(ValueError, match="text"):
        hs.FrozenTeacher(str(tmp_path / "text")).lesson(data)
    wider = hs.data.from_arrays(np.random.default_rng(0).random((200, 7)), np.arange(200) % 10)
    with pytest.raises(ValueError, match=r"takes samples of shape .*, the data have \(7,\)"):
        hs.FrozenTeacher(teacher).lesson(wider)
    few = hs.data.from_arrays(np.random.default_rng(0).random((50, *data.shape)), np.arange(50) % 3)
    with pytest.raises(ValueError, match="knows 10 classes, the data have 3"):
        hs.FrozenTeacher(teacher).lesson(few)
    numbers = hs.data.from_arrays(np.random.default_rng(0).random((50, *data.shape)), np.eye(50, 10))
    with pytest.raises(ValueError, match="a teacher ranks classes, and these targets are numbers"):
        hs.FrozenTeacher(teacher).lesson(numbers)
