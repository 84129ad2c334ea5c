"""What flips of bits do to the loss: the discrete derivative of a network in its own steps, measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hardstep.chain import leaves
from hardstep.cuts import Call, Cuts, recorder, replayer
from hardstep.step import Sign, Staircase, Step

__all__ = ["Place", "flip_effects", "measured_credit", "places_of", "repeated"]

CHUNK = 2**22  # so many numbers are measured at once


@dataclass(frozen=True, eq=False)
class Place:
    """Where calls of a step are made: an activation, in a network whose layers follow one another.

    Parameters
    ----------
    name
        Name of the activation.
    layers
        The activation and all layers above it.
    first, end
        Its calls are those from `first` to before `end`.
    linear
        The linear layer straight below, with or without batch normalisation; None if there is another.
    """

    name: str
    layers: Sequence[nn.Module]
    first: int
    end: int
    linear: nn.Linear | None


def places_of(net: nn.Module) -> list[Place]:
    """Return for each call of a step where it is made.

    Raises
    ------
    ValueError
        If a module is no layer but has steps of its own; it is named.
    """
    places: list[Place] = []
    found = list(leaves(net))
    layers = [module for _, module in found]
    linear = None
    for at, (name, module) in enumerate(found):
        if not any(isinstance(part, Step) for part in module.modules()):
            linear = module if isinstance(module, nn.Linear) else linear if isinstance(module, nn.BatchNorm1d) else None
            continue
        if not isinstance(module, Step | Sign | Staircase):
            raise ValueError(
                f"flips are measured by running what lies above a layer many times, so layers must follow one another, "
                f"but {name!r} is a {type(module).__name__} with steps of its own; in a fit set search=None"
            )
        calls: list[Call] = []
        with Cuts(module, recorder(calls)):
            module(torch.zeros(1))
        first = len(places)
        places += len(calls) * [Place(name, layers[at:], first, first + len(calls), linear)]
        linear = None
    return places


def flip_effects(
    cuts: Cuts,
    calls: Sequence[Call],
    number: int,
    place: Place,
    losses: Callable[[Tensor, int], Tensor],
    *,
    flips: int | None = None,
) -> Float[Tensor, "n *d"]:
    """Return L(bit = 1) - L(bit = 0) for the bits of one call; NaN for those that are not measured.

    Parameters
    ----------
    cuts
        The hooks on the network.
    calls, number
        What all steps did, and which of the calls is flipped; its bits of the largest |gradient| come first.
    place
        Where that call is made.
    losses
        Takes the outputs of m copies of the rows, below one another, and m; returns the losses of all rows.
    flips
        So many bits of a row; None takes all.
    """
    call, beside = calls[number], calls[place.first : place.end]

    def above(variants: Tensor, copies: int) -> Tensor:
        others = (repeated(other.bits, copies) for other in beside)
        bits = [variants if i == number else other for i, other in enumerate(others, place.first)]
        with cuts.answering(replayer(bits, [])):
            a = repeated(beside[0].x, copies)
            for layer in place.layers:
                a = layer(a)
        return losses(a, copies)

    return measured_credit(call.bits.detach(), call.credit, above, flips=flips)


@torch.no_grad()
def measured_credit(
    bits: Float[Tensor, "n *d"],
    credit: Float[Tensor, "n *d"],
    losses: Callable[[Tensor, int], Tensor],
    *,
    flips: int | None = None,
) -> Float[Tensor, "n *d"]:
    """Return the discrete derivative L(bit = 1) - L(bit = 0) of every bit that is measured, NaN for the others.

    Parameters
    ----------
    bits
        What the steps do.
    credit
        Which bits of a row come first: those of the largest absolute credit.
    losses
        Takes m variants of the bits, below one another, and m; returns the losses of all m n rows.
    flips
        So many bits of a row; None takes all.

    References
    ----------
    Friesen and Domingos 2018 [friesen2018] take the derivative of a relaxed loss in its place.

    Examples
    --------
    >>> bits = torch.tensor([[0.0, 1.0]])
    >>> measured_credit(bits, bits, lambda b, m: (3 * b[:, 0] - b[:, 1]).square())
    tensor([[3., 1.]])
    """
    flat = bits.flatten(1)
    rows, entries = flat.shape
    count = entries if flips is None else min(flips, entries)
    chosen = credit.flatten(1).abs().topk(count, dim=1).indices
    found = torch.full_like(flat, float("nan"))
    start = losses(bits, 1)
    for part in torch.split(chosen, max(1, CHUNK // flat.numel()), dim=1):
        copies = part.shape[1]
        variants = flat.repeat(copies, 1, 1)
        now = flat.gather(1, part)
        variants.scatter_(2, part.T[:, :, None], (1 - now).T[:, :, None])
        gain = losses(variants.view(copies * rows, *bits.shape[1:]), copies).view(copies, rows) - start
        found.scatter_(1, part, gain.T.to(flat.dtype) * (1 - 2 * now))
    return found.view_as(bits)


def repeated(rows: Tensor, copies: int) -> Tensor:
    """Return copies of the rows below one another."""
    return rows.detach().expand(copies, *rows.shape).flatten(0, 1)
