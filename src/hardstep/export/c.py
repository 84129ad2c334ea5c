"""A frozen network as C99: the runtime that Python calls, the network as constants, nothing else needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from hardstep.export.compiler import RUNTIME
from hardstep.export.pack import Packed, pack
from hardstep.export.pack_sums import pack_sums
from hardstep.export.plan import WIDTHS, Choice, plan
from hardstep.hardnet import HardNet
from hardstep.lowered import lower
from hardstep.storage import write_bytes
from hardstep.version import __version__

__all__ = ["LAYOUTS", "to_c", "write_c"]

LAYOUTS = ("file", "folder", "cmake", "arduino")
KERNELS = {
    "planes": "lists.h",
    "bytes": "bytes.h",
    "rows": "rows.h",
    "front": "scatter.h",
    "sums": "sums.h",
}  # as in program.h


def to_c(
    hard: HardNet,
    *,
    name: str = "net",
    lanes: int = 64,
    tile: int = 1,
    small: bool = False,
    vectors: UInt8[np.ndarray, "n *d"] | None = None,
) -> str:
    """Return a network as one C99 file that `cc -O2 -c net.c` compiles alone; its scores are those of `hard`.

    Weights are `const`, memory is static and its size stated, nothing is allocated. The file gives

    - `int net_scores(const uint8_t *codes, int32_t *scores, size_t n)`: n samples, NET_INPUTS codes each, to
      NET_OUTPUTS scores each; 0, or the number of an error;
    - `int net_label(const uint8_t *codes)`: the label of one sample, below 0 for an error;
    - `int net_run(codes, scores, n, scratch)`: reentrant, with NET_SCRATCH bytes from the caller;
    - with -DNET_MAIN a program that prints the scores of `vectors`, or of the codes it reads from its standard input.

    Codes are what `hard.codes(x)` gives: numbers become codes outside, by `hard.grid`.

    Parameters
    ----------
    name
        Prefix of all names, a C identifier.
    lanes
        Bits of a vector: 64 runs everywhere; 128, 256 and 512 need GCC or Clang and options such as -mavx2 to be fast.
    tile
        Samples that go through together: more are faster in batches and take more memory.
    small
        Leave the table of bit positions out: 2 kB less flash, slower.
    vectors
        Samples to print the scores of, for tests on a target.

    Raises
    ------
    ValueError
        If the name is no identifier, or the runtime cannot hold a layer exactly; it is named with the bound.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hard = hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=data.train)
    >>> text = to_c(hard, name="digits")
    >>> "int digits_label(const uint8_t *codes)" in text
    True
    """
    packed, choices = _packed(hard, name, lanes, tile, plain=True)
    return _one_file(
        _head(hard, name, packed, choices), _kernels(hard, choices), small, _network(name, packed, hard, vectors)
    )


def write_c(
    hard: HardNet,
    folder: Path | str,
    *,
    layout: str = "file",
    name: str = "net",
    lanes: int = 64,
    tile: int = 1,
    small: bool = False,
) -> list[Path]:
    """Write a network as C into a folder and return the files; each appears whole or not at all.

    Parameters
    ----------
    layout
        "file": name.c alone, from `to_c`, with name.h. "folder": the network, and beside it the runtime with all
        instruction sets, chosen when it runs (lanes 256 or 512 pay there). "cmake": the same with a CMakeLists.txt.
        "arduino": a library of one file and a sketch.
    name, lanes, tile, small
        See `to_c`.

    Raises
    ------
    ValueError
        As `to_c`, and for an unknown layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {layout!r}")
    packed, choices = _packed(hard, name, lanes, tile, plain=layout in ("file", "arduino"))
    head, network = _head(hard, name, packed, choices), _network(name, packed, hard, None)
    texts = {f"{name}.h": _header(hard, name, packed)}
    if layout in ("file", "arduino"):
        texts[f"{name}.c"] = _one_file(head, _kernels(hard, choices), small, network)
    else:
        texts[f"{name}.c"] = "\n".join([head, '#include "hardstep.h"\n', network])
        texts |= {path.name: path.read_text() for path in sorted(RUNTIME.glob("*.[ch]"))}
    if layout == "cmake":
        texts["CMakeLists.txt"] = (
            f"cmake_minimum_required(VERSION 3.10)\nproject({name} C)\nset(CMAKE_C_STANDARD 99)\n"
            f"add_library({name} {name}.c hardstep.c)\n"
            f"target_include_directories({name} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})\n"
            f"add_executable({name}_main {name}.c hardstep.c)\n"
            f"target_compile_definitions({name}_main PRIVATE {name.upper()}_MAIN)\n"
        )
    if layout == "arduino":
        texts = {f"src/{file}": text for file, text in texts.items()}
        texts["library.properties"] = (
            f"name={name}\nversion=1.0.0\nauthor=hardstep\nmaintainer=hardstep\nsentence=A network of hard steps.\n"
            "paragraph=Exact integers, no allocation.\ncategory=Data Processing\nurl=\narchitectures=*\n"
        )
        texts[f"examples/{name}/{name}.ino"] = (
            f"#include <{name}.h>\n\nstatic uint8_t codes[{name.upper()}_INPUTS];\n\n"
            "void setup() { Serial.begin(115200); }\n\n"
            f"void loop() {{\n  /* fill codes here */\n  Serial.println({name}_label(codes));\n  delay(1000);\n}}\n"
        )
    for file, text in texts.items():
        write_bytes(Path(folder) / file, text.encode())
    return [Path(folder) / file for file in texts]


def _packed(hard: HardNet, name: str, lanes: int, tile: int, *, plain: bool) -> tuple[Packed, Sequence[Choice]]:
    """Return the network for the runtime, with lanes of outputs; `plain` for the baseline alone."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name.startswith("hs_"):
        raise ValueError(f"name must be a C identifier that does not begin with hs_, got {name!r}")
    if not 1 <= tile <= 512:
        raise ValueError(f"tile must be 1 to 512 samples, got {tile}")
    if not hard.of_codes:
        return pack_sums(hard), ()
    layers = lower(hard, behind_front=True)
    choices = plan(layers, lanes=lanes)
    return pack(layers, choices, tile=tile, front=hard.front, plain=plain), choices


def _one_file(head: str, kernels: str, small: bool, network: str) -> str:
    """Return a file that needs no other: comment, options, runtime and network."""
    options = ["#define HS_NO_SAMPLES", *(["#define HS_SMALL"] if small or "hs_positions" not in kernels else [])]
    return "\n".join([head, *options, _inlined("hardstep.c", set(), kernels), network])


def _inlined(file: str, seen: set[str], kernels: str = "") -> str:
    """Return a file of the runtime with its own headers in place of their includes, each once; one set of kernels."""
    seen.add(file)
    lines = []
    for line in (RUNTIME / file).read_text().splitlines():
        found = re.fullmatch(r'#include "(.*)"', line)
        if not found:
            lines.append(line)
        elif found[1] == "isas.h":
            lines.append(kernels)
        elif found[1] not in seen or found[1] == "cells.h":  # for each width of cells
            lines.append(_inlined(found[1], seen))
    return "\n".join(lines)


def _kernels(hard: HardNet, choices: Sequence[Choice]) -> str:
    """Return the kernels that a network needs, for the instruction set that the compiler is told, and their table."""
    widths = sorted({choice.lanes for choice in choices})
    files = ["lists.h", "bytes.h", *["scatter.h"] * bool(hard.front), "rows.h"] if hard.of_codes else ["sums.h"]
    lines = ["#define ISA baseline", *(_inlined(file, set()) for file in ("names.h", *files))]
    for width in widths:
        lines += [f"#define LANES {width}", _inlined("lanes.h", set()), _inlined("samples.h", set())]
    numbers = ", ".join(f"{name}_any_baseline" if file in files else "NULL" for name, file in KERNELS.items())
    outputs = ", ".join(f"outputs_{width}_baseline" if width in widths else "NULL" for width in WIDTHS)
    none = "{NULL, NULL, NULL, NULL}"
    table = f"{{{numbers}, {{{outputs}}}, {none}, {none}, {none}}}"
    lines += ["#undef ISA", f"static const kernels hs_kernels[] = {{{table}}};", "int hs_isa(void) { return 0; }"]
    return "\n".join(lines)


def _head(hard: HardNet, name: str, packed: Packed, choices: Sequence[Choice]) -> str:
    """Return the comment on top: what it is, and what it takes."""
    layers = "\n".join(f" *   {choice}" for choice in choices)
    return (
        f"/* {name}: a network of hard steps, made by hardstep {__version__}. C99, exact integers.\n *\n"
        f" * flash: {len(packed.data):,} bytes of constants and the code; RAM: {packed.scratch:,} bytes, static.\n"
        f" * {hard.macs:,} products a sample; one unit of a score is worth {hard.scale!r}.\n *\n{layers}\n */\n"
    )


def _header(hard: HardNet, name: str, packed: Packed) -> str:
    """Return name.h."""
    upper, (inputs, outputs) = name.upper(), _sizes(hard)
    return (
        f"#ifndef {upper}_H\n#define {upper}_H\n\n#include <stddef.h>\n#include <stdint.h>\n\n"
        f"#define {upper}_INPUTS {inputs}\n#define {upper}_OUTPUTS {outputs}\n"
        f"#define {upper}_SCRATCH {packed.scratch}\n\n"
        '#ifdef __cplusplus\nextern "C" {\n#endif\n\n'
        f"int {name}_run(const uint8_t *codes, int32_t *scores, size_t n, void *scratch);\n"
        f"int {name}_scores(const uint8_t *codes, int32_t *scores, size_t n);\n"
        f"int {name}_label(const uint8_t *codes);\n\n"
        "#ifdef __cplusplus\n}\n#endif\n\n#endif\n"
    )


def _sizes(hard: HardNet) -> tuple[int, int]:
    """Return codes and scores of a sample."""
    return int(np.prod(hard.shape)), hard.rows()[-1].gives[0]


def _network(name: str, packed: Packed, hard: HardNet, vectors: NDArray[Any] | None) -> str:
    """Return the constants and the functions of the network, and its program."""
    upper, (inputs, outputs) = name.upper(), _sizes(hard)
    words = np.frombuffer(packed.data + bytes(-len(packed.data) % 8), "<u8")
    main = _MAIN_VECTORS if vectors is not None else _MAIN_STDIN
    if vectors is not None:
        rows = hard.codes(vectors).reshape(len(vectors), -1)
        main = main.replace("VECTORS", _literals(rows.ravel(), "u", 16)).replace("COUNT", str(len(rows)))
    values = {
        "UPPER": upper, "NAME": name, "INPUTS": str(inputs), "OUTPUTS": str(outputs),
        "SCRATCH": str(packed.scratch), "BYTES": str(len(packed.data)), "DATA": _literals(words, "u", 4), "MAIN": main,
    }  # fmt: skip
    text = _TEMPLATE
    for key in ("MAIN", "UPPER", "NAME", "INPUTS", "OUTPUTS", "SCRATCH", "BYTES", "DATA"):
        text = text.replace(f"@{key}@", values[key])
    return text


def _literals(values: NDArray[np.unsignedinteger[Any]], suffix: str, across: int) -> str:
    """Return numbers as lines of C."""
    texts = [f"{value}{suffix}" if value < 1000 else f"0x{value:x}{suffix}" for value in values.tolist()]
    return ",\n    ".join(", ".join(texts[i : i + across]) for i in range(0, len(texts), across))


_TEMPLATE = """
#ifndef @UPPER@_H
#define @UPPER@_INPUTS @INPUTS@
#define @UPPER@_OUTPUTS @OUTPUTS@
#define @UPPER@_SCRATCH @SCRATCH@
#endif

#if defined(__GNUC__)
#define @UPPER@_ALIGNED __attribute__((aligned(64)))
#else
#define @UPPER@_ALIGNED
#endif

static const uint64_t @NAME@_data[] @UPPER@_ALIGNED = {
    @DATA@};

int @NAME@_run(const uint8_t *codes, int32_t *scores, size_t n, void *scratch);
int @NAME@_scores(const uint8_t *codes, int32_t *scores, size_t n);
int @NAME@_label(const uint8_t *codes);

/* Checks the constants on every call; for one that does not, keep the hs_model and call hs_run. */
int @NAME@_run(const uint8_t *codes, int32_t *scores, size_t n, void *scratch) {
    hs_model model;
    const int error = hs_open(&model, @NAME@_data, @BYTES@);
    if (error) return error;
    if (model.scratch > @SCRATCH@) return HS_TRUNCATED;
    hs_run(&model, codes, scores, n, scratch);
    return HS_OK;
}

static uint64_t @NAME@_scratch[@SCRATCH@ / 8] @UPPER@_ALIGNED;

static hs_model @NAME@_model;

int @NAME@_scores(const uint8_t *codes, int32_t *scores, size_t n) {
    if (!@NAME@_model.data) {
        const int error = hs_open(&@NAME@_model, @NAME@_data, @BYTES@);
        if (error || @NAME@_model.scratch > sizeof @NAME@_scratch) {
            @NAME@_model.data = NULL;
            return error ? error : HS_TRUNCATED;
        }
    }
    hs_run(&@NAME@_model, codes, scores, n, @NAME@_scratch);
    return HS_OK;
}

int @NAME@_label(const uint8_t *codes) {
    int32_t scores[@OUTPUTS@];
    uint32_t label;
    const int error = @NAME@_scores(codes, scores, 1);
    if (error) return -error;
    hs_labels(scores, &label, 1, @OUTPUTS@);
    return (int)label;
}

#ifdef @UPPER@_MAIN
@MAIN@
#endif
"""

_MAIN_STDIN = """#include <stdio.h>

int main(void) {
    static uint8_t codes[@INPUTS@];
    static int32_t scores[@OUTPUTS@];
    while (fread(codes, 1, @INPUTS@, stdin) == @INPUTS@) {
        const int error = @NAME@_scores(codes, scores, 1);
        if (error) {
            fprintf(stderr, "%s\\n", hs_error(error));
            return 1;
        }
        for (size_t j = 0; j < @OUTPUTS@; j++) printf("%ld%c", (long)scores[j], j + 1 < @OUTPUTS@ ? ' ' : '\\n');
    }
    return 0;
}"""

_MAIN_VECTORS = """#include <stdio.h>

static const uint8_t @NAME@_vectors[] = {
    VECTORS};

int main(void) {
    static int32_t scores[@OUTPUTS@];
    for (size_t i = 0; i < COUNT; i++) {
        const int error = @NAME@_scores(@NAME@_vectors + i * @INPUTS@, scores, 1);
        if (error) {
            printf("error: %s\\n", hs_error(error));
            return 1;
        }
        for (size_t j = 0; j < @OUTPUTS@; j++) printf("%ld%c", (long)scores[j], j + 1 < @OUTPUTS@ ? ' ' : '\\n');
    }
    return 0;
}"""
