"""Networks: plain `nn.Sequential`s of linear maps, normalisation, steps and residual blocks. There is no base class."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import partial
from math import prod

from torch import nn

from hardstep.blocks import Activation, ResidualBlock, convolution, seeded
from hardstep.step import Step

__all__ = ["MLP", "AlexNet", "ConvNet4", "ConvNet8", "ResNet18", "convnet4", "mlp"]


@dataclass(frozen=True)
class MLP:
    """A multi-layer perceptron: flatten, then (linear, normalise, activate) for each hidden layer, then linear.

    Call it with the shape of a sample and the number of outputs to build the network.

    Parameters
    ----------
    hidden
        Widths of the hidden layers; empty for two layers of four times as many units as inputs, at most 1024.
    norm
        Batch normalisation before each activation; `freeze` folds it into the thresholds.
    dropout
        Share of hidden outputs that are dropped in training, in [0, 1).
    activation
        The activation, copied for each layer.

    Examples
    --------
    >>> import torch
    >>> net = MLP(hidden=(32,))((1, 8, 8), outputs=10)
    >>> net(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    hidden: tuple[int, ...] = ()
    norm: bool = True
    dropout: float = 0.0
    activation: Activation = field(default_factory=Step)

    def __post_init__(self) -> None:
        if min(self.hidden, default=1) < 1:
            raise ValueError(f"a hidden layer is at least 1 wide, got hidden={self.hidden}")
        _check_share(self.dropout)

    def __call__(self, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Sequential:
        """Build the network; the initial weights depend on the seed only."""
        with seeded(seed):
            layers: list[nn.Module] = [nn.Flatten()]
            width = prod(shape)
            for units in self.hidden or 2 * (min(4 * width, 1024),):
                layers += _dense(width, units, self.norm, self.activation)
                layers += [nn.Dropout(self.dropout)] if self.dropout else []
                width = units
            return nn.Sequential(*layers, nn.Linear(width, outputs))


@dataclass(frozen=True)
class ConvNet4:
    """Two 5x5 convolutions and two linear layers: the four-layer network of the target-propagation paper.

    conv 5x5 pad 3, pool 2, activate; conv 5x5 pad 2, pool 2, activate; linear, activate; linear. Pooling comes
    before normalisation, on a quarter of the values; a step commutes with both.

    Parameters
    ----------
    channels
        Output channels of the two convolutions.
    units
        Width of the hidden linear layer.
    norm
        Batch normalisation before each activation.
    activation
        The activation, copied for each layer.

    References
    ----------
    Friesen and Domingos 2018, appendix [friesen2018]. Differs: normalisation, where asked for, stands before
    the activation.

    Examples
    --------
    >>> import torch
    >>> net = ConvNet4(channels=(4, 8), units=16)((1, 28, 28), outputs=10)
    >>> net(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    channels: tuple[int, int] = (32, 64)
    units: int = 1024
    norm: bool = True
    activation: Activation = field(default_factory=Step)

    def __call__(self, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Sequential:
        """Build the network; the initial weights depend on the seed only."""
        _check("convnet4", shape, 4)
        first, second = self.channels
        height, width = (((size + 2) // 2) // 2 for size in shape[1:])
        flat = second * height * width
        bias = not self.norm
        with seeded(seed):
            return nn.Sequential(
                nn.Conv2d(shape[0], first, 5, padding=3, bias=bias),
                nn.MaxPool2d(2),
                *([nn.BatchNorm2d(first)] if self.norm else []),
                copy.deepcopy(self.activation),
                nn.Conv2d(first, second, 5, padding=2, bias=bias),
                nn.MaxPool2d(2),
                *([nn.BatchNorm2d(second)] if self.norm else []),
                copy.deepcopy(self.activation),
                nn.Flatten(),
                *_dense(flat, self.units, self.norm, self.activation),
                nn.Linear(self.units, outputs),
            )


@dataclass(frozen=True)
class ConvNet8:
    """Seven convolutions and a linear read-out: the eight-layer network of the target-propagation paper.

    conv 5x5 pad 2, pool 2, activate; conv 3x3 pad 1, activate; conv 3x3 pad 1, pool 2, activate; conv 3x3, activate;
    conv 3x3 pad 1, activate; conv 3x3, activate; channel dropout; conv over all that is left, activate; linear.
    1,492,554 parameters for 3x32x32 samples of ten classes.

    Parameters
    ----------
    channels
        Output channels of the first convolution, the next two, the next three, the last.
    norm
        Batch normalisation (eps 1e-4) behind each convolution but the first, which has a bias.
    dropout
        Share of channels that are dropped before the last convolution in training, in [0, 1).
    activation
        The activation, copied for each layer.

    References
    ----------
    Friesen and Domingos 2018, appendix [friesen2018]; Zhou et al. 2016 [zhou2016]. Differs: the last convolution,
    there 4x4 for 32x32 samples, covers what is left of samples of any size.

    Examples
    --------
    >>> import torch
    >>> net = ConvNet8(channels=(4, 8, 8, 16))((1, 28, 28), outputs=10)
    >>> net(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    channels: tuple[int, int, int, int] = (48, 64, 128, 512)
    norm: bool = True
    dropout: float = 0.5
    activation: Activation = field(default_factory=Step)

    def __post_init__(self) -> None:
        _check_share(self.dropout)

    def __call__(self, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Sequential:
        """Build the network; the initial weights depend on the seed only."""
        _check("convnet8", shape, 20)
        first, second, third, last = self.channels
        norm = partial(nn.BatchNorm2d, eps=1e-4) if self.norm else None
        height, width = (side // 2 // 2 - 4 for side in shape[1:])
        with seeded(seed):
            return nn.Sequential(
                *convolution(shape[0], first, 5, padding=2, norm=None),
                nn.MaxPool2d(2),
                copy.deepcopy(self.activation),
                *convolution(first, second, 3, padding=1, norm=norm),
                copy.deepcopy(self.activation),
                *convolution(second, second, 3, padding=1, norm=norm),
                nn.MaxPool2d(2),
                copy.deepcopy(self.activation),
                *convolution(second, third, 3, norm=norm),
                copy.deepcopy(self.activation),
                *convolution(third, third, 3, padding=1, norm=norm),
                copy.deepcopy(self.activation),
                *convolution(third, third, 3, norm=norm),
                copy.deepcopy(self.activation),
                nn.Dropout2d(self.dropout),
                *convolution(third, last, (height, width), norm=norm),
                copy.deepcopy(self.activation),
                nn.Flatten(),
                nn.Linear(last, outputs),
            )


@dataclass(frozen=True)
class AlexNet:
    """Five convolutions and three linear layers, without groups, response normalisation and dropout.

    conv 12x12 stride 4 pad 2, activate; conv 5x5 pad 2, pool, activate; conv 3x3 pad 1, pool, activate;
    conv 3x3 pad 1, activate; conv 3x3 pad 1, pool, activate; twice linear, activate; linear. Each pool is 3x3 with
    stride 2. 62,394,344 parameters for 3x224x224 samples of 1000 classes.

    Parameters
    ----------
    channels
        Output channels of the five convolutions.
    units
        Width of the two hidden linear layers.
    norm
        Batch normalisation behind each hidden layer but the first, which has neither it nor a bias; without it
        all layers have biases.
    activation
        The activation, copied for each layer.

    References
    ----------
    Krizhevsky, Sutskever, Hinton 2012 [krizhevsky2012], as Zhou et al. 2016 [zhou2016] changed it and Friesen and
    Domingos 2018, appendix [friesen2018], trained it. Differs: the padding is ours, that of the first convolution
    and none of pools, so that `freeze` takes it; 224x224 samples go by 55, 27 and 13 to the published 6x6.

    Examples
    --------
    >>> import torch
    >>> net = AlexNet(channels=(2, 4, 4, 4, 4), units=16)((3, 64, 64), outputs=10)
    >>> net(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """

    channels: tuple[int, int, int, int, int] = (96, 256, 384, 384, 256)
    units: int = 4096
    norm: bool = True
    activation: Activation = field(default_factory=Step)

    def __call__(self, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Sequential:
        """Build the network; the initial weights depend on the seed only."""
        _check("alexnet", shape, 64)
        first, second, third, fourth, fifth = self.channels
        norm = nn.BatchNorm2d if self.norm else None
        sides = [(side - 8) // 4 + 1 for side in shape[1:]]
        for _ in range(3):  # pools
            sides = [(side - 1) // 2 for side in sides]
        with seeded(seed):
            return nn.Sequential(
                nn.Conv2d(shape[0], first, 12, stride=4, padding=2, bias=not self.norm),
                copy.deepcopy(self.activation),
                *convolution(first, second, 5, padding=2, norm=norm),
                nn.MaxPool2d(3, 2),
                copy.deepcopy(self.activation),
                *convolution(second, third, 3, padding=1, norm=norm),
                nn.MaxPool2d(3, 2),
                copy.deepcopy(self.activation),
                *convolution(third, fourth, 3, padding=1, norm=norm),
                copy.deepcopy(self.activation),
                *convolution(fourth, fifth, 3, padding=1, norm=norm),
                nn.MaxPool2d(3, 2),
                copy.deepcopy(self.activation),
                nn.Flatten(),
                *_dense(fifth * prod(sides), self.units, self.norm, self.activation),
                *_dense(self.units, self.units, self.norm, self.activation),
                nn.Linear(self.units, outputs),
            )


@dataclass(frozen=True)
class ResNet18:
    """A convolution, eight residual blocks and a linear read-out of their mean over places; 17 activations, all hard.

    11,689,512 parameters for 3x224x224 samples of 1000 classes; 11,173,962 with a small stem, for 3x32x32 samples of
    ten classes. `freeze` does not take residual blocks yet.

    Parameters
    ----------
    channels
        Channels of the four pairs of blocks; all but the first pair halve height and width.
    small
        Begin with a 3x3 convolution, for small images such as those of CIFAR, instead of a 7x7 convolution with
        stride 2 and a 3x3 pool with stride 2.
    norm
        Batch normalisation behind each convolution.
    activation
        The activation, copied for each layer.

    References
    ----------
    He et al. 2016, Sec. 3 and 4 [he2016], initial weights as in He et al. 2015 [he2015]: variance 2/(k² outputs);
    Friesen and Domingos 2018, appendix [friesen2018]. Differs: the pool of the stem stands before its activation, the
    same function, whose gradient goes to the largest sum instead of the first of equal bits.

    Examples
    --------
    >>> import torch
    >>> net = ResNet18(channels=(4, 4, 8, 8), small=True)((3, 32, 32), outputs=10)
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    channels: tuple[int, int, int, int] = (64, 128, 256, 512)
    small: bool = False
    norm: bool = True
    activation: Activation = field(default_factory=Step)

    def __call__(self, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Sequential:
        """Build the network; the initial weights depend on the seed only."""
        _check("resnet18", shape, 8 if self.small else 32, "" if self.small else "; small=True takes smaller ones")
        norm = nn.BatchNorm2d if self.norm else None
        width, layers = self.channels[0], list[nn.Module]()
        with seeded(seed):
            kernel, stride, padding = (3, 1, 1) if self.small else (7, 2, 3)
            layers += convolution(shape[0], width, kernel, stride=stride, padding=padding, norm=norm)
            layers += [] if self.small else [nn.MaxPool2d(3, 2, padding=1)]
            layers.append(copy.deepcopy(self.activation))
            for i, channels in enumerate(self.channels):
                for stride in (1 if i == 0 else 2, 1):
                    block = ResidualBlock(width, channels, stride=stride, norm=self.norm, activation=self.activation)
                    layers.append(block)
                    width = channels
            net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs))
            for module in net.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return net


def mlp(*widths: int, norm: bool = True, activation: Activation | None = None, seed: int = 0) -> nn.Sequential:
    """Build `MLP` from its widths, inputs first and outputs last.

    Examples
    --------
    >>> sum(p.numel() for p in mlp(64, 32, 10, norm=False).parameters())
    2410
    """
    if len(widths) < 3:
        raise ValueError(
            f"mlp needs inputs, at least one hidden width and outputs, such as (784, 256, 10), got {widths}"
        )
    recipe = MLP(hidden=widths[1:-1], norm=norm, activation=Step() if activation is None else activation)
    return recipe((widths[0],), widths[-1], seed)


def convnet4(
    shape: tuple[int, int, int], outputs: int, *, norm: bool = True, activation: Activation | None = None, seed: int = 0
) -> nn.Sequential:
    """Build `ConvNet4` for samples of this shape (channels, height, width).

    Examples
    --------
    >>> len(convnet4((3, 32, 32), 10, norm=False))
    10
    """
    return ConvNet4(norm=norm, activation=Step() if activation is None else activation)(shape, outputs, seed)


def _dense(inputs: int, outputs: int, norm: bool, activation: Activation) -> list[nn.Module]:
    """Make a hidden linear layer."""
    layers: list[nn.Module] = [nn.Linear(inputs, outputs, bias=not norm)]
    return [*layers, *([nn.BatchNorm1d(outputs)] if norm else []), copy.deepcopy(activation)]


def _check(name: str, shape: tuple[int, ...], least: int, remedy: str = "") -> None:
    """Refuse samples that are no images or too small ones."""
    if len(shape) != 3 or min(shape[1:]) < least:
        raise ValueError(
            f"{name} needs samples of shape (channels, height >= {least}, width >= {least}), got {shape}{remedy}"
        )


def _check_share(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is a share in [0, 1), got {dropout}")
