"""Tables of benchmarks/quality/layer_targets.py: of each way the setting that is best on validation data.

Of lines of one setting and seed the last counts.
"""

from __future__ import annotations

from pathlib import Path

from .lines import Line, Shown, Table, bare, differences, gain, last, lines, mean, spread

INNER = "4 inner steps"
SOFT, SATURATED = "soft hinge", "saturated hinge"
FUSED = (SOFT, SATURATED)
CASES = {
    ("mlp", "sign"): "mlp, sign",
    ("mlp", "2-bit"): "mlp, 2-bit staircase",
    ("convnet", "sign"): "convnet, sign",
    ("convnet", "2-bit"): "convnet, 2-bit staircase",
    ("digits", "step"): "digits, 0/1 step, narrow",
}
WAYS = {
    SOFT: "soft hinge, fused",
    SATURATED: "saturated hinge, fused",
    INNER: INNER,
    "search": "search",
    "search, half trusted": "search, half trusted",
    "search, half trusted, 4 inner steps": "search, half trusted, 4 inner steps",
    "momentum on targets": "momentum on targets, 1/2",
}


def chosen(results: Path, net: str, activation: str, way: str) -> Line:
    """Return the line of the rate and width that are best on validation data."""
    tried = lines(results, "layer_targets", kind="choose", net=net, activation=activation, way=way)
    return max(tried, key=lambda line: sum(line["validation"]))


def runs(results: Path, net: str, activation: str) -> dict[str, list[Line]]:
    """Return the scored lines of each way at its best setting."""
    scored = lines(results, "layer_targets", kind="run", net=net, activation=activation)
    found = {}
    for way in (way for way in WAYS if any(line["way"] == way for line in scored)):
        best = chosen(results, net, activation, way)
        kept = [line for line in scored if all(line[key] == best[key] for key in ("way", "lr", "width"))]
        found[way] = last(kept, "seed")
    return {way: kept for way, kept in found.items() if kept}


def test(results: Path, cases: tuple[tuple[str, str], ...] = tuple(CASES)) -> Table:
    """Return accuracy, the paired differences to both fused rules, and seconds."""
    rows = []
    for case in cases:
        found = runs(results, *case)
        whole = max(len(mine) for mine in found.values())
        kept = {way: mine for way, mine in found.items() if len(mine) >= min(whole, 2)}  # not those tried on one seed
        for i, (way, mine) in enumerate(kept.items()):
            against = (gain(mine, kept[other]) if other in kept and way != other else "" for other in FUSED)
            seconds = f"{mean([line['seconds'] for line in mine])[0]:.0f}"
            setting = f"{mine[-1]['lr']:g}, {mine[-1]['width']:g}"
            named = "" if i else CASES.get(case, ", ".join(case))
            rows.append((named, WAYS[way], setting, spread(mine), *against, seconds))
    head = ("", "way", "rate, width", "test", "against soft hinge", "against saturated")
    return Table((*head, "seconds"), tuple(rows))


def diagnosed(results: Path) -> Table:
    """Return per layer how well the backward pass predicts what a flip does: correlation, signs that are right."""
    rows = []
    for case, name in CASES.items():
        for way, mine in runs(results, *case).items():
            if way != "search, half trusted":
                continue
            layers = range(sum(key.startswith("effect correlation ") for key in mine[0]))
            cells = [
                ", ".join(bare(mean([line[f"effect {what} {i}"] for line in mine])[0], 2) for i in layers)
                for what in ("correlation", "agreement")
            ]
            rows.append((name, *cells))
    return Table(("search, half trusted", "correlation, from the input on", "signs that are right"), tuple(rows))


def numbers(results: Path) -> dict[str, str]:
    """Return what was quoted of the narrow network."""
    narrow = runs(results, "digits", "step")
    earlier: dict[str, str] = {}
    picked = {
        "narrow_half": chosen(results, "digits", "step", "search, half trusted"),
        "narrow_all": chosen(results, "digits", "step", "search"),
        "narrow_soft": chosen(results, "digits", "step", SOFT),
    }
    settings = {"earlier_soft": (SOFT, 8e-3, 1.0), "earlier_saturated": (SATURATED, 1.6e-2, 0.5)}
    settings["earlier_inner"] = (INNER, 4e-3, 1.0)
    for name, (way, lr, width) in settings.items():
        scored = lines(
            results, "layer_targets", kind="run", net="digits", activation="step", way=way, lr=lr, width=width
        )
        earlier[name] = bare(mean([line["test"] for line in last(scored, "seed")])[0])
    middle, deviation = mean(pairs := differences(narrow["search, half trusted"], narrow[SOFT]))
    return earlier | {
        "narrow_gain": gain(narrow["search, half trusted"], narrow[SOFT]),
        "narrow_t": f"{middle / (deviation / len(pairs) ** 0.5):.1f}",
        **{name: bare(mean(line["validation"])[0], 3) for name, line in picked.items()},
    }


SHOWN = Shown({"test": test, "diagnosed": diagnosed}, numbers)
