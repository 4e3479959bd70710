"""Erosion and dilation that keep the topology: layers are removed or added; pieces, tunnels and cavities stay.

The foreground is 6-connected, as in the score, the background is 26-connected, and voxels outside the array are
background. A layer takes six parallel sub-iterations, one for each face direction. The candidates P of a sub-iteration
are the voxels that have the other side (thinning: background, thickening: foreground) at their face in that direction.
All *P-simple* voxels among them change sides at once. A P-simple voxel stays simple whichever other voxels of P have
changed, so any set of them may change together. Therefore the result depends on no order, on no parity of coordinates
and on no place where a block begins.

References
----------
Bertrand (1995), "On P-simple points", C. R. Acad. Sci. Paris I 321. Bertrand and Malandain (1994), "A new
characterization of three-dimensional simple points", Pattern Recognition Letters 15. Lohou and Bertrand (2005), "A 3D
6-subiteration curve thinning algorithm based on P-simple points", Discrete Applied Mathematics 151.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nx47dask.kernels.compiled import compiled

__all__ = ["layers_radius", "thicken", "thin"]

Mask = NDArray[np.bool_]

# States of a voxel during a sub-iteration. The ring around the array counts as background for the topology, but nothing
# is peeled from it or grows into it: a sheet that leaves the volume is not peeled at the cut.
_BACKGROUND, _FOREGROUND, _CANDIDATE, _OUTSIDE = 0, 1, 2, 3

# A neighbourhood of 3 x 3 x 3 is 27 bits, z slowest: the centre is bit 13, and opposite bits add up to 26.
_DIRECTIONS = (4, 22, 10, 16, 12, 14)  # -z, +z, -y, +y, -x, +x
_AROUND = (1 << 27) - 1 - (1 << 13)
_FACES = sum(1 << bit for bit in _DIRECTIONS)
_FACES_AND_EDGES = _AROUND - sum(1 << bit for bit in (0, 2, 6, 8, 18, 20, 24, 26))


def layers_radius(layers: int, keep_ends: bool = False) -> int:
    """Return the radius of :func:`thin` and :func:`thicken` per axis in voxels: 7 a layer, 9 with ``keep_ends``.

    A sub-iteration reads 1 voxel far, and 2 voxels in its own direction, to see if a neighbour is a candidate. Of the
    six, one faces a given side of an axis, so the radius is 5 times 1 plus 2. ``keep_ends`` reads 2 voxels around the
    first candidates.
    """
    return (9 if keep_ends else 7) * layers


def thin(mask: Mask, layers: int = 1, keep_ends: bool = True) -> Mask:
    """Remove layers from a mask without a change of topology.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
    layers : int
        Number of layers to remove from each side. A layer takes only voxels that touch the background with a face when
        it begins. The volume's border does not count as background here.
    keep_ends : bool
        Keep voxels where the mask is already thin: within one voxel there is no block of 2 x 2 x 2 that is all
        foreground. So the rim of a thin sheet, flat or oblique, does not retreat and its holes do not widen. A bump of
        one voxel on a thicker sheet is removed with the layer.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        A part of the mask, with the same 6-components, 26-components of the background and Euler number.
    """
    return _change_layers(mask, layers, _BACKGROUND, keep_ends)


def thicken(mask: Mask, layers: int = 1) -> Mask:
    """Add layers to a mask without a change of topology.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
    layers : int
        Number of layers to add on each side. A layer adds only voxels that touch the foreground with a face when it
        begins.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        Contains the mask, with the same 6-components, 26-components of the background and Euler number.
    """
    return _change_layers(mask, layers, _FOREGROUND, False)


def _change_layers(mask: Mask, layers: int, side: int, keep_ends: bool) -> Mask:
    """Change layers of voxels to a side, background or foreground."""
    padded = np.full([edge + 2 for edge in mask.shape], _OUTSIDE, dtype=np.uint8)
    inner = (slice(1, -1),) * mask.ndim
    padded[inner] = mask
    state = padded.reshape(-1)
    _, rows, columns = padded.shape
    offsets = np.array([(z * rows + y) * columns + x for z, y, x in _cube()], dtype=np.int64)
    near_26, near_6 = _adjacency()
    for _ in range(layers):
        border = _border(state, offsets, side)
        if keep_ends:
            border = border[_near_blocks(padded == _FOREGROUND).reshape(-1)[border]]
        for direction in _DIRECTIONS:
            _change(state, border, side, direction, offsets, near_26, near_6)
    changed: Mask = padded[inner] == _FOREGROUND
    return changed


def _cube() -> list[tuple[int, int, int]]:
    """List the offsets of the 27 voxels of a neighbourhood, in the order of their bits."""
    return list(itertools.product((-1, 0, 1), (-1, 0, 1), (-1, 0, 1)))


@cache
def _adjacency() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each voxel of a neighbourhood, the bits of its 26- and 6-adjacent voxels, without the centre."""
    near_26, near_6 = np.zeros(27, dtype=np.int64), np.zeros(27, dtype=np.int64)
    for (bit, a), (other, b) in itertools.permutations(enumerate(_cube()), 2):
        steps = [abs(p - q) for p, q in zip(a, b, strict=True)]
        if 13 not in (bit, other) and max(steps) == 1:
            near_26[bit] |= 1 << other
            near_6[bit] |= (1 << other) if sum(steps) == 1 else 0
    return near_26, near_6


def _border(state: NDArray[np.uint8], offsets: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Find the voxels of the volume that have the other side at a face; return their flat indices."""
    there = state == side
    touched = np.zeros_like(there)
    for direction in _DIRECTIONS:
        # The ring is on neither side, so a shift of the flat array carries nothing from a row into the next.
        step = int(offsets[direction])
        if step > 0:
            touched[:-step] |= there[step:]
        else:
            touched[-step:] |= there[:step]
    return np.flatnonzero(touched & (state == 1 - side))


def _near_blocks(foreground: Mask) -> Mask:
    """Mark the voxels within 1 voxel of a block of 2 x 2 x 2 that is all foreground."""
    near = foreground
    for axis in range(3):
        near = np.moveaxis(near, axis, 0)
        near = np.moveaxis(near[:-1] & near[1:], 0, axis)
    for axis in range(3):
        # A block at i covers i and i + 1; the voxels near it are i - 1 to i + 2.
        near = np.moveaxis(near, axis, 0)
        pairs = np.zeros((len(near) + 1, *near.shape[1:]), dtype=bool)
        pairs[:-1] = near
        pairs[1:] |= near
        grown = pairs.copy()
        grown[:-1] |= pairs[1:]
        grown[1:] |= pairs[:-1]
        near = np.moveaxis(grown, 0, axis)
    return near


@compiled
def _reach(start: int, cells: int, near: NDArray[np.int64]) -> int:
    """Flood the cells of a neighbourhood from a start."""
    reached = start
    front = start
    while front:
        grown = 0
        for bit in range(27):
            if (front >> bit) & 1:
                grown |= near[bit]
        front = grown & cells & ~reached
        reached |= front
    return reached


@compiled
def _is_p_simple(filled: int, candidates: int, near_26: NDArray[np.int64], near_6: NDArray[np.int64]) -> bool:
    """Return True if a candidate may change sides, whichever other candidates do.

    Bertrand's conditions: (1) the certain background (no candidate) is one piece; (2) so is the certain foreground
    among faces and edges, as reached from the faces; (3) every candidate beside the voxel touches certain background
    beside it; (4) every candidate at a face closes a unit square with two foreground voxels. The conditions are the
    same from either side.
    """
    empty = _AROUND & ~(filled | candidates)
    if empty == 0 or filled & _FACES == 0:
        return False
    for bit in range(27):
        if (candidates >> bit) & 1 and near_26[bit] & empty == 0:
            return False
    for face in _DIRECTIONS:
        if (candidates >> face) & 1:
            closed = False
            for beside in _DIRECTIONS:
                if beside not in (face, 26 - face) and (filled >> beside) & (filled >> (face + beside - 13)) & 1:
                    closed = True
            if not closed:
                return False
    faces = filled & _FACES
    if faces & ~_reach(faces & -faces, filled & _FACES_AND_EDGES, near_6):
        return False
    return _reach(empty & -empty, empty, near_26) == empty


@compiled
def _change(
    state: NDArray[np.uint8],
    border: NDArray[np.int64],
    side: int,
    direction: int,
    offsets: NDArray[np.int64],
    near_26: NDArray[np.int64],
    near_6: NDArray[np.int64],
) -> None:
    """Run a sub-iteration in place; every decision uses the state before it."""
    for place in border:
        if state[place] == 1 - side and state[place + offsets[direction]] == side:
            state[place] = _CANDIDATE
    changes = np.zeros(border.size, dtype=np.bool_)
    for row in range(border.size):
        if state[border[row]] != _CANDIDATE:
            continue
        filled = 0
        candidates = 0
        for bit in range(27):
            neighbour = state[border[row] + offsets[bit]]
            if neighbour == _FOREGROUND:
                filled |= 1 << bit
            elif bit != 13 and neighbour == _CANDIDATE:
                candidates |= 1 << bit
        changes[row] = _is_p_simple(filled, candidates, near_26, near_6)
    for row in range(border.size):
        if state[border[row]] == _CANDIDATE:
            state[border[row]] = side if changes[row] else 1 - side
