"""Leaks of a thin surface, filled: pinholes of one voxel, and contacts by an edge or a corner only.

The score takes foreground as 6-connected and background as 26-connected, so background passes between two foreground
voxels that share no face. The voxels added here never join two 26-connected components of the mask.

Voxels outside the array are background.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
from numpy.typing import NDArray

from nx47dask.kernels.compiled import compiled

__all__ = ["diagonal_table", "fill_pinholes", "join_diagonals"]

Mask = NDArray[np.bool_]

# The 27 voxels of a 3x3x3 neighbourhood are the bits 9 dz + 3 dy + dx of a number, offsets from 0 to 2.
_CENTRE = 13


def fill_pinholes(mask: Mask) -> Mask:
    """Fill holes of one voxel through a plane.

    Such a hole has foreground at its four face neighbours in one of the three coordinate planes and background at the
    two neighbours along the plane's normal. So every straight tunnel of one voxel's width is filled along its whole
    length, but not a slit between two sheets or a pit of one voxel. A voxel that then has foreground on all six sides
    is filled too, or a deeper pit would become a cavity. Local with radius 2.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        The mask with the filled voxels.

    Notes
    -----
    Each of the 26 neighbours of such a voxel, even if it is a pinhole too, touches one of the four foreground voxels,
    and these touch each other. So filling all at once never joins two 26-connected components.
    """
    sides = _sides(mask)
    filled = mask.copy()
    for normal in range(3):
        (a, b), (c, d) = sides[:normal] + sides[normal + 1 :]
        below, above = sides[normal]
        filled |= a & b & c & d & ~(below | above)
    (a, b), (c, d), (e, f) = _sides(filled)
    filled |= a & b & c & d & e & f
    return filled


def join_diagonals(mask: Mask) -> Mask:
    """Join by faces the voxels that touch by an edge or a corner only.

    Every 2x2x2 window proposes the voxels that :func:`diagonal_table` lists for it. A proposed voxel is added when the
    foreground among its 26 neighbours is one 26-connected piece, and when it shares a foreground neighbour with each
    proposed voxel beside it. So neither one added voxel nor two that meet half-way join two 26-connected components:
    where two sheets face each other over a narrow gap, the leak stays open and so does the gap.

    All are added at once; the result does not depend on an order. Local with radius 2. New contacts by an edge may
    appear between voxels that different windows proposed.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        The mask with the added voxels.
    """
    padded = np.pad(mask, 1).view(np.uint8)
    marks = np.zeros_like(padded)
    _propose(padded, diagonal_table(), marks)
    _, height, width = padded.shape
    offsets = itertools.product((-1, 0, 1), repeat=3)
    steps = np.array([(z * height + y) * width + x for z, y, x in offsets], dtype=np.int64)
    flat, flat_marks = padded.reshape(-1), marks.reshape(-1)
    places = np.flatnonzero(flat_marks)
    around = np.zeros(places.size, np.int64)
    _screen(flat, flat_marks, places, steps, around, _touching())
    flat[places[_agree(flat_marks, places, steps, around, _touching())]] = 1
    return np.ascontiguousarray(padded[1:-1, 1:-1, 1:-1]).view(np.bool_)


@functools.cache
def diagonal_table() -> NDArray[np.uint8]:
    """List the voxels to add to each 2x2x2 window so that nothing in it touches by an edge or a corner only.

    Returns
    -------
    ndarray of uint8, shape (256,), read-only
        Indexed by a window as bits: voxel (dz, dy, dx) is bit 4 dz + 2 dy + dx. Values are the added voxels as bits.

    Notes
    -----
    A window is in order when it is well-composed: Latecki (1997), "3D well-composed pictures". Each entry is a smallest
    set of voxels that achieves this; of several, the first in z, y, x order, voxel by voxel. So the number of added
    voxels is the same for all 48 images of a window under rotations and reflections. The choice between equally good
    sets is not: it prefers lower z, then lower y, then lower x.
    """
    in_order = [_well_composed(code) for code in range(256)]
    table = np.array([_fewest(code, in_order) for code in range(256)], dtype=np.uint8)
    table.flags.writeable = False
    return table


def _sides(mask: Mask) -> list[tuple[Mask, Mask]]:
    """Return, for each axis, the neighbours before and after every voxel."""
    padded = np.pad(mask, 1)
    sides = []
    for axis in range(3):
        before = tuple(slice(0, -2) if i == axis else slice(1, -1) for i in range(3))
        after = tuple(slice(2, None) if i == axis else slice(1, -1) for i in range(3))
        sides.append((padded[before], padded[after]))
    return sides


def _fewest(code: int, in_order: list[bool]) -> int:
    """Return the first of the smallest sets of voxels that make a window well-composed."""
    absent = [1 << voxel for voxel in range(8) if not code >> voxel & 1]
    sets = (sum(added) for size in range(len(absent) + 1) for added in itertools.combinations(absent, size))
    return next(added for added in sets if in_order[code | added])


def _well_composed(code: int) -> bool:
    """Return True if neither foreground nor background of a window touches by an edge or a corner only."""
    for first, second in itertools.combinations(range(8), 2):
        pair = 1 << first | 1 << second
        apart = first ^ second
        if apart == 7:  # opposite corners touch only there when all other voxels are of the other side
            if code in (pair, 255 ^ pair):
                return False
        elif apart.bit_count() == 2:
            low = apart & -apart
            square = pair | 1 << (first ^ low) | 1 << (second ^ low)
            if code & square == pair:
                return False
    return True


@functools.cache
def _touching() -> NDArray[np.int64]:
    """List for every voxel of a 3x3x3 neighbourhood the voxels that touch it, without the centre; shape (27,)."""
    offsets = list(itertools.product((0, 1, 2), repeat=3))
    touching = np.zeros(27, np.int64)
    for (i, first), (j, second) in itertools.permutations(enumerate(offsets), 2):
        if j != _CENTRE and max(abs(a - b) for a, b in zip(first, second, strict=True)) == 1:
            touching[i] |= 1 << j
    return touching


@compiled
def _propose(padded: NDArray[np.uint8], table: NDArray[np.uint8], marks: NDArray[np.uint8]) -> None:
    """Mark the voxels that the windows propose."""
    depth, height, width = padded.shape
    for z in range(depth - 1):
        for y in range(height - 1):
            column = np.int64(0)
            for x in range(width - 1):
                # The columns of a window are its even and odd bits; its odd bits are the next window's even bits.
                next_column = np.int64(
                    padded[z, y, x + 1]
                    | padded[z, y + 1, x + 1] << 2
                    | padded[z + 1, y, x + 1] << 4
                    | padded[z + 1, y + 1, x + 1] << 6
                )
                added = table[column | next_column << 1]
                column = next_column
                if added:
                    for voxel in range(8):
                        if added >> voxel & 1:
                            marks[z + (voxel >> 2), y + (voxel >> 1 & 1), x + (voxel & 1)] = 1


@compiled
def _is_one_piece(voxels: int, touching: NDArray[np.int64]) -> bool:
    """Return True if the voxels of a neighbourhood, at least one, are a single 26-connected piece."""
    piece, grown = 0, voxels & -voxels
    while grown != piece:
        piece = grown
        for voxel in range(27):
            if piece >> voxel & 1:
                grown |= touching[voxel] & voxels
    return piece == voxels


@compiled
def _screen(
    flat: NDArray[np.uint8],
    marks: NDArray[np.uint8],
    places: NDArray[np.intp],
    steps: NDArray[np.int64],
    around: NDArray[np.int64],
    touching: NDArray[np.int64],
) -> None:
    """Unmark the voxels that would join pieces of their neighbourhood; store the foreground neighbours of all."""
    for row in range(len(places)):
        for voxel in range(27):
            if voxel != _CENTRE and flat[places[row] + steps[voxel]]:
                around[row] |= 1 << voxel
        if not _is_one_piece(around[row], touching):
            marks[places[row]] = 0


@compiled
def _agree(
    marks: NDArray[np.uint8],
    places: NDArray[np.intp],
    steps: NDArray[np.int64],
    around: NDArray[np.int64],
    touching: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Select the marked voxels that share a foreground neighbour with every marked voxel beside them."""
    agreed = np.zeros(len(places), np.bool_)
    for row in range(len(places)):
        agreed[row] = marks[places[row]] != 0
        for voxel in range(27):
            if voxel != _CENTRE and marks[places[row] + steps[voxel]] and not touching[voxel] & around[row]:
                agreed[row] = False
    return agreed
