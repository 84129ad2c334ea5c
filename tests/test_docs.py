"""What the pages of the site show runs as it stands, leads somewhere and was measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs._site import api
from docs._site.small import SMALL

import hardstep as hs
from hardstep import cli

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
WITH_CODE = [page for page in PAGES if "```python" in page.read_text()]


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#{1,3} (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_code_of_a_page_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fit = hs.fit
    monkeypatch.setattr(hs, "fit", lambda *a, **k: fit(*a, **{**k, "sweeps": min(2, k["sweeps"]), "progress": False}))
    scope = {"__name__": "a_page_of_the_docs"}
    for match in re.finditer(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        line = page.read_text()[: match.start(1)].count("\n")
        code = compile("\n" * line + match[1], str(page), "exec", dont_inherit=True)  # an error names the page's line
        exec(code, scope)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_page_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        example = re.fullmatch(r"examples/(plot_\w+)", name)
        assert path.exists() or (example and example[1] in SMALL) or name.startswith("api/"), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_of_a_page_is_understood(page: Path) -> None:
    for arguments in re.findall(r"^(?:.*&& |)hardstep train\b ?(.*?) *(?:#.*)?$", page.read_text(), re.MULTILINE):
        if "--resume" not in arguments:
            cli.parse_train(arguments.split())


def test_figures_that_choose_quotes_stand_in_the_results() -> None:
    results = re.sub(r"<!--.*?-->", "", (ROOT / "docs" / "results.md").read_text())
    text = (ROOT / "docs" / "choose.md").read_text()
    quoted = re.findall(r"(?<![\d.])\.\d{3,}|[+-]\d+\.\d+ \+- \d+\.\d+|\b\d{1,3}(?:,\d{3})+\b", text)
    assert len(quoted) > 40
    gates = (ROOT / "docs" / "deploy.md").read_text()
    assert [figure for figure in quoted if figure not in results and figure not in gates] == []


def test_every_public_name_stands_on_exactly_one_page_of_the_reference() -> None:
    placed = [name for names in api.place().values() for name in names]
    assert sorted(placed) == sorted(hs.__all__)
    shown = [re.findall(r"^\.\. \S+:: hardstep\.(\w+)$", api.page(topic, {}), re.MULTILINE) for topic in api.TOPICS]
    names = [name for page in shown for name in page if name in hs.__all__]
    assert sorted(names) == sorted(hs.__all__)


def test_the_gallery_shows_a_kept_picture_of_every_example() -> None:
    scripts = {path.stem for path in (ROOT / "examples").glob("plot_*.py")}
    assert scripts == set(SMALL)
    assert len(scripts) <= 12
    for script in scripts:
        named = re.findall(r"/ \"(\w+\.png)\"", (ROOT / "examples" / f"{script}.py").read_text())
        assert named
        assert all((ROOT / "docs" / "pictures" / name).exists() for name in named)
