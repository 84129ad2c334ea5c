"""The no-overlap step network: its population loss, true and coarse gradients, in closed form and sampled; float64.

One hidden layer, y(Z) = sum_i v_i step(Z_i'w): k patches Z_i of standard normal entries share one filter w. A teacher
of the same form, of filter w* with |w*| = 1 and read-out v*, gives the targets; the loss is E (y - y*)²/2. theta is the
angle between w and w*. With `sign` both networks use 2 step - 1 in the place of the step. Where read-outs are not asked
for they are v = v* = 1, with `units` = k. A filter may have any shape, so that a penalty sees its groups.
"""

from __future__ import annotations

from collections.abc import Callable
from math import atan2, cos, inf, nan, pi, sin, sqrt

import torch
from jaxtyping import Float64
from torch import Tensor

from hardstep.rules import BackwardRule

__all__ = [
    "Gradient",
    "angle",
    "coarse_gradient",
    "gradient",
    "identity_gradient",
    "kappa",
    "kappa_m",
    "minibatches",
    "output",
    "population",
    "population_loss",
    "rectified_gradient",
    "sampled_gradient",
    "unit",
]

Gradient = Callable[[Tensor], Tensor]


def kappa(units: int) -> float:
    """Return kappa = k/(2 sqrt(2 pi)), by how much the coarse gradient of k units pulls towards the teacher.

    Raises
    ------
    ValueError
        If there is no unit.

    Examples
    --------
    >>> round(kappa(4), 4)
    0.7979
    """
    if units < 1:
        raise ValueError(f"a network has at least 1 unit, got {units}")
    return units / (2 * sqrt(2 * pi))


def unit(w: Float64[Tensor, "*d"]) -> Float64[Tensor, "*d"]:
    """Return w/|w|.

    Raises
    ------
    ValueError
        If w is 0, or not finite.

    Examples
    --------
    >>> unit(torch.tensor([3.0, 4.0], dtype=torch.float64))
    tensor([0.6000, 0.8000], dtype=torch.float64)
    """
    size = float(w.norm())
    if not 0 < size < inf:
        raise ValueError(f"a filter of norm {size} has no direction; start elsewhere or lower lr")
    return w / size


def angle(a: Float64[Tensor, "*d"], b: Float64[Tensor, "*d"]) -> float:
    """Return the angle between two filters, exact near 0 and pi too; NaN if one of them is 0.

    Examples
    --------
    >>> eye = torch.eye(2, dtype=torch.float64)
    >>> round(angle(eye[0], eye[1]), 4)
    1.5708
    """
    if not (a.any() and b.any()):
        return nan
    a, b = unit(a), unit(b)
    return 2 * atan2(float((a - b).norm()), float((a + b).norm()))


def output(
    patches: Float64[Tensor, "n k d"], weight: Float64[Tensor, " d"], readout: Float64[Tensor, " k"]
) -> Float64[Tensor, " n"]:
    """Return y(Z) = sum_i v_i step(Z_i'w) for each sample.

    Examples
    --------
    >>> eye = torch.eye(2, dtype=torch.float64)
    >>> output(eye[None], eye[0], torch.ones(2, dtype=torch.float64))
    tensor([1.], dtype=torch.float64)
    """
    return (patches @ weight > 0).to(readout.dtype) @ readout


def population_loss(
    theta: float, student: Float64[Tensor, " k"], teacher: Float64[Tensor, " k"], *, sign: bool = False
) -> float:
    """Return f = 1/8 [v'(I + 11')v - 2v'((1 - 2 theta/pi)I + 11')v* + v*'(I + 11')v*]; k theta/(2 pi) for v = v* = 1.

    With `sign` the means vanish: f = 1/2 [|v|² - 2(1 - 2 theta/pi) v'v* + |v*|²], four times that for v = v* = 1.
    A mean over the patches in the place of their sum divides it by k².

    Parameters
    ----------
    theta
        Angle between the filters; their norms do not matter.
    student, teacher
        Read-outs v and v*.

    References
    ----------
    Yin et al. 2019, population loss [yin2019].

    Examples
    --------
    >>> ones = torch.ones(4, dtype=torch.float64)
    >>> round(population_loss(torch.pi / 2, ones, ones), 12)
    1.0
    """
    squares = float(student @ student + teacher @ teacher - 2 * (1 - 2 * theta / pi) * (student @ teacher))
    return squares / 2 if sign else (squares + float(student.sum() - teacher.sum()) ** 2) / 8


def gradient(
    weight: Float64[Tensor, "*d"],
    target: Float64[Tensor, "*d"],
    student: Float64[Tensor, " k"],
    teacher: Float64[Tensor, " k"],
    *,
    sign: bool = False,
) -> Float64[Tensor, "*d"]:
    """Return the true gradient of the population loss, -v'v*/(2 pi |w|) tau, tau the unit tangent towards the teacher.

    Its length does not fall with the angle: the loss is a cone at w*. At angle 0 and pi, where f has no gradient, 0.

    References
    ----------
    Yin et al. 2019, gradient of the population loss [yin2019].

    Examples
    --------
    >>> eye, ones = torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    >>> gradient(eye[0], eye[1], ones, ones)
    tensor([-0.0000, -0.3183], dtype=torch.float64)
    """
    slope = (4 if sign else 1) * float(student @ teacher) / (2 * pi * float(weight.norm()))
    return -slope * _tangent(unit(weight), unit(target))


def rectified_gradient(
    weight: Float64[Tensor, "*d"],
    target: Float64[Tensor, "*d"],
    student: Float64[Tensor, " k"],
    teacher: Float64[Tensor, " k"],
    *,
    sign: bool = False,
) -> Float64[Tensor, "*d"]:
    """Return the mean coarse gradient of the rule `Rectified`, [(h - v'v*) what - v'v* w*]/(2 sqrt(2 pi)).

    h = |v|² + (1'v)² - (1'v)(1'v*) + v'v*, what = w/|w|; kappa (what - w*) for v = v* = 1. With `sign` it is
    2 [|v|² what - v'v* w*]/sqrt(2 pi).

    References
    ----------
    Yin et al. 2019, coarse gradient of the vanilla ReLU [yin2019]. Differs: simplified; signs are ours.

    Examples
    --------
    >>> eye, ones = torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    >>> rectified_gradient(eye[0], eye[1], ones, ones) / kappa(2)
    tensor([ 1., -1.], dtype=torch.float64)
    """
    means = 0.0 if sign else float(student.sum() * (student.sum() - teacher.sum()))
    return _pulled(weight, target, student, teacher, means, 4 if sign else 1)


def identity_gradient(
    weight: Float64[Tensor, "*d"],
    target: Float64[Tensor, "*d"],
    student: Float64[Tensor, " k"],
    teacher: Float64[Tensor, " k"],
    *,
    sign: bool = False,
) -> Float64[Tensor, "*d"]:
    """Return the mean coarse gradient of the rule `Identity`, [|v|² what - v'v* w*]/(2 sqrt(2 pi)).

    It is kappa (what - w*) for v = v* = 1, as for `Rectified`; four times that with `sign`.

    References
    ----------
    Yin et al. 2019, coarse gradient of the identity [yin2019]. Differs: the rule of the library has slope 1/2, not 1.

    Examples
    --------
    >>> eye, ones = torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    >>> identity_gradient(eye[0], eye[1], ones, ones) / kappa(2)
    tensor([ 1., -1.], dtype=torch.float64)
    """
    return _pulled(weight, target, student, teacher, 0.0, 4 if sign else 1)


def _pulled(weight: Tensor, target: Tensor, student: Tensor, teacher: Tensor, means: float, times: int) -> Tensor:
    """Return times [(|v|² + means) what - v'v* w*]/(2 sqrt(2 pi))."""
    along = float(student @ student) + means
    return times * kappa(1) * (along * unit(weight) - float(student @ teacher) * unit(target))


def kappa_m(rule: BackwardRule, theta: float, size: float = 1.0, *, units: int = 1) -> float:
    """Return kappa_m(theta, |w|) = k/sqrt(2 pi) E m(|w| sin(theta) N), m(x) = rule.pullback(x, 1), N standard normal.

    By Stein's identity the mean coarse gradient of any rule has -sin(theta) kappa_m along the tangent towards the
    teacher (four times that in a sign network), so every rule that is nowhere negative turns w towards w*, and |w| is
    the rule's temperature. `Rectified` and `Identity` have kappa at any angle and size. By the midpoint rule.

    Parameters
    ----------
    size
        |w|.

    References
    ----------
    Ours; Yin et al. 2019 [yin2019] have three rules.

    Examples
    --------
    >>> from hardstep.rules import Clipped
    >>> round(kappa_m(Clipped(), torch.pi / 4), 4)
    0.1681
    """
    normal, mass = _normal()
    return units / sqrt(2 * pi) * float(_slope(rule, size * sin(theta) * normal) @ mass)


def coarse_gradient(
    rule: BackwardRule,
    weight: Float64[Tensor, "*d"],
    target: Float64[Tensor, "*d"],
    student: Float64[Tensor, " k"],
    teacher: Float64[Tensor, " k"],
    *,
    sign: bool = False,
) -> Float64[Tensor, "*d"]:
    """Return E sum_i Z_i m(Z_i'w) v_i (y - y*), the mean coarse gradient of any pointwise rule, by one quadrature.

    Z is split along w, along tau and the rest, which averages out; E[step(Z'w*) | Z'w] is a normal distribution
    function. For `Rectified` and `Identity` use their closed forms.

    References
    ----------
    Ours; the coarse gradient is that of Yin et al. 2019 [yin2019].

    Examples
    --------
    >>> from hardstep.rules import Clipped
    >>> eye, ones = torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    >>> coarse_gradient(Clipped(), eye[0], eye[1], ones, ones)
    tensor([ 0.1570, -0.2724], dtype=torch.float64)
    """
    theta, size = angle(weight, target), float(weight.norm())
    normal, mass = _normal()
    lever = normal * _slope(rule, size * normal) * mass
    on = float(lever[normal > 0].sum())
    taught = float(lever @ torch.special.ndtr(normal * (cos(theta) / max(sin(theta), 1e-300))))
    mean = float(lever.sum())
    own, shared = float(student @ student), float(student @ teacher)
    if sign:
        along = 2 * (own * (2 * on - mean) - shared * (2 * taught - mean))
    else:
        others = float(student.sum() * (student.sum() - teacher.sum())) - own + shared
        along = own * on - shared * taught + others * mean / 2
    across = -(4 if sign else 1) * shared * sin(theta) * kappa_m(rule, theta, size)
    return along * unit(weight) + across * _tangent(unit(weight), unit(target))


def _normal() -> tuple[Tensor, Tensor]:
    """Return midpoints of a grid on [-9, 9], of which 0 is no node, and their mass under the standard normal law."""
    nodes = torch.arange(-199_999.5, 200_000, dtype=torch.float64) * (9 / 200_000)
    mass = torch.exp(-nodes.square() / 2)
    return nodes, mass / mass.sum()


def _slope(rule: BackwardRule, x: Tensor) -> Tensor:
    return rule.pullback(x, torch.ones_like(x))


def _tangent(weight: Tensor, target: Tensor) -> Tensor:
    """Return the unit tangent at a unit vector towards another, 0 if they are parallel."""
    across = target - (weight * target).sum() * weight
    across = across - (weight * across).sum() * weight  # again: near 0 and pi the first difference cancels
    size = float(across.norm())
    return across / size if size > 1e-14 else torch.zeros_like(across)


def sampled_gradient(
    rule: BackwardRule,
    patches: Float64[Tensor, "n k d"],
    weight: Float64[Tensor, " d"],
    target: Float64[Tensor, " d"],
    student: Float64[Tensor, " k"],
    teacher: Float64[Tensor, " k"],
    *,
    sign: bool = False,
) -> Float64[Tensor, " d"]:
    """Return the mean over samples of sum_i Z_i rule.pullback(Z_i'w, v_i (y - y*)), what back-propagation computes.

    The rule belongs to the 0/1 step; with `sign` the residual and the chain rule double, as in `Sign`.

    References
    ----------
    Yin et al. 2019, coarse gradient [yin2019].

    Examples
    --------
    >>> from hardstep.rules import Rectified
    >>> eye, ones = torch.eye(2, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    >>> sampled_gradient(Rectified(), eye[:, None], eye[0], eye[1], ones, ones)
    tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    residual = output(patches, weight, student) - output(patches, target, teacher)
    if sign:
        residual = 2 * (2 * residual - student.sum() + teacher.sum())
    back = rule.pullback(patches @ weight, residual[:, None] * student)
    mean: Tensor = torch.tensordot(back, patches, dims=2) / len(patches)
    return mean


def population(target: Float64[Tensor, "*d"], units: int) -> Gradient:
    """Return w -> kappa (w/|w| - w*), the mean coarse gradient of `Rectified` and of `Identity` for v = v* = 1.

    Examples
    --------
    >>> eye = torch.eye(2, dtype=torch.float64)
    >>> population(eye[1], units=2)(eye[0]) / kappa(2)
    tensor([ 1., -1.], dtype=torch.float64)
    """
    strength = kappa(units)
    return lambda weight: strength * (unit(weight) - target)


def minibatches(
    rule: BackwardRule, target: Float64[Tensor, "*d"], units: int, *, batch_size: int, seed: int
) -> Gradient:
    """Return the sampled coarse gradient for v = v* = 1 as a function of w, on new patches at each call.

    Examples
    --------
    >>> from hardstep.rules import Rectified
    >>> target = torch.eye(2, dtype=torch.float64)[0]
    >>> minibatches(Rectified(), target, 3, batch_size=8, seed=0)(target)
    tensor([0., 0.], dtype=torch.float64)
    """
    generator = torch.Generator().manual_seed(seed)
    ones = torch.ones(units, dtype=torch.float64)

    def sampled(weight: Tensor) -> Tensor:
        patches = torch.randn(batch_size, units, target.numel(), generator=generator, dtype=torch.float64)
        mean = sampled_gradient(rule, patches, weight.reshape(-1), target.reshape(-1), ones, ones)
        return mean.reshape(weight.shape)

    return sampled
