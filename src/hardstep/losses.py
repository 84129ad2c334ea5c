"""Losses: the data term of a fit, each with its gradient, its curvature bound and its proximal map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's name for it)

__all__ = ["CrossEntropy", "Loss", "Squared", "SquaredHinge"]

Labels = Int[Tensor, "n"] | Float[Tensor, "n _"]


class Loss(ABC):
    """A convex loss l(o, y) of one row of outputs o (k numbers) and its label or target y.

    Everything is given row by row, so that a mean over a global batch, a sum over ranks and a
    certificate are all made of the same numbers.
    """

    curvature: ClassVar[float]
    """A bound on the largest eigenvalue of the Hessian of l in o."""

    @abstractmethod
    def value(self, out: Float[Tensor, "n k"], y: Labels) -> Float[Tensor, " n"]:
        """Return l(o, y) of each row, differentiable in out."""

    @abstractmethod
    def residual(self, out: Float[Tensor, "n k"], y: Labels) -> Float[Tensor, "n k"]:
        """Return -dl/do of each row.

        With the curvature kappa it gives the majoriser l(o + e) <= l(o) - residual'e + kappa/2 |e|².
        """

    @abstractmethod
    def prox(self, v: Float[Tensor, "n k"], y: Labels, step: float) -> Float[Tensor, "n k"]:
        """Return argmin_o l(o, y) + |o - v|²/(2 step) of each row."""


@dataclass(frozen=True)
class Squared(Loss):
    """Half the squared distance to the target: l = 1/2 |o - y|²; labels become one-hot targets.

    Examples
    --------
    >>> Squared().value(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    tensor([1.])
    """

    curvature: ClassVar[float] = 1.0

    def value(self, out: Float[Tensor, "n k"], y: Labels) -> Float[Tensor, " n"]:
        """Return 1/2 |o - y|²."""
        return 0.5 * (out - _targets(out, y)).square().sum(dim=1)

    def residual(self, out: Float[Tensor, "n k"], y: Labels) -> Float[Tensor, "n k"]:
        """Return y - o."""
        return _targets(out, y) - out

    def prox(self, v: Float[Tensor, "n k"], y: Labels, step: float) -> Float[Tensor, "n k"]:
        """Return (v + step y)/(1 + step)."""
        return (v + step * _targets(v, y)) / (1 + step)


@dataclass(frozen=True)
class SquaredHinge(Loss):
    """One margin per output: l = 1/2 sum_c max(0, 1 - t_c o_c)², t_c = +1 for the label and -1 for the others.

    Examples
    --------
    >>> SquaredHinge().value(torch.tensor([[2.0, -0.5]]), torch.tensor([0]))
    tensor([0.1250])
    """

    curvature: ClassVar[float] = 1.0

    def value(self, out: Float[Tensor, "n k"], y: Labels) -> Float[Tensor, " n"]:
        """Return the sum of squared margin violations, halved."""
        return 0.5 * (1 - self._signs(out, y) * out).relu().square().sum(dim=1)

    def residual(self, out: Float[Tensor, "n k"], y: Labels) -> Float[Tensor, "n k"]:
        """Return t max(0, 1 - t o)."""
        signs = self._signs(out, y)
        return signs * (1 - signs * out).relu()

    def prox(self, v: Float[Tensor, "n k"], y: Labels, step: float) -> Float[Tensor, "n k"]:
        """Move the violated outputs the share step/(1 + step) of the way to their margin."""
        return v + self.residual(v, y) * (step / (1 + step))

    @staticmethod
    def _signs(out: Tensor, y: Tensor) -> Tensor:
        return 2 * _targets(out, _labels(y)) - 1


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Multinomial log-likelihood: l = log sum_c exp(o_c) - q'o with q the (smoothed) one-hot label.

    Its Hessian diag(p) - pp' is at most 1/2, so `curvature` is 1/2.

    Parameters
    ----------
    smoothing
        Share of the label spread evenly over all outputs, in [0, 1).

    References
    ----------
    Böhning 1992 [bohning1992], the bound 1/2 on the Hessian.

    Examples
    --------
    >>> CrossEntropy().value(torch.zeros(1, 2), torch.tensor([1]))
    tensor([0.6931])
    """

    smoothing: float = 0.0
    curvature: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing is a share in [0, 1), got {self.smoothing}")

    def value(self, out: Float[Tensor, "n k"], y: Labels) -> Float[Tensor, " n"]:
        """Return the cross-entropy of each row."""
        return F.cross_entropy(out, _labels(y), reduction="none", label_smoothing=self.smoothing)

    def residual(self, out: Float[Tensor, "n k"], y: Labels) -> Float[Tensor, "n k"]:
        """Return q - softmax(o)."""
        return self._smoothed(out, y) - out.softmax(dim=1)

    def prox(self, v: Float[Tensor, "n k"], y: Labels, step: float) -> Float[Tensor, "n k"]:
        """Solve o + step softmax(o) = v + step q by Newton's method with a line search, in float64.

        The Hessian diag(p + 1/step) - pp' is inverted by the Sherman-Morrison formula.
        """
        centre = v.double()
        q = self._smoothed(centre, y)

        def objective(o: Tensor) -> Tensor:
            return o.logsumexp(dim=1) - (q * o).sum(dim=1) + (o - centre).square().sum(dim=1) / (2 * step)

        o = centre
        for _ in range(100):
            p = o.softmax(dim=1)
            gradient = p - q + (o - centre) / step
            if gradient.abs().max() * min(step, 1.0) < 1e-12:
                break
            diagonal = p + 1 / step
            along, across = gradient / diagonal, p / diagonal
            rise = (p * along).sum(dim=1) / (1 - (p * across).sum(dim=1))
            move = along + across * rise[:, None]
            length = torch.ones(len(o), 1, dtype=o.dtype, device=o.device)
            now = objective(o)
            for _ in range(40):
                worse = objective(o - length * move) > now + 1e-15 * now.abs()
                if not worse.any():
                    break
                length[worse] /= 2
            o = o - length * move
        return o.to(v.dtype)

    def _smoothed(self, out: Tensor, y: Tensor) -> Tensor:
        targets = _targets(out, _labels(y))
        return targets * (1 - self.smoothing) + self.smoothing / out.shape[1]


def _targets(out: Tensor, y: Tensor) -> Tensor:
    """Return targets in the shape of out: given ones as they are, labels one-hot."""
    if y.is_floating_point():
        if y.shape != out.shape:
            raise ValueError(f"targets of shape {tuple(y.shape)} do not fit outputs of shape {tuple(out.shape)}")
        return y.to(out.dtype)
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= out.shape[1]:
        raise ValueError(
            f"label {low if low < 0 else high} is out of range: the network has {out.shape[1]} outputs, "
            f"allowed are 0..{out.shape[1] - 1}; renumber the labels or widen the last layer"
        )
    return F.one_hot(y.long(), out.shape[1]).to(out.dtype)


def _labels(y: Tensor) -> Tensor:
    """Return y if it holds labels."""
    if y.is_floating_point():
        raise ValueError(f"this loss takes integer labels, got y of {y.dtype}; for number targets use Squared()")
    return y.long()
