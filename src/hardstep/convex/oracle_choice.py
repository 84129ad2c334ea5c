"""Which oracle suits which data: the strongest proof that is affordable, with the reason in words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from hardstep.convex.oracle_ascent import BatchedAscent
from hardstep.convex.oracle_local import LocalSearch
from hardstep.convex.oracle_milp import MixedInteger
from hardstep.convex.oracle_plane import PlaneSweep
from hardstep.convex.oracle_stumps import Stumps
from hardstep.convex.oracle_vertices import Enumeration, enumeration_steps
from hardstep.convex.oracles import Oracle
from hardstep.convex.patterns import checked_rows, distinct

__all__ = ["Choice", "choose_oracle"]

STEPS = 2 * 10**8  # of an enumeration: about a minute of tables, seconds a search
FEW = 100  # rows up to which a mixed-integer program says more than the trivial bound
SMALL = 10**6  # numbers in the data up to which line searches are quick
MANY = 5000  # rows from which counting distinct ones exactly is not worth while


class Choice(NamedTuple):
    """An oracle, and why this one."""

    oracle: Oracle
    reason: str


def choose_oracle(x: Float64[np.ndarray, "n d"]) -> Choice:
    """Return the oracle with the strongest proof over all hyperplanes that the data allow, and the reason.

    One feature: stumps are all hyperplanes. Two: the plane sweep. Few enough steps: enumeration. At most 100 rows: a
    mixed-integer program, whose bound holds for half-spaces with a margin. Else a heuristic, which proves nothing.

    Examples
    --------
    >>> choose_oracle(np.zeros((4, 1))).reason
    'one feature: thresholds are all its half-spaces'
    >>> type(choose_oracle(np.random.default_rng(0).normal(size=(300, 40))).oracle).__name__
    'LocalSearch'
    """
    n, d = checked_rows(x).shape
    if d <= 1:
        return Choice(Stumps(), "one feature: thresholds are all its half-spaces")
    if d == 2 and (rows := len(distinct(x).x)) <= PlaneSweep().rows:
        return Choice(PlaneSweep(), f"two features, {rows:,} distinct rows: the sweep covers all lines")
    if n <= MANY:
        steps = enumeration_steps(x)
        if steps <= STEPS:
            return Choice(Enumeration(), f"{steps:,} steps enumerate all half-spaces")
        if n <= FEW:
            reason = (
                f"{steps:.1e} steps are too many to enumerate, {n} rows few enough for a bound by integer programming"
            )
            return Choice(MixedInteger(), reason)
    if n * d <= SMALL:
        return Choice(LocalSearch(), f"{n:,} rows with {d} features: no bound is affordable, line searches are")
    return Choice(BatchedAscent(), f"{n:,} rows with {d} features: only batched ascent is affordable, without a bound")
