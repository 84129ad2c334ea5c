"""Tables of benchmarks/quality/surrogates.py: of each rule the setting that is best on validation data.

Of lines of one setting and seed the last counts.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

from .lines import Line, NoLinesError, Shown, Table, bare, gain, grouped, last, lines, mean, spread

NAME = "surrogates"
NETS = ("mlp", "binary")
REFERENCE = "clipped"  # the clipped straight-through estimator
LONG = {"long": "training part", "refit": "training and validation part"}  # kinds of lines of long runs


def chosen(results: Path, net: str, rule: str) -> Line:
    """Return the line of the shape and rate that are best on validation data."""
    return max(lines(results, NAME, kind="choose", net=net, rule=rule), key=lambda line: float(line["validation"]))


def runs(results: Path, net: str) -> dict[str, list[Line]]:
    """Return the scored lines of each rule at its best setting, by rule."""
    found: dict[str, list[Line]] = {}
    for rule, scored in grouped(lines(results, NAME, kind="run", net=net), "rule").items():
        setting = chosen(results, net, rule)
        kept = [line for line in scored if all(line[key] == setting[key] for key in ("shape", "lr"))]
        found |= {rule: last(kept, "seed")} if kept else {}
    return found


def best(results: Path, net: str) -> str:
    """Return the rule with the best mean on the validation parts."""
    found = runs(results, net)
    return max(found, key=lambda rule: mean([line["validation"] for line in found[rule]])[0])


def settled(results: Path, net: str, like: str = "") -> Line:
    """Return rule, shape, rate and text that long runs of a network take, from the runs of another one if named."""
    line = chosen(results, like or net, best(results, like or net))
    return {"net": net, **{key: line[key] for key in ("rule", "shape", "lr", "text")}}


def regularised(results: Path, net: str, known: tuple[str, ...]) -> str:
    """Return which of the long runs known is best on validation data; one alone needs no choice."""
    if len(known) == 1:
        return known[0]
    tried = [line for line in lines(results, NAME, kind="lengthen", net=net) if line["longer"] in known]
    return str(max(tried, key=lambda line: float(line["validation"]))["longer"])


def test(results: Path, net: str) -> Table:
    """Return accuracy on validation and test parts, the paired difference to the clipped rule, and seconds."""
    found = runs(results, net)
    rows = []
    for rule, mine in found.items():
        paired = gain(mine, found[REFERENCE]) if rule != REFERENCE and REFERENCE in found else ""
        seconds = f"{mean([line['seconds'] for line in mine])[0]:.0f}"
        setting = (f"`{short(mine[-1]['text'])}`", f"{1e3 * mine[-1]['lr']:g}e-3")
        scores = (spread(mine, "validation"), spread(mine), spread(mine, "frozen"), paired)
        rows.append((rule, *setting, *scores, str(len(mine)), seconds))
    head = ("rule", "setting", "rate", "validation", "test", "test, frozen", f"less {REFERENCE}, points", "seeds")
    return Table((*head, "seconds"), tuple(rows))


def lengthened(results: Path) -> Table:
    """Return the validation accuracy of what was tried to train for longer."""
    rows = []
    for line in lines(results, NAME, kind="lengthen"):
        images, value = f"`{line['augment']}`", bare(line["validation"])
        rows.append((line["net"], line["rule"], str(line["epochs"]), f"{line['dropout']:g}", images, value))
    return Table(("network", "rule", "epochs", "dropout", "images", "validation, seed 100"), tuple(rows))


def longer(results: Path) -> Table:
    """Return accuracy of the best rule of each network, trained for longer."""
    found = [line for line in lines(results, NAME) if line["kind"] in LONG]
    rows = []
    keys = ("net", "kind", "rule", "epochs", "dropout", "augment")
    for (net, kind, rule, epochs, dropout, augment), scored in grouped(found, *keys).items():
        mine = last(scored, "seed")
        validation = "" if kind == "refit" else spread(mine, "validation")
        scores = (validation, spread(mine), bare(min(line["test"] for line in mine)))
        setting = (f"`{short(mine[-1]['text'])}`", str(epochs), f"{dropout:g}", f"`{augment}`")
        seconds = f"{mean([line['seconds'] for line in mine])[0]:.0f}"
        rows.append((net, LONG[kind], rule, *setting, *scores, spread(mine, "frozen"), str(len(mine)), seconds))
    head = ("network", "trained on", "rule", "setting", "epochs", "dropout", "images", "validation", "test", "least")
    return Table((*head, "test, frozen", "seeds", "seconds"), tuple(rows))


def short(text: str) -> str:
    """Return the text of a rule without the names of its fields."""
    for name in ("start=", "end=", "path=", "temperature=", "power=", "inner=", "outer=", "slope=", "width=", "alpha="):
        text = text.replace(name, "")
    return text.replace(", 0.1, 1.5)", ")")


def numbers(results: Path) -> dict[str, str]:
    """Return the best mean of each network, as far as it was measured."""
    known: dict[str, str] = {}
    for net in NETS:
        with suppress(NoLinesError):
            known[f"{net}_best"] = best(results, net)
    return known


TABLES = {**{net: partial(test, net=net) for net in NETS}, "lengthened": lengthened, "longer": longer}
SHOWN = Shown(TABLES, numbers)
