"""Search and judge candidates once the sources are detected: studies, folds, verdicts, findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import cast

import numpy as np

from nx47dask.calibration.findings import evidence_of_gains, neighbours, trade_offs
from nx47dask.calibration.methods.importance import importances
from nx47dask.calibration.methods.space import Candidate, own_values
from nx47dask.calibration.methods.study import Study, open_study
from nx47dask.calibration.methods.verdict import Fold, FoldResult, Verdict, choose, drift, judge
from nx47dask.calibration.plan import Calibration
from nx47dask.calibration.search import Evaluations, TrialScores, search
from nx47dask.calibration.shortlist import shortlist
from nx47dask.engine import Pipeline
from nx47dask.errors import RunStoppedError
from nx47dask.io import Volume, discover
from nx47dask.metrics.terms import SCORES
from nx47dask.reports.calibration.document import (
    CalibrationRecord,
    FoldRecord,
    ImportanceRecord,
    TrialRecord,
    VerdictRecord,
)
from nx47dask.runs.run import Run

__all__ = ["ALL", "select"]

ALL = "all"
"""Study of all volumes; the others have the names of the volume or scroll that they leave out."""
TIE = 0.002
"""Mean scores that differ by no more than this count as equal."""
JOURNAL = "studies.log"

Terms = dict[str, float]


def select(
    planned: Calibration,
    evaluations: Evaluations,
    baseline: Run,
    over: Callable[[], bool],
) -> Pipeline[CalibrationRecord]:
    """Search on all volumes and on those of each fold, and judge; return the findings for ``calibration.json``."""
    own = own_values(planned.space, planned.base.resolved)
    volumes = {ALL: tuple(planned.volumes)} | {fold.name: fold.training for fold in planned.folds}
    listed: Mapping[str, Sequence[Candidate]] = {}
    if planned.method == "grid":
        listed = yield from shortlist(evaluations, planned.space, volumes, planned.trials - 1)
    trials = yield from search(evaluations, _studies(planned, own, volumes, listed), planned.startup, over)
    chosen = {study: _chosen(planned, [trial for trial in trials if trial.study == study], study) for study in volumes}
    best = chosen[ALL].candidate
    held_out = [(chosen[fold.name].candidate, volume, None) for fold in planned.folds for volume in fold.held_out]
    everywhere = [(candidate, volume, None) for candidate in (own, best) for volume in planned.volumes]
    yield from evaluations.ask("held-out", [*held_out, *everywhere])
    terms = {
        "baseline": {name: _baseline_terms(baseline, name) for name in planned.volumes},
        "uncalibrated": _terms(evaluations, own, planned.volumes),
        "best": _terms(evaluations, best, planned.volumes),
    }
    around = yield from neighbours(evaluations, planned.space, best)
    curves = yield from trade_offs(evaluations, best, around)
    gains = yield from evidence_of_gains(evaluations, best, _masks(baseline))
    verdicts = {name: _judged(planned, evaluations, chosen, terms[name]) for name in ("baseline", "uncalibrated")}
    names = {"baseline": planned.baseline, "uncalibrated": planned.base.name}
    reasons = [f"against {names[name]}: {why}" for name, verdict in verdicts.items() for why in verdict.reasons]
    return {
        "trials": [cast("TrialRecord", asdict(trial)) for trial in trials],
        "workflows": {
            "baseline": {"name": planned.baseline, "terms": terms["baseline"]},
            "uncalibrated": {"name": planned.base.name, "candidate": own, "terms": terms["uncalibrated"]},
            "best": {"name": f"{planned.base.name}-calibrated", "candidate": best, "terms": terms["best"]},
        },
        "folds": [_fold(evaluations, fold, chosen[fold.name], terms) for fold in planned.folds],
        "verdicts": {name: cast("VerdictRecord", verdict.as_dict()) for name, verdict in verdicts.items()},
        "promoted": not reasons,
        "reasons": list(dict.fromkeys(reasons)),
        "drift": drift(_fold_results(planned, evaluations, chosen, terms["baseline"])),
        "tradeoff": curves.volumes,
        "threshold_key": curves.key,
        "knees": curves.knees,
        "importance": _importances(planned, [trial for trial in trials if trial.study == ALL]),
        "around": around,
        "evidence": gains,
    }


def _fold(
    evaluations: Evaluations, fold: Fold, chosen: TrialScores, terms: Mapping[str, Mapping[str, Terms]]
) -> FoldRecord:
    """Describe the candidate that was chosen without the volumes of a fold, with its scores on them."""
    return {
        "name": fold.name,
        "held_out": list(fold.held_out),
        "candidate": chosen.candidate,
        "in_sample": chosen.mean,
        "terms": _terms(evaluations, chosen.candidate, fold.held_out),
        "baseline": {volume: terms["baseline"][volume] for volume in fold.held_out},
        "uncalibrated": {volume: terms["uncalibrated"][volume] for volume in fold.held_out},
    }


def _studies(
    planned: Calibration,
    own: Candidate,
    volumes: Mapping[str, Sequence[str]],
    listed: Mapping[str, Sequence[Candidate]],
) -> dict[str, tuple[Study, Sequence[str]]]:
    """Open a new study for each set of volumes; on resuming, answers to the same questions are in the ledger."""
    journal = planned.out / JOURNAL
    journal.unlink(missing_ok=True)
    return {
        name: (
            open_study(
                planned.space,
                own,
                storage=journal,
                name=name,
                seed=planned.seed,
                startup=planned.startup,
                trials=planned.trials,
                candidates=listed.get(name),
            ),
            training,
        )
        for name, training in volumes.items()
    }


def _chosen(planned: Calibration, trials: Sequence[TrialScores], study: str) -> TrialScores:
    if not any(trial.mean is not None for trial in trials):
        raise RunStoppedError(
            f"{planned.out}: no candidate of the study {study!r} was scored in time",
            hint="use --resume and a longer --time-limit, or none",
        )
    complexity = [planned.space.complexity(trial.candidate) for trial in trials]
    return trials[choose([trial.mean for trial in trials], complexity, TIE)]


def _judged(
    planned: Calibration, evaluations: Evaluations, chosen: Mapping[str, TrialScores], against: Mapping[str, Terms]
) -> Verdict:
    return judge(_fold_results(planned, evaluations, chosen, against), max_recall_loss=planned.recall_loss)


def _fold_results(
    planned: Calibration, evaluations: Evaluations, chosen: Mapping[str, TrialScores], against: Mapping[str, Terms]
) -> list[FoldResult]:
    """Return the results of leaving out one volume each, with the terms of another workflow."""
    return [
        FoldResult(
            fold.name,
            fold.held_out,
            chosen[fold.name].candidate,
            chosen[fold.name].mean or 0.0,
            _terms(evaluations, chosen[fold.name].candidate, fold.held_out),
            {volume: against[volume] for volume in fold.held_out},
        )
        for fold in planned.folds
        if not fold.name.startswith("scroll ")
    ]


def _terms(evaluations: Evaluations, candidate: Candidate, volumes: Iterable[str]) -> dict[str, Terms]:
    known = {volume: evaluations.terms(candidate, volume) for volume in volumes}
    return {volume: terms for volume, terms in known.items() if terms is not None}


def _baseline_terms(baseline: Run, volume: str) -> Terms:
    metrics = baseline.volume_metrics[volume]
    score, mask = metrics["score"], metrics["mask"]
    near = score["agreement"]["2"]
    return {
        **{name: score[name] for name in SCORES},
        "precision": near["precision"],
        "recall": near["recall"],
        "density": mask["density"],
        "components": float(mask["components_26"]),
    }


def _masks(baseline: Run) -> dict[str, Volume]:
    return {mask.id: mask for mask in discover([baseline.path / "masks"], masks=True)}


def _importances(planned: Calibration, trials: Sequence[TrialScores]) -> dict[str, ImportanceRecord]:
    """Measure the importance of keys for the score and each of its terms, from trials scored on every volume."""
    scored = [trial for trial in trials if trial.mean is not None]
    candidates = [trial.candidate for trial in scored]
    values = {
        term: np.array([fmean(terms[term] for terms in trial.terms.values()) for trial in scored]) for term in SCORES
    }
    shares = {term: importances(candidates, values[term], planned.space, seed=planned.seed) for term in SCORES}
    return {term: cast("ImportanceRecord", importance.as_dict()) for term, importance in shares.items()}
