"""Freeze: turn a trained PyTorch network into exact integers. The one bridge between the two sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hardstep.blocks import Activation
from hardstep.chain import leaves
from hardstep.folding import Builder, as_array
from hardstep.freeze_sums import freeze_sums
from hardstep.grid import Grid
from hardstep.hard_layers import Conv, Dense, Encoding
from hardstep.hard_sums import Threshold
from hardstep.hardnet import HardNet, Rounding
from hardstep.nets.sums import RealBlock
from hardstep.parts import Part
from hardstep.step import Sign, Staircase, Step
from hardstep.unroll import unroll

__all__ = ["as_torch", "check_bits", "freeze"]

ROWS = 10_000  # calibration rows that are looked at


def freeze(net: nn.Module, *, calibrate: Part, weight_bits: int | None = None) -> HardNet:
    """Round a network of hard steps to integers and say what the rounding changed.

    Batch normalisation, biases and the scales of inputs and weights all fold into integer thresholds: a unit
    fires iff w.v > T with integer w, v and T. Weights whose row is a multiple of small integers (binary,
    ternary, planted) are kept exactly; others are rounded to `weight_bits`, one scale a unit (one for the
    whole read-out), the scale chosen by least squared error. Pooling moves behind the step, exactly. A residual block
    of steps becomes two layers and its sum one sum of integers (`unroll`), exact where both ways are whole multiples of
    one number.

    Residual networks whose sums stay real (`RealSums`) carry whole numbers S from block to block, x about S 2^-f with
    one f a network, the largest up to 16 with which every number provably fits 32 bits (`Rounding.point`).
    What a convolution adds is rounded once, so with n of them so far, the same steps and the rounded weights, S 2^-f
    is off by n 2^-(f+1), and a little for gains of 31 bits. Where gains and constants are whole multiples of 2^-f
    nothing is rounded. Only the first layer, shortcuts and the read-out of the published ones have real weights, few
    but read by all blocks: so they get 16 bits unless `weight_bits` says otherwise.

    Parameters
    ----------
    calibrate
        The part on which the changes are counted (up to 10,000 rows, evenly spaced); it also spans the input
        grid where the features are numbers rather than 8-bit codes.
    weight_bits
        Bits of a rounded weight, 2 to 16; None for 8, and for 16 where sums stay real.

    Raises
    ------
    ValueError
        If the network has no step, or a layer cannot be frozen, or real sums do not fit 32 bits: the error names
        the layer and says what can be done.

    References
    ----------
    Umuroglu et al. 2017, Sec. 4.2.2 [umuroglu2017]: normalisation as threshold. Differs: any weight width, negative
    gains by negated weights, pooling before normalisation with gains of either sign, a ReLU before normalisation.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=data.train).nbytes
    2536
    """
    real_sums = any(isinstance(module, RealBlock) for module in net.modules())
    if weight_bits is None:
        weight_bits = 16 if real_sums else 8
    check_bits(weight_bits)
    if not any(isinstance(module, Step) for module in net.modules()):
        raise ValueError("the network has no step, so nothing can become bits; put hardstep.Step() between its layers")
    rows = np.unique(np.linspace(0, len(calibrate) - 1, min(ROWS, len(calibrate))).astype(int))
    x = np.concatenate(
        [as_array(calibrate.take(chunk.tolist())[0]) for chunk in np.array_split(rows, -(-len(rows) // 1000))]
    )
    net = unroll(net, x.shape[1:])
    grid = Grid.around(x) if calibrate.grid is None else calibrate.grid
    builder = Builder(weight_bits, x.shape[1:], Encoding(np.array(1), grid.zero), grid.scale)
    if real_sums:
        layers, scale, point = freeze_sums(net, builder)
        hard = HardNet(x.shape[1:], grid, layers, scale)
        return replace(hard, rounding=replace(_sum_rounding(net, hard, x), point=point))
    for name, module in leaves(net):
        builder.add(name, module)
    hard = HardNet(x.shape[1:], grid, *builder.finish())
    return replace(hard, rounding=_rounding(net, hard, x, builder.units))


def as_torch(hard: HardNet) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a frozen network as a function from inputs to the float network's outputs, in torch."""
    return lambda x: torch.from_numpy(hard(x.numpy()) * hard.scale)


def check_bits(weight_bits: int) -> None:
    """Raise ValueError unless weights can be rounded to so many bits."""
    if not 2 <= weight_bits <= 16:
        raise ValueError(f"weight_bits must be 2 to 16, got {weight_bits}; binary weights are found and kept as 1 bit")


def _rounding(net: nn.Module, hard: HardNet, x: NDArray[Any], units: list[Any]) -> Rounding:
    """Count what differs between the float network and the integers, layer inputs and predictions."""
    maps = [module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d)][1:]
    readers = [layer for layer in hard.layers if isinstance(layer, Dense | Conv)][1:]
    counts = np.zeros(3, np.int64)
    for chunk, seen, out in _runs(net, hard, x, maps, lambda module, args, out: as_array(args[0])):
        codes, scores = _reader_inputs(hard, chunk)
        for layer, unit, read, wanted in zip(readers, units[1:], codes, seen, strict=True):
            counts[:2] += wanted.size, (np.abs(layer.encoding.value(read) * unit - wanted) > 1e-3).sum()
        counts[2] += _others(scores, out)
    return Rounding(len(x), *counts.tolist())


def _sum_rounding(net: nn.Module, hard: HardNet, x: NDArray[Any]) -> Rounding:
    """Count what differs between a network with real sums and the integers, at its activations, and predictions."""
    inner = {id(module.step) for module in net.modules() if isinstance(module, Sign | Staircase)}
    steps = [module for module in net.modules() if isinstance(module, Activation) and id(module) not in inner]
    counts = np.zeros(3, np.int64)
    for chunk, seen, out in _runs(net, hard, x, steps, lambda module, args, out: as_array(module.coded(out)[0]), 50):
        *hidden, (_, scores) = hard.every(chunk)
        given = [codes for layer, codes in hidden if isinstance(layer, Threshold | Dense | Conv)]
        for codes, wanted in zip(given, seen, strict=True):
            counts[:2] += wanted.size, (codes != wanted).sum()
        counts[2] += _others(scores, out)
    return Rounding(len(x), *counts.tolist())


def _runs(
    net: nn.Module,
    hard: HardNet,
    x: NDArray[Any],
    watched: Sequence[nn.Module],
    look: Callable[..., NDArray[Any]],
    rows: int = 500,
) -> Iterator[tuple[NDArray[Any], list[NDArray[Any]], NDArray[Any]]]:
    """Yield so many rows, what is to be looked at where modules run on them, and the outputs of the float network."""
    like = next(net.parameters())  # device and precision
    seen: list[NDArray[Any]] = []
    handles = [
        module.register_forward_hook(lambda module, args, out: seen.append(look(module, args, out)))
        for module in watched
    ]
    was_training = net.training
    net.eval()
    try:
        for chunk in np.array_split(x, -(-len(x) // rows)):
            seen.clear()
            values = hard.grid.value(chunk) if chunk.dtype == np.uint8 else chunk
            with torch.no_grad():
                out = as_array(net(torch.from_numpy(values).to(like)))
            yield chunk, seen, out
    finally:
        for handle in handles:
            handle.remove()
        net.train(was_training)


def _others(scores: NDArray[np.int64], out: NDArray[Any]) -> int:
    """Return how many predictions differ; none of a regression."""
    return int((scores.argmax(axis=1) != out.argmax(axis=1)).sum()) if out.shape[1] > 1 else 0


def _reader_inputs(hard: HardNet, x: NDArray[Any]) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
    """Return the codes that each layer after the first reads, and the scores."""
    *outputs, scores = hard.trace(x)
    reads = [outputs[i - 1] for i, layer in enumerate(hard.layers) if isinstance(layer, Dense | Conv)]
    return reads[1:], scores
