"""The gallery runs every example at a small size and shows the picture that its full size left in docs/pictures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

from _site.small import SMALL

__all__ = ["Order", "pictures", "small"]

DOCS = Path(__file__).parents[1]


def small(gallery: dict[str, Any], script: dict[str, Any]) -> list[str]:
    """Return the arguments that an example gets in the build."""
    name = Path(script["src_file"]).stem
    return [*SMALL[name], "--out", str(_folder(name))]


def pictures(block: Any, script: dict[str, Any], gallery: dict[str, Any]) -> str:
    """Show the kept pictures of those that the script has just written.

    Raises
    ------
    FileNotFoundError
        If it wrote none, or one that docs/pictures lacks.
    """
    name = Path(script["src_file"]).stem
    made = sorted(_folder(name).glob("*.png"), key=lambda path: (path.stem != name.removeprefix("plot_"), path.name))
    if not made:
        raise FileNotFoundError(f"{script['src_file']} wrote no picture into its --out")
    shown = []
    for path, target in zip(made, script["image_path_iterator"], strict=False):
        shutil.copy(DOCS / "pictures" / path.name, target)
        shown.append(target)
    return str(figure_rst(shown, gallery["src_dir"]))


class Order:
    """The order of the gallery is that of the list of small sizes."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, script: str) -> int:
        return list(SMALL).index(Path(script).stem)


def _folder(name: str) -> Path:
    folder = DOCS / "examples" / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
