"""The plots of a comparison's page: scores against sizes and times, and what happened from sweep to sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from hardstep.compare import Comparison, Spread
from hardstep.report import Record
from hardstep.svg import Axis, Curve, Point, curve_plot, marker, point_plot

__all__ = ["count", "key", "learning", "legend", "section", "trade_offs"]

COMMON = "flip_rate"  # what every method's records have in `extra`

Measure = Callable[[Record], float | None]


def trade_offs(comparison: Comparison) -> str:
    """Return the plots of the score against size and times."""
    score = f"frozen {comparison.task['score']}" + (", %" if comparison.classification else "")
    wanted = (("small_nbytes", "bytes"), ("us_1", "µs for one sample"), ("seconds", "seconds of training"))
    plots = []
    for key, label in wanted:
        points = list(_points(comparison, key, label))
        if points:
            across = Axis.over(label, [point.x for point in points], log=True)
            up = Axis.over(score, [point.y for point in points], percent=comparison.classification)
            plots.append(f'<div class="panel">{point_plot(points, across, up)}</div>')
    text = (
        "To the left and up is better; the dotted line joins the methods that no other beats on both axes. Small marks "
        "are single seeds, bars one standard deviation."
    )
    return f'{section("trade-offs", "Trade-offs", text)}{legend(comparison)}<div class="plots">{"".join(plots)}</div>'


def _points(comparison: Comparison, key: str, label: str) -> Iterator[Point]:
    """Yield a point for each run, and one with a label for each method."""
    for i, name in enumerate(comparison.names):
        runs = [run for run in comparison.of(name) if "frozen" in run.figures and key in run.figures]
        for run in runs if len(runs) > 1 else []:
            x, y = run.figures[key], run.figures["frozen"]
            yield Point(x, y, i, f"{name}, seed {run.seed}: {comparison.share(y)}, {x:,.4g} {label}")
        across, up = (Spread.of([run.figures[each] for run in runs]) for each in (key, "frozen"))
        if across and up:
            yield Point(
                across.mean, up.mean, i, f"{name}: {comparison.share(up.mean)}, {across.mean:,.4g} {label}", up.sd, name
            )


def learning(comparison: Comparison) -> str:
    """Return the curves over the sweeps: of all methods together, then of each by itself."""
    score = f"validation {comparison.task['score']}" + (", %" if comparison.classification else "")
    flipped = "bits flipped, %"
    named = {name: [run.report.records for run in comparison.of(name) if run.report] for name in comparison.names}
    scores, flips = (
        {name: curve for i, name in enumerate(named) if (curve := _curve(i, name, named[name], measure))}
        for measure in (_score, _extra(COMMON))
    )
    longest = max((len(records) for runs in named.values() for records in runs), default=0)
    if not longest:
        return ""
    across = Axis("sweep", float(min(1, longest - 1)), float(longest))
    ups = _score_axis(score, list(scores.values()), comparison), _axis(flipped, list(flips.values()), percent=True)
    both = [
        f'<div class="panel">{curve_plot(list(curves.values()), across, up, height=280.0)}</div>'
        for curves, up in zip((scores, flips), ups, strict=True)
        if curves
    ]
    text = (
        "Lines are means over the seeds, bands reach from the least to the greatest. Flipped is the share of hidden "
        "bits, on at most 512 validation rows, that a sweep changed."
    )
    parts = [
        section("learning", "Learning", text),
        legend(comparison),
        f'<div class="plots wide">{"".join(both)}</div>',
    ]
    for i, (name, runs) in enumerate(named.items()):
        if not runs:
            continue
        own = [scores[name]] if name in scores else []
        plots = [curve_plot(own, across, ups[0], behind=list(scores.values()))] if own else []
        plots += _plots(i, name, runs, {"objective": _objective}, across)
        plots += _plots(i, name, runs, {flipped: _extra(COMMON)}, across, percent=True)
        found = {each for records in runs for record in records for each in record.extra}
        names = sorted(each for each in found - {COMMON} if "/" not in each)  # not those of single layers
        more = _plots(i, name, runs, {each: _extra(each) for each in names}, across)
        summary = f"{count(len(more), 'indicator')} of its own: {', '.join(names)}".replace("_", " ")
        opened = f"<details><summary>{escape(summary)}</summary>{_grid(more)}</details>" if more else ""
        stopped = "; ".join(dict.fromkeys(run.report.stopped for run in comparison.of(name) if run.report))
        parts.append(
            f'<div class="panel"><h3>{key(comparison, name)}{escape(name)}</h3>'
            f'<p class="note">{escape(stopped)}</p>{_grid(plots)}{opened}</div>'
        )
    return "".join(parts)


def _score(record: Record) -> float | None:
    return record.score


def _objective(record: Record) -> float | None:
    return record.objective


def _extra(name: str) -> Measure:
    return lambda record: record.extra.get(name)


def _axis(label: str, curves: Sequence[Curve], *, percent: bool = False) -> Axis:
    ends = [value for curve in curves for value in (*curve.low, *curve.high)]
    return Axis.over(label, ends or [0.0], percent=percent)


def _plots(
    series: int,
    name: str,
    runs: Sequence[Sequence[Record]],
    measures: Mapping[str, Measure],
    across: Axis,
    *,
    percent: bool = False,
) -> list[str]:
    """Return a plot for each measure that the records of a method have."""
    named = {label: _curve(series, name, runs, measure) for label, measure in measures.items()}
    return [
        curve_plot([curve], across, _axis(label.replace("_", " "), [curve], percent=percent))
        for label, curve in named.items()
        if curve
    ]


def _curve(series: int, name: str, runs: Sequence[Sequence[Record]], measure: Measure) -> Curve | None:
    """Return mean, least and greatest value over the runs, sweep by sweep; None where nothing was measured."""
    columns: dict[float, list[float]] = {}
    for records in runs:
        for record in records:
            value = measure(record)
            if value is not None:
                columns.setdefault(record.sweep + 1.0, []).append(float(value))
    if not columns:
        return None
    xs = sorted(columns)
    rows = [columns[x] for x in xs]
    means = [sum(row) / len(row) for row in rows]
    title = f"{name}: {means[-1]:.4g} at the end"
    return Curve(xs, means, [min(row) for row in rows], [max(row) for row in rows], series, title)


def _score_axis(label: str, curves: Sequence[Curve], comparison: Comparison) -> Axis:
    """Return an axis on which the good scores can be told apart: a bad start is cut off."""
    if not curves:
        return Axis(label, 0.0, 1.0)
    ends = sorted(min(curve.low[len(curve.low) // 2 :]) for curve in curves)
    top = max(max(curve.high) for curve in curves)
    low = max(min(min(curve.low) for curve in curves), ends[0] - 0.5 * (top - ends[0]) - 0.01)
    return Axis.over(label, [low, top], percent=comparison.classification)


def section(place: str, title: str, text: str) -> str:
    """Return the beginning of a section."""
    note = f'<p class="note">{escape(text)}</p>' if text else ""
    return f'<h2 id="{place}">{escape(title)}</h2>{note}'


def key(comparison: Comparison, name: str) -> str:
    """Return the marker of a method, as large as a letter."""
    i = comparison.names.index(name)
    return f'<svg class="key s{i % 7}" viewBox="0 0 16 16" aria-hidden="true">{marker(i, 8.0, 8.0, 5.5)}</svg>'


def legend(comparison: Comparison) -> str:
    """Return the markers of all methods."""
    items = (f"<li>{key(comparison, name)}{escape(name)}</li>" for name in comparison.names)
    return f'<ul class="legend">{"".join(items)}</ul>'


def _grid(plots: Sequence[str]) -> str:
    return f'<div class="plots">{"".join(f"<div>{plot}</div>" for plot in plots)}</div>'


def count(number: int, what: str) -> str:
    """Return a number of things."""
    return f"{number} {what}" + ("" if number == 1 else "s")
