"""The main job: from input volumes to a run folder."""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nx47dask import __version__
from nx47dask.engine import Batch, Ledger, Pool, Record, SerialPool, execute, lock_run
from nx47dask.engine.events import EventFile, StageStatistics
from nx47dask.engine.progress import progress_for
from nx47dask.engine.worker import peak_rss_bytes
from nx47dask.errors import InputError, Nx47Error, RunStoppedError, StorageError
from nx47dask.geometry import Box
from nx47dask.io import discover, sha256_file, write_submission, write_text
from nx47dask.metrics import SLICE_COLUMNS
from nx47dask.report.html import write_report
from nx47dask.results import Run
from nx47dask.stages.detect import detect
from nx47dask.stages.export import export
from nx47dask.stages.ingest import ingest
from nx47dask.stages.job import VolumeJob
from nx47dask.stages.measure import measure, slices_path
from nx47dask.stages.plan import RunPlan, make_plan
from nx47dask.stages.postprocess import postprocess
from nx47dask.workflow import DEFAULT_WORKFLOW, load_workflow

if TYPE_CHECKING:
    from nx47dask.engine.cluster import ClusterSpec

__all__ = ["plan", "run"]

OWNED = (
    "ledger/plan.json",
    "masks",
    "store",
    "metrics",
    "submission.zip",
    "manifest.json",
    "report.html",
    "dask-report.html",
    "events.jsonl",
    "ledger",
)
"""What a run folder holds, in the order in which ``overwrite`` deletes it.

The plan goes first and the ledger last: what is left of an interrupted deletion cannot be resumed, and is known as a
run folder.
"""

RECORDED_PACKAGES = (
    "connected-components-3d",
    "dask",
    "distributed",
    "imagecodecs",
    "numcodecs",
    "numpy",
    "scipy",
    "tifffile",
    "torch",
    "zarr",
)


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
    _refuse_nesting(inputs, Path(out))
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
    spec = None if serial else _read_cluster(cluster, workers)
    _prepare_folder(planned, resume)
    with _folder_errors(folder), lock_run(folder):
        if overwrite:
            _clear(folder)
        planned.check(resume)
        with contextlib.ExitStack() as stack:
            pool = _open_pool(stack, planned, console, spec)
            planned.claim()
            _execute(planned, pool, console)
    return Run(folder)


def process(job: VolumeJob, planned: RunPlan) -> Generator[Batch, dict[int, Record], dict[str, Any]]:
    """One volume from end to end; returns what the manifest and the metrics say of it."""
    scan, greys, voxels_sha256 = yield from ingest(job)
    yield from detect(job, planned.workflow.detector, scan)
    changes = yield from postprocess(job, planned.passes)
    metrics = yield from measure(job)
    sha256 = yield from export(job, _mask_path(planned.out, job), planned.foreground)
    for leftover in ("work", "summaries"):
        shutil.rmtree(Path(job.store) / leftover, ignore_errors=True)
    steps = {name: {"added_vox": added, "removed_vox": removed} for name, (added, removed) in changes.items()}
    return {
        "scan": greys,
        "voxels_sha256": voxels_sha256,
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
            _finish(planned, results, statistics, time.perf_counter() - start)
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


def _finish(planned: RunPlan, results: dict[str, Any], statistics: StageStatistics, wall_s: float) -> None:
    """Write what is made of all volumes together."""
    folder = planned.out
    rows = "".join(slices_path(job).read_text(encoding="utf-8") for job in planned.jobs)
    write_text(folder / "metrics" / "slices.csv", ",".join(SLICE_COLUMNS) + "\n" + rows)
    volumes = {job.id: {key: results[job.id][key] for key in ("scan", "steps", "mask")} for job in planned.jobs}
    write_text(folder / "metrics" / "volumes.json", json.dumps({"volumes": volumes}, indent=1) + "\n")
    artefacts = {f"masks/{job.id}.tif": results[job.id]["sha256"] for job in planned.jobs}
    if all(job.box == Box.of_shape(job.volume.shape) for job in planned.jobs):
        masks = [_mask_path(folder, job) for job in planned.jobs]
        artefacts["submission.zip"] = write_submission(folder / "submission.zip", masks)
    for name in ("metrics/slices.csv", "metrics/volumes.json"):
        artefacts[name] = sha256_file(folder / name)
    manifest = _manifest(planned, results, artefacts, statistics, wall_s)
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    write_report(Run(folder), folder / "report.html")


def _manifest(
    planned: RunPlan, results: dict[str, Any], artefacts: dict[str, str], statistics: StageStatistics, wall_s: float
) -> dict[str, Any]:
    inputs = {
        job.id: {
            "path": job.volume.path,
            "component": job.volume.component,
            "kind": job.volume.kind,
            "shape": job.volume.shape,
            "dtype": job.volume.dtype,
            "voxel_um": job.volume.voxel_um,
            "fingerprint": job.volume.fingerprint,
            "voxels_sha256_by_block": results[job.id]["voxels_sha256"],
            "box": str(job.box),
            "work": str(job.work),
            "block_vox": job.block,
            "blocks": len(job.grid),
        }
        for job in planned.jobs
    }
    return {
        "schema": 1,
        "nx47dask": __version__,
        "plan_sha256": planned.digest,
        "workflow": {"name": planned.workflow.name, **planned.workflow.resolved},
        "passes": planned.lines()[2 : 2 + len(planned.passes)],
        "approximations": planned.approximations,
        "seeds": {},
        "inputs": inputs,
        "artefacts_sha256": artefacts,
        "stages": statistics.records(),
        "wall_s": round(wall_s, 3),
        "memory": {
            "projected_worker_bytes": planned.peak_bytes_per_worker(),
            "client_peak_rss_bytes": peak_rss_bytes(),
        },
        "versions": {"python": platform.python_version(), **{p: metadata.version(p) for p in RECORDED_PACKAGES}},
        "platform": platform.platform(),
        "arguments": sys.argv[1:],
        "ended_s": round(time.time(), 3),
    }


def _read_cluster(source: str | None, workers: int | None) -> ClusterSpec:
    from nx47dask.engine.cluster import read_cluster

    return read_cluster(source, workers)


def _open_pool(stack: contextlib.ExitStack, planned: RunPlan, console: Console, cluster: ClusterSpec | None) -> Pool:
    """A serial pool when ``cluster`` is None, else one on a Dask client, with its report."""
    if cluster is None:
        console.print(f"serial, {len(planned.jobs)} volumes, workflow {planned.workflow.name}", highlight=False)
        pool = SerialPool()
        stack.callback(pool.close)
        return pool
    from nx47dask.engine.cluster import DaskPool, open_client, reporting

    client = stack.enter_context(open_client(cluster))
    console.print(f"dashboard {client.dashboard_link}", highlight=False, soft_wrap=True)
    stack.enter_context(reporting(client, planned.out / "dask-report.html"))
    return DaskPool(client)


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


def _mask_path(folder: Path, job: VolumeJob) -> Path:
    return folder.absolute() / "masks" / f"{job.id}.tif"


def _prepare_folder(planned: RunPlan, resume: bool) -> None:
    """Make the run folder; refuse one that is not ours before anything is put into it or deleted."""
    folder = planned.out
    if resume and not planned.record.is_file():
        raise InputError(f"{folder}: nothing to resume here; run without --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(child.name for child in folder.iterdir() if child.name != "run.lock")
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be made ({error.strerror}); choose another folder") from error
    if others and "ledger" not in others:
        raise InputError(
            f"{folder}: no run folder, and not empty (it has {', '.join(others[:5])}); choose another --out"
        )


def _clear(folder: Path) -> None:
    for name in OWNED:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _refuse_nesting(inputs: Sequence[str | Path], out: Path) -> None:
    """Refuse a run folder inside an input, which it would become part of, and the reverse, which could delete it."""
    resolved = out.resolve()
    for given in inputs:
        source = Path(given).resolve()
        if resolved == source or resolved.is_relative_to(source) or source.is_relative_to(resolved):
            raise InputError(f"--out {out} and the input {given} lie inside one another; choose another --out")


@contextlib.contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    """Say which folder cannot be written."""
    try:
        yield
    except OSError as error:
        if isinstance(error, Nx47Error) or error.errno is None:
            raise
        raise StorageError(f"{folder}: cannot be written: {error.strerror or error}") from error
