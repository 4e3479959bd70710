"""Selection: who is held out, who is chosen, and every reason to refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nx47dask.calibration.methods.verdict import Fold, FoldResult, choose, drift, folds, judge
from nx47dask.errors import InputError

names = st.lists(st.integers(0, 99).map(str), unique=True, max_size=8)


@given(names)
def test_every_volume_is_held_out_once_and_never_searched_on(volumes):
    found = folds(volumes, None, "volume")
    assert [fold.held_out for fold in found] == ([(v,) for v in volumes] if len(volumes) > 1 else [])
    for fold in found:
        assert sorted(fold.held_out + fold.training) == sorted(volumes)


@given(names, st.data())
def test_a_scroll_is_held_out_as_a_whole(volumes, data):
    scroll = data.draw(st.fixed_dictionaries({v: st.sampled_from("abc") for v in volumes}))
    found = folds(volumes, scroll, "scroll")
    assert len(found) == (len(set(scroll.values())) if len(set(scroll.values())) > 1 else 0)
    for fold in found:
        assert {scroll[v] for v in fold.held_out} == {fold.name}
        assert fold.name not in {scroll[v] for v in fold.training}
        assert sorted(fold.held_out + fold.training) == sorted(volumes)


def test_a_volume_of_an_unknown_scroll_takes_no_part():
    assert folds(["1", "2", "3"], {"1": "a", "3": "b"}, "scroll") == [
        Fold("a", ("1",), ("3",)),
        Fold("b", ("3",), ("1",)),
    ]
    assert folds(["1", "2"], None, "scroll") == []


def test_a_volume_named_twice_is_refused():
    with pytest.raises(InputError, match="named twice: 2"):
        folds(["1", "2", "2"], None, "volume")


def test_the_best_is_chosen_when_nothing_is_near():
    assert choose([0.5, 0.7, None, 0.6], [1, 9, 0, 1], tie=0.05) == 1


def test_a_tie_goes_to_the_simpler_then_the_better_then_the_first():
    assert choose([0.70, 0.695, 0.69, 0.60], [3, 2, 1, 0], tie=0.01) == 2
    assert choose([0.70, 0.69, 0.695], [3, 1, 1], tie=0.01) == 2
    assert choose([0.70, 0.70, 0.70], [3, 1, 1], tie=0) == 1


def test_no_candidate_to_choose_from_is_refused():
    with pytest.raises(InputError, match="none of 2 candidates"):
        choose([None, None], [1, 1], tie=0)


scored = st.lists(
    st.tuples(st.none() | st.integers(0, 50).map(lambda n: n / 50), st.integers(0, 5)), min_size=1, max_size=12
).filter(lambda rows: any(mean is not None for mean, _ in rows))
ties = st.integers(0, 10).map(lambda n: n / 50)


@given(scored, ties)
def test_the_chosen_is_as_good_as_the_best_and_none_as_good_is_simpler(rows, tie):
    means, complexity = zip(*rows, strict=True)
    index = choose(means, complexity, tie)
    limit = max(mean for mean in means if mean is not None) - tie - 1e-9
    assert means[index] >= limit
    assert all(c >= complexity[index] for m, c in rows if m is not None and m >= limit)


@given(scored, ties, st.randoms())
def test_the_order_and_the_pruned_do_not_change_the_choice(rows, tie, random):
    means, complexity = zip(*rows, strict=True)
    index = choose(means, complexity, tie)
    mixed = [row for row in random.sample(rows, len(rows)) if row[0] is not None] + [(None, 0)]
    other = choose(*zip(*mixed, strict=True), tie)
    assert mixed[other] == (means[index], complexity[index])


def results(before, now, recall_before=None, recall_now=None, in_sample=0.9):
    """A fold per volume a, b, ..."""
    recall_before, recall_now = recall_before or [0.8] * len(now), recall_now or [0.8] * len(now)
    rows = zip("abcdefgh", before, now, recall_before, recall_now, strict=False)
    return [
        FoldResult(v, (v,), {"low": 0.5}, in_sample, {v: {"score": n, "recall": r}}, {v: {"score": b, "recall": q}})
        for v, b, n, q, r in rows
    ]


def test_a_gain_on_every_volume_is_promoted():
    verdict = judge(results([0.5, 0.6, 0.7], [0.55, 0.66, 0.73]), max_recall_loss=0.01)
    assert (verdict.promoted, verdict.reasons) == (True, ())
    assert verdict.held_out_mean == pytest.approx(1.94 / 3)
    assert 0.55 <= verdict.held_out_interval[0] < verdict.held_out_mean < verdict.held_out_interval[1] <= 0.73
    assert verdict.optimism == pytest.approx(0.9 - 1.94 / 3)
    assert (verdict.gain.wins, verdict.gain.mean) == (3, pytest.approx(0.14 / 3))
    assert verdict.recall_changes == {"a": 0, "b": 0, "c": 0}


def test_a_gain_that_one_volume_makes_is_refused_with_the_volume_that_loses_most():
    verdict = judge(results([0.5, 0.6, 0.7, 0.5], [0.9, 0.61, 0.68, 0.5]), max_recall_loss=0.01)
    assert not verdict.promoted
    (reason,) = verdict.reasons
    assert reason.startswith("the held-out gain +0.0975 is not beyond doubt: its 95 % interval -0.0")
    assert reason.endswith("over 4 volumes does not lie above 0; least on c: score 0.7000 -> 0.6800")


def test_the_baseline_itself_gains_nothing():
    verdict = judge(results([0.5, 0.6], [0.5, 0.6]), max_recall_loss=0)
    assert not verdict.promoted
    assert "gain +0.0000 is not beyond doubt" in verdict.reasons[0]


def test_a_loss_of_recall_on_one_volume_is_refused():
    given = results([0.5, 0.6, 0.7], [0.6, 0.7, 0.8], [0.8, 0.9, 0.7], [0.85, 0.87, 0.7])
    verdict = judge(given, max_recall_loss=0.01)
    assert verdict.reasons == ("b: recall 0.9000 -> 0.8700 falls by 0.0300, more than 0.01",)
    assert verdict.recall_changes == pytest.approx({"a": 0.05, "b": -0.03, "c": 0})
    assert judge(given, max_recall_loss=0.9 - 0.87).promoted


def test_a_gain_within_the_tie_leaves_the_baseline():
    given = results([0.5, 0.6], [0.502, 0.602])
    assert judge(given, max_recall_loss=0.01).promoted
    (reason,) = judge(given, max_recall_loss=0.01, tie=0.005).reasons
    assert reason.startswith("the held-out gain +0.0020 is a tie (up to 0.005) and the baseline stays")


def test_every_reason_is_told():
    verdict = judge(results([0.5, 0.6], [0.4, 0.6], [0.8, 0.9], [0.7, 0.8]), max_recall_loss=0.05)
    assert [reason[:8] for reason in verdict.reasons] == ["the held", "a: recal", "b: recal"]


@pytest.mark.parametrize("count", [0, 1])
def test_one_volume_is_no_held_out_estimate(count):
    verdict = judge(results([0.1] * count, [0.9] * count), max_recall_loss=1)
    assert (verdict.promoted, verdict.reasons) == (False, ("one volume: no held-out estimate",))
    assert (verdict.held_out_mean, verdict.gain) == (None, None)
    json.dumps(verdict.as_dict())


def test_volumes_count_alike_when_folds_are_scrolls():
    terms = {v: {"score": s, "recall": 0.5} for v, s in zip("abc", (0.2, 0.4, 0.9), strict=True)}
    lower = {v: {"score": 0.1, "recall": 0.5} for v in "abc"}
    given = [
        FoldResult(scroll, held_out, {}, in_sample, *({v: side[v] for v in held_out} for side in (terms, lower)))
        for scroll, held_out, in_sample in (("s", ("a", "b"), 0.3), ("t", ("c",), 0.6))
    ]
    verdict = judge(given, max_recall_loss=0)
    assert verdict.held_out_mean == pytest.approx(0.5)
    assert verdict.in_sample_mean == pytest.approx(0.4)
    assert verdict.gain.mean == pytest.approx(0.4)


def test_scores_of_other_volumes_than_those_held_out_are_refused():
    (one, other) = results([0.5, 0.6], [0.6, 0.7])
    with pytest.raises(InputError, match=r"fold a: the candidate is scored on b, held out are a"):
        judge([FoldResult("a", ("a",), {}, 0.5, other.score, one.baseline)], max_recall_loss=0)
    with pytest.raises(InputError, match="fold a: a is held out twice"):
        judge([one, one], max_recall_loss=0)


@given(st.lists(st.tuples(*[st.integers(0, 100).map(lambda n: n / 100)] * 4), min_size=2, max_size=8))
def test_whatever_is_promoted_gains_and_keeps_its_recall(rows):
    verdict = judge(results(*map(list, zip(*rows, strict=True))), max_recall_loss=0.02)
    assert verdict.promoted == (not verdict.reasons)
    if verdict.promoted:
        assert verdict.gain.low > 0
        assert min(verdict.recall_changes.values()) >= -0.02 - 1e-9
    assert json.loads(json.dumps(verdict.as_dict()))["gain"]["mean"] == pytest.approx(
        np.mean([now - before for before, now, *_ in rows])
    )


def test_drift_tells_values_and_how_far_numbers_go():
    chosen = [{"low": 0.5, "use": True, "size": 10, "radius": [1, 1, 1], "holes": None}]
    chosen.append({"low": 0.75, "use": False, "size": 10, "radius": [2, 1, 1], "holes": 100})
    found = drift([FoldResult(str(i), (), candidate, 0, {}, {}) for i, candidate in enumerate(chosen)])
    assert list(found) == list(chosen[0])
    assert found["low"] == {"values": [0.5, 0.75], "minimum": 0.5, "maximum": 0.75, "spread": 0.25}
    assert found["size"]["spread"] == 0
    assert found["use"] == {"values": [True, False]}
    assert found["radius"] == {"values": [[1, 1, 1], [2, 1, 1]]}
    assert found["holes"] == {"values": [None, 100]}
    assert drift([]) == {}
