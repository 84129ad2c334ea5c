"""Penalties on groups of weights: rows, columns, machine words; any scalar penalty on the groups' norms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from hardstep.penalties import L0, Penalty, not_negative

__all__ = ["Columns", "Grouped", "Layout", "Rows", "SparseGroupL0", "Words"]


class Layout(ABC):
    """A way to divide the weights (out, in) or (out, in, kh, kw) of a layer into groups.

    Weights of one dimension are groups of one.
    """

    @abstractmethod
    def split(self, w: Float[Tensor, "*n"]) -> Float[Tensor, "g m"]:
        """Return one group a row, short ones filled up with zeros."""

    @abstractmethod
    def join(self, groups: Float[Tensor, "g m"], w: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Put groups back into the form of w."""

    @abstractmethod
    def sizes(self, w: Float[Tensor, "*n"]) -> Float[Tensor, " g"]:
        """Return the number of weights in each group."""


@dataclass(frozen=True)
class Rows(Layout):
    """The incoming weights of each unit, of a convolution: its filters.

    Rows of unit norm are all alike to a group penalty; units are rather removed by the `Columns` of the layer above.

    Examples
    --------
    >>> Rows().split(torch.zeros(8, 3, 5, 5)).shape
    torch.Size([8, 75])
    """

    def split(self, w: Float[Tensor, "*n"]) -> Float[Tensor, "g m"]:
        """Return one row or filter a group."""
        return w.flatten(1) if w.ndim > 1 else w.reshape(-1, 1)

    def join(self, groups: Float[Tensor, "g m"], w: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Put rows back."""
        return groups.reshape(w.shape)

    def sizes(self, w: Float[Tensor, "*n"]) -> Float[Tensor, " g"]:
        """Return the fan-in, for each row."""
        return w.new_full((len(w),), w[0].numel()) if w.ndim > 1 else torch.ones_like(w).reshape(-1)


@dataclass(frozen=True)
class Columns(Layout):
    """The outgoing weights of each unit below: all weights that read it, of a convolution all of an input channel.

    Where all of them are 0 the unit is not needed, and `simplify` and `shrink` delete it exactly.

    Parameters
    ----------
    span
        How many neighbouring columns make one group; where a convolution's channels are flattened before a linear
        layer, the number of positions of a channel.

    Examples
    --------
    >>> Columns().split(torch.zeros(8, 3, 5, 5)).shape
    torch.Size([3, 200])
    """

    span: int = 1

    def __post_init__(self) -> None:
        if self.span < 1:
            raise ValueError(f"span is a number of columns and must be at least 1, got {self.span}")

    def split(self, w: Float[Tensor, "*n"]) -> Float[Tensor, "g m"]:
        """Return one column or input channel a group."""
        if w.ndim < 2:
            return w.reshape(-1, 1)
        if w.shape[1] % self.span:
            raise ValueError(f"a weight of shape {tuple(w.shape)} has no groups of span={self.span} columns")
        return w.transpose(0, 1).reshape(w.shape[1] // self.span, -1)

    def join(self, groups: Float[Tensor, "g m"], w: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Put columns back."""
        return groups.reshape(w.shape) if w.ndim < 2 else groups.reshape(w.transpose(0, 1).shape).transpose(0, 1)

    def sizes(self, w: Float[Tensor, "*n"]) -> Float[Tensor, " g"]:
        """Return the number of weights that read each unit."""
        groups = w.numel() if w.ndim < 2 else w.shape[1] // self.span
        return w.new_full((groups,), w.numel() // max(groups, 1))


@dataclass(frozen=True)
class Words(Layout):
    """Machine words: runs of `bits` weights of a row in the order in which `HardNet` packs them; the last may be short.

    A packed kernel skips a word only if all its weights are 0. Convolutions are packed position by position, channels
    innermost.

    Parameters
    ----------
    bits
        Weights of a word, >= 1; 32 or 64 on today's machines.

    Examples
    --------
    >>> Words(64).split(torch.zeros(8, 100)).shape
    torch.Size([16, 64])
    """

    bits: int = 64

    def __post_init__(self) -> None:
        if self.bits < 1:
            raise ValueError(f"bits is the length of a word and must be at least 1, got {self.bits}")

    def split(self, w: Float[Tensor, "*n"]) -> Float[Tensor, "g m"]:
        """Return one word a group."""
        if w.ndim < 2:
            return w.reshape(-1, 1)
        rows = self._packed(w).reshape(len(w), -1)
        return torch.nn.functional.pad(rows, (0, -rows.shape[1] % self.bits)).reshape(-1, self.bits)

    def join(self, groups: Float[Tensor, "g m"], w: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Put words back."""
        if w.ndim < 2:
            return groups.reshape(w.shape)
        packed = self._packed(w)
        rows = groups.reshape(len(w), -1)[:, : w.numel() // len(w)]
        return rows.reshape(packed.shape).movedim(-1, 1) if w.ndim > 2 else rows

    def sizes(self, w: Float[Tensor, "*n"]) -> Float[Tensor, " g"]:
        """Return the length of each word."""
        if w.ndim < 2:
            return torch.ones_like(w).reshape(-1)
        fan_in = w.numel() // len(w)
        words = -(-fan_in // self.bits)
        sizes = w.new_full((len(w), words), self.bits)
        sizes[:, -1] = fan_in - self.bits * (words - 1)
        return sizes.flatten()

    def _packed(self, w: Tensor) -> Tensor:
        return w.movedim(1, -1) if w.ndim > 2 else w


@dataclass(frozen=True)
class Grouped(Penalty):
    """A scalar penalty on the Euclidean norms of groups: P(w) = sum_g q_g inner(|w_g|), radial prox.

    prox scales each group, w_g = v_g inner.prox(|v_g|, q_g step)/|v_g|. The weight q_g is the root of the size of the
    group where `inner` is a norm (`L1`: the group lasso; `TransformedL1`), else 1 (`L0`: l2,0; `Cardinality`: at
    most so many groups).

    Parameters
    ----------
    inner
        The penalty on the norms.
    layout
        What the groups are.

    References
    ----------
    Yuan and Lin 2006 [yuan2006], the group lasso; Zhang et al. 2023 [zhang2023] penalise by l2,0; Dinh et al. 2020,
    Eq. (6) [dinh2020]. Differs: any scalar penalty and any layout.

    Examples
    --------
    >>> Grouped(L0(0.5), Columns()).prox(torch.tensor([[3.0, 0.1], [4.0, 0.1]]), step=1.0)
    tensor([[3., 0.],
            [4., 0.]])
    """

    inner: Penalty = field(default_factory=L0)
    layout: Layout = field(default_factory=Columns)

    @property
    def convex(self) -> bool:
        """Whether the penalty on the norms is."""
        return self.inner.convex

    @property
    def separable(self) -> bool:
        """Whether the penalty on the norms is."""
        return self.inner.separable

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return the weighted sum over groups."""
        norms, sizes = self.norms(w), self.layout.sizes(w)
        if not self.inner.norm:
            return self.inner.value(norms)
        each = [size**0.5 * self.inner.value(norms[sizes == size]) for size in set(sizes.tolist())]
        return torch.stack(each).sum() if each else w.new_zeros(())

    def prox(self, v: Float[Tensor, "*n"], step: float | Tensor) -> Float[Tensor, "*n"]:
        """Scale each group by what the inner prox makes of its norm."""
        norms, sizes = self.norms(v), self.layout.sizes(v)
        moved = self.inner.prox(norms, step * sizes.sqrt() if self.inner.norm else step)
        scale = moved / torch.where(norms > 0, norms, 1.0)  # 0 where a norm underflows before its entries do
        scale = torch.where((moved == norms) & (norms > 0), 1.0, scale)
        return self.layout.join(self.layout.split(v) * scale[:, None], v)

    def eased(self, share: float) -> Grouped:
        """Return it with the inner penalty eased."""
        return replace(self, inner=self.inner.eased(share))

    def norms(self, w: Float[Tensor, "*n"]) -> Float[Tensor, " g"]:
        """Return the Euclidean norm of each group."""
        return self.layout.split(w).square().sum(dim=1).sqrt()


@dataclass(frozen=True)
class SparseGroupL0(Penalty):
    """A price for each nonzero weight and one for each group that has any: P = entry |w|_0 + group |w|_2,0, exact prox.

    With h the hard thresholding of v at sqrt(2 step entry), a group keeps h if |h_g|²/2 - step entry |h_g|_0 > step
    group, else it is 0.

    Parameters
    ----------
    entry
        Price of a nonzero weight, >= 0.
    group
        Price of a group that is not 0, >= 0.
    layout
        What the groups are.

    Examples
    --------
    >>> SparseGroupL0(0.5, 2.0, Rows()).prox(torch.tensor([[3.0, 0.1], [1.5, 0.1]]), step=1.0)
    tensor([[3., 0.],
            [0., 0.]])
    """

    entry: float = 1e-4
    group: float = 1e-3
    layout: Layout = field(default_factory=Columns)
    convex = False

    def __post_init__(self) -> None:
        not_negative("entry", self.entry)
        not_negative("group", self.group)

    def value(self, w: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return the price of all entries and groups."""
        nonzero = self.layout.split(w) != 0
        return self.entry * nonzero.sum().to(w.dtype) + self.group * nonzero.any(dim=1).sum().to(w.dtype)

    def prox(self, v: Float[Tensor, "*n"], step: float | Tensor) -> Float[Tensor, "*n"]:
        """Threshold the entries, then drop the groups that are not worth their price."""
        hard = self.layout.split(L0(self.entry).prox(v, step))
        gain = 0.5 * hard.square().sum(dim=1) - self.entry * step * (hard != 0).sum(dim=1)
        return self.layout.join(hard * (gain > self.group * step)[:, None], v)

    def eased(self, share: float) -> SparseGroupL0:
        """Return it with this share of both thresholds."""
        return replace(self, entry=share**2 * self.entry, group=share**2 * self.group)
