"""Our runtime on one layer, as a peer of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardstep import bits
from hardstep.bench.cases import Case
from hardstep.bench.peer import Peer, Run, aligned
from hardstep.engine import DOTS, LANES, _load, _Program, available_isas
from hardstep.export.compiler import LIBRARY
from hardstep.export.pack import pack
from hardstep.export.plan import plan
from hardstep.lowered import Sums
from hardstep.version import __version__

__all__ = ["Hardstep"]


class Hardstep(Peer[Case]):
    """Our runtime on one layer; `kind` is an instruction set and a kernel, or empty for what would be chosen.

    Codes of one bit go in packed, others as bytes; bits come out packed. Thresholds, lists of set bits and changes of
    layout are part of the time.
    """

    family = "hardstep"

    def __init__(self, kind: str = "", density: float = 0.5, *, readout: bool = False, threads: int = 1) -> None:
        super().__init__(kind, threads)
        self.density, self.readout, self.chosen = density, readout, ""

    def available(self) -> str | None:
        """Return why it cannot be used, None if it can."""
        return None if available_isas() else "the C runtime is not built; install hardstep with a C compiler"

    def version(self) -> str:
        """Return the version in use."""
        return __version__

    def prepare(self, task: Case) -> Run:
        """Pack bits, open the program, give back one call."""
        isa, _, only = self.kind.partition(" ")
        isa = isa or available_isas()[-1]
        lanes = 64 if isa == "baseline" else LANES[isa]
        weight = task.weight if task.conv else task.weight[..., None, None]
        shape = task.x.shape[1:] if task.conv else (task.x.shape[1], 1, 1)
        threshold = None if self.readout else task.threshold[:, None, None, None]
        zero = np.zeros(len(weight), np.int64)
        pad = (1, 1) if task.conv else (0, 0)
        layer = Sums("layer", shape, task.top, weight, threshold, zero, padding=pad)
        batch, packed = len(task.x), task.top == 1
        share = -(-batch // self.threads)
        (choice,) = plan(
            [layer], lanes=lanes, batch=share, density=[self.density], only=only, packed=packed, dots=isa == DOTS
        )
        self.chosen = str(choice)
        positions = task.x[0].size // task.x.shape[1]
        tile = lanes if choice.kernel.value == "samples" else int(np.clip(2**17 // (positions * shape[0]), 1, 64))
        program = _Program(
            _load(LIBRARY), pack([layer], (choice,), tile=tile, packed=packed, plain=isa == DOTS).data, isa
        )
        rows = task.x if not task.conv else task.x.transpose(0, 2, 3, 1)
        codes = bits.pack(rows).view(np.uint8) if packed else task.x
        codes, out = aligned(codes.reshape(batch, -1)), aligned(np.zeros((batch, program.outputs), np.int32))
        runs = [program.bound(codes[i : i + share], out[i : i + share]) for i in range(0, batch, share)]
        return runs[0] if len(runs) == 1 else partial(together, ThreadPoolExecutor(len(runs)), runs, out)

    def expected(self, task: Case) -> NDArray[Any]:
        """Return bits, or sums of a read-out."""
        return task.sums if self.readout else task.fires

    def read(self, given: NDArray[np.int32], task: Case) -> NDArray[Any]:
        """Return what a forward gave in the shape of what is expected."""
        if self.readout:
            return given
        n, units, positions = len(given), len(task.weight), int(np.prod(task.fires.shape[2:]))
        words = given.view(np.uint64).reshape(n, positions, -1)
        fires = bits.unpack(words, units).transpose(0, 2, 1).reshape(task.fires.shape)
        return fires.astype(bool)


def together(pool: ThreadPoolExecutor, runs: list[Run], out: NDArray[Any]) -> NDArray[Any]:
    """Run the shares of a batch at once."""
    list(pool.map(lambda run: run(), runs))
    return out
