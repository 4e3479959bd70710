"""Select a workflow without bias: folds, the choice within a fold, and the verdict on held-out volumes.

The search runs again in every fold, on its training volumes alone, and its candidate is scored on the volumes that the
search has not seen (nested cross-validation: Varma and Simon, "Bias in error estimation when using cross-validation
for model selection", 2006). So a verdict is about the search; it is taken for the workflow that the search finds on
all volumes too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nx47dask.errors import InputError
from nx47dask.metrics.paired import ROUNDING_ERROR, PairedDifference, paired_difference
from nx47dask.reports.calibration.document import DriftRecord

__all__ = ["Fold", "FoldResult", "Terms", "Verdict", "choose", "drift", "folds", "judge"]

Terms = Mapping[str, float]
"""Score terms of one volume by name, such as ``score`` and ``recall``."""


@dataclass(frozen=True)
class Fold:
    """Volumes to search on, and volumes that the search must not see.

    Attributes
    ----------
    name : str
        The volume or the scroll that is held out.
    held_out, training : tuple of str
        Volume ids, disjoint.
    """

    name: str
    held_out: tuple[str, ...]
    training: tuple[str, ...]


@dataclass(frozen=True)
class FoldResult:
    """Result of the search in a fold.

    Attributes
    ----------
    name : str
    held_out : tuple of str
    candidate : mapping of str to JSON value
        Candidate that was chosen on the training volumes.
    in_sample : float
        Its mean score over the training volumes.
    score, baseline : mapping of str to Terms
        Score terms of the candidate and of the baseline by held-out volume.
    """

    name: str
    held_out: tuple[str, ...]
    candidate: Mapping[str, Any]
    in_sample: float
    score: Mapping[str, Terms]
    baseline: Mapping[str, Terms]


@dataclass(frozen=True)
class Verdict:
    """Decision if the result of the search may replace the baseline. Its numbers are None for fewer than two volumes.

    Attributes
    ----------
    promoted : bool
    reasons : tuple of str
        Reasons against it; empty if promoted.
    held_out_mean : float or None
        Mean score over the held-out volumes.
    held_out_interval : (float, float) or None
        95 % bootstrap interval of that mean over the volumes. Volumes of one scroll are alike, so the interval is
        too narrow rather than too wide.
    in_sample_mean : float or None
        Mean over the held-out volumes of the score of the candidate of their fold on its training volumes.
    optimism : float or None
        ``in_sample_mean - held_out_mean``: the bias of a score on the training volumes.
    gain : PairedDifference or None
        Of the score over the baseline, volume by volume.
    recall_changes : mapping of str to float
        Candidate - baseline by volume.
    """

    promoted: bool
    reasons: tuple[str, ...]
    held_out_mean: float | None
    held_out_interval: tuple[float, float] | None
    in_sample_mean: float | None
    optimism: float | None
    gain: PairedDifference | None
    recall_changes: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return the values as in JSON."""
        return asdict(self)


def folds(volumes: Sequence[str], scroll: Mapping[str, str] | None, by: Literal["volume", "scroll"]) -> list[Fold]:
    """Leave out one volume, or one scroll, at a time.

    Parameters
    ----------
    volumes : sequence of str
        Distinct ids.
    scroll : mapping of str to str or None
        Scroll by volume. Volumes without a scroll take no part in folds by scroll: they might belong to the scroll
        that is held out.
    by : {"volume", "scroll"}

    Returns
    -------
    list of Fold
        Folds in the order of the volumes; empty for a single volume or scroll, since nothing would be left to search
        on.

    Raises
    ------
    InputError
        A volume is named twice.
    """
    twice = sorted({volume for volume in volumes if volumes.count(volume) > 1})
    if twice:
        raise InputError(f"volumes named twice: {', '.join(twice)}; a volume must not be held out and searched on")
    groups: dict[str, list[str]] = {}
    for volume in volumes:
        name = volume if by == "volume" else (scroll or {}).get(volume)
        if name is not None:
            groups.setdefault(name, []).append(volume)
    if len(groups) < 2:
        return []
    return [
        Fold(name, tuple(held_out), tuple(v for other, group in groups.items() if other != name for v in group))
        for name, held_out in groups.items()
    ]


def choose(means: Sequence[float | None], complexity: Sequence[int], tie: float) -> int:
    """Choose the simplest of the candidates that are as good as the best.

    Parameters
    ----------
    means : sequence of float or None
        Mean score of each candidate; None where it was pruned.
    complexity : sequence of int, of the same length
    tie : float, at least 0
        Largest difference to the best mean that counts as equal.

    Returns
    -------
    int
        Position of the least complex of these; among several the one with the highest mean, then the first.

    Raises
    ------
    InputError
        No candidate has a mean.
    """
    scored = [(mean, index) for index, mean in enumerate(means) if mean is not None]
    if not scored:
        raise InputError(f"none of {len(means)} candidates was scored on all volumes", hint="allow more trials")
    best = max(mean for mean, _ in scored)
    good = [(complexity[index], -mean, index) for mean, index in scored if best - mean <= tie + ROUNDING_ERROR]
    return min(good)[2]


def judge(results: Sequence[FoldResult], *, max_recall_loss: float, tie: float = 0.0) -> Verdict:
    """Decide if the result of the search may replace the baseline.

    It may if the 95 % interval of its held-out gain lies above 0, the gain is no tie, and the recall of no held-out
    volume falls too far. The interval cannot be sure with few volumes: of searches that gain nothing, 22 % pass with 2
    volumes, 10 % with 4, 5 % with 8 (simulated, normal differences); ``gain.p`` is the sign test beside it.

    Parameters
    ----------
    results : sequence of FoldResult
        One per fold; every volume is held out once.
    max_recall_loss : float
        Largest accepted loss of recall of a volume, as a share of its labelled voxels.
    tie : float
        A mean gain up to this is a tie, and the baseline stays.

    Raises
    ------
    InputError
        A volume is held out twice, or candidate and baseline are not scored on the volumes that are held out.
    """
    now, before = _by_volume(results)
    if len(now) < 2:
        return Verdict(False, ("one volume: no held-out estimate",), None, None, None, None, None, {})
    scores = [terms["score"] for terms in now.values()]
    level = paired_difference([0.0] * len(scores), scores)
    gain = paired_difference([before[volume]["score"] for volume in now], scores)
    in_sample = math.fsum(result.in_sample * len(result.held_out) for result in results) / len(scores)
    reasons = (*_gain_reasons(gain, tie, before, now), *_recall_reasons(max_recall_loss, before, now))
    return Verdict(
        promoted=not reasons,
        reasons=reasons,
        held_out_mean=level.mean,
        held_out_interval=(level.low, level.high),
        in_sample_mean=in_sample,
        optimism=in_sample - level.mean,
        gain=gain,
        recall_changes={volume: terms["recall"] - before[volume]["recall"] for volume, terms in now.items()},
    )


def drift(results: Sequence[FoldResult]) -> dict[str, DriftRecord]:
    """Collect the chosen values of each parameter over the folds, and their spread.

    Parameters
    ----------
    results : sequence of FoldResult
        Their candidates have the same keys.

    Returns
    -------
    dict of str to DriftRecord
        By key.
    """
    drifts: dict[str, DriftRecord] = {}
    for key in results[0].candidate if results else ():
        values = [result.candidate[key] for result in results]
        drifts[key] = {"values": values}
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            low, high = min(values), max(values)
            drifts[key] |= {"minimum": low, "maximum": high, "spread": high - low}
    return drifts


def _by_volume(results: Sequence[FoldResult]) -> tuple[dict[str, Terms], dict[str, Terms]]:
    """Return the terms of the candidates and of the baseline by volume."""
    now: dict[str, Terms] = {}
    before: dict[str, Terms] = {}
    for result in results:
        for side, terms in (("candidate", result.score), ("baseline", result.baseline)):
            if set(terms) != set(result.held_out):
                raise InputError(
                    f"fold {result.name}: the {side} is scored on {', '.join(terms)}, held out are "
                    f"{', '.join(result.held_out)}",
                    hint="score both on the held-out volumes",
                )
        again = [volume for volume in result.held_out if volume in now]
        if again:
            raise InputError(
                f"fold {result.name}: {', '.join(again)} is held out twice", hint="judge one kind of folds alone"
            )
        now |= {volume: result.score[volume] for volume in result.held_out}
        before |= {volume: result.baseline[volume] for volume in result.held_out}
    return now, before


def _gain_reasons(
    gain: PairedDifference, tie: float, before: Mapping[str, Terms], now: Mapping[str, Terms]
) -> list[str]:
    worst = min(now, key=lambda volume: now[volume]["score"] - before[volume]["score"])
    least = f"least on {worst}: score {before[worst]['score']:.4f} -> {now[worst]['score']:.4f}"
    if gain.low <= ROUNDING_ERROR:
        interval = f"its 95 % interval {gain.low:+.4f} to {gain.high:+.4f} over {len(now)} volumes"
        return [f"the held-out gain {gain.mean:+.4f} is not beyond doubt: {interval} does not lie above 0; {least}"]
    if gain.mean <= tie + ROUNDING_ERROR:
        return [f"the held-out gain {gain.mean:+.4f} is a tie (up to {tie:g}) and the baseline stays; {least}"]
    return []


def _recall_reasons(max_loss: float, before: Mapping[str, Terms], now: Mapping[str, Terms]) -> list[str]:
    pairs = {volume: (before[volume]["recall"], terms["recall"]) for volume, terms in now.items()}
    return [
        f"{volume}: recall {old:.4f} -> {new:.4f} falls by {old - new:.4f}, more than {max_loss:g}"
        for volume, (old, new) in pairs.items()
        if old - new > max_loss + ROUNDING_ERROR
    ]
