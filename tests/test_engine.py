"""The C runtime against the NumPy reference: every kernel, instruction set and width, bit for bit."""

from __future__ import annotations

import ctypes
import subprocess
import threading
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hardstep as hs
from hardstep.bits import pack as pack_bits
from hardstep.engine import LIBRARY, Engine, _load, _Model, _Program, available_isas
from hardstep.export.compiler import RUNTIME, compile_runtime, compiler, digest
from hardstep.export.pack import pack
from hardstep.export.pack_sums import pack_sums
from hardstep.export.plan import Kernel, digits, offset_planes, plan
from hardstep.hard_layers import Dense, Encoding, Layer
from hardstep.hardnet import HardNet
from hardstep.lowered import Sums, lower
from tests.networks import WEIGHTS, drawn, network, samples, thresholds, weights
from tests.scattered import joined
from tests.summed import summed

HERE = Path(__file__).parent
compiled = pytest.mark.skipif(not available_isas(), reason="the C runtime is not built: no C compiler")
LANES = (64, 128, 256, 512)
SIZES = (1, 7, 8, 9, 63, 64, 65, 127, 511, 512, 513, 4095, 8191, 8192)
FAMILIES = tuple(kernel.value for kernel in Kernel)
WAYS = [(isa, lanes, only) for isa, lanes, only in product(available_isas(), LANES, FAMILIES)]


def forms(net: HardNet) -> Iterator[tuple[str, Engine]]:
    """Every way to run a network here; of a large one, the extremes of the widths."""
    large = net.macs > 100_000
    for isa, lanes, only in WAYS:
        if large and lanes not in (64, 256):
            continue
        engine = Engine(net, isa=isa, lanes=lanes, only=only)
        assert not engine.reason
        yield f"{isa} {lanes} {only}", engine


def equal_everywhere(net: HardNet, x: np.ndarray) -> None:
    wanted = net(x)
    for name, engine in forms(net):
        assert np.array_equal(engine(x), wanted), name


def middle(seed: int, inputs: int, units: int, kind: str, code: str = "step", density: float = 0.5) -> HardNet:
    """A layer of this size on bits: three inputs, random half-spaces, the layer, a read-out."""
    generator = np.random.default_rng(seed)
    gain, zero = (2, 1) if code == "sign" else (1, 0)
    value = Encoding(np.array(gain), np.array(zero))
    x = generator.integers(0, 256, (64, 3)).astype(np.int64)
    first = generator.integers(-127, 128, (inputs, 3)).astype(np.int8)
    acc = x @ first.T.astype(np.int64)
    start = np.quantile(acc, 1 - density, axis=0).astype(np.int64)[:, None]
    bits = (acc > start[:, 0]).astype(np.int64)
    weight = weights(generator, kind, (units, inputs))
    sums = value.value(bits.astype(np.uint8)) @ weight.T.astype(np.int64)
    layers: tuple[Layer, ...] = (
        Dense(first, start),
        Dense(weight, thresholds(generator, sums, 1), value),
        Dense(weights(generator, "8-bit", (3, units)), None, bias=np.arange(3)),
    )
    return HardNet((3,), hs.Grid(1.0, 0), layers)


@compiled
@pytest.mark.parametrize("seed", range(25))
def test_random_networks_are_equal_on_every_path(seed: int) -> None:
    net = drawn(seed)
    equal_everywhere(net, samples(np.random.default_rng(seed), net.shape, 70))


@compiled
@pytest.mark.parametrize("inputs", SIZES)
def test_every_number_of_inputs(inputs: int) -> None:
    for units, kind in ((1, "8-bit"), (65, "binary")):
        net = middle(inputs, inputs, units, kind)
        equal_everywhere(net, samples(np.random.default_rng(0), (3,), 33))


@compiled
@pytest.mark.parametrize("units", SIZES)
def test_every_number_of_units(units: int) -> None:
    for inputs, kind in ((9, "ternary"), (64, "binary")):
        net = middle(units, inputs, units, kind, "sign")
        equal_everywhere(net, samples(np.random.default_rng(0), (3,), 33))


@compiled
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("density", [0.0, 1 / 200, 0.5, 1.0])
def test_every_kind_of_weight_at_every_density(kind: str, density: float) -> None:
    net = middle(3, 200, 70, kind, "step", density)
    equal_everywhere(net, samples(np.random.default_rng(0), (3,), 40))


@compiled
@pytest.mark.parametrize("batch", [0, *SIZES])
def test_every_batch(batch: int) -> None:
    net = network(5, shape=(12,), widths=(70, 40), codes=("sign", "step"))
    x = samples(np.random.default_rng(1), (12,), batch)
    wanted = net(x)
    for threads in (1, 2):
        engine = Engine(net, threads=threads)
        assert np.array_equal(engine(x), wanted)
    assert np.array_equal(Engine(net, only="samples")(x), wanted)


@compiled
def test_all_inputs_of_a_small_network() -> None:
    for seed in range(2):
        net = network(seed, shape=(2,), widths=(9, 5), kinds=("8-bit", "4-bit", "8-bit"), stairs=(3, 1))
        pairs = np.array(list(product(range(256), repeat=2)), np.uint8)
        equal_everywhere(net, pairs)


@compiled
@pytest.mark.parametrize("edge", [-1, 0, 1])
def test_sums_at_their_extremes_with_thresholds_there(edge: int) -> None:
    weight = np.stack([np.r_[1, np.full(299, 127)], np.r_[1, np.full(299, -128)], np.tile([127, -128], 150)]).astype(
        np.int8
    )
    on = np.full((300, 1), 127, np.int8)
    reach = np.abs(np.stack([np.maximum(weight, 0).sum(1, np.int64), np.minimum(weight, 0).sum(1, np.int64)])).max(0)
    for far in (reach, -reach):
        hidden = Dense(weight, far[:, None] + edge)
        net = HardNet(
            (1,), hs.Grid(1.0, 0), (Dense(on, np.full((300, 1), 5)), hidden, Dense(np.eye(3, dtype=np.int8), None))
        )
        equal_everywhere(net, np.arange(256, dtype=np.uint8)[:, None])


@compiled
def test_largest_sum_of_an_int32_and_the_most_terms() -> None:
    x = np.array([[0], [1], [254], [255]], np.uint8)
    ready = Dense(np.ones((65_528, 1), np.int16), np.full((65_528, 1), 100))
    wide = Dense(np.full((2, 65_528), 32_767, np.int16), np.array([[32_767 * 65_528 - 1], [0]]))
    net = HardNet((1,), hs.Grid(1.0, 0), (ready, wide, Dense(np.eye(2, dtype=np.int8), None)))
    wanted = net(x)
    for lanes in (64, 256):
        assert np.array_equal(Engine(net, lanes=lanes, only="outputs")(x), wanted)


def test_one_step_beyond_the_bound_is_refused_by_name(caplog: pytest.LogCaptureFixture) -> None:
    ready = Dense(np.ones((65_529, 1), np.int8), np.full((65_529, 1), 100))
    net = HardNet((1,), hs.Grid(1.0, 0), (ready, Dense(np.full((1, 65_529), 200, np.int16), None)))
    with pytest.raises(ValueError, match=r"layer 1 sums 65,529 terms .* at most 65,528 terms"):
        plan(lower(net))
    x = np.array([[0], [200]], np.uint8)
    engine = Engine(net)
    assert "layer 1 sums 65,529 terms" in engine.reason
    assert "the NumPy reference runs this network" in caplog.text
    assert np.array_equal(engine(x), net(x))


@compiled
def test_threads_and_two_engines_at_once_give_the_same() -> None:
    nets = [network(seed, widths=(300, 200)) for seed in range(2)]
    x = samples(np.random.default_rng(0), (12,), 2000)
    wanted = [net(x) for net in nets]
    engines = [Engine(net, threads=2) for net in nets]
    found: dict[tuple[int, int], bool] = {}

    def run(i: int, turn: int) -> None:
        found[i, turn] = np.array_equal(engines[i](x), wanted[i])

    threads = [threading.Thread(target=run, args=pair) for pair in product(range(2), range(3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(found.values())


@compiled
@pytest.mark.parametrize("shift", [1, 2, 3, 5])
def test_input_may_begin_at_any_address(shift: int) -> None:
    net = network(0)
    room = np.zeros(24 * 12 + 8, np.uint8)
    x = room[shift : shift + 24 * 12].reshape(24, 12)
    x[:] = samples(np.random.default_rng(0), (12,), 24)
    assert np.array_equal(Engine(net)(x), net(x))


@compiled
def test_numbers_and_labels_and_wrong_shapes_are_treated_as_the_reference_does() -> None:
    data = hs.data.load("digits")
    hard = hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=data.train)
    x = data.test.x.numpy()
    engine = Engine(hard, sample=x)
    assert np.array_equal(engine.predict(x), hard.predict(x))
    assert [choice.kernel for choice in Engine(hard, isa="baseline").choices] == [Kernel.BYTES, Kernel.ROWS]
    with pytest.raises(ValueError, match="do not fit a network"):
        engine(x[:, :, :5])


def test_bad_options_are_one_clear_error() -> None:
    net = network(0)
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        Engine(net, threads=0)
    with pytest.raises(ValueError, match="instruction set 'sse9' is not here"):
        Engine(net, isa="sse9")
    with pytest.raises(ValueError, match="only must be one of bytes, outputs, samples, rows; got 'x'"):
        Engine(net, only="x")
    with pytest.raises(ValueError, match="lanes must be one of"):
        Engine(net, lanes=100)


def test_without_the_library_numpy_serves_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net = network(0)
    x = samples(np.random.default_rng(0), (12,), 20)
    engine = Engine(net, library=tmp_path / "none.so")
    assert np.array_equal(engine(x), net(x))
    assert "install with a C compiler" in caplog.text
    assert engine.isa == "numpy"


@compiled
def test_library_of_other_sources_or_a_broken_one_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other, broken = tmp_path / "libother.so", tmp_path / "broken.so"
    source = [str(RUNTIME / "hardstep.c"), '-DHS_DIGEST="other"', "-o", str(other)]
    subprocess.run([str(compiler()), "-std=c99", "-shared", "-fPIC", *source], check=True)
    assert available_isas(other) == []
    assert "was compiled from other sources" in caplog.text
    broken.write_bytes(b"not a library" + digest().encode())
    assert available_isas(broken) == []
    assert "does not load" in caplog.text


def test_every_weight_is_the_sum_of_its_planes_and_of_its_digits() -> None:
    for kind, values in WEIGHTS.items():
        offset, shift, planes = offset_planes(values)
        whole = offset + (sum(plane.astype(np.int64) << q for q, plane in enumerate(planes)) << shift)
        assert np.array_equal(whole, values), kind
        found = digits(values)
        assert np.array_equal(
            sum((d.astype(np.int64) << q for q, d in enumerate(found)), np.zeros(len(values))), values
        )
        for one, other in pairwise(found):
            assert not (one * other).any()


@pytest.mark.skipif(compiler() is None, reason="there is no C compiler")
def test_mutated_models_are_refused_or_run_without_reading_outside(tmp_path: Path) -> None:
    fuzz = tmp_path / "fuzz"
    command = [
        str(compiler()),
        "-std=gnu99",
        "-O1",
        "-DHS_MAX_LANES=256",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover",
    ]
    built = subprocess.run(
        [*command, "-I", str(RUNTIME), str(HERE / "fuzz_runtime.c"), "-o", str(fuzz)], capture_output=True, check=False
    )
    if built.returncode:
        pytest.skip(f"the compiler has no sanitisers: {built.stderr.decode()[-200:]}")
    models = [pack_sums(summed(seed)).data for seed in range(4)]
    for net, only in product([*map(drawn, range(3)), *(joined(seed)[1] for seed in range(2))], FAMILIES):
        layers = lower(net, behind_front=True)
        choices = plan(layers, lanes=256, batch=10**6, only=only)
        models.append(pack(layers, choices, tile=3, front=net.front).data)
    model = tmp_path / "model"
    for seed, data in enumerate(models):
        model.write_bytes(data)
        done = subprocess.run([fuzz, model, "300", str(seed)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        opened = int(done.stdout.split()[0])
        assert 0 < opened < 300


def test_where_products_of_bytes_are_one_instruction_they_are_taken_for_several_samples() -> None:
    generator = np.random.default_rng(0)

    def layer(units: int, draw: Any, *, readout: bool = False) -> Sums:
        threshold = None if readout else np.zeros((units, 1, 1, 1), np.int64)
        return Sums("layer 0", (1024, 1, 1), 1, draw((units, 1024, 1, 1)), threshold, np.zeros(units, np.int64))

    def chosen(one: Sums, batch: int, *, dots: bool = True) -> Kernel:
        (choice,) = plan([one], lanes=512, batch=batch, packed=True, dots=dots)
        return choice.kernel

    wide = layer(1024, lambda shape: np.rint(generator.normal(0, 30, shape)).clip(-127, 127).astype(np.int64))
    scores = layer(10, lambda shape: generator.integers(-40, 40, shape), readout=True)
    signs = layer(1024, lambda shape: generator.choice([-1, 1], shape))
    assert [chosen(wide, batch) for batch in (1, 8, 10**6)] == [Kernel.OUTPUTS, Kernel.BYTES, Kernel.SAMPLES]
    assert [chosen(scores, batch) for batch in (1, 8, 10**6)] == [Kernel.ROWS, Kernel.BYTES, Kernel.SAMPLES]
    assert {chosen(signs, batch) for batch in (1, 8)} == {Kernel.OUTPUTS}
    assert chosen(wide, 8, dots=False) is not Kernel.BYTES


@compiled
@pytest.mark.parametrize("shape", [(130, 1, 1), (70, 4, 3)])
def test_packed_bits_in_and_out(shape: tuple[int, int, int]) -> None:
    generator = np.random.default_rng(0)
    weight = generator.choice([-1, 1], (90, shape[0], 1 if shape[1] == 1 else 3, 1 if shape[1] == 1 else 3))
    layer = Sums("layer 0", shape, 1, weight, generator.integers(-9, 9, (90, 1, 1, 1)), np.zeros(90, np.int64))
    codes = generator.integers(0, 2, (20, *shape)).astype(np.uint8)
    x = pack_bits(codes.transpose(0, 2, 3, 1))
    wanted = pack_bits(layer.run(codes).transpose(0, 2, 3, 1)).reshape(20, -1)
    for only, lanes in (("bytes", 256), ("outputs", 64), ("samples", 64), ("rows", 64)):
        packed = pack([layer], plan([layer], lanes=lanes, batch=10**6, only=only, packed=True), tile=20, packed=True)
        program = _Program(_load(LIBRARY), packed.data, "baseline")
        out = np.zeros((20, program.outputs), np.int32)
        program.run(x.view(np.uint8), out)
        assert np.array_equal(out.view(np.uint64)[:, : wanted.shape[1]], wanted), only


@compiled
def test_damaged_and_foreign_models_have_an_error_each() -> None:
    library = _load(LIBRARY)
    layers = lower(network(0))
    good = pack(layers, plan(layers), tile=1).data
    cases = {
        "another byte order": b"PTSH" + good[4:],
        "another version": good[:4] + b"\x07" + good[5:],
        "shorter or longer": good[:-8],
        "checksum": good[:-1] + bytes([good[-1] ^ 1]),
    }
    for text, data in {"no error": good, **cases}.items():
        buffer = np.frombuffer(data + bytes(8), np.uint8).copy()
        model = _Model()
        error = library.hs_open(ctypes.byref(model), buffer.ctypes.data, len(data))
        assert text in library.hs_error(error).decode()


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(RuntimeError, match="there is no C compiler"):
        compile_runtime(tmp_path / "lib.so")


@pytest.mark.skipif(compiler() is None, reason="there is no C compiler")
def test_compiler_that_fails_leaves_the_old_library(tmp_path: Path) -> None:
    out = tmp_path / "lib.so"
    out.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="failed"):
        compile_runtime(out, options=("-no-such-option-at-all",))
    assert out.read_bytes() == b"old"
