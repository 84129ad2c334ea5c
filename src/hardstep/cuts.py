"""A network cut at its steps: every call of a step can be recorded, and answered with other bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hardstep.step import Step

__all__ = ["Call", "Cuts", "recorder", "replayer"]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a step: the module, its input, and the bits it gave on, which are the leaf of what lies above."""

    step: Step
    x: Float[Tensor, "n *d"]
    bits: Float[Tensor, "n *d"]

    @property
    def credit(self) -> Float[Tensor, "n *d"]:
        """dL/dbits of the backward passes so far, 0 where nothing above reads the bits."""
        return torch.zeros_like(self.bits) if self.bits.grad is None else self.bits.grad


Answer = Callable[[Call], Tensor]
"""Takes what a step would do; returns the bits to go on with."""


class Cuts:
    """Hooks on all steps of a network, for as long as the context lasts.

    A staircase calls its step once for each stair.

    Parameters
    ----------
    net
        Any network; residual sums and steps that are used twice are fine.
    answer
        What each call is answered with.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 3), Step(), nn.Linear(3, 1))
    >>> calls: list[Call] = []
    >>> with Cuts(net, recorder(calls)):
    ...     net(torch.ones(4, 2)).sum().backward()
    >>> calls[0].bits.grad.shape, net[0].weight.grad is None
    (torch.Size([4, 3]), True)
    """

    def __init__(self, net: nn.Module, answer: Answer) -> None:
        self._net, self._answer = net, answer
        self._hooks: list[Any] = []

    def __enter__(self) -> Cuts:
        steps = [module for module in self._net.modules() if isinstance(module, Step)]
        self._hooks = [step.register_forward_hook(self._called) for step in steps]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def answering(self, answer: Answer) -> Iterator[None]:
        """Answer otherwise for a while."""
        kept, self._answer = self._answer, answer
        try:
            yield
        finally:
            self._answer = kept

    def _called(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert isinstance(module, Step)
        return self._answer(Call(module, inputs[0], output))


def recorder(calls: list[Call]) -> Answer:
    """Return an answer that cuts the graph at every step and keeps the calls."""

    def answer(call: Call) -> Tensor:
        bits = call.bits.detach().requires_grad_()
        calls.append(Call(call.step, call.x, bits))
        return bits

    return answer


def replayer(bits: Iterable[Float[Tensor, "_ *_"]], inputs: list[Float[Tensor, "_ *_"]]) -> Answer:
    """Return an answer that gives on these bits, call by call, then what steps do; it keeps what those replaced got."""
    left = iter(bits)

    def answer(call: Call) -> Tensor:
        replacement = next(left, None)
        if replacement is None:
            return call.bits
        inputs.append(call.x)
        return replacement

    return answer
