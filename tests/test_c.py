"""Exported C: compiles clean and alone, and prints the scores of the reference, here and on a Cortex-M."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import hardstep as hs
from hardstep.export.c import LAYOUTS
from hardstep.export.compiler import RUNTIME
from hardstep.export.pack import pack
from hardstep.export.plan import plan
from hardstep.hardnet import HardNet
from hardstep.lowered import lower
from tests.networks import drawn, network, samples

STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
COMPILERS = [
    pytest.param(name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"{name} is not installed"))
    for name in ("gcc", "clang")
]
needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
ARM = [tool for tool in ("arm-none-eabi-gcc", "qemu-system-arm") if not shutil.which(tool)]
NEON = [tool for tool in ("aarch64-linux-gnu-gcc", "qemu-aarch64") if not shutil.which(tool)]


def run(command: list[str | Path], data: bytes = b"") -> str:
    done = subprocess.run([str(part) for part in command], input=data, capture_output=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout.decode()[-500:]} {done.stderr.decode()[-1500:]}"
    return done.stdout.decode()


def scores(text: str) -> NDArray[np.int64]:
    return np.array([line.split() for line in text.splitlines()], np.int64)


def compiled(net: HardNet, folder: Path, compiler: str, *options: str, **how: object) -> Path:
    (folder / "net.c").write_text(hs.to_c(net, **how))  # type: ignore[arg-type]
    program = folder / "net"
    run([compiler, *STRICT, *options, "-DNET_MAIN", folder / "net.c", "-o", program])
    return program


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("seed", range(4))
def test_one_file_compiles_without_a_warning_and_gives_the_same_scores(
    compiler: str, seed: int, tmp_path: Path
) -> None:
    net = drawn(seed)
    x = samples(np.random.default_rng(seed), net.shape, 40)
    for how in ({"lanes": 64}, {"lanes": 64, "small": True, "tile": 3}, {"lanes": 256, "tile": 2}):
        program = compiled(net, tmp_path, compiler, "-O2", **how)
        assert np.array_equal(scores(run([program], x.tobytes())), net(x)), how


@needs_gcc
def test_all_inputs_of_a_small_network(tmp_path: Path) -> None:
    net = network(1, shape=(2,), widths=(17, 9), kinds=("8-bit", "4-bit", "8-bit"), stairs=(3, 1))
    pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=-1).reshape(-1, 2).astype(np.uint8)
    program = compiled(net, tmp_path, "gcc", "-O2")
    assert np.array_equal(scores(run([program], pairs.tobytes())), net(pairs))


@needs_gcc
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_compiles_and_labels_as_the_reference(layout: str, tmp_path: Path) -> None:
    net = network(2, shape=(1, 8, 8), widths=(9, 20), codes=("sign", "step"), pool=2)
    files = hs.write_c(net, tmp_path / "out", layout=layout, name="cat", lanes=256)
    assert all(file.is_file() for file in files)
    folder = tmp_path / "out" / ("src" if layout == "arduino" else "")
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "cat.h"\nint main(void) {\n  static uint8_t codes[CAT_INPUTS];\n'
        "  while (fread(codes, 1, CAT_INPUTS, stdin) == CAT_INPUTS)\n"
        '    printf("%d\\n", cat_label(codes));\n  return 0;\n}\n'
    )
    program = tmp_path / "program"
    run(["gcc", *STRICT, "-O1", "-I", folder, tmp_path / "main.c", *sorted(folder.glob("*.c")), "-o", program])
    x = samples(np.random.default_rng(0), net.shape, 30)
    assert np.array_equal(scores(run([program], x.tobytes()))[:, 0], net.predict(x))
    if layout == "cmake" and shutil.which("cmake"):
        run(["cmake", "-S", folder, "-B", tmp_path / "build"])
        run(["cmake", "--build", tmp_path / "build"])
        assert np.array_equal(scores(run([tmp_path / "build" / "cat_main"], x.tobytes())), net(x))


@needs_gcc
def test_stated_memory_is_what_the_runtime_asks_for(tmp_path: Path) -> None:
    probe = '\n#include <stdio.h>\nint main(void) { hs_model m; hs_open(&m, net_data, %d); printf("%%zu", m.scratch); }'
    for seed in range(6):
        net = drawn(seed)
        text = hs.to_c(net, tile=1 + seed, lanes=(64, 256)[seed % 2])
        stated, length = (int(re.findall(rf"{key}(\d+)", text)[0]) for key in ("NET_SCRATCH ", "net_data, "))
        (tmp_path / "net.c").write_text(text + probe % length)
        run(["gcc", "-std=c99", tmp_path / "net.c", "-o", tmp_path / "net"])
        assert int(run([tmp_path / "net"])) == stated


@needs_gcc
@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
def test_valgrind_finds_nothing(tmp_path: Path) -> None:
    for seed in (1, 3):
        net = drawn(seed)
        x = samples(np.random.default_rng(seed), net.shape, 3)
        program = compiled(net, tmp_path, "gcc", "-g", "-O1")
        out = run(["valgrind", "-q", "--error-exitcode=9", "--leak-check=full", program], x.tobytes())
        assert np.array_equal(scores(out), net(x))


@needs_gcc
def test_thirty_two_bit_machine_gives_the_same(tmp_path: Path) -> None:
    net = drawn(3)
    x = samples(np.random.default_rng(3), net.shape, 10)
    (tmp_path / "empty.c").write_text("#include <stdio.h>\nint main(void) { return 0; }\n")
    probe = subprocess.run(
        ["gcc", "-m32", tmp_path / "empty.c", "-o", tmp_path / "e"], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip("gcc has no 32-bit C library here")
    program = compiled(net, tmp_path, "gcc", "-O2", "-m32")
    assert np.array_equal(scores(run([program], x.tobytes())), net(x))


@pytest.mark.skipif(bool(ARM), reason=f"{' and '.join(ARM)} not installed")
@pytest.mark.parametrize("seed", [1, 3])
@pytest.mark.parametrize("small", [False, True])
def test_cortex_m_gives_the_same_scores_under_qemu(seed: int, small: bool, tmp_path: Path) -> None:
    net = drawn(seed)
    x = samples(np.random.default_rng(seed), net.shape, 12)
    (tmp_path / "net.c").write_text(hs.to_c(net, small=small, vectors=x))
    (tmp_path / "start.c").write_text(START)
    (tmp_path / "board.ld").write_text(BOARD)
    cross, target = "arm-none-eabi-gcc", ["-mcpu=cortex-m4", "-mthumb", "-O2"]
    for file, options in (("net", [*STRICT, "-DNET_MAIN"]), ("start", [])):
        run([cross, *target, *options, "-c", tmp_path / f"{file}.c", "-o", tmp_path / f"{file}.o"])
    objects = [tmp_path / "start.o", tmp_path / "net.o"]
    program = tmp_path / "net.elf"
    run([cross, *target, "-specs=rdimon.specs", "-nostartfiles", *objects, "-T", tmp_path / "board.ld", "-o", program])
    out = run(["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-semihosting", "-kernel", program])
    assert np.array_equal(scores(out), net(x))


@pytest.mark.skipif(bool(NEON), reason=f"{' and '.join(NEON)} not installed")
def test_every_kernel_gives_the_same_scores_with_neon_under_qemu(tmp_path: Path) -> None:
    program = tmp_path / "run"
    sources = [RUNTIME / "hardstep.c", Path(__file__).with_name("run_model.c")]
    run(["aarch64-linux-gnu-gcc", *STRICT, "-O2", "-static", f"-I{RUNTIME}", *sources, "-o", program])
    for seed, lanes, only in product((1, 3, 6), (64, 128, 256), ("bytes", "outputs", "samples", "rows")):
        net = drawn(seed)
        x = samples(np.random.default_rng(seed), net.shape, 2 * lanes + 3)
        layers = lower(net)
        packed = pack(layers, plan(layers, lanes=lanes, batch=len(x), only=only), tile=lanes)
        (tmp_path / "model").write_bytes(packed.data)
        out = run(["qemu-aarch64", program, tmp_path / "model"], x.tobytes())
        assert np.array_equal(scores(out), net(x)), (seed, lanes, only)


START = """
#include <stdlib.h>
extern void initialise_monitor_handles(void);
extern int main(void);
extern unsigned char __bss_start__[], __bss_end__[];
static void start(void) {
    for (unsigned char *at = __bss_start__; at < __bss_end__; at++) *at = 0;
    initialise_monitor_handles();
    exit(main());
}
__attribute__((section(".vectors"), used)) void *const vectors[2] = {(void *)0x20400000, (void *)start};
void _init(void) {}
void _fini(void) {}
"""

BOARD = """
MEMORY { FLASH (rx) : ORIGIN = 0, LENGTH = 4M  RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 4M }
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > FLASH
  .ARM.exidx : { *(.ARM.exidx*) } > FLASH
  .data : { *(.data*) *(.init_array*) *(.fini_array*) } > RAM
  .bss : { __bss_start__ = .; *(.bss*) *(COMMON) __bss_end__ = .; } > RAM
  end = .;
}
"""


def test_bad_options_are_one_clear_error(tmp_path: Path) -> None:
    net = network(0)
    with pytest.raises(ValueError, match="C identifier that does not begin with hs_, got '1x'"):
        hs.to_c(net, name="1x")
    with pytest.raises(ValueError, match="tile must be 1 to 512 samples, got 0"):
        hs.to_c(net, tile=0)
    with pytest.raises(ValueError, match="layout must be one of file, folder, cmake, arduino; got 'x'"):
        hs.write_c(net, tmp_path, layout="x")


def test_exported_text_is_the_same_each_time() -> None:
    assert hs.to_c(network(0)) == hs.to_c(network(0))
