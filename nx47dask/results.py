"""A run folder to look at: lazy arrays for notebooks, metrics as records."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nx47dask.errors import InputError
from nx47dask.geometry import parse_bbox

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["Run", "RunVolume", "open_run"]


@dataclass(frozen=True)
class RunVolume:
    """One volume of a finished run.

    Attributes
    ----------
    id : str
    image, probability, mask : dask.array.Array
        The scan as it was given (uint8 or uint16), the surface probability (uint8: 255 is 1), the mask (uint8: 0 or
        1), shape (Z, Y, X), read when computed. With ``--bbox``, all three cover the box.
    """

    id: str
    run: Run

    @property
    def image(self) -> da.Array:
        source = self.run.manifest["inputs"][self.id]
        whole = (
            self._array(Path(source["path"]) / source["component"])
            if source["kind"] == "zarr"
            else self._array(self._store / "image" / "0")
        )
        cropped: da.Array = whole[(*(0,) * (whole.ndim - 3), *self._box.slices)]
        return cropped

    @property
    def probability(self) -> da.Array:
        return self._result("probability")

    @property
    def mask(self) -> da.Array:
        return self._result("mask")

    @property
    def metrics(self) -> dict[str, Any]:
        """What ``metrics/volumes.json`` says of the volume."""
        metrics: dict[str, Any] = self.run.volume_metrics[self.id]
        return metrics

    @property
    def _store(self) -> Path:
        return self.run.path / "store" / f"{self.id}.zarr"

    @property
    def _box(self) -> Any:
        source = self.run.manifest["inputs"][self.id]
        return parse_bbox(source["box"], tuple(source["shape"]))

    def _result(self, name: str) -> da.Array:
        source = self.run.manifest["inputs"][self.id]
        origin = parse_bbox(source["work"], tuple(source["shape"])).start
        cropped: da.Array = self._array(self._store / name / "0")[self._box.relative_to(origin).slices]
        return cropped

    def _array(self, path: Path) -> da.Array:
        import dask.array as da

        if not path.is_dir():
            raise InputError(f"{path}: not there; the store of volume {self.id} was moved or deleted")
        array: da.Array = da.from_zarr(str(path))
        return array


@dataclass(frozen=True)
class Run:
    """A finished run.

    ``run["<id>"]`` is one volume; ``run.image``, ``run.probability`` and ``run.mask`` are those of the only volume.

    Attributes
    ----------
    path : Path
        The run folder.
    """

    path: Path

    def __getitem__(self, volume: str) -> RunVolume:
        if volume not in self.volumes:
            raise InputError(f"{self.path}: no volume {volume!r}; it has {', '.join(self.volumes)}")
        return RunVolume(volume, self)

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
    def metrics(self) -> list[dict[str, Any]]:
        """One record per slice, as in ``metrics/slices.csv``, with numbers as numbers (None: no slice before)."""
        with (self.path / "metrics" / "slices.csv").open(newline="", encoding="utf-8") as stream:
            return [{key: _value(key, text) for key, text in row.items()} for row in csv.DictReader(stream)]

    @cached_property
    def volume_metrics(self) -> dict[str, Any]:
        """``metrics/volumes.json`` by volume."""
        return dict(json.loads((self.path / "metrics" / "volumes.json").read_text(encoding="utf-8"))["volumes"])

    @property
    def scores(self) -> dict[str, Any]:
        """The score of each volume; empty where the run had no labels."""
        return {name: metrics["score"] for name, metrics in self.volume_metrics.items() if "score" in metrics}

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """``manifest.json``."""
        return dict(json.loads((self.path / "manifest.json").read_text(encoding="utf-8")))

    def _only(self) -> RunVolume:
        if len(self.volumes) != 1:
            raise InputError(f"{self.path}: {len(self.volumes)} volumes; name one, such as run[{self.volumes[0]!r}]")
        return self[self.volumes[0]]


def open_run(path: str | Path) -> Run:
    """Open the folder of a finished run.

    Raises
    ------
    InputError
        There is no finished run.
    """
    run = Run(Path(path))
    if not (run.path / "manifest.json").is_file():
        raise InputError(f"{path}: no finished run here (manifest.json is missing); resume it with --resume")
    return run


def _value(key: str, text: str) -> str | int | float | None:
    if key == "volume":
        return text
    if text == "":
        return None
    return float(text) if "." in text else int(text)
