"""ONNX exports: ONNX Runtime and qonnx give the integers of the frozen network; what they cannot hold is refused."""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hardstep as hs
from hardstep.export.onnx import onnx_form, to_onnx, to_qonnx
from hardstep.hard_layers import Conv, Dense, Encoding, Flatten, Layer, Pool
from hardstep.hardnet import HardNet
from hardstep.lowered import Sums, lower
from hardstep.version import __version__
from tests.networks import CODES, WEIGHTS, drawn, network, samples

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

SIGN = Encoding(np.array(2), np.array(1))
READ_TWO = Dense(np.eye(2, dtype=np.int8), None, Encoding(), np.zeros(2, np.int64))


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


class Qonnx:
    """A model in the qonnx package."""

    def __init__(self, content: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its imports warn of deprecations of their own
            pytest.importorskip("qonnx", reason="qonnx is not installed")
            from qonnx.core import onnx_exec
            from qonnx.core.modelwrapper import ModelWrapper
        self.executor = onnx_exec
        self.model = ModelWrapper(onnx.load_from_string(content))

    def run(self, x: NDArray[Any]) -> NDArray[np.int64]:
        """Scores of samples, after a look whether every tensor holds what its annotation says."""
        make_model = self.executor.qonnx_make_model

        def readable(graph: Any) -> Any:
            """A model of one node; qonnx asks for the newest IR version, which onnxruntime may not know yet."""
            one = make_model(graph)
            one.ir_version = 7
            return one

        first, last = self.model.graph.input[0].name, self.model.graph.output[0].name
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.executor, "qonnx_make_model", readable)
            tensors = self.executor.execute_onnx(self.model, {first: x.astype(np.float32)}, True)
        for annotation in self.model.graph.quantization_annotation:
            kind, values = self.model.get_tensor_datatype(annotation.tensor_name), tensors[annotation.tensor_name]
            assert np.array_equal(values, np.rint(values))
            assert kind.min() <= values.min(initial=0), annotation
            assert values.max(initial=0) <= kind.max(), annotation
            assert kind.name != "BIPOLAR" or (np.abs(values) == 1).all()
        scores: NDArray[np.int64] = tensors[last].astype(np.int64)
        return scores


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
    extreme = np.full((9, terms + 1), weight, np.int8 if -129 < weight < 128 else np.int16)
    extreme[:, -1] = 1  # without it the row's gcd would be taken out
    at = 255 * (weight * terms + 1)
    thresholds = np.array([[at - 1, at], [at, at + 1], [at - 2, at - 1]] * 3)
    x = np.full((33, terms + 1), 255, np.uint8)
    check(hardnet((terms + 1,), dense(extreme)), x)
    check(hardnet((terms + 1,), dense(extreme, thresholds), dense(np.eye(9, dtype=np.int8))), x)
    alternating = extreme.copy()
    alternating[:, :-1:2] = 0
    check(hardnet((terms + 1,), dense(alternating)), x)
    assert max(np.abs(layer.weight).max() for layer in lower(hardnet((terms + 1,), dense(extreme)))) == abs(weight)


@pytest.mark.parametrize("weight", [127, -128, 32767])
def test_extremes_do_not_saturate_in_convolutions(weight: int) -> None:
    extreme = np.full((5, 4, 3, 3), weight, np.int16 if weight > 127 else np.int8)
    extreme[:, 0, 1, 1] = 1
    at = 255 * (weight * np.array([[35], [23], [15], [7], [3]]) + 1)
    layer = Conv(extreme, np.concatenate([at - 1, at], axis=1), padding=(1, 1))
    net = hardnet((4, 6, 6), layer, Flatten(), dense(np.eye(180, dtype=np.int8)))
    check(net, np.full((3, 4, 6, 6), 255, np.uint8))


@pytest.mark.parametrize("terms", [33025, 33026])
def test_shifted_weights_end_where_their_sums_could_leave_32_bits(terms: int) -> None:
    weight = np.array([[127], [-128]], np.int8).repeat(terms, axis=1)
    weight[:, -1] = 1
    at = 255 * (weight.astype(np.int64).sum(axis=1, keepdims=True))
    net = hardnet((terms,), dense(weight, np.concatenate([at - 1, at], axis=1)), READ_TWO)
    check(net, np.full((2, terms), 255, np.uint8))
    first = next(array for array in constants(to_onnx(net)).values() if array.ndim == 2)
    assert (first.dtype == np.uint8) == (terms == 33025)


def test_no_pair_of_products_leaves_16_bits_where_weights_are_signed() -> None:
    for seed in range(60):
        net = drawn(seed)
        model, values = onnx.load_from_string(to_onnx(net)), constants(to_onnx(net))
        tops = iter([layer.top for layer in lower(net) if isinstance(layer, Sums)])
        top = next(tops)
        for node in model.graph.node:
            if node.op_type in ("MatMulInteger", "ConvInteger"):
                weight = values[node.input[1]]
                if weight.dtype == np.uint8:
                    assert [int(values[name]) for name in node.input[2:]] == [0, 128]
                else:
                    assert node.op_type == "MatMulInteger"
                    assert 2 * top * np.abs(weight.astype(np.int64)).max(initial=0) <= 32767
            elif node.op_type == "Greater":
                top = next(tops)


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
    assert Qonnx(to_qonnx(net)).run(x).tolist() == [[1, -1, -1]]


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
    padded = next(layer for layer in lower(net) if isinstance(layer, Sums) and layer.padding == (1, 2))
    assert padded.threshold is not None
    assert padded.threshold.shape[2:] == padded.out_shape[1:]
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
    assert np.array_equal(Qonnx(to_qonnx(fits, batch=2)).run(x), fits(x))
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
    assert np.array_equal(Qonnx(content).run(x), net(x))


@pytest.mark.parametrize("seed", range(3))
def test_qonnx_transformations_of_the_fpga_flow_keep_the_scores(seed: int) -> None:
    net = network(
        seed,
        shape=(2, 8, 8),
        widths=(5, 6, 7),
        kinds=("8-bit", "binary", "binary", "8-bit"),
        codes=("step", "sign", "sign"),
        stairs=(1 + seed, 1, 1),
        padding=seed % 2,
        pool=2,
    )
    one = Qonnx(to_qonnx(net))
    from qonnx.transformation.bipolar_to_xnor import ConvertBipolarMatMulToXnorPopcount
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.transformation.infer_shapes import InferShapes
    from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for change in (LowerConvsToMatMul, ConvertBipolarMatMulToXnorPopcount, InferShapes, InferDataTypes):
            one.model = one.model.transform(change())
    kinds = {node.op_type for node in one.model.graph.node}
    assert {"MatMul", "MultiThreshold", "XnorPopcountMatMul"} <= kinds
    assert "Conv" not in kinds
    x = samples(np.random.default_rng(seed), net.shape, 9)[4:9]
    assert np.array_equal(np.concatenate([one.run(x[i : i + 1]) for i in range(len(x))]), net(x))


def test_one_bit_codes_are_bipolar_and_0_1_before_padding() -> None:
    for padding, kind in ((0, "BIPOLAR"), (1, "UINT2")):
        ones = {"kinds": ("binary",) * 4, "codes": ("step",) * 3, "stairs": (1,) * 3}
        net = network(0, shape=(1, 6, 6), widths=(3, 3, 3), padding=padding, **ones)
        model = onnx.load_from_string(to_qonnx(net))
        annotations = model.graph.quantization_annotation
        types = {entry.tensor_name: entry.quant_parameter_tensor_names[0].value for entry in annotations}
        found = [types[node.output[0]] for node in model.graph.node if node.op_type == "MultiThreshold"]
        assert found == [kind, "BIPOLAR", "BIPOLAR"]
        assert types["codes"] == "UINT8"
