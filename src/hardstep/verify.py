"""Verify that every form of a network equals the NumPy reference, bit for bit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer
from numpy.typing import NDArray

from hardstep import bits
from hardstep.hardnet import HardNet

__all__ = ["Check", "Verification", "packed_product", "verify"]

Form = Callable[[NDArray[Any]], NDArray[Any]]
"""A deployed form: samples to integer scores."""


@dataclass(frozen=True)
class Check:
    """One form against the reference: on how many samples, and how many of them gave other scores or labels."""

    form: str
    rows: int
    scores_differing: int
    labels_differing: int
    exact: bool
    """Whether the form must give the same integers; a float network need not."""

    @property
    def ok(self) -> bool:
        """Whether the form does what it must."""
        return not self.exact or self.scores_differing == 0


@dataclass(frozen=True)
class Verification:
    """All checks of one `verify`; true if every exact form equals the reference."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every form does what it must."""
        return all(check.ok for check in self.checks)

    def __bool__(self) -> bool:
        return self.ok


def verify(
    hard: HardNet, x: Any, *, forms: Mapping[str, Form] | None = None, floats: Mapping[str, Form] | None = None
) -> Verification:
    """Compare every form of a frozen network with its NumPy reference on samples.

    Always checked: the network as written to a file and read back, and the packed evaluation (bit planes and
    popcount in place of the matrix product; on the first 64 samples).

    Parameters
    ----------
    x
        Samples: codes (uint8) or numbers; anything NumPy can read, such as a torch tensor.
    forms
        Further forms that must give the same integer scores, by name.
    floats
        Forms whose labels are counted against the reference's without having to be equal, such as the float
        network before rounding.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hard = hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=data.train)
    >>> [check.scores_differing for check in verify(hard, data.test.x).checks]
    [0, 0]
    """
    x = np.asarray(x)
    if len(x) == 0:
        raise ValueError("verify compares on samples and got none; pass at least one")
    wanted = hard(x)
    with tempfile.TemporaryDirectory() as folder:
        hard.save(Path(folder) / "net")
        copy = HardNet.load(Path(folder) / "net")
    checks = [
        _check("file", wanted, copy(x), exact=True),
        _check("packed bits", wanted[:64], hard(x[:64], product=packed_product), exact=True),
    ]
    checks += [_check(name, wanted, form(x), exact=True) for name, form in (forms or {}).items()]
    checks += [_check(name, wanted, form(x), exact=False) for name, form in (floats or {}).items()]
    return Verification(tuple(checks))


def packed_product(values: Int64[np.ndarray, "n d"], weight: Integer[np.ndarray, "k d"]) -> Int64[np.ndarray, "n k"]:
    """Multiply integer matrices through bit planes and popcount: the reference of every packed engine.

    Values are shifted to start at 0, acc = sum_d (v + s) w - s sum_d w, and cut into unsigned planes.
    """
    shift = max(0, -int(values.min(initial=0)))
    unsigned = values + shift
    x = bits.to_planes(unsigned, bits.width(unsigned, signed=False))
    w = bits.to_planes(weight, bits.width(weight, signed=True))
    sums: NDArray[np.int64] = bits.dot(x, w) - shift * weight.astype(np.int64).sum(axis=1)
    return sums


def _check(name: str, wanted: NDArray[np.int64], got: NDArray[Any], *, exact: bool) -> Check:
    """Count the rows in which two score matrices differ."""
    if got.shape != wanted.shape:
        raise ValueError(f"form {name!r} gave scores of shape {got.shape}, the reference {wanted.shape}")
    scores = int((got != wanted).any(axis=1).sum()) if exact else 0
    labels = int((got.argmax(axis=1) != wanted.argmax(axis=1)).sum())
    return Check(name, len(wanted), scores, labels, exact)
