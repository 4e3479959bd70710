"""Project the memory, disk, tasks and reads of a plan, once, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nx47dask.detectors import Fusion, LearnedDetector, ResidualBand, Sheetness
from nx47dask.planning.plan import RunPlan
from nx47dask.planning.reads import source_reads
from nx47dask.stages.detect import STAGE as DETECT
from nx47dask.stages.detect import count_windows, detect_loads
from nx47dask.stages.export import STAGE as EXPORT
from nx47dask.stages.export import export_load
from nx47dask.stages.ingest import ingest_load
from nx47dask.stages.load import StageLoad, add_loads, mask_bytes
from nx47dask.stages.measure import measure_load
from nx47dask.stages.postprocess import pass_load
from nx47dask.stages.score import score_load
from nx47dask.stages.volume_job import VolumeJob

__all__ = ["Estimate", "Projection", "VolumeProjection", "project"]

PROCESS_BYTES = 230 << 20
"""Memory of a worker with the libraries that every stage needs: numpy, scipy, zarr, Dask."""
LIBRARY_BYTES = 250 << 20
"""Memory of torch, or of another library that runs kernels or networks, once it has run."""
NETWORK_LIBRARY_BYTES = 300 << 20
"""Memory of a network in its backend beside the feature maps: compiled kernels, weights."""
CLIENT_BYTES = 260 << 20
"""Memory of a client with the scheduler of a local cluster and the libraries that draw the report."""
RECORD_BYTES = 2600
"""Memory of client and scheduler for each task of a stage, whose record is held until the stage ends."""


@dataclass(frozen=True, slots=True)
class VolumeProjection:
    """Projection of one volume.

    Attributes
    ----------
    loads : tuple of StageLoad
        Its stages in order.
    halo_redundancy : float
        Voxels of the scan that detection reads, per voxel of the volume.
    windows : int
        Different windows of all networks; windows across borders run in each block, see ``windows_run``.
    source_reads : float
        How often a chunk of the source is read on average.
    mask_bytes : int
        Its TIFF, at most.
    """

    loads: tuple[StageLoad, ...]
    halo_redundancy: float
    windows: int
    source_reads: float
    mask_bytes: int

    @property
    def store_bytes(self) -> int:
        """Bytes of its store, at most."""
        return sum(load.stored_bytes for load in self.loads if load.stage != EXPORT)

    @property
    def windows_run(self) -> int:
        """Windows that networks run if none is skipped; a window across a border counts in each block."""
        return sum(load.windows for load in self.loads)


@dataclass(frozen=True, slots=True)
class Projection:
    """Projection of a run; memory and disk are upper bounds.

    Attributes
    ----------
    volumes : dict of str to VolumeProjection
        By volume id.
    loads : tuple of StageLoad
        The stages in order, over all volumes.
    worker_bytes : int
        Peak memory of a worker.
    worker_stage : str
        The stage with the task that needs it.
    client_bytes : int
        Peak memory of the client with the scheduler of a local cluster.
    disk_bytes : int
        Peak size of the run folder.
    bytes_read_per_byte : float
        Bytes read from the sources per byte of them, over all volumes.
    """

    volumes: Mapping[str, VolumeProjection]
    loads: tuple[StageLoad, ...]
    worker_bytes: int
    worker_stage: str
    client_bytes: int
    disk_bytes: int
    bytes_read_per_byte: float

    @property
    def tasks(self) -> int:
        """All tasks, links and merges included."""
        return sum(load.all_tasks for load in self.loads)

    def disk_bytes_with(self, volumes_at_a_time: int) -> int:
        """Bound the size of the run folder in bytes, with so many stores at a time, all masks, and their zip."""
        return _folder_bytes(self.volumes, volumes_at_a_time)


@dataclass(frozen=True)
class Estimate:
    """Estimated time of a run.

    Attributes
    ----------
    stages_s : mapping of str to float
        Seconds of work of each stage, summed over workers and volumes.
    wall_s : float
        From the first task to the report.
    workers : int
    """

    stages_s: Mapping[str, float]
    wall_s: float
    workers: int


def project(planned: RunPlan) -> Projection:
    """Project memory, disk, tasks and reads of a plan, in a few milliseconds a volume for any number of blocks.

    Parameters
    ----------
    planned : RunPlan

    Returns
    -------
    Projection
    """
    volumes = {job.id: _project_volume(planned, job) for job in planned.jobs}
    loads = tuple(add_loads(load for volume in volumes.values() for load in volume.loads))
    largest = max(loads, key=lambda load: load.task_bytes)
    libraries = library_bytes(planned.detector)
    in_client = largest.task_bytes if planned.serial else 0
    sizes = {job.id: job.volume_box.size for job in planned.jobs}
    read = sum(volumes[name].source_reads * size for name, size in sizes.items())
    return Projection(
        volumes=volumes,
        loads=loads,
        worker_bytes=(CLIENT_BYTES if planned.serial else PROCESS_BYTES) + libraries + largest.task_bytes,
        worker_stage=largest.stage,
        client_bytes=CLIENT_BYTES + libraries + RECORD_BYTES * max(load.tasks for load in loads) + in_client,
        disk_bytes=_folder_bytes(volumes, planned.most_volumes),
        bytes_read_per_byte=read / sum(sizes.values()),
    )


def library_bytes(detector: Fusion | ResidualBand) -> int:
    """Bound the memory that the libraries of the detectors take in a process, in bytes."""
    if isinstance(detector, ResidualBand):
        return 0
    sources = [source for _, source in detector.active]
    networks = NETWORK_LIBRARY_BYTES if detector.learned else 0
    return networks + (LIBRARY_BYTES if any(isinstance(s, Sheetness | LearnedDetector) for s in sources) else 0)


def _folder_bytes(volumes: Mapping[str, VolumeProjection], at_a_time: int) -> int:
    stores = sorted((volume.store_bytes for volume in volumes.values()), reverse=True)
    return sum(stores[:at_a_time]) + 2 * sum(volume.mask_bytes for volume in volumes.values())


def _project_volume(planned: RunPlan, job: VolumeJob) -> VolumeProjection:
    loads = tuple(_loads(planned, job))
    detection = next(load for load in loads if load.stage == DETECT)
    return VolumeProjection(
        loads,
        detection.voxels / job.work.size,
        count_windows(planned.networks, job, job.work),
        source_reads(job, planned.detector, planned.passes),
        mask_bytes(job.box),
    )


def _loads(planned: RunPlan, job: VolumeJob) -> Iterator[StageLoad]:
    yield ingest_load(job)
    yield from detect_loads(job, planned.detector)
    for current in planned.passes:
        yield pass_load(job, current, is_last=current is planned.passes[-1])
    yield measure_load(job)
    yield export_load(job)
    if planned.scored:
        yield score_load(job.box)
