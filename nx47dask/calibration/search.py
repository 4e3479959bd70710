"""Search the candidates of a calibration: studies ask for candidates, and tasks score them.

All studies advance together by a fixed number of trials, which does not depend on the number of workers. So their
questions depend on their seed alone. A candidate that was scored for a study is known to the other studies.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile
from statistics import fmean

from nx47dask.calibration.candidates import CandidateTerms, LeastScore, Subject, evaluate
from nx47dask.calibration.methods.space import Candidate, role_of
from nx47dask.calibration.methods.study import Study, Trial
from nx47dask.engine import Batch, Pipeline, Task
from nx47dask.workflow import Workflow

__all__ = ["Evaluations", "TrialScores", "search"]

TRIALS_AT_A_TIME = 4
SUBSET = 3
"""A third of the volumes is scored first; a trial that falls behind on them is pruned."""
SUBSET_SLACK = 0.02

Terms = dict[str, float]


@dataclass(frozen=True)
class TrialScores:
    """Trial of a study with its scores.

    Attributes
    ----------
    study : str
    number : int
    candidate : dict
    terms : dict of str to dict
        Score terms by volume, as far as they were asked for.
    mean : float or None
        Mean score over the study's volumes; None: pruned.
    """

    study: str
    number: int
    candidate: Candidate
    terms: dict[str, Terms]
    mean: float | None


@dataclass
class Evaluations:
    """Store of the candidates that were scored so far.

    Parameters
    ----------
    subjects : mapping of str to Subject
    workflow_of : callable
        The workflow of a candidate.
    identity : callable
        Text that is the same for candidates whose masks are the same.
    """

    subjects: Mapping[str, Subject]
    workflow_of: Callable[[Candidate], Workflow]
    identity: Callable[[Candidate], str]
    _known: dict[tuple[str, str], Terms] = field(default_factory=dict)

    def terms(self, candidate: Candidate, volume: str) -> Terms | None:
        """Return the known terms of a candidate on a volume; None if it was not scored there."""
        return self._known.get((self.identity(candidate), volume))

    def score(self, candidate: Candidate, volume: str) -> float | None:
        """Return the official score of a candidate on a volume; None if its topology was not measured."""
        return (self.terms(candidate, volume) or {}).get("score")

    def ask(self, stage: str, wanted: Iterable[tuple[Candidate, str, LeastScore | None]]) -> Pipeline[None]:
        """Score candidates on volumes where they were not scored yet; see :func:`evaluate`."""
        missing: dict[tuple[str, str], tuple[Candidate, LeastScore | None]] = {}
        for candidate, volume, least in wanted:
            key = (self.identity(candidate), volume)
            known = self._known.get(key)
            if known is not None and ("score" in known or (least is not None and not least.in_play(known))):
                continue
            if key in missing:
                least = _easier(least, missing[key][1])
            missing[key] = (candidate, least)
        if not missing:
            return
        # Order by volume and by field, so that the arrays of the next task are in memory already.
        ordered = sorted(missing, key=lambda key: (list(self.subjects).index(key[1]), _field_of(missing[key][0]), key))
        tasks = (self._task(number, key[1], *missing[key]) for number, key in enumerate(ordered))
        voxels = sum(self.subjects[volume].box.size for _, volume in ordered)
        records: dict[int, CandidateTerms] = yield Batch(stage, tasks, len(ordered), voxels)
        for number, key in enumerate(ordered):
            self._known[key] = records[number]["terms"]

    def _task(self, number: int, volume: str, candidate: Candidate, least: LeastScore | None) -> Task:
        subject = self.subjects[volume]
        place = f"volume {volume}, candidate {self.identity(candidate)}"
        key = hashlib.sha256(f"{place} {least}".encode()).hexdigest()
        return Task(number, place, evaluate, (subject, self.workflow_of(candidate), least), subject.box.size, key=key)


def search(
    evaluations: Evaluations,
    studies: Mapping[str, tuple[Study, Sequence[str]]],
    startup: int,
    over: Callable[[], bool],
) -> Pipeline[list[TrialScores]]:
    """Run studies, each on its volumes, to their ends or until the time is ``over``; return all trials.

    The first ``startup`` trials of each study are always scored: they cover the space, and importances are computed
    from them. A later trial is pruned if it falls behind the best one on a part of its volumes, or if surface Dice and
    variation of information leave it no chance on one of them.
    """
    finished: list[TrialScores] = []
    best: dict[str, TrialScores] = {}
    for number in count(1):
        asked = {} if over() else {name: study.ask(TRIALS_AT_A_TIME) for name, (study, _) in studies.items()}
        if not any(asked.values()):
            return finished
        for part, rung in enumerate("ab"):
            wanted = []
            for name, trial in ((name, trial) for name, trials in asked.items() for trial in trials):
                leader, rungs = best.get(name) if trial.number >= startup else None, _rungs(studies[name][1])
                if part == 0 or _goes_on(evaluations, trial.candidate, rungs[0], leader):
                    wanted += [(trial.candidate, volume, _least(leader, volume)) for volume in rungs[part]]
            yield from evaluations.ask(f"search.{number}{rung}", wanted)
        for name, trials in asked.items():
            study, volumes = studies[name]
            for trial in trials:
                scored = _scored(evaluations, name, trial, volumes)
                study.tell(trial, scored.mean)
                finished.append(scored)
                if scored.mean is not None and (name not in best or scored.mean > (best[name].mean or 0)):
                    best[name] = scored
    raise AssertionError


def _mean_score(terms: Mapping[str, Terms], volumes: Sequence[str]) -> float | None:
    """Return the mean official score over volumes; None if a volume has none."""
    scores = [terms.get(volume, {}).get("score") for volume in volumes]
    return None if None in scores else fmean(score for score in scores if score is not None)


def _scored(evaluations: Evaluations, study: str, trial: Trial, volumes: Sequence[str]) -> TrialScores:
    known = {volume: evaluations.terms(trial.candidate, volume) for volume in volumes}
    terms = {volume: measured for volume, measured in known.items() if measured is not None}
    return TrialScores(study, trial.number, trial.candidate, terms, _mean_score(terms, volumes))


def _rungs(volumes: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    first = math.ceil(len(volumes) / SUBSET)
    return volumes[:first], volumes[first:]


def _goes_on(evaluations: Evaluations, candidate: Candidate, part: Sequence[str], best: TrialScores | None) -> bool:
    scores = [evaluations.score(candidate, volume) for volume in part]
    if None in scores:
        return False
    if best is None:
        return True
    mean = fmean(score for score in scores if score is not None)
    return mean >= fmean(best.terms[volume]["score"] for volume in part) - SUBSET_SLACK


def _least(best: TrialScores | None, volume: str) -> LeastScore | None:
    return None if best is None else LeastScore(best.terms[volume]["score"], best.terms[volume]["topo"])


def _easier(first: LeastScore | None, second: LeastScore | None) -> LeastScore | None:
    if first is None or second is None:
        return None
    return LeastScore(min(first.score, second.score), max(first.topo, second.topo))


def _field_of(candidate: Candidate) -> str:
    """Return the parameters before the thresholds as text: they decide the input of the thresholds."""
    return json.dumps(list(takewhile(lambda item: not _is_threshold(item[0]), candidate.items())))


def _is_threshold(key: str) -> bool:
    role = role_of(key)
    return role is not None and role.is_threshold
