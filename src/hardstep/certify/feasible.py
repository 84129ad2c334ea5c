"""All rows right: proved layer by layer in whole numbers, or refuted for every read-out of the hidden bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardstep.certify.certificate import Certificate, Certifier, Verdict
from hardstep.certify.check_optimality import digest
from hardstep.certify.separability import Separation, check, separate_classes
from hardstep.hard_layers import Dense, exact_product
from hardstep.hardnet import HardNet

__all__ = ["Feasible"]


@dataclass(frozen=True, eq=False)
class Feasible(Certifier):
    """Prove that a frozen network is right on all rows, as a chain of separations, or that no read-out of its bits is.

    The bits of the hidden layers on the rows are the targets. PROVED: every unit separates those of its targets from
    the codes below (its largest sum where it is silent is at most its threshold, its least sum where it fires above
    it), and every label has the one highest score. REFUTED: some rows are wrong, and whole multipliers l >= 0 with
    sum_{i: y_i = c, k} l_ik (h_i, 1) = sum_i l_ic (h_i, 1) for every class c show that with these hidden bits h no
    read-out is right on all rows. UNKNOWN: some rows are wrong, and nothing of the kind is known: a read-out
    may exist, or the solver gave up.

    Parameters
    ----------
    x
        The rows, as codes or numbers.
    y
        Their labels.

    Raises
    ------
    ValueError
        If x and y differ in length, or there are no rows.

    References
    ----------
    Friesen and Domingos 2018, Sec. 3 [friesen2018], feasible targets. Differs: certificates, in whole numbers.

    Examples
    --------
    >>> from hardstep.grid import Grid
    >>> first = Dense(np.array([[1, 1], [1, 1]], np.int8), np.array([[0], [1]]))
    >>> xor = HardNet((2,), Grid(1.0, 0), (first, Dense(np.array([[0, 0], [1, -1]], np.int8), None)))
    >>> corners = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    >>> certificate = Feasible(corners, np.array([0, 1, 1, 0])).certify(xor)
    >>> certificate.claim, certificate.verdict.name
    ('feasible: every unit separates its targets, all 4 rows right', 'PROVED')
    """

    x: NDArray[Any]
    y: NDArray[Any]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or not len(self.y):
            raise ValueError(f"one label a row is needed, and at least one row; got {len(self.x)} and {len(self.y)}")

    def __repr__(self) -> str:
        return f"Feasible({len(self.x)} rows)"

    def certify(self, net: HardNet) -> Certificate:
        """Run the rows through; where some are wrong, ask for a read-out that is right on all."""
        net.check_codes("this certifier")
        bounds, witness = self._measured(net)
        verdict = Verdict.PROVED
        if bounds["right"] < len(self.y):
            bits = _flat(witness[_last(net)])
            answer = self._best_readout(bits, net.layers[-1].out_shape((bits.shape[1],))[0])
            refuted = answer is not None and answer.exact and not answer.separable
            verdict = Verdict.REFUTED if refuted else Verdict.UNKNOWN
            if answer is not None and refuted:
                witness["multipliers"] = _digits(answer.multipliers)
        return Certificate(self._claim, verdict, bounds, witness, {"digest": digest(self.x, self.y)})

    def check(self, certificate: Certificate, net: HardNet) -> bool:
        """Recompute bits, margins and right rows in whole numbers, and the sums of the multipliers; no solver runs."""
        bounds, witness = self._measured(net)
        said, given = dict(certificate.bounds), dict(certificate.witness)
        multipliers = given.pop("multipliers", None)
        same = witness.keys() == given.keys() and all(np.array_equal(given[name], witness[name]) for name in witness)
        if not same or said != bounds or certificate.claim != self._claim:
            return False
        if certificate.context.get("digest") != digest(self.x, self.y):
            return False
        right = bounds["right"] == len(self.y)
        if multipliers is None or right:
            return certificate.verdict is (Verdict.PROVED if right else Verdict.UNKNOWN)
        bits, labels = _flat(witness[_last(net)]), np.asarray(self.y, np.int64)
        shape = net.layers[-1].out_shape((bits.shape[1],))[0], bits.shape[1]
        refusal = Separation(False, np.zeros(shape), np.zeros(shape[0]), 0.0, multipliers=_numbers(multipliers))
        return certificate.verdict is Verdict.REFUTED and check(refusal, bits, labels)

    @property
    def _claim(self) -> str:
        return f"feasible: every unit separates its targets, all {len(self.y)} rows right"

    def _measured(self, net: HardNet) -> tuple[dict[str, int | float], dict[str, NDArray[Any]]]:
        """Return rows, right ones and the least gap of each dense hidden layer; the codes of the hidden layers."""
        codes = net.codes(self.x)
        bounds: dict[str, int | float] = {"rows": len(self.y)}
        witness: dict[str, NDArray[Any]] = {}
        for name, layer, out in zip(_names(net), net.layers, net.trace(self.x), strict=True):
            if isinstance(layer, Dense) and layer.threshold is not None:
                bounds[f"gap of {name}"] = _gap(layer, codes)
            if layer is net.layers[-1]:
                bounds["right"] = int((out.argmax(axis=1) == self.y).sum())
            else:
                witness[f"targets of {name}"] = codes = out
        return bounds, witness

    def _best_readout(self, bits: NDArray[np.int64], classes: int) -> Separation | None:
        """Return what the program of the read-out says, if it is not too large or too hard."""
        try:
            return separate_classes(bits, np.asarray(self.y, np.int64), classes)
        except (ValueError, ArithmeticError):
            return None


def _names(net: HardNet) -> list[str]:
    return [f"layer {i}" for i in range(len(net.layers))]


def _last(net: HardNet) -> str:
    """Return the name of what the read-out reads."""
    return f"targets of layer {len(net.layers) - 2}"


def _flat(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    return codes.reshape(len(codes), -1).astype(np.int64)


def _gap(layer: Dense, codes: NDArray[np.uint8]) -> int:
    """Return the least distance, over units and thresholds, from the largest sum below it to the least above it.

    A threshold that all rows are on one side of does not count; 2^31 where none is left.
    """
    assert layer.threshold is not None
    sums = exact_product(layer.encoding.value(codes), layer.weight)
    least = 2**31
    for j, stairs in enumerate(layer.threshold):
        for stair in stairs:
            above = sums[:, j] > stair
            if above.any() and not above.all():
                least = min(least, int(sums[above, j].min() - sums[~above, j].max()))
    return least


def _digits(numbers: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return whole numbers >= 0 as rows of bytes, the lowest first."""
    width = max(1, -(-max(numbers).bit_length() // 8))
    return np.frombuffer(b"".join(value.to_bytes(width, "little") for value in numbers), np.uint8).reshape(-1, width)


def _numbers(digits: NDArray[np.uint8]) -> tuple[int, ...]:
    """Return the whole numbers of `_digits`."""
    return tuple(int.from_bytes(row.tobytes(), "little") for row in np.ascontiguousarray(digits, np.uint8))
