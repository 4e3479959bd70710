"""Surface Dice at a tolerance, and voxelwise agreement at a tolerance, as sums over parts of a volume.

A surface element lies between the voxels of a mixed 2x2x2 neighbourhood. Its weight is the area in it of a plane
through the midpoints of its edges. These are the definitions of DeepMind's ``surface-distance`` (Nikolov et al., 2021).
"""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Box, Index
from nx47dask.kernels.compiled import compiled
from nx47dask.metrics.octants import TOLERANCE

__all__ = ["count_within", "surface_areas", "surface_codes"]

_CORNER, _EDGE = math.sqrt(3) / 8, math.sqrt(2) / 2
_AREAS = {
    "000": _CORNER,
    "000 001": _EDGE,
    "000 011": 2 * _CORNER,
    "000 111": 2 * _CORNER,
    "000 001 010": 3 * _CORNER + 0.5,
    "000 001 110": _EDGE + _CORNER,
    "000 011 101": 3 * _CORNER,
    "000 001 010 011": 1.0,
    "000 001 010 100": 6 * _CORNER,
    "000 001 010 111": 4 * _CORNER + 0.5,
    "000 001 011 111": _EDGE + 4 * _CORNER,
    "000 001 110 111": 2 * _EDGE,
    "000 011 101 110": 4 * _CORNER,
}
"""Area of the surface in a 2x2x2 neighbourhood, by its foreground voxels, at unit spacing; symmetric neighbourhoods and
those with foreground and background exchanged have the same area."""


@cache
def _area_table() -> NDArray[np.float64]:
    """Tabulate the area by the code of a neighbourhood: bit 4z + 2y + x is its voxel (z, y, x)."""
    table = np.zeros(256)
    for corners, area in _AREAS.items():
        cube = np.zeros((2, 2, 2), dtype=np.uint8)
        for corner in corners.split():
            cube[tuple(int(digit) for digit in corner)] = 1
        for axes in itertools.permutations(range(3)):
            for flips in itertools.product((1, -1), repeat=3):
                turned = cube.transpose(axes)[tuple(slice(None, None, flip) for flip in flips)]
                code = int(np.packbits(turned.ravel(), bitorder="little")[0])
                table[code] = table[255 - code] = area
    return table


def surface_areas(counts: NDArray[np.int64]) -> float:
    """Sum the area of surface elements from their number per code, shape (256,); in square voxels."""
    return float(counts @ _area_table())


def surface_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Encode every 2x2x2 neighbourhood; element (z, y, x) has the voxels (z-1..z, y-1..y, x-1..x).

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
        Voxels outside it are background.

    Returns
    -------
    ndarray of uint8, shape (Z+1, Y+1, X+1)
        0 where there is no surface.
    """
    codes = np.pad(mask.view(np.uint8), 1)
    for axis, bit in ((2, 1), (1, 2), (0, 4)):
        low, high = (np.moveaxis(codes, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        codes = np.moveaxis(low | high << np.uint8(bit), 0, axis)
    codes = np.ascontiguousarray(codes)
    codes[codes == 255] = 0
    return codes


def count_within(
    points: NDArray[np.uint8], others: NDArray[np.uint8], box: Box
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the points of a part of a volume by code: all, and those with a point of ``others`` within tolerance.

    Parameters
    ----------
    points, others : ndarray of uint8, shape (Z, Y, X)
        Codes; 0 where there is no point.
    box : Box
        The part; voxels around it are context.

    Returns
    -------
    total, near : ndarray of int64, shape (256,)
    """
    reach = range(-TOLERANCE, TOLERANCE + 1)
    ball = [step for step in itertools.product(reach, repeat=3) if sum(s * s for s in step) <= TOLERANCE**2]
    offsets = np.array(sorted(ball, key=lambda step: sum(s * s for s in step)))
    counts: tuple[NDArray[np.int64], NDArray[np.int64]] = _count_within(points, others, box.start, box.stop, offsets)
    return counts


@compiled
def _count_within(
    points: NDArray[np.uint8], others: NDArray[np.uint8], start: Index, stop: Index, offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    total, near = np.zeros(256, np.int64), np.zeros(256, np.int64)
    depth, height, width = others.shape
    for z in range(start[0], stop[0]):
        for y in range(start[1], stop[1]):
            for x in range(start[2], stop[2]):
                code = points[z, y, x]
                if code == 0:
                    continue
                total[code] += 1
                for step in range(len(offsets)):
                    z1, y1, x1 = z + offsets[step, 0], y + offsets[step, 1], x + offsets[step, 2]
                    inside = 0 <= z1 < depth and 0 <= y1 < height and 0 <= x1 < width
                    if inside and others[z1, y1, x1]:
                        near[code] += 1
                        break
    return total, near
