"""Collect measures of masks and scores by name: of a volume, means over volumes, paired differences of two runs.

Reports, comparisons, campaigns and gates take their names and numbers from this module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from nx47dask.metrics.paired import PairedDifference, paired_difference
from nx47dask.metrics.score import Score
from nx47dask.metrics.shape import MaskShape
from nx47dask.metrics.terms import SCORES, TERMS
from nx47dask.runs.run import Run, RunVolume

__all__ = [
    "MASK_NAMES",
    "NAMES",
    "SCORE_NAMES",
    "SIDES",
    "TITLES",
    "mean_measures",
    "paired_measures",
    "run_measures",
    "score_means",
    "shared_measures",
    "volume_measures",
]

Side = Literal["baseline", "candidate"]
SIDES: tuple[Side, Side] = ("baseline", "candidate")
"""Names of two runs that are compared."""
AGREEMENT: tuple[Literal["precision", "recall", "dice"], ...] = ("precision", "recall", "dice")
CLEAN = "clean_volumes"

SCORE_NAMES = (*SCORES, *AGREEMENT, *(f"{name}_2" for name in AGREEMENT), CLEAN)
"""Means that need labels."""
MASK_NAMES = ("density", "components")
"""Means that every run has."""
NAMES = (*SCORE_NAMES, *MASK_NAMES)
TITLES: dict[str, str] = {
    "score": "score",
    **{name: term.title for name, term in TERMS.items()},
    "precision": "precision",
    "recall": "recall",
    "dice": "Dice with the labels",
    "precision_2": "precision, 2 voxels",
    "recall_2": "recall, 2 voxels",
    "dice_2": "Dice, 2 voxels",
    "clean_volumes": "clean volumes",
    "density": "density",
    "components": "components",
}
"""Names of the measures in tables."""


def volume_measures(mask: MaskShape, score: Score | None) -> dict[str, float]:
    """Return the measures of a volume by name.

    Parameters
    ----------
    mask : MaskShape
    score : Score or None
        None without labels.

    Returns
    -------
    dict of str to float
        ``NAMES``, with ``clean`` (1 if no feature is spurious, else 0) instead of ``clean_volumes``; without a score,
        ``MASK_NAMES``.
    """
    measures = {"density": float(mask["density"]), "components": float(mask["components_26"])}
    return measures if score is None else _score_measures(score) | measures


def score_means(scores: Mapping[str, Score]) -> dict[str, float]:
    """Average the scores of volumes and count volumes without a spurious feature: ``mean`` of ``volumes.json``."""
    means = mean_measures([_score_measures(score) for score in scores.values()])
    return {**means, CLEAN: int(means[CLEAN]), "volumes": len(scores)}


def _score_measures(score: Score) -> dict[str, float]:
    measures: dict[str, float] = {name: float(score[name]) for name in SCORES}
    for tolerance, suffix in (("0", ""), ("2", "_2")):
        measures |= {f"{name}{suffix}": float(score["agreement"][tolerance][name]) for name in AGREEMENT}
    spurious = any(predicted > matched for matched, predicted, _ in score["counts"])
    clean = not spurious and not any(kind["count"] for kind in score["defects"].values())
    return measures | {"clean": float(clean)}


def run_measures(run: Run) -> dict[str, dict[str, float]]:
    """Return the measures of the volumes of a run, by id."""
    volumes = run.volume_metrics.items()
    return {name: volume_measures(metrics["mask"], metrics.get("score")) for name, metrics in volumes}


def shared_measures(baseline: Run, candidate: Run) -> dict[str, tuple[dict[str, float], dict[str, float]]]:
    """Return the measures that two runs share, for each volume that can be compared, by id.

    A volume can be compared if both runs have the same box of it, its scores if they are against the same labels.
    """
    before, now = run_measures(baseline), run_measures(candidate)
    shared = {}
    for volume in candidate.volumes:
        if not (volume in baseline.volumes and _same_part(baseline[volume], candidate[volume])):
            continue
        same_labels = baseline.labels.get(volume) == candidate.labels.get(volume)
        names = [name for name in now[volume] if name in before[volume] and (same_labels or name in MASK_NAMES)]
        shared[volume] = ({name: before[volume][name] for name in names}, {name: now[volume][name] for name in names})
    return shared


def _same_part(before: RunVolume, now: RunVolume) -> bool:
    return (before.shape, before.box) == (now.shape, now.box)


def mean_measures(volumes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average each measure over the volumes that have it; ``clean_volumes`` is a count."""
    means = {}
    for name in NAMES:
        key = "clean" if name == CLEAN else name
        values = [measures[key] for measures in volumes if key in measures]
        if values:
            means[name] = math.fsum(values) / (1 if name == CLEAN else len(values))
    return means


def paired_measures(
    baseline: Sequence[Mapping[str, float]], candidate: Sequence[Mapping[str, float]]
) -> dict[str, PairedDifference]:
    """Compute the paired difference of each measure over the volumes that have it in both runs.

    Parameters
    ----------
    baseline, candidate : sequence of mapping
        Measures of the same volumes in the same order.
    """
    differences = {}
    for name in NAMES:
        pairs = [(a[name], b[name]) for a, b in zip(baseline, candidate, strict=True) if name in a and name in b]
        if pairs:
            differences[name] = paired_difference(*zip(*pairs, strict=True))
    return differences
