"""Intake: how foreign arrays, datasets and loaders become parts, or one clear error that says why not."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from hardstep.grid import Grid
from hardstep.parts import Part, Samples, Streamed

__all__ = ["Array", "Source", "channels_first", "number_labels", "text_classes", "to_part", "to_samples"]

PIXELS = Grid(1 / 255, 0)

Array: TypeAlias = Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."]  # Samples says which shapes fit
Source: TypeAlias = Dataset[Any] | DataLoader[Any] | Streamed


def to_part(source: Source, outputs: int, grid: Grid | None) -> Part:
    """Make a part of a dataset or DataLoader: in memory if it is there already, else streamed.

    Parameters
    ----------
    outputs
        Number of classes or targets.
    grid
        Which number a uint8 code stands for; value code/255 if None.

    Raises
    ------
    ValueError
        If it cannot be indexed, is empty, its first sample does not fit, or a DataLoader would give other samples
        than its dataset.

    Examples
    --------
    >>> to_part(TensorDataset(torch.eye(4), torch.arange(4)), 4, None).shape
    (4,)
    """
    workers = 0
    if isinstance(source, DataLoader):
        loader, source = source, source.dataset
        workers = loader.num_workers
        if not isinstance(source, IterableDataset | Samples):
            _check_loader(loader)
    kind = type(source).__name__
    if isinstance(source, IterableDataset) or not isinstance(source, Sized):
        raise ValueError(f"{kind} cannot be indexed, but `fit` owns the order; give a map-style Dataset with a length")
    if len(source) == 0:
        raise ValueError(f"the dataset ({kind}) has zero samples; give at least one")
    if isinstance(source, Streamed):
        return source
    samples = _in_memory(source, grid)
    if samples is not None:
        return samples
    first = source[0]
    if not isinstance(first, tuple | list) or len(first) != 2:
        raise ValueError(f"{kind} gives {type(first).__name__}, allowed are pairs (x, y); wrap it")
    try:
        x, y = (torch.as_tensor(value) for value in first)
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{kind} gives ({type(first[0]).__name__}, {type(first[1]).__name__}), allowed are tensors, arrays and "
            "numbers; convert in its transform"
        ) from error
    if x.ndim == 0 or not (x.is_floating_point() or x.dtype == torch.uint8):
        raise ValueError(
            f"{kind} gives x of {x.dtype} and shape {tuple(x.shape)}, allowed are arrays of floats or uint8"
        )
    if tuple(y.shape) != ((outputs,) if y.is_floating_point() else ()):
        raise ValueError(
            f"{kind} gives y of {y.dtype} and shape {tuple(y.shape)}, allowed are one integer label or {outputs} "
            "(outputs) float targets; convert y"
        )
    return Streamed(source, outputs, (grid or PIXELS) if x.dtype == torch.uint8 else None, workers)


def _in_memory(source: Dataset[Any], grid: Grid | None) -> Samples | None:
    """Return the samples of a dataset that is in memory already."""
    if isinstance(source, Samples):
        return source
    if isinstance(source, Subset):
        whole = _in_memory(source.dataset, grid)
        return None if whole is None else Samples(*whole.take(torch.as_tensor(source.indices)), whole.grid)
    if isinstance(source, TensorDataset) and len(source.tensors) == 2:
        return to_samples(*source.tensors, grid)
    return None


def _check_loader(loader: DataLoader[Any]) -> None:
    """Refuse a loader whose samples are not those of its dataset, each once."""
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    sampler = sampler.sampler if type(sampler) is BatchSampler else sampler
    whole = isinstance(sampler, SequentialSampler | DistributedSampler) or (
        isinstance(sampler, RandomSampler) and not sampler.replacement and len(sampler) == len(sampler.data_source)
    )
    if not whole:
        raise ValueError(
            f"the DataLoader's {type(sampler).__name__} chooses among the samples, but `fit` owns the order and would "
            "take them all; give a torch.utils.data.Subset of its dataset instead"
        )
    if loader.collate_fn is not default_collate:
        raise ValueError(
            "the DataLoader has a collate_fn of its own, which `fit` would not call; do its work in the dataset"
        )


def to_samples(x: Array, y: Array, grid: Grid | None) -> Samples:
    """Make samples of arrays or tensors of any numbers; uint8 x are codes, value code/255 without a grid.

    Raises
    ------
    ValueError
        If a type, shape or value does not fit.

    Examples
    --------
    >>> to_samples(np.eye(2), np.array([False, True]), None).y
    tensor([0, 1])
    """
    codes, labels = _tensor(x, "x"), _tensor(y, "y")
    if codes.dtype == torch.uint8 and grid is None:
        grid = PIXELS
    return Samples(codes, labels.long() if labels.dtype == torch.bool else labels, grid)


def _tensor(values: Array, name: str) -> Tensor:
    """Return a tensor on the CPU that may be written to."""
    array = None if isinstance(values, Tensor) else np.asarray(values)
    if (array is not None and array.dtype.kind not in "biuf") or (isinstance(values, Tensor) and values.is_complex()):
        raise ValueError(
            f"{name} has the type {values.dtype}, allowed are booleans, integers and floats; encode text, dates and "
            "objects as numbers"
        )
    if isinstance(values, Tensor):
        return values.detach().cpu()
    assert array is not None
    native = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.dtype(np.float64)
    return torch.from_numpy(np.require(array, native, ["C", "W"]))


def text_classes(y: Array) -> NDArray[Any] | None:
    """Return the sorted names of classes given as text; None for numbers.

    Raises
    ------
    ValueError
        If an array of objects holds anything but text.

    Examples
    --------
    >>> text_classes(np.array(["dog", "cat", "dog"])).tolist()
    ['cat', 'dog']
    """
    if isinstance(y, Tensor) or y.dtype.kind not in "OUS":
        return None
    strange = [label for label in y.reshape(-1).tolist() if not isinstance(label, str | bytes)]
    if strange:
        raise ValueError(
            f"y of type {y.dtype} holds {strange[0]!r}; labels are integers, or text without gaps: convert y, or drop "
            "the rows without a label"
        )
    return np.unique(y.astype(str))


def number_labels(y: Array, classes: Shaped[np.ndarray, " k"] | None) -> Array:
    """Return the place of each text label among the sorted classes; y itself where there are none.

    Raises
    ------
    ValueError
        If a label is not among them.

    Examples
    --------
    >>> number_labels(np.array(["dog", "cat"]), np.array(["cat", "dog"])).tolist()
    [1, 0]
    """
    if classes is None:
        return y
    text = (y.numpy() if isinstance(y, Tensor) else y).astype(str)
    unknown = np.setdiff1d(text, classes).tolist()
    if unknown:
        raise ValueError(f"labels {unknown} do not appear in training, which has {classes.tolist()}; drop their rows")
    return np.searchsorted(classes, text)


def channels_first(x: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Give 8-bit images (n, height, width) a channel axis, and move one that comes last to the front.

    Examples
    --------
    >>> channels_first(np.zeros((2, 8, 9, 3), np.uint8)).shape
    (2, 3, 8, 9)
    """
    if x.dtype == np.uint8 and x.ndim == 3:
        return x[:, None]
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        return x.transpose(0, 3, 1, 2)
    return x
