"""Refuse a run that does not fit, before its first task."""

from __future__ import annotations

import logging

import psutil

from nx47dask.cluster.spec import ClusterSpec, LocalSpec
from nx47dask.errors import InputError
from nx47dask.files.atomic import free_bytes_at
from nx47dask.files.paths import file_sizes, is_remote
from nx47dask.planning.make import with_block
from nx47dask.planning.plan import VOLUMES_ON_DISK, RunPlan
from nx47dask.planning.projection import Projection, project
from nx47dask.words import size

__all__ = ["require_disk", "require_memory"]

logger = logging.getLogger(__name__)

LEAST_SHARE_OF_DISK = 0.3
"""Least share of the projected disk that a run may take: how well a scan compresses is not known before."""
SMALLER_BLOCKS = (384, 320, 256, 192, 160, 128, 96, 64)
"""Edges of work blocks in voxels that a refusal may propose."""


def require_disk(planned: RunPlan, projection: Projection) -> None:
    """Refuse a run whose folder would outgrow the disk.

    Files that are in the folder already count as free space. A run that fits only if its scan
    compresses well begins with a warning: when the disk is full it stops, and it can be resumed.

    Parameters
    ----------
    planned : RunPlan
    projection : Projection
        That of the plan.

    Raises
    ------
    InputError
        The run does not fit; the hint names what would fit.
    """
    if is_remote(planned.out):
        return
    needed = projection.disk_bytes
    room = free_bytes_at(planned.out)
    if room is None or needed <= room:
        return
    room += sum(file_sizes(planned.out).values())
    if needed <= room:
        return
    bounded = projection.disk_bytes_with(VOLUMES_ON_DISK)
    helps = f"--delete-stores ({_range(bounded)}), " if _least(bounded) <= room and bounded < needed else ""
    refusal = InputError(
        f"{planned.out}: the run needs {_range(needed)} of disk, as its scans compress, and there is room for "
        f"{size(room)}",
        hint=f"use {helps}an --out on a larger disk, or fewer inputs (--bbox for a part)",
    )
    if _least(needed) > room:
        raise refusal
    logger.warning("%s; it begins, and can be resumed should the disk be full", refusal)


def require_memory(planned: RunPlan, projection: Projection, limit_bytes: int | None, spec: ClusterSpec | None) -> None:
    """Refuse a run whose largest task needs more memory than a worker has.

    Parameters
    ----------
    planned : RunPlan
    projection : Projection
        That of the plan.
    limit_bytes : int or None
        Memory of the smallest worker; None for all memory of this machine.
    spec : ClusterSpec or None
        Cluster of the workers; None for this process.

    Raises
    ------
    InputError
        The run does not fit; the hint names a block that fits, and other settings that decide the memory.
    """
    machine: int = psutil.virtual_memory().total
    limit = machine if limit_bytes is None else limit_bytes
    needed, stage = projection.worker_bytes, projection.worker_stage
    if needed <= limit:
        return
    ways = [*_smaller_block(planned, limit), *_of_cluster(spec, machine // needed)]
    raise InputError(
        f"the run needs {size(needed)} per worker (for {stage}), workers have {size(limit)}",
        hint=f"use {' or '.join(ways)}",
    )


def _least(bound: int) -> int:
    return int(LEAST_SHARE_OF_DISK * bound)


def _range(bound: int) -> str:
    return f"{size(_least(bound))} to {size(bound)}"


def _smaller_block(planned: RunPlan, limit: int) -> list[str]:
    """Propose the largest block that fits, if any does."""
    largest = max(job.block for job in planned.jobs)
    for edge in SMALLER_BLOCKS:
        if edge < largest:
            needed = project(with_block(planned, edge)).worker_bytes
            if needed <= limit:
                return [f"--block {edge} ({size(needed)})"]
    return []


def _of_cluster(spec: ClusterSpec | None, that_fit: int) -> list[str]:
    """Propose a change of the cluster that gives each worker more memory."""
    if spec is None:
        return ["a machine with more memory"]
    if not isinstance(spec, LocalSpec):
        return ["workers with more memory (see cluster.yaml)"]
    if spec.memory_limit != "auto":
        return ["a larger memory_limit in cluster.yaml"]
    return [f"--workers {that_fit}"] if that_fit else ["a machine with more memory"]
