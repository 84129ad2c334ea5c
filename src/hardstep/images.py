"""Folders of images, one sub-folder a class, decoded when they are needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["ImageFolder", "image_folders"]

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
UNREADABLE = (OSError, SyntaxError, EOFError, Image.DecompressionBombError)  # what Pillow raises; OSError most often


@dataclass(frozen=True, eq=False)
class ImageFolder(Dataset[tuple[Tensor, Tensor]]):
    """Images of one part: each is decoded, made grey or RGB, resized, and given as uint8 (channels, height, width).

    Parameters
    ----------
    files
        Paths with their labels.
    size
        Height and width; None for those of each image.
    grey
        One channel instead of three.
    margin
        An image is resized, in its proportions, until it covers so many pixels more than the size each way, and its
        middle is cut out: 32 for 224 of 256. None takes the whole image, in the proportions of the size.

    Raises
    ------
    ValueError
        If the margin is negative.
    """

    files: tuple[tuple[Path, int], ...]
    size: tuple[int, int] | None
    grey: bool
    margin: int | None = None

    def __post_init__(self) -> None:
        if self.margin is not None and self.margin < 0:
            raise ValueError(f"margin is a number of pixels, at least 0, got {self.margin}")

    def pick(self, rows: Int64[np.ndarray, " m"]) -> ImageFolder:
        """Return the folder of some of the files."""
        return replace(self, files=tuple(self.files[row] for row in rows))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Decode one image.

        Raises
        ------
        ValueError
            If the file is no image or truncated.
        """
        path, label = self.files[index]
        try:
            with Image.open(path) as image:
                _check_depth(path, image)
                # a palette with transparency turns by way of RGBA, as Pillow asks for
                full = image.convert("RGBA") if "transparency" in image.info else image
                plain = full.convert("L" if self.grey else "RGB")
        except UNREADABLE as error:
            raise ValueError(f"{path} is not a readable image ({error}); remove or replace it") from error
        if self.size is not None:
            height, width = self.size
            plain = plain.resize((width, height), Image.Resampling.BILINEAR, box=self._window(plain, height, width))
        pixels = np.array(plain, np.uint8)
        return torch.from_numpy(pixels[None] if self.grey else pixels.transpose(2, 0, 1).copy()), torch.tensor(label)

    def _window(self, image: Image.Image, height: int, width: int) -> tuple[float, float, float, float] | None:
        """Return left, upper, right and lower end of what is kept of an image; None for all of it."""
        if self.margin is None:
            return None
        factor = max((height + self.margin) / image.height, (width + self.margin) / image.width)
        left, top = (image.width - width / factor) / 2, (image.height - height / factor) / 2
        return left, top, image.width - left, image.height - top


def image_folders(
    folder: Path, size: tuple[int, int] | None = None, margin: int | None = None
) -> tuple[dict[str, ImageFolder], list[str]] | None:
    """Find the image parts of a folder and its classes: either class folders, or train, val and test with them.

    Without a size all images take that of the first; they are grey if the first is. For `margin` see `ImageFolder`.

    Returns
    -------
    The parts by name ("train", perhaps "val" and "test") and the class names in sorted order; None if there
    are no images here.

    Raises
    ------
    ValueError
        If the parts have different classes, or a class has no images.
    """
    names = ("train", "val", "test")
    roots = {name: folder / name for name in names if (folder / name).is_dir()}
    roots = roots if "train" in roots else {"train": folder}
    classes = {name: sorted(sub.name for sub in root.iterdir() if sub.is_dir()) for name, root in roots.items()}
    listed: dict[str, tuple[tuple[Path, int], ...]] = {}
    for name, root in roots.items():
        listed[name] = tuple(
            (path, label)
            for label, sub in enumerate(classes[name])
            for path in sorted((root / sub).rglob("*"))
            if path.suffix.lower() in ENDINGS
        )
    if not listed["train"]:
        return None
    for name, found in classes.items():
        if found != classes["train"]:
            raise ValueError(f"{roots[name]} has the classes {found}, train has {classes['train']}; make them the same")
        empty = set(range(len(found))) - {label for _, label in listed[name]}
        if empty:
            raise ValueError(
                f"class {found[min(empty)]!r} of {roots[name]} has no images; remove the folder or fill it"
            )
    try:
        with Image.open(listed["train"][0][0]) as first:
            _check_depth(listed["train"][0][0], first)
            grey, shape = first.mode in ("1", "L", "LA"), (first.height, first.width)
    except UNREADABLE as error:
        raise ValueError(f"{listed['train'][0][0]} is not a readable image ({error}); remove or replace it") from error
    return {name: ImageFolder(files, size or shape, grey, margin) for name, files in listed.items()}, classes["train"]


def _check_depth(path: Path, image: Image.Image) -> None:
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{path} has pixels of more than 8 bits (mode {image.mode}); convert it to 8 bits first")
