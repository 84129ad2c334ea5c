"""Contests as tables for the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.table import Table

from hardstep.bench.contest import Contest, Ratio, Timed

__all__ = ["case_table", "form_table", "peer_table"]


def case_table(contests: Sequence[Contest], title: str) -> Table:
    """Return a table with a row a case: our time, the best right peer, and its time over ours."""
    table = _table(title, left=("layer or network", "best peer"), right=("batch", "ours", "ratio", "least to most"))
    for one in contests:
        best = one.best
        ratio, rounds = ("-", "-") if best is None else _ratio(one.ratio(best))
        ours = _time(one.ours.clocks.seconds) + (f" WRONG in {one.ours.wrong:,}" if one.ours.wrong else "")
        name = "none that is right" if best is None else best.label
        _row(table, {"layer or network": one.name, "batch": f"{one.batch:,}", "ours": ours} | {
            "ratio": ratio, "least to most": rounds, "best peer": name,
        })  # fmt: skip
    return table


def peer_table(contests: Sequence[Contest], title: str) -> Table:
    """Return a table with a row a peer: in how many cases, its time over ours there, and where it was wrong."""
    table = _table(title, left=("peer", "version", "outputs"), right=("cases", "ratio", "least to most"))
    found: dict[str, list[tuple[Contest, Timed]]] = {}
    for one in contests:
        for peer in one.peers:
            found.setdefault(peer.label, []).append((one, peer))
    for label, seen in found.items():
        ratios = [one.ratio(peer).median for one, peer in seen]
        ratio, spread = _ratio(Ratio(statistics.median(ratios), min(ratios), max(ratios)))
        bad = [(peer.wrong / one.outputs, one, peer) for one, peer in seen if peer.wrong]
        outputs = "right"
        if bad:
            _, one, peer = max(bad, key=lambda item: item[0])
            outputs = f"WRONG in {len(bad)} of {len(seen)}, worst {peer.wrong:,} of {one.outputs:,}"
        _row(table, {"peer": label, "version": seen[0][1].version, "cases": str(len(seen))} | {
            "ratio": ratio, "least to most": spread, "outputs": outputs,
        })  # fmt: skip
    return table


def form_table(one: Contest, title: str) -> Table:
    """Return a table with a row a form of one network, the fastest first."""
    right = ("µs a sample", "samples/s", "ratio", "least to most", "wrong scores")
    table = _table(title, left=("form",), right=right)
    for form in sorted((one.ours, *one.peers), key=lambda form: form.clocks.seconds):
        seconds = form.clocks.seconds / one.batch
        ratio, rounds = ("1", "") if form is one.ours else _ratio(one.ratio(form))
        rounds = rounds if len(form.clocks.counts) > 1 else "one call"
        _row(table, {"form": form.label, "µs a sample": f"{1e6 * seconds:,.2f}", "samples/s": f"{1 / seconds:,.0f}"} | {
            "ratio": ratio, "least to most": rounds, "wrong scores": f"{form.wrong:,} of {one.outputs:,}",
        })  # fmt: skip
    return table


def _table(title: str, *, left: Sequence[str], right: Sequence[str]) -> Table:
    """Return a table without rows; the first column on the left is the first, the others come last."""
    table = Table(title=title, title_justify="left")
    table.add_column(left[0], no_wrap=True)
    for name in right:
        table.add_column(name, justify="right")
    for name in left[1:]:
        table.add_column(name)
    return table


def _row(table: Table, cells: dict[str, str]) -> None:
    """Add a row, cells by the names of their columns."""
    table.add_row(*(cells[str(column.header)] for column in table.columns))


def _ratio(ratio: Ratio) -> tuple[str, str]:
    """Return a ratio and its range as cells."""
    return f"{ratio.median:.2f}", f"{ratio.least:.2f} to {ratio.most:.2f}"


def _time(seconds: float) -> str:
    """Return a time of a forward as a cell."""
    return f"{1e6 * seconds:,.1f} µs" if seconds < 1e-2 else f"{1e3 * seconds:,.1f} ms"
