"""Findings about the best candidate: neighbours, curves along the threshold, evidence that gains are real."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, TypedDict, cast

import numpy as np

from nx47dask.calibration.candidates import Subject, field_of, labels_of, mask_of, scan_of
from nx47dask.calibration.methods.evidence import evidence
from nx47dask.calibration.methods.importance import one_at_a_time
from nx47dask.calibration.methods.space import Candidate, SearchSpace, role_of, sibling
from nx47dask.calibration.methods.table import threshold_table
from nx47dask.calibration.methods.tradeoff import CurvePoint, knee, operating_point, recall_cost, spread
from nx47dask.calibration.search import Evaluations
from nx47dask.engine import Batch, Pipeline, Task
from nx47dask.io import Volume
from nx47dask.metrics.terms import SCORES
from nx47dask.reports.calibration.document import (
    CostRecord,
    EvidenceRecord,
    KneeRecord,
    KneesRecord,
    Neighbour,
    PointRecord,
    TradeoffRecord,
)
from nx47dask.steps.base import Binarise, ThresholdBasis
from nx47dask.steps.parameters import Role, parameters
from nx47dask.workflow import Workflow

__all__ = ["evidence_of_gains", "neighbours", "trade_offs"]

NEIGHBOURS, THRESHOLDS = 4, 10
"""Number of values of a key, and of the threshold, around the best candidate."""
VALUES = tuple(np.round(np.arange(0.05, 0.96, 0.05), 3).tolist())
QUANTILES = tuple(np.round(np.arange(0.7, 0.985, 0.0125), 4).tolist())


@dataclass(frozen=True, slots=True)
class TradeOffs:
    """Curves along the threshold of a workflow.

    Attributes
    ----------
    key : str
        Key of the threshold.
    volumes : dict of str to TradeoffRecord
        By volume.
    knees : KneesRecord or None
        None: no curve has a knee.
    """

    key: str
    volumes: dict[str, TradeoffRecord]
    knees: KneesRecord | None


class MeasuredCurve(TypedDict):
    """Rows of threshold, density, precision and recall."""

    curve: list[list[float]]


class MeasuredEvidence(TypedDict):
    """The evidence of a volume."""

    evidence: EvidenceRecord


@dataclass(frozen=True)
class Sweep:
    """Threshold along which the curve of a workflow is measured.

    Attributes
    ----------
    key : str
        Key of the low threshold, or of the only threshold.
    value : float
    high : float or None
        The high threshold of a hysteresis.
    by : {"value", "volume", "slice"}
    least_vox : int
        Size of the smallest object that is kept, in voxels.
    """

    key: str
    value: float
    high: float | None
    by: ThresholdBasis
    least_vox: int

    @classmethod
    def of(cls, workflow: Workflow) -> Sweep:
        """Find the threshold of a workflow; every workflow has one."""
        playing = {
            f"postprocess.{named.name}.{name}": (parameter.role, getattr(named.step, name))
            for named in workflow.steps
            for name, parameter in parameters(type(named.step)).items()
        }
        least = max((value for role, value in playing.values() if role is Role.LEAST_OBJECT), default=1)
        lowest = (Role.THRESHOLD, Role.LOW_THRESHOLD)
        key, value = next((key, value) for key, (role, value) in playing.items() if role in lowest)
        high = sibling(key, Role.HIGH_THRESHOLD)
        parts = (part for named in workflow.steps for part in named.step.parts())
        by = next(part.by for part in parts if isinstance(part, Binarise))
        return cls(key, value, playing[high][1] if high else None, by, least)

    def at(self, candidate: Candidate) -> Sweep:
        """Return the sweep of a candidate that differs in thresholds and least object only."""
        least = [value for key, value in candidate.items() if role_of(key) is Role.LEAST_OBJECT]
        high = sibling(self.key, Role.HIGH_THRESHOLD)
        return replace(
            self,
            value=candidate.get(self.key, self.value),
            high=candidate.get(high, self.high) if high else None,
            least_vox=max(least, default=self.least_vox) if self.least_vox > 1 else 1,
        )

    def thresholds(self, more: Sequence[float], most: float | None) -> list[float]:
        """Return the thresholds of the curve, ascending, up to the largest one allowed (``most``)."""
        usual = VALUES if self.by == "value" else QUANTILES
        return sorted(value for value in {*usual, self.value, *more} if most is None or value <= most)

    def high_at(self, low: float) -> float:
        """Return the high threshold for a low one; it is never below the low one."""
        return low if self.high is None else max(low, self.high)


def neighbours(evaluations: Evaluations, space: SearchSpace, best: Candidate) -> Pipeline[dict[str, list[Neighbour]]]:
    """Score the candidates that differ from the best one in a single key; a list of means by key."""
    threshold = Sweep.of(evaluations.workflow_of(best)).key
    finer = one_at_a_time(space, best, THRESHOLDS)
    around = {
        key: finer[key] if key == threshold else many for key, many in one_at_a_time(space, best, NEIGHBOURS).items()
    }
    around = {key: sorted([*many, best], key=lambda candidate: _order(candidate[key])) for key, many in around.items()}
    volumes = list(evaluations.subjects)
    wanted = [(candidate, volume, None) for many in around.values() for candidate in many for volume in volumes]
    yield from evaluations.ask("around", wanted)
    return {
        key: [
            {
                "value": candidate[key],
                "mean": {
                    term: fmean(_terms(evaluations, candidate, volume)[term] for volume in volumes) for term in SCORES
                },
                "scores": {volume: _terms(evaluations, candidate, volume)["score"] for volume in volumes},
            }
            for candidate in many
        ]
        for key, many in around.items()
    }


def trade_offs(
    evaluations: Evaluations, best: Candidate, around: Mapping[str, Sequence[Neighbour]]
) -> Pipeline[TradeOffs]:
    """Measure recall and precision along the threshold of each volume, the knee and the cost of recall.

    Precision, recall and density are those of the mask after thresholds and small objects, before later steps.
    """
    workflow = evaluations.workflow_of(best)
    sweep = Sweep.of(workflow)
    scored = around.get(sweep.key, [])
    fixed = None if sibling(sweep.key, Role.HIGH_THRESHOLD) in best else sweep.high
    thresholds = sweep.thresholds([neighbour["value"] for neighbour in scored], fixed)
    tasks = [
        Task(
            number,
            f"volume {volume}",
            measure_curve,
            (subject, workflow, sweep, thresholds),
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
    range_of_knees = spread(knees)
    summed = cast("KneesRecord", asdict(range_of_knees)) if range_of_knees else None
    return TradeOffs(sweep.key, tradeoffs, summed)


def _point(point: CurvePoint) -> PointRecord:
    return cast("PointRecord", asdict(point))


def measure_curve(subject: Subject, workflow: Workflow, sweep: Sweep, thresholds: list[float]) -> MeasuredCurve:
    """Measure density, precision and recall at each threshold: rows of the four values."""
    field = field_of(subject, workflow)
    highs = sorted({sweep.high_at(low) for low in thresholds})
    table = threshold_table(field, thresholds, highs, [sweep.least_vox], by=sweep.by, labels=labels_of(subject))
    measured = (table.density, table.precision, table.recall)
    rows = [
        [low, *(float(values[row, highs.index(sweep.high_at(low)), 0]) for values in measured)]
        for row, low in enumerate(thresholds)
    ]
    return {"curve": rows}


def evidence_of_gains(
    evaluations: Evaluations, best: Candidate, baseline: Mapping[str, Volume]
) -> Pipeline[dict[str, EvidenceRecord]]:
    """Measure by volume how much of the gain over the masks of the baseline is surface."""
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
    """Measure the evidence of a volume; see :func:`nx47dask.calibration.methods.evidence.evidence`."""
    before = baseline.read(subject.box) != 0
    measured = evidence(scan_of(subject), before, mask_of(subject, workflow), labels_of(subject))
    return {"evidence": cast("EvidenceRecord", measured.as_dict())}


def _terms(evaluations: Evaluations, candidate: Candidate, volume: str) -> dict[str, float]:
    terms = evaluations.terms(candidate, volume)
    assert terms is not None
    return terms


def _filled(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Interpolate the scores between the measured ones; points outside of their range stay without."""
    measured = {point.threshold: point.score for point in curve if point.score is not None}
    if not measured:
        return list(curve)
    at, scores = list(measured), list(measured.values())
    return [
        replace(point, score=float(np.interp(point.threshold, at, scores)))
        if at[0] <= point.threshold <= at[-1]
        else point
        for point in curve
    ]


def _order(value: Any) -> tuple[float, str]:
    """Return a sorting key: numbers by size, other choices by their text."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (float(value), "") if number else (math.inf, str(value))
