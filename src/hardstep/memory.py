"""What a forward pass keeps for the backward pass: everything, real sums and bits, or bits alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from hardstep.chain import leaves
from hardstep.kept import Codes, Itself, Known, as_stand_ins, unpack
from hardstep.step import Sign, Staircase, Step

__all__ = ["Packed", "Recomputed", "Whole"]


@dataclass(frozen=True)
class Whole:
    """Keep every tensor as autograd does: no time is spent, and 12 bytes a unit held in float32.

    For linear, normalise, step: 4 bytes for what the normalisation reads, 4 for what the step reads, 4 for the bit that
    the next layer reads.
    """

    def saving(self, net: nn.Module) -> AbstractContextManager[None]:
        """Return a context that changes nothing."""
        return nullcontext()


@dataclass(frozen=True)
class Packed:
    """Keep the sums of each layer with weights and every step's output as bits; the same gradients, bit for bit.

    What stands between such a layer and its step, normalisation, pooling, dropout, is computed again from the sums in
    the backward pass; so is what stands between a step and the next such layer, from the bits. For n rows and b bytes
    a number that is, for each unit before pooling, b + 1/8 bytes. Without anything between, a box rule needs one or two
    bits of the sum (`BackwardRule.stand_ins`), so 1/4 or 3/8 of a byte; other rules need it whole.

    Any network: outside of `nn.Sequential`s, as at the sum of a residual block, nothing is computed again.
    """

    def saving(self, net: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which the network's forward pass keeps so much; it may be entered again and again."""
        chains = {m: _cut_at_sums([leaf for _, leaf in leaves(m)]) for m in net.modules() if _sequential(m)}
        again = {step for regions in chains.values() for region in regions if region.again for step in region.steps}
        alone = [m for m in net.modules() if isinstance(m, Step) and m not in again]
        return _Saving(net, chains, alone)


@dataclass(frozen=True)
class Recomputed:
    """Keep every step's output as bits and nothing else; the same gradients, bit for bit, for a second forward pass.

    The bits of one step are all it takes to compute again what lies between it and the next: for n rows, n/8 bytes a
    unit after pooling, and for each segment that draws the generator's state (5,056 bytes on a CPU). The backward pass
    holds what one segment needs, segment by segment. Running statistics are updated once, dropout draws the same, and
    autocast is as it was. A module that contains a step, such as a residual block, is a segment.

    Raises
    ------
    ValueError
        By `saving`, if the network is no `nn.Sequential`, which may contain others: it cannot be cut.

    References
    ----------
    Chen et al. 2016, Sec. 4 [chen2016], checkpoints and segments. Ours: in a step network a checkpoint is a bit a unit.
    """

    def saving(self, net: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which the network's forward pass keeps so much; it may be entered again and again."""
        if not _sequential(net):
            raise ValueError(
                f"Recomputed() cuts an nn.Sequential, which may contain others, at its steps, but the network is a "
                f"{type(net).__name__}; write it as an nn.Sequential of its parts, or use memory=Packed()"
            )
        return _Saving(net, {net: _cut_at_steps([leaf for _, leaf in leaves(net)])}, [])


@dataclass(frozen=True, eq=False)
class _Region:
    """Leaves that run one after another; computed again in the backward pass, or not."""

    leaves: Sequence[nn.Module]
    again: bool

    @cached_property
    def steps(self) -> list[Step]:
        return [module for leaf in self.leaves for module in leaf.modules() if isinstance(module, Step)]

    @cached_property
    def owners(self) -> list[nn.Module]:
        """The modules with buffers of their own."""
        parts = [module for leaf in self.leaves for module in leaf.modules()]
        return [module for module in parts if any(True for _ in module.buffers(recurse=False))]

    def __call__(self, x: Tensor) -> Tensor:
        for leaf in self.leaves:
            x = leaf(x)
        return x


def _cut_at_steps(chain: Sequence[nn.Module]) -> list[_Region]:
    """Return the regions that end with a step, and the rest."""
    return [_Region(part, len(part) > 1 or _composite(part[0])) for part in _parts(chain, before=(), behind=(_steps,))]


def _cut_at_sums(chain: Sequence[nn.Module]) -> list[_Region]:
    """Return the regions that end with a step or with a layer of weights; modules made of parts stay apart."""
    parts = _parts(chain, before=(_composite,), behind=(_composite, _steps, _weighs))
    # flattened bits are known again by their memory, so there is nothing to compute
    return [_Region(part, sum(not isinstance(leaf, nn.Flatten) for leaf in part) > 1) for part in parts]


Trait = Callable[[nn.Module], bool]


def _parts(chain: Sequence[nn.Module], *, before: Sequence[Trait], behind: Sequence[Trait]) -> list[list[nn.Module]]:
    """Cut a chain before and behind the leaves with these traits."""
    parts: list[list[nn.Module]] = [[]]
    for leaf in chain:
        if any(trait(leaf) for trait in before):
            parts.append([])
        parts[-1].append(leaf)
        if any(trait(leaf) for trait in behind):
            parts.append([])
    return [part for part in parts if part]


def _sequential(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _steps(leaf: nn.Module) -> bool:
    return any(isinstance(module, Step) for module in leaf.modules())


def _weighs(leaf: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in leaf.parameters())


def _composite(leaf: nn.Module) -> bool:
    return any(True for _ in leaf.children()) and not isinstance(leaf, Sign | Staircase)


class _Again:
    """A run of a region that keeps its input, and computes anew what its nodes want in the backward pass.

    What they save is numbered. The first number that is asked for runs the region again, up to the last one; each is
    given away once, so that a graph that is retained starts over.
    """

    def __init__(self, region: _Region, x: Tensor, kept: Itself | Codes) -> None:
        self._region, self._kept, self._grad = region, kept, x.requires_grad
        self._weights = [Itself(weight, weight._version) for leaf in region.leaves for weight in leaf.parameters()]
        self._kinds = {"cpu", x.device.type}
        self._casts = _casts(self._kinds)
        self._device = [] if x.device.type == "cpu" else [x.device]
        self._drawn: list[Tensor] | None = None
        self._count = 0
        self._values: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Run the region, and remember the generators if it draws from them."""
        before = self._generators()
        with saved_tensors_hooks(self._number, self._value):
            out = self._region(x)
        if not all(map(torch.equal, before, self._generators())):
            self._drawn = before
        return out

    def _number(self, tensor: Tensor) -> int:
        self._count += 1
        return self._count - 1

    def _value(self, number: int) -> Tensor:
        if number not in self._values:
            self._run()
        return self._values.pop(number)

    def _run(self) -> None:
        for weight in self._weights:
            weight.unpack()
        self._values = {}
        with ExitStack() as stack:
            if self._casts != _casts(self._kinds):
                for kind, dtype, enabled, cache in self._casts:
                    stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=cache))
            if self._drawn is not None:
                stack.enter_context(torch.random.fork_rng(self._device, device_type=_kind(self._device)))
                self._restore(self._drawn)
            stack.enter_context(_buffers_aside(self._region.owners))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(saved_tensors_hooks(self._take, unpack))
            stack.enter_context(suppress(_EnoughError))
            x = self._kept.unpack().detach().requires_grad_(self._grad)
            *before, last = self._region.leaves
            for leaf in before:
                x = leaf(x)
            if isinstance(last, Step | Sign):
                self._take(x)  # all that a step saves is its input, so its output is not computed
            else:
                last(x)
        if len(self._values) != self._count:
            raise RuntimeError(
                f"a part of the network kept {self._count} tensors in its forward pass, but {len(self._values)} on a "
                "second run; its forward must not depend on what it did before, or use memory=Whole()"
            )

    def _take(self, tensor: Tensor) -> None:
        self._values[len(self._values)] = tensor.detach()
        if len(self._values) == self._count:
            raise _EnoughError  # what follows is not needed

    def _generators(self) -> list[Tensor]:
        """Return the states of the generators of the CPU and of the input's device."""
        return [torch.get_rng_state(), *(torch.get_device_module(d).get_rng_state(d) for d in self._device)]

    def _restore(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for device, state in zip(self._device, states[1:], strict=True):
            torch.get_device_module(device).set_rng_state(state, device)


class _EnoughError(Exception):
    """All that is wanted has been computed."""


def _casts(kinds: set[str]) -> list[tuple[str, torch.dtype, bool, bool]]:
    """Return the state of autocast for kinds of devices."""
    cache = torch.is_autocast_cache_enabled()
    return [(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache) for kind in kinds]


def _kind(devices: list[torch.device]) -> str:
    return devices[0].type if devices else "cpu"


@contextmanager
def _buffers_aside(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let modules run on copies of their buffers: statistics are not updated again."""
    owned = [(module, name, own) for module in modules for name, own in module.named_buffers(recurse=False)]
    for module, name, own in owned:
        setattr(module, name, own.clone())
    try:
        yield
    finally:
        for module, name, own in owned:
            setattr(module, name, own)


class _Saving:
    """A context, to be entered as often as one likes, in which a network runs region by region and keeps codes."""

    def __init__(self, net: nn.Module, chains: dict[nn.Module, list[_Region]], alone: Sequence[Step]) -> None:
        self._chains, self._alone = chains, alone
        self._activations = [module for module in net.modules() if isinstance(module, Step | Sign | Staircase)]
        self._left = ExitStack()

    def __enter__(self) -> None:
        known = Known()
        with ExitStack() as stack:
            for module in self._activations:  # prepend: sees the output before another hook changes it
                stack.callback(module.register_forward_hook(known.note, prepend=True).remove)
            for chain, regions in self._chains.items():
                _patch(stack, chain, partial(_one_by_one, regions, known))
            for step in self._alone:
                _patch(stack, step, partial(_with_stand_ins, step))
            stack.enter_context(saved_tensors_hooks(known.pack, unpack))
            self._left = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._left.close()


def _patch(stack: ExitStack, module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
    """Give a module another forward until the stack is left."""
    module.forward = forward
    stack.callback(delattr, module, "forward")


def _one_by_one(regions: Sequence[_Region], known: Known, x: Tensor) -> Tensor:
    for region in regions:
        again = region.again and torch.is_grad_enabled()
        x = _Again(region, x, known.pack(x.detach())).forward(x) if again else region(x)
    return x


def _with_stand_ins(step: Step, x: Tensor) -> Tensor:
    """Run a step that keeps of its input what its rule needs."""
    rule = step.rule
    if not rule.stand_ins:
        return Step.forward(step, x)
    with saved_tensors_hooks(partial(as_stand_ins, rule), unpack):
        return Step.forward(step, x)
