"""A comparison as one HTML page that needs nothing else: no script, font or picture from anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files

from hardstep.compare import Comparison, Spread
from hardstep.compare_plots import count, key, learning, section, trade_offs
from hardstep.compare_run import Run

__all__ = ["page"]


@dataclass(frozen=True)
class _Column:
    """A figure in the tables: how it is called and written, whether more (1) or less (-1) is better, what it means."""

    key: str
    head: str
    unit: str
    text: Callable[[float], str]
    better: int
    meaning: str


def _columns(comparison: Comparison) -> list[_Column]:
    """Return the figures that the tables show."""

    def share(value: float) -> str:
        return f"{100 * value:.2f}" if comparison.classification else f"{value:.4f}"

    unit, part = ("%" if comparison.classification else "R²"), comparison.task["part"]
    score = comparison.task["score"]
    return [
        _Column("frozen", "frozen", unit, share, 1, f"{score} of the integer network on the {part} part"),
        _Column("float", "float", unit, share, 1, f"{score} of the trained network on the same rows, before rounding"),
        _Column("small_nbytes", "size", "bytes", "{:,.0f}".format, -1, "of weights and thresholds, simplified exactly"),
        _Column("macs", "MACs", "a sample", "{:,.0f}".format, -1, "products of a weight and an input, simplified"),
        _Column("us_1", "alone", "µs", "{:.1f}".format, -1, "CPU time of one sample by itself, engine, one thread"),
        _Column("us_256", "in batches", "µs a sample", "{:.2f}".format, -1, "the same, 256 samples a call"),
        _Column("seconds", "training", "seconds", "{:.1f}".format, -1, "wall time of all sweeps, without validation"),
        _Column(
            *("memory", "memory", "MB", lambda value: f"{value / 1e6:,.1f}", -1),
            "by which the process grew at most while it trained, over data and libraries; none for a resumed run",
        ),
        _Column("sparsity", "zeros", "% of weights", lambda value: f"{100 * value:.1f}", 0, "in the integer network"),
        _Column(
            "dead", "dead", "% of units", lambda value: f"{100 * value:.1f}", -1, "constant on the validation part"
        ),
        _Column("sweeps", "sweeps", "", "{:.0f}".format, 0, "that were done"),
    ]


def page(comparison: Comparison) -> str:
    """Return the page: the result in one line, tables, plots, curves, certificates, failures, how to do it again."""
    columns = _columns(comparison)
    body = "\n".join(
        (
            _head(comparison, columns),
            _failures(comparison),
            _summary(comparison, columns),
            trade_offs(comparison),
            learning(comparison),
            _certificates(comparison),
            _all_runs(comparison, columns),
            _making(comparison, columns),
        )
    )
    numbers = json.dumps(asdict(comparison), separators=(",", ":"), allow_nan=False)
    numbers = numbers.replace("<", "\\u003c")  # so that no text in it ends the script
    filled = {"title": escape(f"{comparison.task['data']}: comparison of methods"), "body": body, "numbers": numbers}
    before, *rest = files("hardstep").joinpath("compare.html").read_text(encoding="utf-8").split("{{")
    return before + "".join(filled[name] + after for name, after in (each.split("}}", 1) for each in rest))


def _head(comparison: Comparison, columns: Sequence[_Column]) -> str:
    """Return title, the result in words, and one card for each thing one may want most."""
    task, names = comparison.task, comparison.names
    best = comparison.spread(names[0], "frozen")
    seeds = len({run.seed for run in comparison.runs})
    title = f"{count(len(names), 'method')} × {count(seeds, 'seed')} on {task['data']}"
    lead = "No method ended with a frozen network; the reasons are below."
    if best is not None:
        size, alone = comparison.spread(names[0], "small_nbytes"), comparison.spread(names[0], "us_1")
        lead = (
            f"<b>{escape(names[0])}</b> is ahead: {_spread(best, columns[0], sign='%')} {escape(task['score'])} "
            f"on the {escape(task['part'])} part as pure integers"
        )
        if size and alone:
            lead += f", in {size.mean:,.0f} bytes and {alone.mean:.1f} µs a sample on one core"
        lead += "."
    wanted = (
        ("frozen", "most accurate"),
        ("small_nbytes", "smallest"),
        ("us_1", "fastest to run"),
        ("seconds", "fastest to train"),
    )
    cards = [_card(comparison, next(each for each in columns if each.key == key), text) for key, text in wanted]
    links = {"summary": "Summary", "trade-offs": "Trade-offs", "learning": "Learning", "certificates": "Certificates"}
    links |= {"runs": "All runs", "making": "How it was made"}
    nav = "".join(f'<a href="#{place}">{text}</a>' for place, text in links.items())
    return (
        f"<header><h1>{escape(title)}</h1>"
        f'<p class="lead">{lead}</p>'
        f'<p class="note">{escape(task["rows"])} rows of {escape(task["inputs"])} inputs, {escape(task["outputs"])}; '
        f"at most {escape(task['sweeps'])} sweeps; {escape(comparison.date)}; "
        f"hardstep {escape(comparison.versions.get('hardstep', ''))}</p><nav>{nav}</nav></header>"
        f'<section class="cards" aria-label="highlights">{"".join(cards)}</section>'
    )


def _card(comparison: Comparison, column: _Column, text: str) -> str:
    """Return a card with the method that is best in one figure."""
    means = {name: spread.mean for name in comparison.names if (spread := comparison.spread(name, column.key))}
    if not means:
        return ""
    best = max(means, key=lambda name: column.better * means[name])
    unit = "" if column.unit == "R²" else f" {column.unit}"
    return (
        f'<div class="card"><span>{escape(text)}</span><b>{column.text(means[best])}{escape(unit)}</b>'
        f'<span class="who">{key(comparison, best)}{escape(best)}</span></div>'
    )


def _failures(comparison: Comparison) -> str:
    """Return which runs did not end well, and why."""
    reasons: dict[tuple[str, str], list[int]] = {}
    for run in comparison.runs:
        if run.failed:
            reasons.setdefault((run.name, run.failed), []).append(run.seed)
    if not reasons:
        return ""
    items = "".join(
        f"<li><b>{escape(name)}</b>, seed {_list(seeds)}: {escape(reason)}</li>"
        for (name, reason), seeds in reasons.items()
    )
    return f'<section class="callout" id="failures"><b>Did not end well</b><ul>{items}</ul></section>'


def _summary(comparison: Comparison, columns: Sequence[_Column]) -> str:
    """Return the table of the methods: mean and deviation over the seeds."""
    heads = [_sorter("method", "", "text")]
    for column in columns:
        heads.append(_sorter(column.head, column.unit, "number", best_first=column.better > 0, meaning=column.meaning))
        if column.key == "frozen":
            text = "difference of the frozen score to the best method's, seed by seed"
            heads.append(_sorter("behind", column.unit, "number", best_first=True, meaning=text))
    heads.append(_sorter("proved", "certificates", "number", best_first=True, meaning="certificates that say PROVED"))
    tops = {column.key: _best(comparison, column) for column in columns}
    rows = []
    for name in comparison.names:
        cells = []
        for column in columns:
            spread = comparison.spread(name, column.key)
            best = ' class="best"' if spread is not None and spread.mean == tops[column.key] else ""
            cells.append(_cell(spread, column, best))
            if column.key == "frozen":
                cells.append(_cell(comparison.behind(name), column, "", sign=True))
        proofs = [proof.verdict for run in comparison.of(name) for proof in run.proofs]
        proved = f"{proofs.count('PROVED')} of {len(proofs)}" if proofs else "–"
        cells.append(f'<td data-v="{proofs.count("PROVED")}">{proved}</td>')
        rows.append(
            f'<tr><th scope="row" class="text" data-v="{escape(name)}">{key(comparison, name)}{escape(name)}</th>'
        )
        rows.append(f"{''.join(cells)}</tr>")
    text = (
        "Mean ± standard deviation over the seeds. Sizes, products and times are of the frozen network after "
        "simplifying it exactly."
    )
    return section("summary", "Summary", text) + _table("methods", heads, rows)


def _certificates(comparison: Comparison) -> str:
    """Return what the certificates claim, equal ones of a method together."""
    rows = []
    for name in comparison.names:
        seeds: dict[tuple[str, str], list[int]] = {}
        for run in comparison.of(name):
            for proof in run.proofs:
                seeds.setdefault((proof.verdict, proof.claim), []).append(run.seed)
        for (verdict, claim), who in seeds.items():
            rows.append(
                f'<tr><th scope="row" class="text">{key(comparison, name)}{escape(name)}</th>'
                f'<td class="text">{_list(who)}</td>'
                f'<td class="text"><span class="badge {escape(verdict)}">{escape(verdict)}</span></td>'
                f'<td class="text wrap">{escape(claim)}</td></tr>'
            )
    if not rows:
        return ""
    heads = [_sorter(text, "", "text") for text in ("method", "seeds", "verdict", "claim")]
    text = (
        "Each lies in the folder of its run and can be checked again from file and data alone. P is the training "
        "objective with a price on amplitudes, P* the least of any read-out of the same hidden bits: a small gap says "
        "that the read-out could hardly be better."
    )
    return section("certificates", "Certificates", text) + _table("proofs", heads, rows)


def _all_runs(comparison: Comparison, columns: Sequence[_Column]) -> str:
    """Return the table of all runs."""
    heads = [_sorter("method", "", "text"), _sorter("seed", "", "number")]
    heads += [
        _sorter(each.head, each.unit, "number", best_first=each.better > 0, meaning=each.meaning) for each in columns
    ]
    heads.append(_sorter("ended", "", "text"))
    rows = []
    for run in sorted(comparison.runs, key=lambda run: (comparison.names.index(run.name), run.seed)):
        cells = [
            _cell(Spread.of([run.figures[each.key]]) if each.key in run.figures else None, each, "") for each in columns
        ]
        rows.append(
            f'<tr><th scope="row" class="text">{key(comparison, run.name)}{escape(run.name)}</th>'
            f'<td data-v="{run.seed}">{run.seed}</td>{"".join(cells)}'
            f'<td class="text wrap">{escape(_end(run))}</td></tr>'
        )
    return section("runs", "All runs", "") + _table("each", heads, rows)


def _end(run: Run) -> str:
    return run.failed or (run.report.stopped if run.report else "")


def _making(comparison: Comparison, columns: Sequence[_Column]) -> str:
    """Return how everything was made: the task, the methods as code, the versions, what the figures mean."""
    hidden = {"part", "score"}
    facts = {**{key: text for key, text in comparison.task.items() if key not in hidden}, **comparison.versions}
    given = "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in facts.items())
    made = "".join(
        f"<h3>{key(comparison, name)}{escape(name)}</h3><pre>{escape(comparison.of(name)[0].method)}</pre>"
        for name in comparison.names
    )
    meant = "".join(
        f"<dt>{escape(each.head)}, {escape(each.unit)}</dt><dd>{escape(each.meaning)}</dd>" for each in columns
    )
    command = f"<pre>{escape(comparison.command)}</pre>" if comparison.command else ""
    text = "The same seed is the same split, the same initial weights and the same order."
    return (
        f"{section('making', 'How it was made', text)}"
        f'{command}<dl class="facts">{given}</dl>'
        f'<button class="button" id="save" type="button">Save all numbers as JSON</button>'
        f"<details><summary>What the figures mean</summary><dl class='facts'>{meant}</dl></details>"
        f"<h2>The methods, as code</h2>{made}"
    )


def _table(name: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    box = f'class="scroll" tabindex="0" role="region" aria-label="table of {name}"'
    head, body = f"<thead><tr>{''.join(heads)}</tr></thead>", f"<tbody>{''.join(rows)}</tbody>"
    return f'<div {box}><table id="{name}">{head}{body}</table></div>'


def _sorter(head: str, unit: str, kind: str, *, best_first: bool = False, meaning: str = "") -> str:
    """Return a heading by which the table is sorted."""
    first = ' data-first="descending"' if best_first else ""
    text = ' class="text"' if kind == "text" else ""
    hint = f' title="{escape(meaning)}"' if meaning else ""
    small = f"<small>{escape(unit)}</small>" if unit else ""
    button = f'<button type="button">{escape(head)}</button>'
    return f'<th scope="col" aria-sort="none" data-kind="{kind}"{first}{text}{hint}>{button}{small}</th>'


def _cell(spread: Spread | None, column: _Column, kind: str, *, sign: bool = False) -> str:
    if spread is None:
        return '<td data-v="">–</td>'
    return f'<td data-v="{spread.mean!r}"{kind}>{_spread(spread, column, plus=sign)}</td>'


def _spread(spread: Spread, column: _Column, *, sign: str = "", plus: bool = False) -> str:
    """Return mean and deviation."""
    mean = column.text(spread.mean)
    mean = f"+{mean}" if plus and spread.mean > 0 else mean
    deviation = "" if not spread.sd else f" <small>± {column.text(spread.sd)}</small>"
    return f"{mean}{deviation}{f' {sign}' if sign and column.unit == sign else ''}"


def _best(comparison: Comparison, column: _Column) -> float | None:
    """Return the best mean of a figure; None where none is better than another."""
    means = [spread.mean for name in comparison.names if (spread := comparison.spread(name, column.key))]
    if not column.better or not means or min(means) == max(means):
        return None
    return max(means, key=lambda mean: column.better * mean)


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
