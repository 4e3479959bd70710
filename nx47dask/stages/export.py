"""Export: write the mask of a volume to a binary TIFF, page by page."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from nx47dask.engine import Batch, Pipeline, Task
from nx47dask.files.paths import locate, remove_tree
from nx47dask.geometry import Box, storage_chunk
from nx47dask.io import write_mask_tiff
from nx47dask.stages.load import SLAB_BYTES_PER_VOXEL, StageLoad, mask_bytes
from nx47dask.stages.measure import slices_path
from nx47dask.stages.volume_job import VolumeJob

__all__ = ["clear_store", "export", "export_load", "mask_path", "store_was_deleted"]

STAGE = "export"
REVISION = 1
"""Raised when the bits of a result change: part of the identity of every plan that uses it."""
SLAB_VOXELS = 8 << 20
"""Voxels of a slab that is read at a time."""
LEAST_SLICES = 8
"""Least depth of a slab: every slab decompresses the chunks that it cuts, so thin slabs cost much time."""
INTERMEDIATES = ("work", "summaries")
"""Folders of a store that a finished volume does not need."""
ARRAYS = ("image", "probability", "mask")
"""Folders of a store with the arrays that users look at."""


class ExportedMask(TypedDict):
    """Result of the export of a volume, its last task: the SHA-256 of the mask, and the bytes of the files."""

    sha256: str
    files: dict[str, int]
    last: bool


def export(job: VolumeJob, path: Path, foreground: int) -> Pipeline[str]:
    """Write the mask to ``masks/<id>.tif`` and return its SHA-256."""
    task = Task(0, path.name, export_mask, (job, path, foreground), job.box.size)
    records: dict[int, ExportedMask] = yield Batch(STAGE, [task], 1, job.box.size)
    return records[0]["sha256"]


def export_load(job: VolumeJob) -> StageLoad:
    """Bound the load of the stage for a volume: its TIFF, and the copy of the TIFF in the zip."""
    slab = _slab_depth(job) * math.prod(job.box.shape[1:]) * SLAB_BYTES_PER_VOXEL
    return StageLoad(STAGE, "mask to TIFF", 1, job.box.size, slab, 2 * mask_bytes(job.box))


def export_mask(job: VolumeJob, path: Path, foreground: int) -> ExportedMask:
    """Read the mask in slabs and write their pages."""
    sha256 = write_mask_tiff(path, _slabs(job), job.box.shape, foreground=foreground)
    return {"sha256": sha256, "files": job.files(path, slices_path(job)), "last": True}


def _slab_depth(job: VolumeJob) -> int:
    """Count the slices to read at a time: as deep as a storage chunk, fewer where slices are large."""
    _, height, width = job.box.shape
    return min(storage_chunk(job.block), max(LEAST_SLICES, SLAB_VOXELS // (height * width)))


def mask_path(folder: Path, job: VolumeJob) -> Path:
    """Return the path of the mask of a volume."""
    return folder.absolute() / "masks" / f"{job.id}.tif"


def store_was_deleted(job: VolumeJob) -> bool:
    """Return True if an earlier client finished the volume and deleted its arrays, as ``--delete-stores`` does."""
    return slices_path(job).is_file() and not any((locate(job.store) / name).exists() for name in ARRAYS)


def clear_store(job: VolumeJob, *, arrays: bool) -> None:
    """Delete the intermediates of a finished volume, and if wanted its arrays too."""
    for name in INTERMEDIATES + (ARRAYS if arrays else ()):
        with contextlib.suppress(OSError):
            remove_tree(locate(job.store) / name)


def _slabs(job: VolumeJob) -> Iterator[NDArray[np.uint8]]:
    store = job.array("mask")
    box = job.box.relative_to(job.work.start)
    step = _slab_depth(job)
    for z in range(box.start[0], box.stop[0], step):
        slab = Box((z, *box.start[1:]), (min(z + step, box.stop[0]), *box.stop[1:]))
        yield store.read(slab)
