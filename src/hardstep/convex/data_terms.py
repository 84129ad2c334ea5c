"""Data terms of the convex programs: losses summed over rows, each with its dual value and its free intercept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Shaped
from scipy.special import entr, expit, logsumexp, softmax

from hardstep.convex.intercepts import FAR, balanced_sides, intercept_root
from hardstep.convex.targets import numbers, one_hot, signs

__all__ = ["DataTerm", "Logistic", "Multinomial", "Squared", "SquaredHinge", "lower_bound", "relative_gap"]

Outputs = Float64[np.ndarray, "n c"]
Given = Shaped[np.ndarray, " n"] | Shaped[np.ndarray, "n _"]


class DataTerm(ABC):
    """A convex loss of outputs f (n x C) and targets y (n x C), summed over rows, and what duality needs of it.

    `targets` turns labels or numbers into y once; everything else takes y. With v = -gradient at f, `dual` gives the
    largest D(v) with value(f) = D(v) - <v, f>, so that min value(D U + b) + beta sum_j |U_j| >= D(v) for every v in the
    domain with |d'v| <= beta for all columns d, and 1'v = 0 if the intercept b is free.
    """

    curvature: ClassVar[float]
    """A bound on the largest eigenvalue of the Hessian of one row's loss."""

    quadratic: ClassVar[bool] = False
    """Whether the Hessian is `curvature` times the identity everywhere, so that the majoriser is the loss."""

    @abstractmethod
    def targets(self, y: Given) -> Outputs:
        """Return y as this term takes it; what it has made itself it takes as it is."""

    @abstractmethod
    def value(self, f: Outputs, y: Outputs) -> float:
        """Return the loss, summed over rows."""

    @abstractmethod
    def residual(self, f: Outputs, y: Outputs) -> Outputs:
        """Return v = -gradient of the loss in f."""

    @abstractmethod
    def bend(self, f: Outputs, y: Outputs, move: Outputs) -> Outputs:
        """Return the Hessian at f times a move of the outputs."""

    @abstractmethod
    def dual(self, v: Outputs, y: Outputs) -> float:
        """Return D(v) for v in the domain."""

    @abstractmethod
    def stretch(self, v: Outputs, y: Outputs) -> float:
        """Return the factor t that makes D(t v) largest, or as large as is safe without a search."""

    @abstractmethod
    def balance(self, v: Outputs, y: Outputs) -> Outputs:
        """Return a v nearby and in the domain with 1'v = 0, as the free intercept asks for."""

    @abstractmethod
    def shift(self, f: Outputs, y: Outputs) -> Float64[np.ndarray, " c"]:
        """Return argmin_b value(f + b); where there is no minimiser, a b that is as good to rounding."""

    def null(self, y: Outputs, *, intercept: bool) -> Float64[np.ndarray, " c"]:
        """Return the outputs of the network without units: the best constant, or 0 without an intercept."""
        return self.shift(np.zeros_like(y), y) if intercept else np.zeros(y.shape[1])


@dataclass(frozen=True)
class Squared(DataTerm):
    """Half the squared distance 1/2 |f - y|², D(v) = <v, y> - 1/2 |v|².

    Examples
    --------
    >>> y = np.array([[1.0], [3.0]])
    >>> Squared().value(np.zeros((2, 1)), y), Squared().null(y, intercept=True)
    (5.0, array([2.]))
    """

    curvature: ClassVar[float] = 1.0
    quadratic: ClassVar[bool] = True

    def targets(self, y: Given) -> Outputs:
        """Return numbers as they are, a vector as one column."""
        return numbers(y)

    def value(self, f: Outputs, y: Outputs) -> float:
        """Return 1/2 |f - y|²."""
        return 0.5 * float(np.square(f - y).sum())

    def residual(self, f: Outputs, y: Outputs) -> Outputs:
        """Return y - f."""
        v: Outputs = y - f
        return v

    def bend(self, f: Outputs, y: Outputs, move: Outputs) -> Outputs:
        """Return the move."""
        return move

    def dual(self, v: Outputs, y: Outputs) -> float:
        """Return <v, y> - 1/2 |v|²."""
        return float((v * y).sum()) - 0.5 * float(np.square(v).sum())

    def stretch(self, v: Outputs, y: Outputs) -> float:
        """Return <v, y>/|v|², of either sign."""
        return float((v * y).sum()) / max(float(np.square(v).sum()), np.finfo(float).tiny)

    def balance(self, v: Outputs, y: Outputs) -> Outputs:
        """Subtract the mean."""
        centred: Outputs = v - v.mean(axis=0)
        return centred

    def shift(self, f: Outputs, y: Outputs) -> Float64[np.ndarray, " c"]:
        """Return the mean of y - f."""
        mean: Float64[np.ndarray, " c"] = (y - f).mean(axis=0)
        return mean


@dataclass(frozen=True)
class Logistic(DataTerm):
    """One logistic loss per output: log(1 + exp(-y f)), y = ±1, D(v) = sum H(y v) with H(u) = -u ln u - (1-u) ln(1-u).

    Two labels (0 and 1, or -1 and 1) need one output; more have one each, +1 for the label and -1 for the others.

    Parameters
    ----------
    outputs
        Number of outputs; by default as the labels ask.

    Examples
    --------
    >>> y = Logistic().targets(np.array([0, 1, 1]))
    >>> round(Logistic().value(np.zeros((3, 1)), y), 4), Logistic().null(y, intercept=True).round(4)
    (2.0794, array([0.6931]))
    """

    outputs: int | None = None
    curvature: ClassVar[float] = 0.25

    def targets(self, y: Given) -> Outputs:
        """Return labels as ±1."""
        return signs(y, self.outputs)

    def value(self, f: Outputs, y: Outputs) -> float:
        """Return sum log(1 + exp(-y f))."""
        return float(np.logaddexp(0.0, -y * f).sum())

    def residual(self, f: Outputs, y: Outputs) -> Outputs:
        """Return y/(1 + exp(y f))."""
        v: Outputs = y * expit(-y * f)
        return v

    def bend(self, f: Outputs, y: Outputs, move: Outputs) -> Outputs:
        """Return s (1 - s) times the move, s = 1/(1 + exp(-f))."""
        s = expit(f)
        bent: Outputs = s * (1.0 - s) * move
        return bent

    def dual(self, v: Outputs, y: Outputs) -> float:
        """Return the sum of the binary entropies of y v, which lies in [0, 1]."""
        u = np.clip(y * v, 0.0, 1.0)
        return float((entr(u) + entr(1.0 - u)).sum())

    def stretch(self, v: Outputs, y: Outputs) -> float:
        """Return 1: no factor above it keeps the domain."""
        return 1.0

    def balance(self, v: Outputs, y: Outputs) -> Outputs:
        """Scale down the heavier of the two sides of each output."""
        return balanced_sides(v)

    def shift(self, f: Outputs, y: Outputs) -> Float64[np.ndarray, " c"]:
        """Return the root of the sum of residuals, by Newton's method within a bracket."""

        def slopes(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            u = expit(-y * (f + b))
            return (y * u).sum(axis=0), (u * (1.0 - u)).sum(axis=0)

        return intercept_root(f, y, slopes, FAR)


@dataclass(frozen=True)
class SquaredHinge(DataTerm):
    """One squared hinge per output: 1/2 max(0, 1 - y f)², y = ±1, D(v) = sum u - u²/2 with u = y v >= 0.

    Labels as in `Logistic`.

    Parameters
    ----------
    outputs
        Number of outputs; by default as the labels ask.

    Examples
    --------
    >>> y = SquaredHinge().targets(np.array([0, 1, 2]))
    >>> SquaredHinge().value(np.zeros((3, 3)), y), y[0]
    (4.5, array([ 1., -1., -1.]))
    """

    outputs: int | None = None
    curvature: ClassVar[float] = 1.0

    def targets(self, y: Given) -> Outputs:
        """Return labels as ±1."""
        return signs(y, self.outputs)

    def value(self, f: Outputs, y: Outputs) -> float:
        """Return 1/2 sum max(0, 1 - y f)²."""
        return 0.5 * float(np.square(np.maximum(1.0 - y * f, 0.0)).sum())

    def residual(self, f: Outputs, y: Outputs) -> Outputs:
        """Return y max(0, 1 - y f)."""
        v: Outputs = y * np.maximum(1.0 - y * f, 0.0)
        return v

    def bend(self, f: Outputs, y: Outputs, move: Outputs) -> Outputs:
        """Return the move where the margin is missed, else 0."""
        bent: Outputs = (y * f < 1) * move
        return bent

    def dual(self, v: Outputs, y: Outputs) -> float:
        """Return sum u - u²/2, u = y v."""
        return float((y * v).sum()) - 0.5 * float(np.square(v).sum())

    def stretch(self, v: Outputs, y: Outputs) -> float:
        """Return sum u/sum u²."""
        return float((y * v).sum()) / max(float(np.square(v).sum()), np.finfo(float).tiny)

    def balance(self, v: Outputs, y: Outputs) -> Outputs:
        """Scale down the heavier of the two sides of each output."""
        return balanced_sides(v)

    def shift(self, f: Outputs, y: Outputs) -> Float64[np.ndarray, " c"]:
        """Return the root of the sum of residuals, by Newton's method within a bracket."""

        def slopes(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            u = 1.0 - y * (f + b)
            return (y * np.maximum(u, 0.0)).sum(axis=0), (u > 0).sum(axis=0).astype(np.float64)

        return intercept_root(f, y, slopes, 1.0)


@dataclass(frozen=True)
class Multinomial(DataTerm):
    """Multinomial log-likelihood: log sum_c exp(f_c) - <y, f>, y one-hot, D(v) = sum_i entropy(y_i - v_i).

    Parameters
    ----------
    outputs
        Number of classes; by default one more than the largest label, at least 2.

    References
    ----------
    Böhning 1992 [bohning1992], the bound 1/2 on the Hessian.

    Examples
    --------
    >>> term = Multinomial()
    >>> y = term.targets(np.array([0, 1, 2, 2]))
    >>> round(term.value(np.zeros((4, 3)), y), 4), round(term.dual(term.residual(np.zeros((4, 3)), y), y), 4)
    (4.3944, 4.3944)
    """

    outputs: int | None = None
    curvature: ClassVar[float] = 0.5

    def targets(self, y: Given) -> Outputs:
        """Return labels as one-hot rows."""
        return one_hot(y, self.outputs)

    def value(self, f: Outputs, y: Outputs) -> float:
        """Return sum_i log sum_c exp(f_ic) - <y_i, f_i>."""
        return float((logsumexp(f, axis=1) - (y * f).sum(axis=1)).sum())

    def residual(self, f: Outputs, y: Outputs) -> Outputs:
        """Return y - softmax(f)."""
        v: Outputs = y - softmax(f, axis=1)
        return v

    def bend(self, f: Outputs, y: Outputs, move: Outputs) -> Outputs:
        """Return (diag p - pp') times the move, p = softmax(f)."""
        p = softmax(f, axis=1)
        bent: Outputs = p * (move - (p * move).sum(axis=1, keepdims=True))
        return bent

    def dual(self, v: Outputs, y: Outputs) -> float:
        """Return the sum of the entropies of y - v, whose rows lie in the simplex."""
        return float(entr(np.maximum(y - v, 0.0)).sum())

    def stretch(self, v: Outputs, y: Outputs) -> float:
        """Return 1: no factor above it keeps the domain in general."""
        return 1.0

    def balance(self, v: Outputs, y: Outputs) -> Outputs:
        """Mix y - v with the shares of the classes as far as that allows to take the excess off every row alike."""
        counts = y.sum(axis=0)
        p = np.where(counts > 0, y - v, 0.0)  # a class that never occurs: its column must vanish
        p /= p.sum(axis=1, keepdims=True)
        excess = counts - p.sum(axis=0)
        share = min(1.0, float(np.abs(excess).max() / counts[counts > 0].min()))
        p = (1.0 - share) * (p + excess / len(y)) + share * counts / len(y)
        balanced: Outputs = y - p
        return balanced

    def shift(self, f: Outputs, y: Outputs) -> Float64[np.ndarray, " c"]:
        """Return the root of the sum of residuals, by Newton's method with a line search; mean of the shift 0."""
        present = y.sum(axis=0) > 0
        seen, kept = f[:, present], y[:, present]
        b = np.zeros(seen.shape[1])
        now = self.value(seen, kept)
        for _ in range(100):
            p = softmax(seen + b, axis=1)
            gradient = (p - kept).sum(axis=0)
            if np.abs(gradient).max() <= 1e-13 * len(y):
                break
            hessian = np.diag(p.sum(axis=0)) - p.T @ p
            move = np.linalg.solve(hessian + np.trace(hessian) / len(b) + 1e-14 * np.eye(len(b)), gradient)
            length = 1.0
            while length > 1e-8 and self.value(seen + b - length * move, kept) > now + 1e-14 * abs(now):
                length /= 2
            b = b - length * move
            now = self.value(seen + b, kept)
        b -= b.mean()
        whole = np.zeros(f.shape[1])
        whole[present] = b
        low = (seen + b).max(axis=1, keepdims=True) - FAR - f[:, ~present]
        whole[~present] = low.min(axis=0) if (~present).any() else 0.0
        return whole


def lower_bound(term: DataTerm, v: Outputs, y: Outputs, beta: float, largest: float) -> float:
    """Return D(t v) for the best safe t: a bound from below on the program over every column d with |v'd| <= largest.

    t is `stretch` cut to [-beta/largest, beta/largest], so that t v is a feasible dual point. For the squared loss this
    is the clipped form: D = t <v, y> - t² |v|²/2 with t = clip(<v, y>/|v|², -beta/M, beta/M).

    Parameters
    ----------
    v
        A residual -gradient; with a free intercept one that `balance` made (1'v = 0).
    largest
        M = max_d |v'd|_2 over the class of columns, or any bound above it; inf gives D(0), which is no news.

    Raises
    ------
    ValueError
        If beta is not above 0 or largest is below 0.

    References
    ----------
    Ergen, Gulluk, Lacotte, Pilanci 2023 [ergen2023], the dual program; the clip is ours.

    Examples
    --------
    >>> y = np.array([[2.0], [0.0]])
    >>> lower_bound(Squared(), y, y, beta=1.0, largest=2.0)
    1.5
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}: without a price on the weights there is no dual bound")
    if not largest >= 0:
        raise ValueError(f"the largest |v'd| is a number >= 0, got {largest}")
    reach = beta / largest if largest > 0 else np.inf
    t = float(np.clip(term.stretch(v, y), -reach, reach))
    return term.dual(t * v, y)


def relative_gap(term: DataTerm, y: Outputs, objective: float, dual: float) -> float:
    """Return (objective - dual)/|objective|, at least 0; below 1e-12 of the loss of f = 0 an objective counts as that.

    Examples
    --------
    >>> relative_gap(Squared(), np.array([[2.0]]), 1.0, 0.75)
    0.25
    """
    floor = 1e-12 * term.value(np.zeros_like(y), y) + np.finfo(float).tiny
    return float(max(0.0, objective - dual) / max(abs(objective), floor))
