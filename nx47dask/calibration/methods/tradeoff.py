"""Recall against precision along a threshold: what a step of recall costs, and where precision starts to fall."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from nx47dask.errors import InputError

__all__ = [
    "CurvePoint",
    "Knee",
    "KneeSpread",
    "RecallCost",
    "knee",
    "operating_point",
    "recall_cost",
    "spread",
]

LEAST_SHARPNESS = 0.1
"""A curve that bends less than this has no knee: a circle's quarter has 0.41, a parabola 0.25, a straight line 0."""
ROUNDING = 1e-9
"""A step of recall that lacks this share is whole."""


@dataclass(frozen=True)
class CurvePoint:
    """One volume at one threshold.

    Attributes
    ----------
    threshold : float
        A probability or a quantile.
    density, precision, recall : float, in [0, 1]
    score : float or None
    """

    threshold: float
    density: float
    precision: float
    recall: float
    score: float | None = None


@dataclass(frozen=True)
class RecallCost:
    """What a step of recall costs.

    Attributes
    ----------
    at : CurvePoint
        Where the workflow stands.
    more, less : dict of str to float or None
        Changes of every value of :class:`CurvePoint` on the way to one step more, or less, of recall; no ``score``
        where it is not known. None: the curve ends before that.
    """

    at: CurvePoint
    more: dict[str, float] | None
    less: dict[str, float] | None


@dataclass(frozen=True)
class Knee:
    """Where precision starts to fall.

    Attributes
    ----------
    density, precision : float
    index : int
        Position in the curve as given.
    sharpness : float, from 0.1 to 1
        Distance from the diagonal, along an axis of the unit square; 1 is a right angle.
    """

    density: float
    precision: float
    index: int
    sharpness: float


@dataclass(frozen=True)
class KneeSpread:
    """Densities of the knees of several curves.

    Attributes
    ----------
    median, minimum, maximum : float
    found, curves : int
        How many of the curves have a knee.
    """

    median: float
    minimum: float
    maximum: float
    found: int
    curves: int


def operating_point(curve: Sequence[CurvePoint], threshold: float) -> CurvePoint:
    """The point of a curve at a threshold, linear between its points.

    Parameters
    ----------
    curve : sequence of CurvePoint, in any order
        Of different thresholds.
    threshold : float

    Raises
    ------
    InputError
        The threshold lies outside the curve, or the curve has a threshold twice.
    """
    points = sorted(curve, key=lambda point: point.threshold)
    thresholds = [point.threshold for point in points]
    if len(set(thresholds)) < len(thresholds):
        raise InputError(f"a curve needs different thresholds: {', '.join(f'{one:g}' for one in thresholds)}")
    if not points or not thresholds[0] <= threshold <= thresholds[-1]:
        reach = f"goes from {thresholds[0]:g} to {thresholds[-1]:g}" if points else "has no points"
        raise InputError(f"the curve {reach} and does not hold the threshold {threshold:g}; measure it there too")
    right = next(index for index, one in enumerate(thresholds) if one >= threshold)
    if thresholds[right] == threshold:
        return points[right]
    left = points[right - 1]
    return _between(left, points[right], (threshold - left.threshold) / (thresholds[right] - left.threshold))


def recall_cost(curve: Sequence[CurvePoint], threshold: float, step: float = 0.01) -> RecallCost:
    """What it costs to move recall by a step up or down the curve.

    The curve is followed from the operating point, to lower thresholds for more recall, to higher ones for less, until
    recall has first moved by the step; it is linear between its points.

    Parameters
    ----------
    curve : sequence of CurvePoint, in any order
        Of different thresholds.
    threshold : float
        Where the workflow stands.
    step : float
        Of recall.

    Raises
    ------
    InputError
        As for :func:`operating_point`.
    """
    point = operating_point(curve, threshold)
    points = sorted(curve, key=lambda one: one.threshold)
    lower = (one for one in reversed(points) if one.threshold < threshold)
    higher = (one for one in points if one.threshold > threshold)
    return RecallCost(point, _changes(point, lower, step), _changes(point, higher, -step))


def knee(density: ArrayLike, precision: ArrayLike) -> Knee | None:
    """Where precision starts to fall as a mask gets denser.

    Both axes are scaled to [0, 1], and the knee is the point farthest above the falling diagonal: the chord of a curve
    that falls all the way (Satopaa et al., "Finding a 'kneedle' in a haystack", 2011, without the smoothing, since the
    values are exact counts). It depends on how far the curve goes, but not on the unit of either axis.

    Parameters
    ----------
    density, precision : array-like of float, shape (N,)
        In any order.

    Returns
    -------
    Knee or None
        None where precision does not fall after the knee, or the curve is straight (sharpness below 0.1). Of equally
        distant points the least dense.

    Raises
    ------
    InputError
        The lengths differ or a value is not finite.
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (density, precision))
    if x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError(
            f"a knee needs as many finite densities as precisions, not {x.shape} and {y.shape}; leave out what was not "
            "measured"
        )
    if x.size < 3 or not (np.ptp(x) and np.ptp(y)):
        return None
    height = (x - x.min()) / np.ptp(x) + (y - y.min()) / np.ptp(y) - 1
    order = np.argsort(x, kind="stable")
    index = int(order[np.argmax(height[order])])
    if index == order[-1] or height[index] < LEAST_SHARPNESS:
        return None
    return Knee(float(x[index]), float(y[index]), index, float(height[index]))


def spread(knees: Iterable[Knee | None]) -> KneeSpread | None:
    """Densities at which the precision of several volumes starts to fall; None where none has a knee."""
    every = list(knees)
    densities = [one.density for one in every if one is not None]
    if not densities:
        return None
    return KneeSpread(float(np.median(densities)), min(densities), max(densities), len(densities), len(every))


def _changes(start: CurvePoint, path: Iterable[CurvePoint], step: float) -> dict[str, float] | None:
    """Differences from the start to where the path has first moved recall by a step."""
    last = start
    for point in path:
        moved, now = last.recall - start.recall, point.recall - start.recall
        if now / step >= 1 - ROUNDING:
            target = _between(last, point, (step - moved) / (now - moved))
            before = asdict(start)
            return {
                name: value - before[name]
                for name, value in asdict(target).items()
                if value is not None and before[name] is not None
            }
        last = point
    return None


def _between(a: CurvePoint, b: CurvePoint, share: float) -> CurvePoint:
    """The point so far on the way from a to b."""
    score = None if a.score is None or b.score is None else a.score + share * (b.score - a.score)
    return CurvePoint(
        a.threshold + share * (b.threshold - a.threshold),
        a.density + share * (b.density - a.density),
        a.precision + share * (b.precision - a.precision),
        a.recall + share * (b.recall - a.recall),
        score,
    )
