"""Shrink: the same PyTorch network without the units that nobody reads and those that never change."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from hardstep.chain import leaves
from hardstep.step import Sign, Staircase, Step

__all__ = ["Size", "shrink", "size"]

Map = nn.Linear | nn.Conv2d
SAME_FOR_CONSTANTS = _DropoutNd | nn.Identity | nn.MaxPool2d  # in evaluation mode
BETWEEN = SAME_FOR_CONSTANTS | nn.Flatten | _BatchNorm | Step | Sign | Staircase | nn.ReLU
IMAGE = (nn.Conv2d | nn.MaxPool2d, nn.Flatten)  # what needs places, and what ends them


@dataclass(frozen=True)
class Size:
    """What a network takes: numbers it stores, those that are not 0, and products that one sample needs."""

    parameters: int
    nonzeros: int
    macs: int


@dataclass(frozen=True, eq=False)
class _Layer:
    """A linear map and what stands between it and the next one."""

    name: str
    map: Map
    after: list[nn.Module] = field(default_factory=list)


@torch.no_grad()
def shrink(net: nn.Module) -> nn.Module:
    """Return a smaller network with the same outputs in evaluation mode: its shapes shrink, no weight is fitted.

    Pruning leaves zeros where the arrays keep their shapes. Two kinds of hidden units (of a convolution: channels) go:

    - unread: their columns in the next layer are zero, of a channel read through Flatten those of all places;
    - constant: their own weights are zero. The value c that they have behind normalisation and activation moves into
      the reader, b' = b + W c, which gets a bias if it has none: exactly what the old sum was, so that no later
      rounding changes, which a shifted running mean could not promise.

    Repeats until nothing changes: a unit that goes takes columns with it, and units below may be read no more.
    Before a convolution with zero padding a constant stays unless c = 0, for the border sees 0 in its place. One unit
    of each layer stays. Up to the rounding of sums in another order outputs are equal; on weights that are small
    binary fractions every step is equal bit for bit. `simplify` does the same to a frozen network and finds more: units
    that are constant by bounds, equal ones, complements.

    Parameters
    ----------
    net
        An `nn.Sequential` (nested too) of Linear, Conv2d, BatchNorm, MaxPool2d, Flatten, Dropout, Identity, ReLU,
        Step, Sign and Staircase; it stays as it is. The result is in evaluation mode.

    Raises
    ------
    ValueError
        If a layer is of another kind, is used twice, or has weights that are not its own; the error names it.

    Examples
    --------
    >>> import hardstep as hs
    >>> net = hs.nets.mlp(64, 32, 10)
    >>> net[-1].weight.data[:, :8] = 0  # no one reads the first eight units
    >>> shrink(net)[1]
    Linear(in_features=64, out_features=24, bias=False)
    """
    _read(net)  # what is refused here might not even be copied
    smaller = deepcopy(net).eval()
    layers = _read(smaller)
    before: list[tuple[int, ...]] = []
    while before != (now := [(*layer.map.weight.shape, int(layer.map.weight.count_nonzero())) for layer in layers]):
        before = now
        for layer, reader in reversed(list(pairwise(layers))):  # from the top, where units cease to be read
            _shrink(layer, reader.map)
    return smaller


@torch.no_grad()
def size(net: nn.Module, shape: tuple[int, ...]) -> Size:
    """Count parameters, those that are not 0, and multiply-accumulates of Linear and Conv2d for one sample.

    Parameters
    ----------
    net
        Any network that takes samples of this shape.
    shape
        Shape of one sample.

    Examples
    --------
    >>> import hardstep as hs
    >>> size(hs.nets.mlp(64, 32, 10, norm=False), (64,))
    Size(parameters=2410, nonzeros=2410, macs=2368)
    """
    counted = deepcopy(net).eval()
    macs = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal macs
        assert isinstance(module.weight, Tensor)
        macs += module.weight[0].numel() * out.numel()  # each output is a sum over one row

    for module in counted.modules():
        if isinstance(module, Map):
            module.register_forward_hook(count)
    parameters = list(counted.parameters())
    counted(next(iter(parameters), torch.zeros(())).new_zeros(1, *shape))
    return Size(sum(p.numel() for p in parameters), sum(int(p.count_nonzero()) for p in parameters), macs)


def _read(net: nn.Module) -> list[_Layer]:
    """Return the linear maps with what stands behind each; refuse what cannot be read."""
    layers: list[_Layer] = []
    used: set[int] = set()
    for name, module in leaves(net):
        stored = any(True for _ in module.parameters())
        if why := _trouble(module) or "it is used twice" * (stored and id(module) in used):
            raise _refusal(name, module, why)
        used.add(id(module))
        if isinstance(module, Map):
            layers.append(_Layer(name, module))
        elif layers:
            layers[-1].after.append(module)
    for layer, reader in pairwise(layers):
        if why := _misfit(layer, reader):
            raise _refusal(reader.name, reader.map, why)
    return layers


def _trouble(module: nn.Module) -> str:
    """Return why a module cannot be read, nothing if it can."""
    own = {name for name, _ in module.named_parameters(recurse=False)}
    why = ""
    if not isinstance(module, Map | BETWEEN):
        why = "it is of another kind"
    elif any(getattr(module, name, None) is not None and name not in own for name in ("weight", "bias")):
        why = "its weights are computed; make them permanent first (torch.nn.utils.prune.remove or parametrize)"
    elif isinstance(module, nn.Conv2d) and module.groups != 1:
        why = f"it has {module.groups} groups"
    elif isinstance(module, nn.MaxPool2d) and module.dilation not in (1, (1, 1)):
        why = "it pools with dilation"
    elif isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
        why = "it does not flatten whole samples"
    elif isinstance(module, _BatchNorm) and module.running_mean is None:
        why = "it keeps no running statistics; build it with track_running_stats=True"
    return why


def _misfit(layer: _Layer, reader: _Layer) -> str:
    """Return why the inputs of a layer are not the units of the one below, unit after unit; nothing if they are."""
    image, flat = (any(isinstance(module, kind) for module in (layer.map, *layer.after)) for kind in IMAGE)
    units, inputs = layer.map.weight.shape[0], reader.map.weight.shape[1]
    if isinstance(reader.map, nn.Conv2d) == (flat or not image) or (image and isinstance(layer.map, nn.Linear)):
        return f"put one nn.Flatten() between the convolutions and the linear layers; it follows {layer.name!r}"
    if inputs % units or (inputs > units and not image):
        return f"it reads {inputs} inputs and not the {units} units of layer {layer.name!r}"
    return ""


def _shrink(layer: _Layer, reader: Map) -> None:
    """Take from a layer the units that the next one can do without; one is left, with weights 0 if none is needed."""
    weight, units = layer.map.weight, len(layer.map.weight)
    columns = reader.weight.reshape(len(reader.weight), units, -1)
    values = _values(layer, columns.shape[2] if isinstance(reader, nn.Linear) else 1)
    unread, constant = (~(rows != 0).any(dim=1) for rows in (columns.transpose(0, 1).flatten(1), weight.flatten(1)))
    gone = unread | (constant & (_unpadded(reader) | ~(values != 0).any(dim=1)))
    if not gone.any():
        return
    shift = (columns.double() * values)[:, constant & gone].sum(dim=(1, 2))
    kept = torch.nonzero(~gone)[:, 0] if not gone.all() else torch.zeros(1, dtype=torch.long, device=weight.device)
    columns = columns.masked_fill(gone[:, None], 0)[:, kept]
    weight = weight.masked_fill(gone.reshape(-1, *[1] * (weight.ndim - 1)), 0)
    _write(layer.map, weight=weight[kept], bias=None if layer.map.bias is None else layer.map.bias[kept])
    bias = shift if reader.bias is None else reader.bias + shift
    _write(
        reader,
        weight=columns.reshape(len(columns), -1, *reader.weight.shape[2:]),
        bias=bias if reader.bias is not None or shift.any() else None,
    )
    for norm in (module for module in layer.after if isinstance(module, _BatchNorm)):
        for name, value in [*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)]:
            if value.ndim:
                _set(norm, name, value.reshape(units, -1)[kept].flatten())
        norm.num_features = norm.num_features // units * len(kept)


def _values(layer: _Layer, places: int) -> Float64[Tensor, "units _"]:
    """Return what each unit would give if its weights were 0: in one place, or where behind Flatten they differ."""
    bias = layer.map.bias
    x = layer.map.weight.new_zeros(len(layer.map.weight)) if bias is None else bias.detach()
    x = x.reshape(1, -1, *[1] * (layer.map.weight.ndim - 2))
    for module in layer.after:
        if isinstance(module, nn.Flatten):
            x = x.flatten(1).repeat_interleave(places if x.ndim > 2 else 1, dim=1)
        elif not isinstance(module, SAME_FOR_CONSTANTS):
            x = module(x)
    return x.double().reshape(len(layer.map.weight), -1)


def _unpadded(reader: Map) -> bool:
    """Return whether a layer sees the same constant in every place, at the border too."""
    return isinstance(reader, nn.Linear) or reader.padding_mode != "zeros" or reader.padding in ("valid", (0, 0))


def _write(module: Map, *, weight: Tensor, bias: Tensor | None) -> None:
    """Give a linear map weights of another shape."""
    _set(module, "weight", weight)
    if bias is not None:
        _set(module, "bias", bias)
    names = ("out_features", "in_features") if isinstance(module, nn.Linear) else ("out_channels", "in_channels")
    for name, count in zip(names, weight.shape, strict=False):
        setattr(module, name, count)


def _set(module: nn.Module, name: str, value: Tensor) -> None:
    """Replace a parameter or a buffer, in its precision; a new one takes after the weights."""
    old = getattr(module, name)
    old = module.weight if old is None else old
    assert isinstance(old, Tensor)
    value = value.to(old.dtype).clone()
    parameter = isinstance(old, nn.Parameter)
    setattr(module, name, nn.Parameter(value, requires_grad=old.requires_grad) if parameter else value)


def _refusal(name: str, module: nn.Module, why: str) -> ValueError:
    return ValueError(
        f"layer {name!r} ({type(module).__name__}) cannot be shrunk: {why}. A network to shrink is an nn.Sequential of "
        "Linear, Conv2d, BatchNorm, MaxPool2d, Flatten, Dropout, Identity, ReLU, Step, Sign and Staircase"
    )
