"""ONNX exports: ONNX Runtime and qonnx give the integers of the frozen network; what they cannot hold is refused."""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hardstep as hs
from hardstep.hard_layers import Conv, Dense, Encoding, Flatten, Layer, Pool
from hardstep.hardnet import HardNet
from hardstep.lowered import Sums, lower
from hardstep.version import __version__
from tests.networks import CODES, WEIGHTS, drawn, network, samples

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from hardstep.export.onnx import onnx_form, to_onnx, to_qonnx  # noqa: E402

SIGN = Encoding(np.array(2), np.array(1))


def dense(weight: NDArray[Any], threshold: NDArray[Any] | None = None, value: Encoding | None = None) -> Dense:
    """A dense layer, without thresholds the read-out."""
    bias = np.zeros(len(weight), np.int64) if threshold is None else None
    return Dense(weight, threshold, value or Encoding(), bias)


def hardnet(shape: tuple[int, ...], *layers: Layer) -> HardNet:
    """A network on a plain grid."""
    return HardNet(shape, hs.Grid(1.0, 0), layers)


def constants(content: bytes) -> dict[str, NDArray[Any]]:
    """The constants of a model."""
    model = onnx.load_from_string(content)
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def check(net: HardNet, x: NDArray[np.uint8]) -> None:
    """One model, whole and exact."""
    content = to_onnx(net)
    onnx.checker.check_model(content, full_check=True)
    assert np.array_equal(onnx_form(content)(x), net(x))


def qonnx_form(content: bytes, batch: int) -> Callable[[NDArray[Any]], NDArray[np.int64]]:
    """Run a model with the qonnx package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn of deprecations of their own
        pytest.importorskip("qonnx", reason="qonnx is not installed")
        from qonnx.core import onnx_exec
        from qonnx.core.modelwrapper import ModelWrapper
    model = ModelWrapper(onnx.load_from_string(content))
    make_model = onnx_exec.qonnx_make_model

    def readable(graph: Any) -> Any:
        """A model of one node; qonnx asks for the newest IR version, which onnxruntime may not know yet."""
        one = make_model(graph)
        one.ir_version = 7
        return one

    def form(x: NDArray[Any]) -> NDArray[np.int64]:
        assert len(x) == batch
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(onnx_exec, "qonnx_make_model", readable)
            scores: NDArray[Any] = onnx_exec.execute_onnx(model, {"codes": x.astype(np.float32)})["scores"]
        assert np.array_equal(scores, np.rint(scores))
        return scores.astype(np.int64)

    return form


@pytest.mark.parametrize("seed", range(80))
def test_onnx_runtime_gives_the_scores_of_drawn_networks(seed: int) -> None:
    net = drawn(seed)
    check(net, samples(np.random.default_rng(seed), net.shape, 40))


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("image", [False, True], ids=["rows", "images"])
def test_every_kind_of_weight_is_exact(kind: str, image: bool) -> None:
    for code, stairs in itertools.product(CODES, (1, 3)):
        shape = (3, 7, 6) if image else (40,)
        net = network(5, shape=shape, kinds=(kind,) * 3, codes=(code,) * 2, stairs=(stairs,) * 2, pool=2 * image)
        check(net, samples(np.random.default_rng(1), shape, 24))


@pytest.mark.parametrize("weight", [127, -128, 64, -64, 65, 32767, -32768])
@pytest.mark.parametrize("terms", [1, 2, 3, 17, 256])
def test_extremes_do_not_saturate(weight: int, terms: int) -> None:
    kind = np.int8 if abs(weight) < 129 and weight < 128 else np.int16
    extreme = np.full((9, terms), weight, kind)
    sums = 255 * weight * terms
    thresholds = np.sort(np.array([[sums - 1], [sums], [sums + 1]] * 3), axis=1)
    x = np.full((33, terms), 255, np.uint8)
    check(hardnet((terms,), dense(extreme)), x)
    check(hardnet((terms,), dense(extreme, thresholds), dense(np.eye(9, dtype=np.int8))), x)
    alternating = extreme * np.where(np.arange(terms) % 2, 1, 0).astype(kind)
    check(hardnet((terms,), dense(alternating)), x)


@pytest.mark.parametrize("weight", [127, -128, 32767])
def test_extremes_do_not_saturate_in_convolutions(weight: int) -> None:
    extreme = np.full((5, 4, 3, 3), weight, np.int16 if weight > 127 else np.int8)
    threshold = np.array([[255 * weight * terms - 1, 255 * weight * terms] for terms in (36, 24, 16, 8, 4)])
    layer = Conv(extreme, threshold, padding=(1, 1))
    net = hardnet((4, 6, 6), layer, Flatten(), dense(np.eye(180, dtype=np.int8)))
    check(net, np.full((3, 4, 6, 6), 255, np.uint8))


def test_no_pair_of_products_can_leave_16_bits_where_weights_are_signed() -> None:
    for seed in range(60):
        net = drawn(seed)
        model = onnx.load_from_string(to_onnx(net))
        values = constants(to_onnx(net))
        tops = {layer.weight.shape: layer.top for layer in lower(net) if isinstance(layer, Sums)}
        for node in model.graph.node:
            if node.op_type in ("MatMulInteger", "ConvInteger"):
                weight = values[node.input[1]]
                units = weight.shape[1] if weight.ndim == 2 else len(weight)
                top = max(top for shape, top in tops.items() if shape[0] == units)
                if weight.dtype == np.int8:
                    assert 2 * top * np.abs(weight.astype(np.int64)).max(initial=0) <= 32767
                else:
                    assert values[node.input[3]] == 128


def test_every_input_of_two_codes_is_exact() -> None:
    x = np.array(list(itertools.product(range(256), range(256))), np.uint8)
    for seed, kind in enumerate(("8-bit", "16-bit", "binary")):
        check(network(seed, shape=(2,), kinds=(kind,) * 3, stairs=(2, 1), codes=("mixed", "sign")), x)


def test_sums_at_a_threshold_do_not_fire() -> None:
    net = hardnet(
        (1,), dense(np.ones((3, 1), np.int8), np.array([[6], [7], [8]])), dense(np.eye(3, dtype=np.int8), value=SIGN)
    )
    x = np.array([[7]], np.uint8)
    assert net(x).tolist() == [[1, -1, -1]]
    assert onnx_form(to_onnx(net))(x).tolist() == [[1, -1, -1]]
    assert qonnx_form(to_qonnx(net), 1)(x).tolist() == [[1, -1, -1]]


@pytest.mark.parametrize("n", [0, 1, 7])
def test_any_number_of_samples_runs(n: int) -> None:
    for shape, stairs in (((12,), 1), ((2, 8, 8), 3)):
        net = network(3, shape=shape, stairs=(stairs, stairs), pool=2)
        form = onnx_form(to_onnx(net), threads=2)
        assert form(np.zeros((n, *shape), np.uint8)).shape == (n, 4)
        x = samples(np.random.default_rng(0), shape, n)
        assert np.array_equal(form(x), net(x) if n else np.zeros((0, 4)))


def test_pooling_of_inputs_and_of_codes_and_thresholds_of_each_position() -> None:
    generator = np.random.default_rng(0)
    weight = generator.integers(-128, 128, (3, 2, 3, 3)).astype(np.int8)
    first = Conv(weight[:2], np.array([[-900, 0, 4000], [-50, 0, 50]]), Encoding(np.array(1), np.array(100)), (2, 1))
    second = Conv(weight, np.array([[-3], [0], [9]]), Encoding(np.array(-2), np.array(3)), (1, 1), (1, 2))
    pool = Pool((2, 2), (2, 1))
    shape = (2, 14, 11)
    sizes = pool.out_shape(second.out_shape(first.out_shape(pool.out_shape(shape))))
    read = dense(generator.integers(-128, 128, (4, int(np.prod(sizes)))).astype(np.int8), value=SIGN)
    net = hardnet(shape, pool, first, second, pool, Flatten(), read)
    assert any(isinstance(layer, Sums) and layer.padding == (1, 2) and layer.threshold is not None
               and layer.threshold.shape[2:] != (1, 1) for layer in lower(net))  # fmt: skip
    check(net, samples(generator, shape, 30))


def test_deepest_stair_counts_255() -> None:
    weight = np.ones((1, 1), np.int8)
    net = hardnet((1,), dense(weight, np.arange(255)[None]), dense(weight * 127))
    check(net, np.arange(256, dtype=np.uint8)[:, None])


def test_a_stair_of_256_is_refused_by_name() -> None:
    weight = np.ones((1, 1), np.int8)
    net = hardnet((1,), dense(weight, np.arange(256)[None]), dense(weight))
    for export in (to_onnx, to_qonnx):
        with pytest.raises(ValueError, match="layer 0 counts 256 thresholds a unit; an 8-bit code counts 1 to 255"):
            export(net)


def test_sums_beyond_32_bits_are_refused_by_name() -> None:
    net = hardnet((300,), dense(np.full((1, 300), 32767, np.int16)))
    with pytest.raises(ValueError, match="layer 0 sums 300 codes of at most 255 and could span 2506675501"):
        to_onnx(net)


def test_sums_beyond_float32_are_refused_by_qonnx_only() -> None:
    fits, beyond = (
        HardNet(
            (terms,),
            hs.Grid(1.0, 0),
            (Dense(np.full((1, terms), -256, np.int16), None, Encoding(), np.array([-3])),),
        )
        for terms in (257, 258)
    )
    x = np.full((2, 257), 255, np.uint8)
    assert np.array_equal(qonnx_form(to_qonnx(fits, batch=2), 2)(x), fits(x))
    check(beyond, np.full((2, 258), 255, np.uint8))
    with pytest.raises(ValueError, match="layer 0 sums 258 codes of at most 255 and could reach 16842243, beyond"):
        to_qonnx(beyond)


def test_export_twice_gives_the_same_bytes_and_says_what_the_codes_mean() -> None:
    net = drawn(7)
    net = HardNet(net.shape, hs.Grid(0.25, 3), net.layers, scale=0.125)
    for export in (to_onnx, to_qonnx):
        content = export(net)
        assert content == export(net)
        properties = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
        assert properties["hardstep.version"] == __version__
        wanted = {"grid.scale": 0.25, "grid.zero": 3, "scale": 0.125}
        assert {name: json.loads(properties[f"hardstep.{name}"]) for name in wanted} == wanted


def test_opsets_stay_readable_by_older_runtimes() -> None:
    plain, dialect = onnx.load_from_string(to_onnx(drawn(3))), onnx.load_from_string(to_qonnx(drawn(3)))
    assert (plain.ir_version, [(entry.domain, entry.version) for entry in plain.opset_import]) == (7, [("", 13)])
    assert dialect.opset_import[0].version == 11
    assert {node.domain for node in plain.graph.node} == {""}


def test_8_bit_weights_take_a_byte() -> None:
    net = network(0, shape=(200,), widths=(100, 100), kinds=("8-bit",) * 3)
    assert 200 * 100 + 100 * 100 < len(to_onnx(net)) < 1.1 * net.nbytes + 4000


def test_form_reads_codes_only() -> None:
    net = drawn(1)
    with pytest.raises(ValueError, match="the ONNX form reads codes"):
        onnx_form(to_onnx(net))(np.zeros((1, *net.shape), np.float32))


def test_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    content = to_onnx(drawn(1))
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r'needs the package onnx; pip install "hardstep\[onnx\]"'):
        to_onnx(drawn(1))
    with pytest.raises(ImportError, match="needs the package onnxruntime"):
        onnx_form(content)


@pytest.mark.parametrize("seed", range(40))
def test_qonnx_gives_the_scores_of_drawn_networks(seed: int) -> None:
    net = drawn(seed)
    x = samples(np.random.default_rng(seed), net.shape, 12)
    try:
        content = to_qonnx(net, batch=12)
    except ValueError as error:
        assert "float32" in str(error)
        return
    onnx.checker.check_model(content, full_check=True)
    assert np.array_equal(qonnx_form(content, 12)(x), net(x))
