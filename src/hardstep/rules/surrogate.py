"""What a backward rule is, and what one is that differentiates a stand-in of the step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import frexp, inf, ldexp, nextafter

import torch
from jaxtyping import Float
from torch import Tensor

_mask = torch.ops.aten.threshold_backward  # (a, b, t) -> a where b > t, else 0

__all__ = ["BackwardRule", "Surrogate", "positive", "widened", "window"]


class BackwardRule(ABC):
    """What a step does backwards: a frozen dataclass that maps dL/dstep to dL/dx.

    `pullback` must be positively homogeneous, pullback(x, c g) = c pullback(x, g) for c > 0, so that
    loss scaling in half precision is safe, and must never return NaN for finite x.
    """

    @abstractmethod
    def pullback(self, x: Float[Tensor, "*n"], grad: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return dL/dx from the step's input x and grad = dL/dstep, in the dtype of grad."""

    def at(self, progress: float) -> BackwardRule:
        """Return the rule for this share of the training, in [0, 1). A rule without a schedule returns itself."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is a share of the training in [0, 1], got {progress}")
        return self

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """Inputs, at most 256, of which `pullback` takes every x for one, bit for bit; none if it needs x itself."""
        return ()

    @property
    def for_weights(self) -> BackwardRule:
        """The rule of the steps in binary and ternary weights: the same one, unless it says otherwise."""
        return self


class Surrogate(BackwardRule):
    """A rule that is the derivative h = C' of a smooth stand-in C of the step: pullback = grad * h(x).

    The curve runs from 0 to 1 in the Heaviside domain (a sign network doubles it). 16-bit inputs
    are computed in float32 and the result is cast back.
    """

    @abstractmethod
    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return C(x), the stand-in of step(x); C(-x) = 1 - C(x)."""

    @abstractmethod
    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return h(x) = C'(x), an even function, in a new tensor."""

    @property
    @abstractmethod
    def area(self) -> float:
        """Return the integral of h; the jump of the step is 1."""

    @property
    def peak(self) -> float:
        """The value h(0)."""
        return float(self.derivative(torch.zeros((), dtype=torch.float64)))

    def pullback(self, x: Float[Tensor, "*n"], grad: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return grad * h(x), and 0 where h is 0 even for an infinite grad (inf * 0 would be NaN)."""
        h = self.derivative(widened(x))
        # where(|h| <= 0, 0, grad h) in one fused kernel; torch.where costs ten times as much on a CPU
        back: Tensor = _mask(grad.to(h.dtype) * h, h.abs_(), 0.0)
        return back.to(grad.dtype)


def widened(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return 16-bit numbers as float32, in which rules compute, others as they are.

    Examples
    --------
    >>> widened(torch.zeros(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def window(h: Float[Tensor, "..."], x: Float[Tensor, "*n"], limit: float) -> Float[Tensor, "*n"]:
    """Return h where |x| <= limit, else 0, in one fused kernel whose own window is open.

    Examples
    --------
    >>> window(torch.ones(3), torch.tensor([-2.0, 1.0, 1.5]), 1.5)
    tensor([0., 1., 1.])
    """
    edge = _above(limit) if x.dtype == torch.float32 else nextafter(limit, inf)
    out: Tensor = torch.ops.aten.hardtanh_backward(h, x, -edge, edge)
    return out


def _above(limit: float) -> float:
    """Return the float32 after a number rounded to float32, by its bits (torch's compiler can trace it)."""
    fraction, exponent = frexp(limit)
    whole = round(ldexp(fraction, 24))  # round half to even, as float32 does
    return ldexp(whole + 1, exponent - 24)


def positive(name: str, value: float) -> None:
    """Raise ValueError unless a hyperparameter is positive and finite."""
    if not (value > 0 and value < float("inf")):
        raise ValueError(f"{name} must be positive and finite, got {value}")
