"""Scattering front ends of hard steps, and frozen networks behind them, drawn over all that freezing takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import hardstep as hs
from hardstep.hardnet import HardNet
from hardstep.parts import Samples
from hardstep.scattering_front import ScatteringFront, feature_codes

UNIT = 1 / 255
STEPS: tuple[tuple[Any, ...], ...] = (
    (hs.HardStep(),),
    (hs.HardStep(), hs.HardStep(2)),
    (hs.HardStep((5, 100), edges=True), hs.HardStep(-3)),
)
MIXED: tuple[tuple[Any, ...], ...] = (
    (hs.MODULUS, hs.HardStep((300, 90))),
    (hs.HardStep(), hs.RECTIFIED),
    (hs.RECTIFIED, hs.HardStep(40, edges=True)),
)
POOLS = (
    *(hs.Subsample(), hs.Subsample(2), hs.MaxPool(2), hs.MaxPool(1, 3), hs.MaxPool(2, 1)),
    *(hs.MeanPool(2), hs.MeanPool(2, 3)),
)


def scattering(generator: np.random.Generator) -> hs.Scattering:
    """A scattering network in whole numbers; sums of bi-orthogonal wavelets leave 32 bits but behind steps."""
    mixed = bool(generator.integers(2))
    activations = (STEPS + MIXED)[generator.integers(6)] if mixed else STEPS[generator.integers(3)]
    frame = hs.haar(2) if mixed else (hs.haar(2), hs.biorthogonal(2))[generator.integers(2)]
    layers = [hs.ScatteringLayer(frame, each, POOLS[generator.integers(len(POOLS))]) for each in activations]
    every = int(generator.integers(1, 3))
    total = int(np.prod([layer.pooling.stride for layer in layers])) * every
    reflect = total * int(generator.integers(2)) if total < 8 else 0
    return hs.Scattering((8, 16), layers, frame, output_stride=every, reflect=reflect)


def front(generator: np.random.Generator) -> ScatteringFront:
    """A front end for images that its network's size goes beyond; half of them compute some paths alone."""
    net = scattering(generator)
    if generator.integers(2):
        paths = [path for level in net.levels for path in level.paths]
        net = net.restricted({paths[i] for i in generator.choice(len(paths), min(3, len(paths)), replace=False)})
    shape = (int(generator.integers(1, 3)), int(generator.integers(6, 9)), int(generator.integers(13, 17)))
    count = feature_codes(net, torch.zeros(1, shape[0], 8, 16)).shape[1]
    columns = torch.from_numpy(generator.choice(count, min(count, 40), replace=False))
    mean = torch.from_numpy(generator.integers(0, 99, len(columns)).astype(np.float64))
    scale = torch.from_numpy(generator.choice([1.0, 2.0, 4.0], len(columns)))
    return ScatteringFront(net, shape, columns, mean, scale, unit=UNIT)


def images(generator: np.random.Generator, shape: tuple[int, ...], rows: int) -> NDArray[np.uint8]:
    """8-bit images: noise, flat regions, the least and the largest codes, checks."""
    x = generator.integers(0, 256, (rows, *shape)).astype(np.uint8)
    x[: rows // 2, :, : shape[1] // 2] = 127
    x[0], x[-1], x[rows // 2, :, ::2, ::2] = 0, 255, 255
    x[rows // 4] = 255 * (x[rows // 4] > 99)
    return x


def joined(seed: int) -> tuple[nn.Sequential, HardNet]:
    """A front end and a network of whole weights behind it, as a module and frozen: nothing is rounded."""
    generator = np.random.default_rng(seed)
    first = front(generator)
    wide = len(first.columns)
    net = hs.nets.mlp(wide, 20, 9, 4, norm=False)
    with torch.no_grad():
        for i, module in enumerate(module for module in net if isinstance(module, nn.Linear)):
            module.weight.copy_(torch.from_numpy(generator.integers(-3, 4, module.weight.shape)))
            module.bias.copy_(torch.from_numpy(generator.integers(-9, 9, module.bias.shape) + (0.0 if i == 2 else 0.5)))
            if i == 0:
                module.weight.mul_(first.affine[1].float())
    whole = nn.Sequential(first, *net)
    x = images(generator, first.image_shape, 40)
    part = Samples(torch.from_numpy(x), torch.zeros(40, dtype=torch.long), hs.Grid(UNIT, 0))
    return whole, hs.freeze(whole, calibrate=part)
