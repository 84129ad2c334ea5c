"""Sliding: all half-spaces of a program move a little at once, along their own amplitudes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from hardstep.convex.data_terms import DataTerm

__all__ = ["Rows", "Sliding"]

Array = NDArray[Any]
SPREAD = 4096  # rows on which the spread of the projections is measured


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a program and how their work is shared: by default all of it is done here.

    Parameters
    ----------
    x
        The rows, minus `centre`; float32 or float64, the precision of the moves.
    y
        Targets.
    centre
        What was subtracted from the rows.
    rank, ranks
        Of each batch, rows rank, rank + ranks, ... are handled here.
    add
        Sums an array over all ranks.
    """

    x: Array
    y: Float64[np.ndarray, "n c"]
    centre: Float64[np.ndarray, " d"]
    rank: int = 0
    ranks: int = 1
    add: Callable[[Array], Array] = lambda part: part

    @classmethod
    def centred(cls, x: Float64[np.ndarray, "n d"], y: Float64[np.ndarray, "n c"], dtype: type[np.floating]) -> Rows:
        """Return rows that are worked on here alone."""
        centre = x.mean(axis=0)
        return cls((x - centre).astype(dtype), y, centre)


@dataclass(frozen=True)
class Sliding:
    """Move all half-spaces w_j at fixed amplitudes u_j, batch by batch, to where their bits lower the loss.

    One pass goes once over the rows. In each batch, with V = -gradient of the loss at the true bits, half-space j moves
    up the slope of sum_i <V_i, u_j> s(z_ij), s(z) = 1/(1 + exp(-z/T)) a softened step and z_ij its projection of row
    i in units of their spread; the length of a move is a share of |w_j|. Only the direction of the move is softened;
    whoever calls solves for the amplitudes again on the true bits, and takes the move back where the objective rose.

    Parameters
    ----------
    length
        Length of the first moves, as a share of |w_j|; 0 keeps the half-spaces where they are.
    temperature
        T, as a share of the spread of the projections.
    momentum
        Share of the last move that is kept, in [0, 1).
    batch_size
        Rows between two moves.

    Raises
    ------
    ValueError
        If a setting is out of range.

    References
    ----------
    Boyd, Schiebinger, Recht 2017 [boyd2017] and Denoyelle et al. 2019 [denoyelle2019]: after each insertion, local
    descent on what was inserted. Differs: steps have no derivative, so a softened one gives the direction and the
    objective on true bits decides.

    Examples
    --------
    >>> from hardstep.convex.data_terms import Squared
    >>> x = np.linspace(-1, 1, 200)[:, None]
    >>> rows = Rows.centred(x, (x > 0.3).astype(float), np.float64)
    >>> start = np.array([[1.0, 0.0]])
    >>> moved = Sliding(batch_size=20).run(rows, start, np.ones((1, 1)), np.zeros(1), Squared(), 1.0,
    ...                                    np.random.default_rng(0))
    >>> bool(0.2 < -moved[0, 1] / moved[0, 0] < 0.4)
    True
    """

    length: float = 0.15
    temperature: float = 0.15
    momentum: float = 0.9
    batch_size: int = 2000

    def __post_init__(self) -> None:
        if not 0 <= self.length < 1:
            raise ValueError(f"length is a share of a half-space's own length, in [0, 1), got {self.length}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum lies in [0, 1), got {self.momentum}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def run(
        self,
        rows: Rows,
        planes: Float64[np.ndarray, "p d1"],
        u: Float64[np.ndarray, "p c"],
        intercept: Float64[np.ndarray, " c"],
        term: DataTerm,
        share: float,
        generator: np.random.Generator,
    ) -> Float64[np.ndarray, "p d1"]:
        """Return the half-spaces after one pass, with `share` of the first length."""
        kind = rows.x.dtype
        probe = rows.x[:: max(1, len(rows.x) // SPREAD)]
        spread = (probe @ planes[:, :-1].T.astype(kind)).std(axis=0)
        planes = planes / np.where(spread > 0, spread, 1.0)[:, None]
        w = np.ascontiguousarray(planes[:, :-1].T).astype(kind)
        b = (planes[:, -1] + planes[:, :-1] @ rows.centre).astype(kind)
        size = np.linalg.norm(u, axis=1)
        towards = (u / np.where(size > 0, size, 1.0)[:, None]).T.astype(kind)
        moves, shifts = np.zeros_like(w), np.zeros_like(b)
        length = share * self.length * (1 - self.momentum)
        batches = max(1, len(rows.x) // self.batch_size)
        for batch in np.array_split(generator.permutation(len(rows.x)), batches):
            up, shift = self._slopes(rows, batch, (w, b), (u, intercept), term, towards)
            steep = np.linalg.norm(up, axis=0) + np.finfo(kind).tiny
            moves = self.momentum * moves + up * (np.linalg.norm(w, axis=0) / steep)
            shifts = self.momentum * shifts + 0.5 * shift / (np.abs(shift) + steep)
            w, b = w + length * moves, b + length * shifts
        normals = w.T.astype(np.float64)
        return np.concatenate([normals, (b - normals @ rows.centre)[:, None]], axis=1)

    def _slopes(
        self,
        rows: Rows,
        batch: Int64[np.ndarray, " m"],
        planes: tuple[Array, Array],
        readout: tuple[Array, Array],
        term: DataTerm,
        towards: Array,
    ) -> tuple[Array, Array]:
        """Return the slopes of the softened objectives in normals and biases, summed over all ranks."""
        mine = np.sort(batch[rows.rank :: rows.ranks])
        x = rows.x[mine]
        z = x @ planes[0] + planes[1]
        out = (z > 0).astype(z.dtype) @ readout[0].astype(z.dtype) + readout[1]
        v = term.residual(out.astype(np.float64), rows.y[mine]).astype(z.dtype)
        z *= 0.5 / self.temperature
        np.tanh(z, out=z)
        np.multiply(z, z, out=z)
        np.subtract(1.0, z, out=z)  # the slope of s, but for a factor
        z *= v @ towards
        slopes = rows.add(np.concatenate([x.T @ z, z.sum(axis=0)[None]]))
        return slopes[:-1], slopes[-1]
