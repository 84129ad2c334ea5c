"""What a peer is: one way to do a task, which says whether it is there, what it should give and what it gave."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Peer", "Ready", "Run", "Task", "UnsuitedError", "aligned", "ready"]

Run = Callable[[], Any]


class UnsuitedError(ValueError):
    """The peer cannot do this task."""


@runtime_checkable
class Task(Protocol):
    """What is to be computed: a layer or a network, with its inputs."""

    @property
    def sums(self) -> NDArray[np.int64]:
        """What is right."""


T_contra = TypeVar("T_contra", bound=Task, contravariant=True)


class Peer(ABC, Generic[T_contra]):
    """One way to compute a task; `kind` says by which of its operators, `needs` which packages it takes."""

    family: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    install: ClassVar[str] = ""

    def __init__(self, kind: str = "", threads: int = 1) -> None:
        self.kind, self.threads = kind, threads
        self.label = f"{self.family} {kind}".strip()
        self.name = self.label + (f", {threads} threads" if threads > 1 else "")

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

    def expected(self, task: T_contra) -> NDArray[Any]:
        """Return what a forward should give, in its own terms."""
        return task.sums

    def read(self, given: Any, task: T_contra) -> NDArray[Any]:
        """Return as an array what a forward gave."""
        return np.asarray(given)

    @abstractmethod
    def prepare(self, task: T_contra) -> Run:
        """Return what does one forward of the task; raise UnsuitedError if it cannot."""

    def require(self, met: bool, what: str) -> None:
        """Raise UnsuitedError unless the condition is met."""
        if not met:
            raise UnsuitedError(f"{self.name} {what}")


class Ready(NamedTuple):
    """Forwards by name of the peer, how many of the outputs of each are wrong, and why other peers have none."""

    runs: dict[str, Run]
    wrong: dict[str, int]
    refused: dict[str, str]


def ready(task: T_contra, several: Sequence[Peer[T_contra]]) -> Ready:
    """Return the forwards of those that can do the task, each checked once; absent ones are left out."""
    found = Ready({}, {}, {})
    for peer in several:
        if peer.available() is None:
            try:
                run = peer.prepare(task)
            except UnsuitedError as error:
                found.refused[peer.name] = str(error)
                continue
            found.runs[peer.name] = run
            found.wrong[peer.name] = int((peer.read(run(), task) != peer.expected(task)).sum())
    return found


def aligned(a: NDArray[Any]) -> NDArray[Any]:
    """Return a copy that starts on a cache line."""
    raw = np.empty(a.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy: NDArray[Any] = raw[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy
