"""The plan of a run as plain data: volumes, blocks, detector, passes, and the identity that a run folder belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nx47dask.detectors import Fusion, LearnedDetector, ResidualBand
from nx47dask.engine.worker import NUMERIC_PACKAGES, release
from nx47dask.geometry import Box
from nx47dask.runs.identity import FolderPlan
from nx47dask.stages.export import REVISION as EXPORT_REVISION
from nx47dask.stages.export import STAGE as EXPORT
from nx47dask.stages.ingest import REVISION as INGEST_REVISION
from nx47dask.stages.ingest import STAGE as INGEST
from nx47dask.stages.measure import REVISION as MEASURE_REVISION
from nx47dask.stages.measure import STAGE as MEASURE
from nx47dask.stages.volume_job import VolumeJob
from nx47dask.steps.passes import ComponentScan, Pass, QuantileScan, describe
from nx47dask.workflow import Workflow

__all__ = ["RunPlan"]

STAGE_REVISIONS = {INGEST: INGEST_REVISION, MEASURE: MEASURE_REVISION, EXPORT: EXPORT_REVISION}
"""Revisions of the stages that are not steps or detectors; the revision of the score is in the keys of its records."""
VOLUMES_ON_DISK = 8
"""Volumes under way at a time where stores are deleted: enough to keep the CPUs of one machine busy."""


@dataclass(frozen=True)
class RunPlan(FolderPlan):
    """The plan of a run: all that decides its work.

    Attributes
    ----------
    workflow : Workflow
    detector : Fusion or ResidualBand
        Source of the surface probability; trained networks with their weights and their runtime.
    passes : tuple of Pass
        Post-processing, compiled.
    jobs : tuple of VolumeJob
        One per volume.
    foreground : int
        Value of the surface in the masks.
    delete_stores : bool
        Delete the store of a volume when its mask is written. Decides no byte of the results.
    scored : bool
        Masks are scored against labels. Decides no byte of the masks.
    serial : bool
        The client runs the tasks itself. Decides no byte of the results.
    """

    workflow: Workflow
    detector: Fusion | ResidualBand
    passes: tuple[Pass, ...]
    jobs: tuple[VolumeJob, ...]
    foreground: int = 255
    delete_stores: bool = False
    scored: bool = False
    serial: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the results and the blocks of a run; a run folder belongs to one identity."""
        inputs = {
            job.id: {
                "fingerprint": job.volume.fingerprint,
                # The fingerprint of a Zarr is that of its metadata, which two volumes may share.
                "path": [job.volume.path, job.volume.component] if job.volume.kind == "zarr" else None,
                "shape": list(job.volume.shape),
                "box": str(job.box),
                "block": job.block,
                "copied": job.copied,
                "detect_block": list(job.detect_grid.block_shape),
            }
            for job in self.jobs
        }
        return {
            "revisions": self.workflow.revisions | STAGE_REVISIONS,
            "libraries": {name: release(name) for name in NUMERIC_PACKAGES},
            "workflow": self.workflow.resolved,
            "models": [network.record() for network in self.networks],
            "inputs": inputs,
            "foreground": self.foreground,
        }

    @property
    def networks(self) -> list[LearnedDetector]:
        """The trained networks among the sources."""
        return self.detector.learned if isinstance(self.detector, Fusion) else []

    @property
    def uses_gpu(self) -> bool:
        """True when a network runs on a GPU."""
        return isinstance(self.detector, Fusion) and self.detector.uses_gpu

    @property
    def approximations(self) -> list[str]:
        """Notes on how the results differ from those of a run of the whole volumes."""
        if all(job.box == Box.of_shape(job.volume.shape) for job in self.jobs):
            return []
        scans = [current.scan for current in self.passes if current.scan]
        notes = []
        rules = [name for scan in scans if isinstance(scan, ComponentScan) for name, _ in scan.rules]
        if rules:
            notes.append(f"--bbox: {', '.join(rules)} judge components by their part inside the box")
        if any(isinstance(scan, QuantileScan) for scan in scans):
            notes.append("--bbox: quantiles are those of the box")
        return notes

    @property
    def most_volumes(self) -> int:
        """Volumes to have under way at a time."""
        return min(VOLUMES_ON_DISK, len(self.jobs)) if self.delete_stores else len(self.jobs)

    @property
    def described_passes(self) -> list[str]:
        """The passes in words, with their radii."""
        return [
            f"pass {current.number + 1}     {describe(current)} (radius {','.join(map(str, current.radius_zyx))})"
            for current in self.passes
        ]
