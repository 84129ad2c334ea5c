"""A Newton step of the penalised loss on the columns in use, for losses that are not quadratic."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from scipy.linalg import cho_solve

from hardstep.convex.data_terms import DataTerm
from hardstep.convex.gram_descent import conjugate_gradients, factor

__all__ = ["newton_step"]


def newton_step(
    term: DataTerm,
    d: Float64[np.ndarray, "n a"],
    gram: Float64[np.ndarray, "a a"],
    y: Float64[np.ndarray, "n c"],
    f: Float64[np.ndarray, "n c"],
    u: Float64[np.ndarray, "a c"],
    beta: float,
    *,
    intercept: bool,
) -> tuple[Float64[np.ndarray, "a c"], Float64[np.ndarray, " c"]]:
    """Lower loss(f + D dU + db) + beta sum_j |U_j + dU_j| over U on its support, and b; return dU and db.

    Where no U_j vanishes that is smooth, so Newton's method ends what majorisers do slowly. The system is solved by
    conjugate gradients, preconditioned by the Gram matrix times the mean curvature. Groups that would change sign are
    set to 0 in one of the points tried. The best of the points tried is taken if it lowers the objective; else 0.

    Parameters
    ----------
    d
        The columns in use, centred where the intercept is free.
    gram
        D'D.

    References
    ----------
    Ours; proximal Newton methods with the support frozen.
    """
    n, c = f.shape
    norms = np.sqrt(np.square(u).sum(axis=1, keepdims=True))
    unit, bend = u / norms, beta / norms
    v = term.residual(f, y)
    probe = np.where(np.arange(n * c).reshape(n, c) * 0.6180339887498949 % 1.0 < 0.5, -1.0, 1.0)
    mean = max(float((probe * term.bend(f, y, probe)).mean()), 1e-6 * term.curvature)
    ridge = 1e-9 * mean * float(gram.diagonal().mean())
    whole = factor(mean * gram, ridge + bend[:, 0] * (c - 1) / c)

    def apply(x: np.ndarray) -> np.ndarray:
        move, lift = x[:-1], x[-1:] * intercept
        h = term.bend(f, y, d @ move + lift)
        smooth = bend * (move - unit * (unit * move).sum(axis=1, keepdims=True)) if c > 1 else 0.0
        top = d.T @ h + smooth + ridge * move
        return np.concatenate([top, h.sum(axis=0, keepdims=True) * intercept + 1e-9 * mean * n * x[-1:]])

    def precondition(r: np.ndarray) -> np.ndarray:
        return np.concatenate([cho_solve(whole, r[:-1], check_finite=False), r[-1:] / (mean * n)])

    force = np.concatenate([d.T @ v - beta * unit, v.sum(axis=0, keepdims=True) * intercept])
    x = conjugate_gradients(apply, precondition, force, steps=60, tol=1e-6)
    move, lift = x[:-1], x[-1] * intercept
    now = term.value(f, y) + beta * float(norms.sum())

    def value(there: np.ndarray, up: np.ndarray, bent: np.ndarray) -> float:
        return term.value(f + bent + up, y) + beta * float(np.sqrt(np.square(there).sum(axis=1)).sum())

    best, answer = now, (np.zeros_like(u), np.zeros(c))
    for length in (1.0, 0.5):
        there = u + length * move
        turned = (there * u).sum(axis=1) <= 0
        if turned.any():
            there[turned] = 0.0
            found = value(there, length * lift, d @ (there - u))
            if found < best:
                best, answer = found, (there - u, length * lift)
    bent, length = d @ move, 1.0
    while length > 1e-6:
        found = value(u + length * move, length * lift, length * bent)
        if found < best:
            return length * move, length * lift
        length *= 0.4
    return answer
