"""Packing and packed products against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from hardstep import bits
from hardstep.grid import Grid
from hardstep.hard_layers import exact_product
from hardstep.verify import packed_product


@pytest.mark.parametrize("count", [0, 1, 7, 63, 64, 65, 200])
def test_unpack_undoes_pack_for_every_length(count: int) -> None:
    rows = np.random.default_rng(count).integers(0, 2, (5, count)).astype(np.uint8)
    words = bits.pack(rows)
    assert words.shape == (5, -(-count // 64))
    assert np.array_equal(bits.unpack(words, count), rows)
    assert np.array_equal(bits.popcount(words), rows.sum(axis=1))


def test_asking_for_more_bits_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="holds at most 64 bits, asked 65"):
        bits.unpack(np.zeros((1, 1), np.uint64), 65)


@pytest.mark.parametrize("wide", [1, 2, 3, 8, 16])
def test_planes_hold_every_value_of_their_width(wide: int) -> None:
    signed = np.arange(-(2 ** (wide - 1)), 2 ** (wide - 1))[None, :]
    assert np.array_equal(bits.from_planes(bits.to_planes(signed, wide), signed.size, signed=True), signed)
    unsigned = np.arange(2**wide)[None, :]
    assert np.array_equal(bits.from_planes(bits.to_planes(unsigned, wide), unsigned.size, signed=False), unsigned)


@pytest.mark.parametrize(
    ("values", "signed", "wide"),
    [
        ([0], False, 1),
        ([1], False, 1),
        ([2], False, 2),
        ([255], False, 8),
        ([0], True, 1),
        ([-1], True, 1),
        ([1], True, 2),
    ],
)
def test_width_is_the_least_that_holds(values: list[int], signed: bool, wide: int) -> None:
    assert bits.width(np.array(values), signed=signed) == wide


def test_negative_value_has_no_unsigned_width() -> None:
    with pytest.raises(ValueError, match="needs values >= 0, got -3"):
        bits.width(np.array([-3]), signed=False)


@pytest.mark.parametrize("top", [1, 3, 255])
@pytest.mark.parametrize("size", [1, 2, 127])
def test_packed_product_equals_the_plain_one(top: int, size: int) -> None:
    generator = np.random.default_rng(top + size)
    values = generator.integers(-top, top + 1, (6, 130))
    weight = generator.integers(-size, size + 1, (9, 130)).astype(np.int8)
    wanted = values @ weight.T.astype(np.int64)
    assert np.array_equal(packed_product(values, weight), wanted)
    assert np.array_equal(exact_product(values, weight), wanted)


def test_exact_product_is_exact_where_float32_would_not_be() -> None:
    values = np.full((1, 2000), 255)
    weight = np.full((1, 2000), 127, np.int8)
    weight[0, 0] = 126
    assert exact_product(values, weight)[0, 0] == 255 * 127 * 2000 - 255


def test_sum_beyond_the_exact_range_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond the exact range 2\\^53"):
        exact_product(np.full((1, 4), 2**50), np.full((1, 4), 100, np.int8))


def test_grid_around_a_table_keeps_whole_columns_and_bounds_the_others() -> None:
    x = np.stack([np.arange(100) % 7 - 3, np.linspace(-1, 1, 100), np.full(100, 5.0)], axis=1).astype(np.float32)
    grid = Grid.around(x)
    back = grid.value(grid.code(x))
    assert np.array_equal(back[:, 0], x[:, 0])
    assert np.abs(back[:, 1] - x[:, 1]).max() <= 1 / 255 + 1e-6
    assert np.array_equal(back[:, 2], x[:, 2])
    assert grid.value(np.clip(grid.zero, 0, 255).astype(np.uint8))[1] == 0.0


def test_grid_codes_beyond_its_ends_are_its_ends_and_nan_is_refused() -> None:
    grid = Grid(0.1, 10)
    assert grid.code(np.array([-100.0, 100.0])).tolist() == [0, 255]
    with pytest.raises(ValueError, match="the input holds NaN"):
        grid.code(np.array([np.nan]))
    with pytest.raises(ValueError, match="must be positive and finite"):
        Grid(0.0, 0)
