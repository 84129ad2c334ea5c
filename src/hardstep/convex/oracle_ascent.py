"""Batched ascent on softened patterns: many half-spaces at once for large data, without any proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Float64

from hardstep.convex.oracles import Found, Oracle, Search, checked_weights, ranked
from hardstep.convex.patterns import checked_rows

__all__ = ["BatchedAscent"]

RESCALED = 5  # steps between two measurements of the spread of the projections


@dataclass(frozen=True)
class BatchedAscent(Oracle):
    """Let random half-spaces climb towards large |V'd|_2, all of a round in the same matrix products.

    Each half-space k gets a fixed random unit vector u_k of the outputs and maximises u_k' V' s(X w_k + b_k) over a
    sample of rows, where s(z) = 1/(1 + exp(-z/T)) softens the step and T falls with the steps. A step moves w_k along
    its gradient by a share of its own length that falls too, and b_k likewise; every fifth step brings the
    projections back to unit spread, so that T and the lengths mean the same for all. The start is Gaussian, through a
    row. Climbing |V's|_2 itself reaches higher scores but sends all half-spaces of a round to the same few places;
    the fixed u_k keep them apart, and a round of apart ones lowers the objective more.

    The bits and scores of what is found are those of all rows, without softening. There is no bound: the kind is
    `heuristic`.

    Parameters
    ----------
    rows
        Rows of a round's sample; all where there are fewer.
    steps
        Steps of the ascent.
    lengths
        First and last length of a step, as a share of the length of w_k.
    temperatures
        First and last T, as shares of the spread of the projections.
    scaling
        Features are divided by their standard deviation to this power: 1 makes the search blind to units, 0 takes
        them as they are.

    Raises
    ------
    ValueError
        If a count or length is not positive, or the scaling is not in [0, 1].

    References
    ----------
    Bengio et al. 2005 [bengio2005], units inserted one by one by a weighted linear classifier. Differs: many at
    once, kept apart by random directions of the outputs.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> x = generator.standard_normal((300, 5))
    >>> v = np.where(x @ np.ones(5) > 1, 1.0, -1.0)[:, None]
    >>> found = BatchedAscent().prepare(x).find(v, 20, generator)
    >>> bool(found.scores[0] > 0.9 * (v > 0).sum()), found.bound
    (True, inf)
    """

    rows: int = 10_000
    steps: int = 25
    lengths: tuple[float, float] = (0.25, 0.08)
    temperatures: tuple[float, float] = (0.6, 0.15)
    scaling: float = 0.0

    kind: ClassVar[str] = "heuristic"
    exact: ClassVar[bool] = False
    proves: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("rows", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is a count and must be at least 1, got {getattr(self, name)}")
        for name in ("lengths", "temperatures"):
            if not min(getattr(self, name)) > 0:
                raise ValueError(f"{name} must be positive, first and last, got {getattr(self, name)}")
        if not 0 <= self.scaling <= 1:
            raise ValueError(f"scaling is the power of the standard deviation, in [0, 1], got {self.scaling}")

    def prepare(self, x: Float64[np.ndarray, "n d"]) -> Search:
        """Centre and scale the features."""
        checked_rows(x)
        centre, spread = x.mean(axis=0), x.std(axis=0)
        scale = np.where(spread > 0, spread, 1.0) ** -self.scaling
        return _Search(self, x, centre, scale)

    def schedule(self, step: int) -> tuple[float, float]:
        """Return length and temperature of a step, both falling geometrically."""
        done = step / max(1, self.steps - 1)
        length, temperature = (first * (last / first) ** done for first, last in (self.lengths, self.temperatures))
        return length, temperature


@dataclass(frozen=True, eq=False)
class _Search(Search):
    """The ascent on one data matrix: climbed in float32 on centred and scaled rows, judged in float64 on the rows."""

    oracle: BatchedAscent
    x: Float64[np.ndarray, "n d"]
    centre: Float64[np.ndarray, " d"]
    scale: Float64[np.ndarray, " d"]

    def find(self, v: Float64[np.ndarray, "n c"], count: int, generator: np.random.Generator) -> Found:
        """Return what `count` half-spaces climbed to."""
        checked_weights(v, len(self.x), count)
        size = min(self.oracle.rows, len(self.x))
        sample = np.sort(generator.choice(len(self.x), size, replace=False)) if size < len(self.x) else slice(None)
        rows = ((self.x[sample] - self.centre) * self.scale).astype(np.float32)
        largest = np.abs(v).max(initial=0.0)
        weights = (v[sample] / (largest or 1.0)).astype(np.float32)
        w, b = self._climb(rows, weights, count, generator)
        normals = w.astype(np.float64) * self.scale[:, None]
        planes = np.concatenate([normals, (b - self.centre @ normals)[None]]).T
        return ranked(self.x, np.ascontiguousarray(planes), v, count, np.inf)

    def _climb(
        self,
        x: Float32[np.ndarray, "m d"],
        v: Float32[np.ndarray, "m c"],
        count: int,
        generator: np.random.Generator,
    ) -> tuple[Float32[np.ndarray, "d k"], Float32[np.ndarray, " k"]]:
        """Return normals and biases after the ascent."""
        towards = generator.standard_normal((v.shape[1], count)).astype(np.float32)
        pull = v @ (towards / np.linalg.norm(towards, axis=0))  # of each row on each half-space
        w = generator.standard_normal((x.shape[1], count)).astype(np.float32)
        b = -(x[generator.integers(0, len(x), count)] * w.T).sum(axis=1)
        tiny = np.finfo(np.float32).tiny
        for step in range(self.oracle.steps):
            length, temperature = self.oracle.schedule(step)
            z = x @ w
            if step % RESCALED == 0:
                spread = z.std(axis=0)
                spread[~(spread > 0)] = 1.0
                w, b, z = w / spread, b / spread, z / spread
            z += b
            z *= 0.5 / temperature
            np.tanh(z, out=z)
            np.multiply(z, z, out=z)
            np.subtract(1.0, z, out=z)  # the slope of s, but for a factor
            z *= pull
            up, shift = x.T @ z, z.sum(axis=0)
            steep = np.linalg.norm(up, axis=0) + tiny
            w = w + up * (length * np.linalg.norm(w, axis=0) / steep)
            b = b + 0.5 * length * shift / (np.abs(shift) + steep)
        return w, b
