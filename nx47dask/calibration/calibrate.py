"""Calibrate: from labelled volumes to the workflow that scores best on volumes that its search has not seen."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from nx47dask.calibration.artefacts import BEST, write_results
from nx47dask.calibration.candidates import Subject, source_key, subject_bytes, without_weight
from nx47dask.calibration.plan import Calibration, plan_calibration
from nx47dask.calibration.search import Evaluations
from nx47dask.calibration.select import select
from nx47dask.cluster.where import Where, WhereOptions
from nx47dask.commands.compare import compare
from nx47dask.commands.plan import plan
from nx47dask.commands.run import run
from nx47dask.engine import Ledger, Pipeline, execute
from nx47dask.engine.deadline import Deadline
from nx47dask.engine.events import EventFile, JobTitle
from nx47dask.engine.progress import progress_for
from nx47dask.errors import InputError, PlanMismatchError
from nx47dask.files.presets import preset_names
from nx47dask.planning.make import make_plan
from nx47dask.planning.plan import RunPlan
from nx47dask.planning.projection import project
from nx47dask.reports.calibration.document import CalibrationRecord
from nx47dask.runs.baselines import find_run
from nx47dask.runs.folder import clear_folder, occupied_folder
from nx47dask.runs.run import Run
from nx47dask.stages.detect import detect
from nx47dask.stages.ingest import ingest
from nx47dask.stages.volume_job import VolumeJob
from nx47dask.words import size
from nx47dask.workflow import load_workflow, workflow_of

__all__ = ["calibrate"]

SEARCH_SHARE = 0.7
"""Of a time limit; the rest is for what is held out, for the curves and for the report."""
BASELINE, DELTA = "baseline", "delta"
CANDIDATES = "candidates"
"""What the ledger calls all work after detection."""
OWNED = (
    "calibration.html",
    "calibration.md",
    "calibration.csv",
    "calibration.json",
    "trials.parquet",
    "studies.log",
    "best.yaml",
    "candidate.yaml",
    "per_volume.yaml",
    BASELINE,
    BEST,
    DELTA,
)


def calibrate(
    images: Sequence[str | Path],
    labels: str | Path,
    out: str | Path,
    *,
    workflow: str | Path = "v61.2",
    space: str | Path | None = None,
    trials: int = 48,
    seed: int = 0,
    baseline: str = "v61.1",
    recall_loss: float = 0.05,
    time_limit_s: float = math.inf,
    resume: bool = False,
    overwrite: bool = False,
    where: Where | None = None,
    **options: Unpack[WhereOptions],
) -> CalibrationRecord:
    """Find the parameters of a workflow that score best on labelled volumes, and refuse what only looks better.

    The search is done once for every volume that is left out, and once on all. The same seed gives the same results,
    whatever the workers.

    Parameters
    ----------
    images : sequence of path
        As for ``nx47dask.run``; volumes that a worker's memory holds as wholes.
    labels : path
        Labels of all of them; ``train.csv`` beside the folder (columns ``id``, ``scroll_id``) may name the scrolls.
    out : path
        Folder of the calibration; new or empty, unless ``resume`` or ``overwrite``.
    workflow : str or path
        Its sources are detected once, its parameters are searched.
    space : path, optional
        YAML file of keys and their ranges; by default sensible ones of the workflow's steps.
    trials : int
        Of each search.
    seed : int
    baseline : str
        What must be beaten: a workflow, a frozen baseline or a run folder of the same volumes.
    recall_loss : float
        How far the recall of a held-out volume may fall below the baseline's.
    time_limit_s : float
        Seconds after which no new trials are begun, in good time for the rest.
    resume, overwrite, where, **options
        As for :func:`nx47dask.run`.

    Returns
    -------
    CalibrationRecord
        A dict of JSON values, as in ``calibration.json``.

    Raises
    ------
    InputError
        A volume, its labels, the space, the workflow or the baseline cannot be used.
    BlockError, RunStoppedError, StorageError
        It stopped part-way and can be resumed.
    """
    where = Where.of(where, **options)
    planned = plan_calibration(
        images, labels, out, workflow, space, trials=trials, seed=seed, baseline=baseline, recall_loss=recall_loss
    )
    deadline = Deadline(SEARCH_SHARE * time_limit_s, 0.0)
    known = _known_baseline(planned)

    def finished(name: str, workflow: str | Path, against: Run | None = None) -> Run:
        return _finished_run(planned.out / name, images, labels, workflow, against, where)

    with occupied_folder(planned, resume=resume, overwrite=overwrite):
        if overwrite:
            clear_folder(planned.out, _own_names(planned))
        planned.claim()
        before = known or finished(BASELINE, baseline)
        found = _search(planned, before, deadline, where)
        write_results(planned, found)
        if found["promoted"]:
            after = finished(BEST, planned.out / f"{BEST}.yaml", before)
            compare(before, after, planned.out / DELTA, where=where)
    return found


def _own_names(planned: Calibration) -> list[str]:
    return [*OWNED, *(_source_name(number) for number, _ in enumerate(planned.base.resolved["detect"]))]


def _source_name(number: int) -> str:
    return f"source-{number}"


def _known_baseline(planned: Calibration) -> Run | None:
    """The run that must be beaten, checked; None where it is to be made from a workflow."""
    name = planned.baseline
    if name in preset_names() or name.endswith((".yaml", ".yml")):
        load_workflow(name)
        return None
    found = find_run(name)
    found.require_finished("calibrate against it")
    for volume, one in planned.volumes.items():
        if volume not in found.volumes or found[volume].shape != one.shape:
            raise InputError(
                f"baseline {name}: is of the volumes {', '.join(found.volumes)}, not of {volume} {one.shape}",
                hint="name a workflow, or a run of these volumes",
            )
    if not found.scored_with(planned.labels):
        raise InputError(
            f"baseline {name}: was not scored with these labels", hint="name a workflow, or run it with --labels"
        )
    return found


def _finished_run(
    folder: Path,
    images: Sequence[str | Path],
    labels: str | Path,
    workflow: str | Path,
    baseline: Run | None,
    where: Where,
) -> Run:
    """A run of all volumes, resumed where it was begun with the same workflow."""
    begun = plan(images, folder, workflow=workflow, labels=labels, where=where)
    try:
        begun.check(resume=True)
        how: dict[str, Any] = {"resume": begun.record.is_file()}
    except PlanMismatchError:  # a search that was given more time has found another best workflow
        how = {"overwrite": True}
    return run(images, folder, workflow=workflow, labels=labels, baseline=baseline, where=where, **how)


def _search(planned: Calibration, baseline: Run, deadline: Deadline, where: Where) -> CalibrationRecord:
    """Detect every source once, search, and look around what was found."""
    sources = [_source_plan(planned, number, where) for number, _ in enumerate(planned.base.resolved["detect"])]
    where = where.for_gpus() if any(source.uses_gpu for source in sources) else where
    subjects = {name: _subject(planned, name, sources) for name in planned.volumes}
    detecting = [project(source).worker_bytes for source in sources]
    needed = max(detecting + [subject_bytes(subject) for subject in subjects.values()])
    detections = {
        f"{job.id}.{_source_name(number)}": _detected(source, job)
        for number, source in enumerate(sources)
        for job in source.jobs
    }
    title = JobTitle(
        planned.out.absolute().name, str(planned.out), planned.base.name, (*detections, CANDIDATES), stages=()
    )
    with (
        where.open_pool(title=title, worker_bytes=needed) as pool,
        contextlib.closing(EventFile(planned.out / "events.jsonl")) as events,
        contextlib.closing(Ledger(planned.out / "ledger")) as ledger,
        events.of_run(planned.digest, title),
    ):
        _require_memory(needed, pool.memory_limit_bytes)

        def work(pipelines: dict[str, Any]) -> dict[str, Any]:
            with progress_for(where.console, len(pipelines)) as progress:
                results, errors = execute(pipelines, pool, ledger, (events, progress, deadline))
            for error in errors.values():
                raise error
            return results

        work(detections)
        evaluations = Evaluations(subjects, planned.workflow_of, planned.space.identity)
        records: dict[str, CalibrationRecord] = work(
            {CANDIDATES: select(planned, evaluations, baseline, deadline.over)}
        )
    return records[CANDIDATES]


def _source_plan(planned: Calibration, number: int, where: Where) -> RunPlan:
    """The detection of one source over all volumes, stored as it is computed."""
    alone = without_weight(planned.base.resolved["detect"][number])
    data = {**planned.base.resolved, "detect": [alone], "combine": "probability"}
    made = make_plan(
        list(planned.volumes.values()),
        planned.out,
        workflow_of(data, planned.base.name),
        device=where.device,
    )
    folder = planned.out.absolute() / _source_name(number)
    jobs = (replace(job, store=str(folder / f"{job.id}.zarr"), probability_dtype="float32") for job in made.jobs)
    return replace(made, jobs=tuple(jobs))


def _detected(source: RunPlan, job: VolumeJob) -> Pipeline[None]:
    ingested = yield from ingest(job)
    yield from detect(job, source.detector, ingested.scan, ingested.occupied)


def _subject(planned: Calibration, volume: str, sources: Sequence[RunPlan]) -> Subject:
    jobs = [next(job for job in source.jobs if job.id == volume) for source in sources]
    keys = [source_key(item) for item in planned.base.resolved["detect"]]
    stores = tuple((key, job.array("probability")) for key, job in zip(keys, jobs, strict=True))
    return Subject(jobs[0].image, stores, planned.labels[volume])


def _require_memory(needed: int, limit: int | None) -> None:
    if limit is not None and needed > limit:
        raise InputError(
            f"candidates are measured on whole volumes: {size(needed)} per worker are needed, workers have "
            f"{size(limit)}",
            hint="use fewer --workers, or smaller volumes",
        )
