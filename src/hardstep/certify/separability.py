"""Can one unit, or one read-out, do what is asked of it? Decided by a linear program, checked in whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Integer, Shaped
from numpy.typing import NDArray

from hardstep.certify.alternatives import (
    POWERS,
    Program,
    Rows,
    largest_margin,
    least_slack,
    product,
    whole_multipliers,
    whole_rows,
    whole_weights,
)

__all__ = ["Separation", "check", "clash", "class_rows", "highest", "right_exactly"]
__all__ += ["separate", "separate_classes", "unit_rows"]

TOL = 1e-7  # of the programs, relative to the largest number of the rows
ENTRIES = 2 * 10**7  # of a program

Solve = Callable[[NDArray[Any]], Program]


@dataclass(frozen=True, eq=False)
class Separation:
    """Whether wanted outputs can be had from these rows, and what shows it.

    A unit fires iff weights.x + bias > 0; a read-out answers the class of the largest weights_k.x + bias_k.

    Parameters
    ----------
    separable
        The answer.
    weights, bias
        What separates, (1, d) for a unit and (k, d) for a read-out; zeros where nothing does. The bias of a unit stands
        half-way between the two classes.
    margin
        Largest margin with |w| <= 1: half the L1 distance of the convex hulls for a unit; 0 where not separable,
        infinite where all rows are asked the same.
    whole
        The weights and bias in whole numbers, of as few bits as they need, if they were checked.
    multipliers
        Whole weights of the constraints that show that nothing separates, if they were checked: one for every row of a
        unit; one for every row and other class of a read-out, in the order of `class_rows`.
    exact
        Whether the answer was checked without rounding; else it holds up to `tol`.
    tol
        Distance, relative to the largest number of the rows, below which the answer is open; 0 where exact.
    """

    separable: bool
    weights: Float64[np.ndarray, "k d"]
    bias: Float64[np.ndarray, " k"]
    margin: float
    whole: tuple[tuple[int, ...], ...] = ()
    multipliers: tuple[int, ...] = ()
    exact: bool = True
    tol: float = 0.0


def separate(x: Shaped[np.ndarray, "n d"], t: Shaped[np.ndarray, " n"]) -> Separation:
    """Decide whether one unit can fire on exactly the rows with t > 0.

    Either some w, b have w.x + b > 0 where t > 0 and <= 0 elsewhere, or l >= 0, not all 0, has sum l s x = 0 and
    sum l s = 0 with s = sign(t): the two convex hulls meet. The linear program of the margin gives both. The answer
    is then checked without rounding: the floats of the rows are whole multiples of a power of two.

    Parameters
    ----------
    x
        Rows of numbers.
    t
        What the unit is to do: True, 1, or any positive number to fire.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a number is not finite.

    References
    ----------
    Friesen and Domingos 2018, Sec. 3 [friesen2018], feasible targets; Mangasarian 1965 [mangasarian1965], the program.
    Differs: a complete test with certificates in the place of a fitted perceptron.

    Examples
    --------
    >>> corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> separate(corners, np.array([0, 0, 0, 1])).whole
    ((1, 1, -1),)
    >>> separate(corners, np.array([0, 1, 1, 0])).multipliers
    (1, 1, 1, 1)
    """
    x, wanted = _checked(x, t), np.asarray(t) > 0
    if wanted.all() or not wanted.any():
        always = 1 if wanted.any() else -1
        constant = ((*[0] * x.shape[1], always),)
        return Separation(True, np.zeros((1, x.shape[1])), np.array([float(always)]), inf, constant)
    alike = clash(x, wanted)
    if alike is not None:
        return _refusal((1, x.shape[1]), [int(i in alike) for i in range(len(x))])
    whole, power = whole_rows(x)
    side, ones = np.where(wanted, 1, -1)[:, None], _with_ones(whole, power)
    margin, doubtful = 0.0, None
    for solve, scaled, _, size in _attempts(x):
        found = solve(side * _with_ones(scaled, 0))
        weights = found.weights[:-1] / size
        line = _whole_unit(whole, power, weights, wanted)
        margin = margin if solve is least_slack else found.value * float(size.max())
        weights = weights / (np.abs(weights).max() or 1.0)
        heights = x @ weights
        bias = np.array([-(float(heights[~wanted].max()) + float(heights[wanted].min())) / 2])
        if line is not None:
            return Separation(True, weights[None], bias, margin, (line,))
        multipliers = whole_multipliers(side * ones, found.multipliers)
        if multipliers is not None:
            return _refusal((1, x.shape[1]), multipliers)
        if solve is not least_slack and found.value > TOL:
            doubtful = Separation(True, weights[None], bias, margin, exact=False, tol=TOL)
    return doubtful or _refusal((1, x.shape[1]), None)


def separate_classes(x: Shaped[np.ndarray, "n d"], y: Integer[np.ndarray, " n"], classes: int) -> Separation:
    """Decide whether one read-out can give every row its label: w_y.x + b_y > w_k.x + b_k for all k != y.

    Either such weights exist, or l_ik >= 0, not all 0, has sum_{i: y_i = c, k} l_ik (x_i, 1) = sum_i l_ic (x_i, 1) for
    every class c. One linear program gives both; the answer is checked without rounding.

    Raises
    ------
    ValueError
        If the shapes do not fit, a label is not one of 0..classes-1, or the program is too large.

    References
    ----------
    Bennett and Mangasarian 1994 [bennett1994], the program for several classes. Differs: certificates.

    Examples
    --------
    >>> line = np.array([[0], [1], [2]])
    >>> separate_classes(line, np.array([0, 1, 2]), 3).separable
    True
    >>> separate_classes(line, np.array([0, 1, 0]), 2).multipliers
    (1, 2, 1)
    """
    x, shape = _checked(x, y), (classes, x.shape[1])
    if classes < 2 or y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels must lie in 0..{classes - 1} with at least 2 classes, got {y.min()} to {y.max()}")
    alike = clash(x, y)
    if alike is not None:
        (i, j), other = alike, _others(y, classes)
        blamed = (np.arange(len(x))[:, None] == i) & (other == y[j]) | (np.arange(len(x))[:, None] == j) & (
            other == y[i]
        )
        return _refusal(shape, blamed.reshape(-1).astype(int).tolist())
    if (y == y[0]).all():
        bias = (np.arange(classes) == y[0]).astype(float)
        return Separation(True, np.zeros(shape), bias, inf, tuple((*[0] * shape[1], int(value)) for value in bias))
    whole, power = whole_rows(x)
    exact = class_rows(_with_ones(whole, power), y, classes)
    margin, doubtful = 0.0, None
    for solve, scaled, middle, size in _attempts(x, free=classes):
        found = solve(class_rows(_with_ones(scaled, 0), y, classes))
        weights, bias = found.weights[:-classes].reshape(shape) / size, found.weights[-classes:]
        weights = weights - weights.mean(axis=0)  # what all classes share changes nothing
        bias = bias - weights @ middle
        bias = bias - bias.mean()
        margin = margin if solve is least_slack else found.value * float(size.max())
        lines = _whole_classes(exact, power, weights, bias)
        if lines is not None:
            return Separation(True, weights, bias, margin, lines)
        multipliers = whole_multipliers(exact, found.multipliers)
        if multipliers is not None:
            return _refusal(shape, multipliers)
        if solve is not least_slack and found.value > TOL:
            doubtful = Separation(True, weights, bias, margin, exact=False, tol=TOL)
    return doubtful or _refusal(shape, None)


def unit_rows(x: Float64[np.ndarray, "n d"], wanted: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, "n d1"]:
    """Return the rows A of a unit, t (x, 1) with t = 1 where it is to fire and -1 elsewhere: A (w, b) > 0.

    Examples
    --------
    >>> unit_rows(np.array([[2.0], [3.0]]), np.array([True, False]))
    array([[ 2.,  1.],
           [-3., -1.]])
    """
    rows: NDArray[np.float64] = np.where(wanted, 1.0, -1.0)[:, None] * _with_ones(x, 0)
    return rows


def class_rows(
    x_and_1: Shaped[np.ndarray, "n d1"], y: Integer[np.ndarray, " n"], classes: int
) -> Shaped[np.ndarray, "m p"]:
    """Return the rows A of a read-out: for each row and each other class k, (w_y - w_k).x + b_y - b_k = A v.

    The columns are the weights of the first class, of the second and so on, then the biases.

    Raises
    ------
    ValueError
        If there are more than 2e7 numbers.

    Examples
    --------
    >>> class_rows(np.array([[5, 1]]), np.array([0]), 2)
    array([[ 5, -5,  1, -1]])
    """
    n, width = len(x_and_1), x_and_1.shape[1]
    if n * (classes - 1) * classes * width > ENTRIES:
        raise ValueError(
            f"a read-out of {classes} classes on {n} rows of {width - 1} numbers is a program of more than {ENTRIES} "
            "entries; use fewer rows or a descent"
        )
    table = np.zeros((n, classes - 1, classes, width), x_and_1.dtype)
    row, other = np.arange(n), _others(y, classes)
    table[row, :, y] = x_and_1[:, None]
    for place in range(classes - 1):
        table[row, place, other[:, place]] = -x_and_1
    flat = table.reshape(n * (classes - 1), classes, width)
    return np.concatenate([flat[:, :, :-1].reshape(len(flat), -1), flat[:, :, -1]], axis=1)


def check(separation: Separation, x: Shaped[np.ndarray, "n d"], t: Shaped[np.ndarray, " n"]) -> bool:
    """Return whether a separation that was checked follows from the rows alone, in whole numbers.

    Parameters
    ----------
    t
        What a unit is to do, or the labels, as they were given.

    Examples
    --------
    >>> x, t = np.array([[0.0], [1.0]]), np.array([False, True])
    >>> check(separate(x, t), x, t), check(separate(x, t), x, ~t)
    (True, False)
    """
    x = _checked(x, t)
    if not separation.exact:
        return False
    classes = len(separation.weights)
    whole, power = whole_rows(x)
    ones = _with_ones(whole, power)
    if separation.separable and classes == 1:
        return bool(((product(ones, list(separation.whole[0])) > 0) == (np.asarray(t) > 0)).all())
    if separation.separable:
        scores = np.stack([product(ones, list(line)) for line in separation.whole], axis=1)
        return highest(scores, t)
    rows = np.where(np.asarray(t) > 0, 1, -1)[:, None] * ones if classes == 1 else class_rows(ones, t, classes)
    weights = list(separation.multipliers)
    fits = len(weights) == len(rows) and min(weights) >= 0 and any(weights)
    return fits and not product(rows.T, weights).any()


def clash(x: Float64[np.ndarray, "n d"], labels: Shaped[np.ndarray, " n"]) -> tuple[int, int] | None:
    """Return two rows that are alike and have different labels, if there are any.

    Examples
    --------
    >>> clash(np.array([[1.0], [2.0], [1.0]]), np.array([0, 1, 1]))
    (0, 2)
    """
    _, first, group = np.unique(x + 0.0, axis=0, return_index=True, return_inverse=True)
    first = first[group.reshape(-1)]
    differing = np.flatnonzero(labels != labels[first])
    return (int(first[differing[0]]), int(differing[0])) if len(differing) else None


def highest(scores: Shaped[np.ndarray, "n k"], y: Integer[np.ndarray, " n"]) -> bool:
    """Return whether every label has the one highest score.

    Examples
    --------
    >>> scores = np.array([[1.0, 0.0], [2.0, 2.0]])
    >>> highest(scores[:1], np.array([0])), highest(scores, np.array([0, 0]))
    (True, False)
    """
    own = scores[np.arange(len(y)), y]
    return bool(((scores < own[:, None]).sum(axis=1) == scores.shape[1] - 1).all())


def right_exactly(
    x: Shaped[np.ndarray, "n d"], readout: Float64[np.ndarray, "k d1"], y: Integer[np.ndarray, " n"]
) -> bool:
    """Return whether a read-out (w, b) gives every label the one highest score, computed without rounding.

    Examples
    --------
    >>> right_exactly(np.array([[0], [1]]), np.array([[0.0, 0.5], [1.0, 0.0]]), np.array([0, 1]))
    True
    """
    whole, power = whole_rows(np.asarray(x, np.float64))
    lines, _ = whole_rows(readout)
    scores = [product(_with_ones(whole, power), [int(value) for value in line]) for line in lines]
    return highest(np.stack(scores, axis=1), y)


def _checked(x: NDArray[Any], t: NDArray[Any]) -> NDArray[np.float64]:
    """Return the rows in double precision, if they fit."""
    if x.ndim != 2 or t.ndim != 1 or len(x) != len(t) or not len(x):
        raise ValueError(f"one target a row is needed, and at least one row; got x {x.shape} and targets {t.shape}")
    rows = np.asarray(x, np.float64)
    if not np.isfinite(rows).all():
        raise ValueError("the rows hold NaN or infinite numbers; drop or fill them first")
    return rows


def _attempts(
    x: NDArray[np.float64], free: int = 1
) -> Iterator[tuple[Solve, NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Yield programs with rows scaled for them, and the middle and sizes of the columns.

    First the margin, all columns on one scale, which its bound on the weights needs. Then the slack, each column on its
    own scale and weights without a bound, which sees margins below the tolerance of the first.
    """
    low, high = x.min(axis=0), x.max(axis=0)
    middle, reach = low / 2 + high / 2, high / 2 - low / 2
    shared = np.full_like(reach, float(reach.max(initial=0.0)) or 1.0)
    own = np.where(reach > 0, reach, 1.0)
    yield lambda rows: largest_margin(rows, free), (x - middle) / shared, middle, shared
    yield least_slack, (x - middle) / own, middle, own


def _with_ones(x: NDArray[Any], power: int) -> NDArray[Any]:
    """Return the rows with 2^power appended."""
    one = np.array([2**power], object if power > 61 else x.dtype)
    return np.concatenate([x, np.broadcast_to(one, (len(x), 1))], axis=1)


def _others(y: NDArray[np.integer[Any]], classes: int) -> NDArray[np.int64]:
    """Return the other classes of each row, in rising order."""
    all_but_one = np.arange(classes - 1)
    return np.asarray(all_but_one + (all_but_one >= y[:, None]), np.int64)


def _whole_unit(
    whole: Rows, power: int, weights: NDArray[np.float64], wanted: NDArray[np.bool_]
) -> tuple[int, ...] | None:
    """Return whole weights of few bits and a bias with which the unit fires where it is to, if rounding finds them."""
    largest = float(np.abs(weights).max(initial=0.0))
    for bits in POWERS if 0 < largest < inf else ():
        line = [int(value) for value in np.rint(np.ldexp(weights / largest, bits)).tolist()]
        sums = product(whole, line)
        low, high = int(sums[~wanted].max()), int(sums[wanted].min())
        if low < high:
            return (*(value * 2**power for value in line), -low)
    return None


def _whole_classes(
    exact: Rows, power: int, weights: NDArray[np.float64], bias: NDArray[np.float64]
) -> tuple[tuple[int, ...], ...] | None:
    """Return whole weights and bias by class with which every label is right, if rounding finds them."""
    ready = whole_weights(exact, np.r_[weights.reshape(-1), bias])
    if ready is None:
        return None
    classes, width = weights.shape
    lines = (ready[k * width : (k + 1) * width] for k in range(classes))
    own = ready[classes * width :]
    return tuple((*(value * 2**power for value in line), own[k] * 2**power) for k, line in enumerate(lines))


def _refusal(shape: tuple[int, int], multipliers: list[int] | None) -> Separation:
    """Return that nothing separates: checked if there are multipliers."""
    nothing = np.zeros(shape), np.zeros(shape[0]), 0.0
    if multipliers is None:
        return Separation(False, *nothing, exact=False, tol=TOL)
    return Separation(False, *nothing, multipliers=tuple(multipliers))
