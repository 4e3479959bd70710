"""Find empty space: blocks that need not be read or computed, because their result is known to be zeros.

The client decides this before it makes a task. Ingest reads every voxel and notes which cells of 32 voxels are not
empty; the records of every later stage name the blocks that it filled. The results are the same, byte for byte, as
those of a run that skips nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from nx47dask.detectors import Fusion, ResidualBand
from nx47dask.files.summaries import pack_arrays, unpack_arrays
from nx47dask.geometry import BlockGrid, Box, Index
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.kernels.windows import occupied_cells
from nx47dask.stages.volume_job import VolumeJob
from nx47dask.steps.chain import Changes, apply_chain
from nx47dask.steps.passes import Pass

__all__ = [
    "SCAN_CELL_VOX",
    "Filled",
    "Occupancy",
    "add_cells",
    "cell_counts",
    "changes_of_nothing",
    "filled_by",
    "finds_nothing",
    "grey_cells",
    "pack_cells",
    "unpack_cells",
]

SCAN_CELL_VOX = 32
"""Edge in voxels of the cells in which ingest notes if a scan is empty; they start at multiples of it."""


class Filled(TypedDict):
    """Result of a task that writes blocks: ``filled``, the numbers of the blocks that are not all zeros."""

    filled: list[int]


@dataclass(frozen=True)
class Occupancy:
    """Cells of an array that may hold voxels other than 0.

    Attributes
    ----------
    cells : ndarray of bool, (cells along Z, Y, X)
        False only where every voxel is 0.
    cell : tuple of int
        Shape of a cell in voxels; the first begins at voxel 0.
    """

    cells: NDArray[np.bool_]
    cell: Index

    def is_empty(self, box: Box) -> bool:
        """Return True if all voxels of a box are certain to be 0."""
        ends = zip(box.start, box.stop, self.cell, strict=True)
        return not self.cells[tuple(slice(a // edge, -(-b // edge)) for a, b, edge in ends)].any()


def grey_cells(voxels: NDArray[np.unsignedinteger], box: Box) -> NDArray[np.bool_]:
    """Mark the cells that a box of the volume touches and in which it has a voxel above 0."""
    return occupied_cells(voxels, box, 0, SCAN_CELL_VOX)


def cell_counts(shape: Index) -> Index:
    """Count the cells of a volume per axis."""
    return BlockGrid(shape, (SCAN_CELL_VOX,) * 3).counts


def add_cells(cells: NDArray[np.bool_], box: Box, part: NDArray[np.bool_]) -> None:
    """Add the cells of a box, from :func:`grey_cells`, to the cells of the whole volume."""
    first = box.align(SCAN_CELL_VOX).start
    at = (slice(a // SCAN_CELL_VOX, a // SCAN_CELL_VOX + n) for a, n in zip(first, part.shape, strict=True))
    cells[tuple(at)] |= part


def pack_cells(cells: NDArray[np.bool_]) -> str:
    """Pack the cells of a volume into text for a record: one bit per cell, compressed."""
    return pack_arrays({"cells": np.packbits(cells)})


def unpack_cells(text: str, shape: Index) -> Occupancy:
    """Unpack the occupancy of a scan of a shape from the text of :func:`pack_cells`."""
    counts = cell_counts(shape)
    bits = np.unpackbits(unpack_arrays(text)["cells"], count=math.prod(counts))
    return Occupancy(bits.view(bool).reshape(counts), (SCAN_CELL_VOX,) * 3)


def filled_by(records: Mapping[int, Filled], grid: BlockGrid) -> Occupancy:
    """Return the occupancy of a store, from the records of its tasks, which name the blocks that are not empty."""
    cells = np.zeros(len(grid), dtype=bool)
    for record in records.values():
        cells[record["filled"]] = True
    return Occupancy(cells.reshape(grid.counts), grid.block_shape)


def finds_nothing(
    detector: Fusion | ResidualBand, core: Box, job: VolumeJob, scan: ScanStatistics, occupied: Occupancy
) -> bool:
    """Return True if detection in a box of the volume is certain to give 0 everywhere."""
    if not occupied.is_empty(core):  # saves asking the detector, which may have to load torch
        return False
    box = detector.empty_box(core, job.volume_box, scan)
    return box is not None and occupied.is_empty(box)


def changes_of_nothing(current: Pass, levels: NDArray[np.int64] | None, job: VolumeJob) -> Changes | None:
    """Return the changes that a pass makes where its input is empty; None if its output would not be empty.

    The pass is tried on a few zeros, under an empty scan and under a full one, with the lowest levels of any slice,
    which let most voxels through.
    """
    zeros = np.zeros((4, 4, 4), dtype=job.probability_dtype)
    least = None if levels is None else levels.min(axis=0, keepdims=True)
    changes: Changes = {name: [0, 0] for name, _ in current.resolve.rules} if current.resolve else {}
    for grey in (0, np.iinfo(job.volume.dtype).max):
        image = np.full(zeros.shape, grey, dtype=job.volume.dtype)
        result, changed = apply_chain(current.local, zeros, image, least, Box.of_shape((4, 4, 4)))
        if result.any():
            return None
        changes |= changed
    return changes
