"""The table of benchmarks/quality/choose_settings.py; a line holds mean and deviation over its seeds."""

from __future__ import annotations

from pathlib import Path

from .lines import NOT_RUN, Shown, Table, bare, grouped, last, lines

DATA = {"digits": "digits", "fashion-mnist": "Fashion-MNIST"}
KEPT = ("Clipped(width=0.5)", 0.002, "CrossEntropy(smoothing=0.1)")
RULES = {
    "Clipped(width=1.0)": "Clipped(1.0)",
    "Clipped(width=0.5)": "Clipped(0.5)",
    "Sech2(slope=2.0)": "Sech2(2.0)",
    "ReSTE(power=3.0, inner=0.1, outer=1.5)": "ReSTE()",
}


def validation(results: Path) -> Table:
    """Return validation accuracy by setting; the default is in bold."""
    settings = grouped(last(lines(results, "choose_settings"), "rule", "lr", "loss", "data"), "rule", "lr", "loss")
    rows = []
    for (rule, lr, loss), found in settings.items():
        bold = "**" if (rule, lr, loss) == KEPT else ""
        by_data = {line["data"]: f"{bare(line['validation'])} +- {bare(line['sd'])}" for line in found}
        smoothing = loss.partition("smoothing=")[2].rstrip(")").replace("0.0", "0")
        named = (f"`{RULES.get(rule, rule)}`", f"{1e3 * lr:g}e-3", smoothing)
        rows.append((*(f"{bold}{cell}{bold}" for cell in named), *(by_data.get(each, NOT_RUN) for each in DATA)))
    return Table(("rule", "learning rate", "smoothing", *DATA.values()), tuple(rows))


SHOWN = Shown({"validation": validation})
