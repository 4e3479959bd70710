"""A plan in words, as a table, and as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nx47dask.planning.loads import (
    StageLoad,
    client_bytes,
    disk_bytes,
    halo_redundancy,
    stage_loads,
    worker_bytes,
)
from nx47dask.planning.reads import source_reads
from nx47dask.stages.volume_job import VolumeJob
from nx47dask.words import duration, plural, size

if TYPE_CHECKING:
    from nx47dask.planning.loads import Estimate
    from nx47dask.planning.plan import RunPlan

__all__ = ["plan_json", "plan_lines"]


def plan_lines(planned: RunPlan, estimate: Estimate | None = None) -> list[str]:
    """The plan for a person: volumes, a table of stages, memory, disk, reads and time."""
    loads = stage_loads(planned)
    memory, stage = worker_bytes(planned, loads)
    client = client_bytes(planned, loads)
    shown = [f"workflow   {planned.workflow.name}", f"detect     {', '.join(_sources(planned))}"]
    shown += [f"model      {network}" for network in planned.networks]
    shown += _volumes(planned)
    shown += ["", *_aligned(_rows(loads, estimate)), ""]
    shown.append(f"memory     {size(memory)} per worker, most in {stage}; {size(client)} for client and scheduler")
    shown.append(f"disk       {size(disk_bytes(planned))} in {planned.out}{_at_a_time(planned)}")
    shown.append(f"source     {_reads_per_byte(planned):.2f} bytes read per byte needed")
    if estimate:
        shown.append(f"time       about {duration(estimate.wall_s)} with {plural(estimate.workers, 'worker')}")
    return shown + [f"note       {note}" for note in planned.approximations]


def plan_json(planned: RunPlan, estimate: Estimate | None = None) -> dict[str, Any]:
    """The plan as JSON values; sizes in bytes, times in seconds."""
    loads = stage_loads(planned)
    memory, stage = worker_bytes(planned, loads)
    return {
        "workflow": planned.workflow.name,
        "models": [str(network) for network in planned.networks],
        "volumes": {job.id: _volume_json(planned, job) for job in planned.jobs},
        "stages": [asdict(load) for load in loads],
        "tasks": _tasks(loads),
        "worker_bytes": memory,
        "worker_stage": stage,
        "client_bytes": client_bytes(planned, loads),
        "disk_bytes": disk_bytes(planned),
        "bytes_read_per_byte_needed": round(_reads_per_byte(planned), 3),
        "estimate": None if estimate is None else asdict(estimate),
        "approximations": planned.approximations,
    }


def _volume_json(planned: RunPlan, job: VolumeJob) -> dict[str, Any]:
    run, least = planned.windows(job)
    return {
        "shape": job.volume.shape,
        "dtype": job.volume.dtype,
        "block_vox": job.block,
        "blocks": len(job.grid),
        "detect_block_vox": job.detect_grid.block_shape,
        "halo_redundancy": round(halo_redundancy(planned.detector, job), 4),
        "windows_run": run,
        "windows": least,
    }


def _volumes(planned: RunPlan) -> Iterator[str]:
    """A line or two for a volume, or for all those that are cut alike."""
    alike = Counter((job.volume.shape, job.work, job.volume.dtype, job.block) for job in planned.jobs)
    for job in planned.jobs:
        count = alike.pop((job.volume.shape, job.work, job.volume.dtype, job.block), 0)
        if not count:
            continue
        name = job.id if count == 1 else f"{count} like {job.id}"
        blocks = f"{len(job.grid):,} blocks"
        reads = halo_redundancy(planned.detector, job)
        yield (
            f"volume     {name}  {_edges(job.work.shape)} {job.volume.dtype}  {blocks} of {job.block}³  "
            f"reads {reads:.2f}x"
        )
        if planned.networks:
            run, least = planned.windows(job)
            grid = job.detect_grid
            edges = _edges(grid.block((0, 0, 0)).box.shape)
            yield f"windows    {name}  {run:,} in {len(grid):,} blocks of {edges}  runs {run / least:.2f}x"


def _rows(loads: Sequence[StageLoad], estimate: Estimate | None) -> Iterator[tuple[str, ...]]:
    """The table of stages: its head, a row each, their sums."""
    head = ("stage", "tasks", "links", "merges", "memory", "disk")
    yield (*head, "time", "") if estimate else (*head, "")
    for load in loads:
        counts = [f"{count:,}" if count else "" for count in (load.tasks, load.links, load.merges)]
        sizes = [size(load.task_bytes), size(load.stored_bytes) if load.stored_bytes else ""]
        times = [duration(estimate.stages_s[load.stage])] if estimate else []
        yield (load.stage, *counts, *sizes, *times, load.what)
    sums = [f"{sum(getattr(load, name) for load in loads):,}" for name in ("tasks", "links", "merges")]
    stored = size(sum(load.stored_bytes for load in loads))
    times = [duration(sum(estimate.stages_s.values()))] if estimate else []
    yield ("all", *sums, "", stored, *times, f"{_tasks(loads):,} tasks; links and merges at most")


def _aligned(rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """Columns of equal width: the first and the last to the left, numbers to the right."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *numbers, last in table:
        middle = "  ".join(cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True))
        yield f"{first.ljust(widths[0])}  {middle}   {last}".rstrip()


def _tasks(loads: Sequence[StageLoad]) -> int:
    return sum(load.tasks + load.links + load.merges for load in loads)


def _reads_per_byte(planned: RunPlan) -> float:
    """Bytes read from the sources per byte of them, over all volumes."""
    reads = [source_reads(job, planned.detector, planned.passes) for job in planned.jobs]
    sizes = [job.volume_box.size for job in planned.jobs]
    return sum(one * voxels for one, voxels in zip(reads, sizes, strict=True)) / sum(sizes)


def _at_a_time(planned: RunPlan) -> str:
    return f", stores of {planned.most_volumes} volumes at a time" if planned.delete_stores else ""


def _sources(planned: RunPlan) -> list[str]:
    return [next(iter(item)) for item in planned.workflow.resolved["detect"]]


def _edges(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
