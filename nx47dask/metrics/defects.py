"""Where a prediction is pierced or joins sheets that the labels keep apart.

These places explain a score and are for looking at; the score itself counts features without placing them. A hole is
a piece of the labels that the prediction lacks and that would plug a tunnel of it, or a cavity of the prediction where
the labels have none. A bridge is where the parts of the prediction that grow from two components of the labels meet.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Box, Index
from nx47dask.kernels.compiled import compiled
from nx47dask.kernels.components import Labelling, label

__all__ = ["Place", "find_bridges", "find_holes"]

Mask = NDArray[np.bool_]
Labels = NDArray[np.unsignedinteger]
_ALL = Labelling(26)


@dataclass(frozen=True, slots=True)
class Place:
    """A defect: its bounding box and its size in voxels."""

    box: Box
    voxels: int


def find_holes(prediction: Mask, labels: Mask) -> list[Place]:
    """Holes through the prediction, and cavities in it, that the labels do not have.

    Parameters
    ----------
    prediction, labels : ndarray of bool, shape (Z, Y, X)

    Returns
    -------
    list of Place
        26-connected pieces of the labels without the prediction that raise the Euler number of the 6-connected
        prediction when they are added to it and touch it, and cavities; largest first.
    """
    missing, count = label(labels & ~prediction, _ALL)
    change, touches = _plug(prediction, missing, count)
    plugs = np.flatnonzero((change > 0) & touches)
    return _largest_first([*_places(missing, plugs), *_places(*_own_cavities(prediction, labels))])


def find_bridges(components: Labels, sheets: Labels, pairs: NDArray[np.int64]) -> list[Place]:
    """Places at which a component of the prediction joins components of the labels.

    Parameters
    ----------
    components, sheets : ndarray of unsigned int, shape (Z, Y, X)
        26-connected components of the prediction and of the labels; 0 outside.
    pairs : ndarray of int64, shape (pairs, 3)
        Which of them meet: component of the prediction, component of the labels (0 for none), voxels.

    Returns
    -------
    list of Place
        26-connected sets of voxels at which the geodesic zones of influence of two components meet inside the
        prediction; largest first.
    """
    met, times = np.unique(pairs[(pairs[:, :2] > 0).all(axis=1), 0], return_counts=True)
    if not (times > 1).any():
        return []
    joins = np.zeros(int(components.max()) + 1, dtype=bool)
    joins[met[times > 1]] = True
    prediction = joins[components]
    zones = np.where(prediction, sheets, 0).astype(np.int32)
    seeds = np.argwhere(zones)
    queue = np.empty((np.count_nonzero(prediction), 3), dtype=np.int32)
    queue[: len(seeds)] = seeds
    border = np.zeros_like(prediction)
    _grow_zones(prediction, zones, queue, len(seeds), border)
    meetings, count = label(border, _ALL)
    return _largest_first(_places(meetings, np.arange(1, count + 1)))


def _largest_first(places: Iterable[Place]) -> list[Place]:
    return sorted(places, key=lambda place: (-place.voxels, place.box.start))


def _own_cavities(prediction: Mask, labels: Mask) -> tuple[Labels, NDArray[np.intp]]:
    """Components of the prediction's background, and which are cavities that meet no cavity of the labels."""
    background, cavity = _cavities(prediction)
    if cavity.any():
        other, shared = _cavities(labels)
        cavity[background[shared[other]]] = False
    return background, np.flatnonzero(cavity)


def _cavities(mask: Mask) -> tuple[Labels, NDArray[np.bool_]]:
    """26-connected components of the background, and which of them do not touch the border."""
    background, count = label(~mask, _ALL)
    enclosed = np.arange(count + 1) > 0
    for axis, side in itertools.product(range(3), (0, -1)):
        enclosed[np.take(background, side, axis=axis)] = False
    return background, enclosed


def _places(labelled: Labels, wanted: NDArray[np.intp]) -> list[Place]:
    """Bounding boxes and sizes of some components."""
    if not len(wanted):
        return []
    row = np.full(int(labelled.max()) + 1, -1)
    row[wanted] = np.arange(len(wanted))
    extents = _measure(labelled, row, len(wanted))
    return [
        Place(Box((int(z0), int(y0), int(x0)), (int(z1) + 1, int(y1) + 1, int(x1) + 1)), int(voxels))
        for z0, y0, x0, z1, y1, x1, voxels in extents
    ]


@compiled
def _measure(labelled: Labels, row: NDArray[np.intp], count: int) -> NDArray[np.int64]:
    """First and last coordinates and voxels of the components that have a row."""
    extents = np.zeros((count, 7), np.int64)
    extents[:, :3] = max(labelled.shape)
    depth, height, width = labelled.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                number = row[labelled[z, y, x]]
                if labelled[z, y, x] and number >= 0:
                    for axis, place in enumerate((z, y, x)):
                        extents[number, axis] = min(extents[number, axis], place)
                        extents[number, 3 + axis] = max(extents[number, 3 + axis], place)
                    extents[number, 6] += 1
    return extents


@compiled
def _plug(prediction: Mask, missing: Labels, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each piece, how the Euler number changes when it is added, and whether it shares a face with the prediction.

    A cell is new where all its voxels are in the sum and one is of the piece; it counts at the first such voxel.
    """
    change, touches = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.bool_)
    depth, height, width = missing.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                piece = missing[z, y, x]
                if piece == 0:
                    continue
                for kind in range(8):
                    size = (kind >> 2, kind >> 1 & 1, kind & 1)
                    sign = -1 if (size[0] + size[1] + size[2]) % 2 else 1
                    for z0 in range(max(z - size[0], 0), min(z, depth - 1 - size[0]) + 1):
                        for y0 in range(max(y - size[1], 0), min(y, height - 1 - size[1]) + 1):
                            for x0 in range(max(x - size[2], 0), min(x, width - 1 - size[2]) + 1):
                                new = _is_new(prediction, missing, (z0, y0, x0), size, (z, y, x))
                                change[piece] += sign * new
                touches[piece] |= (
                    (z > 0 and prediction[z - 1, y, x])
                    or (z + 1 < depth and prediction[z + 1, y, x])
                    or (y > 0 and prediction[z, y - 1, x])
                    or (y + 1 < height and prediction[z, y + 1, x])
                    or (x > 0 and prediction[z, y, x - 1])
                    or (x + 1 < width and prediction[z, y, x + 1])
                )
    return change, touches


@compiled
def _is_new(prediction: Mask, missing: Labels, start: Index, size: Index, voxel: Index) -> bool:
    """Whether all voxels of a cell are in the sum, and the given one is the first of a piece."""
    first = True
    for z in range(start[0], start[0] + size[0] + 1):
        for y in range(start[1], start[1] + size[1] + 1):
            for x in range(start[2], start[2] + size[2] + 1):
                here = missing[z, y, x] != 0
                if not here and not prediction[z, y, x]:
                    return False
                if here and first:
                    first = False
                    if (z, y, x) != voxel:
                        return False
    return True


@compiled
def _grow_zones(
    prediction: Mask, zones: NDArray[np.int32], queue: NDArray[np.int32], written: int, border: Mask
) -> None:
    """Grow zones in steps to all 26 neighbours inside the prediction; mark voxels that lie beside another zone.

    ``queue`` starts with so many voxels of zones and has room for all of the prediction.
    """
    depth, height, width = zones.shape
    read = 0
    while read < written:
        z, y, x = queue[read, 0], queue[read, 1], queue[read, 2]
        read += 1
        for z1 in range(max(z - 1, 0), min(z + 2, depth)):
            for y1 in range(max(y - 1, 0), min(y + 2, height)):
                for x1 in range(max(x - 1, 0), min(x + 2, width)):
                    if not prediction[z1, y1, x1]:
                        continue
                    if zones[z1, y1, x1] == 0:
                        zones[z1, y1, x1] = zones[z, y, x]
                        queue[written, 0], queue[written, 1], queue[written, 2] = z1, y1, x1
                        written += 1
                    elif zones[z1, y1, x1] != zones[z, y, x]:
                        border[z, y, x] = border[z1, y1, x1] = True
