"""Files that are never half-written and never half-read: write aside, rename, digest. No pickle, no torch."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

__all__ = ["read_arrays", "read_json", "write_arrays", "write_bytes", "write_json"]

FORMAT = "1"  # raised when an older reader would misread a newer file


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing: aside in the same folder, flushed to the disk, then renamed.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written; the file under `path` is then what it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).chmod(0o644)
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with a final newline, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON; a missing or broken file is one clear error.

    Raises
    ------
    ValueError
        If the file is not JSON, naming the file and the place.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); restore it or make the run again") from error


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], kind: str) -> None:
    """Write arrays and JSON data as one safetensors file with a digest of both, whole or not at all.

    Parameters
    ----------
    kind
        What the file is ("hardnet", "checkpoint"); `read_arrays` refuses another kind.
    """
    text = json.dumps(meta, allow_nan=False)
    plain = {name: np.require(array, requirements="C") for name, array in arrays.items()}
    head = {"kind": kind, "format": FORMAT, "meta": text, "digest": _digest(plain, text)}
    write_bytes(path, save(plain, metadata=head))


def read_arrays(path: Path, kind: str) -> tuple[dict[str, NDArray[Any]], Any]:
    """Read what `write_arrays` wrote: the arrays and the JSON data.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged (not safetensors, truncated, a flipped byte), of another kind or of another format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; expected a {kind} written by hardstep")
    try:
        with safe_open(path, framework="numpy") as file:
            head = file.metadata() or {}
        arrays = load(path.read_bytes())
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(
            f"{path} is damaged: not a whole safetensors file ({error}); restore it from a copy"
        ) from error
    if head.get("kind") != kind:
        raise ValueError(f"{path} holds {head.get('kind', 'foreign data')!r}, not a {kind!r}")
    if head.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {head.get('format')!r}, this hardstep reads format {FORMAT!r}; "
            "use the version of hardstep that wrote it, or make it again"
        )
    if head.get("digest") != _digest(arrays, head.get("meta", "")):
        raise ValueError(f"{path} is damaged: its content does not match its digest; restore it from a copy")
    return arrays, json.loads(head["meta"])


def _digest(arrays: Mapping[str, NDArray[Any]], text: str) -> str:
    """Return a SHA-256 over names, types, shapes, bytes and the JSON text."""
    sha = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        sha.update(np.require(array, requirements="C").data)
    return sha.hexdigest()
