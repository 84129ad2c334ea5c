"""Pruning of units: a smaller network from a trained one, its remaining weights fitted again in closed form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from hardstep.chain import chain, run, with_ones
from hardstep.closed_form import bias_free, inverse, margin_residual, proximal_ridge, ridge
from hardstep.data import Data
from hardstep.parts import Part, batches

__all__ = [
    "BackwardElimination",
    "ColumnNorm",
    "ColumnsL20",
    "RowsL20",
    "UnitChoice",
    "Units",
    "backward_elimination",
    "prune_units",
]

BATCH = 2000  # rows

Moments = Callable[[list[Tensor], list[Tensor]], list[Tensor]]
Means = Callable[[Moments], list[Tensor]]


@dataclass(frozen=True, eq=False)
class Units:
    """What is known of the units of a layer when some of them are chosen.

    Parameters
    ----------
    readers
        The weights that read the units, with the bias as last column; rows scaled by their effect on the layer above.
    gram
        Mean of a a' over the rows, a the bits of the units with a one appended.
    strength
        Ridge of each column in the fit of what remains, 0 for the bias.
    gains
        By how much 1/2 (u - w'x)² falls if a unit keeps its weights w instead of 0; u its pre-activation, moved out
        of the margin of 1.
    """

    readers: Float64[Tensor, "k h_and_1"]
    gram: Float64[Tensor, "h_and_1 h_and_1"]
    strength: Float64[Tensor, " h_and_1"]
    gains: Float64[Tensor, " h"]


class UnitChoice(ABC):
    """A rule by which the units that stay are chosen."""

    @abstractmethod
    def choose(self, units: Units, keep: int) -> Int64[Tensor, " keep"]:
        """Return the indices of the units that stay, in rising order."""


@dataclass(frozen=True)
class BackwardElimination(UnitChoice):
    """Columns l2,0, greedily: drop the unit whose loss costs least after the others are fitted again, and repeat.

    Each drop is exact (`backward_elimination`). Since every reader shares the Gram matrix of the bits, the
    price of a unit is |w_k|²/(2 R_kk), R the inverse of that matrix: groups weighted by their effect, not by size.

    References
    ----------
    Hassibi and Stork 1992 [hassibi1992], the price of a single weight; here of a column, on the layer's own outputs.
    """

    def choose(self, units: Units, keep: int) -> Int64[Tensor, " keep"]:
        """Return the units that are left when all others have been dropped."""
        cross = units.readers @ units.gram
        left, _ = backward_elimination(units.gram, cross, units.strength, keep)
        return left


@dataclass(frozen=True)
class ColumnsL20(UnitChoice):
    """Columns l2,0 by proximal gradient steps, the number of columns falling along a path with warm starts.

    Parameters
    ----------
    stages
        Lengths of the path: so many numbers of columns, evenly spaced in the logarithm.
    steps
        Steps for each number.

    References
    ----------
    Zhang et al. 2023 [zhang2023] penalise by l2,0; here its constrained form, so that the number is met.
    """

    stages: int = 8
    steps: int = 20

    def __post_init__(self) -> None:
        if min(self.stages, self.steps) < 1:
            raise ValueError(f"stages and steps must be at least 1, got {self.stages} and {self.steps}")

    def choose(self, units: Units, keep: int) -> Int64[Tensor, " keep"]:
        """Return the columns that are not 0 at the end of the path."""
        cross, width = units.readers @ units.gram, len(units.gram) - 1
        weight = ridge(units.gram, cross, units.strength)
        for stage in range(1, self.stages + 1):
            count = max(keep, round(width * (keep / width) ** (stage / self.stages)))
            weight = proximal_ridge(weight, units.gram, cross, units.strength, _largest(count), steps=self.steps)
        return _top(weight[:, :-1].square().sum(dim=0), keep)


@dataclass(frozen=True)
class RowsL20(UnitChoice):
    """Rows l2,0, exact: keep the units whose own fit gains most; who reads them does not matter.

    A poor rule, here for comparison: a unit is free of scale, so that all gain nearly alike.

    References
    ----------
    Zhang et al. 2023 [zhang2023] penalise by l2,0.
    """

    def choose(self, units: Units, keep: int) -> Int64[Tensor, " keep"]:
        """Return the units with the largest gains."""
        return _top(units.gains, keep)


@dataclass(frozen=True)
class ColumnNorm(UnitChoice):
    """Keep the units whose outgoing weights have the largest Euclidean norms."""

    def choose(self, units: Units, keep: int) -> Int64[Tensor, " keep"]:
        """Return the units with the largest columns."""
        return _top(units.readers[:, :-1].square().sum(dim=0), keep)


@torch.no_grad()
def prune_units(
    net: nn.Module,
    data: Data,
    keep: float | Sequence[int],
    *,
    by: UnitChoice | None = None,
    ridge: float = 1e-4,
    rows: int = 20_000,
) -> nn.Module:
    """Return a smaller network: some units of each hidden layer, and weights above them fitted to do what all did.

    Units are chosen layer by layer from the top, so that a lower layer serves only units that stay: of those that read
    it, each weighs as much as it is read itself. Then, from the bottom, each layer above gets the ridge fit of its old
    pre-activations (the read-out: of its old outputs) to the new bits. Labels are not used. Training may go on from the
    result: `fit(smaller, data, MarginBCD(warm=True))`, or with gradients.

    Parameters
    ----------
    net
        A chain of linear layers, with or without batch normalisation, and steps, such as `nets.mlp`; it stays.
    data
        Its training part is run through.
    keep
        Share of the units of each hidden layer that stays, in (0, 1], or their number by layer.
    by
        How units are chosen; None for `BackwardElimination`.
    ridge
        Strength of the fits, > 0.
    rows
        At most so many training rows are used, evenly spaced.

    Raises
    ------
    ValueError
        If the network has another form, or a share or number is out of range.

    References
    ----------
    He et al. 2017 [he2017] fit what remains to the old outputs, layer by layer. Differs: linear maps of bits in closed
    form, units chosen from the top.

    Examples
    --------
    >>> import hardstep as hs
    >>> data, net = hs.data.load("digits"), hs.nets.mlp(64, 50, 10)
    >>> report = hs.fit(net, data, hs.MarginBCD(), sweeps=10, progress=False)
    >>> smaller = hs.prune_units(net, data, keep=0.5)
    >>> [len(layer.weight) for layer in smaller if isinstance(layer, nn.Linear)]
    [25, 10]
    """
    if not 0 < ridge < float("inf"):
        raise ValueError(f"ridge must be positive and finite, got {ridge}")
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    smaller = deepcopy(net).eval()
    layers = chain(smaller, "prune_units")
    weights = [layer.read() for layer in layers]
    counts = _counts(keep, [len(weight) for weight in weights[:-1]])
    used = min(rows, len(data.train))
    chunks = (torch.arange(used) * len(data.train) // used).tensor_split(-(-used // BATCH))
    means = partial(_means, data.train, chunks, weights)
    chosen, first = _chosen(weights, means, counts, BackwardElimination() if by is None else by, ridge)
    fitted, grams = _refitted(weights, means, chosen, ridge)
    for layer, weight, gram in zip(layers, fitted, [first, *grams], strict=True):
        layer.resize(*weight.shape)
        layer.write(weight, gram)
    return smaller


def backward_elimination(
    gram: Float64[Tensor, "h h"], cross: Float64[Tensor, "k h"], strength: Float64[Tensor, " h"], keep: int
) -> tuple[Int64[Tensor, " keep"], Float64[Tensor, "k h"]]:
    """Solve the problem of `ridge` with at most `keep` columns that are not 0, greedily from all of them downwards.

    With R = (G + diag strength)^-1 and W = B R, dropping column k raises the minimum by |w_k|²/(2 R_kk), after which
    W falls by w_k R_k'/R_kk and R by R_k R_k'/R_kk. Each drop is the cheapest one; the last column (the bias) stays.

    Returns
    -------
    The indices of the columns that are left, in rising order and without the bias, and the weights, 0 elsewhere.

    Raises
    ------
    ValueError
        If `keep` is not in 1..h-1, or the system is singular.

    References
    ----------
    Hassibi and Stork 1992 [hassibi1992], for columns in place of single weights.

    Examples
    --------
    >>> gram, cross = torch.eye(3, dtype=torch.float64), torch.tensor([[1.0, 2.0, 0.5]], dtype=torch.float64)
    >>> backward_elimination(gram, cross, 0 * gram[0], keep=1)
    (tensor([1]), tensor([[0.0000, 2.0000, 0.5000]], dtype=torch.float64))
    """
    width = len(gram) - 1
    if not 1 <= keep <= width:
        raise ValueError(f"keep must lie in 1..{width}, the number of columns without the bias, got {keep}")
    rest = inverse(gram, strength)
    weight = cross @ rest
    dropped = torch.zeros(width + 1, dtype=torch.bool, device=gram.device)
    dropped[-1] = True  # out of the choice: the bias
    for _ in range(width - keep):
        price = (weight.square().sum(dim=0) / rest.diagonal()).masked_fill(dropped, torch.inf)
        k = int(price.argmin())
        dropped[k] = True
        direction = rest[k] / rest[k, k]
        weight.addr_(weight[:, k].clone(), direction, alpha=-1)
        rest.addr_(rest[k].clone(), direction, alpha=-1)
        weight[:, k] = 0
        rest[k, k] = 1  # its row and column are 0 but for rounding
    return torch.nonzero(~dropped)[:, 0], weight


def _chosen(
    weights: list[Tensor], means: Means, counts: list[int], by: UnitChoice, strength: float
) -> tuple[list[Tensor], Tensor]:
    """Choose the units of every hidden layer, from the top; return the Gram matrix of the inputs too."""

    def moments(inputs: list[Tensor], pres: list[Tensor]) -> list[Tensor]:
        aims = [pre + margin_residual(pre, (pre > 0).to(pre), 1.0) for pre in pres]
        return [a.T @ a for a in inputs] + [aim.T @ a for aim, a in zip(aims, inputs, strict=False)]

    found = means(moments)
    grams, crosses = found[: len(weights)], found[len(weights) :]
    chosen: list[Tensor] = []
    readers = weights[-1].double()
    for i in reversed(range(len(counts))):
        penalty = bias_free(grams[i], strength)
        gains = 0.5 * (ridge(grams[i], crosses[i], penalty) * crosses[i]).sum(dim=1)
        units = Units(readers, grams[i + 1], bias_free(grams[i + 1], strength), gains)
        chosen.insert(0, by.choose(units, counts[i]))
        effect = readers[:, chosen[0]].square().sum(dim=0).sqrt()
        readers = weights[i].double()[chosen[0]] * effect[:, None]
    return chosen, grams[0]


def _refitted(
    weights: list[Tensor], means: Means, chosen: list[Tensor], strength: float
) -> tuple[list[Tensor], list[Tensor]]:
    """Return weights of the smaller network, fitted from the bottom to what the old did, and Gram matrices of bits."""
    fitted, grams = [weights[0][chosen[0]]], []
    for i in range(1, len(weights)):
        rows = chosen[i] if i < len(chosen) else slice(None)

        def moments(inputs: list[Tensor], _: list[Tensor], i: int = i, rows: Tensor | slice = rows) -> list[Tensor]:
            new, old = run(fitted, inputs[0])[0][-1], inputs[i] @ weights[i][rows].T
            return [new.T @ new, old.T @ new]

        gram, cross = means(moments)
        fitted.append(ridge(gram, cross, bias_free(gram, strength)).to(weights[0]))
        grams.append(gram)
    return fitted, grams


def _means(part: Part, chunks: Sequence[Tensor], weights: list[Tensor], moments: Moments) -> list[Tensor]:
    """Return means over rows, in float64, of what `moments` makes of each batch's inputs and pre-activations."""
    total: list[Tensor] = []
    for x, _ in batches(part, chunks):
        found = [value.double() for value in moments(*run(weights[:-1], with_ones(x.flatten(1).to(weights[0]))))]
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    return [value / sum(map(len, chunks)) for value in total]


def _counts(keep: float | Sequence[int], widths: list[int]) -> list[int]:
    """Return the number of units of each hidden layer that stay."""
    if isinstance(keep, float | int):
        if not 0 < keep <= 1:
            raise ValueError(f"keep is a share of units in (0, 1] or a number for each layer, got {keep}")
        return [max(1, round(keep * width)) for width in widths]
    counts = list(keep)
    if len(counts) != len(widths) or any(not 1 <= n <= width for n, width in zip(counts, widths, strict=False)):
        raise ValueError(f"keep needs a number from 1 to the width for each hidden layer of {widths}, got {counts}")
    return counts


def _top(values: Float64[Tensor, " h"], keep: int) -> Int64[Tensor, " keep"]:
    """Return the indices of the largest values, in rising order."""
    return values.argsort(descending=True, stable=True)[:keep].sort().values


def _largest(count: int) -> Callable[[Tensor, float], Tensor]:
    """Return the proximal map of the constraint that at most so many columns are not 0."""

    def prox(v: Tensor, step: float) -> Tensor:
        kept = torch.zeros_like(v)
        columns = _top(v.square().sum(dim=0), count)
        kept[:, columns] = v[:, columns]
        return kept

    return prox
