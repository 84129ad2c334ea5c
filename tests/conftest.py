"""Fixtures: planted networks (a known step network and the data it labels), XOR, digits."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: threads of their own would only be in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from torch import nn

import hardstep as hs
from hardstep.export.compiler import LIBRARY, compile_runtime, compiler, digest

if compiler() and not (LIBRARY.is_file() and digest().encode() in LIBRARY.read_bytes()):
    compile_runtime()  # missing, or of sources that have changed since


def planted_net(seed: int, widths: tuple[int, ...] = (12, 16, 8, 3)) -> nn.Sequential:
    """A network of small whole weights without normalisation: freezing it must change nothing."""
    generator = np.random.default_rng(seed)
    net = hs.nets.mlp(*widths, norm=False)
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.Linear):
                module.weight.copy_(torch.from_numpy(generator.integers(-3, 4, module.weight.shape)))
                module.bias.copy_(torch.from_numpy(generator.integers(-2, 3, module.bias.shape)))
    return net


@pytest.fixture(params=[0, 1, 2])
def planted(request: pytest.FixtureRequest) -> tuple[nn.Sequential, hs.data.Data]:
    """A planted network and 400 whole-number rows with its labels."""
    net = planted_net(request.param)
    x = np.random.default_rng(100 + request.param).integers(0, 4, (400, 12)).astype(np.float32)
    with torch.no_grad():
        y = net(torch.from_numpy(x)).argmax(dim=1).numpy()
    common = np.flatnonzero(np.bincount(y) >= 20)
    kept = np.isin(y, common)
    return net, hs.data.from_arrays(x[kept], np.searchsorted(common, y[kept]), name="planted")


@pytest.fixture
def xor() -> hs.data.Data:
    """The four points of XOR, each 25 times."""
    x = np.tile(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), (25, 1))
    return hs.data.from_arrays(x, (x.sum(axis=1) % 2).astype(np.int64), name="xor", test_share=0.2)


@pytest.fixture(scope="session")
def digits() -> hs.data.Data:
    """The 8x8 digits bundled with scikit-learn."""
    return hs.data.load("digits")
