"""The plan of a run: what is done to which volumes in which blocks, what it will take, and its identity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nx47dask.detectors import Fusion, LearnedDetector, ResidualBand
from nx47dask.engine.worker import NUMERIC_PACKAGES, release
from nx47dask.errors import InputError
from nx47dask.geometry import Box, Index, add_radii, parse_bbox, storage_chunk
from nx47dask.io import Volume
from nx47dask.models.backends import Device
from nx47dask.stages.claim import FolderPlan
from nx47dask.stages.job import VolumeJob
from nx47dask.stages.plan_text import plan_lines
from nx47dask.stages.projection import (
    client_bytes,
    detection_bytes,
    disk_bytes,
    windows_by_block,
    windows_in,
    worker_bytes,
)
from nx47dask.stages.reads import is_copied
from nx47dask.steps.passes import ComponentScan, Pass, QuantileScan, compile_passes, describe
from nx47dask.version import __version__
from nx47dask.workflow import Workflow

if TYPE_CHECKING:
    from nx47dask.stages.timing import Estimate

__all__ = ["RunPlan", "make_plan"]

BLOCK_BYTES = 1 << 30
"""Most that a block of learned detection holds, apart from the network: about 380 voxels along each edge.

Windows across a border are run in both blocks: of windows of 128 voxels in steps of 64, blocks of 160 run 2.7 times as
many as there are, of 384 1.6 times. Much more memory than this would gain little.
"""
VOLUMES_ON_DISK = 8
"""Volumes under way where stores are deleted: enough to keep the CPUs of one machine busy."""


@dataclass(frozen=True)
class RunPlan(FolderPlan):
    """What a run will do.

    Attributes
    ----------
    workflow : Workflow
    detector : Fusion or ResidualBand
        Source of the surface probability; trained networks with their weights and with what runs them.
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
        """All that decides the bytes and the cut of a run; a run folder belongs to one identity."""
        inputs = {
            job.id: {
                "fingerprint": job.volume.fingerprint,
                # A Zarr's fingerprint is that of its metadata, which two volumes may share.
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
            "version": __version__,
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
        """Whether one of them runs on a GPU."""
        return isinstance(self.detector, Fusion) and self.detector.uses_gpu

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
        """Projected peak memory of a worker."""
        return worker_bytes(self)[0]

    def client_bytes(self) -> int:
        """Projected peak memory of the client with the scheduler of a local cluster."""
        return client_bytes(self)

    def stored_bytes(self) -> int:
        """Projected peak size of the run folder."""
        return disk_bytes(self)

    @property
    def most_volumes(self) -> int:
        """Volumes to have under way at a time."""
        return min(VOLUMES_ON_DISK, len(self.jobs)) if self.delete_stores else len(self.jobs)

    @property
    def described_passes(self) -> list[str]:
        """The passes in words, with their radii."""
        return [
            f"pass {one.number + 1}     {describe(one)} (radius {','.join(map(str, one.radius_zyx))})"
            for one in self.passes
        ]

    def windows(self, job: VolumeJob) -> tuple[int, int]:
        """Windows that networks run over a volume if none is skipped, and how many of them are different."""
        return sum(windows_by_block(self.networks, job)), windows_in(self.networks, job, job.work)

    def lines(self, estimate: Estimate | None = None) -> list[str]:
        """The plan in words, with the time that it will take where that has been estimated."""
        return plan_lines(self, estimate)

    def with_block(self, edge: int) -> RunPlan:
        """The same run in other work blocks."""
        jobs = (replace(job, block=edge, detect_blocks=(1, 1, 1)) for job in self.jobs)
        return replace(
            self, jobs=tuple(_with_detect_blocks(job, self.detector, self.workflow, self.jobs) for job in jobs)
        )


def make_plan(
    volumes: Sequence[Volume],
    out: Path,
    workflow: Workflow,
    *,
    block: int | None = None,
    bbox: str | None = None,
    foreground: int = 255,
    delete_stores: bool = False,
    copy_input: bool | None = None,
    device: Device | None = None,
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
    copy_input : bool, optional
        Copy Zarr inputs to the run's store at ingest, or read them in place; by default the remote ones are copied.
    device : {"cpu", "cuda"}, optional
        What ``device: auto`` of a network means; by default what this machine has.

    Raises
    ------
    InputError
        The block size cannot be stored, the box lies outside a volume, or the foreground is another value.
    """
    if foreground not in (1, 255):
        raise InputError(f"--foreground {foreground}: the surface is 255, or 1")
    passes, detector = compile_passes(workflow.steps), workflow.bind_detector(device)
    reach = add_radii(*(one.radius_zyx for one in passes))
    jobs = []
    for volume in volumes:
        whole = Box.of_shape(volume.shape)
        box = parse_bbox(bbox, volume.shape) if bbox else whole
        edge = default_block(volume.shape) if block is None else block
        storage_chunk(edge)
        store = str(out.absolute() / "store" / f"{volume.id}.zarr")
        dtype = workflow.settings.probability
        job = VolumeJob(
            volume,
            store,
            box.expand(reach).clip(whole),
            box,
            edge,
            copied=is_copied(volume, copy_input),
            probability_dtype=dtype,
        )
        jobs.append(_with_detect_blocks(job, detector, workflow, volumes))
    return RunPlan(out, workflow, detector, passes, tuple(jobs), foreground, delete_stores)


def default_block(shape: Index) -> int:
    """Edge of a work block: small volumes in enough blocks for a few workers, large ones in few tasks."""
    size = math.prod(shape)
    return 160 if size <= 384**3 else 256 if size <= 1536**3 else 512


def _with_detect_blocks(
    job: VolumeJob, detector: Fusion | ResidualBand, workflow: Workflow, volumes: Sequence[object]
) -> VolumeJob:
    """The job with its blocks of detection, in two where a volume is alone."""
    counts, longest = job.grid.counts, workflow.settings.detect_block
    if longest is not None:
        z, y, x = (min(n, max(1, longest // job.block)) for n in counts)
        return replace(job, detect_blocks=(z, y, x))
    if isinstance(detector, ResidualBand) or not detector.learned:
        return job

    def fits(blocks: Index) -> bool:
        z, y, x = (min(n * job.block, edge) for n, edge in zip(blocks, job.work.shape, strict=True))
        return detection_bytes(detector, job, (z, y, x)) <= BLOCK_BYTES

    blocks = _most_blocks(counts, fits)
    if len(volumes) == 1 and blocks == counts:
        blocks = _halves(detector.learned, job)
    return replace(job, detect_blocks=blocks)


def _halves(networks: Sequence[LearnedDetector], job: VolumeJob) -> Index:
    """Half of the work blocks along the axis where two workers are done first; all where that gains nothing."""
    z, y, x = job.grid.counts
    cuts = [(z, y, x), (-(-z // 2), y, x), (z, -(-y // 2), x), (z, y, -(-x // 2))]
    return min(cuts, key=lambda blocks: max(windows_by_block(networks, replace(job, detect_blocks=blocks))))


def _most_blocks(counts: Index, fits: Callable[[Index], bool]) -> Index:
    """The most blocks per axis that fit, near a cube, so that all parts are about equal."""
    blocks, growing = (1, 1, 1), [2, 1, 0]
    while growing:
        axis = growing[0]
        z, y, x = (n + (one == axis) for one, n in enumerate(blocks))
        growing.remove(axis)
        if (z, y, x)[axis] <= counts[axis] and fits((z, y, x)):
            blocks = z, y, x
            growing.append(axis)
    z, y, x = (-(-count // -(-count // n)) for count, n in zip(counts, blocks, strict=True))
    return z, y, x
