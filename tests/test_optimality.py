"""Certificates of optimality: sound against enumeration, checked from their file alone, rejected when tampered with."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hardstep.certify import check_optimality
from hardstep.certify.certificate import Certificate, Verdict
from hardstep.certify.optimality import Optimality, Units, read_units
from hardstep.convex.bit_matrix import BitMatrix
from hardstep.convex.data_terms import DataTerm, Logistic, Multinomial, Squared, SquaredHinge
from hardstep.convex.oracle_ascent import BatchedAscent
from hardstep.convex.oracle_local import LocalSearch
from hardstep.convex.oracle_milp import MixedInteger
from hardstep.convex.oracle_pairs import Pairs
from hardstep.convex.oracle_plane import PlaneSweep
from hardstep.convex.oracle_stumps import Stumps
from hardstep.convex.oracle_vertices import Enumeration
from hardstep.convex.oracles import Oracle
from hardstep.convex.patterns import patterns
from hardstep.convex.solvers import largest_beta, solve
from hardstep.convex.sweep import separating_plane
from hardstep.grid import Grid
from hardstep.hard_layers import Dense
from hardstep.hardnet import HardNet

from .half_spaces import GRID, PLANES, on_features, separable

SCRIPT = Path(check_optimality.__file__)
TERMS = {"squared": Squared(), "logistic": Logistic(), "hinge": SquaredHinge(), "multinomial": Multinomial(3)}
every_term = pytest.mark.parametrize("name", TERMS)
CLASSES: dict[str, tuple[Oracle, int]] = {
    "plane": (PlaneSweep(), 2),
    "enumeration": (Enumeration(), 2),
    "stumps": (Stumps(), 1),
    "pairs": (Pairs(), 2),
    "milp": (MixedInteger(eps=1e-6, seconds=20.0), 2),
}


def labelled(name: str, x: np.ndarray) -> np.ndarray:
    generator = np.random.default_rng(len(x))
    if name == "squared":
        return generator.normal(size=(len(x), 2))
    return generator.permutation(len(x)) % (3 if name == "multinomial" else 2)


@cache
def _planes(name: str, features: int) -> np.ndarray:
    x = PLANES[name]
    found = []
    for bits in separable(x) if features == 2 else on_features(x, 1):
        if features == 2:
            found.append(separating_plane(x, bits))
            continue
        for j in range(x.shape[1]):
            plane = separating_plane(x[:, [j]], bits)
            if plane is not None:
                wide = np.zeros(3)
                wide[[j, 2]] = plane
                found.append(wide)
                break
    return np.array(found)


def optimum(data: str, term: DataTerm, y: np.ndarray, beta: float, features: int = 2) -> tuple[float, Units]:
    """The optimum over all half-spaces of a class, by listing them."""
    planes = _planes(data, features)
    found = solve(BitMatrix.from_bools(patterns(PLANES[data], planes)), y, term, beta, tol=1e-8)
    used = found.support
    return found.objective, Units(planes[used], found.u[used], found.intercept)


def worse(units: Units, factor: float) -> Units:
    return units._replace(u=units.u * factor)


def objective(units: Units, x: np.ndarray, y: np.ndarray, term: DataTerm, beta: float) -> float:
    f = patterns(x, units.planes) @ units.u + units.intercept
    return term.value(f, term.targets(y)) + beta * float(np.linalg.norm(units.u, axis=1).sum())


@every_term
@pytest.mark.parametrize("data", ["random", "repeated"])
def test_optimum_is_proved_and_worse_networks_are_refuted(name: str, data: str) -> None:
    x, term = PLANES[data], TERMS[name]
    y = labelled(name, x)
    least, best = optimum(data, term, y, 0.2)
    claim = Optimality(x, y, 0.2, term, gap=1e-6)
    certificate = claim.certify_units(best)
    assert certificate.verdict is Verdict.PROVED
    assert certificate.bounds["dual"] <= least * (1 + 1e-7)
    assert claim.check_units(certificate, best)
    bad = worse(best, 1.5)
    refuted = claim.certify_units(bad)
    assert refuted.verdict is Verdict.REFUTED
    assert refuted.bounds["better"] < objective(bad, x, y, term, 0.2)
    assert claim.check_units(refuted, bad)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("data", ["random", "grid"])
def test_every_kind_is_sound_against_enumeration(kind: str, data: str) -> None:
    (oracle, features), x, term = CLASSES[kind], PLANES[data], Squared()
    y = labelled("squared", x)[:, :1]
    _, best = optimum(data, term, y, 0.3, features)
    least = objective(best, x, y, term, 0.3)
    verdicts = set()
    for factor in (1.0, 0.5):
        units = worse(best, factor)
        ratio = objective(units, x, y, term, 0.3) / least
        for gap in (0.001, 0.2):
            claim = Optimality(x, y, 0.3, term, gap=gap, oracle=oracle)
            certificate = claim.certify_units(units)
            verdicts.add(certificate.verdict)
            assert certificate.verdict is not Verdict.PROVED or ratio <= 1 + gap
            assert certificate.verdict is not Verdict.REFUTED or ratio > 1 + gap
            assert not oracle.exact or certificate.verdict is not Verdict.UNKNOWN
            assert claim.check_units(certificate, units)
    assert {Verdict.PROVED, Verdict.REFUTED} <= verdicts


@pytest.mark.parametrize("oracle", [LocalSearch(chains=6), BatchedAscent()], ids=["local", "ascent"])
def test_heuristic_is_never_proved_and_a_claim_to_it_is_rejected(oracle: Oracle) -> None:
    x, term = PLANES["random"], Squared()
    y = labelled("squared", x)
    _, best = optimum("random", term, y, 0.3)
    claim = Optimality(x, y, 0.3, term, gap=0.5, oracle=oracle)
    certificate = claim.certify_units(best)
    assert certificate.verdict is Verdict.UNKNOWN
    assert claim.check_units(certificate, best)
    exact = replace(claim, oracle=PlaneSweep()).certify_units(best)
    assert exact.verdict is Verdict.PROVED
    forged = replace(exact, context={**exact.context, "kind": "heuristic"})
    assert not claim.check_units(forged, best)
    assert claim.certify_units(worse(best, 3.0)).verdict is Verdict.REFUTED


@every_term
def test_smallest_gap_is_near_the_truth_and_holds(name: str) -> None:
    x, term = PLANES["random"], TERMS[name]
    y = labelled(name, x)
    least, best = optimum("random", term, y, 0.2)
    units = worse(best, 1.3)
    claim = Optimality(x, y, 0.2, term, gap=None)
    certificate = claim.certify_units(units)
    truth = objective(units, x, y, term, 0.2) / least - 1
    assert certificate.verdict is Verdict.PROVED
    assert truth <= certificate.context["gap"] <= truth * 1.01 + 3e-4
    assert claim.check_units(certificate, units)


def test_bound_at_any_depth_lies_below_every_optimum() -> None:
    for name, term in TERMS.items():
        x = PLANES["collinear"]
        y = labelled(name, x)
        least, best = optimum("collinear", term, y, 0.3)
        claim = Optimality(x, y, 0.3, term, gap=None, any_depth=True)
        certificate = claim.certify_units(best)
        assert certificate.verdict is Verdict.PROVED
        assert certificate.bounds["dual"] <= least
        assert claim.check_units(certificate, best)
        strict = replace(claim, gap=1e-9).certify_units(worse(best, 2.0))
        assert strict.verdict is Verdict.UNKNOWN


def proved() -> tuple[Optimality, Units, Certificate]:
    x, y = PLANES["random"], labelled("squared", PLANES["random"])
    _, best = optimum("random", Squared(), y, 0.2)
    claim = Optimality(x, y, 0.2)
    return claim, best, claim.certify_units(best)


@pytest.mark.parametrize("change", ["v", "v flipped", "bounds", "gap", "beta", "plane", "truncated", "missing", "kind"])
def test_forged_certificates_are_rejected(change: str) -> None:
    claim, units, good = proved()
    witness, bounds, context = dict(good.witness), dict(good.bounds), dict(good.context)
    if change == "v":
        witness["v"] = witness["v"] * 1.01
    elif change == "v flipped":
        flipped = witness["v"].copy()
        flipped.view(np.int64)[3, 0] ^= 1 << 51
        witness["v"] = flipped
    elif change == "bounds":
        bounds["dual"] *= 1 + 1e-6
    elif change == "gap":
        context["gap"] = -0.5
    elif change == "beta":
        context["beta"] = 0.21
    elif change == "plane":
        witness["planes"] = witness["planes"] * np.array([1.0, 1.0, -1.0])
    elif change == "truncated":
        witness["v"] = witness["v"][:-1]
    elif change == "missing":
        del witness["v"]
    else:
        context["kind"] = "class:stumps"
    assert claim.check_units(good, units)
    assert not claim.check_units(replace(good, witness=witness, bounds=bounds, context=context), units)


def test_certificate_of_other_data_or_another_network_is_rejected() -> None:
    claim, units, good = proved()
    order = np.random.default_rng(0).permutation(len(claim.x))
    assert not replace(claim, x=claim.x[order], y=claim.y[order]).check_units(good, units)
    assert not replace(claim, beta=0.3).check_units(good, units)
    assert not replace(claim, term=Logistic()).check_units(good, units)
    assert not claim.check_units(good, worse(units, 1 + 1e-12))


def test_script_checks_a_file_with_the_data_and_nothing_else(tmp_path: Path) -> None:
    claim, units, good = proved()
    good.save(tmp_path / "good.safetensors")
    np.savez(tmp_path / "data.npz", x=claim.x, y=claim.y)
    np.savez(tmp_path / "other.npz", x=claim.x + 1, y=claim.y)
    content = (tmp_path / "good.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-8])

    def run(certificate: str, data: str) -> tuple[int, str]:
        command = [sys.executable, str(SCRIPT), certificate, data]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    code, text = run("good.safetensors", "data.npz")
    assert code == 0
    assert text.startswith("PROVED: P <= (1 + 1e-06) P*")
    assert run("good.safetensors", "other.npz")[0] == 1
    assert run("cut.safetensors", "data.npz")[0] == 1
    loaded = Certificate.load(tmp_path / "good.safetensors")
    assert claim.check_units(loaded, units)
    imports = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
        for node in ast.walk(ast.parse(SCRIPT.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert not {name for name in imports if name.startswith(("hardstep", "scipy", "safetensors", "torch"))}


@pytest.mark.parametrize("x", PLANES.values(), ids=PLANES.keys())
@pytest.mark.parametrize("outputs", [1, 2])
def test_largest_sum_of_the_check_equals_enumeration(x: np.ndarray, outputs: int) -> None:
    generator = np.random.default_rng(1)
    for _ in range(5):
        v = generator.integers(-(10**14), 10**14, (len(x), outputs))
        for kind, whole in {"exact-sweep-2d": separable(x), "class:stumps": on_features(x, 1)}.items():
            wanted = np.sqrt((np.square((whole.astype(np.int64) @ v).astype(float))).sum(axis=1)).max()
            assert check_optimality.largest_sum(x, v, kind) == pytest.approx(wanted, rel=1e-12)


def test_largest_sum_in_three_and_four_dimensions_equals_enumeration() -> None:
    generator = np.random.default_rng(2)
    cube = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
    for x in (generator.normal(size=(7, 3)), cube, generator.integers(0, 2, (7, 4)) * 0.1):
        v = generator.integers(-(10**14), 10**14, (len(x), 2))
        wanted = np.sqrt((np.square((separable(x).astype(np.int64) @ v).astype(float))).sum(axis=1)).max()
        assert check_optimality.largest_sum(x, v, "exact-enumeration") == pytest.approx(wanted, rel=1e-12)


def test_bits_on_a_plane_are_decided_without_rounding() -> None:
    x = np.array([[0.1, 0.2], [0.1, 0.2 + 2**-54], [1e300, -1e300]])
    planes = np.array([[3.0, -1.5, 0.0], [1.0, 1.0, -(2.0**-1000)]])
    # 3 * 0.1 and 1.5 * 0.2 differ as floats are read, not as decimals
    from fractions import Fraction

    exact = [
        [sum(Fraction(a) * Fraction(b) for a, b in zip([*row, 1.0], plane, strict=True)) > 0 for plane in planes]
        for row in x
    ]
    assert check_optimality.true_bits(x, planes).tolist() == exact


@pytest.mark.parametrize("name", ["logistic", "multinomial", "hinge", "squared"])
def test_whole_weights_are_feasible_exactly(name: str) -> None:
    generator = np.random.default_rng(3)
    term = TERMS[name]
    y = term.targets(labelled(name, np.zeros((50, 1))))
    v = term.balance(term.residual(generator.normal(size=y.shape), y), y)
    whole, power = check_optimality.whole_weights(v, y, type(term).__name__, free=True)
    assert (whole.sum(axis=0) == 0).all()
    np.testing.assert_allclose(np.ldexp(whole.astype(float), -power), v, atol=1e-12)
    if name == "multinomial":
        shares = y.astype(np.int64) * (1 << power) - whole
        assert (shares.sum(axis=1) == 1 << power).all()
        assert (shares >= 0).all()


def hardnet(seed: int, inputs: int = 3, units: int = 4) -> HardNet:
    generator = np.random.default_rng(seed)
    first = Dense(generator.integers(-3, 4, (units, inputs)).astype(np.int8), generator.integers(-4, 9, (units, 1)))
    last = Dense(generator.integers(-3, 4, (2, units)).astype(np.int8), None, bias=generator.integers(-2, 3, 2))
    return HardNet((inputs,), Grid(1.0, 0), (first, last), scale=0.25)


@pytest.mark.parametrize("layers", [1, 2])
def test_frozen_network_is_certified_and_another_is_not_it(layers: int) -> None:
    x = np.random.default_rng(0).integers(0, 5, (12, 3)).astype(float)
    y = np.random.default_rng(1).normal(size=(12, 2))
    net = hardnet(0)
    data, units, below = read_units(net, x, layers=layers)
    np.testing.assert_allclose(patterns(data, units.planes) @ units.u + units.intercept, net(x) * net.scale)
    assert below == 2 - layers
    claim = Optimality(x, y, 0.5, gap=None, layers=layers)
    certificate = claim.certify(net)
    assert certificate.verdict is Verdict.PROVED
    assert claim.check(certificate, net)
    assert not claim.check(certificate, hardnet(1))
    assert ("given" in certificate.claim) == (layers == 1)


def test_empty_network_is_best_above_the_largest_useful_beta_and_not_below() -> None:
    x, y = PLANES["random"], labelled("squared", PLANES["random"])[:, :1]
    planes = _planes("random", 2)
    top = largest_beta(BitMatrix.from_bools(patterns(x, planes)), y, Squared())
    empty = Units(np.zeros((0, 3)), np.zeros((0, 1)), y.mean(axis=0))
    assert Optimality(x, y, top * 1.001, gap=1e-9).certify_units(empty).verdict is Verdict.PROVED
    assert Optimality(x, y, top * 0.99, gap=1e-9).certify_units(empty).verdict is Verdict.REFUTED


def test_degenerate_data_are_certified() -> None:
    for x, y in [
        (np.ones((3, 2)), np.array([0.0, 1.0, 2.0])),
        (np.array([[1.0, 2.0]]), np.array([3.0])),
        (GRID, np.ones(9)),
        (np.array([[0.0], [0.0], [1.0]]), np.array([0.0, 1.0, 1.0])),
    ]:
        empty = Units(np.zeros((0, x.shape[1] + 1)), np.zeros((0, 1)), np.array([y.mean()]))
        claim = Optimality(x, y, 10.0)
        certificate = claim.certify_units(empty)
        assert certificate.verdict is Verdict.PROVED
        assert claim.check_units(certificate, empty)


def test_bad_input_is_named() -> None:
    x, y = GRID, np.ones(9)
    with pytest.raises(ValueError, match=r"beta must be positive and finite, got 0"):
        Optimality(x, y, 0.0)
    with pytest.raises(ValueError, match=r"gap is a relative distance, at least 0, got -1"):
        Optimality(x, y, 1.0, gap=-1.0)
    with pytest.raises(ValueError, match="layers is 2"):
        Optimality(x, y, 1.0, layers=3)
    with pytest.raises(ValueError, match="x has 9 rows, y 8"):
        Optimality(x, y[:8], 1.0)
    with pytest.raises(ValueError, match=r"x\[2, 1\] is nan"):
        bad = x.copy()
        bad[2, 1] = np.nan
        Optimality(bad, y, 1.0).certify_units(Units(np.zeros((0, 3)), np.zeros((0, 1)), np.zeros(1)))
