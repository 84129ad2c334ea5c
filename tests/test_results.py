"""docs/results.md is what the recorded lines say: tables, quoted numbers and pictures; nothing is trained here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.report import (
    BENCHMARKS,
    PAGE,
    PICTURES,
    PageError,
    digest,
    draw,
    fresh_page,
    is_drawn,
    pictures,
    stray,
)
from benchmarks.tables import overview, scattering
from benchmarks.tables.lines import (
    RESULTS,
    NoLinesError,
    Shown,
    Table,
    bare,
    differences,
    gain,
    grouped,
    last,
    lines,
    reach,
    spread,
)

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "benchmarks" / "report.py"


def write_lines(folder: Path, name: str, *found: dict[str, Any]) -> None:
    """Write lines with rising times."""
    text = "\n".join(json.dumps({"time": f"2026-01-01T00:00:{i:02}"} | line) for i, line in enumerate(found))
    (folder / f"{name}.jsonl").write_text(text + "\n")


def accuracies(results: Path) -> Table:
    ways = grouped(last(lines(results, "made", data="x"), "way", "seed"), "way")
    return Table(("way", "test"), tuple((way, spread(found)) for way, found in ways.items()))


def numbers(results: Path) -> dict[str, str]:
    ways = grouped(lines(results, "made", data="x"), "way")
    return {"gain": gain(ways["new"], ways["old"])}


MADE = {"made": Shown({"accuracies": accuracies}, numbers)}
TEXT = "# Made\n\n<!-- table: made.accuracies -->\n<!-- /table -->\n\nGain: <!-- = made.gain -->?<!-- / --> points.\n"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    found = [{"data": "x", "way": "old", "seed": seed, "test": 0.8 + 0.01 * seed} for seed in range(2)]
    found += [{"data": "x", "way": "new", "seed": seed, "test": 0.9} for seed in range(2)]
    write_lines(tmp_path, "made", *found, {"data": "y", "way": "old", "seed": 0, "test": 0.1})
    return tmp_path


def test_page_is_what_the_lines_say() -> None:
    text = PAGE.read_text()
    written, changed = fresh_page(text, RESULTS, BENCHMARKS)
    assert changed == [], "run python benchmarks/report.py"
    assert written == text
    assert stray(text) == []


def test_pictures_show_the_lines() -> None:
    for name, picture in pictures(BENCHMARKS).items():
        assert is_drawn(PICTURES / f"{name}.png", picture.drawn(RESULTS)), f"{name}: run python benchmarks/report.py"


def test_every_recorded_table_and_picture_is_on_a_page() -> None:
    text = PAGE.read_text()
    for benchmark, shown in BENCHMARKS.items():
        for name, table in shown.tables.items():
            try:
                assert table(RESULTS).rows
            except NoLinesError:
                continue  # not measured yet
            assert f"<!-- table: {benchmark}.{name} -->" in text
    pages = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    for name in pictures(BENCHMARKS):
        assert f"](pictures/{name}.png)" in pages


def test_every_benchmark_with_lines_is_shown() -> None:
    names = {path.stem.removeprefix("speed_") for path in RESULTS.glob("*.jsonl")}
    assert names - {"convex"} <= set(BENCHMARKS)  # speed_convex holds the lines of convex_solvers
    assert "convex_solvers" in BENCHMARKS


def test_scattering_appears_in_the_overview_once_it_is_measured(tmp_path: Path) -> None:
    for path in RESULTS.glob("*.jsonl"):
        shutil.copy(path, tmp_path)
    (tmp_path / "scattering.jsonl").unlink(missing_ok=True)
    assert not any("60,000" in row[0] for row in overview.reached(tmp_path).rows)
    time = {"kind": "time", "data": "fashion-mnist", "way": "scattering + step MLP", "images": 60_000, "seconds": 99.6}
    write_lines(tmp_path, "scattering", time)
    (row,) = (row for row in overview.reached(tmp_path).rows if "60,000" in row[0])
    assert row[1] == "100 s"


def test_links_lead_to_sections() -> None:
    text = PAGE.read_text()
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    found = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert found
    assert found <= anchors


def test_tables_and_numbers_are_written_in_place(recorded: Path) -> None:
    written, changed = fresh_page(TEXT, recorded, MADE)
    assert changed == ["table made.accuracies", "number made.gain"]
    assert "| old | .8050 +- .0071 |\n| new | .9000 +- .0000 |" in written
    assert "Gain: <!-- = made.gain -->+9.50 +- 0.71<!-- / --> points." in written
    assert fresh_page(written, recorded, MADE) == (written, [])


@pytest.mark.parametrize(
    ("old", "new", "named"), [(".8050", ".8051", "table made.accuracies"), ("+9.50", "+9.60", "number made.gain")]
)
def test_an_edited_number_is_named(recorded: Path, old: str, new: str, named: str) -> None:
    written, _ = fresh_page(TEXT, recorded, MADE)
    edited = written.replace(old, new)
    assert edited != written
    assert fresh_page(edited, recorded, MADE) == (written, [named])


def test_an_appended_line_is_named(recorded: Path) -> None:
    written, _ = fresh_page(TEXT, recorded, MADE)
    with (recorded / "made.jsonl").open("a") as file:
        line = {"time": "2026-01-02", "data": "x", "way": "new", "seed": 1, "test": 0.95}
        file.write(json.dumps(line) + "\n")
    assert "table made.accuracies" in fresh_page(written, recorded, MADE)[1]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("<!-- table: other.x -->\n<!-- /table -->", PageError, "no benchmark 'other'; there are made"),
        ("<!-- table: made.x -->\n<!-- /table -->", PageError, "there are accuracies"),
        ("a <!-- = made.x -->1<!-- / -->", PageError, "there are gain"),
    ],
)
def test_unknown_names_are_refused(recorded: Path, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fresh_page(text, recorded, MADE)


def test_a_table_without_lines_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NoLinesError, match=r"made\.jsonl .* has no line with data = 'x': run the benchmark first"):
        fresh_page(TEXT, tmp_path, MADE)


def test_tables_outside_of_markers_need_a_reason() -> None:
    table = "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    assert len(stray(f"text\n\n{table}")) == 1
    assert len(stray("text\n\n|a|b|\n|---|:-:|\n|1|2|\n")) == 1
    assert stray(f"<!-- by hand: no measurement -->\n\n{table}") == []
    assert len(stray(f"<!-- by hand:  -->\n\n{table}")) == 1
    assert len(stray(f"<!-- by hand: one only -->\n\n{table}\n{table}")) == 1


@pytest.mark.parametrize(
    "text", ["<!-- table: made.x -->\n", "x\n<!-- /table -->\n", "a <!-- = made.x -->1\n", "a 1<!-- / -->\n"]
)
def test_half_a_marker_is_seen(text: str) -> None:
    assert len(stray(text)) == 1


def test_a_number_at_the_beginning_of_a_line_is_seen() -> None:
    assert len(stray("a\n<!-- = made.gain -->1<!-- / --> b\n")) == 1


def test_command_names_what_is_out_of_date_and_repairs_it(tmp_path: Path) -> None:
    page, shown = tmp_path / "results.md", tmp_path / "pictures"
    shown.mkdir()
    for name in pictures(BENCHMARKS):
        shutil.copy(PICTURES / f"{name}.png", shown)
    text = PAGE.read_text()
    edited = text.replace("| 86,568 |", "| 86,569 |")
    assert edited != text
    page.write_text(edited)
    command = [sys.executable, str(REPORT), "--page", str(page), "--pictures", str(shown)]
    checked = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 1
    assert "out of date: table whole_path.test" in checked.stdout
    assert page.read_text() == edited
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert page.read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "results.md"]


def test_command_says_which_lines_are_missing(tmp_path: Path) -> None:
    command = [sys.executable, str(REPORT), "--check", "--results", str(tmp_path)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 1
    assert "run the benchmark first" in checked.stderr
    assert "Traceback" not in checked.stderr


def test_a_picture_is_the_same_each_time_and_knows_its_numbers(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = BENCHMARKS["networks"].pictures["engine"]
    shown = picture.drawn(RESULTS)
    for name in ("first", "second"):
        draw(tmp_path / f"{name}.png", picture, shown)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert is_drawn(tmp_path / "first.png", shown)
    assert not is_drawn(tmp_path / "first.png", shown | {"1": {}})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.png", "second.png"]


def test_digest_forgets_the_last_bits_of_floats_only() -> None:
    assert digest({"a": [0.1 + 0.2]}) == digest({"a": [0.3]})
    assert digest({"a": [0.30001]}) != digest({"a": [0.3]})


def test_lines_are_selected_by_settings_in_order_of_time(tmp_path: Path) -> None:
    found = [{"time": "3", "a": 1, "b": 1}, {"time": "1", "a": 1, "b": 2}, {"time": "2", "a": 2, "b": 3}]
    write_lines(tmp_path, "made", *found)
    assert [line["b"] for line in lines(tmp_path, "made", a=1)] == [2, 1]
    assert [line["b"] for line in last(lines(tmp_path, "made"), "a")] == [1, 3]
    with pytest.raises(NoLinesError, match="c = 0"):
        lines(tmp_path, "made", c=0)


def test_a_setting_that_a_line_lacks_is_none(tmp_path: Path) -> None:
    write_lines(tmp_path, "made", {"a": 1}, {"a": 1, "threads": 1})
    assert len(lines(tmp_path, "made", threads=1)) == 1
    assert len(lines(tmp_path, "made", threads=None)) == 1


def test_groups_by_one_key_by_more_and_by_lists() -> None:
    found = [{"a": [1, 2], "b": "x"}, {"a": [1, 2], "b": "y"}]
    assert list(grouped(found, "a")) == [(1, 2)]
    assert list(grouped(found, "a", "b")) == [((1, 2), "x"), ((1, 2), "y")]


def test_differences_are_paired_by_seed() -> None:
    mine = [{"seed": 1, "test": 0.9}, {"seed": 0, "test": 0.8}, {"seed": 7, "test": 0.1}]
    other = [{"seed": 0, "test": 0.7}, {"seed": 1, "test": 0.85}]
    assert differences(mine, other) == pytest.approx([5.0, 10.0])
    assert gain(mine, other) == "+7.50 +- 3.54"
    assert gain(mine[:1], other) == "+5.00"


def test_numbers_are_written_as_on_the_page() -> None:
    assert [bare(value) for value in (0.89784, 1.0, -0.25, 10.5)] == [".8978", "1.0000", "-.2500", "10.5000"]
    assert spread([{"test": 0.5}, {"test": 0.7}]) == ".6000 +- .1414"
    assert spread([{"test": 0.5}]) == ".5000"
    assert reach([3.04, 2.0, 2.5]) == "2.0 to 3.0"
    assert reach([3.04, 3.0]) == "3.0"


def test_a_table_is_markdown_and_its_rows_fit() -> None:
    assert str(Table(("a", ""), (("1", ""),))) == "| a | |\n| --- | --- |\n| 1 | |"
    with pytest.raises(ValueError, match="needs 2 cells"):
        Table(("a", "b"), (("1",),))


def test_scattering_is_paired_with_both_rivals_and_keeps_its_last_sweeps(tmp_path: Path) -> None:
    ways = {"step MLP": 0.80, "convnet4": 0.85, "scattering + step MLP": 0.84}
    runs = [
        {"kind": "run", "data": "fashion-mnist", "rows": rows, "way": way, "seed": seed, "sweeps": sweeps}
        | {"features": 300, "test": test + 0.01 * seed + (0.1 if sweeps == 2 else 0)}
        | {"feature_seconds": 3.0 if "scattering" in way else 0.0, "seconds": 7.4}
        for sweeps in (2, 60)
        for rows in (1000, 0)
        for way, test in ways.items()
        for seed in (0, 1)
    ]
    time = {"kind": "time", "data": "fashion-mnist", "way": "scattering + step MLP", "images": 60_000}
    time |= {"features": 4000, "threads": 2, "seconds": 100.04, "milliseconds_an_image": 1.667}
    write_lines(tmp_path, "scattering", *runs, time)
    for rows in (1000, 0):
        table = scattering.test(tmp_path, rows)
        assert [row[0] for row in table.rows] == list(ways)
        assert table.rows[2][1:] == ("300", ".8450 +- .0071", "2", "+4.00 +- 0.00", "-1.00 +- 0.00", "3", "7")
        assert table.rows[0][4] == ""
    assert scattering.times(tmp_path).rows == (("scattering", "60,000", "4,000", "2", "100.0", "1.67"),)
    expected = {f"{rows}_less_mlp": "+4.00 +- 0.00" for rows in ("1000", "all")}
    expected |= {f"{rows}_less_convnet4": "-1.00 +- 0.00" for rows in ("1000", "all")}
    assert scattering.numbers(tmp_path) == expected | {"seconds": "100"}
    with pytest.raises(NoLinesError, match="rows = 500"):
        scattering.test(tmp_path, 500)
