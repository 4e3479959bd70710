"""Ingest volumes without a run: convert TIFF to OME-Zarr, and measure the greys of any volume."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Unpack

from nx47dask.cluster.where import Where, WhereOptions
from nx47dask.commands.pipelines import run_pipelines
from nx47dask.engine import Pipeline
from nx47dask.errors import InputError
from nx47dask.files.paths import is_remote, locate
from nx47dask.geometry import Box
from nx47dask.io import Volume, discover
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.planning.make import default_block
from nx47dask.runs.folder import folder_errors, refuse_nesting
from nx47dask.stages.ingest import ingest as ingest_volume
from nx47dask.stages.volume_job import VolumeJob

__all__ = ["ingest"]


def ingest(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    block: int | None = None,
    level: int = 0,
    zarr_format: Literal[2, 3] = 3,
    where: Where | None = None,
    **options: Unpack[WhereOptions],
) -> dict[Path, ScanStatistics]:
    """Convert TIFF volumes to chunked OME-Zarr, and measure the grey values of all volumes.

    Parameters
    ----------
    inputs : sequence of path
        As for ``nx47dask.run``.
    out : path
        Folder of this machine for ``<id>.zarr``; a Zarr input is measured in place and not copied.
    block, level, where, **options
        As for :func:`nx47dask.run`.
    zarr_format : {3, 2}
        3 writes OME-Zarr 0.5 with shards, 2 writes 0.4.

    Returns
    -------
    dict of Path to ScanStatistics
        Statistics of each volume (minimum, maximum, mean, standard deviation and more), by the path of its Zarr.

    Raises
    ------
    InputError
        An input cannot be used, or ``<id>.zarr`` exists.

    Examples
    --------
    Convert a TIFF volume, and look at its grey values:

    >>> import nx47dask
    >>> (volume,) = nx47dask.write_phantom("sample", (24, 32, 32), seed=1)
    >>> ((path, scan),) = nx47dask.ingest(["sample/train_images"], "zarr", serial=True).items()
    >>> print(path)
    zarr/470000001.zarr
    >>> scan.minimum, scan.maximum, round(scan.mean, 1)
    (42, 243, 123.6)
    """
    where = Where.of(where, **options)
    folder = locate(out)
    if is_remote(folder):
        raise InputError(
            f"{folder}: ingest writes to a folder of this machine",
            hint="name a local --out, and copy its Zarr from there",
        )
    volumes = discover(inputs, level=level)
    refuse_nesting(inputs, folder)
    targets = {volume.id: _target(volume, folder) for volume in volumes}
    with folder_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".ingest-") as work:
            jobs = [_job(volume, Path(work), block, zarr_format) for volume in volumes]
            pipelines = {job.id: _convert(job, targets[job.id]) for job in jobs}
            results = run_pipelines(pipelines, where)
    return {targets[name]: scan for name, scan in results.items()}


def _convert(job: VolumeJob, target: Path) -> Pipeline[ScanStatistics]:
    ingested = yield from ingest_volume(job)
    if job.copied:
        shutil.move(job.image_store.path, target)
    return ingested.scan


def _target(volume: Volume, folder: Path) -> Path:
    if volume.kind == "zarr":
        return locate(volume.path)
    target = folder / f"{volume.id}.zarr"
    if target.exists():
        raise InputError(f"{target}: is there already", hint="delete it or choose another --out")
    return target


def _job(volume: Volume, work: Path, block: int | None, zarr_format: Literal[2, 3]) -> VolumeJob:
    whole = Box.of_shape(volume.shape)
    store = str(work.absolute() / "store" / volume.id)
    return VolumeJob(
        volume, store, whole, whole, block or default_block(volume.shape), volume.kind != "zarr", zarr_format
    )
