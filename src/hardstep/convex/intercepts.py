"""The unpenalised intercept: the root that minimises the loss over it, and residuals whose sum is exactly 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

__all__ = ["FAR", "balanced_sides", "intercept_root"]

Outputs = Float64[np.ndarray, "n c"]
Slopes = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

FAR = 100.0  # exp(-100) is nothing beside 1: as far as an intercept without a minimiser goes


def balanced_sides(v: Outputs) -> Outputs:
    """Scale down the positive or the negative entries of each column, whichever are heavier, so that its sum is 0.

    Examples
    --------
    >>> balanced_sides(np.array([[1.0], [3.0], [-2.0]])).ravel()
    array([ 0.5,  1.5, -2. ])
    """
    up, down = np.maximum(v, 0.0).sum(axis=0), np.maximum(-v, 0.0).sum(axis=0)
    light = np.minimum(up, down)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(v > 0, np.where(up > 0, light / up, 0.0), np.where(down > 0, light / down, 0.0))
    balanced: Outputs = v * factor
    return balanced


def intercept_root(f: Outputs, y: Outputs, slopes: Slopes, margin: float) -> Float64[np.ndarray, " c"]:
    """Return b with the sum of residuals 0 for each output: Newton's method, bisecting where it leaves the bracket.

    At the ends of the bracket all rows of one sign have at least this margin; where there is only one sign, its end is
    the answer.

    Parameters
    ----------
    slopes
        Sum of the residuals at f + b and how fast it falls with b.
    margin
        What every row is content with.

    Examples
    --------
    >>> intercept_root(np.zeros((2, 1)), np.array([[1.0], [-1.0]]), lambda b: (2 - b, np.ones(1)), 5.0)
    array([2.])
    """
    low = np.where(y < 0, -margin - f, np.inf).min(axis=0)  # here every -1 is served
    high = np.where(y > 0, margin - f, -np.inf).max(axis=0)
    one_sided = ~np.isfinite(low) | ~np.isfinite(high)
    answer = np.where(np.isfinite(low), low, high)
    low, high = np.where(one_sided, answer, np.minimum(low, high)), np.where(one_sided, answer, np.maximum(low, high))
    b = np.clip(0.0, low, high)
    for _ in range(200):
        pull, curvature = slopes(b)  # the pull falls as b grows
        low, high = np.where(pull > 0, b, low), np.where(pull < 0, b, high)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            step = b + pull / curvature
        inside = np.isfinite(step) & (step >= low) & (step <= high)
        after = np.where(one_sided | (pull == 0), b, np.where(inside, step, 0.5 * (low + high)))
        if bool((np.abs(after - b) <= 1e-15 * (1.0 + np.abs(b))).all()):
            break
        b = after
    found: Float64[np.ndarray, " c"] = np.where(one_sided, answer, b)
    return found
