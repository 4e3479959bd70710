"""The plan of a run: what is done to which volumes in which blocks, what it will take, and its identity."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from nx47dask import __version__
from nx47dask.detectors import ResidualBand, ScanStatistics
from nx47dask.differences import find_differences
from nx47dask.errors import InputError, PlanMismatchError
from nx47dask.geometry import Box, Index, add_radii, parse_bbox, storage_chunk
from nx47dask.io import Volume, write_text
from nx47dask.metrics.octants import octant_context, octants
from nx47dask.stages.detect import slices_per_task
from nx47dask.stages.export import slab_depth
from nx47dask.stages.job import VolumeJob
from nx47dask.steps.passes import ComponentScan, Pass, QuantileScan, compile_passes, describe
from nx47dask.workflow import Workflow

__all__ = ["RunPlan", "make_plan"]

NUMERIC_PACKAGES = ("connected-components-3d", "numpy", "scipy", "torch")
"""Libraries whose release may decide a bit."""
BASE_BYTES = 430 << 20
"""Memory of a worker process with its libraries, torch among them, before any block."""
DETECT_BYTES_PER_VOXEL = 60
"""Measured peak of the detectors, per voxel of a block with its halo."""
PASS_BYTES_PER_VOXEL = 24
"""Measured peak of labelling and of the local steps, per voxel of a block with its halo."""
SLAB_BYTES_PER_VOXEL = 4
"""Slabs of whole slices at ingest of a TIFF, at export and for slice thresholds, per voxel."""
SCORE_BYTES_PER_VOXEL = 48
"""Measured peak of scoring, per voxel of an octant with its halo."""
STORED_BYTES_PER_VOXEL = 3.1
"""Image, probability, mask and intermediates at their peak, as they compress on scroll CT."""
VOLUMES_ON_DISK = 8
"""Volumes under way where stores are deleted: enough to keep the CPUs of one machine busy."""


@dataclass(frozen=True)
class RunPlan:
    """What a run will do.

    Attributes
    ----------
    out : Path
        Run folder.
    workflow : Workflow
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
    """

    out: Path
    workflow: Workflow
    passes: tuple[Pass, ...]
    jobs: tuple[VolumeJob, ...]
    foreground: int = 255
    delete_stores: bool = False
    scored: bool = False

    @property
    def record(self) -> Path:
        """File of the run folder that holds the identity of its plan."""
        return self.out / "ledger" / "plan.json"

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the bytes and the cut of a run; a run folder belongs to one identity."""
        inputs = {
            job.id: {
                "fingerprint": job.volume.fingerprint,
                # A Zarr's fingerprint is that of its metadata, which two volumes may share.
                "path": [job.volume.path, job.volume.component] if job.volume.kind == "zarr" else None,
                "shape": list(job.volume.shape),
                "box": str(job.box),
                "block": job.block,
            }
            for job in self.jobs
        }
        return {
            "version": __version__,
            "libraries": {name: metadata.version(name) for name in NUMERIC_PACKAGES},
            "workflow": self.workflow.resolved,
            "inputs": inputs,
            "foreground": self.foreground,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def approximations(self) -> list[str]:
        """What differs from a run of the whole volumes."""
        if all(job.box == Box.of_shape(job.volume.shape) for job in self.jobs):
            return []
        scans = [one.scan for one in self.passes if one.scan]
        notes = []
        rules = [name for scan in scans if isinstance(scan, ComponentScan) for name, _ in scan.rules]
        if rules:
            notes.append(f"--bbox: {', '.join(rules)} judge components by their part inside the box")
        if any(isinstance(scan, QuantileScan) for scan in scans):
            notes.append("--bbox: quantiles are those of the box")
        return notes

    def peak_bytes_per_worker(self) -> int:
        """Projected peak memory of a worker, from the largest block with its halo."""
        return BASE_BYTES + max(self._task_bytes(job) for job in self.jobs)

    def stored_bytes(self) -> int:
        """Projected size on disk of the stores that are there at a time."""
        sizes = sorted((job.work.size for job in self.jobs), reverse=True)
        return int(sum(sizes[: self.most_volumes]) * STORED_BYTES_PER_VOXEL)

    @property
    def most_volumes(self) -> int:
        """Volumes to have under way at a time."""
        return min(VOLUMES_ON_DISK, len(self.jobs)) if self.delete_stores else len(self.jobs)

    def lines(self) -> list[str]:
        """The plan in words."""
        shown = [f"workflow   {self.workflow.name}", f"detect     {', '.join(_names(self.workflow))}"]
        shown += [
            f"pass {one.number + 1}     {describe(one)} (radius {_radius(one.radius_zyx)})" for one in self.passes
        ]
        for job in self.jobs:
            shape = "x".join(map(str, job.work.shape))
            shown.append(
                f"volume     {job.id}  {shape} {job.volume.dtype}  {len(job.grid)} blocks of {job.block}³"
                f"  reads {self.halo_redundancy(job):.2f}x"
            )
        shown.append(f"memory     {self.peak_bytes_per_worker() / 2**30:.2f} GiB per worker (projected)")
        shown.append(f"disk       {self.stored_bytes() / 2**30:.2f} GiB (projected)")
        return shown + [f"note       {note}" for note in self.approximations]

    def halo_redundancy(self, job: VolumeJob) -> float:
        """Voxels of the scan that detection reads, per voxel of the volume."""
        outer = [job.image_context(block.box, self._detect_radius(job)).size for block in job.grid]
        return sum(outer) / job.work.size

    def claim(self) -> None:
        """Take a run folder that :meth:`check` has let pass for this plan."""
        if not self.record.exists():
            write_text(self.record, json.dumps(self.identity, indent=1) + "\n")

    def check(self, resume: bool) -> None:
        """Refuse a run folder that this plan cannot take.

        Raises
        ------
        PlanMismatchError
            The folder holds the work of another plan; the message names what differs.
        InputError
            The folder holds a run and ``resume`` is not set, or what an interrupted ``overwrite`` left of one.
        """
        if not self.record.exists():
            if any(self.record.parent.glob("*")):
                raise InputError(f"{self.out}: the folder holds the rest of a run without its plan; use --overwrite")
            return
        before = json.loads(self.record.read_text(encoding="utf-8"))
        differences = find_differences(before, json.loads(json.dumps(self.identity)))
        if differences:
            shown = "; ".join(map(str, differences[:5])) + (
                f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
            )
            raise PlanMismatchError(
                f"{self.out}: the folder holds a run of another plan: {shown}; use --overwrite to start anew, "
                "or another --out"
            )
        if not resume:
            raise InputError(f"{self.out}: the folder holds a run; use --resume to go on or --overwrite to start anew")

    def _detect_radius(self, job: VolumeJob) -> Index:
        # Sigma grows with the spread of the greys, known after ingest; half of the range is the most it can be.
        top = 255 if job.volume.dtype == "uint8" else 65535
        return self.workflow.detector.radius_zyx(ScanStatistics(0, top, top / 2, top / 2))

    def _task_bytes(self, job: VolumeJob) -> int:
        edge = [min(job.block, n) for n in job.work.shape]

        def outer(radius: Index) -> int:
            return math.prod(e + 2 * r for e, r in zip(edge, radius, strict=True))

        slices = [slab_depth(job)]
        if job.volume.kind != "zarr":
            slices.append(storage_chunk(job.block))
        if isinstance(self.workflow.detector, ResidualBand):
            halo = self._detect_radius(job)[0]
            slices.append(slices_per_task(job, halo) + 2 * halo)
        slab = max(slices) * math.prod(job.volume.shape[1:]) * SLAB_BYTES_PER_VOXEL
        detect = outer(self._detect_radius(job)) * DETECT_BYTES_PER_VOXEL
        passes = max(outer(one.radius_zyx) for one in self.passes) * PASS_BYTES_PER_VOXEL
        grid = octants(job.box.shape)
        score = max(octant_context(grid, one).size for one in grid) * SCORE_BYTES_PER_VOXEL if self.scored else 0
        return max(detect, passes, slab, score)


def make_plan(
    volumes: Sequence[Volume],
    out: Path,
    workflow: Workflow,
    *,
    block: int | None = None,
    bbox: str | None = None,
    foreground: int = 255,
    delete_stores: bool = False,
) -> RunPlan:
    """Cut the volumes into blocks.

    Parameters
    ----------
    volumes : sequence of Volume
    out : Path
        Run folder.
    workflow : Workflow
    block : int, optional
        Edge of a work block in voxels; by default 160 for volumes up to 384³, 256 up to 1536³, else 512.
    bbox : str, optional
        Part to write out, ``z0:z1,y0:y1,x0:x1`` in the volume's voxels; what lies around it is read for context.
    foreground : int
        Value of the surface in the masks, 255 or 1.
    delete_stores : bool
        Delete the store of a volume when its mask is written.

    Raises
    ------
    InputError
        The block size cannot be stored, the box lies outside a volume, or the foreground is another value.
    """
    if foreground not in (1, 255):
        raise InputError(f"--foreground {foreground}: the surface is 255, or 1")
    passes = compile_passes(workflow.steps)
    reach = add_radii(*(one.radius_zyx for one in passes))
    jobs = []
    for volume in volumes:
        whole = Box.of_shape(volume.shape)
        box = parse_bbox(bbox, volume.shape) if bbox else whole
        edge = default_block(volume.shape) if block is None else block
        storage_chunk(edge)
        store = str(out.absolute() / "store" / f"{volume.id}.zarr")
        jobs.append(VolumeJob(volume, store, box.expand(reach).clip(whole), box, edge))
    return RunPlan(out, workflow, passes, tuple(jobs), foreground, delete_stores)


def default_block(shape: Index) -> int:
    """Edge of a work block: small volumes in enough blocks for a few workers, large ones in few tasks."""
    size = math.prod(shape)
    return 160 if size <= 384**3 else 256 if size <= 1536**3 else 512


def _names(workflow: Workflow) -> list[str]:
    return [next(iter(item)) for item in workflow.resolved["detect"]]


def _radius(radius_zyx: Index) -> str:
    return ",".join(map(str, radius_zyx))
