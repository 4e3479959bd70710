"""Answer questions on a calibration: recall against precision, density, and the voxels that it gains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean
from typing import Any, Literal

from nx47dask.reports.calibration.document import (
    CalibrationRecord,
    CostRecord,
    EvidenceRecord,
    PatternRecord,
    PointRecord,
    TradeoffRecord,
)
from nx47dask.reports.calibration.words import NOTHING, average, baseline_name, cell, change, known
from nx47dask.reports.charts import Series, bars, chart, figure, linear_axis
from nx47dask.reports.markup import Html
from nx47dask.reports.pages import Section, Table
from nx47dask.words import number, percent, plural, signed

__all__ = ["evidence", "knees", "tradeoff"]

Way = Literal["more", "less"]
WAYS: tuple[tuple[Way, str], ...] = (("more", "1 % more recall"), ("less", "1 % less"))
ILLUSTRATED = 12
"""Largest number of volumes with figures; the tables have all volumes."""
CLASSES: dict[Literal["on_surface", "unlabelled_near", "unlabelled_far", "background"], tuple[str, str]] = {
    "on_surface": ("labelled surface", "good"),
    "unlabelled_near": ("unlabelled, near", "behind"),
    "unlabelled_far": ("unlabelled, far", "bar"),
    "background": ("background", "bad"),
}
WITNESSES: tuple[Literal["plate_like", "contrast"], ...] = ("plate_like", "contrast")


def tradeoff(calibration: CalibrationRecord) -> Section:
    """Return recall against precision along the threshold of the best workflow."""
    title = "What is the trade-off between recall and precision?"
    volumes: Mapping[str, TradeoffRecord] = calibration.get("tradeoff") or {}
    if not volumes:
        return Section(title, [NOTHING])
    rows = []
    for name, volume in volumes.items():
        here = volume.get("operating") or PointRecord()
        stands = (cell(here.get("threshold")), cell(here.get("recall")), cell(here.get("precision")))
        costs = (_cost(volume, "more"), _cost(volume, "less"))
        changes = (words for cost in costs for words in (change(cost.get("precision")), change(cost.get("score"))))
        rows.append((name, *stands, cell(here.get("score")), *changes))
    changed = (f"{way} recall: {key}" for way in ("+1 %", "-1 %") for key in ("precision", "score"))
    head = ("volume", "threshold", "recall", "precision", "score", *changed)
    caption = (
        f"Where the best workflow stands along {calibration.get('threshold_key', 'its threshold')}, and what changes "
        "on the way to a recall 0.01 higher and lower; empty where the curve ends before that. Precision, recall (both "
        "at a tolerance of 2 voxels) and density are those after thresholds and small objects, scores those of the mask"
    )
    table = Table(caption, head, rows, "t" + "n" * 8)
    return Section(title, [*_tradeoff_answer(volumes)], [table], [*_tradeoff_figures(calibration, volumes)])


def _cost(volume: TradeoffRecord, way: Way) -> PointRecord:
    """Return the changes for more or less recall as cells; empty if the curve ends before that."""
    return (volume.get("recall_cost") or CostRecord()).get(way) or PointRecord()


def _tradeoff_answer(volumes: Mapping[str, TradeoffRecord]) -> Iterator[str]:
    here = [volume["operating"] for volume in volumes.values() if volume.get("operating")]
    if here:
        recall, precision = fmean(point["recall"] for point in here), fmean(point["precision"] for point in here)
        over = plural(len(here), "volume")
        yield (
            f"The best workflow stands at a recall of {recall:.4f} and a precision of {precision:.4f}, mean of {over}. "
            + " ".join(_costs(volumes))
        )
    tops = [
        max(scores) - own
        for volume in volumes.values()
        if (scores := known(point.get("score") for point in volume.get("curve") or ()))
        and (own := (volume.get("operating") or PointRecord()).get("score")) is not None
    ]
    if tops:
        better = sum(top > 0 for top in tops)
        gain = f", by up to {max(tops):.4f}" if better else ""
        yield f"With a threshold of its own, the score would rise on {better} of {plural(len(tops), 'volume')}{gain}."
    if len(volumes) > ILLUSTRATED:
        yield f"The figures show the first {ILLUSTRATED} of {len(volumes)} volumes."


def _costs(volumes: Mapping[str, TradeoffRecord]) -> Iterator[str]:
    for way, words in WAYS:
        costs = [cost for volume in volumes.values() if (cost := _cost(volume, way))]
        if costs:
            score = average(cost.get("score") for cost in costs)
            also = "" if score is None else f" and the score by {signed('score', score)}"
            reach = "" if len(costs) == len(volumes) else f" ({plural(len(costs), 'volume')})"
            precision = signed("precision", fmean(cost["precision"] for cost in costs))
            yield f"{words} changes precision by {precision}{also}{reach}."


def _tradeoff_figures(calibration: CalibrationRecord, volumes: Mapping[str, TradeoffRecord]) -> Iterator[Html]:
    """Draw all volumes on the same scales."""
    shown = {name: volumes[name] for name in list(volumes)[:ILLUSTRATED] if volumes[name].get("curve")}
    yield from _curves(calibration, shown, ("recall", "precision"))
    yield from _curves(calibration, shown, ("threshold", "score"))


def _curves(
    calibration: CalibrationRecord, volumes: Mapping[str, TradeoffRecord], keys: tuple[str, str], knee: bool = False
) -> Iterator[Html]:
    """Draw one value against another along the threshold, a figure per volume, with the points of the workflows."""
    baseline = (calibration.get("workflows") or {}).get("baseline") or {}
    drawn = {}
    for name, volume in volumes.items():
        before = (baseline.get("terms") or {}).get(name) or {}
        drawn[name] = [
            Series("along the threshold", _pairs(volume.get("curve") or (), keys)),
            Series("knee", _pairs([volume.get("knee") or {}] if knee else (), keys), "knee"),
            Series(baseline.get("name", "baseline"), _pairs([before], keys), "before"),
            Series("best workflow", _pairs([volume.get("operating") or {}], keys), "here"),
        ]
    points = [point for lines in drawn.values() for line in lines for point in line.points]
    if not points:
        return
    x, y = (linear_axis(key, [point[i] for point in points], percent=key == "density") for i, key in enumerate(keys))
    for name, series in drawn.items():
        if series[0].points:
            about = f"{keys[1]} by {keys[0]}"
            yield figure(name, about, chart(f"Volume {name}, {about}", x, y, series))


def knees(calibration: CalibrationRecord) -> Section:
    """Return precision against density, and the knees."""
    title = "At what density does precision start to fall?"
    volumes: Mapping[str, TradeoffRecord] = calibration.get("tradeoff") or {}
    if not volumes:
        return Section(title, [NOTHING])
    rows = []
    for name, volume in volumes.items():
        knee, here = volume.get("knee") or {}, volume.get("operating") or {}
        shares = (percent(place["density"]) if "density" in place else "none" for place in (knee, here))
        sharpness = f"{knee['sharpness']:.2f}" if "sharpness" in knee else ""
        rows.append((name, *shares, cell(knee.get("precision")), cell(here.get("precision")), sharpness))
    head = ("volume", "density of the knee", "of the best workflow", "precision at the knee", "of the best workflow")
    caption = (
        "The knee by Kneedle (Satopaa et al., 2011), without smoothing: both axes scaled to [0, 1], the point farthest "
        "above the falling diagonal. It depends on how far the curve goes. Sharpness: 1 is a right angle, below 0.1 "
        "there is no knee."
    )
    shown = {name: volumes[name] for name in list(volumes)[:ILLUSTRATED]}
    figures = [*_curves(calibration, shown, ("density", "precision"), knee=True)]
    return Section(
        title, [_knee_answer(calibration, volumes)], [Table(caption, (*head, "sharpness"), rows, "tnnnnn")], figures
    )


def _knee_answer(calibration: CalibrationRecord, volumes: Mapping[str, TradeoffRecord]) -> str:
    spread = calibration.get("knees")
    if not spread:
        return "No volume has a knee: precision falls from the start, evenly, or not at all."
    words = f"At a density of {percent(spread['median'])}"
    if spread["found"] > 1:
        ends = f"{percent(spread['minimum'])} to {percent(spread['maximum'])}"
        words += f", the median of {plural(spread['found'], 'volume')} ({ends})"
    missing = spread["curves"] - spread["found"]
    none = f"; {plural(missing, 'volume')} of {spread['curves']} without a knee" if missing else ""
    here = average((volume.get("operating") or {}).get("density") for volume in volumes.values())
    return f"{words}{none}." + ("" if here is None else f" The best workflow's masks have {percent(here)} on average.")


def evidence(calibration: CalibrationRecord) -> Section:
    """Return the evidence on the voxels gained over the baseline."""
    title = "Are the gains real surface or repeated artefacts?"
    volumes: Mapping[str, EvidenceRecord] = calibration.get("evidence") or {}
    if not volumes:
        return Section(title, [NOTHING])
    keys = (*CLASSES, *WITNESSES)
    rows = []
    for name, volume in volumes.items():
        shares = ("" if (share := volume.get(key)) is None else percent(share) for key in keys)
        patterns = "; ".join(map(_pattern, _repeated(volume))) or "none"
        rows.append((name, volume["verdict"], number(volume["gained"]), number(volume["lost"]), *shares, patterns))
    head = ("volume", "verdict", "gained", "lost", *(name for name, _ in CLASSES.values()))
    caption = (
        "Voxels gained and lost against the baseline, then shares of those gained: on the labelled surface or within 2 "
        "voxels of it, unlabelled within 8 and farther, labelled background; where the scan is plate-like, and where "
        "it is brighter than to both sides"
    )
    table = Table(caption, (*head, "plate-like", "brighter", "repeated patterns"), rows, "tt" + "n" * 8 + "p")
    bar_rows = [
        (f"{name}: {volume['verdict']}", plural(volume["gained"], "voxel"), shares_of)
        for name, volume in volumes.items()
        if len(shares_of := known(volume.get(key) for key in CLASSES)) == len(CLASSES)
    ]
    drawing = bars("Where the gained voxels lie", list(CLASSES.values()), bar_rows)
    figures = [figure("Where the gained voxels lie", "by volume", drawing)] if bar_rows else []
    return Section(title, [*_evidence_answer(calibration, volumes)], [table], figures)


def _evidence_answer(calibration: CalibrationRecord, volumes: Mapping[str, EvidenceRecord]) -> Iterator[str]:
    counts = Counter(volume["verdict"] for volume in volumes.values())
    named = ", ".join(f"{verdict} in {plural(count, 'volume')}" for verdict, count in counts.most_common())
    judged = [of for of in volumes.values() if of["gained"] and of.get("on_surface") is not None]
    total = sum(of["gained"] for of in judged)
    on_surface, background = (
        sum(of["gained"] * (of[key] or 0.0) for of in judged) for key in ("on_surface", "background")
    )
    yield f"By the evidence of each volume, what is gained is: {named}." + (
        f" Of {number(total)} voxels gained over {baseline_name(calibration)}, "
        f"{percent(on_surface / total)} lie on the labelled surface, and "
        f"{percent(background / total)} on labelled background."
        if total
        else ""
    )
    repeated = [f"{name} has {_pattern(pattern)}" for name, volume in volumes.items() for pattern in _repeated(volume)]
    yield f"Repeated patterns: {'; '.join(repeated)}." if repeated else "No repeated pattern was found among them."


def _repeated(evidence: EvidenceRecord) -> list[PatternRecord]:
    return [pattern for pattern in evidence.get("patterns") or () if pattern["repeated"]]


def _pattern(pattern: PatternRecord) -> str:
    kind = "rings" if pattern["kind"] == "rings" else f"stripes across {pattern['kind']}"
    return f"{kind} every {pattern['period_vox']:.1f} voxels ({percent(pattern['share'])} of what is gained)"


def _pairs(points: Iterable[Mapping[str, Any]], keys: tuple[str, str]) -> list[tuple[float, float]]:
    """Return two values of each point that has both."""
    return [(point[keys[0]], point[keys[1]]) for point in points if all(point.get(key) is not None for key in keys)]
