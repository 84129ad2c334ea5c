"""The page of a comparison: complete, escaped, alone; and what a browser makes of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

import hardstep as hs
from hardstep.compare_report import page
from hardstep.compare_run import Proof, Run
from hardstep.svg import Axis, Curve, Point, curve_plot, marker, point_plot

EVIL = "</script><script>document.title='evil'</script><b>&\"'"
BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"),
)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="there is no chromium to look at the page")


def comparison(methods: int = 3) -> hs.Comparison:
    """Two seeds each: scores fall with the number of the method, sizes too; the last one but one fails."""
    runs = []
    for i in range(methods):
        for seed in range(2):
            records = tuple(
                hs.Record(s, 10.0 - s - i, 0.5 + 0.04 * s - 0.01 * i, 0.5, {"flip_rate": 0.3 / (s + 1), "own_one": 2.0})
                for s in range(5)
            )
            report = hs.Report(f"M{i}()", "toy", seed, records, 4, "all 5 sweeps done", {})
            figures = {
                "frozen": 0.9 - 0.02 * i + 0.01 * seed,
                "float": 0.9,
                "small_nbytes": 1000.0 - 100 * i,
                "macs": 1e4,
            }
            figures |= {"us_1": 12.5 + i, "us_256": 1.25, "seconds": 3.0, "sparsity": 0.1, "dead": 0.0, "sweeps": 5.0}
            proofs = (Proof("every partial sum fits", "PROVED"), Proof(f"P <= (1 + {i}) P*", "UNKNOWN"))
            runs.append(Run(f"method {i}", seed, f"M{i}()", figures, proofs, report))
    runs.append(Run(EVIL, 0, f"Evil({EVIL!r})", failed=f"ValueError: {EVIL}"))
    task = {"data": "toy", "rows": "5 training", "inputs": "2", "outputs": "2 classes", "net": EVIL, "sweeps": "5"}
    task |= {"seeds": "2", "part": "test", "score": "accuracy"}
    return hs.Comparison(task, tuple(runs), {"hardstep": "1"}, "2020-01-01", f"hardstep compare {EVIL}")


def browse(path: Path, folder: Path, *, width: int = 1280) -> tuple[str, list[str]]:
    """Open a file; return the document as it is after its scripts, and what was written to the console."""
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder}", f"--window-size={width},900", "--dump-dom", path.as_uri()]
    environment = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def with_script(text: str, script: str) -> str:
    """Return a page with a script of the test behind its own; it may run, for the page allows those inside it."""
    return text.replace("</body>", f"<script>{script}</script></body>")


def test_page_needs_nothing_else_and_runs_no_foreign_text() -> None:
    text = page(comparison())
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)|@import|url\(""", text)
    assert EVIL not in text
    assert text.count("<script") == 2
    assert escape(f"ValueError: {EVIL}") in text


def test_numbers_in_the_page_are_the_comparison() -> None:
    found = comparison()
    (embedded,) = re.findall(r'<script type="application/json" id="numbers">(.*?)</script>', page(found), re.DOTALL)
    content = json.loads(embedded)
    assert [run["figures"] for run in content["runs"]] == [dict(run.figures) for run in found.runs]
    assert content["command"] == found.command


def test_page_shows_every_method_its_figures_code_certificates_and_reason() -> None:
    text = page(comparison())
    rows = re.findall(r"<tr>(.*?)</tr>", text.split('<table id="methods">')[1].split("</table>")[0])
    assert len(rows) == 1 + 4
    assert "90.50" in rows[1] and "± 0.71" in rows[1]
    assert "-2.00" in rows[2]
    assert "2 of 4" in rows[1]
    assert unescape(re.findall(r"<pre>(M0.*?)</pre>", text)[0]) == "M0()"
    assert "P &lt;= (1 + 2) P*" in text
    for word in ("own one", "bits flipped", "objective", "Did not end well", "all 5 sweeps done"):
        assert word in text


def test_page_without_any_result_or_for_numbers_can_be_written() -> None:
    failed = hs.Comparison({**comparison().task}, (Run("a", 0, "A()", failed="no"),))
    assert "No method ended with a frozen network" in page(failed)
    regression = hs.Comparison({**comparison().task, "score": "R²"}, comparison().runs)
    assert "0.9050" in page(regression)


def test_axis_has_round_ticks_inside_its_ends() -> None:
    for axis in (
        Axis("a", 0.123, 0.987),
        Axis("b", 3e4, 9e8, log=True),
        Axis("c", 20.0, 60.0, log=True),
        Axis("d", -3.0, 2.0),
    ):
        ticks = axis.ticks()
        assert 3 <= len(ticks) <= 16
        assert all(axis.low <= tick <= axis.high for tick in ticks)
        assert len({axis.text(tick) for tick in ticks}) == len(ticks)


def test_plots_hold_every_point_once_and_escape_labels() -> None:
    points = [Point(10.0**i, 0.1 * i, i, f"{EVIL}{i}", 0.05, f"<{i}>") for i in range(9)]
    text = point_plot(points, Axis.over("x", [p.x for p in points], log=True), Axis.over("y", [p.y for p in points]))
    assert text.count("<title>") == 9
    assert EVIL not in text and "&lt;8&gt;" in text
    curve = Curve([1.0, 2.0], [0.5, 0.6], [0.4, 0.5], [0.6, 0.7], 8, "c")
    assert "dashed" in curve_plot([curve], Axis("sweep", 1.0, 2.0), Axis("y", 0.0, 1.0))
    assert len({marker(i, 0.0, 0.0) for i in range(9)}) == 9


@in_a_browser
def test_browser_sorts_tables_by_click_and_keyboard_without_an_error(tmp_path: Path) -> None:
    script = """
        const table = document.getElementById("methods"), heads = [...table.tHead.rows[0].cells], said = [];
        const order = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
        const size = heads.find(head => head.textContent.startsWith("size"));
        for (let i = 0; i < 2; i++) { size.querySelector("button").click(); said.push([order(), size.ariaSort]); }
        heads[0].querySelector("button").focus();
        said.push([document.activeElement.textContent, heads[0].ariaSort]);
        document.activeElement.click();
        said.push([order(), heads[0].ariaSort, size.ariaSort]);
        document.body.dataset.said = JSON.stringify(said);
    """
    (tmp_path / "report.html").write_text(with_script(page(comparison()), script))
    document, console = browse(tmp_path / "report.html", tmp_path / "profile")
    assert console == []
    (found,) = re.findall(r'data-said="(.*?)"', document)
    said: list[Any] = json.loads(unescape(found))
    names = [f"method {i}" for i in range(3)]
    assert said[0] == [[*reversed(names), EVIL], "ascending"]
    assert said[1] == [[*names, EVIL], "descending"]  # what has no number stays at the end
    assert said[2] == ["method", "none"]
    assert said[3] == [[EVIL, *names], "ascending", "none"]
    assert "<title>toy: comparison of methods</title>" in document


@in_a_browser
def test_page_fits_a_phone_and_only_tables_scroll(tmp_path: Path) -> None:
    script = """
        const root = document.documentElement, boxes = [...document.querySelectorAll(".scroll")];
        const wide = [...document.querySelectorAll("body *")].filter(each => !each.closest(".scroll")
            && each.getBoundingClientRect().right > root.clientWidth + 0.5).map(each => each.tagName);
        const scrolls = boxes.some(box => box.scrollWidth > box.clientWidth);
        const said = [innerWidth, root.scrollWidth - root.clientWidth, scrolls, wide];
        parent.postMessage(JSON.stringify(said), "*");
    """
    (tmp_path / "report.html").write_text(with_script(page(comparison(9)), script))
    frame = (  # a window is at least 500 wide, a frame is not
        "<body><script>addEventListener('message', event => { document.body.dataset.said = event.data; })</script>"
        '<iframe src="report.html" style="width:390px;height:800px;border:0"></iframe>'
    )
    (tmp_path / "phone.html").write_text(frame)
    document, console = browse(tmp_path / "phone.html", tmp_path / "profile")
    assert console == []
    (found,) = re.findall(r'data-said="(.*?)"', document)
    assert json.loads(unescape(found)) == [390, 0, True, []]
