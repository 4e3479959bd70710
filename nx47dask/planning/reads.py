"""What is read of the source: whether a run works on a copy, and how often each chunk of the source is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from nx47dask.detectors import Fusion, ResidualBand
from nx47dask.errors import InputError
from nx47dask.geometry import BlockGrid, Box
from nx47dask.io import Volume, read_edges
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.planning.loads import widest_scan
from nx47dask.stages.detect import slice_slabs
from nx47dask.stages.volume_job import VolumeJob
from nx47dask.steps.passes import Pass

__all__ = ["is_copied", "source_reads"]


def is_copied(volume: Volume, wanted: bool | None) -> bool:
    """Whether ingest copies a volume: a TIFF always, a Zarr as wanted, by default where it is remote.

    Raises
    ------
    InputError
        A TIFF shall be read in place.
    """
    if volume.kind == "zarr":
        return volume.is_remote if wanted is None else wanted
    if wanted is False:
        raise InputError(
            f"{volume.path}: cannot be read in place: a block of a TIFF cannot be read without its whole pages",
            hint="leave out --read-in-place, or convert the volume to Zarr",
        )
    return True


def source_reads(job: VolumeJob, detector: Fusion | ResidualBand, passes: Sequence[Pass]) -> float:
    """How often a chunk of the source is read on average, if no block is empty and nothing is cached.

    Once at ingest; from a copy everything else is read there. In place a block reads every chunk that its halo touches.
    """
    if job.copied:
        return 1.0
    edges = read_edges(job.volume)
    reads = sum(_chunks_in(box, edges) for box in _boxes(job, detector, widest_scan(job.volume), passes))
    return reads / len(BlockGrid(job.volume.shape, edges))


def _boxes(
    job: VolumeJob, detector: Fusion | ResidualBand, scan: ScanStatistics, passes: Sequence[Pass]
) -> Iterator[Box]:
    """All boxes that are read, in voxels of the volume."""
    yield from (block.box for block in job.ingest_grid)
    if isinstance(detector, ResidualBand):
        yield from (slab for _, _, slab in slice_slabs(job, detector, scan))
    for block in job.detect_grid:
        yield detector.context(block.box.shift(job.work.start), job.volume_box, scan)
    for one in passes:
        if one.reads_image:
            yield from (job.context(block.box, one.radius_zyx).shift(job.work.start) for block in job.grid)


def _chunks_in(box: Box, edges: tuple[int, int, int]) -> int:
    return math.prod(-(-b // edge) - a // edge for a, b, edge in zip(box.start, box.stop, edges, strict=True))
