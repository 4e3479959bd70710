"""Pieces of a labelled array: their extents, and how a mask's topology changes when they are added."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nx47dask.kernels.compiled import compiled

__all__ = ["add_pieces", "measure_pieces"]

Mask = NDArray[np.bool_]
Labels = NDArray[np.unsignedinteger]


def add_pieces(mask: Mask, pieces: Labels, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Compute for each piece the change of a mask's Euler number when it is added, and find the pieces at a face.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
        Foreground, 6-connected.
    pieces : ndarray of unsigned integers, shape (Z, Y, X)
        26-connected pieces of the background by number, 0 elsewhere.
    count : int
        Largest number.

    Returns
    -------
    change : ndarray of int64, shape (count + 1,)
        ``components - tunnels + cavities`` with the piece, minus the same without it.
    touches : ndarray of bool, shape (count + 1,)
        True where the piece shares a face with the mask.

    Notes
    -----
    A cell is new when all its voxels are in the mask or the piece and at least one is in the piece. It counts at its
    first voxel of the piece.
    """
    cells, signs = _cells_at_a_voxel()
    padded, inside = np.pad(pieces.astype(np.int32), 1), np.pad(mask, 1)
    change, touches = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.bool_)
    _count_cells(inside, padded, cells, signs, change, touches)
    return change, touches


@cache
def _cells_at_a_voxel() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the 27 cells that hold a voxel, as bits of its 3x3x3 neighbourhood in raster order, and their signs."""
    cells, signs = [], []
    for sides in itertools.product((-1, 0, 1), repeat=3):
        steps = [(0, side) if side else (0,) for side in sides]
        voxels = [9 * (z + 1) + 3 * (y + 1) + x + 1 for z, y, x in itertools.product(*steps)]
        cells.append(sum(1 << voxel for voxel in voxels))
        signs.append((-1) ** sum(map(abs, sides)))
    return np.array(cells), np.array(signs)


@compiled
def _count_cells(
    mask: Mask,
    pieces: NDArray[np.int32],
    cells: NDArray[np.int64],
    signs: NDArray[np.int64],
    change: NDArray[np.int64],
    touches: NDArray[np.bool_],
) -> None:
    depth, height, width = pieces.shape
    for z in range(1, depth - 1):
        for y in range(1, height - 1):
            for x in range(1, width - 1):
                piece = pieces[z, y, x]
                if piece == 0:
                    continue
                there, before, bit = 0, 0, 1
                for z1 in range(z - 1, z + 2):
                    for y1 in range(y - 1, y + 2):
                        for x1 in range(x - 1, x + 2):
                            same = pieces[z1, y1, x1] == piece
                            if same or mask[z1, y1, x1]:
                                there |= bit
                            if same and bit < 1 << 13:
                                before |= bit
                            bit <<= 1
                for cell in range(len(cells)):
                    if cells[cell] & there == cells[cell] and cells[cell] & before == 0:
                        change[piece] += signs[cell]
                touches[piece] |= (
                    mask[z - 1, y, x]
                    or mask[z + 1, y, x]
                    or mask[z, y - 1, x]
                    or mask[z, y + 1, x]
                    or mask[z, y, x - 1]
                    or mask[z, y, x + 1]
                )


@compiled
def measure_pieces(labelled: Labels, row: NDArray[np.intp], count: int) -> NDArray[np.int64]:
    """Measure the extents of the components that have a row.

    Parameters
    ----------
    labelled : ndarray of unsigned integers, shape (Z, Y, X)
        Labels; 0 is background.
    row : ndarray of intp, shape (components + 1,)
        Row of each component in the result; negative for none.
    count : int
        Number of rows.

    Returns
    -------
    ndarray of int64, shape (count, 7)
        (z0, y0, x0, z1, y1, x1, voxels): first and last z, y, x, the last included, and the number of voxels.
    """
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
