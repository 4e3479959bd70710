"""Defects of a prediction: holes in it, and bridges between parts that the labels keep apart.

These places explain a score to a reader; the score itself counts features without their places. The Euler number of
the 6-connected prediction with a piece and without it tells if the piece plugs a tunnel or makes one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Box
from nx47dask.kernels.compiled import compiled
from nx47dask.kernels.components import Labelling, label
from nx47dask.kernels.morphology import dilate, erode
from nx47dask.kernels.pieces import add_pieces, measure_pieces

__all__ = ["Place", "find_bridges", "find_holes"]

Mask = NDArray[np.bool_]
Labels = NDArray[np.unsignedinteger]
_ALL = Labelling(26)
LARGEST_EXTENT = 32
"""Largest extent of a hole along an axis, in voxels; larger pieces are cut."""
GRID = 16


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a defect: its bounding box and its size in voxels."""

    box: Box
    voxels: int


def find_holes(prediction: Mask, labels: Mask) -> list[Place]:
    """Find holes through the prediction, and cavities in it, that the labels do not have.

    Parameters
    ----------
    prediction, labels : ndarray of bool, shape (Z, Y, X)

    Returns
    -------
    list of Place
        Pieces that plug a tunnel of the prediction near the labels, and cavities; largest first. There are two kinds
        of pieces. Small: voxels that a closing of 2 voxels adds within a voxel of the labels; these find small holes
        even where the prediction is beside the labels. Large: labels more than 2 voxels away from the prediction,
        grown up to it. On a rough prediction pieces merge; they are then cut along a grid, and holes that the grid
        cuts are missed.
    """
    # Voxels outside are background: a gap between the prediction and the border is not a hole.
    closed = erode(np.pad(dilate(prediction, (2, 2, 2)), 2), (2, 2, 2))[2:-2, 2:-2, 2:-2]
    small = closed & dilate(labels, (1, 1, 1))
    large = dilate(labels & ~dilate(prediction, (2, 2, 2), "ellipsoid"), (3, 3, 3)) & dilate(labels, (2, 2, 2))
    missing, count = _cut_large(*label((small | large) & ~prediction, _ALL))
    change, touches = add_pieces(prediction, missing, count)
    plugs = np.flatnonzero((change > 0) & touches)
    return _largest_first([*_places(missing, plugs), *_places(*_own_cavities(prediction, labels))])


def find_bridges(prediction: Mask, labels: Mask) -> list[Place]:
    """Find places where the prediction joins components of the labels, or a sheet with itself.

    Parameters
    ----------
    prediction, labels : ndarray of bool, shape (Z, Y, X)

    Returns
    -------
    list of Place
        Places where the zones of two 26-connected components of the labels meet as they grow inside the prediction,
        and pieces of the prediction more than 2 voxels from the labels that join other parts or make a handle;
        largest first.
    """
    extra, count = label(prediction & ~dilate(labels, (2, 2, 2), "ellipsoid"), _ALL)
    change, touches = add_pieces(prediction & (extra == 0), extra, count)
    joints = ((change < 0) & touches)[extra]
    sheets, _ = label(labels, _ALL)
    zones = np.where(prediction, sheets, 0).astype(np.int32)
    seeds = np.argwhere(zones)
    queue = np.empty((np.count_nonzero(prediction), 3), dtype=np.int32)
    queue[: len(seeds)] = seeds
    _grow_zones(prediction, zones, queue, len(seeds), joints)
    bridges, count = label(joints, _ALL)
    return _largest_first(_places(bridges, np.arange(1, count + 1)))


def _cut_large(pieces: Labels, count: int) -> tuple[Labels, int]:
    """Cut pieces that are too long for a place along a grid."""
    extents = measure_pieces(pieces, np.arange(count + 1) - 1, count)
    large = np.append(False, (extents[:, 3:6] - extents[:, :3] >= LARGEST_EXTENT).any(axis=1))
    where = np.nonzero(large[pieces])
    cells = tuple(-(-n // GRID) for n in pieces.shape)
    keys = np.ravel_multi_index((pieces[where], *(axis // GRID for axis in where)), (count + 1, *cells))
    parts, inverse = np.unique(keys, return_inverse=True)
    cut = pieces.astype(np.uint32)
    cut[where] = count + 1 + inverse
    return cut, count + len(parts)


def _largest_first(places: Iterable[Place]) -> list[Place]:
    return sorted(places, key=lambda place: (-place.voxels, place.box.start))


def _own_cavities(prediction: Mask, labels: Mask) -> tuple[Labels, NDArray[np.intp]]:
    """Label the prediction's background, and list the components that are cavities but meet none of the labels."""
    background, cavity = _cavities(prediction)
    if cavity.any():
        other, shared = _cavities(labels)
        cavity[background[shared[other]]] = False
    return background, np.flatnonzero(cavity)


def _cavities(mask: Mask) -> tuple[Labels, NDArray[np.bool_]]:
    """Label the background's 26-connected components, and mark those that do not touch the border."""
    background, count = label(~mask, _ALL)
    enclosed = np.arange(count + 1) > 0
    for axis, side in itertools.product(range(3), (0, -1)):
        enclosed[np.take(background, side, axis=axis)] = False
    return background, enclosed


def _places(labelled: Labels, wanted: NDArray[np.intp]) -> list[Place]:
    """Measure the bounding boxes and sizes of some components."""
    if not len(wanted):
        return []
    row = np.full(int(labelled.max()) + 1, -1)
    row[wanted] = np.arange(len(wanted))
    extents = measure_pieces(labelled, row, len(wanted))
    return [
        Place(Box((int(z0), int(y0), int(x0)), (int(z1) + 1, int(y1) + 1, int(x1) + 1)), int(voxels))
        for z0, y0, x0, z1, y1, x1, voxels in extents
    ]


@compiled
def _grow_zones(
    prediction: Mask, zones: NDArray[np.int32], queue: NDArray[np.int32], written: int, border: Mask
) -> None:
    """Grow zones in steps to all 26 neighbours inside the prediction; mark voxels that lie beside another zone.

    ``queue`` starts with ``written`` voxels of zones and has room for all voxels of the prediction.
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
