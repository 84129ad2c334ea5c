"""Compile the C runtime and the loops of the convex programs into one shared library, where there is a compiler."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

__all__ = ["CONVEX", "LIBRARY", "RUNTIME", "compile_runtime", "compiler", "digest", "load_runtime"]

RUNTIME = Path(__file__).parent / "runtime"
CONVEX = Path(__file__).parents[1] / "convex"  # its loops in C go into the same library
LIBRARY = RUNTIME / ("libhardstep.dylib" if sys.platform == "darwin" else "libhardstep.so")


def compiler() -> str | None:
    """Return the C compiler: $CC, else cc, gcc or clang; None if there is none."""
    return next(
        (found for name in (os.environ.get("CC", ""), "cc", "gcc", "clang") if (found := shutil.which(name))), None
    )


def digest() -> str:
    """Return a digest of the runtime's sources, which a library compiled from them carries."""
    sha = hashlib.sha256()
    for path in (*sorted(RUNTIME.glob("*.[ch]")), *sorted(CONVEX.glob("*.[ch]"))):
        sha.update(path.name.encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()[:16]


def compile_runtime(out: Path = LIBRARY, *, options: tuple[str, ...] = ("-O2",)) -> Path:
    """Compile the runtime into a shared library, written aside and renamed.

    Parameters
    ----------
    out
        Where; by default beside the sources, where `Engine` looks.
    options
        Options of the compiler; no -march, the runtime chooses its instruction set when it runs.

    Raises
    ------
    RuntimeError
        If there is no compiler, or it fails; its message is given.
    """
    found = compiler()
    if found is None:
        raise RuntimeError("there is no C compiler (cc, gcc or clang, or $CC); install one for the fast engine")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        aside = Path(folder) / out.name
        source = [str(path) for path in (RUNTIME / "hardstep.c", *sorted(CONVEX.glob("*.c")))]
        named = f'-DHS_DIGEST="{digest()}"'
        command = [found, "-std=c99", *options, "-shared", "-fPIC", named, *source, "-o", str(aside), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        aside.replace(out)
    return out


@cache
def load_runtime(path: Path = LIBRARY) -> ctypes.CDLL | None:
    """Load the library; None if it is not there, is of other sources, or does not load."""
    log = logging.getLogger("hardstep")
    if not path.is_file():
        return None
    if digest().encode() not in path.read_bytes():
        log.warning("%s was compiled from other sources and is not used; install hardstep again", path)
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        log.warning("%s does not load (%s)", path, error)
        return None
