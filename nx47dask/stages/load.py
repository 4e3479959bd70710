"""Loads of stages: the tasks, memory and disk that a stage will take, known before it runs.

Loads are upper bounds: no run may exceed them. The factors are measured peaks with some room. Each stage computes its
load in its own module; this module has the parts that they share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nx47dask.geometry import BlockGrid, Box, Index
from nx47dask.stages.volume_job import VolumeJob

__all__ = ["StageLoad", "add_loads", "context_voxels", "mask_bytes", "stored_array_bytes"]

PASS_BYTES_PER_VOXEL = 24
"""Memory of labelling and local steps, per voxel of a block with its halo."""
SLAB_BYTES_PER_VOXEL = 4
"""Memory of slabs and blocks at ingest, at export and for slice thresholds, per voxel and byte of the scan."""
MASK_BYTES_PER_VOXEL = 0.25
"""Disk of a mask that compresses badly, in a store or as a TIFF."""
TASK_FILE_BYTES = 4 << 10
"""Least disk that the files of a task take."""


@dataclass(frozen=True, slots=True)
class StageLoad:
    """Work, memory and disk of a stage, the links and merges of its components included.

    Attributes
    ----------
    stage, what : str
        Its name, and its work in words.
    tasks : int
        Number of blocks, slabs or octants.
    voxels : int
        Voxels that its tasks read; a voxel that is read twice counts twice.
    task_bytes : int
        Memory of its largest task, without the worker process.
    stored_bytes : int
        Most bytes that it leaves on the disk.
    links, merges : int
        Most tasks that link blocks and that merge results; blocks that share no component are not linked.
    windows : int
        Windows that networks run if none is skipped.
    """

    stage: str
    what: str
    tasks: int
    voxels: int
    task_bytes: int
    stored_bytes: int
    links: int = 0
    merges: int = 0
    windows: int = 0

    @property
    def all_tasks(self) -> int:
        """Tasks, links and merges."""
        return self.tasks + self.links + self.merges


def add_loads(loads: Iterable[StageLoad]) -> list[StageLoad]:
    """Add up the loads of several volumes stage by stage, in the order of the stages.

    The words are those of the first volume, the memory is that of the largest task, all else is summed.
    """
    sums: dict[str, StageLoad] = {}
    for load in loads:
        before = sums.get(load.stage)
        sums[load.stage] = load if before is None else _add(before, load)
    return list(sums.values())


def context_voxels(grid: BlockGrid, radius_zyx: Index) -> tuple[int, int]:
    """Count the voxels of the largest block with its halo, clipped to the grid, and of all blocks together."""
    whole = Box.of_shape(grid.shape)
    edges = grid.along_axes(lambda box: box.expand(radius_zyx).clip(whole).shape)
    return math.prod(map(max, edges)), math.prod(map(sum, edges))


def stored_array_bytes(job: VolumeJob, kind: str) -> int:
    """Bound the bytes of an array over ``work`` in the store: a ``"probability"``, or else a mask."""
    files = len(job.grid) * TASK_FILE_BYTES
    if kind == "probability":
        return job.work.size * np.dtype(job.probability_dtype).itemsize + files
    return int(job.work.size * MASK_BYTES_PER_VOXEL) + files


def mask_bytes(box: Box) -> int:
    """Bound the bytes of the TIFF of a mask."""
    return int(box.size * MASK_BYTES_PER_VOXEL) + box.shape[0] * 300


def _add(load: StageLoad, more: StageLoad) -> StageLoad:
    return StageLoad(
        load.stage,
        load.what,
        load.tasks + more.tasks,
        load.voxels + more.voxels,
        max(load.task_bytes, more.task_bytes),
        load.stored_bytes + more.stored_bytes,
        load.links + more.links,
        load.merges + more.merges,
        load.windows + more.windows,
    )
