"""Which oracle suits a data matrix: the strongest that a search per round can afford."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from hardstep.convex.oracle_ascent import BatchedAscent
from hardstep.convex.oracle_plane import PlaneSweep
from hardstep.convex.oracle_stumps import Stumps
from hardstep.convex.oracles import Oracle

__all__ = ["choose"]

PLANE = 5_000  # rows up to which the exact sweep of the plane takes seconds


def choose(x: Float64[np.ndarray, "n d"]) -> Oracle:
    """Return an exact oracle where it is quick, else the batched ascent, which proves nothing.

    Examples
    --------
    >>> choose(np.zeros((10, 1))), choose(np.zeros((10, 50)))
    (Stumps(), BatchedAscent())
    """
    features = x.shape[1]
    if features <= 1:
        return Stumps()
    if features == 2 and len(x) <= PLANE:
        return PlaneSweep()
    return BatchedAscent()
