"""Data: train, validation and test parts from files, arrays, datasets or OpenML; splits explicit and seeded."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import fetch_openml, load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from hardstep.formats import read_cifar, read_idx_folder, read_npz
from hardstep.grid import Grid
from hardstep.images import image_folders
from hardstep.parts import Part, Samples, Streamed, check_labels

__all__ = ["Data", "from_arrays", "from_parts", "load"]

log = logging.getLogger(__name__)

PIXELS = Grid(1 / 255, 0)
OPENML = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST", "cifar-10": "CIFAR_10", "cifar-100": "CIFAR_100"}
IMAGES = {"mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar-10": (3, 32, 32), "cifar-100": (3, 32, 32)}


@dataclass(frozen=True, eq=False)
class Data:
    """The parts of a task.

    Parameters
    ----------
    name
        Name, for reports.
    train, val, test
        The parts; `fit` looks at train and val only.
    outputs
        Number of classes, or of number targets.
    classification
        Whether y are labels.

    Raises
    ------
    ValueError
        If the parts have different shapes, a label is out of range, or the training part lacks a class.
    """

    name: str
    train: Part
    val: Part | None
    test: Part | None
    outputs: int
    classification: bool = True

    def __post_init__(self) -> None:
        for name, part in (("train", self.train), ("val", self.val), ("test", self.test)):
            if part is None:
                continue
            if part.shape != self.train.shape:
                raise ValueError(f"samples of {name} have shape {part.shape}, of train {self.train.shape}")
            if self.classification and isinstance(part, Samples):
                check_labels(part.y, self.outputs, name)
        if self.classification and isinstance(self.train, Samples):
            counts = torch.bincount(self.train.y, minlength=self.outputs)
            if (counts > 0).sum() == 1:
                raise ValueError(f"the training part holds one class only, {int(counts.argmax())}; give at least two")
            if (counts == 0).any():
                raise ValueError(
                    f"class {int(counts.argmin())} of 0..{self.outputs - 1} has no training row; renumber the labels "
                    "to 0..k-1 without gaps, or give rows of it"
                )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.train.shape


def from_arrays(
    x: Tensor | NDArray[Any],
    y: Tensor | NDArray[Any],
    *,
    name: str = "arrays",
    test: tuple[Tensor | NDArray[Any], Tensor | NDArray[Any]] | None = None,
    grid: Grid | None = None,
    val_share: float = 0.1,
    test_share: float = 0.2,
    seed: int = 0,
) -> Data:
    """Split arrays or tensors into train, validation and test parts, stratified by class, fixed by the seed.

    uint8 arrays are 8-bit codes (pixels, value code/255, unless a grid is given); all others become float32.
    Labels are integers 0..k-1, or text, which is numbered in sorted order. Float y are number targets.

    Parameters
    ----------
    test
        A test part of its own; otherwise `test_share` of the rows is split off.
    val_share
        Share of the rows left for training that becomes the validation part; 0 for none.

    Raises
    ------
    ValueError
        If a value, shape, type or share does not fit; the message names it.

    Examples
    --------
    >>> data = from_arrays(np.random.rand(100, 4), np.arange(100) % 2)
    >>> len(data.train), len(data.val), len(data.test), data.outputs
    (72, 8, 20, 2)
    """
    for share_name, share in (("val_share", val_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise ValueError(f"{share_name} is a share in [0, 1), got {share}")
    classes: NDArray[Any] | None = None
    if isinstance(y, np.ndarray) and y.dtype.kind in "OUS":
        classes, y = np.unique(y.astype(str), return_inverse=True)
    if test is not None and classes is not None:
        unknown = set(np.asarray(test[1]).astype(str).tolist()) - set(classes.tolist())
        if unknown:
            raise ValueError(f"test labels {sorted(unknown)} do not appear in training, which has {classes.tolist()}")
        test = (test[0], np.searchsorted(classes, np.asarray(test[1]).astype(str)))
    grid = PIXELS if grid is None and x.dtype in (np.uint8, torch.uint8) else grid
    whole = Samples(_tensor(x), _tensor(y), grid)
    classification = not whole.y.is_floating_point()
    rows = np.arange(len(whole))
    if test is None:
        rows, test_rows = _split(rows, whole.y, test_share, seed)
        test_part = _pick(whole, test_rows)
    else:
        test_part = Samples(_tensor(test[0]), _tensor(test[1]), grid)
    rows, val_rows = _split(rows, whole.y, val_share, seed)
    train = _pick(whole, rows)
    assert train is not None
    outputs = (int(whole.y.max()) + 1 if classes is None else len(classes)) if classification else whole.y.shape[1]
    return Data(name, train, _pick(whole, val_rows), test_part, outputs, classification)


def from_parts(
    train: Dataset[Any] | DataLoader[Any],
    val: Dataset[Any] | DataLoader[Any] | None = None,
    test: Dataset[Any] | DataLoader[Any] | None = None,
    *,
    outputs: int,
    name: str = "dataset",
    grid: Grid | None = None,
) -> Data:
    """Take parts as they are: any map-style Dataset of (x, y), or a DataLoader.

    Of a DataLoader the dataset and the number of workers are used; its batches and its shuffling are not, since
    `fit` owns the order. A `TensorDataset` is kept in memory.

    Parameters
    ----------
    outputs
        Number of classes, or of number targets.
    grid
        Which number a uint8 code stands for; value code/255 if None.

    Raises
    ------
    ValueError
        If a dataset cannot be indexed, or its samples do not fit.
    """
    parts = [None if part is None else _part(part, outputs, grid) for part in (train, val, test)]
    assert parts[0] is not None
    classification = not torch.as_tensor(parts[0].take([0])[1]).is_floating_point()
    return Data(name, parts[0], parts[1], parts[2], outputs, classification)


def load(
    source: str | Path,
    *,
    val_share: float = 0.1,
    test_share: float = 0.2,
    seed: int = 0,
    size: tuple[int, int] | None = None,
) -> Data:
    """Load data by name or path.

    "digits" is bundled with scikit-learn. A path is a folder of IDX, CIFAR or image files, or an .npz file. Any
    other name is looked for in `$HARDSTEP_DATA`, the user's cache, the folders of Debian's dataset packages, then
    on OpenML. Validation rows are split off the training rows; test rows only where the source has no test part.

    Parameters
    ----------
    size
        Height and width of the images of an image folder; those of the first one if None.

    Raises
    ------
    FileNotFoundError
        If the data are nowhere; the message names all places and the command that gets them.
    ValueError
        If a file is damaged or does not fit.

    Examples
    --------
    >>> data = load("digits")
    >>> data.shape, len(data.train), len(data.val), len(data.test)
    ((1, 8, 8), 1293, 144, 360)
    """
    shares: dict[str, Any] = {"val_share": val_share, "test_share": test_share, "seed": seed}
    name = str(source)
    if name == "digits":
        digits = load_digits()
        x, y = digits.images.astype(np.uint8)[:, None], digits.target.astype(np.int64)
        return from_arrays(x, y, name=name, grid=Grid(1 / 16, 0), **shares)
    path = Path(source)
    if path.exists():
        data = _read(path, path.stem, size, shares)
        if data is None:
            raise ValueError(
                f"{path} holds no data that is understood: four IDX files, CIFAR's files, class folders of images, or "
                "an .npz file with x and y"
            )
        return data
    places = _places(name)
    for place in places:
        data = _read(place, name, size, shares) if place.exists() else None
        if data is not None:
            return data
    return _openml(name, places, shares)


def _places(name: str) -> list[Path]:
    """Return where a named data set may lie, in the order of looking."""
    own = os.environ.get("HARDSTEP_DATA")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hardstep"
    debian = [Path("/usr/share") / f"dataset-{name}", Path("/usr/share/datasets") / name]
    return [*([Path(own) / name] if own else []), cache / name, *debian]


def _read(path: Path, name: str, size: tuple[int, int] | None, shares: dict[str, Any]) -> Data | None:
    """Read a file or folder of any known kind; None if there is nothing known in it."""
    if path.is_file():
        arrays = read_npz(path)
        if "x_train" in arrays:
            test = (arrays["x_test"], arrays["y_test"])
            return from_arrays(arrays["x_train"], arrays["y_train"], name=name, test=test, **shares)
        return from_arrays(arrays["x"], arrays["y"], name=name, **shares)
    four = read_idx_folder(path) or read_cifar(path)
    if four is not None:
        x, y, x_test, y_test = four
        x, x_test = (a[:, None] if a.ndim == 3 else a for a in (x, x_test))
        return from_arrays(x, y.astype(np.int64), name=name, test=(x_test, y_test.astype(np.int64)), **shares)
    found = image_folders(path, size)
    if found is None:
        return None
    folders, classes = found
    parts: dict[str, Dataset[Any]] = dict(folders)
    rows, labels = np.arange(len(folders["train"])), torch.tensor([label for _, label in folders["train"].files])
    for part in ("test", "val"):
        if part not in parts:
            rows, taken = _split(rows, labels, shares[f"{part}_share"], shares["seed"])
            if len(taken):
                parts[part] = torch.utils.data.Subset(folders["train"], taken.tolist())
    parts["train"] = torch.utils.data.Subset(folders["train"], rows.tolist())
    return from_parts(parts["train"], parts.get("val"), parts.get("test"), outputs=len(classes), name=name)


def _openml(name: str, places: list[Path], shares: dict[str, Any]) -> Data:
    """Fetch a data set from OpenML into the user's cache."""
    home = places[-3].parent
    log.info("%s is not on this machine; asking OpenML", name)
    try:
        bunch = fetch_openml(OPENML.get(name, name), as_frame=False, data_home=str(home), parser="auto")
    except Exception as error:  # whatever the network throws becomes part of the one message
        debian = "`apt install dataset-fashion-mnist`" if name == "fashion-mnist" else "put its files into one of them"
        raise FileNotFoundError(
            f"data {name!r} is in none of {', '.join(map(str, places))}, and OpenML did not give it "
            f"({type(error).__name__}: {error}). To get it: {debian}, or set HARDSTEP_DATA to the folder above {name}/"
        ) from error
    x, y = np.asarray(bunch.data), np.asarray(bunch.target)
    if x.dtype.kind not in "fiub":
        raise ValueError(f"OpenML's {name!r} has columns that are not numbers; encode them and use data.from_arrays")
    if name in IMAGES:
        x, y = x.astype(np.uint8).reshape(-1, *IMAGES[name]), y.astype(np.int64)
        return from_arrays(x[:-10_000], y[:-10_000], name=name, test=(x[-10_000:], y[-10_000:]), **shares)
    numbers = y.dtype.kind == "f"
    return from_arrays(x.astype(np.float32), y.reshape(len(y), -1) if numbers else y, name=name, **shares)


def _part(source: Dataset[Any] | DataLoader[Any], outputs: int, grid: Grid | None) -> Part:
    """Wrap a dataset or loader."""
    workers = 0
    if isinstance(source, DataLoader):
        workers, source = source.num_workers, source.dataset
    if isinstance(source, IterableDataset):
        raise ValueError(
            f"{type(source).__name__} cannot be indexed, but `fit` owns the order; give a map-style Dataset"
        )
    if isinstance(source, Samples):
        return source
    if isinstance(source, TensorDataset) and len(source.tensors) == 2:
        x, y = source.tensors
        return Samples(x, y, (grid or PIXELS) if x.dtype == torch.uint8 else None)
    if len(source) == 0:  # type: ignore[arg-type]
        raise ValueError("the dataset has zero samples; give at least one")
    codes = torch.as_tensor(source[0][0]).dtype == torch.uint8
    return Streamed(source, outputs, (grid or PIXELS) if codes else None, workers)


def _split(rows: NDArray[Any], y: Tensor, share: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split a share of the rows off, stratified by class."""
    if share == 0:
        return rows, rows[:0]
    stratify = None if y.is_floating_point() else y.numpy()[rows]
    try:
        kept, taken = train_test_split(rows, test_size=share, random_state=seed, stratify=stratify)
    except ValueError as error:
        raise ValueError(
            f"{len(rows)} rows cannot be split with a share of {share} in every class ({error}); add rows, drop rare "
            "classes, or set val_share or test_share to 0"
        ) from error
    return kept, taken


def _pick(whole: Samples, rows: NDArray[Any]) -> Samples | None:
    return Samples(whole.x[rows], whole.y[rows], whole.grid) if len(rows) else None


def _tensor(values: Tensor | NDArray[Any]) -> Tensor:
    return values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
