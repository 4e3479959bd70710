"""Averages of a stored probability along the sheet: smoothing within the tangent plane, never across the sheet.

There are two passes, each along a line of whole voxels: first along the tangent nearest to the Z axis, then along the
other tangent. The second pass averages results of the first pass at other voxels, which used their own tangents. So the
average follows a sheet that bends. Weights and sums are integers: no rounding depends on where a block begins.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nx47dask.kernels.compiled import compiled
from nx47dask.kernels.normals import HALF_VOXEL, normals_radius, sheet_normals, tangent

__all__ = ["smooth_along_sheet", "smoothing_radius"]

_TRUNCATE = 2.0
"""Half length of a line in standard deviations."""
_WHOLE = 1024
"""Approximate sum of the weights of a line."""
_FLOOR = 0.1
"""Lowest probability that is smoothed; most voxels are below it, far from any threshold."""


def smoothing_radius(sigma: float, window: int) -> int:
    """Return the radius of :func:`smooth_along_sheet` along every axis, in voxels.

    The second line reaches ``2 sigma``. Its end needs the first line, of the same length, and the window of the normal.
    """
    reach = _reach(sigma)
    return reach + max(reach, normals_radius(window))


def smooth_along_sheet(levels: NDArray[np.unsignedinteger], sigma: float, window: int) -> NDArray[np.unsignedinteger]:
    """Smooth a probability with a Gaussian within the tangent plane of the sheet.

    Parameters
    ----------
    levels : ndarray of uint8 or uint16, shape (Z, Y, X)
        Probability in stored levels.
    sigma : float
        Standard deviation along both tangents in voxels, above 0. Lines end at ``2 sigma``.
    window : int
        Half width in voxels of the window for the normal, see
        :func:`~nx47dask.kernels.normals.sheet_normals`.

    Returns
    -------
    ndarray of the input's type and shape
        Voxels with a probability below 0.1 do not change.
    """
    band = levels >= math.ceil(_FLOOR * np.iinfo(levels.dtype).max)
    if not band.any():
        return levels.copy()
    normals = sheet_normals(levels, window, band)
    # With 16 bits, the second pass sees results of the first that lie between two 8-bit levels.
    widened = 8 * (2 - levels.dtype.itemsize)
    fine: NDArray[np.uint16] = levels.astype(np.uint16) << np.uint16(widened)
    for across in (False, True):
        fine = _average_along_lines(fine, normals, band, _line_weights(sigma), across)
    return (fine + np.uint16((1 << widened) >> 1) >> np.uint16(widened)).astype(levels.dtype)


def _reach(sigma: float) -> int:
    return math.ceil(_TRUNCATE * sigma)


def _line_weights(sigma: float) -> NDArray[np.int64]:
    """Return the weights of a line's voxels as whole numbers."""
    reach = _reach(sigma)
    values = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights: NDArray[np.int64] = np.rint(values * (_WHOLE / values.sum())).astype(np.int64)
    return weights


@compiled
def _average_along_lines(
    values: NDArray[np.uint16],
    normals: NDArray[np.int8],
    band: NDArray[np.bool_],
    weights: NDArray[np.int64],
    across: bool,
) -> NDArray[np.uint16]:
    """Average along the tangent nearest to Z, or ``across`` it; parts of a line beyond the array do not count."""
    depth, height, width = values.shape
    reach = len(weights) // 2
    averages = values.copy()
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if not band[z, y, x]:
                    continue
                nz, ny, nx = normals[z, y, x, 0], normals[z, y, x, 1], normals[z, y, x, 2]
                if nz == 0 and ny == 0 and nx == 0:
                    continue
                tz, ty, tx = tangent(nz, ny, nx, across)
                # Places along the line in 1/65536 of a voxel, half a voxel ahead: the whole part is the nearest voxel.
                pz, py, px = (z << 16) + HALF_VOXEL, (y << 16) + HALF_VOXEL, (x << 16) + HALF_VOXEL
                # The part of the line inside the array is one piece.
                first, last = -reach, reach
                while not _inside(pz + first * tz, py + first * ty, px + first * tx, depth, height, width):
                    first += 1
                while not _inside(pz + last * tz, py + last * ty, px + last * tx, depth, height, width):
                    last -= 1
                total, present = 0, 0
                for step in range(first, last + 1):
                    weight = weights[reach + step]
                    total += weight * values[pz + step * tz >> 16, py + step * ty >> 16, px + step * tx >> 16]
                    present += weight
                averages[z, y, x] = (total + present // 2) // present
    return averages


@compiled
def _inside(pz: int, py: int, px: int, depth: int, height: int, width: int) -> bool:
    """Return True if a place in 1/65536 of a voxel is in the array."""
    return 0 <= pz >> 16 < depth and 0 <= py >> 16 < height and 0 <= px >> 16 < width
