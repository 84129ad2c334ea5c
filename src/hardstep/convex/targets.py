"""Targets of a convex program: numbers checked, labels turned into ±1 or one-hot rows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Shaped

__all__ = ["numbers", "one_hot", "signs"]

Targets = Float64[np.ndarray, "n c"]
Given = Shaped[np.ndarray, " n"] | Shaped[np.ndarray, "n _"]


def numbers(y: Given) -> Targets:
    """Return numbers in float64, a vector as one column.

    Raises
    ------
    ValueError
        If there are none, or one is NaN or infinite.

    Examples
    --------
    >>> numbers(np.array([1, 2])).shape
    (2, 1)
    """
    targets = np.asarray(y, np.float64)
    return _checked(targets[:, None] if targets.ndim == 1 else targets)


def signs(y: Given, outputs: int | None) -> Targets:
    """Return labels as ±1: one column for two labels (0 and 1, or -1 and 1), else one for each; ±1 stay as they are.

    Raises
    ------
    ValueError
        If y holds no labels, or one that is out of range.

    Examples
    --------
    >>> signs(np.array([-1, 1]), None).ravel(), signs(np.array([0, 2]), None)
    (array([-1.,  1.]), array([[ 1., -1., -1.],
           [-1., -1.,  1.]]))
    """
    if np.issubdtype(y.dtype, np.floating):
        return _kept(y, made=y.ndim == 2 and bool((np.abs(y) == 1).all()))
    if outputs in (None, 1) and (y == -1).any() and bool(np.isin(y, (-1, 1)).all()):
        y = (y + 1) // 2
    labels, classes = _labels(y, 2 if outputs == 1 else outputs)
    if outputs == 1 or (outputs is None and classes <= 2):
        return np.where(labels[:, None] == 1, 1.0, -1.0)
    rows: Targets = 2.0 * np.eye(classes)[labels] - 1.0
    return rows


def one_hot(y: Given, outputs: int | None) -> Targets:
    """Return labels as one-hot rows of at least two columns; one-hot rows stay as they are.

    Raises
    ------
    ValueError
        If y holds no labels, or one that is out of range.

    Examples
    --------
    >>> one_hot(np.array([0, 1]), None)
    array([[1., 0.],
           [0., 1.]])
    """
    if np.issubdtype(y.dtype, np.floating):
        return _kept(y, made=y.ndim == 2 and bool(((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all()))
    labels, classes = _labels(y, outputs)
    rows: Targets = np.eye(max(classes, 2))[labels]
    return rows


def _checked(y: np.ndarray) -> np.ndarray:
    """Return targets that are finite and not empty."""
    if y.size == 0:
        raise ValueError(f"there is nothing to fit: y has the shape {y.shape}")
    if not np.isfinite(y).all():
        raise ValueError(f"y holds {int((~np.isfinite(y)).sum())} NaN or infinite values; remove those rows")
    return np.ascontiguousarray(y)


def _kept(y: np.ndarray, *, made: bool) -> np.ndarray:
    """Return targets that were made here before."""
    if not made:
        raise ValueError(f"this loss takes integer labels, got y of {y.dtype}; for number targets use Squared()")
    return _checked(y.astype(np.float64, copy=False))


def _labels(y: np.ndarray, outputs: int | None) -> tuple[np.ndarray, int]:
    """Return labels 0, 1, ... and how many classes there are."""
    if y.ndim != 1 or not (np.issubdtype(y.dtype, np.integer) or y.dtype == bool):
        raise ValueError(f"labels are one vector of integers, got {y.dtype} of shape {y.shape}")
    labels = _checked(y).astype(np.int64)
    low, high = int(labels.min()), int(labels.max())
    classes = high + 1 if outputs is None else outputs
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(f"label {wrong} is out of range: allowed are 0..{classes - 1}; renumber them")
    return labels, classes
