"""The plan of a run: what is done to which volumes in which blocks, what it will take, and its identity."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from nx47dask import __version__
from nx47dask.detectors import Detector, Fusion, LearnedDetector, ResidualBand, ScanStatistics
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
SUM_BYTES_PER_VOXEL = 16
"""Sums and weights of blended windows and what becomes of them, per voxel of a block, beside the image."""
NETWORK_BYTES_PER_VOXEL = 600
"""Inside a network, per voxel of a batch: a few feature maps of 32 channels at full resolution."""
BLOCK_BYTES = 1 << 30
"""Most that a block of learned detection holds, apart from the network: about 380 voxels along each edge.

Windows across a border are run in both blocks: of windows of 128 voxels in steps of 64, blocks of 160 run 2.7 times as
many as there are, of 384 1.6 times. Much more memory than this would gain little.
"""
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
    """

    out: Path
    workflow: Workflow
    detector: Fusion | ResidualBand
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
                "detect_block": list(job.detect_grid.block_shape),
            }
            for job in self.jobs
        }
        return {
            "version": __version__,
            "libraries": {name: metadata.version(name) for name in NUMERIC_PACKAGES},
            "workflow": self.workflow.resolved,
            "models": [network.record() for network in self.networks],
            "inputs": inputs,
            "foreground": self.foreground,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def networks(self) -> list[LearnedDetector]:
        """The trained networks among the sources."""
        return self.detector.learned if isinstance(self.detector, Fusion) else []

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
        shown += [f"model      {network}" for network in self.networks]
        for job in self.jobs:
            shown.append(
                f"volume     {job.id}  {_edges(job.work.shape)} {job.volume.dtype}  {len(job.grid)} blocks of "
                f"{job.block}³  reads {self.halo_redundancy(job):.2f}x"
            )
            if self.networks:
                run, least = self.windows(job)
                grid = job.detect_grid
                shown.append(
                    f"windows    {job.id}  {run} in {len(grid)} blocks of {_edges(grid.block((0, 0, 0)).box.shape)}"
                    f"  runs {run / least:.2f}x"
                )
        shown.append(f"memory     {self.peak_bytes_per_worker() / 2**30:.2f} GiB per worker (projected)")
        shown.append(f"disk       {self.stored_bytes() / 2**30:.2f} GiB (projected)")
        return shown + [f"note       {note}" for note in self.approximations]

    def halo_redundancy(self, job: VolumeJob) -> float:
        """Voxels of the scan that detection reads, per voxel of the volume."""
        whole, scan = Box.of_shape(job.volume.shape), _widest_scan(job.volume)
        cores = (block.box.shift(job.work.start) for block in job.detect_grid)
        return sum(self.detector.context(core, whole, scan).size for core in cores) / job.work.size

    def windows(self, job: VolumeJob) -> tuple[int, int]:
        """Windows that networks run over a volume if none is skipped, and how many of them are different."""
        return sum(_windows_by_block(self.networks, job)), _windows_in(self.networks, job, job.work)

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

    def _task_bytes(self, job: VolumeJob) -> int:
        edge = [min(job.block, n) for n in job.work.shape]

        def outer(radius: Index) -> int:
            return math.prod(e + 2 * r for e, r in zip(edge, radius, strict=True))

        slices = [slab_depth(job)]
        if job.volume.kind != "zarr":
            slices.append(storage_chunk(job.block))
        if isinstance(self.detector, ResidualBand):
            halo = self.detector.radius_zyx(_widest_scan(job.volume))[0]
            slices.append(slices_per_task(job, halo) + 2 * halo)
        slab = max(slices) * math.prod(job.volume.shape[1:]) * SLAB_BYTES_PER_VOXEL
        detect = _block_bytes(self.detector, job, job.detect_grid.block((0, 0, 0)).box.shape)
        detect += max((_network_bytes(network) for network in self.networks), default=0)
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
    passes, detector = compile_passes(workflow.steps), workflow.bind_detector()
    reach = add_radii(*(one.radius_zyx for one in passes))
    jobs = []
    for volume in volumes:
        whole = Box.of_shape(volume.shape)
        box = parse_bbox(bbox, volume.shape) if bbox else whole
        edge = default_block(volume.shape) if block is None else block
        storage_chunk(edge)
        store = str(out.absolute() / "store" / f"{volume.id}.zarr")
        dtype = workflow.settings.probability
        job = VolumeJob(volume, store, box.expand(reach).clip(whole), box, edge, probability_dtype=dtype)
        blocks = _detect_blocks(detector, job, workflow.settings.detect_block, len(volumes) == 1)
        jobs.append(replace(job, detect_blocks=blocks))
    return RunPlan(out, workflow, detector, passes, tuple(jobs), foreground, delete_stores)


def default_block(shape: Index) -> int:
    """Edge of a work block: small volumes in enough blocks for a few workers, large ones in few tasks."""
    size = math.prod(shape)
    return 160 if size <= 384**3 else 256 if size <= 1536**3 else 512


def _detect_blocks(detector: Fusion | ResidualBand, job: VolumeJob, longest: int | None, alone: bool) -> Index:
    """Work blocks per axis of a block of detection; in two where a volume is alone."""
    counts = job.grid.counts
    if longest is not None:
        z, y, x = (min(n, max(1, longest // job.block)) for n in counts)
        return z, y, x
    if isinstance(detector, ResidualBand) or not detector.learned:
        return 1, 1, 1

    def fits(blocks: Index) -> bool:
        z, y, x = (min(n * job.block, edge) for n, edge in zip(blocks, job.work.shape, strict=True))
        return _block_bytes(detector, job, (z, y, x)) <= BLOCK_BYTES

    blocks = _most_blocks(counts, fits)
    return _halves(detector.learned, job) if alone and blocks == counts else blocks


def _halves(networks: Sequence[LearnedDetector], job: VolumeJob) -> Index:
    """Half of the work blocks along the axis where two workers are done first; all where that gains nothing."""
    z, y, x = job.grid.counts
    cuts = [(z, y, x), (-(-z // 2), y, x), (z, -(-y // 2), x), (z, y, -(-x // 2))]
    return min(cuts, key=lambda blocks: max(_windows_by_block(networks, replace(job, detect_blocks=blocks))))


def _windows_by_block(networks: Sequence[LearnedDetector], job: VolumeJob) -> list[int]:
    return [_windows_in(networks, job, block.box.shift(job.work.start)) for block in job.detect_grid]


def _windows_in(networks: Sequence[LearnedDetector], job: VolumeJob, core: Box) -> int:
    """Windows of all networks that touch a box of the volume."""
    return sum(network.lattice(Box.of_shape(job.volume.shape)).count_touching(core) for network in networks)


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


def _block_bytes(detector: Fusion | ResidualBand, job: VolumeJob, shape: Index) -> int:
    """Projected memory for detection in a block of a shape, apart from networks."""
    scan = _widest_scan(job.volume)

    def outer(one: Detector | ResidualBand) -> Index:
        z, y, x = (edge + 2 * r for edge, r in zip(shape, one.radius_zyx(scan), strict=True))
        return z, y, x

    if isinstance(detector, ResidualBand) or not detector.learned:
        return math.prod(outer(detector)) * DETECT_BYTES_PER_VOXEL
    image = math.prod(map(min, outer(detector), job.volume.shape)) * (1 if job.volume.dtype == "uint8" else 2)
    others = [one for _, one in detector.active if not isinstance(one, LearnedDetector)]
    local = max((math.prod(outer(one)) * DETECT_BYTES_PER_VOXEL for one in others), default=0)
    return image + local + math.prod(shape) * SUM_BYTES_PER_VOXEL


def _network_bytes(network: LearnedDetector) -> int:
    voxels: int = math.prod(network.info.window_zyx) * network.engine.batch
    return voxels * NETWORK_BYTES_PER_VOXEL


def _widest_scan(volume: Volume) -> ScanStatistics:
    """Sigma grows with the spread of the greys, known after ingest; half of the range is the most it can be."""
    top = 255 if volume.dtype == "uint8" else 65535
    return ScanStatistics(0, top, top / 2, top / 2)


def _edges(shape: Index) -> str:
    return "x".join(map(str, shape))


def _names(workflow: Workflow) -> list[str]:
    return [next(iter(item)) for item in workflow.resolved["detect"]]


def _radius(radius_zyx: Index) -> str:
    return ",".join(map(str, radius_zyx))
