"""Score masks of any origin against labels: files, folders or run folders."""

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
        ``volumes``: by id, the dict of :func:`~nx47dask.metrics.score.official_score`; ``mean``: their means.

    Raises
    ------
    InputError
        Labels are missing, of another shape, empty, or hold other values.
    GateError
        The masks of a run have changed since they were written.

    Examples
    --------
    Score masks; here the labels of a synthetic volume stand for perfect masks:

    >>> import nx47dask
    >>> (volume,) = nx47dask.write_phantom("sample", (24, 32, 32), seed=1)
    >>> scores = nx47dask.score("sample/train_labels", "sample/train_labels", serial=True)
    >>> scores["volumes"][volume]["surface_dice"]
    1.0
    >>> scores["mean"]["score"], scores["mean"]["volumes"]
    (1.0, 1)
    """
    where = Where.of(where, **options)
    masks, boxes = _find_masks(locate(predictions))
    if len(masks) == 1 and locate(labels).is_file():
        # Two files are a pair, whatever their names.
        (name,) = masks
        wanted = {name: discover([labels], masks=True)[0]}
    else:
        wanted = labels_by_id(labels, list(masks))
    pairs = {name: (View.whole(masks[name]), _view(wanted[name], name, *boxes[name])) for name in masks}
    pipelines = {name: score_volume(*pair) for name, pair in pairs.items()}
    scores = run_pipelines(pipelines, where)
    ordered = {name: scores[name] for name in masks}
    return {"volumes": ordered, "mean": score_means(ordered)}


def _find_masks(predictions: Path) -> tuple[dict[str, Volume], dict[str, tuple[Index, Box]]]:
    """Find masks by id, and by id the shape of the whole volume and the box of it that the mask covers."""
    if (predictions / "manifest.json").is_file():
        run = find_run(predictions)
        run.require_finished("score it")
        masks = {mask.id: mask for mask in discover([predictions / "masks"], masks=True)}
        return masks, {name: (run[name].shape, run[name].box) for name in masks}
    masks = {mask.id: mask for mask in discover([predictions], masks=True)}
    return masks, {name: (mask.shape, Box.of_shape(mask.shape)) for name, mask in masks.items()}


def _view(labels: Volume, name: str, shape: Index, box: Box) -> View:
    """View the labels in the box of the mask; they cover the whole volume or just that box."""
    if labels.shape == box.shape:
        return View.whole(labels)
    require_shape(labels, name, shape)
    return View(labels, box)
