"""Erosion that keeps the topology: layers of a mask's border go, its pieces, tunnels and cavities stay.

The foreground is 26-connected, the background 6-connected, and what lies outside the array is background. One layer is
six parallel sub-iterations, one for each face direction. The voxels P that a sub-iteration looks at have background
at their face in that direction; those of them that are *P-simple* go all at once. A P-simple voxel stays simple
whatever other voxels of P are gone already, so any set of them may go together: no order, no parity of coordinates and
so no dependence on where a block begins.

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

__all__ = ["thin", "thinning_radius"]

Mask = NDArray[np.bool_]

# What a voxel is during a sub-iteration. The ring around the array is background, but opens no border: a sheet that
# leaves the volume is not peeled from its cut side.
_BACKGROUND, _FOREGROUND, _CANDIDATE, _OUTSIDE = 0, 1, 2, 3

# A neighbourhood of 3 x 3 x 3 is 27 bits, z slowest: the centre is bit 13, and opposite bits add up to 26.
_DIRECTIONS = (4, 22, 10, 16, 12, 14)  # -z, +z, -y, +y, -x, +x
_FACES = sum(1 << bit for bit in _DIRECTIONS)
_CORNERS = sum(1 << bit for bit in (0, 2, 6, 8, 18, 20, 24, 26))
_FACES_AND_EDGES = (1 << 27) - 1 - _CORNERS - (1 << 13)

_MOST_NEIGHBOURS_OF_AN_END = 8


def thinning_radius(layers: int) -> int:
    """Radius of :func:`thin` along every axis, in voxels: seven a layer.

    A sub-iteration looks one voxel far, and two in its own direction (whether a neighbour is a candidate). Each side
    of an axis is faced once in the six: five times one and once two.
    """
    return 7 * layers


def thin(mask: Mask, layers: int = 1, keep_ends: bool = True) -> Mask:
    """Peel layers off a mask without a change of topology.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
    layers : int
        How many layers to peel, from each side. A layer takes only voxels that touch the background with a face when
        it begins. The volume's border is no background in this.
    keep_ends : bool
        Keep voxels where the mask is thin already: both neighbours along z, along y or along x are background, and at
        most 8 of the 26 neighbours are foreground. So the rim of a sheet of one voxel does not retreat and its holes
        do not widen. A bump of one voxel on a surface has at least 9 neighbours: it is no end and sinks with it.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        Part of the mask, with the same 26-components, 6-components of the background and Euler number.
    """
    padded = np.full([edge + 2 for edge in mask.shape], _OUTSIDE, dtype=np.uint8)
    inner = (slice(1, -1),) * mask.ndim
    padded[inner] = mask
    state = padded.reshape(-1)
    _, rows, columns = padded.shape
    offsets = np.array([(z * rows + y) * columns + x for z, y, x in _cube()], dtype=np.int64)
    near_26, near_6 = _adjacency()
    for _ in range(layers):
        border = _border(state, offsets)
        for direction in _DIRECTIONS:
            _peel(state, border, direction, offsets, near_26, near_6, keep_ends)
    thinned: Mask = padded[inner] == _FOREGROUND
    return thinned


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


def _border(state: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the foreground voxels that have background of the volume at a face."""
    empty = state == _BACKGROUND
    touched = np.zeros_like(empty)
    for direction in _DIRECTIONS:
        # The ring is not empty, so a shift of the flat array carries nothing from one row into the next.
        step = int(offsets[direction])
        if step > 0:
            touched[:-step] |= empty[step:]
        else:
            touched[-step:] |= empty[:step]
    return np.flatnonzero(touched & (state == _FOREGROUND))


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
def _is_end(filled: int) -> bool:
    """Whether few neighbours are foreground and both faces along an axis are background."""
    thin_axis = False
    for bit in (4, 10, 12):
        if not ((filled >> bit) | (filled >> (26 - bit))) & 1:
            thin_axis = True
    if not thin_axis:
        return False
    neighbours = 0
    while filled:
        filled &= filled - 1
        neighbours += 1
    return neighbours <= _MOST_NEIGHBOURS_OF_AN_END


@compiled
def _is_p_simple(
    kept: int, candidates: int, direction: int, near_26: NDArray[np.int64], near_6: NDArray[np.int64]
) -> bool:
    """Whether a candidate may go, whichever other candidates go.

    Bertrand's conditions: (1) the foreground that surely stays is there and is one piece; (2) so is the background
    among faces and edges, as seen from the faces; (3) every candidate beside the voxel touches foreground that stays
    beside it; (4) every candidate at a face closes a unit square with two background voxels. (4) always holds here:
    that candidate lies across the direction, and the square is completed by the background that both have there.
    """
    if kept == 0 or _reach(kept & -kept, kept, near_26) != kept:
        return False
    for bit in range(27):
        if (candidates >> bit) & 1 and near_26[bit] & kept == 0:
            return False
    empty = _FACES_AND_EDGES & ~(kept | candidates)
    return _FACES & empty & ~_reach(1 << direction, empty, near_6) == 0


@compiled
def _peel(
    state: NDArray[np.uint8],
    border: NDArray[np.int64],
    direction: int,
    offsets: NDArray[np.int64],
    near_26: NDArray[np.int64],
    near_6: NDArray[np.int64],
    keep_ends: bool,
) -> None:
    """One sub-iteration in place; every decision comes from the state before it."""
    for place in border:
        if state[place] == _FOREGROUND and state[place + offsets[direction]] == _BACKGROUND:
            state[place] = _CANDIDATE
    gone = np.zeros(border.size, dtype=np.bool_)
    for row in range(border.size):
        if state[border[row]] != _CANDIDATE:
            continue
        kept = 0
        candidates = 0
        for bit in range(27):
            neighbour = state[border[row] + offsets[bit]]
            if bit != 13 and neighbour == _FOREGROUND:
                kept |= 1 << bit
            elif bit != 13 and neighbour == _CANDIDATE:
                candidates |= 1 << bit
        if not (keep_ends and _is_end(kept | candidates)):
            gone[row] = _is_p_simple(kept, candidates, direction, near_26, near_6)
    for row in range(border.size):
        if state[border[row]] == _CANDIDATE:
            state[border[row]] = _BACKGROUND if gone[row] else _FOREGROUND
