"""A frozen scattering front end: every form gives the codes of the torch module, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn

import hardstep as hs
from hardstep.certify.certificate import Verdict
from hardstep.certify.overflow import NoOverflow
from hardstep.engine import available_isas
from hardstep.export.compiler import compiler
from hardstep.export.forms import c_form
from hardstep.export.verilog import to_verilog
from hardstep.hard_layers import exact_product
from hardstep.hard_scatter import Activate, Emit, Filter, Load, PlanePool, Scatter
from hardstep.hardnet import HardNet
from hardstep.lowered import lower
from hardstep.parts import Samples
from hardstep.scattering_front import ScatteringFront
from hardstep.scattering_program import code_range, compile_scattering
from tests.scattered import UNIT, front, images, joined, scattering

X, Y = load_digits(return_X_y=True)
STEPS = (hs.ScatteringLayer(hs.haar(2), hs.HardStep(), hs.MeanPool(2)),)
compiled = pytest.mark.skipif(not available_isas(), reason="the C runtime is not built")


@pytest.mark.parametrize("seed", range(40))
def test_the_program_gives_the_codes_of_the_module(seed: int) -> None:
    generator = np.random.default_rng(seed)
    module = front(generator)
    x = images(generator, module.image_shape, 12)
    layer = module.program()
    mean, scale = module.affine
    codes = layer.run(x, exact_product)
    wanted = module(torch.from_numpy((x * UNIT).astype(np.float32)))
    assert torch.equal(((torch.from_numpy(codes) - mean) / scale).float(), wanted)
    filled = np.pad(x, ((0, 0), (0, 0), (0, 8 - x.shape[2]), (0, 16 - x.shape[3])))
    phi = torch.cat([each.long().flatten(1) for each in module.scattering(torch.from_numpy(filled))], dim=1)
    least, shift = (np.zeros(phi.shape[1], np.int64) for _ in range(2))
    start = 0
    for (low, k), each in zip(code_range(module.scattering), module.scattering(torch.from_numpy(filled)), strict=True):
        width = each[0].numel()
        least[start : start + width], shift[start : start + width] = low, k
        start += width
    by_hand = (phi.numpy() - least) // 2**shift
    assert by_hand.min() >= 0
    assert by_hand.max() <= 255
    assert np.array_equal(codes, by_hand[:, module.columns.numpy()])


@pytest.mark.parametrize("seed", range(12))
def test_no_number_goes_beyond_its_bound_and_codes_use_their_bits(seed: int) -> None:
    net = scattering(np.random.default_rng(seed))
    x = torch.from_numpy(images(np.random.default_rng(seed), (1, 8, 16), 30))
    for phi, (least, shift) in zip(net(x), code_range(net), strict=True):
        assert phi.min() >= least
        assert phi.max() < least + 256 * 2**shift
    least, shift = code_range(net)[0]
    spread = int(net(torch.full((1, 1, 8, 16), 255.0))[0].max()) - least
    assert shift == 0 or spread >= 2 ** (shift + 6)  # all images at once: within two bits of what there is


@pytest.mark.parametrize("seed", range(15))
def test_frozen_scores_are_those_of_the_float_network(seed: int, tmp_path: Path) -> None:
    module, hard = joined(seed)
    assert hard.rounding is not None
    assert (hard.rounding.steps_changed, hard.rounding.predictions_changed) == (0, 0)
    assert isinstance(module[0], ScatteringFront)
    x = images(np.random.default_rng(99), module[0].image_shape, 30)
    values = module[0](torch.from_numpy(hard.grid.value(x))).double().numpy()
    *hidden, last = [each for each in module if isinstance(each, nn.Linear)]
    for each in hidden:
        weight, bias = (a.detach().double().numpy() for a in (each.weight, each.bias))
        values = (values @ weight.T + bias > 0).astype(np.float64)
    scores = values @ last.weight.detach().double().numpy().T + last.bias.detach().double().numpy()
    assert np.allclose(hard(x) * hard.scale, scores, atol=1e-9)
    hard.save(tmp_path / "net")
    again = HardNet.load(tmp_path / "net")
    assert np.array_equal(again(x), hard(x))
    assert again.rows() == hard.rows()
    assert np.array_equal(hs.simplify(hard)(x), hard(x))
    assert np.array_equal(hs.fold_constants(hard)[0](x), hard(x))


@compiled
@pytest.mark.parametrize("seed", range(6))
def test_the_engine_gives_the_same_scores_at_every_batch_size(seed: int) -> None:
    _, hard = joined(seed)
    x = images(np.random.default_rng(seed), hard.shape, 300)
    wanted = hard(x)
    for isa in available_isas():
        for only in ("", "outputs", "samples", "rows"):
            engine = hs.Engine(hard, isa=isa, only=only, sample=x[:20])
            assert not engine.reason
            for rows in (1, 3, 64, 300):
                assert np.array_equal(engine(x[:rows]), wanted[:rows]), (isa, only, rows)
    assert np.array_equal(hs.Engine(hard, threads=2)(np.tile(x, (40, 1, 1, 1))), np.tile(wanted, (40, 1)))


@pytest.mark.skipif(compiler() is None, reason="there is no C compiler")
@pytest.mark.parametrize("seed", range(2))
def test_exported_c_gives_the_same_scores(seed: int) -> None:
    _, hard = joined(seed)
    x = images(np.random.default_rng(seed), hard.shape, 20)
    strict = ("-O1", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
    assert np.array_equal(c_form(hard, options=strict)(x), hard(x))
    assert "front_any" in hs.to_c(hard)
    plain = replace(hard, shape=hard.layers[0].out_shape(()), layers=hard.layers[1:])
    assert "front_any" not in hs.to_c(plain)  # who has none pays for none


@pytest.mark.skipif(not find_spec("onnxruntime"), reason="onnxruntime is missing")
@pytest.mark.parametrize("seed", range(10))
def test_onnx_gives_the_same_scores(seed: int) -> None:
    from hardstep.export.onnx import onnx_form, to_onnx

    _, hard = joined(seed)
    x = images(np.random.default_rng(seed), hard.shape, 30)
    assert np.array_equal(onnx_form(to_onnx(hard))(x), hard(x))


def test_verify_knows_the_front_end_and_names_it() -> None:
    _, hard = joined(3)
    x = images(np.random.default_rng(0), hard.shape, 10)
    result = hs.verify(hard, x)
    assert result.ok
    refused = {check.form for check in result.checks if check.refused}
    assert refused <= {"Verilog"}
    assert isinstance(hard.front, Scatter)
    program = hard.front.program.copy()
    at = [i for i, each in enumerate(hard.front.instructions()) if isinstance(each, Activate)]
    words = np.cumsum([4, *(len(each.words()) for each in hard.front.instructions())])
    program[words[at[0]] + 6] += 7  # another threshold

    def wrong(net: HardNet) -> HardNet:
        first = net.layers[0]
        assert isinstance(first, Scatter)
        return replace(net, layers=(replace(first, program=program), *net.layers[1:]))

    (check,) = [check for check in hs.verify(hard, x, factories={"other": wrong}).checks if check.form == "other"]
    assert not check.ok
    assert "begins in layer 0" in check.first


def test_whole_numbers_of_a_front_end_count_in_the_overflow_certificate() -> None:
    _, hard = joined(1)
    assert hard.front is not None
    wide = NoOverflow(32).certify(hard)
    assert wide.verdict is Verdict.PROVED
    assert wide.bounds["layer 0"] == hard.front.reach()
    narrow = NoOverflow(8).certify(hard)
    assert narrow.verdict is Verdict.UNKNOWN
    assert NoOverflow(32).check(wide, hard)
    assert NoOverflow(8).check(narrow, hard)


def test_the_transformer_and_its_front_give_the_same_features() -> None:
    features = hs.ScatteringFeatures(STEPS, select=4, codes=True)
    assert clone(features).get_params() == features.get_params()
    features.fit(X[:400], Y[:400])
    out = features.transform(X)
    module = features.front(unit=1 / 16)
    assert not list(module.parameters())
    x = torch.from_numpy((X / 16).astype(np.float32).reshape(-1, 1, 8, 8))
    assert np.array_equal(module(x).numpy(), out)
    assert np.array_equal(module.half().float()(x).numpy(), out)
    plain = clone(features).set_params(scale=False).fit(X[:400], Y[:400])
    codes = plain.transform(X)
    assert np.array_equal(codes, codes.astype(np.uint8))
    assert np.array_equal(plain.front()(torch.from_numpy(X.reshape(-1, 1, 8, 8))).numpy(), codes)


def test_a_network_is_trained_behind_its_front_end_and_frozen_with_it() -> None:
    data = hs.data.load("digits")
    x, y = data.train.take(list(range(400)))
    few = Samples(x, y, data.train.grid)
    features = hs.ScatteringFeatures(STEPS, select=4, codes=True).fit(x, y)
    front = features.front(float(few.grid.scale))
    net = nn.Sequential(front, *hs.nets.mlp(len(front.columns), 16, 10))
    report = hs.fit(net, replace(data, train=few, val=few, test=None), hs.GradientDescent(), sweeps=3, progress=False)
    assert report.score is not None
    hard = hs.freeze(net, calibrate=few)
    assert abs((hard.predict(x.numpy()) == y.numpy()).mean() - report.score) < 0.05
    front_row = hard.rows()[0]
    assert (front_row.layer, front_row.weights, front_row.gives) == ("Scatter", 0, (len(front.columns),))
    assert front_row.macs > 0
    assert "Scatter" in hard.summary()


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="use HardStep in a layer"):
        hs.ScatteringFeatures(codes=True).fit(X[:50])
    with pytest.raises(ValueError, match="codes=True"):
        hs.ScatteringFeatures(STEPS).fit(X[:50]).front()
    with pytest.raises(ValueError, match=r"lie in 0\.\.255"):
        hs.ScatteringFeatures(STEPS, codes=True).fit(X[:50] - 3)
    features = hs.ScatteringFeatures(STEPS, codes=True).fit(X[:50])
    with pytest.raises(ValueError, match="value of one code"):
        features.front(unit=0.0)
    data = hs.data.load("digits")
    wide = features.transform(X[:1]).shape[1]
    with pytest.raises(ValueError, match=r"unit=1, .* scale \[0\.0625\] and zero \[0\]"):
        hs.freeze(nn.Sequential(features.front(), *hs.nets.mlp(wide, 4, 10)), calibrate=data.train)
    with pytest.raises(ValueError, match="must come first"):
        late = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1, 8, 8)), features.front(1 / 16))
        hs.freeze(nn.Sequential(late[0], late[2], *hs.nets.mlp(wide, 4, 10)), calibrate=data.train)
    module, hard = joined(0)
    shifted = Samples(torch.zeros(3, *hard.shape, dtype=torch.uint8), torch.zeros(3).long(), hs.Grid(UNIT, 4))
    with pytest.raises(ValueError, match="zero \\[4\\]"):
        hs.freeze(module, calibrate=shifted)
    for refusing in (lower, to_verilog):
        with pytest.raises(ValueError, match="layer 0 is a scattering front end"):
            refusing(hard)
    if find_spec("onnx"):
        from hardstep.export.onnx import to_qonnx

        with pytest.raises(ValueError, match="layer 0 is a scattering front end"):
            to_qonnx(hard)
    with pytest.raises(ValueError, match="must come first"):
        HardNet(hard.shape, hard.grid, (hard.layers[1], *hard.layers))
    rectified = [hs.ScatteringLayer(hs.biorthogonal(2), each) for each in (hs.RECTIFIED, hs.RECTIFIED, hs.HardStep())]
    net = hs.Scattering((8, 8), rectified, hs.haar(1))
    count = sum(phi[0].numel() for phi in net(torch.zeros(1, 1, 8, 8)))
    with pytest.raises(ValueError, match="beyond the 2147483647 of an int32"):
        compile_scattering(net, (1, 8, 8), np.arange(count))


def test_a_damaged_program_is_refused() -> None:
    size = (4, 6)
    program = [
        *(Load(0, 0, size), Filter(0, 1, size, 1, (1, -1), (0, 5)), Activate(1, 1, size, "edge", 3)),
        *(PlanePool(1, 0, size, "sum", 3, 2), Emit(0, (2, 3), 0, 0, (5, 0), (1, 0))),
    ]
    layer = Scatter.of((1, 4, 6), 2, program)
    assert list(layer.instructions()) == program
    assert layer.macs(()) == 24 * 2 + 6 * 9
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        words = layer.program.copy()
        words[generator.integers(len(words))] = generator.choice([-1, 0, 1, 2, 3, 7, 255, 2**31 - 1])
        try:
            other = Scatter((1, 4, 6), 2, words)
        except ValueError:
            refused += 1
            continue
        assert other.run(np.zeros((1, 1, 4, 6), np.uint8), exact_product).shape == (1, 2)
    assert 100 < refused < 300
    with pytest.raises(ValueError, match="does not fit 8 bits"):
        Scatter.of((1, 4, 6), 1, [program[0], Emit(0, size, 3, 0, (0,), (0,))])
    with pytest.raises(ValueError, match="1 of its 2 outputs"):
        Scatter.of((1, 4, 6), 2, [program[0], Emit(0, size, 0, 0, (0,), (0,))])
