"""Relaxed variable splitting on the no-overlap network, the case for which convergence is proved.

The problem is min f(w) + P(u) + beta/2 |w - u|² over |w| = 1, f the population loss of `no_overlap` with v = v* = 1 and
k units, theta the angle between w and the teacher's filter w*, |w*| = 1, kappa = k/(2 sqrt(2 pi)). With s = kappa w* +
beta u each step moves w on the great circle towards s. What is exported is u, exactly sparse; a gap w - u stays.
`splitting_bounds` says how good the limit is. `methods.splitting` has the form for deep networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import inf, pi

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from hardstep.no_overlap import Gradient, angle, kappa, unit
from hardstep.penalties import Penalty

__all__ = ["Iterates", "attractor", "fixed_point_residual", "iterate", "objective", "potential", "relaxed_splitting"]


@dataclass(frozen=True)
class Iterates:
    """What relaxed splitting went through: entry t is after t steps on w, with u = prox(w)."""

    w: Float64[Tensor, "*d"]
    """The last w."""
    u: Float64[Tensor, "*d"]
    """The last u: the filter to export."""
    angles: Float64[Tensor, " t"]
    """Angle between w and the teacher."""
    export_angles: Float64[Tensor, " t"]
    """Angle between u and the teacher, NaN where u is 0."""
    losses: Float64[Tensor, " t"]
    """Population loss of w."""
    objectives: Float64[Tensor, " t"]
    """`objective`; it may rise."""
    potentials: Float64[Tensor, " t"]
    """`potential`; it never rises if lr <= 1/(kappa + beta)."""
    supports: Int64[Tensor, " t"]
    """Number of entries of u that are not 0."""


def iterate(
    gradient: Gradient,
    start: Float64[Tensor, "*d"],
    penalty: Penalty,
    *,
    coupling: float,
    lr: float,
    project: Callable[[Tensor], Tensor] = unit,
) -> Iterator[tuple[Float64[Tensor, "*d"], Float64[Tensor, "*d"]]]:
    """Yield w and u = prox(w), without end: u <- prox(w, 1/beta), w <- project(w - eta g(w) - eta beta (w - u)).

    Parameters
    ----------
    gradient
        g: `no_overlap.population`, `no_overlap.minibatches`, or any function of w.
    start
        The first w; it is projected.
    coupling
        beta > 0, how strongly w and u hold together. The penalty's threshold is that of its prox with step 1/beta.
    lr
        eta > 0; 1/(kappa + beta) is exact minimisation over each block.
    project
        The sphere by default. Without it the pull shrinks w, whose norm f does not see, until the threshold kills all.

    Raises
    ------
    ValueError
        If coupling or lr is not positive, or w becomes 0 on the sphere.

    References
    ----------
    Dinh and Xin 2019 [dinh2019]. Its text was not at hand: the order of the updates is inferred.

    Examples
    --------
    >>> from hardstep.no_overlap import population
    >>> from hardstep.penalties import L1
    >>> eye = torch.eye(2, dtype=torch.float64)
    >>> pairs = iterate(population(eye[1], units=4), eye[0], L1(0.1), coupling=0.2, lr=1.0)
    >>> next(pairs)
    (tensor([1., 0.], dtype=torch.float64), tensor([0.5000, 0.0000], dtype=torch.float64))
    """
    for name, value in (("coupling", coupling), ("lr", lr)):
        if not 0 < value < inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
    w = project(start)
    while True:
        u = penalty.prox(w, 1 / coupling)
        yield w, u
        w = project(w - lr * gradient(w) - lr * coupling * (w - u))


def relaxed_splitting(
    gradient: Gradient,
    start: Float64[Tensor, "*d"],
    target: Float64[Tensor, "*d"],
    penalty: Penalty,
    *,
    units: int,
    coupling: float,
    lr: float,
    steps: int,
) -> Iterates:
    """Run `iterate` on the sphere for a number of steps and measure every pair against the teacher.

    Parameters
    ----------
    target
        w*, for the measurements only.
    units
        k, for the measurements only.
    steps
        Number of steps on w, >= 0.

    Raises
    ------
    ValueError
        As `iterate`; or if |w*| is not 1, or steps are negative.

    References
    ----------
    Dinh and Xin 2019 [dinh2019].

    Examples
    --------
    >>> from hardstep.no_overlap import population
    >>> from hardstep.penalties import L0
    >>> eye = torch.eye(3, dtype=torch.float64)
    >>> target, start = unit(eye[0] + eye[1]), unit(eye.sum(dim=0))
    >>> run = relaxed_splitting(population(target, 4), start, target, L0(0.02), units=4, coupling=0.4, lr=0.8, steps=20)
    >>> run.u, run.supports[-1]
    (tensor([0.7071, 0.7071, 0.0000], dtype=torch.float64), tensor(2))
    """
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}")
    if abs(float(target.norm()) - 1) > 1e-9:
        raise ValueError(f"the teacher's filter must have norm 1, got {float(target.norm())}; divide it by that")
    rows = []
    for w, u in islice(iterate(gradient, start, penalty, coupling=coupling, lr=lr), steps + 1):
        theta = angle(w, target)
        rows.append(
            (
                theta,
                angle(u, target),
                units * theta / (2 * pi),
                objective(w, u, target, penalty, units=units, coupling=coupling),
                potential(w, u, target, penalty, units=units, coupling=coupling),
                int((u != 0).sum()),
            )
        )
    angles, export_angles, losses, objectives, potentials, supports = torch.tensor(rows, dtype=torch.float64).T
    return Iterates(w, u, angles, export_angles, losses, objectives, potentials, supports.long())


def potential(
    w: Float64[Tensor, "*d"],
    u: Float64[Tensor, "*d"],
    target: Float64[Tensor, "*d"],
    penalty: Penalty,
    *,
    units: int,
    coupling: float,
) -> float:
    """Return the Lyapunov function kappa (1 - w'w*) + P(u) + beta/2 |w - u|², whose gradient is the coarse gradient.

    The step on u minimises it; a step from w to w+ = z/|z| lowers it by exactly (|z| + A)/(2 eta) |w+ - w|²,
    A = 1 - eta (kappa + beta): never less than 0 if eta <= 1/(kappa + beta), or if eta (2 (kappa + beta) - |s|) <= 2.

    References
    ----------
    Ours; Dinh and Xin 2019 [dinh2019] use the objective with the true loss, which may rise.

    Examples
    --------
    >>> from hardstep.penalties import L1
    >>> eye = torch.eye(2, dtype=torch.float64)
    >>> round(potential(eye[0], 0 * eye[0], eye[1], L1(0.1), units=4, coupling=0.2) - kappa(4), 12)
    0.1
    """
    gap = (w - target).square().sum() / 2  # 1 - w'w* on the sphere, without cancellation
    return kappa(units) * float(gap) + _beside(w, u, penalty, coupling)


def objective(
    w: Float64[Tensor, "*d"],
    u: Float64[Tensor, "*d"],
    target: Float64[Tensor, "*d"],
    penalty: Penalty,
    *,
    units: int,
    coupling: float,
) -> float:
    """Return L = k theta/(2 pi) + P(u) + beta/2 |w - u|².

    It is no Lyapunov function: from w* it rises.

    References
    ----------
    Dinh and Xin 2019 [dinh2019].

    Examples
    --------
    >>> from hardstep.penalties import L1
    >>> eye = torch.eye(2, dtype=torch.float64)
    >>> round(objective(eye[0], 0 * eye[0], eye[1], L1(0.1), units=4, coupling=0.2), 12)
    1.1
    """
    return units * angle(w, target) / (2 * pi) + _beside(w, u, penalty, coupling)


def _beside(w: Tensor, u: Tensor, penalty: Penalty, coupling: float) -> float:
    return float(penalty.value(u) + coupling / 2 * (w - u).square().sum())


def attractor(
    u: Float64[Tensor, "*d"], target: Float64[Tensor, "*d"], *, units: int, coupling: float
) -> Float64[Tensor, "*d"]:
    """Return s = kappa w* + beta u, towards which every step turns w.

    References
    ----------
    Ours, on the method of Dinh and Xin 2019 [dinh2019].

    Examples
    --------
    >>> target = torch.eye(2, dtype=torch.float64)[0]
    >>> attractor(target, target, units=4, coupling=0.2)
    tensor([0.9979, 0.0000], dtype=torch.float64)
    """
    return kappa(units) * target + coupling * u


def fixed_point_residual(
    w: Float64[Tensor, "*d"], u: Float64[Tensor, "*d"], target: Float64[Tensor, "*d"], *, units: int, coupling: float
) -> float:
    """Return |w - s/|s||, s = kappa w* + beta u: 0 at a limit, where w* = (|s| w - beta u)/kappa.

    References
    ----------
    Ours, on the method of Dinh and Xin 2019 [dinh2019].

    Examples
    --------
    >>> target = torch.eye(2, dtype=torch.float64)[0]
    >>> fixed_point_residual(target, 0.5 * target, target, units=4, coupling=0.2)
    0.0
    """
    return float((w - unit(attractor(u, target, units=units, coupling=coupling))).norm())
