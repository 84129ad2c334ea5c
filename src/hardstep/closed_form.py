"""Closed forms: pure functions that solve one minimisation each, in float64."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

__all__ = ["ridge"]


def ridge(
    gram: Float64[Tensor, "h h"], cross: Float64[Tensor, "k h"], strength: Float64[Tensor, " h"]
) -> Float64[Tensor, "k h"]:
    """Solve min_W 1/2 tr(W G W') - tr(W B') + 1/2 sum_j strength_j |W_j|², that is W = B (G + diag strength)^-1.

    With G = A A' and B = Y A' this is ridge regression of Y on A, by Cholesky's factorisation.

    Parameters
    ----------
    gram
        G, symmetric and positive semi-definite.
    cross
        B.
    strength
        Penalty of each column of W, >= 0; 0 for a bias.

    Raises
    ------
    ValueError
        If G + diag strength is singular.

    Examples
    --------
    >>> ridge(torch.eye(2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64), torch.ones(2).double())
    tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
    factor, failed = torch.linalg.cholesky_ex(gram + torch.diag(strength))
    if failed:
        raise ValueError(
            f"the ridge system of {len(gram)} columns is singular: units that are dead or alike need a strength "
            f"above 0, got {float(strength.min())} to {float(strength.max())}; raise it"
        )
    return torch.cholesky_solve(cross.T, factor).T
