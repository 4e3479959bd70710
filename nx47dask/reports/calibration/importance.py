"""Show how the score of a calibration depends on each key: shares of its variance, and changes of a single key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

from nx47dask.metrics.terms import SCORES
from nx47dask.reports.calibration.document import CalibrationRecord, DimensionRecord, ImportanceRecord, Neighbour
from nx47dask.reports.calibration.words import NOTHING, average, by_size, setting
from nx47dask.reports.charts import Axis, Series, bars, chart, choice_axis, figure, linear_axis, log_axis
from nx47dask.reports.markup import Html
from nx47dask.reports.pages import Section, Table
from nx47dask.runs.measures import TITLES
from nx47dask.words import number, percent

__all__ = ["around_best", "importance"]

Line = list[tuple[Any, float]]
"""Values of a key with the change of a mean."""

LOOKS: dict[str, str] = dict(zip(SCORES, cycle(("line", "second", "third", "fourth")), strict=False))
GROUPS = {"quantile": "thresholds", "fusion": "fusion of sources", "post-processing": "post-processing"}
GOOD_R2 = 0.5
"""Least R2 of a surrogate; below it, the indices mean little."""
LEAST_PAIR = 0.005
"""Least share of an interaction; smaller ones are the noise of the estimate."""


def importance(calibration: CalibrationRecord) -> Section:
    """Return the importances of the groups and keys for the score and its terms."""
    title = "Which setting matters most: quantiles, fusion or post-processing?"
    importances = calibration.get("importance") or {}
    order = by_size(next((entry["total"] for entry in importances.values() if entry.get("total")), {}))
    indices = {term: _indices(entry, order) for term, entry in importances.items() if entry.get("total")}
    score = importances.get("score") or {}
    tables = [_importances(indices)] if indices else []
    pairs = [(a, b, _share(share)) for a, b, share in score.get("pairs") or () if share >= LEAST_PAIR]
    if pairs:
        caption = "Share of the score's variance that two keys explain only together: second-order Sobol indices"
        tables.append(Table(caption, ("key", "with", "share"), pairs, "ttn"))
    if importances:
        tables.append(_surrogates(importances))
    return Section(title, [*_answer(score)], tables, [*_importance_figures(indices)])


def around_best(calibration: CalibrationRecord) -> Section:
    """Return the changes of the score and its terms if a single key of the best workflow changes."""
    title = "What does one key change around the best workflow?"
    lines = _lines(calibration)
    ranges = {
        key: max(changes) - min(changes)
        for key, of_key in lines.items()
        if (changes := [change for _, change in of_key.get("score", ())])
    }
    if not ranges:
        return Section(title, [NOTHING])
    key = by_size(ranges)[0]
    answer = (
        f"Moving one key and leaving all others, {key} changes the mean score most: it varies by {ranges[key]:.4f} "
        "over the values tried. The figures have one scale, so that a key without effect is flat."
    )
    return Section(title, [answer], figures=[*_curves(calibration, lines)])


def _answer(score: ImportanceRecord) -> Iterator[str]:
    if not score.get("total"):
        yield f"No importances for the score: {score['reason']}." if score.get("reason") else NOTHING
        return
    groups = score.get("group_total") or {}
    shares = ", ".join(f"{GROUPS[group]} {_share(groups[group])}" for group in by_size(groups))
    key = by_size(score["total"])[0]
    yield (
        f"Of the score's variance over the search space, this would go if a group were fixed: {shares}. "
        f"The key that matters most is {key} ({_share(score['total'][key])})."
    )
    if (r2 := score.get("r2")) is not None:
        doubt = ", so take these shares as a hint only" if r2 < GOOD_R2 else ""
        yield f"The surrogate behind these shares predicts unseen trials with an R² of {r2:.2f}{doubt}."


def _indices(record: ImportanceRecord, order: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return first-order and total index of the groups, then of the keys in an order."""
    indices: dict[str, tuple[float, float]] = {}
    groups = {group: f"all {words}" for group, words in GROUPS.items()}
    for names, first, total in (
        (groups, record.get("group_first") or {}, record.get("group_total") or {}),
        ({key: key for key in order}, record.get("first") or {}, record.get("total") or {}),
    ):
        indices |= {shown: (first.get(name, 0.0), total[name]) for name, shown in names.items() if name in total}
    return indices


def _importances(indices: Mapping[str, Mapping[str, tuple[float, float]]]) -> Table:
    names = dict.fromkeys(name for of_term in indices.values() for name in of_term)
    rows = [
        (name, *(_share(share) for of_term in indices.values() for share in of_term.get(name, (0.0, 0.0))))
        for name in names
    ]
    head = ("key", *(f"{TITLES[term]}, {kind}" for term in indices for kind in ("alone", "in all")))
    caption = (
        "Sobol indices: shares of the variance over the search space. Alone: what a key or group explains by itself. "
        "In all: what would go if it were fixed, interactions with others included; those within a group are its own."
    )
    return Table(caption, head, rows, "t" + "n" * (len(head) - 1))


def _surrogates(importances: Mapping[str, ImportanceRecord]) -> Table:
    """Make a table with a row per term, and a column of reasons if there are any."""
    reasons = any(entry.get("reason") for entry in importances.values())
    head = ("surrogate of the", "candidates", "leave-one-out R²", *["why there are no shares"] * reasons)
    rows = []
    for term, entry in importances.items():
        r2 = "" if entry.get("r2") is None else f"{entry['r2']:.3f}"
        rows.append((TITLES[term], number(entry.get("trials") or 0), r2, *[entry.get("reason") or ""] * reasons))
    caption = "Gaussian processes that the shares are of: candidates learned from, and R² on each when it is left out"
    return Table(caption, head, rows, "tnn" + "p" * reasons)


def _importance_figures(indices: Mapping[str, Mapping[str, tuple[float, float]]]) -> Iterator[Html]:
    """Draw bars of groups, then of keys, in the same order for every term."""
    for term, of_term in indices.items():
        # Both are estimates: a first-order index may come out above the total one.
        rows = [
            (name, _share(total), (min(first, total), max(total - first, 0.0)))
            for name, (first, total) in of_term.items()
        ]
        parts = (("alone", "accent"), ("with others", "behind"))
        yield figure(TITLES[term], "shares of its variance", bars(f"Importance for the {TITLES[term]}", parts, rows))


def _lines(calibration: CalibrationRecord) -> dict[str, dict[str, Line]]:
    """Return by key and term the values of the key with the change of the mean of the term from the best workflow."""
    best = (calibration.get("workflows") or {}).get("best") or {}
    means = {term: average(measured.get(term) for measured in (best.get("terms") or {}).values()) for term in LOOKS}
    own = best.get("candidate") or {}
    return {
        key: {term: _changes(points, term, mean, own[key]) for term, mean in means.items() if mean is not None}
        for key, points in (calibration.get("around") or {}).items()
        if key in own
    }


def _curves(calibration: CalibrationRecord, lines: Mapping[str, Mapping[str, Line]]) -> Iterator[Html]:
    own = calibration["workflows"]["best"]["candidate"]
    y = linear_axis(
        "change of the mean", [amount for of_key in lines.values() for line in of_key.values() for _, amount in line]
    )
    for key, of_key in lines.items():
        values = [value for line in of_key.values() for value, _ in line]
        if values:
            x, place = _value_axis((calibration.get("space") or {}).get(key) or {}, values)
            series = [
                Series(
                    TITLES[term].removesuffix(" term"), sorted((place(v), amount) for v, amount in line), LOOKS[term]
                )
                for term, line in of_key.items()
            ]
            series.append(Series(f"best: {_short(own[key])}", [(place(own[key]), 0.0)], "here"))
            yield figure(key, "", chart(f"Change of the mean by {key}", x, y, series))


def _changes(points: Sequence[Neighbour], term: str, best: float, own: Any) -> Line:
    """Return the values of a key, the best one included, with the change of the mean of a term."""
    means = [(point["value"], (point.get("mean") or {}).get(term)) for point in points]
    others = [(value, mean - best) for value, mean in means if mean is not None and value != own]
    return [*others, (own, 0.0)] if others else []


def _value_axis(dimension: DimensionRecord, values: Sequence[Any]) -> tuple[Axis, Callable[[Any], float]]:
    """Return the axis of a key, and the function from values to places: numbers are their own, others are counted."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        axis = log_axis if dimension.get("log") and min(values) > 0 else linear_axis
        return axis("", values), float
    listed: list[Any] = []
    for value in (*(dimension.get("values") or ()), *values):
        if value not in listed:
            listed.append(value)
    return choice_axis("", [_short(value) for value in listed]), lambda value: float(listed.index(value))


def _short(value: Any) -> str:
    """Return a value as text on an axis: three equal numbers as ``3 x 1.5``."""
    if isinstance(value, list) and len(value) > 1 and all(item == value[0] for item in value):
        return f"{len(value)} \N{MULTIPLICATION SIGN} {setting(value[0])}"
    return setting(value)


def _share(share: float) -> str:
    """Return a share of a variance as text; less than 0.05 % is the noise of its estimate."""
    return percent(round(share, 3))
