"""Verilog of a frozen network for FPGA and chip: every weight a constant, every layer unrolled, every sum exact."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import NamedTuple

import numpy as np

from hardstep.hard_layers import Pool
from hardstep.hardnet import HardNet
from hardstep.lowered import Sums, lower
from hardstep.version import __version__

__all__ = ["Module", "to_verilog", "unroll"]

PRODUCTS = 200_000  # of a design; beyond, synthesis takes hours
ROWS = 16  # words that are added between two registers
KEYWORDS = """always and assign automatic begin buf bufif0 bufif1 case casex casez cell cmos config deassign default
defparam design disable edge else end endcase endconfig endfunction endgenerate endmodule endprimitive endspecify
endtable endtask event for force forever fork function generate genvar highz0 highz1 if ifnone incdir include initial
inout input instance integer join large liblist library localparam macromodule medium module nand negedge nmos nor
noshowcancelled not notif0 notif1 or output parameter pmos posedge primitive pull0 pull1 pulldown pullup
pulsestyle_onevent pulsestyle_ondetect rcmos real realtime reg release repeat rnmos rpmos rtran rtranif0 rtranif1
scalared showcancelled signed small specify specparam strong0 strong1 supply0 supply1 table task time tran tranif0
tranif1 tri tri0 tri1 triand trior trireg unsigned use uwire vectored wait wand weak0 weak1 while wire wor xnor xor"""


class _Word(NamedTuple):
    """Some bits at a place in a sum: worth 2^place times the number they spell."""

    place: int
    bits: int
    text: str


Row = list[_Word]  # words that do not overlap, lowest first: one operand of a sum


class _Sum(NamedTuple):
    """A unit at a position: the signal it reads, the operands of its sum (none without one) and what it gives."""

    reads: str
    name: str
    width: int
    rows: list[Row]
    gives: str
    note: str


@dataclass
class Module:
    """A module that is being written: its sizes, its lines and how many register stages stand in them."""

    name: str
    clocked: bool
    input_bits: int
    inputs: int
    outputs: int
    score_bits: int
    lines: list[str] = field(default_factory=list)
    latency: int = 0

    @property
    def label_bits(self) -> int:
        """Bits of an output's number."""
        return max(1, (self.outputs - 1).bit_length())

    @property
    def text(self) -> str:
        """The whole module."""
        clocked = ["input wire clk", "input wire rst", "input wire valid_in"] * self.clocked
        outputs = self.outputs * self.score_bits
        ports = [*clocked, f"input wire [{self.inputs * self.input_bits - 1}:0] codes"]
        ports += ["output wire valid_out"] * self.clocked
        ports += [f"output wire [{outputs - 1}:0] scores", f"output wire [{self.label_bits - 1}:0] label"]
        speed = f"a sample a cycle, scores after {self.latency} cycles" if self.clocked else "combinational"
        lines = [
            f"// {self.name}: {self.inputs} codes of {self.input_bits} bit to {self.outputs} signed scores of "
            f"{self.score_bits} bit and a label; {speed}",
            f"// hardstep {__version__}; Verilog-2005; input i in bits {self.input_bits} i upwards, output k in bits "
            f"{self.score_bits} k upwards",
            f"module {self.name} (",
            ",\n".join(f"  {port}" for port in ports),
            ");",
            *["  wire valid0 = valid_in;"] * self.clocked,
            *self.lines,
            "endmodule",
        ]
        return "\n".join(lines) + "\n"

    def stage(self, signals: Sequence[tuple[str, int, str]]) -> None:
        """Give signals (name, bits, value) their values: behind a rising edge where clocked, at once where not."""
        if not self.clocked:
            self.lines += [f"  wire [{bits - 1}:0] {name} = {value};" for name, bits, value in signals]
            return
        self.latency += 1
        self.lines += [f"  reg [{bits - 1}:0] {name};" for name, bits, _ in signals]
        self.lines += [f"  reg valid{self.latency};", "  always @(posedge clk) begin"]
        self.lines += [f"    valid{self.latency} <= valid{self.latency - 1} & ~rst;"]
        self.lines += [f"    {name} <= {value};" for name, _, value in signals]
        self.lines += ["  end"]

    def layer(self, name: str, source: tuple[str, int], sums: Sequence[_Sum], bits: int) -> None:
        """Compute from a signal what sums give, laid side by side, the first one lowest.

        A function is evaluated once when its input changes; with wires Icarus would follow every change of one bit
        down to the scores, which takes hours with a few layers.
        """
        self.lines += [f"  function [{bits - 1}:0] {name}_of;", f"    input [{source[1] - 1}:0] {sums[0].reads};"]
        self.lines += [f"    reg [{unit.width - 1}:0] {unit.name};" for unit in sums if unit.rows]
        self.lines += ["    begin"]
        for unit in sums:
            self.lines += [f"      // {unit.note}"] * bool(unit.note)
            self.lines += [f"      {unit.name} = {_total(unit.rows, unit.width)};"] * bool(unit.rows)
        self.lines += [
            f"      {name}_of = {{",
            ",\n".join(f"        {unit.gives}" for unit in reversed(sums)),
            "      };",
        ]
        self.lines += ["    end", "  endfunction"]
        self.stage([(name, bits, f"{name}_of({source[0]})")])


def to_verilog(hard: HardNet, *, name: str = "hardnet", pipelined: bool = False, input_bits: int = 8) -> str:
    """Write a frozen network as one synthesizable Verilog-2005 module without multipliers or memories.

    A weight is a sum of signed powers of two and -x = ~x + 1 - 2^b, so a sum over codes x of b bits becomes

        sum_d w_d x_d = sum_p 2^p (sum_{digit +} x_d + sum_{digit -} ~x_d) + constant   (mod 2^width)

    with a width that holds every sum that can occur; constant and threshold are one number, and no sign is left.
    Ports: `codes` (input i in bits i input_bits upwards, in the order of the flattened sample), `scores` (signed, all
    of one width, output k in bits k width upwards) and `label` (the smallest index among the highest scores). The
    pipelined form adds `clk`, `rst` (clears what is on its way), `valid_in` and `valid_out`, takes a sample every
    cycle and gives it `latency` cycles later: one register stage a layer, one for every 16 words of a wide sum and
    one for every halving of the scores in search of the label.

    Parameters
    ----------
    name
        The module's name, also that of the test bench with `_tb` added.
    pipelined
        Put registers between layers; without, all is combinational.
    input_bits
        Bits of an input code, 1 to 8, where the user knows that codes stay below 2^input_bits: 1 for inputs that
        are 0 or 1.

    Raises
    ------
    ValueError
        If the name or the bits are not allowed or the network needs more products than the bound.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hard = hs.freeze(hs.nets.mlp(64, 8, 10), calibrate=data.train)
    >>> to_verilog(hard, name="digits", input_bits=5).splitlines()[2]
    'module digits ('
    """
    return unroll(hard, name=name, pipelined=pipelined, input_bits=input_bits).text


def unroll(hard: HardNet, *, name: str = "hardnet", pipelined: bool = False, input_bits: int = 8) -> Module:
    """Return the module that `to_verilog` writes, with its sizes and its latency.

    Examples
    --------
    >>> import hardstep as hs
    >>> from hardstep.hard_layers import Dense
    >>> net = HardNet((20,), hs.Grid(1.0, 0), (Dense(np.ones((3, 20), np.int8), None),))
    >>> module = unroll(net, pipelined=True)
    >>> module.score_bits, module.label_bits, module.latency
    (14, 2, 4)
    """
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) or name in KEYWORDS.split():
        raise ValueError(f"{name!r} cannot name a Verilog module; use letters, digits and _, and no keyword")
    if not 1 <= input_bits <= 8:
        raise ValueError(f"an input code has 1 to 8 bits, got input_bits={input_bits}")
    layers = list(lower(hard))
    first = next(i for i, layer in enumerate(layers) if isinstance(layer, Sums))
    sums = [replace(a, top=2**input_bits - 1) if i == first else a for i, a in enumerate(layers) if isinstance(a, Sums)]
    needs = [int(np.count_nonzero(a.weight)) * prod(a.out_shape[1:]) for a in sums]
    if sum(needs) > PRODUCTS:
        raise ValueError(
            f"{sums[int(np.argmax(needs))].name} needs {max(needs)} products and the network {sum(needs)}, beyond the "
            f"{PRODUCTS} of an unrolled design; prune and simplify the network, raise its strides or export C"
        )
    read = sums[-1]
    ends = read.bias + read.top * np.array([f(read.weight, 0).sum(axis=(1, 2, 3)) for f in (np.minimum, np.maximum)])
    score_bits = 1 + max(int(end ^ (end >> 63)).bit_length() for end in (ends.min(), ends.max()))
    module = Module(name, pipelined, input_bits, prod(hard.shape), len(read.weight), score_bits)
    source, bits, shape = "codes", input_bits, hard.shape
    for layer in layers:
        if isinstance(layer, Pool):
            source, shape = _pool(module, layer, source, bits, shape), layer.out_shape(shape)
        else:
            source = _layer(module, sums[0], source, bits)
            bits, shape = sums.pop(0).stairs.bit_length() or 1, layer.out_shape
    _label(module, source)
    return module


def _layer(module: Module, layer: Sums, source: str, bits: int) -> str:
    """Write a layer: its sums (those of 16 words first, in the pipelined form), then what they give."""
    name = layer.name.replace(" ", "")
    given = module.score_bits if layer.threshold is None else layer.stairs.bit_length() or 1
    units = list(_units(layer, f"{name}_in", bits, module.score_bits))
    kind = "scores" if layer.threshold is None else "codes"
    title = f"  // {layer.name}: {prod(layer.shape)} codes of {bits} bit to {len(units)} {kind} of {given} bit"
    read, level = (source, prod(layer.shape) * bits), 0
    while module.clocked and max(len(unit.rows) for unit in units) > ROWS:
        level += 1
        module.lines += ["", f"{title}; partial sums, stage {level}"]
        parts, total = list[_Sum](), 0
        for i, unit in enumerate(units):
            words: list[Row] = []
            for j, group in enumerate(_groups(unit.rows)):
                most = sum(((1 << word.bits) - 1) << word.place for row in group for word in row)
                width, part = min(unit.width, most.bit_length()), f"{unit.name}_{j}"
                parts.append(_Sum(unit.reads, part, width, group, part, "" if j else unit.note))
                words.append([_Word(0, width, _slice(unit.reads, total, width))])
                total += width
            units[i] = unit._replace(rows=words)
        module.layer(f"{name}_part{level}", read, parts, total)
        read = (f"{name}_part{level}", total)
    module.lines += ["", title]
    module.layer(name, read, units, len(units) * given)
    return name


def _groups(rows: list[Row]) -> list[list[Row]]:
    """Return operands in groups of about one size, none larger than 16."""
    size = -(-len(rows) // max(1, -(-len(rows) // ROWS)))
    return [rows[start : start + size] for start in range(0, len(rows), size)] if rows else []


def _units(layer: Sums, source: str, bits: int, score_bits: int) -> Iterator[_Sum]:
    """Yield the units of a layer at every position, each with its offset, exact width and what it gives."""
    numbers = np.arange(prod(layer.shape)).reshape(layer.shape)
    numbers = np.pad(numbers, [(0, 0), *((pad, pad) for pad in layer.padding)], constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(numbers, layer.weight.shape[2:], axis=(1, 2))
    windows = windows[:, :: layer.stride[0], :: layer.stride[1]]
    shared = layer.threshold if layer.threshold is not None else np.zeros((len(layer.weight), 0, 1, 1), np.int64)
    thresholds = np.broadcast_to(shared, (*shared.shape[:2], *layer.out_shape[1:]))
    given = layer.stairs.bit_length() or 1
    for i, (unit, y, x) in enumerate(np.ndindex(layer.out_shape)):
        codes, weight = windows[:, y, x].ravel(), layer.weight[unit].ravel()
        kept = (codes >= 0) & (weight != 0)
        codes, weight = codes[kept].tolist(), weight[kept]
        least, largest = (layer.top * int(f(weight, 0).sum()) for f in (np.minimum, np.maximum))
        stairs = thresholds[unit, :, y, x].tolist()
        live = [stair for stair in stairs if least <= stair < largest]
        always = sum(stair < least for stair in stairs)
        name = f"{layer.name.replace(' ', '')}_sum{i}"
        note = f"{layer.name}, unit {unit}" + (f" at row {y}, column {x}" if prod(layer.out_shape[1:]) > 1 else "")
        note += f": {len(codes)} weights, sums from {least} to {largest}"
        if layer.threshold is None:
            bias = int(layer.bias[unit])
            rows = _rows(weight.tolist(), codes, (source, bits), bias, score_bits)
            yield _Sum(source, name, score_bits, rows, name if rows else f"{score_bits}'d0", f"{note}, plus {bias}")
        elif not live:
            yield _Sum(source, name, 0, [], f"{given}'d{always}", f"{note}, always {always}")
        elif len(stairs) == 1:
            half = max((live[0] - least).bit_length(), (largest - live[0] - 1).bit_length())
            rows = _rows(weight.tolist(), codes, (source, bits), (1 << half) - 1 - live[0], half + 1)
            gives = f"{name} >= {half + 1}'d{1 << half}"
            yield _Sum(source, name, half + 1, rows, gives, f"{note}, 1 above {live[0]}")
        else:
            width = (largest - least).bit_length()
            rows = _rows(weight.tolist(), codes, (source, bits), -least, width)
            words = [_Word(0, 1, f"({name} > {width}'d{stair - least})") for stair in live]
            gives = _total([*([word] for word in words), *_constant(always)], given)
            yield _Sum(source, name, width, rows, gives, f"{note}, {always} and 1 above each of {live}")


def _rows(weight: list[int], codes: list[int], source: tuple[str, int], offset: int, width: int) -> list[Row]:
    """Return the operands of a weighted sum plus an offset, modulo 2^width, each code falling into the lowest rows."""
    name, bits = source
    height, rows = [0] * width, list[Row]()
    for value, code in zip(weight, codes, strict=True):
        for place, digit in _digits(value):
            count = min(bits, width - place)
            if digit < 0:  # -x = ~x + 1 - 2^b
                offset -= ((1 << bits) - 1) << place
            if count > 0:
                text = ("~" if digit < 0 else "") + _slice(name, code * bits, count)
                row = max(height[place : place + count])
                height[place : place + count] = [row + 1] * count
                rows += [[]] * (row == len(rows))
                rows[row] = sorted([*rows[row], _Word(place, count, text)])
    return [*rows, *_constant(offset % (1 << width))]


def _digits(weight: int) -> list[tuple[int, int]]:
    """Return a number as signed powers of two, places and signs, as few as possible."""
    sign, left, place = 1 if weight > 0 else -1, abs(weight), 0
    plain = [(place, sign) for place in range(left.bit_length()) if left >> place & 1]
    signed = []
    while left:
        if left & 1:
            digit = 2 - (left & 3)
            signed.append((place, sign * digit))
            left -= digit
        left, place = left >> 1, place + 1
    return min(plain, signed, key=len)


def _constant(value: int) -> list[Row]:
    """Return a number as an operand, none if it is 0."""
    return [[_Word(0, value.bit_length(), f"{value.bit_length()}'d{value}")]] if value else []


def _total(rows: list[Row], width: int) -> str:
    """Return a sum of operands as a balanced tree, two a line."""
    texts = []
    for row in rows:
        parts, top = list[str](), 0
        for place, bits, text in row:
            parts += [f"{place - top}'d0"] * (place > top) + [text]
            top = place + bits
        parts += [f"{width - top}'d0"] * (width > top)
        texts.append("{" + ", ".join(reversed(parts)) + "}" if len(parts) > 1 else parts[0])
    joint = " + "
    while len(texts) > 1:
        pairs = [f"({a}{joint}{b})" for a, b in zip(texts[::2], texts[1::2], strict=False)]
        texts, joint = pairs + texts[2 * len(pairs) :], "\n      + "
    return texts[0] if texts else f"{width}'d0"


def _slice(name: str, low: int, bits: int) -> str:
    """Return some bits of a signal."""
    return f"{name}[{low}]" if bits == 1 else f"{name}[{low + bits - 1}:{low}]"


def _pool(module: Module, layer: Pool, source: str, bits: int, shape: tuple[int, ...]) -> str:
    """Write a pooling: OR of bits, the largest of wider codes."""
    name = f"{source}_pool"
    windows = np.lib.stride_tricks.sliding_window_view(np.arange(prod(shape)).reshape(shape), layer.size, axis=(1, 2))
    windows = windows[:, :: layer.stride[0], :: layer.stride[1]]
    module.lines += ["", f"  // pooling: the largest of {prod(layer.size)} codes of {bits} bit"]
    if bits > 1:
        wire, larger = f"[{bits - 1}:0]", f"{name}_larger"
        module.lines += [f"  function {wire} {larger};", f"    input {wire} a;", f"    input {wire} b;"]
        module.lines += [f"    {larger} = (a > b) ? a : b;", "  endfunction"]
    reads, sums = f"{name}_in", list[_Sum]()
    for window in windows.reshape(-1, prod(layer.size)).tolist():
        texts = [_slice(reads, code * bits, bits) for code in window]
        while len(texts) > 1 and bits > 1:
            pairs = [f"{larger}({a}, {b})" for a, b in zip(texts[::2], texts[1::2], strict=False)]
            texts = pairs + texts[2 * len(pairs) :]
        sums.append(_Sum(reads, "", 0, [], " | ".join(texts), ""))
    module.layer(name, (source, prod(shape) * bits), sums, len(sums) * bits)
    return name


def _label(module: Module, source: str) -> None:
    """Write the search for the smallest index among the highest scores, and connect the outputs."""
    bits, count = module.score_bits, module.outputs
    left = [(_slice(source, k * bits, bits), f"{module.label_bits}'d{k}") for k in range(count)]
    level = 0
    while len(left) > 1:
        level += 1
        module.lines += ["", f"  // label, halving {level}: {len(left)} scores, the earlier one if they are equal"]
        signals = [(f"scores{level}", count * bits, source)] * module.clocked
        source = f"scores{level}" if module.clocked else source
        after = []
        for i, (score, label) in enumerate(left[::2]):
            best, value = (f"best{level}_{i}", f"label{level}_{i}"), (score, label)
            if 2 * i + 1 < len(left):
                other, second = left[2 * i + 1]
                module.lines.append(f"  wire first{level}_{i} = $signed({score}) >= $signed({other});")
                value = (f"first{level}_{i} ? {score} : {other}", f"first{level}_{i} ? {label} : {second}")
            if len(left) > 2:  # no one reads the highest of all scores
                signals.append((best[0], bits, value[0]))
            signals.append((best[1], module.label_bits, value[1]))
            after.append(best)
        module.stage(signals)
        left = after
    module.lines += ["", f"  assign scores = {source};", f"  assign label = {left[0][1]};"]
    module.lines += [f"  assign valid_out = valid{module.latency};"] * module.clocked
