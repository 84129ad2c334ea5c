"""Docstrings are plain text for a terminal; here they become reST that says the same."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

import hardstep as hs

__all__ = ["anchored", "breakable", "escaped", "foreign", "linked", "spread"]

CITATION = re.compile(r"\[([a-z]+\d{4})\]")
BREAKS = re.compile(r"(?<=[_=/,])|(?<=\()(?!\))|(?<=:)(?!:)|(?<=\.)(?=[A-Za-z])")
PUBLIC = re.compile(r"(hs\.|hardstep\.(?:\w+\.)*)?([A-Za-z]\w+)(\(.*\))?", re.DOTALL)


def escaped(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape what reST would take for markup outside of code, and make citations links; changes `lines`."""
    blocks: list[list[str]] = [[]]
    doctest = False
    for line in lines:  # examples go through as they are
        starts = line.lstrip().startswith(">>>")
        if starts != doctest and (starts or not line.strip()):
            doctest = starts
            blocks.append([])
        blocks[-1].append(line)
    text = "\n".join(
        "\n".join(block) if block and block[0].lstrip().startswith(">>>") else _prose("\n".join(block))
        for block in blocks
    )
    if what in ("attribute", "data", "property"):
        text = f": {text}"  # napoleon takes what stands before the first colon for the type: nothing
    lines[:] = text.split("\n")


def foreign(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn adds to every estimator."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def _prose(text: str) -> str:
    parts = re.split(r"(`+[^`]+`+|\*\*[^*]+\*\*)", text)  # code and what is bold stay
    for i in range(0, len(parts), 2):
        plain = re.sub(r"([\\|*])", r"\\\1", parts[i])
        plain = re.sub(r"(?<=\w)_(?!\w)", r"\\_", plain)
        if i and plain[:1].isalnum():
            plain = "\\ " + plain  # a plural of code: reST wants a mark that the code ends
        parts[i] = CITATION.sub(r"`[\1] <../papers.html#\1>`__", plain)
    return "".join(parts)


def anchored(app: Sphinx, page: str, source: list[str]) -> None:
    """Give every paper in the list of papers an anchor."""
    if page == "papers":
        source[0] = re.sub(r"^- (\w+):", r"- []{#\1}\1:", source[0], flags=re.MULTILINE)


def linked(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Make code that is a public name a link to where it is documented."""
    objects = app.env.domains.python_domain.objects
    for node in list(doctree.findall(nodes.literal)):
        match = PUBLIC.fullmatch(node.astext())
        if match is None or match[2] not in hs.__all__ or _within(node, nodes.title, nodes.reference):
            continue
        if match[1] is None and match[2].islower() and "_" not in match[2]:
            continue  # an argument's name as likely as a function's
        entry = objects.get(f"hardstep.{match[2]}")
        if entry is not None:
            node.replace_self(make_refnode(app.builder, page, entry.docname, entry.node_id, node.deepcopy()))


def breakable(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Let long code in a table break behind its dots, underscores and brackets."""
    for node in list(doctree.findall(nodes.literal)):
        if len(node.astext()) > 16 and _within(node, nodes.entry):
            text = node.astext()
            pieces = [nodes.Text(piece) for piece in BREAKS.split(text) if piece]
            node.children = []
            for piece in pieces:
                node += [piece, nodes.raw("", "<wbr>", format="html")]


def spread(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Write the "+-" of a spread as one sign that no line ends beside."""
    for node in list(doctree.findall(nodes.Text)):
        if "+-" in node and not _within(node, nodes.literal, nodes.literal_block):
            node.parent.replace(node, nodes.Text(node.replace(" +- ", "\u00a0±\u00a0").replace('"+-"', '"±"')))


def _within(node: nodes.Node, *kinds: type[nodes.Node]) -> bool:
    return node.parent is not None and (isinstance(node.parent, kinds) or _within(node.parent, *kinds))
