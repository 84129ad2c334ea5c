"""How far a frozen network is from the best read-out of its bits: the certificate and the data to check it again."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from hardstep.certify.certificate import Certificate
from hardstep.certify.optimality import Optimality, read_units
from hardstep.convex.data_terms import Multinomial, Squared
from hardstep.data import Data
from hardstep.hardnet import HardNet
from hardstep.storage import write_bytes

__all__ = ["prove_optimality"]


def prove_optimality(
    hard: HardNet,
    data: Data,
    folder: Path,
    *,
    beta: float = 1e-3,
    gap: float | None = None,
    layers: int = 1,
    rows: int = 1000,
) -> Certificate:
    """Certify the last layers on the first training rows; write optimality.safetensors and optimality.npz.

    The second file holds what `python -m hardstep.certify.check_optimality CERTIFICATE DATA` needs.

    Parameters
    ----------
    beta
        Price of an amplitude per row.
    gap, layers
        Of `Optimality`; None is the smallest gap that is found.

    Raises
    ------
    ValueError
        If the network has not the form of which there is a proof.
    """
    x, y = (part.numpy() for part in data.train.take(list(range(min(rows, len(data.train))))))
    term = Multinomial(data.outputs) if data.classification else Squared()
    certificate = Optimality(x, y, beta * len(x), term, gap=gap, layers=layers).certify(hard)
    certificate.save(folder / "optimality.safetensors")
    buffer = BytesIO()
    np.savez(buffer, x=read_units(hard, x, layers=layers)[0], y=y)
    write_bytes(folder / "optimality.npz", buffer.getvalue())
    return certificate
