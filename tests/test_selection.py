"""Orthogonal least squares against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hardstep as hs


def brute_force(x: np.ndarray, target: np.ndarray, count: int) -> list[int]:
    """Greedy: the column whose least-squares fit beside the picked ones leaves least, by solving each."""
    x, target = x - x.mean(axis=0), target - target.mean()
    picks: list[int] = []
    for _ in range(count):
        left = []
        for j in range(x.shape[1]):
            columns = x[:, [*picks, j]]
            fit = columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
            left.append(np.inf if j in picks else float(np.sum((target - fit) ** 2)))
        picks.append(int(np.argmin(left)))
    return picks


@pytest.mark.parametrize("seed", range(5))
def test_picks_are_those_of_brute_force(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(40, 15))
    x[:, 7] = x[:, 2] + 1e-3 * generator.normal(size=40)
    target = (x[:, 2] + 0.5 * x[:, 5] + generator.normal(size=40) > 0).astype(float)
    picks = hs.orthogonal_least_squares(torch.from_numpy(x), torch.from_numpy(target), 10)
    assert picks.tolist() == brute_force(x, target, 10)


def test_equal_columns_are_picked_once_and_the_first_one_at_that() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, generator=generator)
    doubled = torch.cat([x, x, torch.ones(30, 1)], dim=1)
    target = x @ torch.tensor([3.0, 2.0, 1.0]) + 0.1 * torch.randn(30, generator=generator)
    picks = hs.orthogonal_least_squares(doubled, target, 7)
    assert picks.tolist() == hs.orthogonal_least_squares(x, target, 3).tolist()
    assert len(picks) == 3


def test_picking_ends_when_the_target_is_reached() -> None:
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    assert hs.orthogonal_least_squares(x, x[:, 4], 5).tolist() == [4]
    assert hs.orthogonal_least_squares(x, x[:, 4], 0).tolist() == []
    with pytest.raises(ValueError, match="at least 0"):
        hs.orthogonal_least_squares(x, x[:, 4], -1)


def test_classes_are_picked_for_one_by_one() -> None:
    x = torch.randn(60, 9, generator=torch.Generator().manual_seed(2))
    y = (x[:, 1] > 0).long() + 2 * (x[:, 6] > 0).long()
    expected = {int(i) for label in range(4) for i in hs.orthogonal_least_squares(x, y == label, 2)}
    assert hs.select_per_class(x, y, 2).tolist() == sorted(expected)
    assert {1, 6} <= expected
