"""Paired differences between two runs over the same volumes: mean, bootstrap interval, sign test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nx47dask.errors import InputError
from nx47dask.words import Paired

__all__ = ["ROUNDING_ERROR", "PairedDifference", "as_dict", "paired_difference"]

ROUNDING_ERROR = 1e-12
"""Largest difference that is a rounding error and not a change."""

SEED = 0
RESAMPLES = 10_000
RESAMPLES_AT_ONCE = 500
TAIL = 0.025


@dataclass(frozen=True)
class PairedDifference:
    """Difference between a candidate and a baseline over the same volumes.

    Attributes
    ----------
    mean : float
        Mean of candidate - baseline.
    low, high : float
        95 % interval of the mean; for a single volume both equal the mean, because there is nothing to resample.
    wins, losses, ties : int
        Number of volumes where the candidate is higher, lower, equal (within 1e-12).
    p : float
        p value of the exact two-sided sign test, in [0, 1]: the probability of wins and losses at least as uneven as
        these if both were equally likely. 1 if all are ties.
    """

    mean: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int
    p: float


def as_dict(difference: PairedDifference) -> Paired:
    """Return the values in the form of the JSON files."""
    return cast("Paired", asdict(difference))


def paired_difference(baseline: Sequence[float], candidate: Sequence[float]) -> PairedDifference:
    """Compare two runs volume by volume.

    The interval is the percentile bootstrap of the mean (Efron, "Bootstrap methods: another look at the jackknife",
    1979): 10,000 resamples of the volumes, always the same for the same number of volumes. The test is the exact
    binomial sign test; it leaves out ties.

    Parameters
    ----------
    baseline, candidate : sequence of float, length N >= 1
        A finite value per volume, in the same order of volumes.

    Raises
    ------
    InputError
        The lengths differ or are 0, or a value is not finite.
    """
    if len(baseline) != len(candidate) or not len(baseline):
        raise InputError(
            f"paired differences need the same volumes on both sides: {len(baseline)} and {len(candidate)} values"
        )
    differences = np.subtract(candidate, baseline, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise InputError("paired differences need finite values on both sides")
    low, high = _bootstrap_interval(differences)
    wins = int(np.count_nonzero(differences > ROUNDING_ERROR))
    losses = int(np.count_nonzero(differences < -ROUNDING_ERROR))
    ties = len(differences) - wins - losses
    return PairedDifference(float(differences.mean()), low, high, wins, losses, ties, _sign_test(wins, losses))


def _bootstrap_interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    rng = np.random.default_rng(SEED)
    count = len(differences)
    parts = [
        differences[rng.integers(0, count, size=(RESAMPLES_AT_ONCE, count))].mean(axis=1)
        for _ in range(RESAMPLES // RESAMPLES_AT_ONCE)
    ]
    low, high = np.quantile(np.concatenate(parts), [TAIL, 1 - TAIL])
    return float(low), float(high)


def _sign_test(wins: int, losses: int) -> float:
    count = wins + losses
    tail = sum(math.comb(count, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / (1 << count))
