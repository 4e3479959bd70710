"""Detect: compute the surface probability of every block, stored on one scale."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from nx47dask.detectors import Detector, Fusion, LearnedDetector, ResidualBand, quantise
from nx47dask.engine import Batch, Pipeline, Task
from nx47dask.geometry import Block, Box, Index
from nx47dask.io import Volume
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.stages.emptiness import Filled, Occupancy, filled_by, finds_nothing
from nx47dask.stages.load import SLAB_BYTES_PER_VOXEL, TASK_FILE_BYTES, StageLoad, stored_array_bytes
from nx47dask.stages.volume_job import VolumeJob, describe_block

__all__ = [
    "count_windows",
    "detect",
    "detect_loads",
    "detection_bytes",
    "slice_slabs",
    "widest_scan",
    "windows_by_block",
]

STAGE = "detect"
SLICE_TASK_VOXELS = 64 << 20
"""Most voxels that a task of whole slices holds, unless a single slice with its context has more."""
DETECT_BYTES_PER_VOXEL = 48
"""Memory of detectors, per voxel of a block with its halo."""
SUM_BYTES_PER_VOXEL = 16
"""Memory of blending (sums, weights, result) beside the image, per voxel of a block."""
NETWORK_BYTES_PER_VOXEL = 600
"""Memory of a network, per voxel of a batch: a few feature maps of 32 channels at full resolution."""
TORCH_NETWORK_BYTES = 600 << 20
"""Least memory of a network in torch on a CPU, which makes a matrix of a lone window of up to 64 voxels first."""


class DetectedBlock(Filled):
    """Result of the detection of a block: ``crc32`` of its probability, and the files with their bytes."""

    crc32: int
    files: dict[str, int]


class SliceThresholds(TypedDict):
    """The two thresholds of each of a few slices."""

    thresholds: list[list[float]]


def detect(
    job: VolumeJob, detector: Fusion | ResidualBand, scan: ScanStatistics, occupied: Occupancy
) -> Pipeline[Occupancy]:
    """Fill the probability store; return its occupancy."""
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


def detect_loads(job: VolumeJob, detector: Fusion | ResidualBand) -> Iterator[StageLoad]:
    """Bound the loads of detection for a volume: thresholds of slices, if the detector needs them, and blocks."""
    scan = widest_scan(job.volume)
    if isinstance(detector, ResidualBand):
        halo, page = detector.radius_zyx(scan)[0], math.prod(job.volume.shape[1:])
        step, spans = _slices_per_task(job, halo), slice_slabs(job, detector, scan)
        depth = sum(last - first for first, last, _ in spans)
        memory = (step + 2 * halo) * page * SLAB_BYTES_PER_VOXEL
        voxels = (depth + 2 * halo * len(spans)) * page
        yield StageLoad(f"{STAGE}.slices", "thresholds per slice", len(spans), voxels, memory, 0)
    networks = detector.learned if isinstance(detector, Fusion) else []
    memory = detection_bytes(detector, job, job.detect_grid.block((0, 0, 0)).box.shape)
    memory += max(map(_network_bytes, networks), default=0)
    stored = stored_array_bytes(job, "probability") + TASK_FILE_BYTES
    contexts = job.detect_grid.along_axes(lambda box: detector.context(_core(job, box), job.volume_box, scan).shape)
    windows = sum(_all_windows(network, job) for network in networks)
    what = "surface probability" + (f", {windows:,} windows" if windows else "")
    voxels = math.prod(map(sum, contexts))
    yield StageLoad(STAGE, what, len(job.detect_grid), voxels, memory, stored, windows=windows)


def windows_by_block(networks: Sequence[LearnedDetector], job: VolumeJob) -> list[int]:
    """Count the windows that each block of detection runs if none is skipped."""
    return [count_windows(networks, job, _core(job, block.box)) for block in job.detect_grid]


def count_windows(networks: Sequence[LearnedDetector], job: VolumeJob, core: Box) -> int:
    """Count the windows of all networks that touch a box of the volume."""
    return sum(network.lattice(job.volume_box).count_touching(core) for network in networks)


def detection_bytes(detector: Fusion | ResidualBand, job: VolumeJob, shape: Index) -> int:
    """Bound the memory of detection in a block of a shape, in bytes, without networks."""
    scan = widest_scan(job.volume)

    def outer(source: Detector | ResidualBand) -> int:
        edges = zip(shape, source.radius_zyx(scan), job.volume.shape, strict=True)
        return math.prod(min(edge + 2 * r, most) for edge, r, most in edges)

    if isinstance(detector, ResidualBand) or not detector.learned:
        return outer(detector) * DETECT_BYTES_PER_VOXEL
    image = outer(detector) * np.dtype(job.volume.dtype).itemsize
    others = [source for _, source in detector.active if not isinstance(source, LearnedDetector)]
    local = max((outer(source) * DETECT_BYTES_PER_VOXEL for source in others), default=0)
    return image + local + math.prod(shape) * SUM_BYTES_PER_VOXEL


def widest_scan(volume: Volume) -> ScanStatistics:
    """Return statistics with the widest spread of greys that a volume of this type can have.

    Sigma grows with the spread, which is known after ingest; it is at most half of the range.
    """
    top = np.iinfo(volume.dtype).max
    return ScanStatistics(0, top, top / 2, top / 2)


def detect_block(
    job: VolumeJob,
    detector: Fusion | ResidualBand,
    scan: ScanStatistics,
    thresholds: NDArray[np.float32] | None,
    number: int,
    in_pieces: bool = False,
) -> DetectedBlock:
    """Detect in a block and store the probability shard by shard.

    ``in_pieces`` detects in one work block after the other. It stores the same bytes, needs less memory and runs more
    windows.
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
    """Compute the probability in a box of ``work``, in the type in which it is stored."""
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
    """Find the thresholds of the slices ``first`` to ``last`` of the volume (half-open); ``slab`` has their context."""
    thresholds = detector.slice_thresholds(job.image.read(slab), first - slab.start[0], last - first, scan)
    return {"thresholds": thresholds.tolist()}


def slice_slabs(job: VolumeJob, detector: ResidualBand, scan: ScanStatistics) -> list[tuple[int, int, Box]]:
    """Return the first and last slice (half-open) of each task that finds thresholds, and the box that it reads."""
    halo = detector.radius_zyx(scan)[0]
    needed = job.work.expand((halo, 0, 0)).clip(job.volume_box)
    step = _slices_per_task(job, halo)
    ends = [(z, min(z + step, needed.stop[0])) for z in range(needed.start[0], needed.stop[0], step)]
    pages = job.volume.shape[1:]
    return [(a, b, Box((a, 0, 0), (b, *pages)).expand((halo, 0, 0)).clip(job.volume_box)) for a, b in ends]


def _slices_per_task(job: VolumeJob, halo: int) -> int:
    """Count the slices whose thresholds a task finds; it reads ``halo`` more slices on both sides."""
    _, height, width = job.volume.shape
    return max(1, min(job.block, SLICE_TASK_VOXELS // (height * width) - 2 * halo))


def _slice_thresholds(job: VolumeJob, detector: ResidualBand, scan: ScanStatistics) -> Pipeline[NDArray[np.float32]]:
    """Find the thresholds of every slice that blocks will need, shape (Z, 2); other rows are NaN."""
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
    """Return the rows of the slice thresholds that a block needs."""
    if thresholds is None:
        return None
    outer = detector.context(_core(job, box), job.volume_box, scan)
    return thresholds[outer.start[0] : outer.stop[0]]


def _core(job: VolumeJob, box: Box) -> Box:
    """Shift a box of ``work`` to voxels of the volume."""
    return box.shift(job.work.start)


def _all_windows(network: LearnedDetector, job: VolumeJob) -> int:
    """Count the windows of a network over all blocks of detection; a window across borders counts in each block."""
    lattice = network.lattice(job.volume_box)
    counts = job.detect_grid.along_axes(lambda box: lattice.counts_touching(_core(job, box)))
    return math.prod(map(sum, counts))


def _network_bytes(network: LearnedDetector) -> int:
    """Bound the memory of a network for a batch of windows, in bytes."""
    runtime = network.runtime
    least = TORCH_NETWORK_BYTES if (runtime.backend, runtime.device) == ("torch", "cpu") else 0
    return max(least, math.prod(network.info.window_zyx) * runtime.batch * NETWORK_BYTES_PER_VOXEL)
