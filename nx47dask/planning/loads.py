"""What a plan will take, before anything runs: tasks, memory, disk.

Projections are bounds: what a run measures must not exceed them. The factors are measured peaks with some room.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nx47dask.detectors import Detector, Fusion, LearnedDetector, ResidualBand, Sheetness
from nx47dask.geometry import BlockGrid, Box, Index
from nx47dask.io import Volume
from nx47dask.kernels.components import Labelling
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.metrics.octants import octant_context, octants
from nx47dask.stages.detect import slices_per_task
from nx47dask.stages.export import slab_depth
from nx47dask.stages.linking import BLOCKS_PER_GROUP
from nx47dask.stages.measure import LABELLINGS
from nx47dask.stages.postprocess import stage_name
from nx47dask.stages.volume_job import VolumeJob
from nx47dask.steps.passes import ComponentScan, Pass, QuantileScan, describe

if TYPE_CHECKING:
    from nx47dask.planning.plan import RunPlan

__all__ = [
    "Estimate",
    "StageLoad",
    "client_bytes",
    "detection_bytes",
    "disk_bytes",
    "halo_redundancy",
    "stage_loads",
    "widest_scan",
    "windows_by_block",
    "windows_in",
    "worker_bytes",
]

PROCESS_BYTES = 230 << 20
"""A worker with what every stage needs: numpy, scipy, zarr, Dask."""
LIBRARY_BYTES = 250 << 20
"""torch or another library that runs kernels or networks, once it has run."""
NETWORK_LIBRARY_BYTES = 300 << 20
"""What a backend holds of a network beside its feature maps: compiled kernels, weights."""
DETECT_BYTES_PER_VOXEL = 48
"""Detectors, per voxel of a block with its halo."""
SUM_BYTES_PER_VOXEL = 16
"""Sums and weights of blended windows and what becomes of them, per voxel of a block, beside the image."""
NETWORK_BYTES_PER_VOXEL = 600
"""Inside a network, per voxel of a batch: a few feature maps of 32 channels at full resolution."""
TORCH_NETWORK_BYTES = 600 << 20
"""The least for torch on a CPU, whose convolutions of a lone window of up to 64 voxels make a matrix of it first."""
PASS_BYTES_PER_VOXEL = 24
"""Labelling and local steps, per voxel of a block with its halo."""
SLAB_BYTES_PER_VOXEL = 4
"""Slabs of whole slices and blocks at ingest, at export and for slice thresholds, per voxel and byte of the scan."""
SCORE_BYTES_PER_VOXEL = 48
"""Scoring, per voxel of an octant with its halo."""
FACE_BYTES_PER_VOXEL = 4
"""Labels at the faces of blocks."""
SHARED_PER_FACE_VOXEL = 0.0015
"""Components that cross faces: 24 million in 10,240 blocks of 512 voxels a side."""
UNITE_BYTES_PER_SHARED = 250
"""A union of shared components with their links and attributes."""

CLIENT_BYTES = 260 << 20
"""A client with the scheduler of a local cluster and what the report draws with."""
RECORD_BYTES = 2600
"""Client and scheduler, per task of a stage, whose record is held until the stage ends."""

MASK_BYTES_PER_VOXEL = 0.25
"""A mask as it compresses at worst, in a store or as a TIFF."""
TASK_FILE_BYTES = 4 << 10
"""Files of a task at the least."""


@dataclass(frozen=True, slots=True)
class StageLoad:
    """What a stage will take, over all volumes; links and merges of its components belong to it.

    Attributes
    ----------
    stage, what : str
        Its name, and what it does in words.
    tasks : int
        Over blocks, slabs or octants.
    links, merges : int
        At most: blocks that share no component are not linked.
    voxels : int
        What its tasks read, halos counted as often as they are read.
    windows : int
        Windows that networks run.
    task_bytes : int
        Memory of its largest task, the worker process not counted.
    stored_bytes : int
        What it leaves on the disk, at most.
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


@dataclass(frozen=True)
class Estimate:
    """How long a run will take.

    Attributes
    ----------
    stages_s : mapping of str to float
        Seconds of one worker, over all volumes.
    wall_s : float
        From the first task to the report.
    workers : int
    """

    stages_s: Mapping[str, float]
    wall_s: float
    workers: int


def stage_loads(planned: RunPlan, jobs: Iterable[VolumeJob] | None = None) -> list[StageLoad]:
    """The stages of a run in order, over all its volumes or some of them."""
    found: dict[str, StageLoad] = {}
    for job in planned.jobs if jobs is None else jobs:
        for load in _loads_of(planned, job):
            before = found.get(load.stage)
            found[load.stage] = _add(before, load) if before else load
    return list(found.values())


def worker_bytes(planned: RunPlan, loads: Sequence[StageLoad] | None = None) -> tuple[int, str]:
    """Peak memory of a worker, and the stage whose task it is."""
    largest = max(stage_loads(planned) if loads is None else loads, key=lambda load: load.task_bytes)
    process = CLIENT_BYTES if planned.serial else PROCESS_BYTES
    return process + library_bytes(planned.detector) + largest.task_bytes, largest.stage


def client_bytes(planned: RunPlan, loads: Sequence[StageLoad] | None = None) -> int:
    """Peak memory of the client with the scheduler of a local cluster."""
    loads = stage_loads(planned) if loads is None else loads
    tasks = max(load.task_bytes for load in loads) if planned.serial else 0
    records = RECORD_BYTES * max(load.tasks for load in loads)
    return CLIENT_BYTES + library_bytes(planned.detector) + records + tasks


def disk_bytes(planned: RunPlan) -> int:
    """Peak size of a run folder: the stores that are there at a time, all masks, and the zip of them."""
    stores = sorted((_store_bytes(planned, job) for job in planned.jobs), reverse=True)
    return sum(stores[: planned.most_volumes]) + 2 * sum(_mask_bytes(job.box) for job in planned.jobs)


def library_bytes(detector: Fusion | ResidualBand) -> int:
    """What the libraries of the detectors take of a process."""
    if isinstance(detector, ResidualBand):
        return 0
    sources = [one for _, one in detector.active]
    networks = NETWORK_LIBRARY_BYTES if detector.learned else 0
    return networks + (LIBRARY_BYTES if any(isinstance(one, Sheetness | LearnedDetector) for one in sources) else 0)


def halo_redundancy(detector: Fusion | ResidualBand, job: VolumeJob) -> float:
    """Voxels of the scan that detection reads, per voxel of the volume."""
    return _detection_voxels(detector, job) / job.work.size


def windows_by_block(networks: Sequence[LearnedDetector], job: VolumeJob) -> list[int]:
    """Windows that each block of detection runs if none is skipped."""
    return [windows_in(networks, job, block.box.shift(job.work.start)) for block in job.detect_grid]


def windows_in(networks: Sequence[LearnedDetector], job: VolumeJob, core: Box) -> int:
    """Windows of all networks that touch a box of the volume."""
    return sum(network.lattice(job.volume_box).count_touching(core) for network in networks)


def detection_bytes(detector: Fusion | ResidualBand, job: VolumeJob, shape: Index) -> int:
    """Memory for detection in a block of a shape, apart from networks."""
    scan = widest_scan(job.volume)

    def outer(one: Detector | ResidualBand) -> int:
        edges = zip(shape, one.radius_zyx(scan), job.volume.shape, strict=True)
        return math.prod(min(edge + 2 * r, most) for edge, r, most in edges)

    if isinstance(detector, ResidualBand) or not detector.learned:
        return outer(detector) * DETECT_BYTES_PER_VOXEL
    image = outer(detector) * np.dtype(job.volume.dtype).itemsize
    others = [one for _, one in detector.active if not isinstance(one, LearnedDetector)]
    local = max((outer(one) * DETECT_BYTES_PER_VOXEL for one in others), default=0)
    return image + local + math.prod(shape) * SUM_BYTES_PER_VOXEL


def network_bytes(network: LearnedDetector) -> int:
    """Memory inside a network for a batch of windows."""
    engine = network.engine
    least = TORCH_NETWORK_BYTES if (engine.backend, engine.device) == ("torch", "cpu") else 0
    return max(least, math.prod(network.info.window_zyx) * engine.batch * NETWORK_BYTES_PER_VOXEL)


def widest_scan(volume: Volume) -> ScanStatistics:
    """Sigma grows with the spread of the greys, known after ingest; half of the range is the most it can be."""
    top = np.iinfo(volume.dtype).max
    return ScanStatistics(0, top, top / 2, top / 2)


def _loads_of(planned: RunPlan, job: VolumeJob) -> Iterator[StageLoad]:
    yield _ingest(job)
    yield from _detect(planned.detector, job)
    for one in planned.passes:
        yield _pass(planned.passes, one, job)
    yield _measure(job)
    slab = slab_depth(job) * math.prod(job.box.shape[1:]) * SLAB_BYTES_PER_VOXEL
    yield StageLoad("export", "mask to TIFF", 1, job.box.size, slab, 2 * _mask_bytes(job.box))
    if planned.scored:
        parts = [octant_context(octants(job.box.shape), one).size for one in octants(job.box.shape)]
        largest = max(parts) * SCORE_BYTES_PER_VOXEL
        yield StageLoad("score", "masks against labels", len(parts), sum(parts), largest, 0)


def _ingest(job: VolumeJob) -> StageLoad:
    grid, item = job.ingest_grid, np.dtype(job.volume.dtype).itemsize
    slab = grid.block((0, 0, 0)).box.size * SLAB_BYTES_PER_VOXEL * item
    copy = 0
    if job.copied:
        shards = len(BlockGrid(job.volume.shape, job.image_store.shard))
        copy = job.volume_box.size * item + shards * TASK_FILE_BYTES
    histograms = len(grid) * (TASK_FILE_BYTES + (8 << 8 * item) // 4)
    what = "copy and grey values" if job.copied else "grey values, read in place"
    return StageLoad("ingest", what, len(grid), job.volume_box.size, slab, copy + histograms, merges=1)


def _detect(detector: Fusion | ResidualBand, job: VolumeJob) -> Iterator[StageLoad]:
    if isinstance(detector, ResidualBand):
        halo = detector.radius_zyx(widest_scan(job.volume))[0]
        depth = job.work.expand((halo, 0, 0)).clip(job.volume_box).shape[0]
        step, page = slices_per_task(job, halo), math.prod(job.volume.shape[1:])
        tasks = -(-depth // step)
        memory = (step + 2 * halo) * page * SLAB_BYTES_PER_VOXEL
        yield StageLoad("detect.slices", "thresholds per slice", tasks, (depth + 2 * halo * tasks) * page, memory, 0)
    networks = detector.learned if isinstance(detector, Fusion) else []
    memory = detection_bytes(detector, job, job.detect_grid.block((0, 0, 0)).box.shape)
    memory += max(map(network_bytes, networks), default=0)
    stored = _array_bytes(job, "probability") + TASK_FILE_BYTES
    voxels, windows = _detection_voxels(detector, job), sum(windows_by_block(networks, job))
    what = "surface probability" + (f", {windows:,} windows" if windows else "")
    yield StageLoad("detect", what, len(job.detect_grid), voxels, memory, stored, windows=windows)


def _pass(passes: tuple[Pass, ...], one: Pass, job: VolumeJob) -> StageLoad:
    grid = job.grid
    reads = _context_voxels(grid, one.radius_zyx)
    memory = reads[0] * PASS_BYTES_PER_VOXEL
    stored = 0
    if one is passes[-1] or one.writes:
        stored = _array_bytes(job, "mask" if one is passes[-1] else one.gives)
    links = merges = 0
    if isinstance(one.scan, ComponentScan):
        links, merges = _links(grid, one.scan.labelling)
        memory = max(memory, _union_bytes(grid))
        stored += _face_bytes(grid)
    elif isinstance(one.scan, QuantileScan):
        merges = 1
        rows = 1 if one.scan.thresholds.by == "volume" else job.block
        stored += len(grid) * (TASK_FILE_BYTES + rows * (8 << 8 * np.dtype(job.probability_dtype).itemsize) // 4)
    return StageLoad(
        stage_name(one.number), describe(one), len(grid), reads[1], memory, stored, links=links, merges=merges
    )


def _measure(job: VolumeJob) -> StageLoad:
    grid = job.grid_of(job.box.shape)
    largest, voxels = _context_voxels(grid, (1, 1, 1))
    memory = max(largest * PASS_BYTES_PER_VOXEL, _union_bytes(grid))
    linking = [_links(grid, labelling) for labelling, _ in LABELLINGS.values()]
    links, merges = (sum(counts) for counts in zip(*linking, strict=True))
    stored = len(LABELLINGS) * _face_bytes(grid) + job.box.shape[0] * 100 * (1 + len(grid) // grid.counts[0])
    what = "slice and volume metrics"
    return StageLoad("measure", what, len(grid), voxels, memory, stored, links=links, merges=merges + 1)


def _add(one: StageLoad, more: StageLoad) -> StageLoad:
    return StageLoad(
        one.stage,
        one.what,
        one.tasks + more.tasks,
        one.voxels + more.voxels,
        max(one.task_bytes, more.task_bytes),
        one.stored_bytes + more.stored_bytes,
        one.links + more.links,
        one.merges + more.merges,
        one.windows + more.windows,
    )


def _store_bytes(planned: RunPlan, job: VolumeJob) -> int:
    return sum(load.stored_bytes for load in _loads_of(planned, job) if load.stage != "export")


def _array_bytes(job: VolumeJob, kind: str) -> int:
    if kind == "probability":
        return job.work.size * np.dtype(job.probability_dtype).itemsize + len(job.grid) * TASK_FILE_BYTES
    return int(job.work.size * MASK_BYTES_PER_VOXEL) + len(job.grid) * TASK_FILE_BYTES


def _mask_bytes(box: Box) -> int:
    return int(box.size * MASK_BYTES_PER_VOXEL) + box.shape[0] * 300


def _face_bytes(grid: BlockGrid) -> int:
    """Summaries of labelled blocks: few labels over many voxels, which compress well."""
    return len(grid) * (TASK_FILE_BYTES + int(_face_voxels(grid) * 0.5))


def _face_voxels(grid: BlockGrid) -> int:
    """Voxels at the faces of a block."""
    z, y, x = grid.block((0, 0, 0)).box.shape
    return 2 * (z * y + y * x + z * x)


def _union_bytes(grid: BlockGrid) -> int:
    """The larger of linking a group of blocks with its neighbours and of uniting them all."""
    if len(grid) == 1:
        return 0
    read = min(len(grid), 3 * BLOCKS_PER_GROUP) * _face_voxels(grid) * FACE_BYTES_PER_VOXEL
    return max(read, int(len(grid) * _face_voxels(grid) * SHARED_PER_FACE_VOXEL * UNITE_BYTES_PER_SHARED))


def _links(grid: BlockGrid, labelling: Labelling) -> tuple[int, int]:
    """Tasks that link blocks and that unite what is linked; of slices on their own, layer by layer."""
    layers = grid.counts[0] if labelling.per_slice else 1
    blocks = len(grid) // layers
    return (layers * -(-blocks // BLOCKS_PER_GROUP), layers) if blocks > 1 else (0, 0)


def _detection_voxels(detector: Fusion | ResidualBand, job: VolumeJob) -> int:
    scan = widest_scan(job.volume)
    cores = (block.box.shift(job.work.start) for block in job.detect_grid)
    return sum(detector.context(core, job.volume_box, scan).size for core in cores)


def _context_voxels(grid: BlockGrid, radius_zyx: Index) -> tuple[int, int]:
    """Voxels of the largest block with its halo, clipped to the grid, and of all of them together."""
    along = [
        [min(start + edge + r, n) - max(start - r, 0) for start in range(0, n, edge)]
        for n, edge, r in zip(grid.shape, grid.block_shape, radius_zyx, strict=True)
    ]
    return math.prod(map(max, along)), math.prod(map(sum, along))
