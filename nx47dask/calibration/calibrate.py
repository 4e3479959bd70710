"""Find the workflow that scores best, and test it on volumes that its search has not seen."""

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
"""Share of a time limit; the rest is for held-out volumes, curves and the report."""
BASELINE, DELTA = "baseline", "delta"
CANDIDATES = "candidates"
"""Name in the ledger of all work after detection."""
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
    """Find the parameters of a workflow that score best on labelled volumes, and test them on held-out volumes.

    The search runs once on all volumes, and once without each volume and each scroll. The result is refused unless it
    beats the baseline and the uncalibrated workflow on the held-out volumes. The same seed gives the same results with
    any number of workers.

    Parameters
    ----------
    images : sequence of path
        As for :func:`nx47dask.run`; each volume must fit into the memory of a worker.
    labels : path
        Labels of all volumes; ``train.csv`` beside the folder (columns ``id``, ``scroll_id``) may name the scrolls.
    out : path
        Folder of the calibration; new or empty, except with ``resume`` or ``overwrite``.
    workflow : str or path
        Workflow to calibrate: its sources are detected once, its parameters are searched.
    space : path, optional
        YAML file of keys and their ranges; by default the ranges that the steps of the workflow name.
    trials : int
        Number of trials of each search.
    seed : int
        Of the searches.
    baseline : str
        Yardstick: a workflow, a frozen baseline or a run folder of the same volumes.
    recall_loss : float
        Largest accepted loss of recall on a held-out volume against the baseline, 0 to 1.
    time_limit_s : float
        Time in seconds; no new trial begins after 70 % of it, which leaves time for the rest.
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
        The calibration stopped before its end; ``resume`` continues it.

    Examples
    --------
    Calibrate a preset on two labelled phantoms in this process; it takes about a minute:

    >>> import nx47dask
    >>> ids = nx47dask.write_phantom("sample", (24, 32, 32), count=2)
    >>> record = nx47dask.calibrate(  # doctest: +SKIP
    ...     ["sample/train_images"], "sample/train_labels", "calibration", trials=4, serial=True
    ... )
    >>> record["promoted"]  # doctest: +SKIP
    True
    >>> record["workflows"]["best"]["candidate"]["postprocess.hysteresis.low"]  # doctest: +SKIP
    0.75
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
        record = _search(planned, before, deadline, where)
        write_results(planned, record)
        if record["promoted"]:
            after = finished(BEST, planned.out / f"{BEST}.yaml", before)
            compare(before, after, planned.out / DELTA, where=where)
    return record


def _own_names(planned: Calibration) -> list[str]:
    return [*OWNED, *(_source_name(number) for number, _ in enumerate(planned.base.resolved["detect"]))]


def _source_name(number: int) -> str:
    return f"source-{number}"


def _known_baseline(planned: Calibration) -> Run | None:
    """Open and check the run of the baseline; return None if the baseline is a workflow that is yet to run."""
    name = planned.baseline
    if name in preset_names() or name.endswith((".yaml", ".yml")):
        load_workflow(name)
        return None
    baseline = find_run(name)
    baseline.require_finished("calibrate against it")
    for volume in planned.volumes.values():
        if volume.id not in baseline.volumes or baseline[volume.id].shape != volume.shape:
            raise InputError(
                f"baseline {name}: is of the volumes {', '.join(baseline.volumes)}, not of {volume.id} {volume.shape}",
                hint="name a workflow, or a run of these volumes",
            )
    if not baseline.scored_with(planned.labels):
        raise InputError(
            f"baseline {name}: was not scored with these labels", hint="name a workflow, or run it with --labels"
        )
    return baseline


def _finished_run(
    folder: Path,
    images: Sequence[str | Path],
    labels: str | Path,
    workflow: str | Path,
    baseline: Run | None,
    where: Where,
) -> Run:
    """Run a workflow on all volumes; resume a run of the same workflow."""
    begun = plan(images, folder, workflow=workflow, labels=labels, where=where)
    try:
        begun.check(resume=True)
        how: dict[str, Any] = {"resume": begun.record.is_file()}
    except PlanMismatchError:  # a search with more time has chosen another best workflow
        how = {"overwrite": True}
    return run(images, folder, workflow=workflow, labels=labels, baseline=baseline, where=where, **how)


def _search(planned: Calibration, baseline: Run, deadline: Deadline, where: Where) -> CalibrationRecord:
    """Detect every source once, search, and measure the surroundings of the best candidate."""
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
    """Plan the detection of a source on all volumes, stored as float32."""
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
