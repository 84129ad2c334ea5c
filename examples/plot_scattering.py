"""Fixed features in front, for few labels
=======================================

Scattering features are not trained: wavelets, moduli, averages. Only which of them are kept is chosen, by orthogonal
least squares. Left: the kept features of a few images of each digit, one row an image: rows of one digit look alike.
Right: test accuracy of a step network on pixels and on these features, against the number of labels a class; mean and
standard deviation over draws of the labelled images. ::

    python examples/plot_scattering.py    # writes docs/pictures/scattering.png; 20 seconds on one core

Expected: ahead with few labels; with many the pixels catch up, since 8 x 8 images are small for wavelets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline

import hardstep as hs

LABELS = (3, 5, 10, 20, 50)
SELECT = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)

    rows = np.concatenate([np.flatnonzero(y == digit)[:4] for digit in range(10)])
    features = hs.ScatteringFeatures(select=SELECT).fit(x[:500], y[:500])
    left.imshow(features.transform(x[rows]), cmap="RdBu_r", vmin=-2.5, vmax=2.5, aspect="auto", interpolation="none")
    left.set_yticks(np.arange(1.5, 40, 4), [str(digit) for digit in range(10)])
    left.set(xlabel="features that were kept", title="four images of each digit")

    def accuracy(kind: str, count: int, seed: int) -> float:
        generator = np.random.default_rng(seed)
        drawn = np.concatenate(
            [generator.permutation(np.flatnonzero(y[:1000] == digit))[:count] for digit in range(10)]
        )
        classifier = hs.StepClassifier(hidden=(64,), sweeps=options.sweeps, random_state=seed)
        front = [hs.ScatteringFeatures(select=SELECT)] if kind == "scattering features" else []
        return float(make_pipeline(*front, classifier).fit(x[drawn], y[drawn]).score(x[1000:], y[1000:]))

    for kind, colour in (("pixels", "grey"), ("scattering features", "#d95f02")):
        scores = np.array([[accuracy(kind, count, seed) for seed in range(options.seeds)] for count in LABELS])
        right.errorbar(LABELS, scores.mean(axis=1), scores.std(axis=1), color=colour, label=kind, marker="o", capsize=2)
    right.set(xscale="log", xlabel="labelled images a class", title="64 steps: test accuracy")
    right.set_xticks(LABELS, [str(count) for count in LABELS])
    right.minorticks_off()
    right.legend(frameon=False)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "scattering.png", dpi=150)


if __name__ == "__main__":
    main()
