"""Export: the mask store of a volume to one binary TIFF, page by page."""

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
LEAST_SLICES = 8
"""Every slab decompresses the chunks that it cuts, so very thin ones would cost more time than they save memory."""
INTERMEDIATES = ("work", "summaries")
ARRAYS = ("image", "probability", "mask")


class ExportedMask(TypedDict):
    """What the export of a volume leaves: SHA-256 and bytes of the files; it is the last task of its volume."""

    sha256: str
    files: dict[str, int]
    last: bool


def export(job: VolumeJob, path: Path, foreground: int) -> Pipeline[str]:
    """Write ``masks/<id>.tif``; returns its SHA-256."""
    task = Task(0, path.name, export_mask, (job, path, foreground), job.box.size)
    records: dict[int, ExportedMask] = yield Batch(STAGE, [task], 1, job.box.size)
    return records[0]["sha256"]


def export_load(job: VolumeJob) -> StageLoad:
    """Bound what the stage takes for a volume: its TIFF, and the copy of that in the zip."""
    slab = _slab_depth(job) * math.prod(job.box.shape[1:]) * SLAB_BYTES_PER_VOXEL
    return StageLoad(STAGE, "mask to TIFF", 1, job.box.size, slab, 2 * mask_bytes(job.box))


def export_mask(job: VolumeJob, path: Path, foreground: int) -> ExportedMask:
    """Read the mask in slabs and write their pages."""
    sha256 = write_mask_tiff(path, _slabs(job), job.box.shape, foreground=foreground)
    return {"sha256": sha256, "files": job.files(path, slices_path(job)), "last": True}


def _slab_depth(job: VolumeJob) -> int:
    """Slices to read at a time: a storage chunk deep where they are small, at least a few where they are large."""
    _, height, width = job.box.shape
    return min(storage_chunk(job.block), max(LEAST_SLICES, SLAB_VOXELS // (height * width)))


def mask_path(folder: Path, job: VolumeJob) -> Path:
    """Where the mask of a volume goes."""
    return folder.absolute() / "masks" / f"{job.id}.tif"


def store_was_deleted(job: VolumeJob) -> bool:
    """Whether an earlier client finished the volume and deleted its arrays, by an option that may not be given now."""
    return slices_path(job).is_file() and not any((locate(job.store) / name).exists() for name in ARRAYS)


def clear_store(job: VolumeJob, *, arrays: bool) -> None:
    """Delete what a finished volume no longer needs: intermediates, and if wanted the arrays as well."""
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
