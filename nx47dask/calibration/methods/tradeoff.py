"""Measure along a threshold the cost of a step of recall, and find the density at which precision starts to fall."""

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
"""Least sharpness of a knee: a quarter of a circle has 0.41, a parabola 0.25, a straight line 0."""
ROUNDING = 1e-9
"""Share of a step of recall that may be missing from it."""


@dataclass(frozen=True)
class CurvePoint:
    """Agreement of a volume at one threshold.

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
    """Cost of a step of recall.

    Attributes
    ----------
    at : CurvePoint
        Operating point of the workflow.
    more, less : dict of str to float or None
        Changes of every value of :class:`CurvePoint` for one step more, or less, of recall; ``score`` is missing if it
        is not known. None if the curve ends before that.
    """

    at: CurvePoint
    more: dict[str, float] | None
    less: dict[str, float] | None


@dataclass(frozen=True)
class Knee:
    """Point of a curve at which precision starts to fall.

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
        Number of curves with a knee, and of all curves.
    """

    median: float
    minimum: float
    maximum: float
    found: int
    curves: int


def operating_point(curve: Sequence[CurvePoint], threshold: float) -> CurvePoint:
    """Return the point of a curve at a threshold, by linear interpolation.

    Parameters
    ----------
    curve : sequence of CurvePoint, in any order
        Points of different thresholds.
    threshold : float

    Raises
    ------
    InputError
        The threshold lies outside the curve, or the curve has a threshold twice.
    """
    points = sorted(curve, key=lambda point: point.threshold)
    thresholds = [point.threshold for point in points]
    if len(set(thresholds)) < len(thresholds):
        raise InputError(f"a curve needs different thresholds: {', '.join(f'{value:g}' for value in thresholds)}")
    if not points or not thresholds[0] <= threshold <= thresholds[-1]:
        reach = f"goes from {thresholds[0]:g} to {thresholds[-1]:g}" if points else "has no points"
        raise InputError(
            f"the curve {reach} and does not hold the threshold {threshold:g}", hint="measure it there too"
        )
    right = next(index for index, value in enumerate(thresholds) if value >= threshold)
    if thresholds[right] == threshold:
        return points[right]
    left = points[right - 1]
    return _between(left, points[right], (threshold - left.threshold) / (thresholds[right] - left.threshold))


def recall_cost(curve: Sequence[CurvePoint], threshold: float, step: float = 0.01) -> RecallCost:
    """Measure the cost of a step more or less of recall along a curve.

    The curve is followed from the operating point, to lower thresholds for more recall, to higher ones for less, until
    recall has first moved by the step; it is linear between its points.

    Parameters
    ----------
    curve : sequence of CurvePoint, in any order
        Points of different thresholds.
    threshold : float
        Threshold of the workflow.
    step : float
        Step of recall.

    Raises
    ------
    InputError
        As for :func:`operating_point`.
    """
    point = operating_point(curve, threshold)
    points = sorted(curve, key=lambda other: other.threshold)
    lower = (other for other in reversed(points) if other.threshold < threshold)
    higher = (other for other in points if other.threshold > threshold)
    return RecallCost(point, _changes(point, lower, step), _changes(point, higher, -step))


def knee(density: ArrayLike, precision: ArrayLike) -> Knee | None:
    """Find the point at which precision starts to fall as a mask gets denser.

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
            f"a knee needs as many finite densities as precisions, not {x.shape} and {y.shape}",
            hint="leave out what was not measured",
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
    """Summarise the densities at which the precision of several volumes starts to fall; None without any knee."""
    every = list(knees)
    densities = [bend.density for bend in every if bend is not None]
    if not densities:
        return None
    return KneeSpread(float(np.median(densities)), min(densities), max(densities), len(densities), len(every))


def _changes(start: CurvePoint, path: Iterable[CurvePoint], step: float) -> dict[str, float] | None:
    """Return the differences from the start to the first point where recall has moved by a step."""
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
    """Interpolate between two points; ``share`` 0 gives a, 1 gives b."""
    score = None if a.score is None or b.score is None else a.score + share * (b.score - a.score)
    return CurvePoint(
        a.threshold + share * (b.threshold - a.threshold),
        a.density + share * (b.density - a.density),
        a.precision + share * (b.precision - a.precision),
        a.recall + share * (b.recall - a.recall),
        score,
    )
