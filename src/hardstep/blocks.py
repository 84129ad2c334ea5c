"""Pieces that networks are made of: the activations, a hidden convolution, the residual block, seeded weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)

from hardstep.step import Sign, Staircase, Step

__all__ = ["Activation", "Padded", "ResidualBlock", "check_images", "check_share", "convolution", "dense", "seeded"]

Activation = Step | Sign | Staircase


class ResidualBlock(nn.Module):
    """Add two convolutions to what they read: out = a(n2(c2(a(n1(c1(x))))) + s(x)), both activations a hard.

    The sum is real, the outputs of the block are not: what goes on to the next block are steps again. The shortcut
    s is the identity, or a normalised 1x1 convolution where the shape changes.

    Parameters
    ----------
    inputs, outputs
        Channels.
    stride
        Stride of the first convolution and of the shortcut.
    norm
        Batch normalisation behind each convolution, which then has no bias.
    activation
        The activation, copied for each of the two; `Step()` if None.

    References
    ----------
    He et al. 2016, Sec. 3 [he2016]; Friesen and Domingos 2018, appendix [friesen2018], for steps after the sum.

    Examples
    --------
    >>> ResidualBlock(4, 8, stride=2)(torch.ones(1, 4, 6, 6)).shape
    torch.Size([1, 8, 3, 3])
    """

    def __init__(
        self, inputs: int, outputs: int, *, stride: int = 1, norm: bool = True, activation: Activation | None = None
    ) -> None:
        super().__init__()
        activation = Step() if activation is None else activation
        kind = nn.BatchNorm2d if norm else None
        self.body = nn.Sequential(
            *convolution(inputs, outputs, 3, stride=stride, padding=1, norm=kind),
            copy.deepcopy(activation),
            *convolution(outputs, outputs, 3, padding=1, norm=kind),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential(*([] if same else convolution(inputs, outputs, 1, stride=stride, norm=kind)))
        self.activation = copy.deepcopy(activation)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n _ _ _"]:
        """Return the activated sum of both ways."""
        out: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return out


class Padded(nn.Module):
    """A shortcut without parameters: every stride-th place, and channels of zeros on both sides.

    Parameters
    ----------
    inputs, outputs
        Channels; outputs >= inputs.
    stride
        Of both places.

    References
    ----------
    He et al. 2016, Sec. 4.1, option A [he2016].

    Examples
    --------
    >>> Padded(2, 4, 2)(torch.ones(1, 2, 3, 3))[0, :, 0, 0]
    tensor([0., 1., 1., 0.])
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        if outputs < inputs:
            raise ValueError(f"a padded shortcut cannot go from {inputs} channels to {outputs}; widen, or project")
        before = (outputs - inputs) // 2
        self.inputs, self.stride, self.channels = inputs, stride, (before, outputs - inputs - before)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n _ _ _"]:
        """Return the padded places."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.channels))

    @property
    def matrix(self) -> Float[Tensor, "_ _"]:
        """What the shortcut does at one place, as a matrix from inputs to outputs."""
        before, after = self.channels
        return F.pad(torch.eye(self.inputs), (0, 0, before, after))

    def extra_repr(self) -> str:
        """Show what is padded."""
        return f"stride={self.stride}, channels={self.channels}"


def convolution(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int = 0,
    norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
) -> list[nn.Module]:
    """Make a convolution and its normalisation, or a convolution with a bias.

    Parameters
    ----------
    norm
        Makes the normalisation of so many channels; None for none.

    Examples
    --------
    >>> convolution(3, 8, 5, norm=None)
    [Conv2d(3, 8, kernel_size=(5, 5), stride=(1, 1))]
    """
    layer = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=norm is None)
    return [layer] if norm is None else [layer, norm(outputs)]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from this seed inside the block and leave the caller's generator alone.

    Examples
    --------
    >>> with seeded(0):
    ...     first = torch.rand(2)
    >>> with seeded(0):
    ...     bool((torch.rand(2) == first).all())
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def dense(inputs: int, outputs: int, norm: bool, activation: Activation) -> list[nn.Module]:
    """Make a hidden linear layer: the map, its normalisation or a bias, a copy of the activation.

    Examples
    --------
    >>> dense(3, 2, False, Step())
    [Linear(in_features=3, out_features=2, bias=True), Step(rule=Clipped(width=1.0))]
    """
    layers: list[nn.Module] = [nn.Linear(inputs, outputs, bias=not norm)]
    return [*layers, *([nn.BatchNorm1d(outputs)] if norm else []), copy.deepcopy(activation)]


def check_images(name: str, shape: tuple[int, ...], least: int, remedy: str = "") -> None:
    """Raise ValueError for samples that are no images or too small ones."""
    if len(shape) != 3 or min(shape[1:]) < least:
        raise ValueError(
            f"{name} needs samples of shape (channels, height >= {least}, width >= {least}), got {shape}{remedy}"
        )


def check_share(dropout: float) -> None:
    """Raise ValueError unless it is a share of what is dropped."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is a share in [0, 1), got {dropout}")
