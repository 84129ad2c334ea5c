"""Block coordinate descent on a Gram matrix: the compiled loop, and NumPy where there is none."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
from jaxtyping import Float64, Int64

from hardstep.export.compiler import load_runtime

__all__ = ["descend", "descend_reference"]


def descend(
    gram: Float64[np.ndarray, "p p"],
    beta: float,
    columns: Int64[np.ndarray, " a"],
    passes: int,
    u: Float64[np.ndarray, "c p"],
    pull: Float64[np.ndarray, "c p"],
) -> None:
    """Minimise 1/2 tr U'GU - <B, U> + beta sum_j |U_j|_2 over one column of u after the other, in place.

    With a = pull_j + G_jj U_j the minimum is U_j = (1 - beta/|a|)_+ a/G_jj; `pull` = B - U G follows by one row of G a
    move. Columns with G_jj <= 0 stay.

    Examples
    --------
    >>> u, pull = np.zeros((1, 2)), np.array([[3.0, 1.0]])
    >>> descend(np.eye(2), 1.5, np.arange(2), 1, u, pull)
    >>> u
    array([[1.5, 0. ]])
    """
    library = _library()
    if library is None:
        descend_reference(gram, beta, columns, passes, u, pull)
        return
    for array in (gram, u, pull):
        if not array.flags.c_contiguous:
            raise ValueError("gram, u and pull must be contiguous; copy them by np.ascontiguousarray")
    columns = np.ascontiguousarray(columns)
    library.hs_descend(
        gram.shape[0],
        len(u),
        gram.ctypes.data,
        beta,
        columns.ctypes.data,
        len(columns),
        passes,
        u.ctypes.data,
        pull.ctypes.data,
    )


def descend_reference(
    gram: Float64[np.ndarray, "p p"],
    beta: float,
    columns: Int64[np.ndarray, " a"],
    passes: int,
    u: Float64[np.ndarray, "c p"],
    pull: Float64[np.ndarray, "c p"],
) -> None:
    """Do what `descend` does, in NumPy.

    Examples
    --------
    >>> u, pull = np.zeros((1, 1)), np.array([[3.0]])
    >>> descend_reference(np.eye(1), 1.0, np.arange(1), 1, u, pull)
    >>> u, pull
    (array([[2.]]), array([[1.]]))
    """
    for _ in range(passes):
        for j in columns:
            scale = gram[j, j]
            if scale <= 0:
                continue
            a = pull[:, j] + scale * u[:, j]
            norm = float(np.sqrt(a @ a))
            now = (1.0 - beta / norm) / scale * a if norm > beta else np.zeros_like(a)
            move = now - u[:, j]
            if move.any():
                pull -= move[:, None] * gram[j]
                u[:, j] = now


@cache
def _library() -> ctypes.CDLL | None:
    """Return the compiled loop with the types of its arguments, None where it is not there."""
    library = load_runtime()
    if library is not None:
        size, pointer = ctypes.c_size_t, ctypes.c_void_p
        library.hs_descend.argtypes = [size, size, pointer, ctypes.c_double, pointer, size, size, pointer, pointer]
        library.hs_descend.restype = ctypes.c_double
    return library
