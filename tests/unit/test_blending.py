"""Fixed-point sums: order, limits, weights of MONAI and nnU-Net, a sigmoid without surprises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from nx47dask.kernels import blending
from nx47dask.kernels.blending import accumulate, add_weights, finish, window_weights

RNG = np.random.default_rng(4)
WINDOW = (9, 12, 10)
ALL = ((0, 0, 0), WINDOW)


def blended(values, weights, kind):
    """The mean of whole windows, one on the other."""
    sums, totals = np.zeros(WINDOW, np.int64), np.zeros(WINDOW, np.int64)
    for value, weight in zip(values, weights, strict=True):
        accumulate(sums, (0, 0, 0), value, weight, *ALL, kind)
        add_weights(totals, (0, 0, 0), weight, *ALL)
    return finish(sums, totals, 1, kind)


@pytest.mark.parametrize("kind", ["probability", "logit"])
def test_the_mean_is_exact_and_the_order_does_not_matter(kind):
    values = RNG.random((40, *WINDOW), np.float32)
    values = values if kind == "probability" else 60 * values - 30
    weights = RNG.integers(1, 1 << 29, values.shape, dtype=np.int32)
    found = blended(values, weights, kind)
    mean = np.average(values.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(found, mean if kind == "probability" else expit(mean), atol=2e-6)
    order = RNG.permutation(len(values))
    assert blended(values[order], weights[order], kind).tobytes() == found.tobytes()


def test_parts_of_windows_go_where_they_belong():
    sums = np.zeros((6, 7, 8), np.int64)
    values, weights = RNG.random(WINDOW, np.float32), window_weights(WINDOW, "gaussian", "flush")
    accumulate(sums, (1, 0, 2), np.flip(values, (0, 2)), weights, (3, 4, 1), (4, 5, 6), "probability")
    expected = np.zeros(sums.shape, np.int64)
    part = np.s_[3:7, 4:9, 1:7]
    steps = (np.flip(values, (0, 2)) * np.float32(1 << 20)).astype(np.int64)
    expected[1:5, 0:5, 2:8] = steps[part] * weights[part]
    np.testing.assert_array_equal(sums, expected)


def test_values_are_clipped():
    ones = np.ones(WINDOW, np.float32)
    weights = [window_weights(WINDOW, "constant", "flush")]
    assert (blended([1.5 * ones], weights, "probability") == 1).all()
    assert (blended([-ones], weights, "probability") == 0).all()
    assert (blended([1e9 * ones], weights, "logit") == 1).all()
    assert (blended([-1e9 * ones], weights, "logit") < 1e-27).all()


def test_the_worst_sum_stays_below_64_bits():
    for largest in (blending.VALUE_SCALE["probability"], int(blending.LOGIT_LIMIT) * blending.VALUE_SCALE["logit"]):
        assert blending.MOST_OVERLAPS * blending.WEIGHT_SCALE * largest < 2**63


def finished(logits):
    """Through the sigmoid, as the sums of one window of weight 1."""
    sums = (logits * blending.VALUE_SCALE["logit"]).astype(np.int64)[None, None]
    return sums, finish(sums, np.ones_like(sums), 1, "logit")


def test_the_sigmoid_is_the_same_bits_in_any_row():
    logits = np.concatenate([np.linspace(-64, 64, 4001), RNG.normal(0, 4, 4000)])
    sums, found = finished(logits)
    np.testing.assert_allclose(found, expit(sums / blending.VALUE_SCALE["logit"]), rtol=1e-7)
    for length in (1, 2, 3, 5, 8, 17):
        part = np.s_[1000 : 1000 + length]
        assert finished(logits[part])[1].tobytes() == found[..., part].tobytes()


def test_the_sigmoid_is_clipped_outside_its_limit():
    _, found = finished(np.array([-1e9, -80, 80, 1e9]))
    assert found[0, 0, 2:].tolist() == [1, 1]
    assert (found[0, 0, :2] < 1e-27).all()


@pytest.mark.parametrize("window", [(16, 16, 16), (9, 12, 32)])
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_weights_are_monais(window, blend):
    utils = pytest.importorskip("monai.data.utils")
    expected = utils.compute_importance_map(window, mode=blend, sigma_scale=0.125).numpy()
    np.testing.assert_allclose(window_weights(window, blend, "flush") / 2**29, expected, rtol=1e-5, atol=4e-9)


@pytest.mark.parametrize("window", [(16, 16, 16), (9, 12, 32)])
def test_weights_are_nnunets(window):
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("nnunetv2.inference.sliding_window_prediction")
    expected = module.compute_gaussian(window, 1 / 8, 1, torch.float32, torch.device("cpu")).numpy()
    np.testing.assert_allclose(window_weights(window, "gaussian", "even") / 2**29, expected, rtol=1e-5, atol=4e-9)


@pytest.mark.parametrize("placement", ["flush", "even"])
def test_every_voxel_of_a_window_counts(placement):
    weights = window_weights((64, 64, 64), "gaussian", placement)
    assert weights.dtype == np.int32
    assert weights.min() == (round(1e-3 * 2**29) if placement == "flush" else 1)
    assert not weights.flags.writeable
