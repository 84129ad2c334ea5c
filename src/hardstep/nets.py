"""Networks: plain `nn.Sequential`s of linear maps, normalisation and steps. There is no base class."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod

import torch
from torch import nn

from hardstep.step import Sign, Staircase, Step

__all__ = ["MLP", "ConvNet4", "convnet4", "mlp"]

Activation = Step | Sign | Staircase


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
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a share in [0, 1), got {self.dropout}")

    def __call__(self, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Sequential:
        """Build the network; the initial weights depend on the seed only."""
        with _seeded(seed):
            layers: list[nn.Module] = [nn.Flatten()]
            width = prod(shape)
            for units in self.hidden or 2 * (min(4 * width, 1024),):
                layers.append(nn.Linear(width, units, bias=not self.norm))
                layers += [nn.BatchNorm1d(units)] if self.norm else []
                layers.append(copy.deepcopy(self.activation))
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
        if len(shape) != 3 or min(shape[1:]) < 4:
            raise ValueError(f"convnet4 needs samples of shape (channels, height >= 4, width >= 4), got {shape}")
        first, second = self.channels
        height, width = (((size + 2) // 2) // 2 for size in shape[1:])
        flat = second * height * width
        bias = not self.norm
        with _seeded(seed):
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
                nn.Linear(flat, self.units, bias=bias),
                *([nn.BatchNorm1d(self.units)] if self.norm else []),
                copy.deepcopy(self.activation),
                nn.Linear(self.units, outputs),
            )


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


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from this seed inside the block and leave the caller's generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
