"""How tensors are kept for the backward pass: whole, or as codes of a few bits where they have few levels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from hardstep.rules import BackwardRule
from hardstep.step import Sign, Staircase, Step

__all__ = ["Codes", "Itself", "Known", "as_stand_ins", "unpack"]


@dataclass(frozen=True, eq=False)
class Itself:
    """A tensor that is kept whole."""

    tensor: Tensor
    version: int

    def unpack(self) -> Tensor:
        """Return the tensor; raise RuntimeError if something was written over it."""
        if self.tensor._version != self.version:
            raise RuntimeError(
                f"a tensor of shape {tuple(self.tensor.shape)} that the backward pass needs was changed in place after "
                "the forward pass; change a copy"
            )
        return self.tensor


@dataclass(frozen=True, eq=False)
class Codes:
    """A tensor that has few levels: codes in the order of its storage, 8 bits or fewer each."""

    words: UInt8[Tensor, "_"]
    levels: Float[Tensor, "_"]
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, codes: UInt8[Tensor, "*n"] | Bool[Tensor, "*n"], levels: Float[Tensor, "_"]) -> Codes:
        """Pack codes that are dense in memory, as results of elementwise operations are; they are overwritten."""
        flat = codes.view(torch.uint8).as_strided((codes.numel(),), (1,))
        return cls(_packed(flat, _bits(len(levels))), levels, tuple(codes.shape), codes.stride())

    def unpack(self) -> Tensor:
        """Return the tensor, in the memory format that it had."""
        bits = _bits(len(self.levels))
        if not bits:
            return self.levels[0].expand(self.shape)
        shifts = torch.arange(0, 8, bits, device=self.levels.device)
        codes = (torch.arange(256, device=self.levels.device)[:, None] >> shifts) & (2**bits - 1)
        table = self.levels[codes.clamp_(max=len(self.levels) - 1)]  # what each byte stands for
        return table.index_select(0, self.words.int()).view(-1).as_strided(self.shape, self.stride)


def unpack(kept: Itself | Codes) -> Tensor:
    """Return a tensor from how it was kept."""
    with torch.no_grad():
        return kept.unpack()


def _bits(levels: int) -> int:
    """Return how many bits, 0, 1, 2, 4 or 8, tell so many levels apart."""
    return next(bits for bits in (0, 1, 2, 4, 8) if levels <= 2**bits)


def _packed(codes: UInt8[Tensor, "n"], bits: int) -> UInt8[Tensor, "_"]:
    """Return codes of so many bits as bytes, the first in the lowest bits; the codes are overwritten."""
    if bits in (0, 8):
        return codes if bits else codes.new_empty(0)  # a view would keep the codes
    per = 8 // bits
    whole = nn.functional.pad(codes, (0, -len(codes) % per)) if len(codes) % per else codes
    words = whole.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[per])
    # the product of a word with this number has the j-th code at bit `bits` j of its highest byte, and no carries
    gather = sum(1 << (8 * (per - 1) - (8 - bits) * j) for j in range(per))
    return words.mul_(gather).bitwise_right_shift_(8 * (per - 1)).to(torch.uint8)


def as_stand_ins(rule: BackwardRule, x: Tensor) -> Codes:
    """Return which of the rule's stand-ins its pullback takes each entry for, by what it does to gradients 1 and -1."""
    with torch.no_grad():
        levels = x.new_tensor(rule.stand_ins)
        up, ups = (rule.pullback(values, torch.ones_like(values)) for values in (x, levels))
        if len(levels) <= 2:
            return Codes.of((up - ups[0]).bool(), levels)  # five times as fast as up != ups[0]
        down, downs = (rule.pullback(values, torch.full_like(values, -1.0)) for values in (x, levels))
        codes = torch.zeros_like(x, dtype=torch.uint8)
        for i in range(1, len(levels)):
            codes.masked_fill_((up == ups[i]) & (down == downs[i]), i)
        return Codes.of(codes, levels)


@dataclass
class _Seen:
    """An output of a step, by its memory, and the codes of the views of it that were kept."""

    memory: StorageWeakRef
    version: int
    dtype: torch.dtype
    activation: Step | Sign | Staircase
    views: dict[tuple[Any, ...], Itself | Codes] = field(default_factory=dict)


class Known:
    """Knows outputs of steps again by their memory, never by their values, and packs those."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def note(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Remember an output; memory that is freed and used again is other memory."""
        assert isinstance(module, Step | Sign | Staircase)
        reference = StorageWeakRef(output.untyped_storage())  # type: ignore[no-untyped-call]
        self._seen[reference.cdata] = _Seen(reference, output._version, output.dtype, module)

    def pack(self, tensor: Tensor) -> Itself | Codes:
        """Return codes of an output of a step, as long as nothing was written over it, else the tensor."""
        seen = self._seen.get(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else None
        if seen is None or (seen.version, seen.dtype) != (tensor._version, tensor.dtype):
            return Itself(tensor, tensor._version)
        view = (tensor.storage_offset(), tensor.shape, tensor.stride())
        if view not in seen.views:
            with torch.no_grad():
                codes, levels = seen.activation.coded(tensor)
                seen.views[view] = Codes.of(codes, levels) if len(levels) <= 256 else Itself(tensor, tensor._version)
        return seen.views[view]
