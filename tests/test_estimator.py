"""The estimators for scikit-learn: its own checks, weights, odd tables, rules, files and C."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import hardstep as hs

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
CHECKED = [
    hs.StepClassifier(method=hs.GradientDescent(optimiser=QUICK), hidden=(16,), sweeps=2),
    hs.StepClassifier(method=hs.RandomFeatures(), hidden=(16,), sweeps=2),
    hs.StepRegressor(method=hs.GradientDescent(loss=hs.Squared(), optimiser=QUICK), hidden=(16,), sweeps=2),
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


QUICK_TREES = {"method": hs.GradientDescent(optimiser=QUICK), "hidden": (16,), "sweeps": 4, "random_state": 0}


def quick(**changed: Any) -> hs.StepClassifier:
    return hs.StepClassifier(**{**QUICK_TREES, **changed})


# --- with scikit-learn


def test_grid_search_over_two_methods_in_a_pipeline(iris: Table) -> None:
    pipe = make_pipeline(StandardScaler(), quick())
    methods = [hs.GradientDescent(optimiser=QUICK), hs.RandomFeatures()]
    search = GridSearchCV(pipe, {"stepclassifier__method": methods, "stepclassifier__hidden": [(16,)]}, cv=2)
    search.fit(*iris)
    assert search.best_params_["stepclassifier__method"] in methods
    assert min(search.cv_results_["mean_test_score"]) > 0.75
    assert search.score(*iris) > 0.85


def test_every_method_trains_a_classifier(iris: Table) -> None:
    methods = [
        *(hs.BCD(), hs.MarginBCD(), hs.ConvexTraining(), hs.TargetProp(), hs.Splitting(hs.Cardinality(0.5))),
        *(hs.MagnitudePruning(0.5), hs.ExactTargetProp(proposals=5)),
    ]
    for method in methods:
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
