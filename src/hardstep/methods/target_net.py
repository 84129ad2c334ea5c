"""A chain of steps seen through its bits: what a unit is worth, what happens above when one of its layers moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray

from hardstep.certify.separability import highest
from hardstep.methods.target_search import Refit

__all__ = ["BitNet", "Place", "Rows", "centred", "correct", "credits"]

NEAR = 1e-7  # where a plane has rows this close to it, relative to the farthest, it is put into their widest gap
KEPT = 20_000  # fits that are remembered


class Place(NamedTuple):
    """A hidden unit."""

    layer: int
    unit: int


@dataclass(frozen=True, eq=False)
class BitNet:
    """Weights (bias last) of every layer, the bits they make on the rows, and the loss of the read-out.

    Parameters
    ----------
    weights
        Of the hidden layers.
    bits
        Of the hidden layers.
    readout
        Weights of the read-out.
    loss
        What the fit of the read-out left.
    """

    weights: tuple[Float64[np.ndarray, "_ _"], ...]
    bits: tuple[Bool[np.ndarray, "n _"], ...]
    readout: Float64[np.ndarray, "k d1"]
    loss: float

    def scores(self) -> Float64[np.ndarray, "n k"]:
        """Return the outputs."""
        return np.asarray(self.bits[-1] @ self.readout[:, :-1].T + self.readout[:, -1])


@dataclass(eq=False)
class Rows:
    """The training rows and their labels, with the fits that were made on them, so that none is made twice."""

    x: Float64[np.ndarray, "n d"]
    y: Int64[np.ndarray, " n"]
    refit: Refit
    kept: dict[bytes, tuple[NDArray[np.float64], float]] = field(default_factory=dict)

    def net(self, weights: Sequence[Float64[np.ndarray, "_ _"]], readout: Float64[np.ndarray, "k d1"]) -> BitNet:
        """Return the network of these hidden layers with a fitted read-out."""
        planes, bits = [], []
        a = self.x
        for layer in weights:
            planes.append(np.stack([centred(a, unit, near=0.0) for unit in layer]))
            bits.append(_bits(a, planes[-1]))
            a = bits[-1].astype(np.float64)
        return BitNet(tuple(planes), tuple(bits), *self.readout(bits[-1], readout))

    def moved(self, net: BitNet, place: Place, targets: Bool[np.ndarray, " n"]) -> BitNet | None:
        """Fit a unit to new targets, then what is above it to what it did; None where no bit of the unit changes.

        Units above are fitted again only where their bits change, towards those bits; fits that are not exact leave
        them as they are. Everything counts as it is realised: what a unit was asked and cannot do is lost.
        """
        layer, unit = place
        below = self._below(net.bits, layer)
        plane = self.unit(below, targets)
        now = _bits(below, plane[None])[:, 0]
        if np.array_equal(now, net.bits[layer][:, unit]):
            return None
        weights, bits = list(net.weights), list(net.bits)
        weights[layer], bits[layer] = weights[layer].copy(), bits[layer].copy()
        weights[layer][unit], bits[layer][:, unit] = plane, now
        for above in range(layer + 1, len(bits)):
            below = self._below(bits, above)
            found = _bits(below, weights[above])
            for j in np.flatnonzero((found != bits[above]).any(axis=0) & self.refit.exact):
                weights[above] = weights[above].copy()
                weights[above][j] = self.unit(below, bits[above][:, j])
            found = _bits(below, weights[above])
            if np.array_equal(found, bits[above]):
                return BitNet(tuple(weights), tuple(bits), net.readout, net.loss)
            bits[above] = found
        return BitNet(tuple(weights), tuple(bits), *self.readout(bits[-1], net.readout))

    def widened(self, net: BitNet) -> BitNet:
        """Return the same bits with more room about every plane."""
        weights = []
        for layer, planes in enumerate(net.weights):
            below = self._below(net.bits, layer)
            weights.append(np.stack([self._wide(below, plane) for plane in planes]))
            if not np.array_equal(_bits(below, weights[-1]), net.bits[layer]):
                weights[-1] = planes
        readout = net.readout
        if correct(net, self.y):
            a = net.bits[-1].astype(np.float64)
            wide = BitNet(tuple(weights), net.bits, self.refit.widen_readout(a, self.y, readout), net.loss)
            return wide if correct(wide, self.y) else BitNet(tuple(weights), net.bits, readout, net.loss)
        return BitNet(tuple(weights), net.bits, readout, net.loss)

    def unit(self, x: Float64[np.ndarray, "n d"], t: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, " d1"]:
        """Return a unit fitted to targets, its plane half-way between rows."""
        key = b"unit" + np.packbits(t).tobytes() + (b"" if x is self.x else np.packbits(x > 0).tobytes())
        if key not in self.kept:
            self._keep(key, centred(x, self.refit.unit(x, t)), 0.0)
        return self.kept[key][0]

    def readout(
        self, bits: Bool[np.ndarray, "n h"], start: Float64[np.ndarray, "k d1"]
    ) -> tuple[Float64[np.ndarray, "k d1"], float]:
        """Return a fitted read-out and its loss."""
        if not self.refit.exact:
            return self.refit.readout(bits.astype(np.float64), self.y, start)
        key = b"read" + np.packbits(bits).tobytes()
        if key not in self.kept:
            self._keep(key, *self.refit.readout(bits.astype(np.float64), self.y, start))
        return self.kept[key]

    def _wide(self, x: NDArray[np.float64], plane: NDArray[np.float64]) -> NDArray[np.float64]:
        pattern = np.packbits(_bits(x, plane[None]))
        key = b"wide" + pattern.tobytes() + (b"" if x is self.x else np.packbits(x > 0).tobytes())
        if key not in self.kept:
            self._keep(key, self.refit.widen(x, plane), 0.0)
        return self.kept[key][0]

    def _keep(self, key: bytes, weights: NDArray[np.float64], loss: float) -> None:
        if len(self.kept) >= KEPT:
            self.kept.pop(next(iter(self.kept)))  # the oldest
        self.kept[key] = weights, loss

    def _below(self, bits: Sequence[NDArray[np.bool_]], layer: int) -> NDArray[np.float64]:
        return bits[layer - 1].astype(np.float64) if layer else self.x


def correct(net: BitNet, y: Int64[np.ndarray, " n"]) -> bool:
    """Return whether every label has the one highest score."""
    return highest(net.scores(), y)


def credits(net: BitNet, y: Int64[np.ndarray, " n"]) -> list[Float64[np.ndarray, "n h"]]:
    """Return what each hidden bit adds to the loss above it: sums of hinges at the read-out, weighted hinges below.

    Below the last layer the targets are minus the signs of the credits above, their weights the sizes, and the layer's
    loss is sum |g| max(0, 1 - t z), t kept where g = 0.

    References
    ----------
    Friesen and Domingos 2018, Sec. 3.1 [friesen2018].

    Examples
    --------
    >>> bits, readout = np.array([[True], [False]]), np.array([[-0.4, 0.0], [0.4, 0.0]])
    >>> net = BitNet((np.zeros((1, 2)),), (bits,), readout, 0.0)
    >>> credits(net, np.array([1, 1]))[0]
    array([[-0.8],
           [-0.8]])
    """
    scores = net.scores()
    rows = np.arange(len(y))
    active = (1 - scores[rows, y][:, None] + scores >= 0).astype(float)
    active[rows, y] = 0
    active[rows, y] = -active.sum(axis=1)
    found = [active @ net.readout[:, :-1]]
    for layer in range(len(net.bits) - 1, 0, -1):
        below, planes, credit = net.bits[layer - 1], net.weights[layer], found[0]
        side = 2.0 * np.where(credit == 0, net.bits[layer], credit < 0) - 1
        heights = below @ planes[:, :-1].T + planes[:, -1]
        found.insert(0, (-side * np.abs(credit) * (side * heights <= 1)) @ planes[:, :-1])
    return found


def centred(
    x: Float64[np.ndarray, "n d"], unit: Float64[np.ndarray, " d1"], near: float = NEAR
) -> Float64[np.ndarray, " d1"]:
    """Move a plane into the middle of the gap between rows that it lies in: bits that rounding could flip get room.

    Where rows lie on the plane, or nearly, the widest gap beside them is taken. A unit that does the same on all rows
    gets weights 0.

    Parameters
    ----------
    near
        What counts as nearly, relative to the farthest row; with 0 every row keeps its bit, also one on the plane.

    Examples
    --------
    >>> centred(np.array([[0.0], [1.0], [4.0]]), np.array([1.0, -1.0]))
    array([ 1. , -2.5])
    """
    heights = np.unique(x @ unit[:-1])
    offset = -unit[-1]
    near = near * max(float(np.abs(heights - offset).max()), 1e-300)
    last = np.searchsorted(heights, offset + near, side="right")
    first = np.searchsorted(heights, offset - near) if near else last
    constant = np.zeros_like(unit)
    constant[-1] = 1.0 if heights[-1] > offset + near else -1.0
    # gaps from the last row that is clearly below to the first that is clearly above
    low, high = max(first - 1, 0), min(last, len(heights) - 1)
    gaps = np.diff(heights[low : high + 1])
    if (first == last and (first == 0 or last == len(heights))) or not len(gaps):
        return constant
    widest = low + int(gaps.argmax())
    if heights[widest + 1] - heights[widest] <= 1e-12 * max(float(np.abs(heights).max()), 1e-300):
        return constant
    moved: NDArray[np.float64] = np.r_[unit[:-1], -(heights[widest] / 2 + heights[widest + 1] / 2)]
    return moved


def _bits(x: NDArray[np.float64], planes: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(x @ planes[:, :-1].T + planes[:, -1] > 0)
