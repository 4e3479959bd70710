"""Loops that generate the first homology group of a mask, as explicit cycles of voxels.

A mask is the cubical complex whose vertices are its voxels, whose edges join face neighbours and whose squares are
full 2x2 groups: the 6-connected foreground of the competition's topological term.

Voxels enter in raster order. An edge that joins two components belongs to the spanning tree; any other edge closes a
loop. Where a full square at the new voxel expresses that loop by an earlier loop it belongs to an old class, otherwise
it opens a new class. The other squares are relations that unite classes or show that a class is trivial. This is the
bookkeeping of persistent cohomology with annotations (Dey, Fan and Wang, 2014), except that relations among three or
more classes may stay unused: the loops still generate the group, and a few extra loops do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Index
from nx47dask.kernels.compiled import compiled
from nx47dask.kernels.union_find import find_root, join

__all__ = ["Loops", "loop_basis"]

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Loops:
    """Closed loops of voxels.

    Attributes
    ----------
    count : int
        Number of loops.
    edges : ndarray of int32, shape (edges, 5)
        Edges of all loops: z, y, x of the lower voxel, axis of the edge, number of the loop from 0.
    """

    count: int
    edges: NDArray[np.int32]


def loop_basis(mask: NDArray[np.bool_]) -> Loops:
    """Find loops that generate the first homology group (over Z2) of a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)

    Returns
    -------
    Loops
        At least as many loops as the mask has tunnels.
    """
    tree, classes, relations = _classify_edges(mask)
    _settle(classes[:, 0], relations)
    roots = classes[:, 0] == np.arange(len(classes))
    kept = np.ascontiguousarray(classes[roots][1:, 1:])
    return Loops(len(kept), _trace(tree, mask.shape, kept))


@compiled
def _with_room(rows: Ints, used: int) -> Ints:
    """Return an array that has row ``used``; it is about doubled where it is too short."""
    if used < len(rows):
        return rows
    longer = np.empty((2 * used, rows.shape[1]), np.int32)
    for row in range(used):
        for column in range(rows.shape[1]):
            longer[row, column] = rows[row, column]
    return longer


@compiled
def _cancel(values: Ints, count: int, parents: Ints) -> int:
    """Sum classes over Z2 in place: keep their roots without zeros and equal pairs; return the number left."""
    left = 0
    for i in range(count):
        if values[i] == 0:
            continue
        root = find_root(parents, values[i])
        twin = -1
        for k in range(left):
            if values[k] == root:
                twin = k
        if root == 0:
            continue
        if twin >= 0:
            left -= 1
            values[twin] = values[left]
        else:
            values[left] = root
            left += 1
    for i in range(left, len(values)):
        values[i] = 0
    return left


@compiled
def _relate(values: Ints, left: int, parents: Ints) -> bool:
    """Use the relation that ``left`` classes sum to zero if there are at most two; return True if so."""
    if left == 1:
        parents[values[0]] = 0
    elif left == 2:
        parents[max(values[0], values[1])] = min(values[0], values[1])
    return left <= 2


@compiled
def _sides(values: Ints, labels: Ints, lower: NDArray[np.int64], z: int, y: int, x: int, axis: int, other: int) -> None:
    """Write to ``values`` the classes of a square's sides, except the voxel's own edge along ``axis``."""
    values[0] = labels[z % 2, y, x, other]
    values[1] = labels[(z - lower[axis, 0]) % 2, y - lower[axis, 1], x - lower[axis, 2], other]
    values[2] = labels[(z - lower[other, 0]) % 2, y - lower[other, 1], x - lower[other, 2], axis]


@compiled
def _find_squares(full: NDArray[np.bool_], mask: NDArray[np.bool_], z: int, y: int, x: int) -> None:
    """Mark in ``full`` the existing edges below a voxel (diagonal) and the full squares along two axes."""
    present = (z > 0 and mask[z - 1, y, x], y > 0 and mask[z, y - 1, x], x > 0 and mask[z, y, x - 1])
    for axis in range(3):
        full[axis, axis] = present[axis]
    full[1, 0] = present[0] and present[1] and mask[z - 1, y - 1, x]
    full[2, 0] = present[0] and present[2] and mask[z - 1, y, x - 1]
    full[2, 1] = present[1] and present[2] and mask[z, y - 1, x - 1]


@compiled
def _classify_edges(mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], Ints, Ints]:
    """Find tree edges (bits by axis at the upper voxel), classes of the other edges, and unused relations.

    A class is a row: its parent in a union-find in which row 0 is trivial, the upper voxel and the axis of its edge.
    """
    _, height, width = mask.shape
    strides = (height * width, width, 1)
    lower = np.eye(3).astype(np.int64)
    parents = np.arange(mask.size).astype(np.int32)
    tree = np.zeros(mask.size, np.uint8)
    labels = np.zeros((2, height, width, 3), np.int32)
    classes, opened = np.zeros((64, 3), np.int32), 1
    relations, related = np.zeros((64, 4), np.int32), 0
    values, full = np.zeros(4, np.int32), np.zeros((3, 3), np.bool_)
    flat = mask.ravel()
    for voxel in range(mask.size):
        if not flat[voxel]:
            continue
        z, y, x = voxel // strides[0], voxel // width % height, voxel % width
        _find_squares(full, mask, z, y, x)
        for axis in range(3):
            if not full[axis, axis]:
                continue
            enclosed = (axis > 0 and full[axis, 0]) or (axis > 1 and full[axis, 1])
            if not enclosed and join(parents, voxel - strides[axis], voxel):
                tree[voxel] |= 1 << axis
                labels[z % 2, y, x, axis] = 0
                continue
            label = -1
            for other in range(axis):
                if full[axis, other] and label < 0:
                    _sides(values, labels, lower, z, y, x, axis, other)
                    left = _cancel(values, 3, classes[:, 0])
                    label = -1 if left > 1 else values[0]
            if label < 0:
                classes = _with_room(classes, opened)
                classes[opened, 0], classes[opened, 1], classes[opened, 2] = opened, voxel, axis
                label = opened
                opened += 1
            labels[z % 2, y, x, axis] = label
            for other in range(axis):
                if full[axis, other]:
                    _sides(values, labels, lower, z, y, x, axis, other)
                    values[3] = label
                    left = _cancel(values, 4, classes[:, 0])
                    if not _relate(values, left, classes[:, 0]):
                        relations = _with_room(relations, related)
                        for side in range(4):
                            relations[related, side] = values[side]
                        related += 1
    return tree, classes[:opened], relations[:related]


@compiled
def _settle(parents: Ints, relations: Ints) -> None:
    """Use relations as long as any becomes simple, then point every class to its root."""
    values = np.zeros(4, np.int32)
    changed = True
    while changed:
        changed = False
        for row in range(len(relations)):
            for side in range(4):
                values[side] = relations[row, side]
            left = _cancel(values, 4, parents)
            if left and _relate(values, left, parents):
                changed = True
    for number in range(len(parents)):
        parents[number] = find_root(parents, number)


@compiled
def _climb(tree: NDArray[np.uint8], strides: Index, start: int, level: Ints, queue: Ints) -> None:
    """Set the level of every voxel of a tree: its distance to ``start`` plus one."""
    queue[0], level[start] = start, 1
    read, written = 0, 1
    while read < written:
        voxel = queue[read]
        read += 1
        for axis in range(3):
            for side in (-1, 1):
                other = voxel + side * strides[axis]
                if other < 0 or other >= len(tree):
                    continue
                joined = tree[voxel if side < 0 else other] >> axis & 1
                if joined and level[other] == 0:
                    level[other] = level[voxel] + 1
                    queue[written] = other
                    written += 1


@compiled
def _step_down(tree: NDArray[np.uint8], strides: Index, voxel: int, level: Ints) -> Index:
    """Find the tree neighbour one step nearer to the start; return upper voxel of the edge, axis, neighbour."""
    for axis in range(3):
        for side in (-1, 1):
            other = voxel + side * strides[axis]
            if other < 0 or other >= len(tree):
                continue
            upper = max(voxel, other)
            if tree[upper] >> axis & 1 and level[other] == level[voxel] - 1:
                return upper, axis, other
    return -1, -1, -1


@compiled
def _trace_loops(tree: NDArray[np.uint8], strides: Index, kept: Ints) -> Ints:
    level = np.zeros(len(tree), np.int32)
    queue = np.empty(len(tree), np.int32)
    edges, used = np.empty((256, 3), np.int32), 0
    for loop in range(len(kept)):
        here, axis = kept[loop]
        there = here - strides[axis]
        if level[here] == 0:
            _climb(tree, strides, here, level, queue)
        edges = _with_room(edges, used)
        edges[used, 0], edges[used, 1], edges[used, 2] = here, axis, loop
        used += 1
        while here != there:
            if level[here] < level[there]:
                here, there = there, here
            upper, axis, here = _step_down(tree, strides, here, level)
            edges = _with_room(edges, used)
            edges[used, 0], edges[used, 1], edges[used, 2] = upper, axis, loop
            used += 1
    return edges[:used]


def _trace(tree: NDArray[np.uint8], shape: tuple[int, ...], kept: NDArray[np.int32]) -> NDArray[np.int32]:
    """Trace the loops that the kept edges close in the tree; return their edges as in :class:`Loops`."""
    _, height, width = shape
    upper, axis, loop = _trace_loops(tree, (height * width, width, 1), kept).T
    lower = upper - np.array([height * width, width, 1], dtype=np.int32)[axis]
    return np.stack([*np.unravel_index(lower, shape), axis, loop], axis=1).astype(np.int32)
