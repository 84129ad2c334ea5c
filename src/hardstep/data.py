"""Data: train, validation and test parts from files, arrays, datasets or OpenML; splits explicit and seeded."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from numpy.typing import NDArray
from sklearn.datasets import fetch_openml, load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from hardstep.augment import Augment
from hardstep.formats import read_cifar, read_idx_folder, read_npz
from hardstep.grid import Grid
from hardstep.images import image_folders
from hardstep.intake import Array, Source, channels_first, number_labels, text_classes, to_part, to_samples
from hardstep.parts import Part, Samples, Streamed, check_labels

__all__ = ["Data", "from_arrays", "from_parts", "load"]

log = logging.getLogger(__name__)

OPENML = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST", "cifar-10": "CIFAR_10", "cifar-100": "CIFAR_100"}
Cut: TypeAlias = tuple[tuple[int, int] | None, int | None]  # size and margin of the images of a folder
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
    augment
        What a method does with training images whenever it draws a batch of them.

    Raises
    ------
    ValueError
        If the parts have different shapes or kinds of y, a label is out of range, the training part lacks a class, or
        its samples are no images that can be augmented.

    Examples
    --------
    >>> x = torch.eye(3)
    >>> Data("corners", Samples(x, torch.arange(3)), None, None, outputs=3).shape
    (3,)
    """

    name: str
    train: Part
    val: Part | None
    test: Part | None
    outputs: int
    classification: bool = True
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        self.augment.check(self.train.shape, self.train.grid)
        for name, part in (("train", self.train), ("val", self.val), ("test", self.test)):
            if part is None:
                continue
            if part.shape != self.train.shape:
                raise ValueError(
                    f"samples of {name} have shape {part.shape}, of train {self.train.shape}; give all parts the same"
                )
            y = _first_y(part)
            if y.is_floating_point() == self.classification or (y.ndim == 1 and len(y) != self.outputs):
                raise ValueError(
                    f"y of {name} is {y.dtype} of shape {tuple(y.shape)} a row, expected is "
                    f"{'a label (int64)' if self.classification else f'float32 of shape ({self.outputs},)'}; "
                    "convert y, or say what it is by classification and outputs"
                )
            if self.classification and isinstance(part, Samples):
                check_labels(part.y, self.outputs, name)
        if self.classification and isinstance(self.train, Samples):
            _check_classes(self.train.y, self.outputs)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.train.shape

    @property
    def title(self) -> str:
        """The name, and how the images are augmented if they are."""
        return self.name if self.augment == Augment() else f"{self.name}, {self.augment}"


def from_arrays(
    x: Shaped[Tensor | np.ndarray, "n ..."],
    y: Shaped[Tensor | np.ndarray, "m ..."],
    *,
    name: str = "arrays",
    test: tuple[Array, Array] | None = None,
    grid: Grid | None = None,
    outputs: int | None = None,
    val_share: float = 0.1,
    test_share: float = 0.2,
    seed: int = 0,
) -> Data:
    """Split arrays or tensors into train, validation and test parts, stratified by class, fixed by the seed.

    uint8 arrays are 8-bit codes (pixels, value code/255, unless a grid is given); all others become float32.
    Labels are integers 0..k-1, or text, which is numbered in sorted order. Float y are number targets (n, k).

    Parameters
    ----------
    test
        A test part of its own; otherwise `test_share` of the rows is split off.
    grid
        Which number a uint8 code stands for.
    outputs
        Number of classes, or of number targets; counted if None.
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
            raise ValueError(f"{share_name} is a share in [0, 1), got {share}; 0 splits nothing off")
    y = y if isinstance(y, Tensor) else np.asarray(y)
    classes = text_classes(y)
    whole = to_samples(x, number_labels(y, classes), grid)
    classification = not whole.y.is_floating_point()
    if outputs is None and classification:
        outputs = int(whole.y.max()) + 1
    elif outputs is None:
        outputs = whole.y.shape[1]
    if classification:  # before the split, so that rows are the caller's
        check_labels(whole.y, outputs, "y")
        _check_classes(whole.y, outputs)
    rows = np.arange(len(whole))
    if test is None:
        rows, test_rows = _split(rows, whole.y, test_share, seed)
        test_part = _pick(whole, test_rows)
    else:
        try:
            test_part = to_samples(test[0], number_labels(test[1], classes), grid)
        except ValueError as error:
            raise ValueError(f"the test part: {error}") from error
    rows, val_rows = _split(rows, whole.y, val_share, seed)
    train = _pick(whole, rows)
    assert train is not None
    return Data(name, train, _pick(whole, val_rows), test_part, outputs, classification)


def from_parts(
    train: Source,
    val: Source | None = None,
    test: Source | None = None,
    *,
    outputs: int,
    name: str = "dataset",
    grid: Grid | None = None,
) -> Data:
    """Take parts as they are: any map-style Dataset of (x, y), or a DataLoader.

    Of a DataLoader the dataset and the number of workers are used; its batches and its shuffling are not, since
    `fit` owns the order. A `TensorDataset`, or a subset of one, is kept in memory. Of other datasets the first
    sample is read here; the others are checked when they are read.

    Parameters
    ----------
    outputs
        Number of classes, or of number targets.
    grid
        Which number a uint8 code stands for; value code/255 if None.

    Raises
    ------
    ValueError
        If a dataset cannot be indexed, its samples do not fit, or a DataLoader would give other samples than its
        dataset does (by its sampler or its collate function).

    Examples
    --------
    >>> rows = torch.utils.data.TensorDataset(torch.eye(2), torch.arange(2))
    >>> from_parts(torch.utils.data.DataLoader(rows, shuffle=True), outputs=2).train.take([1])
    (tensor([[0., 1.]]), tensor([1]))
    """
    first = to_part(train, outputs, grid)
    others = [None if part is None else to_part(part, outputs, grid) for part in (val, test)]
    return Data(name, first, others[0], others[1], outputs, not _first_y(first).is_floating_point())


def load(
    source: str | Path,
    *,
    val_share: float = 0.1,
    test_share: float = 0.2,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    margin: int | None = None,
    augment: Augment = Augment(),  # noqa: B008 (frozen)
) -> Data:
    """Load data by name or path.

    A path is a folder of IDX, CIFAR or image files, or an .npz file. "digits" is bundled with scikit-learn. Any
    other name is looked for in `$HARDSTEP_DATA`, the user's cache, the folders of Debian's dataset packages, then
    on OpenML. Validation rows are split off the training rows; test rows only where the source has no test part.
    Grey 8-bit images have the shape (1, height, width), coloured ones (3, height, width).

    Parameters
    ----------
    source
        An existing path, which goes first, or a name.
    size
        Height and width of the images of an image folder; those of the first one if None.
    margin
        Keep their proportions: an image is resized to cover so many pixels more than the size, its middle is cut out.
    augment
        What is done with training images at every sweep.

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
    if size is not None and min(size) < 1:
        raise ValueError(f"size is the height and width of images, at least 1 each, got {size}")
    data = _find(source, (size, margin), {"val_share": val_share, "test_share": test_share, "seed": seed})
    if (size, margin) != (None, None) and isinstance(data.train, Samples):
        raise ValueError(
            f"size={size} and margin={margin} resize the images of class folders, and {source} has none; leave them out"
        )
    return replace(data, augment=augment)


def _find(source: str | Path, cut: Cut, shares: dict[str, Any]) -> Data:
    """Look in one place after the other."""
    path, name = Path(source), str(source)
    if path.exists():
        data = _read(path, path.stem if path.is_file() else path.resolve().name, cut, shares)
        if data is None:
            raise ValueError(
                f"{path} holds no data that is understood: four IDX files, CIFAR's files, class folders of images, or "
                "an .npz file with x and y"
            )
        return data
    if name == "digits":
        digits = load_digits()
        x, y = digits.images.astype(np.uint8)[:, None], digits.target.astype(np.int64)
        return from_arrays(x, y, name=name, grid=Grid(1 / 16, 0), **shares)
    if isinstance(source, Path) or len(path.parts) != 1 or path.suffix == ".npz":
        raise FileNotFoundError(f"there is no file or folder {path}; check the path, or give a name such as 'digits'")
    own = os.environ.get("HARDSTEP_DATA")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hardstep"
    places = [Path(own) / name] if own else []
    places += [cache / name, Path("/usr/share") / f"dataset-{name}", Path("/usr/share/datasets") / name]
    for place in places:
        data = _read(place, name, cut, shares) if place.exists() else None
        if data is not None:
            return data
    log.info("%s is not on this machine; asking OpenML", name)
    version = 1 if name in OPENML else "active"
    try:
        # the other parser needs pandas and reads types off the values
        options: dict[str, Any] = {"as_frame": False, "parser": "liac-arff", "n_retries": 1}
        bunch = fetch_openml(OPENML.get(name, name), version=version, data_home=str(cache), **options)
    except Exception as error:  # whatever the network throws becomes part of the one message
        debian = "`apt install dataset-fashion-mnist`, or " if name == "fashion-mnist" else ""
        files = "its files (four IDX files, CIFAR's files, class folders of images)"
        raise FileNotFoundError(
            f"data {name!r} is in none of {', '.join(map(str, places))} (HARDSTEP_DATA is {own or 'not set'}), and "
            f"OpenML did not give it ({type(error).__name__}: {error}). To get it: {debian}put {files} into "
            f"{cache / name}, or set HARDSTEP_DATA to the folder that holds {name}/"
        ) from error
    return _from_openml(name, bunch, shares)


def _read(path: Path, name: str, cut: Cut, shares: dict[str, Any]) -> Data | None:
    """Read a file or folder of any known kind; None if there is nothing known in it."""
    if path.is_file():
        arrays = {key: channels_first(values) for key, values in read_npz(path).items()}
        if "x" in arrays and "y" in arrays:
            return from_arrays(arrays["x"], arrays["y"], name=name, **shares)
        test = (arrays["x_test"], arrays["y_test"])
        return from_arrays(arrays["x_train"], arrays["y_train"], name=name, test=test, **shares)
    four = read_idx_folder(path) or read_cifar(path)
    if four is not None:
        x, y, x_test, y_test = (channels_first(values) for values in four)
        return from_arrays(x, y, name=name, test=(x_test, y_test), **shares)
    found = image_folders(path, *cut)
    if found is None:
        return None
    folders, classes = found
    if len(classes) == 1:
        raise ValueError(f"{path} has images of one class only, {classes[0]!r}; give a folder of at least two of them")
    parts, whole = dict(folders), folders["train"]
    rows, labels = np.arange(len(whole)), torch.tensor([label for _, label in whole.files])
    for part in ("test", "val"):
        if part not in parts:
            rows, taken = _split(rows, labels, shares[f"{part}_share"], shares["seed"])
            if len(taken):
                parts[part] = whole.pick(taken)
    parts["train"] = whole.pick(rows)
    streams = {
        part: Streamed(folder, len(classes), Grid(1 / 255, 0), originals=replace(folder, size=None))
        for part, folder in parts.items()
    }
    return from_parts(streams["train"], streams.get("val"), streams.get("test"), outputs=len(classes), name=name)


def _from_openml(name: str, bunch: Any, shares: dict[str, Any]) -> Data:
    """Take what OpenML gave: numbers, and one label or number targets."""
    x, y, remedy = bunch.data, bunch.target, "; prepare it and use data.from_arrays"
    if not isinstance(x, np.ndarray) or y is None:
        raise ValueError(f"OpenML's {name!r} {'has no target' if y is None else 'is a sparse matrix'}{remedy}")
    words = [column for column in bunch.feature_names if column in bunch.categories]
    if words or x.dtype.kind not in "fiub":
        raise ValueError(f"OpenML's {name!r} has columns that are categories, not numbers: {_some(words)}{remedy}")
    holes = [column for i, column in enumerate(bunch.feature_names) if np.isnan(x[:, i]).any()]
    if holes:
        raise ValueError(f"OpenML's {name!r} has missing values in the columns {_some(holes)}{remedy}")
    if name not in IMAGES:
        return from_arrays(
            x.astype(np.float32), y.reshape(len(y), -1) if y.dtype.kind == "f" else y, name=name, **shares
        )
    whole = x.min() >= 0 and x.max() <= 255 and np.array_equal(x, np.rint(x))
    if x.shape[1] != math.prod(IMAGES[name]) or not whole:
        raise ValueError(f"OpenML's {name!r} are not 8-bit images of shape {IMAGES[name]}{remedy}")
    x, y = x.astype(np.uint8).reshape(-1, *IMAGES[name]), y.astype(np.int64)
    return from_arrays(x[:-10_000], y[:-10_000], name=name, test=(x[-10_000:], y[-10_000:]), **shares)


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


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


def _first_y(part: Part) -> Tensor:
    """Return the label or targets of the first row."""
    return part.y[0] if isinstance(part, Samples) else torch.as_tensor(part.dataset[0][1])


def _check_classes(y: Int64[Tensor, " n"], outputs: int) -> None:
    """Raise a ValueError if a class has no row. Labels lie in 0..outputs-1 already."""
    present = torch.unique(y)
    if len(present) == 1:
        raise ValueError(f"the training part holds one class only, {int(present[0])}; give at least two")
    if len(present) < outputs:
        gaps = torch.nonzero(present != torch.arange(len(present)))
        raise ValueError(
            f"class {int(gaps[0]) if len(gaps) else len(present)} of 0..{outputs - 1} has no training row "
            f"({outputs - len(present)} classes have none); renumber the labels without gaps "
            "(numpy.unique(y, return_inverse=True)[1]), or give rows of it"
        )
