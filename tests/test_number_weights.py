"""Weights of the products of bytes: what is laid out and its excess give the weights again, and no pair saturates."""

from __future__ import annotations

import numpy as np
import pytest

from hardstep.export.number_weights import byte_weights, byte_width, excess_share


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (16, 4), (17, 9), (40, 130)])
@pytest.mark.parametrize("scale", [1, 30, 60, 127])
def test_layout_and_excess_give_the_weights_and_no_pair_leaves_16_bits(shape: tuple[int, int], scale: int) -> None:
    generator = np.random.default_rng(shape[1] + scale)
    weight = np.clip(np.rint(generator.normal(0, scale, shape)), -128, 127).astype(np.int64)
    found, units = byte_weights(weight), -(-shape[0] // 16) * 16
    if found.bits == 16:
        assert excess_share(weight) > 0.03
        plain = found.data.view("<i2").reshape(units // 16, -1, 16, 2).transpose(0, 2, 1, 3).reshape(units, -1)
        assert np.array_equal(plain[: shape[0], : shape[1]], weight)
        assert found.entries == 0
        return
    end = len(found.data) - 8 * found.entries
    plain = found.data[:end].view(np.int8).reshape(units // 16, -1, 16, 4).transpose(0, 2, 1, 3).reshape(units, -1)
    pairs = plain.astype(np.int64).reshape(units, -1, 2)
    assert 255 * np.maximum(pairs, 0).sum(axis=2).max() < 2**15
    assert 255 * np.minimum(pairs, 0).sum(axis=2).min() >= -(2**15)
    total, entries = plain.astype(np.int64), found.data[end:].tobytes()
    rows = np.frombuffer(entries, np.dtype([("term", "<u4"), ("unit", "<u2"), ("more", "<i2")]))
    at = 0
    for group in range(units // 16 if len(rows) else 0):
        count = int(rows["term"][at])
        for entry in rows[at + 1 : at + 1 + count]:
            total[16 * group + entry["unit"], entry["term"]] += entry["more"]
        at += 1 + count
    assert at == len(rows)
    assert np.array_equal(total[: shape[0], : shape[1]], weight)
    assert not total[shape[0] :].any()
    assert not total[:, shape[1] :].any()


def test_extremes_take_16_bits_or_an_excess() -> None:
    assert byte_width(np.full((4, 4), -128), saturating=True) == 16
    assert byte_width(np.full((4, 4), -128), saturating=False) == 8
    assert byte_width(np.array([[300]]), saturating=False) == 16
    assert byte_weights(np.array([[-128, -128] + [0] * 98])).entries == 2
    assert byte_width(np.zeros((0, 3), np.int64), saturating=True) == 8
