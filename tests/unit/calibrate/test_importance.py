"""Importance of keys: against functions whose Sobol indices are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc, sobol_indices, uniform

from nx47dask.calibration.methods.importance import group_of, importances, one_at_a_time, saltelli
from nx47dask.calibration.methods.space import Choices, Range, SearchSpace

pytest.importorskip("sklearn")

A, B, C = "detect.sheetness.weight", "postprocess.threshold.value", "postprocess.closing.radius_zyx_vox"
D = "postprocess.z_coherence.use"
RADII = ([0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3])
SPACE = SearchSpace({A: Range(0, 1), B: Range(0, 1, 0.05), C: Choices(RADII), D: Choices((True, False))}, False)


def trials(count, function):
    """Points that cover the space evenly, and a function of the four keys on them."""
    candidates = [SPACE.at(point) for point in qmc.Sobol(4, rng=1).random(1024)[:count]]
    return candidates, np.array([function(one[A], one[B], one[C][0] / 3, one[D]) for one in candidates])


def found(count, function):
    return importances(*trials(count, function), SPACE)


def test_an_additive_function_has_no_interactions():
    # Variances: 4/12 and (1 - 1/400)/12 of even steps, 5/36 of four choices.
    result = found(512, lambda a, b, c, d: 2 * a + b + c)
    variances = np.array([4 / 12, 21**2 / 20**2 / 12 * (1 - 1 / 21**2), 5 / 36, 0])
    expected = variances / variances.sum()
    assert result.reason is None
    assert result.r2 > 0.95
    assert [result.first[key] for key in (A, B, C, D)] == pytest.approx(expected, abs=0.05)
    assert [result.total[key] for key in (A, B, C, D)] == pytest.approx(expected, abs=0.05)
    assert max(result.interaction.values()) < 0.05
    assert max(strength for *_, strength in result.pairs) < 0.05


def test_a_product_is_all_interaction():
    # (a - 1/2)(b - 1/2): neither factor explains anything by itself, both together explain everything.
    result = found(1024, lambda a, b, c, d: (a - 0.5) * (b - 0.5))
    assert result.first[A] < 0.1
    assert result.first[B] < 0.1
    assert result.total[A] > 0.85
    assert result.total[B] > 0.85
    assert result.total[C] < 0.1
    assert result.pairs[0][:2] == (A, B)
    assert result.pairs[0][2] > 0.8
    assert result.group_first["fusion"] < 0.1
    assert result.group_total["fusion"] > 0.85


def test_a_product_within_a_group_is_no_interaction_of_the_group():
    result = found(512, lambda a, b, c, d: (c - 0.5) * (d - 0.5))
    assert result.first[C] < 0.1
    assert result.group_first["post-processing"] > 0.9
    assert result.group_total["quantile"] < 0.1


def test_a_group_without_a_key_is_left_out():
    space = SearchSpace({B: Range(0, 1)})
    candidates = [{B: value} for value in np.linspace(0, 1, 50).tolist()]
    result = importances(candidates, np.linspace(0, 1, 50), space)
    assert list(result.group_total) == ["quantile"]
    assert result.first[B] == pytest.approx(1, abs=0.05)
    assert result.pairs == ()


def test_thresholds_are_repaired_before_the_surrogate_sees_them():
    """Only candidates with low <= high are tried: the gap is then what low alone cannot tell."""
    low, high = "postprocess.hysteresis.low", "postprocess.hysteresis.high"
    space = SearchSpace({low: Range(0, 1), high: Range(0, 1)})
    candidates = [space.at(point) for point in qmc.Sobol(2, rng=0).random(512)]
    result = importances(candidates, np.array([one[low] for one in candidates]), space)
    assert result.total[high] < 0.02


def test_the_indices_are_those_of_scipy():
    def ishigami(x):
        return np.sin(x[0]) + 7 * np.sin(x[1]) ** 2 + 0.1 * x[2] ** 4 * np.sin(x[0])

    n = 1024
    dists = [uniform(-np.pi, 2 * np.pi)] * 3
    theirs = sobol_indices(func=ishigami, n=n, dists=dists, rng=np.random.default_rng(0))
    points = qmc.Sobol(6, rng=np.random.default_rng(0), bits=64).random(n) * 2 * np.pi - np.pi
    a, b = points[:, :3], points[:, 3:]
    for number in range(3):
        mixed = np.where(np.arange(3) == number, b, a)
        ours = saltelli(*(ishigami(one.T) for one in (a, b, mixed)))
        expected = theirs.first_order[number], theirs.total_order[number]
        assert ours == pytest.approx(np.clip(expected, 0, 1), rel=1e-9)


def test_trials_that_crowd_where_the_value_is_good_do_not_mislead():
    """A sampler that has settled varies three keys little, and all at once: none of them is to blame for that."""
    covering, _ = trials(32, lambda *_: 0)
    crowd = [one | {A: 0.9 + one[A] / 10, C: RADII[0], D: True} for one in trials(256, lambda *_: 0)[0][32:]]
    tried = covering + crowd
    result = importances(tried, np.array([one[A] + one[D] for one in tried]), SPACE)
    assert [result.total[key] for key in (A, D)] == pytest.approx([0.25, 0.75], abs=0.08)
    assert max(result.total[B], result.total[C]) < 0.05


def test_noise_shows_in_the_surrogates_r2():
    rng = np.random.default_rng(0)
    assert found(64, lambda *_: rng.normal()).r2 < 0.2


@pytest.mark.parametrize(
    ("count", "function", "reason"),
    [
        (19, lambda a, *_: a, "19 different candidates; 20 are needed"),
        (32, lambda *_: 0.5, "the value is 0.5 in all 32 trials"),
        (64, lambda a, *_: np.nan if a > 0.25 else a, "16 different candidates"),
    ],
)
def test_too_little_to_go_on_is_said(count, function, reason):
    result = found(count, function)
    assert reason in result.reason
    assert result.first == {}
    assert json.loads(json.dumps(result.as_dict()))["trials"] == result.trials


def test_a_candidate_counts_once():
    candidates, values = trials(16, lambda a, *_: a)
    assert "16 different" in importances(candidates * 4, np.tile(values, 4), SPACE).reason


def test_the_same_trials_give_the_same_importance():
    candidates, values = trials(32, lambda a, b, c, d: a * b + c * d)
    assert importances(candidates, values, SPACE) == importances(candidates, values, SPACE)


def test_keys_belong_to_the_three_questions():
    assert group_of("postprocess.hysteresis.low") == group_of("postprocess.threshold#2.value") == "quantile"
    assert group_of("detect.learned.weight") == group_of("combine") == "fusion"
    assert group_of("postprocess.closing#2.use") == group_of("postprocess.smooth.sigma_zyx_vox") == "post-processing"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(2, 9))
def test_curves_change_one_key(shares, points):
    around = SPACE.at(shares)
    curves = one_at_a_time(SPACE, around, points)
    for key, candidates in curves.items():
        values = [one[key] for one in candidates]
        assert around[key] not in values
        for candidate in candidates:
            assert {name for name in around if candidate[name] != around[name]} == {key}
    assert len(curves[C]) == 3
    assert points - 1 <= len(curves[A]) <= points


def test_curves_leave_out_what_would_change_nothing_or_another_key():
    low, high, use = "postprocess.hysteresis.low", "postprocess.hysteresis.high", "postprocess.closing.use"
    radius = "postprocess.closing.radius_zyx_vox"
    space = SearchSpace(
        {low: Range(0.1, 0.9, 0.1), high: Range(0.1, 0.9, 0.1), use: Choices((True, False)), radius: Choices(RADII)}
    )
    curves = one_at_a_time(space, {low: 0.3, high: 0.5, use: False, radius: [1, 1, 1]}, 9)
    assert [one[low] for one in curves[low]] == [0.1, 0.2, 0.4, 0.5]
    assert [one[high] for one in curves[high]] == [0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
    assert [one[use] for one in curves[use]] == [True]
    assert curves[radius] == []
