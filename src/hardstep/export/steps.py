"""The steps of a program for the C runtime, field by field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardstep.hard_scatter import Scatter

__all__ = ["KINDS", "Step", "front_step", "list_bytes"]

KINDS = {
    name: i + 1
    for i, name in enumerate(
        ("planes", "bytes", "outputs", "samples", "pool", "turn", "back", "rows", "bits", "emit", "front", "sums")
    )
}


@dataclass(frozen=True)
class Step:
    """One step of a program, field by field as `program.h` has it."""

    kind: int
    lanes: int = 0
    c: int = 1
    h: int = 1
    w: int = 1
    in_planes: int = 1
    in_words: int = 0
    units: int = 1
    kh: int = 1
    kw: int = 1
    sy: int = 1
    sx: int = 1
    py: int = 0
    px: int = 0
    oh: int = 1
    ow: int = 1
    stairs: int = 0
    out_planes: int = 0
    out_words: int = 0
    acc_planes: int = 0
    weight_planes: int = 0
    shift: int = 0
    offset: int = 0
    start: int = 0
    classes: int = 1
    weights: int = 0
    weights_bytes: int = 0
    thresholds: int = 0
    thresholds_bytes: int = 0
    places: int = 0
    places_bytes: int = 0
    frame: int = 0

    @property
    def flat(self) -> bool:
        """Whether the kernel is the whole image."""
        return (self.kh, self.kw, self.py, self.px) == (self.h, self.w, 0, 0)

    @property
    def terms(self) -> int:
        """Codes in a sum."""
        return self.c * self.kh * self.kw


def front_step(front: Scatter) -> tuple[Step, NDArray[np.int32]]:
    """Return the step of a front end, without its place, and its program; `shift` counts the numbers of its planes."""
    channels, height, width = front.shape
    rows, columns = front.plane
    pitch = -(-columns // 8) * 8
    step = Step(
        KINDS["front"], c=channels, h=height, w=width, kh=height, kw=width, units=front.outputs, out_planes=1,
        out_words=-(-front.outputs // 8), shift=front.registers * rows * pitch + 2 * pitch,
    )  # fmt: skip
    return step, front.program.astype("<i4")


def list_bytes(step: Step, tile: int) -> int:
    """Return the bytes of the lists or planes that a step builds, as `check.h` counts them."""
    if step.kind == KINDS["front"]:
        return 4 * step.shift
    if step.kind == KINDS["sums"]:
        return 8 * step.shift
    sites, codes = (1, step.c * step.h * step.w) if step.flat else (step.h * step.w, step.c)
    room, wide = (-(-count // 8) * 8 + 24 for count in (codes, step.terms))
    if step.kind == KINDS["bytes"]:
        together = min(64 if step.units > 16 else 8, -(-tile * step.oh * step.ow // 4) * 4)
        return -(-step.terms * step.weight_planes // 32) * 4 * together
    if step.kind in (KINDS["outputs"], KINDS["rows"]):
        return (tile * sites * room + (0 if step.flat else 2 * wide)) * step.in_planes * 2
    return 0
