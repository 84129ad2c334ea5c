"""The columns that a solver holds: numbers, packed bits and Gram matrix, centred where the intercept is free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from hardstep.convex.bit_matrix import BitMatrix

__all__ = ["WorkingSet"]


@dataclass(frozen=True, eq=False)
class WorkingSet:
    """Hold some columns of a design with their Gram matrix, so that sweeps over them cost nothing that grows with n.

    Parameters
    ----------
    columns
        Their numbers in the design.
    bits
        The columns themselves.
    gram
        D'D; with `centred` that of the columns minus their means.
    centred
        Whether the intercept is free: then it is minimised out by centring.

    Examples
    --------
    >>> design = BitMatrix.from_bools(np.array([[True, False], [True, True], [False, True], [False, False]]))
    >>> WorkingSet.empty(design, centred=True).grown(design, np.array([1, 0])).gram
    array([[1., 0.],
           [0., 1.]])
    """

    columns: Int64[np.ndarray, " w"]
    bits: BitMatrix
    gram: Float64[np.ndarray, "w w"]
    centred: bool

    @classmethod
    def empty(cls, design: BitMatrix, *, centred: bool) -> WorkingSet:
        """Hold nothing yet."""
        none = np.zeros(0, np.int64)
        return cls(none, design.take(none), np.zeros((0, 0)), centred)

    def grown(self, design: BitMatrix, columns: Int64[np.ndarray, " q"]) -> WorkingSet:
        """Return this set with further columns behind; only their products are computed."""
        if not len(columns):
            return self
        old, new = self.bits, design.take(columns)
        side, corner = self._centre(old.gram(new), old, new), self._centre(new.gram(), new, new)
        w, q = len(self.columns), len(columns)
        gram = np.empty((w + q, w + q))
        gram[:w, :w], gram[:w, w:], gram[w:, :w], gram[w:, w:] = self.gram, side, side.T, corner
        return WorkingSet(np.concatenate([self.columns, columns]), old.hstack(new), gram, self.centred)

    def kept(self, places: Int64[np.ndarray, " q"]) -> WorkingSet:
        """Return this set with the columns at these places only."""
        gram = np.ascontiguousarray(self.gram[np.ix_(places, places)])
        return WorkingSet(self.columns[places], self.bits.take(places), gram, self.centred)

    def renumbered(self, kept: Int64[np.ndarray, " p"]) -> WorkingSet:
        """Return this set for a design that has the columns `kept` of the old one, in this order."""
        order = np.argsort(kept)
        spot = np.searchsorted(kept, self.columns, sorter=order).clip(0, max(len(kept) - 1, 0))
        numbers = order[spot] if len(kept) else np.zeros(len(self.columns), np.int64)
        there = np.flatnonzero(kept[numbers] == self.columns) if len(kept) else np.zeros(0, np.int64)
        held = self.kept(there)
        return WorkingSet(numbers[there].astype(np.int64), held.bits, held.gram, self.centred)

    def push(self, u: Float64[np.ndarray, "w c"]) -> Float64[np.ndarray, "n c"]:
        """Return D U, centred where the columns are."""
        f = self.bits.push(u)
        centred: Float64[np.ndarray, "n c"] = f - f.mean(axis=0) if self.centred else f
        return centred

    def _centre(self, gram: np.ndarray, left: BitMatrix, right: BitMatrix) -> np.ndarray:
        """Take the product of the means off."""
        return gram - np.outer(left.counts(), right.counts() / self.bits.rows) if self.centred else gram
