"""Matched tunnels of two masks, by the linking numbers of their loops with cycles of the background.

A tunnel of a mask A is filled when the cells outside the union U of both masks enter in raster order. Alexander
duality allows the reverse view: the unit squares outside U leave in reverse order, and each is an edge between the two
cubes beside it (a single node stands for everything outside the volume). An edge that closes a cycle fills the tunnels
that the cycle runs through. The linking numbers, over Z2, of the cycle with loops that generate the first homology of A
identify these tunnels. The edge is a jump of A where this vector is new; the matched tunnels are the edges at which A
and B jump together.

The linking number with a loop counts crossings of a curtain that hangs from the loop's edges towards decreasing z.
Memory holds only one plane of cubes: each cube has a component and, relative to the component's root, a vector of
crossings. A new vector is divided out of all vectors at once, so every vector that is not zero later is new.

The characterisation is that of the induced matching of Stucki et al. (2023, 2024) restricted to binary masks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nx47dask.kernels.compiled import compiled
from nx47dask.metrics.loop_basis import Loops

__all__ = ["matched_tunnels"]

_WORD = 64


class _Vectors(NamedTuple):
    """Vectors over Z2 as rows, and the first row of each kind.

    A row has ``split`` words for the loops of A, then words for the loops of B; ``filled`` marks rows that are not
    zero. The kinds in order: crossings from a cube to its component's root (from row 0); from a component's root to
    its parent; crossings of squares normal to y and to x, by the curtains that hang there; crossings from the lowest
    plane to the outside; the present vector of each loop.
    """

    bits: NDArray[np.uint64]
    filled: NDArray[np.bool_]
    split: int
    component: int
    normal_y: int
    normal_x: int
    below: int
    loop: int


class _Plane(NamedTuple):
    """Plane of cubes, with a border for the outside: the component of each cube, and a union-find of components.

    Component 0 is the outside and always a root. ``path`` is a vector for temporary results.
    """

    component: NDArray[np.int32]
    parent: NDArray[np.int32]
    size: NDArray[np.int32]
    path: NDArray[np.uint64]


def matched_tunnels(union: NDArray[np.bool_], a: Loops, b: Loops, tunnels_a: int, tunnels_b: int) -> int:
    """Count the tunnels that two masks share, by the induced matching in their union.

    Parameters
    ----------
    union : ndarray of bool, shape (Z, Y, X)
        Union of both masks.
    a, b : Loops
        Loops that generate the first homology of each mask.
    tunnels_a, tunnels_b : int
        First Betti number of each mask.
    """
    split, words = -(-a.count // _WORD), -(-a.count // _WORD) + -(-b.count // _WORD)
    cubes = (union.shape[1] + 1) * (union.shape[2] + 1)
    starts = np.cumsum([0, cubes, cubes + 1, cubes, cubes, cubes, a.count + b.count])
    vectors = _Vectors(
        np.zeros((starts[-1], words), dtype=np.uint64),
        np.zeros(starts[-1], dtype=bool),
        split,
        *(int(start) for start in starts[1:-1]),
    )
    for first_row, first_bit, count in ((0, 0, a.count), (a.count, split * _WORD, b.count)):
        numbers = np.arange(count)
        rows = vectors.loop + first_row + numbers
        places = first_bit + numbers
        vectors.bits[rows, places // _WORD] = np.uint64(1) << (places % _WORD).astype(np.uint64)
        vectors.filled[rows] = True
    edges = np.concatenate([a.edges, b.edges + np.array([0, 0, 0, 0, a.count], dtype=np.int32)])
    edges = edges[edges[:, 3] != 0]  # an edge along z has no curtain
    edges = edges[np.argsort(-edges[:, 0], kind="stable")]
    plane = _Plane(
        np.zeros(cubes + 1, dtype=np.int32),
        np.arange(cubes + 1, dtype=np.int32),
        np.ones(cubes + 1, dtype=np.int32),
        np.zeros(words, dtype=np.uint64),
    )
    return int(_sweep(union, edges, vectors, plane, tunnels_a, tunnels_b))


@compiled
def _add(vectors: _Vectors, to: int, row: int) -> None:
    """Add a row to another."""
    if vectors.filled[row]:
        some = False
        for word in range(vectors.bits.shape[1]):
            vectors.bits[to, word] ^= vectors.bits[row, word]
            some |= vectors.bits[to, word] != 0
        vectors.filled[to] = some


@compiled
def _add_to(path: NDArray[np.uint64], vectors: _Vectors, row: int) -> None:
    """Add a row to a vector."""
    if vectors.filled[row]:
        for word in range(len(path)):
            path[word] ^= vectors.bits[row, word]


@compiled
def _set(vectors: _Vectors, row: int, path: NDArray[np.uint64]) -> bool:
    """Copy a vector into a row; return True if it is not zero."""
    some = False
    for word in range(len(path)):
        vectors.bits[row, word] = path[word]
        some |= path[word] != 0
    vectors.filled[row] = some
    return some


@compiled
def _clear(vectors: _Vectors, row: int) -> None:
    if vectors.filled[row]:
        vectors.bits[row] = 0
        vectors.filled[row] = False


@compiled
def _divide(vectors: _Vectors, new: NDArray[np.uint64], first: int, stop: int) -> bool:
    """Divide the words ``first`` to ``stop`` of a vector out of all rows; return True if they are not all zero."""
    for word in range(first, stop):
        if new[word]:
            lowest = new[word] & (~new[word] + np.uint64(1))
            for row in range(len(vectors.filled)):
                if vectors.filled[row] and vectors.bits[row, word] & lowest:
                    for other in range(first, stop):
                        vectors.bits[row, other] ^= new[other]
                    vectors.filled[row] = np.any(vectors.bits[row] != 0)
            return True
    return False


@compiled
def _find(plane: _Plane, vectors: _Vectors, node: int) -> int:
    """Find the root of a component; add the crossings on the path to it to ``plane.path``."""
    while plane.parent[node] != node:
        _add_to(plane.path, vectors, vectors.component + node)
        node = plane.parent[node]
    return node


@compiled
def _join(plane: _Plane, vectors: _Vectors, first: int, second: int, crossing: int) -> bool:
    """Join two cubes through a square with the crossings of row ``crossing``.

    Returns True if this closes a cycle with a vector, then in ``plane.path``, that is not zero.
    """
    plane.path[:] = 0
    root = _find(plane, vectors, plane.component[first])
    other = _find(plane, vectors, plane.component[second])
    for row in (first, second, crossing):
        _add_to(plane.path, vectors, row)
    if root == other:
        return bool(np.any(plane.path))
    if other == 0 or (root != 0 and plane.size[root] < plane.size[other]):
        root, other = other, root
    plane.parent[other] = root
    plane.size[root] += plane.size[other]
    _set(vectors, vectors.component + other, plane.path)
    return False


@compiled
def _next_plane(plane: _Plane, vectors: _Vectors, above: NDArray[np.bool_]) -> None:
    """Go down a plane: a cube is in the component of the cube above, unless the square between them is closed.

    Components get new numbers, from 1 for those that reach this plane.
    """
    height, width = above.shape
    numbers = np.full(len(plane.parent), -1, np.int32)
    numbers[0], used = 0, 1
    cut = np.zeros(len(plane.component), np.bool_)
    for y in range(height - 1):
        for x in range(width - 1):
            cube = (y + 1) * (width + 1) + x + 1
            if above[y, x] and above[y, x + 1] and above[y + 1, x] and above[y + 1, x + 1]:
                cut[cube] = True
                _clear(vectors, cube)
                continue
            node = plane.component[cube]
            if plane.parent[node] != node:
                plane.path[:] = 0
                node = _find(plane, vectors, node)
                _add_to(plane.path, vectors, cube)
                _set(vectors, cube, plane.path)
            if numbers[node] < 0:
                numbers[node] = used
                used += 1
            plane.component[cube] = numbers[node]
    for cube in range(len(cut)):
        if cut[cube]:
            plane.component[cube] = used
            used += 1
    for node in range(len(plane.parent)):
        plane.parent[node], plane.size[node] = node, 1
        _clear(vectors, vectors.component + node)


@compiled
def _hang(vectors: _Vectors, edge: NDArray[np.int32], width: int) -> None:
    """Hang the curtain of an edge along y or x under it."""
    square = edge[1] * (width + 1) + edge[2]
    _add(vectors, (vectors.normal_x if edge[3] == 1 else vectors.normal_y) + square, vectors.loop + edge[4])


@compiled
def _hang_below(vectors: _Vectors, edges: NDArray[np.int32], height: int, width: int) -> None:
    """Sum the crossings from under each square of the lowest plane to the outside, towards larger x.

    ``edges`` are those in the lowest plane: their curtains hang below the volume.
    """
    for y in range(height):
        for x in range(width - 1):
            square = y * (width + 1) + x
            _add(vectors, vectors.below + square, vectors.normal_x + square + 1)
    for edge in edges:
        if edge[3] == 1 and edge[2] > 0:
            _add(vectors, vectors.below + edge[1] * (width + 1) + edge[2] - 1, vectors.loop + edge[4])
    for y in range(height):
        for x in range(width - 3, -1, -1):
            square = y * (width + 1) + x
            _add(vectors, vectors.below + square, vectors.below + square + 1)


@compiled
def _sweep(
    union: NDArray[np.bool_], edges: NDArray[np.int32], vectors: _Vectors, plane: _Plane, left_a: int, left_b: int
) -> int:
    """Add the open squares in decreasing raster order; count the common jumps until a mask has no tunnel left."""
    depth, height, width = union.shape
    component, filled = plane.component, vectors.filled
    matched, hung = 0, 0
    for z in range(depth - 1, -1, -1):
        if z + 1 < depth:
            _next_plane(plane, vectors, union[z + 1])
            while hung < len(edges) and edges[hung, 0] > z:
                _hang(vectors, edges[hung], width)
                hung += 1
        if z == 0:
            _hang_below(vectors, edges[hung:], height, width)
        for square in range(height * (width + 1) - 1, -1, -1):
            cube = square + width + 2
            for normal in range(2 if z + 1 < depth else 0, -1 if z == 0 else 0, -1):
                if normal == 2:
                    beside, crossing = cube - 1, vectors.normal_x + square
                elif normal == 1:
                    beside, crossing = cube - width - 1, vectors.normal_y + square
                else:
                    beside, crossing = 0, vectors.below + square
                if component[cube] == component[beside] and not (filled[cube] or filled[beside] or filled[crossing]):
                    continue
                if not _is_open(union, z, square, normal) or not _join(plane, vectors, cube, beside, crossing):
                    continue
                new_a = _divide(vectors, plane.path, 0, vectors.split)
                new_b = _divide(vectors, plane.path, vectors.split, len(plane.path))
                matched += new_a and new_b
                left_a, left_b = left_a - new_a, left_b - new_b
                if left_a == 0 or left_b == 0:
                    return matched
    return matched


@compiled
def _is_open(union: NDArray[np.bool_], z: int, square: int, normal: int) -> bool:
    """Return True if the square normal to an axis at a voxel exists and is not in the union."""
    depth, height, width = union.shape
    y, x = square // (width + 1), square % (width + 1)
    far = (z + (normal != 0), y + (normal != 1), x + (normal != 2))
    if x == width or far[0] == depth or far[1] == height or far[2] == width:
        return False
    z1, y1, x1 = far
    if normal == 0:
        return not (union[z, y, x] and union[z, y, x1] and union[z, y1, x] and union[z, y1, x1])
    if normal == 1:
        return not (union[z, y, x] and union[z, y, x1] and union[z1, y, x] and union[z1, y, x1])
    return not (union[z, y, x] and union[z, y1, x] and union[z1, y, x] and union[z1, y1, x])
