"""Convolutional networks without shortcuts."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import partial
from math import prod

from torch import nn

from hardstep.blocks import Activation, check_images, check_share, convolution, dense, seeded
from hardstep.layers import quantise_hidden
from hardstep.step import Step
from hardstep.weights import Real, Weights

__all__ = ["AlexNet", "ConvNet4", "ConvNet8", "VGGSmall", "convnet4"]


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
    weights
        What the weights are, but for those of the first and the last layer, which are real.

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
    weights: Weights = field(default_factory=Real)

    def __call__(self, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Sequential:
        """Build the network; the initial weights depend on the seed only."""
        check_images("convnet4", shape, 4)
        first, second = self.channels
        height, width = (((size + 2) // 2) // 2 for size in shape[1:])
        flat = second * height * width
        bias = not self.norm
        with seeded(seed):
            net = nn.Sequential(
                nn.Conv2d(shape[0], first, 5, padding=3, bias=bias),
                nn.MaxPool2d(2),
                *([nn.BatchNorm2d(first)] if self.norm else []),
                copy.deepcopy(self.activation),
                nn.Conv2d(first, second, 5, padding=2, bias=bias),
                nn.MaxPool2d(2),
                *([nn.BatchNorm2d(second)] if self.norm else []),
                copy.deepcopy(self.activation),
                nn.Flatten(),
                *dense(flat, self.units, self.norm, self.activation),
                nn.Linear(self.units, outputs),
            )
            return quantise_hidden(net, self.weights)


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
    weights
        What the weights are, but for those of the first and the last layer, which are real.

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
    weights: Weights = field(default_factory=Real)

    def __post_init__(self) -> None:
        check_share(self.dropout)

    def __call__(self, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Sequential:
        """Build the network; the initial weights depend on the seed only."""
        check_images("convnet8", shape, 20)
        first, second, third, last = self.channels
        norm = partial(nn.BatchNorm2d, eps=1e-4) if self.norm else None
        height, width = (side // 2 // 2 - 4 for side in shape[1:])
        with seeded(seed):
            net = nn.Sequential(
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
            return quantise_hidden(net, self.weights)


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
    weights
        What the weights are, but for those of the first and the last layer, which are real.

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
    weights: Weights = field(default_factory=Real)

    def __call__(self, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Sequential:
        """Build the network; the initial weights depend on the seed only."""
        check_images("alexnet", shape, 64)
        first, second, third, fourth, fifth = self.channels
        norm = nn.BatchNorm2d if self.norm else None
        sides = [(side - 8) // 4 + 1 for side in shape[1:]]
        for _ in range(3):  # pools
            sides = [(side - 1) // 2 for side in sides]
        with seeded(seed):
            net = nn.Sequential(
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
                *dense(fifth * prod(sides), self.units, self.norm, self.activation),
                *dense(self.units, self.units, self.norm, self.activation),
                nn.Linear(self.units, outputs),
            )
            return quantise_hidden(net, self.weights)


@dataclass(frozen=True)
class VGGSmall:
    """Six 3x3 convolutions in three pairs, each ending in a pool, and a linear read-out: VGG-small.

    (conv, activate; conv, pool 2, activate) three times; linear. 4,660,106 parameters for 3x32x32 samples of ten
    classes.

    Parameters
    ----------
    channels
        Output channels of the three pairs.
    norm
        Batch normalisation before each activation.
    rectified
        A ReLU before each normalisation, as the authors of ReSTE have it; `freeze` folds it too.
    activation
        The activation, copied for each layer.
    weights
        What the weights are, but for those of the first and the last layer, which are real.

    References
    ----------
    Zhang et al. 2018 [zhang2018]; Wu et al. 2023, authors' code [wu2023].

    Examples
    --------
    >>> import torch
    >>> from hardstep.weights import Binary
    >>> net = VGGSmall(channels=(4, 4, 8), weights=Binary())((3, 32, 32), outputs=10)
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    channels: tuple[int, int, int] = (128, 256, 512)
    norm: bool = True
    rectified: bool = False
    activation: Activation = field(default_factory=Step)
    weights: Weights = field(default_factory=Real)

    def __call__(self, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Sequential:
        """Build the network; the initial weights depend on the seed only."""
        check_images("vgg_small", shape, 8)
        layers, width = list[nn.Module](), shape[0]
        with seeded(seed):
            for channels in self.channels:
                for last in (False, True):
                    layers.append(nn.Conv2d(width, channels, 3, padding=1, bias=not self.norm))
                    layers += [nn.MaxPool2d(2)] if last else []
                    layers += [nn.ReLU()] if self.rectified else []
                    layers += [nn.BatchNorm2d(channels)] if self.norm else []
                    layers.append(copy.deepcopy(self.activation))
                    width = channels
            flat = width * prod(side // 8 for side in shape[1:])
            net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, outputs))
            return quantise_hidden(net, self.weights)


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
