"""Components across blocks: links between blocks, unions, and attributes of whole components.

There are four phases. P1: each block labels its components and keeps the label planes at its inner faces
(:mod:`nx47dask.kernels.components`). P2: :func:`link_blocks` pairs the labels of touching voxels across the forward
neighbours. P3: :func:`unite` finds the components of those pairs and combines their attributes. P4: each block applies
the decision. The result is exact for any cut, because unions and attributes are associative.

Labelling blocks and merging them by their faces follows ``dask_image.ndmeasure.label``; the attributes are an addition.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Index
from nx47dask.kernels.components import Face, Labelling
from nx47dask.kernels.union_find import join_all, number_components

__all__ = ["Components", "Faces", "Part", "forward_offsets", "link_blocks", "unite"]

Faces = Mapping[Face, NDArray[np.unsignedinteger]]


@dataclass(frozen=True, slots=True)
class Part:
    """Some nodes of a graph and the links that begin at them; a node is a shared component of a block.

    Attributes
    ----------
    pairs : ndarray of int64, shape (links, 2)
        Linked nodes, numbered from 0 in the whole graph.
    attributes : dict of str to ndarray, shape (nodes of the part,)
    """

    pairs: NDArray[np.int64]
    attributes: Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Components:
    """Connected components of a graph.

    Attributes
    ----------
    component : ndarray of int32 or int64, shape (nodes,)
        Component of each node, from 0.
    number : int
        Number of components.
    attributes : dict of str to ndarray, shape (components,)
    """

    component: NDArray[np.signedinteger]
    number: int
    attributes: dict[str, NDArray[np.generic]]


def forward_offsets(labelling: Labelling) -> list[Index]:
    """List the grid steps to the forward neighbours of a block: 13 for 26-connectivity, 9 for 18, 3 for 6.

    These are half of the neighbours; the other half has the block as a forward neighbour.
    """
    return [
        (z, y, x)
        for z, y, x in itertools.product((-1, 0, 1), repeat=3)
        if (z, y, x) > (0, 0, 0) and abs(z) + abs(y) + abs(x) <= labelling.rank and not (labelling.per_slice and z)
    ]


def link_blocks(faces: Faces, neighbour: Faces, offset: Index, labelling: Labelling) -> NDArray[np.int64]:
    """Pair the shared labels of two blocks that are linked by touching voxels.

    Parameters
    ----------
    faces, neighbour : mapping of Face to ndarray
        Planes of shared labels (from 1; 0 none) at the inner faces of the block and of its neighbour.
    offset : tuple of int
        Grid step from the block to the neighbour.
    labelling : Labelling
        Defines the voxels that count as linked.

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


def unite(nodes: int, parts: Iterable[Part]) -> Components:
    """Find the connected components of a graph that comes in parts, and the attributes of each component.

    Parts are read in turn; only the attributes of their nodes stay in memory. The attributes of a component combine
    those of its nodes: the sum of voxels, the smallest slice, and flags that are true where a flag of a node is.

    Parameters
    ----------
    nodes : int
        Number of nodes in all parts.
    parts : iterable of Part
        The nodes of a part follow those of the part before. Links may lead to any node.

    Notes
    -----
    Union-find by path halving (Tarjan and van Leeuwen, 1984); the lower number is the root.
    """
    fits = nodes <= np.iinfo(np.int32).max
    parents: NDArray[np.signedinteger] = np.arange(nodes, dtype=np.int32 if fits else np.int64)
    held = []
    for part in parts:
        join_all(parents, part.pairs)
        held.append(part.attributes)
    number = int(number_components(parents))
    return Components(parents, number, _reduce(parents, number, held))


def _reduce(
    component: NDArray[np.signedinteger], number: int, parts: list[Mapping[str, NDArray[np.generic]]]
) -> dict[str, NDArray[np.generic]]:
    """Combine the attributes of nodes into those of components, part by part."""
    reduced = {name: _neutral(name, number) for name in (parts[0] if parts else ())}
    for name, target in reduced.items():
        first = 0
        for attributes in parts:
            values = attributes[name]
            nodes = component[first : first + len(values)]
            first += len(values)
            if name == "voxels":
                np.add.at(target, nodes, values)
            elif name == "slice":
                np.minimum.at(target, nodes, values)
            else:
                target[nodes[values.astype(bool)]] = True
    return reduced


def _neutral(name: str, number: int) -> NDArray[Any]:
    """Return an attribute of components that have no nodes yet."""
    if name == "voxels":
        return np.zeros(number, dtype=np.int64)
    return np.full(number, np.iinfo(np.int64).max) if name == "slice" else np.zeros(number, dtype=bool)


def _facing(faces: Faces, direction: tuple[int, ...]) -> NDArray[np.unsignedinteger]:
    """Return the part of a block's surface that faces a direction: a plane, a line or a single voxel."""
    axis = next(a for a in range(3) if direction[a])
    plane = faces[axis, int(direction[axis] > 0)]
    rest = [direction[a] for a in range(3) if a != axis]
    return plane[tuple(slice(None) if d == 0 else -1 if d > 0 else 0 for d in rest)]


def _unique(packed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the unique values; faster than ``numpy.unique`` where runs of equal values are long, as along sheets."""
    keep = np.ones(packed.size, dtype=bool)
    np.not_equal(packed[1:], packed[:-1], out=keep[1:])
    return np.unique(packed[keep])
