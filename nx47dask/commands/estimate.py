"""Estimate the time of a plan on a machine like this one, by running a small piece of the first volume.

The piece is cut from the middle of the volume, stored in the format of the volume, and run twice by a single worker of
a local cluster: the first run loads libraries and compiles kernels, the second run is measured. The time of each stage
is then scaled by the voxels that it reads, that of networks by windows, that of merges by blocks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

import numpy as np
import tifffile
from numpy.typing import NDArray
from rich.console import Console

from nx47dask.cluster.gpus import visible_gpus
from nx47dask.cluster.kinds.local import workers_that_fit
from nx47dask.cluster.spec import ConnectSpec, CudaSpec, LocalSpec
from nx47dask.cluster.where import Where, WhereOptions
from nx47dask.commands.run import process
from nx47dask.engine import execute
from nx47dask.engine.events import StageStatistics
from nx47dask.engine.pools import Pool
from nx47dask.errors import InputError
from nx47dask.geometry import Box, Index
from nx47dask.io import ArrayStore, Volume, discover
from nx47dask.planning.make import make_plan
from nx47dask.planning.plan import RunPlan
from nx47dask.planning.projection import Estimate, Projection, project
from nx47dask.stages.load import StageLoad
from nx47dask.stages.score import find_labels

__all__ = ["Rates", "estimate", "estimate_time"]

PIECE_VOX = 160
"""Edge of the piece that is run, in voxels."""
CLOSING_S = 2.0
CLOSING_S_PER_VOXEL = 2e-8
"""Time for zip, metrics and report."""


@dataclass(frozen=True)
class Rates:
    """Times that a worker of this machine takes.

    Attributes
    ----------
    stage_s : mapping of str to float
        Seconds per voxel that a stage reads; for detection by networks, seconds per window.
    merge_s : mapping of str to float
        Seconds per block for links and merges of a stage.
    start_s : float
        Seconds to load libraries and to compile.
    """

    stage_s: Mapping[str, float]
    merge_s: Mapping[str, float]
    start_s: float


@dataclass(frozen=True)
class _Piece:
    """The plan of a piece, and its labels if it is scored."""

    planned: RunPlan
    labels: Volume | None


def estimate(
    planned: RunPlan,
    *,
    labels: str | Path | None = None,
    where: Where | None = None,
    **options: Unpack[WhereOptions],
) -> Estimate:
    """Estimate the time of a planned run, from a piece of its first volume that runs on this machine.

    Parameters
    ----------
    planned : RunPlan
    labels : path, optional
        Labels that the run was planned with.
    where, **options
        As for :func:`nx47dask.run`, and as they were for the plan.

    Raises
    ------
    InputError
        The run needs GPUs and this machine has none, or labels are missing.
    Nx47Error
        The volume cannot be read, or a task of the workflow failed.
    """
    where = Where.of(where, **options)
    rates = _measure_rates(planned, labels, where)
    return estimate_time(planned, project(planned), rates, _workers(where))


def _workers(where: Where) -> int | None:
    """Return the least number of workers of a run; None for the number that a local cluster starts."""
    cluster = where.cluster
    if cluster is None:
        return 1
    if isinstance(cluster, ConnectSpec) or (isinstance(cluster, LocalSpec | CudaSpec) and cluster.workers is None):
        return None
    return cluster.expected_workers


def _measure_rates(planned: RunPlan, labels: str | Path | None, where: Where) -> Rates:
    """Run a piece of the first volume with the plan's workflow in a temporary folder."""
    if planned.uses_gpu and not visible_gpus():
        raise InputError(
            "networks of this run compute on GPUs and this machine has none, so that a piece cannot be timed here",
            hint="leave out --calibrate, or plan on a machine with such a GPU",
        )
    here = Where(LocalSpec(workers=1), Console(stderr=True, quiet=True))
    with TemporaryDirectory(prefix="nx47dask-") as folder, here.open_pool() as pool:
        pieces = [_cut_piece(planned, labels, Path(folder) / name, where) for name in ("first", "second")]
        cold, warm = (_task_times(piece, pool) for piece in pieces)
    loads = project(pieces[1].planned).loads
    return Rates(
        {load.stage: warm[load.stage] / (load.windows or load.voxels) for load in loads},
        {load.stage: (warm[f"{load.stage}.merges"]) / load.tasks for load in loads},
        max(0.0, sum(cold.values()) - sum(warm.values())),
    )


def estimate_time(planned: RunPlan, projection: Projection, rates: Rates, workers: int | None = None) -> Estimate:
    """Scale the rates to a plan and a number of workers, by default the number of a local cluster.

    The workers share the tasks of all volumes. But the stages of a volume follow one another, and each stage takes as
    long as the worker with the largest share of it.
    """
    workers = workers or workers_that_fit(projection.worker_bytes)
    path_s = max(
        sum(_longest_share_s(load, rates, workers) for load in volume.loads) for volume in projection.volumes.values()
    )
    stages_s = {load.stage: _stage_s(load, rates) for load in projection.loads}
    closing_s = CLOSING_S + CLOSING_S_PER_VOXEL * sum(job.box.size for job in planned.jobs)
    wall_s = rates.start_s + max(sum(stages_s.values()) / workers, path_s) + closing_s
    return Estimate(stages_s, wall_s, workers)


def _stage_s(load: StageLoad, rates: Rates) -> float:
    return rates.stage_s[load.stage] * (load.windows or load.voxels) + rates.merge_s[load.stage] * load.tasks


def _longest_share_s(load: StageLoad, rates: Rates, workers: int) -> float:
    """Return the time of a stage of a volume: its tasks, shared out evenly, and its merges, done by one worker."""
    tasks_s = rates.stage_s[load.stage] * (load.windows or load.voxels)
    return tasks_s * math.ceil(load.tasks / workers) / load.tasks + rates.merge_s[load.stage] * load.tasks


def _cut_piece(planned: RunPlan, labels: str | Path | None, folder: Path, where: Where) -> _Piece:
    """Cut a piece from the middle of the first volume, write it into a folder in the same format, and plan its run."""
    job = planned.jobs[0]
    z, y, x = (min(PIECE_VOX, edge) for edge in job.work.shape)
    start = tuple(a - edge // 2 for a, edge in zip(job.work.middle, (z, y, x), strict=True))
    box = Box((0, 0, 0), (z, y, x)).shift((start[0], start[1], start[2]))
    volume = _stored(job.volume, job.volume.read(box), folder / "image")
    surface = _labels_of_piece(planned, labels, box, folder / "labels") if labels is not None else None
    made = make_plan([volume], folder / "run", planned.workflow, block=min(job.block, PIECE_VOX), device=where.device)
    jobs = tuple(replace(part, copied=job.copied) for part in made.jobs)
    return _Piece(replace(made, jobs=jobs, scored=planned.scored), surface)


def _labels_of_piece(planned: RunPlan, labels: str | Path, box: Box, folder: Path) -> Volume:
    first = planned.jobs[0].id
    whole = find_labels(labels, {job.id: job.volume.shape for job in planned.jobs})[first]
    voxels = whole.read(box)
    if not (voxels == 1).any():
        voxels[tuple(edge // 2 for edge in voxels.shape)] = 1  # labels without surface are not scored
    return _stored(whole, voxels, folder, mask=True)


def _stored(volume: Volume, voxels: NDArray[np.unsignedinteger], folder: Path, *, mask: bool = False) -> Volume:
    folder.mkdir(parents=True)
    if volume.kind == "zarr":
        path = folder / "piece.zarr"
        shape: Index = voxels.shape
        store = ArrayStore(str(path), shape, (128,) * 3, (256,) * 3, str(voxels.dtype))
        store.create()
        store.write(Box.of_shape(shape), voxels)
    else:
        path = folder / "piece.tif"
        tifffile.imwrite(path, voxels, compression="lzw", photometric="minisblack")
    (piece,) = discover([path], masks=mask)
    return piece


def _task_times(piece: _Piece, pool: Pool) -> dict[str, float]:
    """Measure the seconds of the tasks of each stage, and of its links and merges."""
    planned, statistics = piece.planned, StageStatistics()
    pipelines = {job.id: process(job, planned, piece.labels) for job in planned.jobs}
    _, errors = execute(pipelines, pool, observers=(statistics,))
    for error in errors.values():
        raise error
    stages = {load.stage for load in project(planned).loads}
    times: dict[str, float] = defaultdict(float)
    for name, usage in statistics.stages.items():
        times[name if name in stages else f"{_owner(name, stages)}.merges"] += usage.task_s
    return times


def _owner(name: str, stages: set[str]) -> str:
    """Find the stage that links or merges belong to: ``measure`` for ``measure.objects.link``."""
    return max((stage for stage in stages if name.startswith(f"{stage}.")), key=len)
