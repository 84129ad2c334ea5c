"""The estimators for scikit-learn: its own checks, weights, odd tables, rules, files and C."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import hardstep as hs
from hardstep.hyperparameters import from_tree, to_tree
from hardstep.readable import Rule, Total

Table = tuple[NDArray[np.float64], NDArray[Any]]
needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")


@pytest.fixture(scope="module")
def iris() -> Table:
    x, y = load_iris(return_X_y=True)
    return x, y


@pytest.fixture(scope="module")
def flowers(iris: Table) -> hs.StepClassifier:
    """A small classifier with names of classes and columns."""
    pandas = pytest.importorskip("pandas")
    bunch = load_iris()
    x = pandas.DataFrame(iris[0], columns=bunch.feature_names)
    return hs.StepClassifier(hidden=(6,), sweeps=8, random_state=0).fit(x, bunch.target_names[iris[1]])


QUICK = hs.Adam(lr=0.02)
DESCENT = hs.GradientDescent(loss=hs.Squared(), optimiser=hs.Adam(lr=0.05), batch_size=256)
CHECKED = [
    hs.StepClassifier(method=hs.GradientDescent(optimiser=hs.Adam(lr=0.05), batch_size=512), hidden=(16,), sweeps=2),
    hs.StepRegressor(method=DESCENT, hidden=(16,), sweeps=2),
    hs.StepRegressor(method=hs.RandomFeatures(loss=hs.Squared()), hidden=(32,), sweeps=1),
]


@parametrize_with_checks(CHECKED)
def test_passes_the_checks_of_scikit_learn(estimator: Any, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # one check is skipped without it
    check(estimator)


def drawn(rows: int, columns: int, seed: int = 0) -> Table:
    """Rows of unlike scales and offsets, and labels of half-spaces in them."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, columns))
    y = 2 * (x[:, 0] > 0.3) + (x.sum(axis=1) > 0)
    return x * 10.0 ** generator.integers(-3, 4, columns) + 1000.0, y


SMALL = {"method": hs.GradientDescent(optimiser=QUICK), "hidden": (16,), "sweeps": 4, "random_state": 0}


def quick(**changed: Any) -> hs.StepClassifier:
    return hs.StepClassifier(**{**SMALL, **changed})


# --- with scikit-learn


def test_grid_search_over_two_methods_in_a_pipeline(iris: Table) -> None:
    pipe = make_pipeline(StandardScaler(), quick())
    methods = [hs.GradientDescent(optimiser=QUICK), hs.RandomFeatures()]
    search = GridSearchCV(pipe, {"stepclassifier__method": methods, "stepclassifier__hidden": [(16,)]}, cv=2)
    search.fit(*iris)
    assert search.best_params_["stepclassifier__method"] in methods
    assert min(search.cv_results_["mean_test_score"]) > 0.75
    assert search.score(*iris) > 0.85


def test_methods_of_every_family_train_a_classifier(iris: Table) -> None:
    for method in (hs.BCD(), hs.ConvexTraining(), hs.TargetProp(), hs.MagnitudePruning(0.5)):
        found = quick(method=method, sweeps=3).fit(*iris)
        assert found.score(*iris) > 0.6, method
        assert found.report_.method == repr(method)


def test_cross_validation_with_a_class_missing_in_a_fold(iris: Table) -> None:
    x, y = iris
    few = np.r_[0:100, 100:101]  # one row of the third class: one fold trains without it
    scores = cross_val_score(quick(), x[few], y[few], cv=[(np.arange(0, 100, 2), np.r_[1:100:2, 100]), (few, few)])
    assert scores.min() > 0.9


def test_clone_is_unfitted_and_the_same(flowers: hs.StepClassifier) -> None:
    again = clone(flowers)
    assert again.get_params() == flowers.get_params()
    with pytest.raises(ValueError, match="not fitted"):
        again.freeze()


# --- weights


def test_a_whole_weight_is_the_row_so_many_times_whatever_the_order(iris: Table) -> None:
    x, y = iris
    weights = np.random.default_rng(0).integers(0, 4, len(y))
    weighted = quick(sweeps=2).fit(x, y, weights)
    order = np.random.default_rng(1).permutation(weights.sum())
    repeated = quick(sweeps=2).fit(x.repeat(weights, axis=0)[order], y.repeat(weights)[order])
    assert np.array_equal(weighted.predict_proba(x), repeated.predict_proba(x))


def test_balanced_weights_raise_the_recall_of_a_rare_class() -> None:
    generator = np.random.default_rng(0)
    y = (generator.uniform(size=1500) < 0.04).astype(int)
    x = generator.normal(size=(1500, 2)) + 1.2 * y[:, None]
    recall = [quick(class_weight=how).fit(x, y).predict(x)[y == 1].mean() for how in (None, "balanced", {0: 1, 1: 20})]
    assert recall[0] < 0.4
    assert min(recall[1:]) > 0.6


@pytest.mark.parametrize("weights", [np.ones(3), -np.ones(150), np.full(150, np.nan), np.zeros(150)])
def test_bad_weights_are_one_error(weights: NDArray[np.float64], iris: Table) -> None:
    with pytest.raises(ValueError, match="sample_weight"):
        quick().fit(*iris, weights)


# --- tables


def test_a_span_beyond_all_numbers_is_one_error() -> None:
    with pytest.raises(ValueError, match="column 1 spans"):
        quick().fit(np.array([[0.0, -1.7e308], [1.0, 1.7e308]]), [0, 1])


def test_sparse_and_dense_rows_give_the_same_network(iris: Table) -> None:
    x, y = iris
    dense = quick(sweeps=1).fit(x, y).decision_function(x)
    for kind in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array):
        assert np.array_equal(quick(sweeps=1).fit(kind(x), y).decision_function(kind(x)), dense)


@pytest.mark.parametrize("labels", [np.array(["no", "yes"]), np.array([True, False]), np.array([-5, 7]), [1.0, 2.0]])
def test_labels_of_any_kind_come_back(labels: Any) -> None:
    x = np.linspace(0, 1, 40)[:, None]
    y = np.asarray(labels)[(x[:, 0] > 0.5).astype(int)]
    found = quick(hidden=(8,)).fit(x, y)
    assert found.predict(x).dtype == y.dtype
    assert found.score(x, y) > 0.9


def test_one_feature_constant_features_and_few_rows() -> None:
    x = np.array([[0.0, 3.5, -1e300], [1.0, 3.5, -1e300], [0.1, 3.5, -1e300], [0.9, 3.5, -1e300]])
    assert quick().fit(x, [0, 1, 0, 1]).predict(x).tolist() == [0, 1, 0, 1]
    assert quick().fit(x[:, :1], [0, 1, 0, 1]).predict(x[:, :1]).tolist() == [0, 1, 0, 1]
    constant = quick().fit(x[:, 1:], [0, 1, 1, 1])
    assert constant.predict(x[:, 1:]).tolist() == [1, 1, 1, 1]
    assert hs.StepRegressor(sweeps=1, random_state=0).fit(x, np.full(4, 2.5)).predict(x) == pytest.approx(2.5, abs=0.5)


def test_many_rows_are_quick() -> None:
    x, y = drawn(100_000, 10)
    start = time.perf_counter()
    found = quick(hidden=(32,), sweeps=1, n_jobs=2).fit(x, y)
    assert found.score(x, y) > 0.85
    assert time.perf_counter() - start < 20


# --- regression, holding out, going on


def test_regression_of_one_and_of_several_targets() -> None:
    x = np.linspace(-1, 1, 300)[:, None]
    y = 1000 + 50 * np.column_stack([np.sin(3 * x[:, 0]), x[:, 0] ** 2])
    method = hs.RandomFeatures(loss=hs.Squared())
    both = hs.StepRegressor(method=method, hidden=(100,), sweeps=1, random_state=0, weight_bits=12).fit(x, y)
    assert both.predict(x).shape == (300, 2)
    assert both.score(x, y) > 0.95
    one = clone(both).fit(x, y[:, 0])
    assert one.predict(x).shape == (300,)
    assert one.score(x, y[:, 0]) > 0.95


def test_rows_held_out_choose_the_sweep_and_stop(iris: Table) -> None:
    found = quick(sweeps=30, holdout=hs.Holdout(0.2, patience=2)).fit(*iris)
    assert found.report_.stopped == "no better validation score for 2 sweeps"
    assert found.report_.score == max(record.score for record in found.report_.records)
    with pytest.raises(ValueError, match=r"a share of 0\.001"):
        quick(holdout=hs.Holdout(0.001)).fit(*iris)


def test_partial_fits_add_up_and_a_part_may_lack_classes(iris: Table) -> None:
    x, y = iris
    found = quick()
    for i in range(30):
        rows = np.random.default_rng(i).permutation(150)[:75]
        rows = rows[y[rows] != i % 3] if i < 15 else rows
        found.partial_fit(x[rows], y[rows], classes=np.unique(y) if i == 0 else None)
    assert found.score(x, y) > 0.85
    once = quick().partial_fit(x, y, classes=[0, 1, 2])
    assert once.score(x, y) < found.score(x, y)


def test_partial_fit_only_where_the_method_goes_on(iris: Table) -> None:
    starts_anew = quick(method=hs.RandomFeatures())
    assert not callable(getattr(starts_anew, "partial_fit", None))
    with pytest.raises(AttributeError, match="partial_fit") as error:
        starts_anew.partial_fit(*iris)
    assert "RandomFeatures starts anew" in str(error.value.__cause__)
    with pytest.raises(ValueError, match="needs classes"):
        quick().partial_fit(*iris)
    with pytest.raises(ValueError, match=r"labels \[2\]"):
        quick().partial_fit(*iris, classes=[0, 1])
    with pytest.raises(ValueError, match="balanced"):
        quick(class_weight="balanced").partial_fit(*iris, classes=[0, 1, 2])


def test_partial_fit_of_a_regressor() -> None:
    x = np.linspace(-1, 1, 256)[:, None]
    found = hs.StepRegressor(
        method=hs.GradientDescent(loss=hs.Squared(), optimiser=QUICK), hidden=(32,), random_state=0
    )
    for _ in range(15):
        found.partial_fit(x, 3 + x[:, 0])
    assert found.score(x, 3 + x[:, 0]) > 0.7


def test_probabilities_of_a_squared_loss_are_worth_more_than_its_outputs(iris: Table) -> None:
    x, y = iris
    found = quick(method=hs.RandomFeatures(loss=hs.Squared()), hidden=(32,), sweeps=1).fit(x, y)
    plain = np.exp(found.decision_function(x))
    assert found.sharpness_ > 1
    assert log_loss(y, found.predict_proba(x)) < 0.7 * log_loss(y, plain / plain.sum(axis=1, keepdims=True))
    assert np.array_equal(found.predict_proba(x).argmax(axis=1), found.predict(x))


@pytest.mark.parametrize(
    "wrong",
    [
        *({"method": "sgd"}, {"hidden": (0,)}, {"hidden": ()}, {"hidden": 8}, {"sweeps": 0}, {"sweeps": 2.5}),
        *({"weight_bits": 1}, {"weight_bits": 17}, {"holdout": 0.1}),
    ],
    ids=repr,
)
def test_a_bad_parameter_is_named_with_its_value(wrong: dict[str, Any], iris: Table) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError) as error:
        quick(**wrong).fit(*iris)
    assert str(error.value).startswith(name)
    assert repr(value) in str(error.value)


# --- what comes out


def test_estimator_predicts_what_the_frozen_network_says(flowers: hs.StepClassifier, iris: Table) -> None:
    hard = flowers.freeze()
    assert np.array_equal(flowers.classes_[hard.predict(iris[0])], predicted(flowers, iris[0]))
    assert hard.rounding is not None
    assert hard.rounding.rows == 2100


def predicted(found: hs.StepClassifier, x: NDArray[np.float64]) -> NDArray[Any]:
    """Predictions for a data frame of the rows."""
    import pandas

    return found.predict(pandas.DataFrame(x, columns=found.feature_names_in_))


def test_rules_are_the_network_and_name_the_columns(flowers: hs.StepClassifier) -> None:
    rules = flowers.rules_
    hard = flowers.freeze()
    codes = np.random.default_rng(0).integers(0, 256, (500, 4)).astype(np.uint8)
    x = (codes - hard.grid.zero) * hard.grid.scale  # on the grid the rules hold exactly
    values = dict(zip(flowers.feature_names_in_, x.T, strict=True))
    units = [rule for rule in rules if isinstance(rule, Rule)]
    totals = [rule for rule in rules if isinstance(rule, Total)]
    bits = {unit.name: unit(values) for unit in units}
    scores = np.column_stack([total(bits) for total in totals])
    assert np.allclose(scores, hard(codes) * hard.scale, atol=1e-9)
    assert 0 < len(units) <= 6
    text = "\n".join(map(str, rules))
    assert "h1 = [" in text
    assert "petal length (cm)" in text
    assert "score of setosa = " in text


def test_rule_of_one_column_is_its_threshold_on_any_input() -> None:
    x = np.random.default_rng(0).normal(50, 20, size=(400, 1))
    found = hs.StepRegressor(method=CHECKED[2].method, hidden=(4,), sweeps=1, random_state=0).fit(x, x[:, 0] > 60)
    *units, total = found.rules_
    fresh = np.random.default_rng(1).normal(50, 20, size=(1000, 1))
    bits = {unit.name: unit({"x0": fresh[:, 0]}) for unit in units}
    assert np.allclose(total(bits), found.predict(fresh))
    assert str(units[0]).startswith(("h1 = [x0 > ", "h1 = [x0 < "))


def test_rules_of_two_layers_of_stairs_and_signs(iris: Table) -> None:
    x, y = iris
    for activation in (hs.Sign(), hs.Staircase(3)):
        found = quick(hidden=hs.nets.MLP((5, 4), activation=activation)).fit(x, y)
        hard = found.freeze()
        values = dict(
            zip(["x0", "x1", "x2", "x3"], ((hard.codes(x) - hard.grid.zero) * hard.grid.scale).T, strict=True)
        )
        for rule in found.rules_:
            values[rule.name] = rule(values)
        scores = np.column_stack([values[f"score of {label}"] for label in range(3)])
        assert np.allclose(scores, hard(x) * hard.scale, atol=1e-9)


def test_rules_of_a_large_network_are_refused(iris: Table) -> None:
    with pytest.raises(ValueError, match="cannot be read as rules"):
        _ = quick(hidden=(200,), sweeps=1).fit(*iris).rules_


@needs_gcc
def test_exported_c_gives_the_labels(flowers: hs.StepClassifier, iris: Table, tmp_path: Path) -> None:
    path = flowers.export_c(tmp_path / "flowers.c")
    program = tmp_path / "flowers"
    subprocess.run(["gcc", "-std=c99", "-O1", "-Wall", "-Werror", "-DNET_MAIN", path, "-o", program], check=True)
    codes = flowers.freeze().codes(iris[0])
    done = subprocess.run([program], input=codes.tobytes(), capture_output=True, check=True)
    scores = np.array([line.split() for line in done.stdout.decode().splitlines()], np.int64)
    assert np.array_equal(flowers.classes_[scores.argmax(axis=1)], predicted(flowers, iris[0]))


def test_saved_estimator_comes_back_whole(flowers: hs.StepClassifier, iris: Table, tmp_path: Path) -> None:
    flowers.save(tmp_path / "flowers.safetensors")
    again = hs.StepClassifier.load(tmp_path / "flowers.safetensors")
    assert repr(again) == repr(flowers)
    assert again.report_ == flowers.report_
    assert list(map(str, again.rules_)) == list(map(str, flowers.rules_))
    assert np.array_equal(predicted(again, iris[0]), predicted(flowers, iris[0]))
    with pytest.raises(ValueError, match="not a 'StepRegressor'"):
        hs.StepRegressor.load(tmp_path / "flowers.safetensors")


def test_saved_estimator_goes_on_in_the_same_bits(iris: Table, tmp_path: Path) -> None:
    x, y = iris
    net = hs.nets.MLP((9,), activation=hs.Staircase(2, hs.ReSTE()))
    found = quick(hidden=net, class_weight={0: 1, 1: 2}).partial_fit(x, y, classes=[0, 1, 2])
    found.save(tmp_path / "part")
    again = hs.StepClassifier.load(tmp_path / "part")
    assert again.class_weight == {0: 1, 1: 2}
    for each in (found, again):
        each.partial_fit(x, y)
    assert np.array_equal(found.decision_function(x), again.decision_function(x))
    regressor = hs.StepRegressor(hidden=(4,), sweeps=1, random_state=0).fit(x, x[:, :2])
    regressor.save(tmp_path / "numbers")
    assert np.array_equal(hs.StepRegressor.load(tmp_path / "numbers").predict(x), regressor.predict(x))


def test_pickled_estimator_with_binary_weights_goes_on_in_the_same_bits(iris: Table) -> None:
    x, y = iris
    found = quick(hidden=hs.nets.MLP((9, 7), weights=hs.Binary())).partial_fit(x, y, classes=[0, 1, 2])
    again = pickle.loads(pickle.dumps(found))
    for each in (found, again):
        each.partial_fit(x, y)
    assert np.array_equal(found.decision_function(x), again.decision_function(x))


def test_only_known_classes_are_made_and_only_plain_values_written(iris: Table, tmp_path: Path) -> None:
    method = hs.MagnitudePruning(0.5, activate=hs.Activate(), base=hs.GradientDescent(penalty=hs.L1(1e-4)))
    known = {name: getattr(hs, name) for name in hs.__all__}
    assert from_tree(to_tree(method), known) == method
    with pytest.raises(ValueError, match="'Popen'"):
        from_tree({"class": "Popen", "arguments": {}}, known)
    with pytest.raises(TypeError, match="RandomState"):
        quick(sweeps=1, random_state=np.random.RandomState(0)).fit(*iris).save(tmp_path / "x")
