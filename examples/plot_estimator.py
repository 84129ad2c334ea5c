"""A scikit-learn estimator whose rules you can read
=================================================

``StepClassifier`` in a pipeline and in a grid search over methods, its half-spaces in the units of the columns, and the
same integers as C. Left: cross-validated accuracy on the breast cancer data, by method and width, with the standard
deviation over folds. Right: the petals of the irises; the regions of a network with three hidden units, whose rules
stand above. The script prints the rules, exports the network as C and, where there is a C compiler, checks that
the compiled C gives the same scores. ::

    python examples/plot_estimator.py    # writes docs/pictures/estimator.png; 20 seconds on one core

Expected: gradient descent and block descent above 95 % and level within their spread, half-spaces drawn at random
below; three half-spaces are nearly enough for the petals.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer

import hardstep as hs

METHODS = (hs.GradientDescent(), hs.MarginBCD(), hs.RandomFeatures())
WIDTHS = (8, 32)


def search(axis: Axes, sweeps: int, folds: int) -> None:
    """Search over methods and widths, draw the scores."""
    x, y = load_breast_cancer(return_X_y=True)
    pipeline = make_pipeline(
        QuantileTransformer(n_quantiles=100), hs.StepClassifier(sweeps=sweeps, random_state=0)
    )  # ranks in the place of values: outliers lose their weight
    grid = {"stepclassifier__method": METHODS, "stepclassifier__hidden": [(width,) for width in WIDTHS]}
    found = GridSearchCV(pipeline, grid, cv=folds).fit(x, y)
    results = found.cv_results_
    for width, shade in zip(WIDTHS, ("#9ecae1", "#1f77b4"), strict=True):
        rows = [i for i, chosen in enumerate(results["param_stepclassifier__hidden"]) if chosen == (width,)]
        places = np.arange(len(rows)) + 0.4 * WIDTHS.index(width)
        means, spread = (results[name][rows] for name in ("mean_test_score", "std_test_score"))
        axis.bar(places, means, 0.38, yerr=spread, color=shade, label=f"{width} units", ecolor="grey")
    axis.set_xticks(np.arange(len(METHODS)) + 0.2, [type(method).__name__ for method in METHODS], fontsize=8)
    axis.set(ylim=(0.85, 1), title=f"breast cancer, {folds} folds: accuracy")
    axis.legend(frameon=False, fontsize=7, loc="lower left")


def petals(axis: Axes, sweeps: int) -> None:
    """Train on two columns, print and draw the rules, export C."""
    frame, y = load_iris(return_X_y=True, as_frame=True)
    x = frame[["petal length (cm)", "petal width (cm)"]].rename(columns=lambda name: name.removesuffix(" (cm)"))
    classifier = hs.StepClassifier(hidden=(3,), sweeps=sweeps, holdout=None, random_state=1).fit(x, y)
    print(*classifier.rules_, sep="\n")
    with TemporaryDirectory() as folder:
        print(f"C: {classifier.export_c(Path(folder) / 'iris.c').stat().st_size:,} bytes of source")
    checked = hs.verify(classifier.hard_, x.to_numpy())
    print(*(f"{check.form}: {'equal' if check.ok else 'differs'}" for check in checked.checks if check.form == "C"))
    lengths, widths = np.meshgrid(np.linspace(0.8, 7.1, 300), np.linspace(0, 2.7, 300))
    points = pd.DataFrame(np.column_stack([lengths.ravel(), widths.ravel()]), columns=x.columns)
    labels = classifier.predict(points)
    colours = ["#cfe3f5", "#fde2c5", "#d9efd9"]
    axis.contourf(lengths, widths, labels.reshape(lengths.shape), levels=[-0.5, 0.5, 1.5, 2.5], colors=colours)
    axis.scatter(*x.to_numpy().T, c=np.array(["#1f77b4", "#d95f02", "#2ca02c"])[y], s=8)
    axis.set(xlabel="petal length, cm", ylabel="petal width, cm")
    axis.set_title("\n".join(str(rule) for rule in classifier.rules_[:3]), fontsize=7, family="monospace", loc="left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=20)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    search(left, options.sweeps, options.folds)
    petals(right, 3 * options.sweeps)
    figure.savefig(options.out / "estimator.png", dpi=150)


if __name__ == "__main__":
    main()
