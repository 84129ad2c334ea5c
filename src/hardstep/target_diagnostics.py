"""Diagnostics of targets: whether layers meet them or could, and whether flips do what their derivative says."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from matplotlib.figure import Figure
from torch import Tensor, nn

from hardstep.certify.separability import separate
from hardstep.cuts import Call, Cuts, recorder
from hardstep.diagnostics import aligned
from hardstep.flips import flip_effects, places_of, repeated
from hardstep.losses import CrossEntropy, Loss
from hardstep.parts import Part, batches
from hardstep.target_rule import TargetRule

__all__ = ["CallTargets", "Targets", "diagnose_targets"]


@dataclass(frozen=True, eq=False)
class CallTargets:
    """The targets of one call of a step on the probe.

    Parameters
    ----------
    name
        Name of the activation; a staircase has a call for each stair.
    agreement
        Share of the bits with a credit that have their target already.
    active
        Share of the bits with a slope: the layer loss is not flat there.
    ties
        Share of the bits without a credit, dL/dstep = 0.
    separable
        Share of the drawn units whose targets a half-space of the layer's inputs makes, without error; NaN where the
        call is not that of a linear layer, with or without batch normalisation.
    margins
        The largest margins of the drawn units that have both targets, for weights of |w| <= 1; 0 where not separable.
    predicted, measured
        Change of a row's loss if a bit flips: by its derivative, and as measured.
    """

    name: str
    agreement: float
    active: float
    ties: float
    separable: float
    margins: Float64[np.ndarray, " u"]
    predicted: Float64[np.ndarray, " m"]
    measured: Float64[np.ndarray, " m"]

    @property
    def correlation(self) -> float:
        """Correlation of predicted and measured changes; NaN where one of them is constant."""
        if not (self.predicted.std() and self.measured.std()):
            return float("nan")
        return float(np.corrcoef(self.predicted, self.measured)[0, 1])

    @property
    def signs(self) -> float:
        """Share of the flips that change the loss whose sign was predicted; NaN where no flip does."""
        moved = self.measured != 0
        if not moved.any():
            return float("nan")
        return float((np.sign(self.predicted) == np.sign(self.measured))[moved].mean())


@dataclass(frozen=True, eq=False)
class Targets:
    """The targets of all calls, from the input on; printing it shows a table."""

    calls: tuple[CallTargets, ...]
    rows: int

    def __str__(self) -> str:
        head = ["call", "agreement", "active", "ties", "separable", "correlation", "signs"]
        lines = [[call.name, *(f"{getattr(call, name):.2f}" for name in head[1:])] for call in self.calls]
        return f"{aligned([head, *lines])}\n{self.rows} rows, evaluation mode"

    def plot(self) -> Figure:
        """Draw measured against predicted changes and the margins, a row for each call."""
        figure = Figure(figsize=(7, 2.6 * len(self.calls)), layout="constrained")
        axes = figure.subplots(len(self.calls), 2, squeeze=False)
        for (left, right), call in zip(axes, self.calls, strict=True):
            left.scatter(call.predicted, call.measured, s=4, alpha=0.4)
            left.set(xlabel="predicted change of the loss", ylabel="measured", title=f"{call.name}: flips of a bit")
            left.axline((0, 0), slope=1, color="grey", linewidth=0.8, linestyle=":")
            right.hist(call.margins, bins=20)
            right.set(xlabel="largest margin of the targets", ylabel="units", title=f"separable: {call.separable:.0%}")
        return figure


def diagnose_targets(
    net: nn.Module,
    probe: Part,
    *,
    rule: TargetRule = TargetRule(),  # noqa: B008 (frozen)
    loss: Loss = CrossEntropy(),  # noqa: B008 (frozen)
    rows: int = 200,
    units: int = 20,
    flips: int | None = 20,
    seed: int = 0,
) -> Targets:
    """Say of every step of a network what target propagation would ask of it; the network is left as it is.

    Targets are t = -sign(dL/dstep) with L the layer loss of `rule` above, as in `TargetProp`. A bit's flip is predicted
    to change the loss by its derivative and then made. A unit's targets, without its ties, are separable or not by a
    linear program over what the layer below does now.

    Parameters
    ----------
    rows, units
        So many rows of the probe, and units of a layer, are drawn, or all there are.
    flips
        So many bits of each row are flipped, those of the largest derivative; None flips all.

    Raises
    ------
    ValueError
        If the network is not one of layers that follow one another.

    References
    ----------
    Friesen and Domingos 2018 [friesen2018]; the measures are ours.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> found = diagnose_targets(hs.nets.mlp(64, 8, 8, 10), data.val, rows=50, units=4)
    >>> [call.name for call in found.calls], found.calls[0].separable
    (['3', '6'], 1.0)
    """
    twin = deepcopy(net).eval()
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(probe), generator=generator)[:rows]
    x, y = next(iter(batches(probe, [chosen])))
    x = x.to(next(twin.parameters()))
    found, calls, places = [], list[Call](), places_of(twin)
    inputs: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs.setdefault(layer, given[0].detach())

    for place in places:
        if place.linear is not None:
            place.linear.register_forward_pre_hook(keep)

    def losses(out: Tensor, copies: int) -> Tensor:
        return loss.value(out, repeated(y, copies))

    with Cuts(twin, recorder(calls)) as cuts:
        torch.autograd.backward(losses(twin(x), 1).sum(), retain_graph=True)
        for number in reversed(range(len(calls))):
            call, place = calls[number], places[number]
            credit = call.credit
            target = rule.target(call.x.detach(), credit)
            slope = target.slope(call.x.detach())
            torch.autograd.backward(call.x, slope, retain_graph=True)
            measured = flip_effects(cuts, calls, number, place, losses, flips=flips)
            known, up, tied = ~measured.isnan(), 1 - 2 * call.bits.detach(), credit == 0
            margins = np.zeros(0)
            if place.linear is not None:
                margins = _margins(inputs[place.linear], target.t, units, generator)
            found.append(
                CallTargets(
                    name=place.name,
                    agreement=_share((call.bits > 0.5) == (credit < 0), ~tied),
                    active=_share(slope != 0, torch.ones_like(tied)),
                    ties=_share(tied, torch.ones_like(tied)),
                    separable=float((margins > 0).mean()) if len(margins) else float("nan"),
                    margins=margins[np.isfinite(margins)],
                    predicted=(up * credit)[known].double().numpy(),
                    measured=(up * measured)[known].double().numpy(),
                )
            )
    return Targets(tuple(found[::-1]), len(x))


def _margins(
    x: Tensor, targets: Float[Tensor, "n h"], units: int, generator: torch.Generator
) -> Float64[np.ndarray, " u"]:
    """Return the largest margin of the targets of some units, over the rows that have one."""
    found = []
    for unit in torch.randperm(targets.shape[1], generator=generator)[:units].tolist():
        known = targets[:, unit] != 0
        if bool(known.any()):
            found.append(separate(x[known].double().numpy(), (targets[known, unit] > 0).numpy()).margin)
    return np.array(found)


def _share(what: Bool[Tensor, "*n"], of: Bool[Tensor, "*n"]) -> float:
    """Return the share of entries that are so among some; NaN if there is none."""
    return float((what & of).sum()) / int(of.sum()) if bool(of.any()) else float("nan")
