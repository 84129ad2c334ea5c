"""Feasible target propagation, exact: a search over the bits of small networks, each move fitted and measured."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from hardstep.certify.check_optimality import true_bits
from hardstep.certify.separability import clash, right_exactly
from hardstep.certify.shapes import exhausted
from hardstep.chain import Affine, chain, half_spaces, with_ones
from hardstep.fit import Method, Sweep, Work
from hardstep.methods.target_net import BitNet, Place, Rows, correct, credits
from hardstep.methods.target_search import Alternate, Descents, Flip, LinearPrograms, Proposal, Refit, SplitCredit
from hardstep.parts import batches

__all__ = ["ExactTargetProp"]

ENTRIES = 2_000_000  # of the linear program of a read-out: some seconds for one proposal


@dataclass
class _State:
    """The beam, the best network of all, and what the search has spent."""

    net: nn.Module
    layers: list[Affine]
    rows: Rows
    beam: list[BitNet]
    best: BitNet
    seconds: float = 0.0
    proposals: int = 0
    since: int = 0
    tried: bool = False

    def state_dict(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in self._numbers}
        return {"beam": [_tensors(net) for net in self.beam], "best": _tensors(self.best), **numbers}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        self.beam = [_net(tree) for tree in state_dict["beam"]]
        self.best = _net(state_dict["best"])
        for name in self._numbers:
            setattr(self, name, state_dict[name])

    _numbers = ("seconds", "proposals", "since", "tried")


@dataclass(frozen=True)
class ExactTargetProp(Method[_State]):
    """Search for hidden bits that every layer can make and the read-out can tell apart; for small networks and data.

    The state is what the units really do on the training rows. A proposal picks a unit and asks it for other targets;
    the unit is fitted to them by a linear program and does what it can; units above are fitted again to what they did,
    where that has changed, and the read-out to the labels. The network moves there if the least sum of slacks of the
    read-out does not rise. It is 0 exactly where all rows are right: then the bits are feasible targets, which every
    layer fits without error, and the fit stops with "proved feasible" after the written weights were checked without
    rounding. It stops with "proved infeasible" where two rows are alike but for their labels, or where one hidden
    layer is so small that every set of patterns its units can make was tried. Otherwise it stops with the best found:
    that proves nothing. A proved network is kept whatever its validation score; `patience` never ends the search.
    `hardstep.certify.feasible` makes and checks certificates of frozen networks.

    Parameters
    ----------
    proposal
        How targets are proposed; by default one in four is a random flip, the others follow the credit.
    refit
        How units and read-out are fitted; None takes linear programs where that of the read-out has at most two million
        entries, else `Descents()`, which takes thousands of rows and whose loss is not exact.
    beam
        So many networks are kept and moved in turn; a new one takes the place of the worst.
    proposals
        For each sweep.
    seconds
        Stop after so much time in sweeps; None never does. With a number the result depends on the machine.
    stuck
        After so many proposals without a lower loss, a quarter of the units is moved at random; the best is kept.
    exhaust
        Once stuck, try all sets of patterns of a single hidden layer if there are at most so many; 0 never does.
    warm
        Start from the network's weights instead of random half-spaces.

    References
    ----------
    Friesen and Domingos 2018, Alg. 1 [friesen2018]. Differs: no recursion, since realised bits are feasible in all
    layers but the last; linear programs in the place of gradient steps, a search accepted on the measured loss in the
    place of gradient signs (`GradientSign`), restarts, proofs.

    Examples
    --------
    >>> import hardstep as hs
    >>> x = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    >>> data = hs.data.from_arrays(x, torch.tensor([0, 1, 1, 0]), test_share=0.0, val_share=0.0)
    >>> net = hs.nets.mlp(2, 2, 2, norm=False)
    >>> hs.fit(net, data, hs.ExactTargetProp(), progress=False).stopped[:40]
    'proved feasible: each of 2 hidden units '
    """

    proposal: Proposal = field(default_factory=lambda: Alternate(Flip(0.25), SplitCredit(0.5), share=0.25))
    refit: Refit | None = None
    beam: int = 1
    proposals: int = 100
    seconds: float | None = None
    stuck: int = 300
    exhaust: int = 100
    warm: bool = False

    monotone = True

    def __post_init__(self) -> None:
        timed = self.seconds is None or self.seconds > 0
        if min(self.beam, self.proposals, self.stuck) < 1 or self.exhaust < 0 or not timed:
            raise ValueError(
                "beam, proposals and stuck must be at least 1, exhaust at least 0 and seconds positive or None, got "
                f"{self.beam}, {self.proposals}, {self.stuck}, {self.exhaust} and {self.seconds}"
            )

    @torch.no_grad()
    def init(self, net: nn.Module, work: Work) -> _State:
        """Take weights or draw them, run the rows through, fit the read-out."""
        layers = chain(net, "ExactTargetProp")
        net.eval()
        train = work.data.train
        x, y = next(iter(batches(train, [torch.arange(len(train))])))  # every rank sees all rows and does the same
        if y.is_floating_point():
            raise ValueError(
                f"ExactTargetProp takes integer labels, got y of {y.dtype}; for number targets use MarginBCD"
            )
        a = with_ones(x.flatten(1).double())
        outputs, width = layers[-1].linear.weight.shape
        affordable = len(y) * (outputs - 1) * outputs * (width + 1) <= ENTRIES
        refit = self.refit or (LinearPrograms() if affordable else Descents())
        rows = Rows(a[:, :-1].numpy(), y.numpy().astype(np.int64), refit)
        weights = []
        generator = work.generator("half-spaces")
        for layer in layers[:-1]:
            drawn = half_spaces(a, len(layer.read()), generator)
            weights.append(layer.read().double().cpu() if self.warm else drawn)
            a = with_ones((a @ weights[-1].T > 0).double())
        readout = np.zeros((layers[-1].linear.out_features, a.shape[1]))
        start = rows.net([weight.numpy() for weight in weights], readout)
        state = _State(net, layers, rows, [start], start)
        self._write(state, start)
        return state

    @torch.no_grad()
    def sweep(self, state: _State, work: Work) -> Sweep:
        """Make so many proposals, write the best network, say whether it is proved."""
        begun, generator = time.perf_counter(), np.random.default_rng(work.generator("targets").initial_seed())
        accepted = 0
        for done in range(self.proposals):
            if correct(state.best, state.rows.y) or self._late(state.seconds + time.perf_counter() - begun):
                break
            accepted += self._propose(state, generator)
            if state.since >= self.stuck:
                self._shake(state, generator)
            work.tick((done + 1) / self.proposals)
        impossible = "" if correct(state.best, state.rows.y) else self._impossible(state)
        state.best = state.rows.widened(state.best)
        wrong, verified = self._write(state, state.best)
        state.seconds += time.perf_counter() - begun
        rows = len(state.rows.y)
        stop = impossible
        if verified:
            units = sum(len(planes) for planes in state.best.weights)
            stop = f"proved feasible: each of {units} hidden units separates its targets, all {rows} rows are right"
        elif correct(state.best, state.rows.y):
            stop = "all rows are right in double precision, but not with the weights as written (UNKNOWN)"
        elif not stop and self._late(state.seconds):
            stop = f"the {self.seconds:g} seconds are spent: the best found has {wrong} of {rows} rows wrong (UNKNOWN)"
        extra = {"train_accuracy": 1 - wrong / rows, "accepted": accepted / self.proposals}
        extra |= {"proposals": float(state.proposals)}
        # the network that is proved is the one to end with, whatever the validation part says
        return Sweep(state.best.loss / rows, stop, extra, admissible=verified)

    def _late(self, seconds: float) -> bool:
        return self.seconds is not None and seconds > self.seconds

    def _propose(self, state: _State, generator: np.random.Generator) -> bool:
        """Make one proposal; return whether the network moved."""
        parent = state.beam[int(generator.integers(len(state.beam)))]
        place = _drawn(parent, generator)
        credit = credits(parent, state.rows.y)[place.layer][:, place.unit]
        targets = self.proposal.propose(parent.bits[place.layer][:, place.unit], credit, generator)
        found = state.rows.moved(parent, place, targets)
        state.proposals, state.since = state.proposals + 1, state.since + 1
        if found is None:
            return False
        worst = parent if self.beam == 1 else max(state.beam, key=lambda net: net.loss)
        full = len(state.beam) >= self.beam
        if full and not found.loss <= worst.loss:
            return False
        if found.loss < min(net.loss for net in state.beam):
            state.since = 0
        state.beam = [net for net in state.beam if net is not worst] + [found] if full else [*state.beam, found]
        if found.loss < state.best.loss or correct(found, state.rows.y):
            state.best = found
        return True

    def _shake(self, state: _State, generator: np.random.Generator) -> None:
        """Move a quarter of the units of one network at random, whatever the loss, and go on from there alone."""
        net = state.beam[0]
        for _ in range(max(1, sum(len(planes) for planes in net.weights) // 4)):
            place = _drawn(net, generator)
            bits = net.bits[place.layer][:, place.unit]
            net = state.rows.moved(net, place, Flip(0.25).propose(bits, np.zeros(len(bits)), generator)) or net
        state.beam, state.since = [net], 0
        if net.loss < state.best.loss:
            state.best = net

    def _impossible(self, state: _State) -> str:
        """Return why no weights can be right on all rows, if that is proved; a network that is becomes the best."""
        x, y = state.rows.x, state.rows.y
        alike = clash(x, y)
        if alike is not None:
            first, second = alike
            return f"proved infeasible: rows {first} and {second} are alike, with labels {y[first]} and {y[second]}"
        if state.tried or state.proposals < self.stuck or len(state.best.weights) > 1 or not self.exhaust:
            return ""
        state.tried = True
        units, classes = len(state.best.weights[0]), len(state.best.readout)
        found = exhausted(x, y, classes, units=units, limit=self.exhaust)
        if found is None:
            return ""
        if found.planes is None:
            return (
                f"proved infeasible: {units} hidden units have {found.sets} sets of patterns on these rows, and no "
                "read-out of any of them is right on all rows"
            )
        state.best = state.rows.net([found.planes], state.best.readout)
        return ""

    def _write(self, state: _State, best: BitNet) -> tuple[int, bool]:
        """Put the weights into the network; return how many rows it gets wrong, and whether none without rounding."""
        x, y = state.rows.x, state.rows.y
        a, bits = torch.from_numpy(x), [torch.from_numpy(bits).double() for bits in best.bits]
        for layer, weight, below in zip(state.layers, (*best.weights, best.readout), [a, *bits], strict=True):
            ones = with_ones(below)
            layer.write(torch.from_numpy(weight).to(layer.linear.weight), ones.T @ ones / len(ones))
        like = state.layers[0].linear.weight
        a = a.to(like)
        for layer in state.layers[:-1]:
            heights = layer.linear(a)
            a = ((heights if layer.norm is None else layer.norm(heights)) > 0).to(like)
        wrong = int((state.layers[-1].linear(a).argmax(dim=1).cpu().numpy() != y).sum())
        if wrong:
            return wrong, False
        planes = [layer.read().double().cpu().numpy() for layer in state.layers]
        values = [x, *(bits.astype(np.float64) for bits in best.bits)]
        same = all(np.array_equal(true_bits(v, w), b) for v, w, b in zip(values, planes, best.bits, strict=False))
        return wrong, same and right_exactly(values[-1], planes[-1], y)


def _drawn(net: BitNet, generator: np.random.Generator) -> Place:
    """Return a hidden unit drawn from all."""
    places = [Place(layer, unit) for layer, planes in enumerate(net.weights) for unit in range(len(planes))]
    return places[int(generator.integers(len(places)))]


def _tensors(net: BitNet) -> dict[str, Any]:
    arrays = {"weights": net.weights, "bits": net.bits}
    trees = {name: [torch.from_numpy(array) for array in value] for name, value in arrays.items()}
    return {**trees, "readout": torch.from_numpy(net.readout), "loss": net.loss}


def _net(tree: dict[str, Any]) -> BitNet:
    weights, bits = (tuple(value.cpu().numpy() for value in tree[name]) for name in ("weights", "bits"))
    return BitNet(weights, bits, tree["readout"].cpu().numpy(), tree["loss"])
