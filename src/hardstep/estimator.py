"""scikit-learn estimators: any method and any network behind `fit` and `predict`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets

from hardstep.estimator_core import Holdout, StepEstimator, incremental
from hardstep.fit import Method
from hardstep.losses import Squared
from hardstep.methods.gradient import GradientDescent

__all__ = ["Holdout", "StepClassifier", "StepRegressor"]


class StepClassifier(ClassifierMixin, StepEstimator):  # type: ignore[misc]
    """Classify the rows of a table by a network of hard steps that predicts in integers.

    **Inputs.** Each column becomes 256 codes, evenly spaced over its range in training without far values
    (`tabular.column_grid`); values beyond are cut to the ends. The network is trained on these codes, standardised, so
    that freezing it changes nothing in its inputs. Sparse matrices are made dense in blocks, as codes of one byte.

    **Rows.** They are put into an order of their own, so that a fit does not depend on theirs. A weight becomes copies
    of a row (`tabular.row_counts`): whole weights exactly, so that weight 2 is the row twice; others on average over
    the seeds. Class weights multiply sample weights; rows of sample weight 0 do not exist. Fewer than 2048 training
    rows are all repeated as often as it takes, which changes no mean over rows but gives a sweep enough batches; so a
    method's batch_size may be 2048 on the smallest table (512 in `partial_fit`).

    **Predictions** are those of the frozen network, run by `Engine`. `predict_proba` is the softmax of its outputs
    times one factor (`sharpness_`), the one of least cross-entropy on the rows held out (on the training rows if there
    are none; 1 after `partial_fit`), with labels smoothed by k / (n + k) so that it stays finite.

    `fit` raises a ValueError that names the parameter, column or row which cannot be.

    Parameters
    ----------
    method
        How the network is trained; `GradientDescent()` if None.
    hidden
        Widths of the hidden layers, or a recipe such as `nets.MLP((64,), activation=Sign())`.
    sweeps
        At most so many sweeps over the rows.
    holdout
        Rows held out to keep the best sweep and to stop early; None trains on all rows and keeps the last sweep.
    weight_bits
        Bits of a rounded weight, 2 to 16.
    class_weight
        None, "balanced", or a dict from labels to weights.
    random_state
        An integer, a RandomState or None.
    n_jobs
        Threads that predict a large batch.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> X, y = load_wine(return_X_y=True)
    >>> classifier = StepClassifier(hidden=(8,), random_state=0).fit(X, y)
    >>> classifier.score(X, y) > 0.9
    True
    """

    def __init__(
        self,
        *,
        method: Any = None,
        hidden: Any = (64, 64),
        sweeps: Any = 20,
        holdout: Any = None,
        weight_bits: Any = 8,
        class_weight: Any = None,
        random_state: Any = None,
        n_jobs: Any = None,
    ) -> None:
        self.method = method
        self.hidden = hidden
        self.sweeps = sweeps
        self.holdout = holdout
        self.weight_bits = weight_bits
        self.class_weight = class_weight
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> StepClassifier:
        """Train a new network on rows X (n, d) and labels y (n,), numbers or text, and freeze it."""
        self._check()
        X, y, weights = self._rows(X, y, sample_weight, reset=True)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"all training rows are of one class, {classes[0]!r}; give rows of at least two classes")
        if self.class_weight is not None:
            weights = weights * compute_sample_weight(self.class_weight, y)
        self.classes_, self.sharpness_ = classes, 1.0
        rows = self._train(X, labels.astype(np.int64), weights, len(classes))
        self.sharpness_ = _sharpness(self._scores(rows.x.numpy()), rows.y.numpy())
        return self

    @available_if(incremental)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> StepClassifier:
        """Train one sweep on these rows, going on from the network there is, and freeze it again.

        Only for methods that go on from the network's weights: `GradientDescent` and `TargetProp`. Each call is a fit
        of one sweep with an optimiser and a schedule of its own. The first rows fix the codes of the columns; later
        values beyond them are cut. Fewer than 512 rows are repeated.

        Parameters
        ----------
        classes
            All labels there will be; needed in the first call.
        """
        self._check()
        first = "hard_" not in vars(self)
        X, y, weights = self._rows(X, y, sample_weight, reset=first)
        check_classification_targets(y)
        if first and classes is None:
            raise ValueError("the first call of partial_fit needs classes, all labels that there will be")
        known = np.unique(classes) if first else self.classes_
        if classes is not None and not np.array_equal(np.unique(classes), known):
            raise ValueError(f"classes were {known.tolist()} in the first call, got {np.unique(classes).tolist()}")
        unknown = np.setdiff1d(y, known)
        if len(unknown):
            raise ValueError(f"y holds the labels {unknown.tolist()}, which are not among classes {known.tolist()}")
        if self.class_weight == "balanced":
            raise ValueError("class_weight='balanced' needs all rows at once; give a dict, or sample_weight")
        if self.class_weight is not None:
            weights = weights * np.array([self.class_weight.get(label, 1.0) for label in y.tolist()])
        self.classes_, self.sharpness_ = known, 1.0
        self._train_on(X, np.searchsorted(known, y), weights, len(known), first=first)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the label of each row: the first of those with the highest score."""
        scores = self._outputs(X)
        labels: NDArray[Any] = self.classes_.take(scores.argmax(axis=1))
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each class (n, k), in the order of `classes_`."""
        scores = self._outputs(X)
        proba: NDArray[np.float64] = softmax(self.sharpness_ * scores, axis=1)
        return proba

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the outputs of the network (n, k); of two classes the second's minus the first's (n,)."""
        scores = self._outputs(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def _default_method(self) -> Method[Any]:
        return GradientDescent()

    def _output_names(self) -> list[str]:
        return [f"score of {label}" for label in self.classes_]

    def _output_values(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        k = len(self.classes_)
        return np.full(k, self.hard_.scale), np.zeros(k)

    def _learnt(self) -> dict[str, Any]:
        kind = self.classes_.dtype.str
        return {"classes": self.classes_.tolist(), "kind": kind, "sharpness": self.sharpness_}

    def _restore(self, learnt: dict[str, Any]) -> None:
        self.classes_ = np.array(learnt["classes"], dtype=learnt["kind"])
        self.sharpness_ = learnt["sharpness"]


class StepRegressor(RegressorMixin, StepEstimator):  # type: ignore[misc]
    """Predict numbers from the rows of a table by a network of hard steps that runs in integers.

    Inputs, rows and weights are those of `StepClassifier`. Targets are standardised for the training, one or several a
    row, so the prediction is piecewise constant: a sum over the half-spaces a row lies in.

    Parameters
    ----------
    method
        How the network is trained, with a loss for numbers; `GradientDescent(loss=Squared())` if None.
    hidden, sweeps, holdout, weight_bits, random_state, n_jobs
        See `StepClassifier`.

    Examples
    --------
    >>> X = np.linspace(0, 1, 200)[:, None]
    >>> regressor = StepRegressor(random_state=0).fit(X, np.sin(6 * X[:, 0]))
    >>> regressor.score(X, np.sin(6 * X[:, 0])) > 0.8
    True
    """

    def __init__(
        self,
        *,
        method: Any = None,
        hidden: Any = (64, 64),
        sweeps: Any = 20,
        holdout: Any = None,
        weight_bits: Any = 8,
        random_state: Any = None,
        n_jobs: Any = None,
    ) -> None:
        self.method = method
        self.hidden = hidden
        self.sweeps = sweeps
        self.holdout = holdout
        self.weight_bits = weight_bits
        self.random_state = random_state
        self.n_jobs = n_jobs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # scikit-learn's way
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> StepRegressor:
        """Train a new network on rows X (n, d) and targets y, (n,) or (n, k), and freeze it."""
        self._check()
        X, y, weights = self._rows(X, y, sample_weight, reset=True, multi_output=True, y_numeric=True)
        targets = self._standard(y, weights)
        self._train(X, targets, weights, targets.shape[1])
        return self

    @available_if(incremental)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> StepRegressor:
        """Train one sweep on these rows, going on from the network there is, and freeze it again.

        See `StepClassifier.partial_fit`; the first rows also fix how targets are standardised.
        """
        self._check()
        first = "hard_" not in vars(self)
        X, y, weights = self._rows(X, y, sample_weight, reset=first, multi_output=True, y_numeric=True)
        targets = self._standard(y, weights) if first else (y.reshape(len(y), -1) - self._mean) / self._deviation
        self._train_on(X, targets, weights, len(self._mean), first=first)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the targets of each row, in the shape that y had."""
        out = self._outputs(X)
        return out[:, 0] if self._flat else out

    def _standard(self, y: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return targets of mean 0 and deviation 1, and keep both."""
        self._flat = y.ndim == 1
        wide = y.reshape(len(y), -1).astype(np.float64)
        self._mean = np.average(wide, axis=0, weights=weights)
        deviation = np.sqrt(np.average((wide - self._mean) ** 2, axis=0, weights=weights))
        self._deviation = np.where(np.ptp(wide, axis=0) == 0, 1.0, np.where(deviation > 0, deviation, 1.0))
        standard: NDArray[np.float64] = (wide - self._mean) / self._deviation
        return standard

    def _default_method(self) -> Method[Any]:
        return GradientDescent(loss=Squared())

    def _output_names(self) -> list[str]:
        return ["y"] if self._flat else [f"y{j}" for j in range(len(self._mean))]

    def _output_values(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._deviation * self.hard_.scale, self._mean

    def _learnt(self) -> dict[str, Any]:
        return {"mean": self._mean.tolist(), "deviation": self._deviation.tolist(), "flat": self._flat}

    def _restore(self, learnt: dict[str, Any]) -> None:
        self._mean, self._deviation = np.array(learnt["mean"]), np.array(learnt["deviation"])
        self._flat = learnt["flat"]


def _sharpness(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the factor of the scores under which their softmax fits the labels best, smoothed by k / (n + k)."""
    n, k = scores.shape
    share = k / (n + k)
    wanted = (1 - share) * scores[np.arange(n), labels] + share * scores.mean(axis=1)

    def cost(log_factor: float) -> float:
        factor = np.exp(log_factor)
        return float((logsumexp(factor * scores, axis=1) - factor * wanted).mean())

    return float(np.exp(minimize_scalar(cost, bounds=(-5.0, 5.0), method="bounded").x))
