"""File formats of data sets, as pure functions from files to arrays. NumPy only; nothing read can run code."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray

__all__ = ["read_cifar", "read_idx", "read_idx_folder", "read_npz"]

Four = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

IDX_NAMES = {"x_train": "train-images", "y_train": "train-labels", "x_test": "t10k-images", "y_test": "t10k-labels"}


def read_idx(path: Path) -> NDArray[Any]:
    """Read an IDX file (MNIST's format), plain or gzip, told apart by content.

    Raises
    ------
    ValueError
        If the gzip stream is corrupted, the magic number is not one of IDX, or bytes are missing or left over.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is a corrupted gzip file ({error}); fetch it again") from error
    kind, axes = (content[2], content[3]) if len(content) >= 4 else (0, 0)
    if len(content) < 4 or content[:2] != b"\0\0" or kind not in IDX_TYPES or axes == 0:
        raise ValueError(
            f"{path} has the magic number {content[:4].hex() or 'none'}; an IDX file starts with 0000, a type "
            f"({', '.join(f'{code:02x}' for code in IDX_TYPES)}) and the number of axes, such as 00000803; "
            "check that it is the right file"
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


def read_idx_folder(folder: Path) -> Four | None:
    """Read the four files of MNIST's layout as (x_train, y_train, x_test, y_test); None if they are not there.

    Understood are dashes or dots in the names, plain or gzip files, and torchvision's sub-folders.

    Raises
    ------
    ValueError
        If some but not all of the four are there, or images and labels do not fit.
    """
    for place in (folder, folder / "raw", folder / "MNIST" / "raw", folder / "FashionMNIST" / "raw"):
        found = {key: _idx_path(place, stem) for key, stem in IDX_NAMES.items()}
        if not any(found.values()):
            continue
        missing = [f"{IDX_NAMES[key]}-idx{3 if key[0] == 'x' else 1}-ubyte[.gz]" for key in found if found[key] is None]
        if missing:
            raise ValueError(f"{place} lacks {', '.join(missing)}; an IDX data set has four files")
        x_train, y_train, x_test, y_test = (read_idx(path) for path in found.values() if path is not None)
        for x, y, part in ((x_train, y_train, "train"), (x_test, y_test, "test")):
            if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
                raise ValueError(
                    f"{place}: {part} images of shape {x.shape} and labels of shape {y.shape} do not belong together"
                )
        return x_train, y_train, x_test, y_test
    return None


def read_cifar(folder: Path) -> Four | None:
    """Read CIFAR-10 or CIFAR-100 (fine labels), python or binary files, from their folder or its parent.

    Returns (x_train, y_train, x_test, y_test) with x of shape (n, 3, 32, 32), or None if there is no CIFAR here.

    Raises
    ------
    ValueError
        If a file is missing or damaged, or a python file holds anything but plain arrays and lists.
    """
    layouts = {
        "cifar-10-batches-py": ([f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]),
        "cifar-100-python": (["train"], ["test"]),
        "cifar-10-batches-bin": ([f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"]),
        "cifar-100-binary": (["train.bin"], ["test.bin"]),
    }
    for name, (train, test) in layouts.items():
        for place in (folder / name, folder):
            there = [(place / file).is_file() for file in (*train, *test)]
            if not any(there) or (place == folder and folder.name != name and not all(there)):
                continue
            if not all(there):
                lost = [file for file, found in zip((*train, *test), there, strict=True) if not found]
                raise ValueError(f"{place} lacks {', '.join(lost)}; fetch {name} again")
            read = _cifar_python if name.endswith(("py", "python")) else _cifar_binary
            parts = [
                [read(place / file, labels=2 if "100" in name else 1) for file in files] for files in (train, test)
            ]
            joined = [np.concatenate(arrays) for part in parts for arrays in zip(*part, strict=True)]
            return joined[0], joined[1], joined[2], joined[3]
    return None


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read an .npz file with x and y, or with x_train, y_train, x_test and y_test.

    Raises
    ------
    ValueError
        If it is damaged, holds pickled objects, or has other names.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise ValueError(
            f"{path} cannot be read as .npz of plain arrays ({error}); write it with numpy.savez"
        ) from error
    if not ({"x", "y"} <= set(arrays) or {"x_train", "y_train", "x_test", "y_test"} <= set(arrays)):
        raise ValueError(
            f"{path} holds {sorted(arrays)}; expected x and y, or x_train, y_train, x_test and y_test; "
            "write it with numpy.savez(path, x=..., y=...)"
        )
    return arrays


def _idx_path(folder: Path, stem: str) -> Path | None:
    axes = 3 if stem.endswith("images") else 1
    names = [f"{stem}{mark}idx{axes}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _cifar_binary(path: Path, labels: int) -> tuple[UInt8[np.ndarray, "n 3 32 32"], Int64[np.ndarray, " n"]]:
    """Read rows of `labels` label bytes (the last one counts) and 3072 pixels."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    row = labels + 3072
    if not len(content) or len(content) % row:
        raise ValueError(f"{path} is truncated: rows have {row} bytes, the file {len(content)}; fetch it again")
    rows = content.reshape(-1, row)
    return rows[:, labels:].reshape(-1, 3, 32, 32).copy(), rows[:, labels - 1].astype(np.int64)


def _cifar_python(path: Path, labels: int) -> tuple[UInt8[np.ndarray, "n 3 32 32"], Int64[np.ndarray, " n"]]:
    """Read the pickled dictionary of the python version without running anything it names."""
    try:
        batch = _PlainArrays(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        x, y = np.asarray(batch[b"data"]), batch[b"fine_labels" if labels == 2 else b"labels"]
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no CIFAR python file ({error}); fetch it again") from error
    if x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != 3072 or len(x) != len(y):
        raise ValueError(f"{path}: data of shape {x.shape} and {len(y)} labels are not CIFAR's")
    return x.reshape(-1, 3, 32, 32), np.asarray(y, np.int64)


class _PlainArrays(pickle.Unpickler):
    """A reader of pickles that knows NumPy arrays and nothing else, so that no file can call a function."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what builds an array; refuse all else."""
        if (module, name) == ("_codecs", "encode"):
            return lambda text, _="latin1": text.encode("latin1")  # how protocol 2 writes bytes
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return lambda kind, shape, code: np.ndarray.__new__(np.ndarray, shape, code)
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a data file has no use for")
