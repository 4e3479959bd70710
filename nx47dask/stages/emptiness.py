"""Empty space: which blocks need not be read or computed, because what would come out is known to be zeros.

The client decides, before a task is made. Ingest has looked at every voxel and leaves which cells of 32 voxels hold
anything; the records of every later stage say which blocks it filled. The results are those of a run that decides
nothing, byte for byte.
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
    "CELL_VOX",
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

CELL_VOX = 32
"""Edge of the cells, anchored at multiples of it in the volume, in which ingest says whether a scan is empty."""


class Filled(TypedDict):
    """What a task that writes blocks tells of them: ``filled``, the numbers of those that are not all zeros."""

    filled: list[int]


@dataclass(frozen=True)
class Occupancy:
    """Where an array holds anything but zeros.

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
        """Whether all voxels of a box are certain to be 0."""
        ends = zip(box.start, box.stop, self.cell, strict=True)
        return not self.cells[tuple(slice(a // edge, -(-b // edge)) for a, b, edge in ends)].any()


def grey_cells(voxels: NDArray[np.unsignedinteger], box: Box) -> NDArray[np.bool_]:
    """Which cells that a box of the volume touches hold a voxel of the box above 0."""
    return occupied_cells(voxels, box, 0, CELL_VOX)


def cell_counts(shape: Index) -> Index:
    """Cells of a volume per axis."""
    return BlockGrid(shape, (CELL_VOX,) * 3).counts


def add_cells(cells: NDArray[np.bool_], box: Box, part: NDArray[np.bool_]) -> None:
    """Mark the cells of a whole volume that a box of it has filled, as :func:`grey_cells` says."""
    first = box.align(CELL_VOX).start
    at = (slice(a // CELL_VOX, a // CELL_VOX + n) for a, n in zip(first, part.shape, strict=True))
    cells[tuple(at)] |= part


def pack_cells(cells: NDArray[np.bool_]) -> str:
    """The cells of a volume as text for a record: a bit each, compressed."""
    return pack_arrays({"cells": np.packbits(cells)})


def unpack_cells(text: str, shape: Index) -> Occupancy:
    """The occupancy of a scan of a shape, from what :func:`pack_cells` has put into a record."""
    counts = cell_counts(shape)
    bits = np.unpackbits(unpack_arrays(text)["cells"], count=math.prod(counts))
    return Occupancy(bits.view(bool).reshape(counts), (CELL_VOX,) * 3)


def filled_by(records: Mapping[int, Filled], grid: BlockGrid) -> Occupancy:
    """The occupancy of a store from the records of the tasks that filled it, which name the blocks with anything."""
    cells = np.zeros(len(grid), dtype=bool)
    for record in records.values():
        cells[record["filled"]] = True
    return Occupancy(cells.reshape(grid.counts), grid.block_shape)


def finds_nothing(
    detector: Fusion | ResidualBand, core: Box, job: VolumeJob, scan: ScanStatistics, occupied: Occupancy
) -> bool:
    """Whether detection in a box of the volume is certain to give 0 everywhere."""
    if not occupied.is_empty(core):  # saves asking the detector, which may have to load torch
        return False
    box = detector.empty_box(core, job.volume_box, scan)
    return box is not None and occupied.is_empty(box)


def changes_of_nothing(one: Pass, levels: NDArray[np.int64] | None, job: VolumeJob) -> Changes | None:
    """What the steps of a pass change where their input is empty; None where something would come out.

    Tried on a few zeros, under an empty scan and a full one. A quantile that differs between slices is least where it
    lets most through.
    """
    zeros = np.zeros((4, 4, 4), dtype=job.probability_dtype)
    least = None if levels is None else levels.min(axis=0, keepdims=True)
    changes: Changes = {name: [0, 0] for name, _ in one.resolve.rules} if one.resolve else {}
    for grey in (0, np.iinfo(job.volume.dtype).max):
        image = np.full(zeros.shape, grey, dtype=job.volume.dtype)
        result, changed = apply_chain(one.local, zeros, image, least, Box.of_shape((4, 4, 4)))
        if result.any():
            return None
        changes |= changed
    return changes
