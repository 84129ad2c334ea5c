"""docs/papers.md ties equation, symbol and test: all three must exist, and the docstrings' keys must be listed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import hardstep as hs

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "papers.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| ")][
    1:
]
LISTED = set(re.findall(r"^- (\w+):", TEXT, re.MULTILINE))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[2]}")
def test_symbol_and_test_of_every_row_exist(row: list[str]) -> None:
    paper, _, symbol, test, _ = row
    assert set(paper.split(", ")) <= LISTED
    module, name = symbol.strip("`").rsplit(".", 1)
    value = getattr(importlib.import_module(module), name)
    assert any(f"[{key}]" in (value.__doc__ or "") for key in paper.split(", ")), f"{symbol} does not cite {paper}"
    path, function = test.strip("`").split("::")
    assert f"def {function}(" in (ROOT / path).read_text()


def test_every_paper_cited_in_a_docstring_is_listed() -> None:
    cited = {
        key
        for path in Path(hs.__file__).parent.rglob("*.py")
        for key in re.findall(r"\[([a-z]+\d{4})\]", path.read_text())
    }
    assert cited
    assert cited <= LISTED
