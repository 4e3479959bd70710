"""Reads of the source: decide if a run works on a copy, count how often each chunk of the source is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from nx47dask.detectors import Fusion, ResidualBand
from nx47dask.errors import InputError
from nx47dask.geometry import BlockGrid, Box, Index
from nx47dask.io import Volume, read_edges
from nx47dask.stages.detect import slice_slabs, widest_scan
from nx47dask.stages.volume_job import VolumeJob
from nx47dask.steps.passes import Pass

__all__ = ["is_copied", "source_reads"]


def is_copied(volume: Volume, wanted: bool | None) -> bool:
    """Decide if ingest copies a volume: always a TIFF; a Zarr as wanted, by default only a remote one.

    Raises
    ------
    InputError
        The volume is a TIFF and is to be read in place.
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
    """Count the reads of each chunk of the source, on average, if no block is empty and nothing is cached.

    Ingest reads each chunk once, and where it makes a copy, all else is read from the copy. In place, a block reads
    every chunk that its halo touches.
    """
    if job.copied:
        return 1.0
    edges = read_edges(job.volume)
    scan = widest_scan(job.volume)
    reads = _grid_reads(job.ingest_grid, edges, lambda box: box)
    if isinstance(detector, ResidualBand):
        reads += sum(math.prod(_chunks_in(slab, edges)) for _, _, slab in slice_slabs(job, detector, scan))
    reads += _grid_reads(
        job.detect_grid,
        edges,
        lambda box: detector.context(box.shift(job.work.start), job.volume_box, scan),
    )
    for current in passes:
        if current.reads_image:
            reads += _grid_reads(job.grid, edges, partial(_pass_reads, job, current))
    return reads / len(BlockGrid(job.volume.shape, edges))


def _pass_reads(job: VolumeJob, current: Pass, box: Box) -> Box:
    """Return the box of the scan that a pass reads for a block."""
    return job.context(box, current.radius_zyx).shift(job.work.start)


def _grid_reads(grid: BlockGrid, edges: Index, reads: Callable[[Box], Box]) -> int:
    """Count the chunks that all blocks of a grid read; ``reads`` gives the box that a block reads."""
    return math.prod(map(sum, grid.along_axes(lambda box: _chunks_in(reads(box), edges))))


def _chunks_in(box: Box, edges: Index) -> Index:
    """Count the chunks per axis that a box touches."""
    z, y, x = (-(-b // edge) - a // edge for a, b, edge in zip(box.start, box.stop, edges, strict=True))
    return z, y, x
