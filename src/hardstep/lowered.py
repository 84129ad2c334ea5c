"""A frozen network as sums over unsigned codes: one layer kind and pooling, where engine and exports start from."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from hardstep.hard_layers import Conv, Dense, Pool, convolve
from hardstep.hard_sums import Rescaled
from hardstep.hard_values import places
from hardstep.hardnet import HardNet

__all__ = ["Sums", "as_image", "lower", "lowered_map", "on_codes"]

LIMIT = 2**31 - 1

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums of codes by integer weights, compared with thresholds; a dense layer is a kernel as large as its input.

    acc[k, y, x] = sum_cij weight[k, c, i, j] code[c, y stride + i - padding, x stride + j - padding]

    where codes outside are 0. The new code is the number of thresholds below acc. The read-out has no thresholds and
    gives acc + bias.

    Parameters
    ----------
    name
        Where the layer stands in the frozen network, for errors.
    shape
        Channels, height and width of the codes it reads.
    top
        The largest code it reads.
    weight
        (units, channels, kernel height, kernel width).
    threshold
        (units, stairs, height, width) of what it gives, height and width 1 where all positions share them; ascending.
    bias
        (units,), 0 where there are thresholds.
    """

    name: str
    shape: Shape
    top: int
    weight: NDArray[np.int64]
    threshold: NDArray[np.int64] | None
    bias: NDArray[np.int64]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    @property
    def out_shape(self) -> Shape:
        """Units, height and width of what it gives."""
        return (len(self.weight), *places(self.shape[1:], self.weight.shape[2:], self.stride, self.padding))

    @property
    def stairs(self) -> int:
        """The largest code it gives; 0 for the read-out."""
        return 0 if self.threshold is None else self.threshold.shape[1]

    @property
    def terms(self) -> int:
        """How many codes a sum has."""
        return prod(self.weight.shape[1:])

    @property
    def least(self) -> int:
        """The least sum that codes can give, over all units."""
        return self.top * int(np.minimum(self.weight, 0).sum(axis=(1, 2, 3)).min())

    @property
    def largest(self) -> int:
        """The largest sum that codes can give, over all units."""
        return self.top * int(np.maximum(self.weight, 0).sum(axis=(1, 2, 3)).max())

    def run(self, codes: UInt8[np.ndarray, "n c h w"]) -> NDArray[Any]:
        """Return the codes (n, units, height, width) of a batch, or its scores."""
        acc = convolve(codes.astype(np.int64), self.weight, self.stride, self.padding)
        if self.threshold is None:
            return acc + self.bias[:, None, None]
        given: NDArray[np.uint8] = (acc[:, :, None] > self.threshold).sum(axis=2, dtype=np.uint8)
        return given


def lower(net: HardNet, *, behind_front: bool = False) -> tuple[Sums | Pool, ...]:
    """Return the layers as sums over codes; what a code is worth has moved into weights and thresholds, exactly.

    sum_d w_d (gain_d code_d - zero_d) > t becomes sum_d (w_d gain_d / g) code_d > floor((t + sum_d w_d zero_d) / g)
    with g the gcd of the row: sign layers become step layers. At the border of a padded convolution the sum over zeros
    has fewer terms, so thresholds depend on the position there. Thresholds are cut to [least sum - 1, largest sum].

    Parameters
    ----------
    behind_front
        The caller runs `net.front`, if there is one, and wants the layers behind it.

    Raises
    ------
    ValueError
        If a sum could leave 32 bits; the layer, the number of its terms and the bound are named. If the network keeps
        real sums, or has a scattering front end, which is no sum over codes, and the caller does not run it.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hard = hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=data.train)
    >>> [layer.out_shape for layer in lower(hard)]
    [(32, 1, 1), (10, 1, 1)]
    """
    net.check_codes("a lowered network (QONNX, Verilog, rules)")
    front = net.front
    if front is not None and not behind_front:
        raise ValueError(
            "layer 0 is a scattering front end, which only NumPy, the engine, C and ONNX run; for other forms freeze "
            "the network behind it alone, on the features"
        )
    shape = as_image(net.shape if front is None else front.out_shape(net.shape))
    found: list[Sums | Pool] = []
    top = 255
    for i, layer in enumerate(net.layers):
        if isinstance(layer, Pool):
            found.append(layer)
            channels, height, width = layer.out_shape(shape)
            shape = (channels, height, width)
        elif isinstance(layer, Dense | Conv):
            if isinstance(layer, Dense) and not found:
                shape = (layer.weight.shape[1], 1, 1)  # inputs in a row need no positions
            sums = lowered_map(f"layer {i}", layer, shape, top)
            found.append(sums)
            shape, top = sums.out_shape, sums.stairs
    return tuple(found)


def as_image(shape: tuple[int, ...]) -> Shape:
    """Return a shape as channels, height and width."""
    channels, height, width = shape if len(shape) == 3 else (prod(shape), 1, 1)
    return channels, height, width


def on_codes(
    name: str, layer: Dense | Conv | Rescaled, shape: Shape
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[tuple[int, int], tuple[int, int]]]:
    """Return weights (units, channels, height, width) on codes, what is then to be subtracted, stride and padding.

    sum_d w_d value_d = sum_d w_d gain_d code_d - sum_d w_d zero_d; the last has shape (units, height, width), height
    and width 1 where all positions share it.
    """
    dense = layer.weight.ndim == 2
    kernel = shape if dense else layer.weight.shape[1:]
    gain, zero = (_spread(a, shape, dense=dense) for a in (layer.encoding.gain, layer.encoding.zero))
    if not dense and (gain != gain[:, :1, :1]).any():
        raise ValueError(f"{name} reads codes whose gain differs between positions; a convolution needs one a channel")
    plain = layer.weight.reshape(-1, *kernel).astype(np.int64)
    weight = plain * (gain if dense else gain[:, :1, :1])
    stride, padding = ((1, 1), (0, 0)) if isinstance(layer, Dense) else (layer.stride, layer.padding)
    moved = convolve(zero[None], plain, stride, padding)[0]
    if (moved == moved[:, :1, :1]).all():
        moved = moved[:, :1, :1]
    return weight, moved, (stride, padding)


def lowered_map(name: str, layer: Dense | Conv, shape: Shape, top: int) -> Sums:
    """Return one layer on codes."""
    weight, moved, (stride, padding) = on_codes(name, layer, shape)
    threshold, bias = None, np.zeros(len(weight), np.int64)
    if layer.threshold is None:
        bias = (0 if layer.bias is None else layer.bias) - moved[:, 0, 0]
    else:
        gcd = np.maximum(np.gcd.reduce(weight.reshape(len(weight), -1), axis=1), 1)[:, None, None, None]
        weight = weight // gcd
        threshold = (layer.threshold[:, :, None, None] + moved[:, None]) // gcd
    sums = Sums(name, shape, top, weight, threshold, bias, stride, padding)
    reach = max(sums.largest - sums.least + 1, int(np.abs(bias).max()) + max(sums.largest, -sums.least))
    if reach > LIMIT:
        raise ValueError(
            f"{name} sums {sums.terms} codes of at most {top} and could span {reach}, beyond the {LIMIT} of an int32; "
            "freeze with fewer weight_bits"
        )
    if threshold is not None:
        threshold = np.clip(threshold, sums.least - 1, sums.largest)
        sums = Sums(name, shape, top, weight, threshold, bias, stride, padding)
    return sums


def _spread(a: NDArray[np.int64], shape: Shape, *, dense: bool) -> NDArray[np.int64]:
    """Return what belongs to every code, from what broadcasts against a sample, flat or not."""
    flat = dense and a.ndim == 1
    return a.astype(np.int64).reshape(shape) if flat and a.size == prod(shape) else np.broadcast_to(a, shape)
