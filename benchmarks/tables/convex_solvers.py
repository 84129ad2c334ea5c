"""The table of benchmarks/speed/convex_solvers.py; of lines equal in case and intercept the last counts."""

from __future__ import annotations

from pathlib import Path

from .lines import Line, Shown, Table, bare, last, lines

PEERS = {
    "celer": "celer",
    "skglm": "skglm",
    "scikit-learn": "scikit-learn",
    "scikit-learn gram": "scikit-learn, Gram",
    "adelie": "adelie",
    "clarabel": "Clarabel",
}
ORDER = ("tiny", "1k", "5k", "20k", "5k-small-beta")


def factor(line: Line, peer: str) -> str:
    """Return peer over ours; > where the peer did not finish; nothing where it was not tried."""
    if peer in line["ratios"]:
        return figures(line["ratios"][peer])
    return f"> {figures(line['more_than'][peer])}" if peer in line["more_than"] else ""


def figures(value: float) -> str:
    """Return a factor with three figures at most."""
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 20 else f"{value:,.0f}"


def exponent(value: float) -> str:
    """Return 1e-2 for .01."""
    return f"{value:.0e}".replace("e-0", "e-")


def factors(results: Path, cases: tuple[str, ...] = ORDER[1:]) -> Table:
    """Return our seconds and the peers' over ours."""
    found = [line for line in last(lines(results, "speed_convex"), "case", "intercept") if line["case"] in cases]
    rows = []
    for line in sorted(found, key=lambda line: (ORDER.index(line["case"]), line["intercept"])):
        n, p = (f"{line[name] // 1000}k" if line[name] >= 1000 else str(line[name]) for name in ("n", "p"))
        seconds = line["ours"]["cpu"]
        ours = f"{bare(seconds, 3) if seconds < 1 else f'{seconds:.1f}'} s ({exponent(line['ours']['gap'])})"
        case = f"{n} x {p}, {exponent(line['beta'])} n, {exponent(line['wanted'])}"
        rows.append((case, "free" if line["intercept"] else "no", ours, *(factor(line, peer) for peer in PEERS)))
    return Table(("n x P, beta, gap", "intercept", "ours (gap reached)", *PEERS.values()), tuple(rows))


SHOWN = Shown({"factors": factors})
