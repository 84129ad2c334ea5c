"""Diagnostics of a network: which of its units fire, which are dead, and how many."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int16, Shaped
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from hardstep.parts import Part, batches
from hardstep.step import Sign, Staircase, Step

__all__ = ["DeadRates", "Hidden", "LayerRates", "certified", "codes", "dead_rates", "hidden_layers", "select"]

RISING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Dropout, nn.Identity)
"""What stands between the layers and never lowers an output when an input rises."""

Activation = Step | Sign | Staircase | nn.ReLU


@dataclass(frozen=True, eq=False)
class Hidden:
    """A layer of hidden units.

    Parameters
    ----------
    name
        Name of the module with its weights.
    affine, norm, activation
        The weights, the normalisation behind them if there is one, and what makes the outputs.
    reads_signs
        Whether its inputs are -1 and +1.
    """

    name: str
    affine: nn.Linear | nn.Conv2d
    norm: _BatchNorm | None
    activation: Activation
    reads_signs: bool

    @property
    def top(self) -> int:
        """Code of the highest output: 1, or the number of stairs."""
        return self.activation.stairs if isinstance(self.activation, Staircase) else 1

    @property
    def passes_on(self) -> bool:
        """Whether a unit that always fires still passes on what it reads, as a ReLU does."""
        return isinstance(self.activation, nn.ReLU)

    def code(self, out: Float[Tensor, "*n"]) -> Int16[Tensor, "*n"]:
        """Return outputs as whole numbers: 0 silent, 1 firing; of a staircase the number of stairs."""
        whole = out > 0 if self.passes_on else (out.clamp_min(0) * self.top).round()
        return whole.to(torch.int16)


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
        widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
        text = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *lines]
        ]
        return "\n".join([*text, f"{self.layers[0].rows} rows, evaluation mode; certified for {self.box}"])


def hidden_layers(net: nn.Module) -> list[Hidden]:
    """Read a network as layers of hidden units.

    Raises
    ------
    ValueError
        If it is no (nested) `nn.Sequential` of linear maps and convolutions, batch normalisation, pooling and
        activations (Step, Sign, Staircase, ReLU), or has no hidden layer; the module is named.
    """
    found: list[Hidden] = []
    open_layer: tuple[str, nn.Linear | nn.Conv2d] | None = None
    norm: _BatchNorm | None = None
    signs = False
    for name, module in _leaves(net, ""):
        if isinstance(module, nn.Linear | nn.Conv2d):
            open_layer, norm = (name, module), None
        elif isinstance(module, _BatchNorm) and open_layer is not None and norm is None and module.track_running_stats:
            norm = module
        elif isinstance(module, Activation) and open_layer is not None:
            found.append(Hidden(*open_layer, norm, module, signs))
            open_layer, signs = None, isinstance(module, Sign)
        elif not isinstance(module, RISING):
            raise ValueError(
                f"units are read off an nn.Sequential of Linear or Conv2d, BatchNorm, pooling and Step, Sign, "
                f"Staircase or ReLU, but layer {name!r} is {module}"
            )
    if not found:
        raise ValueError("the network has no hidden layer: put hardstep.Step() behind a linear map")
    return found


def codes(net: nn.Module, x: Float[Tensor, "n ..."]) -> Iterator[tuple[Hidden, Int16[Tensor, "n channels ..."]]]:
    """Send rows through a network as it stands; yield what each hidden layer puts out, in whole numbers.

    0 is silent (of `Sign`: -1), 1 firing; of a `Staircase` the number of stairs.
    """
    layers = iter(hidden_layers(net))
    for _, module in _leaves(net, ""):
        x = module(x)
        if isinstance(module, Activation):
            layer = next(layers)
            yield layer, layer.code(x)


@torch.no_grad()
def certified(
    net: nn.Module, low: Float[Tensor, "..."], high: Float[Tensor, "..."]
) -> list[tuple[Bool[Tensor, " channels"], Bool[Tensor, " channels"]]]:
    """Return, for each hidden layer, which channels are proved silent, and proved to be at their highest output.

    Intervals go through the network from the box of inputs on: a weight takes the end that its sign asks for, sum
    of min(w lo, w hi) to sum of max(w lo, w hi). A unit proved constant has an interval of length 0, so that the layers
    above are bounded more tightly. In double precision; a sum within rounding of a threshold is taken as it comes out.

    Parameters
    ----------
    low, high
        Least and greatest value of each input, in the shape of a sample.
    """
    exact = deepcopy(net).double().eval()
    layers = iter(hidden_layers(exact))
    lo, hi = low.double()[None], high.double()[None]
    found = []
    for _, module in _leaves(exact, ""):
        if isinstance(module, nn.Linear | nn.Conv2d):
            lo, hi = _interval(module, lo, hi), _interval(module, hi, lo)
        elif isinstance(module, _BatchNorm):
            ends = module(lo), module(hi)
            lo, hi = torch.minimum(*ends), torch.maximum(*ends)
        else:
            lo, hi = module(lo), module(hi)
        if isinstance(module, Activation):
            layer = next(layers)
            least, most = (_by_channel(layer.code(end))[0] for end in (lo, hi))
            found.append(((most == 0).all(dim=1), (least == layer.top).all(dim=1)))
    return found


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


def _interval(module: nn.Linear | nn.Conv2d, near: Tensor, far: Tensor) -> Tensor:
    """Return W+ near + W- far + b: the least sums for near the lower ends, the greatest for near the upper ones."""
    bias = {} if module.bias is None else {"bias": module.bias}
    none = {name: torch.zeros_like(value) for name, value in bias.items()}
    out: Tensor = functional_call(module, {"weight": module.weight.clamp_min(0), **bias}, (near,))
    out = out + functional_call(module, {"weight": module.weight.clamp_max(0), **none}, (far,))
    return out


def _leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of nested `nn.Sequential`s in order, with their full names; a module used twice, twice."""
    if not isinstance(module, nn.Sequential):
        yield name or type(module).__name__, module
        return
    for key, child in module._modules.items():
        if child is not None:
            yield from _leaves(child, f"{name}.{key}" if name else key)
