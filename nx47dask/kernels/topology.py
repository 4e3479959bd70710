"""Counts over the cells of a mask: Euler numbers and perimeters, as sums over blocks.

The foreground is a union of closed cubes (or squares), so its components are 26-connected (8-connected in a slice)
and the background is 6-connected (4-connected).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CellCounts", "count_cells"]


@dataclass(frozen=True, slots=True)
class CellCounts:
    """Counts of a block.

    Attributes
    ----------
    euler : int
        Euler number: vertices - edges + faces - cubes.
    slice_voxels, slice_euler, slice_perimeter, slice_overlap : ndarray of int64, shape (Z,)
        Per slice: number of foreground pixels; 2-D Euler number; number of pixel edges between foreground and
        background (the outside is background); number of pixels that are foreground in this slice and the one before.
    """

    euler: int
    slice_voxels: NDArray[np.int64]
    slice_euler: NDArray[np.int64]
    slice_perimeter: NDArray[np.int64]
    slice_overlap: NDArray[np.int64]


def count_cells(padded: NDArray[np.bool_], at_end: tuple[bool, bool, bool]) -> CellCounts:
    """Count the cells that belong to a block.

    A cell between voxels belongs to the block that holds its last voxel. Cells at the far border of the volume, whose
    last voxel lies outside, belong to the last block. So the sums over any grid are those of the volume.

    Parameters
    ----------
    padded : ndarray of bool, shape (Z + 2, Y + 2, X + 2)
        The block with one voxel of context on every side, background outside the volume.
    at_end : tuple of bool
        Per axis, True if the block ends at the volume's border.

    Notes
    -----
    Gray (1971), "Local properties of binary images in two dimensions", generalised to cubes: a lattice vertex, edge or
    face exists when any of the voxels around it is foreground.
    """
    euler = 0
    inner = (slice(1, -1),) * 3
    for z, y, x in itertools.product((False, True), repeat=3):
        cells = _cells(padded, (z, y, x), at_end)
        sign = -1 if (z + y + x) % 2 == 0 else 1
        euler += sign * int(np.count_nonzero(cells))
    pixels = padded[inner]
    flat = (False, at_end[1], at_end[2])
    vertices = _per_slice(_cells(padded, (False, True, True), flat))
    edges = _per_slice(_cells(padded, (False, True, False), flat)) + _per_slice(
        _cells(padded, (False, False, True), flat)
    )
    faces = _per_slice(pixels)
    perimeter = 2 * edges - 4 * faces
    return CellCounts(euler, faces, vertices - edges + faces, perimeter, _per_slice(pixels & padded[:-2, 1:-1, 1:-1]))


def _cells(
    padded: NDArray[np.bool_], windows: tuple[bool, bool, bool], at_end: tuple[bool, bool, bool]
) -> NDArray[np.bool_]:
    """Find the cells that lie between two voxels along the axes of ``windows`` and inside a voxel along the others."""
    cells = padded
    for axis, (window, end) in enumerate(zip(windows, at_end, strict=True)):
        low = [slice(None)] * 3
        high = [slice(None)] * 3
        if window:
            stop = None if end else -1
            low[axis], high[axis] = slice(0, -1 if end else -2), slice(1, stop)
            cells = cells[tuple(low)] | cells[tuple(high)]
        else:
            low[axis] = slice(1, -1)
            cells = cells[tuple(low)]
    return cells


def _per_slice(cells: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.asarray(np.count_nonzero(cells, axis=(1, 2)), dtype=np.int64)
