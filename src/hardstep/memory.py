"""What a forward pass keeps for the backward pass: everything, real sums and bits, or bits alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from hardstep.chain import leaves
from hardstep.rules import BackwardRule
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
        """Return a context in which the network's forward pass keeps so much."""
        chains = {m: _cut_at_sums([leaf for _, leaf in leaves(m)]) for m in net.modules() if _sequential(m)}
        again = {step for regions in chains.values() for region in regions if region.again for step in region.steps}
        alone = [m for m in net.modules() if isinstance(m, Step) and m not in again]
        return _saving(net, chains, alone)


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
        """Return a context in which the network's forward pass keeps so much."""
        if not _sequential(net):
            raise ValueError(
                f"Recomputed() cuts an nn.Sequential, which may contain others, at its steps, but the network is a "
                f"{type(net).__name__}; write it as an nn.Sequential of its parts, or use memory=Packed()"
            )
        return _saving(net, {net: _cut_at_steps([leaf for _, leaf in leaves(net)])}, [])


@dataclass(frozen=True, eq=False)
class _Region:
    """Leaves that run one after another; computed again in the backward pass, or not."""

    leaves: Sequence[nn.Module]
    again: bool

    @property
    def steps(self) -> list[Step]:
        return [module for module in self.parts if isinstance(module, Step)]

    @property
    def parts(self) -> list[nn.Module]:
        return [module for leaf in self.leaves for module in leaf.modules()]

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

    def __init__(self, region: _Region, x: Tensor, kept: _Itself | _Codes) -> None:
        self._region, self._kept, self._grad = region, kept, x.requires_grad
        self._weights = [_Itself(weight, weight._version) for leaf in region.leaves for weight in leaf.parameters()]
        self._casts = [
            (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), torch.is_autocast_cache_enabled())
            for kind in {"cpu", x.device.type}
        ]
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
            for kind, dtype, enabled, cache in self._casts:
                stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=cache))
            if self._drawn is not None:
                stack.enter_context(torch.random.fork_rng(self._device, device_type=_kind(self._device)))
                self._restore(self._drawn)
            stack.enter_context(_buffers_aside(self._region.parts))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(saved_tensors_hooks(self._take, _unpack))
            stack.enter_context(suppress(_EnoughError))
            self._region(self._kept.unpack().detach().requires_grad_(self._grad))
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


@contextmanager
def _saving(net: nn.Module, chains: dict[nn.Module, list[_Region]], alone: Sequence[Step]) -> Iterator[None]:
    """Run sequentials region by region, and keep outputs of steps, and inputs of those that run alone, as codes."""
    known = _Known()
    patched: list[nn.Module] = [*chains, *alone]
    hooks = [
        module.register_forward_hook(known.note, prepend=True)  # sees the output before any other hook changes it
        for module in net.modules()
        if isinstance(module, Step | Sign | Staircase)
    ]
    for chain, regions in chains.items():
        chain.forward = partial(_one_by_one, regions, known)
    for step in alone:
        step.forward = partial(_with_stand_ins, step)  # type: ignore[method-assign]
    try:
        with saved_tensors_hooks(known.pack, _unpack):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in patched:
            del module.forward


def _one_by_one(regions: Sequence[_Region], known: _Known, x: Tensor) -> Tensor:
    for region in regions:
        again = region.again and torch.is_grad_enabled()
        x = _Again(region, x, known.pack(x.detach())).forward(x) if again else region(x)
    return x


def _with_stand_ins(step: Step, x: Tensor) -> Tensor:
    """Run a step that keeps of its input what its rule needs."""
    rule = step.rule
    if not rule.stand_ins:
        return Step.forward(step, x)
    with saved_tensors_hooks(partial(_as_stand_ins, rule), _unpack):
        return Step.forward(step, x)


@dataclass(frozen=True, eq=False)
class _Itself:
    """A tensor that is kept whole."""

    tensor: Tensor
    version: int

    def unpack(self) -> Tensor:
        if self.tensor._version != self.version:
            raise RuntimeError(
                f"a tensor of shape {tuple(self.tensor.shape)} that the backward pass needs was changed in place after "
                "the forward pass; change a copy"
            )
        return self.tensor


@dataclass(frozen=True, eq=False)
class _Codes:
    """A tensor that has few levels: codes in the order of its storage, 8 bits or fewer each."""

    words: UInt8[Tensor, "_"]
    levels: Float[Tensor, "_"]
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, codes: UInt8[Tensor, "*n"] | Bool[Tensor, "*n"], levels: Float[Tensor, "_"]) -> _Codes:
        """Pack codes that are dense in memory, as results of elementwise operations are."""
        flat = codes.view(torch.uint8).as_strided((codes.numel(),), (1,))
        return cls(_packed(flat, _bits(len(levels))), levels, tuple(codes.shape), codes.stride())

    def unpack(self) -> Tensor:
        bits = _bits(len(self.levels))
        if not bits:
            return self.levels[0].expand(self.shape)
        shifts = torch.arange(0, 8, bits, device=self.levels.device)
        codes = (torch.arange(256, device=self.levels.device)[:, None] >> shifts) & (2**bits - 1)
        table = self.levels[codes.clamp_(max=len(self.levels) - 1)]  # what each byte stands for
        return table.index_select(0, self.words.int()).view(-1).as_strided(self.shape, self.stride)


def _unpack(kept: _Itself | _Codes) -> Tensor:
    with torch.no_grad():
        return kept.unpack()


def _bits(levels: int) -> int:
    """Return how many bits, 0, 1, 2, 4 or 8, tell so many levels apart."""
    return next(bits for bits in (0, 1, 2, 4, 8) if levels <= 2**bits)


def _packed(codes: UInt8[Tensor, "n"], bits: int) -> UInt8[Tensor, "_"]:
    """Return codes of so many bits as bytes, the first in the lowest bits."""
    if bits in (0, 8):
        return codes if bits else codes.new_empty(0)  # a view would keep the codes
    per = 8 // bits
    whole = nn.functional.pad(codes, (0, -len(codes) % per))
    words = whole.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[per])
    # the product of a word with this number has the j-th code at bit `bits` j of its highest byte, and no carries
    gather = sum(1 << (8 * (per - 1) - (8 - bits) * j) for j in range(per))
    return (words * gather >> 8 * (per - 1)).to(torch.uint8)


def _as_stand_ins(rule: BackwardRule, x: Tensor) -> _Codes:
    """Return which of the rule's stand-ins its pullback takes each entry for, by what it does to gradients 1 and -1."""
    with torch.no_grad():
        levels = x.new_tensor(rule.stand_ins)
        up, ups = (rule.pullback(values, torch.ones_like(values)) for values in (x, levels))
        if len(levels) <= 2:
            return _Codes.of((up - ups[0]).bool(), levels)  # five times as fast as up != ups[0]
        down, downs = (rule.pullback(values, torch.full_like(values, -1.0)) for values in (x, levels))
        codes = torch.zeros_like(x, dtype=torch.uint8)
        for i in range(1, len(levels)):
            codes.masked_fill_((up == ups[i]) & (down == downs[i]), i)
        return _Codes.of(codes, levels)


@dataclass
class _Seen:
    """An output of a step, by its memory, and the codes of the views of it that were kept."""

    memory: StorageWeakRef
    version: int
    dtype: torch.dtype
    activation: Step | Sign | Staircase
    views: dict[tuple[Any, ...], _Itself | _Codes] = field(default_factory=dict)


class _Known:
    """Knows outputs of steps again by their memory, never by their values, and packs those."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def note(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Remember an output; memory that is freed and used again is other memory."""
        assert isinstance(module, Step | Sign | Staircase)
        reference = StorageWeakRef(output.untyped_storage())  # type: ignore[no-untyped-call]
        self._seen[reference.cdata] = _Seen(reference, output._version, output.dtype, module)

    def pack(self, tensor: Tensor) -> _Itself | _Codes:
        """Return codes of an output of a step, as long as nothing was written over it, else the tensor."""
        seen = self._seen.get(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else None
        if seen is None or (seen.version, seen.dtype) != (tensor._version, tensor.dtype):
            return _Itself(tensor, tensor._version)
        view = (tensor.storage_offset(), tensor.shape, tensor.stride())
        if view not in seen.views:
            with torch.no_grad():
                codes, levels = seen.activation.coded(tensor)
                seen.views[view] = _Codes.of(codes, levels) if len(levels) <= 256 else _Itself(tensor, tensor._version)
        return seen.views[view]
