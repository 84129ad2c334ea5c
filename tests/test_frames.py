"""Frames: bounds against operators, filters against their formulas, adds against Fourier transforms."""

from __future__ import annotations

from functools import partial
from math import cos, exp, pi, sin

import pytest
import torch
from torch import Tensor

import hardstep as hs
from hardstep.banks import FourierBank, bank
from hardstep.frames import Frame, decay, frame_bounds

GABOR = partial(hs.Morlet, zero_mean=False)


def drawn(size: tuple[int, int]) -> hs.Filters:
    """A user's frame: random real filters."""
    generator = torch.Generator().manual_seed(3)
    details = torch.randn(4, *size, generator=generator, dtype=torch.float64) / 8
    return hs.user_frame(details, torch.full(size, 1 / (size[0] * size[1]), dtype=torch.float64), (0, 0, 1, 1))


FRAMES: dict[str, Frame] = {
    "haar": hs.haar(2),
    "biorthogonal": hs.biorthogonal(2),
    "morlet": hs.Morlet(2, 4),
    "gabor": GABOR(2, 4),
    "user": drawn,
}
every_frame = pytest.mark.parametrize("name", FRAMES)


def in_space(filters: hs.Filters) -> Tensor:
    """Return details and atom by their values."""
    return torch.fft.ifft2(torch.cat([filters.details, filters.atom[None]]))


@pytest.mark.parametrize("length", [7, 8, 14, 28, 32])
def test_haar_is_a_parseval_frame_on_every_grid(length: int) -> None:
    filters = hs.haar(3)((length, length + 1))
    lower, upper = frame_bounds(filters, real=True)
    assert abs(lower - 1) < 1e-12
    assert abs(upper - 1) < 1e-12
    sums = in_space(filters).sum(dim=(1, 2)).abs()
    assert float(sums[:-1].max()) < 1e-12
    assert abs(float(sums[-1]) - 1) < 1e-12


@every_frame
def test_bounds_are_the_extreme_eigenvalues_of_the_operator(name: str) -> None:
    """T stacks the circular convolutions as matrices; |T f|² over complex and over real f."""
    filters = FRAMES[name]((6, 8))
    rows = []
    for kernel in in_space(filters):
        shifted = [kernel.roll((i, j), (0, 1)).flatten() for i in range(6) for j in range(8)]
        rows.append(torch.stack(shifted, dim=1))
    gram = sum(matrix.conj().T @ matrix for matrix in rows)
    assert isinstance(gram, Tensor)
    for real, spectrum in ((False, torch.linalg.eigvalsh(gram)), (True, torch.linalg.eigvalsh(gram.real))):
        lower, upper = frame_bounds(filters, real=real)
        assert abs(lower - float(spectrum[0])) < 1e-10
        assert abs(upper - float(spectrum[-1])) < 1e-10


def test_bounds_of_the_biorthogonal_frame_depend_on_the_grid() -> None:
    upper = [round(frame_bounds(hs.biorthogonal(3)((n, n)), real=True)[1], 3) for n in (7, 28, 32, 56, 128)]
    assert upper == [1.919, 2.441, 2.725, 2.764, 2.776]


def test_morlet_bound_is_one_for_real_images_only() -> None:
    filters = hs.Morlet(2, 8)((32, 32))
    assert abs(frame_bounds(filters, real=True)[1] - 1) < 1e-4
    assert frame_bounds(filters, real=False)[1] > 1.75


@pytest.mark.parametrize("angles", [4, 5, 8])
def test_morlet_filters_are_their_formula(angles: int) -> None:
    """Summed pixel by pixel over 5 x 5 tiles, in plain numbers."""
    filters = hs.Morlet(2, angles)((8, 10))
    values = in_space(filters)
    for number, level, turn in ((0, 0, 0), (angles + 1, 1, 1), (2 * angles - 1, 1, angles - 1)):
        theta = (int(angles - angles / 2 - 1) - turn) * pi / angles
        sigma, xi, slant = 0.8 * 2**level, 3 * pi / (4 * 2**level), 4 / angles

        def envelope(x: int, y: int, theta: float = theta, sigma: float = sigma, slant: float = slant) -> float:
            along, across = x * cos(theta) + y * sin(theta), -x * sin(theta) + y * cos(theta)
            return slant / (2 * pi * sigma**2) * exp(-(along**2 + slant**2 * across**2) / (2 * sigma**2))

        wave, mass = torch.zeros(8, 10, dtype=torch.complex128), torch.zeros(8, 10, dtype=torch.complex128)
        for x in range(-16, 24):
            for y in range(-20, 30):
                phase = xi * (x * cos(theta) + y * sin(theta))
                wave[x % 8, y % 10] += envelope(x, y) * complex(cos(phase), sin(phase))
                mass[x % 8, y % 10] += envelope(x, y)
        expected = wave - wave.sum() / mass.sum() * mass
        assert float((values[number] - expected).abs().max()) < 1e-12
        assert float(values[number].sum().abs()) < 1e-12
        plain = in_space(GABOR(2, angles)((8, 10)))[number]
        assert float((plain - wave).abs().max()) < 1e-12
    assert filters.details.imag.abs().max() < 1e-4  # real but for what lies beyond the tiles


@pytest.mark.parametrize("frame", [hs.haar(3), hs.biorthogonal(2), hs.haar(5)])
@pytest.mark.parametrize("size", [(16, 16), (7, 12), (1, 9)])
def test_adds_of_shifted_images_are_the_convolutions(frame: hs.Wavelets, size: tuple[int, int]) -> None:
    filters = frame(size)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)
    wanted = tuple(range(1, 3 * frame.scales, 2))
    adds, low = bank(filters, 0.7, exact=False, real=True)(x, wanted)
    for real in (True, False):
        by_fourier, atom = FourierBank(filters, 0.7, real=real)(x, wanted)
        assert torch.allclose(adds, by_fourier.real, atol=1e-12)
        assert torch.allclose(low, atom.real, atol=1e-12)
    single, _ = bank(filters, 0.7, exact=False, real=True)(x.float(), wanted)
    assert torch.allclose(single, FourierBank(filters, 0.7, real=True)(x.float(), wanted)[0], atol=1e-5)


def test_haar_details_are_full_kernels_of_signs_and_the_atom_a_box() -> None:
    """Level j: size 2^(j+1), all +-1; the explicit sum over the kernel equals the adds exactly."""
    filters = hs.haar(3)((16, 16))
    exact = bank(filters, 1.0, exact=True, real=True)
    x = torch.randint(0, 256, (1, 1, 16, 16), generator=torch.Generator().manual_seed(1)).float()
    details, low = exact(x, tuple(range(9)))
    assert float(details.abs().max()) <= 255 * 4**3 / 2
    for level in range(3):
        half = torch.ones(2**level)
        rough, smooth = torch.cat([half, -half]), torch.cat([half, half])
        for kind, (rows, columns) in enumerate(((smooth, rough), (rough, smooth), (rough, rough))):
            kernel = rows[:, None] * columns
            total = torch.zeros(16, 16)
            for i, j in torch.cartesian_prod(torch.arange(len(rows)), torch.arange(len(columns))).tolist():
                total += kernel[i, j] * x[0, 0].roll((i, j), (0, 1))
            assert torch.equal(details[0, 0, 3 * level + kind], total)
    box = sum(x[0, 0].roll((i, j), (0, 1)) for i in range(8) for j in range(8))
    assert torch.equal(low[0, 0], box)


def test_decay_is_the_largest_product_of_atom_and_frequency() -> None:
    atom = hs.haar(1)((4, 6)).atom
    expected = max(
        abs(complex(atom[i, j])) * (((i + 2) % 4 - 2) ** 2 / 16 + ((j + 3) % 6 - 3) ** 2 / 36) ** 0.5
        for i in range(4)
        for j in range(6)
    )
    assert abs(decay(atom) - expected) < 1e-12


def test_bad_frames_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="at least 1 scale"):
        hs.haar(0)
    with pytest.raises(ValueError, match="at least 1 angle"):
        hs.Morlet(angles=0)
    one = torch.ones(1, 4, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="a scale and a label"):
        hs.user_frame(one, one[0], (0, 1))
    with pytest.raises((ValueError, TypeError)):  # the type check of the test run may come first
        hs.user_frame(one, torch.ones(2, 2, dtype=torch.float64), (0,))
