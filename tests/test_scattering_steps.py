"""The hard step inside scattering: whole numbers, invariance, thresholds, signs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import hardstep as hs

FRAMES = {"haar": hs.haar(2), "biorthogonal": hs.biorthogonal(2)}
Whole = NDArray[np.int64]


def codes(rows: int, top: int = 255, size: int = 16, seed: int = 0) -> Tensor:
    """8-bit codes with a flat region."""
    x = torch.randint(0, top + 1, (rows, 1, size, size), generator=torch.Generator().manual_seed(seed)).float()
    x[..., : size // 2, :] = top // 2
    return x


def convolved(u: Whole, frame: hs.Wavelets, detail: int | None) -> Whole:
    """A detail, or the atom, by sums of shifted 64-bit integers."""

    def along(v: Whole, taps: tuple[int, ...], start: int, level: int, axis: int) -> Whole:
        shifted = [tap * np.roll(v, (start + i) * 2**level, axis) for i, tap in enumerate(taps)]
        return np.sum(shifted, axis=0, dtype=np.int64)

    low, high = (frame.low, frame.low_start), (frame.high, frame.high_start)
    last = frame.scales if detail is None else detail // 3
    for level in range(last):
        u = along(along(u, *low, level, -2), *low, level, -1)
    if detail is None:
        return u
    rows, columns = ((low, high), (high, low), (high, high))[detail % 3]
    return along(along(u, *rows, last, -2), *columns, last, -1)


def pooled(u: Whole, kind: str, stride: int) -> Whole:
    """Sub-sampled, or the largest or the sum of each block."""
    if kind == "sub":
        return u[..., ::stride, ::stride]
    blocks = u.reshape(*u.shape[:-2], u.shape[-2] // stride, stride, u.shape[-1] // stride, stride)
    return blocks.max(axis=(-3, -1)) if kind == "max" else blocks.sum(axis=(-3, -1))


POOLINGS: dict[str, Any] = {"sub": hs.Subsample, "max": hs.MaxPool, "mean": hs.MeanPool}
EDGES = hs.HardStep((5, 100), edges=True)


@pytest.mark.parametrize("activations", [(hs.HardStep(), hs.HardStep()), (EDGES, EDGES), (hs.MODULUS, hs.HardStep(3))])
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("kind", POOLINGS)
def test_every_node_is_integer_arithmetic(activations: Any, frame: str, kind: str) -> None:
    strides, taps = (1, 2), FRAMES[frame]
    layers = [hs.ScatteringLayer(taps, m, POOLINGS[kind](s)) for m, s in zip(activations, strides, strict=True)]
    net = hs.Scattering((16, 16), layers, taps)
    x = codes(2)
    for phi, level in zip(net(x), net.levels, strict=True):
        assert phi.dtype == (torch.float32 if net._peak < 2**24 else torch.float64)
        for position, path in enumerate(level.paths):
            u = x[:, 0].numpy().astype(np.int64)
            for n, i in enumerate(path):
                u, activation = convolved(u, taps, i), activations[n]
                if isinstance(activation, hs.HardStep):
                    t = activation.thresholds
                    t = t if isinstance(t, int) else t[i // 3]
                    u = ((np.abs(u) if activation.edges else u) > t).astype(np.int64)
                else:
                    u = np.abs(u)
                u = pooled(u, kind, strides[n])
            assert np.array_equal(phi[:, 0, position].numpy(), convolved(u, taps, None))


def test_gain_and_offset_change_no_bit() -> None:
    net = hs.Scattering((16, 16), [hs.ScatteringLayer(hs.haar(), hs.HardStep(), hs.MaxPool(2))] * 2, hs.haar())
    x = codes(3, top=60)
    for phi, other in zip(net(x)[1:], net(3 * x + 40)[1:], strict=True):
        assert torch.equal(phi, other)
        assert float(phi.max()) > 0


def test_the_step_of_fourier_filtered_images_is_another() -> None:
    """Why steps never see a Fourier transform: exact zeros of flat regions become noise of either sign."""
    x = codes(4)
    filters = hs.haar(2)((16, 16))
    details = torch.fft.ifft2(torch.fft.fft2(x) * filters.details.to(torch.complex64)).real
    truth = np.stack([convolved(x[:, 0].numpy().astype(np.int64), hs.haar(2), i) for i in range(6)], axis=1)
    assert float(np.mean((details.numpy() > 0) != (truth > 0))) > 0.01
    net = hs.Scattering((16, 16), [hs.ScatteringLayer(hs.haar(2), hs.HardStep())], hs.haar(2))
    bits = list(net._walk(x))[1][0]
    assert np.array_equal(bits[:, 0].numpy(), truth > 0)


def test_no_more_bits_flip_than_values_within_the_change() -> None:
    generator = torch.Generator().manual_seed(4)
    for scale in (0.01, 0.3, 3.0):
        u = torch.randn(50, 1, 4, 4, generator=generator, dtype=torch.float64)
        v = u + scale * torch.randn(u.shape, generator=generator, dtype=torch.float64)
        flips = (hs.HardStep()(u, (0,)) != hs.HardStep()(v, (0,))).sum(dim=(1, 2, 3))
        near = (u.abs() <= (u - v).abs()).sum(dim=(1, 2, 3))
        margin = u.abs().amin(dim=(1, 2, 3))
        assert bool((flips <= near).all())
        assert bool((near <= (u - v).square().sum(dim=(1, 2, 3)) / margin.square()).all())


@pytest.mark.parametrize("kind", POOLINGS)
def test_signs_give_the_same_bits_and_an_affine_image_of_the_features(kind: str) -> None:
    frame, strides = hs.haar(2), (1, 2)
    layers = [hs.ScatteringLayer(frame, hs.HardStep(), POOLINGS[kind](stride)) for stride in strides]
    net = hs.Scattering((16, 16), layers, frame)
    x = codes(2)
    signs = net.as_signs(net(x))
    assert torch.equal(signs[0], net(x)[0])
    for phi, level in zip(signs[1:], net.levels[1:], strict=True):
        for position, path in enumerate(level.paths):
            u = x[:, 0].numpy().astype(np.int64)
            for n, i in enumerate(path):
                u = pooled(2 * (convolved(u, frame, i) > 0).astype(np.int64) - 1, kind, strides[n])
            assert np.array_equal(phi[:, 0, position].numpy(), convolved(u, frame, None))
    smooth = hs.Scattering((16, 16), [hs.ScatteringLayer(frame)], frame)
    with pytest.raises(ValueError, match="hard steps in all layers"):
        smooth.as_signs(smooth(x))


@pytest.mark.parametrize("edges", [False, True])
def test_thresholds_are_whole_quantiles_of_each_level(edges: bool) -> None:
    x = torch.randint(0, 256, (12, 1, 16, 16), generator=torch.Generator().manual_seed(9)).float()
    layer = hs.ScatteringLayer(hs.haar(2), hs.HardStep(edges=edges))
    net = hs.Scattering((16, 16), [layer, layer], hs.haar(2)).with_thresholds(x, 0.7)
    shares = [
        float(u[:, :, [i for i, path in enumerate(level.paths) if path[-1] // 3 == scale]].mean())
        for (u, _), level in zip(list(net._walk(x))[1:], net.levels[1:], strict=True)
        for scale in range(2)
    ]
    first = net.layers[0].activation
    assert isinstance(first, hs.HardStep)
    assert isinstance(first.thresholds, tuple)
    assert first.thresholds[1] > first.thresholds[0] > 0
    assert all(abs(share - 0.3) < 0.02 for share in shares[:2])  # many values, few ties
    assert all(share <= 0.3 + 1e-6 or edges for share in shares[2:])
    again = hs.Scattering((16, 16), [replace(layer, activation=step.activation) for step in net.layers], hs.haar(2))
    assert all(torch.equal(a, b) for a, b in zip(net(x), again(x), strict=True))
    with pytest.raises(ValueError, match="quantile"):
        net.with_thresholds(x, 1.5)
