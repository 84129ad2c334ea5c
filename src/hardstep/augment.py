"""Augmentation: training images zoomed, cropped and mirrored anew at every sweep."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor
from torch.nn.functional import interpolate

from hardstep.grid import Grid

__all__ = ["Augment", "Changes"]

TRIES = 10  # windows of a zoom that are drawn before the largest in the middle is taken
RATIO = 4 / 3  # greatest proportion of width to height, and of height to width, of such a window


@dataclass(frozen=True)
class Augment:
    """Crop and mirror training images anew at every sweep: pixels move, and none changes without a zoom.

    With `zoom` a window of a random share of the area, of a random shape and place, is resized to the size of the
    samples, codes rounded; of an image folder it is cut from the image in the file. Then an image of h x w pixels gets
    `crop` pixels of the value 0 on each side, one of the (2 crop + 1)² windows of h x w pixels is drawn, each as
    likely, and with `mirror` it is turned left to right with probability 1/2. What a row becomes depends on the seed of
    the fit, the sweep and the row alone: not on batches, ranks or a resume. By default nothing happens. A zoom takes
    images one by one, the rest takes whole batches.

    Parameters
    ----------
    crop
        Pixels put on each side, at least 0 and fewer than the image has.
    mirror
        Whether images are mirrored.
    zoom
        Least and largest share of the area that a window takes; None for no zoom. Its proportions lie between 3:4 and
        4:3, evenly on a logarithmic scale; one that does not fit is drawn again.

    Raises
    ------
    ValueError
        If `crop` is negative, or `zoom` is not two shares, the least first.

    References
    ----------
    Wu et al. 2023, authors' code [wu2023]: `Augment(crop=4, mirror=True)` for CIFAR,
    `Augment(mirror=True, zoom=(0.08, 1.25))` for ImageNet.

    Examples
    --------
    >>> x = torch.tensor([[[[1, 2, 3]]]], dtype=torch.uint8)
    >>> Augment(mirror=True).images(x.repeat(2, 1, 1, 1), torch.tensor([0, 1])).squeeze()
    tensor([[1, 2, 3],
            [3, 2, 1]], dtype=torch.uint8)
    """

    crop: int = 0
    mirror: bool = False
    zoom: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ValueError(f"crop is the number of pixels put on each side, at least 0, got {self.crop}")
        if self.zoom is not None and not 0 < self.zoom[0] <= min(self.zoom[1], 1):
            raise ValueError(
                "zoom is the least and the largest share of the area, 0 < least <= largest and least <= 1, "
                f"got {self.zoom}"
            )

    def check(self, shape: tuple[int, ...], grid: Grid | None) -> None:
        """Raise a ValueError unless samples are images whose pixels may move.

        Raises
        ------
        ValueError
            If samples have no height and width, an image is no larger than `crop`, or a code means another number at
            another pixel.
        """
        if self == Augment():
            return
        if len(shape) != 3 or min(shape[1:]) <= self.crop:
            raise ValueError(
                f"{self} needs images of shape (channels, height, width), higher and wider than crop, got samples of "
                f"shape {shape}; reshape them, or leave out augment"
            )
        shapes = () if grid is None else (grid.scale.shape, grid.zero.shape)
        if any(size != 1 for sizes in shapes for size in sizes[-2:]):
            raise ValueError(
                f"{self} moves pixels, but the grid of the data differs from pixel to pixel (shapes {shapes}); give "
                "one scale and zero a channel, of shape (channels, 1, 1)"
            )

    def draw(self, rows: int, generator: torch.Generator) -> Changes | None:
        """Draw what becomes of each row in a sweep; None if all stay as they are."""
        if self == Augment():
            return None
        return Changes(self, torch.randint(2**62, (rows,), generator=generator))

    def images(
        self,
        x: Shaped[Tensor, "n c _ _"],
        numbers: Int64[Tensor, " n"],
        *,
        size: tuple[int, int] | None = None,
        fill: Shaped[Tensor, "..."] | int = 0,
    ) -> Shaped[Tensor, "n c h w"]:
        """Return the images that these numbers stand for, one number an image.

        Parameters
        ----------
        size
            Height and width of the images to make with a zoom; those of x if None.
        fill
            What stands for the value 0, of a shape that broadcasts against an image.
        """
        if self.zoom is not None:
            wanted = size or (x.shape[2], x.shape[3])
            x = torch.stack([_zoomed(i, self.zoom, wanted, number) for i, number in zip(x, numbers, strict=True)])
        (n, c, h, w), pad, numbers = x.shape, self.crop, numbers.to(x.device)
        if pad:
            framed = torch.empty(n, c, h + 2 * pad, w + 2 * pad, dtype=x.dtype, device=x.device)
            framed[:] = torch.as_tensor(fill, device=x.device)
            framed[:, :, pad:-pad, pad:-pad] = x
            x = framed
        places = 2 * pad + 1
        top, left, side = (
            (numbers // divisor % count)[:, None]
            for divisor, count in ((1, places), (places, places), (places**2, 1 + self.mirror))
        )
        columns = torch.arange(w, device=x.device)
        columns = left + torch.where(side == 0, columns, columns.flip(0))
        lines = top + torch.arange(h, device=x.device)
        pixels = (lines[:, :, None] * x.shape[3] + columns[:, None, :]).view(n, 1, h * w)
        return x.flatten(2).gather(2, pixels.expand(n, c, h * w)).view(n, c, h, w)


@dataclass(frozen=True, eq=False)
class Changes:
    """What becomes of each row of a part in one sweep.

    Parameters
    ----------
    augment
        What may become of it.
    numbers
        A number for each row, from which its window and side follow.
    """

    augment: Augment
    numbers: Int64[Tensor, " n"]

    def of(
        self,
        x: Shaped[Tensor, "b c _ _"],
        rows: Int64[Tensor, " b"],
        grid: Grid | None,
        size: tuple[int, int] | None = None,
    ) -> Shaped[Tensor, "b c h w"]:
        """Return the changed images of these rows, codes as codes; the frame is the code nearest to the value 0."""
        fill = 0 if grid is None else torch.from_numpy(grid.zero).clamp(0, 255)
        return self.augment.images(x, self.numbers[rows], size=size, fill=fill)


def _zoomed(image: Tensor, zoom: tuple[float, float], size: tuple[int, int], number: Tensor) -> Tensor:
    """Return a random window of an image, resized."""
    height, width = image.shape[1:]
    drawn = torch.rand(TRIES + 1, 4, generator=torch.Generator().manual_seed(int(number)), dtype=torch.float64)
    area = (zoom[0] + drawn[:, 0] * (zoom[1] - zoom[0])) * height * width
    ratio = torch.exp((2 * drawn[:, 1] - 1) * log(RATIO))  # of width to height
    high, wide = (area / ratio).sqrt().round().clamp_min(1), (area * ratio).sqrt().round().clamp_min(1)
    high[-1], wide[-1] = min(height, round(width * RATIO)), min(width, round(height * RATIO))
    drawn[-1, 2:] = 0.5
    first = int(((high <= height) & (wide <= width)).nonzero()[0])
    h, w = int(high[first]), int(wide[first])
    top, left = int(drawn[first, 2] * (height - h + 1)), int(drawn[first, 3] * (width - w + 1))
    window = image[None, :, top : top + h, left : left + w]
    return interpolate(window, size, mode="bilinear", antialias=True)[0]
