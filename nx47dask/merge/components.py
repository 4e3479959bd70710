"""How components that blocks have cut apart become whole again: links, unions, reductions.

The four phases: blocks label themselves and keep the planes at their inner faces (P1,
:mod:`nx47dask.kernels.components`); :func:`link_blocks` pairs the labels of touching voxels across the forward
neighbours (P2); :func:`unite` finds the components of those pairs and combines their attributes (P3); blocks apply the
verdict (P4). Exact for any cut, since union and the attributes are associative.

The scheme of labelling blocks and merging by their faces is that of ``dask_image.ndmeasure.label``; the attributes
are additions.
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
    """Some nodes of a graph, which are shared components of blocks, and links that begin at them.

    Attributes
    ----------
    pairs : ndarray of int64, shape (links, 2)
        Linked nodes of the whole graph, numbered from 0.
    attributes : dict of str to ndarray, shape (nodes of the part,)
    """

    pairs: NDArray[np.int64]
    attributes: Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Components:
    """The components of a graph.

    Attributes
    ----------
    component : ndarray of int32 or int64, shape (nodes,)
        Component of every node, from 0.
    number : int
        Number of components.
    attributes : dict of str to ndarray, shape (components,)
    """

    component: NDArray[np.signedinteger]
    number: int
    attributes: dict[str, NDArray[np.generic]]


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


def unite(nodes: int, parts: Iterable[Part]) -> Components:
    """Connected components of a graph that comes in parts, and the attributes of each component.

    Parts are taken one by one; what stays of a part are the attributes of its nodes. Attributes combine as they must
    for a whole: voxels add up, the first slice is the least, flags are true where one is.

    Parameters
    ----------
    nodes : int
        How many nodes there are in all.
    parts : iterable of Part
        Their nodes in order: those of a part follow on those of the part before. Links may lead anywhere.

    Notes
    -----
    Union-find by path halving (Tarjan and van Leeuwen, 1984), the lower number being the root.
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
    """Attributes of components from those of nodes, part by part."""
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
    """Attributes of components without nodes."""
    if name == "voxels":
        return np.zeros(number, dtype=np.int64)
    return np.full(number, np.iinfo(np.int64).max) if name == "slice" else np.zeros(number, dtype=bool)


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
