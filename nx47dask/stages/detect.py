"""Detect: surface probability of every block, uint8 or uint16 on one scale."""

from __future__ import annotations

import zlib
from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.detectors import Fusion, ResidualBand, ScanStatistics, quantise
from nx47dask.engine import Batch, Record, Task
from nx47dask.geometry import Box
from nx47dask.stages.job import VolumeJob, describe_block

__all__ = ["detect", "slices_per_task"]

STAGE = "detect"
SLICE_TASK_VOXELS = 64 << 20
"""Voxels that a task of whole slices holds at the most, unless a single slice with its context has more."""


def detect(
    job: VolumeJob, detector: Fusion | ResidualBand, scan: ScanStatistics
) -> Generator[Batch, dict[int, Record], None]:
    """Fill the probability store."""
    job.prepare(job.array("probability"), probability_per_level=1 / np.iinfo(job.probability_dtype).max)
    thresholds = None
    if isinstance(detector, ResidualBand):
        thresholds = yield from _slice_thresholds(job, detector, scan)
    grid = job.detect_grid
    resources = {"GPU": 1.0} if isinstance(detector, Fusion) and detector.uses_gpu else None
    tasks = (
        Task(
            block.number,
            describe_block(block, job),
            detect_block,
            (job, detector, scan, _rows(job, detector, scan, thresholds, block.box), block.number),
            block.box.size,
            resources,
        )
        for block in grid
    )
    yield Batch(STAGE, tasks, len(grid), job.work.size)


def detect_block(
    job: VolumeJob,
    detector: Fusion | ResidualBand,
    scan: ScanStatistics,
    thresholds: NDArray[np.float32] | None,
    number: int,
) -> dict[str, Any]:
    """Detect in one block, from its voxels and their context, and store the probability shard by shard."""
    box = job.detect_grid.numbered(number).box
    core, volume = box.shift(job.work.start), Box.of_shape(job.volume.shape)
    outer = detector.context(core, volume, scan)
    image = job.image.read(outer)
    if isinstance(detector, ResidualBand):
        assert thresholds is not None
        probability = detector.band(image, scan, thresholds)[core.relative_to(outer.start).slices].astype(np.float32)
    else:
        probability = detector.probability(image, outer, core, volume, scan)
    levels = np.ascontiguousarray(quantise(probability, np.dtype(job.probability_dtype).type))
    store = job.array("probability")
    for shard in job.grid_of(box.shape):
        store.write(shard.box.shift(box.start), np.ascontiguousarray(levels[shard.box.slices]))
    return {"crc32": zlib.crc32(levels.data), "files": job.files(*store.files(box))}


def measure_slices(
    job: VolumeJob, detector: ResidualBand, scan: ScanStatistics, first: int, last: int
) -> dict[str, Any]:
    """Thresholds of the whole slices ``first`` to ``last`` of the volume (half-open)."""
    volume = Box.of_shape(job.volume.shape)
    wanted = Box((first, 0, 0), (last, *volume.shape[1:]))
    slab = wanted.expand((detector.radius_zyx(scan)[0], 0, 0)).clip(volume)
    found = detector.slice_thresholds(job.image.read(slab), first - slab.start[0], last - first, scan)
    return {"thresholds": found.tolist()}


def slices_per_task(job: VolumeJob, halo: int) -> int:
    """Slices whose thresholds one task finds; it reads ``halo`` more on both sides."""
    _, height, width = job.volume.shape
    return max(1, min(job.block, SLICE_TASK_VOXELS // (height * width) - 2 * halo))


def _slice_thresholds(
    job: VolumeJob, detector: ResidualBand, scan: ScanStatistics
) -> Generator[Batch, dict[int, Record], NDArray[np.float32]]:
    """Thresholds of every slice of the volume that blocks will need, shape (Z, 2); other rows are not a number."""
    depth, height, width = job.volume.shape
    halo = detector.radius_zyx(scan)[0]
    needed = job.work.expand((halo, 0, 0)).clip(Box.of_shape(job.volume.shape))
    step = slices_per_task(job, halo)
    firsts = range(needed.start[0], needed.stop[0], step)
    spans = [(first, min(first + step, needed.stop[0])) for first in firsts]
    tasks = (
        Task(n, f"slices {a} to {b}", measure_slices, (job, detector, scan, a, b), (b - a) * height * width)
        for n, (a, b) in enumerate(spans)
    )
    records = yield Batch(f"{STAGE}.slices", tasks, len(spans), needed.shape[0] * height * width)
    table = np.full((depth, 2), np.nan, dtype=np.float32)
    for n, (a, b) in enumerate(spans):
        table[a:b] = records[n]["thresholds"]
    return table


def _rows(
    job: VolumeJob,
    detector: Fusion | ResidualBand,
    scan: ScanStatistics,
    thresholds: NDArray[np.float32] | None,
    box: Box,
) -> NDArray[np.float32] | None:
    """The rows of the slice thresholds that one block needs."""
    if thresholds is None:
        return None
    outer = detector.context(box.shift(job.work.start), Box.of_shape(job.volume.shape), scan)
    return thresholds[outer.start[0] : outer.stop[0]]
