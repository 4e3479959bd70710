"""Variation of information between the components of two masks, from parts of a volume.

Each part counts the voxels of every pair of components, one from each mask; parts are combined where their components
touch. The measure is that of Meila (2007) over the union of the foregrounds, in bits. The background of each mask
counts as another component.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import BlockGrid
from nx47dask.kernels.components import BlockComponents, Face, Labelling
from nx47dask.merge.components import Part, forward_offsets, link_blocks, unite

__all__ = ["VOLUME_COMPONENTS", "count_overlaps", "unite_overlaps", "variation_of_information"]

VOLUME_COMPONENTS = Labelling(26)
Overlaps = Mapping[str, NDArray[np.generic]]


def count_overlaps(prediction: BlockComponents, labels: BlockComponents) -> dict[str, NDArray[Any]]:
    """Count the voxels that components of two masks share, in a part of a volume.

    Parameters
    ----------
    prediction, labels : BlockComponents
        Components of each mask.

    Returns
    -------
    dict of str to ndarray
        ``pairs``, int64 of shape (pairs, 3): component of the prediction and of the labels (0 for none), voxels; and
        all that :func:`unite_overlaps` needs to combine parts.
    """
    arrays: dict[str, NDArray[Any]] = {}
    union = (prediction.labels != 0) | (labels.labels != 0)
    numbers = []
    for side, components in enumerate((prediction, labels)):
        arrays[f"{side}.count"] = components.labels.max(initial=0)
        arrays[f"{side}.shared"] = components.shared
        for (axis, end), plane in components.faces.items():
            arrays[f"{side}.face.{axis}.{end}"] = plane
        numbers.append(components.labels[union].astype(np.int64))
    packed, voxels = np.unique(numbers[0] << 32 | numbers[1], return_counts=True)
    arrays["pairs"] = np.stack([packed >> 32, packed & 0xFFFFFFFF, voxels], axis=1)
    return arrays


def unite_overlaps(grid: BlockGrid, parts: Mapping[int, Overlaps]) -> NDArray[np.int64]:
    """Combine the overlaps of parts into those of whole masks.

    Parameters
    ----------
    grid : BlockGrid
        Grid of the parts of the volume.
    parts : mapping of int to mapping
        Result of :func:`count_overlaps` for each part, by the number of the part in the grid.

    Returns
    -------
    ndarray of int64, shape (pairs, 3)
        Same columns as ``pairs`` of :func:`count_overlaps`, for the whole volume, sorted.
    """
    tables = [_component_tables(grid, parts, side) for side in (0, 1)]
    rows = []
    for number, part in parts.items():
        pairs = np.asarray(part["pairs"])
        rows.append(np.stack([tables[0][number][pairs[:, 0]], tables[1][number][pairs[:, 1]], pairs[:, 2]], axis=1))
    together = np.concatenate(rows)
    keys, inverse = np.unique(together[:, :2], axis=0, return_inverse=True)
    voxels = np.zeros(len(keys), dtype=np.int64)
    np.add.at(voxels, inverse.ravel(), together[:, 2])
    return np.column_stack([keys, voxels])


def variation_of_information(overlaps: NDArray[np.int64]) -> tuple[float, float]:
    """Compute the conditional entropies between the components of two masks.

    Parameters
    ----------
    overlaps : ndarray of int64, shape (pairs, 3)
        Component of the prediction, component of the labels, voxels in both.

    Returns
    -------
    split, merge : float
        H(prediction | labels) and H(labels | prediction) in bits; 0 where there are no voxels.
    """
    total = int(overlaps[:, 2].sum())
    entropies = []
    for given in (1, 0):
        _, inverse = np.unique(overlaps[:, given], return_inverse=True)
        size = np.bincount(inverse, weights=overlaps[:, 2])[inverse] if total else np.zeros(0)
        # An exact sum does not depend on the order of the components.
        entropies.append(math.fsum(overlaps[:, 2] / max(total, 1) * np.log2(size / overlaps[:, 2])))
    return entropies[0], entropies[1]


def _component_tables(grid: BlockGrid, parts: Mapping[int, Overlaps], side: int) -> dict[int, NDArray[np.int64]]:
    """Map the labels of each part to the components of the whole mask, which count from 1; 0 stays 0."""
    counts = {number: int(part[f"{side}.count"]) for number, part in parts.items()}
    offsets = dict(zip(counts, np.cumsum([0, *counts.values()]), strict=False))
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for number, part in parts.items():
        for offset in forward_offsets(VOLUME_COMPONENTS):
            other = grid.neighbour(grid.numbered(number), offset)
            if other is None:
                continue
            linked = link_blocks(_faces(part, side), _faces(parts[other.number], side), offset, VOLUME_COMPONENTS)
            here = np.asarray(part[f"{side}.shared"])[linked[:, 0] - 1] - 1 + offsets[number]
            there = np.asarray(parts[other.number][f"{side}.shared"])[linked[:, 1] - 1] - 1 + offsets[other.number]
            pairs.append(np.stack([here, there], axis=1))
    component = unite(sum(counts.values()), [Part(np.concatenate(pairs), {})]).component
    return {
        number: np.append(0, component[offsets[number] : offsets[number] + count] + 1)
        for number, count in counts.items()
    }


def _faces(part: Overlaps, side: int) -> dict[Face, NDArray[np.unsignedinteger]]:
    faces: dict[Face, NDArray[np.unsignedinteger]] = {}
    for axis, end in itertools.product(range(3), (0, 1)):
        plane = part.get(f"{side}.face.{axis}.{end}")
        if plane is not None:
            faces[axis, end] = np.asarray(plane)
    return faces
