"""Plug the leaks of a thin surface: pinholes of one voxel, and places where it holds together by edges or corners only.

The score takes foreground as 6-connected and background as 26-connected, so background passes between two foreground
voxels that share no face. What is added here never joins two 26-connected components of the mask.

Outside the array there is background.
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
    """Fill background voxels that are a hole of one voxel through a plane.

    Such a voxel has foreground at its four face neighbours in one of the three coordinate planes and background at the
    two along the plane's normal. So every straight tunnel of one voxel's width is filled along its whole length; a
    slit between two sheets is not, nor a pit of one voxel. A voxel that ends up with foreground on all six sides is
    filled too: a deeper pit would else become a cavity. Local with radius 2.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        The mask and what was filled.

    Notes
    -----
    Each of the 26 neighbours of such a voxel, the next pinhole too, touches one of the four foreground voxels, and
    those touch each other: filling, all at once, never joins two 26-connected components.
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
    """Join by faces what touches by an edge or a corner only.

    Every 2x2x2 window asks for the voxels that :func:`diagonal_table` has for it. One of these is added when the
    foreground among its 26 neighbours is one 26-connected piece, and when it shares a foreground neighbour with each
    other such voxel beside it. So it joins no two 26-connected components, nor do two added voxels that meet half-way:
    where two sheets face each other over a narrow gap, a leak stays open rather than the gap closes.

    All are added at once; the result does not depend on an order. Local with radius 2. New contacts by an edge may
    come up between voxels that different windows asked for.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        The mask and what was added.
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
    """Voxels to add to a window of 2x2x2 so that nothing in it touches by an edge or a corner only.

    Returns
    -------
    ndarray of uint8, shape (256,), read-only
        For a window as a number, voxel (dz, dy, dx) the bit 4 dz + 2 dy + dx, the voxels to add in the same bits.

    Notes
    -----
    A window is in order when it is well-composed: Latecki (1997), "3D well-composed pictures". The fewest voxels are
    added that achieve this; of several such sets the one that comes first in z, y, x order, voxel by voxel. How many
    are added is therefore the same for all 48 images of a window under rotations and reflections; which of equally
    good ones is not: they lie towards lower z, then y, then x.
    """
    in_order = [_well_composed(code) for code in range(256)]
    table = np.array([_fewest(code, in_order) for code in range(256)], dtype=np.uint8)
    table.flags.writeable = False
    return table


def _sides(mask: Mask) -> list[tuple[Mask, Mask]]:
    """Along each axis, the neighbours before and after every voxel."""
    padded = np.pad(mask, 1)
    sides = []
    for axis in range(3):
        before = tuple(slice(0, -2) if i == axis else slice(1, -1) for i in range(3))
        after = tuple(slice(2, None) if i == axis else slice(1, -1) for i in range(3))
        sides.append((padded[before], padded[after]))
    return sides


def _fewest(code: int, in_order: list[bool]) -> int:
    """First of the smallest sets of voxels that bring a window in order."""
    absent = [1 << voxel for voxel in range(8) if not code >> voxel & 1]
    sets = (sum(added) for size in range(len(absent) + 1) for added in itertools.combinations(absent, size))
    return next(added for added in sets if in_order[code | added])


def _well_composed(code: int) -> bool:
    """Whether neither foreground nor background of a window touches by an edge or a corner only."""
    for first, second in itertools.combinations(range(8), 2):
        pair = 1 << first | 1 << second
        apart = first ^ second
        if apart == 7:  # opposite corners: a contact when they are alone of their kind
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
    """Of every voxel of a 3x3x3 neighbourhood, the others that touch it, without the centre; shape (27,)."""
    offsets = list(itertools.product((0, 1, 2), repeat=3))
    touching = np.zeros(27, np.int64)
    for (i, first), (j, second) in itertools.permutations(enumerate(offsets), 2):
        if j != _CENTRE and max(abs(a - b) for a, b in zip(first, second, strict=True)) == 1:
            touching[i] |= 1 << j
    return touching


@compiled
def _propose(padded: NDArray[np.uint8], table: NDArray[np.uint8], marks: NDArray[np.uint8]) -> None:
    """Mark the voxels that the windows ask for."""
    depth, height, width = padded.shape
    for z in range(depth - 1):
        for y in range(height - 1):
            column = np.int64(0)
            for x in range(width - 1):
                # The two columns of a window are its even and its odd bits; the latter are the even ones of the next.
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
    """Whether the voxels of a neighbourhood, one at least, are one 26-connected piece."""
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
    """Take the mark off voxels that would join pieces of their neighbourhood; note the neighbours of all."""
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
    """Which marked voxels share a foreground neighbour with every marked voxel beside them."""
    agreed = np.zeros(len(places), np.bool_)
    for row in range(len(places)):
        agreed[row] = marks[places[row]] != 0
        for voxel in range(27):
            if voxel != _CENTRE and marks[places[row] + steps[voxel]] and not touching[voxel] & around[row]:
                agreed[row] = False
    return agreed
