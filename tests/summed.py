"""Drawn networks with real sums, for tests of what runs them."""

from __future__ import annotations

import numpy as np

import hardstep as hs
from hardstep.hard_layers import Conv, Encoding, Flatten, Layer, Pool
from hardstep.hard_sums import Bent, Carried, Clip, Rescaled, Residual, Threshold, Windows
from hardstep.hardnet import HardNet


def summed(seed: int) -> HardNet:
    """Every layer kind with sizes, strides, paddings and numbers of its own; sums of 16, 32 and 64 bits."""
    generator = np.random.default_rng(seed)
    draw = generator.integers
    c, k, stairs = (int(n) for n in draw(1, [4, 8, 4]))
    shape = given = (c, int(draw(5, 9)), int(draw(5, 9)))

    def pair(low: int, high: int) -> tuple[int, int]:
        return int(draw(low, high)), int(draw(low, high))

    shift, most = int(draw(0, 40)), 2 ** int(draw(3, 12))
    codes = Encoding(draw(1, 3, (c, 1, 1)), draw(0, 256, (c, 1, 1)))
    bounds = np.sort(draw(-5000, 5000, (k, 2)), axis=1) if draw(2) else None
    weight, multiplier = draw(-most, most, (k, c, *pair(1, 4))), draw(-(2**shift), 2**shift + 1, k) >> 8
    offset = draw(0, 2**shift + 1, k)
    first = Rescaled(weight, multiplier, offset, shift, bounds, codes, pair(1, 4), pair(0, 4))
    steps = Threshold(np.sort(draw(-3000, 3000, (k, stairs)), axis=1))
    signs = Encoding(np.array(2), np.array(stairs))
    hidden = Conv(draw(-4, 5, (k, k, 1, 1)), np.sort(draw(-9, 9, (k, 2)), axis=1), signs)
    sums = Rescaled(draw(-3, 4, (k, k, 3, 3)), draw(-9, 9, k), draw(-9, 9, k), 1, stride=(1, 1), padding=(1, 1))
    bent = Bent(draw(-3000, 3000, k), draw(-(2**20), 2**20, k), int(draw(20, 31)), draw(-3000, 3000, k))
    layers: list[Layer] = [first, Residual((steps, Pool((1, 1), (1, 1)), hidden, sums), ()), bent, Clip(-4000, 3500)]
    layers.append(Residual((bent, bent), (Clip(-50, 9), Carried(1, (0, 0)))))
    _, high, wide = first.out_shape(shape)
    size = int(draw(1, 1 + min(3, high))), int(draw(1, 1 + min(3, wide)))
    layers.append(Windows(size, pair(1, 4), (*pair(0, 3), *pair(0, 3)), total=bool(draw(2))))
    layers += [Carried(int(draw(1, 3)), pair(0, 3)), Flatten()]
    for layer in layers:
        shape = layer.out_shape(shape)
    last = Rescaled(draw(-(2**15), 2**15, (5, shape[0])), draw(-9, 9, 5), draw(-99, 99, 5), 16)
    return HardNet(given, hs.Grid(1.0, 0), (*layers, last))
