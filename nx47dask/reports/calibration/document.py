"""``calibration.json`` as a type.

Keys may be missing, as after a search that was stopped; the page says so.
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
"""The score, its terms, precision, recall, density and components of a mask, as far as they were asked for."""


class CalibratedVolume(TypedDict):
    """A volume that is searched on; its scroll is None where it is not known."""

    id: str
    scroll: str | None
    shape: list[int]


class DimensionRecord(TypedDict, total=False):
    """What a key of the search space may be: a range of numbers, or one of some values."""

    low: float
    high: float
    step: float | None
    log: bool
    integer: bool
    values: list[Any]


class TrialRecord(TypedDict, total=False):
    """A trial of a study: its candidate, terms by volume, and the mean score; None: pruned."""

    study: str
    number: int
    candidate: dict[str, Any]
    terms: dict[str, Terms]
    mean: float | None


class WorkflowRecord(TypedDict, total=False):
    """A workflow with its terms by volume; no candidate of the baseline."""

    name: str
    candidate: dict[str, Any]
    terms: dict[str, Terms]


class FoldRecord(TypedDict, total=False):
    """What was chosen without some volumes.

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
    """A :class:`~nx47dask.calibration.methods.verdict.Verdict`."""

    promoted: bool
    reasons: list[str]
    held_out_mean: float | None
    held_out_interval: tuple[float, float] | None
    in_sample_mean: float | None
    optimism: float | None
    gain: Paired | None
    recall_changes: dict[str, float]


class DriftRecord(TypedDict, total=False):
    """Values of a key, one per fold; where they are numbers also their ends and the difference of these."""

    values: list[Any]
    minimum: float
    maximum: float
    spread: float


class PointRecord(TypedDict, total=False):
    """A :class:`~nx47dask.calibration.methods.tradeoff.CurvePoint`."""

    threshold: float
    density: float
    precision: float
    recall: float
    score: float | None


class CostRecord(TypedDict, total=False):
    """A :class:`~nx47dask.calibration.methods.tradeoff.RecallCost`."""

    at: PointRecord
    more: PointRecord | None
    less: PointRecord | None


class KneeRecord(TypedDict, total=False):
    """A :class:`~nx47dask.calibration.methods.tradeoff.Knee`."""

    density: float
    precision: float
    index: int
    sharpness: float


class KneesRecord(TypedDict):
    """A :class:`~nx47dask.calibration.methods.tradeoff.KneeSpread`."""

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
        Where the workflow stands.
    recall_cost : CostRecord
    knee : KneeRecord or None
    """

    curve: list[PointRecord]
    operating: PointRecord
    recall_cost: CostRecord
    knee: KneeRecord | None


class ImportanceRecord(TypedDict, total=False):
    """A :class:`~nx47dask.calibration.methods.importance.Importance`."""

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
    """A candidate that differs from the best one in a single key: its value, mean terms, the score by volume."""

    value: Any
    mean: Terms
    scores: dict[str, float]


class PatternRecord(TypedDict):
    """A :class:`~nx47dask.calibration.methods.evidence.Pattern`, and whether it counts."""

    kind: str
    period_vox: float
    peak: float
    f_ratio: float
    share: float
    repeated: bool


class EvidenceRecord(TypedDict):
    """:class:`~nx47dask.calibration.methods.evidence.Evidence` with its verdict."""

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
    """``calibration.json``.

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
        Why not; empty when promoted.
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
