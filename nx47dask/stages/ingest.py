"""Ingest: TIFF to a chunked image store, slab by slab; the statistics of the volume as one distributed reduction."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.detectors import ScanStatistics
from nx47dask.engine import Batch, Record, Task
from nx47dask.geometry import Box
from nx47dask.io import ArrayStore, count_chunks, read_summary, write_summary
from nx47dask.stages.job import VolumeJob

__all__ = ["ingest"]

STAGE = "ingest"
SHOWN = ("minimum", "maximum", "mean", "std")
"""Statistics for the report; the others are there for normalisations."""
Facts = dict[str, Any]


def ingest(job: VolumeJob) -> Generator[Batch, dict[int, Record], tuple[ScanStatistics, Facts, Facts]]:
    """Make the image readable by blocks and measure it.

    Returns its statistics; the same with a histogram of 256 bins as plain values; and for the manifest a SHA-256 over
    those of the voxels of each part (a slab of pages or a block) in order, and the chunk files of a Zarr input.
    """
    batch = _slabs(job) if isinstance(job.image, ArrayStore) else _blocks(job)
    records = (yield batch).values()
    merge = Task(0, "statistics", merge_statistics, (job, batch.count))
    known = (yield Batch(f"{STAGE}.statistics", [merge], 1, 0))[0]
    scan = ScanStatistics(**known["scan"] | {"permille": tuple(known["scan"]["permille"])})
    greys = {key: known["scan"][key] for key in SHOWN} | {"histogram": known["histogram"]}
    source = {
        "voxels_sha256_by_block": known["sha256"],
        "chunks": sum(record.get("chunks", 0) for record in records),
        "absent_chunks": sum(record.get("absent_chunks", 0) for record in records),
    }
    return scan, greys, source


def _slabs(job: VolumeJob) -> Batch:
    """A task for every slab of whole TIFF pages, as deep as a storage chunk."""
    store = job.image
    assert isinstance(store, ArrayStore)
    job.prepare(store)
    depth, height, width = store.shape
    step = store.shard[0]
    boxes = [Box((z, 0, 0), (min(z + step, depth), height, width)) for z in range(0, depth, step)]
    tasks = (Task(n, f"slab [{box}]", ingest_slab, (job, n, box), box.size) for n, box in enumerate(boxes))
    return Batch(STAGE, tasks, len(boxes), Box.of_shape(store.shape).size)


def _blocks(job: VolumeJob) -> Batch:
    """A task for every block of a Zarr input, which is read in place."""
    grid = job.grid_of(job.volume.shape)
    tasks = (Task(b.number, f"block {b.number} [{b.box}]", measure_block, (job, b.number), b.box.size) for b in grid)
    return Batch(STAGE, tasks, len(grid), Box.of_shape(grid.shape).size)


def ingest_slab(job: VolumeJob, number: int, box: Box) -> dict[str, Any]:
    """Copy a slab of the input to the image store and count its grey values."""
    slab = job.volume.read(box)
    store = job.image
    assert isinstance(store, ArrayStore)
    store.write(box, slab)
    return {"files": job.files(*store.files(box), _count_greys(job, number, slab))}


def measure_block(job: VolumeJob, number: int) -> dict[str, Any]:
    """Count the grey values of a block of the input."""
    box = job.grid_of(job.volume.shape).numbered(number).box
    chunks, absent = count_chunks(job.volume, box)
    files = job.files(_count_greys(job, number, job.volume.read(box)))
    return {"chunks": chunks, "absent_chunks": absent, "files": files}


def merge_statistics(job: VolumeJob, parts: int) -> dict[str, Any]:
    """Statistics of the whole volume from the histograms of its parts."""
    counts = np.zeros(np.iinfo(job.volume.dtype).max + 1, dtype=np.int64)
    digest = hashlib.sha256()
    for number in range(parts):
        summary = read_summary(job.summary(STAGE, number))
        counts += summary["counts"]
        digest.update(summary["sha256"].tobytes())
    return {
        "scan": dataclasses.asdict(ScanStatistics.of_histogram(counts)),
        "histogram": counts.reshape(256, -1).sum(axis=1).tolist(),
        "sha256": digest.hexdigest(),
    }


def _count_greys(job: VolumeJob, number: int, voxels: NDArray[np.unsignedinteger]) -> Path:
    counts = np.zeros(np.iinfo(voxels.dtype).max + 1, dtype=np.int64)
    for plane in voxels:  # bincount widens what it counts to int64, so one plane at a time
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    digest = np.frombuffer(hashlib.sha256(np.ascontiguousarray(voxels).data).digest(), dtype=np.uint8)
    path = job.summary(STAGE, number)
    write_summary(path, {"counts": counts, "sha256": digest})
    return path
