"""The C runtime against the NumPy reference on a million drawn cases, and a hundred thousand mutated models.

    python benchmarks/quality/exactness.py [--cases 1000000] [--sums 1000000] [--mutants 100000]

A case is one sample through one drawn network (tests/networks.py: all kinds of weights, codes, stairs, paddings,
poolings, thresholds on ties; every third with a scattering front end) by one kernel family, one instruction set and
one width. Networks with real sums (tests/summed.py: every layer kind of any size, totals of up to 64 bits) have one
kernel an instruction set; there a case is one sample by one instruction set and one or two threads. A mutant is a
packed model, of either sort, with some words changed, mostly with a checksum that fits; it is opened and, if that
succeeds, run, under AddressSanitizer and UBSan. Expected: no difference, no report. A quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np

from hardstep.engine import Engine, available_isas
from hardstep.export.compiler import RUNTIME, compiler
from hardstep.export.pack import Packed, pack
from hardstep.export.pack_sums import pack_sums
from hardstep.export.plan import Kernel, plan
from hardstep.lowered import lower

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.networks import drawn, samples
from tests.scattered import joined
from tests.summed import summed

from record import RESULTS, record

ROOT = Path(__file__).parents[2]
ROWS = 150  # samples of a network: more than two tiles of 64 lanes
FAMILIES = tuple(kernel.value for kernel in Kernel)


def exact(cases: int) -> tuple[int, int, int]:
    """Return networks, cases and differing samples."""
    done = wrong = 0
    for seed in count(10_000):
        if done >= cases or not available_isas():
            return seed - 10_000, done, wrong
        net = joined(seed)[1] if seed % 3 == 0 else drawn(seed)
        x = samples(np.random.default_rng(seed), net.shape, ROWS)
        wanted = net(x)
        for lanes in (64, 128, 256, 512):
            for family in FAMILIES:
                for isa in available_isas():
                    engine = Engine(net, isa=isa, lanes=lanes, only=family)
                    if engine.reason:
                        continue
                    differing = int((engine(x) != wanted).any(axis=1).sum())
                    if differing:
                        print(f"seed {seed}, {isa}, {lanes} lanes, {family}: {differing} samples differ", flush=True)
                    done, wrong = done + len(x), wrong + differing
    raise AssertionError


def exact_sums(cases: int) -> tuple[int, int, int]:
    """Return networks with real sums, cases and differing samples."""
    done = wrong = 0
    for seed in count(30_000):
        if done >= cases or not available_isas():
            return seed - 30_000, done, wrong
        net = summed(seed)
        x = samples(np.random.default_rng(seed), net.shape, ROWS)
        wanted = net(x)
        for isa in available_isas():
            for threads in (1, 2):
                engine = Engine(net, isa=isa, threads=threads, sample=x[:2])
                assert not engine.reason, engine.reason
                differing = int((engine(x) != wanted).any(axis=1).sum())
                if differing:
                    print(f"seed {seed}, real sums, {isa}, {threads} threads: {differing} samples differ", flush=True)
                done, wrong = done + len(x), wrong + differing
    raise AssertionError


def models(seed: int) -> Iterator[tuple[str, Packed]]:
    """Yield packed models of a seed: one drawn network by every kernel, and one with real sums."""
    net = joined(seed)[1] if seed % 3 == 0 else drawn(seed)
    layers = lower(net, behind_front=True)
    for family in FAMILIES:
        for lanes in (64, 256):
            with suppress(ValueError):  # a bound of the runtime
                choices = plan(layers, lanes=lanes, batch=10**6, only=family)
                yield f"{family}, {lanes} lanes", pack(layers, choices, tile=3, front=net.front)
    yield "real sums", pack_sums(summed(seed))


def fuzz(mutants: int) -> tuple[int, int]:
    """Return models opened of those mutated; a report of the sanitisers ends it."""
    opened = total = 0
    with tempfile.TemporaryDirectory() as folder:
        program, model = Path(folder) / "fuzz", Path(folder) / "model"
        options = ["-std=gnu99", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover", "-I", str(RUNTIME)]
        subprocess.run([str(compiler()), *options, str(ROOT / "tests/fuzz_runtime.c"), "-o", str(program)], check=True)
        for seed in count(20_000):
            for name, packed in models(seed):
                if total >= mutants:
                    return opened, total
                model.write_bytes(packed.data)
                done = subprocess.run([program, model, "500", str(seed)], capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"seed {seed}, {name}:\n{done.stderr[-3000:]}")
                opened, total = opened + int(done.stdout.split()[0]), total + 500
    raise AssertionError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--sums", type=int, default=1_000_000, help="cases of networks with real sums")
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    logging.getLogger("hardstep").setLevel(logging.ERROR)  # networks beyond a bound are drawn too, and not counted
    start = time.perf_counter()
    networks, cases, wrong = exact(options.cases)
    print(f"{networks} networks, {cases:,} cases, {wrong} samples differ", flush=True)
    sums, sum_cases, sum_wrong = exact_sums(options.sums)
    print(f"{sums} networks with real sums, {sum_cases:,} cases, {sum_wrong} samples differ", flush=True)
    opened, mutants = fuzz(options.mutants) if compiler() and options.mutants else (0, 0)
    print(f"{mutants:,} mutants, {opened:,} opened and run, nothing read outside")
    record(
        options.results, "exactness", networks=networks, cases=cases, differing=wrong, isas=available_isas(),
        sums=sums, sum_cases=sum_cases, sum_differing=sum_wrong, mutants=mutants, opened=opened,
        seconds=round(time.perf_counter() - start),
    )  # fmt: skip


if __name__ == "__main__":
    main()
