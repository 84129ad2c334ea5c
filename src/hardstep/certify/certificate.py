"""Certificate and Certifier: a claim, a verdict, and data that another program can check again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hardstep.hardnet import HardNet
from hardstep.storage import read_arrays, write_arrays

__all__ = ["Certificate", "Certifier", "Verdict"]


class Verdict(Enum):
    """What a proof procedure found."""

    PROVED = "PROVED"
    REFUTED = "REFUTED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, eq=False)
class Certificate:
    """A claim about a network, what was found, and the data behind it.

    Parameters
    ----------
    claim
        The claim in words, with its numbers.
    verdict
        PROVED, REFUTED or UNKNOWN.
    bounds
        Numbers that carry the proof, by name.
    witness
        Arrays that carry a proof or a refutation, by name.
    context
        What else the claim is about, as text and plain numbers: the kind of proof, a digest of the data.
    """

    claim: str
    verdict: Verdict
    bounds: Mapping[str, int | float] = field(default_factory=dict)
    witness: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    context: Mapping[str, str | int | float] = field(default_factory=dict)

    def save(self, path: Path | str) -> None:
        """Write the certificate as one safetensors file, whole or not at all."""
        head = {"claim": self.claim, "verdict": self.verdict.value, "bounds": dict(self.bounds), **self.context}
        write_arrays(Path(path), self.witness, head, "certificate")

    @classmethod
    def load(cls, path: Path | str) -> Certificate:
        """Read a certificate back.

        Raises
        ------
        ValueError
            If the file is damaged or of another kind.
        """
        arrays, head = read_arrays(Path(path), "certificate")
        claim, verdict, bounds = head.pop("claim"), Verdict(head.pop("verdict")), head.pop("bounds")
        return cls(claim, verdict, bounds, arrays, head)


class Certifier(ABC):
    """A proof procedure: a frozen dataclass of what to prove.

    `certify` may search as it likes; `check` must not trust it and works from the certificate's own data.
    """

    @abstractmethod
    def certify(self, net: HardNet) -> Certificate:
        """Try to prove the claim of a network."""

    @abstractmethod
    def check(self, certificate: Certificate, net: HardNet) -> bool:
        """Return whether the certificate's verdict follows from its own data and the network."""
