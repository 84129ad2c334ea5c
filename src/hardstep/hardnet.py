"""HardNet: a frozen network in integers. Its plain NumPy forward pass is the truth for every deployed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from hardstep.grid import Grid
from hardstep.hard_layers import (
    Conv,
    Dense,
    Flatten,
    Layer,
    Pool,
    Product,
    exact_product,
    numbers,
    pack_layer,
    unpack_layer,
    weight_bits,
)
from hardstep.hard_scatter import Scatter
from hardstep.hard_sums import Rescaled, Residual, Stage
from hardstep.storage import read_arrays, write_arrays

__all__ = ["HardNet", "Rounding", "Row"]

ROWS = 128  # samples that the reference runs together: what a convolution reads is copied, each code many times


class Row(NamedTuple):
    """A layer in numbers: shapes, weights and their bits, thresholds and biases, bytes, products a sample needs."""

    layer: str
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    weights: int
    bits: int
    numbers: int
    nbytes: int
    macs: int


@dataclass(frozen=True)
class Rounding:
    """What freezing changed on the calibration rows, against the float network.

    Step outputs are counted where the next layer reads them, after pooling; predictions are arg-maxima
    (0 of 0 for regression). Where sums stay real, `point` is the number of their bits behind the point.
    """

    rows: int
    step_outputs: int
    steps_changed: int
    predictions_changed: int
    point: int | None = None

    def __str__(self) -> str:
        share = self.steps_changed / max(self.step_outputs, 1)
        counts = (
            f"{self.steps_changed} of {self.step_outputs} step outputs ({share:.3%}) and "
            f"{self.predictions_changed} of {self.rows} predictions changed by rounding"
        )
        return counts if self.point is None else f"{counts}; real sums have {self.point} of 32 bits behind the point"


@dataclass(frozen=True, eq=False)
class HardNet:
    """An exact integer network: 8-bit input codes, layers of integer weights and thresholds, integer scores.

    Parameters
    ----------
    shape
        Shape of one sample.
    grid
        How input numbers become codes.
    layers
        The layers; the last one is a `Dense` without thresholds, or, where sums stay real, a `Rescaled`; a `Scatter`
        can only be the first one.
    scale
        Value of one unit of the scores in the float network's outputs.
    rounding
        What freezing changed; None if it was not measured.

    Raises
    ------
    ValueError
        If a `Scatter` is not the first layer, or does not take these samples.

    References
    ----------
    Jacob et al. 2018 [jacob2018], integer inference. Differs: no requantisation, only thresholds; normalisation
    is folded into them as in Umuroglu et al. 2017, Sec. 4 [umuroglu2017].
    """

    shape: tuple[int, ...]
    grid: Grid
    layers: tuple[Layer, ...]
    scale: float = 1.0
    rounding: Rounding | None = None

    def __post_init__(self) -> None:
        for i, layer in enumerate(self.layers):
            if isinstance(layer, Scatter) and (i > 0 or layer.shape != self.shape):
                raise ValueError(
                    f"layer {i} scatters images of {layer.shape} in a network for {self.shape}; it must come first and "
                    "take the samples"
                )

    @property
    def front(self) -> Scatter | None:
        """The scattering front end that makes features of images, if there is one; it is `layers[0]`."""
        first = self.layers[0] if self.layers else None
        return first if isinstance(first, Scatter) else None

    def __call__(self, x: NDArray[Any], *, product: Product = exact_product) -> Int64[np.ndarray, "n k"]:
        """Return the integer scores of samples, given as codes (uint8) or as numbers (floats)."""
        codes = self.codes(x)
        parts = [codes[i : i + ROWS] for i in range(0, max(len(codes), 1), ROWS)]
        return np.concatenate([list(self.trace(part, product=product))[-1] for part in parts])

    def trace(self, x: NDArray[Any], *, product: Product = exact_product) -> Iterator[NDArray[Any]]:
        """Yield the output of every layer, the scores last."""
        codes = self.codes(x)
        for layer in self.layers:
            codes = layer.run(codes, product)
            yield codes

    def every(self, x: NDArray[Any]) -> Iterator[tuple[Stage, NDArray[Any]]]:
        """Yield every layer with its output, those inside residual sums too, in the order in which they run."""
        codes = self.codes(x)
        for layer in self.layers:
            if isinstance(layer, Residual):
                for inner, out in layer.trace(codes, exact_product):
                    yield inner, out
                codes = out
            else:
                codes = layer.run(codes, exact_product)
                yield layer, codes

    def codes(self, x: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the input codes of samples.

        Raises
        ------
        ValueError
            If the samples have another shape or hold NaN.
        """
        x = np.asarray(x)
        if x.shape[1:] != self.shape:
            raise ValueError(f"samples of shape {x.shape[1:]} do not fit a network for {self.shape}; reshape them")
        return x if x.dtype == np.uint8 else self.grid.code(x)

    def predict(self, x: NDArray[Any]) -> Int64[np.ndarray, " n"]:
        """Return the label of each sample: the smallest index among the highest scores."""
        labels: NDArray[np.int64] = self(x).argmax(axis=1)
        return labels

    def rows(self) -> list[Row]:
        """Return one line per layer."""
        rows = []
        for name, layer, shape in _parts(self.layers, self.shape):
            weight = layer.weight if isinstance(layer, Dense | Conv | Rescaled) else np.zeros(0, np.int8)
            wide = weight_bits(weight) if weight.size else 0
            count = numbers(layer)
            nbytes = -(-weight.size * wide // 8) + 4 * count
            after, macs = layer.out_shape(shape), layer.macs(shape)
            rows.append(Row(name, shape, after, weight.size, wide, count, nbytes, macs))
        return rows

    def parts(self) -> list[Stage]:
        """Return all layers, those inside residual sums too."""
        return [layer for _, layer, _ in _parts(self.layers, self.shape)]

    @property
    def of_codes(self) -> bool:
        """Whether only codes travel between layers, no real sums in fixed point."""
        return all(isinstance(layer, Dense | Conv | Pool | Flatten | Scatter) for layer in self.layers)

    def check_codes(self, who: str) -> None:
        """Raise ValueError if real sums travel between layers, which `who` does not take."""
        for i, layer in enumerate(self.layers):
            if not isinstance(layer, Dense | Conv | Pool | Flatten | Scatter):
                raise ValueError(
                    f"layer {i} ({type(layer).__name__}) computes with real sums in fixed point; {who} reads codes "
                    "only. NumPy, the engine, C and ONNX run such a network; one with HardSums runs everywhere"
                )

    @property
    def nbytes(self) -> int:
        """Bytes of all weights at their width and of all thresholds and biases at 32 bits."""
        return sum(row.nbytes for row in self.rows())

    @property
    def macs(self) -> int:
        """Products of a weight and an input that one sample needs; with bits they are selections."""
        return sum(row.macs for row in self.rows())

    def summary(self) -> str:
        """Return the layers as a text table, with totals and the size as float32 and int8."""
        rows = self.rows()
        lines = [Row._fields, *([_cell(value) for value in row] for row in rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(Row._fields))]
        text = [
            "  ".join(
                f"{cell:{'<' if i < 3 else '>'}{w}}" for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        weights, others = sum(row.weights for row in rows), sum(row.numbers for row in rows)
        text.append(f"total: {self.nbytes:,} bytes, {self.macs:,} MACs a sample")
        text.append(f"as int8: {weights + 4 * others:,} bytes, as float32: {4 * (weights + others):,} bytes")
        if self.rounding is not None:
            text.append(str(self.rounding))
        return "\n".join(text)

    def save(self, path: Path | str) -> None:
        """Write the network, its weights packed to their width; the file appears whole or not at all."""
        arrays: dict[str, NDArray[Any]] = {"grid.scale": self.grid.scale, "grid.zero": self.grid.zero}
        meta = []
        for i, layer in enumerate(self.layers):
            meta.append(pack_layer(layer, f"{i}.", arrays))
        head = {
            "shape": self.shape,
            "scale": self.scale,
            "layers": meta,
            "rounding": None if self.rounding is None else vars(self.rounding),
        }
        write_arrays(Path(path), arrays, head, "hardnet")

    @classmethod
    def load(cls, path: Path | str) -> HardNet:
        """Read a network back, bit for bit.

        Raises
        ------
        ValueError
            If the file is damaged, of another kind or of another format.
        """
        arrays, head = read_arrays(Path(path), "hardnet")
        rounding = None if head["rounding"] is None else Rounding(**head["rounding"])
        layers = tuple(unpack_layer(meta, f"{i}.", arrays) for i, meta in enumerate(head["layers"]))
        grid = Grid(arrays["grid.scale"], arrays["grid.zero"])
        return cls(tuple(head["shape"]), grid, layers, head["scale"], rounding)


def _parts(
    layers: Sequence[Stage], shape: tuple[int, ...], way: str = ""
) -> Iterator[tuple[str, Stage, tuple[int, ...]]]:
    """Yield every layer with its name and the shape that it reads, those inside a residual sum before the sum."""
    for layer in layers:
        if isinstance(layer, Residual):
            yield from _parts(layer.body, shape, "body ")
            yield from _parts(layer.shortcut, shape, "shortcut ")
        yield way + type(layer).__name__, layer, shape
        shape = layer.out_shape(shape)


def _cell(value: str | int | tuple[int, ...]) -> str:
    """Return a table cell."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else value
