"""Trade-offs: curves by hand, knees of curves whose knee is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nx47dask.calibration.methods.tradeoff import CurvePoint, knee, operating_point, recall_cost, spread
from nx47dask.errors import InputError

CURVE = [
    CurvePoint(0.8, 0.05, 0.95, 0.70, 0.50),
    CurvePoint(0.7, 0.07, 0.90, 0.80, 0.60),
    CurvePoint(0.6, 0.10, 0.70, 0.84, 0.58),
    CurvePoint(0.5, 0.20, 0.40, 0.90, 0.40),
]


def test_a_point_between_two_is_linear():
    found = operating_point(CURVE, 0.65)
    assert found == CurvePoint(*map(pytest.approx, (0.65, 0.085, 0.8, 0.82, 0.59)))
    assert operating_point(CURVE[::-1], 0.7) == CURVE[1]


def test_a_threshold_outside_the_curve_is_refused():
    with pytest.raises(InputError, match=r"goes from 0.5 to 0.8 and does not hold the threshold 0.9"):
        operating_point(CURVE, 0.9)
    with pytest.raises(InputError, match="has no points"):
        operating_point([], 0.5)
    with pytest.raises(InputError, match=r"different thresholds: 0\.5, 0\.8, 0\.8"):
        operating_point([CURVE[0], CURVE[0], CURVE[3]], 0.8)


def test_recall_costs_what_the_curve_on_either_side_says():
    cost = recall_cost(CURVE, 0.7)
    assert cost.at == CURVE[1]
    # 0.01 of the 0.04 of recall to the next lower threshold, and of the 0.1 to the next higher one
    assert cost.more == pytest.approx(
        {"threshold": -0.025, "density": 0.0075, "precision": -0.05, "recall": 0.01, "score": -0.005}
    )
    assert cost.less == pytest.approx(
        {"threshold": 0.01, "density": -0.002, "precision": 0.005, "recall": -0.01, "score": -0.01}
    )


def test_a_large_step_passes_points_of_the_curve():
    cost = recall_cost(CURVE, 0.75, step=0.06)
    assert cost.more["precision"] == pytest.approx(0.85 - 0.925)
    assert cost.less is None


def test_the_ends_of_a_curve_have_one_side():
    assert recall_cost(CURVE, 0.8).less is None
    assert recall_cost(CURVE, 0.8).more["precision"] == pytest.approx(-0.005)
    assert recall_cost(CURVE, 0.5).more is None
    assert recall_cost(CURVE, 0.5).less["precision"] == pytest.approx(0.05)


def test_a_curve_where_recall_falls_back_is_followed_until_it_has_moved():
    curve = [CurvePoint(0.7, 0.1, 0.9, 0.80), CurvePoint(0.6, 0.2, 0.8, 0.79), CurvePoint(0.5, 0.3, 0.6, 0.82)]
    more = recall_cost(curve, 0.7).more
    assert more["precision"] == pytest.approx(0.8 - 0.2 * 2 / 3 - 0.9)
    assert "score" not in more


@given(st.floats(0.5, 0.8), st.floats(0.001, 0.05))
def test_the_point_that_a_cost_tells_lies_on_the_curve(threshold, step):
    cost = recall_cost(CURVE, threshold, step)
    for changes, sign in ((cost.more, 1), (cost.less, -1)):
        if changes is not None:
            there = operating_point(CURVE, min(max(threshold + changes["threshold"], 0.5), 0.8))
            assert there.recall == pytest.approx(cost.at.recall + sign * step)
            assert there.precision == pytest.approx(cost.at.precision + changes["precision"])


def test_the_knee_of_a_plateau_and_a_slope_is_where_they_meet():
    density = np.linspace(0, 0.2, 21)
    precision = np.where(density <= 0.12, 0.95, 0.95 - 5 * (density - 0.12))
    found = knee(density, precision)
    assert (found.index, found.density, found.precision) == (12, pytest.approx(0.12), pytest.approx(0.95))
    assert found.sharpness == pytest.approx(0.6)


def test_the_knee_of_a_quarter_circle_is_its_middle():
    angle = np.linspace(0, np.pi / 2, 91)
    found = knee(np.sin(angle), np.cos(angle))
    assert (found.index, found.sharpness) == (45, pytest.approx(np.sqrt(2) - 1))


def test_a_curve_that_rises_first_has_its_knee_at_the_top():
    found = knee([0, 1, 2, 3, 4], [0.6, 0.9, 0.7, 0.55, 0.4])
    assert (found.index, found.sharpness) == (1, pytest.approx(0.25))


@pytest.mark.parametrize(
    "precision",
    [[0.9, 0.8, 0.7, 0.6], [0.9, 0.9, 0.9, 0.9], [0.5, 0.7, 0.8, 0.9], [0.9, 0.5, 0.45, 0.4], [0.5, 0.9, 0.95, 0.95]],
    ids=["straight", "flat", "rising", "falling at once", "rising to a plateau"],
)
def test_a_curve_without_a_bend_has_no_knee(precision):
    assert knee([1, 2, 3, 4], precision) is None
    assert knee([1, 2], [0.9, 0.5]) is None


def test_a_curve_with_holes_is_refused():
    with pytest.raises(InputError, match="finite densities"):
        knee([1, 2, 3], [0.9, np.nan, 0.5])
    with pytest.raises(InputError, match=r"\(3,\) and \(2,\)"):
        knee([1, 2, 3], [0.9, 0.5])


shares = st.integers(0, 1000).map(lambda n: n / 1000)
curves = st.lists(st.tuples(shares, shares), min_size=3, max_size=20, unique_by=lambda point: point[0])


@given(curves, st.floats(0.01, 100), st.floats(-5, 5), st.floats(0.01, 100), st.floats(-5, 5), st.randoms())
def test_units_and_order_do_not_move_the_knee(points, scale_x, shift_x, scale_y, shift_y, random):
    x, y = np.array(points).T
    found = knee(x, y)
    if np.ptp(y):
        *_, second, first = sorted((x - x.min()) / np.ptp(x) + (y - y.min()) / np.ptp(y) - 1)
        assume(first - second > 1e-6)  # else rounding may decide
        assume(abs(first - 0.1) > 1e-6)
    order = random.sample(range(len(x)), len(x))
    moved = knee(scale_x * x[order] + shift_x, scale_y * y[order] + shift_y)
    assert (found is None) == (moved is None)
    if found is not None:
        assert order[moved.index] == found.index
        assert moved.density == pytest.approx(scale_x * found.density + shift_x)
        assert moved.sharpness == pytest.approx(found.sharpness, abs=1e-6)


def test_the_spread_counts_the_curves_without_a_knee():
    knees = [knee([0, end, 1], [1, 1, 0]) for end in (0.2, 0.3, 0.7)]
    found = spread([*knees, None])
    assert (found.median, found.minimum, found.maximum, found.found, found.curves) == (0.3, 0.2, 0.7, 3, 4)
    assert spread([None]) is None
