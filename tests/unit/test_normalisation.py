"""Normalisation against numpy and nnU-Net; statistics of a scan."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nx47dask.detectors.base import quantise
from nx47dask.errors import InputError
from nx47dask.kernels.normalisation import Normalisation
from nx47dask.kernels.statistics import ScanStatistics

RNG = np.random.default_rng(7)
UINT8 = np.clip(RNG.normal(120, 40, (20, 24, 28)), 0, 255).astype(np.uint8)
MASKED = np.where(np.indices(UINT8.shape)[2] < 12, 0, UINT8)
UINT16 = UINT8.astype(np.uint16) * 200 + 17


def scan_of(image):
    return ScanStatistics.of_histogram(np.bincount(image.ravel()))


def normalised(image, *arguments, **keywords):
    return Normalisation(*arguments, **keywords).resolve(scan_of(image))(image)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=400))
def test_statistics_of_a_scan(values):
    values = np.array(values)
    scan = scan_of(values)
    above = values[values > 0]
    assert scan.mean_nonzero == pytest.approx(above.mean() if above.size else 0)
    assert scan.std_nonzero == pytest.approx(above.std() if above.size else 0, abs=1e-9)
    assert len(scan.permille) == 1001
    assert (scan.permille[0], scan.permille[-1]) == (values.min(), values.max())
    assert scan.permille[500] == np.percentile(values, 50, method="inverted_cdf")
    assert bool(scan.permille_nonzero) == bool(above.size)
    assert ScanStatistics(**json.loads(json.dumps(asdict(scan)))) == scan
    assert scan.permille[17] == np.sort(values)[max(1, -(-17 * len(values) // 1000)) - 1]


def test_percentiles():
    scan = scan_of(UINT8)
    for percent in (0, 0.5, 37.25, 99.5, 100):
        assert scan.percentile(percent) == pytest.approx(np.percentile(UINT8, percent), abs=1)
    above = MASKED[MASKED > 0]
    for percent in (0, 5, 50, 99.5, 100):
        assert scan_of(MASKED).percentile(percent, nonzero=True) == pytest.approx(np.percentile(above, percent), abs=1)


@pytest.mark.parametrize("image", [UINT8, UINT16], ids=["uint8", "uint16"])
def test_schemes(image):
    grey = image.astype(np.float64)
    low, high = np.percentile(grey, [1, 98])
    for found, expected in (
        (normalised(image, "zscore"), (grey - grey.mean()) / grey.std()),
        (normalised(image, "minmax"), (grey - grey.min()) / np.ptp(grey)),
        (normalised(image, "none"), grey),
        (normalised(image, "fixed", low=60, high=9000, mean=100, std=50), (np.clip(grey, 60, 9000) - 100) / 50),
        (
            normalised(image, "percentile", lower_percent=1, upper_percent=98),
            (np.clip(grey, low, high) - low) / (high - low),
        ),
    ):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_percentile_then_zscore():
    low, high = np.percentile(UINT8, [2, 95])
    clipped = np.clip(UINT8.astype(np.float64), low, high)
    found = normalised(UINT8, "percentile", lower_percent=2, upper_percent=95, after_clip="zscore")
    np.testing.assert_allclose(found, (clipped - clipped.mean()) / clipped.std(), atol=0.02)


def test_nonzero_voxels_alone_are_measured_and_changed():
    above = MASKED[MASKED > 0].astype(np.float64)
    found = normalised(MASKED, "zscore", nonzero=True)
    assert (found[MASKED == 0] == 0).all()
    np.testing.assert_allclose(found[MASKED > 0], (above - above.mean()) / above.std(), atol=1e-5)
    assert normalised(MASKED, "minmax", nonzero=True)[MASKED > 0].min() == 0


@pytest.mark.parametrize("scheme", ["zscore", "percentile", "minmax"])
def test_a_crop_is_the_crop_of_the_whole(scheme):
    ramp = Normalisation(scheme).resolve(scan_of(UINT8))
    crop = np.s_[3:9, 5:18, 7:28]
    assert ramp(UINT8[crop]).tobytes() == ramp(UINT8)[crop].tobytes()


@pytest.mark.parametrize("scheme", ["zscore", "percentile", "minmax"])
def test_a_window_may_be_measured_alone(scheme):
    window = UINT8[:8, 4:16, :10]
    found = Normalisation(scheme, scope="window").resolve(scan_of(UINT8))(window)
    assert found.tobytes() == normalised(window, scheme).tobytes()
    assert found.tobytes() != Normalisation(scheme).resolve(scan_of(UINT8))(window).tobytes()


def test_an_even_image_is_no_error():
    assert not normalised(np.full((4, 4, 4), 9, np.uint8), "zscore").any()
    assert not normalised(np.full((4, 4, 4), 9, np.uint8), "minmax").any()
    assert not normalised(np.zeros((4, 4, 4), np.uint8), "percentile", nonzero=True).any()


def test_nnunet_agrees():
    schemes = pytest.importorskip("nnunetv2.preprocessing.normalization.default_normalization_schemes")
    grey = {"mean": 110.0, "std": 35.0, "percentile_00_5": 40.0, "percentile_99_5": 220.0}
    for theirs, ours in (
        ("ZScoreNormalization", Normalisation("zscore")),
        ("CTNormalization", Normalisation("fixed", low=40, high=220, mean=110, std=35)),
        ("RescaleTo01Normalization", Normalisation("minmax")),
        ("RGBTo01Normalization", Normalisation("fixed", std=255)),
        ("NoNormalization", Normalisation("none")),
    ):
        expected = getattr(schemes, theirs)(False, grey).run(UINT8.astype(np.float32))
        np.testing.assert_allclose(ours.resolve(scan_of(UINT8))(UINT8), expected, atol=2e-6, err_msg=theirs)
    masked = schemes.ZScoreNormalization(True, grey).run(MASKED.astype(np.float32), np.where(MASKED > 0, 0, -1))
    np.testing.assert_allclose(normalised(MASKED, "zscore", nonzero=True), masked, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"lower_percent": 60, "upper_percent": 40}, {"upper_percent": 101}, {"std": 0.0}, {"mean": float("nan")}],
)
def test_settings_that_make_no_sense(settings):
    with pytest.raises(InputError, match="normalisation"):
        Normalisation("percentile", **settings)


def test_quantise_takes_two_types():
    probability = np.array([0, 0.2, 1], np.float32)
    assert quantise(probability).tolist() == [0, 51, 255]
    assert quantise(probability, np.uint16).tolist() == [0, 13107, 65535]
    assert quantise(probability, np.uint16).dtype == np.uint16
