"""Do the main job: from input volumes to a run folder."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from rich.console import Console

from nx47dask.cluster.where import Where, WhereOptions
from nx47dask.commands.artefacts import VolumeResult, Yardstick, write_results
from nx47dask.commands.plan import plan
from nx47dask.engine import Ledger, Pipeline, Pool, execute
from nx47dask.engine.deadline import Deadline
from nx47dask.engine.events import EventFile, JobTitle, StageStatistics
from nx47dask.engine.progress import progress_for
from nx47dask.errors import InputError, Nx47Error, RunStoppedError
from nx47dask.io import Volume, discover
from nx47dask.planning.fit import require_disk, require_memory
from nx47dask.planning.plan import RunPlan
from nx47dask.planning.projection import Projection, project
from nx47dask.runs.baselines import find_run
from nx47dask.runs.folder import clear_folder, occupied_folder
from nx47dask.runs.gates import parse_gates
from nx47dask.runs.manifest import StepChange, VolumeMetrics
from nx47dask.runs.run import Run
from nx47dask.stages.detect import STAGE as DETECT
from nx47dask.stages.detect import detect
from nx47dask.stages.export import STAGE as EXPORT
from nx47dask.stages.export import clear_store, export, mask_path, store_was_deleted
from nx47dask.stages.ingest import STAGE as INGEST
from nx47dask.stages.ingest import ingest
from nx47dask.stages.measure import STAGE as MEASURE
from nx47dask.stages.measure import measure
from nx47dask.stages.postprocess import postprocess, stage_name
from nx47dask.stages.score import STAGE as SCORE
from nx47dask.stages.score import View, check_labels, find_labels, score
from nx47dask.stages.volume_job import VolumeJob
from nx47dask.workflow import DEFAULT_WORKFLOW

__all__ = ["run"]

CLOSING_S = 10.0
CLOSING_S_PER_VOXEL = 6e-8
"""Time for zip and report and their checks: 2 s for a volume of 320 voxels a side."""


def run(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    workflow: str | Path = DEFAULT_WORKFLOW,
    overrides: Sequence[str] = (),
    block: int | None = None,
    bbox: str | None = None,
    level: int = 0,
    foreground: int = 255,
    submission: str | Path | None = None,
    delete_stores: bool = False,
    copy_input: bool | None = None,
    time_limit_s: float = math.inf,
    labels: str | Path | None = None,
    baseline: str | Path | Run | None = None,
    gates: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    where: Where | None = None,
    **options: Unpack[WhereOptions],
) -> Run:
    """Turn volumes into binary surface masks.

    The masks depend neither on ``block`` nor on how workers share the work; the values of networks may differ
    slightly on another kind of device.

    Parameters
    ----------
    inputs : sequence of path or URL
        Multipage TIFFs, folders of them, folders of single-slice TIFFs, Zarr arrays, OME-Zarr groups; here, in
        ``s3://bucket/...`` or, each by its own name, at ``http(s)://...``.
    out : path or URL
        Run folder, here or ``s3://bucket/...``; new or empty, unless ``resume`` or ``overwrite``.
    workflow : str or path
        A preset or a YAML file.
    overrides : sequence of str
        ``postprocess.hysteresis.high=0.9`` and the like.
    block : int, optional
        Edge of a work block in voxels.
    bbox : str, optional
        Part to write out, half-open ``z0:z1,y0:y1,x0:x1`` in voxels of the volume.
    level : int
        Resolution level of OME-Zarr inputs.
    foreground : int
        Value of the surface in the masks, 255 or 1.
    submission : str or path, optional
        File for a copy of ``submission.zip``.
    delete_stores : bool
        Delete the store of a volume when its mask is written, and have few volumes under way at a time.
    copy_input : bool, optional
        True copies Zarr inputs to the run's store at ingest, so that each of their chunks is read once; False reads
        them in place. By default inputs in object stores and on web servers are copied. TIFFs are always copied.
    time_limit_s : float
        Seconds after which the run ends with the volumes that are done; a volume that is not finished has an empty
        mask in the zip.
    labels : path, optional
        Labels of the volumes, to score the masks against.
    baseline : str, path or Run, optional
        Name or folder of a frozen baseline, or a run folder, for the report to compare with.
    gates : str, optional
        Limits on the loss against the baseline, such as ``score>=0,recall>=-0.01``.
    resume, overwrite : bool
        Go on with the run in ``out``, or delete it first.
    where : Where, optional
        Place to run at; by default it is made of the options.
    **options
        ``cluster`` (a YAML file, ``tcp://HOST:PORT`` or a scheduler file; by default ``cluster.yaml`` here, else a
        local cluster), ``workers`` (processes of the cluster that is started), ``serial`` (run in this process, without
        a cluster) and ``console`` (for progress; by default standard error), as of :meth:`nx47dask.Where.of`.

    Returns
    -------
    Run
        The finished run, with lazy arrays and metrics.

    Raises
    ------
    InputError
        An input, an option or the workflow cannot be used.
    BlockError, RunStoppedError, StorageError
        The run stopped part-way, or reached its time limit, and can be resumed.
    GateError
        The run is complete, but a gate failed.

    Examples
    --------
    Make masks of a synthetic volume with the frozen baseline, and score them against its labels:

    >>> import nx47dask
    >>> (volume,) = nx47dask.write_phantom("sample", (24, 32, 32), seed=1)
    >>> run = nx47dask.run(
    ...     ["sample/train_images"], "first", workflow="v61.1", labels="sample/train_labels", serial=True
    ... )
    >>> round(run.scores[volume]["score"], 2)
    0.47
    >>> sorted(path.name for path in run.path.glob("*.zip")), sorted(path.name for path in run.path.glob("masks/*"))
    (['submission.zip'], ['470000001.tif'])

    Change a parameter of the workflow, and write only a part of the volume:

    >>> run = nx47dask.run(
    ...     ["sample/train_images"],
    ...     "part",
    ...     workflow="v61.1",
    ...     overrides=["detect.residual_band.sigma_base=2"],
    ...     bbox="4:20,0:32,0:32",
    ...     serial=True,
    ... )
    >>> run.mask.shape
    (16, 32, 32)
    """
    where = Where.of(where, **options)
    planned = plan(
        inputs,
        out,
        workflow=workflow,
        overrides=overrides,
        block=block,
        bbox=bbox,
        level=level,
        foreground=foreground,
        delete_stores=delete_stores,
        copy_input=copy_input,
        labels=labels,
        where=where,
    )
    target = _submission_target(submission, bbox)
    yardstick = _yardstick(planned, labels, baseline, gates)
    deadline = Deadline(time_limit_s, _closing_s(planned))
    where = where.for_gpus() if planned.uses_gpu else where
    projection = project(planned)
    require_disk(planned, projection)
    with (
        occupied_folder(planned, resume=resume, overwrite=overwrite),
        where.open_pool(planned.out / "dask-report.html", job_title(planned), projection.worker_bytes) as pool,
    ):
        require_memory(planned, projection, pool.memory_limit_bytes, where.cluster)
        if overwrite:
            clear_folder(planned.out)
        planned.claim()
        _execute(planned, projection, pool, where.console, deadline, target, yardstick)
    return Run(planned.out)


def process(job: VolumeJob, planned: RunPlan, labels: Volume | None = None) -> Pipeline[VolumeResult]:
    """Process a volume from end to end; return its entries of the manifest and the metrics."""
    deleted = store_was_deleted(job)
    ingested = yield from ingest(job)
    probability = yield from detect(job, planned.detector, ingested.scan, ingested.occupied)
    changes, mask = yield from postprocess(job, planned.passes, probability)
    shape = yield from measure(job, mask)
    sha256 = yield from export(job, mask_path(planned.out, job), planned.foreground)
    steps = {name: StepChange(added_vox=added, removed_vox=removed) for name, (added, removed) in changes.items()}
    metrics = VolumeMetrics(scan=ingested.greys, steps=steps, mask=shape)
    if labels:
        metrics["score"] = yield from score(_mask(job, planned, deleted), View(labels, job.box))
    clear_store(job, arrays=planned.delete_stores or deleted)
    return VolumeResult(metrics, ingested.source, sha256)


def _mask(job: VolumeJob, planned: RunPlan, store_deleted: bool) -> View:
    """Return a view of the mask of a volume: in its store, or in its file where the store was deleted."""
    if not store_deleted:
        return View(job.array("mask"), job.box.relative_to(job.work.start))
    (mask,) = discover([mask_path(planned.out, job)], masks=True)
    return View.whole(mask)


def _yardstick(
    planned: RunPlan, labels: str | Path | None, baseline: str | Path | Run | None, gates: str | None
) -> Yardstick:
    """Find and check labels, baseline and gates before hours of work, not after them."""
    if gates and baseline is None:
        raise InputError(f"gate {gates}: there is nothing to compare with", hint="name a --baseline")
    if gates:
        parse_gates(gates, scored=labels is not None)
    shapes = {job.id: job.volume.shape for job in planned.jobs}
    volumes = find_labels(labels, shapes) if labels is not None else {}
    for volume in volumes.values():
        check_labels(volume)
    return Yardstick(
        volumes,
        find_run(baseline) if baseline is not None else None,
        gates,
    )


def _submission_target(submission: str | Path | None, bbox: str | None) -> Path | None:
    """Return the file for a copy of the zip; refuse it before hours of work, not after them."""
    if submission is None:
        return None
    target = Path(submission)
    if bbox:
        raise InputError(
            f"submission {target}: a submission has whole volumes",
            hint=f"leave out --bbox {bbox}",
        )
    if target.is_dir():
        raise InputError(
            f"submission {target}: is a folder", hint=f"name a file in it, such as {target / 'submission.zip'}"
        )
    if not target.parent.is_dir():
        raise InputError(
            f"submission {target}: there is no folder {target.parent}", hint="make it or choose another file"
        )
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"submission {target}: {target.parent} cannot be written", hint="choose another file")
    return target


def _closing_s(planned: RunPlan) -> float:
    """Bound the seconds that zip, metrics and report take after the last task."""
    return CLOSING_S + CLOSING_S_PER_VOXEL * sum(job.box.size for job in planned.jobs)


def _execute(
    planned: RunPlan,
    projection: Projection,
    pool: Pool,
    console: Console,
    deadline: Deadline,
    submission: Path | None,
    yardstick: Yardstick,
) -> None:
    start = time.perf_counter()
    folder = planned.out
    statistics = StageStatistics()
    with (
        contextlib.closing(EventFile(folder / "events.jsonl")) as events,
        contextlib.closing(Ledger(folder / "ledger")) as ledger,
        events.of_run(planned.digest, job_title(planned)),
    ):
        with progress_for(console, len(planned.jobs)) as progress:
            pipelines = {job.id: process(job, planned, yardstick.labels.get(job.id)) for job in planned.jobs}
            results, errors = execute(
                pipelines,
                pool,
                ledger,
                (events, statistics, progress, deadline),
                most_volumes=planned.most_volumes,
                over=deadline.over,
            )
        wall_s, zipped = time.perf_counter() - start, deadline.limited or not errors
        write_results(planned, projection, results, statistics, wall_s, submission, yardstick, zipped)
    _raise(errors, len(planned.jobs), folder)
    _raise_unfinished(planned, results)


def job_title(planned: RunPlan) -> JobTitle:
    """Return the title of a run, with the stages over voxels that each of its volumes goes through."""
    passes = (stage_name(current.number) for current in planned.passes)
    stages = (INGEST, DETECT, *passes, MEASURE, EXPORT)
    return JobTitle(
        planned.out.absolute().name,
        str(planned.out),
        planned.workflow.name,
        tuple(job.id for job in planned.jobs),
        (*stages, SCORE) if planned.scored else stages,
    )


def _raise_unfinished(planned: RunPlan, results: dict[str, Any]) -> None:
    unfinished = [job.id for job in planned.jobs if job.id not in results]
    if unfinished:
        raise RunStoppedError(
            f"{planned.out}: the time limit is over and {len(unfinished)} of {len(planned.jobs)} volumes are not "
            "finished",
            hint="go on with --resume and a new --time-limit, or none",
        )


def _raise(errors: dict[str, Nx47Error], volumes: int, folder: Path) -> None:
    if not errors:
        return
    if len(errors) == 1:
        (error,) = errors.values()
        if error.exit_code != RunStoppedError.exit_code:
            raise error
        raise type(error)(str(error), hint="mend the cause, then go on with --resume") from error
    shown = "\n  ".join(str(error) for error in errors.values())
    raise RunStoppedError(
        f"{folder}: {len(errors)} of {volumes} volumes stopped:\n  {shown}", hint="mend the cause and use --resume"
    )
