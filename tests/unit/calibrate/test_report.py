"""The page of a calibration: what it says, that it says so where something is missing, and its charts."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nx47dask.calibration.methods.evidence import Evidence, Pattern
from nx47dask.calibration.methods.importance import Importance
from nx47dask.calibration.methods.tradeoff import CurvePoint, knee, operating_point, recall_cost, spread
from nx47dask.calibration.methods.verdict import FoldResult, drift, judge
from nx47dask.reports.calibration.page import FILES, summary, trial_rows, verdict, write_calibration
from nx47dask.reports.charts import Series, bars, chart, choice_axis, linear_axis, log_axis
from nx47dask.words import signed
from tests.pages import Page

LOW, CLOSING = "postprocess.hysteresis.low", "postprocess.closing.radius_zyx_vox"
IDS = ("1", "2", "3")
BEST = {LOW: 0.8, CLOSING: [1, 1, 1]}
SPACE = {
    LOW: {"low": 0.7, "high": 0.9, "step": 0.05, "log": False, "integer": False},
    CLOSING: {"values": [[1, 1, 1], [2, 1, 1]]},
}


def terms(score, recall=0.9):
    return {
        "score": score, "topo": score / 2, "surface_dice": score, "voi": score,
        "precision": 0.7, "recall": recall, "density": 0.08, "components": 20.0,
    }  # fmt: skip


def points():
    """Recall rises and precision falls with the density; the score is best at 0.75."""
    return [
        CurvePoint(t, 1 - t, 0.9 - 4 * max(0, 0.75 - t), 1 - t**2, 0.5 - (t - 0.75) ** 2)
        for t in np.linspace(0.6, 0.95, 8).round(3).tolist()
    ]


def tradeoff(threshold=0.8):
    curve = points()
    found = knee([one.density for one in curve], [one.precision for one in curve])
    return found, {
        "curve": [asdict(one) for one in curve],
        "operating": asdict(operating_point(curve, threshold)),
        "recall_cost": asdict(recall_cost(curve, threshold)),
        "knee": asdict(found),
    }


def importance():
    first, total = {LOW: 0.6, CLOSING: 0.1}, {LOW: 0.8, CLOSING: 0.3}
    groups = {"quantile": 0.8, "post-processing": 0.3}
    return Importance(
        (LOW, CLOSING), first, total, {LOW: 0.2, CLOSING: 0.2}, ((LOW, CLOSING, 0.2),),
        {"quantile": 0.6, "post-processing": 0.1}, groups, 0.9, 40,
    ).as_dict()  # fmt: skip


def calibration(held_out=(0.5, 0.55, 0.6), recall=0.9):
    """A calibration over three volumes, in JSON values."""
    results = [
        FoldResult(name, (name,), {LOW: low, CLOSING: [1, 1, 1]}, 0.6, {name: terms(score, recall)}, {name: terms(0.4)})
        for name, score, low in zip(IDS, held_out, (0.8, 0.75, 0.8), strict=True)
    ]
    found = judge(results, max_recall_loss=0.02)
    folds = [asdict(one) | {"terms": one.score, "uncalibrated": {one.name: terms(0.45)}} for one in results]
    knees, trade = zip(*(tradeoff() for _ in IDS), strict=True)
    stripes = Pattern("z", 4.0, peak=50.0, f_ratio=9.0, share=0.2)
    gains = [Evidence(n, 10, 0.7, 0.1, 0.1, 0.1, 0.8, 0.8, (stripes,) if n == 300 else ()) for n in (100, 200, 300)]
    moved = [
        {"value": v, "mean": dict.fromkeys(("score", "topo", "surface_dice", "voi"), m)}
        for v, m in ((0.7, 0.45), (0.9, 0.5))
    ]
    plan = {"volumes": [{"id": name, "scroll": None, "shape": [8, 8, 8]} for name in IDS], "space": SPACE}
    return json.loads(json.dumps(plan | {
        "name": "v61.2", "command": "nx47dask calibrate a --labels b", "nx47dask": "0.1.0", "seed": 7, "method": "grid",
        "seconds": 61.0,
        "trials": [
            {"study": "all", "number": 0, "candidate": BEST, "terms": {n: terms(0.6) for n in IDS}, "mean": 0.6},
            {"study": "1", "number": 1, "candidate": BEST, "terms": {"2": terms(0.3)}, "mean": None},
        ],
        "workflows": {
            "baseline": {"name": "v61.1", "terms": {n: terms(0.4) for n in IDS}},
            "uncalibrated": {"name": "v61.2", "terms": {n: terms(0.45) for n in IDS}},
            "best": {"name": "best", "candidate": BEST, "terms": {n: terms(0.6) for n in IDS}},
        },
        "folds": folds, "verdicts": {"baseline": found.as_dict(), "uncalibrated": found.as_dict()},
        "promoted": found.promoted, "reasons": found.reasons, "drift": drift(results),
        "tradeoff": dict(zip(IDS, trade, strict=True)), "knees": asdict(spread(knees)),
        "importance": {"score": importance(), "topo": Importance((LOW,), trials=3, reason="too few").as_dict()},
        "around": {LOW: moved, CLOSING: [{"value": [2, 1, 1], "mean": {"score": 0.59, "topo": None}}]},
        "density": {
            "model": {"names": ["grey_cv"]}, "errors": {"model": [0.01, 0.01], "constant": [0.02, 0.02]},
            "volumes": {
                "1": {"target": 0.1, "predicted": 0.09, "threshold": 0.8, "fixed_score": 0.5, "steered_score": 0.52}
            },
        },
        "evidence": {n: one.as_dict() for n, one in zip(IDS, gains, strict=True)},
    }))  # fmt: skip


def written(found, folder):
    """The four files as text, by suffix."""
    files = write_calibration(found, folder)
    assert [file.name for file in files] == list(FILES)
    return {file.suffix[1:]: file.read_text() for file in files}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return written(calibration(), tmp_path_factory.mktemp("page"))


def section(markdown, title):
    return markdown.split(f"## {title}")[1].split("\n## ")[0]


def test_the_verdict_compares_the_held_out_score_with_the_baseline(page):
    assert verdict(calibration()) == "Held-out score 0.550 [0.500, 0.600] against 0.400 of v61.1: promoted."
    assert '<strong class="good">Passed</strong>' in page["html"]


def test_a_refusal_says_why_in_the_verdict_and_further_reasons_below_it(tmp_path):
    found = calibration(held_out=(0.3, 0.4, 0.55), recall=0.8)
    assert "not promoted. The held-out gain" in verdict(found)
    text = written(found, tmp_path)
    assert text["md"].count("recall 0.9000 -> 0.8000") == 3
    assert '<strong class="bad">Failed</strong>' in text["html"]


def test_one_volume_is_no_failure_but_no_estimate_either(tmp_path):
    found = calibration() | {"folds": [], "drift": {}, "promoted": False}
    alone = judge([], max_recall_loss=0.02)
    found |= {"verdicts": {"baseline": alone.as_dict()}, "reasons": list(alone.reasons)}
    text = written(found, tmp_path)
    assert verdict(found).startswith("In-sample score 0.600, no held-out estimate: not promoted. One volume")
    assert '<p class="verdict">In-sample' in text["html"]
    assert "no folds to compare" in section(text["md"], "Parameters")


def test_scores_of_all_sides_stand_beside_each_other_with_the_optimism(page):
    scores = section(page["md"], "Scores")
    assert "its optimism is +0.0500" in scores
    assert "| 2 |  | 0.4000 | 0.4500 | 0.5500 | 0.6000 | +0.1500 | 0.9000 | 0.9000 |" in scores


def test_drift_is_a_share_of_the_range_searched(page):
    drifting = section(page["md"], "Parameters")
    assert "All folds agree on 1 of 2 keys." in drifting
    assert "| 0.8 | 0.8 (2), 0.75 | 25.0 % |" in drifting


def test_answers_come_from_the_numbers(page):
    trade = section(page["md"], "What is the trade-off")
    cost = calibration()["tradeoff"]["1"]["recall_cost"]
    assert (
        f"1 % more recall changes precision by {signed('precision', cost['more']['precision'])} and the score" in trade
    )
    assert "the score would rise on 3 of 3 volumes, by up to 0.0025" in trade
    matters = section(page["md"], "Which setting matters most")
    assert "thresholds 80.0 %, post-processing 30.0 %" in matters
    assert "R² of 0.90" in matters
    assert "| topology term | 3 |  | too few |" in matters
    assert "varies by 0.1500" in section(page["md"], "What does one key change")
    assert "At a density of 25.0 %, the median of 3 volumes" in section(page["md"], "At what density")
    gained = section(page["md"], "Are the gains real")
    assert "surface in 2 volumes, mixed in 1 volume. Of 600 voxels gained over v61.1, 70.0 %" in gained
    assert "3 has stripes across z every 4.0 voxels (20.0 %" in gained
    assert "Yes: steered" in section(page["md"], "Does a density target")
    assert "1 trial scored on all volumes of their study, 1 pruned, in 1 min 1 s." in page["md"]


def test_rows_are_the_trials(page):
    scored, pruned = csv.DictReader(page["csv"].splitlines())
    assert (scored["study"], scored["number"], scored["state"], scored["mean"]) == ("all", "0", "scored", "0.6")
    assert (float(scored[LOW]), json.loads(scored[CLOSING])) == (0.8, [1, 1, 1])
    assert [scored[f"{term}_3"] for term in ("score", "topo", "surface_dice", "voi")] == ["0.6", "0.3", "0.6", "0.6"]
    assert (pruned["state"], pruned["mean"], pruned["score_1"], pruned["score_2"]) == ("pruned", "", "", "0.3")


def test_a_column_of_the_trials_has_values_of_one_kind():
    kinds = {"numbers": (1, 0.5), "texts": ("a", "b"), "holes": (None, 100), "flags": (True, 3)}
    trials = [
        {
            "study": "all",
            "number": i,
            "candidate": {key: pair[i] for key, pair in kinds.items()},
            "terms": {},
            "mean": None,
        }
        for i in range(2)
    ]
    first, second = trial_rows({"trials": trials, "space": dict.fromkeys(kinds)})
    assert [first[key] for key in kinds] == [1, "a", "null", "true"]
    assert [second[key] for key in kinds] == [0.5, "b", "100", "3"]


def test_a_scroll_held_out_as_a_whole_does_not_stand_for_its_volumes(tmp_path):
    found = calibration()
    wider = {name: terms(0.1) for name in ("1", "2")}
    found["folds"].append(
        {"name": "scroll a", "held_out": ["1", "2"], "terms": wider, "baseline": {}, "uncalibrated": {}}
    )
    text = written(found, tmp_path)
    assert "| 2 |  | 0.4000 | 0.4500 | 0.5500 |" in text["md"]
    assert "With all volumes of a scroll held out at once, the mean score is 0.1000." in text["md"]


def test_the_terminal_gets_the_verdict_and_the_gains():
    title, first, *rest = summary(calibration())
    assert (title, first) == ("Calibration of v61.2 on 3 volumes", verdict(calibration()))
    assert any(line.startswith("Held-out gain over v61.1: +0.1500") for line in rest)


def test_the_page_stands_alone_escapes_names_and_is_the_same_every_time(page, tmp_path):
    assert json.loads(page["json"]) == calibration()
    assert written(calibration(), tmp_path / "again") == page
    html = written(calibration() | {"name": "<b>&"}, tmp_path / "named")["html"]
    tags = Page(html).tags
    assert "&lt;b&gt;&amp;" in html
    assert not {"script", "img"} & {tag for tag, _ in tags}
    assert [attributes for _, attributes in tags if "src" in attributes] == []
    named = [attributes["aria-label"] for tag, attributes in tags if tag == "svg" and "aria-label" in attributes]
    # precision by recall, score by threshold, precision by density; one importance, two keys, the evidence
    assert len(named) == 3 * 3 + 1 + 2 + 1


@settings(max_examples=25, deadline=None)
@given(st.sets(st.sampled_from(sorted(calibration()))), st.booleans())
def test_whatever_is_missing_the_page_is_written(tmp_path_factory, missing, empty):
    found = {key: value for key, value in calibration().items() if key not in missing}
    found |= dict.fromkeys(missing) if empty else {}
    text = written(found, tmp_path_factory.mktemp("page"))
    Page(text["html"])
    assert "None" not in text["md"]


def test_a_calibration_of_nothing_says_so_in_every_section(tmp_path):
    text = written({}, tmp_path)
    assert verdict({}) == "No score, no held-out estimate: not promoted."
    assert text["md"].count("Not measured") == 8
    assert list(csv.DictReader(text["csv"].splitlines())) == [{"study": "", "number": "", "state": "none", "mean": ""}]


values = st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 4)), min_size=1, max_size=8)


@given(values, st.booleans())
def test_an_axis_reaches_all_values_with_few_ticks(numbers, percent):
    axis = linear_axis("", numbers, percent=percent)
    places = [axis.share(value) for value, _ in axis.ticks]
    assert all(-1e-6 <= axis.share(value) <= 1 + 1e-6 for value in numbers)
    assert 2 <= len(places) <= 9
    assert places == sorted(places)
    assert len({label for _, label in axis.ticks}) == len(places)


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=8))
def test_a_logarithmic_axis_reaches_all_values(numbers):
    axis = log_axis("", numbers)
    assert all(-1e-9 <= axis.share(value) <= 1 + 1e-9 for value in numbers)
    assert all(-1e-9 <= axis.share(value) <= 1 + 1e-9 for value, _ in axis.ticks)


def test_equal_factors_are_equally_far_on_a_logarithmic_axis():
    axis = log_axis("size", [100, 10000])
    assert axis.share(1000) == pytest.approx(0.5)
    assert [label for _, label in axis.ticks] == ["100", "1,000", "10,000"]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_every_point_of_a_chart_lies_within_it(drawn):
    x, y = (linear_axis(name, [point[i] for point in drawn]) for i, name in enumerate(("recall", "precision")))
    svg = chart("A curve", x, y, [Series("curve", drawn), Series("here", drawn[:1], "here")])
    width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', svg).groups())
    line = max(re.findall(r'points="([^"]+)"', svg), key=len)
    for pair in line.split():
        across, down = map(float, pair.split(","))
        assert 0 <= across <= width
        assert 0 <= down <= height


def test_a_chart_is_read_aloud():
    x, y = choice_axis("key", ["true", "false"]), linear_axis("score", [0.1, 0.5])
    svg = chart("By <key>", x, y, [Series("score", [(0, 0.5), (1, 0.1)]), Series("best", [(0, 0.5)], "here")])
    assert (
        'aria-label="By &lt;key&gt;: score, score from 0.1 at key false to 0.5 at true; best, score 0.5 at key true"'
        in svg
    )


def test_bars_are_as_long_as_their_shares():
    svg = bars("Shares", [("own", "accent"), ("other", "behind")], [("a", "75 %", (0.5, 0.25))])
    widths = [
        float(width) for width in re.findall(r'width="([\d.]+)" height="10" style="fill:var\(--(?:accent|behind)', svg)
    ]
    assert widths[2:] == pytest.approx([372 / 2 - 1, 372 / 4 - 1])
    assert 'aria-label="Shares: a own 50.0 %, other 25.0 %"' in svg
