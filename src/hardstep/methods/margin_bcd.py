"""Block coordinate descent on bits and half-spaces with a margin, no derivative of a step used anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hardstep.chain import Affine, chain, half_spaces, run, unit_scale, with_ones
from hardstep.closed_form import bias_free, inverse, ridge
from hardstep.fit import Batch, Method, Sweep, Work
from hardstep.losses import CrossEntropy, Loss
from hardstep.methods.aims import Aim, Ramp, Seen
from hardstep.parts import batches

__all__ = ["Fits", "MarginBCD"]

SAMPLE = 2048  # rows that place random half-spaces
HORIZON = 10  # Gram matrices are averaged over about so many rows per column


@dataclass
class _State:
    """All layers as matrices [weights, bias], the last one the read-out; running Gram matrices of their inputs."""

    net: nn.Module
    layers: list[Affine]
    weights: list[Tensor]
    grams: list[Tensor]
    moves: list[Tensor]
    first: int  # layers below stay
    depth: int
    inverses: dict[int, Tensor] = field(default_factory=dict)  # of fixed Gram matrices, made again after a resume

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("weights", "grams", "moves", "depth")}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        for name in ("weights", "grams", "moves"):
            pairs = zip(state_dict[name], getattr(self, name), strict=True)
            setattr(self, name, [value.to(like.device) for value, like in pairs])
        self.depth = state_dict["depth"]
        self.inverses = {}


@dataclass(frozen=True)
class Fits:
    """How half-spaces and read-out are fitted: damped Newton steps with a ridge, and momentum.

    Parameters
    ----------
    ridge
        Strength on the moves of hidden weights, > 0, relative to mean squares of the inputs.
    ridge_out
        Strength on the read-out, > 0.
    lr, lr_out
        Length of the first steps of hidden layers and read-out, in (0, 2); falls linearly to 0 while a layer grows,
        and again in the rest.
    momentum
        Share of the last move of the hidden weights that is kept, in [0, 1).
    """

    ridge: float = 0.3
    ridge_out: float = 1e-3
    lr: float = 0.12
    lr_out: float = 0.4
    momentum: float = 0.8

    def __post_init__(self) -> None:
        for name in ("ridge", "ridge_out"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("lr", "lr_out"):
            if not 0 < getattr(self, name) < 2:
                raise ValueError(f"{name} is the length of a step and lies in (0, 2), got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum lies in [0, 1), got {self.momentum}")


@dataclass(frozen=True)
class MarginBCD(Method[_State]):
    """Move half-spaces, block by block in closed form, to where their bits lower the loss; the units have no scale.

    For each batch an `Aim` says, from the true bits of the network, where each pre-activation c_jn = w_j'a_n shall
    move, d_jn, and with which weight g_jn. Then every hidden unit takes the step of length `lr` towards the minimum of

    mean_n [ 1/2 (move of c_jn)² ] + ridge/2 |move of w_j|² - sum_n g_jn d_jn (move of c_jn) / sum_n g_jn

    which is a ridge solve with the Gram matrix of the layer's inputs, one for all its units; the read-out takes a
    majoriser's step. A step is free of scale, so every unit is brought back to unit root mean square: margins get
    a meaning, and no unit falls behind. The step's derivative is not used; with `Ramp`, the default, the direction is
    that of clipped straight-through training, whitened by the inputs.

    Layers at the bottom whose weights have `requires_grad` False stay as they are.

    In the first `growth` of the training, layers grow one after the other: layer i is drawn as random half-spaces on
    the fixed bits below and trained with the read-out directly above it, while the layers above hand its bits on.
    After that all layers move together. The report's `flipped` is the share of bits that a batch's step changed,
    `agreement` the share of those that stand where they are pulled, or are not pulled at all. Gram matrices and
    moments are sums over ranks. There is no descent claim: look at the accuracy, not at the objective.

    Parameters
    ----------
    loss
        The data term.
    aim
        What half-spaces are fitted to.
    fits
        How they are fitted.
    growth
        Share of the training in which layers grow one by one, in [0, 1].
    warm
        Go on from the network's present weights instead: no growth.
    batch_size
        Rows between two moves, over all ranks; None for twice the widest layer, at least 256, at most all.

    Raises
    ------
    ValueError
        If the network is no chain of linear layers and steps.

    References
    ----------
    Zhang et al. 2023 [zhang2023], block coordinate descent of 0/1 networks: the idea of the blocks. Differs in all
    else: true bits in place of relaxed ones, margins, worth as weights, growth, the cross-entropy by its majoriser
    [bohning1992].

    Examples
    --------
    >>> import hardstep as hs
    >>> net = hs.nets.mlp(64, 50, 10)
    >>> report = hs.fit(net, hs.data.load("digits"), hs.MarginBCD(), sweeps=10, progress=False)
    >>> report.score > 0.85
    True
    """

    loss: Loss = field(default_factory=lambda: CrossEntropy(smoothing=0.1))
    aim: Aim = field(default_factory=Ramp)
    fits: Fits = field(default_factory=Fits)
    growth: float = 1.0
    warm: bool = False
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.growth <= 1:
            raise ValueError(f"growth is a share of the training, in [0, 1], got {self.growth}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 (or None for automatic), got {self.batch_size}")

    @torch.no_grad()
    def init(self, net: nn.Module, work: Work) -> _State:
        """Read the network; draw the first layer unless the start is warm."""
        layers = chain(net, "MarginBCD")
        first = _first(layers)
        weights = [layer.read() for layer in layers]
        grams = [torch.zeros(len(w.T), len(w.T), dtype=torch.float64, device=w.device) for w in weights]
        state = _State(net, layers, weights, grams, [torch.zeros_like(w) for w in weights], first, first)
        if self.warm or self.growth == 0 or first == len(layers) - 1:
            state.depth = len(layers) - 1
            if not self.warm:
                for i in range(first, state.depth):
                    _draw(state, i, work)
            self._measure(state, work, refit=not self.warm)
        else:
            self._grow(state, work)
        state.net.eval()
        _write(state)
        return state

    @torch.no_grad()
    def sweep(self, state: _State, work: Work) -> Sweep:
        """Choose bits and move half-spaces once over the data, batch by batch."""
        hidden = len(state.layers) - 1
        growing = 0.0 if self.warm or state.first == hidden else self.growth
        phases = (hidden - state.first) / growing if growing else 0.0  # layers that grow, in units of `progress`
        while growing and state.depth < min(hidden, state.first + 1 + int(work.progress * phases)):
            self._grow(state, work)
        trained = [state.depth - 1] if work.progress < growing else list(range(state.first, hidden))
        sums = torch.zeros(4, dtype=torch.float64, device=work.fabric.device)
        for batch in work.batches(self._rows(state, work), shuffle=True):
            if work.progress < growing:  # each layer has its own fall of the step length
                done = batch.progress * phases - (state.depth - 1 - state.first)
            else:
                done = (batch.progress - growing) / (1 - growing)
            sums += self._update(state, work, batch, trained, max(0.0, 1 - done))
        _write(state)
        loss, hits, flips, kept = (work.sum(sums) / len(work.data.train)).tolist()
        units = max(1, sum(len(state.weights[i]) for i in trained))
        extra = {"flipped": flips / units, "agreement": kept / units}
        if work.data.classification:
            extra["train_accuracy"] = hits
        penalty = 0.5 * self.fits.ridge_out * float(state.weights[-1][:, :-1].square().sum())
        return Sweep(loss + penalty, extra=extra)

    def _rows(self, state: _State, work: Work) -> int:
        """Return the rows of a batch."""
        widest = max(w.shape[1] for w in state.weights)
        return self.batch_size or min(len(work.data.train), max(256, 2 * widest))

    def _update(self, state: _State, work: Work, batch: Batch, trained: list[int], share: float) -> Tensor:
        """Do one batch with this share of the first steps; return sums of loss, hits, flipped bits and bits reached."""
        total = batch.total
        inputs, pres = _run(state, batch.x)
        y = batch.y.to(pres[0]) if batch.y.is_floating_point() else batch.y
        out = inputs[-1] @ state.weights[-1].T
        loss = self.loss.value(out, y).sum()
        hits = (out.argmax(dim=1) == y).sum() if work.data.classification else loss.new_zeros(())
        generator = work.generator(f"order at {batch.progress}")
        seen = Seen(pres, [*state.weights[: state.depth], state.weights[-1]], out, y, self.loss, work, generator)
        pulls = self.aim.pulls(seen, trained[::-1])
        lowest = trained[0] if trained else len(pres)
        for i, (pull, weight) in pulls.items():
            if i > lowest:
                _average(state, i, work, inputs[i], total)
            push = work.sum(pull.T @ inputs[i]) / work.sum(weight)[:, None].clamp_min(1e-30)
            state.moves[i] = self.fits.momentum * state.moves[i] + push @ self._inverse(state, i)
            state.weights[i] = unit_scale(state.weights[i] + share * self.fits.lr * state.moves[i], state.grams[i])
        before, (inputs, pres) = pres, run(state.weights[: state.depth], inputs[0], pres[:lowest])
        flips = kept = loss.new_zeros(())
        for i, (pull, _) in pulls.items():
            flips = flips + ((pres[i] > 0) != (before[i] > 0)).sum()
            kept = kept + ((pres[i] > 0) == (pull > 0)).logical_or_(pull == 0).sum()
        _average(state, len(state.grams) - 1, work, inputs[-1], total)
        self._refit(state, work, inputs[-1], y, total, share * self.fits.lr_out)
        return torch.stack([value.double() for value in (loss, hits, flips, kept)])

    def _refit(self, state: _State, work: Work, a: Tensor, y: Tensor, total: int, lr: float) -> None:
        """Move the read-out by a majoriser's step."""
        readout = state.weights[-1]
        push = work.sum(self.loss.residual(a @ readout.T, y).T @ a) / total
        strength = bias_free(state.grams[-1], self.fits.ridge_out)
        gradient = push.double() - strength * readout.double()
        move = ridge(self.loss.curvature * state.grams[-1], gradient, strength)
        state.weights[-1] = readout + lr * move.to(readout.dtype)

    def _inverse(self, state: _State, i: int) -> Tensor:
        """Return (G + ridge)^-1 of a layer's inputs, computed in float64."""
        if i not in state.inverses:
            gram = state.grams[i]
            state.inverses[i] = inverse(gram, bias_free(gram, self.fits.ridge)).to(state.weights[i].dtype)
        return state.inverses[i]

    def _grow(self, state: _State, work: Work) -> None:
        """Begin the next layer."""
        _draw(state, state.depth, work)
        state.depth += 1
        state.weights[-1] = state.weights[-1].new_zeros(len(state.weights[-1]), len(state.weights[state.depth - 1]) + 1)
        self._measure(state, work, refit=True)

    def _measure(self, state: _State, work: Work, *, refit: bool) -> None:
        """Compute the Gram matrices over all rows; fit the read-out to the present bits by one step from 0."""
        state.inverses = {}
        readout = state.weights[-1].zero_() if refit else state.weights[-1]
        used = [*range(state.depth), len(state.layers) - 1]
        push = torch.zeros_like(readout, dtype=torch.float64)
        sums = [push.new_zeros(w.shape[1], w.shape[1]) for w in (state.weights[i] for i in used)]
        rows = len(work.data.train)
        for batch in work.batches(max(self._rows(state, work), 256)):
            inputs, _ = _run(state, batch.x)
            y = batch.y.to(readout) if batch.y.is_floating_point() else batch.y
            for total, a in zip(sums, inputs, strict=True):
                total.add_(_gram(a))
            push += (self.loss.residual(inputs[-1] @ readout.T, y).T @ inputs[-1]).double()
        for i, gram in zip(used, sums, strict=True):
            state.grams[i] = work.sum(gram) / rows
        for i in range(state.depth):
            state.weights[i] = unit_scale(state.weights[i], state.grams[i])
            state.moves[i] = torch.zeros_like(state.weights[i])
        if refit:
            strength = bias_free(state.grams[-1], self.fits.ridge_out)
            move = ridge(self.loss.curvature * state.grams[-1], work.sum(push) / rows, strength)
            state.weights[-1] = move.to(readout.dtype)


def _first(layers: list[Affine]) -> int:
    """Return the number of layers at the bottom that shall stay."""
    free = [layer.linear.weight.requires_grad for layer in layers]
    first = free.index(True) if any(free) else len(layers)
    if not all(free[first:]):
        raise ValueError(
            f"layers with requires_grad=False must be the lowest ones and not the read-out, but of {len(free)} linear "
            f"layers these are free: {[i for i, value in enumerate(free) if value]}; use requires_grad_ to change that"
        )
    return first


def _run(state: _State, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return the inputs of each layer up to the read-out, and the pre-activations."""
    return run(state.weights[: state.depth], with_ones(x.flatten(1).to(state.weights[0])))


def _gram(a: Tensor) -> Tensor:
    """Return a'a in float64; sums of bits stay below 2^24, so that float32 products of bits are exact."""
    return (a.T @ a).double()


def _average(state: _State, i: int, work: Work, a: Tensor, total: int) -> None:
    """Let the running Gram matrix of a layer's inputs follow the network."""
    keep = max(0.0, 1 - total / min(len(work.data.train), HORIZON * a.shape[1]))
    state.grams[i] = keep * state.grams[i] + (1 - keep) / total * work.sum(_gram(a))
    state.inverses.pop(i, None)


def _draw(state: _State, i: int, work: Work) -> None:
    """Draw random half-spaces on the bits below, each plane through a random row."""
    generator = work.generator(f"half-spaces of layer {i}")
    rows = torch.randperm(len(work.data.train), generator=generator)[:SAMPLE]
    x, _ = next(iter(batches(work.data.train, [rows])))
    like = state.weights[i]
    a = with_ones(x.flatten(1).to(like))
    for weight in state.weights[:i]:
        a = with_ones((a @ weight.T > 0).to(like.dtype))
    state.weights[i] = half_spaces(a, len(like), generator)


def _write(state: _State) -> None:
    """Put the answer into the network; layers not yet grown hand bits on, the most used ones where they are fewer."""
    for i in range(state.depth):
        state.layers[i].write(state.weights[i], state.grams[i])
    readout = state.weights[-1]
    for i in range(state.depth, len(state.layers) - 1):
        linear = state.layers[i].linear
        width, units = readout.shape[1] - 1, linear.out_features
        if units < width:
            source = readout[:, :-1].square().sum(dim=0).argsort(descending=True)[:units].sort().values
        else:
            source = torch.arange(units, device=readout.device) % width
        hand_on = readout.new_zeros(units, width + 1)
        hand_on[torch.arange(units), source] = 2
        hand_on[:, -1] = -1
        state.layers[i].write(hand_on)
        copies = torch.bincount(source, minlength=width)[source]
        readout = torch.cat([readout[:, source] / copies, readout[:, -1:]], dim=1)
    state.layers[-1].write(readout)
