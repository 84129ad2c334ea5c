"""Relaxed variable splitting: weights that are exactly sparse, trained by gradients beside a dense copy of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hardstep.cardinality import Cardinality
from hardstep.chain import layers_named
from hardstep.fit import Batch, Method, Sweep, Work, score
from hardstep.group_penalties import Words
from hardstep.methods.gradient import Descent, GradientDescent
from hardstep.penalties import Penalty
from hardstep.step import Sign, Step

__all__ = ["Splitting", "relative_prox"]

_kept = torch.ops.aten.threshold_backward  # (a, b, t) -> a where b > t, else 0


def relative_prox(penalty: Penalty, w: Float[Tensor, "h *n"]) -> Float[Tensor, "h *n"]:
    """Return r prox(w/r, 1) row by row, r the root mean square of a row: a threshold in units of the row's own size.

    Commutes with w -> c w for c > 0. What the prox leaves as it is keeps its bits, and zeros are exact.

    Examples
    --------
    >>> from hardstep.penalties import L0
    >>> relative_prox(L0.at(1.0), torch.tensor([[4.0, -3.0, 0.5, 0.0], [0.04, 0.03, 0.0, 0.01]]))
    tensor([[ 4.0000, -3.0000,  0.0000,  0.0000],
            [ 0.0400,  0.0300,  0.0000,  0.0000]])
    """
    size = _across(_rms(w), w)
    x = w / size
    u = penalty.prox(x, 1.0)
    out: Tensor = _kept(torch.addcmul(w, size, x - u, value=-1), u.abs(), 0.0)
    return out


@dataclass
class _Layer:
    """A layer that is to be sparse: its weights are U where the network is used, `dense` is W.

    `alive` is 1 where a weight may move: everywhere, then on the support.
    """

    module: nn.Linear | nn.Conv2d
    norm: _BatchNorm | None
    free: bool  # whether its scale does not matter: a step or a normalisation reads it
    dense: Tensor
    alive: Tensor

    def to_dense(self) -> None:
        """Put W into the network."""
        self.module.weight.copy_(self.dense)

    def to_sparse(self, penalty: Penalty) -> None:
        """Take W out of the network and put U in."""
        self.dense.copy_(self.module.weight)
        self.module.weight.copy_(relative_prox(penalty, self.dense))

    def rescale(self) -> None:
        """Divide each row of the weights, and what goes with it, by its norm; the output of the step stays."""
        rows = self.module.weight.flatten(1).norm(dim=1)
        scale = torch.where(rows > 0, 1 / rows, 1.0)
        self.module.weight.mul_(_across(scale, self.module.weight))
        statistics = (None, None) if self.norm is None else (self.norm.running_mean, self.norm.running_var)
        for value, factor in zip((self.module.bias, *statistics), (scale, scale, scale.square()), strict=True):
            if value is not None:
                value.mul_(factor)


@dataclass
class _State:
    """The descent and the layers that are to be sparse, by name."""

    descent: Descent
    layers: dict[str, _Layer]

    def state_dict(self) -> dict[str, Any]:
        layers = {name: {"dense": layer.dense, "alive": layer.alive} for name, layer in self.layers.items()}
        return {"descent": self.descent.state_dict(), "layers": layers}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        self.descent.load_state_dict(state_dict["descent"])
        for name, layer in self.layers.items():
            layer.dense.copy_(state_dict["layers"][name]["dense"])
            layer.alive.copy_(state_dict["layers"][name]["alive"])


@dataclass(frozen=True)
class Splitting(Method[_State]):
    """Minimise loss(F) + rho (P(u) + |w - u|²/2) by turns: exactly sparse weights u, dense ones w beside them.

    With U = r prox(W/r) row by row, r the root mean square of a row, each batch takes the optimiser's step along the
    gradient at F, then W <- W - rho (lr/lr0)(W - U) and U <- r prox(W/r). F is U (`sparse_forward`) or W. Rows that
    feed a step or a normalisation are kept at unit norm, since a pull would shrink them for ever. The penalty grows
    from nothing over the first share `ramp` of this phase. Then, for the last share `freeze_support` of the sweeps, the
    zeros stay where they are, W <- U, and the rest trains on with a new optimiser and a schedule from its start. After
    each sweep the network holds U.

    | `sparse_forward` | `rho` | |
    |---|---|---|
    | False | > 0 | gradient at W and a pull: relaxed variable splitting as published |
    | True | > 0 | gradient at U and a pull |
    | True | 0 | gradient at U handed to W: hard thresholding, straight through (default) |

    Parameters
    ----------
    penalty
        In units of a row's root mean square: `L0.at(2.0)` drops what is smaller than two of them, `Cardinality(0.1)`
        keeps a tenth of each layer, `Grouped(Cardinality(0.5), Columns())` half of the units that it reads.
    sparse_forward
        Whether the forward pass uses U or W.
    rho
        Pull of W towards U in one step, >= 0.
    ramp
        Share of the first phase in which the penalty grows, in [0, 1].
    freeze_support
        Share of the sweeps, the last ones, with fixed zeros, in [0, 1).
    normalise
        Whether rows are kept at unit norm.
    layers
        Names of the modules to make sparse; empty for all but the read-out.
    base
        The gradient method: optimiser, schedule, rule, loss, batch size.

    Raises
    ------
    ValueError
        If a share or rho is out of range, a layer is not there, or the penalty sets a whole layer to 0.

    References
    ----------
    Dinh and Xin 2019 [dinh2019], one hidden layer; Dinh et al. 2020 [dinh2020], deep networks. Differs: relative
    thresholds and unit rows, the gradient at U by default, a last phase on a fixed support.

    Examples
    --------
    >>> import hardstep as hs
    >>> data, net = hs.data.load("digits"), hs.nets.mlp(64, 50, 10)
    >>> report = hs.fit(net, data, Splitting(penalty=hs.Cardinality(0.1)), sweeps=6, progress=False)
    >>> int((net[1].weight != 0).sum()), net[1].weight.numel()
    (320, 3200)
    """

    penalty: Penalty = field(default_factory=Cardinality)
    sparse_forward: bool = True
    rho: float = 0.0
    ramp: float = 0.2
    freeze_support: float = 1 / 3
    normalise: bool = True
    layers: tuple[str, ...] = ()
    base: GradientDescent = field(default_factory=GradientDescent)

    augments = True

    def __post_init__(self) -> None:
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho is the share of W - U that is pulled in in one step, in [0, 1], got {self.rho}")
        if not 0 <= self.ramp <= 1:
            raise ValueError(f"ramp is a share of the sweeps in [0, 1], got {self.ramp}")
        if not 0 <= self.freeze_support < 1:
            raise ValueError(f"freeze_support is a share of the sweeps in [0, 1), got {self.freeze_support}")

    def init(self, net: nn.Module, work: Work) -> _State:
        """Find the layers; W starts at the initial weights."""
        layers = layers_named(_layers(net), self.layers)
        state = _State(self.base.init(net, work), layers)
        with torch.no_grad():
            for layer in state.layers.values():
                self._rescale(layer)
                layer.to_sparse(self.penalty.eased(0.0 if self.ramp else 1.0))
        return state

    def sweep(self, state: _State, work: Work) -> Sweep:
        """Run one epoch of either phase."""
        fixed = max(1, round(work.sweeps * (1 - self.freeze_support)))
        if work.sweep < fixed:
            result = self._split(state, work.phase(0, fixed))
        else:
            if work.sweep == fixed:
                state.descent.optimiser.optimizer.state.clear()
                for layer in state.layers.values():
                    layer.alive.copy_(layer.module.weight.detach() != 0)
            result = self.base.sweep(state.descent, work.phase(fixed, work.sweeps), partial(self._masked, state))
        return replace(result, extra={**result.extra, **_zeros(state.layers)})

    def _split(self, state: _State, work: Work) -> Sweep:
        """Train W beside U. Between sweeps the network holds U."""
        layers = state.layers.values()

        def around(step: Callable[[], None], lr: float, batch: Batch) -> None:
            penalty = self._eased(batch.progress)
            pull = self.rho * lr / self.base.optimiser.lr
            with torch.no_grad():
                for layer in layers if self.sparse_forward else ():
                    layer.to_dense()  # the gradient was taken at U, the step is W's
                step()
                for layer in layers:
                    weight = layer.module.weight
                    if pull:
                        weight.lerp_(relative_prox(penalty, weight), pull)
                    self._rescale(layer)
                    if self.sparse_forward:
                        layer.to_sparse(penalty)

        with torch.no_grad():
            for layer in () if self.sparse_forward else layers:
                layer.to_dense()
        result = self.base.sweep(state.descent, work, around)
        done = (work.sweep + 1) / work.sweeps
        penalty, extra = self._eased(done), {}
        with torch.no_grad():
            for layer in layers if self.sparse_forward else ():
                layer.to_dense()
            if work.data.val is not None:
                extra["score_dense"] = score(state.descent.net, work.data.val, work)
            for name, layer in state.layers.items():
                layer.to_sparse(penalty)
                if not bool(layer.module.weight.any()):
                    raise ValueError(
                        f"{penalty!r} sets all {layer.dense.numel():,} weights of layer {name!r} to 0, in units of the "
                        "root mean square of a row; lower the threshold or keep more, or leave the layer out of layers"
                    )
            pulled = sum(_moreau(penalty, layer) for layer in layers) if self.rho else 0.0
        objective = result.objective + self.rho * pulled
        return replace(result, objective=objective, extra={**result.extra, **extra}, admissible=done >= self.ramp)

    def _masked(self, state: _State, step: Callable[[], None], lr: float, batch: Batch) -> None:
        """Train the support only."""
        step()
        with torch.no_grad():
            for layer in state.layers.values():
                layer.module.weight.mul_(layer.alive)
                self._rescale(layer)

    def _eased(self, progress: float) -> Penalty:
        """Return the penalty as strong as it is at this share of the first phase."""
        return self.penalty.eased(min(1.0, progress / self.ramp) if self.ramp else 1.0)

    def _rescale(self, layer: _Layer) -> None:
        if self.normalise and layer.free:
            layer.rescale()


def _layers(net: nn.Module) -> dict[str, _Layer]:
    """Return all layers with weights by name, in order, and what reads them."""
    found: dict[str, _Layer] = {}
    last: _Layer | None = None  # waits for what reads it
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight = module.weight.detach()
            last = found[name] = _Layer(module, None, False, weight.clone(), torch.ones_like(weight))
        elif last is not None and isinstance(module, _BatchNorm):
            last.norm, last.free, last = module, True, None
        elif last is not None and isinstance(module, Step | Sign):
            last.free, last = True, None
        elif last is not None and not isinstance(module, nn.MaxPool2d | nn.Identity):
            last = None  # no more is known of its scale
    return found


def _zeros(layers: Mapping[str, _Layer]) -> dict[str, float]:
    """Return the shares of zero weights and of words without weights, in all and by layer."""
    extra = {}
    for what, layout in (("sparsity", None), ("zero_words", Words(64))):
        counts = {}
        for name, layer in layers.items():
            weight = layer.module.weight.detach()
            dead = weight == 0 if layout is None else ~layout.split(weight).any(dim=1)
            counts[name] = (int(dead.sum()), dead.numel())
            extra[f"{what} {name}"] = counts[name][0] / counts[name][1]
        extra[what] = sum(dead for dead, _ in counts.values()) / sum(size for _, size in counts.values())
    return extra


def _moreau(penalty: Penalty, layer: _Layer) -> float:
    """Return P(u) + |w - u|²/2 in units of the root mean square of the rows of W: what the prox minimises."""
    size = _across(_rms(layer.dense), layer.dense)
    w, u = layer.dense / size, layer.module.weight / size
    return float(penalty.value(u) + 0.5 * (w - u).square().sum())


def _rms(w: Tensor) -> Tensor:
    """Return the root mean square of each row, 1 for a row of zeros."""
    mean = w.flatten(1).square().mean(dim=1)
    return torch.where(mean > 0, mean.sqrt(), 1.0)


def _across(rows: Tensor, w: Tensor) -> Tensor:
    """Return a number a row in a shape that broadcasts against w."""
    return rows.reshape(-1, *[1] * (w.ndim - 1))
