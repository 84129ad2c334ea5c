"""Scattering features of hard steps as the first module of a network: from images to standardised 8-bit codes."""

from __future__ import annotations

import torch
from jaxtyping import Float32, Float64, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional

from hardstep.hard_scatter import Scatter
from hardstep.scattering import Scattering
from hardstep.scattering_program import code_range, compile_scattering

__all__ = ["ScatteringFront", "feature_codes"]


class ScatteringFront(nn.Module):
    """Turn images into features (floor((phi - least) / 2^k) - mean) / scale, phi those of a `Scattering` of hard steps.

    Nothing is trained and no gradient passes. `freeze` makes integers of it, if it comes first.
    `ScatteringFeatures.front` makes it.

    Parameters
    ----------
    scattering
        The features, in whole numbers; least and k are those of `code_range`.
    image_shape
        Channels, height and width of an image; zeros are put behind them up to the scattering's size.
    columns
        Places of the features wanted, all orders flattened one after the other.
    mean, scale
        What is taken off the codes and divided by.
    unit
        Value of one code of the images.

    Raises
    ------
    ValueError
        If the scattering network has no hard step, or the unit is not positive.

    Examples
    --------
    >>> import hardstep as hs
    >>> x, y = hs.data.load("digits").train.take(list(range(300)))
    >>> layers = (hs.ScatteringLayer(hs.haar(2), hs.HardStep()),)
    >>> features = hs.ScatteringFeatures(layers, select=3, codes=True).fit(x, y)
    >>> bool((features.front()(x.reshape(-1, 1, 8, 8)).numpy() == features.transform(x)).all())
    True
    """

    columns: Tensor
    _affine: Tensor

    def __init__(
        self,
        scattering: Scattering,
        image_shape: tuple[int, int, int],
        columns: Int64[Tensor, " d"],
        mean: Float64[Tensor, " d"],
        scale: Float64[Tensor, " d"],
        *,
        unit: float = 1.0,
    ) -> None:
        super().__init__()
        code_range(scattering)  # refuses what has none
        if not 0 < unit < float("inf"):
            raise ValueError(f"unit is the value of one code of the images, such as data.train.grid.scale; got {unit}")
        self.scattering, self.image_shape, self.unit = scattering, image_shape, float(unit)
        self.register_buffer("columns", columns)
        self.register_buffer("_affine", torch.stack([mean, scale]).view(torch.int64))  # `Module.to` casts floats only

    @property
    def affine(self) -> tuple[Float64[Tensor, " d"], Float64[Tensor, " d"]]:
        """Mean and scale."""
        mean, scale = self._affine.view(torch.float64)
        return mean, scale

    @torch.no_grad()
    def forward(self, x: Shaped[Tensor, "b *image"]) -> Float32[Tensor, "b d"]:
        """Return the features of images, given as unit * code in the image's shape or in rows."""
        images = (x.reshape(-1, *self.image_shape) / self.unit).round()
        (height, width), (_, rows, columns) = self.scattering.size, self.image_shape
        images = functional.pad(images, (0, width - columns, 0, height - rows))
        mean, scale = self.affine
        codes = feature_codes(self.scattering, images)[:, self.columns]
        return ((codes.double() - mean) / scale).float()

    def program(self) -> Scatter:
        """Return the layer that computes the codes of the features from 8-bit images, in integers alone."""
        return compile_scattering(self.scattering, self.image_shape, self.columns.cpu().numpy())


@torch.no_grad()
def feature_codes(net: Scattering, x: Shaped[Tensor, "b c height width"]) -> Float32[Tensor, "b d"]:
    """Return floor((phi - least) / 2^k) of all features of images of 8-bit codes, one row an image.

    Raises
    ------
    ValueError
        If the network does not run in whole numbers, or images are not 8-bit codes.
    """
    if x.numel() and float(x.min()) < 0:
        raise ValueError(f"images of 8-bit codes lie in 0..255, got {float(x.min())}")
    parts = [
        (phi.long() - least).flatten(1) >> shift for phi, (least, shift) in zip(net(x), code_range(net), strict=True)
    ]
    return torch.cat(parts, dim=1).float()
