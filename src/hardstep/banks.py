"""Filter banks: how the filters of a frame are applied, by adds of shifted images or by Fourier transforms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from hardstep.frames import Filters, Wavelets, mirror

__all__ = ["Cascade", "FourierBank", "bank", "read_ahead"]

Signal = Float[Tensor, "b p h w"] | Complex[Tensor, "b p h w"]
Filtered = tuple[Float[Tensor, "b p m h w"] | Complex[Tensor, "b p m h w"], Signal]


def bank(filters: Filters, gain: float, *, exact: bool, real: bool) -> nn.Module:
    """Return the module that applies filters times a gain; called with signals and the details wanted.

    Parameters
    ----------
    exact
        Apply the whole-number taps alone, without any gain; whole numbers then stay exact.
    real
        Whether the signals are real.

    Raises
    ------
    ValueError
        If `exact` is asked of filters that have no taps.
    """
    if filters.wavelets is not None:
        return Cascade(filters.wavelets, None if exact else gain)
    if exact:
        raise ValueError(
            "a layer with a hard step runs in whole numbers, which takes frames of whole-number taps: use haar() or "
            "biorthogonal() in all layers and as the output frame, or another non-linearity"
        )
    return FourierBank(filters, gain, real=real and filters.real)


def read_ahead(taps: tuple[int, ...], start: int, spread: int, length: int) -> list[int]:
    """Return by how much a circle is read ahead for each tap.

    Examples
    --------
    >>> read_ahead((1, -2, 1), start=-1, spread=2, length=7)
    [2, 0, 5]
    """
    return [-(start + i) * spread % length for i in range(len(taps))]


class Cascade(nn.Module):
    """Apply a separable frame by adds of shifted images, level after level.

    Parameters
    ----------
    frame
        The taps.
    gain
        Factor of all filters beside the gains of the frame; None for the bare taps.
    """

    gains: Tensor

    def __init__(self, frame: Wavelets, gain: float | None) -> None:
        super().__init__()
        self.frame = frame
        self.gain = gain
        gains = torch.tensor(frame.gains, dtype=torch.float64) * (1.0 if gain is None else gain)
        self.register_buffer("gains", gains)

    def forward(self, x: Signal, wanted: Sequence[int]) -> Filtered:
        """Return the wanted details of each signal, and each signal under the atom."""
        parts: dict[int, Tensor] = {}
        low = x
        for level in range(self.frame.scales):
            across, along, both = (3 * level + i in wanted for i in range(3))
            smooth, rough = self._split(low, level, -1, rough=across or both)
            low, tall = self._split(smooth, level, -2, rough=along)
            if along:
                parts[3 * level + 1] = tall
            if across or both:
                wide, edges = self._split(rough, level, -2, rough=both)
                parts[3 * level], parts[3 * level + 2] = wide, edges
        shape = (*x.shape[:2], 0, *x.shape[2:])
        details = torch.stack([parts[i] for i in wanted], dim=2) if wanted else x.new_zeros(shape)
        if self.gain is None:
            return details, low
        gains = self.gains[list(wanted)].to(x.dtype)
        return details * gains[:, None, None], low * (self.gain * self.frame.atom_gain)

    def _split(self, x: Tensor, level: int, axis: int, *, rough: bool) -> tuple[Tensor, Tensor]:
        """Return low and high pass along an axis; the high pass is the input itself if it is not asked for."""
        frame, length = self.frame, x.shape[axis]
        low = read_ahead(frame.low, frame.low_start, 2**level, length)
        high = read_ahead(frame.high, frame.high_start, 2**level, length)
        around = torch.cat([x, x.narrow(axis, 0, max(low + high))], dim=axis)  # the circle, cut open once for all taps
        smooth = _sum([around.narrow(axis, shift, length) for shift in low], frame.low)
        return smooth, _sum([around.narrow(axis, shift, length) for shift in high], frame.high) if rough else x


class FourierBank(nn.Module):
    """Apply filters by products of Fourier transforms.

    Parameters
    ----------
    filters
        The filters.
    gain
        Factor of all of them.
    real
        Whether filters and signals are real, so that half of the spectrum is enough.
    """

    spectra: Tensor

    def __init__(self, filters: Filters, gain: float, *, real: bool) -> None:
        super().__init__()
        self.real = real
        atom = filters.atom
        self.real_atom = bool((atom - mirror(atom).conj()).abs().max() <= 1e-3 * atom.abs().max())
        spectra = gain * torch.cat([filters.details, filters.atom[None]])
        spectra = spectra[..., : spectra.shape[-1] // 2 + 1] if real else spectra
        self.register_buffer("spectra", torch.view_as_real(spectra.contiguous()))  # `Module.to` casts floats only

    def forward(self, x: Signal, wanted: Sequence[int]) -> Filtered:
        """Return the wanted details of each signal, and each signal under the atom."""
        spectra = torch.view_as_complex(self.spectra[[*wanted, -1]].contiguous()).to(
            torch.promote_types(x.dtype, COMPLEX)
        )
        if self.real:
            out: Tensor = torch.fft.irfft2(torch.fft.rfft2(x)[:, :, None] * spectra, s=x.shape[-2:])
        else:
            out = torch.fft.ifft2(torch.fft.fft2(x)[:, :, None] * spectra)
        low = out[:, :, -1]
        return out[:, :, :-1], low.real if self.real_atom and not x.is_complex() else low


COMPLEX = torch.complex64


def _sum(views: list[Tensor], taps: tuple[int, ...]) -> Tensor:
    """Return the sum of views times taps, in new memory."""
    first = views[0] if taps[0] == 1 else views[0] * taps[0]
    if len(views) == 1:
        return first.clone()
    total = torch.add(first, views[1], alpha=taps[1])
    for view, tap in zip(views[2:], taps[2:], strict=True):
        total.add_(view, alpha=tap)
    return total
