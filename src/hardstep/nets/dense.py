"""Multi-layer perceptrons."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from torch import nn

from hardstep.blocks import Activation, check_share, dense, seeded
from hardstep.layers import quantise_hidden
from hardstep.step import Step
from hardstep.weights import Real, Weights

__all__ = ["MLP", "mlp"]


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
    weights
        What the weights are, but for those of the first and the last layer, which are real.

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
    weights: Weights = field(default_factory=Real)

    def __post_init__(self) -> None:
        if min(self.hidden, default=1) < 1:
            raise ValueError(f"a hidden layer is at least 1 wide, got hidden={self.hidden}")
        check_share(self.dropout)

    def __call__(self, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Sequential:
        """Build the network; the initial weights depend on the seed only."""
        with seeded(seed):
            layers: list[nn.Module] = [nn.Flatten()]
            width = prod(shape)
            for units in self.hidden or 2 * (min(4 * width, 1024),):
                layers += dense(width, units, self.norm, self.activation)
                layers += [nn.Dropout(self.dropout)] if self.dropout else []
                width = units
            net = nn.Sequential(*layers, nn.Linear(width, outputs))
            return quantise_hidden(net, self.weights)


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
