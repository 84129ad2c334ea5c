"""One layer as a case for the benchmarks of speed, and what a peer is."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hardstep.hard_layers import convolve

Run = Callable[[], Any]


class UnsuitedError(ValueError):
    """The peer cannot do this case."""


@dataclass(frozen=True, eq=False)
class Case:
    """One layer: codes x up to `top`, (n, k) or (n, c, h, w); weight (m, k) or (m, c, 3, 3) with padding 1."""

    x: NDArray[np.uint8]
    weight: NDArray[np.int64]
    threshold: NDArray[np.int64]
    top: int = 1

    @property
    def conv(self) -> bool:
        """Whether it is a convolution."""
        return self.x.ndim == 4

    @property
    def operations(self) -> int:
        """Multiplications and additions of one forward, counted apart."""
        return 2 * self.x.size * self.weight.size // self.x.shape[1]

    @cached_property
    def sums(self) -> NDArray[np.int64]:
        """The right sums, (n, m) or (n, m, h, w)."""
        return self.sums_of(self.x)

    @property
    def fires(self) -> NDArray[np.bool_]:
        """Where the sums are above the thresholds."""
        return self.sums > (self.threshold[:, None, None] if self.conv else self.threshold)

    def sums_of(self, x: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the sums of other codes."""
        if self.conv:
            return convolve(x.astype(np.int64), self.weight, (1, 1), (1, 1))
        return convolve(x[..., None, None].astype(np.int64), self.weight[..., None, None], (1, 1), (0, 0))[..., 0, 0]


def made(
    shape: tuple[int, ...], units: int, *, weights: tuple[int, ...] = (-1, 1), top: int = 1, seed: int = 0
) -> Case:
    """A case drawn at random; half of the codes are 0 if top is 1, thresholds near the middle of the sums."""
    generator = np.random.default_rng(seed)
    x = generator.integers(0, top + 1, shape, dtype=np.uint8)
    weight = generator.choice(np.array(weights), (units, shape[1], *[3] * (len(shape) - 2)))
    middle = weight.reshape(units, -1).sum(axis=1) * top // 2
    return Case(x, weight, middle + generator.integers(-9, 10, units), top)


def aligned(a: NDArray[Any]) -> NDArray[Any]:
    """Return a copy that starts on a cache line."""
    raw = np.empty(a.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy: NDArray[Any] = raw[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


class Peer(ABC):
    """One way to compute a layer; `kind` says by which of its operators, `needs` which packages it takes."""

    family: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, kind: str = "", threads: int = 1) -> None:
        self.kind, self.threads = kind, threads
        self.name = f"{self.family} {kind}".strip() + (f", {threads} threads" if threads > 1 else "")

    def available(self) -> str | None:
        """Return why it cannot be used, None if it can."""
        for package in self.needs:
            try:
                importlib.import_module(package)
            except ImportError as error:
                return f"{package} is not installed ({error})"
        return None

    def version(self) -> str:
        """Return the version in use."""
        return version(self.needs[-1])

    def expected(self, case: Case) -> NDArray[Any]:
        """Return what a forward should give, in its own terms."""
        return case.sums

    def read(self, given: Any) -> NDArray[Any]:
        """Return as an array what a forward gave."""
        return np.asarray(given)

    @abstractmethod
    def prepare(self, case: Case) -> Run:
        """Return what does one forward of the case; raise UnsuitedError if it cannot."""

    def require(self, met: bool, what: str) -> None:
        """Raise UnsuitedError unless the condition is met."""
        if not met:
            raise UnsuitedError(f"{self.name} {what}")
