"""Scattering features as a scikit-learn transformer."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, isqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data
from torch import Tensor
from torch.nn import functional

from hardstep.frames import haar
from hardstep.scattering import Scattering
from hardstep.scattering_front import ScatteringFront, feature_codes
from hardstep.scattering_layers import ScatteringLayer, Subsample
from hardstep.scattering_paths import Path, non_decreasing
from hardstep.scattering_program import code_range
from hardstep.selection import select_per_class

__all__ = ["ScatteringFeatures"]

ROWS = 128  # images at a time
SELECTION_ROWS = 10_000  # images that selection looks at, evenly spaced


class ScatteringFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn images into standardised scattering features, those that are always 0 left out.

    Parameters
    ----------
    layers
        The propagating layers; None for two of Haar wavelets of 3 scales with moduli, the second sub-sampled by 2. The
        atom of the first layer's frame reads the last.
    output_stride
        Keep every so many values of each feature map.
    paths
        Which scale may follow which.
    image_shape
        (c, h, w) or (h, w) of flat rows; None for square grey images, or one row of pixels where the number of
        columns is no square. Images given as (n, c, h, w) or (n, h, w) tell it themselves.
    select
        Features picked for each class by orthogonal least squares, the union kept; needs y. None keeps all.
    quantile
        Share of the training images' details below the thresholds of hard steps; None leaves thresholds as they are.
    scale
        Standardise the features to mean 0 and variance 1 of the training images.
    codes
        Make 8-bit codes floor((phi - least) / 2^k) of the features first, least and k fixed for each order by the
        layers (`code_range`); needs a hard step in a layer, and images of 8-bit codes. Then `front` gives a module that
        `freeze` takes.

    Attributes
    ----------
    scattering_
        The `Scattering` module, which computes what is kept; its `bounds` and `lipschitz` are before standardisation.
    image_shape_
        (c, h, w).
    mean_, scale_
        What is taken off and divided by.

    Raises
    ------
    ValueError
        In fit: of values that are NaN or infinite, a shape that does not fit, `select` without labels, `codes` without
        hard steps.

    References
    ----------
    Wiatowski and Boelcskei 2018 [wiatowski2018], features and their selection. Differs: images that the strides do not
    divide get rows and columns of zeros at the end.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> x, y = load_digits(return_X_y=True)
    >>> ScatteringFeatures(select=5).fit_transform(x[:200], y[:200]).shape
    (200, 32)
    """

    def __init__(
        self,
        layers: Any = None,  # scikit-learn wants any value taken here, and refused in `fit`
        *,
        output_stride: Any = 1,
        paths: Any = non_decreasing,
        image_shape: Any = None,
        select: Any = None,
        quantile: Any = None,
        scale: Any = True,
        codes: Any = False,
    ) -> None:
        self.layers = layers
        self.output_stride = output_stride
        self.paths = paths
        self.image_shape = image_shape
        self.select = select
        self.quantile = quantile
        self.scale = scale
        self.codes = codes

    def fit(self, X: Any, y: Any = None) -> ScatteringFeatures:
        """Choose thresholds, features and scales from images of shape (n, c h w), (n, h, w) or (n, c, h, w)."""
        images = self._images(X, reset=True)
        net = self._build(self.image_shape_[1:])
        if self.quantile is not None:
            some = images[np.unique(np.linspace(0, len(images) - 1, min(256, len(images))).astype(int))]
            net = net.with_thresholds(self._tensor(some, net), self.quantile)
        self.scattering_ = net
        self._names = _describe(net, self.image_shape_[0], self._tensor(images[:1], net))
        self._columns = np.flatnonzero(self._alive(images))
        if self.select is not None:
            self._columns = self._columns[self._selected(images, y)]
            chosen = [self._names[i] for i in self._columns]
            self.scattering_ = net = net.restricted({path for _, path in chosen})
            self._names = _describe(net, self.image_shape_[0], self._tensor(images[:1], net))
            places = {name: i for i, (name, _) in enumerate(self._names)}
            self._columns = np.array([places[name] for name, _ in chosen], dtype=np.int64)
        shift = next(self._batches(images[:1]))[0].astype(np.float64)  # near the mean, against cancellation
        total, square = np.zeros_like(shift), np.zeros_like(shift)
        for features in self._batches(images):
            values = features - shift
            total, square = total + values.sum(axis=0), square + np.square(values).sum(axis=0)
        mean = total / len(images)
        spread = np.sqrt(np.maximum(square / len(images) - mean**2, 0))
        self.mean_ = mean + shift
        self.scale_ = np.where(spread > 1e-6 * np.maximum(np.abs(self.mean_), 1e-30), spread, 1.0)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the features, float32, one row an image."""
        check_is_fitted(self)
        images = self._images(X, reset=False)
        mean, scale = (self.mean_, self.scale_) if self.scale else (0.0, 1.0)
        out = np.empty((len(images), len(self._columns)), np.float32)
        start = 0
        for features in self._batches(images):
            out[start : start + len(features)] = (features - mean) / scale
            start += len(features)
        return out

    def front(self, unit: float = 1.0) -> ScatteringFront:
        """Return a module that makes the features that `transform` gives, bit for bit, from images unit * code.

        Put it before a network trained on the features: `nn.Sequential(features.front(unit), *net)` freezes to integers
        from pixels to scores, and can be trained further.

        Parameters
        ----------
        unit
            Value of one code of the images that the module is to take, such as `data.train.grid.scale`.

        Raises
        ------
        ValueError
            If the features are no codes: give `codes=True`.
        """
        check_is_fitted(self)
        if not self.codes:
            raise ValueError("a front end that freezes gives codes; fit ScatteringFeatures(..., codes=True)")
        columns = torch.from_numpy(self._columns)
        mean, scale = (torch.from_numpy(a) for a in (self.mean_, self.scale_))
        if not self.scale:
            mean, scale = torch.zeros_like(mean), torch.ones_like(scale)
        return ScatteringFront(self.scattering_, self.image_shape_, columns, mean, scale, unit=unit)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return names such as "n2/2h>3d/r03c07": order, path, row and column; "c0/" first where there are channels."""
        check_is_fitted(self)
        _check_feature_names_in(self, input_features)
        return np.array([self._names[i][0] for i in self._columns], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = self.select is not None
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _build(self, size: tuple[int, int]) -> Scattering:
        """Return the module for images padded to what the strides divide."""
        layers = self.layers
        if layers is None:
            layers = (ScatteringLayer(haar()), ScatteringLayer(haar(), pooling=Subsample(2)))
        last = layers[0].frame if layers else haar()
        total = self.output_stride
        for layer in layers:
            total *= layer.pooling.stride
        height, width = (ceil(length / total) * total for length in size)
        net = Scattering((height, width), layers, last, output_stride=self.output_stride, paths=self.paths)
        if self.codes:
            code_range(net)  # refuses what has none
        return net

    def _images(self, X: Any, *, reset: bool) -> NDArray[Any]:
        """Return checked images as (n, c, h, w)."""
        x: NDArray[Any] = validate_data(self, X, reset=reset, allow_nd=True, dtype="numeric")
        if x.ndim > 4:
            raise ValueError(f"images have the shape (n, c, h, w), (n, h, w) or (n, c h w), got {x.shape}")
        if x.ndim == 2:
            columns = x.shape[1]
            side = isqrt(columns)
            given = self.image_shape or ((side, side) if side**2 == columns else (1, columns))
        else:
            given = x.shape[1:]
        shape = (1, *given) if len(given) == 2 else tuple(given)
        if len(shape) != 3 or np.prod(shape) != np.prod(x.shape[1:]):
            raise ValueError(f"image_shape={given} does not fit rows of {x.shape[1:]} numbers; give (c, h, w)")
        if reset:
            self.image_shape_ = shape
        elif x.ndim > 2 and shape != self.image_shape_:
            raise ValueError(f"images of shape {shape}, but ScatteringFeatures was fitted on {self.image_shape_}")
        return x.reshape(len(x), *self.image_shape_)

    def _tensor(self, images: NDArray[Any], net: Scattering) -> Tensor:
        """Return images as a tensor, zeros behind them where the strides ask for it."""
        x = torch.tensor(np.ascontiguousarray(images, dtype=np.float32))
        (height, width), (rows, columns) = net.size, x.shape[-2:]
        return functional.pad(x, (0, width - columns, 0, height - rows))

    def _batches(self, images: NDArray[Any], *, every: bool = False) -> Iterator[NDArray[np.float32]]:
        """Yield the features that are kept, batch after batch, as float32; all of them if `every`."""
        for start in range(0, len(images), ROWS):
            flat = feature_codes if self.codes else _flat
            features = flat(self.scattering_, self._tensor(images[start : start + ROWS], self.scattering_)).numpy()
            yield features if every else features[:, self._columns]

    def _alive(self, images: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which features are ever above rounding; all if none is."""
        largest = np.zeros(len(self._names), np.float32)
        for features in self._batches(images, every=True):
            np.maximum(largest, np.abs(features).max(axis=0), out=largest)
        alive: NDArray[np.bool_] = largest > 1e-6 * largest.max()
        return alive if alive.any() else ~alive

    def _selected(self, images: NDArray[Any], y: Any) -> NDArray[np.int64]:
        """Return which of the features are picked."""
        if y is None:
            raise ValueError(
                f"ScatteringFeatures with select={self.select} requires y to be passed, but the target y is None; give "
                "labels, or select=None"
            )
        check_classification_targets(y)
        labels = np.unique(np.asarray(y).ravel(), return_inverse=True)[1]
        if len(labels) != len(images):
            raise ValueError(f"{len(images)} images and {len(labels)} labels; give one label an image")
        if labels.max() == 0:
            raise ValueError("y has 1 class, and select picks what tells classes apart; give two or select=None")
        rows = np.unique(np.linspace(0, len(images) - 1, min(SELECTION_ROWS, len(images))).astype(int))
        features = torch.from_numpy(np.concatenate(list(self._batches(images[rows]))))
        assert self.select is not None
        picks: NDArray[np.int64] = select_per_class(features, torch.from_numpy(labels[rows]), self.select).numpy()
        return picks


@torch.no_grad()
def _flat(net: Scattering, x: Tensor) -> Tensor:
    """Return all features of images, one row each; complex ones as real and imaginary parts."""
    parts = [torch.view_as_real(phi) if phi.is_complex() else phi for phi in net(x)]
    return torch.cat([phi.flatten(1) for phi in parts], dim=1).float()


@torch.no_grad()
def _describe(net: Scattering, channels: int, x: Tensor) -> list[tuple[str, Path]]:
    """Return name and path of each column of `_flat`."""
    names = []
    for order, (phi, level, labels) in enumerate(zip(net(x), net.levels, net.labels, strict=True)):
        height, width = phi.shape[-2:]
        for channel in range(channels):
            for path, label in zip(level.paths, labels, strict=True):
                head = "/".join([f"c{channel}"] * (channels > 1) + [f"n{order}"] + [label] * bool(label))
                for row in range(height):
                    for column in range(width):
                        place = f"{head}/r{row:02}c{column:02}"
                        ends = ("/re", "/im") if phi.is_complex() else ("",)
                        names += [(place + end, path) for end in ends]
    return names
