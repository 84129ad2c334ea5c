"""Packed 0/1 matrices: products against exact integers, any shape, every instruction set here."""

from __future__ import annotations

import numpy as np
import pytest

from hardstep.convex.bit_matrix import BitMatrix

SHAPES = [(1, 1), (0, 3), (7, 0), (63, 5), (64, 1), (65, 31), (100, 33), (511, 128), (512, 129), (513, 7), (1000, 300)]


def drawn(n: int, p: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, p)) < 0.4


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_bits_come_back_and_products_equal_whole_numbers(n: int, p: int) -> None:
    d = drawn(n, p)
    matrix = BitMatrix.from_bools(d)
    assert matrix.shape == (n, p)
    assert np.array_equal(matrix.unpack(), d)
    generator = np.random.default_rng(1)
    v, u = generator.integers(-99, 100, (n, 3)), generator.integers(-99, 100, (p, 2))
    u[::2] = 0
    whole = d.astype(np.int64)
    assert np.array_equal(matrix.pull(v.astype(float)), whole.T @ v)
    assert np.array_equal(matrix.push(u.astype(float)), whole @ u)
    assert np.array_equal(matrix.gram(), whole.T @ whole)
    assert np.array_equal(matrix.counts(), whole.sum(axis=0))
