"""What both estimators share: parameters, a table made into a fit, the frozen network that predicts, files."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from joblib import effective_n_jobs
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from hardstep import nets
from hardstep.checkpoint import load_tree, save_tree
from hardstep.data import Data
from hardstep.engine import Engine
from hardstep.export.c import to_c
from hardstep.fit import Method, fit
from hardstep.freeze import freeze
from hardstep.grid import Grid
from hardstep.hardnet import HardNet
from hardstep.hyperparameters import from_tree, to_tree
from hardstep.parts import Samples, Streamed
from hardstep.readable import Rule, Total, half_spaces
from hardstep.report import Record, Report
from hardstep.storage import write_bytes
from hardstep.tabular import canonical_order, column_grid, held_out, row_counts, standard_grid, to_codes

__all__ = ["Holdout", "Recipe", "StepEstimator"]

LEAST = 2048  # training rows of a sweep
CHUNK = 512  # the same of one part of the data
AT_A_TIME = 2**24  # codes that a prediction makes at a time

Recipe = Callable[[tuple[int, ...], int, int], nn.Module]
"""Builds a network from the shape of a sample, the number of outputs and a seed, as `nets.MLP` does."""


Own = TypeVar("Own", bound="StepEstimator")


@dataclass(frozen=True)
class Holdout:
    """Rows that are kept out of the training to choose the sweep that does best on them, and to stop.

    Parameters
    ----------
    share
        Share of the rows of each class (of all rows in regression), in (0, 1); each class keeps at least one.
    patience
        Stop after so many sweeps without a better score; None never stops early.
    """

    share: float = 0.1
    patience: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share lies between 0 and 1, got {self.share}; holdout=None holds no rows out")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience counts sweeps and must be at least 1, got {self.patience}")


@dataclass(eq=False)
class _Fast:
    """The engines of a frozen network by number of threads, made at first use; a copy makes its own."""

    hard: HardNet
    engines: dict[int, Engine] = field(default_factory=dict)

    def __call__(self, codes: NDArray[np.uint8], threads: int) -> NDArray[np.int64]:
        if threads not in self.engines:
            self.engines[threads] = Engine(self.hard, threads=threads)
        return self.engines[threads](codes)

    def __getstate__(self) -> dict[str, Any]:
        return {"hard": self.hard, "engines": {}}


class StepEstimator(BaseEstimator):  # type: ignore[misc]
    """Abstract: from a table and targets to a frozen network and back to numbers."""

    method: Method[Any] | None
    hidden: tuple[int, ...] | Recipe
    sweeps: int
    holdout: Holdout | None
    weight_bits: int
    random_state: Any
    n_jobs: int | None

    @abstractmethod
    def _default_method(self) -> Method[Any]:
        """Return the method that None stands for."""

    @abstractmethod
    def _output_names(self) -> list[str]:
        """Return what the outputs are called in rules."""

    @abstractmethod
    def _output_values(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the value of one unit of the scores, and of score 0, for each output."""

    @abstractmethod
    def _learnt(self) -> dict[str, Any]:
        """Return what a file needs beside the network: numbers and text."""

    @abstractmethod
    def _restore(self, learnt: dict[str, Any]) -> None:
        """Take back what `_learnt` returned."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # scikit-learn's way
        tags.input_tags.sparse = True
        return tags

    def freeze(self) -> HardNet:
        """Return the integer network that predicts. Its grid takes numbers in the units of X, so `freeze()(X)` runs.

        It is calibrated on the training rows: `freeze().rounding` counts what rounding changed on them.
        """
        check_is_fitted(self, "hard_")
        hard: HardNet = self.hard_
        return hard

    def export_c(self, path: Path | str, *, name: str = "net") -> Path:
        """Write the network as one C99 file that a compiler takes alone; see `to_c` for what is in it.

        The C takes codes: column j of X becomes clip(rint(x / scale_j) + zero_j, 0, 255) with the numbers of
        `freeze().grid`, which is `freeze().codes(X)`. It gives integer scores, or the place of the label in `classes_`.

        Raises
        ------
        ValueError
            If the name is no identifier of C.
        """
        write_bytes(Path(path), to_c(self.freeze(), name=name).encode())
        return Path(path)

    @property
    def rules_(self) -> tuple[Rule | Total, ...]:
        """The units of a small network as half-spaces in the units of X, then its outputs, each with a text.

        Raises
        ------
        ValueError
            If the network is too large to read or has convolutions.
        """
        hard = self.freeze()
        scale, shift = self._output_values()
        names = getattr(self, "feature_names_in_", [f"x{j}" for j in range(self.n_features_in_)])
        return half_spaces(hard, list(map(str, names)), self._output_names(), scale=scale, shift=shift)

    def save(self, path: Path | str) -> None:
        """Write the fitted estimator as one verified safetensors file, without pickle; it appears whole or not at all.

        Raises
        ------
        TypeError
            If a parameter is neither plain nor a frozen dataclass, such as a RandomState or a function.
        """
        hard = self.freeze()
        with tempfile.TemporaryDirectory() as folder:
            hard.save(Path(folder) / "hard")
            content = np.frombuffer((Path(folder) / "hard").read_bytes(), np.uint8).copy()
        names = getattr(self, "feature_names_in_", None)
        tree = {
            "parameters": to_tree(self.get_params(deep=False)),
            "features": [self.n_features_in_, None if names is None else [str(name) for name in names]],
            "seed": self._seed,
            "calls": self._calls,
            "net": dict(self.net_.state_dict()),
            "hardnet": torch.from_numpy(content),
            "scale": torch.from_numpy(self._grid.scale),
            "zero": torch.from_numpy(self._grid.zero),
            "report": asdict(self.report_),
            "learnt": self._learnt(),
        }
        save_tree(Path(path), tree, type(self).__name__)

    @classmethod
    def load(cls: type[Own], path: Path | str, *, known: Sequence[type] = ()) -> Own:
        """Read back what `save` wrote: the same parameters, predictions and `partial_fit`.

        Parameters
        ----------
        known
            Classes of your own, of methods say, that the parameters name.

        Raises
        ------
        ValueError
            If the file is damaged, of another kind, or names an unknown class.
        """
        import hardstep

        tree = load_tree(Path(path), cls.__name__)
        public = [getattr(hardstep, name) for name in hardstep.__all__] + [getattr(nets, name) for name in nets.__all__]
        classes = {kind.__name__: kind for kind in (*public, *known) if isinstance(kind, type)}
        self = cls(**from_tree(tree["parameters"], classes))
        self.n_features_in_, names = tree["features"]
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "hard").write_bytes(tree["hardnet"].numpy().tobytes())
            hard = HardNet.load(Path(folder) / "hard")
        self._seed, self._calls = tree["seed"], tree["calls"]
        self._restore(tree["learnt"])
        self.net_ = self._net(hard, tree["net"])
        content = tree["report"]
        self.report_ = Report(**{**content, "records": tuple(Record(**record) for record in content["records"])})
        self._keep(hard, Grid(tree["scale"].numpy(), tree["zero"].numpy()))
        return self

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        if "net_" in state:  # by its tensors: modules whose weights are computed refuse to be pickled
            state["net_"] = self.net_.state_dict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "net_" in state:
            self.net_ = self._net(self.hard_, state["net_"])

    def _net(self, hard: HardNet, state: Mapping[str, Tensor]) -> nn.Module:
        """Return the network again that had this state and these outputs."""
        net = self._recipe()((self.n_features_in_,), hard.layers[-1].out_shape(())[0], self._seed)
        net.load_state_dict(state)
        return net

    def _method(self) -> Any:
        return self._default_method() if self.method is None else self.method

    def _recipe(self) -> Recipe:
        recipe: Recipe = self.hidden if callable(self.hidden) else nets.MLP(hidden=tuple(self.hidden))
        return recipe

    def _check(self) -> None:
        """Raise a ValueError that names the first parameter that cannot be."""
        if not isinstance(self._method(), Method):
            raise ValueError(f"method must be a Method such as hardstep.GradientDescent(), got {self.method!r}")
        widths = () if callable(self.hidden) else self.hidden
        if isinstance(widths, str) or not np.iterable(widths) or not all(_whole(width, 1) for width in widths):
            raise ValueError(
                f"hidden must be the widths of the hidden layers, such as (64, 64), or a recipe such as "
                f"hardstep.nets.MLP((64,), dropout=0.1), got {self.hidden!r}"
            )
        if not callable(self.hidden) and len(self.hidden) == 0:
            raise ValueError("hidden=() has no layer of steps; give at least one width, such as (64,)")
        if not _whole(self.sweeps, 1):
            raise ValueError(f"sweeps must be an integer of at least 1, got {self.sweeps!r}")
        if not _whole(self.weight_bits, 2) or self.weight_bits > 16:
            raise ValueError(f"weight_bits must be an integer from 2 to 16, got {self.weight_bits!r}")
        if not (self.holdout is None or isinstance(self.holdout, Holdout)):
            raise ValueError(f"holdout must be None or hardstep.Holdout(share=0.1, patience=5), got {self.holdout!r}")

    def _rows(self, X: Any, y: Any, weight: Any, *, reset: bool, **how: Any) -> tuple[Any, Any, NDArray[np.float64]]:
        """Return checked rows, their targets and weights, without rows of weight 0."""
        X, y = validate_data(
            self, X, y, reset=reset, accept_sparse="csr", dtype=np.float64, ensure_min_samples=2 if reset else 1, **how
        )
        if weight is None:
            return X, y, np.ones(X.shape[0])
        weights = np.asarray(weight, np.float64)
        weights = np.full(X.shape[0], weights) if weights.ndim == 0 else weights
        if weights.shape != (X.shape[0],):
            raise ValueError(f"sample_weight has the shape {weights.shape}, expected is ({X.shape[0]},): one a row")
        if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
            raise ValueError("sample_weight must be finite, not negative, and not all weights zero; give one above")
        kept = weights > 0
        return X[kept], y[kept], weights[kept]

    def _train(self, x: Any, y: NDArray[Any], weights: NDArray[np.float64], outputs: int) -> Samples:
        """Fit a new network to labels (n,) or targets (n, k); return the rows that nothing was fitted to, if any."""
        self._seed, self._calls = int(check_random_state(self.random_state).randint(2**31 - 1)), 0
        generator = np.random.default_rng(self._seed)
        counts = row_counts(weights, _groups(y), generator)
        x, y, counts = (rows[counts > 0] for rows in (x, y, counts))
        outer = column_grid(x, counts)
        codes = to_codes(x, outer)
        order = canonical_order(codes, y)
        codes, y, counts = codes[order], y[order], counts[order]
        grid = standard_grid(codes, counts)
        held = np.zeros(len(y), bool)
        if self.holdout is not None:
            held = held_out(_groups(y), self.holdout.share, generator)
        train = Samples(*_copies(codes[~held], y[~held], counts[~held], LEAST), grid)
        val = Samples(*_copies(codes[held], y[held], counts[held], 1), grid) if held.any() else None
        net = self._recipe()(train.shape, outputs, self._seed)
        self._run(net, Data("table", train, val, None, outputs, y.ndim == 1), self.sweeps, self.holdout)
        self._keep(replace(freeze(net, calibrate=train, weight_bits=self.weight_bits), grid=outer), grid)
        return train if val is None else val

    def _train_on(self, x: Any, y: NDArray[Any], weights: NDArray[np.float64], outputs: int, *, first: bool) -> None:
        """Train one sweep on these rows: the network there is, or a new one with the codes of these rows."""
        if first:
            self._seed, self._calls = int(check_random_state(self.random_state).randint(2**31 - 1)), 0
        generator = np.random.default_rng((self._seed, self._calls))
        counts = row_counts(weights, np.zeros(len(y)), generator)
        outer = column_grid(x, np.ones(len(y), np.int64)) if first else self.hard_.grid
        codes = to_codes(x, outer)
        grid = standard_grid(codes, np.ones(len(y), np.int64)) if first else self._grid
        part = Streamed(TensorDataset(*_copies(codes, y, counts, CHUNK)), outputs, grid)  # may lack a class
        net = self._recipe()(part.shape, outputs, self._seed) if first else self.net_
        self._run(net, Data("table", part, None, None, outputs, y.ndim == 1), 1, None)
        self._keep(replace(freeze(net, calibrate=part, weight_bits=self.weight_bits), grid=outer), grid)
        self._calls += 1

    def _run(self, net: nn.Module, data: Data, sweeps: int, holdout: Holdout | None) -> None:
        """Fit, and keep network and report."""
        patience = None if holdout is None else holdout.patience
        seed = self._seed + self._calls
        self.report_ = fit(net, data, self._method(), sweeps=sweeps, seed=seed, patience=patience, progress=False)
        self.net_ = net.cpu()

    def _keep(self, hard: HardNet, grid: Grid) -> None:
        self.hard_, self._grid, self._fast = hard, grid, _Fast(hard)

    def _scores(self, codes: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the outputs of the frozen network for codes."""
        scale, shift = self._output_values()
        scores: NDArray[np.float64] = shift + scale * self._fast(codes, effective_n_jobs(self.n_jobs))
        return scores

    def _outputs(self, X: Any) -> NDArray[np.float64]:
        """Return the outputs for a table."""
        check_is_fitted(self, "hard_")
        X = validate_data(self, X, reset=False, accept_sparse="csr", dtype=np.float64)
        size = max(1, AT_A_TIME // X.shape[1])
        starts = range(0, X.shape[0], size)
        return np.concatenate([self._scores(to_codes(X[i : i + size], self.hard_.grid)) for i in starts])


def incremental(estimator: StepEstimator) -> bool:
    """Say whether the method goes on from the network's weights; raise an AttributeError that says so if not."""
    method = estimator._method()
    if not method.incremental:
        raise AttributeError(
            f"partial_fit needs a method that goes on from the network's weights (GradientDescent, TargetProp), and "
            f"{type(method).__name__} starts anew; call fit on all rows, or choose another method"
        )
    return True


def _groups(y: NDArray[Any]) -> NDArray[Any]:
    """Return the labels; for number targets one group."""
    return y if y.ndim == 1 else np.zeros(len(y), np.int64)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def _copies(codes: NDArray[np.uint8], y: NDArray[Any], counts: NDArray[np.int64], least: int) -> tuple[Tensor, Tensor]:
    """Return rows as often as they count; all of them again until there are enough for a sweep."""
    rows = np.repeat(np.arange(len(codes)), counts)
    rows = np.tile(rows, -(-least // len(rows)))
    target = y[rows] if y.ndim == 1 else y[rows].astype(np.float32)
    return torch.from_numpy(codes[rows]), torch.from_numpy(target)
