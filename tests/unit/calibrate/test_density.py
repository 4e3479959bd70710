"""Density targets: features by numpy, the regression by its normal equations, thresholds by trying them all."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import entropy

from nx47dask.calibration.methods.density import DensityModel, features, fit, held_out_errors
from nx47dask.errors import InputError
from nx47dask.kernels.statistics import ScanStatistics

SCAN = {"minimum": 10, "maximum": 210, "mean": 60.0, "std": 30.0}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_features_are_what_numpy_says(rng, dtype):
    top = np.iinfo(dtype).max
    field = (rng.beta(0.5, 2, (5, 6, 7)) * top).astype(dtype)
    found = features(SCAN, field)
    share = field / top
    assert (found["grey_mean"], found["grey_std"], found["grey_cv"]) == (0.25, 0.15, 0.5)
    assert "grey_empty" not in found
    assert found["probability_mean"] == pytest.approx(share.mean())
    assert found["probability_std"] == pytest.approx(share.std())
    assert found["probability_above_half"] == pytest.approx(np.mean(share >= 0.5))
    for q in (50, 75, 90, 95, 99):
        assert found[f"probability_q{q}"] == np.quantile(field, q / 100, method="inverted_cdf") / top
    counts = np.bincount(field.ravel() // np.array((top + 1) // 256, dtype=dtype))
    assert found["probability_entropy"] == pytest.approx(entropy(counts, base=256))


def test_features_tell_the_share_of_empty_voxels(rng):
    grey = rng.integers(0, 4, 1000)
    scan = asdict(ScanStatistics.of_histogram(np.bincount(grey)))
    assert features(scan, np.zeros((2, 2, 2), np.uint8))["grey_empty"] == pytest.approx(np.mean(grey == 0))
    empty = asdict(ScanStatistics.of_histogram(np.array([8])))
    assert features(empty, np.zeros((2, 2, 2), np.uint8))["grey_empty"] == 1


def volumes(rng, count, noise=0.05):
    """Features of which one tells the density."""
    table = [{f"noise_{i}": float(v) for i, v in enumerate(rng.normal(size=3))} for _ in range(count)]
    for one in table:
        one["tells"] = float(rng.uniform(10, 20))
    return table, [float(expit(-4 + 0.2 * one["tells"] + rng.normal(0, noise))) for one in table]


def test_the_feature_that_tells_is_found(rng):
    table, targets = volumes(rng, 9)
    model = fit(table, targets)
    assert model.names[0] == "tells"
    assert len(model.names) <= 3
    assert [model.predict(one) for one in table] == pytest.approx(targets, abs=0.03)
    errors = held_out_errors(table, targets)
    assert len(errors.model) == len(errors.constant) == 9
    assert errors.helps
    assert np.mean(errors.model) < 0.3 * np.mean(errors.constant)


def test_weights_solve_the_penalised_least_squares(rng):
    table, targets = volumes(rng, 12, noise=0.5)
    model = fit(table, targets)
    x = np.array([[one[name] for name in model.names] for one in table])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    rows = np.vstack([x, np.sqrt(12 * model.penalty) * np.eye(x.shape[1])])
    goal = np.concatenate([logit(targets) - np.mean(logit(targets)), np.zeros(x.shape[1])])
    assert model.names
    assert model.weights == pytest.approx(np.linalg.lstsq(rows, goal)[0])


def left_out(x, y, penalty):
    """Mean squared error, each value told by a regression on the others, with the columns as they are scaled."""
    count = len(y)
    errors = []
    for i in range(count):
        rest = np.arange(count) != i
        design = np.column_stack([np.ones(count), x])
        rows = np.vstack([design[rest], np.sqrt(count * penalty) * np.eye(x.shape[1] + 1)[1:]])
        weights = np.linalg.lstsq(rows, np.concatenate([y[rest], np.zeros(x.shape[1])]))[0]
        errors.append(y[i] - design[i] @ weights)
    return np.mean(np.square(errors))


@pytest.mark.parametrize("seed", range(5))
def test_one_feature_is_the_one_that_tells_the_left_out_volumes_best(seed):
    rng = np.random.default_rng(seed)
    table, targets = volumes(rng, 5, noise=0.5)
    y = logit(targets)
    options = {(): left_out(np.zeros((5, 0)), y, 0)}
    for name in table[0]:
        x = np.array([one[name] for one in table])
        for penalty in (0.01, 0.1, 1.0):
            options[name, penalty] = left_out(((x - x.mean()) / x.std())[:, None], y, penalty)
    best = min(options, key=options.get)
    model = fit(table, targets)
    worth = options[best] <= 0.7 * options[()]
    assert (model.names, model.penalty) == (((best[0],), best[1]) if worth else ((), 0))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_volumes_give_a_constant(rng, count):
    table, targets = volumes(rng, count)
    model = fit(table, targets)
    assert model.names == ()
    assert model.predict({}) == pytest.approx(expit(np.mean(logit(targets))))
    errors = held_out_errors(table, targets)
    assert errors.model == errors.constant
    assert len(errors.model) == (count if count > 1 else 0)
    assert not errors.helps


def test_features_that_some_volume_lacks_or_that_do_not_vary_are_left_out(rng):
    table, targets = volumes(rng, 6)
    for one in table:
        one["same"] = 0.1 + 0.2
    del table[4]["tells"]
    assert not {"tells", "same"} & set(fit(table, targets).names)


def test_a_target_stays_near_those_seen(rng):
    table, targets = volumes(rng, 9, noise=0)
    model = fit(table, targets)
    y = logit(targets)
    far = model.predict(table[0] | {"tells": 1e6}), model.predict(table[0] | {"tells": -1e6})
    quarter = (max(y) - min(y)) / 4
    assert far == pytest.approx((expit(max(y) + quarter), expit(min(y) - quarter)))


def test_a_model_comes_back_from_json(rng):
    model = fit(*volumes(rng, 9))
    assert DensityModel(**json.loads(json.dumps(asdict(model)))) == model


def test_what_cannot_be_learned_from_is_refused(rng):
    table, targets = volumes(rng, 4)
    with pytest.raises(InputError, match=r"not 0 \(volume 2\)"):
        fit(table, [0.1, 0, 0.2, 0.3])
    with pytest.raises(InputError, match="4 and 3 given"):
        fit(table, targets[:3])
    with pytest.raises(InputError, match="0 and 0 given"):
        held_out_errors([], [])
    with pytest.raises(InputError, match="finite"):
        fit([*table[:3], table[3] | {"tells": np.nan}], targets)
    model = DensityModel(("tells",), (0,), (1,), (1,), 0, 0.1, 0.1, 0.9)
    with pytest.raises(InputError, match="needs tells; known of the volume: other"):
        model.predict({"other": 1})
