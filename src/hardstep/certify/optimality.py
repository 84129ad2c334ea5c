"""How far a step network is from the best of its shape: proved by duality over a class of half-spaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from hardstep.certify.certificate import Certificate, Certifier, Verdict
from hardstep.certify.check_optimality import (
    RejectedError,
    claim,
    digest,
    lower_dual,
    recheck,
    upper_objective,
    whole_weights,
)
from hardstep.convex.bit_matrix import BitMatrix
from hardstep.convex.data_terms import DataTerm, Squared, lower_bound
from hardstep.convex.oracle_choice import choose_oracle
from hardstep.convex.oracle_stumps import Stumps
from hardstep.convex.oracles import Oracle, Search
from hardstep.convex.patterns import checked_rows, pattern_keys, patterns
from hardstep.convex.shattered import shattered
from hardstep.convex.solvers import Solution, solve
from hardstep.hard_layers import Dense, Encoding
from hardstep.hardnet import HardNet

__all__ = ["Optimality", "Units", "read_units"]

ANY_DEPTH = "shattering-bound"
ROUNDED = 1e-10  # what the float search and the check may differ by
ABOVE = 1 + 1e-7  # a column must beat its price by this much to enter
COLUMNS = 100  # half-spaces admitted a round
CLOSE = 1e-4  # relative gap to the optimum at which "how far" is answered
LOOSE, TIGHT = 1e-2, 1e-9  # relative gaps to which the restricted programs are solved


class Units(NamedTuple):
    """A layer of steps and a read-out: f(x) = intercept + sum_j u_j 1{w_j.x + b_j > 0}, planes (w, b), bias last."""

    planes: Float64[np.ndarray, "m d1"]
    u: Float64[np.ndarray, "m c"]
    intercept: Float64[np.ndarray, " c"]


@dataclass(frozen=True, eq=False)
class Optimality(Certifier):
    """Prove that a network's objective is at most (1 + gap) times the least of its shape.

    P(U, b, w) = sum_i l(b + sum_j u_j 1{w_j x_i > 0}, y_i) + beta sum_j |u_j|_2 is, up to how amplitudes are split
    between layers, the objective of training with weight decay. P* is its least value over any number of half-spaces
    of the oracle's class. For every v in the domain of the dual, P* >= D(t v), t = beta / max_d |v'd|: first v is
    the residual of the network itself, then those of better networks grown from it by column generation, until the
    claim is proved, or one of them refutes it. A heuristic oracle refutes, or leaves it UNKNOWN.

    With `layers=2` the claim is about the last hidden layer and the read-out, given the layers below, whose codes are
    the data; with `layers=1` about the read-out alone, given all hidden bits.

    Parameters
    ----------
    x
        The rows the network was trained on.
    y
        Numbers or labels.
    beta
        Price of amplitudes, > 0.
    term
        The loss, summed over rows.
    gap
        g of the claim; None asks for the smallest that the bound gives, found to about 1e-4.
    oracle
        The class of half-spaces and the search over it; None takes the strongest that is affordable.
    layers
        2 or 1, see above.
    any_depth
        Claim it over networks of any depth and width: the bound over all patterns. A bound only, nothing is refuted.
    rounds
        At most so many rounds of column generation.

    Raises
    ------
    ValueError
        If a number is out of range, or the network has not this form.

    References
    ----------
    Ergen, Gulluk, Lacotte, Pilanci 2023 [ergen2023], the convex program and its dual. Differs: certificates.

    Examples
    --------
    >>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0.0, 0.0, 4.0, 4.0])
    >>> units = Units(np.array([[1.0, -1.5]]), np.array([[3.0]]), np.array([0.5]))
    >>> best = Optimality(x, y, beta=1.0)
    >>> certificate = best.certify_units(units)
    >>> certificate.verdict.name, best.check_units(certificate, units)
    ('PROVED', True)
    >>> certificate.claim
    'P <= (1 + 1e-06) P* over half-spaces on one feature on 4 rows of 1 features, Squared, beta=1'
    """

    x: NDArray[Any]
    y: NDArray[Any]
    beta: float
    term: DataTerm = field(default_factory=Squared)
    gap: float | None = 1e-6
    oracle: Oracle | None = None
    layers: int = 2
    any_depth: bool = False
    rounds: int = 60

    def __post_init__(self) -> None:
        if not 0 < self.beta < np.inf:
            raise ValueError(f"beta must be positive and finite, got {self.beta}: without a price there is no bound")
        if self.gap is not None and not 0 <= self.gap < np.inf:
            raise ValueError(f"gap is a relative distance, at least 0, got {self.gap}")
        if self.layers not in (1, 2):
            raise ValueError(f"layers is 2 (hidden layer and read-out) or 1 (read-out alone), got {self.layers}")
        if len(self.x) != len(self.y):
            raise ValueError(f"x has {len(self.x)} rows, y {len(self.y)}; give one target per row")

    def __repr__(self) -> str:
        choice = f", gap={self.gap}, oracle={self.oracle!r}, layers={self.layers}, any_depth={self.any_depth}"
        return f"Optimality({len(self.x)} rows, beta={self.beta:g}, term={self.term!r}{choice})"

    def certify(self, net: HardNet) -> Certificate:
        """Prove or refute the claim for the last layers of a frozen network."""
        x, units, below = read_units(net, self.x, layers=self.layers)
        oracle = Stumps() if self.layers == 1 and self.oracle is None else self.oracle
        return self._certified(x, units, oracle, below)

    def certify_units(self, units: Units) -> Certificate:
        """Prove or refute the claim for a network of one hidden layer on x, trained by any method."""
        return self._certified(self._rows(), units, self.oracle, 0)

    def check(self, certificate: Certificate, net: HardNet) -> bool:
        """Recompute the verdict from the certificate's own data, without the solver, for this network."""
        x, units, _ = read_units(net, self.x, layers=self.layers)
        return self._checked(certificate, x, units)

    def check_units(self, certificate: Certificate, units: Units) -> bool:
        """Recompute the verdict from the certificate's own data, without the solver, for these units."""
        return self._checked(certificate, self._rows(), units)

    def _rows(self) -> NDArray[np.float64]:
        return checked_rows(np.ascontiguousarray(self.x, dtype=np.float64).reshape(len(self.x), -1))

    def _certified(self, x: NDArray[np.float64], units: Units, oracle: Oracle | None, below: int) -> Certificate:
        """Grow bounds and better networks until the claim is decided, and put the certificate together."""
        y, loss, beta = self.term.targets(self.y), type(self.term).__name__, float(self.beta)
        oracle = choose_oracle(x).oracle if oracle is None else oracle
        kind, proves = (ANY_DEPTH, True) if self.any_depth else (oracle.kind, oracle.proves)
        witness = _plain("", units)
        value = upper_objective(witness, "", loss, beta, x, y)
        bounds: dict[str, int | float] = {"objective": value}
        search = oracle.prepare(x)
        best = _Best(value)
        if self.any_depth:
            v = self.term.balance(self.term.residual(shattered(y, self.term, beta).outputs, y), y)
            best.take(v, lower_bound(self.term, v, y, beta, _reach(v)), value, None)
        else:
            for step in islice(self._grown(x, y, units, search), self.rounds):
                best.take(*step)
                if best.decided(self.gap):
                    break
        verdict, gap = Verdict.UNKNOWN, self.gap
        if proves and best.v is not None:
            whole, power = whole_weights(best.v, y, loss, free=True)
            v = np.ldexp(whole.astype(np.float64), -power)
            largest = _reach(v) if self.any_depth else search.find(v, 1, np.random.default_rng(0)).bound
            dual = max(lower_dual(v, y, loss, beta, largest), 0.0)
            if dual > 0 or value == 0:
                reached = value / dual - 1 if dual > 0 else 0.0
                gap = _rounded_up(reached) if gap is None else gap
                bounds |= {"dual": dual, "largest": largest, "gap": reached}
                witness |= {"v": best.v}
                verdict = Verdict.PROVED if value <= (1 + gap) * dual * (1 - ROUNDED) else verdict
        if verdict is not Verdict.PROVED and best.better is not None and gap is not None:
            other = _plain("better_", best.better)
            reached = upper_objective(other, "better_", loss, beta, x, y)
            if value * (1 - ROUNDED) > (1 + gap) * reached:
                verdict, witness, bounds = Verdict.REFUTED, witness | other, bounds | {"better": reached}
        context: dict[str, str | int | float] = {"kind": kind, "loss": loss, "beta": beta, "eps": oracle.eps}
        context |= {"gap": -1.0 if gap is None else gap, "intercept": 1, "below": below, "digest": digest(x, y)}
        return Certificate(claim(context, *x.shape), verdict, bounds, witness, context)

    def _grown(
        self, x: NDArray[np.float64], y: NDArray[np.float64], units: Units, search: Search
    ) -> Iterator[tuple[NDArray[np.float64], float, float, Units | None]]:
        """Yield residuals with their dual values, and better networks: the network's own, then column generation."""
        term, beta, generator = self.term, float(self.beta), np.random.default_rng(0)
        v = term.balance(term.residual(patterns(x, units.planes) @ units.u + units.intercept, y), y)
        found = search.find(v, COLUMNS, generator)
        dual = lower_bound(term, v, y, beta, found.bound)
        yield v, dual, np.inf, None
        planes, new = units.planes[units.u.any(axis=1)], found.planes
        bits = patterns(x, planes)
        solution: Solution | None = None
        tol = LOOSE
        while True:
            planes, bits, grown = _admitted(x, planes, bits, new)
            solution = solve(BitMatrix.from_bools(bits), y, term, beta, tol=tol, start=solution)
            v = solution.residual
            found = search.find(v, COLUMNS, generator)
            dual = max(dual, lower_bound(term, v, y, beta, found.bound))
            used = solution.support
            better = Units(planes[used], solution.u[used], solution.intercept)
            yield v, lower_bound(term, v, y, beta, found.bound), solution.objective, better
            new = found.planes[found.scores > beta * ABOVE]
            near = (solution.objective - dual) / 10 / max(solution.objective, np.finfo(float).tiny)
            if not grown and not len(new) and tol <= TIGHT:
                return
            tol = float(np.clip(near, TIGHT, tol if grown else tol / 10))

    def _checked(self, certificate: Certificate, x: NDArray[np.float64], units: Units) -> bool:
        """Recompute everything from the certificate and the data."""
        context, witness = certificate.context, certificate.witness
        said = {"claim": certificate.claim, "verdict": certificate.verdict.value}
        meta = {**context, **said, "bounds": certificate.bounds}
        try:
            same = all(np.array_equal(witness[name], array) for name, array in _plain("", units).items())
            if not same or context["beta"] != float(self.beta) or context["loss"] != type(self.term).__name__:
                return False
            if context["kind"] == "milp" and certificate.verdict is Verdict.PROVED:
                return self._checked_by_solver(meta, witness, x)
            recheck(witness, meta, x, self.term.targets(self.y))
        except (RejectedError, KeyError):
            return False
        return True

    def _checked_by_solver(
        self, meta: Mapping[str, Any], witness: Mapping[str, NDArray[Any]], x: NDArray[np.float64]
    ) -> bool:
        """Recompute the bound of an integer program: no short proof of it exists, so it is solved again."""
        y, loss, beta = self.term.targets(self.y), meta["loss"], meta["beta"]
        oracle = choose_oracle(x).oracle if self.oracle is None else self.oracle
        recheck(witness, {**meta, "verdict": "UNKNOWN"}, x, y)
        whole, power = whole_weights(witness["v"], y, loss, free=True)
        v = np.ldexp(whole.astype(np.float64), -power)
        largest = max(oracle.prepare(x).find(v, 1, np.random.default_rng(0)).bound, meta["bounds"]["largest"])
        dual = lower_dual(v, y, loss, beta, largest)
        return oracle.proves and oracle.eps == meta["eps"] and meta["bounds"]["objective"] <= (1 + meta["gap"]) * dual


@dataclass
class _Best:
    """The best bound and the best network so far."""

    value: float
    v: NDArray[np.float64] | None = None
    dual: float = -np.inf
    objective: float = np.inf
    better: Units | None = None

    def take(self, v: NDArray[np.float64], dual: float, objective: float, better: Units | None) -> None:
        """Keep what is better."""
        if dual > self.dual:
            self.v, self.dual = v, dual
        if objective < self.objective:
            self.objective, self.better = objective, better

    def decided(self, gap: float | None) -> bool:
        """Return whether the claim is proved or refuted, or the optimum known well enough to say how far it is."""
        if gap is None:
            return min(self.value, self.objective) <= (1 + CLOSE) * self.dual
        proved = self.value <= (1 + gap) * self.dual * (1 - 2 * ROUNDED)
        return proved or self.value * (1 - 2 * ROUNDED) > (1 + gap) * self.objective


def read_units(net: HardNet, x: NDArray[Any], *, layers: int = 2) -> tuple[NDArray[np.float64], Units, int]:
    """Return the data, the units and the number of layers below for the last layers of a frozen network.

    The data are the codes that the last hidden layer (layers=2) or the read-out (layers=1) reads; the planes are over
    them, exact in integers, half-way between two sums.

    Raises
    ------
    ValueError
        If the layer has staircases instead of steps, or what comes before the read-out is no dense layer.

    Examples
    --------
    >>> from hardstep.grid import Grid
    >>> first = Dense(np.array([[1, -1]], np.int8), np.array([[0]]))
    >>> net = HardNet((2,), Grid(1.0, 0), (first, Dense(np.array([[2]], np.int8), None, bias=np.array([1]))), 0.5)
    >>> read_units(net, np.array([[3.0, 1.0]]))[1]
    Units(planes=array([[ 1. , -1. , -0.5]]), u=array([[1.]]), intercept=array([0.5]))
    """
    *hidden, readout = net.layers
    codes = net.codes(x)
    taken = [codes, *net.trace(x)][: len(net.layers)]  # what each layer reads
    units = len(readout.weight) if isinstance(readout, Dense) else 0
    if not isinstance(readout, Dense) or not units:
        raise ValueError("the network does not end in a dense read-out")
    gain, zero = (np.broadcast_to(a, readout.weight.shape[1:]).astype(np.float64) for a in _worth(readout.encoding))
    weight = readout.weight.astype(np.float64)
    u = (weight * gain).T * net.scale
    bias = np.zeros(units) if readout.bias is None else readout.bias.astype(np.float64)
    intercept = (bias - weight @ zero) * net.scale
    bits = taken[-1].reshape(len(codes), -1)
    if bits.max(initial=0) > 1:
        raise ValueError(f"the read-out reads codes up to {bits.max()}: staircases; only steps have such a program")
    if layers == 1:
        planes = np.concatenate([np.eye(len(u)), np.full((len(u), 1), -0.5)], axis=1)
        return bits.astype(np.float64), Units(planes, u, intercept), len(hidden)
    last = hidden[-1] if hidden else None
    if not isinstance(last, Dense) or last.threshold is None:
        raise ValueError("the layer before the read-out is not dense; use layers=1, all hidden bits given")
    gain, zero = (np.broadcast_to(a, last.weight.shape[1:]).astype(np.float64) for a in _worth(last.encoding))
    weight = last.weight.astype(np.float64)
    bound = -(last.threshold[:, 0] + weight @ zero) - 0.5
    planes = np.concatenate([weight * gain, bound[:, None]], axis=1)
    return taken[-2].reshape(len(codes), -1).astype(np.float64), Units(planes, u, intercept), len(hidden) - 1


def _worth(encoding: Encoding) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return gain and zero of flat codes."""
    return encoding.gain.reshape(-1), encoding.zero.reshape(-1)


def _plain(name: str, units: Units) -> dict[str, NDArray[Any]]:
    """Return the arrays of a network by name."""
    return {f"{name}{part}": np.asarray(getattr(units, part), np.float64) for part in Units._fields}


def _admitted(
    x: NDArray[np.float64], planes: NDArray[np.float64], bits: NDArray[np.bool_], new: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], bool]:
    """Return the planes with those new ones behind that have other patterns, and whether there were any."""
    held = set(pattern_keys(bits, complements=False))
    found = patterns(x, new)
    fresh = [i for i, key in enumerate(pattern_keys(found, complements=False)) if key not in held]
    both = np.concatenate([planes, new[fresh]]), np.concatenate([bits, found[:, fresh]], axis=1)
    return *both, bool(fresh)


def _reach(v: NDArray[np.float64]) -> float:
    """Return a bound on |v'd|_2 over all patterns: those of each output apart."""
    sides = np.maximum(np.maximum(v, 0).sum(axis=0), -np.minimum(v, 0).sum(axis=0))
    return float(np.linalg.norm(sides)) * (1 + 1e-14)


def _rounded_up(gap: float) -> float:
    """Return a gap with a little room, at three digits."""
    room = max(gap, 0.0) * (1 + 1e-6) + 1e-9
    digit = 10.0 ** (np.floor(np.log10(room)) - 2)
    return float(np.ceil(room / digit) * digit)
