"""The Sphinx extension of this site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from _site import api, commands, plots, text

__all__ = ["setup"]


def generate(app: Sphinx) -> None:
    """Write the API pages, their plots and the page of the command line into docs/api."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    drawn = {name: f"plots/{file}" for name, file in plots.draw(folder / "plots").items()}
    pages = {topic.slug: api.page(topic, drawn) for topic in api.TOPICS} | {"command_line": commands.page()}
    listed = "\n".join([*(topic.slug for topic in api.TOPICS), "command_line"])
    contents = f"# Reference\n\n```{{toctree}}\n:maxdepth: 2\n\n{listed}\n```\n"
    for name, content in (pages | {"index": contents}).items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != content:  # an unchanged page is not built again
            path.write_text(content)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect what is generated and mended."""
    app.connect("builder-inited", generate)
    app.connect("autodoc-process-docstring", text.escaped, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", text.foreign)
    app.connect("source-read", text.anchored)
    app.connect("doctree-resolved", text.linked)
    app.connect("doctree-resolved", text.breakable, priority=600)
    app.connect("doctree-resolved", text.spread)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
