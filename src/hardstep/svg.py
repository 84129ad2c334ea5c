"""Plots as inline SVG: points with deviations, curves with bands. Colours come from the page, markers from here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "Curve", "Point", "curve_plot", "marker", "point_plot"]

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 420.0, 52.0, 12.0, 12.0, 40.0
CHARACTER = 7.2  # width of one in a label, about
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
SHAPES = (  # corners on a circle: how many, turned by how much, every second one drawn in to this share
    (0, 0.0, 1.0),
    (4, 45.0, 1.0),
    (3, -90.0, 1.0),
    (4, 0.0, 1.0),
    (3, 90.0, 1.0),
    (8, 0.0, 0.35),
    (10, -90.0, 0.45),
    (6, 0.0, 1.0),
    (8, 45.0, 0.35),
    (5, -90.0, 1.0),
)


@dataclass(frozen=True)
class Axis:
    """An axis: its label and its ends; by logarithms, or with shares in percent."""

    label: str
    low: float
    high: float
    log: bool = False
    percent: bool = False

    @classmethod
    def over(cls, label: str, values: Sequence[float], *, log: bool = False, percent: bool = False) -> Axis:
        """Return an axis with a little room on both sides of some values; no logarithms where one is not positive.

        Examples
        --------
        >>> Axis.over("rows", [0.0, 10.0])
        Axis(label='rows', low=-0.5, high=10.5, log=False, percent=False)
        """
        low, high = min(values), max(values)
        if log and low > 0:
            room = max((high / low) ** 0.08, 1.1)
            return cls(label, low / room, high * room, True, percent)
        room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(label, low - room, high + room, False, percent)

    def place(self, value: float) -> float:
        """Return where a value lies, 0 at the low end, 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return round values, four to eight where that is possible.

        Examples
        --------
        >>> Axis("rows", -0.5, 10.5).ticks()
        [0.0, 2.5, 5.0, 7.5, 10.0]
        """
        if self.log and self.high / self.low > 8:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            digits = (1.0,) if len(powers) > 5 else (1.0, 2.0, 5.0)
            return [d * 10.0**p for p in powers for d in digits if self.low <= d * 10.0**p <= self.high]
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(each * power for each in STEPS if each * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 12) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def text(self, value: float) -> str:
        """Return a value as the text of a tick."""
        if self.percent:
            return f"{100 * value:.4g}"
        for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
            if abs(value) >= size:
                return f"{value / min(size, 1e3 if unit == 'k' else size):.4g}{unit}"
        return f"{value:.4g}"


@dataclass(frozen=True)
class Point:
    """A point of a series: its deviation upwards, what it says when pointed at, and its label; faint without one."""

    x: float
    y: float
    series: int
    title: str
    sd: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Curve:
    """A curve of a series over whole numbers, with the least and the greatest value beside the mean."""

    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    series: int
    title: str


def marker(series: int, x: float, y: float, size: float = 5.0) -> str:
    """Return the marker of a series at a place.

    Examples
    --------
    >>> marker(0, 1.0, 2.0)
    '<circle cx="1.0" cy="2.0" r="4.5"/>'
    """
    corners, turn, inner = SHAPES[series % len(SHAPES)]
    if not corners:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{0.9 * size:.1f}"/>'
    places = []
    for i in range(corners):
        angle, radius = math.radians(turn + 360 * i / corners), 1.25 * size * (inner if i % 2 else 1.0)
        places.append(f"{x + radius * math.cos(angle):.1f},{y + radius * math.sin(angle):.1f}")
    return f'<polygon points="{" ".join(places)}"/>'


def point_plot(points: Sequence[Point], across: Axis, up: Axis, *, height: float = 300.0) -> str:
    """Draw points; a line joins those with a label that none beats on both axes (to the left is better, and up)."""
    frame = _Frame(across, up, height)
    best = _front([point for point in points if point.label])
    corners = [f"M{frame.x(best[0].x):.1f},{frame.y(best[0].y):.1f}"] if best else []
    corners += [f"H{frame.x(point.x):.1f}V{frame.y(point.y):.1f}" for point in best[1:]]
    parts = [f'<path class="front" d="{"".join(corners)}"/>'] if best else []
    for point in sorted(points, key=lambda each: bool(each.label)):
        x, y = frame.x(point.x), frame.y(point.y)
        kind = f"s{point.series % 7}" + ("" if point.label else " faint")
        bar = ""
        if point.sd:
            ends = (max(point.y - point.sd, up.low), min(point.y + point.sd, up.high))
            bar = f'<path class="bar" d="M{x:.1f},{frame.y(ends[0]):.1f}V{frame.y(ends[1]):.1f}"/>'
        mark = marker(point.series, x, y, 5.0 if point.label else 2.5)
        parts.append(f'<g class="{kind}"><title>{escape(point.title)}</title>{bar}{mark}</g>')
    parts += _labels([point for point in points if point.label], frame)
    return frame.drawn(parts, f"{up.label} against {across.label}")


def curve_plot(
    curves: Sequence[Curve], across: Axis, up: Axis, *, height: float = 200.0, behind: Sequence[Curve] = ()
) -> str:
    """Draw curves with their bands; those behind are grey context."""
    frame = _Frame(across, up, height)
    parts = [f'<path class="context" d="{frame.line(curve.x, curve.mean)}"/>' for curve in behind]
    for curve in curves:
        kind = f"s{curve.series % 7}" + (" dashed" if curve.series >= 7 else "")
        parts.append(f'<g class="{kind}"><title>{escape(curve.title)}</title>')
        if len(curve.x) > 1:
            there, back = frame.line(curve.x, curve.high), frame.line(curve.x[::-1], curve.low[::-1])
            parts.append(f'<path class="band" d="{there}L{back[1:]}Z"/><path class="line" d="')
            parts.append(f'{frame.line(curve.x, curve.mean)}"/>')
        parts.append(f"{marker(curve.series, frame.x(curve.x[-1]), frame.y(curve.mean[-1]), 3.5)}</g>")
    return frame.drawn(parts, f"{up.label} against {across.label}")


@dataclass(frozen=True)
class _Frame:
    """The drawing area of a plot."""

    across: Axis
    up: Axis
    height: float

    def x(self, value: float) -> float:
        return LEFT + self.across.place(value) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return self.height - BOTTOM - self.up.place(value) * (self.height - TOP - BOTTOM)

    def line(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        """Return a path through points; what leaves the frame is held at its edge."""
        held = [min(max(y, self.up.low), self.up.high) for y in ys]
        return "M" + "L".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, held, strict=True))

    def drawn(self, parts: Sequence[str], name: str) -> str:
        """Return the plot with its axes around some parts."""
        floor, wall = self.height - BOTTOM, WIDTH - RIGHT
        grid = "".join(f"M{LEFT},{self.y(tick):.1f}H{wall}" for tick in self.up.ticks())
        rows = [f'<path class="grid" d="{grid}"/><path class="axis" d="M{LEFT},{floor}H{wall}"/>']
        for tick in self.up.ticks():
            rows.append(f'<text class="end" x="{LEFT - 6}" y="{self.y(tick) + 4:.1f}">{self.up.text(tick)}</text>')
        for tick in self.across.ticks():
            place = f'x="{self.x(tick):.1f}" y="{floor + 15}"'
            rows.append(f'<text class="middle" {place}>{self.across.text(tick)}</text>')
        centre = (LEFT + wall) / 2
        rows.append(f'<text class="middle name" x="{centre}" y="{self.height - 6}">{escape(self.across.label)}</text>')
        turned = f'transform="translate(13 {(TOP + floor) / 2}) rotate(-90)"'
        rows.append(f'<text class="middle name" {turned}>{escape(self.up.label)}</text>')
        box = f'viewBox="0 0 {WIDTH:g} {self.height:g}"'
        return f'<svg {box} role="img" aria-label="{escape(name)}">{"".join(rows)}{"".join(parts)}</svg>'


def _front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats on both axes, from left to right."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda each: (each.x, -each.y)):
        if not kept or point.y > kept[-1].y:
            kept.append(point)
    return kept


def _labels(points: Sequence[Point], frame: _Frame) -> list[str]:
    """Return the labels that find room beside their points; the legend names the others."""
    marks = [(frame.x(point.x) - 6, frame.y(point.y) - 6, 12.0, 12.0) for point in points]
    taken: list[tuple[float, float, float, float]] = list(marks)
    parts = []
    for point in points:
        x, y, width = frame.x(point.x), frame.y(point.y), CHARACTER * len(point.label)
        for left, base in ((x + 9, y + 4), (x - 9 - width, y + 4), (x - width / 2, y - 10), (x - width / 2, y + 19)):
            box = (left, base - 10, width, 13.0)
            inside = left >= LEFT and left + width <= WIDTH and TOP - 8 <= box[1] <= frame.height - BOTTOM - 13
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                end, place = (" end", x - 9) if left == x - 9 - width else ("", left)
                kind, text = f"label s{point.series % 7}{end}", escape(point.label)
                parts.append(f'<text class="{kind}" x="{place:.1f}" y="{base:.1f}">{text}</text>')
                break
    return parts


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    apart = one[0] + one[2] < other[0] or other[0] + other[2] < one[0]
    return not (apart or one[1] + one[3] < other[1] or other[1] + other[3] < one[1])
