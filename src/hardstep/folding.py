"""What stands between two thresholds of a network becomes one integer layer: weights, thresholds, encodings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from hardstep.hard_layers import Conv, Dense, Encoding, Flatten, Layer, Pool
from hardstep.layers import Shift
from hardstep.scattering_front import ScatteringFront
from hardstep.step import Sign, Staircase, Step

__all__ = ["LIMIT", "Affine", "Builder", "as_array", "gain_and_shift", "pair", "refusal", "whole_rows"]

LIMIT = 2**31 - 1  # sums must fit the engine's int32
SHRINK = np.linspace(1.0, 0.5, 26)  # candidate scales of a row, as shares of the one that clips nothing


@dataclass
class Affine:
    """A linear map on its way to its threshold: sums, then gain * sum + shift, pooling in between."""

    name: str
    module: nn.Linear | nn.Conv2d
    weight: NDArray[np.float64]  # on integer values
    gain: NDArray[np.float64]
    shift: NDArray[np.float64]
    pools: list[Pool] = field(default_factory=list)
    gain_after_pool: NDArray[np.float64] | None = None
    rectified: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None  # gain behind a ReLU, what 0 became there

    def rescale(self, gain: NDArray[np.float64], shift: NDArray[np.float64]) -> None:
        """Put another gain and shift behind."""
        self.gain, self.shift = self.gain * gain, self.shift * gain + shift
        if self.gain_after_pool is not None:
            self.gain_after_pool = self.gain_after_pool * gain
        if self.rectified is not None:
            self.rectified = self.rectified[0] * gain, self.rectified[1] * gain + shift

    def constant(self, levels: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return, by unit and level, whether the output is constant whatever the sum, and whether it then fires."""
        still = np.broadcast_to((self.gain == 0)[:, None], (len(self.gain), len(levels)))
        if self.rectified is None:
            return still, self.shift[:, None] > levels
        gain, ground = self.rectified  # out = max(z, 0) gain + ground stays on one side of the ground
        value = np.where(gain > 0, np.maximum(self.shift, ground), np.minimum(self.shift, ground))
        fires = ground[:, None] > levels
        ends = np.where((gain > 0)[:, None], fires, ~fires)
        return still | ends, np.where(still, value[:, None] > levels, fires)


@dataclass
class Builder:
    """Reads a network from its input on: what stands between two thresholds becomes one integer layer."""

    weight_bits: int
    shape: tuple[int, ...]
    encoding: Encoding
    scale: Any  # real value of one unit of the integer values
    top: int = 255  # the largest code
    mean: Any = 0.0  # taken off the codes of features, beside their zero; not whole, so that a bias takes it
    layers: list[Layer] = field(default_factory=list)
    units: list[Any] = field(default_factory=list)  # the scale as each layer with weights saw it
    affine: Affine | None = None

    def add(self, name: str, module: nn.Module) -> None:
        """Take the next module."""
        if isinstance(module, _DropoutNd | nn.Identity):
            return
        if isinstance(module, ScatteringFront):
            self._scatter(name, module)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            self._start(name, module)
        elif isinstance(module, _BatchNorm):
            self._normalise(name, module)
        elif isinstance(module, nn.MaxPool2d):
            self._pool(name, module)
        elif isinstance(module, Shift) and self.affine is not None:
            self.affine.rescale(np.ones(len(self.affine.gain)), -as_array(module.threshold).astype(np.float64))
        elif isinstance(module, nn.ReLU) and self.affine is not None and self.affine.rectified is None:
            self.affine.rectified = np.ones_like(self.affine.gain), np.zeros_like(self.affine.gain)
        elif isinstance(module, Step | Sign | Staircase):
            self._threshold(name, module)
        elif isinstance(module, nn.Flatten) and self.affine is None:
            if isinstance(self.scale, np.ndarray) and self.scale.ndim:
                self.scale = np.broadcast_to(self.scale, self.shape).reshape(-1)
            self.encoding = self.encoding.flat(self.shape)
            self._emit(Flatten())
        else:
            raise refusal(name, module, "there is no integer form of it here")

    def finish(self) -> tuple[tuple[Layer, ...], float]:
        """Return all layers, the read-out last, and the value of one unit of its scores."""
        last = self.affine
        if last is None or not isinstance(last.module, nn.Linear) or last.pools or last.rectified is not None:
            raise ValueError("the network must end in a linear read-out (nn.Linear after the last step); append one")
        weight = last.weight * last.gain[:, None]
        whole, scale = whole_rows(weight.reshape(1, -1), self.weight_bits)
        weight_int, unit = whole.reshape(weight.shape), float(scale[0])
        bias = np.rint(last.shift / unit).astype(np.int64)
        self._bound(last, weight_int, np.abs(bias))
        self._emit(Dense(weight_int, None, self.encoding, bias))
        return tuple(self.layers), unit

    def _emit(self, layer: Layer) -> None:
        self.layers.append(layer)
        self.shape = layer.out_shape(self.shape)

    def _scatter(self, name: str, module: ScatteringFront) -> None:
        """Take a front end: what a code of its features is worth is left to the first linear layer."""
        zero, unit = np.asarray(self.encoding.zero), np.asarray(self.scale)
        if self.layers or self.affine is not None or module.image_shape != self.shape:
            raise refusal(name, module, f"it must come first and take images of {module.image_shape}")
        if zero.any() or not np.allclose(unit, module.unit, rtol=1e-6, atol=0):
            raise refusal(
                name,
                module,
                f"it takes images unit * code with unit={module.unit:.6g}, but those given have codes of scale "
                f"{np.unique(unit).round(9).tolist()} and zero {np.unique(zero).tolist()}; make it by front(unit) with "
                "the scale of the part's grid, which must have zero 0",
            )
        mean, scale = (as_array(a) for a in module.affine)
        self._emit(module.program())
        self.mean, self.scale = mean, 1 / scale

    def _start(self, name: str, module: nn.Linear | nn.Conv2d) -> None:
        if self.affine is not None and self.affine.rectified is not None:
            raise refusal(name, module, f"only a ReLU stands between it and {self.affine.name}; put a step there")
        if self.affine is not None:
            raise refusal(name, module, f"no step stands between it and {self.affine.name}; merge the two or add one")
        if isinstance(module, nn.Conv2d) and (
            module.groups != 1
            or set(module.dilation) != {1}
            or module.padding_mode != "zeros"
            or isinstance(module.padding, str)
        ):
            raise refusal(name, module, "only plain convolutions with zero padding given in numbers are supported")
        if isinstance(module, nn.Linear) and len(self.shape) != 1:
            raise refusal(name, module, f"its input has shape {self.shape}; put nn.Flatten() before it")
        if isinstance(module, nn.Conv2d) and len(self.shape) != 3:
            raise refusal(name, module, f"its input has shape {self.shape}; take nn.Linear")
        weight = as_array(module.weight).astype(np.float64) * np.asarray(self.scale)
        units = len(weight)
        bias = np.zeros(units) if module.bias is None else as_array(module.bias).astype(np.float64)
        if isinstance(module, nn.Linear) and not self.units:
            # the zero of the inputs becomes part of the bias before weights are rounded, so that features far
            # from 0 do not multiply the rounding; a convolution keeps it, since its padding is the value 0
            bias = bias - (weight * (self.encoding.zero + self.mean)).sum(axis=1)
            self.encoding = Encoding()
        self.affine = Affine(name, module, weight, np.ones(units), bias)
        self.units.append(self.scale)

    def _normalise(self, name: str, module: _BatchNorm) -> None:
        if self.affine is None:
            raise refusal(name, module, "it must follow a linear or convolution layer, before the step")
        self.affine.rescale(*gain_and_shift(name, module))

    def _pool(self, name: str, module: nn.MaxPool2d) -> None:
        size, stride, padding, dilation = (
            pair(a) for a in (module.kernel_size, module.stride, module.padding, module.dilation)
        )
        if padding != (0, 0) or dilation != (1, 1) or module.ceil_mode or len(self.shape) != 3:
            raise refusal(name, module, "only 2-d pooling without padding, dilation and ceil_mode is supported")
        pool = Pool(size, stride)
        if self.affine is None:
            if (self.encoding.gain < 0).any() or not self.layers:
                raise refusal(name, module, "pool before the step, or after it without a pool before")
            self._emit(pool)
            return
        if self.affine.gain_after_pool is not None and (self.affine.gain_after_pool < 0).any():
            raise refusal(name, module, "two poolings with a negative normalisation gain between them")
        self.affine.pools.append(pool)
        self.affine.gain_after_pool = np.ones_like(self.affine.gain)

    def _threshold(self, name: str, module: Step | Sign | Staircase) -> None:
        affine = self.affine
        if affine is None:
            raise refusal(name, module, "a step must follow a linear or convolution layer")
        levels = np.array(module.thresholds if isinstance(module, Staircase) else (0.0,))
        units = len(affine.weight)
        rows, scale = whole_rows(affine.weight.reshape(units, -1), self.weight_bits)
        # gain (scale acc) + shift > level  <=>  +-acc > (level - shift)/(|gain| scale), the sign that of the gain
        direction = np.where(affine.gain < 0, -1, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            threshold = np.floor((levels - affine.shift[:, None]) / (np.abs(affine.gain) * scale)[:, None])
        weight = rows * direction[:, None]
        # pooling took the maximum before a negative gain: that is the AND of the bits, the OR of their complements
        flipped = np.zeros(units, bool) if affine.gain_after_pool is None else affine.gain_after_pool < 0
        weight[flipped] *= -1
        reach = self._bound(affine, weight.reshape(affine.weight.shape), np.zeros(units, np.int64))[:, None]
        constant, fires = affine.constant(levels)
        threshold[constant] = np.where(fires, -np.inf, np.inf)[constant]
        threshold[flipped] = -threshold[flipped, ::-1] - 1
        threshold = np.clip(threshold, -reach - 1, reach).astype(np.int64)
        weight = weight.reshape(affine.weight.shape)
        if isinstance(affine.module, nn.Conv2d):
            stride, padding = affine.module.stride, affine.module.padding
            self._emit(
                Conv(weight, threshold, self.encoding, (stride[0], stride[1]), (int(padding[0]), int(padding[1])))
            )
        else:
            self._emit(Dense(weight, threshold, self.encoding))
        for pool in affine.pools:
            self._emit(pool)
        self.affine = None
        self.encode(module, flipped)

    def encode(self, module: Step | Sign | Staircase, flipped: NDArray[np.bool_]) -> None:
        """Set what the codes now mean: value = gain * code - zero, complements undone."""
        top = module.stairs if isinstance(module, Staircase) else 1
        gain, zero = (2, 1) if isinstance(module, Sign) else (1, 0)
        self.scale, self.top = 1 / top, top
        self.encoding = Encoding(np.array(gain), np.array(zero))
        if flipped.any():  # gain (top - code) - zero
            wide = (len(flipped), *[1] * (len(self.shape) - 1))
            self.encoding = Encoding(
                np.where(flipped, -gain, gain).reshape(wide), np.where(flipped, zero - gain * top, zero).reshape(wide)
            )

    def _bound(self, affine: Affine, weight: NDArray[Any], extra: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the largest |sum| of each unit; refuse what could leave 32 bits."""
        ends = (np.abs(code * self.encoding.gain - self.encoding.zero) for code in (0, self.top))
        reach: NDArray[np.int64] = (np.abs(weight.astype(np.int64)) * np.maximum(*ends)).reshape(len(weight), -1).sum(
            axis=1
        ) + extra
        if reach.max() > LIMIT:
            raise refusal(
                affine.name,
                affine.module,
                f"a sum over {weight[0].size} inputs could reach {reach.max()}, beyond {LIMIT}",
            )
        return reach


def whole_rows(rows: NDArray[np.float64], bits: int) -> tuple[NDArray[np.integer[Any]], NDArray[np.float64]]:
    """Return whole numbers and a scale for each row, rows ~ scale * whole: exact where it can be, else rounded.

    The exact scale is the largest one that makes a row whole to float32 precision with at most `bits` bits.
    """
    top = 2 ** (bits - 1) - 1
    largest = np.abs(rows).max(axis=1)
    largest[largest == 0] = 1.0
    scale = largest / top
    error = np.full(len(rows), np.inf)
    for share in SHRINK:
        trial = largest / top * share
        whole = np.clip(np.rint(rows / trial[:, None]), -top, top)
        squared = np.square(rows - whole * trial[:, None]).sum(axis=1)
        better = squared < error
        scale[better], error[better] = trial[better], squared[better]
    undecided = np.arange(len(rows))
    for steps in range(1, min(top, 127) + 1):
        trial = largest[undecided] / steps
        ratio = rows[undecided] / trial[:, None]
        exact = (np.abs(ratio - np.rint(ratio)) <= steps * 2.0**-22).all(axis=1)
        scale[undecided[exact]] = trial[exact]
        undecided = undecided[~exact]
        if not len(undecided):
            break
    whole = np.clip(np.rint(rows / scale[:, None]), -top, top)
    return whole.astype(np.int8 if bits <= 8 else np.int16), scale


def gain_and_shift(name: str, module: _BatchNorm) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a normalisation does in evaluation mode."""
    if module.running_mean is None or module.running_var is None:
        raise refusal(name, module, "it keeps no running statistics; build it with track_running_stats=True")
    mean, variance = (as_array(a).astype(np.float64) for a in (module.running_mean, module.running_var))
    gain = 1 / np.sqrt(variance + module.eps)
    offset = np.zeros_like(gain)
    if module.affine:
        gain, offset = gain * as_array(module.weight), as_array(module.bias).astype(np.float64)
    return gain, offset - mean * gain


def as_array(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a tensor as NumPy has it, half precision as float32."""
    plain = tensor.detach().cpu()
    return (plain.float() if plain.dtype in (torch.bfloat16, torch.float16) else plain).numpy()


def pair(a: int | Sequence[int]) -> tuple[int, int]:
    """Return the numbers for height and width of a setting that may be one for both."""
    return (a, a) if isinstance(a, int) else (a[0], a[1])


def refusal(name: str, module: nn.Module, why: str) -> ValueError:
    """Return the error that names a layer, why it cannot be frozen and what can."""
    return ValueError(
        f"layer {name!r} ({type(module).__name__}) cannot be frozen: {why}. A network to freeze is an nn.Sequential of "
        "Linear or Conv2d, then MaxPool2d, ReLU, BatchNorm and Shift as wanted, then Step, Sign or Staircase; and "
        "Flatten, Dropout; a ScatteringFront may come first"
    )
