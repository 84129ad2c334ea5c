"""No sum of a frozen network leaves the machine's accumulator: proved by intervals, refuted by an input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hardstep.certify.certificate import Certificate, Certifier, Verdict
from hardstep.hard_layers import Conv, Dense, Flatten, Layer, Pool
from hardstep.hard_scatter import Scatter
from hardstep.hardnet import HardNet

__all__ = ["NoOverflow"]


@dataclass(frozen=True)
class NoOverflow(Certifier):
    """Prove that every sum, in any order of its terms, fits a signed accumulator of this many bits.

    A partial sum of unit j is at most A_j = sum_d |w_jd| max|v_d| (+ |bias_j|) in size, over all values v
    that a code can stand for; the claim holds if A_j <= 2^(bits-1) - 1 for every unit of every layer. For the
    first linear layer the bound of the full sum is reached by an input, which refutes the claim; for later
    layers the input may not exist, so the verdict is UNKNOWN. A scattering front end counts by intervals of all its
    numbers.

    Parameters
    ----------
    bits
        Width of the accumulator, 8 to 64.

    References
    ----------
    Colbert, Pappalardo, Petri-Koenig 2023, Eq. (6) [colbert2023], the l1 bound. Differs: also the refutation.

    Examples
    --------
    >>> import hardstep as hs
    >>> hard = hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=hs.data.load("digits").train)
    >>> NoOverflow(bits=32).certify(hard).verdict.name
    'PROVED'
    """

    bits: int = 32

    def __post_init__(self) -> None:
        if not 8 <= self.bits <= 64:
            raise ValueError(f"an accumulator has 8 to 64 bits, got {self.bits}")

    def certify(self, net: HardNet) -> Certificate:
        """Bound every layer; where the first layer's bound is too large, look for an input that reaches it."""
        net.check_codes("this certifier")
        claim = f"every partial sum fits a signed accumulator of {self.bits} bits"
        bounds = dict(_reaches(net))
        if max(bounds.values()) <= self._limit:
            return Certificate(claim, Verdict.PROVED, bounds)
        first = _first(net)
        if isinstance(first, Dense):
            weight = first.weight.astype(np.int64)
            ends = np.stack([first.encoding.value(np.full(weight.shape[1], code, np.uint8)) for code in (0, 255)])
            for take_high in (weight > 0, weight < 0):  # the largest and the smallest sum of each unit
                sums = (weight * np.where(take_high, ends[1], ends[0])).sum(axis=1)
                unit = int(np.abs(sums).argmax())
                if abs(int(sums[unit])) > self._limit:
                    codes = np.where(take_high[unit], 255, 0).astype(np.uint8).reshape(net.shape)
                    return Certificate(claim, Verdict.REFUTED, {"unit": unit}, {"codes": codes})
        return Certificate(claim, Verdict.UNKNOWN, bounds)

    def check(self, certificate: Certificate, net: HardNet) -> bool:
        """Recompute the bounds, or the refuting sum, in unbounded integers."""
        if certificate.verdict is Verdict.REFUTED:
            first = _first(net)
            if not isinstance(first, Dense):
                return False
            unit, codes = int(certificate.bounds["unit"]), certificate.witness["codes"].reshape(1, -1)
            terms = zip(first.weight[unit].reshape(-1), first.encoding.value(codes)[0], strict=True)
            return abs(sum(int(w) * int(v) for w, v in terms)) > self._limit
        same = dict(_reaches(net)) == dict(certificate.bounds)
        small = all(reach <= self._limit for reach in certificate.bounds.values())
        return same and small == (certificate.verdict is Verdict.PROVED)

    @property
    def _limit(self) -> int:
        return int(2 ** (self.bits - 1)) - 1


def _first(net: HardNet) -> Layer:
    """Return the layer that reads the samples."""
    return next(layer for layer in net.layers if not isinstance(layer, Pool | Flatten))


def _reaches(net: HardNet) -> Iterator[tuple[str, int]]:
    """Yield the largest |partial sum| of each layer that sums."""
    top = 255
    for i, layer in enumerate(net.layers):
        if isinstance(layer, Scatter):
            yield f"layer {i}", layer.reach()
        if not isinstance(layer, Dense | Conv):
            continue
        ends = (np.abs(layer.encoding.gain * code - layer.encoding.zero) for code in (0, top))
        reach = (np.abs(layer.weight.astype(np.int64)) * np.maximum(*ends)).reshape(len(layer.weight), -1).sum(axis=1)
        if isinstance(layer, Dense) and layer.bias is not None:
            reach = reach + np.abs(layer.bias)
        yield f"layer {i}", int(reach.max())
        if layer.threshold is not None:
            top = layer.threshold.shape[1]
