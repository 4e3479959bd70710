"""The main job: from input volumes to a run folder."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from nx47dask import __version__
from nx47dask.engine import Batch, Ledger, Pool, Record, execute, lock_run
from nx47dask.engine.events import EventFile, StageStatistics
from nx47dask.engine.pools import open_pool
from nx47dask.engine.progress import progress_for
from nx47dask.engine.spec import read_cluster
from nx47dask.errors import InputError, Nx47Error, RunStoppedError
from nx47dask.io import discover
from nx47dask.results import Run
from nx47dask.stages.detect import detect
from nx47dask.stages.export import export
from nx47dask.stages.folder import clear_folder, folder_errors, mask_path, prepare_folder, refuse_nesting
from nx47dask.stages.ingest import ingest
from nx47dask.stages.job import VolumeJob
from nx47dask.stages.measure import measure
from nx47dask.stages.plan import RunPlan, make_plan
from nx47dask.stages.postprocess import postprocess
from nx47dask.stages.results import write_results
from nx47dask.workflow import DEFAULT_WORKFLOW, load_workflow

__all__ = ["plan", "run"]


def plan(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    workflow: str | Path = DEFAULT_WORKFLOW,
    overrides: Sequence[str] = (),
    block: int | None = None,
    bbox: str | None = None,
    level: int = 0,
    foreground: int = 255,
) -> RunPlan:
    """What :func:`run` would do with these arguments; nothing is written."""
    volumes = discover(inputs, level=level)
    refuse_nesting(inputs, Path(out))
    return make_plan(
        volumes, Path(out), load_workflow(workflow, overrides), block=block, bbox=bbox, foreground=foreground
    )


def run(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    workflow: str | Path = DEFAULT_WORKFLOW,
    overrides: Sequence[str] = (),
    cluster: str | None = None,
    workers: int | None = None,
    serial: bool = False,
    block: int | None = None,
    bbox: str | None = None,
    level: int = 0,
    foreground: int = 255,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> Run:
    """Turn volumes into binary surface masks.

    The result does not depend on ``cluster``, ``workers``, ``serial`` or ``block``.

    Parameters
    ----------
    inputs : sequence of path
        Multipage TIFFs, folders of them, folders of single-slice TIFFs, Zarr arrays, OME-Zarr groups.
    out : path
        Run folder; new or empty, unless ``resume`` or ``overwrite``.
    workflow : str or path
        A preset or a YAML file.
    overrides : sequence of str
        ``postprocess.hysteresis.high=0.9`` and the like.
    cluster : str, optional
        A YAML file, ``tcp://HOST:PORT`` or a scheduler file; by default ``cluster.yaml`` here, else a local cluster.
    workers : int, optional
        Workers of a local cluster.
    serial : bool
        Run in this process, without a cluster.
    block : int, optional
        Edge of a work block in voxels.
    bbox : str, optional
        Part to write out, ``z0:z1,y0:y1,x0:x1``.
    level : int
        Level of OME-Zarr inputs.
    foreground : int
        Value of the surface in the masks, 255 or 1.
    resume, overwrite : bool
        Go on with the run in ``out``, or delete it first.
    console : rich.console.Console, optional
        Where progress goes; by default standard error.

    Returns
    -------
    Run
        The finished run, to look at.

    Raises
    ------
    InputError
        An input, an option or the workflow cannot be used.
    BlockError, RunStoppedError, StorageError
        The run stopped part-way and can be resumed.
    """
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    planned = plan(
        inputs,
        out,
        workflow=workflow,
        overrides=overrides,
        block=block,
        bbox=bbox,
        level=level,
        foreground=foreground,
    )
    console = console or Console(stderr=True)
    folder = planned.out
    spec = None if serial else read_cluster(cluster, workers)
    prepare_folder(planned, resume)
    with folder_errors(folder), lock_run(folder):
        if overwrite:
            clear_folder(folder)
        else:
            planned.check(resume)
        with open_pool(spec, console, folder / "dask-report.html") as pool:
            planned.claim()
            _execute(planned, pool, console)
    return Run(folder)


def process(job: VolumeJob, planned: RunPlan) -> Generator[Batch, dict[int, Record], dict[str, Any]]:
    """One volume from end to end; returns what the manifest and the metrics say of it."""
    scan, greys, source = yield from ingest(job)
    yield from detect(job, planned.workflow.detector, scan)
    changes = yield from postprocess(job, planned.passes)
    metrics = yield from measure(job)
    sha256 = yield from export(job, mask_path(planned.out, job), planned.foreground)
    for leftover in ("work", "summaries"):
        shutil.rmtree(Path(job.store) / leftover, ignore_errors=True)
    steps = {name: {"added_vox": added, "removed_vox": removed} for name, (added, removed) in changes.items()}
    return {
        "scan": greys,
        "source": source,
        "steps": steps,
        "mask": metrics,
        "sha256": sha256,
    }


def _execute(planned: RunPlan, pool: Pool, console: Console) -> None:
    start = time.perf_counter()
    folder = planned.out
    statistics = StageStatistics()
    with (
        contextlib.closing(EventFile(folder / "events.jsonl")) as events,
        contextlib.closing(Ledger(folder / "ledger")) as ledger,
        _logged(events, plan=planned.digest, version=__version__),
    ):
        with progress_for(console, len(planned.jobs)) as progress:
            pipelines = {job.id: process(job, planned) for job in planned.jobs}
            results, errors = execute(pipelines, pool, ledger, (events, statistics, progress))
        if not errors:
            write_results(planned, results, statistics, time.perf_counter() - start)
    _raise(errors, len(planned.jobs), folder)


@contextlib.contextmanager
def _logged(events: EventFile, **values: str) -> Iterator[None]:
    """An event at the start of a run and one at its end, however it ends."""
    start = time.perf_counter()
    events.write("run-started", **values)
    try:
        yield
    finally:
        events.write("run-ended", seconds=round(time.perf_counter() - start, 3))


def _raise(errors: dict[str, Nx47Error], volumes: int, folder: Path) -> None:
    if not errors:
        return
    if len(errors) == 1:
        (error,) = errors.values()
        if error.exit_code != RunStoppedError.exit_code:
            raise error
        raise type(error)(f"{error}; mend the cause, then go on with --resume") from error
    shown = "\n  ".join(str(error) for error in errors.values())
    raise RunStoppedError(
        f"{folder}: {len(errors)} of {volumes} volumes stopped; mend the cause and use --resume:\n  {shown}"
    )
