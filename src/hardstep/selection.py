"""Feature selection by orthogonal least squares: greedy, class by class, in closed form."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

__all__ = ["orthogonal_least_squares", "select_per_class"]

LEFT = 1e-8  # share of a column's squared length below which what is left of it is rounding


def orthogonal_least_squares(
    x: Float[Tensor, "n p"], target: Shaped[Tensor, " n"], count: int, *, centred: bool = False
) -> Int64[Tensor, " picks"]:
    """Pick columns greedily, each the one that lowers min_w |target - X_S w|² most, S with it; columns are centred.

    With r the target and num = X'r, den_j = |x_j|²: pick j = argmax num_j²/den_j, the lowest among equals; q = x_j made
    orthogonal to earlier q and of unit length; a = X'q, b = q'r; num -= b a, den -= a². Columns of which less than 1e-8
    is left are out; fewer than `count` are picked if none is left, or the target is reached. In float64.

    Parameters
    ----------
    target
        Numbers, or 0 and 1; centred too.
    count
        Number of columns, >= 0.
    centred
        Whether columns have zero mean and are float64 already, so that they need not be copied.

    Raises
    ------
    ValueError
        If count is negative.

    References
    ----------
    Chen, Cowan and Grant 1991 [chen1991], orthogonal least squares. Differs: numerators and denominators are updated,
    not the columns.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> orthogonal_least_squares(x, x[:, 0] + x[:, 2], 2)
    tensor([2, 0])
    """
    if count < 0:
        raise ValueError(f"the number of columns to pick is at least 0, got {count}")
    columns = x if centred else _centre(x)
    rest = target.double() - target.double().mean()
    numerator = columns.T @ rest
    squares = columns.square().sum(dim=0)
    denominator = squares.clone()
    reached = LEFT * float(rest.square().sum())
    basis = columns.new_zeros(len(columns), min(count, *columns.shape))
    picks: list[int] = []
    while len(picks) < basis.shape[1] and float(rest.square().sum()) > reached:
        alive = denominator > LEFT * squares
        if not bool(alive.any()):
            break
        best = int(torch.where(alive, numerator.square() / denominator.clamp_min(1e-300), -1.0).argmax())
        earlier = basis[:, : len(picks)]
        direction = columns[:, best].clone()
        for _ in range(2):  # once more, against rounding
            direction -= earlier @ (earlier.T @ direction)
        direction /= direction.norm()
        basis[:, len(picks)] = direction
        share = columns.T @ direction
        part = direction @ rest
        rest = rest - part * direction
        numerator -= part * share
        denominator -= share.square()
        denominator[best] = 0.0
        picks.append(best)
    return torch.tensor(picks, dtype=torch.int64, device=x.device)


def select_per_class(x: Float[Tensor, "n p"], y: Int64[Tensor, " n"], count: int) -> Int64[Tensor, " picks"]:
    """Return the union, sorted, of the columns that orthogonal least squares picks for each class against the others.

    Parameters
    ----------
    y
        Labels.
    count
        Columns a class.

    References
    ----------
    Wiatowski and Boelcskei 2018 [wiatowski2018], selection of their experiments.

    Examples
    --------
    >>> select_per_class(torch.eye(3), torch.arange(3), 1)
    tensor([0, 1, 2])
    """
    columns = _centre(x)
    labels: Tensor = torch.unique(y)
    picks = [orthogonal_least_squares(columns, y == label, count, centred=True) for label in labels]
    chosen: Tensor = torch.unique(torch.cat(picks))
    return chosen


def _centre(x: Tensor) -> Tensor:
    columns = x.double()
    return columns - columns.mean(dim=0)
