"""Frames of filters on a periodic grid: separable wavelets, Morlet and Gabor filters, and their exact bounds.

A frame is any function of a grid's (height, width) that returns `Filters`; the classes here are such functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, pi

import torch
from jaxtyping import Complex128, Float64
from torch import Tensor

__all__ = ["Filters", "Frame", "Morlet", "Wavelets", "biorthogonal", "decay", "frame_bounds", "haar", "user_frame"]


@dataclass(frozen=True)
class Wavelets:
    """Undecimated separable wavelets: low and high pass along each axis, spread by 2^j at level j (à trous).

    low_0 = 1; level j has the details low_j * (h x g), low_j * (g x h), low_j * (g x g), in words differences along
    the width ("h"), along the height ("v") and along both ("d"); low_{j+1} = low_j * (h x h); the atom is low_J.
    The taps are whole numbers, so that sums of whole numbers stay exact; h = low_gain * low, g = high_gain * high.

    Parameters
    ----------
    low, high
        Taps of h and g without their gains.
    low_gain, high_gain
        Their gains. h sums to 1 and g to 0, so that details have zero mean; other taps are allowed.
    low_start, high_start
        Position of the first tap.
    scales
        Number J of levels; 2^J should not exceed the grid, or the atom averages the whole image.

    Raises
    ------
    ValueError
        If there is no level or no tap.

    References
    ----------
    Wiatowski and Boelcskei 2018 [wiatowski2018], the wavelet frames of their experiments.

    Examples
    --------
    >>> filters = haar(scales=2)((8, 8))
    >>> filters.labels
    ('1h', '1v', '1d', '2h', '2v', '2d')
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    low_gain: float
    high_gain: float
    low_start: int = 0
    high_start: int = 0
    scales: int = 3

    def __post_init__(self) -> None:
        _check_scales(self.scales)
        if not (self.low and self.high):
            raise ValueError(f"a separable frame needs taps, got low={self.low} and high={self.high}")

    def __call__(self, size: tuple[int, int]) -> Filters:
        """Return the filters on a grid."""
        low: Tensor = torch.ones(size, dtype=torch.complex128)
        details = []
        for level in range(self.scales):
            rows, columns = (
                [
                    gain * _response(taps, start, 2**level, length)
                    for taps, start, gain in (
                        (self.low, self.low_start, self.low_gain),
                        (self.high, self.high_start, self.high_gain),
                    )
                ]
                for length in size
            )
            details += [low * rows[i][:, None] * columns[j] for i, j in ((0, 1), (1, 0), (1, 1))]
            low = low * rows[0][:, None] * columns[0]
        scales = tuple(level for level in range(self.scales) for _ in range(3))
        labels = tuple(f"{level + 1}{kind}" for level in range(self.scales) for kind in "hvd")
        return Filters(torch.stack(details), low, scales, labels, self)

    @property
    def gains(self) -> tuple[float, ...]:
        """What each detail computed from the taps alone is to be multiplied by."""
        mixed, both = self.low_gain * self.high_gain, self.high_gain**2
        return tuple(
            self.low_gain ** (2 * level) * gain for level in range(self.scales) for gain in (mixed, mixed, both)
        )

    @property
    def atom_gain(self) -> float:
        """The same of the atom."""
        return self.low_gain ** (2 * self.scales)

    @property
    def peaks(self) -> tuple[int, ...]:
        """Sum of the magnitudes of the taps of each detail, then of the atom: a bound on values per unit of input."""
        low, high = (sum(map(abs, taps)) for taps in (self.low, self.high))
        details = [
            low ** (2 * level) * gain for level in range(self.scales) for gain in (low * high, low * high, high**2)
        ]
        return (*details, low ** (2 * self.scales))


@dataclass(frozen=True, eq=False)
class Filters:
    """The filters of a frame on one grid, by their discrete Fourier transforms.

    Parameters
    ----------
    details
        The filters that propagate.
    atom
        The output atom, which belongs to the frame and does not propagate.
    scales
        Level of each detail, from 0 (finest); the path rule looks at it.
    labels
        Name of each detail, without "/" and ">".
    separable
        The taps, if the filters are their cascade; step layers, which run in whole numbers, need them.

    Raises
    ------
    ValueError
        If there is no detail, or shapes and numbers do not agree.
    """

    details: Complex128[Tensor, "m h w"]
    atom: Complex128[Tensor, "h w"]
    scales: tuple[int, ...]
    labels: tuple[str, ...]
    wavelets: Wavelets | None = None

    def __post_init__(self) -> None:
        count = len(self.details)
        if count == 0 or len(self.scales) != count or len(set(self.labels)) != count or len(self.labels) != count:
            raise ValueError(
                f"a frame has a scale and a label of its own for each of its filters (at least one), got {count} "
                f"filters, scales {self.scales} and labels {self.labels}"
            )
        if self.details.shape[1:] != self.atom.shape:
            raise ValueError(
                f"filters of shape {tuple(self.details.shape[1:])} and an atom of shape {tuple(self.atom.shape)}: "
                "give both on the same grid"
            )

    @property
    def real(self) -> bool:
        """Whether all filters are real in space, to rounding."""
        whole = torch.cat([self.details, self.atom[None]])
        return bool((whole - mirror(whole).conj()).abs().max() <= 1e-10 * whole.abs().max())


Frame = Callable[[tuple[int, int]], Filters]


def haar(scales: int = 3) -> Wavelets:
    """Return the Haar frame, h = (1, 1)/2, g = (1, -1)/2: a Parseval frame (A = B = 1) on every grid.

    Examples
    --------
    >>> [round(bound, 12) for bound in frame_bounds(haar()((28, 28)), real=True)]
    [1.0, 1.0]
    """
    return Wavelets((1, 1), (1, -1), 0.5, 0.5, scales=scales)


def biorthogonal(scales: int = 3) -> Wavelets:
    """Return the bi-orthogonal 2.2 frame, h = (-1, 2, 6, 2, -1)/8, g = (1, -2, 1)/4.

    Examples
    --------
    >>> [round(bound, 3) for bound in frame_bounds(biorthogonal()((28, 28)), real=True)]
    [0.789, 2.441]
    """
    return Wavelets((-1, 2, 6, 2, -1), (1, -2, 1), 1 / 8, 1 / 4, -2, -1, scales)


@dataclass(frozen=True)
class Morlet:
    """Morlet filters psi_{j,l}, or Gabor filters if their mean is left in, over J scales and L angles.

    psi = s/(2 pi sigma²) exp(-x'C x) (exp(i xi (x1 cos th + x2 sin th)) - kappa), C = R diag(1, s²) R'/(2 sigma²),
    kappa such that the sum is 0; sigma = 0.8 2^j, xi = 3 pi/(4 2^j), s = 4/L, th = (floor(L/2 - 1) - l) pi/L, made
    periodic over 5 x 5 tiles. The atom is the envelope of sigma = 0.8 2^(J-1), s = 1. For real input: the filters
    cover half of the plane.

    Parameters
    ----------
    scales
        Number J of scales.
    angles
        Number L of angles.
    zero_mean
        False leaves kappa out: Gabor filters.

    Raises
    ------
    ValueError
        If there is no scale or no angle.

    References
    ----------
    Andreux et al. 2020 [andreux2020], the filters of Kymatio 0.3.0. Differs: pi in the place of 3.1415.

    Examples
    --------
    >>> [round(bound, 3) for bound in frame_bounds(Morlet(scales=2)((32, 32)), real=True)]
    [0.123, 1.0]
    """

    scales: int = 3
    angles: int = 8
    zero_mean: bool = True

    def __post_init__(self) -> None:
        _check_scales(self.scales)
        if self.angles < 1:
            raise ValueError(f"a Morlet frame has at least 1 angle, got {self.angles}")

    def __call__(self, size: tuple[int, int]) -> Filters:
        """Return the filters on a grid."""
        details, names = [], []
        slant = 4 / self.angles
        for level in range(self.scales):
            for number in range(self.angles):
                angle = (floor(self.angles / 2 - 1) - number) * pi / self.angles
                frequency = 3 * pi / (4 * 2**level)
                psi = _gabor(size, 0.8 * 2**level, angle, frequency, slant)
                if self.zero_mean:
                    envelope = _gabor(size, 0.8 * 2**level, angle, 0.0, slant)
                    psi = psi - psi.sum() / envelope.sum() * envelope
                details.append(torch.fft.fft2(psi))
                names.append((level, f"{level + 1}a{number}"))
        atom = torch.fft.fft2(_gabor(size, 0.8 * 2 ** (self.scales - 1), 0.0, 0.0, 1.0))
        return Filters(torch.stack(details), atom, tuple(n for n, _ in names), tuple(name for _, name in names))


def user_frame(
    details: Float64[Tensor, "m h w"] | Complex128[Tensor, "m h w"],
    atom: Float64[Tensor, "h w"],
    scales: tuple[int, ...],
) -> Filters:
    """Make filters from their values in space, origin at [0, 0]; a function of the grid that returns them is a frame.

    Parameters
    ----------
    scales
        Level of each detail, for the path rule.

    Examples
    --------
    >>> delta = torch.zeros(4, 4, dtype=torch.float64)
    >>> delta[0, 0] = 1.0
    >>> [round(bound, 12) for bound in frame_bounds(user_frame(0.6 * delta[None], 0.8 * delta, scales=(0,)), real=True)]
    [1.0, 1.0]
    """
    labels = tuple(f"{scale + 1}f{i}" for i, scale in enumerate(scales))
    spectra = torch.fft.fft2(details.to(torch.complex128))
    return Filters(spectra, torch.fft.fft2(atom.to(torch.complex128)), scales, labels)


def frame_bounds(filters: Filters, *, real: bool) -> tuple[float, float]:
    """Return the exact A, B of A |f|² <= |f * atom|² + sum |f * detail|² <= B |f|² on the grid.

    They are the least and the largest value of G(w) = |atom^(w)|² + sum |detail^(w)|², for real f of
    (G(w) + G(-w))/2.

    Parameters
    ----------
    real
        Whether f is real.

    References
    ----------
    Wiatowski and Boelcskei 2018 [wiatowski2018], their frame condition. Differs: on the finite grid.
    """
    energy = filters.details.abs().square().sum(dim=0) + filters.atom.abs().square()
    if real:
        energy = (energy + mirror(energy)) / 2
    return float(energy.min()), float(energy.max())


def decay(atom: Complex128[Tensor, "h w"]) -> float:
    """Return K = max over the grid of |atom^(w)| |w|, w in cycles a pixel in [-1/2, 1/2)²."""
    rows, columns = (torch.fft.fftfreq(length, dtype=torch.float64) for length in atom.shape)
    return float((atom.abs() * torch.hypot(rows[:, None], columns[None])).max())


def mirror(spectrum: Tensor) -> Tensor:
    """Return the spectrum at -w."""
    mirrored: Tensor = spectrum.flip(-2, -1).roll((1, 1), (-2, -1))
    return mirrored


def _response(taps: tuple[int, ...], start: int, spread: int, length: int) -> Tensor:
    """Return the Fourier transform of spread taps on a circle, exact in the positions."""
    at = [(start + i) * spread for i in range(len(taps))]
    values = torch.zeros(length, dtype=torch.complex128)
    for tap, position in zip(taps, at, strict=True):
        values[position % length] += tap
    response: Tensor = torch.fft.fft(values)
    return response


def _gabor(size: tuple[int, int], sigma: float, angle: float, frequency: float, slant: float) -> Tensor:
    """Return the periodic sum of an oriented Gaussian times a wave."""
    axes = (torch.arange(-2 * length, 3 * length, dtype=torch.float64) for length in size)
    x, y = torch.meshgrid(*axes, indexing="ij")
    turn = torch.tensor(angle, dtype=torch.float64)
    along, across = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    envelope = torch.exp(-(along.square() + slant**2 * across.square()) / (2 * sigma**2))
    wave = torch.polar(envelope, frequency * along) * (slant / (2 * pi * sigma**2))
    tiles: Tensor = wave.reshape(5, size[0], 5, size[1]).sum(dim=(0, 2))
    return tiles


def _check_scales(scales: int) -> None:
    if scales < 1:
        raise ValueError(f"a frame has at least 1 scale, got {scales}")
