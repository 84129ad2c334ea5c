"""Tables of benchmarks/quality/scattering.py: of the last number of sweeps; of equal way and seed the last."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

from .lines import Line, NoLinesError, Shown, Table, gain, grouped, last, lines, mean, spread

ALONE, CONVNET, FRONT = "step MLP", "convnet4", "scattering + step MLP"
CODES = "step scattering in codes + step MLP"
RIVALS = {"mlp": ALONE, "convnet4": CONVNET}


def runs(results: Path, rows: int, data: str = "fashion-mnist") -> dict[str, list[Line]]:
    """Return the lines by way."""
    found = lines(results, "scattering", kind="run", data=data, rows=rows)
    return grouped(last((line for line in found if line["sweeps"] == found[-1]["sweeps"]), "way", "seed"), "way")


def test(results: Path, rows: int, data: str = "fashion-mnist") -> Table:
    """Return accuracy of every way, the paired differences to the MLP alone and to convnet4, and seconds."""
    by_way = runs(results, rows, data)
    cells = []
    for way, mine in by_way.items():
        paired = (gain(mine, by_way[o]) if o in by_way and o != way else "" for o in (ALONE, CONVNET))
        features, seconds = (f"{mean([line[key] for line in mine])[0]:.0f}" for key in ("feature_seconds", "seconds"))
        shown = (f"{mine[-1]['features']:,}", spread(mine), str(len(mine)), *paired)
        cells.append((way, *shown, features, seconds))
    head = ("way", "inputs", "test", "seeds", f"less {ALONE}, points", f"less {CONVNET}, points")
    return Table((*head, "seconds for the features", "seconds of training"), tuple(cells))


def times(results: Path, data: str = "fashion-mnist") -> Table:
    """Return what the features of so many images take."""
    found = last(lines(results, "scattering", kind="time", data=data), "way", "images", "threads")
    rows = [
        (
            line["way"].removesuffix(f" + {ALONE}"),
            f"{line['images']:,}",
            f"{line['features']:,}",
            str(line["threads"]),
            f"{line['seconds']:.1f}",
            f"{line['milliseconds_an_image']:.2f}",
        )
        for line in found
    ]
    return Table(("front end", "images", "features", "threads", "seconds", "milliseconds an image"), tuple(rows))


def numbers(results: Path) -> dict[str, str]:
    """Return the paired differences of scattering and the seconds of 60,000 images, as far as they were measured."""
    known: dict[str, str] = {}
    for name, rows in (("1000", 1000), ("all", 0)):
        with suppress(NoLinesError, KeyError):
            found = runs(results, rows)
            known |= {f"{name}_less_{other}": gain(found[FRONT], found[rival]) for other, rival in RIVALS.items()}
    with suppress(NoLinesError):
        timed = lines(results, "scattering", kind="time", data="fashion-mnist", images=60_000, way=FRONT)
        known["seconds"] = f"{timed[-1]['seconds']:.0f}"
    with suppress(NoLinesError):
        front = lines(results, "scattering", kind="frozen", data="fashion-mnist")[-1]
        known |= {way: f"{front[f'{way}_microseconds']:.0f}" for way in ("engine", "torch")}
    for name, rows in (("1000", 1000), ("all", 0)):
        with suppress(NoLinesError, KeyError):
            joined = runs(results, rows)[CODES]
            known[f"{name}_frozen"] = spread(joined, "frozen")
            known[f"{name}_bytes"] = f"{mean([line['bytes'] for line in joined])[0]:,.0f}"
            known[f"{name}_wrong"] = str(sum(line["wrong_scores"] for line in joined))
    return known


SHOWN = Shown({"test_1000": partial(test, rows=1000), "test_all": partial(test, rows=0), "times": times}, numbers)
