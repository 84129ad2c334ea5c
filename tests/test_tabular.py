"""Tables: codes of columns, copies of rows, order, rows held out."""

from __future__ import annotations

import numpy as np

from hardstep.tabular import canonical_order, column_grid, held_out, row_counts, standard_grid, to_codes


def test_copies_of_rows_are_their_weights_on_average() -> None:
    weights = np.array([0.3, 1.0, 2.2, 0.5, 0.0, 1.0])
    counts = [row_counts(weights, np.zeros(6), np.random.default_rng(seed)) for seed in range(4000)]
    factor = 6 * np.ceil(5.0 / (6 * 0.3)) / 5.0
    error = np.mean(counts, axis=0)[1:5] - factor * weights[1:5]
    assert np.abs(error).max() < 4 * 0.5 / 4000**0.5
    assert min(np.min(counts, axis=0)[weights > 0]) >= 1
    assert np.ptp(counts, axis=0).max() <= 1


def test_heaviest_row_of_each_class_stays() -> None:
    counts = row_counts(np.array([1e9, 1.0, 2.0]), np.array([0, 1, 1]), np.random.default_rng(0))
    assert counts.tolist()[1:] == [0, 1]


def test_codes_are_half_a_step_away_and_standard() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(500, 5)) * 10.0 ** np.arange(-3, 2) + 1000.0
    counts = np.ones(500, np.int64)
    grid = column_grid(x, counts)
    codes = to_codes(x, grid)
    assert (np.abs((codes - grid.zero) * grid.scale - x) <= grid.scale * (0.5 + 1e-6) + np.ptp(x, axis=0) / 255).all()
    assert ((codes.max(axis=0) >= 254) & (codes.min(axis=0) <= 1)).all()
    standard = standard_grid(codes, counts).value(codes)
    assert np.abs(standard.std(axis=0) - 1).max() < 1e-5
    assert np.abs(standard.mean(axis=0)).max() < 0.5 / codes.std(axis=0).min() + 1e-5


def test_far_values_do_not_take_the_resolution() -> None:
    x = np.random.default_rng(0).normal(size=(1000, 1))
    x[0] = 1e6
    grid = column_grid(x, np.ones(1000, np.int64))
    assert grid.scale[0] < 0.1
    assert to_codes(np.array([[1e9], [-1e9]]), grid).ravel().tolist() == [255, 0]
    rare = (np.arange(1000) < 3).astype(float)[:, None] * 7.5  # the middle of this column is one value
    assert np.unique(to_codes(rare, column_grid(rare, np.ones(1000, np.int64)))).tolist() == [0, 255]


def test_whole_numbers_stay_exact() -> None:
    x = np.array([[-3.0, 2000.0], [4.0, 2026.0], [0.0, 2011.0]])
    grid = column_grid(x, np.ones(3, np.int64))
    assert np.array_equal(grid.value(to_codes(x, grid)), x)


def test_order_by_bytes_is_that_of_the_rows() -> None:
    codes = np.random.default_rng(0).integers(0, 3, (200, 4)).astype(np.uint8)
    y = np.random.default_rng(1).integers(0, 3, 200)
    order = canonical_order(codes, y)
    rows = [(*code, label) for code, label in zip(codes[order].tolist(), y[order].tolist(), strict=True)]
    assert rows == sorted(rows)


def test_rows_held_out_are_a_share_of_each_class_but_never_all() -> None:
    groups = np.array([0] * 50 + [1] * 10 + [2])
    out = held_out(groups, 0.3, np.random.default_rng(0))
    assert np.bincount(groups[out], minlength=3).tolist() == [15, 3, 0]
