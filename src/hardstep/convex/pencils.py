"""Pencils: hyperplanes through a flat of rank - 2 points, in the order in which they turn over the other points.

Every cell of the arrangement has an edge; its inside are hyperplanes through rank - 2 independent points that meet no
other point. So all patterns on m distinct rows of rank r are those of the open intervals between neighbouring angles of
a pencil, times the patterns of the points on its flat. Points at the same angle change sides together, which makes
the count exact for collinear and grid data too; whether angles are the same is decided in integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer
from numpy.typing import NDArray

from hardstep.convex.lattice import annihilator, independent_columns, narrowed, signs, vanishing

__all__ = ["Pencils", "all_patterns", "general_pencils", "line_pencils", "plane_pencils", "sides"]

BLOCK = 1 << 18  # entries of a table made or searched at a time
GUARD = 4e-15  # twice the error of an angle computed from differences rounded once


@dataclass(frozen=True, eq=False)
class Pencils:
    """Pencils through several flats with equally many points on them and off them.

    Parameters
    ----------
    codes
        The points off each flat by angle in [0, pi): i, or m + i if the point lies at the angle + pi. A directed line
        of angle 0 has the former on its left; each point changes sides as the line turns over it.
    inner
        Where the interval after a point is closed, since the next one has the same angle; None if nowhere.
    members
        The points on each flat.
    choices
        The patterns that these may have, the same for all the flats.
    """

    codes: Integer[np.ndarray, "f l"]
    inner: Bool[np.ndarray, "f l"] | None
    members: Int64[np.ndarray, "f q"]
    choices: Bool[np.ndarray, "p q"]

    def part(self, flats: slice | Int64[np.ndarray, " k"]) -> Pencils:
        """Return some of the pencils."""
        inner = None if self.inner is None else self.inner[flats]
        return Pencils(self.codes[flats], inner, self.members[flats], self.choices)


Cross = Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]
"""Exact sign of the turn from point a to point b, seen from a flat: cross(flats, a, b)."""


def plane_pencils(points: Float64[np.ndarray, "m 2"], whole: NDArray[Any]) -> Iterator[Pencils]:
    """Yield the pencils of lines through each of m >= 2 distinct points of the plane, O(m² log m).

    Parameters
    ----------
    whole
        The points as integers, from `lattice`.
    """
    m = len(points)
    whole = narrowed(whole, 30)  # differences below 2^31, products below 2^62

    def cross(flats: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
        p, q = whole[a] - whole[flats], whole[b] - whole[flats]
        return signs(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])

    for start in range(0, m, max(1, BLOCK // m)):
        pivots = np.arange(start, min(m, start + max(1, BLOCK // m)))
        others = np.broadcast_to(np.arange(m - 1), (len(pivots), m - 1))
        others = others + (others >= pivots[:, None])
        apart = points[others] - points[pivots, None]
        codes, inner = _turned(apart, pivots, others, cross, m)
        yield Pencils(codes, inner, pivots[:, None], np.array([[False], [True]]))


def line_pencils(whole: NDArray[Any]) -> Iterator[Pencils]:
    """Yield the only pencil of points of rank 2, given as integer rows (m, 2) without a zero row."""
    yield from _exact_pencils(whole, [()], set())


def general_pencils(h: Float64[np.ndarray, "m r"], whole: NDArray[Any]) -> Iterator[Pencils]:
    """Yield the pencils through all (r - 2)-subsets of m points of rank r >= 3, the bias among the columns.

    Flats where floats are in doubt (a point on or near the flat, equal angles, dependent points) go through integers.

    Parameters
    ----------
    whole
        The rows as integers, from `lattice`, in the same columns.
    """
    m, r = h.shape
    subsets = combinations(range(m), r - 2)
    size = max(1, BLOCK // m)
    seen: set[tuple[int, ...]] = set()
    while block := list(islice(subsets, size)):
        flats = np.array(block, np.int64)
        codes, sure = _float_codes(h, flats)
        if sure.any():
            yield Pencils(codes[sure], None, flats[sure], _every(r - 2))
        if not sure.all():
            yield from _exact_pencils(whole, [tuple(flat) for flat in flats[~sure].tolist()], seen)


def all_patterns(whole: NDArray[Any]) -> Bool[np.ndarray, "p m"]:
    """Return every pattern of half-spaces on distinct integer rows; the ones must be in the span of the columns.

    Examples
    --------
    >>> all_patterns(np.array([[0, 1], [1, 1], [2, 1]], object)).astype(int).tolist()
    [[0, 0, 0], [0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    m = len(whole)
    columns = independent_columns(whole)
    if len(columns) == 1 or m == 1:
        return np.array([[False] * m, [True] * m])
    reduced = whole[:, columns]
    chunks = _exact_pencils(reduced, list(combinations(range(m), len(columns) - 2)), set())
    found = [np.zeros((0, m), bool)]
    for chunk in chunks:
        places = np.flatnonzero(np.ones(chunk.codes.shape[1]) if chunk.inner is None else ~chunk.inner.all(axis=0))
        for flat in range(len(chunk.codes)):
            side = sides(chunk, m, np.full(len(places), flat), places)
            for choice in chunk.choices:
                side[:, chunk.members[flat]] = choice
                closed = np.zeros(len(places), bool) if chunk.inner is None else chunk.inner[flat, places]
                found += [side[~closed].copy(), ~side[~closed]]
    return np.unique(np.concatenate(found), axis=0)


def sides(
    pencils: Pencils, m: int, flats: Int64[np.ndarray, " k"], places: Int64[np.ndarray, " k"]
) -> Bool[np.ndarray, "k m"]:
    """Return the points on the left just after the given place of each pencil; points on the flat as False."""
    rows = pencils.codes[flats].astype(np.int64)
    bits = np.zeros((len(rows), m), bool)
    passed = np.arange(rows.shape[1]) <= places[:, None]
    np.put_along_axis(bits, rows % m, passed == (rows >= m), axis=1)
    return bits


def _every(count: int) -> Bool[np.ndarray, "p q"]:
    """Return all patterns of `count` independent points."""
    return (np.arange(1 << count)[:, None] >> np.arange(count) & 1).astype(bool)


def _dtype(m: int) -> Any:
    """Return the smallest type that holds the codes of m points."""
    return np.uint16 if 2 * m <= 1 << 16 else np.int32


def _turned(
    apart: Float64[np.ndarray, "f l 2"], flats: NDArray[np.int64], others: NDArray[np.int64], cross: Cross, m: int
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Sort points off the flats by angle; near ties are settled by the exact sign of their turn."""
    folded = (apart[..., 1] < 0) | ((apart[..., 1] == 0) & (apart[..., 0] < 0))
    flip = np.where(folded, -1.0, 1.0)
    angle = np.arctan2(apart[..., 1] * flip, apart[..., 0] * flip)
    order = np.argsort(angle, axis=1, kind="stable")
    angle = np.take_along_axis(angle, order, axis=1)
    near = np.zeros(order.shape, bool)
    near[:, :-1] = angle[:, 1:] - angle[:, :-1] <= GUARD
    row, place = np.nonzero(near)
    inner = None
    if len(row):
        points, side = np.take_along_axis(others, order, 1), np.take_along_axis(folded, order, 1)
        turn = _settle(points, side, row, place, lambda f, a, b: cross(flats[f], a, b))
        near[row, place] = turn == 0
        inner = near if bool((turn == 0).any()) else None
        return (points + m * side).astype(_dtype(m)), inner
    return np.take_along_axis((others + m * folded).astype(_dtype(m)), order, 1), inner


def _settle(
    points: NDArray[np.int64], side: NDArray[np.bool_], row: NDArray[np.int64], place: NDArray[np.int64], cross: Cross
) -> NDArray[np.int64]:
    """Sort runs of near ties in place by odd-even exchanges; return the sign of each turn, 0 for a tie."""

    def turn(at: NDArray[np.bool_]) -> NDArray[np.int64]:
        r, p = row[at], place[at]
        unfold = np.where(side[r, p] == side[r, p + 1], 1, -1)
        return cross(r, points[r, p], points[r, p + 1]) * unfold

    parity = place % 2 == 0
    idle = 0
    while idle < 2:
        wrong = np.zeros(len(row), bool)
        wrong[parity] = turn(parity) < 0
        r, p = row[wrong], place[wrong]
        for array in (points, side):
            array[r, p], array[r, p + 1] = array[r, p + 1], array[r, p]
        idle = 0 if len(r) else idle + 1
        parity = ~parity
    return turn(np.ones(len(row), bool))


def _float_codes(
    h: Float64[np.ndarray, "m r"], flats: Int64[np.ndarray, "f q"]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the codes of pencils from floats, and for which of them no rounding can have mattered."""
    m, r = h.shape
    basis = np.linalg.qr(h[flats].transpose(0, 2, 1), mode="complete")[0][:, :, r - 2 :]
    values = np.linalg.svd(h[flats], compute_uv=False)
    norms = np.linalg.norm(h, axis=1)
    off = np.ones((len(flats), m), bool)
    np.put_along_axis(off, flats, False, axis=1)
    others = np.nonzero(off)[1].reshape(len(flats), m - r + 2)
    apart = np.take_along_axis(np.matmul(h, basis), others[:, :, None], axis=1)
    length = np.linalg.norm(apart, axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        wrong = 64 * r**2 * np.finfo(np.float64).eps * values[:, 0] / values[:, -1]
        wrong *= (norms[others] / length).max(axis=1)
    folded = (apart[..., 1] < 0) | ((apart[..., 1] == 0) & (apart[..., 0] < 0))
    angle = np.arctan2(apart[..., 1], apart[..., 0]) + np.where(folded, np.pi, 0.0)
    order = np.argsort(angle, axis=1)
    angle = np.take_along_axis(angle, order, axis=1)
    least = np.minimum((angle[:, 1:] - angle[:, :-1]).min(axis=1, initial=np.pi), angle[:, 0] + np.pi - angle[:, -1])
    # points near the ends of [0, pi) may be folded wrongly: keep away from them too
    least = np.minimum(least, 2 * np.minimum(angle[:, 0], np.pi - angle[:, -1]))
    codes = np.take_along_axis((others + m * folded).astype(_dtype(m)), order, 1)
    return codes, least > 2 * wrong + GUARD


def _exact_pencils(whole: NDArray[Any], flats: list[tuple[int, ...]], seen: set[tuple[int, ...]]) -> Iterator[Pencils]:
    """Yield pencils in integers, each flat once however many subsets of its points span it."""
    m = len(whole)
    for flat in flats:
        basis = annihilator(whole[list(flat)]) if flat else np.array([[1, 0], [0, 1]], object)
        if basis is None:
            continue  # the flat of dependent points is met through others
        apart = whole @ basis
        on = vanishing(apart)
        members = tuple(np.flatnonzero(on).tolist())
        if members in seen and flat:
            continue
        seen.add(members)
        others = np.flatnonzero(~on)
        small = narrowed(apart, 31)

        def cross(
            _: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64], p: NDArray[Any] = small
        ) -> NDArray[np.int64]:
            return signs(p[a, 0] * p[b, 1] - p[a, 1] * p[b, 0])

        angles = _as_floats(apart[others])[None]
        codes, inner = _turned(angles, np.zeros(1, np.int64), others[None], cross, m)
        choices = _every(len(flat)) if len(members) == len(flat) else all_patterns(whole[list(members)])
        yield Pencils(codes, inner, np.array([members], np.int64).reshape(1, -1), choices)


def _as_floats(values: NDArray[Any]) -> Float64[np.ndarray, "l 2"]:
    """Return rows of integers of any size as floats, each row scaled to be in range; signs and zeros are kept."""
    largest = max((abs(value) for value in values.reshape(-1).tolist()), default=0)
    if largest < 1 << 900:
        return values.astype(np.float64)
    tiny = np.finfo(np.float64).tiny
    rows = [[a / scale or tiny * ((a > 0) - (a < 0)) for a in row] for row in values.tolist() for scale in [_size(row)]]
    return np.array(rows)


def _size(row: list[int]) -> int:
    """Return the largest size in a row of integers."""
    return max(map(abs, row))
