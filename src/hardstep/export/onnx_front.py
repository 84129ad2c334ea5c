"""A scattering front end as integer operators of ONNX."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hardstep.export.onnx_graph import INT32, UINT8, Graph, Value
from hardstep.hard_scatter import Activate, Emit, Filter, Load, PlanePool, Scatter

__all__ = ["scattered"]


def scattered(graph: Graph, codes: Value, front: Scatter) -> Value:
    """Add the program of a front end, on int32 planes (n, h, w), and return its codes (n, d).

    What goes round the torus is the plane with its first rows or columns once more behind it.
    """
    writer = _Planes(graph)
    wide = graph.add("Cast", [codes.name], {"to": INT32})
    planes: dict[int, str] = {}
    given, places = [], list[int]()
    for each in front.instructions():
        if isinstance(each, Load):
            planes[each.target] = writer.loaded(wide, each, front)
        elif isinstance(each, Filter):
            planes[each.target] = writer.filtered(planes[each.source], each)
        elif isinstance(each, Activate):
            planes[each.target] = writer.activated(planes[each.source], each)
        elif isinstance(each, PlanePool):
            planes[each.target] = writer.pooled(planes[each.source], each)
        else:
            given.append(writer.emitted(planes[each.source], each))
            places += each.places
    joined = graph.add("Concat", given, {"axis": 1})
    order = np.zeros(front.outputs, np.int64)
    order[places] = np.arange(len(places))
    ordered = graph.add("Gather", [joined, graph.constant(order, "order")], {"axis": 1})
    return Value(graph.add("Cast", [ordered], {"to": UINT8}), (front.outputs,))


class _Planes:
    """Writes one instruction after the other."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._known: dict[tuple[int, ...], str] = {}

    def loaded(self, codes: str, each: Load, front: Scatter) -> str:
        """Take a channel, put zeros behind it and reflect it."""
        edge, (_, height, width) = front.reflect, front.shape
        plane = self.graph.add("Gather", [codes, self._number(each.source)], {"axis": 1})
        rows, columns = (length - 2 * edge - own for length, own in zip(each.size, (height, width), strict=True))
        for around, mode in (((0, 0, rows, columns), "constant"), (4 * (edge,), "reflect")):
            if any(around):
                pads = self._list((0, *around[:2], 0, *around[2:]))
                plane = self.graph.add("Pad", [plane, pads], {"mode": mode})
        return plane

    def filtered(self, plane: str, each: Filter) -> str:
        """Add up shifted planes times taps."""
        axis, length = each.axis + 1, each.size[each.axis]
        around = self._around(plane, axis, max(each.shifts))
        total = ""
        for tap, shift in zip(each.taps, each.shifts, strict=True):
            part = self._slice(around, axis, shift, shift + length)
            if tap != 1 and not (tap == -1 and total):
                part = self.graph.add("Mul", [part, self._number(tap)])
            if total:
                part = self.graph.add("Sub" if tap == -1 else "Add", [total, part])
            total = part
        return total

    def activated(self, plane: str, each: Activate) -> str:
        """Apply an activation."""
        if each.kind == "relu":
            return self.graph.add("Max", [plane, self._number(0)])
        size = self.graph.add("Abs", [plane]) if each.kind in ("abs", "edge") else plane
        if each.kind == "abs":
            return size
        above = self.graph.add("Greater", [size, self._number(each.threshold)])
        return self.graph.add("Cast", [above], {"to": INT32})

    def pooled(self, plane: str, each: PlanePool) -> str:
        """Join the windows' rows, then their columns."""
        for axis, length in enumerate(each.size, start=1):
            around = self._around(plane, axis, each.window - 1)
            parts = [self._slice(around, axis, i, i + length, each.stride) for i in range(each.window)]
            plane = parts[0]
            for part in parts[1:]:
                plane = self.graph.add("Max" if each.kind == "max" else "Add", [plane, part])
        return plane

    def emitted(self, plane: str, each: Emit) -> str:
        """Take numbers out, from 0 on and without their low bits."""
        rows = self.graph.add("Flatten", [plane], {"axis": 1})
        taken = self.graph.add("Gather", [rows, self._list(each.positions)], {"axis": 1})
        if each.least:
            taken = self.graph.add("Sub", [taken, self._number(each.least)])
        return self.graph.add("Div", [taken, self._number(1 << each.shift)]) if each.shift else taken

    def _around(self, plane: str, axis: int, more: int) -> str:
        """Return a plane with its beginning once more behind it."""
        return self.graph.add("Concat", [plane, self._slice(plane, axis, 0, more)], {"axis": axis}) if more else plane

    def _slice(self, plane: str, axis: int, start: int, end: int, stride: int = 1) -> str:
        """Return every so manieth row or column of a range."""
        return self.graph.add("Slice", [plane, *(self._list((i,)) for i in (start, end, axis, stride))])

    def _list(self, numbers: Sequence[int]) -> str:
        """Return a constant list, each written once."""
        key = tuple(numbers)
        if key not in self._known:
            self._known[key] = self.graph.constant(np.array(numbers, np.int64), "list")
        return self._known[key]

    def _number(self, value: int) -> str:
        return self.graph.constant(np.array(value, np.int32), "number")
