"""The paths of a scattering network: which filters follow which, and how many there are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate

__all__ = ["Level", "Path", "PathRule", "all_paths", "decreasing_frequency", "grow", "non_decreasing", "prefixes"]

Path = tuple[int, ...]
PathRule = Callable[[int, int], bool]


def all_paths(parent: int, child: int) -> bool:
    """Let every filter follow every other: O^n J^n nodes of order n, of O orientations and J scales.

    Examples
    --------
    >>> all_paths(2, 0)
    True
    """
    return True


def non_decreasing(parent: int, child: int) -> bool:
    """Let filters of the same or a coarser scale follow: O^n C(J + n - 1, n) nodes of order n.

    Examples
    --------
    >>> non_decreasing(1, 1), non_decreasing(1, 0)
    (True, False)
    """
    return child >= parent


def decreasing_frequency(parent: int, child: int) -> bool:
    """Let filters of a coarser scale follow: O^n C(J, n) nodes of order n.

    Examples
    --------
    >>> decreasing_frequency(1, 1)
    False
    """
    return child > parent


@dataclass(frozen=True)
class Level:
    """The nodes of one order, and who their children are.

    Parameters
    ----------
    paths
        The nodes, in order.
    groups
        Positions of parents with the same children, and the filters that make these; the children stand in this order.
    """

    paths: tuple[Path, ...]
    groups: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


def grow(scales: Sequence[Sequence[int]], rule: PathRule, keep: Collection[Path] | None = None) -> tuple[Level, ...]:
    """Return the levels of the tree of paths, the empty path first; the last level has no children.

    Parameters
    ----------
    scales
        Scale of each filter of each layer.
    rule
        Says of (scale of the parent, scale of the child) whether the child exists; not asked for the first layer.
    keep
        Paths that are wanted, with all their beginnings; all if None.

    Examples
    --------
    >>> [len(level.paths) for level in grow([[0, 0, 0, 1, 1, 1, 2, 2, 2]] * 3, non_decreasing)]
    [1, 9, 54, 270]
    """
    levels: list[Level] = []
    parents: list[Path] = [()]
    for depth, layer in enumerate(scales):
        groups: dict[tuple[int, ...], list[int]] = {}
        for position, path in enumerate(parents):
            before = scales[depth - 1][path[-1]] if path else None
            filters = tuple(
                i
                for i, scale in enumerate(layer)
                if (before is None or rule(before, scale)) and (keep is None or (*path, i) in keep)
            )
            groups.setdefault(filters, []).append(position)
        levels.append(Level(tuple(parents), tuple((tuple(who), filters) for filters, who in groups.items())))
        parents = [(*parents[i], j) for filters, who in groups.items() for i in who for j in filters]
    return (*levels, Level(tuple(parents), ((tuple(range(len(parents))), ()),)))


def prefixes(paths: Collection[Path]) -> frozenset[Path]:
    """Return paths with all their beginnings.

    Examples
    --------
    >>> sorted(prefixes([(3, 4)]))
    [(), (3,), (3, 4)]
    """
    beginnings = {start for path in paths for start in accumulate(((i,) for i in path), initial=())}
    return frozenset({(), *beginnings})
