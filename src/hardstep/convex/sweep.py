"""The search over pencils: cumulative sums of weights along each pencil, its best cells, and planes for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray
from scipy.optimize import linprog

from hardstep.convex.oracles import rounding, unique_patterns
from hardstep.convex.patterns import patterns
from hardstep.convex.pencils import BLOCK, Pencils, sides

__all__ = ["Cells", "best_cells", "realised", "separating_plane"]

SPARE = 64  # further cells looked at, since several pencils meet in one


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of an arrangement with large |V'd|: patterns, the points that fix a plane in each, and a bound on all.

    Parameters
    ----------
    bits
        The patterns, best first.
    anchors
        Points on the flat of the pencil and the two next to the interval: as many as the rank in general position.
    bound
        At least the largest |V'd|_2 over all the pencils.
    """

    bits: Bool[np.ndarray, "k m"]
    anchors: tuple[tuple[int, ...], ...]
    bound: float


@dataclass(frozen=True, eq=False)
class _Picks:
    """The best places of some pencils: squared score; pencil, place in it, choice on the flat, complement or not."""

    pencils: Pencils
    squares: NDArray[np.float64]
    marks: NDArray[np.int64]


def best_cells(pencils: Iterable[Pencils], v: Float64[np.ndarray, "m c"], count: int, *, meet: int = 4) -> Cells:
    """Return at most `count` different cells with large |V'd|_2, the best two of every pencil among the candidates.

    Parameters
    ----------
    v
        Weights of the distinct points.
    meet
        How many pencils meet in a cell on average, so that so many more candidates are kept than cells wanted.
    """
    total = v.sum(axis=0)
    best, floor = float(total @ total), -np.inf
    signed = np.concatenate([v, -v])
    keep = meet * count + SPARE
    found: list[_Picks] = []
    for chunk in pencils:
        step = max(1, BLOCK // (max(1, chunk.codes.shape[1]) * v.shape[1]))
        for start in range(0, len(chunk.codes), step):
            picks = (_scalar if v.shape[1] == 1 else _vector)(chunk.part(slice(start, start + step)), v, signed, total)
            best = max(best, float(picks.squares.max()))
            found.append(_largest(picks, keep, floor))
        if sum(len(picks.squares) for picks in found) > 4 * keep:
            floor = float(-np.partition(-np.concatenate([picks.squares for picks in found]), keep)[keep])
            found = [_largest(picks, keep, floor) for picks in found]
    bound = float(np.sqrt(best)) + rounding(v)
    if v.shape[1] > 1:  # |S + a|² is put together from three sums
        bound = max(bound, float(np.sqrt(best + rounding(v) * np.linalg.norm(v, axis=1).sum())))
    return _different(found, len(v), count, keep, bound, bool(np.linalg.norm(total) <= 2 * rounding(v)))


def _different(found: list[_Picks], m: int, count: int, block: int, bound: float, complements: bool) -> Cells:
    """Return the best cells of all picks without repetition."""
    squares = np.concatenate([np.zeros(0), *[picks.squares for picks in found]])
    source = np.repeat(np.arange(len(found)), [len(picks.squares) for picks in found])
    first = np.searchsorted(source, np.arange(len(found)))
    order = np.argsort(-squares, kind="stable")
    bits = np.zeros((0, m), bool)
    anchors: list[tuple[int, ...]] = []
    for start in range(0, len(order), block):
        chosen = order[start : start + block]
        rows = np.zeros((len(chosen), m), bool)
        points: list[tuple[int, ...]] = [()] * len(chosen)
        for each in np.unique(source[chosen]):
            at = np.flatnonzero(source[chosen] == each)
            rows[at], some = _decoded(found[each], chosen[at] - first[each], m)
            for i, members in zip(at, some, strict=True):
                points[i] = members
        bits, anchors = np.concatenate([bits, rows]), anchors + points
        kept = unique_patterns(bits, complements=complements)
        bits, anchors = bits[kept], [anchors[i] for i in kept]
        if len(bits) >= count:
            break
    return Cells(bits[:count], tuple(anchors[:count]), bound)


def _left(piece: Pencils, signed: Float64[np.ndarray, "m2"], rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum on the left after each place of pencils; `rest` is the sum of all points off each flat.

    The sum passed, with its sign, is P; at angle pi left and right are exchanged, so the start is (rest + P_end)/2.
    """
    sums = np.cumsum(signed.take(piece.codes), axis=1)
    start = (rest + sums[:, -1]) / 2
    np.subtract(start[:, None], sums, out=sums)
    if piece.inner is not None:
        np.copyto(sums, sums[:, -1:], where=piece.inner)  # the last interval is always open
    return sums


def _scalar(piece: Pencils, v: NDArray[np.float64], signed: NDArray[np.float64], total: NDArray[np.float64]) -> _Picks:
    """Return the largest and the smallest sum of every pencil."""
    weights = v[piece.members, 0]
    adds = weights @ piece.choices.T.astype(np.float64)  # (f, p)
    left = _left(piece, signed[:, 0], total[0] - weights.sum(axis=1))
    flats = np.arange(len(left))
    squares, marks = [], []
    for place, choice in ((left.argmax(1), adds.argmax(1)), (left.argmin(1), adds.argmin(1))):
        value = left[flats, place] + adds[flats, choice]
        other = total[0] - value
        squares.append(np.maximum(value**2, other**2))
        marks.append(np.stack([flats, place, choice, np.abs(other) > np.abs(value)], axis=1))
    return _Picks(piece, np.concatenate(squares), np.concatenate(marks))


def _vector(piece: Pencils, v: NDArray[np.float64], signed: NDArray[np.float64], total: NDArray[np.float64]) -> _Picks:
    """Return the largest |V'd|² of every pencil, and the largest of complements: |S + a|² = |S|² + 2 S.a + |a|²."""
    weights = v[piece.members]  # (f, q, c)
    adds = np.einsum("pq,fqc->fpc", piece.choices.astype(np.float64), weights)
    rest = total - weights.sum(axis=1)
    left = np.stack([_left(piece, signed[:, c], rest[:, c]) for c in range(v.shape[1])], axis=1)  # (f, c, l)
    square = np.einsum("fcl,fcl->fl", left, left)
    flats = np.arange(len(left))
    squares, marks = [], []
    for flip, each in enumerate((adds, adds - total)):
        best = np.full(len(left), -np.inf)
        place, choice = np.zeros(len(left), np.int64), np.zeros(len(left), np.int64)
        for p in range(each.shape[1]):
            values = square + 2 * np.einsum("fcl,fc->fl", left, each[:, p]) + (each[:, p] ** 2).sum(axis=1)[:, None]
            at = values.argmax(axis=1)
            better = values[flats, at] > best
            best = np.where(better, values[flats, at], best)
            place, choice = np.where(better, at, place), np.where(better, p, choice)
        squares.append(best)
        marks.append(np.stack([flats, place, choice, np.full(len(left), flip)], axis=1))
    return _Picks(piece, np.concatenate(squares), np.concatenate(marks))


def _largest(picks: _Picks, count: int, floor: float) -> _Picks:
    """Keep the best places only, and no more of the table than they need."""
    top = np.flatnonzero(picks.squares >= floor)
    if len(top) > count:
        top = top[np.argpartition(-picks.squares[top], count)[:count]]
    flats, flat = np.unique(picks.marks[top, 0], return_inverse=True)
    marks = np.concatenate([flat.reshape(-1, 1), picks.marks[top, 1:]], axis=1)
    return _Picks(picks.pencils.part(flats), picks.squares[top], marks)


def _decoded(picks: _Picks, index: NDArray[np.int64], m: int) -> tuple[NDArray[np.bool_], list[tuple[int, ...]]]:
    """Return the patterns of picks, and the points that fix a plane in each cell."""
    pencils, (flats, places, choices, flips) = picks.pencils, picks.marks[index].T
    width = pencils.codes.shape[1]
    if pencils.inner is not None:
        places = np.where(pencils.inner[flats, places], width - 1, places)
    bits = sides(pencils, m, flats, places)
    members = pencils.members[flats]
    np.put_along_axis(bits, members, pencils.choices[choices], axis=1)
    neighbours = pencils.codes[flats[:, None], np.stack([places, (places + 1) % width], axis=1)].astype(np.int64) % m
    anchors = np.concatenate([members, neighbours], axis=1)
    return bits ^ flips[:, None].astype(bool), [tuple(row) for row in anchors.tolist()]


def realised(points: Float64[np.ndarray, "m d"], cells: Cells) -> Float64[np.ndarray, "k d1"]:
    """Return a plane for each cell; those that floats cannot tell from their neighbours are left out.

    A plane of the edge: zero on the flat's points, equally far from the two points next to it, turned off the flat's
    points by half of what keeps all other points on their sides, the bias half-way between the sides. Where that fails,
    a linear program with the largest margin.

    Examples
    --------
    >>> cells = Cells(np.array([[False, True]]), ((0, 1, 1),), 1.0)
    >>> realised(np.array([[0.0], [1.0]]), cells)
    array([[ 2., -1.]])
    """
    k, d = len(cells.bits), points.shape[1]
    planes = np.zeros((k, d + 1))
    h = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    general = [i for i, anchors in enumerate(cells.anchors) if len(anchors) == d + 1]
    if general:
        planes[general] = _edge_planes(h, cells.bits[general], np.array([cells.anchors[i] for i in general]))
    kept = np.ones(k, bool)
    for i in np.flatnonzero(~_safe(points, planes, cells.bits)):
        plane = separating_plane(points, cells.bits[i])
        kept[i] = plane is not None
        planes[i] = 0.0 if plane is None else plane
    return planes[kept]


def _edge_planes(h: NDArray[np.float64], bits: NDArray[np.bool_], anchors: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return planes in general position; a singular or failed one comes out wrong or as NaN set to 0."""
    rank = h.shape[1]
    rows = np.arange(len(bits))[:, None]
    wanted = np.where(bits[rows, anchors], 1.0, -1.0)
    targets = np.zeros((len(bits), rank, 2))
    targets[:, -2:, 0], targets[:, :-2, 1] = wanted[:, -2:], wanted[:, :-2]
    systems = h[anchors]
    singular = np.abs(np.linalg.det(systems)) < np.finfo(np.float64).tiny
    systems[singular] = np.eye(rank)
    edge, turn = np.moveaxis(np.linalg.solve(systems, targets), 2, 0)
    side = np.where(bits, 1.0, -1.0)
    near, move = side * (edge @ h.T), side * (turn @ h.T)
    on = np.zeros(bits.shape, bool)
    np.put_along_axis(on, anchors[:, :-2], True, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(~on & (move < 0), -near / move, np.inf).min(axis=1)
    planes = edge + np.clip(room / 2, 0.0, 1.0)[:, None] * turn
    planes[singular] = 0.0
    return _centred(h[:, :-1], bits, planes)


def _centred(points: NDArray[np.float64], bits: NDArray[np.bool_], planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move the bias half-way between the two sides, where both have points."""
    heights = planes[:, :-1] @ points.T
    low = np.where(bits, heights, np.inf).min(axis=1)
    high = np.where(bits, -np.inf, heights).max(axis=1)
    both = np.isfinite(low) & np.isfinite(high)
    planes[both, -1] = -(low[both] / 2 + high[both] / 2)
    planes[~both] = 0.0
    planes[~both, -1] = np.where(bits[~both].all(axis=1), 1.0, -1.0)
    return planes


def separating_plane(points: Float64[np.ndarray, "m d"], bits: Bool[np.ndarray, " m"]) -> NDArray[np.float64] | None:
    """Return the plane of largest margin with this pattern, on features scaled to [-1, 1], or None if floats find none.

    max t with side_i (w.x_i + b) >= t, |w_j| <= 1: a linear program.

    Examples
    --------
    >>> separating_plane(np.array([[0.0], [1.0], [2.0]]), np.array([True, False, True])) is None
    True
    """
    d = points.shape[1]
    centre = points.mean(axis=0)
    scale = np.abs(points - centre).max(axis=0)
    scale[scale == 0] = 1.0
    side = np.where(bits, 1.0, -1.0)[:, None]
    system = np.concatenate([-side * (points - centre) / scale, -side, np.ones((len(points), 1))], axis=1)
    solved = linprog(
        [*[0.0] * (d + 1), -1.0], system, np.zeros(len(points)), bounds=[*[(-1, 1)] * d, (None, None), (None, 1)]
    )
    if solved.status != 0:
        return None
    weight = solved.x[:d] / scale
    plane = np.append(weight, solved.x[d] - weight @ centre)
    plane = _centred(points, bits[None], plane[None])
    return plane[0] if bool(_safe(points, plane, bits[None])[0]) else None


def _safe(points: NDArray[np.float64], planes: NDArray[np.float64], bits: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which planes have their pattern in whatever order a sum is taken: no point within rounding of them."""
    heights = points @ planes[:, :-1].T + planes[:, -1]
    error = 2 * (points.shape[1] + 2) * np.finfo(np.float64).eps
    far = np.abs(heights) > error * (np.abs(points) @ np.abs(planes[:, :-1]).T + np.abs(planes[:, -1]))
    safe: NDArray[np.bool_] = ((patterns(points, planes) == bits.T) & far).all(axis=0)
    return safe
