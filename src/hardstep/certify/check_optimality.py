"""Re-check a certificate of optimality from its file and the data alone: NumPy and whole numbers, no solver.

    python -m hardstep.certify.check_optimality certificate.safetensors data.npz

`data.npz` holds x (n, d) and y, as they were given to the certificate. Nothing else of hardstep is imported, so that
the file may be copied and read on its own. What is recomputed:

- objective: bits by the exact sign of x.w + b (fractions where floats are in doubt), sums by math.fsum, rounded up;
- bound: the witness v as integers (so that every sum over rows is exact, with 1'v = 0 and the loss's domain exact too),
  M = max |v'd| over the class by recursion over facets in integers, D(t v) with t <= beta/M, rounded down.

Every pattern is a cell of the arrangement, every cell has a facet, and the hyperplanes of a facet pass through one row:
what they do to the other rows is an arrangement of rank one less. At rank 2 it is a sort by angle.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RejectedError", "claim", "digest", "largest_sum", "lower_dual", "main", "read_file", "recheck"]
__all__ += ["targets", "true_bits", "upper_objective", "whole_weights"]

Array = NDArray[Any]
SAFETY = 1e-12  # beyond the rounding of any sum below
CLASSES = {"class:stumps": 1, "class:pairs": 2}  # features a half-space may use
ALL = ("exact-sweep-2d", "exact-enumeration")
OVER = {
    "class:stumps": "half-spaces on one feature",
    "class:pairs": "half-spaces on two features",
    "shattering-bound": "networks of any depth and width",
}
UNCHECKED = ("heuristic", "milp")  # nothing proved, or no short proof
STEPS = 2 * 10**10


class RejectedError(ValueError):
    """The certificate does not hold; the text says why."""


def recheck(arrays: Mapping[str, Array], meta: Mapping[str, Any], x: Array, y: Array) -> dict[str, float]:
    """Return objective, dual and largest recomputed; raise `RejectedError` if the verdict does not follow from them."""
    y = targets(y, meta["loss"], len(arrays["intercept"]))
    if digest(x, y) != meta["digest"]:
        raise RejectedError("these are not the data of the certificate: their digest differs")
    if meta["claim"] != claim(meta, *x.shape):
        raise RejectedError("the claim in words is not the one in numbers")
    kind, verdict, gap, beta = meta["kind"], meta["verdict"], float(meta["gap"]), float(meta["beta"])
    if not beta > 0 or not (gap >= 0 or verdict == "UNKNOWN"):
        raise RejectedError(f"beta={beta} must be positive and gap={gap} at least 0")
    objective = upper_objective(arrays, "", meta["loss"], beta, x, y)
    numbers = {"objective": objective}
    if verdict == "PROVED" or (verdict == "UNKNOWN" and "v" in arrays and kind not in UNCHECKED):
        if kind in UNCHECKED:
            raise RejectedError(f"{kind}: its bound cannot be recomputed without a solver")
        whole, power = whole_weights(arrays["v"], y, meta["loss"], free=bool(meta["intercept"]))
        largest = math.ldexp(largest_sum(x, whole, kind), -power)
        dual = max(0.0, lower_dual(np.ldexp(whole.astype(np.float64), -power), y, meta["loss"], beta, largest))
        numbers |= {"dual": dual, "largest": largest}
        slack = (1 + gap) * dual - objective
        if verdict == "PROVED" and not slack >= 0:
            raise RejectedError(f"objective {objective!r} exceeds (1 + {gap}) times the bound {dual!r}")
        if verdict == "UNKNOWN" and slack > 1e-9 * objective:
            raise RejectedError("the verdict is UNKNOWN, but the bound proves the claim")
    elif verdict == "REFUTED":
        within_class(arrays["better_planes"], x, kind, float(meta.get("eps", 0.0)))
        better = upper_objective(arrays, "better_", meta["loss"], beta, x, y)
        numbers["better"] = better
        if not objective * (1 - 3 * SAFETY) > (1 + gap) * better:
            raise RejectedError(f"the network of the witness has objective {better!r}: not better than {objective!r}")
    for name, value in numbers.items():
        if not math.isclose(value, meta["bounds"].get(name, math.nan), rel_tol=1e-9, abs_tol=1e-300):
            raise RejectedError(f"{name} is {value!r}, the certificate says {meta['bounds'].get(name)!r}")
    return numbers


def claim(meta: Mapping[str, Any], rows: int, features: int) -> str:
    """Return the claim in words; a gap below 0 stands for one not found."""
    gap = "?" if meta["gap"] < 0 else f"{meta['gap']:.3g}"
    over = OVER.get(meta["kind"], f"all hyperplanes ({meta['kind']})")
    margin = f" with margin >= {meta['eps']:g}" if meta["eps"] else ""
    data = f"{rows} rows of {features} features, {meta['loss']}, beta={meta['beta']:g}"
    given = f", given {meta['below']} layers below" if meta["below"] else ""
    return f"P <= (1 + {gap}) P* over {over}{margin} on {data}{given}"


def targets(y: Array, loss: str, outputs: int) -> Array:
    """Return y as (n, outputs): numbers, +-1 per output, or one-hot rows."""
    if y.ndim == 2 or loss == "Squared":
        return np.ascontiguousarray(y, dtype=np.float64).reshape(len(y), -1)
    if loss != "Multinomial" and outputs == 1:
        return np.where(y > 0, 1.0, -1.0)[:, None]
    hot = (y[:, None] == np.arange(outputs)).astype(np.float64)
    return np.asarray(hot if loss == "Multinomial" else 2 * hot - 1)


def digest(x: Array, y: Array) -> str:
    """Return a SHA-256 over shapes and numbers of x and y as float64."""
    sha = hashlib.sha256()
    for array in (x, y):
        plain = np.ascontiguousarray(array, dtype="<f8") + 0.0
        sha.update(f"{plain.shape}".encode() + plain.tobytes())
    return sha.hexdigest()


def true_bits(x: Array, planes: Array) -> Array:
    """Return 1{x.w + b > 0} without rounding."""
    h = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    heights = h @ planes.T
    doubt = np.abs(heights) <= 4 * h.shape[1] * np.finfo(float).eps * (np.abs(h) @ np.abs(planes.T))
    bits: Array = np.asarray(heights > 0)
    for i, j in np.argwhere(doubt):
        bits[i, j] = sum(Fraction(a) * Fraction(b) for a, b in zip(h[i].tolist(), planes[j].tolist(), strict=True)) > 0
    return bits


def upper_objective(arrays: Mapping[str, Array], name: str, loss: str, beta: float, x: Array, y: Array) -> float:
    """Return loss + beta sum_j |u_j|_2 of a network, rounded up."""
    planes, u, shift = (np.asarray(arrays[name + part], float) for part in ("planes", "u", "intercept"))
    if planes.shape != (len(u), x.shape[1] + 1) or u.shape[1:] != y.shape[1:] or shift.shape != y.shape[1:]:
        raise RejectedError(f"planes {planes.shape}, u {u.shape} and intercept {shift.shape} do not fit the data")
    if not (np.isfinite(planes).all() and np.isfinite(u).all() and np.isfinite(shift).all()):
        raise RejectedError("the network has weights that are not finite")
    bits = true_bits(x, planes)
    f = np.array([[math.fsum([*u[row, c].tolist(), shift[c]]) for c in range(len(shift))] for row in bits])
    price = math.fsum(math.sqrt(math.fsum(value**2 for value in row)) for row in u.tolist())
    return (math.fsum(losses(f.reshape(y.shape), y, loss).reshape(-1).tolist()) + beta * price) * (1 + SAFETY)


def losses(f: Array, y: Array, loss: str) -> Array:
    """Return the terms of a loss."""
    if loss == "Squared":
        return np.asarray(0.5 * (f - y) ** 2)
    if loss == "Logistic":
        return np.asarray(np.logaddexp(0.0, -y * f))
    if loss == "SquaredHinge":
        return np.asarray(0.5 * np.maximum(1 - y * f, 0.0) ** 2)
    if loss == "Multinomial":
        top = f.max(axis=1, keepdims=True)
        own = (y * (f - top)).sum(axis=1)
        return np.asarray(np.log(np.exp(f - top).sum(axis=1)) - own)
    raise RejectedError(f"the loss {loss!r} is not known")


def whole_weights(v: Array, y: Array, loss: str, *, free: bool) -> tuple[Array, int]:
    """Return integers V and k such that V/2^k is near v, in the loss's domain, and each column adds up to 0 if free."""
    if v.shape != y.shape or not np.isfinite(v).all():
        raise RejectedError(f"the witness v {v.shape} does not fit the data {y.shape}")
    largest = max(float(np.abs(v).max(initial=0.0)), float(loss in ("Logistic", "Multinomial")), 1e-200)
    power = min(math.floor(math.log2(min(2.0**52, 2.0**61 / len(v)) / largest)) - 1, 60)
    whole = np.rint(np.ldexp(v, power)).astype(np.int64)
    one = 1 << power if power >= 0 else 0
    if loss == "Multinomial":
        return _whole_shares(whole, y.astype(np.int64), one, free=free), power
    if loss in ("Logistic", "SquaredHinge"):
        side = y.astype(np.int64)
        whole = side * np.clip(side * whole, 0, one if loss == "Logistic" else None)
    for c in range(whole.shape[1] if free else 0):
        column = whole[:, c]
        excess = int(column.sum())
        for i in np.argsort(-np.abs(column), kind="stable"):
            step = min(abs(excess), abs(int(column[i]))) if (excess > 0) == (column[i] > 0) else 0
            column[i] -= step if excess > 0 else -step
            excess -= step if excess > 0 else -step
            if excess == 0:
                break
    return whole, power


def _whole_shares(whole: Array, y: Array, one: int, *, free: bool) -> Array:
    """Return Y - P with integer P >= 0, rows adding up to one, and columns as those of Y if free."""
    shares = np.maximum(y * one - whole, 0)
    shares[np.arange(len(y)), shares.argmax(axis=1)] += one - shares.sum(axis=1)
    excess = (shares.sum(axis=0) - y.sum(axis=0) * one).tolist() if free else []
    while any(excess):
        here, there = int(np.argmax(excess)), int(np.argmin(excess))
        row = int(shares[:, here].argmax())
        step = min(excess[here], -excess[there], int(shares[row, here]))
        shares[row, here] -= step
        shares[row, there] += step
        excess[here] -= step
        excess[there] += step
    if (shares < 0).any():
        raise RejectedError("the witness v is outside the domain of the loss")
    return np.asarray(y * one - shares)


def lower_dual(v: Array, y: Array, loss: str, beta: float, largest: float) -> float:
    """Return D(t v), rounded down, for a good t with |t v'd| <= beta over the class."""
    reach = beta / largest * (1 - SAFETY) if largest > 0 else math.inf
    scale = float((v * y).sum() / max(float((v * v).sum()), 1e-300))
    if loss == "Squared":
        t = min(max(scale, -reach), reach)
        terms = t * v * y - 0.5 * (t * v) ** 2
    elif loss == "SquaredHinge":
        t = min(max(scale, 0.0), reach)
        terms = t * v * y - 0.5 * (t * v) ** 2
    elif loss == "Logistic":
        u = min(1.0, reach) * y * v
        terms = _entropy(u) + _entropy(1 - u)
    else:
        terms = _entropy(y - min(1.0, reach) * v)
    flat = terms.reshape(-1).tolist()
    return math.fsum(flat) - SAFETY * math.fsum(abs(value) for value in flat)


def _entropy(u: Array) -> Array:
    """Return -u ln u, 0 at 0."""
    return np.asarray(-u * np.log(np.where(u > 0, u, 1.0)))


def largest_sum(x: Array, v: Array, kind: str) -> float:
    """Return max |v'd|_2 over the patterns of a class, rounded up; v are integers."""
    total = v.sum(axis=0)
    if kind == "shattering-bound":
        return _norm(np.maximum(np.maximum(v, 0).sum(axis=0), -np.minimum(v, 0).sum(axis=0))[None])
    if kind not in CLASSES and kind not in ALL:
        raise RejectedError(f"a bound over {kind!r} cannot be recomputed without a solver")
    width = min(CLASSES.get(kind, x.shape[1]), x.shape[1])
    found = _norm(total[None])
    for features in combinations(range(x.shape[1]), width):
        points, group = np.unique(x[:, list(features)] + 0.0, axis=0, return_inverse=True)
        weights = np.zeros((len(points), v.shape[1]), np.int64)
        np.add.at(weights, group.reshape(-1), v)
        if len(points) ** max(1, width) > STEPS:
            raise RejectedError(f"{len(points)} rows with {width} features are too many to recompute the bound")
        h = _integers(points)
        for sums in _cells(h, weights, np.zeros((1, v.shape[1]), np.int64)):
            found = max(found, _norm(sums), _norm(total - sums))
    return found


def _norm(sums: Array) -> float:
    """Return the largest 2-norm of integer rows, rounded up."""
    if sums.shape[1] == 1:
        return float(np.abs(sums).max(initial=0)) * (1 + 4e-16)
    return float(np.sqrt((sums.astype(np.float64) ** 2).sum(axis=1)).max(initial=0.0)) * (1 + 1e-14)


def _integers(x: Array) -> Array:
    """Return each column times a power of two as integers, and a column of ones; Python's integers if need be."""
    columns = []
    for column in x.T.tolist():
        ratios = [value.as_integer_ratio() for value in column]
        common = max(below for _, below in ratios)
        columns.append([above * (common // below) for above, below in ratios])
    whole = np.array([*columns, [1] * len(x)], object).T
    bits = max(abs(value) for column in columns for value in column).bit_length()
    for level in range(x.shape[1]):  # differences first, then 2 x 2 determinants
        bits = bits + 1 if level == 0 else 2 * bits + 1
    return whole.astype(np.int64) if bits <= 62 else whole


def _cells(h: Array, v: Array, offsets: Array) -> Iterator[Array]:
    """Yield v'd over all cells d of the arrangement of integer rows h, none of them 0, added to all offsets."""
    if h.shape[1] == 2 or len(h) == 0:
        sums = _circle(h, v)
        yield (sums[:, None] + offsets).reshape(-1, v.shape[1])
        return
    last = h[:, :-1].copy() if bool(np.all(h[:, -1] == 1)) else None
    for i in range(len(h)):
        k = int(np.flatnonzero(h[i])[-1])
        # rows seen from row i: the k-th column becomes 0; a positive factor changes no side
        factor = h[i, k]
        if last is not None:
            seen = last - last[i]
        else:
            rest = np.delete(h, k, axis=1)
            seen = rest * factor - h[:, [k]] * rest[i]
        on = ~np.any(seen.astype(bool), axis=1)
        same = (h[on, k] > 0) == (factor > 0)
        sides = np.stack([v[on][same].sum(axis=0), v[on][~same].sum(axis=0)])
        more = (offsets[:, None] + sides).reshape(-1, v.shape[1])
        yield from _cells(seen[~on], v[~on], more)


def _circle(h: Array, v: Array) -> Array:
    """Return v'd over all half-planes through 0; points in the lower half-plane count as missing opposite ones."""
    if len(h) == 0:
        return np.zeros((1, v.shape[1]), np.int64)
    low = (h[:, 1] < 0) | ((h[:, 1] == 0) & (h[:, 0] < 0))
    h = np.where(low[:, None], -h, h)
    signed = np.where(low[:, None], -v, v)
    size = _near_floats(h)
    angle = np.arctan2(size[:, 1], size[:, 0])
    order = np.argsort(angle, kind="stable")
    near = np.diff(angle[order]) <= 1e-14
    together = np.zeros(len(near), bool)
    if near.any():
        order = _exactly_sorted(h, order, near)
        a, b = h[order[:-1][near]], h[order[1:][near]]
        together[near] = a[:, 0] * b[:, 1] == a[:, 1] * b[:, 0]
    passed = np.cumsum(signed[order], axis=0)[np.append(~together, True)]
    start = v[low].sum(axis=0)
    return np.asarray(start + np.concatenate([0 * passed[:1], passed]))


def _near_floats(h: Array) -> Array:
    """Return integers as floats; where they are too big, each row divided by its largest size."""
    if h.dtype != object or max(abs(value) for value in h.max(axis=0).tolist() + h.min(axis=0).tolist()) < 1 << 900:
        return h.astype(np.float64)
    rows = []
    for a, b in h.tolist():
        top = max(abs(a), abs(b))
        rows.append((a / top, b / top))
    return np.array(rows)


def _exactly_sorted(h: Array, order: Array, near: Array) -> Array:
    """Return the order by angle with every run of near angles sorted in integers."""
    points = h.tolist()

    def turn(i: int, j: int) -> int:
        (a, b), (c, d) = points[i], points[j]
        return int(b * c > a * d) - int(b * c < a * d)

    result, ends = order.tolist(), np.flatnonzero(~near).tolist()
    for start, end in zip([-1, *ends], [*ends, len(order) - 1], strict=True):
        if end - start > 1:
            result[start + 1 : end + 1] = sorted(result[start + 1 : end + 1], key=functools.cmp_to_key(turn))
    return np.array(result)


def within_class(planes: Array, x: Array, kind: str, eps: float) -> None:
    """Raise `RejectedError` if a plane is not of the class."""
    used = (planes[:, :-1] != 0).sum(axis=1).max(initial=0)
    if used > CLASSES.get(kind, planes.shape[1]):
        raise RejectedError(f"a half-space of the witness uses {used} features, the class is {kind}")
    if kind.startswith("milp"):
        h = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        heights = np.abs(h @ planes.T) / np.abs(h).sum(axis=1, keepdims=True) / np.abs(planes).max(axis=1)
        if heights.min(initial=1.0) < eps:
            raise RejectedError(f"a half-space of the witness has margin {heights.min():.2e}, the class asks for {eps}")


def read_file(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a certificate: 8 bytes of length, a JSON head, plain arrays (safetensors)."""
    content = path.read_bytes()
    try:
        size = int.from_bytes(content[:8], "little")
        head = json.loads(content[8 : 8 + size])
        meta = json.loads(head.pop("__metadata__")["meta"])
        arrays = {}
        for name, entry in head.items():
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            kind = {"F64": "<f8"}[entry["dtype"]]
            if end > len(content):
                raise RejectedError(f"{path} is truncated")
            arrays[name] = np.frombuffer(content[start:end], kind).reshape(entry["shape"])
    except (KeyError, ValueError, TypeError) as error:
        raise RejectedError(f"{path} is no whole certificate: {error}") from error
    return arrays, meta


def main(arguments: list[str]) -> int:
    """Check one file; return 0 if the verdict follows from it."""
    certificate, data = (Path(argument) for argument in arguments)
    try:
        arrays, meta = read_file(certificate)
        with np.load(data, allow_pickle=False) as stored:
            x, y = np.asarray(stored["x"], np.float64), stored["y"]
        numbers = recheck(arrays, meta, x.reshape(len(x), -1), y)
    except (RejectedError, KeyError, OSError) as error:
        sys.stdout.write(f"REJECTED: {error}\n")
        return 1
    text = ", ".join(f"{name} {value:.12g}" for name, value in numbers.items())
    sys.stdout.write(f"{meta['verdict']}: {meta['claim']}\n{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
