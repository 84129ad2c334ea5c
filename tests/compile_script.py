"""Compare compiled networks with plain ones; run as a program, so that the compiler sees the library as shipped."""

import math
import sys

import torch
from torch import nn

import hardstep as hs

RULES = {"aot_eager": [hs.Identity(), hs.Clipped(), hs.Sech2(), hs.ReSTE()], "inductor": [hs.ReSTE()]}


def compare(rule: hs.BackwardRule, backend: str) -> None:
    """Check outputs bit for bit and gradients closely, in one graph without breaks."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 8), hs.Step(rule), nn.Linear(8, 3)), torch.randn(7, 5)
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    special = torch.tensor([-math.inf, -1.0, -0.0, 0.0, 1e-40, 1.0, math.inf, math.nan])
    assert torch.equal(torch.compile(hs.Step(rule), fullgraph=True, backend=backend)(special), hs.step(special))
    assert torch.equal(compiled(x), net(x))
    plain = torch.autograd.grad(net(x).sum(), list(net.parameters()))
    fast = torch.autograd.grad(compiled(x).sum(), list(net.parameters()))
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b)


if __name__ == "__main__":
    for each in RULES[sys.argv[1]]:
        compare(each, sys.argv[1])
