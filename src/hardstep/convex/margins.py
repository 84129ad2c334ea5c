"""Half-spaces moved to the middle of their cells, so that rounding does not change their patterns."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

from hardstep.convex.sweep import separating_plane

__all__ = ["widened"]

NEAR = 32  # rows on each side that are looked at first
ROUNDS = 5  # times that rows left out are taken in


def widened(
    x: Float64[np.ndarray, "n d"], plane: Float64[np.ndarray, " d1"], bits: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, " d1"]:
    """Return a half-space with this pattern and a larger margin than the given one, or that where none is found.

    The linear program of `separating_plane` on the rows nearest to the plane, which takes in the rows it gets wrong
    until there are none. The length is such that the largest weight is 1.

    Examples
    --------
    >>> widened(np.array([[1.0], [2.0]]), np.array([1.0, -1.000001]), np.array([False, True]))
    array([ 1. , -1.5])
    """
    if bits.all() or not bits.any():
        return np.append(np.zeros(x.shape[1]), 1.0 if bits.all() else -1.0)
    distance = np.abs(x @ plane[:-1] + plane[-1])
    sides = (np.flatnonzero(bits), np.flatnonzero(~bits))
    near = np.concatenate([side[np.argsort(distance[side], kind="stable")[:NEAR]] for side in sides])
    for _ in range(ROUNDS):
        found = separating_plane(x[near], bits[near])
        if found is None:
            break
        z = x @ found[:-1] + found[-1]
        wrong = np.flatnonzero((z > 0) != bits)
        if not len(wrong):
            if _margin(x, found, bits) > _margin(x, plane, bits):
                plane = np.divide(found, np.abs(found[:-1]).max())
            break
        near = np.union1d(near, wrong[np.argsort(-np.abs(z[wrong]), kind="stable")[:NEAR]])
    return plane


def _margin(x: Float64[np.ndarray, "n d"], plane: Float64[np.ndarray, " d1"], bits: Bool[np.ndarray, " n"]) -> float:
    """Return the least distance of a row from the wrong side, in units of the size of its own terms."""
    side = np.where(bits, 1.0, -1.0)
    size = np.abs(x) @ np.abs(plane[:-1]) + abs(plane[-1])
    return float((side * (x @ plane[:-1] + plane[-1]) / size).min())
