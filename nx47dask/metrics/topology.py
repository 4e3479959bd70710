"""Features of two masks and the number of matched features: the counts of the competition's topological term.

Foreground is 6-connected, background 26-connected. Dimension 0 counts components minus one, dimension 1 tunnels,
dimension 2 cavities. The matched counts are those of the induced matching of Stucki et al. (2023, 2024) between two
masks and their union; for binary masks it needs no persistent homology.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Index
from nx47dask.kernels.compiled import compiled
from nx47dask.kernels.components import Labelling, label
from nx47dask.kernels.union_find import find_root
from nx47dask.metrics.linking import matched_tunnels
from nx47dask.metrics.loop_basis import loop_basis

__all__ = ["count_features"]

Mask = NDArray[np.bool_]
FACES, ALL = Labelling(6), Labelling(26)


def count_features(prediction: Mask, labels: Mask) -> NDArray[np.int64]:
    """Count the matched features, and the features of each mask, in an octant.

    Parameters
    ----------
    prediction, labels : ndarray of bool, shape (Z, Y, X)

    Returns
    -------
    ndarray of int64, shape (3, 3)
        Rows are dimensions 0, 1, 2; columns are matched, of the prediction, of the labels.
    """
    counts = np.zeros((3, 3), dtype=np.int64)
    union = prediction | labels
    sides = []
    for column, mask in enumerate((prediction, labels), start=1):
        components, background = _labels(mask)
        counts[:, column] = _betti_numbers(mask, components, background)
        counts[0, column] = max(counts[0, column] - 1, 0)
        sides.append(background)
    both = counts[:, 1:].min(axis=1) > 0
    if both[0]:
        most = int(counts[0, 1:].min())
        counts[0, 0] = _matched_components(*_clusters(union, prediction, labels), union.shape, most)
    if both[1]:
        a, b = loop_basis(prediction), loop_basis(labels)
        counts[1, 0] = matched_tunnels(union, a, b, *(int(n) for n in counts[1, 1:]))
    if both[2]:
        counts[2, 0] = _matched_cavities(prediction, labels, *sides)
    return counts


def _labels(mask: Mask) -> tuple[int, NDArray[np.unsignedinteger]]:
    """Count the components, and label the background with a margin of one background voxel."""
    background, _ = label(np.pad(~mask, 1, constant_values=True), ALL)
    return label(mask, FACES)[1], background


def _betti_numbers(mask: Mask, components: int, background: NDArray[np.unsignedinteger]) -> tuple[int, int, int]:
    cavities = int(background.max()) - 1
    return components, components + cavities - _euler(mask), cavities


def _euler(mask: Mask) -> int:
    """Compute the Euler number: voxels - face pairs + full squares - full cubes."""
    pairs = [_both(mask, axis) for axis in range(3)]
    squares = [_both(pairs[0], 1), _both(pairs[0], 2), _both(pairs[1], 2)]
    cells = (mask, *squares), (*pairs, _both(squares[0], 2))
    even, odd = (sum(int(np.count_nonzero(cell)) for cell in kind) for kind in cells)
    return even - odd


def _both(mask: Mask, axis: int) -> Mask:
    """Mark the pairs of neighbours along an axis that are both set."""
    low, high = ([slice(None)] * 3 for _ in range(2))
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    return mask[tuple(low)] & mask[tuple(high)]


def _clusters(union: Mask, a: Mask, b: Mask) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Cluster the components of the union and the single voxels of its background; roots are first voxels.

    Returns the parent of every voxel, and for roots the sum of 1 if the cluster holds voxels of a and 2 if of b.
    """
    components, count = label(union, FACES)
    parents = np.arange(union.size, dtype=np.int32)
    holds = np.zeros(union.size, dtype=np.uint8)
    first = np.full(count + 1, -1, dtype=np.int32)
    _fill_clusters(components.astype(np.int32).ravel(), a.ravel(), b.ravel(), first, parents, holds)
    return parents, holds


@compiled
def _fill_clusters(
    components: NDArray[np.int32],
    a: Mask,
    b: Mask,
    first: NDArray[np.int32],
    parents: NDArray[np.int32],
    holds: NDArray[np.uint8],
) -> None:
    for voxel in range(len(components)):
        component = components[voxel]
        if component:
            if first[component] < 0:
                first[component] = voxel
            root = first[component]
            parents[voxel] = root
            holds[root] |= a[voxel] + 2 * b[voxel]


@compiled
def _matched_components(parents: NDArray[np.int32], holds: NDArray[np.uint8], shape: Index, most: int) -> int:
    """Count merges, edge by edge in raster order, of clusters that both hold voxels of both masks, up to ``most``."""
    depth, height, width = shape
    matched = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                voxel = (z * height + y) * width + x
                for axis in range(3):
                    if axis == 0:
                        other = voxel + height * width if z + 1 < depth else voxel
                    elif axis == 1:
                        other = voxel + width if y + 1 < height else voxel
                    else:
                        other = voxel + 1 if x + 1 < width else voxel
                    if parents[voxel] == parents[other]:
                        continue
                    here, there = find_root(parents, voxel), find_root(parents, other)
                    if here == there:
                        continue
                    if holds[here] == 3 and holds[there] == 3:
                        matched += 1
                        if matched == most:
                            return matched
                    parents[max(here, there)] = min(here, there)
                    holds[min(here, there)] |= holds[max(here, there)]
    return matched


def _matched_cavities(
    prediction: Mask, labels: Mask, background_a: NDArray[np.unsignedinteger], background_b: NDArray[np.unsignedinteger]
) -> int:
    """Count the cavities of the union that are last to close a cavity of the prediction and one of the labels."""
    cavities, _ = label(np.pad(~(prediction | labels), 1, constant_values=True), ALL)
    open_voxels = np.flatnonzero(cavities)
    of_a, of_b, of_union = (labelled.ravel() for labelled in (background_a, background_b, cavities))
    last_a, last_b = (np.zeros(int(of.max()) + 1, dtype=np.int64) for of in (of_a, of_b))
    last_a[of_a[open_voxels]] = open_voxels  # the last assignment wins
    last_b[of_b[open_voxels]] = open_voxels
    last = last_a[np.arange(len(last_a)) != of_a[0]]
    last = last[last > 0]
    last = last[of_b[last] != of_b[0]]
    return int(np.count_nonzero(of_union[last] == of_union[last_b[of_b[last]]]))
