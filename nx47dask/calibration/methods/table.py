"""Measure the masks of all threshold pairs and least sizes with a single labelling per low threshold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.calibration.methods.component_table import (
    COUNTED,
    LEFT_OUT,
    NEAR,
    NEAR_VOXELS,
    RANK,
    VOXELS,
    count_found,
    measure_components,
    overlap_information,
    sum_kept,
)
from nx47dask.errors import InputError
from nx47dask.kernels.components import Connectivity, Labelling, label
from nx47dask.kernels.morphology import dilate
from nx47dask.kernels.probability import binarise, level_of, slice_histograms
from nx47dask.merge.histograms import quantile_levels
from nx47dask.metrics.octants import TOLERANCE
from nx47dask.metrics.score import IGNORE
from nx47dask.metrics.terms import TERMS, VOI_ALPHA
from nx47dask.steps.base import ThresholdBasis

__all__ = ["ThresholdTable", "threshold_table"]

MOST_LEVELS = 255
"""Largest number of thresholds: the rank of a voxel is a uint8."""
Entries = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ThresholdTable:
    """Size and agreement with labels of every mask of hysteresis and small-object removal.

    Entry (i, j, k) stands for ``hysteresis(lows[i], highs[j])`` followed by ``small_objects(sizes[k])``.

    Attributes
    ----------
    lows, highs : tuple of float
        Thresholds, ascending.
    sizes : tuple of int
        Least sizes in voxels, ascending.
    volume_vox : int
        Voxels of the volume.
    voxels, components : ndarray of int64, shape (lows, highs, sizes)
        Foreground voxels of the mask, and its components; -1 where low exceeds high.
    precision, recall, dice : ndarray of float64, shape (lows, highs, sizes)
        Agreement within 2 voxels, in [0, 1]: ``agreement["2"]`` of the official score. NaN where low exceeds high, and
        everywhere without labels; the same holds for ``voi`` and ``cheap``.
    voi : ndarray of float64, shape (lows, highs, sizes)
        Term of the variation of information, in (0, 1]: 1 / (1 + 0.3 (split + merge)).
    cheap : ndarray of float64, shape (lows, highs, sizes)
        The official score's weighted mean of ``dice``, in the place of surface Dice, and ``voi``.
    """

    lows: tuple[float, ...]
    highs: tuple[float, ...]
    sizes: tuple[int, ...]
    volume_vox: int
    voxels: NDArray[np.int64]
    components: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    dice: NDArray[np.float64]
    voi: NDArray[np.float64]
    cheap: NDArray[np.float64]

    @property
    def density(self) -> NDArray[np.float64]:
        """Foreground share of the volume, shape (lows, highs, sizes); NaN where low exceeds high."""
        return np.where(self.voxels < 0, np.nan, self.voxels / self.volume_vox)


@dataclass(frozen=True)
class _Surface:
    """Labelled surface: its voxels by component, and the voxels near it."""

    places: NDArray[np.uint8]
    points: NDArray[np.int64]
    starts: NDArray[np.int64]


def threshold_table(
    field: NDArray[np.unsignedinteger],
    lows: Sequence[float],
    highs: Sequence[float],
    sizes: Sequence[int],
    *,
    by: ThresholdBasis = "value",
    connectivity: Connectivity = 26,
    labels: NDArray[np.uint8] | None = None,
) -> ThresholdTable:
    """Measure the masks of all thresholds and least sizes of a probability field.

    Parameters
    ----------
    field : ndarray of uint8 or uint16, shape (Z, Y, X)
        Surface probability.
    lows, highs : sequence of float, in (0, 1], rising, 1 to 255 of each
        Thresholds of the hysteresis.
    sizes : sequence of int, at least 1, rising
        Components of at least so many voxels stay.
    by : {"value", "volume", "slice"}
        The thresholds are probabilities, or quantiles over the volume or over each slice.
    connectivity : {6, 18, 26}
        Of both steps.
    labels : ndarray of uint8, shape (Z, Y, X), optional
        0 background, 1 surface, 2 left out.

    Raises
    ------
    InputError
        A sequence is empty, too long or not rising, or an array does not fit the field.

    Notes
    -----
    Voxels, components, precision, recall and Dice are those of the mask. The variation of information is the official
    one with two exceptions: a component that voxels of label 2 cut into pieces counts as one component here, and with
    a connectivity other than 26 the components are of that connectivity.

    With n voxels in a component of one mask and the other, N in all, the variation of information (Meila, 2007) is
    1/N (sum of a log2 a over rows + the same over columns - 2 sum of n log2 n). A component that is not kept moves its
    voxels on the surface to the row of the background; the other terms are sums over the components that are kept.
    """
    _check(field, lows, highs, sizes, labels)
    low_ranks, high_ranks = (_padded(binarise(field, levels)) for levels in _levels(field, lows, highs, by))
    scored = labels is not None
    if labels is None:
        labels = np.zeros(field.shape, np.uint8)
    surface = _surface(_padded(labels))
    rows = [
        _entries(*label(low_ranks > i, Labelling(connectivity)), high_ranks, len(highs), np.asarray(sizes), surface)
        for i in range(len(lows))
    ]
    impossible = np.greater.outer(lows, highs)[:, :, None]
    entries: Entries = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    names = "voxels", "components"
    counts: Entries = {name: np.where(impossible, -1, entries.pop(name)).astype(np.int64) for name in names}
    scores: Entries = {name: np.where(impossible | (not scored), np.nan, values) for name, values in entries.items()}
    return ThresholdTable(tuple(lows), tuple(highs), tuple(sizes), field.size, **counts, **scores)


def _padded(array: NDArray[Any]) -> NDArray[Any]:
    """Pad every side by the tolerance, so that no search leaves the volume, and make the edges even.

    With even edges the labels come back contiguous.
    """
    return np.pad(array, [(TOLERANCE, TOLERANCE + edge % 2) for edge in array.shape])


def _entries(
    labels: NDArray[np.unsignedinteger],
    number: int,
    high_ranks: NDArray[np.uint8],
    highs: int,
    sizes: NDArray[np.int64],
    surface: _Surface,
) -> Entries:
    """Measure the entries of one low threshold, each of shape (highs, sizes)."""
    components = labels.ravel()
    measured = measure_components(components, high_ranks.ravel(), surface.places.ravel(), number)
    size_class = np.searchsorted(sizes, measured[:, VOXELS], side="right")
    classes = np.stack([measured[:, RANK], size_class], axis=1)

    def kept(values: NDArray[Any]) -> NDArray[np.float64]:
        return sum_kept(classes, values, highs, len(sizes))

    reached_by_class = np.zeros((highs + 1, len(sizes) + 1), dtype=np.int64)
    count_found(components, classes, surface.points, _ball(labels.shape), reached_by_class)
    reached = reached_by_class[::-1].cumsum(axis=0)[::-1][1:, 1:]
    labelled = len(surface.points)
    counted, near = kept(measured[:, COUNTED]), kept(measured[:, NEAR_VOXELS])
    dice = _ratio(near + reached, counted + labelled)
    voi = _voi_score(components, classes, measured[:, COUNTED], surface, (highs, len(sizes)))
    weights = TERMS["surface_dice"].weight, TERMS["voi"].weight
    return {
        "voxels": kept(measured[:, VOXELS]),
        "components": kept(np.ones(number + 1)),
        "precision": _ratio(near, counted),
        "recall": _ratio(reached, np.full(reached.shape, labelled)),
        "dice": dice,
        "voi": voi,
        "cheap": (weights[0] * dice + weights[1] * voi) / sum(weights),
    }


def _voi_score(
    components: NDArray[np.unsignedinteger],
    classes: NDArray[np.int64],
    counted: NDArray[np.int64],
    surface: _Surface,
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Compute the term of the variation of information of every entry from its sums of n log2 n."""
    missed = np.zeros((shape[0] + 1, shape[1] + 1))
    on_surface, shared = overlap_information(components, classes, surface.points, surface.starts, missed)
    beyond = counted - on_surface

    def kept(values: NDArray[Any]) -> NDArray[np.float64]:
        return sum_kept(classes, values, *shape)

    of_background = kept(beyond)
    rows = kept(_information(counted)) + _information(len(surface.points) - kept(on_surface))
    columns = _information(np.diff(surface.starts)).sum() + _information(of_background)
    cells = kept(shared + _information(beyond)) + missed[1:, 1:]
    bits = (rows + columns - 2 * cells) / np.maximum(of_background + len(surface.points), 1)
    return np.asarray(1 / (1 + VOI_ALPHA * np.maximum(bits, 0)), dtype=np.float64)


def _surface(labels: NDArray[np.uint8]) -> _Surface:
    mask = labels == 1
    places = dilate(mask, (TOLERANCE,) * 3, "ellipsoid").astype(np.uint8) * np.uint8(NEAR)
    places[labels == IGNORE] = LEFT_OUT
    components, number = label(mask, Labelling(26))
    points = np.flatnonzero(mask)
    owners = components[mask]
    starts = np.cumsum(np.bincount(owners, minlength=number + 1))
    return _Surface(places, points[np.argsort(owners, kind="stable")], starts)


def _ball(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """List the offsets within the tolerance, nearest first, as steps in a flat volume of this shape."""
    reach = range(-TOLERANCE, TOLERANCE + 1)
    ball = [step for step in itertools.product(reach, repeat=3) if sum(s * s for s in step) <= TOLERANCE**2]
    nearest = sorted(ball, key=lambda step: sum(s * s for s in step))
    return np.array([(z * shape[1] + y) * shape[2] + x for z, y, x in nearest], dtype=np.int64)


def _levels(
    field: NDArray[np.unsignedinteger], lows: Sequence[float], highs: Sequence[float], by: ThresholdBasis
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the stored levels of the thresholds, per slice or for all slices, as in the run of a workflow."""
    if by == "value":
        levels = np.array([[level_of(value, field.dtype) for value in (*lows, *highs)]], dtype=np.int64)
    else:
        histograms = slice_histograms(field)
        if by == "volume":
            histograms = histograms.sum(axis=0, keepdims=True)
        levels = quantile_levels(histograms, (*lows, *highs))
    return levels[:, : len(lows)], levels[:, len(lows) :]


def _information(voxels: NDArray[np.integer] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute n log2 n; 0 for 0."""
    return np.asarray(voxels * np.log2(np.maximum(voxels, 1)), dtype=np.float64)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``part / whole``; 1 where ``whole`` is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), 1.0)


def _check(
    field: NDArray[np.unsignedinteger],
    lows: Sequence[float],
    highs: Sequence[float],
    sizes: Sequence[int],
    labels: NDArray[np.uint8] | None,
) -> None:
    if field.ndim != 3 or not field.size or field.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"a threshold table is made of uint8 or uint16 of shape (Z, Y, X), not {field.dtype} of {field.shape}: "
            "store the probability as a run does"
        )
    for name, values, most in (("lows", lows, 1.0), ("highs", highs, 1.0), ("sizes", sizes, math.inf)):
        rising = all(a < b for a, b in itertools.pairwise((0, *values)))
        if not rising or not 1 <= len(values) <= MOST_LEVELS or values[-1] > most:
            raise InputError(
                f"{name} are {list(values)}: give 1 to {MOST_LEVELS} numbers, above 0, rising, none above {most}"
            )
    if labels is not None and labels.shape != field.shape:
        raise InputError(f"labels have shape {labels.shape}, the field has {field.shape}: both must be of one volume")
    if labels is not None and labels.max() > IGNORE:
        raise InputError(f"labels are 0, 1 and {IGNORE}, these go up to {labels.max()}: map them to these values")
