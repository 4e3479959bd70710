"""The JSON files of a run folder as types: ``manifest.json`` and ``metrics/volumes.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from nx47dask.engine.events import FailureRecord, StageRecord
from nx47dask.metrics.score import Score
from nx47dask.metrics.shape import MaskShape

__all__ = [
    "BaselineRecord",
    "InputRecord",
    "LabelsRecord",
    "Manifest",
    "ReadRecord",
    "ScanMetrics",
    "StepChange",
    "VolumeMetrics",
]


class ScanMetrics(TypedDict):
    """Grey values of a whole volume.

    Attributes
    ----------
    minimum, maximum : int
        Raw integer units, as the mean and the standard deviation.
    mean, std : float
    histogram : list of int
        Voxels in 256 bins of equal width over the range of the data type.
    """

    minimum: int
    maximum: int
    mean: float
    std: float
    histogram: list[int]


class StepChange(TypedDict):
    """Voxels that a post-processing step has added to and removed from the mask, in the box with its context."""

    added_vox: int
    removed_vox: int


class VolumeMetrics(TypedDict):
    """A volume in ``volumes`` of ``metrics/volumes.json``.

    Attributes
    ----------
    scan : ScanMetrics
    steps : dict of str to StepChange
        By name of the step; steps that changed nothing may be missing.
    mask : MaskShape
    score : Score, optional
        Where the run had labels.
    """

    scan: ScanMetrics
    steps: dict[str, StepChange]
    mask: MaskShape
    score: NotRequired[Score]


class ReadRecord(TypedDict):
    """Record of the voxels that ingest read.

    Attributes
    ----------
    voxels_sha256_by_block : str
        SHA-256 over those of the voxels of each part (a slab of pages or a block) in order.
    chunks, absent_chunks : int
        Chunk files of a Zarr input, and those that are not there; 0 for TIFF.
    """

    voxels_sha256_by_block: str
    chunks: int
    absent_chunks: int


class InputRecord(ReadRecord):
    """A volume that a run has read.

    Attributes
    ----------
    path, component, kind, dtype, fingerprint : str
        As of :class:`~nx47dask.io.Volume`.
    shape : sequence of int
        Of the whole volume (Z, Y, X).
    voxel_um : sequence of float or None
        Edges of a voxel (Z, Y, X) in micrometres, where they are known.
    box, work : str
        What is written out, and what is computed for it: that with its context.
    block_vox : int
        Edge of a block.
    blocks : int
    detect_block_vox : sequence of int
        Shape of the blocks of detection (Z, Y, X).
    """

    path: str
    component: str
    kind: str
    shape: Sequence[int]
    dtype: str
    voxel_um: Sequence[float] | None
    fingerprint: str
    box: str
    work: str
    block_vox: int
    blocks: int
    detect_block_vox: Sequence[int]


class LabelsRecord(TypedDict):
    """Labels that the mask of a volume was scored against; the keys are those of an input."""

    path: str
    kind: str
    fingerprint: str


class BaselineRecord(TypedDict):
    """Baseline that a run is compared with.

    Attributes
    ----------
    path : str
        Folder of the baseline.
    gates : str or None
        What the run may lose against it.
    """

    path: str
    gates: str | None


class SubmissionRecord(TypedDict):
    """The zip of a run.

    Attributes
    ----------
    unfinished : list of str
        Volumes that have an empty mask in it, since they were not finished.
    warnings : list of str
        Of its validation.
    """

    unfinished: list[str]
    warnings: NotRequired[list[str]]


class MemoryRecord(TypedDict):
    """Projected and measured memory of a worker and of the client; that of workers is with the stages."""

    projected_worker_bytes: int
    projected_client_bytes: int
    client_peak_rss_bytes: int


class DiskRecord(TypedDict):
    """The most that the run folder was to hold, and did hold, at a time."""

    projected_bytes: int
    measured_bytes: int


class Manifest(TypedDict):
    """``manifest.json``.

    Attributes
    ----------
    schema : int
    nx47dask : str
        Version of the package.
    plan_sha256 : str
        Of the identity of the plan.
    workflow : dict
        Its name, and every parameter as resolved.
    models : list of dict
        Each network with its hash and how it ran.
    passes, approximations : list of str
        In words: the passes over the blocks, and what is not exact across them.
    foreground : int
        Value of the mask's foreground in the files.
    seeds : dict
        Empty: nothing in a run is random.
    inputs : dict of str to InputRecord
        By volume; those that are not finished are not among them.
    artefacts_sha256 : dict of str to str
        By path in the folder.
    submission : SubmissionRecord
    stages : dict of str to StageRecord
    failures : list of FailureRecord
        Tasks that failed in every try.
    wall_s : float
        Of the last client.
    memory : MemoryRecord
    disk : DiskRecord
    versions : dict of str to str
        Of Python and of the libraries that decide results.
    platform : str
    arguments : list of str
        Of the process.
    ended_s : float
        Unix time.
    baseline : BaselineRecord, optional
    labels : dict of str to LabelsRecord, optional
        By volume, where the run had labels.
    """

    schema: int
    nx47dask: str
    plan_sha256: str
    workflow: dict[str, Any]
    models: list[dict[str, Any]]
    passes: list[str]
    approximations: list[str]
    foreground: int
    seeds: dict[str, int]
    inputs: dict[str, InputRecord]
    artefacts_sha256: dict[str, str]
    submission: SubmissionRecord
    stages: Mapping[str, StageRecord]
    failures: Sequence[FailureRecord]
    wall_s: float
    memory: MemoryRecord
    disk: DiskRecord
    versions: dict[str, str]
    platform: str
    arguments: list[str]
    ended_s: float
    baseline: NotRequired[BaselineRecord]
    labels: NotRequired[dict[str, LabelsRecord]]
