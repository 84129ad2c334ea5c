"""What every loss promises."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

import hardstep as hs
from hardstep.losses import Loss

LOSSES = [hs.Squared(), hs.SquaredHinge(), hs.CrossEntropy(), hs.CrossEntropy(smoothing=0.1)]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)


def sample(k: int = 4, n: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(k)
    out = 4 * torch.randn(n, k, generator=generator, dtype=torch.float64)
    return out, torch.randint(k, (n,), generator=generator)


def test_every_subclass_is_listed() -> None:
    assert {kind for kind in Loss.__subclasses__() if not inspect.isabstract(kind)} == {type(loss) for loss in LOSSES}


@every_loss
def test_value_is_one_number_a_row_and_never_negative(loss: Loss) -> None:
    out, y = sample()
    assert loss.value(out, y).shape == (50,)
    assert (loss.value(out, y) >= 0).all()


@every_loss
def test_residual_is_minus_the_gradient(loss: Loss) -> None:
    out, y = sample()
    out.requires_grad_()
    (gradient,) = torch.autograd.grad(loss.value(out, y).sum(), out)
    torch.testing.assert_close(loss.residual(out.detach(), y), -gradient, rtol=0, atol=1e-10)


@every_loss
@pytest.mark.parametrize("size", [0.1, 2.0, 20.0])
def test_curvature_gives_a_majoriser(loss: Loss, size: float) -> None:
    for k in (2, 3, 10, 50):
        out, y = sample(k, 200)
        move = size * torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        bound = (
            loss.value(out, y)
            - (loss.residual(out, y) * move).sum(dim=1)
            + loss.curvature / 2 * move.square().sum(dim=1)
        )
        assert (loss.value(out + move, y) <= bound + 1e-9).all()


@every_loss
@pytest.mark.parametrize("step", [1e-3, 0.5, 1.0, 30.0])
def test_prox_is_where_its_gradient_vanishes_and_beats_its_neighbours(loss: Loss, step: float) -> None:
    v, y = sample()

    def objective(o: Tensor) -> Tensor:
        return loss.value(o, y) + (o - v).square().sum(dim=1) / (2 * step)

    best = loss.prox(v, y, step)
    torch.testing.assert_close(step * loss.residual(best, y), best - v, rtol=0, atol=1e-8)
    generator = torch.Generator().manual_seed(2)
    for size in (1e-3, 0.1, 1.0):
        near = best + size * torch.randn(best.shape, generator=generator, dtype=torch.float64)
        assert (objective(best) <= objective(near) + 1e-12).all()


@every_loss
def test_prox_does_not_expand(loss: Loss) -> None:
    v, y = sample()
    w = v + torch.randn(v.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    distance = (loss.prox(v, y, 0.7) - loss.prox(w, y, 0.7)).norm(dim=1)
    assert (distance <= (v - w).norm(dim=1) + 1e-9).all()


@every_loss
def test_label_out_of_range_is_named(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r"label 4 is out of range: the network has 4 outputs, allowed are 0\.\.3"):
        loss.residual(torch.zeros(2, 4), torch.tensor([0, 4]))


def test_squared_loss_takes_number_targets() -> None:
    out, target = torch.ones(3, 2), torch.zeros(3, 2)
    assert torch.equal(hs.Squared().value(out, target), torch.ones(3))
    with pytest.raises(ValueError, match=r"targets of shape \(3, 2\) do not fit outputs of shape \(3, 4\)"):
        hs.Squared().value(torch.ones(3, 4), target)


@pytest.mark.parametrize("loss", [hs.CrossEntropy(), hs.SquaredHinge()], ids=repr)
def test_classification_loss_refuses_number_targets(loss: Loss) -> None:
    for call in (loss.value, loss.residual):
        with pytest.raises(ValueError, match=r"takes integer labels, got y of torch\.float32; .* use Squared\(\)"):
            call(torch.zeros(3, 2), torch.zeros(3, 2))


def test_smoothing_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"smoothing is a share in \[0, 1\), got 1.0"):
        hs.CrossEntropy(smoothing=1.0)
