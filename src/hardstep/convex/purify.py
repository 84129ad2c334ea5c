"""Fewer neurons for the same function at the same price: duplicates merged, dependent columns purified away."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from scipy.linalg import qr, solve_triangular

from hardstep.convex.bit_matrix import BitMatrix

__all__ = ["merge", "purify", "split"]

Weights = Float64[np.ndarray, "p c"]
Intercept = Float64[np.ndarray, " c"]

BLOCK = 1 << 22  # entries of the dense block that is factored at a time


def split(u: Weights) -> tuple[Float64[np.ndarray, " p"], Weights]:
    """Return s and a with s_j a_j = u_j and the least decay (s_j² + |a_j|²)/2 = |u_j|: s_j = |a_j| = sqrt|u_j|.

    So the network f = sum_j s_j 1{X w_j > 0} a_j with weight decay beta/2 on s and a has the objective of the convex
    program with beta sum_j |u_j|; the lengths of the w_j are free and cost nothing in the limit.

    References
    ----------
    Ergen, Gulluk, Lacotte, Pilanci 2023 [ergen2023], the scaling argument.

    Examples
    --------
    >>> split(np.array([[-4.0]]))
    (array([2.]), array([[-2.]]))
    """
    s = np.sqrt(_norms(u))
    return s, u / np.where(s > 0, s, 1.0)[:, None]


def merge(design: BitMatrix, u: Weights, intercept: Intercept | None) -> tuple[Weights, Intercept | None]:
    """Put the weights of equal columns on the first of them; the function stays, the price never rises.

    Columns of zeros lose their weight. With a free intercept columns of ones give theirs to it, and the complement of a
    column counts as equal: u (1 - d) = u - u d.

    Parameters
    ----------
    intercept
        b, or None where it is not free.

    Examples
    --------
    >>> design = BitMatrix.from_bools(np.array([[True, False, True], [False, True, True]]))
    >>> merge(design, np.array([[2.0], [0.5], [1.0]]), np.zeros(1))
    (array([[1.5],
           [0. ],
           [0. ]]), array([1.5]))
    """
    u, free = u.copy(), intercept is not None
    b = np.zeros(u.shape[1]) if intercept is None else intercept.copy()
    ones = BitMatrix.from_bools(np.ones((design.rows, 1), np.bool_)).words[0]
    first: dict[bytes, int] = {}
    for j in np.flatnonzero(u.any(axis=1)):
        word = design.words[j]
        if not word.any():
            u[j] = 0.0
        elif free and np.array_equal(word, ones):
            b, u[j] = b + u[j], 0.0
        elif (same := first.get(word.tobytes())) is not None:
            u[same], u[j] = u[same] + u[j], 0.0
        elif free and (other := first.get((word ^ ones).tobytes())) is not None:
            b, u[other], u[j] = b + u[j], u[other] - u[j], 0.0
        else:
            first[word.tobytes()] = int(j)
    return u, (b if free else None)


def purify(
    design: BitMatrix, u: Weights, intercept: Intercept | None, *, tol: float = 1e-10
) -> tuple[Weights, Intercept | None]:
    """Return weights of the same outputs and no higher price on at most rank many columns.

    After `merge`, while the columns in use (with their signs; for several outputs the products d_j e_j', e_j =
    U_j/|U_j|) are dependent, sum_j c_j d_j e_j' = 0 with sum c >= 0, the lengths move against c until one is 0. With a
    free intercept columns count without their means, and the intercept takes up the difference. At most rank D columns
    stay for one output, n c for c of them. An orthonormal basis of all such c comes from one QR factorisation with
    pivots; each column that goes takes one reflection of it.

    Parameters
    ----------
    tol
        Share of the largest pivot below which a column counts as dependent.

    References
    ----------
    Carathéodory's theorem; Ergen, Gulluk, Lacotte, Pilanci 2023 [ergen2023] bound the number of neurons by n + 1.

    Examples
    --------
    >>> design = BitMatrix.from_bools(np.array([[True, False, True], [False, True, True]]))
    >>> purify(design, np.array([[1.0], [2.0], [0.5]]), None)[0].round(9).ravel()
    array([0. , 1. , 1.5])
    """
    u, b = merge(design, u, intercept)
    used = np.flatnonzero(u.any(axis=1))
    if len(used) < 2:
        return u, b
    bits, lengths = design.take(used), _norms(u[used])
    unit = u[used] / lengths[:, None]
    null = _null_space(bits, unit, tol, centred=b is not None)
    a = lengths.copy()
    while null.shape[1]:
        c = null[:, 0] if null[:, 0].sum() >= 0 else -null[:, 0]
        steps = np.full(len(a), np.inf)
        np.divide(a, c, out=steps, where=c > 1e-12 * np.abs(c).max())
        gone = int(steps.argmin())
        a = np.maximum(a - steps[gone] * c, 0.0)
        a[gone] = 0.0
        for i in np.flatnonzero((a <= 1e-14 * lengths) & (np.abs(null).max(axis=1) > 1e-9)):
            a[i] = 0.0
            null = _without(null, int(i))
    after = u.copy()
    after[used] = a[:, None] * unit
    if b is not None:
        b = b + bits.counts() @ (u[used] - after[used]) / design.rows
    return after, b


def _null_space(bits: BitMatrix, unit: np.ndarray, tol: float, *, centred: bool) -> np.ndarray:
    """Return an orthonormal basis of the c with sum_j c_j d_j e_j' = 0."""
    m, outputs = unit.shape
    means = bits.counts() / bits.rows if centred else np.zeros(m)
    upper = np.zeros((0, m))
    dense = bits.unpack()
    step = max(m, BLOCK // (m * outputs))
    for i in range(0, bits.rows, step):
        rows = dense[i : i + step] - means
        atoms = np.concatenate([upper, *(rows * unit[:, k] for k in range(outputs))])
        upper = qr(atoms, mode="r", check_finite=False)[0][:m]
    triangle, order = qr(upper, mode="r", pivoting=True, check_finite=False)
    pivots = np.zeros(m)
    pivots[: min(triangle.shape)] = np.abs(triangle.diagonal())
    rank = int((pivots > tol * max(pivots[0], np.finfo(float).tiny)).sum())
    null = np.zeros((m, m - rank))
    if rank < m:
        null[order[:rank]] = -solve_triangular(triangle[:rank, :rank], triangle[:rank, rank:], check_finite=False)
        null[order[rank:]] = np.eye(m - rank)
        null = qr(null, mode="economic", check_finite=False)[0]
    return null


def _without(null: np.ndarray, i: int) -> np.ndarray:
    """Return an orthonormal basis of those vectors of the span that are 0 at i: one reflection, one column less."""
    row = null[i]
    mirror = row.copy()
    mirror[0] += np.copysign(np.linalg.norm(row), row[0])
    square = float(mirror @ mirror)
    if square > 0:
        null = null - np.outer(null @ mirror, 2.0 / square * mirror)
    null = null[:, 1:]
    null[i] = 0.0
    return null


def _norms(u: np.ndarray) -> np.ndarray:
    """Return the length of every row."""
    norms: np.ndarray = np.sqrt(np.square(u).sum(axis=1))
    return norms
