"""What the layers of a HardNet read: codes, the integers they stand for, and exact sums of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer
from numpy.typing import NDArray

__all__ = ["Encoding", "Product", "convolve", "count", "exact_product", "places"]

Product = Callable[[NDArray[np.int64], NDArray[np.integer[Any]]], NDArray[np.int64]]
"""Integer matrix product: values (n, d) and weights (k, d) to sums (n, k)."""


def exact_product(values: Int64[np.ndarray, "n d"], weight: Integer[np.ndarray, "k d"]) -> Int64[np.ndarray, "n k"]:
    """Multiply integer matrices exactly through floats wide enough for every partial sum.

    Raises
    ------
    ValueError
        If a sum could reach 2^53.
    """
    bound = int(np.abs(values).max(initial=0)) * int(np.abs(weight.astype(np.int64)).sum(axis=1).max(initial=0))
    if bound >= 2**53:
        raise ValueError(f"a sum could reach {bound}, beyond the exact range 2^53; use fewer weight bits")
    kind = np.float32 if bound < 2**24 else np.float64
    sums: NDArray[np.int64] = (values.astype(kind) @ weight.T.astype(kind)).astype(np.int64)
    return sums


def convolve(
    values: NDArray[np.int64],
    weight: NDArray[np.integer[Any]],
    stride: tuple[int, int],
    padding: tuple[int, int],
    product: Product = exact_product,
) -> Int64[np.ndarray, "n k h w"]:
    """Return the sums of images (n, c, h, w) by kernels (k, c, i, j) at every position; padding is the value 0."""
    values = np.pad(values, [(0, 0), (0, 0), *((pad, pad) for pad in padding)])
    windows = np.lib.stride_tricks.sliding_window_view(values, weight.shape[2:], axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1]].transpose(0, 2, 3, 1, 4, 5)
    n, height, width = windows.shape[:3]
    acc = product(windows.reshape(n * height * width, -1), weight.reshape(len(weight), -1))
    return acc.reshape(n, height, width, -1).transpose(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class Encoding:
    """What a code is worth to a layer: value = gain * code - zero; integers that broadcast against one sample."""

    gain: NDArray[np.int64] = field(default_factory=lambda: np.array(1))
    zero: NDArray[np.int64] = field(default_factory=lambda: np.array(0))

    def value(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the integers that the codes stand for."""
        return codes.astype(np.int64) * self.gain - self.zero

    def flat(self, shape: tuple[int, ...]) -> Encoding:
        """Return the encoding of the flattened sample."""
        return Encoding(*(a if a.ndim == 0 else np.broadcast_to(a, shape).reshape(-1) for a in (self.gain, self.zero)))

    def take(self, kept: NDArray[np.intp], units: int, shape: tuple[int, ...]) -> Encoding:
        """Return the encoding of samples of this shape when only some of their units (channels) are left."""
        return Encoding(
            *(
                a if a.ndim < len(shape) or len(a) == 1 else a.reshape(units, -1)[kept].reshape(-1, *a.shape[1:])
                for a in (self.gain, self.zero)
            )
        )


def count(acc: NDArray[np.int64], threshold: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return how many of each unit's thresholds lie below its sum."""
    codes = np.zeros(acc.shape, np.uint8)
    for stair in threshold.T:
        codes += acc > stair
    return codes


def places(
    sizes: Sequence[int], window: Sequence[int], stride: Sequence[int], padding: Sequence[int] = (0, 0)
) -> tuple[int, int]:
    """Return at how many places along height and width a window stands.

    Examples
    --------
    >>> places((28, 28), window=(5, 5), stride=(2, 2), padding=(2, 2))
    (14, 14)
    """
    along = zip(sizes, window, stride, padding, strict=True)
    height, width = ((size + 2 * pad - wide) // step + 1 for size, wide, step, pad in along)
    return height, width
