"""Scattering + step MLP against the step MLP alone and convnet4, paired by seed; seconds for the features.

    python benchmarks/quality/scattering.py run table --rows 1000 --seeds 5      # each seed a subset of its own
    python benchmarks/quality/scattering.py run table --rows 0 --seeds 5         # all rows
    python benchmarks/quality/scattering.py time --images 60000
    python benchmarks/quality/scattering.py frozen --select 60              # of hard steps: engine and torch module

Fashion-MNIST (HARDSTEP_DATA set), or digits. Front ends: two layers of Haar wavelets of 3 scales with moduli, or with
hard steps in whole numbers, these also in 8-bit codes and then frozen together with the network; the second layer
pooled by 2, every second output kept; features picked by orthogonal least squares on the training rows only. Seed,
subset, validation rows and number of sweeps are the same for all ways; the sweep is chosen on validation rows, and the
test part is scored once. Expected: above the MLP alone (.80) at 1,000 rows.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hardstep as hs
from hardstep.parts import Part, Samples

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record, run_verbs
from tables import scattering

METHOD = hs.GradientDescent(optimiser=hs.Adam(lr=2e-3), batch_size=64)


def front_ends(options: argparse.Namespace) -> dict[str, hs.ScatteringFeatures]:
    """Return the front ends by the name of their way."""
    ways = {
        "scattering + step MLP": (hs.MODULUS, False),
        "step scattering + step MLP": (hs.HardStep(), False),
        scattering.CODES: (hs.HardStep(), True),
    }
    return {
        name: hs.ScatteringFeatures(
            tuple(hs.ScatteringLayer(hs.haar(), m, hs.MeanPool(stride)) for stride in (1, 2)),
            output_stride=options.stride,
            select=options.select,
            codes=codes,
        )
        for name, (m, codes) in ways.items()
    }


def subset(options: argparse.Namespace, seed: int) -> hs.data.Data:
    """Return the data with a drawn subset of the training and validation rows: 9 in 10 of `rows` are trained on."""
    data = hs.data.load(options.data, seed=seed)
    data = replace(data, test=None) if options.held else data
    if options.rows == 0:
        return data
    generator = torch.Generator().manual_seed(seed)

    def fewer(part: Part | None, rows: int) -> Samples:
        assert isinstance(part, Samples)
        kept = torch.randperm(len(part), generator=generator)[:rows]
        return Samples(part.x[kept], part.y[kept], part.grid)

    held = options.rows // 10
    return replace(data, train=fewer(data.train, options.rows - held), val=fewer(data.val, options.held or held))


def scattered(data: hs.data.Data, front: hs.ScatteringFeatures) -> tuple[hs.data.Data, float]:
    """Return the data as features, and the seconds that took."""
    start = time.perf_counter()
    assert isinstance(data.train, Samples)
    front.fit(data.train.x.numpy(), data.train.y.numpy())

    def features(part: Part | None) -> Samples | None:
        if part is None:
            return None
        assert isinstance(part, Samples)
        return Samples(torch.from_numpy(front.transform(part.x.numpy())), part.y)

    parts = {name: features(part) for name, part in (("train", data.train), ("val", data.val), ("test", data.test))}
    return replace(data, **parts), time.perf_counter() - start


def run(options: argparse.Namespace) -> None:
    """Train every way on the same rows and score the test part once."""
    mlp = hs.nets.MLP(hidden=(options.units,), dropout=options.dropout)
    nets: dict[str, Any] = {scattering.ALONE: mlp, "convnet4": hs.nets.ConvNet4(channels=(16, 32), units=options.units)}
    for seed in range(options.first, options.first + options.seeds):
        data = subset(options, seed)
        fronts = front_ends(options)
        for name in [*nets, *fronts]:
            if options.ways and name not in options.ways:
                continue
            given, seconds = scattered(data, fronts[name]) if name in fronts else (data, 0.0)
            net = nets.get(name, mlp)(given.shape, given.outputs, seed)
            report = hs.fit(net, given, METHOD, sweeps=options.sweeps, seed=seed, progress=False)
            whole = frozen_test(fronts[name], net, data) if name == scattering.CODES else {}
            record(
                options.results,
                "scattering",
                kind="choose" if options.held else "run",
                data=options.data,
                rows=options.rows,
                way=name,
                seed=seed,
                sweeps=options.sweeps,
                units=options.units,
                dropout=options.dropout,
                select=options.select,
                stride=options.stride,
                features=int(np.prod(given.shape)),
                validation=report.score,
                test=None if given.test is None else hs.score(net, given.test),
                feature_seconds=round(seconds, 1),
                seconds=round(report.seconds, 1),
                **whole,
            )


def frozen_test(features: hs.ScatteringFeatures, net: torch.nn.Module, data: hs.data.Data) -> dict[str, Any]:
    """Freeze front end and network together; return accuracy, bytes, and scores that the engine gets wrong."""
    if data.test is None:
        return {}
    assert isinstance(data.train, Samples)
    assert isinstance(data.test, Samples)
    assert data.train.grid is not None
    joined = torch.nn.Sequential(features.front(float(data.train.grid.scale)), net)
    hard = hs.freeze(joined, calibrate=data.train)
    x, y = data.test.x.numpy(), data.test.y.numpy()
    scores = hs.Engine(hard)(x)
    wrong = sum(int((hard(x[i : i + 500]) != scores[i : i + 500]).sum()) for i in range(0, len(x), 500))
    return {"frozen": float((scores.argmax(axis=1) == y).mean()), "bytes": hard.nbytes, "wrong_scores": wrong}


def clock(options: argparse.Namespace) -> None:
    """Time the features of so many images, drawn again and again from the training part; no selection."""
    data = hs.data.load(options.data)
    assert isinstance(data.train, Samples)
    rows = torch.arange(options.images) % len(data.train)
    height, width = (-(-length // (2 * options.stride)) * 2 * options.stride for length in data.shape[1:])
    for name, front in front_ends(options).items():
        net = hs.Scattering((height, width), front.layers, hs.haar(), output_stride=options.stride)
        count, start = 0, time.perf_counter()
        with torch.no_grad():
            for batch in rows.split(128):
                x = data.train.x[batch].float()
                x = torch.nn.functional.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
                count = sum(phi[0].numel() for phi in net(x))
        seconds = time.perf_counter() - start
        record(
            options.results,
            "scattering",
            kind="time",
            data=options.data,
            way=name,
            images=options.images,
            features=count,
            threads=torch.get_num_threads(),
            seconds=round(seconds, 2),
            milliseconds_an_image=round(1e3 * seconds / options.images, 3),
        )


def frozen(options: argparse.Namespace) -> None:
    """Time selected features of hard steps: the engine on the frozen front end beside the torch module, one thread."""
    data = subset(options, options.first)
    assert isinstance(data.train, Samples)
    assert data.train.grid is not None
    x, y = data.train.x.numpy(), data.train.y.numpy()
    features = front_ends(options)[scattering.CODES].fit(x, y)
    module = features.front(float(data.train.grid.scale))
    net = torch.nn.Sequential(module, *hs.nets.mlp(len(module.columns), 16, data.outputs)).eval()
    hard = hs.freeze(net, calibrate=data.train)
    codes = np.ascontiguousarray(x[np.arange(options.images) % len(x)])
    engine, values = hs.Engine(hard), torch.from_numpy(data.train.grid.value(codes))
    calls = {"engine": lambda: engine(codes), "torch module": lambda: [module(part) for part in values.split(128)]}
    best = dict.fromkeys(calls, float("inf"))
    for name in 5 * list(calls):
        start = time.process_time()
        calls[name]()
        best[name] = min(best[name], time.process_time() - start)
    record(
        options.results,
        "scattering",
        kind="frozen",
        data=options.data,
        features=len(module.columns),
        images=options.images,
        isa=engine.isa,
        **{f"{name.split()[0]}_microseconds": round(1e6 * t / options.images, 1) for name, t in best.items()},
    )


def table(options: argparse.Namespace) -> None:
    """Print accuracies and their paired differences to the MLP alone and to convnet4."""
    print(scattering.test(options.results, options.rows, options.data))


WHAT = {"run": run, "time": clock, "frozen": frozen, "table": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--rows", type=int, default=1000, help="training and validation rows; 0 for all")
    parser.add_argument(
        "--held", type=int, default=0, help="so many validation rows, to choose settings: the test part is left alone"
    )
    parser.add_argument("--sweeps", type=int, default=60)
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--select", type=int, default=30, help="features picked a class")
    parser.add_argument("--stride", type=int, default=2, help="output_stride of the features")
    parser.add_argument("--images", type=int, default=60_000, help="of `time` and `frozen`")
    parser.add_argument("--ways", nargs="+", default=None, help="names of the ways; all if not given")
    parser.add_argument("--threads", type=int, default=1)
    run_verbs(parser, WHAT)


if __name__ == "__main__":
    main()
