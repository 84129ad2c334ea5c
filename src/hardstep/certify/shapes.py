"""Is a single hidden layer of so many steps enough? Decided by trying every set of patterns, where there are few."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool, Float64, Integer, Shaped

from hardstep.certify.separability import Separation, separate, separate_classes

__all__ = ["Exhausted", "dichotomies", "exhausted"]


def dichotomies(x: Shaped[np.ndarray, "n d"], *, limit: int = 1000) -> Bool[np.ndarray, "k n"]:
    """Return every pattern that one unit can make on these rows: grown row by row, each branch decided by `separate`.

    For n points in general position in d dimensions they are 2 sum_{i<=d} C(n-1, i).

    Parameters
    ----------
    limit
        At most so many patterns.

    Raises
    ------
    ValueError
        If there are more.
    ArithmeticError
        If one of them could not be decided exactly.

    References
    ----------
    Cover 1965 [cover1965], the count.

    Examples
    --------
    >>> len(dichotomies(np.array([[0, 0], [0, 1], [1, 0], [1, 1]])))
    14
    """
    found = [[True]]
    for end in range(2, len(x) + 1):
        longer = [[*pattern, bit] for pattern in found for bit in (False, True)]
        answers = [separate(x[:end], np.array(pattern)) for pattern in longer]
        if not all(answer.exact for answer in answers):
            raise ArithmeticError(f"a pattern of the first {end} rows could not be decided without rounding")
        found = [pattern for pattern, answer in zip(longer, answers, strict=True) if answer.separable]
        if 2 * len(found) > limit:
            raise ValueError(f"there are more than {limit} patterns of one unit on {len(x)} rows; raise limit")
    half = np.array(found, bool)
    return np.concatenate([half, ~half])


@dataclass(frozen=True, eq=False)
class Exhausted:
    """What a search through all sets of patterns found.

    Parameters
    ----------
    sets
        How many sets of patterns were tried.
    planes
        Units (w, b) over which a read-out can give every label; None where there are none: proved.
    patterns
        All patterns of one unit, up to complement and without the constant one.
    refusals
        The answer for each set, in the order of `itertools.combinations`, where there are no planes.
    """

    sets: int
    planes: Float64[np.ndarray, "h d1"] | None
    patterns: Bool[np.ndarray, "k n"]
    refusals: tuple[Separation, ...] = ()


def exhausted(
    x: Shaped[np.ndarray, "n d"], y: Integer[np.ndarray, " n"], classes: int, *, units: int, limit: int = 100
) -> Exhausted | None:
    """Try every set of patterns that so many units can make on these rows; return None where that decides nothing.

    A read-out has a bias, so that a unit and its complement are the same to it, a constant unit is no use, and more
    patterns are never worse. Every negative answer was checked in whole numbers.

    Parameters
    ----------
    limit
        At most so many sets; None is returned where there are more.

    Examples
    --------
    >>> corners, labels = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    >>> exhausted(corners, labels, 2, units=1).planes is None
    True
    >>> exhausted(corners, labels, 2, units=2).planes.shape
    (2, 3)
    """
    most = next((count - 1 for count in range(units, limit + units + 1) if comb(count, units) > limit), 0)
    points = np.unique(np.asarray(x, np.float64) + 0.0, axis=0)
    span = int(np.linalg.matrix_rank(points - points[0]))  # so many and one rows are split in every way
    if len(points) - 1 > most or 2**span - 1 > most:
        return None
    try:
        found = dichotomies(x, limit=2 * most + 2)
    except (ValueError, ArithmeticError):
        return None
    patterns = found[: len(found) // 2]
    patterns = patterns[~patterns.all(axis=1)]
    chosen = list(combinations(range(len(patterns)), min(units, len(patterns))))
    refusals = []
    for places in chosen:
        bits = patterns[list(places)].T
        answer = separate_classes(bits.astype(np.int64).reshape(len(y), -1), y, classes)
        if answer.separable:
            planes = [separate(x, pattern) for pattern in patterns[list(places)]]
            lines = [np.r_[plane.weights[0], plane.bias] for plane in planes]
            lines += [np.r_[np.zeros(x.shape[1]), 1.0]] * (units - len(lines))
            return Exhausted(len(chosen), np.stack(lines), patterns)
        if not answer.exact:
            return None
        refusals.append(answer)
    return Exhausted(len(chosen), None, patterns, tuple(refusals))
