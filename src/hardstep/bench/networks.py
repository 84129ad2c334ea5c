"""A whole frozen network as a task, the user's own or one drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hardstep.bench.cases import Draw, binary
from hardstep.bench.peer import UnsuitedError
from hardstep.grid import Grid
from hardstep.hard_layers import Conv, Dense, Flatten, Layer, Pool, convolve, exact_product
from hardstep.hardnet import HardNet
from hardstep.lowered import Sums, lower

__all__ = ["Network", "made_network"]

POOL = Pool((2, 2), (2, 2))


@dataclass(frozen=True, eq=False)
class Network:
    """A frozen network and the codes (n, *shape) it reads."""

    hard: HardNet
    x: NDArray[np.uint8]

    @cached_property
    def sums(self) -> NDArray[np.int64]:
        """The right scores, (n, k)."""
        return self.hard(self.x)

    @cached_property
    def layers(self) -> tuple[Sums | Pool, ...]:
        """The network as sums over codes; UnsuitedError where it has no such form, as with real sums."""
        try:
            return lower(self.hard)
        except ValueError as error:
            raise UnsuitedError(str(error)) from error

    @property
    def bias(self) -> NDArray[np.int64]:
        """What the read-out adds to its sums; no peer adds it, it is not worth an operator."""
        *_, last = (layer for layer in self.layers if isinstance(layer, Sums))
        return last.bias

    @property
    def operations(self) -> int:
        """Multiplications and additions of one forward, counted apart."""
        return 2 * len(self.x) * self.hard.macs


def made_network(
    shape: tuple[int, ...], convs: tuple[int, ...], denses: tuple[int, ...], *, draw: Draw = binary, seed: int = 0
) -> HardNet:
    """A network drawn at random, 3x3 convolutions with a pooling after every second, thresholds at medians of sums.

    Examples
    --------
    >>> made_network((1, 4, 4), (3, 5), (2,)).macs
    2632
    """
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 256, (16, *shape)).astype(np.uint8)
    layers: list[Layer] = []

    def add(layer: Layer) -> NDArray[np.uint8]:
        layers.append(layer)
        given: NDArray[np.uint8] = layer.run(codes, exact_product)
        return given

    for i, units in enumerate(convs):
        weight = draw(generator, (units, codes.shape[1], 3, 3)).astype(np.int8)
        sums = convolve(codes.astype(np.int64), weight, (1, 1), (1, 1))
        codes = add(Conv(weight, _medians(sums), padding=(1, 1)))
        if i % 2:
            codes = add(POOL)
    if convs:
        codes = add(Flatten())
    for units in denses[:-1]:
        weight = draw(generator, (units, codes.shape[1])).astype(np.int8)
        codes = add(Dense(weight, _medians(exact_product(codes.astype(np.int64), weight))))
    layers.append(Dense(draw(generator, (denses[-1], codes.shape[1])).astype(np.int8), None))
    return HardNet(shape, Grid(1.0, 0), tuple(layers))


def _medians(sums: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the median of the sums of each unit, rounded down, as its only threshold."""
    median = np.median(np.moveaxis(sums, 1, 0).reshape(sums.shape[1], -1), axis=1)
    thresholds: NDArray[np.int64] = np.floor(median).astype(np.int64)[:, None]
    return thresholds
