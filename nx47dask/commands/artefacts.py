"""Write the artefacts of a whole run when its volumes are done: metrics, zip, manifest, report."""

from __future__ import annotations

import json
import logging
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from nx47dask.engine.events import StageStatistics
from nx47dask.engine.worker import peak_rss_bytes
from nx47dask.errors import GateError
from nx47dask.files.atomic import sha256_file, write_text
from nx47dask.files.paths import is_remote
from nx47dask.geometry import Box
from nx47dask.io import Volume, copy_submission, write_mask_tiff, write_submission
from nx47dask.io.validation import validate_submission
from nx47dask.metrics.shape import SLICE_COLUMNS
from nx47dask.planning.plan import RunPlan
from nx47dask.planning.projection import Projection
from nx47dask.reports.write import write_report
from nx47dask.runs.gates import check_run, gates_first, require_passed
from nx47dask.runs.manifest import BaselineRecord, InputRecord, LabelsRecord, Manifest, ReadRecord, VolumeMetrics
from nx47dask.runs.measures import score_means
from nx47dask.runs.run import Run
from nx47dask.stages.export import mask_path
from nx47dask.stages.measure import slices_path
from nx47dask.version import __version__

__all__ = ["VolumeResult", "Yardstick", "write_results"]

logger = logging.getLogger(__name__)

RECORDED_PACKAGES = (
    "connected-components-3d",
    "dask",
    "distributed",
    "imagecodecs",
    "numba",
    "numcodecs",
    "numpy",
    "pillow",
    "scipy",
    "tifffile",
    "torch",
    "zarr",
)


@dataclass(frozen=True)
class Yardstick:
    """Labels, baseline and gates that a run is measured against.

    Attributes
    ----------
    labels : mapping of str to Volume
        By volume id; empty without labels.
    baseline : Run, optional
    gates : str, optional
        Limits on the loss against the baseline.
    """

    labels: Mapping[str, Volume]
    baseline: Run | None = None
    gates: str | None = None


@dataclass(frozen=True, slots=True)
class VolumeResult:
    """Results of one volume.

    Attributes
    ----------
    metrics : VolumeMetrics
    source : ReadRecord
    sha256 : str
        Of its mask.
    """

    metrics: VolumeMetrics
    source: ReadRecord
    sha256: str


def write_results(
    planned: RunPlan,
    projection: Projection,
    results: Mapping[str, VolumeResult],
    statistics: StageStatistics,
    wall_s: float,
    submission: Path | None,
    yardstick: Yardstick,
    zipped: bool = True,
) -> None:
    """Write the results of a run from those of the pipeline of each volume, with a copy of the zip if wanted.

    A volume without a result is not finished: it has an empty mask in the zip, and is left out of all other files.
    Without ``zipped`` no zip is written.

    Raises
    ------
    GateError
        The zip is not valid, or, after everything is written, a gate has failed.
    """
    folder = planned.out
    finished = [job for job in planned.jobs if job.id in results]
    rows = "".join(slices_path(job).read_text(encoding="utf-8") for job in finished)
    write_text(folder / "metrics" / "slices.csv", ",".join(SLICE_COLUMNS) + "\n" + rows)
    volumes = {job.id: results[job.id].metrics for job in finished}
    scored = (
        {"mean": score_means({name: of["score"] for name, of in volumes.items()})}
        if yardstick.labels and finished
        else {}
    )
    write_text(folder / "metrics" / "volumes.json", json.dumps({"volumes": volumes, **scored}, indent=1) + "\n")
    artefacts = {f"masks/{job.id}.tif": results[job.id].sha256 for job in finished}
    warnings: list[str] = []
    if zipped and all(job.box == Box.of_shape(job.volume.shape) for job in planned.jobs):
        artefacts["submission.zip"] = _write_zip(planned, results)
        warnings = _validate_zip(planned)
        if submission:
            copy_submission(folder / "submission.zip", submission)
    for name in ("metrics/slices.csv", "metrics/volumes.json"):
        artefacts[name] = sha256_file(folder / name)
    manifest = _manifest(planned, projection, results, artefacts, statistics, wall_s)
    manifest["submission"]["warnings"] = warnings
    if yardstick.baseline:
        manifest["baseline"] = BaselineRecord(path=str(yardstick.baseline.path.absolute()), gates=yardstick.gates)
    if yardstick.labels:
        manifest["labels"] = {
            name: LabelsRecord(path=labels.path, kind=labels.kind, fingerprint=labels.fingerprint)
            for name, labels in yardstick.labels.items()
        }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    if finished or statistics.failures:
        run = Run(folder)
        gates, notes = check_run(yardstick.gates, yardstick.baseline, run)
        with gates_first(gates):
            write_report(run, baseline=yardstick.baseline, gates=gates, notes=notes)
        require_passed(gates)


def _write_zip(planned: RunPlan, results: Mapping[str, VolumeResult]) -> str:
    """Zip a mask of every volume, since a missing mask voids a submission; return the SHA-256 of the zip."""
    unfinished = [job for job in planned.jobs if job.id not in results]
    if unfinished:
        logger.warning("not finished, an empty mask in submission.zip: %s", ", ".join(job.id for job in unfinished))
    here = None if is_remote(planned.out) else planned.out
    with TemporaryDirectory(prefix=".empty-", suffix=".tmp", dir=here) as empty:
        masks = [mask_path(planned.out, job) for job in planned.jobs if job.id in results]
        for job in unfinished:
            depth, height, width = job.box.shape
            masks.append(Path(empty) / f"{job.id}.tif")
            write_mask_tiff(masks[-1], (np.zeros((1, height, width), np.uint8) for _ in range(depth)), job.box.shape)
        return write_submission(planned.out / "submission.zip", masks)


def _validate_zip(planned: RunPlan) -> list[str]:
    """Read the zip as the scorer does; return the warnings. An error is a bug of this program and ends the run."""
    path = planned.out / "submission.zip"
    findings = validate_submission(path, [job.volume for job in planned.jobs])
    errors = [str(finding) for finding in findings if finding.level == "error"]
    if errors:
        shown = "\n  ".join(errors)
        raise GateError(f"{path}: not valid:\n  {shown}", hint="keep the run folder, and report this")
    return [str(finding) for finding in findings]


def _stored_bytes(planned: RunPlan, statistics: StageStatistics) -> int:
    """Sum the most bytes that the run folder held: the stores at a time, and the zip."""
    stores = sorted(statistics.stored_bytes.values(), reverse=True)
    archive = planned.out / "submission.zip"
    return sum(stores[: planned.most_volumes]) + (archive.stat().st_size if archive.exists() else 0)


def _manifest(
    planned: RunPlan,
    projection: Projection,
    results: Mapping[str, VolumeResult],
    artefacts: dict[str, str],
    statistics: StageStatistics,
    wall_s: float,
) -> Manifest:
    inputs: dict[str, InputRecord] = {
        job.id: {
            "path": job.volume.path,
            "component": job.volume.component,
            "kind": job.volume.kind,
            "shape": job.volume.shape,
            "dtype": job.volume.dtype,
            "voxel_um": job.volume.voxel_um,
            "fingerprint": job.volume.fingerprint,
            **results[job.id].source,
            "box": str(job.box),
            "work": str(job.work),
            "block_vox": job.block,
            "blocks": len(job.grid),
            "detect_block_vox": job.detect_grid.block_shape,
        }
        for job in planned.jobs
        if job.id in results
    }
    return {
        "schema": 1,
        "nx47dask": __version__,
        "plan_sha256": planned.digest,
        "workflow": {"name": planned.workflow.name, **planned.workflow.resolved},
        "models": [network.record() for network in planned.networks],
        "passes": planned.described_passes,
        "approximations": planned.approximations,
        "foreground": planned.foreground,
        "seeds": {},
        "inputs": inputs,
        "artefacts_sha256": artefacts,
        "submission": {"unfinished": [job.id for job in planned.jobs if job.id not in results]},
        "stages": statistics.records(),
        "failures": statistics.failures,
        "wall_s": round(wall_s, 3),
        "memory": {
            "projected_worker_bytes": projection.worker_bytes,
            "projected_client_bytes": projection.client_bytes,
            "client_peak_rss_bytes": peak_rss_bytes(),
        },
        "disk": {"projected_bytes": projection.disk_bytes, "measured_bytes": _stored_bytes(planned, statistics)},
        "versions": {"python": platform.python_version(), **{p: metadata.version(p) for p in RECORDED_PACKAGES}},
        "platform": platform.platform(),
        "arguments": sys.argv[1:],
        "ended_s": round(time.time(), 3),
    }
