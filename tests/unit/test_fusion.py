"""Fusion: weights that act, checked and applied in order."""

from dataclasses import dataclass

import numpy as np
import pytest

from nx47dask.detectors import DETECTORS, Detector, Fusion, Residual, ScanStatistics, Sheetness
from nx47dask.errors import WorkflowError
from tests.conftest import sheets

IMAGE = sheets((14, 20, 22))
SCAN = ScanStatistics.of_histogram(np.bincount(IMAGE.ravel()))
RESIDUAL, SHEETNESS = Residual(), Sheetness(scales=(1,), side_radius_vox=0)


@dataclass(frozen=True)
class Constant:
    value: float
    radius: tuple

    def radius_zyx(self, scan):
        return self.radius

    def probability(self, image, scan):
        return np.full(image.shape, self.value, np.float32)


def test_weighted_mean_and_largest_radius():
    fusion = Fusion(((1.0, Constant(0.2, (1, 5, 2))), (3.0, Constant(0.6, (4, 0, 3)))))
    np.testing.assert_allclose(fusion.probability(IMAGE, SCAN), 0.5, rtol=1e-6)
    assert fusion.radius_zyx(SCAN) == (4, 5, 3)


def test_weights_change_which_voxels_lie_above_a_percentile():
    def mask(weight):
        p = Fusion(((weight, RESIDUAL), (1.0, SHEETNESS))).probability(IMAGE, SCAN)
        return p > np.percentile(p, 90)

    assert (mask(0.2) != mask(2.0)).mean() > 0.01


def test_only_ratios_of_weights_count():
    small = Fusion(((1.0, RESIDUAL), (3.0, SHEETNESS))).probability(IMAGE, SCAN)
    large = Fusion(((4.0, RESIDUAL), (12.0, SHEETNESS))).probability(IMAGE, SCAN)
    assert small.tobytes() == large.tobytes()


def test_a_single_source_and_a_weight_of_zero():
    alone = RESIDUAL.probability(IMAGE, SCAN)
    fusion = Fusion(((2.0, RESIDUAL), (0.0, Constant(float("nan"), (99, 99, 99)))))
    assert fusion.probability(IMAGE, SCAN).tobytes() == alone.tobytes()
    assert fusion.radius_zyx(SCAN) == RESIDUAL.radius_zyx(SCAN)


def test_exact_under_cropping():
    fusion = Fusion(((0.3, RESIDUAL), (0.7, SHEETNESS)))
    radius = fusion.radius_zyx(SCAN)[2]
    block = fusion.probability(np.ascontiguousarray(IMAGE[..., : 7 + radius]), SCAN)[..., :7]
    assert block.tobytes() == fusion.probability(IMAGE, SCAN)[..., :7].tobytes()


@pytest.mark.parametrize("weights", [(), (0.0,), (1.0, -0.1), (float("nan"),), (float("inf"), 1.0)])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(WorkflowError, match="weights"):
        Fusion(tuple((weight, RESIDUAL) for weight in weights))


def test_the_registry_names_detectors():
    assert set(DETECTORS) == {"residual", "residual_band", "sheetness"}
    assert isinstance(Fusion(((1.0, RESIDUAL),)), Detector)
    assert all(isinstance(DETECTORS[name](), Detector) for name in ("residual", "sheetness"))
