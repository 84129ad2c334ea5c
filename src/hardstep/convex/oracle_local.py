"""Local search over hyperplanes: exact line searches from many starts. A heuristic, never a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from hardstep.convex.oracles import Found, Oracle, Search, checked_weights, ranked
from hardstep.convex.patterns import checked_rows

__all__ = ["LocalSearch"]

SAMPLE = 4096  # rows that a start is fitted to
BLOCK = 1 << 20  # numbers of a line search at a time


@dataclass(frozen=True)
class LocalSearch(Oracle):
    """Search max_d |V'd|_2 over all hyperplanes by coordinate and random line searches, without any bound.

    Chain k starts from a weighted logistic regression of sign(V u_k) with weights |V u_k|, u_k a random unit vector and
    every other chain's weights perturbed, or from a random plane through a row. Along a direction g the bits of
    w + a g change at a = -x.w/x.g only: sorting them and adding up gives the best a exactly, O(n log n). Directions are
    every coordinate and as many random ones, until a round gains nothing.

    Parameters
    ----------
    chains
        Starts that climb side by side.
    rounds
        At most so many rounds over the directions.

    Raises
    ------
    ValueError
        If a count is not positive.

    References
    ----------
    Bengio et al. 2005 [bengio2005], units found by a weighted linear classifier. Differs: climbs on the score itself
    afterwards.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> x = generator.normal(size=(60, 6))
    >>> v = np.where(x.sum(axis=1) > 0.2, 1.0, -1.0)[:, None]
    >>> found = LocalSearch().prepare(x).find(v, 3, generator)
    >>> bool(found.scores[0] == max((v > 0).sum(), (v < 0).sum())), found.bound
    (True, inf)
    """

    kind: ClassVar[str] = "heuristic"
    exact: ClassVar[bool] = False
    proves: ClassVar[bool] = False
    chains: int = 24
    rounds: int = 6

    def __post_init__(self) -> None:
        for name in ("chains", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is a count and must be at least 1, got {getattr(self, name)}")

    def prepare(self, x: Float64[np.ndarray, "n d"]) -> Search:
        """Standardise the features and add the bias column."""
        x = checked_rows(x)
        centre, scale = x.mean(axis=0), x.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        h = np.concatenate([(x - centre) / scale, np.ones((len(x), 1))], axis=1)
        return _LocalSearch(self, x, h, centre, scale)


@dataclass(frozen=True, eq=False)
class _LocalSearch(Search):
    """Standardised rows with a bias column, and how to map planes back."""

    oracle: LocalSearch
    x: Float64[np.ndarray, "n d"]
    h: Float64[np.ndarray, "n d1"]
    centre: Float64[np.ndarray, " d"]
    scale: Float64[np.ndarray, " d"]

    def find(self, v: Float64[np.ndarray, "n c"], count: int, generator: np.random.Generator) -> Found:
        """Return where the chains came, and planes they passed in their last two rounds."""
        v = checked_weights(v, len(self.x), count)
        planes = self._starts(v, generator)
        passed = [planes]
        reached = np.linalg.norm(v.T @ (self.h @ planes.T > 0), axis=0)
        for _ in range(self.oracle.rounds):
            for direction in self._directions(generator):
                planes = self._searched(planes, direction, v)
            passed.append(planes)
            scores = np.linalg.norm(v.T @ (self.h @ planes.T > 0), axis=0)
            if not (scores > reached * (1 + 1e-12)).any():
                break
            reached = np.maximum(scores, reached)
        standard = np.concatenate(passed[-3:])
        weight = standard[:, :-1] / self.scale
        mapped = np.concatenate([weight, (standard[:, -1] - weight @ self.centre)[:, None]], axis=1)
        return ranked(self.x, mapped, v, count, np.inf)

    def _directions(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """Return every coordinate and as many random directions, shuffled; at most 400."""
        width = self.h.shape[1]
        random = generator.standard_normal((min(width, 200), width)) / np.sqrt(width)
        both = np.concatenate([np.eye(width)[generator.permutation(width)[:200]], random])
        return generator.permutation(both)

    def _searched(
        self, planes: NDArray[np.float64], direction: NDArray[np.float64], v: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return every plane at its best place along a direction; where it is unless that is better."""
        c = v.shape[1]
        slope = self.h @ direction
        heights = self.h @ planes.T  # (n, chains)
        moving = np.flatnonzero(slope)
        step = max(1, BLOCK // (max(1, len(moving)) * c))
        best = planes.copy()
        for start in range(0, len(planes) if len(moving) else 0, step):
            part = slice(start, start + step)
            at = -heights[moving, part].T / slope[moving]
            order = np.argsort(at, axis=1)
            at = np.take_along_axis(at, order, axis=1)
            # far to the left the bits are those of -slope; rows that do not move keep theirs
            first = v[moving[slope[moving] < 0]].sum(axis=0)
            still = slope == 0
            base = first + (heights[still, part] > 0).T @ v[still]  # (chains, c)
            square = np.zeros(at.shape)
            signed = (v * np.sign(slope)[:, None])[moving]
            for k in range(c):
                sums = np.cumsum(signed[order, k], axis=1) + base[:, k, None]
                square += sums * sums
            square[:, :-1][at[:, 1:] == at[:, :-1]] = -1.0  # several change at once
            place = square.argmax(axis=1)
            rows = np.arange(len(at))
            here = (((heights[:, part] > 0).T @ v) ** 2).sum(axis=1)
            left, right = at[rows, place], at[rows, np.minimum(place + 1, at.shape[1] - 1)]
            move = np.where(place + 1 < at.shape[1], left / 2 + right / 2, left + 1.0)
            gain = square[rows, place] > here * (1 + 1e-12)
            best[part] += np.where(gain, move, 0.0)[:, None] * direction
        length = np.linalg.norm(best, axis=1, keepdims=True)
        return best / np.where(length > 0, length, 1.0)

    def _starts(self, v: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
        """Return half the chains' planes from logistic regressions, half from random planes through rows."""
        n, width = self.h.shape
        chains = self.oracle.chains
        random = generator.standard_normal((chains, width))
        random[:, -1] = -(random[:, :-1] * self.h[generator.integers(0, n, chains), :-1]).sum(axis=1)
        rows = generator.choice(n, SAMPLE, replace=False) if n > SAMPLE else np.arange(n)
        for chain in range(0, chains, 2):
            towards = generator.standard_normal(v.shape[1])
            pull = v[rows] @ (towards / np.linalg.norm(towards))
            if chain:
                pull = pull * generator.exponential(size=len(rows))
            random[chain] = _logistic(self.h[rows], pull, random[chain])
        return random


def _logistic(h: NDArray[np.float64], pull: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return five Newton steps of min_w sum |p| log(1 + exp(-sign(p) h.w)) + small |w|²/2; the start if p = 0."""
    weight, side = np.abs(pull), np.sign(pull)
    if not weight.any():
        return start
    ridge = 1e-3 * weight.sum()
    w = np.zeros(h.shape[1])
    for _ in range(5):
        p = 1 / (1 + np.exp(np.clip(side * (h @ w), -30, 30)))
        curve = weight * np.maximum(p * (1 - p), 1e-6)
        gradient = h.T @ (weight * side * p) - ridge * w
        w = w + np.linalg.solve((h.T * curve) @ h + ridge * np.eye(len(w)), gradient)
    return w if w.any() else start
