"""Gradient descent through hard steps: any backward rule, any loss, any penalty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import cos, pi
from typing import Any

import torch
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor, nn

from hardstep.fit import Batch, Method, Sweep, Work
from hardstep.indicators import read_gradients
from hardstep.layers import HardWeights
from hardstep.losses import CrossEntropy, Loss
from hardstep.memory import Packed, Recomputed, Whole
from hardstep.penalties import NoPenalty, Penalty
from hardstep.ranks import shared_statistics
from hardstep.rules import BackwardRule, Clipped
from hardstep.step import Step
from hardstep.teachers import FrozenTeacher, Lesson, NoTeacher

__all__ = ["SGD", "Adam", "Around", "Constant", "Cosine", "Descent", "Drops", "GradientDescent", "Line", "Passes"]

Around = Callable[[Callable[[], None], float, Batch], None]
"""Takes a step of the optimiser, its learning rate and the batch; calls it, and does what it wants around it."""


@dataclass(frozen=True)
class Adam:
    """Adam, with weight decay where asked for.

    Parameters
    ----------
    lr
        Learning rate, > 0.
    betas
        Decay of the two running means.
    weight_decay
        Decay of all parameters, >= 0.
    coupled
        Add the decay to the gradient, before Adam scales it, as older recipes do, instead of to the step.

    References
    ----------
    Kingma and Ba 2015 [kingma2015]; Loshchilov and Hutter 2019 [loshchilov2019], for the decoupled decay.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    coupled: bool = False

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Make the torch optimiser."""
        kind = torch.optim.Adam if self.coupled else torch.optim.AdamW
        return kind(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=True)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum and coupled weight decay.

    Parameters
    ----------
    lr
        Learning rate, > 0.
    momentum
        Share of the last move that is kept.
    nesterov
        Look ahead along the momentum.
    weight_decay
        Coupled L2 decay of all parameters, >= 0.
    """

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Make the torch optimiser."""
        return torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=True,
        )


@dataclass(frozen=True)
class Constant:
    """Keep the learning rate."""

    def factor(self, progress: float) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """Raise the learning rate linearly, then lower it to 0 along half a cosine.

    Parameters
    ----------
    warmup
        Share of the training in which the rate rises, in [0, 1).

    Examples
    --------
    >>> Cosine().factor(0.5)
    0.5
    """

    warmup: float = 0.0

    def factor(self, progress: float) -> float:
        """Return the share of the full rate at this progress in [0, 1]."""
        if progress < self.warmup:
            return progress / self.warmup
        return round(0.5 * (1 + cos(pi * (progress - self.warmup) / (1 - self.warmup))), 12)


@dataclass(frozen=True)
class Line:
    """Lower the learning rate to 0 along a straight line.

    Examples
    --------
    >>> Line().factor(0.25)
    0.75
    """

    def factor(self, progress: float) -> float:
        """Return the share of the full rate at this progress in [0, 1]."""
        return 1 - progress


@dataclass(frozen=True)
class Drops:
    """Multiply the learning rate by a factor at given shares of the training.

    Parameters
    ----------
    at
        Shares of the training, in (0, 1).
    by
        Factor of each drop.

    Examples
    --------
    >>> Drops(at=(0.5, 0.75), by=0.1).factor(0.6)
    0.1
    """

    at: tuple[float, ...] = (0.5, 0.75)
    by: float = 0.1

    def factor(self, progress: float) -> float:
        """Return the share of the full rate at this progress in [0, 1]."""
        return float(self.by ** sum(progress >= share for share in self.at))


@dataclass
class Descent:
    """The network, it and its optimiser as Fabric wraps them, in which context it runs, its teacher, what is noted."""

    net: nn.Module
    wrapped: _FabricModule
    optimiser: _FabricOptimizer
    saving: AbstractContextManager[None]
    lesson: Lesson
    noted: Mapping[str, float] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Return what the optimiser carries."""
        return {"optimiser": self.optimiser.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take it back."""
        self.optimiser.optimizer.load_state_dict(state_dict["optimiser"])


Passes = Callable[[Descent, Work, Batch], tuple[Tensor, Tensor]]
"""Runs a batch forwards and backwards; returns its outputs and the sum of its losses."""


@dataclass(frozen=True)
class GradientDescent(Method[Descent]):
    """Minimise mean loss + penalty by stochastic gradients; each step passes them on by its backward rule.

    The forward pass is exact. A penalty acts through its prox after each optimiser step, with the step
    length lr, on weights of two or more dimensions (no biases, no normalisation). The defaults of rule, smoothing
    and learning rate are those of the best validation accuracy in docs/results.md, for networks with batch
    normalisation.

    Parameters
    ----------
    rule
        What stands in for the derivative of the steps, those in binary and ternary weights included; followed at
        `rule.at(progress)`. `Apart` gives the weights a rule of their own.
    loss
        The data term.
    penalty
        The penalty on the weights.
    optimiser
        Which optimiser, with its learning rate.
    schedule
        Factor of the learning rate as a function of progress, applied at every batch.
    batch_size
        Rows of a global batch, over all ranks.
    memory
        What the forward pass keeps for the backward pass; gradients are the same, bit for bit.
    teacher
        A frozen network whose outputs are learned beside the labels; none by default.

    References
    ----------
    Bengio, Léonard, Courville 2013 [bengio2013], straight-through estimation; the rules name their own papers.
    """

    rule: BackwardRule = field(default_factory=lambda: Clipped(0.5))
    loss: Loss = field(default_factory=lambda: CrossEntropy(smoothing=0.1))
    penalty: Penalty = field(default_factory=NoPenalty)
    optimiser: Adam | SGD = field(default_factory=lambda: Adam(lr=2e-3))
    schedule: Constant | Cosine | Drops | Line = field(default_factory=Cosine)
    batch_size: int = 128
    memory: Whole | Packed | Recomputed = field(default_factory=Whole)
    teacher: NoTeacher | FrozenTeacher = field(default_factory=NoTeacher)

    incremental = True
    augments = True
    latent = True

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def init(self, net: nn.Module, work: Work) -> Descent:
        """Hand network and optimiser to Fabric."""
        wrapped, optimiser = work.fabric.setup(net, self.optimiser.build(net.parameters()))
        return Descent(net, wrapped, optimiser, self.memory.saving(net), self.teacher.lesson(work.data))

    def sweep(
        self,
        state: Descent,
        work: Work,
        around: Around = lambda step, lr, batch: step(),
        passes: Passes | None = None,
    ) -> Sweep:
        """Run one epoch; a method that wraps this one says how a batch passes and what happens around each step."""
        passes = self.passes if passes is None else passes
        state.net.train()
        rule = self.rule.at(work.progress)
        for module in state.net.modules():
            if isinstance(module, Step):
                module.rule = rule
            elif isinstance(module, HardWeights):
                module.rule = rule.for_weights
        sums: list[tuple[Tensor, Tensor]] = []
        with shared_statistics(state.net, work.fabric.world_size):
            for batch in work.batches(self.batch_size, shuffle=True):
                sums.append(self._update(state, work, batch, around, passes))
        total = torch.stack([torch.stack(pair) for pair in sums]).double().sum(dim=0)
        loss, hits = (work.sum(total) / len(work.data.train)).tolist()
        weights = [weight for weight in state.net.parameters() if weight.ndim > 1]
        penalty = sum(float(self.penalty.value(weight.detach())) for weight in weights)
        extra = {"train_accuracy": hits} if work.data.classification else {}
        return Sweep(loss + penalty, extra={**extra, **state.noted})

    def _update(
        self, state: Descent, work: Work, batch: Batch, around: Around, passes: Passes
    ) -> tuple[Tensor, Tensor]:
        """Take one step; return this rank's sum of losses and count of right answers."""
        lr = self.optimiser.lr * self.schedule.factor(batch.progress)
        for group in state.optimiser.param_groups:
            group["lr"] = lr
        out, loss = passes(state, work, batch)
        around(lambda: self._step(state, lr, noted=batch.last), lr, batch)
        hits = (out.argmax(dim=1) == batch.y).sum() if work.data.classification else loss.new_zeros(())
        return loss.detach(), hits

    def passes(self, state: Descent, work: Work, batch: Batch, *, retain_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Run a batch forwards and backwards; return its outputs and the sum of its losses."""
        with state.saving:
            out = state.wrapped(batch.x)
        loss = state.lesson(batch.x)(out, self.loss.value(out, batch.y)).sum()
        # gradients are averaged over ranks, the loss over the global batch
        work.fabric.backward(loss * (work.fabric.world_size / batch.total), retain_graph=retain_graph)
        return out, loss

    def _step(self, state: Descent, lr: float, *, noted: bool) -> None:
        """Let the optimiser step, then the prox of the penalty; where asked, note how stable the gradients are."""
        if noted:
            state.noted = read_gradients(state.net)
        state.optimiser.step()
        state.optimiser.zero_grad()
        with torch.no_grad():
            for group in state.optimiser.param_groups:
                for weight in group["params"]:
                    if weight.ndim > 1 and (moved := self.penalty.prox(weight, lr)) is not weight:
                        weight.copy_(moved)
