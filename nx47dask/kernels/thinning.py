"""Erosion and dilation that keep the topology: layers go or come, pieces, tunnels and cavities stay.

The foreground is 6-connected, as the score takes it, the background 26-connected, and what lies outside the array is
background. One layer is six parallel sub-iterations, one for each face direction. The voxels P that a sub-iteration
looks at have the other side (thinning: background, thickening: foreground) at their face in that direction; those of
them that are *P-simple* change sides all at once. A P-simple voxel stays simple whatever other voxels of P have changed
already, so any set of them may change together: no order, no parity of coordinates and so no dependence on where a
block begins.

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

# What a voxel is during a sub-iteration. The ring around the array is background in every question of topology, but no
# side to peel from or grow into: a sheet that leaves the volume is not peeled from where it is cut.
_BACKGROUND, _FOREGROUND, _CANDIDATE, _OUTSIDE = 0, 1, 2, 3

# A neighbourhood of 3 x 3 x 3 is 27 bits, z slowest: the centre is bit 13, and opposite bits add up to 26.
_DIRECTIONS = (4, 22, 10, 16, 12, 14)  # -z, +z, -y, +y, -x, +x
_AROUND = (1 << 27) - 1 - (1 << 13)
_FACES = sum(1 << bit for bit in _DIRECTIONS)
_FACES_AND_EDGES = _AROUND - sum(1 << bit for bit in (0, 2, 6, 8, 18, 20, 24, 26))


def layers_radius(layers: int, keep_ends: bool = False) -> int:
    """Radius of :func:`thin` and :func:`thicken` along every axis, in voxels: seven a layer, nine with ``keep_ends``.

    A sub-iteration looks one voxel far, and two in its own direction (whether a neighbour is a candidate). Each side
    of an axis is faced once in the six: five times one and once two. What is thin is looked for within two voxels of
    the candidates of the first.
    """
    return (9 if keep_ends else 7) * layers


def thin(mask: Mask, layers: int = 1, keep_ends: bool = True) -> Mask:
    """Peel layers off a mask without a change of topology.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
    layers : int
        How many layers to peel, from each side. A layer takes only voxels that touch the background with a face when
        it begins. The volume's border is no background in this.
    keep_ends : bool
        Keep voxels where the mask is thin already: no block of 2 x 2 x 2 that is all foreground begins or ends within
        one voxel. So the rim of a thin sheet, flat or oblique, does not retreat and its holes do not widen. A bump of
        one voxel on a thicker sheet sinks with it.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        Part of the mask, with the same 6-components, 26-components of the background and Euler number.
    """
    return _change_layers(mask, layers, _BACKGROUND, keep_ends)


def thicken(mask: Mask, layers: int = 1) -> Mask:
    """Add layers to a mask without a change of topology.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
    layers : int
        How many layers to add, on each side. A layer adds only voxels that touch the foreground with a face when it
        begins.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        The mask and more, with the same 6-components, 26-components of the background and Euler number.
    """
    return _change_layers(mask, layers, _FOREGROUND, False)


def _change_layers(mask: Mask, layers: int, side: int, keep_ends: bool) -> Mask:
    """Let layers of voxels change to a side, background or foreground."""
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
    """Offsets of the 27 voxels of a neighbourhood, in the order of their bits."""
    return list(itertools.product((-1, 0, 1), (-1, 0, 1), (-1, 0, 1)))


@cache
def _adjacency() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which voxels of a neighbourhood touch which, without the centre: tables of bits, 26-adjacent and 6-adjacent."""
    near_26, near_6 = np.zeros(27, dtype=np.int64), np.zeros(27, dtype=np.int64)
    for (one, a), (other, b) in itertools.permutations(enumerate(_cube()), 2):
        steps = [abs(p - q) for p, q in zip(a, b, strict=True)]
        if 13 not in (one, other) and max(steps) == 1:
            near_26[one] |= 1 << other
            near_6[one] |= (1 << other) if sum(steps) == 1 else 0
    return near_26, near_6


def _border(state: NDArray[np.uint8], offsets: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Places of the voxels of the volume that have the other side at a face."""
    there = state == side
    touched = np.zeros_like(there)
    for direction in _DIRECTIONS:
        # The ring is on no side, so a shift of the flat array carries nothing from one row into the next.
        step = int(offsets[direction])
        if step > 0:
            touched[:-step] |= there[step:]
        else:
            touched[-step:] |= there[:step]
    return np.flatnonzero(touched & (state == 1 - side))


def _near_blocks(foreground: Mask) -> Mask:
    """Voxels within one of a block of 2 x 2 x 2 that is all foreground."""
    near = foreground
    for axis in range(3):
        near = np.moveaxis(near, axis, 0)
        near = np.moveaxis(near[:-1] & near[1:], 0, axis)
    for axis in range(3):
        # A block at i covers i and i + 1, and is near to i - 1 to i + 2.
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
    """Whether a candidate may change sides, whichever other candidates do.

    Bertrand's conditions: (1) the background that is there for sure is one piece; (2) so is such foreground among faces
    and edges, as seen from the faces; (3) every candidate beside the voxel touches background beside it; (4) every
    candidate at a face closes a unit square with two foreground voxels. They are the same from either side.
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
    """One sub-iteration in place; every decision comes from the state before it."""
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
