"""Residual networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from hardstep.blocks import Activation, check_images, convolution, seeded
from hardstep.layers import quantise_hidden
from hardstep.nets.sums import HardSums, Sums
from hardstep.step import Step
from hardstep.weights import Real, Weights

__all__ = ["ResNet18", "ResNet20", "ResNet34"]


@dataclass(frozen=True)
class ResNet18:
    """A convolution, eight residual blocks and a linear read-out of their mean over places; 17 activations, all hard.

    11,689,512 parameters for 3x224x224 samples of 1000 classes; 11,173,962 with a small stem, for 3x32x32 samples of
    ten classes. `freeze` takes it with `RealSums`, with `HardSums` if the stem is small.

    Parameters
    ----------
    channels
        Channels of the four stages; all but the first halve height and width.
    small
        Begin with a 3x3 convolution, for small images such as those of CIFAR, instead of a 7x7 convolution with
        stride 2 and a 3x3 pool with stride 2.
    norm
        Batch normalisation behind each convolution.
    readout_norm
        Batch normalisation also before the read-out, where there is any.
    activation
        The activation, copied for each layer.
    weights
        What the weights are, but for those of the first layer, the last and the shortcuts, which are real.
    sums
        Whether sums are activated or go on as real numbers.

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

    stages: ClassVar = (2, 2, 2, 2)  # residual blocks of each

    channels: tuple[int, int, int, int] = (64, 128, 256, 512)
    small: bool = False
    norm: bool = True
    readout_norm: bool = False
    activation: Activation = field(default_factory=Step)
    weights: Weights = field(default_factory=Real)
    sums: Sums = field(default_factory=HardSums)

    def __call__(self, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Sequential:
        """Build the network; the initial weights depend on the seed only."""
        name = type(self).__name__.lower()
        check_images(name, shape, 8 if self.small else 32, "" if self.small else "; small=True takes smaller ones")
        with seeded(seed):
            return _build(self, self.stages, shape[0], outputs, small=self.small)


@dataclass(frozen=True)
class ResNet34(ResNet18):
    """A convolution, sixteen residual blocks and a linear read-out of their mean over places; 33 activations, all hard.

    21,797,672 parameters for 3x224x224 samples of 1000 classes. `freeze` takes it as it takes `ResNet18`.

    Parameters
    ----------
    channels
        Channels of the four stages; all but the first halve height and width.
    small
        Begin with a 3x3 convolution, for small images such as those of CIFAR, instead of a 7x7 convolution with
        stride 2 and a 3x3 pool with stride 2.
    norm
        Batch normalisation behind each convolution.
    readout_norm
        Batch normalisation also before the read-out, where there is any.
    activation
        The activation, copied for each layer.
    weights
        What the weights are, but for those of the first layer, the last and the shortcuts, which are real.
    sums
        Whether sums are activated or go on as real numbers.

    References
    ----------
    He et al. 2016, Sec. 3 and 4 [he2016]; the rest as for `ResNet18`.

    Examples
    --------
    >>> import torch
    >>> net = ResNet34(channels=(4, 4, 8, 8), small=True)((3, 32, 32), outputs=10)
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    stages: ClassVar = (3, 4, 6, 3)


@dataclass(frozen=True)
class ResNet20:
    """A convolution, nine residual blocks in three stages and a linear read-out of their mean over places, for CIFAR.

    Shortcuts have no parameters: places are left out and channels padded with zeros. 269,722 parameters for 3x32x32
    samples of ten classes. `freeze` takes it.

    Parameters
    ----------
    channels
        Channels of the three stages; all but the first halve height and width.
    norm
        Batch normalisation behind each convolution.
    readout_norm
        Batch normalisation also before the read-out, where there is any, as the authors of IR-Net have it.
    activation
        The activation, copied for each layer.
    weights
        What the weights are, but for those of the first and the last layer, which are real.
    sums
        Whether sums are activated or go on as real numbers.

    References
    ----------
    He et al. 2016, Sec. 4.2 [he2016], initial weights as in He et al. 2015 [he2015]; Qin et al. 2020 [qin2020].

    Examples
    --------
    >>> import torch
    >>> net = ResNet20(channels=(2, 4, 8))((3, 32, 32), outputs=10)
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    channels: tuple[int, int, int] = (16, 32, 64)
    norm: bool = True
    readout_norm: bool = False
    activation: Activation = field(default_factory=Step)
    weights: Weights = field(default_factory=Real)
    sums: Sums = field(default_factory=HardSums)

    def __call__(self, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Sequential:
        """Build the network; the initial weights depend on the seed only."""
        check_images("resnet20", shape, 8)
        with seeded(seed):
            return _build(self, (3, 3, 3), shape[0], outputs, small=True, padded=True)


def _build(
    recipe: ResNet18 | ResNet20,
    pairs: Sequence[int],
    inputs: int,
    outputs: int,
    *,
    small: bool,
    padded: bool = False,
) -> nn.Sequential:
    """Make a network with so many pairs of convolutions in its stages, from the generator as it is."""
    norm, width = nn.BatchNorm2d if recipe.norm else None, recipe.channels[0]
    kernel, stride, padding = (3, 1, 1) if small else (7, 2, 3)
    layers = convolution(inputs, width, kernel, stride=stride, padding=padding, norm=norm)
    layers += [] if small else [nn.MaxPool2d(3, 2, padding=1)]
    layers += recipe.sums.begin(width, recipe.activation)
    for stage, channels in enumerate(recipe.channels):
        for i in range(pairs[stage]):
            layers += recipe.sums.pair(
                width,
                channels,
                stride=2 if stage and not i else 1,
                norm=recipe.norm,
                activation=recipe.activation,
                padded=padded,
            )
            width = channels
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.BatchNorm1d(width)] if recipe.norm and recipe.readout_norm else []
    net = nn.Sequential(*layers, nn.Linear(width, outputs))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    shortcuts = [part for name, part in net.named_modules() if ".shortcut." in name]
    return quantise_hidden(net, recipe.weights, spare=shortcuts)
