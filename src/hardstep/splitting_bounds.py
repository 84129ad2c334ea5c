"""What is proved of the limits of relaxed splitting on the no-overlap network, each bound as a number.

Letters as in `relaxed_splitting`: k units, kappa = k/(2 sqrt(2 pi)), coupling beta, lr eta, u = prox(w) with step
1/beta, s = kappa w* + beta u, theta the angle between w and w*. They hold for the population gradient, v = v* = 1, and
any penalty whose prox shrinks and keeps directions (of entries or of groups); not for minibatches, biases or depth.
"""

from __future__ import annotations

from math import pi, sin, sqrt

from jaxtyping import Float64
from scipy.special import betainc
from torch import Tensor

from hardstep.no_overlap import kappa
from hardstep.relaxed_splitting import attractor

__all__ = [
    "coupling_limit",
    "error_bound",
    "export_bound",
    "one_step_bound",
    "rate_bound",
    "recovery_bound",
    "start_failure",
]


def start_failure(delta: float, size: int) -> float:
    """Return P(theta > pi - delta) for a start drawn from the sphere in d dimensions; at most sin(delta)^(d - 1)/2.

    Every bound of this file asks for a start at most pi - delta from the teacher.

    Parameters
    ----------
    delta
        In (0, pi/2].
    size
        d >= 2.

    References
    ----------
    Ours: the "high probability" of Dinh and Xin 2019 [dinh2019] as a number.

    Examples
    --------
    >>> round(start_failure(pi / 6, size=2), 12), start_failure(pi / 6, size=50) < 1e-15
    (0.166666666667, True)
    """
    _acute(delta)
    return 0.5 * float(betainc((size - 1) / 2, 0.5, sin(delta) ** 2))


def coupling_limit(delta: float, units: int) -> float:
    """Return kappa sin(delta), the largest coupling for which the angle never rises within [delta, pi - delta].

    Nor does it pass delta from below. It needs lr <= 1/(kappa + beta) and a prox that does not lengthen.

    Parameters
    ----------
    delta
        In (0, pi/2].

    References
    ----------
    Ours; Dinh and Xin 2019 [dinh2019] have the same constant.

    Examples
    --------
    >>> round(coupling_limit(pi / 6, units=4), 4)
    0.3989
    """
    _acute(delta)
    return kappa(units) * sin(delta)


def one_step_bound(coupling: float, units: int) -> float:
    """Return beta/kappa >= sin(theta) after one step with lr = 1/(kappa + beta), from any start.

    References
    ----------
    Ours, on the method of Dinh and Xin 2019 [dinh2019].

    Examples
    --------
    >>> round(one_step_bound(0.2, units=4), 4)
    0.2507
    """
    return coupling / kappa(units)


def recovery_bound(threshold: float, *, coupling: float, units: int) -> float:
    """Return (1 + beta/kappa) t: if every true entry exceeds it, the support of u becomes the true one.

    It needs beta <= kappa/sqrt(2) and a limit less than pi/2 from the teacher. Then no entry (or group) is false, be
    the true ones large or small: where w* is 0 both u and w end at 0.

    Parameters
    ----------
    threshold
        t, below which the prox with step 1/beta gives 0: strength/beta for l1, sqrt(2 strength/beta) for l0,
        `TransformedL1.threshold` for the transformed l1; of a group, that of its norm.

    Raises
    ------
    ValueError
        If the coupling is above kappa/sqrt(2).

    References
    ----------
    Ours, on the method of Dinh and Xin 2019 [dinh2019].

    Examples
    --------
    >>> round(recovery_bound(0.1, coupling=0.2, units=4), 4)
    0.1251
    """
    if coupling > kappa(units) / sqrt(2):
        raise ValueError(
            f"recovery is proved for a coupling up to {kappa(units) / sqrt(2):.6g}, got {coupling}; lower it"
        )
    return (1 + coupling / kappa(units)) * threshold


def error_bound(gap: float, *, coupling: float, units: int) -> float:
    """Return beta min(gap, 1)/kappa >= sin(theta) at a limit less than pi/2 from the teacher, without false entries.

    |w - w*| = 2 sin(theta/2) there.

    Parameters
    ----------
    gap
        A bound on |w - u|: sqrt(n) t, t the threshold of the prox with step 1/beta (the most that l1, l0 and the
        transformed l1 move an entry), n the number of true entries, of l0 only those that it kills. For groups the
        root of the sum of the squared thresholds of the true ones.

    References
    ----------
    Ours, on the method of Dinh and Xin 2019 [dinh2019].

    Examples
    --------
    >>> round(error_bound(0.1 * 9**0.5, coupling=0.2, units=4), 4)
    0.0752
    """
    return coupling * min(gap, 1.0) / kappa(units)


def export_bound(
    w: Float64[Tensor, "*d"], u: Float64[Tensor, "*d"], target: Float64[Tensor, "*d"], *, units: int, coupling: float
) -> float:
    """Return |s| |w - u|/kappa >= sin of the angle between u and w* at a limit, s = kappa w* + beta u; attained by l0.

    References
    ----------
    Ours, on the method of Dinh and Xin 2019 [dinh2019].

    Examples
    --------
    >>> import torch
    >>> target = torch.eye(2, dtype=torch.float64)[0]
    >>> export_bound(target, target, target, units=4, coupling=0.2)
    0.0
    """
    pull = attractor(u, target, units=units, coupling=coupling)
    return float(pull.norm() * (w - u).norm()) / kappa(units)


def rate_bound(
    u: Float64[Tensor, "*d"], target: Float64[Tensor, "*d"], *, units: int, coupling: float, lr: float
) -> float:
    """Return (A + eta beta)/(A + eta |s|), the factor of linear convergence to a limit under l1 or l0; attained.

    A = 1 - eta (kappa + beta), s = kappa w* + beta u; beta/|s| for eta = 1/(kappa + beta).

    References
    ----------
    Ours, on the method of Dinh and Xin 2019 [dinh2019].

    Examples
    --------
    >>> import torch
    >>> target = torch.eye(2, dtype=torch.float64)[0]
    >>> round(rate_bound(target, target, units=4, coupling=0.2, lr=1 / (kappa(4) + 0.2)), 4)
    0.2004
    """
    rest = 1 - lr * (kappa(units) + coupling)
    pull = float(attractor(u, target, units=units, coupling=coupling).norm())
    return (rest + lr * coupling) / (rest + lr * pull)


def _acute(delta: float) -> None:
    if not 0 < delta <= pi / 2:
        raise ValueError(f"delta must be an angle in (0, pi/2], got {delta}")
