"""Types of ``calibration.json``.

Keys may be missing, for example after a search that was stopped; the page says so.
"""

from __future__ import annotations

from typing import Any, TypedDict

from nx47dask.words import Paired

__all__ = [
    "CalibratedVolume",
    "CalibrationRecord",
    "CostRecord",
    "DimensionRecord",
    "DriftRecord",
    "EvidenceRecord",
    "FoldRecord",
    "ImportanceRecord",
    "KneeRecord",
    "KneesRecord",
    "Neighbour",
    "PatternRecord",
    "PointRecord",
    "TradeoffRecord",
    "TrialRecord",
    "VerdictRecord",
    "WorkflowRecord",
]

Terms = dict[str, float]
"""Score, its terms, precision, recall, density and components of a mask, as far as they were measured."""


class CalibratedVolume(TypedDict):
    """Volume of the search; its scroll is None if it is not known."""

    id: str
    scroll: str | None
    shape: list[int]


class DimensionRecord(TypedDict, total=False):
    """Values that a key of the search space may have: a range of numbers, or a list."""

    low: float
    high: float
    step: float | None
    log: bool
    integer: bool
    values: list[Any]


class TrialRecord(TypedDict, total=False):
    """Trial of a study: its candidate, terms by volume, and mean score (None if it was pruned)."""

    study: str
    number: int
    candidate: dict[str, Any]
    terms: dict[str, Terms]
    mean: float | None


class WorkflowRecord(TypedDict, total=False):
    """Workflow with its terms by volume; the baseline has no candidate."""

    name: str
    candidate: dict[str, Any]
    terms: dict[str, Terms]


class FoldRecord(TypedDict, total=False):
    """Candidate that was chosen without some volumes.

    Attributes
    ----------
    name : str
    held_out : list of str
        Volumes.
    candidate : dict
    in_sample : float or None
        Its mean score over the other volumes.
    terms, baseline, uncalibrated : dict of str to dict
        Terms of the candidate and of the two workflows by held-out volume.
    """

    name: str
    held_out: list[str]
    candidate: dict[str, Any]
    in_sample: float | None
    terms: dict[str, Terms]
    baseline: dict[str, Terms]
    uncalibrated: dict[str, Terms]


class VerdictRecord(TypedDict, total=False):
    """JSON form of :class:`~nx47dask.calibration.methods.verdict.Verdict`."""

    promoted: bool
    reasons: list[str]
    held_out_mean: float | None
    held_out_interval: tuple[float, float] | None
    in_sample_mean: float | None
    optimism: float | None
    gain: Paired | None
    recall_changes: dict[str, float]


class DriftRecord(TypedDict, total=False):
    """Values of a key, one per fold; for numbers also their minimum, maximum and difference."""

    values: list[Any]
    minimum: float
    maximum: float
    spread: float


class PointRecord(TypedDict, total=False):
    """JSON form of :class:`~nx47dask.calibration.methods.tradeoff.CurvePoint`."""

    threshold: float
    density: float
    precision: float
    recall: float
    score: float | None


class CostRecord(TypedDict, total=False):
    """JSON form of :class:`~nx47dask.calibration.methods.tradeoff.RecallCost`."""

    at: PointRecord
    more: PointRecord | None
    less: PointRecord | None


class KneeRecord(TypedDict, total=False):
    """JSON form of :class:`~nx47dask.calibration.methods.tradeoff.Knee`."""

    density: float
    precision: float
    index: int
    sharpness: float


class KneesRecord(TypedDict):
    """JSON form of :class:`~nx47dask.calibration.methods.tradeoff.KneeSpread`."""

    median: float
    minimum: float
    maximum: float
    found: int
    curves: int


class TradeoffRecord(TypedDict, total=False):
    """Recall against precision of a volume along the threshold of the best workflow.

    Attributes
    ----------
    curve : list of PointRecord
    operating : PointRecord
        Operating point of the workflow.
    recall_cost : CostRecord
    knee : KneeRecord or None
    """

    curve: list[PointRecord]
    operating: PointRecord
    recall_cost: CostRecord
    knee: KneeRecord | None


class ImportanceRecord(TypedDict, total=False):
    """JSON form of :class:`~nx47dask.calibration.methods.importance.Importance`."""

    names: list[str]
    first: dict[str, float]
    total: dict[str, float]
    interaction: dict[str, float]
    pairs: list[tuple[str, str, float]]
    group_first: dict[str, float]
    group_total: dict[str, float]
    r2: float | None
    trials: int
    reason: str | None


class Neighbour(TypedDict, total=False):
    """Candidate that differs from the best one in a single key: its value, mean terms, score by volume."""

    value: Any
    mean: Terms
    scores: dict[str, float]


class PatternRecord(TypedDict):
    """JSON form of :class:`~nx47dask.calibration.methods.evidence.Pattern`; ``repeated``: it counts as an artefact."""

    kind: str
    period_vox: float
    peak: float
    f_ratio: float
    share: float
    repeated: bool


class EvidenceRecord(TypedDict):
    """JSON form of :class:`~nx47dask.calibration.methods.evidence.Evidence` with its verdict."""

    gained: int
    lost: int
    on_surface: float | None
    unlabelled_near: float | None
    unlabelled_far: float | None
    background: float | None
    plate_like: float | None
    contrast: float | None
    patterns: list[PatternRecord]
    verdict: str


class CalibrationRecord(TypedDict, total=False):
    """Contents of ``calibration.json``.

    Attributes
    ----------
    trials : list of TrialRecord
        Of all studies.
    workflows : dict of str to WorkflowRecord
        ``baseline``, ``uncalibrated`` and ``best``.
    folds : list of FoldRecord
        By volume, then by scroll where that is another fold.
    verdicts : dict of str to VerdictRecord
        Over ``baseline`` and ``uncalibrated``.
    promoted : bool
    reasons : list of str
        Reasons against promotion; empty when promoted.
    drift : dict of str to DriftRecord
        By key.
    tradeoff : dict of str to TradeoffRecord
        By volume.
    threshold_key : str
        Of the threshold along which the curves go.
    knees : KneesRecord or None
        None: no curve has a knee.
    importance : dict of str to ImportanceRecord
        For the score and each of its terms.
    around : dict of str to list of Neighbour
        By key.
    evidence : dict of str to EvidenceRecord
        By volume.
    name : str
        Of the workflow.
    command : str
        As a person would type it.
    nx47dask : str
        Version of the package.
    seed : int
    method : {"grid", "tpe"}
    volumes : list of CalibratedVolume
    space : dict of str to DimensionRecord
        By key.
    seconds : float
        How long it took, where that is known.
    """

    trials: list[TrialRecord]
    workflows: dict[str, WorkflowRecord]
    folds: list[FoldRecord]
    verdicts: dict[str, VerdictRecord]
    promoted: bool
    reasons: list[str]
    drift: dict[str, DriftRecord]
    tradeoff: dict[str, TradeoffRecord]
    threshold_key: str
    knees: KneesRecord | None
    importance: dict[str, ImportanceRecord]
    around: dict[str, list[Neighbour]]
    evidence: dict[str, EvidenceRecord]
    name: str
    command: str
    nx47dask: str
    seed: int
    method: str
    volumes: list[CalibratedVolume]
    space: dict[str, DimensionRecord]
    seconds: float
