"""What is made of all volumes together when they are done: metrics, zip, manifest, report."""

from __future__ import annotations

import json
import platform
import sys
import time
from importlib import metadata
from typing import Any

from nx47dask import __version__
from nx47dask.engine.events import StageStatistics
from nx47dask.engine.worker import peak_rss_bytes
from nx47dask.geometry import Box
from nx47dask.io import sha256_file, write_submission, write_text
from nx47dask.metrics import SLICE_COLUMNS
from nx47dask.report.html import write_report
from nx47dask.results import Run
from nx47dask.stages.folder import mask_path
from nx47dask.stages.measure import slices_path
from nx47dask.stages.plan import RunPlan

__all__ = ["write_results"]

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


def write_results(planned: RunPlan, results: dict[str, Any], statistics: StageStatistics, wall_s: float) -> None:
    """Write the results of a run from what each volume's pipeline returned."""
    folder = planned.out
    rows = "".join(slices_path(job).read_text(encoding="utf-8") for job in planned.jobs)
    write_text(folder / "metrics" / "slices.csv", ",".join(SLICE_COLUMNS) + "\n" + rows)
    volumes = {job.id: {key: results[job.id][key] for key in ("scan", "steps", "mask")} for job in planned.jobs}
    write_text(folder / "metrics" / "volumes.json", json.dumps({"volumes": volumes}, indent=1) + "\n")
    artefacts = {f"masks/{job.id}.tif": results[job.id]["sha256"] for job in planned.jobs}
    if all(job.box == Box.of_shape(job.volume.shape) for job in planned.jobs):
        masks = [mask_path(folder, job) for job in planned.jobs]
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
            **results[job.id]["source"],
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
        "foreground": planned.foreground,
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
