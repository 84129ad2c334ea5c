"""A network read and written as a chain of affine maps with a step between each two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from hardstep.step import Sign, Staircase, Step

__all__ = ["Affine", "chain", "half_spaces", "layers_named", "leaves", "run", "unit_scale", "with_ones"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Affine:
    """A linear layer and the batch normalisation behind it, seen as one matrix [weights, bias].

    Parameters
    ----------
    linear
        The layer.
    norm
        The normalisation between the layer and its step, if there is one.
    """

    linear: nn.Linear
    norm: nn.BatchNorm1d | None = None

    def read(self) -> Float[Tensor, "h d_and_1"]:
        """Return weights and bias as they act in evaluation mode, normalisation folded in."""
        weight, bias = self.linear.weight.detach(), self.linear.bias
        shift = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        if self.norm is not None:
            mean, var, gain, offset = _statistics(self.norm)
            scale = gain / (var + self.norm.eps).sqrt()
            weight, shift = weight * scale[:, None], (shift - mean) * scale + offset
        return torch.cat([weight, shift[:, None]], dim=1)

    def resize(self, units: int, inputs_and_1: int) -> None:
        """Give the layers other widths; their weights are new and wait for `write`."""
        for tensors in (self.linear, self.norm):
            for name, value in list(() if tensors is None else tensors.named_parameters(recurse=False)):
                shape = (units, inputs_and_1 - 1) if value.ndim == 2 else (units,)
                setattr(tensors, name, nn.Parameter(value.new_empty(shape), requires_grad=value.requires_grad))
        self.linear.out_features, self.linear.in_features = units, inputs_and_1 - 1
        if self.norm is not None:
            self.norm.num_features = units
            self.norm.running_mean, self.norm.running_var = (
                value.new_empty(units) for value in _statistics(self.norm)[:2]
            )

    @torch.no_grad()
    def write(self, matrix: Float[Tensor, "h d_and_1"], gram: Float[Tensor, "d_and_1 d_and_1"] | None = None) -> None:
        """Make the layers act as this matrix.

        Parameters
        ----------
        matrix
            Weights, with the bias as last column.
        gram
            Mean of a a' over the inputs a = (x, 1). With it a normalisation gets the mean and variance of its true
            inputs, so that it acts alike in training mode: a gradient method can go on from here.
        """
        self.linear.weight.copy_(matrix[:, :-1])
        bias = matrix[:, -1]
        if self.norm is None:
            self.linear.bias.copy_(bias)
            return
        if self.linear.bias is not None:
            self.linear.bias.zero_()
        mean, var = torch.zeros_like(bias), torch.ones_like(bias)
        if gram is not None:
            weight = matrix[:, :-1].to(gram.dtype)
            first = weight @ gram[:-1, -1]
            spread = ((weight @ gram[:-1, :-1]) * weight).sum(dim=1) - first.square()
            mean, var = first.to(bias.dtype), spread.clamp_min(0).to(bias.dtype)
        values = zip(_statistics(self.norm), (mean, var, (var + self.norm.eps).sqrt(), bias + mean), strict=True)
        for parameter, value in values:
            parameter.copy_(value)


def leaves(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of nested `nn.Sequential`s in the order in which they run, those used twice twice."""
    leaf = None
    for name, module in net.named_modules(remove_duplicate=False):
        if leaf is not None and name.startswith(leaf):
            continue  # a part of a leaf, such as the step of a staircase
        if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
            leaf = f"{name}." if name else ""
            yield name or type(module).__name__, module


def layers_named(found: Mapping[str, T], names: Sequence[str]) -> dict[str, T]:
    """Return those of a network's layers that are named, all but the last, the read-out, if none is.

    Raises
    ------
    ValueError
        If the network has no layer of a name, or none below the read-out.
    """
    if unknown := [name for name in names if name not in found]:
        raise ValueError(f"the network has no layer {unknown[0]!r} with weights; it has {', '.join(found)}")
    chosen = {name: found[name] for name in names or list(found)[:-1]}
    if not chosen:
        raise ValueError("the network has no layer below the read-out; name the read-out in layers, or add a layer")
    return chosen


def chain(net: nn.Module, method: str) -> list[Affine]:
    """Return the affine maps of a network of the form [flatten,] (linear, [normalise,] step[, dropout]) ..., linear.

    Parameters
    ----------
    method
        The name of who asks, for the error.

    Raises
    ------
    ValueError
        If the network has another form; the layer is named.
    """
    found: list[Affine] = []
    free = False  # whether the last affine map still waits for its step
    for name, module in net.named_modules():
        composite = list(module.children()) and not isinstance(module, Sign | Staircase)
        if composite or isinstance(module, nn.Dropout | nn.Identity):
            continue
        if isinstance(module, nn.Flatten) and not found:
            continue
        if isinstance(module, nn.Linear) and not free:
            found.append(Affine(module))
        elif isinstance(module, nn.BatchNorm1d) and free and found[-1].norm is None and _whole(module):
            found[-1] = Affine(found[-1].linear, module)
        elif not (isinstance(module, Step) and free):
            raise ValueError(
                f"{method} takes chains of Linear (with or without BatchNorm1d) and Step that end in a Linear, but "
                f"layer {name!r} is {module}; use nets.mlp or another method"
            )
        free = not isinstance(module, Step)
    if len(found) < 2 or not free or found[-1].norm is not None:
        raise ValueError(f"{method} needs at least one step, and a Linear as the last layer; use nets.mlp")
    for affine in found:
        if affine.linear.bias is None and affine.norm is None:
            raise ValueError(f"{method} needs a bias in every layer, but {affine.linear} has none; set bias=True")
    return found


def with_ones(a: Float[Tensor, "n d"]) -> Float[Tensor, "n d_and_1"]:
    """Return the rows with a one appended, which multiplies the bias."""
    return torch.cat([a, a.new_ones(len(a), 1)], dim=1)


def run(
    weights: Sequence[Float[Tensor, "_ _"]], a: Float[Tensor, "n _"], known: Sequence[Float[Tensor, "n _"]] = ()
) -> tuple[list[Float[Tensor, "n _"]], list[Float[Tensor, "n _"]]]:
    """Send rows a = (x, 1) through hidden layers; return what each layer and the one above gets, and pre-activations.

    Parameters
    ----------
    known
        Pre-activations of the lowest layers, taken as they are.
    """
    inputs, pres = [a], list(known)
    for i, weight in enumerate(weights):
        if i == len(pres):
            pres.append(inputs[-1] @ weight.T)
        bits = a.new_ones(len(a), len(weight) + 1)
        torch.gt(pres[i], 0, out=bits[:, :-1])
        inputs.append(bits)
    return inputs, pres


def half_spaces(a: Float[Tensor, "n d_and_1"], units: int, generator: torch.Generator) -> Float[Tensor, "h d_and_1"]:
    """Draw units with Gaussian normals whose planes pass close to random rows of a = (x, 1).

    Each passes a tenth of the way from one row to another: a row on the plane itself would get its bit from rounding.
    """
    weights = torch.randn(units, a.shape[1], generator=generator, dtype=a.dtype).to(a.device)
    weights[:, -1] = 0
    near, far = a[torch.randint(len(a), (2, units), generator=generator).to(a.device)]
    weights[:, -1] = -((0.9 * near + 0.1 * far) * weights).sum(dim=1)
    return weights


def unit_scale(
    weights: Float[Tensor, "h d_and_1"], gram: Float64[Tensor, "d_and_1 d_and_1"]
) -> Float[Tensor, "h d_and_1"]:
    """Divide each unit by the root mean square of its pre-activation, unless that is 0; its bits stay the same.

    Parameters
    ----------
    gram
        Mean of a a' over the inputs.
    """
    size = ((weights @ gram.to(weights.dtype)) * weights).sum(dim=1).clamp_min(0).sqrt()
    return weights / torch.where(size > 1e-6, size, 1.0)[:, None]


def _whole(norm: nn.BatchNorm1d) -> bool:
    return norm.affine and norm.track_running_stats


def _statistics(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mean, variance, gain and offset."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var, norm.weight.detach(), norm.bias.detach()
