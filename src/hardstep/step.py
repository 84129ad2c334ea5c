"""The one step and its convention: step(x) = 1 if x > 0, else 0; sign = 2 step - 1.

Every activation of the library is made of the one `autograd.Function` below. Its forward pass is exact,
in training too; a `BackwardRule` says what happens backwards.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hardstep.rules import BackwardRule, Clipped, widened

__all__ = ["Sign", "Staircase", "Step", "step"]


class _Step(torch.autograd.Function):
    """Exact step forwards, `rule.pullback` backwards. Once differentiable: the rule's own slope means nothing."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, rule: BackwardRule) -> Tensor:
        return x.relu().sign_()  # five times as fast as (x > 0).to(x.dtype), which goes through bytes

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, BackwardRule], output: Tensor) -> None:
        x, ctx.rule = inputs
        ctx.save_for_backward(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.rule.pullback(x, grad), None


# torch binds the arguments of each call by their signature; made once, it need not be inferred every time
_Step.forward.__signature__ = inspect.signature(_Step.forward)  # type: ignore[attr-defined]


def step(x: Float[Tensor, "*n"], rule: BackwardRule | None = None) -> Float[Tensor, "*n"]:
    """Return 1 where x > 0, else 0 (also at 0, -0.0 and NaN), in the dtype of x.

    Parameters
    ----------
    x
        Pre-activations.
    rule
        What to do backwards; `Clipped()` if None.

    Examples
    --------
    >>> step(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0., 0., 1.])
    """
    out: Tensor = _Step.apply(x, Clipped() if rule is None else rule)  # type: ignore[no-untyped-call]
    return out


class Step(nn.Module):
    """The activation of a 0/1 network: step(x) = 1 if x > 0, else 0.

    Parameters
    ----------
    rule
        What stands in for the derivative; a method may replace it for the time of a fit.

    Examples
    --------
    >>> Step()(torch.tensor([-0.5, 0.5]))
    tensor([0., 1.])
    """

    def __init__(self, rule: BackwardRule = Clipped()) -> None:  # noqa: B008 (frozen, so safe to share)
        super().__init__()
        self.rule = rule

    def forward(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return step(x)."""
        return step(x, self.rule)

    def coded(self, out: Float[Tensor, "*n"]) -> tuple[Bool[Tensor, "*n"], Float[Tensor, "_"]]:
        """Return which of its levels each output is, as codes, and the levels as it computes them."""
        return out.bool(), out.new_tensor((0, 1))  # on a CPU eight times as fast as out > 0

    def extra_repr(self) -> str:
        """Show the rule."""
        return f"rule={self.rule}"


class Sign(nn.Module):
    """The activation of a -1/+1 network: sign(x) = 2 step(x) - 1, so sign(0) = -1.

    Parameters
    ----------
    rule
        Rule of the underlying 0/1 step; the doubling makes its slope g = 2 h in the sign domain.

    Examples
    --------
    >>> Sign()(torch.tensor([-0.5, 0.0, 0.5]))
    tensor([-1., -1.,  1.])
    """

    def __init__(self, rule: BackwardRule = Clipped()) -> None:  # noqa: B008 (frozen, so safe to share)
        super().__init__()
        self.step = Step(rule)

    def forward(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 2 step(x) - 1."""
        out: Tensor = 2 * self.step(x) - 1
        return out

    def coded(self, out: Float[Tensor, "*n"]) -> tuple[Bool[Tensor, "*n"], Float[Tensor, "_"]]:
        """Return which of its levels each output is, as codes, and the levels as it computes them."""
        return (out + 1).bool(), out.new_tensor((-1, 1))


class Staircase(nn.Module):
    """The quantised ReLU: (1/k) sum_{i<k} step(x - theta_i), theta_i = i/(k-1); k = 1 is the step itself.

    The stairs are counted by comparisons with stored thresholds; the form ceil((k-1) x) differs from it at
    floats beside a threshold. Backwards each stair follows the rule, so an area-1 rule matches the jump of 1; or one
    rule stands for the whole flight, in its middle: `Staircase(rule=UnitArea(Clipped(0.5)), whole=True)` passes the
    gradient on where 0 <= x <= 1, `Sech2(2.0)` in its place weighs it by sech²(2x - 1).

    Parameters
    ----------
    stairs
        Number k >= 1 of stairs; the output has k + 1 levels (k = 3 is the 2-bit activation).
    rule
        Rule of each stair, or of the flight.
    whole
        Follow the rule once, at x - 1/2, instead of at every stair.

    Raises
    ------
    ValueError
        If there is no stair.

    References
    ----------
    Friesen and Domingos 2018, Sec. 4 [friesen2018], quantised ReLU. Differs: by default the backward pass is the sum
    of the stairs' own rules, not one box or one sech².

    Examples
    --------
    >>> Staircase(3)(torch.tensor([0.0, 0.1, 0.6, 1.5]))
    tensor([0.0000, 0.3333, 0.6667, 1.0000])
    """

    def __init__(self, stairs: int = 3, rule: BackwardRule = Clipped(), *, whole: bool = False) -> None:  # noqa: B008
        super().__init__()
        if stairs < 1:
            raise ValueError(f"a staircase has at least 1 stair, got {stairs}")
        self.stairs, self.whole = stairs, whole
        self.step = Step(rule)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Where the stairs rise."""
        return tuple(i / max(self.stairs - 1, 1) for i in range(self.stairs))

    def forward(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return the share of thresholds below x."""
        if self.whole:
            middle = self.step(x - 0.5)
            below = torch.stack([x > threshold for threshold in self.thresholds]).sum(dim=0).to(x.dtype)
            out: Tensor = below / self.stairs + (middle - middle.detach())
            return out
        count = self.step(x)
        for threshold in self.thresholds[1:]:
            count = count + self.step(x - threshold)
        out = count / self.stairs
        return out

    def coded(self, out: Float[Tensor, "*n"]) -> tuple[UInt8[Tensor, "*n"], Float[Tensor, "_"]]:
        """Return which of its levels each output is, as codes, and the levels as it computes them."""
        return (widened(out) * self.stairs).round_().to(torch.uint8), out.new_tensor(
            range(self.stairs + 1)
        ) / self.stairs

    def extra_repr(self) -> str:
        """Show the number of stairs."""
        return f"stairs={self.stairs}" + ", whole" * self.whole
