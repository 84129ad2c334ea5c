"""Hyperparameters as data: frozen dataclasses and activations to plain trees and back, without pickle or eval."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from torch import nn

__all__ = ["from_tree", "to_tree"]


def to_tree(value: Any) -> Any:
    """Return nested dataclasses, activations, containers and numbers as dicts, lists, numbers and text.

    An object becomes {"class": its name, "arguments": what makes it again}.

    Raises
    ------
    TypeError
        If a value is of another kind, such as a function or a generator of random numbers.

    Examples
    --------
    >>> from hardstep.losses import CrossEntropy
    >>> to_tree(CrossEntropy(smoothing=0.1))
    {'class': 'CrossEntropy', 'arguments': {'smoothing': 0.1}}
    """
    if is_dataclass(value) and not isinstance(value, type):
        made_of = {item.name: to_tree(getattr(value, item.name)) for item in fields(value) if item.init}
        return {"class": type(value).__name__, "arguments": made_of}
    if isinstance(value, nn.Module):
        return {"class": type(value).__name__, "arguments": {k: to_tree(v) for k, v in _arguments(value).items()}}
    if isinstance(value, Mapping):
        return {"items": [[to_tree(key), to_tree(each)] for key, each in value.items()]}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [to_tree(each) for each in value]}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"{value!r} cannot be written to a file: allowed are numbers, text, containers and the frozen dataclasses of "
        "hardstep; set the parameter to one of them before saving (random_state to an integer)"
    )


def from_tree(tree: Any, known: Mapping[str, Any]) -> Any:
    """Make again what `to_tree` described.

    Parameters
    ----------
    known
        The classes that may be made, by name.

    Raises
    ------
    ValueError
        If the tree names another class.

    Examples
    --------
    >>> from hardstep.losses import CrossEntropy
    >>> from_tree({"class": "CrossEntropy", "arguments": {"smoothing": 0.1}}, {"CrossEntropy": CrossEntropy})
    CrossEntropy(smoothing=0.1)
    """
    if not isinstance(tree, dict):
        return tree
    if "items" in tree:
        return {from_tree(key, known): from_tree(each, known) for key, each in tree["items"]}
    for kind in (tuple, list):
        if kind.__name__ in tree:
            return kind(from_tree(each, known) for each in tree[kind.__name__])
    if tree["class"] not in known:
        raise ValueError(f"the file names the class {tree['class']!r}, unknown to hardstep; pass it in `known`")
    return known[tree["class"]](**{name: from_tree(each, known) for name, each in tree["arguments"].items()})


def _arguments(module: nn.Module) -> dict[str, Any]:
    """Return what an activation was built from, as it or the step inside it keeps it."""
    parts = [vars(part) for part in module.modules()]
    names = list(inspect.signature(type(module)).parameters)
    return {name: next(part[name] for part in parts if name in part) for name in names}
