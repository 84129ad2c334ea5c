"""Activate-while-Pruning: a share of what is pruned goes to weights that keep units from firing, or from stopping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hardstep.diagnostics import select
from hardstep.fit import Work
from hardstep.units import Hidden, codes, hidden_layers

__all__ = ["Activate", "Negative", "Pruned", "TwoSided"]

ROWS = 1000  # of a batch on which units are watched


@dataclass(frozen=True)
class Negative:
    """Make every unit fire more: negative weights go. Of ReLUs this helps; a step may end up always on."""

    passes: ClassVar[int] = 1

    def wanted(self, rates: Float[Tensor, " h"]) -> Float[Tensor, " h"]:
        """Return 1 for each unit: its sums are to rise."""
        return torch.ones_like(rates)


@dataclass(frozen=True)
class TwoSided:
    """Move every unit towards firing on half of the rows; a unit that has crossed 1/2 is left alone.

    Parameters
    ----------
    passes
        In so many parts the weights are removed; firing rates are measured anew before each.
    """

    passes: int = 4

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise ValueError(f"passes must be at least 1, got {self.passes}")

    def wanted(self, rates: Float[Tensor, " h"]) -> Float[Tensor, " h"]:
        """Return 1 for units that fire on less than half of the rows, -1 for more, 0 for half."""
        return (0.5 - rates).sign()


@dataclass(frozen=True, eq=False)
class Pruned:
    """A weight being pruned: which entries are alive, and its value when the round began."""

    weight: nn.Parameter
    alive: Bool[Tensor, "..."]
    before: Float[Tensor, "..."]

    @torch.no_grad()
    def enforce(self) -> None:
        """Set what is pruned to exactly 0."""
        self.weight.masked_fill_(~self.alive, 0.0)


@dataclass(frozen=True)
class Activate:
    """Spend a share of each round's removals on weights of the wrong sign that moved least over the round.

    Which sign is wrong for a unit, `sides` says. On inputs that are never negative, a negative weight less raises the
    unit's sum for every input, a positive one less lowers it. Behind a normalisation with a negative gain the signs
    change places. On the signed inputs of a first layer there is no such guarantee.

    Parameters
    ----------
    share
        Share of the removals, in [0, 1]; 0 leaves them all to the pruner.
    sides
        `Negative()`, as published, or `TwoSided()`, for steps.
    compensate_bias
        Whether a weight w that reads -1 and +1 leaves -w in the bias, so that the sum moves one way there too. It
        does nothing where the bias is rewound.

    References
    ----------
    Liu, Ghosh, Tan, Motani 2023 [liu2023]. Differs: exact counts, biases and normalisation never pruned, two sides,
    compensation.

    Examples
    --------
    >>> Activate(share=0.2, sides=TwoSided(passes=4))
    Activate(share=0.2, sides=TwoSided(passes=4), compensate_bias=True)
    """

    share: float = 0.1
    sides: Negative | TwoSided = field(default_factory=Negative)
    compensate_bias: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is the share of the removals, in [0, 1], got {self.share}")

    def check(self, net: nn.Module, *, rewind: bool) -> None:
        """Raise a ValueError if units cannot be watched, or a bias is missing that should take up weights."""
        for layer in hidden_layers(net):
            if self.compensate_bias and not rewind and layer.reads_signs and _shift(layer) is None:
                raise ValueError(
                    f"layer {layer.name!r} reads signs and has no bias that compensates a weight; build it with "
                    "bias=True, or set compensate_bias=False"
                )

    @torch.no_grad()
    def remove(
        self,
        net: nn.Module,
        pruned: Sequence[Pruned],
        counts: Sequence[tuple[range, int]],
        work: Work,
        *,
        rewind: bool,
    ) -> dict[str, float]:
        """Remove so many weights from each group of layers, or all candidates if they are fewer.

        Returns
        -------
        The shares of hidden units that never and that always fired on the training rows beforehand.
        """
        first: list[Tensor] = []
        shares: dict[str, float] = {}
        done = [0] * len(counts)
        for i in range(self.sides.passes):
            rates = _rates(net, work)
            wanted = [self.sides.wanted(rate) for _, rate in rates]
            if not first:
                first, every = wanted, torch.cat([rate for _, rate in rates])
                shares = {"never": float((every == 0).double().mean()), "always": float((every == 1).double().mean())}
            layers = {
                id(layer.affine.weight): (layer, torch.where(now == then, now, 0))
                for (layer, _), now, then in zip(rates, wanted, first, strict=True)
            }
            for j, (group, count) in enumerate(counts):
                due = count * (i + 1) // self.sides.passes - done[j]
                members = [pruned[k] for k in group]
                done[j] += self._spend(members, [layers.get(id(one.weight)) for one in members], due, rewind)
        return shares

    def _spend(self, members: list[Pruned], layers: list[tuple[Hidden, Tensor] | None], due: int, rewind: bool) -> int:
        """Remove at most `due` weights of a group of layers; return how many they were."""
        wrong = [_wrong(one, layer) for one, layer in zip(members, layers, strict=True)]
        moved = [(one.weight - one.before).abs() for one in members]
        alive = torch.cat([one.alive.flatten() for one in members])
        left = select(alive, torch.cat([w.flatten() for w in wrong]), torch.cat([m.flatten() for m in moved]), due)
        pieces = torch.split(left, [one.alive.numel() for one in members])
        for one, layer, piece in zip(members, layers, pieces, strict=True):
            kept = piece.view_as(one.alive)
            if self.compensate_bias and not rewind and layer is not None and layer[0].reads_signs:
                _compensate(layer[0], (one.weight * (one.alive & ~kept)).flatten(1).sum(dim=1))
            one.alive.copy_(kept)
            one.enforce()
        return int(alive.sum()) - int(left.sum())


def _rates(net: nn.Module, work: Work) -> list[tuple[Hidden, Tensor]]:
    """Return the firing rate of each hidden unit over the training rows of all ranks, in evaluation mode."""
    was_training = net.training
    net.eval()
    like = next(net.parameters())
    layers = hidden_layers(net)
    sums = [torch.zeros(len(layer.affine.weight), dtype=torch.int64, device=like.device) for layer in layers]
    seen = torch.zeros(len(layers), dtype=torch.int64, device=like.device)
    for batch in work.batches(ROWS, part=work.data.train):
        for i, (_, code) in enumerate(codes(net, batch.x.to(like))):
            sums[i] += code.transpose(0, 1).flatten(1).sum(dim=1)
            seen[i] += code.numel() // code.shape[1]
    net.train(was_training)
    counts = work.sum(seen).tolist()
    return [
        (layer, work.sum(total).double() / (count * layer.top))
        for layer, total, count in zip(layers, sums, counts, strict=True)
    ]


def _wrong(one: Pruned, layer: tuple[Hidden, Tensor] | None) -> Tensor:
    """Return which entries act against what is wanted of their unit; none where there is no unit."""
    if layer is None:
        return torch.zeros_like(one.alive)
    hidden, wanted = layer
    gain = None if hidden.norm is None else hidden.norm.weight
    direction = wanted.to(one.weight.dtype) * (1.0 if gain is None else gain.sign())
    return one.weight * direction.view(-1, *[1] * (one.weight.ndim - 1)) < 0


def _shift(layer: Hidden) -> Tensor | None:
    """Return what is added to, or (a mean) subtracted from, the sums of a layer; None if nothing is."""
    if layer.affine.bias is not None:
        return layer.affine.bias
    return None if layer.norm is None else layer.norm.running_mean


def _compensate(layer: Hidden, removed: Tensor) -> None:
    """Keep the constant of removed weights: their sum is subtracted from the bias, or added to the mean."""
    shift = _shift(layer)
    assert shift is not None
    shift.add_(removed, alpha=-1 if layer.affine.bias is not None else 1)
