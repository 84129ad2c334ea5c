"""Hidden units: a network read as layers of them, what they put out, and which are proved constant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int16
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from hardstep.chain import leaves
from hardstep.layers import permanent
from hardstep.step import Sign, Staircase, Step

__all__ = ["Hidden", "certified", "codes", "hidden_layers"]

RISING = (nn.MaxPool2d, nn.Flatten, _DropoutNd, nn.Identity)
"""What stands between the layers and moves outputs, in the order of their inputs, without rounding them."""

Activation = Step | Sign | Staircase | nn.ReLU


@dataclass(frozen=True, eq=False)
class Hidden:
    """A layer of hidden units.

    Parameters
    ----------
    name
        Name of the module with its weights.
    affine, norm, activation
        The weights, the normalisation behind them if there is one, and what makes the outputs.
    reads_signs
        Whether its inputs are -1 and +1.
    """

    name: str
    affine: nn.Linear | nn.Conv2d
    norm: _BatchNorm | None
    activation: Activation
    reads_signs: bool

    @property
    def top(self) -> int:
        """Code of the highest output: 1, or the number of stairs."""
        return self.activation.stairs if isinstance(self.activation, Staircase) else 1

    @property
    def passes_on(self) -> bool:
        """Whether a unit that always fires still passes on what it reads, as a ReLU does."""
        return isinstance(self.activation, nn.ReLU)

    def code(self, out: Float[Tensor, "*n"]) -> Int16[Tensor, "*n"]:
        """Return outputs as whole numbers: 0 silent, 1 firing; of a staircase the number of stairs."""
        whole = out > 0 if self.passes_on else (out.clamp_min(0) * self.top).round()
        return whole.to(torch.int16)


def hidden_layers(net: nn.Module) -> list[Hidden]:
    """Read a network as layers of hidden units.

    Raises
    ------
    ValueError
        If it is no (nested) `nn.Sequential` of linear maps and convolutions, batch normalisation, max pooling
        and activations (Step, Sign, Staircase, ReLU), or has no hidden layer; the module is named.
    """
    found: list[Hidden] = []
    open_layer: tuple[str, nn.Linear | nn.Conv2d] | None = None
    norm: _BatchNorm | None = None
    signs = False
    for name, module in leaves(net):
        if isinstance(module, nn.Linear | nn.Conv2d):
            open_layer, norm = (name, module), None
        elif isinstance(module, _BatchNorm) and open_layer is not None and norm is None and module.track_running_stats:
            norm = module
        elif isinstance(module, Activation) and open_layer is not None:
            found.append(Hidden(*open_layer, norm, module, signs))
            open_layer, signs = None, isinstance(module, Sign)
        elif not isinstance(module, RISING):
            raise ValueError(
                f"units are read off an nn.Sequential of Linear or Conv2d, BatchNorm, MaxPool and Step, Sign, "
                f"Staircase or ReLU, but layer {name!r} is {module}"
            )
    if not found:
        raise ValueError("the network has no hidden layer: put hardstep.Step() behind a linear map")
    return found


def codes(net: nn.Module, x: Float[Tensor, "n ..."]) -> Iterator[tuple[Hidden, Int16[Tensor, "n _ ..."]]]:
    """Send rows through a network as it stands; yield what each hidden layer puts out, in whole numbers.

    0 is silent (of `Sign`: -1), 1 firing; of a `Staircase` the number of stairs.
    """
    layers = iter(hidden_layers(net))
    for _, module in leaves(net):
        x = module(x)
        if isinstance(module, Activation):
            layer = next(layers)
            yield layer, layer.code(x)


@torch.no_grad()
def certified(
    net: nn.Module, low: Float[Tensor, "..."], high: Float[Tensor, "..."]
) -> list[tuple[Bool[Tensor, " _"], Bool[Tensor, " _"]]]:
    """Return, for each hidden layer, which channels are proved silent, and proved to be at their highest output.

    Intervals go through the network from the box of inputs on: each weight takes the end that its sign asks for, so
    that sums lie between sum_i min(w lo, w hi) and sum_i max(w lo, w hi). A unit proved constant has an interval of
    length 0, so that the layers above are bounded more tightly. Every interval is as much wider as sums and
    normalisation may round in the network's own precision, in any order: a unit whose bound ties with its threshold is
    left open unless all terms of that bound are 0.

    Parameters
    ----------
    low, high
        Least and greatest value of each input, in the shape of a sample.
    """
    exact = permanent(net).double().eval()
    unit = max(torch.finfo(weight.dtype).eps for weight in net.parameters())
    layers = iter(hidden_layers(exact))
    lo, hi = low.double()[None], high.double()[None]
    found = []
    for _, module in leaves(exact):
        if isinstance(module, nn.Linear | nn.Conv2d):
            lo, hi = _bound(module, lo, hi, -unit), _bound(module, hi, lo, unit)
        elif isinstance(module, _BatchNorm):
            lo, hi = _normalised(module, lo, hi, unit)
        elif isinstance(module, Activation):
            layer = next(layers)
            lo, hi = module(lo - unit * lo.abs()), module(hi + unit * hi.abs())  # a staircase's thresholds are rounded
            least, most = (layer.code(end)[0].flatten(1) if end.ndim > 2 else layer.code(end).T for end in (lo, hi))
            found.append(((most == 0).all(dim=1), (least == layer.top).all(dim=1)))
        else:
            lo, hi = module(lo), module(hi)
    return found


def _bound(module: nn.Linear | nn.Conv2d, near: Tensor, far: Tensor, unit: float) -> Tensor:
    """Return W+ near + W- far + b and, with the sign of `unit`, the most that rounding adds to it.

    The least sums for near = lo, the greatest for near = hi. The error at x is at most gamma (|W| |x| + |b|), so that
    the extreme of sum plus error is again at the ends.
    """
    rising, falling = module.weight.clamp_min(0), module.weight.clamp_max(0)
    zeros = torch.zeros(len(rising), dtype=rising.dtype, device=rising.device)
    shift = zeros if module.bias is None else module.bias

    def sums(weight: Tensor, x: Tensor, bias: Tensor) -> Tensor:
        given = {"weight": weight} | ({} if module.bias is None else {"bias": bias})
        out: Tensor = functional_call(module, given, (x,))
        return out

    out = sums(rising, near, shift) + sums(falling, far, zeros)
    size = sums(rising, near.abs(), shift.abs()) - sums(falling, far.abs(), zeros)
    return out + unit * (rising[0].numel() + 4) * size


def _normalised(norm: _BatchNorm, lo: Tensor, hi: Tensor, unit: float) -> tuple[Tensor, Tensor]:
    """Return the ends of an interval behind a normalisation, its rounding included."""
    assert norm.running_mean is not None
    centre, scale = norm.running_mean, norm(torch.ones_like(lo)) - norm(torch.zeros_like(lo))
    around = centre.view(1, -1, *[1] * (lo.ndim - 2)).abs()
    size = scale.abs() * (torch.maximum(lo.abs(), hi.abs()) + 2 * around) + norm(torch.zeros_like(lo)).abs()
    ends = norm(lo), norm(hi)
    return torch.minimum(*ends) - 8 * unit * size, torch.maximum(*ends) + 8 * unit * size
