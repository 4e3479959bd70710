"""Ingest: read every voxel of the input once, to copy it where the run needs a copy, and to measure its greys."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from nx47dask.engine import Batch, Pipeline, Task
from nx47dask.files.summaries import read_summary, write_summary
from nx47dask.geometry import BlockGrid, Box
from nx47dask.io import ArrayStore, count_chunks
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.runs.manifest import ReadRecord, ScanMetrics
from nx47dask.stages.emptiness import Occupancy, add_cells, cell_counts, grey_cells, pack_cells, unpack_cells
from nx47dask.stages.load import SLAB_BYTES_PER_VOXEL, TASK_FILE_BYTES, StageLoad
from nx47dask.stages.volume_job import VolumeJob

__all__ = ["ingest", "ingest_load"]

STAGE = "ingest"
REVISION = 1
"""Raised when the bits of a result change: part of the identity of every plan that uses it."""
SHOWN = ("minimum", "maximum", "mean", "std")
"""Statistics that the report shows; the others serve normalisations."""


@dataclass(frozen=True)
class Ingested:
    """Results of ingest for a volume.

    Attributes
    ----------
    scan : ScanStatistics
    greys : ScanMetrics
        Its shown statistics, with a histogram of 256 bins.
    source : ReadRecord
        Entries of the manifest: the SHA-256 of the SHA-256 of all parts (slabs of pages, or blocks) in order, and the
        numbers of present and absent chunk files of a Zarr input.
    occupied : Occupancy
        Cells where the scan is not empty.
    """

    scan: ScanStatistics
    greys: ScanMetrics
    source: ReadRecord
    occupied: Occupancy


class IngestedBlock(TypedDict):
    """Result of the ingest of a block: the chunk files of a Zarr input that it touches, and the absent ones of them."""

    chunks: int
    absent_chunks: int
    files: dict[str, int]


class VolumeStatistics(TypedDict):
    """Result of the ingest of a volume.

    Attributes
    ----------
    scan : dict
        Fields of :class:`~nx47dask.kernels.statistics.ScanStatistics`.
    histogram : list of int
        Voxels in 256 bins.
    sha256 : str
        Over those of the voxels of each part.
    occupied : str
        As of :func:`~nx47dask.stages.emptiness.pack_cells`.
    """

    scan: dict[str, Any]
    histogram: list[int]
    sha256: str
    occupied: str


def ingest(job: VolumeJob) -> Pipeline[Ingested]:
    """Make the scan readable by blocks, and measure it."""
    if job.copied:
        job.prepare(job.image_store)
    grid = job.ingest_grid
    tasks = (Task(b.number, f"block {b.number} [{b.box}]", ingest_block, (job, b.number), b.box.size) for b in grid)
    blocks: dict[int, IngestedBlock] = yield Batch(STAGE, tasks, len(grid), job.volume_box.size, grid=grid.counts)
    merge = Task(0, "statistics", merge_statistics, (job,))
    volumes: dict[int, VolumeStatistics] = yield Batch(f"{STAGE}.statistics", [merge], 1, 0)
    volume = volumes[0]
    scan = ScanStatistics(**volume["scan"])
    greys = ScanMetrics(
        minimum=scan.minimum, maximum=scan.maximum, mean=scan.mean, std=scan.std, histogram=volume["histogram"]
    )
    source = ReadRecord(
        voxels_sha256_by_block=volume["sha256"],
        chunks=sum(block.get("chunks", 0) for block in blocks.values()),
        absent_chunks=sum(block.get("absent_chunks", 0) for block in blocks.values()),
    )
    return Ingested(scan, greys, source, unpack_cells(volume["occupied"], job.volume.shape))


def ingest_load(job: VolumeJob) -> StageLoad:
    """Bound the load of the stage for a volume."""
    grid, item = job.ingest_grid, np.dtype(job.volume.dtype).itemsize
    slab = grid.block((0, 0, 0)).box.size * SLAB_BYTES_PER_VOXEL * item
    copy = 0
    if job.copied:
        shards = len(BlockGrid(job.volume.shape, job.image_store.shard))
        copy = job.volume_box.size * item + shards * TASK_FILE_BYTES
    histograms = len(grid) * (TASK_FILE_BYTES + (8 << 8 * item) // 4)
    what = "copy and grey values" if job.copied else "grey values, read in place"
    return StageLoad(STAGE, what, len(grid), job.volume_box.size, slab, copy + histograms, merges=1)


def ingest_block(job: VolumeJob, number: int) -> IngestedBlock:
    """Read a block of the input: count its grey values, and copy it where the run works on a copy."""
    box = job.ingest_grid.numbered(number).box
    voxels = job.volume.read(box)
    chunks, absent = count_chunks(job.volume, box)
    files = [_measure(job, number, box, voxels)]
    if job.copied:
        files += _copy(job.image_store, box, voxels)
    return {"chunks": chunks, "absent_chunks": absent, "files": job.files(*files)}


def merge_statistics(job: VolumeJob) -> VolumeStatistics:
    """Merge the histograms of all parts into the statistics of the volume."""
    counts = np.zeros(np.iinfo(job.volume.dtype).max + 1, dtype=np.int64)
    cells = np.zeros(cell_counts(job.volume.shape), dtype=bool)
    digest = hashlib.sha256()
    grid = job.ingest_grid
    for block in map(grid.numbered, range(len(grid))):
        summary = read_summary(job.summary(STAGE, block.number))
        counts += summary["counts"]
        digest.update(summary["sha256"].tobytes())
        add_cells(cells, block.box, summary["occupied"])
    return {
        "scan": dataclasses.asdict(ScanStatistics.of_histogram(counts)),
        "histogram": counts.reshape(256, -1).sum(axis=1).tolist(),
        "sha256": digest.hexdigest(),
        "occupied": pack_cells(cells),
    }


def _measure(job: VolumeJob, number: int, box: Box, voxels: NDArray[np.unsignedinteger]) -> Path:
    counts = np.zeros(np.iinfo(voxels.dtype).max + 1, dtype=np.int64)
    for plane in voxels:  # bincount makes int64 of its input, so count plane by plane
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    digest = np.frombuffer(hashlib.sha256(np.ascontiguousarray(voxels).data).digest(), dtype=np.uint8)
    path = job.summary(STAGE, number)
    write_summary(path, {"counts": counts, "sha256": digest, "occupied": grey_cells(voxels, box)})
    return path


def _copy(store: ArrayStore, box: Box, voxels: NDArray[np.unsignedinteger]) -> Iterator[Path]:
    """Store a block shard by shard, without all-zero shards; return the files that hold it."""
    for shard in BlockGrid(store.shape, store.shard).touching(box):
        store.write(shard.box, np.ascontiguousarray(voxels[shard.box.relative_to(box.start).slices]))
    return store.files(box)
