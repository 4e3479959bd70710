"""Describe a plan in words, as a table, and as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from nx47dask.planning.plan import RunPlan
from nx47dask.planning.projection import Estimate, Projection, VolumeProjection
from nx47dask.stages.volume_job import VolumeJob
from nx47dask.words import duration, plural, size

__all__ = ["plan_json", "plan_lines"]


def plan_lines(planned: RunPlan, projection: Projection, estimate: Estimate | None = None) -> list[str]:
    """Describe a plan for a person: volumes, a table of stages, memory, disk, reads and time."""
    memory, client = f"{size(projection.worker_bytes)} per worker", size(projection.client_bytes)
    lines = [f"workflow   {planned.workflow.name}", f"detect     {', '.join(_sources(planned))}"]
    lines += [f"model      {network}" for network in planned.networks]
    lines += _volumes(planned, projection)
    lines += ["", *_aligned(_rows(projection, estimate)), ""]
    lines.append(f"memory     {memory}, most in {projection.worker_stage}; {client} for client and scheduler")
    lines.append(f"disk       {size(projection.disk_bytes)} in {planned.out}{_at_a_time(planned)}")
    lines.append(f"source     {projection.bytes_read_per_byte:.2f} bytes read per byte needed")
    if estimate:
        lines.append(f"time       about {duration(estimate.wall_s)} with {plural(estimate.workers, 'worker')}")
    return lines + [f"note       {note}" for note in planned.approximations]


def plan_json(planned: RunPlan, projection: Projection, estimate: Estimate | None = None) -> dict[str, Any]:
    """Return a plan as JSON values; sizes in bytes, times in seconds."""
    return {
        "workflow": planned.workflow.name,
        "models": [str(network) for network in planned.networks],
        "volumes": {job.id: _volume_json(job, projection.volumes[job.id]) for job in planned.jobs},
        "stages": [asdict(load) for load in projection.loads],
        "tasks": projection.tasks,
        "worker_bytes": projection.worker_bytes,
        "worker_stage": projection.worker_stage,
        "client_bytes": projection.client_bytes,
        "disk_bytes": projection.disk_bytes,
        "bytes_read_per_byte_needed": round(projection.bytes_read_per_byte, 3),
        "estimate": None if estimate is None else asdict(estimate),
        "approximations": planned.approximations,
    }


def _volume_json(job: VolumeJob, volume: VolumeProjection) -> dict[str, Any]:
    return {
        "shape": job.volume.shape,
        "dtype": job.volume.dtype,
        "block_vox": job.block,
        "blocks": len(job.grid),
        "detect_block_vox": job.detect_grid.block_shape,
        "halo_redundancy": round(volume.halo_redundancy, 4),
        "windows_run": volume.windows_run,
        "windows": volume.windows,
    }


def _volumes(planned: RunPlan, projection: Projection) -> Iterator[str]:
    """Describe each volume in a line or two, volumes that are cut alike together."""
    alike = Counter((job.volume.shape, job.work, job.volume.dtype, job.block) for job in planned.jobs)
    for job in planned.jobs:
        count = alike.pop((job.volume.shape, job.work, job.volume.dtype, job.block), 0)
        if not count:
            continue
        name = job.id if count == 1 else f"{count} like {job.id}"
        blocks = f"{len(job.grid):,} blocks"
        volume = projection.volumes[job.id]
        yield (
            f"volume     {name}  {_edges(job.work.shape)} {job.volume.dtype}  {blocks} of {job.block}³  "
            f"reads {volume.halo_redundancy:.2f}x"
        )
        if planned.networks:
            run, grid = volume.windows_run, job.detect_grid
            edges = _edges(grid.block((0, 0, 0)).box.shape)
            yield f"windows    {name}  {run:,} in {len(grid):,} blocks of {edges}  runs {run / volume.windows:.2f}x"


def _rows(projection: Projection, estimate: Estimate | None) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of stages: head, one row per stage, sums."""
    head = ("stage", "tasks", "links", "merges", "memory", "disk")
    yield (*head, "time", "") if estimate else (*head, "")
    loads = projection.loads
    for load in loads:
        counts = [f"{count:,}" if count else "" for count in (load.tasks, load.links, load.merges)]
        sizes = [size(load.task_bytes), size(load.stored_bytes) if load.stored_bytes else ""]
        times = [duration(estimate.stages_s[load.stage])] if estimate else []
        yield (load.stage, *counts, *sizes, *times, load.what)
    sums = [f"{sum(getattr(load, name) for load in loads):,}" for name in ("tasks", "links", "merges")]
    stored = size(sum(load.stored_bytes for load in loads))
    times = [duration(sum(estimate.stages_s.values()))] if estimate else []
    yield ("all", *sums, "", stored, *times, f"{projection.tasks:,} tasks; links and merges at most")


def _aligned(rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """Align the columns of a table: the first and the last to the left, numbers to the right."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *numbers, last in table:
        middle = "  ".join(cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True))
        yield f"{first.ljust(widths[0])}  {middle}   {last}".rstrip()


def _at_a_time(planned: RunPlan) -> str:
    return f", stores of {planned.most_volumes} volumes at a time" if planned.delete_stores else ""


def _sources(planned: RunPlan) -> list[str]:
    return [next(iter(item)) for item in planned.workflow.resolved["detect"]]


def _edges(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
