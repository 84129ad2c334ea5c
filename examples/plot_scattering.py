"""Fixed features in front: images that move
=========================================

Scattering features are not trained: wavelets, moduli, averages, which change little where an image moves. Each digit of
8 x 8 pixels lies somewhere in a larger square. Left: the features of a few moved images of each digit, one row an
image: rows of one digit look alike. Right: test accuracy of a network of 64 steps on pixels and on these features, with
50 labelled images a class, against the room that a digit has to move; mean and standard deviation over draws. ::

    python examples/plot_scattering.py    # writes docs/pictures/scattering.png; 40 seconds on one core

Expected: where digits do not move the pixels are better; from one pixel of room on the features are, and with four they
keep above 90 % what leaves the pixels near 35 %. Last a front end of hard steps, trained with a network behind it and
frozen with it: pixels in, integers from there on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline

import hardstep as hs
from hardstep.parts import Samples

ROOMS = (0, 1, 2, 4, 6)
LABELS = 50


def moved(x: NDArray[np.float64], room: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return each image at a random place of a square that is larger by `room`."""
    squares = np.zeros((len(x), 8 + room, 8 + room))
    for square, image, (row, column) in zip(squares, x, generator.integers(0, room + 1, (len(x), 2)), strict=True):
        square[row : row + 8, column : column + 8] = image.reshape(8, 8)
    return squares.reshape(len(x), -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)

    rows = np.concatenate([np.flatnonzero(y == digit)[:5] for digit in range(10)])
    squares = moved(x, 4, np.random.default_rng(0))
    features = hs.ScatteringFeatures(select=8).fit(squares[:1000], y[:1000])
    left.imshow(features.transform(squares[rows]), cmap="RdBu_r", vmin=-2.5, vmax=2.5, aspect="auto")
    left.set_yticks(np.arange(2, 50, 5), [str(digit) for digit in range(10)])
    left.set(xlabel="features that selection keeps", title="five moved images of each digit")

    def accuracy(room: int, seed: int, front: list[hs.ScatteringFeatures]) -> float:
        generator = np.random.default_rng(seed)
        squares = moved(x, room, generator)
        drawn = [generator.permutation(np.flatnonzero(y[:1000] == digit))[:LABELS] for digit in range(10)]
        train = np.concatenate(drawn)
        classifier = make_pipeline(*front, hs.StepClassifier(hidden=(64,), sweeps=options.sweeps, random_state=seed))
        return float(classifier.fit(squares[train], y[train]).score(squares[1000:], y[1000:]))

    fronts = {"pixels": ([], "grey"), "scattering features": ([hs.ScatteringFeatures(output_stride=2)], "#d95f02")}
    for name, (front, colour) in fronts.items():
        scores = np.array([[accuracy(room, seed, front) for seed in range(options.seeds)] for room in ROOMS])
        right.errorbar(ROOMS, scores.mean(axis=1), scores.std(axis=1), color=colour, label=name, marker="o", capsize=2)
    right.set(xlabel="pixels of room to move", title="64 steps, 500 labels: test accuracy", ylim=(0, 1))
    right.legend(frameon=False)
    steps = tuple(hs.ScatteringLayer(hs.haar(2), hs.HardStep(), hs.MeanPool(stride)) for stride in (1, 2))
    codes = hs.ScatteringFeatures(steps, select=10, codes=True).fit(squares[:1000], y[:1000])
    front = codes.front()
    net = torch.nn.Sequential(front, *hs.nets.mlp(len(front.columns), 64, 10))
    images = torch.from_numpy(squares.reshape(-1, 1, 12, 12)).to(torch.uint8)
    train = Samples(images[:1000], torch.from_numpy(y[:1000]), hs.Grid(1.0, 0))
    data = hs.data.Data("moved digits", train, None, None, outputs=10)
    hs.fit(net, data, hs.GradientDescent(), sweeps=options.sweeps, progress=False)
    hard = hs.freeze(net, calibrate=train)  # from pixels to scores in integers
    right = (hard.predict(images[1000:].numpy()) == y[1000:]).mean()
    print(f"features of hard steps, frozen: {hard.nbytes:,} bytes, test accuracy {right:.3f}")

    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "scattering.png", dpi=150)


if __name__ == "__main__":
    main()
