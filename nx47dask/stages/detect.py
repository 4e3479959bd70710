"""Detect: surface probability of every block, uint8 or uint16 on one scale."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from nx47dask.detectors import Fusion, ResidualBand, quantise
from nx47dask.engine import Batch, Pipeline, Task
from nx47dask.geometry import Block, Box
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.stages.emptiness import Filled, Occupancy, filled_by, finds_nothing
from nx47dask.stages.volume_job import VolumeJob, describe_block

__all__ = ["detect", "slice_slabs", "slices_per_task"]

STAGE = "detect"
SLICE_TASK_VOXELS = 64 << 20
"""Voxels that a task of whole slices holds at the most, unless a single slice with its context has more."""


class DetectedBlock(Filled):
    """What the detection of a block leaves: ``crc32`` of its probability, and the files with their bytes."""

    crc32: int
    files: dict[str, int]


class SliceThresholds(TypedDict):
    """The two thresholds of each of a few slices."""

    thresholds: list[list[float]]


def detect(
    job: VolumeJob, detector: Fusion | ResidualBand, scan: ScanStatistics, occupied: Occupancy
) -> Pipeline[Occupancy]:
    """Fill the probability store; returns where it is not empty."""
    one_level = 1.0 if job.probability_dtype == "float32" else 1 / np.iinfo(job.probability_dtype).max
    job.prepare(job.array("probability"), probability_per_level=one_level)
    thresholds = None
    if isinstance(detector, ResidualBand):
        thresholds = yield from _slice_thresholds(job, detector, scan)
    grid = job.detect_grid
    resources = {"GPU": 1.0} if isinstance(detector, Fusion) and detector.uses_gpu else None

    def task(block: Block) -> Task:
        arguments = (job, detector, scan, _rows(job, detector, scan, thresholds, block.box), block.number)
        whole = Task(block.number, describe_block(block, job), detect_block, arguments, block.box.size, resources)
        if finds_nothing(detector, _core(job, block.box), job, scan, occupied):
            return replace(whole, known={"filled": []})
        return replace(whole, smaller=replace(whole, arguments=(*arguments, True))) if resources else whole

    records: dict[int, Filled] = yield Batch(STAGE, map(task, grid), len(grid), job.work.size, grid=grid.counts)
    return filled_by(records, job.grid)


def detect_block(
    job: VolumeJob,
    detector: Fusion | ResidualBand,
    scan: ScanStatistics,
    thresholds: NDArray[np.float32] | None,
    number: int,
    in_pieces: bool = False,
) -> DetectedBlock:
    """Detect in one block and store the probability shard by shard; ``in_pieces``: one work block after the other.

    Either way the same bytes are stored; pieces need less memory and run more windows.
    """
    box = job.detect_grid.numbered(number).box
    store, filled, crc32 = job.array("probability"), [], 0
    for part in [block.box for block in job.grid.touching(box)] if in_pieces else [box]:
        levels = _probability(job, detector, scan, thresholds, part)
        for block in job.grid.touching(part):
            shard = np.ascontiguousarray(levels[block.box.relative_to(part.start).slices])
            store.write(block.box, shard)
            crc32 = zlib.crc32(shard.data, crc32)
            if shard.any():
                filled.append(block.number)
    return {"crc32": crc32, "filled": filled, "files": job.files(*store.files(box))}


def _probability(
    job: VolumeJob,
    detector: Fusion | ResidualBand,
    scan: ScanStatistics,
    thresholds: NDArray[np.float32] | None,
    box: Box,
) -> NDArray[np.unsignedinteger] | NDArray[np.float32]:
    """The probability in a box of ``work`` as it is stored, from its voxels and their context."""
    core, volume = _core(job, box), job.volume_box
    outer = detector.context(core, volume, scan)
    image = job.image.read(outer)
    if isinstance(detector, ResidualBand):
        assert thresholds is not None
        probability = detector.band(image, scan, thresholds)[core.relative_to(outer.start).slices].astype(np.float32)
    else:
        probability = detector.probability(image, outer, core, volume, scan)
    if job.probability_dtype == "float32":
        return probability
    levels: NDArray[np.unsignedinteger] = quantise(probability, np.dtype(job.probability_dtype).type)
    return levels


def measure_slices(
    job: VolumeJob, detector: ResidualBand, scan: ScanStatistics, first: int, last: int, slab: Box
) -> SliceThresholds:
    """Thresholds of the whole slices ``first`` to ``last`` of the volume (half-open); ``slab`` holds their context."""
    found = detector.slice_thresholds(job.image.read(slab), first - slab.start[0], last - first, scan)
    return {"thresholds": found.tolist()}


def slice_slabs(job: VolumeJob, detector: ResidualBand, scan: ScanStatistics) -> list[tuple[int, int, Box]]:
    """First and last slice (half-open) of each task that finds thresholds, and what it reads."""
    halo = detector.radius_zyx(scan)[0]
    needed = job.work.expand((halo, 0, 0)).clip(job.volume_box)
    step = slices_per_task(job, halo)
    ends = [(z, min(z + step, needed.stop[0])) for z in range(needed.start[0], needed.stop[0], step)]
    pages = job.volume.shape[1:]
    return [(a, b, Box((a, 0, 0), (b, *pages)).expand((halo, 0, 0)).clip(job.volume_box)) for a, b in ends]


def slices_per_task(job: VolumeJob, halo: int) -> int:
    """Slices whose thresholds one task finds; it reads ``halo`` more on both sides."""
    _, height, width = job.volume.shape
    return max(1, min(job.block, SLICE_TASK_VOXELS // (height * width) - 2 * halo))


def _slice_thresholds(job: VolumeJob, detector: ResidualBand, scan: ScanStatistics) -> Pipeline[NDArray[np.float32]]:
    """Thresholds of every slice of the volume that blocks will need, shape (Z, 2); other rows are not a number."""
    depth, height, width = job.volume.shape
    spans = slice_slabs(job, detector, scan)
    tasks = (
        Task(n, f"slices {a} to {b}", measure_slices, (job, detector, scan, a, b, slab), (b - a) * height * width)
        for n, (a, b, slab) in enumerate(spans)
    )
    slices = sum(b - a for a, b, _ in spans)
    records: dict[int, SliceThresholds] = yield Batch(f"{STAGE}.slices", tasks, len(spans), slices * height * width)
    table = np.full((depth, 2), np.nan, dtype=np.float32)
    for n, (a, b, _) in enumerate(spans):
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
    outer = detector.context(_core(job, box), job.volume_box, scan)
    return thresholds[outer.start[0] : outer.stop[0]]


def _core(job: VolumeJob, box: Box) -> Box:
    """A box of ``work`` in voxels of the volume."""
    return box.shift(job.work.start)
