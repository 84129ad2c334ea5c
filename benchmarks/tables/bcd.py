"""Tables of benchmarks/quality/bcd.py; of lines equal in data, widths, method, normalisation and seed the last counts.

Straight-through training of a shape has one rate in a run, chosen there; the last run counts whatever its rate was.
"""

from __future__ import annotations

from pathlib import Path

from .lines import NOT_RUN, Line, Shown, Table, bare, gain, grouped, last, lines, mean, reach, spread

OURS, PLAIN, NORMED, PUBLISHED = "MarginBCD", "straight-through", "straight-through, batch norm", "BCD"
HEADS = {PUBLISHED: "`BCD`, as published", OURS: "`MarginBCD`"}

Shapes = dict[tuple[int, ...], dict[str, list[Line]]]


def way(line: Line) -> str:
    """Return the way of a line."""
    name = line["method"].split("(")[0]
    return name if name != "GradientDescent" else NORMED if line["norm"] else PLAIN


def shapes(results: Path, data: str) -> Shapes:
    """Return the lines by shape and way."""
    found = [line | {"way": way(line)} for line in lines(results, "bcd", data=data)]
    by_shape = grouped(last(found, "hidden", "way", "seed"), "hidden")
    return {
        hidden: grouped(group, "way") for hidden, group in sorted(by_shape.items(), key=lambda item: shape(item[0]))
    }


def shape(hidden: tuple[int, ...]) -> tuple[int, int]:
    """Return what shapes are sorted by: width, depth."""
    return hidden[0], len(hidden)


def digits(results: Path, data: str = "digits") -> Table:
    """Return test accuracy of every way, and the paired difference to straight-through with batch normalisation."""
    rows = []
    for hidden, ways in shapes(results, data).items():
        cells = [spread(ways[name]) if name in ways else NOT_RUN for name in (OURS, PLAIN, NORMED, PUBLISHED)]
        paired = gain(ways[OURS], ways[NORMED]) if NORMED in ways else NOT_RUN
        rows.append((", ".join(map(str, hidden)), *cells, paired))
    ways_head = (HEADS.get(name, name) for name in (OURS, PLAIN, NORMED, PUBLISHED))
    return Table(("hidden layers", *ways_head, "`MarginBCD` less batch norm, points"), tuple(rows))


def fashion(results: Path) -> Table:
    """Return test accuracy by depth at equal time, with what both sides spent."""
    rows = []
    for hidden, ways in shapes(results, "fashion-mnist").items():
        ours, plain = ways[OURS], ways[PLAIN]
        epochs = reach((line["sweeps"] for line in plain), "{}")
        seconds = "; ".join(f"{mean([line['seconds'] for line in each])[0]:.0f}" for each in (ours, plain))
        both = (spread(ours), spread(plain), f"{gain(ours, plain)} points")
        rows.append((str(len(hidden)), *both, f"{reach((line['sweeps'] for line in ours), '{}')}; {epochs}", seconds))
    head = ("layers of 1,000", "`MarginBCD`", "straight-through", "paired difference", "sweeps; epochs")
    return Table((*head, "seconds each"), tuple(rows))


def numbers(results: Path) -> dict[str, str]:
    """Return the paired differences on Fashion-MNIST by depth, and the earlier aim on the digits in order of shapes."""
    earlier = [x for x in lines(results, "bcd", data="digits") if way(x) == OURS and "flips=Flips(" in x["method"]]
    ordered = sorted(grouped(last(earlier, "hidden", "seed"), "hidden").items(), key=lambda item: shape(item[0]))
    flips = ", ".join(bare(mean([line["test"] for line in found])[0]) for _, found in ordered)
    fashion_shapes = shapes(results, "fashion-mnist").items()
    gains = {f"gain_{len(hidden)}": gain(ways[OURS], ways[PLAIN]) for hidden, ways in fashion_shapes}
    return gains | {"digits_flips": flips}


SHOWN = Shown({"digits": digits, "fashion": fashion}, numbers)
