"""Backward rules: what stands in for the derivative of a step. The forward pass is always the exact step."""

from hardstep.rules.boxes import Clipped, Identity, LeakyBox, Rectified, Trapezoid
from hardstep.rules.composed import Annealed, Apart, CosinePath, GeometricPath, LinearPath, Scaled, UnitArea, UnitPeak
from hardstep.rules.parabolas import RBNN, ApproxSign
from hardstep.rules.powers import Fourier, ReSTE
from hardstep.rules.surrogate import BackwardRule, Surrogate, widened
from hardstep.rules.tails import ArcTan, Gaussian, Laplace, LogTail, PseudoSpike
from hardstep.rules.tangents import DSQ, EDE, Sech2, SwishSign
from hardstep.rules.zoo import published_rules

__all__ = [
    "DSQ",
    "EDE",
    "RBNN",
    "Annealed",
    "Apart",
    "ApproxSign",
    "ArcTan",
    "BackwardRule",
    "Clipped",
    "CosinePath",
    "Fourier",
    "Gaussian",
    "GeometricPath",
    "Identity",
    "Laplace",
    "LeakyBox",
    "LinearPath",
    "LogTail",
    "PseudoSpike",
    "ReSTE",
    "Rectified",
    "Scaled",
    "Sech2",
    "Surrogate",
    "SwishSign",
    "Trapezoid",
    "UnitArea",
    "UnitPeak",
    "published_rules",
    "widened",
]
