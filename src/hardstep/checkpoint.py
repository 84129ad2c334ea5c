"""Checkpoints: nested state dictionaries of tensors, numbers and text as one verified safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hardstep.storage import read_arrays, write_arrays

__all__ = ["load_tree", "save_tree"]


def save_tree(path: Path, tree: Any, kind: str) -> None:
    """Write a tree of dicts, lists, tuples, tensors, numbers, text and None; whole or not at all.

    Raises
    ------
    TypeError
        If the tree holds anything else, naming it.
    """
    tensors: list[Tensor] = []
    skeleton = _strip(tree, tensors)
    arrays = {str(i): _as_bytes(tensor) for i, tensor in enumerate(tensors)}
    write_arrays(path, {name: tensor.numpy() for name, tensor in arrays.items()}, skeleton, kind)


def load_tree(path: Path, kind: str) -> Any:
    """Read what `save_tree` wrote, bit for bit, every tensor on the CPU."""
    arrays, skeleton = read_arrays(path, kind)
    return _fill(skeleton, {name: torch.from_numpy(array.copy()) for name, array in arrays.items()})


def _strip(tree: Any, tensors: list[Tensor]) -> Any:
    """Move the tensors of a tree to a list; what is left is JSON that keeps key and sequence types."""
    if isinstance(tree, Tensor):
        tensors.append(tree.detach().cpu())
        return {"tensor": len(tensors) - 1, "dtype": str(tree.dtype).removeprefix("torch."), "shape": list(tree.shape)}
    if isinstance(tree, dict):
        return {"dict": [[key, _strip(value, tensors)] for key, value in tree.items()]}
    if isinstance(tree, tuple):
        return {"tuple": [_strip(value, tensors) for value in tree]}
    if isinstance(tree, list):
        return [_strip(value, tensors) for value in tree]
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"a checkpoint holds tensors, numbers, text and containers of them, got {type(tree).__name__}")


def _fill(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(skeleton, list):
        return [_fill(value, tensors) for value in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if "dict" in skeleton:
        return {key: _fill(value, tensors) for key, value in skeleton["dict"]}
    if "tuple" in skeleton:
        return tuple(_fill(value, tensors) for value in skeleton["tuple"])
    dtype = getattr(torch, skeleton["dtype"], None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{skeleton['dtype']!r} is not a type of tensor")
    octets = tensors[str(skeleton["tensor"])]
    flat = octets.view(dtype) if len(octets) else torch.empty(0, dtype=dtype)
    return flat.reshape(skeleton["shape"])


def _as_bytes(tensor: Tensor) -> Tensor:
    """Return the raw bytes, so that every dtype (bfloat16 too) passes through NumPy."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
