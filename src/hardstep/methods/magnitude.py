"""Magnitude pruning, one-shot or in rounds, with or without going back to the initial weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from hardstep.chain import layers_named
from hardstep.diagnostics import select
from hardstep.fit import Batch, Method, Sweep, Work
from hardstep.methods.activate import Activate, Pruned
from hardstep.methods.gradient import Descent, GradientDescent

__all__ = ["Global", "LayerWise", "MagnitudePruning"]


@dataclass(frozen=True)
class Global:
    """Rank the weights of all pruned layers together: a layer of small weights loses more."""

    def groups(self, layers: int) -> list[range]:
        """Return which layers are ranked together."""
        return [range(layers)]


@dataclass(frozen=True)
class LayerWise:
    """Rank the weights of each layer by themselves: every layer gets the same sparsity."""

    def groups(self, layers: int) -> list[range]:
        """Return which layers are ranked together."""
        return [range(i, i + 1) for i in range(layers)]


@dataclass
class _State:
    """The descent, the pruned weights by name, and the network that is gone back to (empty if none is)."""

    descent: Descent
    pruned: dict[str, Pruned]
    initial: dict[str, Tensor]

    def state_dict(self) -> dict[str, Any]:
        return {
            "descent": self.descent.state_dict(),
            "alive": [one.alive for one in self.pruned.values()],
            "before": [one.before for one in self.pruned.values()],
            "initial": dict(self.initial),
        }

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        self.descent.load_state_dict(state_dict["descent"])
        rows = zip(self.pruned.values(), state_dict["alive"], state_dict["before"], strict=True)
        for one, alive, before in rows:
            one.alive.copy_(alive)
            one.before.copy_(before)
        for name, value in self.initial.items():
            value.copy_(state_dict["initial"][name])

    def enforce(self) -> None:
        """Set what is pruned to exactly 0."""
        for one in self.pruned.values():
            one.enforce()


@dataclass(frozen=True)
class MagnitudePruning(Method[_State]):
    """Train, remove the smallest weights, train what is left; in one round or several, to an exact number of zeros.

    The sweeps of the fit are divided evenly among the dense training and the rounds, each with a learning rate
    schedule and an optimiser of its own. A round begins by pruning: after round r of R a share (1 - sparsity)^(r/R) of
    the weights is alive, counted exactly, ties by position. Pruned weights are 0 after every step of the optimiser,
    so that neither momentum nor decay brings them back. Biases and normalisation are not pruned.

    Parameters
    ----------
    sparsity
        Share of the weights of the pruned layers that are 0 at the end, in (0, 1).
    rounds
        How often is pruned; 1 is one-shot pruning.
    rewind
        Whether a round starts from the initial network, pruned ones excepted (a lottery ticket), or goes on from the
        survivors as they are.
    scope
        Which weights are ranked together: `Global()` or `LayerWise()`.
    activate
        How a share of each round's removals is spent on units that seldom or nearly always fire; None not at all.
    layers
        Names of the modules to prune; empty for all but the read-out.
    base
        How each round trains.

    Raises
    ------
    ValueError
        If sparsity or rounds are out of range, the fit has fewer sweeps than trainings, or a layer would lose its last
        weight.

    References
    ----------
    Han et al. 2015 [han2015], magnitude; Frankle and Carbin 2019 [frankle2019], iterative with rewinding. Differs:
    exact counts, the read-out left dense by default.

    Examples
    --------
    >>> import hardstep as hs
    >>> data, net = hs.data.load("digits"), hs.nets.mlp(64, 50, 10)
    >>> report = hs.fit(net, data, MagnitudePruning(sparsity=0.9), sweeps=4, progress=False)
    >>> int((net[1].weight != 0).sum()), net[1].weight.numel()
    (320, 3200)
    """

    sparsity: float = 0.9
    rounds: int = 1
    rewind: bool = False
    scope: Global | LayerWise = field(default_factory=Global)
    activate: Activate | None = None
    layers: tuple[str, ...] = ()
    base: GradientDescent = field(default_factory=GradientDescent)

    augments = True

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity is the share of zeros at the end, in (0, 1), got {self.sparsity}")
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1 (one-shot pruning), got {self.rounds}")

    def init(self, net: nn.Module, work: Work) -> _State:
        """Start dense; remember the initial network if it is gone back to."""
        if work.sweeps <= self.rounds:
            raise ValueError(
                f"{self.rounds} rounds of pruning after a dense one need at least {self.rounds + 1} sweeps, got "
                f"sweeps={work.sweeps}; give more sweeps or fewer rounds"
            )
        weights = [(name.rpartition(".")[0], weight) for name, weight in net.named_parameters() if weight.ndim > 1]
        named = layers_named(dict(weights), self.layers)
        for group in self.scope.groups(len(named)):
            entries = sum(list(named.values())[i].numel() for i in group)
            if (left := self._left(entries, self.rounds)) < len(group):
                raise _emptied(list(named)[group[0]], self.sparsity, left, entries)
        if self.activate is not None:
            self.activate.check(net, rewind=self.rewind)
        initial = {name: value.clone() for name, value in net.state_dict().items()} if self.rewind else {}
        descent = self.base.init(net, work)
        pruned = {
            name: Pruned(weight, torch.ones_like(weight, dtype=torch.bool), weight.detach().clone())
            for name, weight in named.items()
        }
        return _State(descent, pruned, initial)

    def sweep(self, state: _State, work: Work) -> Sweep:
        """Begin a round by pruning where one is due, and train for one sweep."""
        starts = [work.sweeps * r // (self.rounds + 1) for r in range(self.rounds + 2)]
        current = max(r for r in range(self.rounds + 1) if starts[r] <= work.sweep)
        extra = self._prune(state, current, work) if current and work.sweep == starts[current] else {}

        def masked(step: Callable[[], None], lr: float, batch: Batch) -> None:
            step()
            state.enforce()

        result = self.base.sweep(state.descent, work.phase(starts[current], starts[current + 1]), masked)
        counts = {name: (int((one.weight == 0).sum()), one.weight.numel()) for name, one in state.pruned.items()}
        zeros, entries = (sum(values) for values in zip(*counts.values(), strict=True))
        extra["sparsity"] = zeros / entries
        extra |= {f"sparsity {name}": zeros / entries for name, (zeros, entries) in counts.items()}
        return replace(result, extra={**result.extra, **extra}, admissible=current == self.rounds)

    def _left(self, entries: int, current: int) -> int:
        """Return how many of so many weights are alive in a round."""
        share: float = (1 - self.sparsity) ** (current / self.rounds)
        return round(entries * share)

    def _prune(self, state: _State, current: int, work: Work) -> dict[str, float]:
        """Remove what the round has to, and set network and optimiser to where it starts."""
        pruned = list(state.pruned.values())
        groups = self.scope.groups(len(pruned))

        def due(group: range) -> int:
            alive = torch.cat([pruned[i].alive.flatten() for i in group])
            return int(alive.sum()) - self._left(len(alive), current)

        found: dict[str, float] = {}
        if self.activate is not None:
            spent = [(group, int(self.activate.share * due(group))) for group in groups]
            for group, count in spent:
                _remove_smallest([pruned[i] for i in group], due(group) - count)
            found = self.activate.remove(state.descent.net, pruned, spent, work, rewind=self.rewind)
        for group in groups:  # all of them, or what the stage above found no candidates for
            _remove_smallest([pruned[i] for i in group], due(group))
        for name, one in state.pruned.items():
            if not bool(one.alive.any()):
                raise _emptied(name, self.sparsity, 0, one.alive.numel())
        if self.rewind:
            state.descent.net.load_state_dict(state.initial)
        state.descent.optimiser.optimizer.state.clear()
        state.enforce()
        for one in pruned:
            one.before.copy_(one.weight.detach())
        return found


def _remove_smallest(group: list[Pruned], count: int) -> None:
    """Remove so many of the smallest weights of these layers, ranked together."""
    alive = torch.cat([one.alive.flatten() for one in group])
    size = torch.cat([one.weight.detach().abs().flatten() for one in group])
    pieces = torch.split(select(alive, alive, size, count), [one.alive.numel() for one in group])
    for one, kept in zip(group, pieces, strict=True):
        one.alive.copy_(kept.view_as(one.alive))
        one.enforce()


def _emptied(name: str, sparsity: float, left: int, entries: int) -> ValueError:
    return ValueError(
        f"sparsity={sparsity} leaves {left} of {entries} weights, so that layer {name!r} would lose its last one; "
        "lower the sparsity; LayerWise() spares a small layer what Global() takes from it"
    )
