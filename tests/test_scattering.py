"""Scattering: dimensions, energy, stability, covariance, and the hard step in whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import comb, inf
from typing import Any

import pytest
import torch
from torch import Tensor

import hardstep as hs
from hardstep.scattering_bounds import distance
from hardstep.scattering_layers import NonLinearity, Pooling
from hardstep.scattering_paths import all_paths, decreasing_frequency, grow, non_decreasing

SMOOTH: dict[str, hs.Pointwise] = {
    "modulus": hs.MODULUS,
    "rectified": hs.RECTIFIED,
    "tanh": hs.TANH,
    "logistic": hs.LOGISTIC,
}
STEPS: dict[str, NonLinearity] = {"step": hs.HardStep(), "edges": hs.HardStep((9, 30, 90), edges=True)}
POOLINGS: dict[str, Callable[[int], Pooling]] = {"sub": hs.Subsample, "max": hs.MaxPool, "mean": hs.MeanPool}
FRAMES: dict[str, Any] = {"haar": hs.haar(3), "biorthogonal": hs.biorthogonal(3), "morlet": hs.Morlet(3, 3)}


def network(
    strides: tuple[int, ...] = (1, 2),
    activation: NonLinearity = hs.MODULUS,
    pooling: Callable[[int], Pooling] = hs.Subsample,
    frame: Any = hs.haar(3),  # noqa: B008 (frozen)
    size: tuple[int, int] = (16, 16),
    **options: Any,
) -> hs.Scattering:
    """Layers of one kind."""
    layers = [hs.ScatteringLayer(frame, activation, pooling(stride)) for stride in strides]
    return hs.Scattering(size, layers, frame, **options)


def images(*shape: int, seed: int = 0) -> Tensor:
    """Random smooth images with a flat region, of 8-bit codes, as float64."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x + x.roll(1, -1) + x.roll(1, -2)
    x = (60 * x + 128).clamp(0, 255).round()
    x[..., : shape[-2] // 4, :] = 0
    return x


def norm(x: Tensor) -> Tensor:
    return x.double().square().sum(dim=(1, 2, 3)).sqrt()


@pytest.mark.parametrize(
    ("strides", "orders"),
    [
        ((1, 1), (784, 7056, 42336)),
        ((1, 2), (784, 7056, 10584)),
        ((2, 2), (784, 1764, 2646)),
        ((1, 2, 2), (784, 7056, 10584, 13230)),
    ],
)
def test_dimensions_are_the_published_ones(strides: tuple[int, ...], orders: tuple[int, ...]) -> None:
    features = network(strides, size=(28, 28))(torch.zeros(1, 1, 28, 28))
    assert tuple(phi.numel() for phi in features) == orders
    assert sum(orders) in (50_176, 18_424, 5_194, 31_654)


@pytest.mark.parametrize(("orientations", "scales", "depth"), [(3, 3, 3), (2, 4, 3), (6, 2, 2)])
def test_nodes_are_as_many_as_the_formulas_say(orientations: int, scales: int, depth: int) -> None:
    layer = [scale for scale in range(scales) for _ in range(orientations)]
    formulas = {
        all_paths: lambda n: scales**n,
        non_decreasing: lambda n: comb(scales + n - 1, n),
        decreasing_frequency: lambda n: comb(scales, n),
    }
    for rule, formula in formulas.items():
        levels = grow([layer] * depth, rule)
        assert [len(level.paths) for level in levels] == [orientations**n * formula(n) for n in range(depth + 1)]


@pytest.mark.parametrize("rule", [all_paths, non_decreasing, decreasing_frequency])
@pytest.mark.parametrize("frame", ["haar", "morlet"])
def test_each_node_is_its_path_written_out(rule: Callable[[int, int], bool], frame: str) -> None:
    net = network((1, 2), pooling=hs.MeanPool, frame=FRAMES[frame], paths=rule)
    x = images(2, 2, 16, 16)
    features = net(x)
    for order, level in enumerate(net.levels):
        for position in range(0, len(level.paths), 7):
            u = x
            for n, i in enumerate(level.paths[position]):
                filters = FRAMES[frame](tuple(u.shape[-2:]))
                u = torch.fft.ifft2(torch.fft.fft2(u) * net.bounds[n].gain * filters.details[i]).abs()
                u = torch.nn.functional.avg_pool2d(u, (1, 2)[n])
            atom = net.bounds[order].gain * FRAMES[frame](tuple(u.shape[-2:])).atom
            expected = torch.fft.ifft2(torch.fft.fft2(u) * atom).real
            assert torch.allclose(features[order][:, :, position], expected, atol=1e-9)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_rescaled_layers_are_admissible(frame: str, activation: str, pooling: str) -> None:
    if frame == "morlet" and pooling == "max" and activation != "modulus":
        with pytest.raises(ValueError, match="complex"):
            network((2, 2), SMOOTH[activation], POOLINGS[pooling], FRAMES[frame])
        return
    kind = POOLINGS["sub"] if frame == "morlet" and activation != "modulus" else POOLINGS[pooling]
    net = network((2, 2), SMOOTH[activation], kind, FRAMES[frame])
    for layer in net.bounds:
        upper = layer.gain**2 * layer.upper
        assert max(upper, upper * (layer.lipschitz * layer.pooling) ** 2) <= 1 + 1e-12
        assert 0 < layer.gain <= 1
    assert net.lipschitz is not None
    assert net.lipschitz <= 1 + 1e-12


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("activation", SMOOTH)
def test_features_move_no_further_than_images(frame: str, activation: str) -> None:
    net = network((1, 2), SMOOTH[activation], hs.Subsample, FRAMES[frame])
    x = images(20, 1, 16, 16)
    for scale in (0.1, 1.0, 10.0):
        other = x + scale * torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
        moved = distance(net(x), net(other))
        assert bool((moved <= (1 + 1e-9) * norm(x - other)).all())
        single = distance(net(x.float()), net(other.float()))
        assert bool((single <= (1 + 1e-5) * norm(x - other) + 1e-2).all())


def test_constants_move_features_of_a_parseval_frame_as_far_as_images() -> None:
    net, x = network(), images(4, 1, 16, 16)
    assert torch.allclose(distance(net(x), net(x + 3.0)), norm(torch.full_like(x, 3.0)), rtol=1e-12)


def test_without_gains_features_of_a_frame_may_move_further() -> None:
    net = network((1, 1), frame=hs.biorthogonal(3), rescale=False, paths=all_paths)
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    pairs = torch.cartesian_prod(torch.arange(9), torch.arange(9))
    waves = torch.cos(2 * torch.pi * (pairs[:, :1, None] * rows + pairs[:, 1:, None] * columns) / 16).double()[:, None]
    ratios = (distance(net(waves), net(0 * waves)) / norm(waves)).tolist()
    assert max(ratios) > 1.5
    assert net.lipschitz is not None
    assert max(ratios) <= net.lipschitz


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_energy_is_kept_by_parseval_frames_and_all_paths(depth: int) -> None:
    """|f|² = sum over orders below the last of |||Phi^n|||² + what the last signals hold."""
    net = network((1,) * depth, size=(8, 8), frame=hs.haar(2), paths=all_paths)
    x = images(3, 1, 8, 8)
    signals = list(net._walk(x))
    given = sum(phi.square().sum(dim=(1, 2, 3, 4)) for _, phi in signals[:-1])
    held = signals[-1][0].square().sum(dim=(1, 2, 3, 4))
    assert torch.allclose(given + held, x.square().sum(dim=(1, 2, 3)), rtol=1e-10)
    fewer = list(network((1,) * depth, size=(8, 8), frame=hs.haar(2))._walk(x))
    less = sum(phi.square().sum(dim=(1, 2, 3, 4)) for _, phi in fewer)
    assert bool((less <= x.square().sum(dim=(1, 2, 3)) * (1 + 1e-12)).all())


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("activation", [*SMOOTH, *STEPS])
def test_features_follow_translations(pooling: str, activation: str) -> None:
    chosen = {**SMOOTH, **STEPS}[activation]
    net = network((2, 2), chosen, POOLINGS[pooling], frame=hs.haar(2))
    x = images(3, 1, 16, 16)
    before, after = net(x), net(x.roll((4, -8), (-2, -1)))
    exact = activation in STEPS
    for n, (phi, moved) in enumerate(zip(before, after, strict=True)):
        expected = phi.roll((4 // 2**n, -8 // 2**n), (-2, -1))
        assert torch.equal(moved, expected) if exact else torch.allclose(moved, expected, atol=1e-12 * 255)


def test_shifts_that_the_strides_do_not_divide_are_not_followed() -> None:
    x = images(3, 1, 16, 16)
    before, after = (network((2,))(image)[1] for image in (x, x.roll(1, -1)))
    assert not any(torch.allclose(after, before.roll(shift, -1), atol=1e-6) for shift in range(8))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("activation", [*SMOOTH, *STEPS])
def test_translation_bound_holds_at_every_order(pooling: str, activation: str) -> None:
    chosen = {**SMOOTH, **STEPS}[activation]
    net = network((2, 1, 2), chosen, POOLINGS[pooling], frame=hs.haar(2))
    x = images(2, 1, 16, 16)
    for shift in ((4, 0), (4, 8)):
        bounds = net.translation_bounds(x, shift)
        moved = net(x.roll(shift, (-2, -1)))
        for n, (phi, other) in enumerate(zip(net(x), moved, strict=True)):
            assert bool((distance([phi], [other]) <= bounds[n] + 1e-9).all())


def test_deeper_features_move_less_relative_to_their_nodes() -> None:
    """The box of the specification: error over node energy .645, .359, .191; bounds 2.80, 1.40, .70."""
    x = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    x[..., 20:44, 20:44] = 1.0
    net = network((2, 2), frame=hs.haar(3), size=(64, 64))
    energies = torch.tensor([float(u.square().sum().sqrt()) for u, _ in net._walk(x)], dtype=torch.float64)
    moved = [float(distance([a], [b])) for a, b in zip(net(x), net(x.roll(8, -1)), strict=True)]
    errors = torch.tensor(moved, dtype=torch.float64) / energies
    bounds = net.translation_bounds(x, (0, 8))[:, 0] / energies
    assert bool((errors[1:] < errors[:-1]).all())
    assert bool((bounds[1:] < 0.6 * bounds[:-1]).all())
    assert bool((errors <= bounds).all())


def test_features_move_no_further_than_a_deformed_image() -> None:
    """A smooth random warp, by bilinear interpolation."""
    x = images(2, 1, 32, 32)
    axis = torch.linspace(-1, 1, 32, dtype=torch.float64)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    for size in (0.02, 0.1):
        field = torch.stack([columns + size * torch.sin(3 * rows), rows + size * torch.cos(2 * columns)], dim=-1)
        warped = torch.nn.functional.grid_sample(x, field.expand(2, -1, -1, -1), align_corners=True)
        for frame in (hs.haar(3), hs.biorthogonal(2)):
            net = network((1, 2), pooling=hs.MaxPool, frame=frame, size=(32, 32))
            moved, bound = distance(net(x), net(warped)), net.deformation_bound(x, warped)
            assert bool((moved <= bound * (1 + 1e-9)).all())
            assert bool((bound > 0).all())
    step = network((1, 2), hs.HardStep(), size=(32, 32))
    assert step.lipschitz is None
    assert step.deformation_bound(x, x.roll(1, -1)).tolist() == [inf, inf]
    assert step.deformation_bound(x, x).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", SMOOTH)
def test_lipschitz_constants_are_never_exceeded_and_attained(name: str) -> None:
    chosen = SMOOTH[name]
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-4, 0.1, 1.0, 10.0):
        u, v = scale * torch.randn(2, 500, 1, 1, 2, generator=generator, dtype=torch.float64)
        for a, b in ((u, v), (torch.view_as_complex(u)[..., None], torch.view_as_complex(v)[..., None])):
            ratio = (chosen(a, (0,)) - chosen(b, (0,))).abs() / (a - b).abs()
            assert float(ratio.max()) <= chosen.lipschitz * (1 + 1e-7)
    small = torch.full((1, 1, 1), 1e-3, dtype=torch.float64)
    assert float(chosen(small, (0,)).max() / 1e-3) >= chosen.lipschitz * (1 - 1e-3)
    assert float(chosen(0 * small, (0,)).abs().max()) == 0


@pytest.mark.parametrize("window", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [hs.MaxPool, hs.MeanPool])
def test_constants_of_poolings_are_never_exceeded_and_attained(kind: Any, window: int) -> None:
    pool = kind(2, window)
    generator = torch.Generator().manual_seed(window)
    u, v = torch.randn(2, 300, 6, 6, generator=generator, dtype=torch.float64)
    ratio = (pool(u) - pool(v)).square().sum((1, 2)).sqrt() / (u - v).square().sum((1, 2)).sqrt()
    assert float(ratio.max()) <= pool.lipschitz * (1 + 1e-12)
    spikes = torch.zeros(1, 6, 6, dtype=torch.float64)
    spikes[0, 3, 3] = 1.0  # the pixel that most windows cover
    spikes = spikes.roll((1, 1), (1, 2)) if window % 2 else spikes
    flat = torch.ones(1, 6, 6, dtype=torch.float64)
    attained = max(float(pool(w).square().sum().sqrt() / w.square().sum().sqrt()) for w in (spikes, flat))
    if kind is hs.MaxPool or window % 2 == 0:
        assert attained >= pool.lipschitz * (1 - 1e-3)
    assert hs.Subsample(2).lipschitz == 1.0


def test_pooling_goes_round_the_torus() -> None:
    u = torch.arange(16.0).reshape(1, 4, 4)
    assert hs.MaxPool(2, 3)(u).tolist() == [[[10.0, 11.0], [14.0, 15.0]]]
    assert hs.MeanPool(4)(u).tolist() == [[[7.5]]]
    assert hs.MeanPool(2).in_whole_numbers()(u).tolist() == [[[10.0, 18.0], [42.0, 50.0]]]
    with pytest.raises(ValueError, match="window of 5"):
        hs.MaxPool(2, 5)(u)


def test_batches_of_any_size_give_the_same_rows() -> None:
    x = images(5, 2, 16, 16).float()
    for frame in FRAMES.values():
        net, small = network(frame=frame), network(frame=frame, max_bytes=1)
        for whole, parts, row in zip(net(x), small(x), net(x[2:3]), strict=True):
            assert torch.allclose(whole, parts, atol=1e-4)
            assert torch.allclose(whole[2:3], row, atol=1e-4)


def test_restricted_networks_compute_the_same_values_of_fewer_nodes() -> None:
    x = images(2, 1, 16, 16)
    net = network((1, 2, 1))
    whole = net(x)
    fewer = net.restricted({(1, 5), (4, 4, 8), (0,)})
    expected = [[()], [(0,), (1,), (4,)], [(1, 5), (4, 4)], [(4, 4, 8)]]
    assert [sorted(level.paths) for level in fewer.levels] == expected
    for phi, level, full, order in zip(fewer(x), fewer.levels, net.levels, whole, strict=True):
        assert torch.equal(phi, order[:, :, [full.paths.index(path) for path in level.paths]])
    assert [phi.shape[2] for phi in net.restricted(set())(x)] == [1, 0, 0, 0]
    assert fewer.labels[2] == [">".join((net.labels[1][i], net.labels[1][j])) for i, j in fewer.levels[2].paths]


def test_reflected_images_are_continued_and_cropped() -> None:
    x = images(2, 1, 16, 16)
    net, wide = network((2, 2), reflect=8), network((2, 2), size=(32, 32))
    continued = torch.nn.functional.pad(x, (8, 8, 8, 8), mode="reflect")
    for n, (phi, whole) in enumerate(zip(net(x), wide(continued), strict=True)):
        cut = 8 // 2**n
        assert torch.allclose(phi, whole[..., cut:-cut, cut:-cut])
        assert tuple(phi.shape[-2:]) == net.output_grid(n)
    with pytest.raises(ValueError, match="on the torus"):
        net.translation_bounds(x, (4, 4))


def test_gradients_reach_the_image_and_nothing_is_trained() -> None:
    for activation in (hs.TANH, hs.HardStep()):
        net = network(activation=activation)
        x = images(1, 1, 16, 16).requires_grad_()
        sum(phi.sum() for phi in net(x)).backward()  # type: ignore[union-attr]
        assert x.grad is not None
        assert float(x.grad.abs().max()) > 0
        assert not list(net.parameters())


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        network((2, 2), size=(18, 16))
    with pytest.raises(ValueError, match="output_stride is at least 1"):
        network(output_stride=0)
    with pytest.raises(ValueError, match="runs in whole numbers"):
        hs.Scattering((8, 8), [hs.ScatteringLayer(hs.haar(), m) for m in (hs.HardStep(), hs.TANH)], hs.haar())
    with pytest.raises(ValueError, match="whole-number taps"):
        network(activation=hs.HardStep(), frame=hs.Morlet(2, 4))
    with pytest.raises(ValueError, match="do not fit"):
        network()(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="8-bit codes"):
        network(activation=hs.HardStep())(torch.full((1, 1, 16, 16), 0.5))
    with pytest.raises(ValueError, match="multiples of 2"):
        network().translation_bounds(torch.zeros(1, 1, 16, 16), (1, 0))
    with pytest.raises(ValueError, match="stride and a window"):
        hs.MaxPool(0)
    assert replace(hs.HardStep(), edges=True).edges
