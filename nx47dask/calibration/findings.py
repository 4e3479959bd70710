"""What a calibration finds out about its best candidate: curves, neighbours, density targets, evidence of gains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, TypedDict, cast

import numpy as np

from nx47dask.calibration.candidates import Subject, field_of, labels_of, mask_of, scan_of
from nx47dask.calibration.methods.density import features, fit, held_out_errors
from nx47dask.calibration.methods.evidence import evidence
from nx47dask.calibration.methods.importance import one_at_a_time
from nx47dask.calibration.methods.space import Candidate, SearchSpace
from nx47dask.calibration.methods.table import threshold_table
from nx47dask.calibration.methods.tradeoff import CurvePoint, knee, operating_point, recall_cost, spread
from nx47dask.calibration.search import Evaluations
from nx47dask.engine import Batch, Pipeline, Task
from nx47dask.io import Volume
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.metrics.score import TERMS
from nx47dask.report.calibration.document import (
    CostRecord,
    DensityRecord,
    EvidenceRecord,
    KneeRecord,
    KneesRecord,
    Neighbour,
    PointRecord,
    TradeoffRecord,
)
from nx47dask.steps.base import ThresholdBasis
from nx47dask.steps.objects import SmallObjects
from nx47dask.steps.thresholds import Hysteresis, Threshold
from nx47dask.workflow import Workflow

__all__ = ["density_targets", "evidence_of_gains", "neighbours", "trade_offs"]

NEIGHBOURS, THRESHOLDS = 4, 10
"""Values of a key, and of the threshold, on the curve around the best candidate."""
VALUES = tuple(np.round(np.arange(0.05, 0.96, 0.05), 3).tolist())
QUANTILES = tuple(np.round(np.arange(0.7, 0.985, 0.0125), 4).tolist())
THRESHOLD_STEP = 1e-4


@dataclass(frozen=True, slots=True)
class TradeOffs:
    """Curves along the threshold of a workflow.

    Attributes
    ----------
    key : str
        Of the threshold.
    by : {"value", "volume", "slice"}
    volumes : dict of str to TradeoffRecord
    features : dict of str to dict
        What is known of each volume without labels.
    knees : KneesRecord or None
        None: no curve has a knee.
    """

    key: str
    by: ThresholdBasis
    volumes: dict[str, TradeoffRecord]
    features: dict[str, dict[str, float]]
    knees: KneesRecord | None


class MeasuredCurve(TypedDict):
    """Rows of threshold, density, precision and recall; and what is known of the volume without labels."""

    curve: list[list[float]]
    features: dict[str, float]


class MeasuredEvidence(TypedDict):
    """The evidence of a volume."""

    evidence: EvidenceRecord


@dataclass(frozen=True)
class Sweep:
    """The threshold of a workflow whose curve is drawn.

    Attributes
    ----------
    key : str
        Of the low threshold, or of the only one.
    value : float
    high : float or None
        The high threshold of a hysteresis.
    by : {"value", "volume", "slice"}
    least_vox : int
        Smallest object that stays.
    """

    key: str
    value: float
    high: float | None
    by: ThresholdBasis
    least_vox: int

    @classmethod
    def of(cls, workflow: Workflow) -> Sweep:
        """The threshold of a workflow; each has one."""
        least = max((one.step.min_vox for one in workflow.steps if isinstance(one.step, SmallObjects)), default=1)
        for one in workflow.steps:
            if isinstance(one.step, Hysteresis):
                return cls(f"postprocess.{one.name}.low", one.step.low, one.step.high, one.step.by, least)
            if isinstance(one.step, Threshold):
                return cls(f"postprocess.{one.name}.value", one.step.value, None, one.step.by, least)
        raise AssertionError(workflow.name)

    def at(self, candidate: Candidate) -> Sweep:
        """The same for a candidate that differs in thresholds and least object only."""
        step = self.key.rpartition(".")[0]
        least = [value for key, value in candidate.items() if key.endswith(".min_vox")]
        return replace(
            self,
            value=candidate.get(self.key, self.value),
            high=None if self.high is None else candidate.get(f"{step}.high", self.high),
            least_vox=max(least, default=self.least_vox) if self.least_vox > 1 else 1,
        )

    def thresholds(self, more: Sequence[float], most: float | None) -> list[float]:
        """Where the curve is measured; ``most``: the highest that a candidate may have."""
        usual = VALUES if self.by == "value" else QUANTILES
        return sorted(one for one in {*usual, self.value, *more} if most is None or one <= most)

    def high_at(self, low: float) -> float:
        """The high threshold of the curve's mask: never below the low one."""
        return low if self.high is None else max(low, self.high)


def neighbours(evaluations: Evaluations, space: SearchSpace, best: Candidate) -> Pipeline[dict[str, list[Neighbour]]]:
    """The score and its terms where one key of the best candidate is changed: a list of means by key."""
    threshold = Sweep.of(evaluations.workflow_of(best)).key
    finer = one_at_a_time(space, best, THRESHOLDS)
    around = {
        key: finer[key] if key == threshold else many for key, many in one_at_a_time(space, best, NEIGHBOURS).items()
    }
    around = {key: sorted([*many, best], key=lambda one: _order(one[key])) for key, many in around.items()}
    volumes = list(evaluations.subjects)
    wanted = [(one, volume, None) for many in around.values() for one in many for volume in volumes]
    yield from evaluations.ask("around", wanted)
    return {
        key: [
            {
                "value": one[key],
                "mean": {term: fmean(_terms(evaluations, one, volume)[term] for volume in volumes) for term in TERMS},
                "scores": {volume: _terms(evaluations, one, volume)["score"] for volume in volumes},
            }
            for one in many
        ]
        for key, many in around.items()
    }


def trade_offs(
    evaluations: Evaluations,
    best: Candidate,
    around: Mapping[str, Sequence[Neighbour]],
    scans: Mapping[str, ScanStatistics],
) -> Pipeline[TradeOffs]:
    """Recall and precision along the threshold of each volume, the knee, the cost of recall; features for a density.

    Precision, recall and density are those of the mask after thresholds and small objects, before later steps.
    """
    workflow = evaluations.workflow_of(best)
    sweep = Sweep.of(workflow)
    scored = around.get(sweep.key, [])
    fixed = None if sweep.key.removesuffix("low") + "high" in best else sweep.high
    thresholds = sweep.thresholds([neighbour["value"] for neighbour in scored], fixed)
    tasks = [
        Task(
            number,
            f"volume {volume}",
            measure_curve,
            (subject, workflow, sweep, thresholds, scans[volume]),
            key=f"{evaluations.identity(best)} {thresholds}",
        )
        for number, (volume, subject) in enumerate(evaluations.subjects.items())
    ]
    records: dict[int, MeasuredCurve] = yield Batch("curves", tasks, len(tasks), 0)
    tradeoffs: dict[str, TradeoffRecord] = {}
    knees = []
    for number, volume in enumerate(evaluations.subjects):
        scores = {neighbour["value"]: neighbour["scores"][volume] for neighbour in scored}
        rows = records[number]["curve"]
        curve = [CurvePoint(at, density, right, seen, scores.get(at)) for at, density, right, seen in rows]
        falls = knee([point.density for point in curve], [point.precision for point in curve])
        knees.append(falls)
        tradeoffs[volume] = {
            "curve": [_point(point) for point in curve],
            "operating": _point(operating_point(curve, sweep.value)),
            "recall_cost": cast("CostRecord", asdict(recall_cost(_filled(curve), sweep.value))),
            "knee": cast("KneeRecord", asdict(falls)) if falls else None,
        }
    features_of = {volume: records[number]["features"] for number, volume in enumerate(evaluations.subjects)}
    range_of_knees = spread(knees)
    summed = cast("KneesRecord", asdict(range_of_knees)) if range_of_knees else None
    return TradeOffs(sweep.key, sweep.by, tradeoffs, features_of, summed)


def _point(point: CurvePoint) -> PointRecord:
    return cast("PointRecord", asdict(point))


def measure_curve(
    subject: Subject, workflow: Workflow, sweep: Sweep, thresholds: list[float], scan: ScanStatistics
) -> MeasuredCurve:
    """Measure a volume along the threshold."""
    field = field_of(subject, workflow)
    highs = sorted({sweep.high_at(low) for low in thresholds})
    table = threshold_table(field, thresholds, highs, [sweep.least_vox], by=sweep.by, labels=labels_of(subject))
    measured = (table.density, table.precision, table.recall)
    rows = [
        [low, *(float(values[row, highs.index(sweep.high_at(low)), 0]) for values in measured)]
        for row, low in enumerate(thresholds)
    ]
    known = {name: value for name, value in asdict(scan).items() if isinstance(value, int | float)}
    return {"curve": rows, "features": features(known, field)}


def density_targets(evaluations: Evaluations, best: Candidate, curves: TradeOffs) -> Pipeline[DensityRecord]:
    """Does a density told without labels steer the threshold better than one threshold for all?

    The target of a volume is told by a model that has not seen it, and its threshold is the one that gives this
    density; the score decides.
    """
    volumes, key, known = curves.volumes, curves.key, curves.features
    targets = {volume: _best_density(tradeoff["curve"]) for volume, tradeoff in volumes.items()}
    if None in targets.values() or len(targets) < 2 or curves.by == "slice":
        return {}
    goals = {volume: target for volume, target in targets.items() if target is not None}
    steered: dict[str, tuple[float, Candidate]] = {}
    for volume in volumes:
        others = [one for one in volumes if one != volume]
        model = fit([known[one] for one in others], [goals[one] for one in others])
        predicted = model.predict(known[volume])
        steered[volume] = predicted, _moved(best, key, _threshold_at(volumes[volume]["curve"], predicted))
    yield from evaluations.ask("steered", [(one, volume, None) for volume, (_, one) in steered.items()])
    errors = held_out_errors(list(known.values()), list(goals.values()))
    return {
        "model": asdict(fit(list(known.values()), list(goals.values()))),
        "errors": asdict(errors) | {"helps": errors.helps},
        "volumes": {
            volume: {
                "target": goals[volume],
                "predicted": predicted,
                "threshold": one[key],
                "fixed_score": _terms(evaluations, best, volume)["score"],
                "steered_score": _terms(evaluations, one, volume)["score"],
            }
            for volume, (predicted, one) in steered.items()
        },
    }


def evidence_of_gains(
    evaluations: Evaluations, best: Candidate, baseline: Mapping[str, Volume]
) -> Pipeline[dict[str, EvidenceRecord]]:
    """Whether the voxels gained over the baseline's masks are surface, by volume."""
    workflow = evaluations.workflow_of(best)
    tasks = [
        Task(
            number,
            f"volume {volume}",
            measure_evidence,
            (subject, workflow, baseline[volume]),
            key=evaluations.identity(best),
        )
        for number, (volume, subject) in enumerate(evaluations.subjects.items())
    ]
    records: dict[int, MeasuredEvidence] = yield Batch("evidence", tasks, len(tasks), 0)
    return {volume: records[number]["evidence"] for number, volume in enumerate(evaluations.subjects)}


def measure_evidence(subject: Subject, workflow: Workflow, baseline: Volume) -> MeasuredEvidence:
    """See :func:`nx47dask.calibration.methods.evidence.evidence`."""
    before = baseline.read(subject.box) != 0
    found = evidence(scan_of(subject), before, mask_of(subject, workflow), labels_of(subject))
    return {"evidence": cast("EvidenceRecord", found.as_dict())}


def _terms(evaluations: Evaluations, candidate: Candidate, volume: str) -> dict[str, float]:
    found = evaluations.terms(candidate, volume)
    assert found is not None
    return found


def _filled(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """The curve with scores between those that were measured, as far as these go."""
    measured = {one.threshold: one.score for one in curve if one.score is not None}
    if not measured:
        return list(curve)
    at, scores = list(measured), list(measured.values())
    return [
        replace(one, score=float(np.interp(one.threshold, at, scores))) if at[0] <= one.threshold <= at[-1] else one
        for one in curve
    ]


def _order(value: Any) -> tuple[float, str]:
    """Numbers by size, other choices by their text."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (float(value), "") if number else (math.inf, str(value))


def _best_density(curve: Sequence[PointRecord]) -> float | None:
    """Density of the point with the best score, if any has one and the mask there is neither empty nor full."""
    scored = [(score, point["density"]) for point in curve if (score := point["score"]) is not None]
    if not scored:
        return None
    _, density = max(scored, key=lambda pair: pair[0])
    return density if 0 < density < 1 else None


def _moved(candidate: Candidate, key: str, threshold: float) -> Candidate:
    """A candidate with another low threshold; a high one is never below it."""
    high = key.removesuffix(".low") + ".high"
    return {**candidate, key: threshold} | ({high: max(candidate[high], threshold)} if high in candidate else {})


def _threshold_at(curve: Sequence[PointRecord], density: float) -> float:
    """Where the density of the curve, which falls with the threshold, reaches a value."""
    falling = list(reversed(curve))
    at = float(np.interp(density, [point["density"] for point in falling], [point["threshold"] for point in falling]))
    return max(THRESHOLD_STEP, round(math.floor(at / THRESHOLD_STEP) * THRESHOLD_STEP, 4))
