"""Read a finished run: lazy arrays for notebooks, metrics as records."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nx47dask.engine.events import FailureRecord
from nx47dask.errors import InputError
from nx47dask.files.documents import read_json
from nx47dask.files.paths import locate
from nx47dask.geometry import Box, Index, parse_bbox
from nx47dask.io import Volume, discover
from nx47dask.io.zarr_stores import zarr_store
from nx47dask.metrics.score import Score
from nx47dask.metrics.shape import SLICE_COLUMNS, SliceRow
from nx47dask.runs.manifest import InputRecord, LabelsRecord, Manifest, VolumeMetrics

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["Run", "RunVolume", "open_run"]

SLAB_VOXELS = 4 << 20
"""Voxels of a TIFF that are read at a time."""
AGAIN = "write it again with nx47dask run ... --resume"
MANIFEST_KEYS = frozenset({"artefacts_sha256", "inputs", "plan_sha256", "workflow"})
VOLUME_KEYS = frozenset({"mask", "scan", "steps"})


@dataclass(frozen=True)
class RunVolume:
    """A volume of a finished run.

    Attributes
    ----------
    id : str
    image, probability, mask : dask.array.Array
        The scan as it was given (uint8 or uint16), the surface probability (uint8: 255 is 1; uint16: 65535 is 1), the
        mask (uint8: 0 or 1), shape (Z, Y, X), read when computed. With ``--bbox``, all three cover the box. Where the
        store was deleted, the mask is read from ``masks/`` and the scan from the input, and there is no probability.
    labels : dask.array.Array or None
        The labels of the same box that the mask was scored against (0 background, 1 surface, 2 ignored).
    """

    id: str
    run: Run

    @property
    def image(self) -> da.Array:
        source, stored = self._source, self._store / "image" / "0"
        if stored.is_dir():
            return _cut(_from_zarr(stored), self.box)
        in_place = source["kind"] == "zarr"
        read = self._array(locate(source["path"]) / source["component"]) if in_place else self._reopened(source)
        return _cut(read, self.box)

    @property
    def probability(self) -> da.Array:
        return self._result("probability")

    @property
    def mask(self) -> da.Array:
        file = self.run.path / "masks" / f"{self.id}.tif"
        if (self._store / "mask" / "0").is_dir() or not file.is_file():
            return self._result("mask")
        (written,) = discover([file], masks=True)
        binary: da.Array = (_lazy(written) != 0).astype("uint8")
        return binary

    @property
    def labels(self) -> da.Array | None:
        recorded = self.run.manifest.get("labels", {}).get(self.id)
        return None if recorded is None else _cut(self._reopened(recorded), self.box)

    @property
    def metrics(self) -> VolumeMetrics:
        """Metrics of the volume in ``metrics/volumes.json``."""
        return self.run.volume_metrics[self.id]

    @property
    def shape(self) -> Index:
        """Shape of the whole volume (Z, Y, X)."""
        z, y, x = self._source["shape"]
        return (z, y, x)

    @property
    def box(self) -> Box:
        """Part of the volume that the run wrote out."""
        return parse_bbox(self._source["box"], self.shape)

    @property
    def _source(self) -> InputRecord:
        return self.run.manifest["inputs"][self.id]

    @property
    def _store(self) -> Path:
        return self.run.path / "store" / f"{self.id}.zarr"

    def _result(self, name: str) -> da.Array:
        origin = parse_bbox(self._source["work"], self.shape).start
        return _cut(self._array(self._store / name / "0"), self.box.relative_to(origin))

    def _array(self, path: Path) -> da.Array:
        if not path.is_dir() and not str(path).startswith("http"):
            raise InputError(f"{path}: not there; the store of volume {self.id} was moved or deleted")
        return _from_zarr(path)

    def _reopened(self, recorded: InputRecord | LabelsRecord) -> da.Array:
        """Open again an input that the manifest names; refuse one that has changed."""
        for volume in discover([recorded["path"]]):
            if volume.id == self.id and volume.fingerprint == recorded["fingerprint"]:
                return _lazy(volume)
        raise InputError(f"{recorded['path']}: not what the run read of volume {self.id}, it was changed since")


def _lazy(volume: Volume) -> da.Array:
    """Make an array that reads a volume when computed: a Zarr by chunks, a TIFF by slabs of whole pages."""
    import dask.array as da
    from dask.delayed import delayed

    if volume.kind == "zarr":
        return _from_zarr(locate(volume.path) / volume.component)
    depth, height, width = volume.shape
    step = max(1, SLAB_VOXELS // (height * width))
    boxes = [Box((z, 0, 0), (min(z + step, depth), height, width)) for z in range(0, depth, step)]
    read = delayed(volume.read)
    slabs: da.Array = da.concatenate([da.from_delayed(read(box), box.shape, volume.dtype) for box in boxes])
    return slabs


def _cut(array: da.Array, box: Box) -> da.Array:
    cut: da.Array = array[box.slices]
    return cut


def _from_zarr(path: Path) -> da.Array:
    """Open a Zarr array without its leading axes of length 1."""
    import dask.array as da

    array: da.Array = da.from_zarr(zarr_store(path, read_only=True))
    volume: da.Array = array[(0,) * (array.ndim - 3)]
    return volume


@dataclass(frozen=True)
class Run:
    """A finished run.

    ``run["<id>"]`` is a volume. A run of a single volume has its arrays as ``run.image``, ``run.probability`` and
    ``run.mask``.

    Attributes
    ----------
    path : Path
        The run folder.

    Examples
    --------
    Look at the arrays and metrics of a run:

    >>> import nx47dask
    >>> (volume,) = nx47dask.write_phantom("scrolls", (24, 32, 32), seed=1)
    >>> run = nx47dask.run(["scrolls/train_images"], "look", workflow="v61.1", serial=True)
    >>> run.volumes
    ['470000001']
    >>> run.mask.shape, str(run.mask.dtype), int(run.mask.max().compute())
    ((24, 32, 32), 'uint8', 1)
    >>> densities = [row["density"] for row in run.metrics]
    >>> len(densities), round(run[volume].metrics["mask"]["density"], 2)
    (24, 0.13)
    """

    path: Path

    def __getitem__(self, volume: str) -> RunVolume:
        if volume not in self.volumes:
            raise InputError(f"{self.path}: no volume {volume!r}; it has {', '.join(self.volumes)}")
        return RunVolume(volume, self)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def volumes(self) -> list[str]:
        """Ids of the volumes."""
        return list(self.manifest["inputs"])

    @property
    def image(self) -> da.Array:
        return self._only().image

    @property
    def probability(self) -> da.Array:
        return self._only().probability

    @property
    def mask(self) -> da.Array:
        return self._only().mask

    @property
    def metrics(self) -> list[SliceRow]:
        """Metrics of each slice, as in ``metrics/slices.csv``; numbers are numbers, None stands for no slice before.

        Raises
        ------
        InputError
            The file is damaged or lacks slices.
        """
        path = self.path / "metrics" / "slices.csv"
        rows = _read_slices(path)
        depths = Counter(row["volume"] for row in rows)
        for volume in self.volumes:
            depth = self[volume].box.shape[0]
            if depths[volume] != depth:
                raise InputError(f"{path}: {depths[volume]} slices of volume {volume}, the run has {depth}", hint=AGAIN)
        return rows

    @cached_property
    def volume_metrics(self) -> dict[str, VolumeMetrics]:
        """Metrics of each volume, from ``metrics/volumes.json``.

        Raises
        ------
        InputError
            The file is damaged or lacks a volume of the run.
        """
        path = self.path / "metrics" / "volumes.json"
        volumes = read_json(path, AGAIN).get("volumes")
        if not isinstance(volumes, dict):
            raise InputError(f"{path}: has no 'volumes'", hint=AGAIN)
        for volume in self.volumes:
            if volume not in volumes:
                raise InputError(f"{path}: volume {volume} of the run's manifest is not in it", hint=AGAIN)
            if missing := VOLUME_KEYS.difference(volumes[volume]):
                raise InputError(f"{path}: volume {volume} has no {min(missing)!r}", hint=AGAIN)
        return volumes

    @property
    def scores(self) -> dict[str, Score]:
        """The score of each volume; empty where the run had no labels."""
        return {name: metrics["score"] for name, metrics in self.volume_metrics.items() if "score" in metrics}

    @property
    def labels(self) -> dict[str, str]:
        """Keys that identify the labels of each scored volume, by id; empty where the run had no labels."""
        recorded = self.manifest.get("labels", {})
        return {
            name: _label_key(labels["kind"], labels["path"], labels["fingerprint"]) for name, labels in recorded.items()
        }

    def scored_with(self, labels: Mapping[str, Volume]) -> bool:
        """Return True if the run has a score against each of these labels."""
        known = self.labels
        keys = {name: _label_key(volume.kind, volume.path, volume.fingerprint) for name, volume in labels.items()}
        return all(known.get(name) == key for name, key in keys.items())

    @property
    def unfinished(self) -> list[str]:
        """Ids of the volumes that a time limit or a failure left undone; they are not among ``volumes``."""
        return list(self.manifest.get("submission", {}).get("unfinished", []))

    @property
    def failures(self) -> list[FailureRecord]:
        """Tasks that failed in every try."""
        return list(self.manifest.get("failures", []))

    def require_finished(self, then: str) -> None:
        """Refuse a run that ended early.

        Raises
        ------
        InputError
            A volume is not finished; the message names it, the hint says how to go on.
        """
        if self.unfinished:
            raise InputError(
                f"{self.path}: not finished, {', '.join(self.unfinished[:5])} among its volumes",
                hint=f"go on with --resume, then {then}",
            )

    @cached_property
    def manifest(self) -> Manifest:
        """Contents of ``manifest.json``.

        Raises
        ------
        InputError
            The file is damaged.
        """
        path = self.path / "manifest.json"
        manifest = read_json(path, AGAIN)
        if missing := MANIFEST_KEYS - manifest.keys():
            raise InputError(f"{path}: not the manifest of a run ({min(missing)} is missing)", hint=AGAIN)
        return cast("Manifest", manifest)

    def _only(self) -> RunVolume:
        if len(self.volumes) != 1:
            raise InputError(
                f"{self.path}: {len(self.volumes)} volumes", hint=f"name one, such as run[{self.volumes[0]!r}]"
            )
        return self[self.volumes[0]]


def open_run(path: str | Path | Run) -> Run:
    """Open the folder of a finished run; a run that is open already is returned as it is.

    Parameters
    ----------
    path : path, URL or Run

    Raises
    ------
    InputError
        There is no finished run.

    Examples
    --------
    Open a run again, and count the voxels of its mask slice by slice:

    >>> import nx47dask
    >>> (volume,) = nx47dask.write_phantom("sample", (24, 32, 32), seed=1)
    >>> _ = nx47dask.run(["sample/train_images"], "first", workflow="v61.1", serial=True)
    >>> run = nx47dask.open_run("first")
    >>> counts = run.mask.sum(axis=(1, 2)).compute()
    >>> counts.tolist() == [row["foreground_vox"] for row in run.metrics]
    True
    """
    if isinstance(path, Run):
        return path
    run = Run(locate(path))
    if not run.path.exists():
        raise InputError(f"{path}: no such run folder")
    if not (run.path / "manifest.json").is_file():
        raise InputError(
            f"{path}: no finished run here (manifest.json is missing)",
            hint="if a run is in it, end it with nx47dask run ... --resume",
        )
    return run


def _label_key(kind: str, path: str, fingerprint: str) -> str:
    # The fingerprint of a Zarr is that of its metadata, which two volumes may share.
    return f"{fingerprint} {path}" if kind == "zarr" else fingerprint


def _read_slices(path: Path) -> list[SliceRow]:
    """Read the rows of ``slices.csv``."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = list(csv.reader(stream, strict=True))
        if not lines or tuple(lines[0]) != SLICE_COLUMNS:
            raise ValueError(f"line 1 is not {','.join(SLICE_COLUMNS)}")
        return [_slice(number, line) for number, line in enumerate(lines[1:], 2)]
    except (csv.Error, ValueError) as error:
        raise InputError(f"{path}: cannot be read as slices ({error})", hint=AGAIN) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", hint=AGAIN) from error


def _slice(number: int, line: list[str]) -> SliceRow:
    if len(line) != len(SLICE_COLUMNS):
        raise ValueError(f"line {number} has {len(line)} values, not {len(SLICE_COLUMNS)}")
    return cast("SliceRow", {key: _value(key, text) for key, text in zip(SLICE_COLUMNS, line, strict=True)})


def _value(key: str, text: str) -> str | int | float | None:
    if key == "volume":
        return text
    if key == "dice_with_previous" and text == "":
        return None
    return float(text) if "." in text else int(text)
