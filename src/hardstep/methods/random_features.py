"""Random half-spaces with a read-out in closed form: the gradient-free baseline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hardstep.closed_form import bias_free, ridge
from hardstep.fit import Method, Sweep, Work
from hardstep.losses import CrossEntropy, Loss
from hardstep.parts import batches

__all__ = ["RandomFeatures"]

SAMPLE = 2048  # rows that place the half-spaces


@dataclass
class _State:
    """The read-out, the Gram matrix of its inputs (a column of ones last) and where the majoriser stands."""

    net: nn.Module
    readout: nn.Linear
    gram: Tensor
    weights: Tensor
    push: Tensor
    objective: float
    before: Tensor
    since_restart: int = 0

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._kept}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        for name in self._kept:
            value = state_dict[name]
            setattr(self, name, value.to(self.gram.device) if isinstance(value, Tensor) else value)

    _kept = ("gram", "weights", "push", "objective", "before", "since_restart")


@dataclass(frozen=True)
class RandomFeatures(Method[_State]):
    """Draw every hidden half-space at random and fit the last linear layer by its convex loss.

    Each unit's normal is Gaussian and its plane passes through a random training row. The read-out W solves
    min_W mean_n l(W a_n, y_n) + ridge/2 |W|², a_n the last hidden bits and a one, by the majoriser
    W <- W + (R A'/n - ridge W)(kappa G + ridge I)^-1 with G = A A'/n, R the loss's residual and kappa its
    curvature. For the squared loss one sweep is the exact ridge solution; for the cross-entropy the objective
    falls in every sweep, faster by Nesterov's momentum, which is dropped where it overshoots. Rows pass in
    batches; only Gram matrices and sums are kept and summed over ranks.

    Parameters
    ----------
    loss
        The data term; `Squared()` for ridge classification or regression.
    ridge
        Strength of the penalty on the read-out but for its bias, > 0; relative to mean losses.
    tol
        Stop when the objective falls by less than this share.
    batch_size
        Rows that are expanded into features at a time; does not change the result but for rounding.

    Raises
    ------
    ValueError
        If the network does not end in an `nn.Linear`.

    References
    ----------
    Rahimi and Recht 2008 [rahimi2008]; Huang, Zhu, Siew 2006 [huang2006]; majoriser of Böhning 1992
    [bohning1992]. Differs: planes pass through training rows.
    """

    loss: Loss = field(default_factory=CrossEntropy)
    ridge: float = 1e-4
    tol: float = 1e-5
    batch_size: int = 4096

    monotone = True

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise ValueError(
                f"ridge must be positive, since duplicate units make the problem singular, got {self.ridge}"
            )

    def init(self, net: nn.Module, work: Work) -> _State:
        """Draw the half-spaces, accumulate the Gram matrix, set the read-out to 0."""
        linears = [module for module in net.modules() if isinstance(module, nn.Linear)]
        leaves = [module for module in net.modules() if not list(module.children())]
        if not linears or leaves[-1] is not linears[-1]:
            raise ValueError(f"RandomFeatures fits the last linear layer, but the network ends in {leaves[-1]}")
        readout = linears[-1]
        if readout.bias is None:
            raise ValueError("RandomFeatures fits a read-out with a bias; build the last layer with bias=True")
        _draw(net, readout, work)
        net.eval()
        size = readout.in_features + 1
        gram = torch.zeros(size, size, dtype=torch.float64, device=work.fabric.device)
        for batch in work.batches(self.batch_size):
            a = _features(net, readout, batch.x)
            gram += (a.T @ a).double()  # sums of bits stay below 2^24, so float32 is exact
        gram = work.sum(gram) / len(work.data.train)
        weights = gram.new_zeros(readout.out_features, size)
        state = _State(net, readout, gram, weights, weights, float("inf"), weights)
        state.objective, state.push = self._evaluate(state, weights, work)
        return state

    def sweep(self, state: _State, work: Work) -> Sweep:
        """Minimise the majoriser, go on along the last move as far as the objective allows."""
        strength = bias_free(state.gram, self.ridge)
        gradient = state.push - strength * state.weights
        best = state.weights + ridge(self.loss.curvature * state.gram, gradient, strength)
        momentum = state.since_restart / (state.since_restart + 3)
        point = best + momentum * (best - state.before)
        objective, push = self._evaluate(state, point, work)
        if objective > state.objective:  # the majoriser's own minimum cannot rise
            state.since_restart, point = 0, best
            objective, push = self._evaluate(state, point, work)
        fell = state.objective - objective
        state.weights, state.push, state.objective, state.before = point, push, objective, best
        state.since_restart += 1
        done = fell <= self.tol * abs(objective)
        return Sweep(objective, stop=f"the objective fell by less than {self.tol:g} of itself" if done else "")

    def _evaluate(self, state: _State, weights: Tensor, work: Work) -> tuple[float, Tensor]:
        """Set the read-out; return the objective and minus the gradient of the mean loss."""
        with torch.no_grad():
            state.readout.weight.copy_(weights[:, :-1])
            state.readout.bias.copy_(weights[:, -1])
        state.net.eval()
        total = torch.zeros(1, dtype=torch.float64, device=weights.device)
        push = torch.zeros_like(weights)
        for batch in work.batches(self.batch_size):
            a = _features(state.net, state.readout, batch.x).double()
            out = a @ weights.T
            y = batch.y.double() if batch.y.is_floating_point() else batch.y
            total += self.loss.value(out, y).sum()
            push += self.loss.residual(out, y).T @ a
        rows = len(work.data.train)
        penalty = 0.5 * (bias_free(state.gram, self.ridge) * weights.square()).sum()
        return float(work.sum(total) / rows + penalty), work.sum(push) / rows


def _features(net: nn.Module, readout: nn.Linear, x: Tensor) -> Tensor:
    """Return what the read-out sees of these rows, with a column of ones last."""
    seen: list[Tensor] = []
    handle = readout.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        with torch.no_grad():
            net(x.to(readout.weight))
    finally:
        handle.remove()
    return torch.cat([seen[0], seen[0].new_ones(len(seen[0]), 1)], dim=1)


def _draw(net: nn.Module, readout: nn.Linear, work: Work) -> None:
    """Draw all maps below the read-out in one forward pass over a sample, each unit's plane through a row of it."""
    generator = work.generator("half-spaces")
    rows = torch.randperm(len(work.data.train), generator=generator)[:SAMPLE]
    x, _ = next(iter(batches(work.data.train, [rows])))

    def through_a_row(z: Tensor) -> Tensor:
        """Return one value of each unit (channel), of a random row and position."""
        values = z.transpose(0, 1).flatten(1)
        return values[torch.arange(len(values)), torch.randint(values.shape[1], (len(values),), generator=generator)]

    def draw(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        z = args[0]
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator) / fan_in**0.5)
            if module.bias is not None:
                module.bias.zero_()
                module.bias.copy_(-through_a_row(module.forward(z)))
        elif isinstance(module, _BatchNorm):
            axes = [0, *range(2, z.ndim)]
            module.reset_parameters()
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.copy_(z.mean(axes))
                module.running_var.copy_(z.var(axes))
            if module.bias is not None:
                module.bias.copy_(-through_a_row(module.forward(z)))

    handles = [module.register_forward_pre_hook(draw) for module in net.modules() if module is not readout]
    net.eval()
    try:
        with torch.no_grad():
            net(x.to(readout.weight))
    finally:
        for handle in handles:
            handle.remove()
