"""Every published rule by its name, at its published settings."""

from __future__ import annotations

from hardstep.rules.boxes import Clipped, Identity, LeakyBox, Rectified, Trapezoid
from hardstep.rules.composed import Annealed, CosinePath, GeometricPath, Scaled, UnitArea
from hardstep.rules.parabolas import RBNN, ApproxSign
from hardstep.rules.powers import Fourier, ReSTE
from hardstep.rules.surrogate import BackwardRule
from hardstep.rules.tails import ArcTan, Gaussian, Laplace, LogTail, PseudoSpike
from hardstep.rules.tangents import DSQ, EDE, Sech2, SwishSign

__all__ = ["published_rules"]


def published_rules() -> dict[str, BackwardRule]:
    """Return every published rule by the name under which it is known, with its authors' scale, settings and schedule.

    Many are members of one family: the sigmoid is a hyperbolic tangent, the rectangle a clipped straight-through
    estimator of area 1. The values are in the domain of the 0/1 step, so half of what papers on sign networks write.

    Examples
    --------
    >>> published_rules()["sigmoid"]
    Sech2(slope=2.0)
    """
    return {
        "identity": Identity(),
        "clipped": Clipped(1.0),
        "ApproxSign": ApproxSign(1.0),
        "SwishSign": SwishSign(5.0),
        "tanh": Sech2(1.0),
        "EDE": Annealed(EDE(1e-3), EDE(10.0), GeometricPath()),
        "RBNN": Annealed(RBNN(1e-2), RBNN(10.0), GeometricPath()),
        "DSQ": DSQ(0.2),
        "Fourier": Fourier(10),
        "ReSTE": Annealed(ReSTE(power=1.0), ReSTE(power=3.0), CosinePath()),
        "scaled tanh": Scaled(Sech2(2 / 3), 1.7159),
        "ramp": Trapezoid(1.0, 2.0),
        "half-peak sigmoid": Scaled(Sech2(1.0), 0.5),
        "sigmoid": Sech2(2.0),
        "fast sigmoid": Scaled(PseudoSpike(12.5), 0.08),
        "SoftSign": PseudoSpike(1.0),
        "SuperSpike": Scaled(PseudoSpike(0.5), 2.0),
        "arctan": ArcTan(2.0),
        "triangle": ApproxSign(1.0),
        "Gaussian": Gaussian(1.0),
        "rectangle": UnitArea(Clipped(0.5)),
        "two-sided exponential": Laplace(1.0),
        "pseudo-spike": PseudoSpike(1.0, 2.0),
        "leaky box": LeakyBox(1.0, 0.01),
        "log tail": LogTail(1.0),
        "vanilla ReLU": Rectified(),
    }
