"""Density targets: which share of a volume is surface, told from what is known of it without labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from nx47dask.errors import InputError
from nx47dask.kernels.probability import level_of

__all__ = ["DensityModel", "HeldOutErrors", "features", "fit", "held_out_errors"]

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)
ENTROPY_BINS = 256
PENALTIES = (0.01, 0.1, 1.0)
"""Of the ridge regression, per volume: 1 halves the weight of a feature that stands alone."""
WORTH = 0.7
"""Another feature must bring the squared leave-one-out error to this share: the best of a dozen features of pure noise
often lowers it a little (targets then were a third worse than a constant, with 9 volumes; now a sixth)."""
BEYOND = 0.25
"""How far a target may lie outside the range of those seen, in units of that range on the logit scale."""
FLAT = 1e-9
"""A feature that varies less than this relative to its size is constant."""


@dataclass(frozen=True)
class DensityModel:
    """A ridge regression of the density's logit on a few features.

    Attributes
    ----------
    names : tuple of str
        Features in use; none: the model is a constant.
    means, scales, weights : tuple of float
        Mean and standard deviation of each over the volumes seen, and what one standard deviation adds to the logit.
    intercept : float
        Logit of the density of a volume of mean features.
    penalty : float
        Of the squared weights, per volume.
    low, high : float, in (0, 1)
        Least and largest target to give.
    """

    names: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    penalty: float
    low: float
    high: float

    def __post_init__(self) -> None:
        for name in ("names", "means", "scales", "weights"):  # JSON gives them back as lists
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def predict(self, features: Mapping[str, float]) -> float:
        """Target density of a volume, a share within ``low`` and ``high``.

        Raises
        ------
        InputError
            A feature that the model uses is not there.
        """
        missing = [name for name in self.names if name not in features]
        if missing:
            raise InputError(
                f"the density target needs {', '.join(missing)}; known of the volume: {', '.join(features)}; "
                "ingest it with all statistics of its scan"
            )
        terms = zip(self.names, self.means, self.scales, self.weights, strict=True)
        value = self.intercept + sum(weight * (features[name] - mean) / scale for name, mean, scale, weight in terms)
        return min(max(float(expit(value)), self.low), self.high)


@dataclass(frozen=True)
class HeldOutErrors:
    """Absolute errors of the target density of volumes that the model has not seen; empty with one volume.

    Attributes
    ----------
    model, constant : tuple of float
        Per volume, of the model and of a model without features.
    """

    model: tuple[float, ...]
    constant: tuple[float, ...]

    @property
    def helps(self) -> bool:
        """Whether the features make the mean error smaller."""
        return math.fsum(self.model) < math.fsum(self.constant)


def features(scan: Mapping[str, float], field: NDArray[np.unsignedinteger]) -> dict[str, float]:
    """What is known of a volume without labels. Nothing depends on the unit of the grey values or of the probability.

    Parameters
    ----------
    scan : mapping of str to float
        ``minimum``, ``maximum``, ``mean`` and ``std`` of the grey values, and maybe ``mean_nonzero``, as in
        :class:`nx47dask.kernels.statistics.ScanStatistics`.
    field : ndarray of uint8 or uint16, shape (Z, Y, X)
        Probability, at least one voxel.

    Returns
    -------
    dict of str to float
        ``grey_mean`` and ``grey_std`` in [0, 1] of the range of grey values, ``grey_cv`` (std / mean), and
        ``grey_empty``, the share of voxels of grey value 0, where ``mean_nonzero`` is known; ``probability_mean``,
        ``_std``, ``_q50`` to ``_q99``, ``_entropy`` (of its histogram in 256 bins; 1 where all are as frequent) and
        ``_above_half`` (share of voxels of at least 0.5).
    """
    span = scan["maximum"] - scan["minimum"] or 1
    found = {
        "grey_mean": (scan["mean"] - scan["minimum"]) / span,
        "grey_std": scan["std"] / span,
        "grey_cv": scan["std"] / scan["mean"] if scan["mean"] else 0.0,
    }
    if "mean_nonzero" in scan:  # zeros add nothing to the sum, so the two means tell how many there are
        found["grey_empty"] = 1 - scan["mean"] / scan["mean_nonzero"] if scan["mean_nonzero"] else 1.0
    shares = _histogram(field) / field.size
    values = np.arange(shares.size) / (shares.size - 1)
    mean = float(shares @ values)
    coarse = shares.reshape(ENTROPY_BINS, -1).sum(axis=1)
    coarse = coarse[coarse > 0]
    cumulated = np.cumsum(shares)
    found |= {
        "probability_mean": mean,
        "probability_std": math.sqrt(float(shares @ (values - mean) ** 2)),
        "probability_entropy": float(-(coarse * np.log2(coarse)).sum()) / math.log2(ENTROPY_BINS),
        "probability_above_half": float(shares[level_of(0.5, field.dtype) :].sum()),
    }
    for q in QUANTILES:
        # Rounding must not push the sum of the shares below a quantile that it reaches.
        found[f"probability_q{100 * q:.0f}"] = float(values[np.argmax(cumulated >= q - 1e-12)])
    return found


def fit(features: Sequence[Mapping[str, float]], targets: Sequence[float]) -> DensityModel:
    """Learn the density target from labelled volumes.

    Features are taken in one by one, each time the one, with the penalty, that makes the leave-one-out error on the
    logit scale smallest, as long as its square falls by 30 %. At most a third as many are taken as there are volumes,
    and none with three or fewer. (Ridge regression: Hoerl and Kennard, 1970; its leave-one-out error in closed form,
    PRESS: Allen, 1974.)

    Parameters
    ----------
    features : sequence of mapping of str to float, length N >= 1
        Of each volume; those are used that every volume has.
    targets : sequence of float in (0, 1), length N
        Best density of each volume.

    Raises
    ------
    InputError
        The lengths differ or are 0, a target is not in (0, 1), or a feature is not finite.
    """
    goal = _logits(features, targets)
    names = [name for name in features[0] if all(name in one for one in features)]
    table = np.array([[one[name] for name in names] for one in features], dtype=np.float64)
    if not np.isfinite(table).all():
        raise InputError("the density target needs finite features; leave out the volume that has others")
    means, scales = table.mean(axis=0), table.std(axis=0)
    varying = np.flatnonzero(scales > FLAT * np.abs(means))
    standard = (table[:, varying] - means[varying]) / scales[varying]
    columns, penalty = _select(standard, goal, len(goal) // 3 if len(goal) > 3 else 0)
    weights = _smoother(standard[:, columns], penalty) @ (goal - goal.mean())
    used = varying[columns]
    margin = BEYOND * np.ptp(goal)
    return DensityModel(
        names=tuple(names[index] for index in used),
        means=tuple(means[used].tolist()),
        scales=tuple(scales[used].tolist()),
        weights=tuple(weights.tolist()),
        intercept=float(goal.mean()),
        penalty=penalty,
        low=float(expit(goal.min() - margin)),
        high=float(expit(goal.max() + margin)),
    )


def held_out_errors(features: Sequence[Mapping[str, float]], targets: Sequence[float]) -> HeldOutErrors:
    """Leave out each volume, learn from the others, and tell its density: do the features help at all?

    Parameters
    ----------
    features, targets
        As for :func:`fit`.
    """
    _logits(features, targets)
    model, constant = [], []
    for index in range(len(targets) if len(targets) > 1 else 0):
        others = [one for i, one in enumerate(features) if i != index]
        goals = [one for i, one in enumerate(targets) if i != index]
        model.append(abs(fit(others, goals).predict(features[index]) - targets[index]))
        constant.append(abs(fit([{}] * len(goals), goals).predict({}) - targets[index]))
    return HeldOutErrors(tuple(model), tuple(constant))


def _histogram(field: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """Slice by slice: counting needs 8 bytes per voxel."""
    histogram = np.zeros(np.iinfo(field.dtype).max + 1, dtype=np.int64)
    for plane in field:
        histogram += np.bincount(plane.ravel(), minlength=histogram.size)
    return histogram


def _logits(features: Sequence[Mapping[str, float]], targets: Sequence[float]) -> NDArray[np.float64]:
    if len(features) != len(targets) or not len(targets):
        raise InputError(
            f"density targets need features and a target of every volume: {len(features)} and {len(targets)} given"
        )
    outside = [f"{target:g} (volume {index + 1})" for index, target in enumerate(targets) if not 0 < target < 1]
    if outside:
        raise InputError(
            f"density targets are shares between 0 and 1, not {', '.join(outside)}; leave out volumes whose best mask "
            "is empty or full"
        )
    return np.asarray(logit(np.asarray(targets, dtype=np.float64)))


def _select(table: NDArray[np.float64], goal: NDArray[np.float64], most: int) -> tuple[list[int], float]:
    """Columns of a standardised table, shape (N, features), and the penalty to use them with."""
    if not most:
        return [], 0.0
    chosen: list[int] = []
    penalty, least = 0.0, _left_out_error(table[:, []], goal, 0.0)
    while len(chosen) < most:
        options = [
            (_left_out_error(table[:, [*chosen, column]], goal, weight), column, weight)
            for column in range(table.shape[1])
            if column not in chosen
            for weight in PENALTIES
        ]
        if not options or min(options)[0] > WORTH * least:
            break
        least, column, penalty = min(options)
        chosen.append(column)
    return chosen, penalty


def _smoother(table: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """What takes centred goals to weights, shape (features, N)."""
    count, width = table.shape
    return np.linalg.solve(table.T @ table + penalty * count * np.eye(width), table.T)


def _left_out_error(table: NDArray[np.float64], goal: NDArray[np.float64], penalty: float) -> float:
    """Mean squared error of every goal as told from the others, with columns and penalty as they are."""
    smoother = _smoother(table, penalty)
    leverage = 1 / len(goal) + np.einsum("ij,ji->i", table, smoother)
    residual = (goal - goal.mean() - table @ (smoother @ goal)) / (1 - leverage)
    return float(np.mean(residual**2))
