"""Make the plan of a run: volumes cut into work blocks, blocks of detection as large as memory allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nx47dask.detectors import Fusion, LearnedDetector, ResidualBand
from nx47dask.errors import InputError
from nx47dask.geometry import Box, Index, add_radii, parse_bbox, storage_chunk
from nx47dask.io import Volume
from nx47dask.models.backends import Device
from nx47dask.planning.plan import RunPlan
from nx47dask.planning.reads import is_copied
from nx47dask.stages.detect import detection_bytes, windows_by_block
from nx47dask.stages.volume_job import VolumeJob
from nx47dask.steps.passes import compile_passes
from nx47dask.workflow import Workflow

__all__ = ["default_block", "make_plan", "with_block"]

BLOCK_BYTES = 1 << 30
"""Memory limit of a block of learned detection, apart from the network: about 380 voxels along each edge.

A window across a border runs in both blocks. With windows of 128 voxels in steps of 64, blocks of 160 run 2.7 times as
many windows as there are, blocks of 384 run 1.6 times as many. Much more memory than this would gain little.
"""


def make_plan(
    volumes: Sequence[Volume],
    out: Path,
    workflow: Workflow,
    *,
    block: int | None = None,
    bbox: str | None = None,
    foreground: int = 255,
    delete_stores: bool = False,
    copy_input: bool | None = None,
    device: Device | None = None,
) -> RunPlan:
    """Make the plan of a run: cut the volumes into blocks, compile the passes.

    Parameters
    ----------
    volumes : sequence of Volume
    out : Path
        Run folder.
    workflow : Workflow
    block : int, optional
        Edge of a work block in voxels; by default 160 for volumes up to 384³, 256 up to 1536³, else 512.
    bbox : str, optional
        Part to write out, half-open ``z0:z1,y0:y1,x0:x1`` in the volume's voxels; its surroundings are read as context.
    foreground : int
        Value of the surface in the masks, 255 or 1.
    delete_stores : bool
        Delete the store of a volume when its mask is written.
    copy_input : bool, optional
        Copy Zarr inputs to the run's store at ingest, or read them in place; by default the remote ones are copied.
    device : {"cpu", "cuda"}, optional
        Meaning of ``device: auto`` of a network; by default the device that this machine has.

    Raises
    ------
    InputError
        The block size cannot be stored, the box lies outside a volume, or the foreground is another value.
    """
    if foreground not in (1, 255):
        raise InputError(
            f"foreground {foreground}: the surface of a mask is 255 or 1", hint="choose --foreground 255 or 1"
        )
    passes, detector = compile_passes(workflow.steps), workflow.bind_detector(device)
    reach = add_radii(*(current.radius_zyx for current in passes))
    jobs = []
    for volume in volumes:
        whole = Box.of_shape(volume.shape)
        box = parse_bbox(bbox, volume.shape) if bbox else whole
        edge = default_block(volume.shape) if block is None else block
        storage_chunk(edge)
        store = str(out.absolute() / "store" / f"{volume.id}.zarr")
        dtype = workflow.settings.probability
        job = VolumeJob(
            volume,
            store,
            box.expand(reach).clip(whole),
            box,
            edge,
            copied=is_copied(volume, copy_input),
            probability_dtype=dtype,
        )
        jobs.append(_with_detect_blocks(job, detector, workflow, volumes))
    return RunPlan(out, workflow, detector, passes, tuple(jobs), foreground, delete_stores)


def with_block(planned: RunPlan, edge: int) -> RunPlan:
    """Return the plan of the same run cut into work blocks of another edge, in voxels."""
    jobs = (replace(job, block=edge, detect_blocks=(1, 1, 1)) for job in planned.jobs)
    cut = (_with_detect_blocks(job, planned.detector, planned.workflow, planned.jobs) for job in jobs)
    return replace(planned, jobs=tuple(cut))


def default_block(shape: Index) -> int:
    """Return the default edge of a work block in voxels, by the shape of the volume.

    Small volumes are cut into enough blocks for a few workers, large volumes into few tasks.
    """
    size = math.prod(shape)
    return 160 if size <= 384**3 else 256 if size <= 1536**3 else 512


def _with_detect_blocks(
    job: VolumeJob, detector: Fusion | ResidualBand, workflow: Workflow, volumes: Sequence[object]
) -> VolumeJob:
    """Set the blocks of detection of a job; a single block of a lone volume is halved for two workers."""
    counts, longest = job.grid.counts, workflow.settings.detect_block
    if longest is not None:
        z, y, x = (min(n, max(1, longest // job.block)) for n in counts)
        return replace(job, detect_blocks=(z, y, x))
    if isinstance(detector, ResidualBand) or not detector.learned:
        return job

    def fits(blocks: Index) -> bool:
        z, y, x = (min(n * job.block, edge) for n, edge in zip(blocks, job.work.shape, strict=True))
        return detection_bytes(detector, job, (z, y, x)) <= BLOCK_BYTES

    blocks = _most_blocks(counts, fits)
    if len(volumes) == 1 and blocks == counts:
        blocks = _halves(detector.learned, job)
    return replace(job, detect_blocks=blocks)


def _halves(networks: Sequence[LearnedDetector], job: VolumeJob) -> Index:
    """Halve the blocks along the axis that lets two workers end first; keep them whole where halving gains nothing."""
    z, y, x = job.grid.counts
    cuts = [(z, y, x), (-(-z // 2), y, x), (z, -(-y // 2), x), (z, y, -(-x // 2))]
    return min(cuts, key=lambda blocks: max(windows_by_block(networks, replace(job, detect_blocks=blocks))))


def _most_blocks(counts: Index, fits: Callable[[Index], bool]) -> Index:
    """Count the most work blocks per axis that fit into memory: near a cube, and all parts about equal."""
    blocks, growing = (1, 1, 1), [2, 1, 0]
    while growing:
        axis = growing[0]
        z, y, x = (n + (along == axis) for along, n in enumerate(blocks))
        growing.remove(axis)
        if (z, y, x)[axis] <= counts[axis] and fits((z, y, x)):
            blocks = z, y, x
            growing.append(axis)
    z, y, x = (-(-count // -(-count // n)) for count, n in zip(counts, blocks, strict=True))
    return z, y, x
