"""Packed 0/1 matrices: products against exact integers, any shape, every instruction set here; the C watched."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from hardstep.convex import bit_kernels
from hardstep.convex.bit_kernels import available_isas, best_isa
from hardstep.convex.bit_matrix import BitMatrix
from hardstep.convex.patterns import patterns
from hardstep.export.compiler import CONVEX, compiler
from tests.test_c import COMPILERS, STRICT, run

HERE = Path(__file__).parent
ISAS = ("numpy", *available_isas())
SHAPES = [
    *((1, 1), (0, 3), (7, 0), (63, 5), (64, 1), (65, 31), (100, 33), (511, 128), (512, 129), (513, 7)),
    *((1000, 300), (2047, 16), (2049, 2), (4097, 130)),
]
every_isa = pytest.mark.parametrize("isa", ISAS)


def drawn(n: int, p: int, density: float = 0.4) -> np.ndarray:
    return np.random.default_rng(n + p).random((n, p)) < density


@every_isa
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_bits_come_back_and_products_equal_whole_numbers(n: int, p: int, isa: str) -> None:
    d = drawn(n, p)
    matrix = BitMatrix.from_bools(d, isa=isa)
    assert matrix.shape == (n, p)
    assert np.array_equal(matrix.unpack(), d)
    generator, whole = np.random.default_rng(1), d.astype(np.int64)
    for outputs in (1, 4, 7):
        v, u = generator.integers(-99, 100, (n, outputs)), generator.integers(-99, 100, (p, outputs))
        u[::2] = 0
        pulled = matrix.pull(v.astype(float))
        assert pulled.shape == (p, outputs)
        assert np.abs(pulled - whole.T @ v).max(initial=0) <= 1e-12 * np.abs(v).sum(axis=0).max(initial=0)
        assert np.array_equal(matrix.push(u.astype(float)), whole @ u)
    assert np.array_equal(matrix.gram(), whole.T @ whole)
    assert np.array_equal(matrix.counts(), whole.sum(axis=0))


@every_isa
@pytest.mark.parametrize("density", [0.0, 1 / 200, 1.0])
def test_every_density_and_gram_with_other_columns(isa: str, density: float) -> None:
    left, right = drawn(777, 200, density), drawn(777, 131, 0.5)
    one, other = (BitMatrix.from_bools(d, isa=isa) for d in (left, right))
    assert np.array_equal(one.gram(other), left.astype(np.int64).T @ right)
    assert np.array_equal(one.gram(one), one.gram())
    v = np.arange(777.0)[:, None]
    assert np.array_equal(np.round(one.pull(v), 6), left.T @ v)


@every_isa
def test_sums_at_their_largest_do_not_overflow(isa: str) -> None:
    n = 127 * 512 + 600  # beyond what sums of 16 bits hold
    matrix = BitMatrix.from_bools(np.ones((n, 3), bool), isa=isa)
    assert np.array_equal(matrix.gram(), np.full((3, 3), n))
    for size in (1.0, -1.0, 1.0 - 2.0**-53, -(2.0**70)):
        for accuracy in (1e-3, 1e-9, 1e-12):
            found = matrix.pull(np.full((n, 1), size), accuracy=accuracy)
            assert np.abs(found - n * size).max() <= accuracy * n * abs(size)


@every_isa
@pytest.mark.parametrize("kind", ["gauss", "spike", "scales", "tiny"])
@pytest.mark.parametrize("accuracy", [1e-2, 1e-6, 1e-12, 1e-15])
def test_error_is_within_the_share_that_was_asked(isa: str, kind: str, accuracy: float) -> None:
    n, p = 1500, 20
    generator = np.random.default_rng(3)
    v = generator.standard_normal((n, 3)) * [1.0, 1e-8, 1e5]
    if kind == "spike":
        v *= 1e-15
        v[7] = 1.0
    if kind == "scales":
        v *= np.exp(20 * generator.standard_normal((n, 1)))
    if kind == "tiny":
        v *= 1e-290
    d = generator.random((n, p)) < 0.5
    found = BitMatrix.from_bools(d, isa=isa).pull(v, accuracy=accuracy)
    for j, c in product(range(0, p, 5), range(3)):
        exact = sum(map(Fraction, v[d[:, j], c]), Fraction(0))
        share = max(accuracy, 1e-14 if isa in ("numpy", "baseline") else 0)
        room = Fraction(share) * sum(map(Fraction, np.abs(v[:, c])))
        assert abs(Fraction(found[j, c]) - exact) <= room + abs(exact) * Fraction(2) ** -52


@pytest.mark.skipif(len(ISAS) < 3, reason="only one kernel here")
def test_more_digits_than_there_are_fall_back_to_sums_of_doubles() -> None:
    d = drawn(1500, 9)
    v = np.full((1500, 1), 1e-9)
    v[3] = 1.0
    by_doubles, by_digits = (BitMatrix.from_bools(d, isa=isa).pull(v, accuracy=1e-17) for isa in ("baseline", ISAS[-1]))
    assert np.array_equal(by_doubles, by_digits)
    assert not np.array_equal(by_doubles, BitMatrix.from_bools(d, isa=ISAS[-1]).pull(v, accuracy=1e-3))


@every_isa
def test_threads_and_blocks_change_no_bit(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    d = drawn(3000, 700)
    generator = np.random.default_rng(0)
    v, u = generator.standard_normal((3000, 3)), generator.standard_normal((700, 3))
    whole = BitMatrix.from_bools(d, isa=isa)
    wanted = whole.pull(v), whole.push(u), whole.gram()
    monkeypatch.setattr(bit_kernels, "WORTH", 0)
    split = BitMatrix.from_bools(d, isa=isa, threads=3)
    for one, other in zip(wanted, (split.pull(v), split.push(u), split.gram()), strict=True):
        assert np.array_equal(one, other)
    monkeypatch.setattr(bit_kernels, "TABLES", 1 << 15)
    monkeypatch.setattr(bit_kernels, "ACTIVE", 64)
    assert np.allclose(split.pull(v), wanted[0], rtol=0, atol=1e-11)
    assert np.allclose(split.push(u), wanted[1], rtol=0, atol=1e-11)


def test_small_problems_are_unpacked_and_large_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    for name in ("pull", "push"):
        kept = getattr(bit_kernels, name)
        monkeypatch.setattr(bit_kernels, name, lambda *a, n=name, k=kept: (used.append(n), k(*a))[1])
    for n, p in ((40, 3), (4000, 400)):
        d = drawn(n, p)
        matrix, v, u = BitMatrix.from_bools(d), np.ones((n, 1)), np.ones((p, 1))
        assert np.allclose(matrix.pull(v), d.T @ v, rtol=0, atol=1e-9)
        assert np.array_equal(matrix.push(u), d @ u)
        assert bool(used) == (n == 4000 and best_isa() != "numpy")


@every_isa
def test_planes_are_packed_block_by_block(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    x, planes = generator.integers(-2, 3, (130, 3)).astype(float), generator.integers(-2, 3, (77, 4)).astype(float)
    seen: list[int] = []

    def watched(rows: np.ndarray, part: np.ndarray) -> np.ndarray:
        seen.append(len(part))
        return patterns(rows, part)

    monkeypatch.setattr("hardstep.convex.bit_matrix.BLOCK", 1000)
    monkeypatch.setattr("hardstep.convex.bit_matrix.patterns", watched)
    matrix = BitMatrix.from_planes(x, planes, isa=isa)
    assert np.array_equal(matrix.unpack(), patterns(x, planes))
    assert max(seen) * 130 <= 1000


def test_columns_are_put_together_and_chosen() -> None:
    left, right = drawn(600, 40), drawn(600, 9)
    both = BitMatrix.from_bools(left, threads=2).hstack(BitMatrix.from_bools(right))
    assert both.threads == 2
    assert np.array_equal(both.unpack(), np.hstack([left, right]))
    assert both.nbytes == 49 * 1024 // 8
    numbers, marks = np.array([41, 3, 3]), np.arange(49) % 5 == 0
    assert np.array_equal(both.take(numbers).unpack(), both.unpack()[:, numbers])
    assert np.array_equal(both.take(marks).unpack(), both.unpack()[:, marks])


@every_isa
def test_bad_input_is_one_clear_error(isa: str) -> None:
    matrix = BitMatrix.from_bools(drawn(70, 5), isa=isa)
    for bad in (np.nan, np.inf, -np.inf, 1e308):
        with pytest.raises(ValueError, match="V is not finite"):
            matrix.pull(np.full((70, 2), bad))
        with pytest.raises(ValueError, match="U is not finite"):
            matrix.push(np.full((5, 2), bad))
    with pytest.raises(ValueError, match="the matrix has 70 rows, the V given 71"):
        matrix.pull(np.ones((71, 1)))
    with pytest.raises(ValueError, match="U has 4 rows, but the matrix has 5 columns"):
        matrix.push(np.ones((4, 1)))
    with pytest.raises(ValueError, match="the matrix has 70 rows, the columns given 71"):
        matrix.gram(BitMatrix.from_bools(drawn(71, 5)))
    with pytest.raises(ValueError, match="accuracy must be positive, got 0"):
        matrix.pull(np.ones((70, 1)), accuracy=0.0)
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        BitMatrix(matrix.words, 70, threads=0)
    with pytest.raises(ValueError, match="instruction set 'sse9' is not here, only numpy"):
        BitMatrix(matrix.words, 70, isa="sse9")
    with pytest.raises(ValueError, match="a column of 600 rows takes 16 adjacent words, got 8"):
        BitMatrix(matrix.words, 600)


def test_without_the_library_numpy_serves_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert best_isa(tmp_path / "none.so") == "numpy"
    assert available_isas(tmp_path / "none.so") == []
    assert caplog.text.count("install with a C compiler") == 1


@pytest.mark.parametrize("compiler", COMPILERS)
def test_kernels_compile_without_a_warning(compiler: str, tmp_path: Path) -> None:
    run([compiler, *STRICT, "-O2", "-c", CONVEX / "bit_matrix.c", "-o", tmp_path / "bits.o"])


@pytest.mark.skipif(compiler() is None, reason="there is no C compiler")
def test_sanitisers_find_nothing_and_plain_loops_agree(tmp_path: Path) -> None:
    program = tmp_path / "check"
    options = ["-std=c99", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover", "-I", str(CONVEX)]
    source = [str(HERE / "check_bit_matrix.c"), str(CONVEX / "bit_matrix.c"), "-lm", "-o", str(program)]
    built = subprocess.run([str(compiler()), *options, *source], capture_output=True, check=False)
    if built.returncode:
        pytest.skip(f"the compiler has no sanitisers: {built.stderr.decode()[-200:]}")
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert " 0 wrong" in done.stdout
