"""Fusion: weights that act, checked and applied in order."""

from dataclasses import dataclass

import numpy as np
import pytest

from nx47dask.detectors import DETECTORS, Detector, Fusion, RadiusDetector, Residual, Sheetness
from nx47dask.errors import WorkflowError
from nx47dask.geometry import Box
from nx47dask.kernels.log_odds import from_log_odds, log_odds
from nx47dask.kernels.statistics import ScanStatistics
from tests.conftest import sheets

IMAGE = sheets((14, 20, 22))
SCAN = ScanStatistics.of_histogram(np.bincount(IMAGE.ravel()))
RESIDUAL, SHEETNESS = Residual(), Sheetness(scales=(1,), side_radius_vox=0)


VOLUME = Box.of_shape(IMAGE.shape)


def whole(detector):
    return detector.probability(IMAGE, VOLUME, VOLUME, VOLUME, SCAN)


@dataclass(frozen=True)
class Constant(RadiusDetector):
    value: float
    radius: tuple

    def radius_zyx(self, scan):
        return self.radius

    def respond(self, image, scan):
        return np.full(image.shape, self.value, np.float32)


def test_weighted_mean_and_largest_radius():
    fusion = Fusion(((1.0, Constant(0.2, (1, 5, 2))), (3.0, Constant(0.6, (4, 0, 3)))))
    np.testing.assert_allclose(whole(fusion), 0.5, rtol=1e-6)
    assert fusion.radius_zyx(SCAN) == (4, 5, 3)


def test_weights_change_which_voxels_lie_above_a_percentile():
    def mask(weight):
        p = whole(Fusion(((weight, RESIDUAL), (1.0, SHEETNESS))))
        return p > np.percentile(p, 90)

    assert (mask(0.2) != mask(2.0)).mean() > 0.01


def test_only_ratios_of_weights_count():
    small = whole(Fusion(((1.0, RESIDUAL), (3.0, SHEETNESS))))
    large = whole(Fusion(((4.0, RESIDUAL), (12.0, SHEETNESS))))
    assert small.tobytes() == large.tobytes()


def test_a_single_source_and_a_weight_of_zero():
    alone = RESIDUAL.respond(IMAGE, SCAN)
    fusion = Fusion(((2.0, RESIDUAL), (0.0, Constant(float("nan"), (99, 99, 99)))))
    assert whole(fusion).tobytes() == alone.tobytes()
    assert fusion.radius_zyx(SCAN) == RESIDUAL.radius_zyx(SCAN)


@pytest.mark.parametrize("combine", ["probability", "logit"])
def test_exact_under_cropping(combine):
    fusion = Fusion(((0.3, RESIDUAL), (0.7, SHEETNESS)), combine)
    core = Box((2, 0, 5), (9, 20, 12))
    outer = fusion.context(core, VOLUME, SCAN)
    block = fusion.probability(IMAGE[outer.slices], outer, core, VOLUME, SCAN)
    assert block.tobytes() == whole(fusion)[core.slices].tobytes()


def test_a_mean_of_logits_heeds_the_sure_source():
    sources = ((1.0, Constant(0.999, (0, 0, 0))), (1.0, Constant(0.4, (0, 0, 0))))
    odds = np.log(0.999 / 0.001), np.log(0.4 / 0.6)
    np.testing.assert_allclose(whole(Fusion(sources, "logit")), 1 / (1 + np.exp(-sum(odds) / 2)), rtol=1e-5)
    assert whole(Fusion(sources, "logit")).max() > 0.9 > whole(Fusion(sources)).max()


def test_log_odds_are_finite_and_come_back():
    p = np.linspace(0, 1, 1001, dtype=np.float32)
    assert np.abs(log_odds(p)).max() == 16
    np.testing.assert_allclose(log_odds(p[1:-1]), np.log(p[1:-1] / (1 - p[1:-1].astype(float))), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(from_log_odds(log_odds(p)), p, atol=2e-7)
    assert log_odds(p)[7:90].tobytes() == log_odds(p[7:90]).tobytes()


@pytest.mark.parametrize("weights", [(), (0.0,), (1.0, -0.1), (float("nan"),), (float("inf"), 1.0)])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(WorkflowError, match="weights"):
        Fusion(tuple((weight, RESIDUAL) for weight in weights))


def test_the_registry_names_detectors():
    assert set(DETECTORS) == {"learned", "residual", "residual_band", "sheetness"}
    assert isinstance(Fusion(((1.0, RESIDUAL),)), Detector)
    assert all(isinstance(DETECTORS[name](), Detector) for name in ("residual", "sheetness"))
