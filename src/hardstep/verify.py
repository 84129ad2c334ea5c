"""Verify that every form of a network equals the NumPy reference, bit for bit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer
from numpy.typing import NDArray

from hardstep import bits
from hardstep.engine import Engine, available_isas
from hardstep.export.forms import Factory, Form, export_forms, trouble
from hardstep.export.plan import Kernel
from hardstep.hard_layers import Dense, Flatten
from hardstep.hardnet import HardNet

__all__ = ["Check", "Verification", "packed_product", "verify"]

SLOW = {"packed bits": 64, "Verilog": 64}  # forms that see the first samples only


@dataclass(frozen=True)
class Check:
    """One form against the reference: on how many samples, and how many of them gave other scores or labels."""

    form: str
    rows: int
    scores_differing: int
    labels_differing: int
    exact: bool
    """Whether the form must give the same integers; a float network need not."""
    first: str = ""
    """The first difference: the sample, and the layer and unit where it begins if that could be found."""
    refused: str = ""
    """Why the form was not made: a network that it cannot hold exactly."""

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
    hard: HardNet,
    x: Any,
    *,
    forms: Mapping[str, Form] | None = None,
    floats: Mapping[str, Form] | None = None,
    factories: Mapping[str, Factory] | None = None,
    seed: int = 0,
) -> Verification:
    """Compare every form of a frozen network with its NumPy reference, on samples and on inputs that look for trouble.

    Checked are: the network as written to a file and read back; the packed evaluation (bit planes and popcount; on
    the first 64 samples); the engine under every instruction set, by each family of kernels, on one thread
    and two; and every export that can run here: C by the compiler, ONNX in ONNX Runtime, Verilog in a simulator (on
    64 samples). An export that cannot hold the network exactly refuses it; the check says why and counts as none.
    Where a form differs, networks cut off after each layer say in which layer and unit that begins.

    Parameters
    ----------
    x
        Samples: codes (uint8) or numbers; anything NumPy can read, such as a torch tensor. Extremes, noise, ties (sums
        on a threshold) are added; all inputs of a network where there are at most 2^16.
    forms
        Further forms that must give the same integer scores, by name.
    floats
        Forms whose labels are counted against the reference's without having to be equal, such as the float
        network before rounding; on the given samples only.
    factories
        The exports to make, in place of all that can run here; {} for none.
    seed
        Source of the added inputs.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hard = hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=data.train)
    >>> result = verify(hard, data.test.x, factories={})
    >>> result.ok, [check.form for check in result.checks][:2]
    (True, ['file', 'packed bits'])
    """
    given = np.asarray(x)
    if len(given) == 0:
        raise ValueError("verify compares on samples and got none; pass at least one")
    codes = np.concatenate([hard.codes(given), trouble(hard, seed)])
    wanted = hard(codes)
    makers = {**_built_in(), **(export_forms() if factories is None else factories)}
    checks = [_checked(name, make, hard, codes, wanted) for name, make in makers.items()]
    checks += [_compare(name, wanted, form(codes), exact=True) for name, form in (forms or {}).items()]
    rows = wanted[: len(given)]
    checks += [_compare(name, rows, form(given), exact=False) for name, form in (floats or {}).items()]
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


def _built_in() -> dict[str, Factory]:
    """Return the forms that need nothing but the library and its runtime."""

    def from_file(hard: HardNet) -> Form:
        with tempfile.TemporaryDirectory() as folder:
            hard.save(Path(folder) / "net")
            return HardNet.load(Path(folder) / "net")

    def packed(hard: HardNet) -> Form:
        return lambda x: hard(x, product=packed_product)

    def engine(isa: str, only: str, threads: int) -> Factory:
        def make(hard: HardNet) -> Form:
            made = Engine(hard, isa=isa, only=only, threads=threads)
            if made.reason:
                raise ValueError(made.reason)
            return made

        return make

    found: dict[str, Factory] = {"file": from_file, "packed bits": packed}
    for isa in available_isas():
        for kernel in Kernel:
            found[f"engine, {isa}, {kernel.value}"] = engine(isa, kernel.value, 1)
    if available_isas():
        found["engine, two threads"] = engine(available_isas()[-1], "", 2)
    return found


def _checked(name: str, make: Factory, hard: HardNet, codes: NDArray[np.uint8], wanted: NDArray[np.int64]) -> Check:
    """Make a form and compare it; where it differs, find the layer."""
    rows = SLOW.get(name, len(codes))
    try:
        form = make(hard)
    except ValueError as error:
        return Check(name, 0, 0, 0, True, refused=str(error))
    got = form(codes[:rows])
    check = _compare(name, wanted[:rows], got, exact=True)
    if check.ok:
        return check
    row = int((got != wanted[:rows]).any(axis=1).argmax())
    return replace(check, first=f"{check.first}; {_where(make, hard, codes[row : row + 1])}")


def _where(make: Factory, hard: HardNet, x: NDArray[np.uint8]) -> str:
    """Return the first layer and unit whose code differs on one sample, by networks cut off there."""
    for i, cut in _cuts(hard):
        try:
            got, wanted = make(cut)(x)[0], cut(x)[0]
        except ValueError as error:
            return f"a network cut off after layer {i} is refused ({error})"
        if (got != wanted).any():
            unit = int((got != wanted).argmax())
            return f"begins in layer {i}, unit {unit}: code {got[unit]}, reference {wanted[unit]}"
    return "all codes before the read-out are equal"


def _cuts(hard: HardNet) -> Iterator[tuple[int, HardNet]]:
    """Yield the network cut off after each hidden layer, with the codes as its scores."""
    shape = hard.shape
    for i, layer in enumerate(hard.layers[:-1]):
        shape = layer.out_shape(shape)
        tail = () if len(shape) == 1 else (Flatten(),)
        eye = Dense(np.eye(prod(shape), dtype=np.int8), None, bias=np.zeros(prod(shape), np.int64))
        if not isinstance(layer, Flatten):
            yield i, replace(hard, layers=(*hard.layers[: i + 1], *tail, eye))


def _compare(name: str, wanted: NDArray[np.int64], got: NDArray[Any], *, exact: bool) -> Check:
    """Count the rows in which two score matrices differ."""
    if got.shape != wanted.shape:
        raise ValueError(f"form {name!r} gave scores of shape {got.shape}, the reference {wanted.shape}")
    differs = (got != wanted).any(axis=1) if exact else np.zeros(len(wanted), bool)
    labels = int((got.argmax(axis=1) != wanted.argmax(axis=1)).sum())
    first = ""
    if differs.any():
        row = int(differs.argmax())
        j = int((got[row] != wanted[row]).argmax())
        first = f"sample {row}, score {j}: {got[row, j]}, reference {wanted[row, j]}"
    return Check(name, len(wanted), int(differs.sum()), labels, exact, first)
