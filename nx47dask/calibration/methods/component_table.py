"""Measure the components of a mask in sums from which every stricter mask follows.

The class of a component above a low threshold is its size and the number of high thresholds that its voxels reach. A
high threshold with a least size keeps whole classes. So the content of every stricter mask is a sum over classes, and
one labelling is enough for all of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.kernels.compiled import compiled

__all__ = [
    "COUNTED",
    "LEFT_OUT",
    "NEAR",
    "NEAR_VOXELS",
    "RANK",
    "VOXELS",
    "count_found",
    "measure_components",
    "overlap_information",
    "sum_kept",
]

NEAR, LEFT_OUT = 1, 2
"""Places of a voxel: near the labelled surface, or in a part of the volume that is left out; any other place is 0."""
VOXELS, RANK, COUNTED, NEAR_VOXELS = range(4)
"""Columns of :func:`measure_components`."""


@compiled
def measure_components(
    labels: NDArray[np.unsignedinteger], ranks: NDArray[np.uint8], places: NDArray[np.uint8], number: int
) -> NDArray[np.int64]:
    """Measure components, and remove left-out voxels from ``labels``.

    Parameters
    ----------
    labels : ndarray of unsigned int, shape (voxels,)
        Components from 1, of the flat volume. Overwritten: 0 where a voxel is left out.
    ranks : ndarray of uint8, shape (voxels,)
        Number of high thresholds that a voxel reaches.
    places : ndarray of uint8, shape (voxels,)
        0, ``NEAR`` or ``LEFT_OUT``.
    number : int
        Number of components.

    Returns
    -------
    ndarray of int64, shape (number + 1, 4)
        Per component (row 0 stays 0): voxels; highest rank; voxels that are not left out; those near the labels.
    """
    measured = np.zeros((number + 1, 4), np.int64)
    for voxel in range(len(labels)):
        component = labels[voxel]
        if component != 0:
            measured[component, VOXELS] += 1
            measured[component, RANK] = max(measured[component, RANK], ranks[voxel])
            if places[voxel] == LEFT_OUT:
                labels[voxel] = 0
            else:
                measured[component, COUNTED] += 1
                measured[component, NEAR_VOXELS] += places[voxel]
    return measured


@compiled
def count_found(
    labels: NDArray[np.unsignedinteger],
    classes: NDArray[np.int64],
    points: NDArray[np.int64],
    offsets: NDArray[np.int64],
    reached: NDArray[np.int64],
) -> None:
    """Count points that have a voxel of a kept component within reach.

    Parameters
    ----------
    labels : ndarray of unsigned int, shape (voxels,)
        Components, of the flat volume.
    classes : ndarray of int64, shape (components + 1, 2)
        Rank and size class of each component.
    points : ndarray of int64, shape (points,)
        Voxels of the labelled surface, as positions in the flat volume; no offset from them may leave the volume.
    offsets : ndarray of int64, shape (offsets,)
        Voxels within reach, as steps in the flat volume, nearest first: the search for a point ends at a component
        that every mask keeps.
    reached : ndarray of int64, shape (ranks + 1, size classes + 1)
        Added to: entry (r, s) counts the points whose components of size class s or above have r as highest rank (r is
        1 or more). The sum over ranks from r on counts the points found where rank r and size class s are needed.
    """
    top, largest = reached.shape[0] - 1, reached.shape[1] - 1
    best = np.zeros(largest + 1, np.int64)
    everywhere = 0
    for point in points:
        last = 0
        for offset in offsets:
            component = labels[point + offset]
            if component == 0 or component == last:
                continue
            rank, size_class = classes[component, 0], classes[component, 1]
            if rank == top and size_class == largest:
                everywhere += 1
                break
            if last == 0:
                best[:] = 0
            last = component
            for size in range(size_class + 1):
                best[size] = max(best[size], rank)
        else:
            if last != 0:
                for size in range(largest + 1):
                    reached[best[size], size] += 1
    reached[top] += everywhere


@compiled
def overlap_information(
    labels: NDArray[np.unsignedinteger],
    classes: NDArray[np.int64],
    points: NDArray[np.int64],
    starts: NDArray[np.int64],
    missed: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Sum what overlaps with components of the labelled surface add to the variation of information.

    Parameters
    ----------
    labels, classes, points
        As in :func:`count_found`; the points are grouped by the component of the surface that they belong to.
    starts : ndarray of int64, shape (surface components + 1,)
        First point of each group, and the number of points.
    missed : ndarray of float64, shape (ranks + 1, size classes + 1)
        Added to: sum of n log2 n over the surface's components, n the voxels of one on which no component is left
        where that rank and size class are needed.

    Returns
    -------
    on_surface : ndarray of int64, shape (components + 1,)
        Voxels of each component on the surface.
    information : ndarray of float64, shape (components + 1,)
        Sum of n log2 n over the surface's components, n the voxels that one shares with the component.
    """
    on_surface, information = np.zeros(len(classes), np.int64), np.zeros(len(classes), np.float64)
    shared, met = np.zeros(len(classes), np.int64), np.zeros(len(classes), np.int64)
    covered = np.zeros(missed.shape, np.int64)
    for group in range(len(starts) - 1):
        meetings = 0
        for point in points[starts[group] : starts[group + 1]]:
            component = labels[point]
            if component != 0:
                if shared[component] == 0:
                    met[meetings] = component
                    meetings += 1
                shared[component] += 1
        covered[:] = 0
        for component in met[:meetings]:
            voxels = shared[component]
            on_surface[component] += voxels
            information[component] += voxels * math.log2(voxels)
            covered[classes[component, 0], classes[component, 1]] += voxels
            shared[component] = 0
        _add_missed(starts[group + 1] - starts[group], covered, missed)
    return on_surface, information


@compiled
def _add_missed(voxels: int, covered: NDArray[np.int64], missed: NDArray[np.float64]) -> None:
    """Add n log2 n of the voxels of a surface component that every class leaves; ``covered`` becomes cumulative."""
    ranks, sizes = covered.shape
    before, information = 0, 0.0  # neighbouring classes mostly leave the same
    for rank in range(ranks - 2, -1, -1):
        covered[rank] += covered[rank + 1]
    for size in range(sizes - 2, -1, -1):
        covered[:, size] += covered[:, size + 1]
    for rank in range(ranks):
        for size in range(sizes):
            left = voxels - covered[rank, size]
            if left != before:
                before, information = left, left * math.log2(left) if left > 0 else 0.0
            missed[rank, size] += information


def sum_kept(classes: NDArray[np.int64], values: NDArray[Any], ranks: int, sizes: int) -> NDArray[np.float64]:
    """Sum a value of the components over those that are kept.

    Parameters
    ----------
    classes : ndarray of int64, shape (components, 2)
        Rank, 0 to ``ranks``, and size class, 0 to ``sizes``, of each component.
    values : ndarray, shape (components,)
        Values to add up; whole numbers stay exact up to 2^53.

    Returns
    -------
    ndarray of float64, shape (ranks, sizes)
        Entry (r - 1, s - 1) is the sum over the components of rank r or above and size class s or above.
    """
    cells = classes[:, 0] * (sizes + 1) + classes[:, 1]
    sums = np.bincount(cells, weights=values, minlength=(ranks + 1) * (sizes + 1)).reshape(ranks + 1, sizes + 1)
    return np.asarray(sums[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1][1:, 1:], dtype=np.float64)
