"""A Newton step of the penalised loss on the columns in use, for losses that are not quadratic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.linalg import cho_solve

from hardstep.convex.bit_matrix import BitMatrix
from hardstep.convex.data_terms import DataTerm
from hardstep.convex.gram_descent import conjugate_gradients, factor

__all__ = ["Columns", "newton_step"]

DENSE = 1 << 25  # entries up to which columns are unpacked for many products
PRODUCTS = 1 << 32  # multiplications up to which a weighted Gram matrix is made of them


@dataclass(frozen=True)
class Columns:
    """Products with a few columns that are used many times: unpacked if they are small, centred if asked.

    Examples
    --------
    >>> columns = Columns.of(BitMatrix.from_bools(np.array([[True], [False]])), centred=True)
    >>> columns.push(np.array([[2.0]]))
    array([[ 1.],
           [-1.]])
    """

    push: Callable[[np.ndarray], np.ndarray]
    pull: Callable[[np.ndarray], np.ndarray]
    dense: np.ndarray | None = None

    @classmethod
    def of(cls, bits: BitMatrix, *, centred: bool) -> Columns:
        """Choose how."""
        n, p = bits.shape
        if n * p <= DENSE:
            d = bits.unpack().astype(np.float64)
            d = d - d.mean(axis=0) if centred else d
            return cls(lambda u: d @ u, lambda v: d.T @ v, d if n * p * p <= PRODUCTS else None)
        if not centred:
            return cls(bits.push, bits.pull)
        means = bits.counts()[:, None] / n
        return cls(lambda u: bits.push(u) - (means * u).sum(axis=0), lambda v: bits.pull(v) - means * v.sum(axis=0))


def newton_step(
    term: DataTerm,
    columns: Columns,
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
    conjugate gradients, preconditioned by the Gram matrix weighted with the curvatures of the rows. Groups that would
    change sign are set to 0 in one of the points tried. The best of the points tried is taken if it lowers the
    objective; else 0.

    Parameters
    ----------
    columns
        Products with D, the columns in use, centred where the intercept is free.
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
    diagonal = np.stack([term.bend(f, y, np.broadcast_to(one, f.shape))[:, k] for k, one in enumerate(np.eye(c))])
    weight = np.maximum(diagonal.mean(axis=0), 1e-6 * term.curvature)  # of each row, over the outputs
    mean = float(weight.mean())
    ridge = 1e-9 * mean * float(gram.diagonal().mean())
    near = mean * gram if columns.dense is None else columns.dense.T @ (weight[:, None] * columns.dense)
    whole = factor(near, ridge + bend[:, 0] * (c - 1) / c)

    def apply(x: np.ndarray) -> np.ndarray:
        move, lift = x[:-1], x[-1:] * intercept
        h = term.bend(f, y, columns.push(move) + lift)
        smooth = bend * (move - unit * (unit * move).sum(axis=1, keepdims=True)) if c > 1 else 0.0
        top = columns.pull(h) + smooth + ridge * move
        return np.concatenate([top, h.sum(axis=0, keepdims=True) * intercept + 1e-9 * mean * n * x[-1:]])

    def precondition(r: np.ndarray) -> np.ndarray:
        return np.concatenate([cho_solve(whole, r[:-1], check_finite=False), r[-1:] / (mean * n)])

    force = np.concatenate([columns.pull(v) - beta * unit, v.sum(axis=0, keepdims=True) * intercept])
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
            found = value(there, length * lift, columns.push(there - u))
            if found < best:
                best, answer = found, (there - u, length * lift)
    bent, length = columns.push(move), 1.0
    while length > 1e-6:
        found = value(u + length * move, length * lift, length * bent)
        if found < best:
            return length * move, length * lift
        length *= 0.4
    return answer
