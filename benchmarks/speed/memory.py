"""What a training step keeps between its forward and its backward pass, and what it costs to keep less.

    python benchmarks/speed/memory.py [--rounds 9] [--batch 256] [--timed 32]

For each way to keep (`Whole`, `Packed`, `Recomputed`) the bytes of all tensors that a forward pass allocated and that
are still there at its end, by torch's own record of allocations: what autograd keeps, the generator's states and the
network's output, but not parameters, buffers and the batch, which are there before. And the CPU time on one thread of a
whole step (forward, loss, backward, fused Adam) as a ratio to that of `Whole` in the same round, the ways in turn; its
median over the rounds. The MLP is timed with the whole batch, VGG-small with `--timed` rows: bytes grow with the batch,
a ratio of times hardly. Before it measures, each way has to give the gradients of `Whole` bit for bit.
Expected: packed at least 2.5 times less at most 1.10 times the time, recomputed at least 16 times less at most 1.45
times. About four minutes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

import hardstep as hs

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import RESULTS, record
from tables import memory

WAYS = (hs.Whole(), hs.Packed(), hs.Recomputed())


def vgg_small(rule: hs.BackwardRule, width: int = 128) -> nn.Sequential:
    """Return VGG-small for 3x32x32: convolutions of 128, 128, 256, 256, 512, 512 channels, pools after 2, 4, 6, linear.

    Weights are real and activations signs. A pool stands before its normalisation, on sums.
    """
    layers, channels = list[nn.Module](), 3
    for i, wide in enumerate((width, width, 2 * width, 2 * width, 4 * width, 4 * width)):
        layers.append(nn.Conv2d(channels, wide, 3, padding=1, bias=False))
        layers += [nn.MaxPool2d(2)] if i % 2 else []
        layers += [nn.BatchNorm2d(wide), hs.Sign(rule)]
        channels = wide
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * channels, 10))


def mlp(rule: hs.BackwardRule, width: int = 1024, *, norm: bool = True) -> nn.Sequential:
    """Return the MLP with three hidden layers."""
    return hs.nets.MLP(hidden=(width,) * 3, norm=norm, activation=hs.Step(rule))((784,), 10)


def gradients(net: nn.Sequential, way: hs.Whole | hs.Packed | hs.Recomputed, x: Tensor, y: Tensor) -> list[Tensor]:
    """Return the gradients of the loss."""
    with way.saving(net):
        out = net(x)
    return list(torch.autograd.grad(functional.cross_entropy(out, y), list(net.parameters())))


def held(net: nn.Sequential, way: hs.Whole | hs.Packed | hs.Recomputed, x: Tensor) -> int:
    """Return the bytes that are allocated in a forward pass and not freed in it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record_of_allocations, way.saving(net):
        out = net(x)
    del out
    return sum(event.self_cpu_memory_usage for event in record_of_allocations.events())


def seconds(
    net: nn.Sequential, optimiser: torch.optim.Optimizer, saving: AbstractContextManager[None], x: Tensor, y: Tensor
) -> float:
    """Return the CPU time of a training step."""
    start = time.process_time()
    with saving:
        out = net(x)
    functional.cross_entropy(out, y).backward()
    optimiser.step()
    optimiser.zero_grad()
    return time.process_time() - start


def measure(options: argparse.Namespace, name: str, net: nn.Sequential, shape: tuple[int, ...], timed: int) -> None:
    """Measure a network; record a line for each way."""
    x = torch.randn(options.batch, *shape, generator=torch.Generator().manual_seed(0))
    y = torch.arange(len(x)) % 10
    plain = gradients(net, WAYS[0], x[:8], y[:8])
    for way in WAYS[1:]:
        assert all(map(torch.equal, plain, gradients(net, way, x[:8], y[:8]))), f"{way} changes gradients of {name}"
    held(net, WAYS[0], x[:8])  # the first record also counts what torch sets up
    nbytes = [held(net, way, x) for way in WAYS]
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    x, y = x[:timed].clone(), y[:timed]
    savings = [way.saving(net) for way in WAYS]
    rounds: list[dict[int, float]] = []
    for turn in range(options.rounds + 1):
        order = [(turn + i) % 3 for i in range(3)]  # who goes first alternates
        rounds.append({i: seconds(net, optimiser, savings[i], x, y) for i in order})
    for i, way in enumerate(WAYS):
        ratios = [times[i] / times[0] for times in rounds[1:]]  # the first round warms up
        record(
            options.results,
            "speed_memory",
            net=name,
            memory=repr(way),
            batch=options.batch,
            bytes=nbytes[i],
            less=round(nbytes[0] / nbytes[i], 2),
            timed_batch=timed,
            ratio=round(statistics.median(ratios), 3),
            ratio_min=round(min(ratios), 3),
            ratio_max=round(max(ratios), 3),
            ratio_of_least=round(min(times[i] for times in rounds[1:]) / min(times[0] for times in rounds[1:]), 3),
            seconds=round(statistics.median(times[i] for times in rounds[1:]), 4),
            rounds=options.rounds,
            threads=torch.get_num_threads(),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--timed", type=int, default=32, help="rows with which VGG-small is timed")
    parser.add_argument("--only", default="", help="networks whose name begins so")
    parser.add_argument("--tiny", action="store_true", help="small networks, for a test")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    box, smooth = hs.Clipped(0.5), hs.ReSTE()
    units, channels = (64, 8) if options.tiny else (1024, 128)
    cases: dict[str, Callable[[], nn.Sequential]] = {
        "MLP, Clipped": lambda: mlp(box, units),
        "MLP, ReSTE": lambda: mlp(smooth, units),
        "MLP without normalisation, Clipped": lambda: mlp(box, units, norm=False),
        "VGG-small, Clipped": lambda: vgg_small(box, channels),
        "VGG-small, ReSTE": lambda: vgg_small(smooth, channels),
    }
    for name, build in cases.items():
        if name.startswith(options.only):
            images = name.startswith("VGG")
            timed = min(options.timed, options.batch) if images else options.batch
            measure(options, name, build(), (3, 32, 32) if images else (784,), timed)
    print(memory.saved(options.results))


if __name__ == "__main__":
    main()
