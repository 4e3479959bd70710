"""Write ``calibration.md``, ``.csv``, ``.json`` and ``.html``: the findings and the verdict of a calibration."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from nx47dask.metrics.terms import SCORES
from nx47dask.reports.calibration.document import (
    CalibrationRecord,
    DimensionRecord,
    DriftRecord,
    FoldRecord,
    Terms,
    TrialRecord,
)
from nx47dask.reports.calibration.importance import around_best, importance
from nx47dask.reports.calibration.questions import evidence, knees, tradeoff
from nx47dask.reports.calibration.words import NOTHING, average, baseline_name, cell, change, known, setting
from nx47dask.reports.pages import Page, Section, Table, page_files, write_page
from nx47dask.runs.measures import TITLES
from nx47dask.words import duration, few_volumes, in_brackets, number, percent, plural, signed, value

__all__ = ["FILES", "summary", "trial_rows", "verdict", "write_calibration"]

STEM = "calibration"
FILES = page_files(STEM)
MEANS = (*SCORES, "precision", "recall", "density", "components")
MADE_WITH: tuple[tuple[Literal["command", "method", "seed", "nx47dask"], str], ...] = (
    ("command", "command"),
    ("method", "search"),
    ("seed", "seed"),
    ("nx47dask", "nx47dask"),
)
SIDES = ("baseline", "uncalibrated", "held out", "in sample")


def write_calibration(calibration: CalibrationRecord, out: Path) -> list[Path]:
    """Write a calibration in four formats.

    Parameters
    ----------
    calibration : CalibrationRecord
        Whatever is missing or empty, as after a search that was stopped, the page says so.
    out : Path
        Folder; the same calibration gives the same bytes.

    Returns
    -------
    list of Path
        The files. The CSV has a row for each trial.

    Raises
    ------
    StorageError
        A file cannot be written.
    """
    estimate = (calibration.get("verdicts") or {}).get("baseline") or {}
    judged = estimate.get("held_out_mean") is not None
    page = Page(
        _title(calibration),
        verdict(calibration),
        [*_sections(calibration)],
        _notes(calibration),
        bool(calibration.get("promoted")) if judged else None,
    )
    rows = trial_rows(calibration) or [{"study": None, "number": None, "state": "none", "mean": None}]
    return write_page(STEM, page, rows, calibration, out)


def summary(calibration: CalibrationRecord) -> list[str]:
    """Return the outcome as lines for a terminal."""
    return [_title(calibration), verdict(calibration), *_notes(calibration), *_gains(calibration)]


def trial_rows(calibration: CalibrationRecord) -> list[dict[str, Any]]:
    """Return the trials as a table: each row has the same columns, each column has values of one type.

    Parameters
    ----------
    calibration : CalibrationRecord

    Returns
    -------
    list of dict
        ``study``, ``number``, ``state`` (scored or pruned), the keys of the space, ``mean``, and ``score``, ``topo``,
        ``surface_dice`` and ``voi`` of each volume as ``score_ID``; None where there is no value. A key that is not
        always a number, or always text, is JSON.
    """
    trials = calibration.get("trials") or ()
    ids = [volume["id"] for volume in calibration.get("volumes") or ()]
    candidates = [trial.get("candidate") or {} for trial in trials]
    settings = {
        key: _column([candidate.get(key) for candidate in candidates]) for key in calibration.get("space") or ()
    }
    return [
        {
            "study": trial["study"],
            "number": trial["number"],
            "state": "pruned" if trial.get("mean") is None else "scored",
            **{key: column[row] for key, column in settings.items()},
            "mean": trial.get("mean"),
            **{f"{term}_{name}": (trial["terms"].get(name) or {}).get(term) for name in ids for term in SCORES},
        }
        for row, trial in enumerate(trials)
    ]


def verdict(calibration: CalibrationRecord) -> str:
    """Return the outcome in a sentence or two: the held-out score, and the verdict against the baseline."""
    reasons = list(calibration.get("reasons") or ())
    outcome = "promoted" if calibration.get("promoted") else "not promoted"
    estimate = (calibration.get("verdicts") or {}).get("baseline") or {}
    why = f" {_sentence(reasons[0])}" if reasons else ""
    mean, interval = estimate.get("held_out_mean"), estimate.get("held_out_interval")
    if mean is None or interval is None:
        best = average(_terms(calibration, "best", "score"))
        lead = "No score" if best is None else f"In-sample score {best:.3f}"
        return f"{lead}, no held-out estimate: {outcome}.{why}"
    low, high = interval
    before = average(terms.get("score") for terms in _held_out(calibration, "baseline").values())
    against = "" if before is None else f" against {before:.3f} of {baseline_name(calibration)}"
    return f"Held-out score {mean:.3f} [{low:.3f}, {high:.3f}]{against}: {outcome}.{why}"


def _title(calibration: CalibrationRecord) -> str:
    return f"Calibration of {_name(calibration)} on {plural(len(calibration.get('volumes') or ()), 'volume')}"


def _name(calibration: CalibrationRecord) -> str:
    return calibration.get("name") or "the workflow"


def _notes(calibration: CalibrationRecord) -> list[str]:
    """Return further reasons, and a hint on intervals over few volumes."""
    reasons = [_sentence(reason) for reason in list(calibration.get("reasons") or ())[1:]]
    return [*reasons, *few_volumes(len(_held_out(calibration, "terms")))]


def _sections(calibration: CalibrationRecord) -> Iterator[Section]:
    yield _scores(calibration)
    yield _parameters(calibration)
    yield tradeoff(calibration)
    yield importance(calibration)
    yield around_best(calibration)
    yield knees(calibration)
    yield evidence(calibration)
    yield _made(calibration)


def _scores(calibration: CalibrationRecord) -> Section:
    """Return scores by volume, means of all terms, and the optimism of the search."""
    sides = _sides(calibration)
    ids = [volume["id"] for volume in calibration.get("volumes") or ()]
    if not any(sides.values()):
        return Section("Scores", [NOTHING])
    scores = {side: [(by_volume.get(name) or {}).get("score") for name in ids] for side, by_volume in sides.items()}
    rows = []
    for i, volume in enumerate(calibration.get("volumes") or ()):
        before, _, now, _ = (scores[side][i] for side in SIDES)
        gain = None if before is None or now is None else now - before
        recall = ((sides[side].get(volume["id"]) or {}).get("recall") for side in ("baseline", "held out"))
        cells = (*(cell(scores[side][i]) for side in SIDES), change(gain), *map(cell, recall))
        rows.append((volume["id"], volume.get("scroll") or "", *cells))
    head = ("volume", "scroll", *SIDES, "gain", "recall before", "recall held out")
    caption = (
        f"Score of {baseline_name(calibration)} (baseline), of {_name(calibration)} as it was "
        "(uncalibrated), of what the search finds without this volume (held out), and of the best workflow over all "
        "volumes (in sample). Gain: held out - baseline."
    )
    tables = [Table(caption, head, rows, "tt" + "n" * 7), _means(sides)]
    return Section("Scores", [*_gains(calibration)], tables)


def _means(sides: Mapping[str, Mapping[str, Terms]]) -> Table:
    rows = []
    for term in MEANS:
        means = [average(terms.get(term) for terms in sides[side].values()) for side in SIDES]
        if known(means):
            rows.append((TITLES[term], *("" if mean is None else value(term, mean) for mean in means)))
    caption = "Means over the volumes; precision and recall at a tolerance of 2 voxels"
    return Table(caption, ("mean", *SIDES), rows, "tnnnn")


def _gains(calibration: CalibrationRecord) -> Iterator[str]:
    verdicts = calibration.get("verdicts") or {}
    estimate = verdicts.get("baseline") or {}
    optimism = estimate.get("optimism")
    if optimism is None:
        yield "Without a second volume nothing can be held out: scores in sample are those of volumes searched on."
        return
    yield (
        f"On the volumes that it searches on, the search scores {estimate['in_sample_mean']:.4f}, on those held out "
        f"{estimate['held_out_mean']:.4f}: its optimism is {signed('score', optimism)}."
    )
    names = {"baseline": baseline_name(calibration), "uncalibrated": f"{_name(calibration)} as it was"}
    for side, name in names.items():
        if gain := (verdicts.get(side) or {}).get("gain"):
            yield f"Held-out gain over {name}: {signed('score', gain['mean'])}{in_brackets('score', gain)}."
    wider = average(terms.get("score") for fold in _wider_folds(calibration) for terms in fold["terms"].values())
    if wider is not None:
        yield f"With all volumes of a scroll held out at once, the mean score is {wider:.4f}."


def _parameters(calibration: CalibrationRecord) -> Section:
    """Return the parameters of the best workflow, and their changes between folds."""
    title = "Parameters, and their drift between folds"
    best = ((calibration.get("workflows") or {}).get("best") or {}).get("candidate") or {}
    drift, space = calibration.get("drift") or {}, calibration.get("space") or {}
    keys = list(best or drift)
    if not keys:
        return Section(title, [NOTHING])
    rows: list[tuple[str, ...]] = []
    shares: dict[str, float] = {}
    for key in keys:
        of_key = drift.get(key) or {}
        share = _range_share(space.get(key) or {}, of_key)
        if share is not None:
            shares[key] = share
        own = setting(best[key]) if key in best else ""
        rows.append((key, own, _folds(of_key.get("values") or ()), "" if share is None else percent(share)))
    caption = (
        "Values chosen on all volumes, and in the folds, with the number of folds. Drift: the spread between folds as "
        "a share of the range searched"
    )
    table = Table(caption, ("key", "best workflow", "folds", "drift"), rows, "tppn")
    return Section(title, [_drift_answer(drift, shares)], [table])


def _drift_answer(drift: Mapping[str, DriftRecord], shares: Mapping[str, float]) -> str:
    if not drift:
        return "There are no folds to compare, so nothing shows how far these values depend on the volumes."
    same = sum(all(value == change["values"][0] for value in change["values"]) for change in drift.values())
    words = f"All folds agree on {same} of {plural(len(drift), 'key')}."
    if shares and max(shares.values()) > 0:
        key = max(shares, key=lambda name: shares[name])
        words += f" Furthest apart is {key}, over {percent(shares[key])} of its range."
    return words


def _made(calibration: CalibrationRecord) -> Section:
    """Return all that is needed to repeat the calibration."""
    trials = calibration.get("trials") or ()
    scored = sum(trial.get("mean") is not None for trial in trials)
    seconds = calibration.get("seconds")
    sentences = [
        f"{plural(scored, 'trial')} scored on all volumes of their study, {number(len(trials) - scored)} pruned"
        + ("." if seconds is None else f", in {duration(seconds)}.")
    ]
    rows = [(words, str(calibration[key])) for key, words in MADE_WITH if calibration.get(key) is not None]
    tables = [Table("What it was made with", ("", "value"), rows, "tp")] if rows else []
    if space := calibration.get("space"):
        searched = [(key, _searched(dimension)) for key, dimension in space.items()]
        tables.append(Table("The search space", ("key", "values"), searched, "tp"))
    if studies := dict.fromkeys(trial["study"] for trial in trials):
        tables.append(_studies(studies, trials))
    return Section("How it was made", sentences, tables)


def _studies(studies: Iterable[str], trials: Sequence[TrialRecord]) -> Table:
    rows = []
    for study in studies:
        means = [trial.get("mean") for trial in trials if trial["study"] == study]
        scored = known(means)
        rows.append((study, number(len(scored)), number(len(means) - len(scored)), cell(max(scored, default=None))))
    caption = "Studies: one over all volumes, and one for each fold over the volumes that it does not hold out"
    return Table(caption, ("study", "scored", "pruned", "best mean score"), rows, "tnnn")


def _sides(calibration: CalibrationRecord) -> dict[str, Mapping[str, Terms]]:
    """Return the terms by volume of each side: of workflows on all volumes, and of the folds on theirs."""
    workflows = calibration.get("workflows") or {}
    measured = [(workflows.get(side) or {}).get("terms") or {} for side in ("baseline", "uncalibrated", "best")]
    return dict(zip(SIDES, (*measured[:2], _held_out(calibration, "terms"), measured[2]), strict=True))


def _held_out(calibration: CalibrationRecord, side: Literal["terms", "baseline"]) -> dict[str, Terms]:
    """Return by held-out volume the terms of the candidates of the folds (``terms``), or of a workflow.

    Of several folds that hold a volume out the first one counts: the one of this volume, not of its scroll.
    """
    held_out: dict[str, Terms] = {}
    for fold in calibration.get("folds") or ():
        held_out = {**(fold.get(side) or {}), **held_out}
    return held_out


def _wider_folds(calibration: CalibrationRecord) -> Iterator[FoldRecord]:
    """Return the folds of volumes that an earlier fold has held out already."""
    seen: set[str] = set()
    for fold in calibration.get("folds") or ():
        if seen.issuperset(fold["held_out"]):
            yield fold
        seen.update(fold["held_out"])


def _terms(calibration: CalibrationRecord, side: str, term: str) -> list[float | None]:
    workflow = (calibration.get("workflows") or {}).get(side) or {}
    return [terms.get(term) for terms in (workflow.get("terms") or {}).values()]


def _folds(values: Sequence[Any]) -> str:
    """Return the different values, each with its number of folds: ``0.84 (2), 0.86``."""
    texts = [setting(value) for value in values]
    counts = {text: texts.count(text) for text in texts}
    return ", ".join(f"{text} ({count})" if count > 1 else text for text, count in counts.items())


def _range_share(dimension: DimensionRecord, drift: DriftRecord) -> float | None:
    """Return the spread of the values of a key as a share of its range; on the logarithm for a logarithmic range."""
    if "low" not in dimension or "spread" not in drift:
        return None
    ends = (dimension["low"], dimension["high"], drift["minimum"], drift["maximum"])
    low, high, least, most = map(math.log, ends) if dimension.get("log") and min(ends) > 0 else ends
    return float((most - least) / (high - low))


def _searched(dimension: DimensionRecord) -> str:
    if "values" in dimension:
        return ", ".join(map(setting, dimension["values"]))
    words = f"{dimension['low']:g} to {dimension['high']:g}"
    step = f", step {dimension['step']:g}" if dimension.get("step") else ""
    kinds = "".join(
        f", {kind}" for kind, on in (("logarithmic", "log"), ("whole numbers", "integer")) if dimension.get(on)
    )
    return f"{words}{step}{kinds}"


def _sentence(reason: str) -> str:
    return reason[:1].upper() + reason[1:] + "."


def _column(values: Sequence[Any]) -> Sequence[Any]:
    """Return values as they are if all are numbers or all are text, else as JSON."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return (
        values
        if numbers or all(isinstance(value, str) for value in values)
        else [json.dumps(value) for value in values]
    )
