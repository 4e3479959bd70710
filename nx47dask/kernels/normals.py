"""Normals of sheets, from the structure tensor of a probability or a mask with a wide window.

All sums are of integers, so the normal at a voxel does not depend on where a block begins. A moving box sum adds the
voxels that enter and subtracts those that leave, at a cost that does not grow with the window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nx47dask.kernels.compiled import compiled

__all__ = ["HALF_VOXEL", "LARGEST_WINDOW", "UNIT", "normals_radius", "sheet_normals", "tangent"]

UNIT = 127
"""Length of a stored normal."""
LARGEST_WINDOW = 7
"""Largest half width of the window; with a larger one, a sum of squares could overflow 32 bits."""
HALF_VOXEL = 1 << 15
"""Half a voxel in the unit of :func:`tangent`; added before a shift by 16 bits, it gives the nearest voxel."""

_BOXES = (2, 1)  # half widths of the boxes that smooth the volume: a standard deviation of 1.6 voxels
_CONTEXT = sum(_BOXES) + 1  # plus a voxel for the difference
_SQUARINGS = 5  # the 32nd power of the tensor is the product of its main eigenvector with itself

Volume = NDArray[np.int32]


def normals_radius(window: int) -> int:
    """Return the radius of :func:`sheet_normals` along every axis, in voxels: the window and 4."""
    return window + _CONTEXT


def sheet_normals(
    levels: NDArray[np.unsignedinteger], window: int, where: NDArray[np.bool_] | None = None
) -> NDArray[np.int8]:
    """Estimate the unit normal of the sheet at every voxel.

    The structure tensor is the product of the gradient with itself, summed over a cube; its main eigenvector is the
    normal. The gradient is a central difference after smoothing by boxes of 5 and 3 voxels along each axis. The window
    must be wide enough that a voxel sees the faces of its sheet, and of the parallel sheets beside it, rather than the
    rim of a hole.

    Parameters
    ----------
    levels : ndarray of uint8 or uint16, shape (Z, Y, X)
        Probability in stored levels; for a mask, 255 times the mask.
    window : int
        Half width of the cube in voxels, 1 to `LARGEST_WINDOW`.
    where : ndarray of bool, shape (Z, Y, X), optional
        Voxels that need a normal; all if not given.

    Returns
    -------
    ndarray of int8, shape (Z, Y, X, 3)
        Components along z, y and x, of length `UNIT` up to rounding; the sign is arbitrary. 0 where the window is
        uniform, and outside ``where``.

    Notes
    -----
    Bigün and Granlund (1987), "Optimal orientation detection of linear symmetry".
    """
    normals = np.zeros((*levels.shape, 3), dtype=np.int8)
    if levels.size and levels.min() < levels.max():
        wanted = np.ones(levels.shape, dtype=bool) if where is None else where
        _fill(_smoothed(levels), window, wanted, normals)
    return normals


@compiled
def tangent(nz: int, ny: int, nx: int, across: bool) -> tuple[int, int, int]:
    """Compute a tangent of a sheet, for compiled kernels.

    Parameters
    ----------
    nz, ny, nx : int
        Normal of any length above 0.
    across : bool
        False for the tangent nearest to the Z axis (to the Y axis where the normal is near Z), True for the tangent at
        right angles to it.

    Returns
    -------
    tuple of int
        Components along z, y and x in 1/65536 of a voxel, of length 65536 up to rounding.
    """
    length = np.sqrt(1.0 * nz * nz + ny * ny + nx * nx)
    z, y, x = nz / length, ny / length, nx / length
    if abs(z) < 0.8:
        uz, uy, ux = 1.0 - z * z, -z * y, -z * x
    else:
        uz, uy, ux = -y * z, 1.0 - y * y, -y * x
    if across:
        uz, uy, ux = y * ux - x * uy, x * uz - z * ux, z * uy - y * uz
    length = 65536.0 / np.sqrt(uz * uz + uy * uy + ux * ux)
    return round(uz * length), round(uy * length), round(ux * length)


def _smoothed(levels: NDArray[np.unsignedinteger]) -> NDArray[np.int16]:
    """Average over both boxes in 1/64 of 8-bit levels, with a margin of a voxel; edge voxels repeat outside."""
    padded = np.pad(levels >> (8 * (levels.dtype.itemsize - 1)), _CONTEXT, mode="edge").astype(np.int32)
    for axis in range(3):
        moved = np.moveaxis(padded, axis, 0)
        for half in _BOXES:
            _sum_along(moved, half)
    inner = (slice(_CONTEXT - 1, 1 - _CONTEXT),) * 3
    voxels = np.prod([2 * half + 1 for half in _BOXES]) ** 3
    return (padded[inner] * 64 // voxels).astype(np.int16)


@compiled
def _sum_along(volume: Volume, half: int) -> None:
    """Sum ``2 half + 1`` slices in place; voxels beyond the array are 0."""
    depth = len(volume)
    held = np.zeros((half + 1, *volume.shape[1:]), np.int32)  # values that a sum must still subtract
    total = np.zeros(volume.shape[1:], np.int32)
    for z in range(depth + half):
        if z < depth:
            total += volume[z]
        done = z - half
        if done < 0:
            continue
        if done > half:
            total -= held[done % (half + 1)]
        held[done % (half + 1)] = volume[done]
        volume[done] = total


@compiled
def _fill(smooth: NDArray[np.int16], window: int, where: NDArray[np.bool_], normals: NDArray[np.int8]) -> None:
    """Fill in the normals slice by slice from the products in the window; ``smooth`` has a margin of a voxel."""
    depth, height, width = where.shape
    held = np.zeros((2 * window + 1, 6, height, width), np.int32)
    total = np.zeros((6, height, width), np.int32)
    row = np.zeros(width, np.int32)
    for z in range(depth + window):
        if z < depth:
            of_slice = held[z % (2 * window + 1)]
            if z > 2 * window:
                total -= of_slice
            _multiply(smooth, z, of_slice)
            for entry in range(6):
                _sum_along(of_slice[entry], window)
                _sum_rows(of_slice[entry], window, row)
            total += of_slice
        elif z > 2 * window:
            total -= held[z % (2 * window + 1)]
        done = z - window
        if done >= 0:
            for y in range(height):
                for x in range(width):
                    if where[done, y, x]:
                        zz, yy, xx = total[0, y, x], total[1, y, x], total[2, y, x]
                        zy, zx, yx = total[3, y, x], total[4, y, x], total[5, y, x]
                        nz, ny, nx = _main_direction(zz, yy, xx, zy, zx, yx)
                        normals[done, y, x, 0], normals[done, y, x, 1], normals[done, y, x, 2] = nz, ny, nx


@compiled
def _multiply(smooth: NDArray[np.int16], z: int, products: Volume) -> None:
    """Multiply the gradients of a slice: zz, yy, xx, zy, zx, yx."""
    _, height, width = products.shape
    for y in range(height):
        for x in range(width):
            # A difference is at most 2/5 of 255 * 64; a sixteenth of it keeps the sums in 32 bits.
            dz = (np.int32(smooth[z + 2, y + 1, x + 1]) - smooth[z, y + 1, x + 1] + 8) >> 4
            dy = (np.int32(smooth[z + 1, y + 2, x + 1]) - smooth[z + 1, y, x + 1] + 8) >> 4
            dx = (np.int32(smooth[z + 1, y + 1, x + 2]) - smooth[z + 1, y + 1, x] + 8) >> 4
            products[0, y, x], products[1, y, x], products[2, y, x] = dz * dz, dy * dy, dx * dx
            products[3, y, x], products[4, y, x], products[5, y, x] = dz * dy, dz * dx, dy * dx


@compiled
def _sum_rows(plane: NDArray[np.int32], half: int, row: NDArray[np.int32]) -> None:
    """Sum as `_sum_along` does, along the last axis of a plane."""
    height, width = plane.shape
    for y in range(height):
        row[:] = plane[y]
        total = np.int32(0)
        for x in range(width + half):
            if x < width:
                total += row[x]
            if x > 2 * half:
                total -= row[x - 2 * half - 1]
            if x >= half:
                plane[y, x - half] = total


@compiled
def _main_direction(zz: int, yy: int, xx: int, zy: int, zx: int, yx: int) -> tuple[int, int, int]:
    """Return the main eigenvector of a structure tensor with length `UNIT`, rounded; 0 for an empty tensor."""
    trace = float(zz + yy + xx)
    if trace == 0.0:
        return 0, 0, 0
    scale = 1.0 / trace
    a, b, c, d, e, f = zz * scale, yy * scale, xx * scale, zy * scale, zx * scale, yx * scale
    # With a trace of 1 the largest eigenvalue is at least 1/3, and its 32nd power far from float64's limits.
    for _ in range(_SQUARINGS):
        a, b, c, d, e, f = (
            a * a + d * d + e * e,
            d * d + b * b + f * f,
            e * e + f * f + c * c,
            d * (a + b) + e * f,
            e * (a + c) + d * f,
            f * (b + c) + d * e,
        )
    # The column of the largest diagonal entry is the longest.
    if a >= b and a >= c:
        nz, ny, nx = a, d, e
    elif b >= c:
        nz, ny, nx = d, b, f
    else:
        nz, ny, nx = e, f, c
    length = UNIT / np.sqrt(nz * nz + ny * ny + nx * nx)
    return round(nz * length), round(ny * length), round(nx * length)
