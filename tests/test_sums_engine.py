"""Networks with real sums in the C runtime: the integers of the NumPy reference, whatever the machine and the batch."""

from __future__ import annotations

import ctypes
import zlib
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

import hardstep as hs
from hardstep.bench.contest import contest
from hardstep.bench.networks import Network
from hardstep.bench.peer_networks import OurEngine, Reference, TorchNetwork
from hardstep.commands import kernels
from hardstep.engine import LIBRARY, _load, _Model, available_isas
from hardstep.export.compiler import compiler
from hardstep.export.forms import c_form
from hardstep.export.pack_sums import pack_sums
from hardstep.hard_layers import Encoding, Flatten
from hardstep.hard_sums import Rescaled, Windows
from hardstep.hardnet import HardNet

from .summed import summed
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
    hard = summed(seed)
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


@compiled
def test_the_benchmark_times_it_beside_what_can_run_it() -> None:
    hard, x, _ = frozen("qin2020")
    peers = [Reference("", 1), TorchNetwork("float", 1)]
    one = contest("net", Network(hard, x[:2]), OurEngine("", 1), peers, batch=2, rounds=1)
    assert [peer.label for peer in one.peers] == [peers[0].label]
    assert "computes with real sums" in one.refused["torch float"]
