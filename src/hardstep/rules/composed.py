"""Rules made of rules: scaled ones, and one that becomes another in training."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from math import cos, isfinite, pi
from typing import Any

from jaxtyping import Float
from torch import Tensor

from hardstep.rules.boxes import Clipped
from hardstep.rules.parabolas import ApproxSign
from hardstep.rules.powers import ReSTE
from hardstep.rules.surrogate import BackwardRule, Surrogate, positive

__all__ = ["Annealed", "Apart", "CosinePath", "GeometricPath", "LinearPath", "Scaled", "UnitArea", "UnitPeak"]


@dataclass(frozen=True)
class Scaled(Surrogate):
    """Multiply a rule: h = factor h_rule, the curve likewise about 1/2.

    For rules as authors scale them: `Scaled(Sech2(2/3), 1.7159)` is the scaled tanh of LeCun et al.

    Parameters
    ----------
    rule
        What is scaled.
    factor
        By how much, > 0.

    References
    ----------
    LeCun et al. 1998 [lecun1998], for the scaled tanh.

    Examples
    --------
    >>> Scaled(ApproxSign(), 2.0).area
    2.0
    """

    rule: Surrogate = field(default_factory=ApproxSign)
    factor: float = 1.0

    def __post_init__(self) -> None:
        positive("factor", self.factor)

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + factor (C(x) - 1/2)."""
        return 0.5 + self.factor * (self.rule.curve(x) - 0.5)

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return factor h(x)."""
        return self.rule.derivative(x).mul_(self.factor)

    @property
    def area(self) -> float:
        """Return factor times the area of the rule."""
        return self.factor * self.rule.area

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """Those of the rule."""
        return self.rule.stand_ins


@dataclass(frozen=True)
class UnitArea(Surrogate):
    """Scale a rule to area 1, the jump of the step.

    Parameters
    ----------
    rule
        What is scaled; its area must be finite.

    Raises
    ------
    ValueError
        If the area is infinite.

    Examples
    --------
    >>> UnitArea(ReSTE()).area
    1.0
    """

    rule: Surrogate = field(default_factory=ReSTE)

    def __post_init__(self) -> None:
        if not isfinite(self.rule.area):
            raise ValueError(f"{self.rule} has infinite area, so no factor makes it 1; use Scaled or UnitPeak")

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + (C(x) - 1/2)/area."""
        return self._scaled.curve(x)

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return h(x)/area."""
        return self._scaled.derivative(x)

    @property
    def area(self) -> float:
        """Return 1."""
        return 1.0

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """Those of the rule."""
        return self.rule.stand_ins

    @property
    def _scaled(self) -> Scaled:
        return Scaled(self.rule, 1 / self.rule.area)


@dataclass(frozen=True)
class UnitPeak(Surrogate):
    """Scale a rule so that it passes the gradient unchanged at the threshold: h(0) = 1.

    Parameters
    ----------
    rule
        What is scaled.

    Examples
    --------
    >>> import torch
    >>> UnitPeak(ApproxSign(4.0)).derivative(torch.tensor([0.0, 0.125]))
    tensor([1.0000, 0.5000])
    """

    rule: Surrogate = field(default_factory=ReSTE)

    def curve(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1/2 + (C(x) - 1/2)/h(0)."""
        return 0.5 + (self.rule.curve(x) - 0.5) / self.rule.peak

    def derivative(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return h(x)/h(0)."""
        return self.rule.derivative(x).div_(self.rule.peak)

    @property
    def area(self) -> float:
        """Return area/h(0) of the rule."""
        return self.rule.area / self.rule.peak

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """Those of the rule."""
        return self.rule.stand_ins


@dataclass(frozen=True)
class LinearPath:
    """Go from one number to another at even speed.

    Examples
    --------
    >>> LinearPath().between(1.0, 3.0, 0.25)
    1.5
    """

    def between(self, start: float, end: float, progress: float) -> float:
        """Return start + (end - start) progress."""
        return start + (end - start) * progress


@dataclass(frozen=True)
class CosinePath:
    """Go from one number to another along a quarter of a cosine, slowly at first: the schedule of ReSTE's power.

    References
    ----------
    Wu et al. 2023, authors' code [wu2023].

    Examples
    --------
    >>> round(CosinePath().between(1.0, 3.0, 0.5), 4)
    1.5858
    """

    def between(self, start: float, end: float, progress: float) -> float:
        """Return start + (end - start)(1 - cos(pi progress/2))."""
        return start + (end - start) * (1 - cos(pi * progress / 2))


@dataclass(frozen=True)
class GeometricPath:
    """Go from one positive number to another by the same factor in equal times: the schedules of EDE and RBNN.

    Examples
    --------
    >>> GeometricPath().between(0.1, 10.0, 0.5)
    1.0
    """

    def between(self, start: float, end: float, progress: float) -> float:
        """Return start (end/start)^progress.

        Raises
        ------
        ValueError
            If an end is not positive.
        """
        if not (start > 0 and end > 0):
            raise ValueError(f"a geometric path needs positive ends, got {start} and {end}")
        return float(start * (end / start) ** progress)


@dataclass(frozen=True)
class Annealed(BackwardRule):
    """Become another rule in the course of the training: every number in which the two differ moves along a path.

    A pure function of progress: `Annealed(start, end, path).at(0.5)` is the plain rule for the middle of the training.
    By default the published ReSTE, whose power grows from 1 to 3. Before training it is its start.

    Parameters
    ----------
    start, end
        Two rules of the same class.
    path
        How their numbers move.

    References
    ----------
    Wu et al. 2023 [wu2023], ReSTE; Qin et al. 2020 [qin2020], EDE; Lin et al. 2020 [lin2020], RBNN.

    Examples
    --------
    >>> Annealed(ReSTE(power=1.0), ReSTE(power=3.0), LinearPath()).at(0.5)
    ReSTE(power=2.0, inner=0.1, outer=1.5)
    """

    start: Surrogate = field(default_factory=lambda: ReSTE(power=1.0))
    end: Surrogate = field(default_factory=ReSTE)
    path: LinearPath | CosinePath | GeometricPath = field(default_factory=CosinePath)

    def at(self, progress: float) -> Surrogate:
        """Return the rule for this share of the training; raise ValueError if the two cannot become one another."""
        super().at(progress)
        rule: Surrogate = _between(self.start, self.end, self.path, progress)
        return rule

    def pullback(self, x: Float[Tensor, "*n"], grad: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return what the start does."""
        return self.start.pullback(x, grad)

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """Those of the start."""
        return self.start.stand_ins


@dataclass(frozen=True)
class Apart(BackwardRule):
    """Follow one rule in activations and another in binary or ternary weights, each with its own schedule.

    Parameters
    ----------
    activations, weights
        The two rules.

    References
    ----------
    Liu et al. 2018 [liu2018]: ApproxSign for activations, the clipped rule for weights.

    Examples
    --------
    >>> Apart().for_weights
    Clipped(width=1.0)
    """

    activations: BackwardRule = field(default_factory=ApproxSign)
    weights: BackwardRule = field(default_factory=Clipped)

    def at(self, progress: float) -> Apart:
        """Return both rules for this share of the training."""
        return Apart(self.activations.at(progress), self.weights.at(progress))

    @property
    def for_weights(self) -> BackwardRule:
        """The rule of the weights."""
        return self.weights

    def pullback(self, x: Float[Tensor, "*n"], grad: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return what the rule of the activations does."""
        return self.activations.pullback(x, grad)

    @property
    def stand_ins(self) -> tuple[float, ...]:
        """Those of the rule of the activations."""
        return self.activations.stand_ins


def _between(start: Any, end: Any, path: LinearPath | CosinePath | GeometricPath, progress: float) -> Any:
    """Return a value between two: numbers along the path, dataclasses field by field, other things equal."""
    if start == end:
        return start
    if type(start) is not type(end):
        raise ValueError(f"only rules of the same class can become one another, got {start} and {end}")
    if isinstance(start, float) and isinstance(end, float):
        return path.between(start, end, progress)
    if not is_dataclass(start) or isinstance(start, type):
        raise ValueError(f"only numbers can move along a path, got {start!r} and {end!r}")
    moved = {f.name: _between(getattr(start, f.name), getattr(end, f.name), path, progress) for f in fields(start)}
    return replace(start, **moved)
