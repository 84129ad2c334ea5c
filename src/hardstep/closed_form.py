"""Closed forms: pure functions that solve one minimisation each. Linear solves run in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

__all__ = [
    "bias_free",
    "bit_gain",
    "columns_l20",
    "flip_pass",
    "flip_price",
    "inverse",
    "margin_residual",
    "proximal_ridge",
    "relaxed_bits",
    "ridge",
    "rows_l20",
    "step_prox",
]


def ridge(
    gram: Float64[Tensor, "h h"], cross: Float64[Tensor, "k h"], strength: Float64[Tensor, " h"]
) -> Float64[Tensor, "k h"]:
    """Solve min_W 1/2 tr(W G W') - tr(W B') + 1/2 sum_j strength_j |W_j|², that is W = B (G + diag strength)^-1.

    With G = A A' and B = Y A' this is ridge regression of Y on A, by Cholesky's factorisation.

    Parameters
    ----------
    gram
        G, symmetric and positive semi-definite.
    cross
        B.
    strength
        Penalty of each column of W, >= 0; 0 for a bias.

    Raises
    ------
    ValueError
        If G + diag strength is singular.
    FloatingPointError
        If G holds NaN.

    Examples
    --------
    >>> ridge(torch.eye(2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64), torch.ones(2).double())
    tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
    solved: Tensor = torch.cholesky_solve(cross.T, _factor(gram, strength)).T
    return solved


def inverse(gram: Float64[Tensor, "h h"], strength: Float64[Tensor, " h"]) -> Float64[Tensor, "h h"]:
    """Return (G + diag strength)^-1, symmetric to the last bit; errors as in `ridge`.

    Examples
    --------
    >>> inverse(torch.eye(2, dtype=torch.float64), torch.ones(2).double()).diagonal()
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    inverted: Tensor = torch.cholesky_inverse(_factor(gram, strength))
    return inverted


def _factor(gram: Tensor, strength: Tensor) -> Tensor:
    """Return the Cholesky factor of G + diag strength."""
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(gram + torch.diag(strength))
    if failed and not bool(gram.isfinite().all()):
        raise FloatingPointError("a Gram matrix holds NaN or infinite values; look for extreme features or lower lr")
    if failed:
        raise ValueError(
            f"the ridge system of {len(gram)} columns is singular: units that are dead or alike need a strength "
            f"above 0, got {float(strength.min())} to {float(strength.max())}; raise it"
        )
    return factor


def bias_free(gram: Float64[Tensor, "h h"], value: float) -> Float64[Tensor, " h"]:
    """Return a ridge strength for each column, 0 for the last one, the bias.

    Examples
    --------
    >>> bias_free(torch.eye(3, dtype=torch.float64), 0.5)
    tensor([0.5000, 0.5000, 0.0000], dtype=torch.float64)
    """
    strength = torch.full_like(gram[0], value)
    strength[-1] = 0
    return strength


def flip_price(
    pre: Float[Tensor, "n h"], bits: Float[Tensor, "n h"], strength: float, margin: float
) -> Float[Tensor, "n h"]:
    """Return by how much min_u strength/2 (u - pre)² rises when a bit is flipped, u bound to its bit by a margin.

    A bit 1 asks for u >= margin, a bit 0 for u <= -margin, so the minimum is strength/2 max(0, margin - t pre)², t the
    bit as +-1. The price is negative where the bit disagrees with the sign of pre.

    Parameters
    ----------
    pre
        Pre-activations of the unit itself.
    bits
        0 or 1.

    Examples
    --------
    >>> flip_price(torch.tensor([[0.5, 2.0]]), torch.ones(1, 2), strength=1.0, margin=1.0)
    tensor([[1.0000, 4.5000]])
    """
    agreement = (2 * bits - 1) * pre
    there, here = (margin + agreement).clamp_min_(0), (margin - agreement).clamp_min_(0)
    return (there.square_() - here.square_()).mul_(0.5 * strength)


def margin_residual(pre: Float[Tensor, "n h"], bits: Float[Tensor, "n h"], margin: float) -> Float[Tensor, "n h"]:
    """Return u - pre for u = argmin |u - pre|² under u >= margin where the bit is 1, u <= -margin where it is 0.

    This is t max(0, margin - t pre), t the bit as +-1: minus the gradient of the squared hinge 1/2 max(0, margin -
    t pre)², whose curvature is at most 1.

    Examples
    --------
    >>> margin_residual(torch.tensor([[0.5, 2.0, 0.5]]), torch.tensor([[1.0, 1.0, 0.0]]), margin=1.0)
    tensor([[ 0.5000,  0.0000, -1.5000]])
    """
    sign = 2 * bits - 1
    return (margin - sign * pre).clamp_min_(0).mul_(sign)


def flip_pass(
    bits: Float[Tensor, "n h"],
    price: Float[Tensor, "n h"],
    out: Float[Tensor, "n k"],
    weight: Float[Tensor, "k h"],
    residual: Callable[[Tensor], Tensor],
    curvature: float,
    *,
    order: Int64[Tensor, " h"],
    block: int = 32,
) -> tuple[Float[Tensor, "n h"], Float[Tensor, "n k"]]:
    """Flip bits one unit after the other wherever that lowers sum_n l(o_n) + the prices, o moving by the weights.

    l is majorised by l(o + e) <= l(o) - r'e + curvature/2 |e|², r = residual(o). One pass in the given order; each
    decision is the exact minimum of the majoriser over that bit, all others fixed. The majoriser is made anew after
    each block of units; within a block the moves of o are carried by the block's Gram matrix, so that a pass costs two
    matrix products and not one rank-one update of `out` per unit. The sum never rises.

    Parameters
    ----------
    price
        What a flip of each entry costs beside the loss; of either sign.
    out
        What the bits reach now, through `weight` and anything constant.
    residual
        r as a function of o, row by row.
    block
        Units between two new majorisers; 1 is the tightest.

    Returns
    -------
    The bits and what they reach, in new tensors.

    References
    ----------
    Ours; the principle of minimal disturbance of Widrow and Lehr 1990 [widrow1990] with a price and in batch.

    Examples
    --------
    >>> bits, out = flip_pass(torch.zeros(1, 2), torch.full((1, 2), 0.1), torch.zeros(1, 1), torch.ones(1, 2),
    ...     lambda o: 1 - o, 1.0, order=torch.arange(2))
    >>> bits, out
    (tensor([[1., 0.]]), tensor([[1.]]))
    """
    bits, out = bits.clone(), out.clone()
    for units in torch.split(order, block):
        columns = weight[:, units]
        gram = curvature * (columns.T @ columns)
        pull = (residual(out) @ columns).T.contiguous()  # units x rows from here on
        before = bits[:, units].T
        up = 1 - 2 * before  # where a flip takes the bit, as +-1
        cost = torch.addcmul(price[:, units].T + 0.5 * gram.diagonal()[:, None], up, pull, value=-1)
        moves = torch.zeros_like(cost)
        for j in range(len(units)):
            moves[j] = up[j] * (cost[j] < 0)
            # the pull on later units falls by gram times the move, so their cost rises by up times that
            cost[j + 1 :].addcmul_(up[j + 1 :], gram[j + 1 :, j, None] * moves[j])
        bits[:, units] = (before + moves).T
        out.addmm_(moves.T, columns.T)
    return bits, out


def bit_gain(
    bits: Float[Tensor, "n h"], residual: Float[Tensor, "n k"], weight: Float[Tensor, "k h"], curvature: float
) -> Float[Tensor, "n h"]:
    """Return what the majorised loss would rise by if a bit were the other one: t r'w + curvature/2 |w|².

    Examples
    --------
    >>> bit_gain(torch.tensor([[1.0, 0.0]]), torch.ones(1, 1), torch.tensor([[2.0, 2.0]]), 1.0)
    tensor([[4., 0.]])
    """
    return (2 * bits - 1) * (residual @ weight) + 0.5 * curvature * weight.square().sum(dim=0)


def step_prox(
    pre: Float[Tensor, "n h"],
    relaxed: Float[Tensor, "n h"],
    bits: Float[Tensor, "n h"],
    *,
    gamma: float,
    rho: float,
    margin: float = 0.0,
) -> tuple[Float[Tensor, "n h"], Float[Tensor, "n h"]]:
    """Solve min_{u,s} gamma/2 (v - s)² + rho/2 (u - c)² where s = 1 asks for u >= margin and s = 0 for u <= -margin.

    With margin 0 and s = 1 the infimum over u > 0 may not be attained: u = 0 stands for its limit from above, in the
    closure of the graph of the step. Ties keep the old bit.

    Parameters
    ----------
    pre
        c, what u is drawn to.
    relaxed
        v, what s is drawn to.
    bits
        The old bits.

    Returns
    -------
    u and s.

    References
    ----------
    Zhang et al. 2023 [zhang2023], the step's subproblem; reconstructed, with the margin ours.

    Examples
    --------
    >>> pre, relaxed, bits = torch.tensor([[0.5]]), torch.tensor([[0.1]]), torch.ones(1, 1)
    >>> step_prox(pre, relaxed, bits, gamma=1.0, rho=1.0, margin=0.25)
    (tensor([[-0.2500]]), tensor([[0.]]))
    """
    on, off = pre.clamp_min(margin), pre.clamp_max(-margin)
    gain = gamma * (relaxed - 0.5) + 0.5 * rho * ((off - pre).square() - (on - pre).square())  # of s = 1 over s = 0
    chosen = torch.where(gain == 0, bits, (gain > 0).to(pre.dtype))
    return torch.where(chosen > 0, on, off), chosen


def relaxed_bits(
    bits: Float64[Tensor, "n h"], target: Float64[Tensor, "n k"], weight: Float64[Tensor, "k h"], ratio: float
) -> Float64[Tensor, "n h"]:
    """Solve min_V ratio/2 |V - S|² + 1/2 |T - V W'|², by the smaller of two linear systems.

    Parameters
    ----------
    bits
        S.
    target
        T, with any bias taken off.
    ratio
        How much S weighs, > 0.

    Examples
    --------
    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> relaxed_bits(0 * one, one, one, ratio=1.0)
    tensor([[0.5000]], dtype=torch.float64)
    """
    if not ratio > 0:
        raise ValueError(f"ratio must be positive, or the bits are not determined, got {ratio}")
    many, few = weight.shape[1], weight.shape[0]
    if few < many:  # Woodbury's identity
        system = weight @ weight.T + ratio * torch.eye(few, dtype=weight.dtype, device=weight.device)
        moved: Tensor = torch.linalg.solve(system, (target - bits @ weight.T).T)
        return bits + moved.T @ weight
    system = weight.T @ weight + ratio * torch.eye(many, dtype=weight.dtype, device=weight.device)
    solved: Tensor = torch.linalg.solve(system, (ratio * bits + target @ weight).T)
    return solved.T


def proximal_ridge(
    weight: Float64[Tensor, "k h"],
    gram: Float64[Tensor, "h h"],
    cross: Float64[Tensor, "k h"],
    strength: Float64[Tensor, " h"],
    prox: Callable[[Tensor, float], Tensor],
    *,
    steps: int,
) -> Float64[Tensor, "k h"]:
    """Lower the objective of `ridge` plus a penalty on all columns but the last (the bias) by proximal gradient steps.

    Each step has the length 1/L, L the largest eigenvalue of G + diag strength, so the sum never rises.

    Parameters
    ----------
    weight
        Where to start.
    prox
        The penalty's proximal map, given weights and step length.

    Examples
    --------
    >>> eye = torch.eye(2, dtype=torch.float64)
    >>> proximal_ridge(0 * eye, eye, eye, 0 * eye[0], lambda v, step: v / (1 + step), steps=1)
    tensor([[0.5000, 0.0000],
            [0.0000, 1.0000]], dtype=torch.float64)
    """
    system = gram + torch.diag(strength)
    length = 1 / float(torch.linalg.eigvalsh(system)[-1])
    for _ in range(steps):
        weight = weight - length * (weight @ system - cross)
        weight = torch.cat([prox(weight[:, :-1], length), weight[:, -1:]], dim=1)
    return weight


def rows_l20(
    gram: Float64[Tensor, "h h"], cross: Float64[Tensor, "k h"], strength: Float64[Tensor, " h"], price: float
) -> Float64[Tensor, "k h"]:
    """Solve the problem of `ridge` plus price times the number of rows of W that are not 0; exact, row by row.

    A row is kept where the ridge solution w lowers its objective by more than the price: 1/2 w'b > price.

    References
    ----------
    Zhang et al. 2023 [zhang2023] penalise by l2,0; the exact row solution is ours.
    """
    weight = ridge(gram, cross, strength)
    return torch.where((0.5 * (weight * cross).sum(dim=1) > price)[:, None], weight, 0.0)


def columns_l20(
    weight: Float64[Tensor, "k h"],
    gram: Float64[Tensor, "h h"],
    cross: Float64[Tensor, "k h"],
    strength: Float64[Tensor, " h"],
    price: float,
    *,
    passes: int = 20,
) -> Float64[Tensor, "k h"]:
    """Lower the objective of `ridge` plus price times the number of columns that are not 0, column by column.

    Each column, the others fixed, is solved exactly: r = B_k - sum_{l != k} W_l G_lk, q = G_kk + strength_k, r/q if
    |r|²/(2q) > price, else 0. The last column (the bias) is free. Never rises; stops when a pass changes nothing.

    References
    ----------
    Ours; the problem is NP-hard, a fixed point is a minimum over each column.
    """
    weight = weight.clone()
    for _ in range(passes):
        before = weight.clone()
        for k in range(gram.shape[0]):
            rest = cross[:, k] - weight @ gram[:, k] + weight[:, k] * gram[k, k]
            scale = gram[k, k] + strength[k]
            free = k == gram.shape[0] - 1
            keep = scale > 0 and (free or float(rest.square().sum()) > 2 * float(scale) * price)
            weight[:, k] = rest / scale if keep else 0.0
        if torch.equal(before, weight):
            break
    return weight
