"""Exported Verilog: simulators compute every score and label of the frozen network."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import hardstep as hs
from hardstep.export.verilog import KEYWORDS, ROWS, to_verilog, unroll
from hardstep.export.verilog_bench import estimate, simulate, to_testbench, verilog_form
from hardstep.hard_layers import Conv, Dense, Encoding, Flatten, Pool, exact_product
from hardstep.hardnet import HardNet
from tests.networks import drawn, network, samples

icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog (iverilog) is not installed")
verilator = pytest.mark.skipif(
    None in map(shutil.which, ("verilator", "c++", "make")), reason="Verilator, a C++ compiler or make is not installed"
)
yosys = pytest.mark.skipif(shutil.which("yosys") is None, reason="Yosys (yosys) is not installed")
both = pytest.mark.parametrize("pipelined", [False, True], ids=["combinational", "pipelined"])

BITS = np.array(list(product(range(2), repeat=12)), np.uint8)  # all samples of twelve bits
SIGN = Encoding(np.array(2), np.array(1))
IMAGE = (2, 5, 4)
NETS = {
    "dense": network(0),
    "staircase": network(1, codes=("step", "mixed"), stairs=(3, 7)),
    "sign convolution with padding": network(
        2,
        shape=IMAGE,
        widths=(3, 4, 5),
        kinds=("8-bit", "binary", "ternary", "8-bit"),
        codes=("sign",) * 3,
        stairs=(1,) * 3,
    ),
    "strided convolution of stairs with pooling": network(
        3, shape=(1, 7, 6), widths=(3, 5), codes=("mixed", "sign"), stairs=(3, 1), padding=2, pool=2
    ),
    "16-bit": network(4, kinds=("16-bit", "16-bit", "16-bit"), stairs=(1, 2)),
    "all always the same": network(5, kinds=("zeros", "zeros", "zeros")),
    "one output": network(6, outputs=1),
    "one input": network(7, shape=(1,), widths=(2, 1), outputs=2),
}


def of_bits(seed: int, stairs: int = 1, scale: int = 3) -> HardNet:
    """A network of twelve inputs that are 0 or 1, with thresholds that its sums reach."""
    generator = np.random.default_rng(seed)
    layers, codes, value = list[Dense](), BITS, Encoding()
    for units, gain in ((6, SIGN), (5, Encoding())):
        weight = generator.integers(-scale, scale + 1, (units, codes.shape[1])).astype(np.int8)
        acc = value.value(codes) @ weight.T.astype(np.int64)
        threshold = np.sort(np.quantile(acc, np.linspace(0.2, 0.8, stairs), axis=0).T.astype(np.int64), axis=1)
        layers.append(Dense(weight, threshold, value))
        codes, value = layers[-1].run(codes, exact_product), gain
    weight = generator.integers(-scale, scale + 1, (3, 5)).astype(np.int8)
    net = HardNet((12,), hs.Grid(1.0, 0), (*layers, Dense(weight, None, value, np.array([1, 0, -1]))))
    assert len(np.unique(net(BITS), axis=0)) > 8
    assert len(np.unique(net.predict(BITS))) > 1
    return net


def bench(verilog: str, testbench: str, folder: Path) -> list[str]:
    """What a module's test bench says in Icarus."""
    (folder / "all.v").write_text(verilog + testbench)
    subprocess.run(["iverilog", "-g2005", "-Wall", "-o", "all", "all.v"], cwd=folder, check=True)
    run = subprocess.run(["vvp", "-n", "all"], cwd=folder, check=True, capture_output=True, text=True)
    return run.stdout.splitlines()


@icarus
@both
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_icarus_gives_every_score_and_label(net: HardNet, *, pipelined: bool) -> None:
    x = samples(np.random.default_rng(0), net.shape, 24)
    scores, labels = simulate(net, x, pipelined=pipelined)
    assert np.array_equal(scores, net(x))
    assert np.array_equal(labels, net.predict(x))


@icarus
@pytest.mark.parametrize("seed", [1, 3, 9, 13, 14, 15, 20, 22, 27, 31, 33, 41, 56])
def test_icarus_gives_the_scores_of_drawn_networks(seed: int) -> None:
    net = drawn(seed)
    x = samples(np.random.default_rng(seed), net.shape, 9)
    scores, labels = simulate(net, x, pipelined=bool(seed % 2))
    assert np.array_equal(scores, net(x))
    assert np.array_equal(labels, net.predict(x))


@icarus
@both
@pytest.mark.parametrize("stairs", [1, 5])
def test_all_inputs_of_twelve_bits(stairs: int, *, pipelined: bool) -> None:
    net = of_bits(2, stairs, scale=100)
    scores, labels = simulate(net, BITS, pipelined=pipelined, input_bits=1)
    assert np.array_equal(scores, net(BITS))
    assert np.array_equal(labels, net.predict(BITS))


@icarus
def test_input_bits_between_one_and_eight() -> None:
    net = NETS["dense"]
    for bits in range(1, 9):
        x = samples(np.random.default_rng(bits), net.shape, 8) >> (8 - bits)
        scores, _ = simulate(net, x, input_bits=bits)
        assert np.array_equal(scores, net(x))


@icarus
@both
def test_pooling_of_inputs_and_ties_take_the_smallest_label(*, pipelined: bool) -> None:
    read = Dense(np.array([[1, 2], [2, 1], [2, 1], [1, 2], [1, 1]], np.int8), None)
    net = HardNet((2, 2, 3), hs.Grid(1.0, 0), (Pool((2, 3), (1, 1)), Flatten(), read))
    x = np.broadcast_to(BITS[:, :2].reshape(-1, 2, 1, 1), (len(BITS), 2, 2, 3)).copy()[::1024]
    x[..., 0, 1:] = 0
    scores, labels = simulate(net, x, pipelined=pipelined)
    assert np.array_equal(scores, net(x))
    assert labels.tolist() == net.predict(x).tolist()
    assert (np.sort(scores, axis=1)[:, -1] == np.sort(scores, axis=1)[:, -2]).all()


@icarus
def test_threshold_at_the_border_of_a_padded_convolution() -> None:
    conv = Conv(np.ones((1, 1, 3, 3), np.int8), np.array([[2]]), SIGN, padding=(1, 1))
    net = HardNet((1, 3, 3), hs.Grid(1.0, 0), (conv, Flatten(), Dense(1 << np.arange(9).reshape(1, 9), None)))
    x = np.array(list(product(range(2), repeat=9)), np.uint8).reshape(-1, 1, 3, 3)
    scores, _ = simulate(net, x, input_bits=1)
    assert np.array_equal(scores, net(x))
    assert len(np.unique(scores)) > 50


@icarus
def test_verilog_is_a_form_of_verify() -> None:
    net = NETS["dense"]
    x = samples(np.random.default_rng(1), net.shape, 20)
    forms = {"verilog": verilog_form(net), "pipelined verilog": verilog_form(net, pipelined=True)}
    assert hs.verify(net, x, forms=forms)


@icarus
@both
def test_test_bench_passes(tmp_path: Path, *, pipelined: bool) -> None:
    net = NETS["dense"]
    x = samples(np.random.default_rng(1), net.shape, 30)
    verilog = to_verilog(net, name="Net_1", pipelined=pipelined)
    said = bench(verilog, to_testbench(net, x, name="Net_1", pipelined=pipelined), tmp_path)
    assert said == ["PASS: 30 samples"]


DAMAGE = {
    "a weight's sign": (r"~layer0_in", "layer0_in", "output|label", False),
    "the first scores swapped": (r"layer2_sum1,(\s+)layer2_sum0", r"layer2_sum0,\1layer2_sum1", "output", False),
    "the label's ties": (r">= \$signed", "> $signed", "label", False),
    "an early valid": (r"valid_out = valid\d+", "valid_out = valid1", "valid_out", True),
    "no reset": (r" & ~rst", "", "valid_out", True),
    "a valid that stays": (r"valid2 <= valid1", "valid2 <= valid2 | valid1", "valid_out|output", True),
}


@icarus
@pytest.mark.parametrize(("pattern", "put", "where", "pipelined"), DAMAGE.values(), ids=DAMAGE)
def test_test_bench_fails_on_a_damaged_design(
    pattern: str, put: str, where: str, tmp_path: Path, *, pipelined: bool
) -> None:
    read = Dense(np.array([[2, -1, 1], [1, 1, -1]], np.int8), None)
    hidden = Dense(np.array([[1, -1, 2], [-1, 1, 1], [1, 1, 0]], np.int8), np.array([[0], [0], [0]]))
    net = HardNet((3,), hs.Grid(1.0, 0), (hidden, Dense(hidden.weight, hidden.threshold, SIGN), read))
    x = np.array(list(product(range(2), repeat=3)), np.uint8)
    damaged, count = re.subn(pattern, put, to_verilog(net, pipelined=pipelined, input_bits=1), count=1)
    assert count == 1
    (said,) = bench(damaged, to_testbench(net, x, pipelined=pipelined, input_bits=1), tmp_path)
    assert re.match(f"FAIL: sample \\d+, ({where})", said)


def test_latency_counts_layers_sums_of_many_words_and_halvings() -> None:
    def module(inputs: int, outputs: int) -> int:
        read = Dense(np.ones((outputs, inputs), np.int8), None)
        return unroll(HardNet((inputs,), hs.Grid(1.0, 0), (read,)), pipelined=True).latency

    assert module(ROWS, 1) == 1
    assert module(ROWS + 1, 1) == 2
    assert module(ROWS**2 + 1, 1) == 3
    assert [module(1, outputs) for outputs in (1, 2, 3, 4, 5)] == [1, 2, 3, 3, 4]
    assert unroll(NETS["dense"]).latency == 0


@both
def test_text_is_the_same_every_time_and_names_the_layers(*, pipelined: bool) -> None:
    net = NETS["strided convolution of stairs with pooling"]
    text = to_verilog(net, pipelined=pipelined)
    assert text == to_verilog(net, pipelined=pipelined)
    assert "// layer 0, unit 2 at row 3, column 3: 9 weights, sums from" in text
    assert "// pooling: the largest of 4 codes of 2 bit" in text
    assert not re.search(r"[ \t]$", text, re.MULTILINE)


@verilator
@both
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_verilator_warns_of_nothing_but_unused_bits(net: HardNet, tmp_path: Path, *, pipelined: bool) -> None:
    (tmp_path / "hardnet.v").write_text(to_verilog(net, pipelined=pipelined))
    # bits that only weights of 0 would read are unused
    command = ["verilator", "--lint-only", "-Wall", "-Wno-UNUSEDSIGNAL", "hardnet.v"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@verilator
def test_verilator_gives_every_score_and_label() -> None:
    net = of_bits(2)
    scores, labels = simulate(net, BITS, pipelined=True, input_bits=1, simulator="verilator")
    assert np.array_equal(scores, net(BITS))
    assert np.array_equal(labels, net.predict(BITS))


@yosys
@icarus
@both
def test_synthesised_netlist_gives_all_scores(tmp_path: Path, *, pipelined: bool) -> None:
    net = of_bits(2)
    (tmp_path / "a.v").write_text(to_verilog(net, pipelined=pipelined, input_bits=1))
    script = "read_verilog a.v; synth -flatten -top hardnet; write_verilog -noattr netlist.v"
    subprocess.run(["yosys", "-q", "-p", script], cwd=tmp_path, check=True)
    netlist = (tmp_path / "netlist.v").read_text()
    scores, labels = simulate(net, BITS, verilog=netlist, pipelined=pipelined, input_bits=1)
    assert np.array_equal(scores, net(BITS))
    assert np.array_equal(labels, net.predict(BITS))


@yosys
def test_estimate_counts_gates_and_tables() -> None:
    net = of_bits(2)
    once = estimate(to_verilog(net, input_bits=1))
    assert once.registers == 0
    assert 0 < once.lut6 <= once.lut4 <= once.gates
    assert once.lut6_levels > 1
    module = unroll(net, pipelined=True, input_bits=1)
    assert estimate(module.text).registers >= module.latency


@pytest.mark.parametrize("name", ["", "1net", "a-b", "a b", "naïve", "net;", *KEYWORDS.split()[:3]])
def test_illegal_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a Verilog module"):
        to_verilog(NETS["dense"], name=name)


def test_too_many_products_are_refused_by_name_number_and_bound() -> None:
    hidden = Dense(np.ones((450, 450), np.int8), np.zeros((450, 1), np.int64))
    net = HardNet((450,), hs.Grid(1.0, 0), (hidden, Dense(np.ones((2, 450), np.int8), None)))
    with pytest.raises(ValueError, match="layer 0 needs 202500 products and the network 203400, beyond the 200000"):
        to_verilog(net)


def test_codes_that_do_not_fit_and_no_samples_are_refused() -> None:
    net = NETS["dense"]
    with pytest.raises(ValueError, match="a code is 4, beyond the 2 input bits"):
        to_testbench(net, np.full((1, 12), 4, np.uint8), input_bits=2)
    with pytest.raises(ValueError, match="there are no samples"):
        to_testbench(net, np.zeros((0, 12), np.uint8))
    with pytest.raises(ValueError, match="1 to 8 bits, got input_bits=9"):
        to_verilog(net, input_bits=9)


def test_missing_programs_are_named() -> None:
    with pytest.raises(FileNotFoundError, match="'no-such-simulator' is not installed"):
        verilog_form(NETS["dense"], simulator="no-such-simulator")
    with pytest.raises(FileNotFoundError, match="'no-such-yosys' is not installed"):
        estimate("", yosys="no-such-yosys")


@icarus
def test_unknown_bits_and_broken_verilog_are_errors() -> None:
    net = NETS["dense"]
    x = samples(np.random.default_rng(1), net.shape, 2)
    text = to_verilog(net)
    with pytest.raises(ValueError, match=r"the module gave 2 answers to 2 samples, among them '= z+ "):
        simulate(net, x, verilog=re.sub(r"assign scores = .*;", "", text))
    with pytest.raises(RuntimeError, match=r"iverilog failed: bench.v:\d+: "):
        simulate(net, x, verilog=text.replace("endmodule", "endmodul"))
