"""Teachers: what a network is trained towards besides its labels."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's name for it)

from hardstep.data import Data
from hardstep.engine import Engine
from hardstep.hardnet import HardNet

__all__ = ["FrozenTeacher", "Lesson", "Marks", "NoTeacher"]

Marks = Callable[[Float[Tensor, "c*n k"], Float[Tensor, " c*n"]], Float[Tensor, " c*n"]]
"""Takes outputs and losses of the labels, of c copies of a batch below one another; returns all losses."""

Lesson = Callable[[Float[Tensor, "n ..."]], Marks]
"""Takes a batch of samples, as the network sees them; returns what marks the outputs."""

KEPT = 2**19  # samples whose scores a teacher remembers, 100 to 200 bytes each


@dataclass(frozen=True)
class NoTeacher:
    """Learn from the labels alone."""

    def lesson(self, data: Data) -> Lesson:
        """Return what leaves the losses as they are."""
        return lambda x: lambda out, losses: losses


@dataclass(frozen=True)
class FrozenTeacher:
    """Learn from a frozen network: l = (1 - share) l(o, y) + share T² KL(softmax(t/T) | softmax(o/T)).

    The teacher's outputs t are those of its exact integers, times their scale, on each image as the network sees it,
    cropped and mirrored; the engine computes them while training goes on, once for each image that differs (of the
    first half million). A large network with real weights is the usual teacher of one with binary weights; any frozen
    network that takes the same samples can be one.

    Parameters
    ----------
    path
        File of the frozen network: `HardNet.save` wrote it, or `hardstep train` into its run folder.
    temperature
        T > 0; a large one shows more of how the teacher ranks the wrong classes. T² keeps the size of the gradient.
    share
        Weight of the teacher, in (0, 1]; at 1 labels are not read.

    Raises
    ------
    ValueError
        If temperature or share are out of range, the file is no frozen network, or the teacher takes other samples,
        knows other classes, or the targets are numbers.

    References
    ----------
    Hinton, Vinyals, Dean 2015, Sec. 2 [hinton2015]; Liu et al. 2020, the distributional loss [liu2020], for binary
    networks. Differs: the teacher computes in integers; its entropy is subtracted, so that a perfect pupil has loss 0.

    Examples
    --------
    >>> import tempfile
    >>> import hardstep as hs
    >>> data, large, small = hs.data.load("digits"), hs.nets.mlp(64, 200, 10), hs.nets.mlp(64, 16, 10)
    >>> report = hs.fit(large, data, hs.GradientDescent(), sweeps=3, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     hs.freeze(large, calibrate=data.train).save(f"{folder}/large.safetensors")
    ...     method = hs.GradientDescent(teacher=FrozenTeacher(f"{folder}/large.safetensors"))
    ...     report = hs.fit(small, data, method, sweeps=3, progress=False)
    >>> len(report.records)
    3
    """

    path: str = "hardnet.safetensors"
    temperature: float = 2.0
    share: float = 0.9

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be greater than 0, got {self.temperature}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is the teacher's weight, in (0, 1], got {self.share}; NoTeacher() is without one")

    def lesson(self, data: Data) -> Lesson:
        """Load the teacher; return what mixes its losses into those of the labels."""
        if not data.classification:
            raise ValueError("a teacher ranks classes, and these targets are numbers; use NoTeacher()")
        if not Path(self.path).is_file():
            raise ValueError(
                f"there is no frozen network at {self.path!r}; name the file that HardNet.save or `hardstep train` "
                "wrote (hardnet.safetensors in its run folder)"
            )
        hard = HardNet.load(self.path)
        if hard.shape != data.shape:
            raise ValueError(
                f"the teacher {self.path!r} takes samples of shape {hard.shape}, the data have {data.shape}; "
                "train one on these data"
            )
        if (known := hard.rows()[-1].gives[-1]) != data.outputs:
            raise ValueError(
                f"the teacher {self.path!r} knows {known} classes, the data have {data.outputs}; "
                "train one on these data"
            )

        sums = once_each(Engine(hard))

        def taught(x: Tensor) -> Marks:
            told = torch.from_numpy(sums(x.detach().float().cpu().numpy()) * hard.scale)

            def marks(out: Tensor, losses: Tensor) -> Tensor:
                copies = told.to(out).repeat(len(out) // len(told), 1)
                aims, logits = ((each / self.temperature).log_softmax(dim=1) for each in (copies, out))
                apart = F.kl_div(logits, aims, reduction="none", log_target=True).sum(dim=1)
                return (1 - self.share) * losses + self.share * self.temperature**2 * apart

            return marks

        return taught


def once_each(scores: Callable[[NDArray[np.float32]], NDArray[np.int64]]) -> Callable[..., NDArray[np.int64]]:
    """Return a function of rows that asks `scores` for no row of an earlier call, until `KEPT` rows are remembered."""
    known: dict[bytes, NDArray[np.int64]] = {}

    def remembered(x: NDArray[np.float32]) -> NDArray[np.int64]:
        keys = [blake2b(row.tobytes(), digest_size=16).digest() for row in x]
        new = [place for place, key in enumerate(keys) if key not in known]
        found = {keys[place]: row for place, row in zip(new, scores(x[new]) if new else (), strict=True)}
        if len(known) < KEPT:
            known.update(found)
        both = ChainMap(found, known)
        return np.stack([both[key] for key in keys])

    return remembered
