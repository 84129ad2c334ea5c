"""File formats of data sets, as pure functions from files to arrays. NumPy only; nothing read can run code."""

from __future__ import annotations

import gzip
import io
import lzma
import operator
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped, UInt8
from numpy.typing import NDArray

__all__ = ["read_cifar", "read_idx", "read_idx_folder", "read_npz"]

Four = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]

NPZ_NAMES = {"x", "y", "x_train", "y_train", "x_test", "y_test"}
UNREADABLE_ZIP = (
    *(ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(KeyError, NotImplementedError, RuntimeError, MemoryError, OverflowError),
)

PIXELS = 3 * 32 * 32  # of one image of CIFAR

AXES = 64  # as many as NumPy knows
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

IDX_FOLDERS = (".", "raw", "MNIST/raw", "FashionMNIST/raw")  # the last three as torchvision lays them out

IDX_NAMES = {"x_train": "train-images", "y_train": "train-labels", "x_test": "t10k-images", "y_test": "t10k-labels"}

CIFAR_LAYOUTS = {
    "cifar-10-batches-py": ([f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]),
    "cifar-100-python": (["train"], ["test"]),
    "cifar-10-batches-bin": ([f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"]),
    "cifar-100-binary": (["train.bin"], ["test.bin"]),
}


def read_idx(path: str | Path) -> Shaped[np.ndarray, "*shape"]:
    r"""Read an IDX file (MNIST's format), plain or gzip, told apart by content.

    Any of its six types and any number of axes from one on. The array is in the byte order of this machine.

    Raises
    ------
    ValueError
        If the gzip stream is corrupted, the magic number is not one of IDX, or bytes are missing or left over.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels"
    ...     size = path.write_bytes(b"\0\0\x08\x01" + b"\0\0\0\x03" + bytes([7, 8, 9]))
    ...     read_idx(path)
    array([7, 8, 9], dtype=uint8)
    """
    content = Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is a corrupted gzip file ({error}); fetch it again") from error
    kind, axes = (content[2], content[3]) if len(content) >= 4 else (0, 0)
    if len(content) < 4 or content[:2] != b"\0\0" or kind not in IDX_TYPES or not 0 < axes <= AXES:
        raise ValueError(
            f"{path} has the magic number {content[:4].hex() or 'none'}; an IDX file starts with 0000, a type "
            f"({', '.join(f'{code:02x}' for code in IDX_TYPES)}) and the number of axes (1 to {AXES}), such as "
            "00000803; check that it is the right file"
        )
    start = 4 + 4 * axes
    if len(content) < start:
        raise ValueError(f"{path} is truncated: its head needs {start} bytes, found {len(content)}; fetch it again")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", axes, offset=4))
    dtype = np.dtype(IDX_TYPES[kind])
    wanted = start + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if len(content) != wanted:
        state = "truncated" if len(content) < wanted else "too long"
        raise ValueError(f"{path} is {state}: shape {shape} needs {wanted} bytes, found {len(content)}; fetch it again")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def read_idx_folder(folder: str | Path) -> Four | None:
    """Read the four files of MNIST's layout as (x_train, y_train, x_test, y_test); None if they are not there.

    Understood are dashes or dots in the names, plain or gzip files, and torchvision's sub-folders.

    Raises
    ------
    ValueError
        If some but not all of the four are there, images and labels do not fit, or there are two data sets.

    Examples
    --------
    >>> read_idx_folder(".") is None
    True
    """
    places = [Path(folder) / name for name in IDX_FOLDERS]
    found = [place for place in places if any(_idx_path(place, stem) for stem in IDX_NAMES.values())]
    if not found:
        return None
    place = _only(found, Path(folder))
    paths = {stem: _idx_path(place, stem) for stem in IDX_NAMES.values()}
    missing = [f"{stem}-idx{_axes(stem)}-ubyte[.gz]" for stem, path in paths.items() if path is None]
    if missing:
        raise ValueError(f"{place} lacks {', '.join(missing)}; an IDX data set has four files, put them all there")
    x_train, y_train, x_test, y_test = (read_idx(path) for path in paths.values() if path is not None)
    for x, y, part in ((x_train, y_train, "train"), (x_test, y_test, "test")):
        if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or y.dtype.kind == "f":
            raise ValueError(
                f"{place}: {part} images of shape {x.shape} and {y.dtype} labels of shape {y.shape} do not belong "
                "together; allowed are (n, ...) and integers (n,): fetch both files again"
            )
    return x_train, y_train, x_test, y_test


def read_cifar(folder: str | Path) -> Four | None:
    """Read CIFAR-10 or CIFAR-100 (fine labels), python or binary files, from their folder or its parent.

    Returns (x_train, y_train, x_test, y_test) with x of shape (n, 3, 32, 32), or None if there is no CIFAR here.
    The python files are pickles; they are read without calling anything that they name.

    Raises
    ------
    ValueError
        If a file is missing or damaged, a python file holds anything but plain arrays and lists, or there are
        two data sets.

    Examples
    --------
    >>> read_cifar(".") is None
    True
    """
    folder = Path(folder)
    found: dict[Path, str] = {}
    for name, (train, test) in CIFAR_LAYOUTS.items():
        for place in (folder / name, folder):
            there = [(place / file).is_file() for file in (*train, *test)]
            if all(there) or (any(there) and place.name == name):
                found.setdefault(place, name)
    if not found:
        return None
    kinds = {"100" in name: place for place, name in found.items()}
    place = _only(list(kinds.values()), folder) if len(kinds) > 1 else next(iter(found))
    train, test = CIFAR_LAYOUTS[found[place]]
    lost = [file for file in (*train, *test) if not (place / file).is_file()]
    if lost:
        raise ValueError(f"{place} lacks {', '.join(lost)}; fetch {found[place]} again")
    fine = "100" in found[place]
    read = _cifar_python if found[place].endswith(("py", "python")) else _cifar_binary
    parts = [[read(place / file, fine=fine) for file in files] for files in (train, test)]
    joined = [np.concatenate(arrays) for part in parts for arrays in zip(*part, strict=True)]
    return joined[0], joined[1], joined[2], joined[3]


def read_npz(path: str | Path) -> dict[str, Shaped[np.ndarray, "*shape"]]:
    """Read an .npz file with x and y, or with x_train, y_train, x_test and y_test (Keras's names).

    Raises
    ------
    ValueError
        If it is damaged, holds pickled objects, has other names, or x and y differ in length.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder) / "a.npz", x=np.eye(3), y=np.arange(3))
    ...     read_npz(Path(folder) / "a.npz")["y"]
    array([0, 1, 2])
    """
    path = Path(path)
    try:
        # numpy.load would take an .npy file too, and anything else for a pickle
        with path.open("rb") as content, zipfile.ZipFile(content) as file:
            names = [name.removesuffix(".npy") for name in file.namelist()]
            arrays = {name: _npy(file.read(f"{name}.npy")) for name in names if name in NPZ_NAMES}
    except FileNotFoundError:
        raise
    except UNREADABLE_ZIP as error:
        raise ValueError(
            f"{path} cannot be read as .npz of plain arrays ({error}); write it with numpy.savez(path, x=..., y=...)"
        ) from error
    pairs = [("x", "y")] if {"x", "y"} <= set(arrays) else [("x_train", "y_train"), ("x_test", "y_test")]
    if not {name for pair in pairs for name in pair} <= set(arrays):
        raise ValueError(
            f"{path} holds {sorted(names)}; expected x and y, or x_train, y_train, x_test and y_test; "
            "write it with numpy.savez(path, x=..., y=...)"
        )
    for x, y in pairs:
        if arrays[x].shape[:1] != arrays[y].shape[:1] or arrays[x].ndim == 0:
            raise ValueError(
                f"{path}: {x} has shape {arrays[x].shape} and {y} {arrays[y].shape}; give both the same number of rows"
            )
    return arrays


def _npy(content: bytes) -> NDArray[Any]:
    """Read one array, never a pickled one."""
    array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return array


def _only(places: list[Path], folder: Path) -> Path:
    """Return the one place; two data sets in one folder are an error, as either could be meant."""
    if len(places) > 1:
        raise ValueError(f"{folder} holds {len(places)} data sets: name one of {', '.join(map(str, places))}")
    return places[0]


def _axes(stem: str) -> int:
    return 3 if stem.endswith("images") else 1


def _idx_path(folder: Path, stem: str) -> Path | None:
    names = [f"{stem}{mark}idx{_axes(stem)}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _cifar_binary(path: Path, *, fine: bool) -> tuple[UInt8[np.ndarray, "n 3 32 32"], Int64[np.ndarray, " n"]]:
    """Read rows of one label byte (two of CIFAR-100, the last one is the fine one) and 3072 pixels."""
    content, labels = path.read_bytes(), 2 if fine else 1
    row = labels + PIXELS
    if not content or len(content) % row:
        raise ValueError(
            f"{path} is truncated: rows have {row} bytes, and {len(content)} bytes are no whole number of them; "
            "fetch it again"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, row)
    return _cifar(path, rows[:, labels:].copy(), rows[:, labels - 1].astype(np.int64), fine)


def _cifar_python(path: Path, *, fine: bool) -> tuple[UInt8[np.ndarray, "n 3 32 32"], Int64[np.ndarray, " n"]]:
    """Read the pickled dictionary of the python version without running anything it names."""
    try:
        batch = _PlainArrays(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        x, y = batch[b"data"].array, batch[b"fine_labels" if fine else b"labels"]
        return _cifar(path, x, np.array([operator.index(label) for label in y], np.int64), fine)
    except Exception as error:  # a damaged pickle can raise almost anything
        raise ValueError(f"{path} is no CIFAR python file ({error}); fetch it again") from error


def _cifar(
    path: Path, x: NDArray[np.uint8], y: NDArray[np.int64], fine: bool
) -> tuple[UInt8[np.ndarray, "n 3 32 32"], Int64[np.ndarray, " n"]]:
    """Check rows of pixels and labels, and give the pixels their axes."""
    top = 99 if fine else 9
    if x.ndim != 2 or x.shape[1] != PIXELS or len(x) != len(y) or len(x) == 0:
        raise ValueError(f"{path} holds data of shape {x.shape} and {len(y)} labels; expected (n, {PIXELS}) and n")
    if y.min() < 0 or y.max() > top:
        row = int(np.argmax((y < 0) | (y > top)))
        raise ValueError(f"{path} is damaged: label {y[row]} in row {row}, allowed are 0..{top}; fetch it again")
    return x.reshape(-1, 3, 32, 32), y


class _Bytes:
    """Stands for `numpy.dtype` in a pickle: 8-bit numbers and nothing else."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        if code not in (b"u1", "u1", b"|u1", "|u1"):
            raise pickle.UnpicklingError(f"it holds an array of type {code!r}, images are 8-bit numbers (u1)")

    def __setstate__(self, state: object) -> None:
        """Take no state: byte order and flags mean nothing for bytes."""


class _Array:
    """Stands for an array in a pickle: its state is read here, not by NumPy, whose reader trusts what it is told."""

    array: NDArray[np.uint8]

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Bytes, bool, bytes]) -> None:
        _, shape, _, fortran, content = state
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C").copy()


class _PlainArrays(pickle.Unpickler):
    """A reader of pickles that knows arrays of bytes and nothing else, so that no file can call a function."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for the parts of an array; refuse all else."""
        if (module, name) == ("_codecs", "encode"):
            return lambda text, _="latin1": text.encode("latin1")  # how protocol 2 writes bytes
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return lambda *_: _Array()
        if (module, name) == ("numpy", "dtype"):
            return _Bytes
        if (module, name) == ("numpy", "ndarray"):
            return None  # only ever an argument of _reconstruct
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a data file has no use for")
