"""What a command line chooses: methods, rules, networks and their parts by the names of their classes."""

from __future__ import annotations

import dataclasses
import re
import typing
from inspect import isabstract
from types import UnionType
from typing import Any, TypeVar

import numpy as np
import tyro
from torch import nn

from hardstep.fit import Method
from hardstep.methods.bcd import BCD
from hardstep.methods.convex import ConvexTraining
from hardstep.methods.gradient import GradientDescent
from hardstep.methods.layer_targets import TargetProp
from hardstep.methods.magnitude import MagnitudePruning
from hardstep.methods.margin_bcd import MarginBCD
from hardstep.methods.random_features import RandomFeatures
from hardstep.methods.splitting import Splitting
from hardstep.methods.target_prop import ExactTargetProp
from hardstep.rules import BackwardRule

__all__ = ["METHODS", "kebab", "named", "parse", "usual_sweeps"]

METHODS = (
    GradientDescent,
    BCD,
    ConvexTraining,
    ExactTargetProp,
    MagnitudePruning,
    MarginBCD,
    RandomFeatures,
    Splitting,
    TargetProp,
)  # importing a method is what makes it known here


T = TypeVar("T")


def parse(default: T, arguments: list[str], prog: str) -> T:
    """Read the command line of a command whose fields all have defaults.

    Classes are chosen by name first, then tyro reads their fields.

    Raises
    ------
    ValueError
        If a class is chosen by a name that it does not have.
    """
    rest, chosen = [], list(arguments)
    while chosen:
        token = chosen.pop(0)
        path, _, value = token.removeprefix("--").replace("-", "_").partition("=")
        choices = _choices(default, path.split(".")) if token.startswith("--") else {}
        if not choices:
            rest.append(token)
            continue
        name = token.partition("=")[2] if value else (chosen.pop(0) if chosen else "")
        if name not in choices:
            raise ValueError(f"{token} takes one of {', '.join(choices)}; got {name!r}")
        default = _replace(default, path.split("."), choices[name])
    listed = "\n".join(
        f"--{p.replace('_', '-')} {{{','.join(_choices(default, p.split('.')))}}}" for p in _paths(default)
    )
    text = f"{type(default).__doc__}\n\nChosen by name, before their own options:\n{listed}"
    return tyro.cli(
        type(default), args=rest, default=default, prog=prog, description=text, config=(tyro.conf.AvoidSubcommands,)
    )


def named(kind: type) -> dict[str, Any]:
    """Return an instance of each concrete class of a kind, by command-line name; a rule stands for gradient descent.

    Examples
    --------
    >>> list(named(Method))[:2]
    ['bcd', 'convex-training']
    """
    choices = {kebab(each): each() for each in _concrete(kind)}
    if kind is Method:
        choices |= {kebab(rule): GradientDescent(rule=rule()) for rule in _concrete(BackwardRule)}
    return choices


def usual_sweeps(rows: int) -> int:
    """Return how many sweeps a training takes where nothing is said: about 540,000 rows in all, 10 to 100 sweeps."""
    return int(np.clip(round(540_000 / rows), 10, 100))


def kebab(kind: type) -> str:
    """Return the command-line name of a class.

    Examples
    --------
    >>> kebab(GradientDescent)
    'gradient-descent'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", kind.__name__).lower()


def _choices(instance: Any, path: list[str]) -> dict[str, Any]:
    """Return what a dotted field can be, by command-line name: an instance of each concrete class; {} for a leaf."""
    for name in path[:-1]:
        instance = getattr(instance, name, None)
    if not dataclasses.is_dataclass(instance):
        return {}
    declared = typing.get_type_hints(type(instance)).get(path[-1])
    if isinstance(declared, UnionType):
        kinds = [kind for member in declared.__args__ for kind in _kinds(typing.get_origin(member) or member)]
        return {kebab(kind): kind() for kind in kinds}
    declared = typing.get_origin(declared) or declared
    if not (isinstance(declared, type) and isabstract(declared)):
        return {}
    return named(declared)


def _paths(instance: Any, prefix: str = "") -> list[str]:
    """Return the dotted fields that are chosen by name."""
    paths = []
    for item in dataclasses.fields(instance) if dataclasses.is_dataclass(instance) else ():
        if _choices(instance, [item.name]):
            paths += [prefix + item.name, *_paths(getattr(instance, item.name), f"{prefix}{item.name}.")]
    return paths


def _kinds(member: type) -> list[type]:
    """Return what one member of a union stands for: a class of hyperparameters, all of an abstract one, or nothing."""
    if isabstract(member):
        return _concrete(member)
    return [member] if dataclasses.is_dataclass(member) or issubclass(member, nn.Module) else []


def _concrete(kind: type) -> list[type]:
    """Return the concrete subclasses that are known, by name: the order of imports means nothing."""
    found: list[type] = []
    subclass: type
    for subclass in kind.__subclasses__():
        found += _concrete(subclass) if isabstract(subclass) else [subclass]
    return sorted((each for each in found if each.__module__.startswith("hardstep.")), key=lambda each: each.__name__)


def _replace(instance: Any, path: list[str], value: Any) -> Any:
    """Return a copy of nested frozen dataclasses with one field replaced."""
    if len(path) > 1:
        value = _replace(getattr(instance, path[0]), path[1:], value)
    return dataclasses.replace(instance, **{path[0]: value})
