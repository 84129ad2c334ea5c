"""The columns of a restricted program: half-spaces, their packed patterns and amplitudes, without duplicates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from hardstep.convex.bit_matrix import BitMatrix
from hardstep.convex.patterns import pattern_keys

__all__ = ["Pool"]


@dataclass(frozen=True, eq=False)
class Pool:
    """The half-spaces held by a column generation, each with a pattern of its own.

    With a free intercept a pattern and its complement are one column too many, and so is a constant one: it adds
    nothing that amplitudes and intercept cannot do for less.

    Parameters
    ----------
    planes
        The hyperplanes, bias last.
    design
        Their patterns on the data.
    u
        The amplitudes, one row a half-space.
    intercept
        Output where no half-space is on.
    idle
        For how many rounds each column was 0 and far below its price.

    Examples
    --------
    >>> pool = Pool.empty(rows=3, inputs=1, outputs=1)
    >>> bits = np.array([[0, 1, 1], [0, 1, 1], [1, 0, 1]], bool)
    >>> pool = pool.admit(np.array([[1.0, -0.5], [-1.0, 0.5], [1.0, 0.0]]), bits)
    >>> pool.planes, pool.design.shape
    (array([[ 1. , -0.5]]), (3, 1))
    """

    planes: Float64[np.ndarray, "p d1"]
    design: BitMatrix
    u: Float64[np.ndarray, "p c"]
    intercept: Float64[np.ndarray, " c"]
    idle: Int64[np.ndarray, " p"]

    @classmethod
    def empty(cls, *, rows: int, inputs: int, outputs: int) -> Pool:
        """Return a pool without half-spaces."""
        design = BitMatrix.from_bools(np.zeros((rows, 0), bool))
        return cls(np.zeros((0, inputs + 1)), design, np.zeros((0, outputs)), np.zeros(outputs), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.planes)

    @property
    def active(self) -> Bool[np.ndarray, " p"]:
        """Which half-spaces have an amplitude."""
        return np.asarray(self.u.any(axis=1))

    @property
    def weight(self) -> Float64[np.ndarray, " p"]:
        """How much each half-space moves the outputs: |u_j| times the standard deviation of its bit."""
        share = self.design.counts() / max(1, self.design.shape[0])
        size: Float64[np.ndarray, " p"] = np.linalg.norm(self.u, axis=1) * np.sqrt(share * (1 - share))
        return size

    def outputs(self) -> Float64[np.ndarray, "n c"]:
        """Return D U + b."""
        out: Float64[np.ndarray, "n c"] = self.design.push(self.u) + self.intercept
        return out

    def admit(self, planes: Float64[np.ndarray, "k d1"], bits: Bool[np.ndarray, "n k"]) -> Pool:
        """Add the half-spaces whose patterns are new, with amplitude 0."""
        empty = np.zeros((len(bits), 1), bool)
        seen = set(pattern_keys(np.concatenate([self.design.unpack(), empty], axis=1), complements=True))
        fresh = []
        for index, key in enumerate(pattern_keys(bits, complements=True)):
            if key not in seen:
                seen.add(key)
                fresh.append(index)
        return Pool(
            np.concatenate([self.planes, planes[fresh]]),
            self.design.hstack(BitMatrix.from_bools(bits[:, fresh])),
            np.concatenate([self.u, np.zeros((len(fresh), self.u.shape[1]))]),
            self.intercept,
            np.concatenate([self.idle, np.zeros(len(fresh), np.int64)]),
        )

    def keep(self, kept: Bool[np.ndarray, " p"]) -> Pool:
        """Return the pool with these half-spaces only."""
        return Pool(self.planes[kept], self.design.take(kept), self.u[kept], self.intercept, self.idle[kept])

    def heaviest(self, count: int) -> Pool:
        """Return the pool with the `count` half-spaces that move the outputs most, in their old order."""
        kept = np.zeros(len(self), bool)
        kept[np.argsort(-self.weight, kind="stable")[:count]] = True
        return self.keep(kept)

    def solved(self, u: Float64[np.ndarray, "p c"], intercept: Float64[np.ndarray, " c"]) -> Pool:
        """Return the pool with other amplitudes."""
        return replace(self, u=u, intercept=intercept)

    def aged(self, scores: Float64[np.ndarray, " p"], price: float, rounds: int) -> Pool:
        """Drop what was 0 and scored below .9 of the price for over `rounds` rounds; keep twice the active ones."""
        used = self.active
        idle = np.where(used | (scores >= 0.9 * price), 0, self.idle + 1)
        spare = len(self) - 2 * int(used.sum())
        longest = np.flatnonzero(idle > rounds)
        longest = longest[np.argsort(-idle[longest], kind="stable")][: max(0, spare)]
        kept = np.ones(len(self), bool)
        kept[longest] = False
        return replace(self, idle=idle).keep(kept)
