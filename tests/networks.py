"""Frozen networks, by hand and drawn at random over everything a HardNet can hold, and inputs that look for trouble."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import hardstep as hs
from hardstep.hard_layers import Conv, Dense, Encoding, Flatten, Layer, Pool, convolve, exact_product
from hardstep.hardnet import HardNet

WEIGHTS: dict[str, NDArray[np.int64]] = {
    "binary": np.array([-1, 1]),
    "ternary": np.array([-1, 0, 1]),
    "switch": np.array([0, 1]),
    "4-bit": np.arange(-8, 8),
    "8-bit": np.arange(-128, 128),
    "16-bit": np.arange(-(2**15), 2**15, 257),
    "ones": np.array([1]),
    "zeros": np.array([0]),
}
CODES = ("step", "sign", "mixed")
STEP = Encoding()
SIGN = Encoding(np.array(2), np.array(1))


def hard(shape: tuple[int, ...], *layers: Layer) -> HardNet:
    """A network whose inputs are their own codes."""
    return HardNet(shape, hs.Grid(1.0, 0), layers)


def dense(weight: Any, threshold: Any = None, encoding: Encoding = STEP, bias: Any = None) -> Dense:
    """A layer of one stair (or, with a matrix of thresholds, of several); a read-out if it gets no thresholds."""
    rows = np.array(weight, np.int8)
    if threshold is None:
        return Dense(rows, None, encoding, np.zeros(len(rows), np.int64) if bias is None else np.array(bias))
    return Dense(rows, np.array(threshold, np.int64).reshape(len(rows), -1), encoding)


def units(net: HardNet) -> list[int]:
    """The number of units of every layer with weights but the read-out."""
    return [len(layer.weight) for layer in net.layers[:-1] if isinstance(layer, Dense | Conv)]


def encoding(generator: np.random.Generator, kind: str, shape: tuple[int, ...], top: int) -> Encoding:
    """What codes up to `top` are worth; "mixed" is what freezing makes of poolings before negative gains."""
    gain, zero = (2, 1) if kind == "sign" else (1, 0)
    if kind != "mixed":
        return Encoding(np.array(gain), np.array(zero))
    flipped = generator.integers(2, size=(shape[0], *[1] * (len(shape) - 1))).astype(bool)
    return Encoding(np.where(flipped, -gain, gain), np.where(flipped, zero - gain * top, zero))


def weights(generator: np.random.Generator, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Weights of a kind, in the type that freezing would give them."""
    drawn = generator.choice(WEIGHTS[kind], shape)
    return drawn.astype(np.int16 if kind == "16-bit" else np.int8)


def thresholds(generator: np.random.Generator, acc: NDArray[np.int64], stairs: int) -> NDArray[np.int64]:
    """Ascending thresholds for sums (n, units): values that occur (ties), their neighbours, and never or always."""
    n, units = acc.shape
    chosen = acc[generator.integers(n, size=(stairs, units)), np.arange(units)].T + generator.integers(
        -1, 2, (units, 1)
    )
    far = np.abs(acc).max(initial=0) * 3 + 1
    edge = generator.random((units, stairs))
    return np.sort(np.where(edge < 0.05, -far, np.where(edge > 0.95, far, chosen)), axis=1)


def network(
    seed: int,
    *,
    shape: tuple[int, ...] = (12,),
    widths: tuple[int, ...] = (9, 7),
    kinds: tuple[str, ...] = ("8-bit", "binary", "8-bit"),
    codes: tuple[str, ...] = ("step", "sign"),
    stairs: tuple[int, ...] = (1, 1),
    kernel: int = 3,
    stride: int = 1,
    padding: int = 1,
    pool: int = 0,
    outputs: int = 4,
) -> HardNet:
    """A network whose thresholds lie where its sums fall: convolutions while the sample is an image, dense on rows.

    `widths`, `codes` and `stairs` have one entry a hidden layer, `kinds` one more for the read-out. With images all
    hidden layers but the last are convolutions, each followed by pooling if `pool` is its size.
    """
    generator = np.random.default_rng(seed)
    layers: list[Layer] = []
    sample = samples(generator, shape, 64)
    value = Encoding(np.array(1), np.array(int(generator.integers(0, 256)) if len(shape) == 3 else 0))

    def add(layer: Layer) -> None:
        nonlocal sample
        layers.append(layer)
        sample = layer.run(sample, exact_product)

    for i, width in enumerate(widths):
        inner = len(sample.shape) == 4 and i < len(widths) - 1
        if not inner and len(sample.shape) == 4:
            value = value.flat(sample.shape[1:])
            add(Flatten())
        if inner:
            size = min(kernel, *(side + 2 * padding for side in sample.shape[2:]))
            weight = weights(generator, kinds[i], (width, sample.shape[1], size, size))
            sums = convolve(value.value(sample), weight, (stride,) * 2, (padding,) * 2)
            acc = sums.transpose(0, 2, 3, 1).reshape(-1, width)
            add(Conv(weight, thresholds(generator, acc, stairs[i]), value, (stride,) * 2, (padding,) * 2))
            if pool and min(sample.shape[2:]) >= pool:
                add(Pool((pool, pool), (pool, pool)))
        else:
            weight = weights(generator, kinds[i], (width, sample.shape[1]))
            add(Dense(weight, thresholds(generator, exact_product(value.value(sample), weight), stairs[i]), value))
        value = encoding(generator, codes[i], sample.shape[1:], stairs[i])
    if len(sample.shape) == 4:
        value = value.flat(sample.shape[1:])
        add(Flatten())
    weight = weights(generator, kinds[-1], (outputs, sample.shape[1]))
    add(Dense(weight, None, value, generator.integers(-1000, 1001, outputs)))
    return HardNet(shape, hs.Grid(1.0, 0), tuple(layers))


def drawn(seed: int) -> HardNet:
    """A small network with everything drawn from the seed."""
    generator = np.random.default_rng([seed, 1])
    depth = int(generator.integers(1, 4))
    image = bool(generator.integers(2))
    kinds = tuple(generator.choice(list(WEIGHTS), depth + 1).tolist())
    return network(
        seed,
        shape=tuple(generator.integers([1, 6, 6], [4, 12, 12]).tolist())
        if image
        else (int(generator.integers(1, 80)),),
        widths=tuple(generator.integers(1, 80, depth).tolist()),
        kinds=kinds,
        codes=tuple(generator.choice(CODES, depth).tolist()),
        stairs=tuple(generator.choice([1, 1, 1, 2, 3, 7], depth).tolist()),
        kernel=int(generator.integers(1, 4)),
        stride=int(generator.integers(1, 3)),
        padding=int(generator.integers(0, 3)),
        pool=int(generator.choice([0, 0, 2])) if depth < 3 else 0,
        outputs=int(generator.integers(1, 12)),
    )


def samples(generator: np.random.Generator, shape: tuple[int, ...], n: int) -> NDArray[np.uint8]:
    """Inputs: dense ones, sparse ones, extremes only, all 0 and all 255."""
    x = generator.integers(0, 256, (n, *shape)).astype(np.uint8)
    x[1::4] *= generator.random((len(x[1::4]), *shape)) < 0.1
    x[2::4] = 255 * generator.integers(0, 2, (len(x[2::4]), *shape))
    x[3:8:4] = 0
    x[7:8] = 255
    return x
