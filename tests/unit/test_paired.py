"""Paired differences: the sign test against scipy, the bootstrap against what must hold of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from nx47dask.errors import InputError
from nx47dask.metrics.paired import as_dict, paired_difference

scores = st.floats(0, 1)
pairs = st.lists(st.tuples(scores, scores), min_size=1, max_size=12)


@given(pairs)
def test_exchanging_the_sides_mirrors_everything(values):
    baseline, candidate = zip(*values, strict=True)
    there, back = paired_difference(baseline, candidate), paired_difference(candidate, baseline)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low), abs=1e-12)
    assert (there.wins, there.losses, there.ties, there.p) == (back.losses, back.wins, back.ties, back.p)


@given(pairs)
def test_bounds(values):
    baseline, candidate = zip(*values, strict=True)
    found = paired_difference(baseline, candidate)
    differences = np.subtract(candidate, baseline)
    assert differences.min() - 1e-12 <= found.low <= found.high <= differences.max() + 1e-12
    assert found.wins + found.losses + found.ties == len(values)
    assert 0 < found.p <= 1


@given(st.lists(scores, min_size=1, max_size=12))
def test_equal_runs_differ_by_nothing(values):
    assert as_dict(paired_difference(values, values)) == {
        "mean": 0,
        "low": 0,
        "high": 0,
        "wins": 0,
        "losses": 0,
        "ties": len(values),
        "p": 1,
    }


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (3, 3), (4, 3), (9, 2), (0, 20), (700, 800)])
def test_sign_test_is_the_binomial_test(wins, losses):
    candidate = [1] * wins + [-1] * losses + [1e-13, 0]
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1
    found = paired_difference([0] * len(candidate), candidate)
    assert found.p == pytest.approx(expected, rel=1e-9)
    assert (found.wins, found.losses, found.ties) == (wins, losses, 2)


def test_interval_is_that_of_the_mean():
    """With many volumes the bootstrap interval is the normal one."""
    differences = np.random.default_rng(1).normal(0.3, 1, 400)
    found = paired_difference(np.zeros(400), differences)
    half = 1.96 * differences.std() / 20
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.1 * half)


def test_the_same_values_give_the_same_bytes():
    values = np.random.default_rng(2).random((2, 15))
    texts = {json.dumps(as_dict(paired_difference(*values))) for _ in range(2)}
    assert len(texts) == 1


def test_one_volume_has_no_interval():
    found = paired_difference([0.25], [0.75])
    assert (found.low, found.mean, found.high, found.p) == (0.5, 0.5, 0.5, 1)


@pytest.mark.parametrize(
    ("baseline", "candidate"), [([], []), ([1], [1, 2]), ([float("nan")], [0]), ([0], [float("inf")])]
)
def test_refused(baseline, candidate):
    with pytest.raises(InputError, match="paired differences need"):
        paired_difference(baseline, candidate)
