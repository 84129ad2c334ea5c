"""Networks with real sums in the C runtime: the integers of the NumPy reference, whatever the machine and the batch."""

from __future__ import annotations

import ctypes
import zlib
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

import hardstep as hs
from hardstep.commands import kernels
from hardstep.engine import LIBRARY, _load, _Model, available_isas
from hardstep.export.compiler import compiler
from hardstep.export.forms import c_form
from hardstep.export.pack_sums import pack_sums
from hardstep.hard_layers import Conv, Encoding, Flatten, Layer, Pool
from hardstep.hard_sums import Bent, Carried, Clip, Rescaled, Residual, Threshold, Windows
from hardstep.hardnet import HardNet

from .test_real_sums import NETS, network, rows

compiled = pytest.mark.skipif(not available_isas(), reason="the C runtime is not built: no C compiler")
built = pytest.mark.skipif(compiler() is None, reason="there is no C compiler")
STRICT = ("-O1", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
ONE, NONE = np.ones(1, np.int64), np.zeros(1, np.int64)


@cache
def frozen(name: str) -> tuple[HardNet, NDArray[np.uint8], NDArray[np.int64]]:
    """A network, codes of data and of noise, and their scores."""
    net, data = network(name)
    hard = hs.freeze(net, calibrate=data.train)
    x = np.random.default_rng(0).integers(0, 256, (70, *hard.shape)).astype(np.uint8)
    x[:10] = hard.codes(rows(data, 10))
    x[10], x[11] = 0, 255
    return hard, x, hard(x)


def drawn(seed: int) -> HardNet:
    """Every layer kind with sizes, strides, paddings and numbers of its own; sums of 16, 32 and 64 bits."""
    generator = np.random.default_rng(seed)
    draw = generator.integers
    c, k, stairs = (int(n) for n in draw(1, [4, 8, 4]))
    shape = given = (c, int(draw(5, 9)), int(draw(5, 9)))

    def pair(low: int, high: int) -> tuple[int, int]:
        return int(draw(low, high)), int(draw(low, high))

    shift, most = int(draw(0, 40)), 2 ** int(draw(3, 12))
    codes = Encoding(draw(1, 3, (c, 1, 1)), draw(0, 256, (c, 1, 1)))
    bounds = np.sort(draw(-5000, 5000, (k, 2)), axis=1) if draw(2) else None
    weight, multiplier = draw(-most, most, (k, c, *pair(1, 4))), draw(-(2**shift), 2**shift + 1, k) >> 8
    offset = draw(0, 2**shift + 1, k)
    first = Rescaled(weight, multiplier, offset, shift, bounds, codes, pair(1, 4), pair(0, 4))
    steps = Threshold(np.sort(draw(-3000, 3000, (k, stairs)), axis=1))
    signs = Encoding(np.array(2), np.array(stairs))
    hidden = Conv(draw(-4, 5, (k, k, 1, 1)), np.sort(draw(-9, 9, (k, 2)), axis=1), signs)
    sums = Rescaled(draw(-3, 4, (k, k, 3, 3)), draw(-9, 9, k), draw(-9, 9, k), 1, stride=(1, 1), padding=(1, 1))
    bent = Bent(draw(-3000, 3000, k), draw(-(2**20), 2**20, k), int(draw(20, 31)), draw(-3000, 3000, k))
    layers: list[Layer] = [first, Residual((steps, Pool((1, 1), (1, 1)), hidden, sums), ()), bent, Clip(-4000, 3500)]
    layers.append(Residual((bent, bent), (Clip(-50, 9), Carried(1, (0, 0)))))
    _, high, wide = first.out_shape(shape)
    size = int(draw(1, 1 + min(3, high))), int(draw(1, 1 + min(3, wide)))
    layers.append(Windows(size, pair(1, 4), (*pair(0, 3), *pair(0, 3)), total=bool(draw(2))))
    layers += [Carried(int(draw(1, 3)), pair(0, 3)), Flatten()]
    for layer in layers:
        shape = layer.out_shape(shape)
    last = Rescaled(draw(-(2**15), 2**15, (5, shape[0])), draw(-9, 9, 5), draw(-99, 99, 5), 16)
    return HardNet(given, hs.Grid(1.0, 0), (*layers, last))


@compiled
@pytest.mark.parametrize("name", NETS)
def test_the_engine_gives_the_integers_of_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardstep.engine.WORTH", 0)  # two threads, however small the network
    hard, x, wanted = frozen(name)
    for isa in available_isas():
        for threads in (1, 2):
            engine = hs.Engine(hard, isa=isa, threads=threads, sample=x[:2])
            assert not engine.reason
            assert engine.kernels(1) == engine.kernels(70) == ()
            for n in (1, 3, 70):
                assert np.array_equal(engine(x[:n]), wanted[:n]), (isa, threads, n)
    assert "real sums" in kernels(hard)


@compiled
@pytest.mark.parametrize("seed", range(60))
def test_every_layer_kind_of_any_size(seed: int) -> None:
    hard = drawn(seed)
    x = np.random.default_rng(seed).integers(0, 256, (5, *hard.shape)).astype(np.uint8)
    x[0] = 255
    wanted = hard(x)
    for isa in available_isas():
        engine = hs.Engine(hard, isa=isa)
        assert not engine.reason
        assert np.array_equal(engine(x), wanted), isa


@compiled
def test_totals_take_more_than_32_bits_and_scores_reach_the_ends_of_them() -> None:
    def net(sign: int) -> HardNet:
        far = Rescaled(np.full((1, 1, 1, 1), sign), ONE * (2**31 - 1), NONE + 254, 8)
        last = Rescaled(np.full((1, 1), 255), ONE, NONE, 12 - 8 + 8)
        return HardNet((1, 4, 4), hs.Grid(1.0, 0), (far, Windows((4, 4), (1, 1), total=True), Flatten(), last))

    x = np.stack([np.full((1, 4, 4), code, np.uint8) for code in (0, 1, 254, 255)])
    for sign in (-1, 1):
        hard = net(sign)
        totals = hard.layers[1].run(hard.layers[0].run(x, np.matmul), np.matmul)
        assert np.abs(totals).max() > 2**34
        engine = hs.Engine(hard)
        assert not engine.reason
        assert np.array_equal(engine(x), hard(x))
        assert np.abs(hard(x)).max() > 2**30


@built
@pytest.mark.parametrize("name", ["wu2023 imagenet", "qin2020", "stairs"])
def test_exported_c_gives_the_same_integers(name: str) -> None:
    hard, x, wanted = frozen(name)
    assert np.array_equal(c_form(hard, options=STRICT)(x[:12]), wanted[:12])
    text = hs.to_c(hard)
    assert "sums_any_baseline" in text
    assert "bytes_any_baseline" not in text  # who does not need it does not carry it


@compiled
def test_damaged_programs_are_refused_or_run() -> None:
    hard, x, wanted = frozen("react")
    library, good = _load(LIBRARY), pack_sums(hard).data
    assert run(library, good, x[:1]).tolist() == wanted[:1].tolist()
    generator = np.random.default_rng(0)
    values = [0, 1, 2, 7, 8, 63, 64, 255, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1]
    words = np.frombuffer(good, "<u4")
    heads, at, end = [48], 49, 48 + words[42] // 4  # the room, and of instructions what is not a channel's or a unit's
    while at < end:
        heads += range(at, at + min(words[at + 1], 18))
        at += int(words[at + 1])
    refused = 0
    for _ in range(500):
        data = words.copy()
        at = generator.integers(4, 48) if generator.random() < 0.2 else generator.choice(heads)
        data[at] = generator.choice([*values, int(data[at]) + 1, int(data[at]) ^ 1 << generator.integers(31)])
        data[3] = zlib.crc32(data.tobytes()[16:])
        refused += run(library, data.tobytes(), x[:1]) is None
    assert 100 < refused < 500


def run(library: ctypes.CDLL, data: bytes, x: NDArray[np.uint8]) -> NDArray[np.int32] | None:
    """Open a model and run it on samples; None if it is refused."""
    buffer = np.frombuffer(data + bytes(8), np.uint8).copy()
    model = _Model()
    if library.hs_open(ctypes.byref(model), buffer.ctypes.data, len(data)):
        return None
    if model.scratch > 2**26 or model.inputs != x[0].size:
        return None
    scores, scratch = np.zeros((len(x), model.outputs), np.int32), np.zeros(model.scratch, np.uint8)
    library.hs_run(ctypes.byref(model), x.ctypes.data, scores.ctypes.data, len(x), scratch.ctypes.data)
    return scores


def test_what_c_does_not_take_is_refused_by_name() -> None:
    far = Rescaled(np.full((1, 1, 1, 1), 9), ONE * 2**30, NONE, 0)
    places = Rescaled(np.ones((1, 1, 1, 1), np.int8), ONE, NONE, 0, encoding=Encoding(np.array([[[1, 2]]])))
    heavy = Rescaled(np.full((1, 1, 1, 1), 2**15), ONE, NONE, 0)
    for layer, message in (
        (far, "layer 0 could give .* beyond the 2147483647"),
        (places, "layer 0 reads codes worth more"),
        (heavy, "layer 0 has a weight of 32768, beyond 16 bits"),
    ):
        hard = HardNet((1, 1, 2), hs.Grid(1.0, 0), (layer, Flatten(), Rescaled(np.ones((2, 2), np.int8), ONE, NONE, 0)))
        with pytest.raises(ValueError, match=message):
            hs.to_c(hard)
        assert not available_isas() or hs.Engine(hard).reason.startswith("layer 0")
