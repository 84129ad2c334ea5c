"""The input grid: which integer code stands for which input number. NumPy only, used on both sides of `freeze`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

__all__ = ["Grid"]

LEVELS = 256


@dataclass(frozen=True, eq=False)
class Grid:
    """Map 8-bit codes q to input values: value = scale * (q - zero).

    `scale` and `zero` broadcast against one sample: two scalars for the pixels of an image,
    one pair per column for a table, shape (c, 1, 1) for one pair per channel. Because `zero` is an
    integer, the value 0 (and with it zero padding) is a code difference and stays exact in integers.

    Parameters
    ----------
    scale
        Value of one integer step, > 0.
    zero
        Code that stands for the value 0; may lie outside 0..255.

    Raises
    ------
    ValueError
        If a scale is not positive and finite.

    References
    ----------
    Jacob et al. 2018, Eq. (1) [jacob2018]: the affine quantisation of integer inference.

    Examples
    --------
    >>> Grid(1 / 16, 0).value(np.array([0, 8, 16], np.uint8))
    array([0. , 0.5, 1. ], dtype=float32)
    """

    scale: NDArray[np.float64]
    zero: NDArray[np.int64]

    def __init__(self, scale: float | NDArray[Any], zero: int | NDArray[Any]) -> None:
        object.__setattr__(self, "scale", np.asarray(scale, np.float64))
        object.__setattr__(self, "zero", np.asarray(zero, np.int64))
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError(f"the scale of an input grid must be positive and finite, got {self.scale}")

    @classmethod
    def around(cls, x: Float[np.ndarray, " n *d"]) -> Grid:
        """Make the finest grid that covers x: one pair per column of a table, per channel of images.

        A column of whole numbers that spans fewer than 256 keeps them exactly (scale 1).
        """
        axes = (0,) if x.ndim == 2 else (0, *range(2, x.ndim))
        lo = x.min(axis=axes, keepdims=True)[0].astype(np.float64)
        hi = x.max(axis=axes, keepdims=True)[0].astype(np.float64)
        whole = (np.equal(x, np.rint(x)).all(axis=axes, keepdims=True)[0]) & (hi - lo < LEVELS)
        scale = np.where(whole, 1.0, (hi - lo) / (LEVELS - 1))
        scale[scale == 0] = 1.0
        return cls(scale, np.rint(-lo / scale))

    def value(self, codes: UInt8[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Return the numbers that the codes stand for, as float32."""
        return ((codes - self.zero) * self.scale).astype(np.float32)

    def code(self, x: Float[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
        """Return the nearest codes, those beyond the grid at its ends.

        Raises
        ------
        ValueError
            If a value is NaN.
        """
        if np.isnan(x).any():
            raise ValueError("the input holds NaN: a code stands for a number; drop or fill these values first")
        return np.clip(np.rint(x / self.scale) + self.zero, 0, LEVELS - 1).astype(np.uint8)
