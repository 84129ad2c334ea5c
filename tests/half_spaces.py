"""Patterns of half-spaces by brute force: one linear program per subset of the rows."""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import numpy as np
from scipy.optimize import linprog

GRID = np.array([[i, j] for i in range(3) for j in range(3)], float)
REPEATED = np.array([(0, 0), (0, 0), (1, 0), (0, 1), (1, 1), (2, 2), (2, 0), (1, 0)], float)
COLLINEAR = np.array([(k, k) for k in range(6)] + [(0, 3)], float)
RANDOM = np.random.default_rng(5).normal(size=(8, 2))
PLANES = {"random": RANDOM, "grid": GRID, "repeated": REPEATED, "collinear": COLLINEAR}


def separable(x: np.ndarray, *, margin: float = 0.0, closed: bool = False) -> np.ndarray:
    """Every pattern d (rows) for which some plane has x.w + b > 0 exactly where d = 1.

    With a margin, rows (x, 1) are scaled to |.|_1 = 1, |w|_inf <= 1, and each must be that far off the plane. `closed`
    lets the ones lie on the plane.
    """
    return _separable(x.tobytes(), x.shape, margin, closed)


@cache
def _separable(content: bytes, shape: tuple[int, int], margin: float, closed: bool) -> np.ndarray:
    x = np.frombuffer(content).reshape(shape)
    h = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    if margin:
        h = h / np.abs(h).sum(axis=1, keepdims=True)
    found = []
    for bits in product([0, 1], repeat=len(x)):
        side = np.where(bits, 1.0, -1.0)[:, None]
        off = np.full(len(x), margin or 1.0)
        if closed:
            off[np.array(bits) == 1] = 0.0
        limit = (-1, 1) if margin else (None, None)
        if linprog(np.zeros(h.shape[1]), -side * h, -off, bounds=[limit] * h.shape[1]).status == 0:
            found.append(bits)
    return np.array(found, bool)


def on_features(x: np.ndarray, count: int) -> np.ndarray:
    """Every pattern of half-spaces on at most so many features."""
    count = min(count, x.shape[1])
    sets = [separable(np.ascontiguousarray(x[:, list(c)])) for c in combinations(range(x.shape[1]), count)]
    return np.unique(np.concatenate(sets), axis=0)
