"""Score masks of any origin against labels: files, folders, run folders."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, Unpack

from nx47dask.cluster.where import Where, WhereOptions
from nx47dask.commands.pipelines import run_pipelines
from nx47dask.files.paths import locate
from nx47dask.geometry import Box, Index
from nx47dask.io import Volume, discover
from nx47dask.metrics.score import Score
from nx47dask.runs.baselines import find_run
from nx47dask.runs.measures import score_means
from nx47dask.stages.score import View, labels_by_id, require_shape
from nx47dask.stages.score import score as score_volume

__all__ = ["VolumeScores", "score"]


class VolumeScores(TypedDict):
    """Scores of masks.

    Attributes
    ----------
    volumes : dict of str to Score
        By id.
    mean : dict of str to float
        Means over the volumes, and how many of them have no spurious feature.
    """

    volumes: dict[str, Score]
    mean: dict[str, float]


def score(
    predictions: str | Path,
    labels: str | Path,
    *,
    where: Where | None = None,
    **options: Unpack[WhereOptions],
) -> VolumeScores:
    """Score masks against labels of the same ids.

    Parameters
    ----------
    predictions : path
        A mask, a folder of masks, or a run folder; TIFF or Zarr, any non-zero value is surface.
    labels : path
        Labels, or a folder of them: 0 background, 1 surface, 2 left out.
    where, **options
        As for :func:`nx47dask.run`.

    Returns
    -------
    VolumeScores
        A dict of JSON values.

    Raises
    ------
    InputError
        Labels are missing, of another shape, empty, or hold other values.
    GateError
        The masks of a run are not those that it wrote.
    """
    where = Where.of(where, **options)
    found, boxes = _find_masks(locate(predictions))
    if len(found) == 1 and locate(labels).is_file():
        # Two files are a pair, whatever their names.
        (name,) = found
        wanted = {name: discover([labels], masks=True)[0]}
    else:
        wanted = labels_by_id(labels, list(found))
    pairs = {name: (View.whole(found[name]), _view(wanted[name], name, *boxes[name])) for name in found}
    pipelines = {name: score_volume(*pair) for name, pair in pairs.items()}
    scores = run_pipelines(pipelines, where)
    ordered = {name: scores[name] for name in found}
    return {"volumes": ordered, "mean": score_means(ordered)}


def _find_masks(predictions: Path) -> tuple[dict[str, Volume], dict[str, tuple[Index, Box]]]:
    """Masks by id, the shape of the volume that each belongs to, and the box of it that it covers."""
    if (predictions / "manifest.json").is_file():
        run = find_run(predictions)
        run.require_finished("score it")
        found = {mask.id: mask for mask in discover([predictions / "masks"], masks=True)}
        return found, {name: (run[name].shape, run[name].box) for name in found}
    found = {mask.id: mask for mask in discover([predictions], masks=True)}
    return found, {name: (mask.shape, Box.of_shape(mask.shape)) for name, mask in found.items()}


def _view(labels: Volume, name: str, shape: Index, box: Box) -> View:
    """Labels where the mask is: those of the whole volume, or of just the mask's box."""
    if labels.shape == box.shape:
        return View.whole(labels)
    require_shape(labels, name, shape)
    return View(labels, box)
