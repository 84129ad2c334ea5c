"""Convex training: two-layer step networks by column generation over half-spaces, deeper ones layer by layer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hardstep.chain import Affine, chain
from hardstep.convex.bit_matrix import BitMatrix
from hardstep.convex.corrections import Correction, Ridge
from hardstep.convex.data_terms import DataTerm, lower_bound, relative_gap
from hardstep.convex.margins import widened
from hardstep.convex.oracle_ascent import BatchedAscent
from hardstep.convex.oracle_choice import choose_oracle
from hardstep.convex.oracles import Found, Oracle, Search
from hardstep.convex.pool import Pool
from hardstep.convex.shattered import shattered
from hardstep.convex.sliding import Sliding
from hardstep.fit import Method, Sweep, Work
from hardstep.losses import CrossEntropy, Loss
from hardstep.methods.convex_parts import Team, bits_lost, pass_through, read_rows, write

__all__ = ["ConvexTraining"]

ABOVE = 1 + 1e-7  # a column must beat its price by this much to be worth having
FEW = 5000  # rows up to which the bound of the complete arrangement is computed
KINDS = 4  # different targets up to which that is cheap for several outputs
TIGHT = 3  # such rounds until the search counts as exhausted
LOOSE = 1e-2  # relative gap to which rounds far from the end are solved


@dataclass
class _State:
    """The layer being grown: its inputs, its columns and what is known of the optimum; the layers below as planes."""

    layers: list[Affine]
    team: Team
    term: DataTerm
    y: NDArray[Any]
    x: NDArray[Any]
    oracle: Oracle
    search: Search
    pool: Pool
    pending: NDArray[Any]  # half-spaces to admit next
    inputs: NDArray[Any]  # of the first layer
    lower: list[NDArray[Any]] = field(default_factory=list)
    strength: float = 0.0
    dual: float = -np.inf
    objective: float = np.inf
    gap: float = 1.0
    largest: float = 0.0
    tight: int = 0  # rounds in a row without a new pattern: each solves for the amplitudes more exactly
    full: int = -1  # the sweep in which the layer had all its half-spaces
    kind: str = ""  # of the bound
    finished: str = ""

    _numbers = ("strength", "dual", "objective", "gap", "largest", "tight", "full", "kind", "finished")

    @property
    def stage(self) -> int:
        """Which hidden layer grows."""
        return len(self.lower)

    @property
    def cap(self) -> int:
        """Half-spaces that the layer can hold: its bits also pass through the layers above."""
        return min(layer.linear.out_features for layer in self.layers[self.stage : -1])

    def state_dict(self) -> dict[str, Any]:
        pool = self.pool
        arrays = (self.pending, pool.planes, pool.u, pool.intercept, pool.idle)
        return {
            "numbers": {name: str(getattr(self, name)) for name in self._numbers},
            "arrays": [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays],
            "lower": [torch.from_numpy(planes) for planes in self.lower],
        }

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        texts = state_dict["numbers"]
        self.tight, self.full, self.finished = int(texts["tight"]), int(texts["full"]), texts["finished"]
        self.kind = texts["kind"]
        for name in self._numbers[:5]:
            setattr(self, name, float(texts[name]))
        self.lower = [planes.numpy() for planes in state_dict["lower"]]
        self.x = self.inputs
        for planes in self.lower:
            self.x = self.team.bits(self.x, planes).astype(np.float64)
        if self.lower:
            self.search = self.oracle.prepare(self.x)
        self.pending, planes, u, intercept, idle = (tensor.numpy() for tensor in state_dict["arrays"])
        empty = Pool.empty(rows=len(self.x), inputs=self.x.shape[1], outputs=len(intercept))
        design = BitMatrix.from_bools(self.team.bits(self.x, planes))
        self.pool = replace(empty, planes=planes, design=design, u=u, intercept=intercept, idle=idle)


@dataclass(frozen=True)
class ConvexTraining(Method[_State]):
    """Grow step networks by column generation on their convex program, layer by layer where there are several.

    With weight decay and enough units, training a two-layer step network is

    min_{U, b} sum_i l(b + sum_j u_j 1{w_j x_i > 0}, y_i) + penalty(U) over all half-spaces w_j,

    convex in U. A sweep is one round: an `Oracle` looks for the half-spaces w with the largest |V'd|, V = -gradient
    and d the pattern of w; the best are admitted; the `Correction` solves for all amplitudes again. With `GroupLasso`
    and an oracle whose bound holds, dual bounds say how far the network is from the best of its shape, and the fit
    ends with "proved: ..." once that is within `tol`. With `Ridge`, the default, it is a strong heuristic for large
    data.

    When the layer is as wide as the network allows, its half-spaces slide, or, with `Sliding(length=0.0)`, new ones
    replace the lightest, in either case only where the objective falls. The network always holds the current answer;
    units not needed are 0.

    A network of several hidden layers gets the same share of sweeps for each: the bits kept of a layer are the
    inputs of the next, which starts by handing them on, so that the objective never rises; what is proved then
    holds given the layers below. `fit` keeps what is best on the validation part.

    Parameters
    ----------
    loss
        The data term: `Squared`, `SquaredHinge` or `CrossEntropy`; the objective is its sum over rows.
    correction
        The penalty on amplitudes, and how they are solved for.
    oracle
        The search for half-spaces; None takes an exact one where the data are small enough, else an ascent.
    slide
        How half-spaces move once the layer is full.
    columns
        Half-spaces admitted a round.
    tol
        Relative gap to be proved; also the relative fall at which `Ridge` ends a round.
    drop
        Rounds after which a half-space without amplitude is forgotten.

    Raises
    ------
    ValueError
        If the network is no chain of linear layers and steps, a setting is out of range, or the loss has no data term.

    References
    ----------
    Ergen, Gulluk, Lacotte, Pilanci 2023 [ergen2023], the convex program. Differs: column generation by oracles in
    the place of sampled patterns (Bengio et al. 2005 [bengio2005] insert units one by one), a free intercept, group
    lasso for several outputs; sliding as in Boyd, Schiebinger, Recht 2017 [boyd2017].

    Examples
    --------
    >>> import hardstep as hs
    >>> x = torch.rand(60, 2, generator=torch.Generator().manual_seed(0))
    >>> data = hs.data.from_arrays(x, (x.sum(dim=1) > 1).long(), val_share=0.0)
    >>> report = hs.fit(hs.nets.mlp(2, 30, 2, norm=False), data, hs.ConvexTraining(), sweeps=3, progress=False)
    >>> report.objective < report.records[0].objective
    True
    """

    loss: Loss = field(default_factory=CrossEntropy)
    correction: Correction = field(default_factory=Ridge)
    oracle: Oracle | None = None
    slide: Sliding = field(default_factory=Sliding)
    columns: int = 100
    tol: float = 1e-5
    drop: int = 5

    monotone = True

    def __post_init__(self) -> None:
        for name in ("columns", "drop"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is a count and must be at least 1, got {getattr(self, name)}")
        if not 0 < self.tol < 1:
            raise ValueError(f"tol is a relative gap, in (0, 1), got {self.tol}")

    def init(self, net: nn.Module, work: Work) -> _State:
        """Read rows and network, solve the program without units, search once: that also gives beta_max."""
        layers, team = chain(net, "ConvexTraining"), Team(work)
        x, term, y = read_rows(work, self.loss, layers[-1].linear.out_features)
        oracle = self.oracle or self._affordable(x)
        pool = Pool.empty(rows=len(x), inputs=x.shape[1], outputs=y.shape[1])
        pool = pool.solved(pool.u, term.null(y, intercept=True))
        state = _State(layers, team, term, y, x, oracle, oracle.prepare(x), pool, pool.planes, x)
        found = self._search(state)
        state.strength = self.correction.strength(float(found.scores.max(initial=0.0)), len(x))
        self._bound_below(state)
        self._judge(state, found)
        write(layers, state.lower, pool)
        return state

    def sweep(self, state: _State, work: Work) -> Sweep:
        """Admit or replace half-spaces, solve for the amplitudes, slide, search again."""
        hidden = len(state.layers) - 1
        due = min(work.sweep * hidden // work.sweeps, hidden - 1)
        if state.stage < hidden - 1 and (state.finished or state.stage < due):
            self._next_layer(state)
        seconds = {"solver_seconds": 0.0, "slide_seconds": 0.0, "oracle_seconds": 0.0}
        clock = time.perf_counter()
        for name, act in zip(seconds, (self._renew, self._slide, self._look), strict=True):
            if not state.finished:
                act(state)
            clock, seconds[name] = time.perf_counter(), time.perf_counter() - clock
        write(state.layers, state.lower, state.pool)
        if state.finished and state.gap <= self.tol:
            self._settle(state)
        extra = {"columns": float(len(state.pool)), "nonzeros": float(state.pool.active.sum()), **seconds}
        if self.correction.certified:
            extra |= {"largest_over_beta": state.largest / state.strength}
            extra |= {"dual": state.dual, "relative_gap": state.gap} if np.isfinite(state.dual) else {}
        return Sweep(state.objective, stop=state.finished if state.stage == hidden - 1 else "", extra=extra)

    def _affordable(self, x: NDArray[Any]) -> Oracle:
        """Return an exact oracle where a search per round is quick and a proof is wanted, else the ascent."""
        strongest = choose_oracle(x).oracle
        return strongest if self.correction.certified and strongest.exact else BatchedAscent()

    def _renew(self, state: _State) -> None:
        """Admit the half-spaces found and solve; where the layer is full, the lightest ones must make room for them."""
        work, pool = state.team.work, state.pool
        if self._slides(state):
            return
        room = len(state.pending) if self.correction.sparse or state.full >= 0 else state.cap - len(pool)
        grown = self._admit(state, state.pending[: min(room, self.columns)])
        if len(grown) > len(pool) or state.full >= 0:
            state.tight = 0
        elif state.tight == TIGHT:
            state.finished = "no half-space with a new pattern was found: no proof"
        else:
            state.tight += 1  # columns held may look better than their price until amplitudes are exact
        solved = self._solve(state, grown)
        if len(solved.keep(solved.active) if self.correction.sparse else solved) > state.cap:
            solved = self._solve(state, solved.heaviest(state.cap))
        self._take(state, solved)
        if state.full < 0 and len(state.pool.keep(state.pool.active)) >= state.cap:
            state.full = work.sweep

    def _slide(self, state: _State) -> None:
        """Let the half-spaces of a full layer move, the less the nearer its last sweep."""
        work, hidden = state.team.work, len(state.layers) - 1
        if not self._slides(state):
            return
        last = (state.stage + 1) * work.sweeps / hidden
        share = (last - work.sweep) / max(1.0, last - state.full)
        pool = state.pool.keep(state.pool.active)
        rows = state.team.rows(state.x, state.y, state.layers[0].linear.weight)
        generator = state.team.generator("slide")
        planes = self.slide.run(rows, pool.planes, pool.u, pool.intercept, state.term, share, generator)
        design = BitMatrix.from_bools(state.team.bits(state.x, planes))
        self._take(state, self._solve(state, replace(pool, planes=planes, design=design)))

    def _settle(self, state: _State) -> None:
        """Move the half-spaces of what was proved to the middle of their cells; the network must give the same bits."""
        pool = state.pool.keep(state.pool.active)
        pairs = zip(pool.planes, pool.design.unpack().T, strict=True)
        planes = [widened(state.x, plane, np.ascontiguousarray(bits)) for plane, bits in pairs]
        state.pool = replace(pool, planes=np.stack(planes) if planes else pool.planes)
        write(state.layers, state.lower, state.pool)
        lost = bits_lost(state.layers[state.stage], state.pool, state.x)
        if lost:
            state.finished = (
                f"relative gap {state.gap:.1e}, but the network rounds {lost} bits otherwise: no proof; fit with "
                "Fabric(precision='64-true')"
            )

    def _slides(self, state: _State) -> bool:
        """Return whether the half-spaces of a full layer move in the place of being replaced."""
        return state.full >= 0 and self.slide.length > 0

    def _look(self, state: _State) -> None:
        """Search for half-spaces at the present answer, where that is of use, and judge it."""
        if self.correction.certified or not self._slides(state):
            self._judge(state, self._search(state))

    def _bound_below(self, state: _State) -> None:
        """Begin with the bound that holds for any network of steps with these targets, where it is cheap."""
        state.dual, state.gap, state.kind = -np.inf, 1.0, ""
        few = len(state.y) <= FEW and (state.y.shape[1] == 1 or len(np.unique(state.y, axis=0)) <= KINDS)
        if self.correction.certified and few:
            state.dual, state.kind = shattered(state.y, state.term, state.strength).bound, "shattering-bound"

    def _search(self, state: _State) -> Found:
        v = state.term.balance(state.term.residual(state.pool.outputs(), state.y), state.y)
        return state.team.find(state.search, state.x, v, self.columns, shared=not state.oracle.proves)

    def _judge(self, state: _State, found: Found) -> None:
        """Set objective, dual bound and gap, what to admit next, and whether all is done."""
        term, y, pool, oracle = state.term, state.y, state.pool, state.oracle
        outputs = pool.outputs()
        state.objective = term.value(outputs, y) + self.correction.penalty(pool.u, state.strength)
        state.pending = found.planes
        if not self.correction.certified:
            return
        v = term.balance(term.residual(outputs, y), y)
        state.largest = float(found.scores.max(initial=0.0))
        bound = lower_bound(term, v, y, state.strength, found.bound) if oracle.proves else -np.inf
        if bound > state.dual:
            state.dual, state.kind = bound, oracle.kind + ", given the layers below" * bool(state.lower)
        state.gap = relative_gap(term, y, state.objective, state.dual) if np.isfinite(state.dual) else 1.0
        above = found.scores > state.strength * ABOVE
        state.pending = found.planes[above]
        scores = np.linalg.norm(pool.design.pull(v), axis=1)
        state.pool = pool.aged(scores, state.strength, self.drop)
        if state.gap <= self.tol:
            state.finished = f"proved: relative gap {state.gap:.1e} <= {self.tol:g} ({state.kind})"
        elif not above.any() and not oracle.exact:
            state.finished = f"the search ({oracle.kind}) found no half-space above its price: no proof"

    def _admit(self, state: _State, planes: NDArray[Any]) -> Pool:
        size = np.abs(planes).max(axis=1, keepdims=True, initial=0.0)
        scaled = planes / np.where(size > 0, size, 1.0)
        return state.pool.admit(scaled, state.team.bits(state.x, scaled))

    def _solve(self, state: _State, pool: Pool) -> Pool:
        exact = self.tol / 10 ** max(1, state.tight)
        near = exact if state.tight else max(exact, min(LOOSE, state.gap / 10))
        near = near if self.correction.certified else self.tol
        return self.correction.solve(pool, state.y, state.term, state.strength, near)

    def _take(self, state: _State, pool: Pool) -> None:
        """Go on with this pool unless its objective is higher."""
        value = state.term.value(pool.outputs(), state.y) + self.correction.penalty(pool.u, state.strength)
        if value <= state.objective:
            state.pool, state.objective = pool, value

    def _next_layer(self, state: _State) -> None:
        """Take the bits of this layer's units as inputs of the next, which hands them on to begin with."""
        pool = state.pool.keep(state.pool.active)
        state.lower.append(pool.planes)
        state.x = pool.design.unpack().astype(np.float64)
        state.search = state.oracle.prepare(state.x)
        state.pool = replace(pool, planes=pass_through(len(pool)))
        state.full, state.tight, state.finished = -1, 0, ""
        self._bound_below(state)
        self._look(state)
