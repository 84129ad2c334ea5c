"""Networks of mostly zeros
========================

Accuracy against the share of zeros, and what splitting does sweep by sweep. Left: the digits, 64-256-256-10; each
penalty with the gradient at the sparse weights handed to the dense ones, and iterative magnitude pruning by layer, at
the same number of epochs. Right: validation accuracy of the sparse weights and of the dense copy beside them, gradient
at the dense ones (the published form); the dotted lines are where the penalty is at its full strength and where the
zeros are fixed. ::

    python examples/plot_sparse.py    # writes docs/pictures/sparse.png; three minutes on two cores

Expected: little loss up to 90 % zeros; soft thresholds (l1) lose first; the sparse weights lag behind the dense copy
until their own training begins.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import NormalDist, mean

from matplotlib.figure import Figure

import hardstep as hs

SPARSITIES = (0.6, 0.8, 0.9, 0.95, 0.98, 0.99)
LAST = {"l0": 0.95, "transformed l1": 0.95, "l1": 0.95}  # higher thresholds leave a layer no weight of its start


def methods(sparsity: float) -> dict[str, hs.Method]:
    """Return a method for each penalty, its threshold where a Gaussian row has this share of zeros."""
    threshold = NormalDist().inv_cdf(0.5 + sparsity / 2)
    penalties = {
        "cardinality": hs.Cardinality(1 - sparsity),
        "l0": hs.L0.at(threshold),
        "transformed l1": hs.TransformedL1.at(threshold),
        "l1": hs.L1.at(threshold),
        "l0 of words of 32": hs.Grouped(hs.Cardinality(1 - sparsity), hs.Words(32)),
    }
    pruning = {"iterative magnitude": hs.MagnitudePruning(sparsity, rounds=4, scope=hs.LayerWise())}
    return {name: hs.Splitting(penalty=penalty, ramp=0.5) for name, penalty in penalties.items()} | pruning


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    parts = [hs.data.load("digits", seed=seed, val_share=0.3) for seed in range(options.seeds)]

    def train(method: hs.Method) -> list[hs.Report]:
        nets = [hs.nets.MLP(hidden=(256, 256))(data.shape, data.outputs, i) for i, data in enumerate(parts)]
        return [
            hs.fit(net, data, method, sweeps=options.sweeps, seed=i, progress=False)
            for i, (net, data) in enumerate(zip(nets, parts, strict=True))
        ]

    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    dense = mean(report.score or 0.0 for report in train(hs.GradientDescent()))
    left.axhline(dense, color="grey", linewidth=0.8, linestyle=":", label="dense")
    for name in methods(0.5):
        points = []
        for sparsity in (s for s in SPARSITIES if s <= LAST.get(name, 1)):
            reports = train(methods(sparsity)[name])
            kept = [report.records[report.best] for report in reports]
            points.append((mean(r.extra["sparsity"] for r in kept), mean(r.score or 0.0 for r in kept)))
        zeros, scores = zip(*points, strict=True)
        style = "k--" if name == "iterative magnitude" else "-"
        left.plot([1 - share for share in zeros], scores, style, marker=".", label=name)
    left.set(xscale="log", xlabel="share of weights that are left", title="digits: validation accuracy", ylim=(0.8, 1))
    left.invert_xaxis()
    left.legend(frameon=False, fontsize=7)
    published = hs.Splitting(penalty=hs.Cardinality(0.05), sparse_forward=False, rho=0.02, ramp=0.5)
    records = train(published)[0].records
    split = [record for record in records if "score_dense" in record.extra]
    right.plot([record.extra["score_dense"] for record in split], color="#9ecae1", label="dense copy w")
    right.plot([record.score for record in records], color="#d95f02", label="sparse u = prox(w), exported")
    for at in (published.ramp * len(split), len(split)):
        right.axvline(at - 0.5, color="grey", linewidth=0.8, linestyle=":")
    right.set(xlabel="sweep", title="published form, 95 % zeros: validation accuracy", ylim=(0.5, 1))
    right.legend(frameon=False, fontsize=7)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "sparse.png", dpi=150)


if __name__ == "__main__":
    main()
