"""Which kernel of the C runtime runs which layer: a pure function of its shape, its weights and the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from hardstep.export.number_weights import byte_width
from hardstep.hard_layers import Pool
from hardstep.lowered import Sums

__all__ = ["WIDTHS", "Choice", "Kernel", "digits", "offset_planes", "plan"]

WIDTHS = (64, 128, 256, 512)
ADDER = 5.0  # vector instructions that add one row: 2 with three-input logic, one load and one index on top
ROW = 1.5
FAR = 2**20  # bytes of lists beyond which they come from far, at a little more a row
FLUSH = 9.0  # instructions a plane of an accumulator: add, compare
TURN = 1400.0  # instructions of a transposition of 64 words in every vector
TWIN = 0.65  # what a position costs where two share a vector of 256 bits
SCALAR = 12.0  # what adding bytes one by one costs, against vectors
PAIR = {8: 0.12, 16: 0.2}  # instructions a product of a byte and a weight of so many bits, with 256 bits
DOT = {8: 0.036, 16: 0.072}  # the same where one instruction multiplies and sums bytes
FETCH = 0.06  # what it costs there to fetch a weight, once for all samples
SPREAD = 0.25  # instructions that make a byte of a bit, with 256 bits


class Kernel(Enum):
    """How a layer is summed."""

    BYTES = "bytes"
    """Codes as bytes times weights, in 32-bit sums: first layers, and others where machines sum products of bytes."""

    OUTPUTS = "outputs"
    """Bit-sliced, lanes are outputs: rows of weights of the set bits are added. Sparse activations are faster."""

    SAMPLES = "samples"
    """Bit-sliced, lanes are samples: rows of activations are added for each signed digit. Sparse weights are faster."""

    ROWS = "rows"
    """Rows of 8- or 16-bit weights of the set bits are added: read-outs, wide weights."""


@dataclass(frozen=True)
class Choice:
    """The kernel of a layer with its lanes, and what each kernel that can run it would cost.

    Costs are modelled instructions a sample; only their ratios mean something.
    """

    name: str
    kernel: Kernel
    lanes: int
    costs: dict[Kernel, float]

    def __str__(self) -> str:
        lanes = f"-{self.lanes}" if self.kernel in (Kernel.OUTPUTS, Kernel.SAMPLES) else ""
        others = ", ".join(f"{k.value} {cost:,.0f}" for k, cost in self.costs.items() if k != self.kernel)
        because = f" (modelled cost {self.costs[self.kernel]:,.0f}; {others})" if others else ""
        return f"{self.name}: {self.kernel.value}{lanes}{because}"


def plan(
    layers: Sequence[Sums | Pool],
    *,
    lanes: int = 64,
    batch: int = 1,
    density: Sequence[float] = (),
    only: str = "",
    packed: bool = False,
    dots: bool = False,
) -> tuple[Choice, ...]:
    """Choose a kernel for every layer with weights.

    Parameters
    ----------
    lanes
        Widest vectors of the machine in bits: 64, 128, 256 or 512.
    batch
        Samples that come together; lanes of samples need about as many as there are lanes.
    density
        Set bits a code, for each layer; by default 2.5 for 8-bit codes, half of the planes for others.
    only
        Name of a kernel to take wherever it can run, whatever it costs: for tests and measurements.
    packed
        The first layer reads packed bits, as in `pack`.
    dots
        The machine multiplies and sums bytes in one instruction.

    Raises
    ------
    ValueError
        If no kernel can run a layer; it is named, with the bound it breaks.
    """
    if lanes not in WIDTHS:
        raise ValueError(f"lanes must be one of {WIDTHS}, got {lanes}")
    sums = [layer for layer in layers if isinstance(layer, Sums)]
    bits = [*density, *(2.5 if s.top == 255 else s.top.bit_length() / 2 for s in sums[len(density) :])]
    return tuple(
        _choose(layer, i == 0 and not packed, lanes, batch, bits[i], only, dots) for i, layer in enumerate(sums)
    )


def _choose(layer: Sums, first: bool, lanes: int, batch: int, bits: float, only: str, dots: bool) -> Choice:
    """Return the cheapest kernel of one layer."""
    width = _width(len(layer.weight), lanes)
    costs = _costs(layer, first, lanes, width, batch, bits, dots)
    if not costs:
        raise ValueError(
            f"{layer.name} sums {layer.terms:,} terms with weights from {layer.weight.min()} to {layer.weight.max()}: "
            "the runtime takes at most 65,528 terms, and 16-bit weights on 8-bit inputs and in the read-out; "
            "use the NumPy reference"
        )
    wanted = [kernel for kernel in costs if kernel.value == only]
    kernel = wanted[0] if wanted else min(costs, key=lambda k: costs[k])
    return Choice(layer.name, kernel, lanes if kernel is Kernel.SAMPLES else width, costs)


def _costs(
    layer: Sums, first: bool, lanes: int, width: int, batch: int, bits: float, dots: bool
) -> dict[Kernel, float]:
    """Return the modelled cost a sample of each kernel that can run the layer."""
    units, terms = len(layer.weight), layer.terms
    positions = layer.out_shape[1] * layer.out_shape[2]
    small = terms <= 65_528
    costs: dict[Kernel, float] = {}
    bytewise = byte_width(layer.weight.reshape(units, -1), saturating=not dots and (first or layer.top > 127))
    if (first and _sixteen(layer.weight)) or (bytewise == 8 and lanes >= 256):
        product = DOT[bytewise] + FETCH / batch if dots else PAIR[bytewise] * 256 / max(lanes, 128)
        spread = 0.0 if first else SPREAD * layer.top.bit_length() * (0.2 if dots else 1.0)
        costs[Kernel.BYTES] = positions * terms * (-(-units // 16) * 16 * product + spread)
    common = np.gcd.reduce(layer.weight, axis=None) or 1
    if not first and small and _sixteen(layer.weight // common):
        wide = max(2.0, np.abs(layer.weight // common).max(initial=0) / 128)  # small ones are widened, large ones often
        wide *= SCALAR if lanes == 64 else 256 / min(lanes, 256)  # wider vectors are not used
        costs[Kernel.ROWS] = positions * (-(-units // 16) * wide * bits * terms + 4 * units)
    planes = (layer.largest - layer.least + 1).bit_length()
    row = ADDER + ROW
    if small and not first and batch >= lanes // 2 and positions * (layer.threshold is None) <= 1:
        used = int(np.bitwise_count(layer.weight ^ 3 * layer.weight).sum())  # canonical signed digits that are not 0
        if layer.top == 1 and (np.abs(layer.weight) == 1).all():
            used = used // 2
        rows = used * layer.top.bit_length() * (row + 0.3 * (2 * used > FAR))
        ends = units * (TURN if layer.threshold is None else planes * FLUSH * max(1, used / (units * terms)))
        costs[Kernel.SAMPLES] = positions * -(-batch // lanes) / batch * (rows + ends)
    if layer.threshold is None:
        return costs
    _, _, split = offset_planes(layer.weight)
    if small and (not first or layer.shape[1:] == (1, 1)):
        pairs = len(split) * layer.top.bit_length()
        work = bits * terms * len(split) * row + planes * FLUSH * (1 + pairs / 2)
        work *= TWIN if width == 128 < lanes else 1.0
        costs[Kernel.OUTPUTS] = positions * (-(-units // width) * work + terms * bits)
    return costs


def _width(units: int, lanes: int) -> int:
    """Return the lanes of outputs with which a layer costs least; the narrower of equals."""
    twins = {128: TWIN} if lanes > 128 else {}
    widths = [w for w in WIDTHS if w <= lanes and (w > 64 or not twins)]
    return min(widths, key=lambda w: (-(-units // w) * twins.get(w, 1.0), w))


def _sixteen(weight: NDArray[np.int64]) -> bool:
    """Whether 16 bits hold every weight."""
    return bool(weight.min(initial=0) >= -(2**15) and weight.max(initial=0) < 2**15)


def offset_planes(weight: NDArray[np.int64]) -> tuple[int, int, list[NDArray[np.bool_]]]:
    """Return offset, shift and bits so that weight = offset + 2^shift sum_q 2^q bits_q.

    Examples
    --------
    >>> offset_planes(np.array([-1, 1, 1]))
    (-1, 1, [array([False,  True,  True])])
    """
    offset = int(weight.min()) if weight.size else 0
    rest = weight - offset
    common = int(np.bitwise_or.reduce(rest, axis=None))
    shift = (common & -common).bit_length() - 1 if common else 0
    rest = rest >> shift
    count = max(1, int(rest.max(initial=0)).bit_length())
    return offset, shift, [(rest >> q & 1).astype(bool) for q in range(count)]


def digits(weight: NDArray[np.int64]) -> list[NDArray[np.int8]]:
    """Return canonical signed digits: weight = sum_q 2^q digit_q with digits -1, 0, +1, no two neighbours set.

    References
    ----------
    Reitwiesner 1960 [reitwiesner1960]: the form with the fewest non-zero digits.

    Examples
    --------
    >>> [d.tolist() for d in digits(np.array([7, -3]))]
    [[-1, 1], [0, 0], [0, -1], [1, 0]]
    """
    rest, found = weight.astype(np.int64), []
    while rest.any():
        digit = np.where(rest & 1, 2 - (rest & 3), 0)
        found.append(digit.astype(np.int8))
        rest = (rest - digit) >> 1
    return found
