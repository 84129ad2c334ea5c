"""Freeze, prune, simplify, run
============================

What a network weighs and how fast it answers, from floats to integers. Left: bytes of 64-256-256-10 on the digits, as
float32, frozen to 8 and to 3 bits a weight, and with half of its units pruned, trained on and simplified; the number
above a bar is the validation accuracy. Right: microseconds an image takes at different batch sizes, in PyTorch's
float32 and in ``Engine``, both on one thread, least of several runs. ``verify`` compares every form that can run here
with the reference before anything is timed. ::

    python examples/plot_deploy.py    # writes docs/pictures/deploy.png; 20 seconds on one core

Expected: a quarter of the bytes at 8 bits, a twelfth with half of the units, all within a point (one validation image
is 0.7 points); the engine is more than ten times faster on one image, about three times in batches of 256.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import hardstep as hs
from hardstep.freeze import as_torch

BATCHES = (1, 4, 16, 64, 256)


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the least time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def draw_sizes(axis: Axes, sizes: dict[str, tuple[int, float]]) -> None:
    """Draw bytes, with the accuracy above."""
    bars = axis.bar(range(len(sizes)), [size / 1024 for size, _ in sizes.values()], color="#1f77b4", width=0.6)
    axis.bar_label(bars, [f"{score:.1%}" for _, score in sizes.values()], fontsize=8)
    axis.set_xticks(range(len(sizes)), list(sizes), fontsize=8)
    axis.set(ylabel="KiB", title="size, and validation accuracy")


def draw_times(axis: Axes, net: torch.nn.Module, hard: hs.HardNet, x: torch.Tensor, repeats: int) -> None:
    """Draw microseconds an image by batch size."""
    engine = hs.Engine(hard, sample=x[:200].numpy())
    net.eval()

    def by_torch(rows: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return net(rows)

    ways = {"PyTorch, float32": (by_torch, x.float() / 16), "Engine, 8-bit weights": (engine, hard.codes(x.numpy()))}
    for (name, (run, rows)), colour in zip(ways.items(), ("grey", "#d95f02"), strict=True):
        times = [1e6 / size * seconds(lambda r=run, b=rows[:size]: r(b), repeats) for size in BATCHES]
        axis.loglog(BATCHES, times, "o-", color=colour, label=name, markersize=4)
    axis.set_xticks(BATCHES, [str(size) for size in BATCHES])
    axis.minorticks_off()
    axis.set(xlabel="images in a batch", title="microseconds an image")
    axis.legend(frameon=False, fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = hs.data.load("digits")
    net = hs.nets.MLP(hidden=(256, 256))(data.shape, data.outputs)
    hs.fit(net, data, hs.GradientDescent(), sweeps=options.sweeps, progress=False)
    hard = hs.freeze(net, calibrate=data.train, weight_bits=8)
    checked = hs.verify(hard, data.val.x[:50])
    print(f"{len(checked.checks)} forms, all equal: {checked.ok}")

    half = hs.prune_units(copy.deepcopy(net), data, keep=0.5)
    hs.fit(half, data, hs.GradientDescent(optimiser=hs.Adam(lr=5e-4)), sweeps=options.sweeps // 2, progress=False)
    small = hs.simplify(hs.freeze(half, calibrate=data.train, weight_bits=8))
    sizes = {"float32": (4 * sum(p.numel() for p in net.parameters()), hs.score(net, data.val))}
    forms = {
        "8 bits": hard,
        "3 bits": hs.freeze(net, calibrate=data.train, weight_bits=3),
        "8 bits,\nhalf the units": small,
    }
    sizes |= {name: (form.nbytes, hs.score(as_torch(form), data.val)) for name, form in forms.items()}

    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_sizes(left, sizes)
    draw_times(right, net, hard, data.val.x, options.repeats)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "deploy.png", dpi=150)


if __name__ == "__main__":
    main()
