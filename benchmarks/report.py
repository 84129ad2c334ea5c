"""Write the tables, the quoted numbers and the pictures of docs/results.md from benchmarks/results/*.jsonl.

    python benchmarks/report.py               # rewrites tables and numbers in place, and what pictures are out of date
    python benchmarks/report.py --check       # changes nothing; names what is out of date and exits with 1
    python benchmarks/report.py --figures     # draws all pictures anew

In the page a table stands between `<!-- table: MODULE.NAME -->` and `<!-- /table -->`, a number in a sentence between
`<!-- = MODULE.NAME -->` and `<!-- / -->`; MODULE is a file of benchmarks/tables/. A table outside of such markers needs
`<!-- by hand: REASON -->` above it. A picture holds a digest of the numbers it shows, so that it is known when those
changed. Reads lines only: nothing is trained or measured. A second, with pictures a few.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.tables import (
    activate_pruning,
    bcd,
    bcd_sweep,
    bit_matrix,
    choose_settings,
    convex_authors,
    convex_certified,
    convex_images,
    convex_solvers,
    engine,
    epoch,
    exactness,
    layer_targets,
    memory,
    networks,
    oracles,
    overview,
    planted_support,
    prune_units,
    reste_authors,
    scattering,
    sparse,
    sparse_units,
    surrogates,
    target_prop_exact,
    whole_path,
)
from benchmarks.tables.lines import RESULTS, NoLinesError, Picture, Shown

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
PICTURES = ROOT / "docs" / "pictures"
MODULES = (
    overview, whole_path, choose_settings, epoch, memory, bcd, bcd_sweep, convex_certified, convex_images,
    convex_authors, convex_solvers, oracles, bit_matrix, planted_support, sparse, sparse_units, activate_pruning,
    target_prop_exact, layer_targets, surrogates, reste_authors, prune_units, scattering, engine, networks, exactness,
)  # fmt: skip
BENCHMARKS: dict[str, Shown] = {module.__name__.rpartition(".")[2]: module.SHOWN for module in MODULES}
TABLE = re.compile(r"<!-- table: (?P<name>[\w.]+) -->\n(?P<body>.*?)<!-- /table -->", re.DOTALL)
NUMBER = re.compile(r"<!-- = (?P<name>[\w.]+) -->(?P<body>.*?)<!-- / -->")
BY_HAND = re.compile(r"<!-- by hand: \S.*? -->\n\n(\|.*\n)+")
MARKER = re.compile(r"<!-- (=|table:|/table|/) .*?-->|<!-- /(table)? -->")
RULE = re.compile(r"^\|( ?:?-+:? ?\|)+ *$", re.MULTILINE)


class PageError(ValueError):
    """The page asks for something that no benchmark shows, or has markers that do not fit."""


def named(name: str, shown: Mapping[str, Shown], kind: str) -> tuple[Shown, str]:
    """Return the benchmark and the name of its piece; raise PageError if there is no such benchmark."""
    module, _, piece = name.partition(".")
    if module not in shown or not piece:
        raise PageError(f"{kind} {name!r}: no benchmark {module!r}; there are {', '.join(sorted(shown))}")
    return shown[module], piece


def fresh_page(text: str, results: Path, shown: Mapping[str, Shown]) -> tuple[str, list[str]]:
    """Return the page with every table and number written anew, and the names of those that changed."""
    changed: list[str] = []
    numbers = cache(lambda benchmark: shown[benchmark].numbers(results))

    def table(found: re.Match[str]) -> str:
        benchmark, piece = named(found["name"], shown, "table")
        if piece not in benchmark.tables:
            raise PageError(f"table {found['name']!r}: there are {', '.join(benchmark.tables) or 'none'}")
        body = f"\n{benchmark.tables[piece](results)}\n\n"
        if body != found["body"]:
            changed.append(f"table {found['name']}")
        return f"<!-- table: {found['name']} -->\n{body}<!-- /table -->"

    def number(found: re.Match[str]) -> str:
        _, piece = named(found["name"], shown, "number")
        known = numbers(found["name"].partition(".")[0])
        if piece not in known:
            raise PageError(f"number {found['name']!r}: there are {', '.join(known) or 'none'}")
        if known[piece] != found["body"]:
            changed.append(f"number {found['name']}")
        return f"<!-- = {found['name']} -->{known[piece]}<!-- / -->"

    return NUMBER.sub(number, TABLE.sub(table, text)), changed


def stray(text: str) -> list[str]:
    """Return what is wrong with the markers of a page: tables and pieces of markers that stand outside."""
    outside = BY_HAND.sub("", NUMBER.sub("", TABLE.sub("", text)))
    found = [f"a table without a marker above the rule {rule.group()}" for rule in RULE.finditer(outside)]
    found += [f"a marker without its other half: {marker.group()}" for marker in MARKER.finditer(outside)]
    starts = re.findall(r"^<!-- = .*", text, re.MULTILINE)  # Markdown takes such a line for a block of HTML
    return found + [f"a number at the beginning of a line: {line[:60]}" for line in starts]


def digest(numbers: object) -> str:
    """Return a digest of the numbers a picture shows."""
    rounded = json.loads(json.dumps(numbers), parse_float=lambda text: f"{float(text):.9g}")
    return hashlib.sha256(json.dumps(rounded, sort_keys=True).encode()).hexdigest()


def is_drawn(path: Path, numbers: object) -> bool:
    """Return whether a PNG holds the digest of these numbers in its text chunk."""
    return path.is_file() and f"Lines\0{digest(numbers)}".encode() in path.read_bytes()


def draw(path: Path, picture: Picture, numbers: object) -> None:
    """Draw a picture, with the digest of its numbers inside, aside and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part.png")
    picture.draw(numbers).savefig(aside, dpi=150, metadata={"Software": None, "Lines": digest(numbers)})
    aside.replace(path)


def pictures(shown: Mapping[str, Shown]) -> dict[str, Picture]:
    """Return all pictures by the stem of their file."""
    return {name: picture for benchmark in shown.values() for name, picture in benchmark.pictures.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, name what is out of date")
    parser.add_argument("--figures", action="store_true", help="draw all pictures anew")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the recorded lines")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    options = parser.parse_args()
    text = options.page.read_text()
    try:
        written, changed = fresh_page(text, options.results, BENCHMARKS)
    except (NoLinesError, PageError) as error:
        print(f"{options.page.name}: {error}", file=sys.stderr)
        return 1
    wrong = stray(text)
    for name, picture in pictures(BENCHMARKS).items():
        path, numbers = options.pictures / f"{name}.png", picture.drawn(options.results)
        if options.figures or not is_drawn(path, numbers):
            changed.append(f"picture {name}")
            if not options.check:
                draw(path, picture, numbers)
    if not options.check and written != text:
        aside = options.page.with_suffix(".part")
        aside.write_text(written)
        aside.replace(options.page)
    for each in changed:
        print(f"out of date: {each}" if options.check else f"written: {each}")
    for each in wrong:
        print(f"{options.page.name}: {each}", file=sys.stderr)
    return 1 if wrong or (options.check and changed) else 0


if __name__ == "__main__":
    sys.exit(main())
