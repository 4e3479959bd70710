"""Holes through a sheet, patched in the sheet's own plane.

A background voxel is *enclosed* when each of eight lines through it in the tangent plane runs from foreground to
foreground over a few voxels. Enclosed voxels form connected pieces. A piece becomes foreground if this closes a hole
and joins nothing else.

Voxels outside the array are background, so an opening that the border cuts is not a hole.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from nx47dask.kernels.compiled import compiled
from nx47dask.kernels.components import Labelling, label
from nx47dask.kernels.morphology import dilate
from nx47dask.kernels.normals import HALF_VOXEL, normals_radius, sheet_normals, tangent
from nx47dask.kernels.pieces import add_pieces, measure_pieces

__all__ = ["patch_holes", "patching_radius"]

Mask = NDArray[np.bool_]

_LINES = 8
_SHIFT = 12
"""Binary digits of a cosine after the point: cosines are whole numbers of 1/4096."""
_FOREGROUND, _BACKGROUND = Labelling(6), Labelling(26)


def patching_radius(width: int, window: int) -> int:
    """Return the radius of :func:`patch_holes` along every axis, in voxels.

    The decision on a voxel needs its whole piece, or enough of it to see that it is too large. Each voxel of the piece
    needs the normal at it and the lines through it.
    """
    return _largest_extent(width) + max(width, normals_radius(window))


def patch_holes(mask: Mask, width: int, window: int) -> Mask:
    """Fill holes through a sheet, without removing a voxel.

    A piece of enclosed voxels is filled when all of these conditions hold:

    - it is at most ``2 width + 2`` voxels long along each axis;
    - it raises the Euler number of the 6-connected mask: it closes more tunnels than it makes;
    - the foreground among its 26-neighbours is a single 26-connected ring of a single sheet;
    - all its voxels are joined to that ring by faces.

    So it joins no two 26-connected components, and it stays at least one voxel away from every other sheet, and from
    the next winding of the same sheet. All pieces are filled at once; no two of them touch.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
    width : int
        Largest number of background voxels on a line through an enclosed voxel, above 0: the width of the widest hole.
    window : int
        Half width in voxels of the window for the normal of the sheet, see
        :func:`~nx47dask.kernels.normals.sheet_normals`.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        The mask with the filled voxels.
    """
    normals = sheet_normals(mask.view(np.uint8) * np.uint8(255), window, ~mask)
    enclosed = np.zeros_like(mask)
    _enclose(mask, normals, width, _directions(), enclosed)
    pieces, count = label(enclosed, _BACKGROUND)
    change, _ = add_pieces(mask, pieces, count)
    extents = measure_pieces(pieces, np.arange(count + 1) - 1, count)
    lengths = extents[:, 3:6] - extents[:, :3] + 1
    plugs = (change[1:] > 0) & (lengths <= _largest_extent(width)).all(axis=1)
    filled = mask.copy()
    for number in np.flatnonzero(plugs):
        first, last = extents[number, :3], extents[number, 3:6]
        around = tuple(slice(max(int(a) - 1, 0), int(b) + 2) for a, b in zip(first, last, strict=True))
        piece = pieces[around] == number + 1
        if _fits(piece, mask[around]):
            filled[around] |= piece
    return filled


def _largest_extent(width: int) -> int:
    """Return twice the width plus 2; sheets are rough, so enclosed voxels continue along the rim of a hole."""
    return 2 * width + 2


def _fits(piece: Mask, mask: Mask) -> bool:
    """Return True if the foreground that touches a piece is connected, and faces join the piece to it."""
    ring = dilate(piece, (1, 1, 1)) & mask
    parts = label(ring | piece, _FOREGROUND)[1]
    return label(ring, _BACKGROUND)[1] == 1 and parts <= label(ring, _FOREGROUND)[1]


@cache
def _directions() -> NDArray[np.int64]:
    """Return cosine and sine of the lines; each is nearly at right angles to the last, so most voxels end early."""
    angles = 3 * np.arange(_LINES) * (np.pi / _LINES)
    lines: NDArray[np.int64] = np.rint(np.stack([np.cos(angles), np.sin(angles)], axis=1) * (1 << _SHIFT)).astype(int)
    return lines


@compiled
def _enclose(mask: Mask, normals: NDArray[np.int8], width: int, directions: NDArray[np.int64], enclosed: Mask) -> None:
    """Mark background that every line in the tangent plane crosses in at most ``width`` voxels."""
    depth, height, breadth = mask.shape
    for z in range(depth):
        for y in range(height):
            for x in range(breadth):
                nz, ny, nx = normals[z, y, x, 0], normals[z, y, x, 1], normals[z, y, x, 2]
                if mask[z, y, x] or (nz == 0 and ny == 0 and nx == 0):
                    continue
                uz, uy, ux = tangent(nz, ny, nx, False)
                vz, vy, vx = tangent(nz, ny, nx, True)
                within = True
                for line in range(len(directions)):
                    cosine, sine = directions[line, 0], directions[line, 1]
                    tz = (cosine * uz + sine * vz) >> _SHIFT
                    ty = (cosine * uy + sine * vy) >> _SHIFT
                    tx = (cosine * ux + sine * vx) >> _SHIFT
                    left = width - _free(mask, z, y, x, tz, ty, tx, width - 1)
                    if left <= 0 or _free(mask, z, y, x, -tz, -ty, -tx, left - 1) >= left:
                        within = False
                        break
                enclosed[z, y, x] = within


@compiled
def _free(mask: Mask, z: int, y: int, x: int, tz: int, ty: int, tx: int, most: int) -> int:
    """Count the background voxels on a ray before foreground; ``most + 1`` if there is none within that distance.

    The direction is in 1/65536 of a voxel per step.
    """
    depth, height, width = mask.shape
    for step in range(1, most + 2):
        z1, y1, x1 = (
            z + ((step * tz + HALF_VOXEL) >> 16),
            y + ((step * ty + HALF_VOXEL) >> 16),
            x + ((step * tx + HALF_VOXEL) >> 16),
        )
        if not (0 <= z1 < depth and 0 <= y1 < height and 0 <= x1 < width):
            break
        if mask[z1, y1, x1]:
            return step - 1
    return most + 1
