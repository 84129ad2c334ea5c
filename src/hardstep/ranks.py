"""Ranks: what makes many processes give the weights of one. Used by `fit` and by gradient methods only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["Precision", "launched", "launched_fabric", "shared_statistics"]


Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""What layers multiply in: float32, bfloat16, or float16 with scaled losses; weights and sums are float32 in all."""


def launched_fabric(precision: Precision = "32-true") -> Fabric:
    """Return a launched Fabric for this machine: one device, or the ranks that torchrun started.

    Raises
    ------
    ValueError
        If torchrun's environment names ranks that cannot be divided over the machines.
    """
    world, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if world % local:
        raise ValueError(f"WORLD_SIZE={world} is no multiple of LOCAL_WORLD_SIZE={local}; start it with torchrun")
    if world > 1:
        fabric = Fabric(
            accelerator="auto", devices=local, num_nodes=world // local, strategy="ddp", precision=precision
        )
    else:
        fabric = Fabric(accelerator="auto", devices=1, precision=precision)
    fabric.launch()
    return fabric


@contextmanager
def launched(precision: Precision = "32-true") -> Iterator[Fabric]:
    """Launch a Fabric for the time of the block; its process group, if there is one, ends with it."""
    fabric = launched_fabric(precision)
    try:
        yield fabric
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def shared_statistics(net: nn.Module, ranks: int) -> Iterator[None]:
    """Let batch normalisation use the statistics of the global batch for the time of the block.

    The modules keep their type and their state; torch's SyncBatchNorm would change both, and knows no CPU.
    """
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)] if ranks > 1 else []
    for norm in norms:
        norm.forward = partial(_global_batch_norm, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _global_batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Normalise by mean and variance over all ranks, two passes as torch does on one."""
    if not norm.training:
        return type(norm).forward(norm, x)
    axes = [0, *range(2, x.ndim)]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    count = x.new_tensor(x.numel() / x.shape[1])
    dist.all_reduce(count)
    mean = _all_sum(x.sum(axes)) / count
    centred = x - mean.view(shape)
    variance = _all_sum(centred.square().sum(axes)) / count
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked += 1
        share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean.detach(), share)
        norm.running_var.lerp_(variance.detach() * (count / (count - 1)), share)
    out = centred * (variance + norm.eps).rsqrt().view(shape)
    return out if norm.weight is None else out * norm.weight.view(shape) + norm.bias.view(shape)


class _AllSum(torch.autograd.Function):
    """Sum over ranks, forwards and backwards: every rank's output depends on every rank's input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total


def _all_sum(x: Tensor) -> Tensor:
    total: Tensor = _AllSum.apply(x)  # type: ignore[no-untyped-call]
    return total
