"""Weights of 8 and 16 bits as the kernels of the runtime read them, so that no sum leaves its width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

__all__ = ["ByteWeights", "RowWeights", "byte_weights", "byte_width", "excess_share", "row_weights"]

GROUP = 16  # units that a vector holds
MOST = 128  # 255 * 128 < 2^15: what the weights of one sign in a pair may sum to
WORTH = 0.03  # share of pairs with an excess beyond which 16-bit weights are faster


@dataclass(frozen=True)
class ByteWeights:
    """Weights in the order of the kernel, as bytes; their width in bits; entries of excess behind them."""

    data: NDArray[np.uint8]
    bits: int
    entries: int


@dataclass(frozen=True)
class RowWeights:
    """Rows of weights as bytes; their width in bits; rows after which 16-bit sums are widened; a factor of all."""

    data: NDArray[np.uint8]
    bits: int
    flush: int
    factor: int


def byte_weights(weight: Int64[np.ndarray, "m k"], *, plain: bool = False) -> ByteWeights:
    """Lay out the weights of m units on k bytes for the kernel of products of bytes.

    With 8 bits they lie as [16 units][4 terms][unit][4]. An instruction multiplies bytes x <= 255 by weights and adds
    two neighbours in 16 bits, which saturates where the weights of one sign in a pair sum to more than 128. So such a
    pair gives up what is too much; (term, unit, excess) for each, in a list for every 16 units, makes up for it. Where
    many pairs have an excess, or weights are wider, they lie as [16 units][2 terms][unit][2] with 16 bits. `plain`
    is for kernels that never saturate: no excess then.

    Examples
    --------
    >>> byte_weights(np.array([[100, 100] + [0] * 98])).entries  # 255 * 200 does not fit 16 bits: 72 is kept apart
    2
    """
    units, terms = weight.shape
    bits = byte_width(weight, saturating=not plain)
    step = 32 // bits
    whole = np.zeros((-(-units // GROUP) * GROUP, -(-terms // step) * step), np.int64)
    whole[:units, :terms] = weight
    lists = np.zeros(0, np.uint8)
    if bits == 8 and not plain:
        excess = _excess(whole)
        whole -= excess
        lists = _lists(excess)
    tiled = whole.astype(f"<i{bits // 8}").reshape(-1, GROUP, whole.shape[1] // step, step).transpose(0, 2, 1, 3)
    laid = np.frombuffer(tiled.tobytes(), np.uint8)
    return ByteWeights(np.concatenate([laid, lists]), bits, len(lists) // 8)


def row_weights(weight: Int64[np.ndarray, "m k"]) -> RowWeights:
    """Lay out the weights of m units on k bits for the kernel that adds rows: [64 units][row][unit].

    The last block has groups of 16 units. Whole blocks of 8 bits hold weight + 128, in each 32 of them unit j beside
    unit 16 + j: two sums in every 16 bits.

    Examples
    --------
    >>> row_weights(np.array([[300, -600]])).factor
    300
    """
    units, terms = weight.shape
    factor = int(np.gcd.reduce(weight, axis=None)) or 1
    rows = weight.T // factor
    bits = _width(rows)
    padded = np.zeros((terms, -(-units // GROUP) * GROUP), f"<i{bits // 8}")
    padded[:, :units] = rows
    blocks = [padded[:, i : i + 64] for i in range(0, padded.shape[1], 64)]
    if bits == 8:
        pairs = np.arange(64).reshape(2, 2, 16).transpose(0, 2, 1).ravel()
        blocks = [(b[:, pairs] ^ -128) if b.shape[1] == 64 else b for b in blocks]
    flush = max(1, min(65_535, (2**15 - 1) // max(1, int(np.abs(rows).max(initial=0)))))
    data = np.frombuffer(b"".join(block.tobytes() for block in blocks), np.uint8)
    return RowWeights(data, bits, flush, factor)


def byte_width(weight: Int64[np.ndarray, "m k"], *, saturating: bool) -> int:
    """Return the bits with which the kernel of products of bytes is fastest, 8 or 16."""
    return 8 if _width(weight) == 8 and not (saturating and excess_share(weight) > WORTH) else 16


def _width(weight: NDArray[np.int64]) -> int:
    """Return the bits that hold all weights, 8 or 16."""
    return 8 if weight.min(initial=0) >= -128 and weight.max(initial=0) <= 127 else 16


def excess_share(weight: Int64[np.ndarray, "m k"]) -> float:
    """Return the share of pairs of neighbouring terms that have an excess."""
    even = np.pad(weight, ((0, 0), (0, weight.shape[1] % 2)))
    return 2 * np.count_nonzero(_excess(even)) / max(even.size, 1)


def _excess(weight: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what each weight, of which at most one in a pair, must give up."""
    pairs = weight.reshape(len(weight), weight.shape[1] // 2, 2)
    total, second = pairs.sum(axis=2), np.abs(pairs[:, :, 1]) > np.abs(pairs[:, :, 0])
    same = pairs[:, :, 0] * pairs[:, :, 1] > 0  # of opposite signs, each alone is small enough
    over = np.where(same, np.sign(total) * np.maximum(np.abs(total) - MOST, 0), 0)
    return np.stack([np.where(second, 0, over), np.where(second, over, 0)], axis=2).reshape(weight.shape)


def _lists(excess: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return for every 16 units the count and the entries (term, unit, excess) of 8 bytes; nothing if all are 0."""
    kind = np.dtype([("term", "<u4"), ("unit", "<u2"), ("more", "<i2")])
    parts: list[NDArray[Any]] = []
    for group in excess.reshape(-1, GROUP, excess.shape[1]):
        unit, term = np.nonzero(group)
        entries = np.zeros(len(unit) + 1, kind)
        entries["term"] = [len(unit), *term]
        entries["unit"][1:], entries["more"][1:] = unit, group[unit, term]
        parts.append(entries)
    return np.frombuffer(np.concatenate(parts).tobytes() if excess.any() else b"", np.uint8)
