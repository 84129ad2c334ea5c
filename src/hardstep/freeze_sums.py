"""Freeze residual networks whose sums stay real: integers in fixed point travel from block to block."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from hardstep.blocks import Padded
from hardstep.chain import leaves
from hardstep.fixed_point import BeyondError, Draft, Linear, bent, clip, codes, kept, linear, made, residual, threshold
from hardstep.folding import Builder, as_array, gain_and_shift, pair, refusal
from hardstep.hard_layers import Encoding, Flatten, Layer
from hardstep.hard_sums import Carried, Windows
from hardstep.layers import Shift
from hardstep.nets.sums import RealBlock
from hardstep.step import Sign, Staircase, Step

__all__ = ["FINEST", "freeze_sums"]

T = TypeVar("T")
FINEST = 16  # bits behind the point: below them float32 sums of everyday size are rounding themselves


def freeze_sums(net: nn.Module, builder: Builder) -> tuple[tuple[Layer, ...], float, int]:
    """Return layers, the read-out last, the value of one unit of the scores, and f, of a network with real sums.

    A sum x becomes a whole number S, about x 2^f. f is the same in the whole network, so that shortcuts add without a
    product; it is the largest up to 16 with which every number provably fits 32 bits. What a convolution adds is the
    exact sum acc of its rounded weights times its gain, rounded once: it is off by at most half a unit, and another
    (|acc| + 1)/2^(shift + 1) by the rounding of multiplier and constant. Nothing is rounded where gains and constants
    are whole multiples of 2^-f, as with `Libra` and no normalisation. Scores get fewer bits where they need to.

    Parameters
    ----------
    builder
        Stands before the first layer.

    Raises
    ------
    ValueError
        If a layer cannot be frozen, or a sum does not fit 32 bits even with f = 0; the layer is named.
    """
    ends = codes(builder.shape[0], builder.top)
    *drafts, (name, last) = _Reader(builder, builder.shape).way(leaves(net))
    if not isinstance(last, Linear) or last.plain.weight.ndim != 2:
        raise ValueError("the network must end in a linear read-out (nn.Linear after the last step); append one")
    bits, (layers, given) = _finest(FINEST, lambda bits: made(drafts, bits, ends))
    fewer, (readout, _) = _finest(bits, lambda fewer: made([(name, replace(last, coarser=bits - fewer))], bits, given))
    return (*layers, *readout), 2.0**-fewer, bits


def _finest(most: int, make: Callable[[int], T]) -> tuple[int, T]:
    """Return the largest number of bits, `most` at most, with which everything fits, and what is made with it."""
    for bits in range(most, 0, -1):
        try:
            return bits, make(bits)
        except BeyondError:
            continue
    return 0, make(0)


@dataclass
class _Reader:
    """Reads modules in order: the builder folds what stands behind codes, here is done what is done with sums."""

    builder: Builder
    start: tuple[int, ...]  # shape of what the layers that the builder has made read
    on_sums: bool = False  # whether sums are at hand
    of_sums: bool = False  # whether the linear layer in the builder reads sums, not codes
    drafts: list[tuple[str, Draft]] = field(default_factory=list)
    knee: Any = 0.0  # subtracted from the sums
    slope: NDArray[np.float64] | None = None  # of what is then not positive
    lift: Any = 0.0  # added behind the bend
    gain: Any = 1.0  # of the sums, for the linear layer that reads them: means are totals by now
    constant: Any = 0.0  # added to them there

    def way(self, modules: Iterable[tuple[str, nn.Module]]) -> list[tuple[str, Draft]]:
        """Return the drafts of modules that end in sums."""
        before, self.drafts = self.drafts, []
        for name, module in modules:
            self._add(name, module)
        self._sum("the end", nn.Identity())
        self._bend("the end")
        drafts, self.drafts = self.drafts, before
        return drafts

    def _add(self, name: str, module: nn.Module) -> None:
        if isinstance(module, _DropoutNd | nn.Identity):
            return
        if not self.on_sums and self._folds(module):
            self.builder.add(name, module)
            return
        self._sum(name, module)
        if isinstance(module, Shift):
            amount = as_array(module.threshold).astype(np.float64)
            if self.slope is None:
                self.knee = self.knee + amount
            else:
                self.lift = self.lift - amount
        elif isinstance(module, nn.PReLU) and self.slope is None:
            self.slope = np.broadcast_to(as_array(module.weight).astype(np.float64), self.builder.shape[:1])
        elif isinstance(module, Step | Sign | Staircase) and self.slope is None and self._plain:
            self._activate(name, module)
        else:
            self._bend(name)
            self._change(name, module)

    def _folds(self, module: nn.Module) -> bool:
        """Whether the builder takes a module: all that stands before a step, and of codes what is not a sum."""
        behind = isinstance(module, _BatchNorm | nn.ReLU | Shift) and self.builder.affine is not None
        linear = isinstance(module, nn.Linear | nn.Conv2d)
        pooled = isinstance(module, nn.MaxPool2d | nn.Flatten) and self.builder.affine is None
        return behind or linear or pooled or (isinstance(module, Step | Sign | Staircase) and not self.of_sums)

    def _sum(self, name: str, module: nn.Module) -> None:
        """Make sums of what the builder holds, if they are not at hand."""
        if self.on_sums:
            return
        builder, affine = self.builder, self.builder.affine
        if affine is None:
            raise refusal(name, module, "it takes sums, not steps; put a convolution before it")
        shape = self.start
        for layer in builder.layers:
            self.drafts.append((affine.name, kept(layer, prod(shape[1:]))))
            shape = layer.out_shape(shape)
        draft = linear(affine, builder.encoding, builder.weight_bits, of_sums=self.of_sums)
        self.drafts.append((affine.name, draft))
        builder.layers, builder.affine, builder.shape = [], None, draft.plain.out_shape(builder.shape)
        self.on_sums, self.of_sums = True, False

    def _bend(self, name: str) -> None:
        """Emit the bend that is under way."""
        if self.slope is not None or np.any(self.knee):
            slope = np.ones(self.builder.shape[0]) if self.slope is None else self.slope
            knee, lift = (np.broadcast_to(a, slope.shape) for a in (self.knee, self.lift))
            self.drafts.append((name, bent(knee, slope, lift)))
        self.knee, self.slope, self.lift = 0.0, None, 0.0

    def _activate(self, name: str, module: Step | Sign | Staircase) -> None:
        knee = np.broadcast_to(self.knee, self.builder.shape[:1])
        self.drafts.append((name, threshold(module, knee)))
        self.builder.encode(module, np.zeros(1, bool))
        self.knee, self.on_sums, self.start = 0.0, False, self.builder.shape

    @property
    def _plain(self) -> bool:
        """Whether sums are what they are, without a gain or constant that a linear layer has to take."""
        return not np.any(self.gain != 1.0) and not np.any(self.constant)

    def _change(self, name: str, module: nn.Module) -> None:
        """Take a module that changes sums or reads them."""
        if isinstance(module, nn.Linear | nn.Conv2d):
            self._read(name, module)
        elif isinstance(module, _BatchNorm):
            gain, shift = gain_and_shift(name, module)
            self.gain, self.constant = self.gain * gain, self.constant * gain + shift
        elif isinstance(module, nn.Flatten):
            places = prod(self.builder.shape[1:])
            self.gain, self.constant = (np.repeat(a, places) if np.ndim(a) else a for a in (self.gain, self.constant))
            self._emit(name, Flatten(), places)
        elif isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            windows = _mean(name, module, self.builder.shape)
            self.gain = self.gain / prod(windows.size)
            self._emit(name, windows)
        elif not self._plain:
            raise refusal(name, module, "a mean of sums, or their normalisation, must be read by a linear layer")
        elif isinstance(module, nn.MaxPool2d):
            self._emit(name, _largest(name, module))
        elif isinstance(module, nn.Hardtanh):
            self.drafts.append((name, clip(float(module.min_val), float(module.max_val))))
        elif isinstance(module, Padded):
            self._emit(name, Carried(module.stride, module.channels))
        elif isinstance(module, RealBlock):
            self._block(name, module)
        else:
            raise refusal(name, module, "there is no integer form of it on real sums")

    def _emit(self, name: str, layer: Windows | Carried | Flatten, places: int = 1) -> None:
        self.drafts.append((name, kept(layer, places)))
        self.builder.shape = layer.out_shape(self.builder.shape)

    def _read(self, name: str, module: nn.Linear | nn.Conv2d) -> None:
        """Begin a linear layer that reads sums."""
        wide = (-1, 1, 1) if isinstance(module, nn.Conv2d) else (-1,)
        if isinstance(module, nn.Conv2d) and any(module.padding) and np.any(self.constant):
            raise refusal(name, module, "its padding stands for 0 before a normalisation; drop one of them")
        self.builder.encoding, self.builder.scale = Encoding(), np.reshape(self.gain, wide)
        self.start, self.on_sums, self.of_sums = self.builder.shape, False, True
        self.builder.add(name, module)
        assert self.builder.affine is not None
        weight = as_array(module.weight).astype(np.float64)
        moved = (weight * np.reshape(self.constant, wide)).reshape(len(weight), -1).sum(axis=1)
        self.builder.affine.shift = self.builder.affine.shift + moved
        self.gain, self.constant = 1.0, 0.0

    def _block(self, name: str, block: RealBlock) -> None:
        shape = self.builder.shape
        body = self.way((f"{name}.body.{inner}", module) for inner, module in leaves(block.body))
        given, self.builder.shape = self.builder.shape, shape
        shortcut = self.way((f"{name}.shortcut.{inner}", module) for inner, module in leaves(block.shortcut))
        if given != self.builder.shape:
            raise refusal(name, block, f"it adds sums of shapes {given} and {self.builder.shape}")
        self.drafts.append((name, residual(body, shortcut)))
        for inner, module in leaves(block.after):
            self._add(f"{name}.after.{inner}", module)


def _mean(name: str, module: nn.AvgPool2d | nn.AdaptiveAvgPool2d, shape: tuple[int, ...]) -> Windows:
    """Return the totals of windows of which a module takes the means; where one sticks out, its border is repeated."""
    if isinstance(module, nn.AdaptiveAvgPool2d):
        if module.output_size not in (1, (1, 1)) or len(shape) != 3:
            raise refusal(name, module, "only a mean over all places is supported")
        return Windows((shape[1], shape[2]), (shape[1], shape[2]), total=True)
    size, stride, padding = (pair(a) for a in (module.kernel_size, module.stride, module.padding))
    over = [-places % step if module.ceil_mode else 0 for places, step in zip(shape[1:], stride, strict=True)]
    halves = all(2 * more in (0, step) for more, step in zip(over, stride, strict=True))
    if size != stride or padding != (0, 0) or not halves or (any(over) and module.count_include_pad):
        raise refusal(name, module, "only means of windows side by side, whole or cut in half by the border")
    return Windows(size, stride, (0, over[0], 0, over[1]), total=True)


def _largest(name: str, module: nn.MaxPool2d) -> Windows:
    """Return a pooling; that it repeats the border where the module has none changes no maximum."""
    size, stride, padding, dilation = (
        pair(a) for a in (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    if dilation != (1, 1) or module.ceil_mode:
        raise refusal(name, module, "only pooling without dilation and ceil_mode is supported")
    return Windows(size, stride, (padding[0], padding[0], padding[1], padding[1]))
