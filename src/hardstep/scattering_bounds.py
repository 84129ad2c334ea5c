"""Constants of scattering layers, and how far features move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Complex, Float
from torch import Tensor

__all__ = ["LayerBounds", "distance", "lipschitz_constant"]

Features = Float[Tensor, "b c _ _ _"] | Complex[Tensor, "b c _ _ _"]


@dataclass(frozen=True)
class LayerBounds:
    """The constants of a layer, n = 1..D; of the output frame, n = D + 1, with L = R = 1.

    Parameters
    ----------
    grid
        Height and width of what comes in.
    lower, upper
        Frame bounds A, B of the frame as given.
    lipschitz
        L of the non-linearity, infinite for a step.
    pooling
        R of the pooling.
    gain
        c, by which all filters are multiplied, so that max(B c², B c² L² R²) <= 1.
    decay
        K = max |atom^(w)| |w| of the atom as it is applied.
    """

    grid: tuple[int, int]
    lower: float
    upper: float
    lipschitz: float
    pooling: float
    gain: float
    decay: float


def lipschitz_constant(bounds: Sequence[LayerBounds]) -> float:
    """Return a constant C of |Phi(f) - Phi(h)| <= C |f - h|, at most 1 for admissible networks.

    C² = V_0 with V_D = B_{D+1} and V_{n-1} = B_n max(1, V_n L_n² R_n²), B_n with its gain: what layer n gives out and
    what it passes on share the energy B_n of what comes in.

    References
    ----------
    Wiatowski and Boelcskei 2018 [wiatowski2018], non-expansiveness under admissibility. Differs: any bounds, in one
    recursion.

    Examples
    --------
    >>> lipschitz_constant(2 * [LayerBounds((8, 8), 1.0, 2.0, 1.0, 1.0, 1.0, 0.5)])
    2.0
    """
    value = 0.0
    for layer in reversed(bounds):
        value = layer.gain**2 * layer.upper * max(1.0, value * (layer.lipschitz * layer.pooling) ** 2)
    return 1.0 if abs(value - 1) < 1e-12 else sqrt(value)


def distance(features: Sequence[Features], others: Sequence[Features]) -> Float[Tensor, " b"]:
    """Return |||Phi - Phi'|||, the root of the sum of squares over all orders and nodes, image by image.

    Examples
    --------
    >>> distance([torch.ones(2, 1, 1, 2, 2)], [torch.zeros(2, 1, 1, 2, 2)])
    tensor([2., 2.], dtype=torch.float64)
    """
    gaps = [(a - b).abs().double().square().sum(dim=(1, 2, 3, 4)) for a, b in zip(features, others, strict=True)]
    return torch.stack(gaps).sum(dim=0).sqrt()
