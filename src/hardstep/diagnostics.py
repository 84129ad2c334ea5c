"""Diagnostics of a network: how many of its units are dead, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from torch import Tensor, nn

from hardstep.parts import Part, batches
from hardstep.units import Hidden, certified, codes, hidden_layers

__all__ = ["DeadRates", "LayerRates", "aligned", "dead_rates", "select"]


@dataclass(frozen=True)
class LayerRates:
    """What the units of one layer do on a probe. Units count every position of a convolution, channels do not.

    Parameters
    ----------
    name
        Name of the module with the layer's weights.
    rows, units, channels
        Rows of the probe; units and channels of the layer.
    total, static, dynamic
        Pairs of a row and a unit that is silent on it; those of units that are silent on every row; the others.
    structural
        Channels without a live incoming weight that are silent for that reason.
    never, always
        Channels that are silent, or at their highest output, on every row and at every position.
    certified
        Channels that are proved constant, at 0 or at their highest output, for every input in the box.
    distinct
        How many different rows of outputs (of a ReLU: patterns of firing) the layer has on the probe.
    passes_on
        Whether a unit that always fires still passes values on (ReLU), so that it is not dead.
    entropy
        Mean over the units of the binary entropy of their firing rate, in bits.
    off, on
        Mean over the units that are neither never nor always on: one less the firing rate, and the firing rate.
    """

    name: str
    rows: int
    units: int
    channels: int
    total: int
    static: int
    dynamic: int
    structural: int
    never: int
    always: int
    certified: int
    distinct: int
    passes_on: bool
    entropy: float
    off: float
    on: float

    @property
    def dead(self) -> int:
        """Channels that carry nothing: never on, or, but for a ReLU, always on."""
        return self.never if self.passes_on else self.never + self.always

    @property
    def shares(self) -> dict[str, float]:
        """All rates by name: of the pairs for total, static and dynamic, of the channels for the others."""
        pairs, channels = self.rows * self.units, self.channels
        counts = {"total": (self.total, pairs), "static": (self.static, pairs), "dynamic": (self.dynamic, pairs)}
        for name in ("structural", "never", "always", "certified", "dead"):
            counts[name] = (getattr(self, name), channels)
        return {name: count / whole for name, (count, whole) in counts.items()}


@dataclass(frozen=True)
class DeadRates:
    """The rates of every hidden layer, from the input on; printing it shows a table.

    Parameters
    ----------
    layers
        One entry a layer.
    box
        For which inputs the certified units are constant.
    """

    layers: tuple[LayerRates, ...]
    box: str

    @property
    def total(self) -> float:
        """Share of the pairs of a row and a unit, over all layers, in which the unit is silent."""
        return sum(layer.total for layer in self.layers) / sum(layer.rows * layer.units for layer in self.layers)

    @property
    def dynamic(self) -> float:
        """The part of `total` that is of units which fire on other rows."""
        return sum(layer.dynamic for layer in self.layers) / sum(layer.rows * layer.units for layer in self.layers)

    @property
    def dead(self) -> float:
        """Share of the channels of all layers that carry nothing."""
        return sum(layer.dead for layer in self.layers) / sum(layer.channels for layer in self.layers)

    def __str__(self) -> str:
        names = list(self.layers[0].shares)
        head = ["layer", "units", *names, "entropy", "distinct"]
        lines = [
            [
                row.name,
                str(row.units),
                *map("{:.1%}".format, row.shares.values()),
                f"{row.entropy:.3f}",
                str(row.distinct),
            ]
            for row in self.layers
        ]
        return f"{aligned([head, *lines])}\n{self.layers[0].rows} rows, evaluation mode; certified for {self.box}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as text, every column flush right.

    Examples
    --------
    >>> print(aligned([["layer", "units"], ["1", "32"]]))
    layer  units
        1     32
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


@torch.no_grad()
def dead_rates(
    net: nn.Module, probe: Part, *, box: tuple[float, float] | None = None, batch_size: int = 1000
) -> DeadRates:
    """Measure which hidden units of a network are dead on a probe, and how; the network is run in evaluation mode.

    With a_j(x) the output of unit j: total = mean over x and j of [a_j(x) = 0]; static counts only the units that are
    silent on all of the probe, dynamic = total - static. A `Sign` is silent at -1. A step that always fires carries
    nothing either: `dead` counts it. Each level implies the next: structural, certified, constant on the probe.

    Parameters
    ----------
    box
        Least and greatest value of the inputs, for `certified`; by default what the grid of the probe can say, or the
        range of each input over the probe.

    Raises
    ------
    ValueError
        If the network cannot be read as layers of units; the module is named.

    References
    ----------
    Liu, Ghosh, Tan, Motani 2023 [liu2023], dynamic dead-neuron rate. Differs: the operational form for a fixed
    probe, always-on units of step networks, bounds.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> print(dead_rates(hs.nets.mlp(64, 32, 10), data.val))
    layer  units  total  static  dynamic  structural  never  always  certified  dead  entropy  distinct
        1     32  50.0%    6.2%    43.7%        0.0%   6.2%    3.1%       0.0%  9.4%    0.572       143
    144 rows, evaluation mode; certified for every input of the grid
    """
    twin = deepcopy(net).eval()
    tallies = [_Tally(layer) for layer in hidden_layers(twin)]
    like = next(twin.parameters())
    low, high = torch.full(probe.shape, math.inf), torch.full(probe.shape, -math.inf)
    for x, _ in batches(probe, torch.arange(len(probe)).tensor_split(math.ceil(len(probe) / batch_size))):
        low, high = torch.minimum(low, x.amin(dim=0)), torch.maximum(high, x.amax(dim=0))
        for tally, (_, code) in zip(tallies, codes(twin, x.to(like)), strict=True):
            tally.add(_by_channel(code))
    text = "inputs in the ranges they have in the probe"
    if box is not None:
        low, high = (torch.full(probe.shape, end) for end in box)
        text = f"inputs in [{box[0]:g}, {box[1]:g}]"
    elif probe.grid is not None:
        low, high = (torch.from_numpy(probe.grid.value(np.full(probe.shape, code, np.uint8))) for code in (0, 255))
        text = "every input of the grid"
    proved = certified(net, low.to(like.device), high.to(like.device))
    return DeadRates(tuple(tally.rates(*masks) for tally, masks in zip(tallies, proved, strict=True)), text)


def select(
    alive: Bool[Tensor, " n"], candidates: Bool[Tensor, " n"], score: Shaped[Tensor, " n"], count: int
) -> Bool[Tensor, " n"]:
    """Return what is alive after `count` candidates with the lowest scores are gone, all of them if they are fewer.

    Exact by rank; of equal scores the one with the lower index goes first.

    Examples
    --------
    >>> everything = torch.ones(4, dtype=torch.bool)
    >>> select(everything, everything, torch.tensor([3.0, 1.0, 1.0, 2.0]), 1)
    tensor([ True, False,  True,  True])
    """
    places = torch.nonzero(alive & candidates)[:, 0]
    gone = places[score[places].argsort(stable=True)[:count]]
    return alive.index_fill(0, gone, value=False)


@dataclass
class _Tally:
    """Whole-number sums over the rows of a probe, for one layer: by channel and position."""

    layer: Hidden
    rows: int = 0
    sums: tuple[Tensor, ...] = ()
    seen: set[bytes] = field(default_factory=set)

    def add(self, code: Tensor) -> None:
        """Count a batch of codes (rows, channels, positions): their sum, the silent ones, the highest ones."""
        new = code.sum(dim=0), (code == 0).sum(dim=0), (code == self.layer.top).sum(dim=0)
        self.sums = tuple(a + b for a, b in zip(self.sums, new, strict=True)) if self.sums else new
        self.rows += len(code)
        rows = code.flatten(1).cpu().numpy()
        self.seen.update(row.tobytes() for row in (np.packbits(rows > 0, axis=1) if self.layer.top == 1 else rows))

    def rates(self, never: Tensor, always: Tensor) -> LayerRates:
        """Return what the sums say, with the channels that are certified."""
        sums, silent, highest = self.sums
        rows, layer = self.rows, self.layer
        off, on = silent == rows, highest == rows
        fires = (sums.double() / (rows * layer.top)).flatten()
        varying = fires[~(off | on).flatten()].tolist()
        unread = (layer.affine.weight == 0).flatten(1).all(dim=1)
        static = int(off.sum()) * rows
        return LayerRates(
            name=layer.name,
            rows=rows,
            units=off.numel(),
            channels=len(off),
            total=int(silent.sum()),
            static=static,
            dynamic=int(silent.sum()) - static,
            structural=int((unread & never).sum()),
            never=int(off.all(dim=1).sum()),
            always=int(on.all(dim=1).sum()),
            certified=int((never if layer.passes_on else never | always).sum()),
            distinct=len(self.seen),
            passes_on=layer.passes_on,
            entropy=math.fsum(_entropy(p) for p in fires.tolist()) / off.numel(),
            off=1 - math.fsum(varying) / len(varying) if varying else 0.0,
            on=math.fsum(varying) / len(varying) if varying else 0.0,
        )


def _entropy(p: float) -> float:
    """Return the entropy of a coin that shows 1 with probability p, in bits."""
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0) + 0.0


def _by_channel(code: Tensor) -> Tensor:
    """Return codes in the shape (rows, channels, positions)."""
    return code.reshape(len(code), code.shape[1], -1)
