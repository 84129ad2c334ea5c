"""The parts of a search over targets: what a unit is asked to do, how it is fitted to that, and the network of bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray
from scipy.optimize import minimize

from hardstep.certify.alternatives import least_slack
from hardstep.certify.separability import class_rows, separate, separate_classes, unit_rows

__all__ = ["Alternate", "Descents", "Flip", "GradientSign", "LinearPrograms", "Proposal", "Refit", "SplitCredit"]


class Proposal(ABC):
    """A rule by which new targets of a unit are made from its bits and from what they are worth."""

    @abstractmethod
    def propose(
        self, bits: Bool[np.ndarray, " n"], credit: Float64[np.ndarray, " n"], generator: np.random.Generator
    ) -> Bool[np.ndarray, " n"]:
        """Return targets.

        Parameters
        ----------
        bits
            What the unit does now.
        credit
            Derivative of the loss by the unit's output, row by row: above 0 where the unit should rather be silent.
        """


@dataclass(frozen=True)
class GradientSign(Proposal):
    """Ask for 1 where the loss falls with the output, for 0 where it rises, and for the same where it does neither.

    The published rule. Where it is needed it fails: with one output, every row that is still wrong asks each unit for
    the label itself.

    References
    ----------
    Friesen and Domingos 2018, Sec. 3.1 [friesen2018]. Differs: a credit of 0 keeps the bit.
    """

    def propose(
        self, bits: Bool[np.ndarray, " n"], credit: Float64[np.ndarray, " n"], generator: np.random.Generator
    ) -> Bool[np.ndarray, " n"]:
        """Return minus the sign of the credit."""
        return np.where(credit == 0, bits, credit < 0)


@dataclass(frozen=True)
class Flip(Proposal):
    """Flip each bit with some probability, at least one.

    Parameters
    ----------
    rate
        The probability, in (0, 1].
    """

    rate: float = 0.25

    def __post_init__(self) -> None:
        _check_share("rate", self.rate)

    def propose(
        self, bits: Bool[np.ndarray, " n"], credit: Float64[np.ndarray, " n"], generator: np.random.Generator
    ) -> Bool[np.ndarray, " n"]:
        """Return the bits with some flipped."""
        flips = generator.random(len(bits)) < self.rate
        flips[generator.integers(len(bits))] |= not flips.any()
        return np.asarray(bits ^ flips)


@dataclass(frozen=True)
class SplitCredit(Proposal):
    """Flip some of the bits that speak against the credit, drawn by its size, so that units do not copy one another.

    Parameters
    ----------
    share
        At most this share of those bits is flipped, at least one; the number is drawn. Where no bit speaks against the
        credit, one bit drawn at random.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        _check_share("share", self.share)

    def propose(
        self, bits: Bool[np.ndarray, " n"], credit: Float64[np.ndarray, " n"], generator: np.random.Generator
    ) -> Bool[np.ndarray, " n"]:
        """Return the bits with some flipped."""
        targets = bits.copy()
        weight = np.where(np.where(bits, credit > 0, credit < 0), np.abs(credit), 0.0)
        against = np.flatnonzero(weight)
        if not len(against):
            targets[generator.integers(len(bits))] ^= True
            return targets
        count = int(generator.integers(1, max(1, round(self.share * len(against))) + 1))
        chosen = generator.choice(len(bits), count, replace=False, p=weight / weight.sum())
        targets[chosen] ^= True
        return targets


@dataclass(frozen=True)
class Alternate(Proposal):
    """Take one of two rules, by lot.

    Parameters
    ----------
    first, second
        The rules.
    share
        Probability of the first, in (0, 1].
    """

    first: Proposal = field(default_factory=Flip)
    second: Proposal = field(default_factory=SplitCredit)
    share: float = 0.5

    def __post_init__(self) -> None:
        _check_share("share", self.share)

    def propose(
        self, bits: Bool[np.ndarray, " n"], credit: Float64[np.ndarray, " n"], generator: np.random.Generator
    ) -> Bool[np.ndarray, " n"]:
        """Return the targets of the rule that was drawn."""
        rule = self.first if generator.random() < self.share else self.second
        return rule.propose(bits, credit, generator)


class Refit(ABC):
    """How a unit is fitted to targets and a read-out to labels."""

    exact: bool = False
    """Whether a fit is the best there is, from whatever start; else units above one that moves stay as they are."""

    @abstractmethod
    def unit(self, x: Float64[np.ndarray, "n d"], t: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, " d1"]:
        """Return weights and bias of a unit for these targets."""

    @abstractmethod
    def readout(
        self, x: Float64[np.ndarray, "n d"], y: Int64[np.ndarray, " n"], start: Float64[np.ndarray, "k d1"]
    ) -> tuple[Float64[np.ndarray, "k d1"], float]:
        """Return weights and biases of a read-out for these labels, and its loss."""

    @abstractmethod
    def widen(self, x: Float64[np.ndarray, "n d"], unit: Float64[np.ndarray, " d1"]) -> Float64[np.ndarray, " d1"]:
        """Return a unit that does the same on these rows, with more room about its plane if it is to be had."""

    @abstractmethod
    def widen_readout(
        self, x: Float64[np.ndarray, "n d"], y: Int64[np.ndarray, " n"], readout: Float64[np.ndarray, "k d1"]
    ) -> Float64[np.ndarray, "k d1"]:
        """Return a read-out that is right on all rows, as this one is, with more room."""


@dataclass(frozen=True)
class LinearPrograms(Refit):
    """Fit by the least sum of slacks, exactly: 0 where the targets are separable. For some hundred rows.

    A read-out of k classes has a slack for every row and other class. A unit that is done gets the largest margin,
    in whole numbers if small ones will do, so that freezing changes nothing.
    """

    exact = True

    def unit(self, x: Float64[np.ndarray, "n d"], t: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, " d1"]:
        """Solve one linear program."""
        rows, wanted, count = _merged(x, t.astype(np.int64))
        return least_slack(unit_rows(rows, wanted > 0), count).weights

    def readout(
        self, x: Float64[np.ndarray, "n d"], y: Int64[np.ndarray, " n"], start: Float64[np.ndarray, "k d1"]
    ) -> tuple[Float64[np.ndarray, "k d1"], float]:
        """Solve one linear program; two classes are one unit."""
        classes, width = start.shape
        rows, labels, count = _merged(x, y)
        if classes == 2:
            found = least_slack(unit_rows(rows, labels > 0), count)
            return np.stack([-found.weights, found.weights]) / 2, _no_noise(found.value)
        pairs = class_rows(np.c_[rows, np.ones(len(rows))], labels, classes)
        found = least_slack(pairs, np.repeat(count, classes - 1))
        weights = found.weights[:-classes].reshape(classes, width - 1)
        return np.c_[weights, found.weights[-classes:]], _no_noise(found.value)

    def widen(self, x: Float64[np.ndarray, "n d"], unit: Float64[np.ndarray, " d1"]) -> Float64[np.ndarray, " d1"]:
        """Return the plane of the largest margin, or its whole weights where they are at most 127 in size."""
        fires = x @ unit[:-1] + unit[-1] > 0
        found = separate(x, fires)
        if not found.separable:
            return unit
        plane: NDArray[np.float64] = np.r_[found.weights[0], found.bias]
        if not found.exact or max(map(abs, found.whole[0][:-1])) > 127:
            return plane
        whole = np.array(found.whole[0], float)
        if fires.any() and not fires.all():
            heights = x @ whole[:-1]
            whole[-1] = -(heights[~fires].max() + heights[fires].min()) / 2
        return whole

    def widen_readout(
        self, x: Float64[np.ndarray, "n d"], y: Int64[np.ndarray, " n"], readout: Float64[np.ndarray, "k d1"]
    ) -> Float64[np.ndarray, "k d1"]:
        """Return the read-out of the largest margin, or its whole weights where they are at most 127 in size."""
        if len(readout) == 2:
            plane = self.widen(x, readout[1] - readout[0])
            return np.stack([np.r_[-plane[:-1], 0.0], np.r_[plane[:-1], 2 * plane[-1]]])
        found = separate_classes(x, y, len(readout))
        if not found.separable:
            return readout
        if not found.exact or max(abs(value) for line in found.whole for value in line[:-1]) > 127:
            return np.column_stack([found.weights, found.bias])
        return np.array(found.whole, float)


@dataclass(frozen=True)
class Descents(Refit):
    """Fit by some steps of a quasi-Newton descent on squared hinge losses: for thousands of rows, nothing is exact.

    The loss of the read-out is the sum of max(0, 1 - u)²/2 over rows and classes, one class against the others.

    Parameters
    ----------
    steps
        At most so many steps for each fit; a read-out goes on from where it is.
    ridge
        Strength on the weights per row, > 0.
    """

    steps: int = 30
    ridge: float = 1e-6

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.ridge < np.inf:
            raise ValueError(f"steps must be at least 1 and ridge positive, got {self.steps} and {self.ridge}")

    def unit(self, x: Float64[np.ndarray, "n d"], t: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, " d1"]:
        """Descend from 0."""
        rows, _ = self._descended(x, np.where(t, 1.0, -1.0)[:, None], np.zeros((1, x.shape[1] + 1)))
        plane: NDArray[np.float64] = rows[0]
        return plane

    def readout(
        self, x: Float64[np.ndarray, "n d"], y: Int64[np.ndarray, " n"], start: Float64[np.ndarray, "k d1"]
    ) -> tuple[Float64[np.ndarray, "k d1"], float]:
        """Descend from the read-out as it is."""
        return self._descended(x, 2.0 * (y[:, None] == np.arange(len(start))) - 1, start)

    def widen(self, x: Float64[np.ndarray, "n d"], unit: Float64[np.ndarray, " d1"]) -> Float64[np.ndarray, " d1"]:
        """Return the unit."""
        return unit

    def widen_readout(
        self, x: Float64[np.ndarray, "n d"], y: Int64[np.ndarray, " n"], readout: Float64[np.ndarray, "k d1"]
    ) -> Float64[np.ndarray, "k d1"]:
        """Return the read-out."""
        return readout

    def _descended(
        self, x: NDArray[np.float64], t: NDArray[np.float64], start: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float]:
        ones = np.c_[x, np.ones(len(x))]
        strength = self.ridge * len(x)

        def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            weights = flat.reshape(start.shape)
            gap = np.maximum(1 - t * (ones @ weights.T), 0)
            slope = -(t * gap).T @ ones + strength * weights
            return float(0.5 * (gap**2).sum() + 0.5 * strength * (flat**2).sum()), slope.reshape(-1)

        found = minimize(loss, start.reshape(-1), jac=True, method="L-BFGS-B", options={"maxiter": self.steps})
        return found.x.reshape(start.shape), float(found.fun)


def _check_share(name: str, share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"{name} is a probability in (0, 1], got {share}")


def _merged(
    x: NDArray[np.float64], y: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the different rows with their labels and how often each is there."""
    both, count = np.unique(np.c_[x, y], axis=0, return_counts=True)
    return both[:, :-1], both[:, -1].astype(np.int64), count.astype(np.float64)


def _no_noise(value: float) -> float:
    """Return a sum of slacks as far as the solver's tolerance goes, so that equal sums compare as equal."""
    return round(value, 6)
