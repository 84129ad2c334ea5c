"""The page of the command line: the help of every command, as its parser prints it."""

from __future__ import annotations

import os
import re
from contextlib import redirect_stdout, suppress
from io import StringIO

from hardstep.cli import main

__all__ = ["page"]


def page() -> str:
    """Return the page as MyST text."""
    overview = _run("--help")
    lines = ["# Command line", "", "The help of every command, printed by its parser when this page was built.", ""]
    lines += _block("hardstep --help", overview)
    for command in re.findall(r"^ +hardstep ([\w-]+) ", overview, re.MULTILINE):
        lines += [f"## `hardstep {command}`", "", *_block(f"hardstep {command} --help", _run(command, "--help"))]
    return "\n".join(lines)


def _run(*arguments: str) -> str:
    """Return what the command prints, 100 columns wide and without colours."""
    before = dict(os.environ)
    os.environ.update(COLUMNS="100", TERM="dumb", NO_COLOR="1")
    try:
        with redirect_stdout(StringIO()) as printed, suppress(SystemExit):
            main(list(arguments))
    finally:
        os.environ.clear()
        os.environ.update(before)
    return printed.getvalue()


def _block(command: str, text: str) -> list[str]:
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    return ["````text", f"$ {command}", "", *lines, "````", ""]
