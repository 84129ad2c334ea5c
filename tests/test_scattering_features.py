"""The scikit-learn transformer: estimator checks, names, selection, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import hardstep as hs

X, Y = load_digits(return_X_y=True)


@parametrize_with_checks(
    [hs.ScatteringFeatures(), hs.ScatteringFeatures(select=2), hs.ScatteringFeatures(scale=False, output_stride=2)]
)
def test_it_is_a_transformer_as_scikit_learn_wants_them(estimator: BaseEstimator, check: object) -> None:
    if "array_api" in str(check):
        return  # asks for a scipy configured by an environment variable
    assert callable(check)
    check(estimator)


def test_columns_are_named_and_are_the_values_of_their_node() -> None:
    images = np.stack([X[:60], X[60:120]], axis=1).reshape(60, 2, 8, 8)
    front = hs.ScatteringFeatures(scale=False).fit(images)
    out, names = front.transform(images), front.get_feature_names_out()
    assert out.shape == (60, len(names))
    assert len(set(names)) == len(names)
    net = front.scattering_
    features = net(torch.tensor(images, dtype=torch.float32))
    for name in ("c0/n0/r03c04", "c1/n1/1h/r05c02", "c1/n2/2h>3d/r03c01"):
        channel, order, *path, place = name.split("/")
        n = int(order[1:])
        node = net.labels[n].index(path[0] if path else "")
        expected = features[n][:, int(channel[1:]), node, int(place[1:3]), int(place[4:])]
        assert np.allclose(out[:, list(names).index(name)], expected.numpy(), atol=1e-6)


def test_selected_features_are_columns_of_all_of_them() -> None:
    every = hs.ScatteringFeatures().fit(X[:300], Y[:300])
    some = hs.ScatteringFeatures(select=4).fit(X[:300], Y[:300])
    names = list(every.get_feature_names_out())
    chosen = some.get_feature_names_out()
    assert 4 <= len(chosen) <= 40
    assert np.allclose(
        some.transform(X[300:400]), every.transform(X[300:400])[:, [names.index(name) for name in chosen]], atol=1e-4
    )
    nodes = sum(len(level.paths) for level in some.scattering_.levels)
    assert nodes < sum(len(level.paths) for level in every.scattering_.levels)


def test_features_are_standardised_and_constant_ones_not_blown_up() -> None:
    x = X[:200].copy()
    out = hs.ScatteringFeatures().fit_transform(x)
    assert float(np.abs(out.mean(axis=0)).max()) < 1e-4
    spread = out.std(axis=0)
    assert np.all((np.abs(spread - 1) < 1e-3) | (spread < 1e-3))
    constant = hs.ScatteringFeatures().fit_transform(np.full((5, 16), 7.0))
    assert float(np.abs(constant).max()) < 1e-3


def test_flat_rows_and_images_are_the_same_and_odd_sizes_are_filled_up() -> None:
    flat = hs.ScatteringFeatures().fit_transform(X[:50])
    for shape in ((50, 8, 8), (50, 1, 8, 8)):
        assert np.array_equal(flat, hs.ScatteringFeatures().fit_transform(X[:50].reshape(shape)))
    wide = hs.ScatteringFeatures(image_shape=(7, 9)).fit(X[:50, :63])
    assert wide.scattering_.size == (8, 10)
    assert hs.ScatteringFeatures().fit(X[:50, :63]).scattering_.size == (2, 64)


def test_hard_steps_and_complex_filters_work_in_a_pipeline() -> None:
    steps = (hs.ScatteringLayer(hs.haar(2), hs.HardStep(), hs.MeanPool(2)),)
    filters = (hs.ScatteringLayer(hs.Morlet(2, 4), hs.RECTIFIED),)
    for front in (
        hs.ScatteringFeatures(steps),
        hs.ScatteringFeatures(steps, quantile=0.6, select=20),
        hs.ScatteringFeatures(filters, output_stride=4),
    ):
        model = make_pipeline(clone(front), RidgeClassifier(1.0)).fit(X[:500], Y[:500])
        assert model.score(X[500:1000], Y[500:1000]) > 0.7  # raw pixels reach 0.84
    names = hs.ScatteringFeatures(filters, output_stride=4).fit(X[:9]).get_feature_names_out()
    assert any(name.endswith("/im") for name in names)


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="does not fit rows of"):
        hs.ScatteringFeatures(image_shape=(3, 5)).fit(X[:9])
    with pytest.raises(ValueError, match="requires y"):
        hs.ScatteringFeatures(select=3).fit(X[:9])
    with pytest.raises(ValueError, match="one label an image"):
        hs.ScatteringFeatures(select=3).fit(X[:9], Y[:8])
    with pytest.raises(ValueError, match=r"fitted on|features"):
        hs.ScatteringFeatures().fit(X[:9].reshape(9, 8, 8)).transform(X[:9].reshape(9, 1, 8, 8)[:, :, :4])
    with pytest.raises(ValueError, match="NaN"):
        hs.ScatteringFeatures().fit(np.full((4, 16), np.nan))
    with pytest.raises(ValueError, match="shape \\(n, c, h, w\\)"):
        hs.ScatteringFeatures().fit(np.zeros((2, 1, 1, 4, 4)))
    with pytest.raises(ValueError, match="whole numbers"):
        hs.ScatteringFeatures((hs.ScatteringLayer(hs.haar(), hs.HardStep()),)).fit(X[:9] / 16)
