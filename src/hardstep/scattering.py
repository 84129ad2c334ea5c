"""Generalised scattering: fixed filters, a non-linearity and pooling, layer after layer, with bounds on changes."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from math import inf, pi, prod, sqrt

import torch
from jaxtyping import Complex, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from hardstep.banks import bank
from hardstep.frames import Frame, decay, frame_bounds
from hardstep.scattering_bounds import LayerBounds, lipschitz_constant
from hardstep.scattering_layers import HardStep, ScatteringLayer
from hardstep.scattering_paths import Path, PathRule, grow, non_decreasing, prefixes

__all__ = ["Scattering"]

Features = Float[Tensor, "b c _ _ _"] | Complex[Tensor, "b c _ _ _"]
EXACT = {torch.float32: 2**24, torch.float64: 2**53}  # below, sums of whole numbers are exact


class Scattering(nn.Module):
    """Scatter images: Phi^n(f) = {U[q] f * atom_n} over the paths q of n filters, U(lambda) f = P(M(f * g_lambda)).

    Nothing is trained. Images lie on a torus. Frames are rescaled until the network is admissible, max(B, B L² R²) <= 1
    in each layer: then |Phi(f) - Phi(h)| <= |f - h|. With a hard step anywhere all runs in whole numbers and without
    gains: frames of whole-number taps, moduli, rectifiers and steps, sums in the place of means; outputs are counts.
    Gradients pass to the image.

    Parameters
    ----------
    size
        Height and width of the images; the strides of all layers together divide both.
    layers
        The propagating layers.
    output_frame
        The frame whose atom reads the last layer.
    output_stride
        Keep every so many values of the features along both axes.
    paths
        Which scale may follow which.
    reflect
        Pixels by which images are continued by reflection on all sides, cropped from the features; 0 is the torus.
    rescale
        False leaves the frames as they are.
    max_bytes
        Images pass in batches whose widest layer takes about as much, one image at least.

    Raises
    ------
    ValueError
        If the sizes do not divide, a pooling or a step meets complex signals, or a step meets layers that cannot run in
        whole numbers.

    References
    ----------
    Wiatowski and Boelcskei 2018 [wiatowski2018], feature extractor and admissibility. Differs: discrete, no factor
    S^(d/2) (so sub-sampling has R = 1), automatic gains; the hard step is ours and outside their theory.

    Examples
    --------
    >>> from hardstep.frames import haar
    >>> net = Scattering((28, 28), [ScatteringLayer(haar()), ScatteringLayer(haar())], haar(), output_stride=7)
    >>> [tuple(features.shape) for features in net(torch.rand(2, 1, 28, 28))]
    [(2, 1, 1, 4, 4), (2, 1, 9, 4, 4), (2, 1, 54, 4, 4)]
    >>> net.lipschitz
    1.0
    """

    def __init__(
        self,
        size: tuple[int, int],
        layers: Sequence[ScatteringLayer],
        output_frame: Frame,
        *,
        output_stride: int = 1,
        paths: PathRule = non_decreasing,
        reflect: int = 0,
        rescale: bool = True,
        max_bytes: int = 2**28,
    ) -> None:
        super().__init__()
        self.size, self.output_stride, self.reflect, self.max_bytes = size, output_stride, reflect, max_bytes
        self.exact = any(layer.activation.lipschitz == inf for layer in layers)
        poolings = [layer.pooling.in_whole_numbers() if self.exact else layer.pooling for layer in layers]
        self.layers = [replace(layer, pooling=pooling) for layer, pooling in zip(layers, poolings, strict=True)]
        self.strides = [prod(pooling.stride for pooling in poolings[:n]) for n in range(len(poolings) + 1)]
        self._check()
        self.output_frame, self._paths, self._rescale = output_frame, paths, rescale
        banks, bounds, scales, labels, peaks, real = [], [], [], [], [255], True
        padded = tuple(length + 2 * reflect for length in size)
        for n, frame in enumerate([*(layer.frame for layer in layers), output_frame]):
            grid = (padded[0] // self.strides[n], padded[1] // self.strides[n])
            filters = frame(grid)
            lower, upper = frame_bounds(filters, real=real)
            layer = self.layers[n] if n < len(layers) else ScatteringLayer(frame)
            constants = (layer.activation.lipschitz, layer.pooling.lipschitz)
            gain = 1.0 if self.exact or not rescale else min(1.0, upper**-0.5 / max(1.0, prod(constants)))
            banks.append(bank(filters, gain, exact=self.exact, real=real))
            wavelets = filters.wavelets
            applied = gain if not self.exact or wavelets is None else 1 / wavelets.atom_gain
            bounds.append(LayerBounds(grid, lower, upper, *constants, gain, decay(applied * filters.atom)))
            scales.append(filters.scales)
            labels.append(filters.labels)
            if wavelets is not None:
                peaks.append(peaks[-1] * max(wavelets.peaks))
                peaks.append(layer.activation.peak(peaks[-1]) * layer.pooling.growth)
            real = layer.activation.real(real and filters.real)
            if not (real or layer.pooling.complex):
                raise ValueError(f"layer {n + 1} pools complex signals by {layer.pooling}; sub-sample, or take moduli")
        self.banks = nn.ModuleList(banks)
        self.bounds: tuple[LayerBounds, ...] = tuple(bounds)
        self._labels = labels
        self._scales = scales
        self._peak = max(peaks)
        self.levels = grow(scales[:-1], paths)

    def _check(self) -> None:
        """Refuse what does not fit."""
        total = self.strides[-1] * self.output_stride
        if self.output_stride < 1 or self.reflect < 0 or self.reflect >= min(self.size):
            raise ValueError(
                f"output_stride is at least 1 and reflect from 0 to less than the size {self.size}, got "
                f"output_stride={self.output_stride} and reflect={self.reflect}"
            )
        if any(length % total for length in self.size) or self.reflect % total:
            raise ValueError(
                f"size {self.size} and reflect={self.reflect} must be multiples of {total}, the strides of all layers "
                "times output_stride; pad the images or lower a stride"
            )
        for n, layer in enumerate(self.layers):
            if self.exact and not layer.activation.whole:
                raise ValueError(
                    f"layer {n + 1} is {layer.activation}, but a network with a hard step runs in whole numbers: use "
                    "MODULUS, RECTIFIED or HardStep in all layers"
                )

    @property
    def lipschitz(self) -> float | None:
        """A constant C of |Phi(f) - Phi(h)| <= C |f - h| on the (continued) images; None if a hard step denies it."""
        return None if self.exact else lipschitz_constant(self.bounds)

    @property
    def labels(self) -> list[list[str]]:
        """Name of each node of each order, such as "2h>3d"."""
        return [
            [">".join(self._labels[i][number] for i, number in enumerate(path)) for path in level.paths]
            for level in self.levels
        ]

    def output_grid(self, order: int) -> tuple[int, int]:
        """Return height and width of the features of an order."""
        step = self.strides[order] * self.output_stride
        return self.size[0] // step, self.size[1] // step

    def restricted(self, wanted: Collection[Path]) -> Scattering:
        """Return the network that computes only these paths and their beginnings; `levels` lists all paths.

        Parameters
        ----------
        wanted
            Numbers of the filters along each path, layer by layer.
        """
        fewer = copy.copy(self)
        fewer.levels = grow(self._scales[:-1], self._paths, prefixes(wanted))
        return fewer

    def forward(self, x: Shaped[Tensor, "b c height width"]) -> list[Features]:
        """Return the features of each order n = 0..D, shape (b, c, nodes, height_n, width_n).

        Integer images become float32. With a hard step the images are whole numbers, such as 8-bit codes.

        Raises
        ------
        ValueError
            If the images have another size, or are not whole where they must be.
        """
        x = self._signals(x)
        widest = max(len(level.paths) * prod(layer.grid) for level, layer in zip(self.levels, self.bounds, strict=True))
        rows = max(1, self.max_bytes // (8 * widest * x.shape[1]))
        parts = [[features for _, features in self._walk(batch)] for batch in torch.split(x, rows)]
        return [torch.cat(order) if len(order) > 1 else order[0] for order in zip(*parts, strict=True)]

    def translation_bounds(
        self, x: Shaped[Tensor, "b c height width"], shift: tuple[int, int]
    ) -> Float[Tensor, "order b"]:
        """Bound |Phi^n(T_t f) - Phi^n(f)| of each image by 2 pi |t| K_n/(S_1..S_n) (sum_q |U[q] f|²)^(1/2).

        Holds for steps too, which follow translations exactly.

        Parameters
        ----------
        shift
            t, on the torus, a multiple of all strides together; also of output_stride times them, if that is above 1.

        Raises
        ------
        ValueError
            If t is no such multiple, or images are continued by reflection.

        References
        ----------
        Wiatowski and Boelcskei 2018 [wiatowski2018], vertical translation invariance. Differs: on the grid, with the
        energy of the nodes instead of |f|.
        """
        total = self.strides[-1] * self.output_stride
        if self.reflect or any(part % total for part in shift):
            raise ValueError(
                f"a shift of {shift} with reflect={self.reflect}: the bound is for shifts on the torus (reflect=0) by "
                f"multiples of {total}, the strides of all layers together"
            )
        energies = [u.abs().double().square().sum(dim=(1, 2, 3, 4)).sqrt() for u, _ in self._walk(self._signals(x))]
        length = 2 * pi * sqrt(shift[0] ** 2 + shift[1] ** 2)
        return torch.stack(
            [
                length * layer.decay / stride * energy
                for layer, stride, energy in zip(self.bounds, self.strides, energies, strict=True)
            ]
        )

    def deformation_bound(
        self, x: Shaped[Tensor, "b c height width"], deformed: Shaped[Tensor, "b c height width"]
    ) -> Float[Tensor, " b"]:
        """Bound |Phi(F f) - Phi(f)| of each image by C |F f - f|, C as in `lipschitz`; infinite with a hard step.

        References
        ----------
        Wiatowski and Boelcskei 2018 [wiatowski2018], deformation sensitivity. Differs: the right side is measured on
        the image, where theirs bounds it for band-limited signals by the size of the deformation.
        """
        constant = inf if self.lipschitz is None else self.lipschitz
        moved = (self._signals(deformed) - self._signals(x)).double().square().sum(dim=(1, 2, 3)).sqrt()
        return torch.where(moved == 0, 0.0, constant * moved)

    def with_thresholds(self, x: Shaped[Tensor, "b c height width"], quantile: float) -> Scattering:
        """Return the network whose steps have the quantiles of what they compare on these images, level by level.

        The threshold is the largest whole number not above the quantile; layers are set one after the other.

        Raises
        ------
        ValueError
            If the quantile is not in [0, 1], or there is no hard step.
        """
        if not (0 <= quantile <= 1 and self.exact):
            raise ValueError(f"thresholds need a hard step and a quantile in [0, 1], got {quantile}")
        net, layers = self, list(self.layers)
        for n, layer in enumerate(layers):
            if not isinstance(layer.activation, HardStep):
                continue
            seen: dict[int, list[Tensor]] = {}
            for batch in torch.split(x, 16):
                u = list(net._walk(net._signals(batch)))[n][0]
                for details, scales in net._details(u.flatten(0, 1), n):
                    compared = details.abs() if layer.activation.edges else details
                    for i, scale in enumerate(scales):
                        seen.setdefault(scale, []).append(compared[:, :, i].flatten())
            thresholds = tuple(_quantile(torch.cat(seen[scale]), quantile) for scale in sorted(seen))
            layers[n] = replace(layer, activation=replace(layer.activation, thresholds=thresholds))
            net = copy.copy(net)
            net.layers = layers
        return net

    def as_signs(self, features: Sequence[Features]) -> list[Features]:
        """Return the features that the last steps as signs, 2 step - 1, would give: 2 phi - (sum of the atom's taps).

        The bits are the same at every layer as long as the details have zero mean and thresholds are 0, so signs say
        nothing else.

        Raises
        ------
        ValueError
            If a layer is no hard step.
        """
        if not all(isinstance(layer.activation, HardStep) for layer in self.layers):
            raise ValueError("signs stand for hard steps in all layers; this network has other non-linearities")
        ones = [torch.ones(1, 1, *layer.grid, dtype=torch.float64) for layer in self.bounds]
        totals = [bank(one.to(self._device), ())[1].max() for bank, one in zip(self.banks, ones, strict=True)]
        growths = [layer.pooling.growth for layer in self.layers]
        signs = [
            2 * phi - float(total) * growth
            for phi, total, growth in zip(features[1:], totals[1:], growths, strict=True)
        ]
        return [features[0], *signs]

    @property
    def _device(self) -> torch.device:
        return next(self.banks.buffers()).device

    def _signals(self, x: Tensor) -> Tensor:
        """Return images as floats, continued; wide enough that whole numbers stay exact."""
        if x.shape[-2:] != self.size:
            raise ValueError(f"images of {tuple(x.shape[-2:])} do not fit a scattering network for {self.size}")
        x = x if x.is_floating_point() else x.float()
        if self.exact:
            if x.numel() and (not torch.equal(x, x.round()) or float(x.detach().abs().max()) > 255):
                raise ValueError(
                    "a network with a hard step takes whole numbers of at most 255, such as 8-bit codes; for pixels in "
                    "[0, 1] give (255 * x).round()"
                )
            if self._peak >= EXACT[torch.float64]:
                raise ValueError(f"sums reach {self._peak}, too large for whole numbers; use fewer layers or scales")
            x = x.float() if self._peak < EXACT[torch.float32] else x.double()
        edge = 4 * (self.reflect,)
        return functional.pad(x, edge, mode="reflect") if self.reflect else x

    def _details(self, u: Tensor, n: int) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
        """Yield the details that layer n + 1 compares, group by group, and their scales."""
        for parents, filters in self.levels[n].groups:
            if filters:
                details, _ = self.banks[n](_take(u, parents), filters)
                yield details, tuple(self._scales[n][i] for i in filters)

    def _walk(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the signals U[q] f and the features Phi^n(f) of each order."""
        lead = x.shape[:2]
        u = x.flatten(0, 1)[:, None]
        crop = self.reflect
        for n, level in enumerate(self.levels):
            smooth, children = [], []
            for parents, filters in level.groups:
                details, low = self.banks[n](_take(u, parents), filters)
                smooth.append((parents, low))
                if filters:
                    layer = self.layers[n]
                    u_next = layer.activation(details, tuple(self._scales[n][i] for i in filters))
                    children.append(layer.pooling(u_next).flatten(1, 2))
            features = _put(smooth, u)
            margin = crop // self.strides[n]
            features = features[..., margin : features.shape[-2] - margin, margin : features.shape[-1] - margin]
            every = self.output_stride
            kept = features[..., ::every, ::every]
            yield u.reshape(*lead, *u.shape[1:]), kept.reshape(*lead, *kept.shape[1:])
            grid = self.bounds[min(n + 1, len(self.layers))].grid
            u = torch.cat(children, dim=1) if children else u.new_zeros(len(u), 0, *grid)


def _take(u: Tensor, nodes: Sequence[int]) -> Tensor:
    """Return the signals of some nodes, without a copy if they are neighbours."""
    if len(nodes) and nodes[-1] - nodes[0] + 1 == len(nodes):
        return u[:, nodes[0] : nodes[-1] + 1]
    return u[:, list(nodes)]


def _put(groups: Sequence[tuple[Sequence[int], Tensor]], u: Tensor) -> Tensor:
    """Return what was made of the signals u, group by group, at the places of their nodes."""
    if len(groups) < 2:
        return groups[0][1] if groups else u
    places = torch.tensor([node for nodes, _ in groups for node in nodes])
    joined = torch.cat([values for _, values in groups], dim=1)
    return joined[:, places.argsort().to(joined.device)]


def _quantile(values: Tensor, share: float) -> int:
    """Return the largest whole number not above a quantile."""
    at = int(share * (len(values) - 1))
    return int(values.float().kthvalue(at + 1).values.floor())
