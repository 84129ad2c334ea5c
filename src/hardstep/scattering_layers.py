"""What a scattering layer is made of: a frame, a non-linearity and a pooling, each with its Lipschitz constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, inf
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn import functional

from hardstep.frames import Frame
from hardstep.rules import BackwardRule, Clipped
from hardstep.step import step

__all__ = [
    "LOGISTIC",
    "MODULUS",
    "RECTIFIED",
    "TANH",
    "HardStep",
    "MaxPool",
    "MeanPool",
    "NonLinearity",
    "Pointwise",
    "Pooling",
    "ScatteringLayer",
    "Subsample",
]

Signal = Float[Tensor, "*b h w"] | Complex[Tensor, "*b h w"]
Pooled = Float[Tensor, "*b rows columns"] | Complex[Tensor, "*b rows columns"]


@runtime_checkable
class NonLinearity(Protocol):
    """M with M 0 = 0 and |M f - M h| <= lipschitz |f - h|."""

    @property
    def lipschitz(self) -> float:
        """L; infinite for a step."""

    @property
    def whole(self) -> bool:
        """Whether whole numbers stay whole."""

    def peak(self, bound: int) -> int:
        """Return a bound on |M u| for |u| <= bound."""

    def real(self, signal: bool) -> bool:
        """Return whether M u is real, given whether u is."""

    def in_integers(self, scale: int) -> tuple[str, int]:
        """Return its name and threshold in a `Scatter` layer, at a level; ValueError if there is none."""

    def __call__(self, u: Signal, scales: Sequence[int]) -> Signal:
        """Apply M to details, stacked before height and width, of these levels."""


@runtime_checkable
class Pooling(Protocol):
    """P with |P f - P h| <= lipschitz |f - h|, sub-sampling by the stride included; windows go round the torus."""

    @property
    def stride(self) -> int:
        """S, by which height and width fall."""

    @property
    def lipschitz(self) -> float:
        """R."""

    @property
    def complex(self) -> bool:
        """Whether it takes complex signals."""

    @property
    def growth(self) -> int:
        """By how much magnitudes may grow."""

    def in_whole_numbers(self) -> Pooling:
        """Return the pooling that a network of hard steps runs instead, so that sums stay exact."""

    def in_integers(self) -> tuple[str, int]:
        """Return its name and window in a `Scatter` layer; ValueError if there is none."""

    def __call__(self, u: Signal) -> Pooled:
        """Apply P."""


@dataclass(frozen=True)
class Pointwise:
    """A Lipschitz function, applied value by value; to real and imaginary parts separately but for the modulus.

    Parameters
    ----------
    function
        M on real tensors, with M(0) = 0; importable by name, so that estimators can be copied.
    lipschitz
        Its constant L.
    whole
        Whether whole numbers stay whole and none grows.
    modulus
        Whether the function takes complex tensors and returns real ones.

    References
    ----------
    Wiatowski and Boelcskei 2018 [wiatowski2018], the Lipschitz non-linearities. Differs: constants are the tight ones.

    Examples
    --------
    >>> LOGISTIC(torch.zeros(1, 1, 1), scales=(0,)), LOGISTIC.lipschitz
    (tensor([[[0.]]]), 0.25)
    """

    function: Callable[[Tensor], Tensor]
    lipschitz: float
    whole: bool = False
    modulus: bool = False

    def peak(self, bound: int) -> int:
        """Return a bound on |M u| for |u| <= bound."""
        return bound

    def real(self, signal: bool) -> bool:
        """Return whether M u is real, given whether u is."""
        return signal or self.modulus

    def in_integers(self, scale: int) -> tuple[str, int]:
        """Return its name and threshold in a `Scatter` layer."""
        names = {torch.abs: "abs", torch.relu: "relu"}
        if self.function not in names:
            raise ValueError(f"{self} has no integer form; use MODULUS, RECTIFIED or HardStep")
        return names[self.function], 0

    def __call__(self, u: Signal, scales: Sequence[int]) -> Signal:
        """Apply M."""
        if self.modulus or not u.is_complex():
            return self.function(u)
        return torch.complex(self.function(u.real), self.function(u.imag))


def _logistic(u: Tensor) -> Tensor:
    return torch.sigmoid(u) - 0.5


MODULUS = Pointwise(torch.abs, 1.0, whole=True, modulus=True)
RECTIFIED = Pointwise(torch.relu, 1.0, whole=True)
TANH = Pointwise(torch.tanh, 1.0)
LOGISTIC = Pointwise(_logistic, 0.25)


@dataclass(frozen=True)
class HardStep:
    """The hard step: step(u - t) tells the side of the contrast, step(|u| - t) where an edge is.

    No Lipschitz constant exists, so stability against small changes is not promised; translations, gain and offset
    (at t = 0) are followed exactly. The whole network runs in whole numbers, without gains.

    Parameters
    ----------
    thresholds
        t of each level, or one for all; whole numbers, in units of the bare taps. `Scattering.with_thresholds` sets
        them from images.
    edges
        Whether |u| is compared.
    rule
        What happens backwards, towards the image.

    Examples
    --------
    >>> HardStep(thresholds=(1,))(torch.tensor([[[1.0, 2.0, -3.0]]]), scales=(0,))
    tensor([[[0., 1., 0.]]])
    """

    thresholds: tuple[int, ...] | int = 0
    edges: bool = False
    rule: BackwardRule = field(default_factory=Clipped)

    lipschitz = inf
    whole = True

    def peak(self, bound: int) -> int:
        """Return a bound on |M u| for |u| <= bound."""
        return 1

    def real(self, signal: bool) -> bool:
        """Return True: the step is of real signals only, and real."""
        return True

    def in_integers(self, scale: int) -> tuple[str, int]:
        """Return its name and threshold in a `Scatter` layer."""
        return "edge" if self.edges else "step", self._threshold(scale)

    def _threshold(self, scale: int) -> int:
        return self.thresholds if isinstance(self.thresholds, int) else self.thresholds[scale]

    def __call__(self, u: Signal, scales: Sequence[int]) -> Signal:
        """Apply M."""
        at = u.new_tensor([self._threshold(scale) for scale in scales])[:, None, None]
        return step((u.abs() if self.edges else u) - at, self.rule)


@dataclass(frozen=True)
class Subsample:
    """Keep every stride-th value along both axes; stride 1 is no pooling.

    Examples
    --------
    >>> Subsample(2)(torch.arange(4.0).reshape(1, 2, 2))
    tensor([[[0.]]])
    """

    stride: int = 1

    lipschitz = 1.0
    complex = True
    growth = 1

    def __post_init__(self) -> None:
        _check_window(self.stride, self.stride)

    def in_whole_numbers(self) -> Pooling:
        """Return itself."""
        return self

    def in_integers(self) -> tuple[str, int]:
        """Return its name and window in a `Scatter` layer: the largest of one."""
        return "max", 1

    def __call__(self, u: Signal) -> Pooled:
        """Apply P."""
        return u if self.stride == 1 else u[..., :: self.stride, :: self.stride]


@dataclass(frozen=True)
class MaxPool:
    """The largest value of each window; of real signals. R = ceil(window/stride), so 1 without overlap.

    Parameters
    ----------
    window
        Side of the window; the stride if None.

    Examples
    --------
    >>> MaxPool(2)(torch.arange(4.0).reshape(1, 2, 2))
    tensor([[[3.]]])
    """

    stride: int
    window: int | None = None

    complex = False
    growth = 1

    def __post_init__(self) -> None:
        _check_window(self.stride, self.window)

    @property
    def lipschitz(self) -> float:
        """R."""
        return float(ceil((self.window or self.stride) / self.stride))

    def in_whole_numbers(self) -> Pooling:
        """Return itself."""
        return self

    def in_integers(self) -> tuple[str, int]:
        """Return its name and window in a `Scatter` layer."""
        return "max", self.window or self.stride

    def __call__(self, u: Signal) -> Pooled:
        """Apply P."""
        window = self.window or self.stride
        around, lead = _around(u, window, self.stride)
        pooled: Tensor = functional.max_pool2d(around, window, self.stride)
        return pooled.reshape(*lead, *pooled.shape[-2:])


@dataclass(frozen=True)
class MeanPool:
    """The mean of each window, of real signals; R = ceil(window/stride)/window, so 1/stride without overlap.

    In networks of hard steps the sum takes its place.

    Parameters
    ----------
    window
        Side of the window; the stride if None.
    total
        Sum instead of mean.

    Examples
    --------
    >>> MeanPool(2)(torch.arange(4.0).reshape(1, 2, 2))
    tensor([[[1.5000]]])
    """

    stride: int
    window: int | None = None
    total: bool = False

    complex = False

    def __post_init__(self) -> None:
        _check_window(self.stride, self.window)

    @property
    def lipschitz(self) -> float:
        """R."""
        window = self.window or self.stride
        return ceil(window / self.stride) * (float(window) if self.total else 1 / window)

    @property
    def growth(self) -> int:
        """By how much magnitudes may grow."""
        return (self.window or self.stride) ** 2 if self.total else 1

    def in_whole_numbers(self) -> Pooling:
        """Return the sum."""
        return replace(self, total=True)

    def in_integers(self) -> tuple[str, int]:
        """Return the name and window of the sum in a `Scatter` layer."""
        return "sum", self.window or self.stride

    def __call__(self, u: Signal) -> Pooled:
        """Apply P."""
        window = self.window or self.stride
        around, lead = _around(u, window, self.stride)
        divisor = 1 if self.total else window**2
        pooled: Tensor = functional.avg_pool2d(around, window, self.stride, divisor_override=divisor)
        return pooled.reshape(*lead, *pooled.shape[-2:])


@dataclass(frozen=True)
class ScatteringLayer:
    """U(lambda) f = P(M(f * g_lambda)) for all filters of a frame.

    Parameters
    ----------
    frame
        A function of the grid that returns `Filters`; the atom is applied to what comes into the layer.
    activation
        M.
    pooling
        P.

    References
    ----------
    Wiatowski and Boelcskei 2018 [wiatowski2018], their layer. Differs: no factor S^(d/2), so sub-sampling has R = 1.

    Examples
    --------
    >>> from hardstep.frames import haar
    >>> ScatteringLayer(haar(2), HardStep(), MaxPool(2)).pooling.lipschitz
    1.0
    """

    frame: Frame
    activation: NonLinearity = MODULUS
    pooling: Pooling = field(default_factory=Subsample)


def _around(u: Tensor, window: int, stride: int) -> tuple[Tensor, tuple[int, ...]]:
    """Return the images one after the other, their first rows and columns put behind the last ones."""
    more = max(window - stride, 0)
    if window > min(u.shape[-2:]):
        raise ValueError(f"a window of {window} does not fit a grid of {tuple(u.shape[-2:])}; take a smaller one")
    around = torch.cat([u, u[..., :more, :]], dim=-2)
    around = torch.cat([around, around[..., :more]], dim=-1)
    return around.flatten(0, -3), tuple(u.shape[:-2])


def _check_window(stride: int, window: int | None) -> None:
    if stride < 1 or (window is not None and window < 1):
        raise ValueError(f"a pooling has a stride and a window of at least 1, got stride={stride} and window={window}")
