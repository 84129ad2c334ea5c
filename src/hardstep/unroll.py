"""Residual blocks of steps as plain layers: the bits of the shortcut are carried along as channels of their own."""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hardstep.blocks import Activation, Padded, ResidualBlock
from hardstep.chain import leaves
from hardstep.step import Sign, Staircase

__all__ = ["unroll"]


@torch.no_grad()
def unroll(net: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Return a network without residual blocks that computes the same, or the network itself if it has none.

    A block a(n2(c2(a(n1(c1(x))))) + s(x)) that reads steps x becomes two convolutions, each with its activation. The
    first has further channels that copy x, at the places that a stride leaves; the second reads both: normalised c2
    from the steps in between, and s at the middle of its kernel. So the sum of a block is one sum of integers, and
    nothing that reads a frozen network needs to know of blocks. A mean over places in front of the read-out becomes
    part of it. Blocks that keep real sums are left as they are; `freeze` reads them
    itself.

    Parameters
    ----------
    shape
        Shape of a sample.

    Examples
    --------
    >>> import hardstep as hs
    >>> net = hs.nets.ResNet20(channels=(2, 2, 4))((1, 8, 8), 3).eval()
    >>> x = torch.rand(5, 1, 8, 8)
    >>> bool(torch.allclose(unroll(net, (1, 8, 8))(x), net(x), atol=1e-5))
    True
    """
    if not any(isinstance(module, ResidualBlock) for module in net.modules()):
        return net
    plain: OrderedDict[str, nn.Module] = OrderedDict()
    last: Activation | None = None
    pending: list[tuple[str, nn.Module]] = []  # a mean over places and what follows up to the read-out
    places = _places(net, shape)
    for name, module in leaves(net):
        key = name.replace(".", "_")
        if isinstance(module, ResidualBlock) and last is not None and _alike(last, module.activation):
            for i, part in enumerate(_block(module)):
                plain[f"{key}_{i}"] = part
        elif isinstance(module, nn.AdaptiveAvgPool2d) and module in places:
            pending = [(key, module)]
        elif pending and isinstance(module, nn.Flatten | nn.BatchNorm1d):
            pending.append((key, module))
        elif pending and isinstance(module, nn.Linear):
            norms = [part for _, part in pending if isinstance(part, nn.BatchNorm1d)]
            plain[pending[0][0]] = nn.Flatten()
            plain[key] = _mean_readout(module, norms, places[pending[0][1]])
            pending = []
        else:
            plain.update(pending)
            plain[key], pending = copy.deepcopy(module), []
        if isinstance(module, Activation):
            last = module
        elif not isinstance(module, ResidualBlock | nn.Dropout | nn.Dropout2d | nn.Identity):
            last = None  # the next block does not read steps
    plain.update(pending)
    return nn.Sequential(plain).train(net.training)


def _places(net: nn.Module, shape: tuple[int, ...]) -> dict[nn.Module, int]:
    """Return the number of places that each mean down to one place is over."""
    found: dict[nn.Module, int] = {}
    handles = [
        module.register_forward_hook(lambda module, args, out: found.update({module: args[0][0, 0].numel()}))
        for module in net.modules()
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))
    ]
    was_training = net.training
    net.eval()(next(net.parameters()).new_zeros(1, *shape))
    net.train(was_training)
    for handle in handles:
        handle.remove()
    return found


def _alike(one: Activation, other: Activation) -> bool:
    """Whether two activations have the same outputs."""
    return type(one) is type(other) and _copying(one) == _copying(other)


def _block(block: ResidualBlock) -> list[nn.Module]:
    """Return a block as convolution, activation, convolution, activation."""
    (first, second), norms = _parts(block.body)
    w1, b1 = _folded(first, norms[:1])
    w2, b2 = _folded(second, norms[1:])
    ws, bs = _shortcut(block, w1)
    (outputs, inputs), middle = w1.shape[:2], (first.kernel_size[0] // 2, first.kernel_size[1] // 2)
    wide = nn.Conv2d(inputs, outputs + inputs, 3, stride=first.stride, padding=first.padding).to(w1)  # type: ignore[arg-type]
    gain, shift = _copying(block.activation)
    wide.weight.zero_()
    wide.weight[:outputs], wide.bias[:outputs] = w1, b1  # type: ignore[index]
    wide.weight[outputs:, :, *middle], wide.bias[outputs:] = gain * torch.eye(inputs).to(w1), shift  # type: ignore[index]
    sums = nn.Conv2d(outputs + inputs, outputs, 3, padding=second.padding).to(w1)  # type: ignore[arg-type]
    sums.weight.zero_()
    sums.weight[:, :outputs], sums.weight[:, outputs:, *middle] = w2, ws
    sums.bias.copy_(b2 + bs)  # type: ignore[union-attr]
    return [wide, copy.deepcopy(block.activation), sums, copy.deepcopy(block.activation)]


def _copying(activation: Activation) -> tuple[float, float]:
    """Return gain and shift after which the activation gives its own outputs again, far from every threshold."""
    if isinstance(activation, Sign):
        return 1.0, 0.0
    stairs = activation.stairs if isinstance(activation, Staircase) else 1
    between = max(stairs - 1, 1)
    return stairs / between, -0.5 / between  # m/k goes to (m - 1/2)/(k - 1), just above the m-th threshold


def _shortcut(block: ResidualBlock, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shortcut as a matrix and a bias."""
    if not len(block.shortcut):
        return torch.eye(like.shape[1]).to(like), like.new_zeros(len(like))
    if isinstance(block.shortcut[0], Padded):
        return block.shortcut[0].matrix.to(like), like.new_zeros(len(like))
    (conv,), norms = _parts(block.shortcut)
    weight, bias = _folded(conv, norms)
    return weight[:, :, 0, 0], bias


def _parts(modules: nn.Sequential) -> tuple[list[nn.Conv2d], list[nn.BatchNorm2d]]:
    return (
        [module for module in modules if isinstance(module, nn.Conv2d)],
        [module for module in modules if isinstance(module, nn.BatchNorm2d)],
    )


def _folded(
    layer: nn.Linear | nn.Conv2d, norms: list[nn.BatchNorm2d]
) -> tuple[Float[Tensor, "h ..."], Float[Tensor, " h"]]:
    """Return weights and bias of a layer with the normalisation behind it."""
    weight = layer.weight.double()
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.double()
    for norm in norms:
        gain, shift = _gain_and_shift(norm)
        weight, bias = weight * gain.reshape(-1, *[1] * (weight.ndim - 1)), bias * gain + shift
    return weight.to(layer.weight.dtype), bias.to(layer.weight.dtype)


def _mean_readout(layer: nn.Linear, norms: list[nn.BatchNorm1d], places: int) -> nn.Linear:
    """Return a read-out of all places that reads their mean, normalised before it."""
    weight = layer.weight.double()
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.double()
    for norm in reversed(norms):
        gain, shift = _gain_and_shift(norm)
        weight, bias = weight * gain, bias + weight @ shift
    whole = nn.Linear(layer.in_features * places, layer.out_features).to(layer.weight)
    whole.weight.copy_((weight / places).repeat_interleave(places, dim=1))
    whole.bias.copy_(bias)
    return whole


def _gain_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return what a normalisation does in evaluation mode, in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    gain = gain if norm.weight is None else gain * norm.weight.double()
    shift = -norm.running_mean.double() * gain
    return gain, shift if norm.bias is None else shift + norm.bias.double()
