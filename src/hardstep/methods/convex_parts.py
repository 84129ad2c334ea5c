"""What `ConvexTraining` stands on: rows and targets for the convex programs, ranks, and the way into the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64
from numpy.typing import NDArray
from torch import Tensor

from hardstep import losses
from hardstep.chain import Affine
from hardstep.convex import data_terms
from hardstep.convex.data_terms import DataTerm
from hardstep.convex.oracles import Found, Search, ranked
from hardstep.convex.patterns import patterns
from hardstep.convex.pool import Pool
from hardstep.convex.sliding import Rows
from hardstep.fit import Work
from hardstep.losses import Loss
from hardstep.parts import batches

__all__ = ["Team", "bits_lost", "data_term", "pass_through", "read_rows", "write"]

Array = NDArray[Any]
BLOCK = 50  # half-spaces that one rank searches for at a time, where a search proves nothing
CHUNK = 8192  # rows whose bits are computed at a time


@dataclass(frozen=True)
class Team:
    """The ranks of a fit as the convex programs see them: NumPy in, NumPy out.

    Every rank holds all rows and all packed columns. Shared are the products with the rows: bits and moves by rows,
    searches that prove nothing by blocks of half-spaces; restricted programs are solved on every rank from the same
    numbers, so that all ranks go the same way.
    """

    work: Work

    @property
    def rank(self) -> int:
        """Number of this rank."""
        return self.work.fabric.global_rank

    @property
    def ranks(self) -> int:
        """How many there are."""
        return self.work.fabric.world_size

    def add(self, part: Array) -> Array:
        """Sum an array over all ranks."""
        if self.ranks == 1:
            return part
        total: Array = self.work.sum(torch.from_numpy(np.array(part)).to(self.work.fabric.device)).cpu().numpy()
        return total

    def bits(self, x: Float64[np.ndarray, "n d"], planes: Float64[np.ndarray, "k d1"]) -> Bool[np.ndarray, "n k"]:
        """Return the patterns of planes; each rank computes those of its chunks of rows."""
        out = np.zeros((len(x), len(planes)), np.uint8)
        for i in range(self.rank * CHUNK, len(x), self.ranks * CHUNK):
            out[i : i + CHUNK] = patterns(x[i : i + CHUNK], planes)
        return self.add(out).astype(bool)

    def find(self, search: Search, x: Array, v: Array, count: int, *, shared: bool) -> Found:
        """Return what a search finds, its half-spaces shared out in blocks where that is allowed.

        A block is the work of one rank whatever their number, so that one rank and many find the same.
        """
        if not shared:
            return search.find(v, count, self.generator("search"))
        blocks = -(-count // BLOCK)
        planes = np.zeros((count, x.shape[1] + 1))
        for i in range(self.rank, blocks, self.ranks):
            size = min(BLOCK, count - i * BLOCK)
            found = search.find(v, size, self.generator(f"search {i}")).planes
            planes[i * BLOCK : i * BLOCK + len(found)] = found
        return ranked(x, self.add(planes), v, count, np.inf)

    def rows(self, x: Float64[np.ndarray, "n d"], y: Float64[np.ndarray, "n c"], like: Tensor) -> Rows:
        """Return the rows for sliding, in the precision of the network."""
        alone = Rows.centred(x, y, np.float64 if like.dtype == torch.float64 else np.float32)
        return Rows(alone.x, alone.y, alone.centre, self.rank, self.ranks, self.add)

    def generator(self, purpose: str) -> np.random.Generator:
        """Return a generator fixed by seed, sweep and purpose."""
        return np.random.default_rng(self.work.generator(purpose).initial_seed())


def read_rows(work: Work, loss: Loss, outputs: int) -> tuple[Float64[np.ndarray, "n d"], DataTerm, Array]:
    """Return the training rows without bias column, the data term of a loss and its targets."""
    part = work.data.train
    x, y = next(iter(batches(part, [torch.arange(len(part))])))
    term, targets = data_term(loss, y, outputs)
    return x.flatten(1).numpy().astype(np.float64), term, targets


def data_term(loss: Loss, y: Tensor, outputs: int) -> tuple[DataTerm, Float64[np.ndarray, "n c"]]:
    """Return the convex data term of one of the library's losses, and the targets as it takes them.

    Raises
    ------
    ValueError
        If the loss has no convex data term here, or the targets do not fit it.
    """
    loss.value(torch.zeros(len(y), outputs), y)  # its own errors for targets that do not fit
    if type(loss) not in TERMS:
        known = ", ".join(kind.__name__ for kind in TERMS)
        raise ValueError(f"the convex program knows the data terms {known}, not {loss!r}; take one of these")
    return TERMS[type(loss)](loss, y, outputs)


def _squared(loss: Any, y: Tensor, outputs: int) -> tuple[DataTerm, Array]:
    term = data_terms.Squared()
    return term, term.targets(y.numpy() if y.is_floating_point() else np.eye(outputs)[y.numpy()])


def _squared_hinge(loss: Any, y: Tensor, outputs: int) -> tuple[DataTerm, Array]:
    term = data_terms.SquaredHinge(outputs)
    return term, 2.0 * np.eye(outputs)[y.numpy()] - 1.0


def _multinomial(loss: Any, y: Tensor, outputs: int) -> tuple[DataTerm, Array]:
    term = data_terms.Multinomial(outputs)
    return term, term.targets(y.numpy()) * (1 - loss.smoothing) + loss.smoothing / outputs


TERMS: Mapping[type[Loss], Callable[[Any, Tensor, int], tuple[DataTerm, Array]]] = {
    losses.Squared: _squared,
    losses.SquaredHinge: _squared_hinge,
    losses.CrossEntropy: _multinomial,
}


def pass_through(inputs: int, dtype: type[np.floating[Any]] = np.float64) -> Float64[np.ndarray, "d d1"]:
    """Return half-spaces that hand each input bit on: 2 a_j - 1 > 0.

    Examples
    --------
    >>> pass_through(2)
    array([[ 2.,  0., -1.],
           [ 0.,  2., -1.]])
    """
    return np.concatenate([2 * np.eye(inputs, dtype=dtype), np.full((inputs, 1), -1, dtype)], axis=1)


def write(layers: Sequence[Affine], lower: Sequence[Array], pool: Pool) -> None:
    """Put the layers below, the units of a pool that have amplitudes, and the read-out into the network.

    Layers above hand the units' bits on; units that are left over are off on every input.
    """
    used = pool.keep(pool.active)
    count = len(used)
    above = len(layers) - 2 - len(lower)
    planes = [*lower, used.planes, *[pass_through(count)] * above]
    for layer, matrix in zip(layers, planes, strict=False):
        weight = layer.linear.weight
        whole = weight.new_zeros(weight.shape[0], weight.shape[1] + 1)
        whole[: len(matrix), : matrix.shape[1] - 1] = torch.from_numpy(matrix[:, :-1]).to(whole)
        whole[: len(matrix), -1] = torch.from_numpy(matrix[:, -1]).to(whole)
        layer.write(whole)
    readout = layers[-1].linear.weight
    whole = readout.new_zeros(readout.shape[0], readout.shape[1] + 1)
    whole[:, :count] = torch.from_numpy(used.u.T).to(whole)
    whole[:, -1] = torch.from_numpy(used.intercept).to(whole)
    layers[-1].write(whole)


@torch.no_grad()
def bits_lost(layer: Affine, pool: Pool, x: Float64[np.ndarray, "n d"]) -> int:
    """Return how many bits of the units of a pool are others in the network, which rounds in its own way."""
    used = pool.design.take(pool.active).unpack()
    lost = 0
    for i in range(0, len(x), CHUNK):
        z = layer.linear(torch.from_numpy(x[i : i + CHUNK]).to(layer.linear.weight))
        z = z if layer.norm is None else layer.norm.eval()(z)
        lost += int(((z > 0)[:, : used.shape[1]].cpu().numpy() != used[i : i + CHUNK]).sum())
    return lost
