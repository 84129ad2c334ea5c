"""Target propagation in mini-batches: every layer descends a loss of its own towards targets that may be searched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hardstep.cuts import Call, Cuts, recorder, replayer
from hardstep.fit import Batch, Method, Sweep, Work
from hardstep.flips import Place, flip_effects, places_of, repeated
from hardstep.memory import Whole
from hardstep.methods.gradient import Descent, GradientDescent
from hardstep.rules import widened
from hardstep.target_rule import Target, TargetRule

__all__ = ["FlipSearch", "TargetProp"]


@dataclass(frozen=True)
class FlipSearch:
    """Measure what a flip of a bit does to the loss, and aim the targets by that.

    Parameters
    ----------
    flips
        So many bits of every row and layer are measured, those of the largest |dL/dstep|; None measures all.
    trust
        Share of the measured effect in what replaces the derivative of a bit that was measured, in (0, 1].
    """

    flips: int | None = None
    trust: float = 1.0

    def __post_init__(self) -> None:
        if self.flips is not None and self.flips < 1:
            raise ValueError(f"flips must be at least 1, or None for all bits, got {self.flips}")
        if not 0 < self.trust <= 1:
            raise ValueError(f"trust is a share in (0, 1], got {self.trust}")


@dataclass
class _State:
    """The descent, the hooks while a sweep runs, and the running credit of each class at each call of a step."""

    descent: Descent
    places: list[Place]
    calls: list[Call] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    credit: dict[int, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)

    def count(self, name: str, values: list[Tensor]) -> None:
        """Add to sums over the sweep."""
        added = torch.stack([value.double() for value in values])
        self.counts[name] = self.counts[name] + added if name in self.counts else added

    def state_dict(self) -> dict[str, Any]:
        credit = {str(number): tensor for number, tensor in self.credit.items()}
        return {"descent": self.descent.state_dict(), "credit": credit}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        self.descent.load_state_dict(state_dict["descent"])
        like = next(self.descent.net.parameters())
        self.credit = {int(number): tensor.to(like) for number, tensor in state_dict["credit"].items()}


@dataclass(frozen=True)
class TargetProp(Method[_State]):
    """Give every step a target, from the top down, and let each layer descend its own loss towards its targets.

    For each batch: the bits H of all steps; then from the top down the credit g = dL/dstep of every step, where L is
    the loss of the layer above; targets t = -sign(g), weights |g|, and the layer loss sum w l(t z/c) of
    `base.rule`, a `TargetRule`; then `inner` steps of the optimiser on all layer losses with H, t and w held fixed.
    No gradient passes a step. With one inner step and neither search nor momentum it takes the same steps as
    `base` alone, the fused pass, does.

    Each sweep reports of every call of a step: `agreement`, the share of bits that have their target already, `active`,
    the share with a slope, and `ties`, the share with g = 0; with a search also the correlation of the measured effects
    of flips with those that g predicts (`effect correlation`), and how often their signs agree where the measured one
    is not 0 (`effect agreement`).

    Parameters
    ----------
    base
        Rule, loss, penalty, optimiser, schedule and batches of the descent.
    inner
        Steps of the optimiser for each batch, >= 1.
    momentum
        A row comes back only after an epoch, but its class does at once: the credit is (1 - momentum) g + momentum m
        with m the running mean of g over rows of the class, of decay `momentum` in [0, 1). Needs labels.
    search
        Measure the effect of flips, in evaluation mode of the layers above, instead of trusting their derivative.

    References
    ----------
    Friesen and Domingos 2018, Alg. 2 [friesen2018]. Ours: inner steps, the search by measurement, momentum.

    Examples
    --------
    >>> import hardstep as hs
    >>> net, data = hs.nets.mlp(64, 16, 10), hs.data.load("digits")
    >>> report = hs.fit(net, data, hs.TargetProp(inner=2, search=hs.FlipSearch()), sweeps=2, progress=False)
    >>> sorted(name for name in report.records[0].extra if name.endswith(" 0"))[:3]
    ['active 0', 'agreement 0', 'effect agreement 0']
    """

    base: GradientDescent = field(default_factory=lambda: GradientDescent(rule=TargetRule()))
    inner: int = 1
    momentum: float = 0.0
    search: FlipSearch | None = None

    incremental = True
    augments = True

    def __post_init__(self) -> None:
        if not isinstance(self.base.rule, TargetRule):
            raise ValueError(
                f"TargetProp needs a TargetRule as base.rule, which names a layer loss; got {self.base.rule}"
            )
        if self.base.memory != Whole():
            raise ValueError(
                f"TargetProp keeps what every step reads and gives itself; leave base.memory at Whole(), "
                f"got {self.base.memory}"
            )
        if self.inner < 1:
            raise ValueError(f"inner counts steps of the optimiser and must be at least 1, got {self.inner}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is a share in [0, 1), got {self.momentum}")

    def init(self, net: nn.Module, work: Work) -> _State:
        """Start the descent."""
        if self.momentum and not work.data.classification:
            raise ValueError("momentum runs over rows of a class, and these targets are numbers; set momentum=0")
        places: list[Place] = []
        if self.search is not None:
            places = places_of(net)
            if work.fabric.strategy.precision.precision == "16-mixed":
                raise ValueError("a search measures losses without scaling; use precision='bf16-mixed' or '32-true'")
        return _State(self.base.init(net, work), places)

    def sweep(self, state: _State, work: Work) -> Sweep:
        """Run one epoch."""
        state.counts = {}
        with Cuts(state.descent.net, recorder(state.calls)) as cuts:
            lent = (state, work, cuts)
            result = self.base.sweep(state.descent, work, partial(self._around, *lent), partial(self._passes, *lent))
        state.calls.clear()
        extra = {}
        for name, sums in state.counts.items():
            kind, number = name.split()
            values = work.sum(sums).tolist()
            if kind == "entries":
                entries, ties, agreeing, active = values
                extra[f"agreement {number}"] = agreeing / max(entries - ties, 1)
                extra[f"active {number}"] = active / entries
                extra[f"ties {number}"] = ties / entries
            else:
                extra[f"effect correlation {number}"] = _correlation(values[:6])
                extra[f"effect agreement {number}"] = values[6] / max(values[7], 1)
        return replace(result, extra={**result.extra, **dict(sorted(extra.items()))})

    def _passes(
        self, state: _State, work: Work, cuts: Cuts, descent: Descent, _: Work, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Run a batch forwards; carry the credit down, layer by layer."""
        state.calls.clear()
        found = self.base.passes(descent, work, batch, retain_graph=True)
        numbers = reversed(range(len(state.calls)))
        state.targets = [self._aimed(state, work, cuts, number, batch) for number in numbers][::-1]
        return found

    def _around(self, state: _State, work: Work, cuts: Cuts, step: Callable[[], None], lr: float, batch: Batch) -> None:
        """Step, and step again with bits and targets held fixed."""
        step()
        bits = [call.bits.detach() for call in state.calls]
        for _ in range(self.inner - 1):
            inputs: list[Tensor] = []
            with cuts.answering(replayer(bits, inputs)):
                self.base.passes(state.descent, work, batch, retain_graph=True)
            pairs = zip(state.targets, inputs, strict=True)
            slopes = [target.slope(widened(x.detach())).to(x.dtype) for target, x in pairs]
            torch.autograd.backward(inputs, slopes)
            step()

    def _aimed(self, state: _State, work: Work, cuts: Cuts, number: int, batch: Batch) -> Target:
        """Return the targets of a call; its layer gets the gradient of its loss, the calls below their credit."""
        rule, call = self.base.rule, state.calls[number]
        assert isinstance(rule, TargetRule)
        credit = call.credit
        if self.search is not None:
            measured = self._measured(state, work, cuts, number, batch)
            credit = torch.where(measured.isnan(), credit, credit.lerp(measured, self.search.trust))
        if self.momentum:
            credit = self._smoothed(state, work, number, credit, batch.y)
        x = call.x.detach()
        wide = widened(x)
        target = rule.target(wide, credit.to(wide.dtype))
        slope = target.slope(wide)
        torch.autograd.backward(call.x, slope.to(x.dtype), retain_graph=True)  # stairs share what lies below
        above, tied = call.bits > 0.5, credit == 0
        agreeing = (above == (credit < 0)) & ~tied
        sums = [x.new_tensor(x.numel(), dtype=torch.float64), tied.sum(), agreeing.sum(), (slope != 0).sum()]
        state.count(f"entries {number}", sums)
        return target

    def _measured(self, state: _State, work: Work, cuts: Cuts, number: int, batch: Batch) -> Tensor:
        """Return L(bit = 1) - L(bit = 0), in the scale of the credit, and NaN where no flip was measured."""
        call, search, marks = state.calls[number], self.search, state.descent.lesson(batch.x)
        assert search is not None

        def losses(out: Tensor, copies: int) -> Tensor:
            value = marks(out, self.base.loss.value(out, repeated(batch.y, copies)))
            return value * (work.fabric.world_size / batch.total)  # in the scale of the credit

        state.descent.net.eval()
        measured = flip_effects(cuts, state.calls, number, state.places[number], losses, flips=search.flips)
        state.descent.net.train()
        known = ~measured.isnan()
        p, m = call.credit[known].double(), measured[known].double()
        moments = [m.new_tensor(m.numel()), p.sum(), m.sum(), p.square().sum(), m.square().sum(), (p * m).sum()]
        state.count(f"effects {number}", [*moments, ((p > 0) == (m > 0))[m != 0].sum(), (m != 0).sum()])
        return measured

    def _smoothed(self, state: _State, work: Work, number: int, credit: Tensor, y: Tensor) -> Tensor:
        """Return the credit mixed with the running mean of its class."""
        classes = work.data.outputs
        shape = (classes, *credit.shape[1:])
        sums = work.sum(credit.new_zeros(shape).index_add_(0, y, credit))
        rows = work.sum(torch.bincount(y, minlength=classes).to(credit)).view(-1, *[1] * (credit.ndim - 1))
        kept = state.credit.get(number, credit.new_zeros(shape))
        mean = kept.lerp(sums / rows.clamp_min(1), 1 - self.momentum)
        state.credit[number] = torch.where(rows > 0, mean, kept)
        return credit.lerp(state.credit[number][y], self.momentum)


def _correlation(moments: list[float]) -> float:
    """Return the correlation from count, sums, squares and products; 0 where one side is constant."""
    n, p, m, pp, mm, pm = moments
    spread = (pp - p * p / n) * (mm - m * m / n)
    return (pm - p * m / n) / spread**0.5 if spread > 0 else 0.0
