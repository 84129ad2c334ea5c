"""Bits in NumPy: packing, popcount and products of packed planes. The reference for every faster form."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, Integer, UInt8, UInt64

__all__ = ["dot", "from_planes", "pack", "popcount", "to_planes", "unpack", "width"]

WORD = 64


def pack(bits: Integer[np.ndarray, "*n d"]) -> UInt64[np.ndarray, "*n w"]:
    """Pack 0/1 rows into 64-bit words, bit j of a row at bit j mod 64 of word j div 64, padded with 0.

    Examples
    --------
    >>> pack(np.array([1, 0, 1, 1], np.uint8))
    array([13], dtype=uint64)
    """
    missing = -bits.shape[-1] % WORD
    padded = np.pad(bits.astype(np.uint8), [(0, 0)] * (bits.ndim - 1) + [(0, missing)])
    packed = np.packbits(padded, axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u8").astype(np.uint64, copy=False)


def unpack(words: UInt64[np.ndarray, "*n w"], count: int) -> UInt8[np.ndarray, "*n d"]:
    """Return the first `count` bits of every packed row.

    Examples
    --------
    >>> unpack(np.array([13], np.uint64), 4)
    array([1, 0, 1, 1], dtype=uint8)
    """
    if not 0 <= count <= WORD * words.shape[-1]:
        raise ValueError(f"a row of {words.shape[-1]} words holds at most {WORD * words.shape[-1]} bits, asked {count}")
    octets = np.ascontiguousarray(words.astype("<u8")).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little", count=count)


def popcount(words: UInt64[np.ndarray, "*n w"]) -> Int64[np.ndarray, "*n"]:
    """Return the number of set bits of every row.

    Examples
    --------
    >>> popcount(np.array([[13, 1]], np.uint64))
    array([4])
    """
    counts: Int64[np.ndarray, "*n"] = np.bitwise_count(words).sum(axis=-1, dtype=np.int64)
    return counts


def width(values: Integer[np.ndarray, "*n"], *, signed: bool) -> int:
    """Return the least number of bits that holds every value; 1 for an empty or zero array.

    Examples
    --------
    >>> width(np.array([0, 5]), signed=False), width(np.array([-4, 3]), signed=True)
    (3, 3)
    """
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if not signed and low < 0:
        raise ValueError(f"an unsigned width needs values >= 0, got {low}")
    return max((high if high >= 0 else ~high).bit_length(), (~low if low < 0 else 0).bit_length()) + int(signed) or 1


def to_planes(values: Integer[np.ndarray, "*n d"], bits: int) -> UInt64[np.ndarray, "bits *n w"]:
    """Split values into packed bit planes, lowest first, two's complement (the top plane weighs -2^(bits-1)).

    Examples
    --------
    >>> to_planes(np.array([1, -2, 0]), 2)
    array([[1],
           [2]], dtype=uint64)
    """
    return np.stack([pack((values.astype(np.int64) >> plane) & 1) for plane in range(bits)])


def from_planes(planes: UInt64[np.ndarray, "bits *n w"], count: int, *, signed: bool) -> Int64[np.ndarray, "*n d"]:
    """Put packed planes together again, the first `count` values of every row.

    Examples
    --------
    >>> from_planes(np.array([[1], [2]], np.uint64), 3, signed=True)
    array([ 1, -2,  0])
    """
    weights = _weights(len(planes), signed=signed)
    total: Int64[np.ndarray, "*n d"] = sum(
        (unpack(plane, count).astype(np.int64) * weight for plane, weight in zip(planes, weights, strict=True)),
        start=np.zeros((*planes.shape[1:-1], count), np.int64),
    )
    return total


def dot(
    x: UInt64[np.ndarray, "p n w"], weights: UInt64[np.ndarray, "q k w"], *, signed: bool = True
) -> Int64[np.ndarray, "n k"]:
    """Multiply unsigned packed planes by signed packed planes: sum_pq 2^p s_q popcount(x_p AND w_q).

    Examples
    --------
    >>> dot(to_planes(np.array([[1, 1, 0]]), 1), to_planes(np.array([[1, -2, 0]]), 2))
    array([[-1]])
    """
    out = np.zeros((x.shape[1], weights.shape[1]), np.int64)
    for i, plane in enumerate(x):
        for weight, row in zip(_weights(len(weights), signed=signed), weights, strict=True):
            out += (weight << i) * popcount(plane[:, None, :] & row[None, :, :])
    return out


def _weights(bits: int, *, signed: bool) -> list[int]:
    """Return what each plane counts."""
    return [1 << i for i in range(bits - 1)] + [-(1 << (bits - 1)) if signed else 1 << (bits - 1)]
