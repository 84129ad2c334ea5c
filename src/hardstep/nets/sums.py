"""Residual sums: of steps, or of real numbers that go on beside them (plain and Bi-Real shortcuts)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from hardstep.blocks import Activation, Padded, ResidualBlock, convolution
from hardstep.layers import Shift, rprelu

__all__ = ["HardSums", "HardTanh", "RPReLU", "RealBlock", "RealSums", "Sums", "Unbounded"]


@dataclass(frozen=True)
class Unbounded:
    """Pass the sums on as they are.

    Examples
    --------
    >>> Unbounded()(4)
    []
    """

    def __call__(self, channels: int) -> list[nn.Module]:
        """Make the modules behind a sum."""
        return []


@dataclass(frozen=True)
class HardTanh:
    """Clip the sums to [-1, 1].

    References
    ----------
    Qin et al. 2020, authors' code [qin2020].

    Examples
    --------
    >>> HardTanh()(4)
    [Hardtanh(min_val=-1.0, max_val=1.0)]
    """

    def __call__(self, channels: int) -> list[nn.Module]:
        """Make the modules behind a sum."""
        return [nn.Hardtanh()]


@dataclass(frozen=True)
class RPReLU:
    """Bend the sums at a learned point of each channel.

    References
    ----------
    Liu et al. 2020 [liu2020].

    Examples
    --------
    >>> len(RPReLU()(4)[0])
    3
    """

    def __call__(self, channels: int) -> list[nn.Module]:
        """Make the modules behind a sum."""
        return [rprelu(channels)]


class RealBlock(nn.Module):
    """Add what steps and convolutions make of real numbers to them: out = after(body(x) + s(x)).

    The body is (activate, convolve, normalise) once or more; the sums stay real and go on to the next block.

    Parameters
    ----------
    body
        What begins with an activation.
    shortcut
        s; an empty `nn.Sequential` for the identity.
    after
        What is done with the sum.

    Examples
    --------
    >>> import torch
    >>> RealBlock(nn.Sequential(nn.Identity()), nn.Sequential(), nn.Sequential())(torch.ones(1, 1, 1, 2))
    tensor([[[[2., 2.]]]])
    """

    def __init__(self, body: nn.Sequential, shortcut: nn.Module, after: nn.Sequential) -> None:
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut, after

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n _ _ _"]:
        """Return the sum of both ways."""
        out: Tensor = self.after(self.body(x) + self.shortcut(x))
        return out


@dataclass(frozen=True)
class HardSums:
    """Activate every sum: all that goes from block to block are steps; a shortcut goes around two convolutions.

    References
    ----------
    He et al. 2016, Sec. 3 [he2016]; Friesen and Domingos 2018, appendix [friesen2018].
    """

    def begin(self, channels: int, activation: Activation) -> list[nn.Module]:
        """Make what stands behind the stem."""
        return [copy.deepcopy(activation)]

    def pair(  # noqa: D102 (see RealSums)
        self, inputs: int, outputs: int, *, stride: int, norm: bool, activation: Activation, padded: bool
    ) -> list[nn.Module]:
        block = ResidualBlock(inputs, outputs, stride=stride, norm=norm, activation=activation)
        if padded and len(block.shortcut):
            block.shortcut = nn.Sequential(Padded(inputs, outputs, stride))
        return [block]


@dataclass(frozen=True)
class RealSums:
    """Keep the sums real: each convolution reads steps of them and adds to them; `freeze` keeps them in fixed point.

    Frozen, such networks run in NumPy, the engine, exported C and ONNX, not in Verilog or QONNX.

    Parameters
    ----------
    every
        How many convolutions a shortcut goes around: 1 as in Bi-Real nets, 2 as in plain residual networks.
    shifted
        A learned threshold for each channel before every activation (RSign, where the activation is a sign).
    rectified
        A ReLU between each convolution and its normalisation.
    after
        What is done with each sum.

    Raises
    ------
    ValueError
        If a shortcut is to go around other than 1 or 2 convolutions.

    References
    ----------
    Liu et al. 2018 [liu2018]; Liu et al. 2020 [liu2020], `shifted` and `RPReLU`; Qin et al. 2020 [qin2020],
    `HardTanh`; Wu et al. 2023, authors' code [wu2023], `rectified`.

    Examples
    --------
    >>> from hardstep.step import Sign
    >>> len(RealSums().pair(4, 8, stride=2, norm=True, activation=Sign(), padded=False))
    2
    """

    every: int = 1
    shifted: bool = False
    rectified: bool = False
    after: Unbounded | HardTanh | RPReLU = field(default_factory=Unbounded)

    def __post_init__(self) -> None:
        if self.every not in (1, 2):
            raise ValueError(f"a shortcut goes around every=1 (Bi-Real) or 2 (plain) convolutions, got {self.every}")

    def begin(self, channels: int, activation: Activation) -> list[nn.Module]:
        """Make what stands behind the stem."""
        return self.after(channels)

    def pair(
        self, inputs: int, outputs: int, *, stride: int, norm: bool, activation: Activation, padded: bool
    ) -> list[nn.Module]:
        """Make the blocks of two convolutions, the first with the stride.

        Parameters
        ----------
        padded
            A shortcut that changes shape has no parameters; otherwise it is a 2x2 mean and a real 1x1 convolution.
        """
        kind = nn.BatchNorm2d if norm else None
        bodies: list[list[nn.Module]] = []
        for width, pace in ((inputs, stride), (outputs, 1)):
            conv, *normal = convolution(width, outputs, 3, stride=pace, padding=1, norm=kind)
            bodies.append([Shift(width)] if self.shifted else [])
            bodies[-1] += [copy.deepcopy(activation), conv, *([nn.ReLU()] if self.rectified else []), *normal]
        shortcut: list[nn.Module] = []
        if padded and (stride > 1 or inputs != outputs):
            shortcut = [Padded(inputs, outputs, stride)]
        elif stride > 1 or inputs != outputs:
            mean = [nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)] if stride > 1 else []
            shortcut = [*mean, *convolution(inputs, outputs, 1, norm=kind)]
        groups = [bodies[0] + bodies[1]] if self.every == 2 else bodies
        shortcuts = [shortcut, []]
        return [
            RealBlock(nn.Sequential(*body), nn.Sequential(*around), nn.Sequential(*self.after(outputs)))
            for body, around in zip(groups, shortcuts, strict=False)
        ]


Sums = HardSums | RealSums
