"""How components that blocks have cut apart become whole again: links, unions, reductions.

The four phases: blocks label themselves and keep the planes at their inner faces (P1,
:mod:`nx47dask.kernels.components`); :func:`link_blocks` pairs the labels of touching voxels across the forward
neighbours (P2); :func:`unite` finds the components of those pairs and :func:`reduce_attributes` combines their
attributes (P3); blocks apply the verdict (P4). Exact for any cut, since union and the attributes are associative.

The scheme of labelling blocks and merging by their faces is that of ``dask_image.ndmeasure.label``; the attributes
are additions.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nx47dask.geometry import Index
from nx47dask.kernels.components import Face, Labelling

__all__ = ["Faces", "forward_offsets", "link_blocks", "reduce_attributes", "unite"]

Faces = Mapping[Face, NDArray[np.unsignedinteger]]


def forward_offsets(labelling: Labelling) -> list[Index]:
    """Grid steps to the neighbours that a block is paired with: 13 for 26-connectivity, 9 for 18, 3 for 6.

    Half of the neighbours: the other half pairs itself with the block.
    """
    return [
        (z, y, x)
        for z, y, x in itertools.product((-1, 0, 1), repeat=3)
        if (z, y, x) > (0, 0, 0) and abs(z) + abs(y) + abs(x) <= labelling.rank and not (labelling.per_slice and z)
    ]


def link_blocks(faces: Faces, neighbour: Faces, offset: Index, labelling: Labelling) -> NDArray[np.int64]:
    """Pairs of shared labels of two blocks that are linked by touching voxels.

    Parameters
    ----------
    faces, neighbour : mapping of Face to ndarray
        Planes of shared labels (from 1; 0 none) at the inner faces of the block and of its neighbour.
    offset : tuple of int
        Grid step from the block to the neighbour.
    labelling : Labelling
        Which voxels count as linked.

    Returns
    -------
    ndarray of int64, shape (pairs, 2)
        Unique pairs (label in the block, label in the neighbour).
    """
    here = _facing(faces, offset)
    there = _facing(neighbour, tuple(-o for o in offset))
    along = [axis for axis in range(3) if offset[axis] == 0]
    free = labelling.rank - sum(map(abs, offset))
    pairs = []
    for shift in itertools.product((-1, 0, 1), repeat=len(along)):
        if sum(map(abs, shift)) > free:
            continue
        if any(s and axis not in labelling.linked_axes for s, axis in zip(shift, along, strict=True)):
            continue
        a = here[tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, here.shape, strict=True))]
        b = there[tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(shift, there.shape, strict=True))]
        both = (a != 0) & (b != 0)
        if both.any():
            packed = a[both].astype(np.int64) << 32 | b[both].astype(np.int64)
            pairs.append(_unique(packed))
    if not pairs:
        return np.zeros((0, 2), dtype=np.int64)
    packed = _unique(np.concatenate(pairs))
    return np.stack([packed >> 32, packed & 0xFFFFFFFF], axis=1)


def unite(nodes: int, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Connected components of a graph of ``nodes`` nodes (from 0) and edges of shape (pairs, 2).

    Returns the component of every node and the number of components.
    """
    if nodes == 0:
        return np.zeros(0, dtype=np.int64), 0
    ones = np.ones(len(pairs), dtype=np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(nodes, nodes))
    number, component = connected_components(graph, directed=False)
    return component.astype(np.int64), int(number)


def reduce_attributes(
    component: NDArray[np.int64], number: int, attributes: Mapping[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """Combine the attributes of nodes to those of components: counts add, flags OR, first slices take the minimum."""
    reduced: dict[str, NDArray[np.generic]] = {}
    for name, values in attributes.items():
        if name == "voxels":
            total = np.zeros(number, dtype=np.int64)
            np.add.at(total, component, values)
            reduced[name] = total
        elif name == "slice":
            first = np.full(number, np.iinfo(np.int64).max)
            np.minimum.at(first, component, values)
            reduced[name] = first
        else:
            flags = np.zeros(number, dtype=bool)
            flags[component[values.astype(bool)]] = True
            reduced[name] = flags
    return reduced


def _facing(faces: Faces, direction: tuple[int, ...]) -> NDArray[np.unsignedinteger]:
    """The part of a block's surface that faces a direction: a plane, a line or a single voxel."""
    axis = next(a for a in range(3) if direction[a])
    plane = faces[axis, int(direction[axis] > 0)]
    rest = [direction[a] for a in range(3) if a != axis]
    return plane[tuple(slice(None) if d == 0 else -1 if d > 0 else 0 for d in rest)]


def _unique(packed: NDArray[np.int64]) -> NDArray[np.int64]:
    """``numpy.unique`` without its overhead where runs of equal values are long, as along sheets."""
    keep = np.ones(packed.size, dtype=bool)
    np.not_equal(packed[1:], packed[:-1], out=keep[1:])
    return np.unique(packed[keep])
