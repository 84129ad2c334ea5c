"""Fast evaluation of a frozen network: one call of the C runtime, equal to the NumPy reference bit for bit."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from hardstep.export.compiler import LIBRARY, load_runtime
from hardstep.export.pack import Packed, pack
from hardstep.export.pack_sums import pack_sums
from hardstep.export.plan import WIDTHS, Choice, Kernel, plan
from hardstep.hard_layers import Pool, exact_product
from hardstep.hardnet import HardNet
from hardstep.lowered import Sums, lower

__all__ = ["Engine", "available_isas"]

LANES = {"baseline": 128, "avx2": 256, "avx512": 512, "avx512-vnni": 512}  # widest vectors worth using
SEVERAL = 8  # samples that share the weights which are fetched
DOTS = "avx512-vnni"  # multiplies and sums bytes in one instruction
MANY = 1_000_000  # a batch that fills all lanes
LISTS = 2**18  # bytes of lists of one tile, about half of a second-level cache
WORTH = 20_000_000  # products a call below which one thread does it


class _Model(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_uint32) for name in ("ops", "tile", "inputs", "outputs")),
        ("isa", ctypes.c_int32),
        ("bad", ctypes.c_uint32),
        ("map", ctypes.c_size_t),
        ("scratch", ctypes.c_size_t),
    )


class Engine:
    """Run a frozen network with bits packed into vectors, at any batch size, on one or more threads.

    `engine(x)` gives the integers of `hard(x)`. Every layer runs by the kernel that a cost model chooses from its
    shape, its weights and the density of its codes (`choices` says which and why, `density` the share
    of set bits that each layer with weights reads on the sample); one with lanes of outputs for few samples,
    another with lanes of samples for many. Networks whose sums stay real run as one program, sample by
    sample, without choices. Where the C runtime is missing (no compiler at installation) or
    cannot take a layer, the NumPy reference serves, and says so once by `logging`.

    Parameters
    ----------
    hard
        The frozen network.
    sample
        Codes or numbers on which the density of each layer's codes is measured; by default it is guessed.
    threads
        Threads over the batch; a call with less than 20 million products is done by one.
    isa
        "baseline", "avx2", "avx512" or "avx512-vnni"; by default the best one here.
    lanes
        Widest vectors in bits: 64, 128, 256 or 512; by default what suits the instruction set.
    only
        A kernel ("bytes", "outputs", "samples", "rows") to take wherever it can run.
    library
        Another shared library of the runtime.

    Raises
    ------
    ValueError
        If the instruction set is not there, or an option is unknown.

    References
    ----------
    Mula, Kurz, Lemire 2018 [mula2018], population counts by carry-save adders. Differs: one count for every lane of the
    rows listed, not one for all bits, and no data-dependent carries.

    Examples
    --------
    >>> import hardstep as hs
    >>> data = hs.data.load("digits")
    >>> hard = hs.freeze(hs.nets.mlp(64, 32, 10), calibrate=data.train)
    >>> x = data.test.x.numpy()
    >>> bool((Engine(hard)(x) == hard(x)).all())
    True
    """

    def __init__(
        self,
        hard: HardNet,
        *,
        sample: NDArray[Any] | None = None,
        threads: int = 1,
        isa: str | None = None,
        lanes: int | None = None,
        only: str = "",
        library: Path = LIBRARY,
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        if only and only not in [kernel.value for kernel in Kernel]:
            raise ValueError(f"only must be one of {', '.join(kernel.value for kernel in Kernel)}; got {only!r}")
        self.hard, self.threads, self._products = hard, threads, hard.macs
        if lanes is not None and lanes not in WIDTHS:
            raise ValueError(f"lanes must be one of {WIDTHS}, got {lanes}")
        self._library = _load(library)
        names = available_isas(library)
        if isa is not None and isa not in names:
            raise ValueError(f"instruction set {isa!r} is not here, only {', '.join(names) or 'NumPy'}")
        self.isa = isa or (names[-1] if names else "numpy")
        self.lanes = lanes or LANES.get(self.isa, 64)
        self._dots = self.isa == DOTS
        self.reason = "" if self._library else "the C runtime is not built; install with a C compiler"
        self.density: Sequence[float] = ()
        try:
            self._sums: Packed | None = None if hard.of_codes else pack_sums(hard)
            self._layers: Sequence[Sums | Pool] = () if self._sums else lower(hard, behind_front=True)
            density = _density(self._layers, hard, sample)
            sums = [layer for layer in self._layers if isinstance(layer, Sums)]
            self.density = [bits / layer.top.bit_length() for bits, layer in zip(density, sums, strict=False)]
            choose = partial(plan, self._layers, lanes=self.lanes, density=density, only=only, dots=self._dots)
            self._plans = [choose(batch=batch) for batch in (1, SEVERAL, MANY)]
            kinds = [[(choice.kernel, choice.lanes) for choice in choices] for choices in self._plans]
            self._same = [kinds.index(kind) for kind in kinds]  # the first plan with the same kernels
            self._by_samples = any(kernel is Kernel.SAMPLES for kernel, _ in kinds[-1])
            self._programs: dict[int, _Program] = {}
        except ValueError as error:
            self.reason = str(error)
        if self.reason:
            logging.getLogger("hardstep").warning("the NumPy reference runs this network: %s", self.reason)

    def __call__(self, x: NDArray[Any]) -> Int64[np.ndarray, "n k"]:
        """Return the integer scores of samples, given as codes (uint8) or as numbers (floats)."""
        codes = self.hard.codes(x)
        if self.reason:
            return self.hard(codes)
        alone = self.threads == 1 or len(codes) * self._products < WORTH
        program = self._program(len(codes))
        if alone and len(codes) <= program.tile and not self._fills(len(codes)):
            return program.few(codes)
        codes = np.ascontiguousarray(codes)
        scores = np.empty((len(codes), program.outputs), np.int32)
        if alone:
            self._run(codes, scores)
        else:
            step = -(-len(codes) // self.threads)
            step = -(-step // self.lanes) * self.lanes if step > self.lanes else step
            parts = range(0, len(codes), step)
            list(self._pool.map(lambda i: self._run(codes[i : i + step], scores[i : i + step]), parts))
        return scores.astype(np.int64)

    def predict(self, x: NDArray[Any]) -> Int64[np.ndarray, " n"]:
        """Return the label of each sample: the smallest index among the highest scores."""
        labels: NDArray[np.int64] = self(x).argmax(axis=1)
        return labels

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What runs each layer with weights for one sample, and why."""
        return self.kernels(1)

    def kernels(self, batch: int) -> tuple[Choice, ...]:
        """Return what runs each layer with weights for a batch of this size."""
        return self._plans[self._size(batch)]

    def _size(self, n: int) -> int:
        """Return which plan is for so many samples."""
        return 2 if self._fills(n) else int(n >= SEVERAL)

    def _fills(self, n: int) -> bool:
        """Whether so many samples are worth lanes of samples."""
        return 2 * n >= self.lanes and self._by_samples

    def _run(self, codes: NDArray[np.uint8], scores: NDArray[np.int32]) -> None:
        n, done = len(codes), 0
        if self._fills(n):
            done = n // self.lanes * self.lanes if 2 * (n % self.lanes) < self.lanes else n
            self._program(n).run(codes[:done], scores[:done])
        if done < n:
            self._program(n - done).run(codes[done:], scores[done:])

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads)

    def _program(self, n: int) -> _Program:
        """Return the packed form for so many samples, made when it is first used."""
        size = self._same[self._size(n)]
        if size not in self._programs:
            self._programs[size] = self._made(size)
        return self._programs[size]

    def _made(self, size: int) -> _Program:
        if self._sums is not None:
            return _Program(self._library, self._sums.data, self.isa)
        choices, tile = self._plans[size], self.lanes
        if size < len(self._plans) - 1:
            room = [
                (np.prod(layer.shape) + 32) * (1 if by.kernel is Kernel.BYTES else 2 * max(1, layer.top.bit_length()))
                for layer, by in zip((s for s in self._layers if isinstance(s, Sums)), choices, strict=True)
            ]
            tile = int(np.clip(LISTS // max(room), 1, 64))
        packed = pack(self._layers, choices, tile=tile, front=self.hard.front, plain=self._dots)
        return _Program(self._library, packed.data, self.isa)


class _Scratch(threading.local):
    """The memory that a run needs, with room for the codes and scores of one tile; made anew in each thread."""

    def __init__(self, model: _Model) -> None:
        self._room = _aligned(model.scratch)
        self.address: int = self._room.ctypes.data
        codes = np.zeros((model.tile, model.inputs), np.uint8)
        scores = np.zeros((model.tile, model.outputs), np.int32)
        self.few = (codes, scores, codes.ctypes.data, scores.ctypes.data, self.address)


class _Program:
    """One packed form of a network, opened."""

    def __init__(self, library: Any, data: bytes, isa: str) -> None:
        self._library = library
        self._buffer = _aligned(len(data))
        self._buffer[:] = np.frombuffer(data, np.uint8)
        self._model = _Model()
        error = library.hs_open(ctypes.byref(self._model), self._buffer.ctypes.data, len(data))
        if error:
            raise ValueError(f"the C runtime refuses step {self._model.bad}: {library.hs_error(error).decode()}")
        names = list(LANES)
        self._model.isa = names.index(isa)
        self._address = ctypes.addressof(self._model)
        self._scratch = _Scratch(self._model)
        self.tile: int = self._model.tile
        self.outputs: int = self._model.outputs

    def few(self, codes: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the scores of at most a tile of samples, through memory whose address is known."""
        room, given, into, out, scratch = self._scratch.few
        n = len(codes)
        room[:n] = codes.reshape(n, room.shape[1])
        self._library.hs_run(self._address, into, out, n, scratch)
        return given[:n].astype(np.int64)

    def run(self, codes: NDArray[np.uint8], scores: NDArray[np.int32]) -> None:
        """Run all samples."""
        into, out = (array.__array_interface__["data"][0] for array in (codes, scores))
        self._library.hs_run(self._address, into, out, len(codes), self._scratch.address)

    def bound(self, codes: NDArray[np.uint8], scores: NDArray[np.int32]) -> Callable[[], NDArray[np.int32]]:
        """Return one call on these arrays without the cost of finding their addresses: for measurements."""
        room, n, run = _aligned(self._model.scratch), len(codes), self._library.hs_run
        into, out, scratch = codes.ctypes.data, scores.ctypes.data, room.ctypes.data

        def call(kept: tuple[Any, ...] = (codes, room)) -> NDArray[np.int32]:
            run(self._address, into, out, n, scratch)
            return scores

        return call


def available_isas(library: Path = LIBRARY) -> list[str]:
    """Return the instruction sets that the runtime has and this machine runs, the best one last; none without it."""
    loaded = _load(library)
    return [] if loaded is None else list(LANES)[: loaded.hs_isa() + 1]


@cache
def _load(path: Path) -> Any:
    """Load the runtime and say what its functions take; None where there is none to use."""
    library = load_runtime(path)
    if library is None:
        return None
    library.hs_open.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    library.hs_run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    library.hs_run.restype = None
    library.hs_error.restype = ctypes.c_char_p
    return library


def _density(layers: Sequence[Sums | Pool], hard: HardNet, sample: NDArray[Any] | None) -> list[float]:
    """Return the set bits a code of what each layer with weights reads, on a sample; empty without one or layers."""
    if sample is None or not layers:
        return []
    first = next(layer for layer in layers if isinstance(layer, Sums))
    given = hard.codes(sample)
    given = given if hard.front is None else hard.front.run(given, exact_product)
    codes, found = given.reshape(len(sample), *first.shape), []
    for layer in layers:
        if isinstance(layer, Pool):
            codes = layer.run(codes, exact_product)
            continue
        found.append(float(np.bitwise_count(codes).mean()))
        if layer.threshold is not None:
            codes = layer.run(codes)
    return found


def _aligned(count: int) -> NDArray[np.uint8]:
    """Return bytes that begin on a cache line."""
    room = np.zeros(count + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + count]
