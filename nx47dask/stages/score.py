"""Score: compare masks with labels, octant by octant."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.engine import Batch, Pipeline, Task
from nx47dask.errors import InputError
from nx47dask.geometry import Block, BlockGrid, Box, Index
from nx47dask.io import ArrayStore, Volume, discover
from nx47dask.metrics.octants import octant_context, octants
from nx47dask.metrics.score import IGNORE, OctantMeasures, Score, combine_octants, measure_octant
from nx47dask.stages.load import StageLoad

__all__ = ["View", "check_labels", "find_labels", "labels_by_id", "require_shape", "score", "score_load"]

logger = logging.getLogger(__name__)

STAGE = "score"
REVISION = 1
"""Raised when the bits of a result change: part of the identity of every plan that uses it."""
SCORE_BYTES_PER_VOXEL = 48
"""Memory of scoring, per voxel of an octant with its halo."""
SLAB_SLICES = 64
"""Slices of labels that are checked at a time."""
LARGEST_OCTANT = 2**31 - 1
"""Most voxels of an octant with its halo: its voxels are numbered with 32 bits."""


@dataclass(frozen=True)
class View:
    """A box of a volume, read in coordinates that start at 0."""

    source: Volume | ArrayStore
    box: Box

    @classmethod
    def whole(cls, volume: Volume) -> View:
        """Make a view of a whole volume."""
        return cls(volume, Box.of_shape(volume.shape))

    def read(self, box: Box) -> NDArray[Any]:
        """Read the voxels of a box of the view."""
        wanted = box.shift(self.box.start)
        if isinstance(self.source, ArrayStore) or self.source.kind == "zarr":
            return self.source.read(wanted)
        # A TIFF is decoded by whole pages, and the octants of one half need the same pages.
        slab = _slab(self.source, wanted.start[0], wanted.stop[0])
        return slab[(slice(None), *wanted.slices[1:])]


@lru_cache(maxsize=2)
def _slab(volume: Volume, start: int, stop: int) -> NDArray[Any]:
    return volume.read(Box((start, 0, 0), (stop, *volume.shape[1:])))


def find_labels(labels: str | Path, shapes: Mapping[str, Index]) -> dict[str, Volume]:
    """Find the labels of volumes, by id; a warning names labels of other volumes, which are not used.

    Raises
    ------
    InputError
        Labels are missing or have another shape than their volume.
    """
    known = labels_by_id(labels, list(shapes))
    for name, shape in shapes.items():
        require_shape(known[name], name, shape)
    return known


def labels_by_id(labels: str | Path, names: Sequence[str]) -> dict[str, Volume]:
    """Find the labels of the named volumes, of any shape; see :func:`find_labels`."""
    known = {volume.id: volume for volume in discover([labels], masks=True)}
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(
            f"{labels}: no labels of {', '.join(missing[:5])}{_more(missing)}; the {len(known)} labels there are of "
            f"{', '.join(list(known)[:5])}{_more(list(known))}",
            hint="names must be those of the volumes",
        )
    unused = [name for name in known if name not in names]
    if unused:
        logger.warning("%s: not used, there is no mask of %s%s", labels, ", ".join(unused[:5]), _more(unused))
    return {name: known[name] for name in names}


def check_labels(labels: Volume) -> None:
    """Read labels from end to end, slab by slab, so that bad ones are refused before hours of work.

    Raises
    ------
    InputError
        They hold other values than 0, 1, 2, or no 1 at all.
    """
    surface = False
    for z in range(0, labels.shape[0], SLAB_SLICES):
        box = Box((z, 0, 0), (min(z + SLAB_SLICES, labels.shape[0]), *labels.shape[1:]))
        slab = labels.read(box)
        _refuse_values(slab, View.whole(labels), box)
        surface = surface or bool((slab == 1).any())
    if not surface:
        _refuse_empty(View.whole(labels))


def score(prediction: View, labels: View) -> Pipeline[Score]:
    """Score a volume; return what :func:`~nx47dask.metrics.score.official_score` returns."""
    grid = octants(prediction.box.shape)
    _refuse_large(labels, grid)
    fingerprint = labels.source.fingerprint if isinstance(labels.source, Volume) else ""
    key = f"{fingerprint} revision {REVISION}"
    tasks = (
        Task(octant.number, f"octant {octant.number} [{octant.box}]", score_octant, (prediction, labels, octant),
             octant.box.size, key=key)
        for octant in grid
    )  # fmt: skip
    records: dict[int, OctantMeasures] = yield Batch(STAGE, tasks, len(grid), prediction.box.size)
    if not any(record["voxels"][4] for record in records.values()):
        _refuse_empty(labels)
    return combine_octants(grid, records)


def score_load(box: Box) -> StageLoad:
    """Bound the load of the stage for a mask of a box."""
    grid = octants(box.shape)
    sizes = [octant_context(grid, octant).size for octant in grid]
    return StageLoad(STAGE, "masks against labels", len(sizes), sum(sizes), max(sizes) * SCORE_BYTES_PER_VOXEL, 0)


def score_octant(prediction: View, labels: View, octant: Block) -> OctantMeasures:
    """Read an octant with its halo from mask and labels, and measure it."""
    grid = octants(prediction.box.shape)
    context = octant_context(grid, octant)
    label = labels.read(context)
    _refuse_values(label, labels, context)
    return measure_octant(grid, octant, prediction.read(context), label)


def require_shape(labels: Volume, name: str, shape: Index) -> None:
    """Refuse labels of another shape than their volume."""
    if labels.shape != shape:
        raise InputError(
            f"{labels.path}: the labels of {name} have the shape {_by(labels.shape)}, the volume has {_by(shape)}"
        )


def _refuse_large(view: View, grid: BlockGrid) -> None:
    """Refuse a mask whose largest octant has more voxels than 32 bits can number."""
    largest = max(octant_context(grid, octant).size for octant in grid)
    if largest > LARGEST_OCTANT:
        raise InputError(
            f"{_path(view)}: an octant has {largest:,} voxels, at most {LARGEST_OCTANT:,} can be scored",
            hint="run and score a part with --bbox",
        )


def _refuse_values(labels: NDArray[Any], view: View, box: Box) -> None:
    if labels.size and labels.max() > IGNORE:
        values = ", ".join(map(str, np.unique(labels)[:8]))
        raise InputError(
            f"{_path(view)}, box {box}: labels are 0 (background), 1 (surface) and 2 (left out), these are {values}",
            hint="write surfaces as 1 and what is not labelled as 2",
        )


def _refuse_empty(view: View) -> None:
    raise InputError(
        f"{_path(view)}: no voxel of {view.box.size:,} is labelled 1 (surface), so there is nothing to score against",
        hint="take other labels, or leave this volume out",
    )


def _path(view: View) -> str:
    return str(view.source.path)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _more(names: list[str]) -> str:
    return f" and {len(names) - 5} more" if len(names) > 5 else ""
