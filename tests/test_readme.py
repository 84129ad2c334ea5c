"""What the README shows runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hardstep as hs
from hardstep import cli

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_the_twelve_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(code.split("\n\n")[1].splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    fit = hs.fit
    monkeypatch.setattr(hs, "fit", lambda *a, **k: fit(*a, **{**k, "sweeps": 2, "progress": False}))
    exec(code, {})
    assert (tmp_path / "digits.safetensors").exists()


def test_every_command_line_shown_is_understood() -> None:
    shown = re.findall(r"^hardstep train ?(.*?) *(?:#.*)?$", TEXT, re.MULTILINE)
    assert len(shown) >= 3
    for arguments in shown:
        if "--resume" not in arguments:
            cli.parse_train(arguments.split())


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
