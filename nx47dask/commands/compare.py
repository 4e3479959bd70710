"""Compare two runs over the same volumes: masks, measures, scores, and what the runs were made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from nx47dask.cluster.where import Where, WhereOptions
from nx47dask.commands.pipelines import run_pipelines
from nx47dask.engine import Batch, Pipeline, Task
from nx47dask.errors import InputError
from nx47dask.files.paths import locate
from nx47dask.geometry import Box
from nx47dask.io import Volume, discover
from nx47dask.metrics.masks import joint_counts, overlap
from nx47dask.metrics.paired import as_dict
from nx47dask.metrics.score import Score
from nx47dask.reports.compare import refuse_other_files, write_comparison
from nx47dask.reports.documents import (
    ComparedDefects,
    ComparedRun,
    Comparison,
    DefectCounts,
    GatedComparison,
    OverallComparison,
    Sides,
    VolumeComparison,
)
from nx47dask.runs.baselines import BASELINES, find_run, read_external
from nx47dask.runs.differences import manifest_differences
from nx47dask.runs.gates import check_gates, gates_first, parse_gates
from nx47dask.runs.manifest import LabelsRecord, VolumeMetrics
from nx47dask.runs.measures import SIDES, mean_measures, paired_measures, volume_measures
from nx47dask.runs.run import Run
from nx47dask.stages.score import View, find_labels
from nx47dask.stages.score import score as score_volume
from nx47dask.words import few_volumes

__all__ = ["compare"]

T = TypeVar("T")

STAGE = "compare"
SLAB_VOXELS = 8 << 20
"""Voxels of each mask that a task reads at a time."""
WORST_SLICES, APART_SLICES = 5, 8
"""Number of worst slices that are listed, and their least distance: neighbours show the same place."""


@dataclass(frozen=True)
class _Pair:
    """The two masks of a volume, the box of it that they cover, and the metrics of each run."""

    id: str
    masks: tuple[Volume, Volume]
    box: Box
    metrics: tuple[VolumeMetrics, VolumeMetrics]


def compare(
    baseline: str | Path | Run,
    candidate: str | Path | Run,
    out: str | Path | None = None,
    *,
    labels: str | Path | None = None,
    gates: str | None = None,
    baselines: str | Path = BASELINES,
    where: Where | None = None,
    **options: Unpack[WhereOptions],
) -> GatedComparison:
    """Compare two runs, or frozen baselines, over the same volumes.

    Parameters
    ----------
    baseline, candidate : str, path or Run
        A run folder, or a frozen baseline by name or folder. Differences are candidate - baseline.
    out : path, optional
        Folder for ``compare.md``, ``.csv``, ``.json`` and ``.html``; by default nothing is written.
    labels : path, optional
        Folder of labels to score both runs against. A run that was scored with the same labels keeps its scores,
        another run is scored now. Without labels, scores are compared if both runs were scored with the same labels.
    gates : str, optional
        Limits on differences of means, such as ``score>=0,recall>=-0.01``.
    baselines : path
        Folder of the frozen baselines.
    where, **options
        As for :func:`nx47dask.run`.

    Returns
    -------
    GatedComparison
        JSON values, as in ``compare.json``; ``docs/comparing.md`` describes them. ``gates`` has the verdict of each
        gate. The same runs give the same values.

    Raises
    ------
    InputError
        The runs differ in their volumes, or in the shapes or boxes of their masks; masks are missing or do not fit
        their metrics; a run is not finished; labels are missing; a gate cannot be read; ``out`` holds other files.
    GateError
        A baseline has changed since it was frozen, or the masks of a run since they were written; or a gate failed
        and the files could not be written.

    Examples
    --------
    Compare a run with a run of another parameter:

    >>> import nx47dask
    >>> (volume,) = nx47dask.write_phantom("sample", (24, 32, 32), seed=1)
    >>> options = {"workflow": "v61.1", "labels": "sample/train_labels", "serial": True}
    >>> before = nx47dask.run(["sample/train_images"], "before", **options)
    >>> wider = ["detect.residual_band.sigma_base=2"]
    >>> now = nx47dask.run(["sample/train_images"], "now", overrides=wider, **options)
    >>> comparison = nx47dask.compare(before, now, gates="score>=0", serial=True)
    >>> round(comparison["paired"]["score"]["mean"], 3)
    0.006
    >>> [(gate["gate"], gate["passed"]) for gate in comparison["gates"]]
    [('score>=0', True)]
    >>> [change["path"] for change in comparison["differences"]["workflow"]]
    ['workflow.detect.residual_band.sigma_base']
    """
    where = Where.of(where, **options)
    runs = (find_run(baseline, Path(baselines)), find_run(candidate, Path(baselines)))
    if out is not None:
        refuse_other_files(Path(out))
    limits = parse_gates(gates, scored=_have_scores(*runs, labels)) if gates else []
    compared = _comparison(runs, labels, where)
    results = check_gates(limits, *(compared["means"][side] for side in SIDES))
    comparison: GatedComparison = {**compared, "gates": [result.as_dict() for result in results]}
    if out is not None:
        with gates_first(results):
            write_comparison(comparison, Path(out))
    return comparison


def _comparison(runs: tuple[Run, Run], labels: str | Path | None, where: Where) -> Comparison:
    """Compare the masks on the cluster, and the measures and manifests here."""
    baseline, candidate = runs
    pairs = _pairs(*runs)
    shapes = {volume: baseline[volume].shape for volume in baseline.volumes}
    given = find_labels(labels, shapes) if labels else {}
    known = [_known_scores(run, runs, given) for run in runs]
    pipelines = {
        pair.id: _process(pair, given.get(pair.id), [scores.get(pair.id) for scores in known]) for pair in pairs
    }
    done = run_pipelines(pipelines, where)
    volumes = {pair.id: done[pair.id] for pair in pairs}
    return {
        "schema": 1,
        "baseline": _side(baseline),
        "candidate": _side(candidate),
        "labels": _labels(runs, given),
        "notes": _notes(runs, volumes, labels, given),
        **_overall(volumes),
        "volumes": volumes,
        "differences": manifest_differences(baseline.manifest, candidate.manifest),
    }


def _have_scores(baseline: Run, candidate: Run, labels: str | Path | None) -> bool:
    """Return True if a comparison with these arguments has scores."""
    if labels is not None:
        return True
    return bool(baseline.scores and candidate.scores) and baseline.labels == candidate.labels


class SlabCounts(TypedDict):
    """Joint counts of two masks in a slab, shape (3, slices), as in :func:`~nx47dask.metrics.masks.joint_counts`."""

    counts: list[list[int]]


def compare_slab(baseline: Volume, candidate: Volume, box: Box) -> SlabCounts:
    """Count the voxels of both masks in a slab of slices."""
    return {"counts": joint_counts(baseline.read(box), candidate.read(box)).tolist()}


def _process(pair: _Pair, labels: Volume | None, known: Sequence[Score | None]) -> Pipeline[VolumeComparison]:
    """Compare the masks of a volume, and score those that have no score for these labels."""
    counts = yield from _count(pair)
    scores = []
    for mask, score in zip(pair.masks, known, strict=True):
        if score is None and labels is not None:
            score = yield from score_volume(View.whole(mask), View(labels, pair.box))
        scores.append(score)
    return _volume(pair, counts, scores)


def _count(pair: _Pair) -> Pipeline[NDArray[np.int64]]:
    """Count voxels of both masks jointly, shape (3, Z), as :func:`~nx47dask.metrics.masks.joint_counts` does."""
    depth, height, width = pair.box.shape
    step = max(1, SLAB_VOXELS // (height * width))
    boxes = [Box((z, 0, 0), (min(z + step, depth), height, width)) for z in range(0, depth, step)]
    tasks = (Task(n, f"slices [{box}]", compare_slab, (*pair.masks, box), box.size) for n, box in enumerate(boxes))
    records: dict[int, SlabCounts] = yield Batch(STAGE, tasks, len(boxes), pair.box.size)
    return np.concatenate([np.array(records[n]["counts"], dtype=np.int64) for n in range(len(boxes))], axis=1)


def _pairs(baseline: Run, candidate: Run) -> list[_Pair]:
    sides = (baseline, candidate)
    for run in sides:
        run.require_finished("compare")
    only = [[name for name in a.volumes if name not in b.volumes] for a, b in (sides, sides[::-1])]
    if any(only):
        raise InputError(
            "the runs have other volumes: "
            + "; ".join(
                f"only in {run.path}: {', '.join(names) or 'none'}" for run, names in zip(sides, only, strict=True)
            )
            + "; compare runs of the same volumes"
        )
    return [_pair(baseline, candidate, volume) for volume in baseline.volumes]


def _pair(baseline: Run, candidate: Run, volume: str) -> _Pair:
    a, b = _mask(baseline, volume), _mask(candidate, volume)
    if a.shape != b.shape:
        raise InputError(
            f"volume {volume}: the masks differ in shape: {a.shape} in {baseline.path}, {b.shape} in {candidate.path}",
            hint="compare runs of the same volumes",
        )
    boxes = [run[volume].box for run in (baseline, candidate)]
    if boxes[0] != boxes[1]:
        raise InputError(
            f"volume {volume}: the masks cover other parts: {boxes[0]} in {baseline.path}, {boxes[1]} in "
            f"{candidate.path}",
            hint="compare runs with the same --bbox",
        )
    return _Pair(volume, (a, b), boxes[0], (baseline[volume].metrics, candidate[volume].metrics))


def _mask(run: Run, volume: str) -> Volume:
    path = run.path / "masks" / f"{volume}.tif"
    if not path.is_file():
        raise InputError(f"{run.path}: no mask of volume {volume} (masks/{volume}.tif is missing)", hint="run it again")
    (mask,) = discover([path], masks=True)
    return mask


def _known_scores(run: Run, runs: tuple[Run, Run], labels: Mapping[str, Volume]) -> Mapping[str, Score]:
    """Return the scores of a run that can be compared: against the given labels, or those of the other run."""
    usable = run.scored_with(labels) if labels else _have_scores(*runs, None)
    return run.scores if usable else {}


def _volume(pair: _Pair, counts: NDArray[np.int64], scores: Sequence[Score | None]) -> VolumeComparison:
    """Return the comparison of a volume as JSON values."""
    a, b, common = (int(total) for total in counts.sum(axis=1))
    for side, voxels, metrics in zip(pair.masks, (a, b), pair.metrics, strict=True):
        if voxels != metrics["mask"]["voxels"]:
            raise InputError(
                f"{side.path}: the mask has {voxels:,} voxels, the metrics of its run say "
                f"{metrics['mask']['voxels']:,}; it was changed since",
                hint="nx47dask verify names what else was",
            )
    dice, iou = overlap(a, b, common)
    slice_dice = [overlap(*map(int, column))[0] for column in counts.T]
    differing = (counts[0] + counts[1] - 2 * counts[2]).tolist()
    measured = [metrics["mask"] for metrics in pair.metrics]
    first_z = pair.box.start[0]
    return {
        "shape": list(pair.box.shape),
        "first_z": first_z,
        "masks": {"dice": dice, "iou": iou, "added_vox": b - common, "removed_vox": a - common},
        "betti": _sides([mask["betti"] for mask in measured]),
        "measures": _sides([volume_measures(mask, score) for mask, score in zip(measured, scores, strict=True)]),
        **_both_defects(scores),
        "worst_slices": [
            {"z": first_z + z, "dice": slice_dice[z], "differing_vox": differing[z]} for z in _worst(differing)
        ],
        "slices": {"dice": [round(value, 6) for value in slice_dice], "differing_vox": differing},
    }


def _worst(differing: Sequence[int]) -> list[int]:
    """Find the slices in which most voxels differ, at some distance from each other, the worst first."""
    worst: list[int] = []
    for z in sorted((z for z, voxels in enumerate(differing) if voxels), key=lambda z: (-differing[z], z)):
        if len(worst) < WORST_SLICES and all(abs(z - chosen) >= APART_SLICES for chosen in worst):
            worst.append(z)
    return worst


def _both_defects(scores: Sequence[Score | None]) -> ComparedDefects:
    known = [score for score in scores if score]
    return {"defects": _sides([_defects(score) for score in known])} if len(known) == len(scores) else {}


def _defects(score: Score) -> DefectCounts:
    defects = score["defects"]
    return DefectCounts(holes=defects["holes"]["count"], bridges=defects["bridges"]["count"])


def _overall(volumes: Mapping[str, VolumeComparison]) -> OverallComparison:
    """Summarise all volumes: means of both runs, paired differences, and agreement of the masks."""
    measures = [[volume["measures"][side] for volume in volumes.values()] for side in SIDES]
    masks = [volume["masks"] for volume in volumes.values()]
    return {
        "means": _sides([mean_measures(side) for side in measures]),
        "paired": {name: as_dict(difference) for name, difference in paired_measures(*measures).items()},
        "masks": {
            "dice": sum(mask["dice"] for mask in masks) / len(masks),
            "iou": sum(mask["iou"] for mask in masks) / len(masks),
            "added_vox": sum(mask["added_vox"] for mask in masks),
            "removed_vox": sum(mask["removed_vox"] for mask in masks),
            "identical_volumes": sum(mask["added_vox"] == mask["removed_vox"] == 0 for mask in masks),
        },
    }


def _sides(values: Sequence[T]) -> Sides[T]:
    baseline, candidate = values
    return {"baseline": baseline, "candidate": candidate}


def _side(run: Run) -> ComparedRun:
    manifest = run.manifest
    return {
        "path": str(run.path),
        "workflow": manifest["workflow"]["name"],
        "nx47dask": manifest["nx47dask"],
        "plan_sha256": manifest["plan_sha256"],
        "external": read_external(run.path),
    }


def _labels(runs: tuple[Run, Run], given: Mapping[str, Volume]) -> Mapping[str, LabelsRecord]:
    """Return the labels that the scores are against, by volume, as a manifest names them; empty without scores."""
    if given:
        return {
            name: LabelsRecord(path=of.path, kind=of.kind, fingerprint=of.fingerprint) for name, of in given.items()
        }
    return dict(runs[1].manifest["labels"]) if _have_scores(*runs, None) else {}


def _notes(
    runs: tuple[Run, Run],
    volumes: Mapping[str, VolumeComparison],
    labels: str | Path | None,
    given: Mapping[str, Volume],
) -> list[str]:
    """Write notes that a reader of the numbers should know."""
    notes = []
    if labels is not None:
        now = [str(run.path) for run in runs if not run.scored_with(given)]
        how = f"; scored with them now: {' and '.join(now)}" if now else ", as both runs were scored before"
        notes.append(f"Scores of both runs are against the labels given, {labels}{how}.")
    elif _have_scores(*runs, None):
        folders = sorted({str(locate(recorded["path"]).parent) for recorded in runs[1].manifest["labels"].values()})
        notes.append(f"Scores are those that both runs have for the same labels, {' and '.join(folders)}.")
    elif all(run.scores for run in runs):
        notes.append("The runs were scored with other labels, so scores are left out; --labels scores both alike.")
    elif any(run.scores for run in runs):
        notes.append("Only one of the runs was scored, so scores are left out; --labels scores both.")
    return notes + few_volumes(len(volumes))
