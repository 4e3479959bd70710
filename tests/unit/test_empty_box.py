"""What must be empty for a detector to be certain of no surface: found by trying, and true of what it then answers."""

from __future__ import annotations

import numpy as np
import pytest

from nx47dask.detectors import Fusion, Learned, Residual, ResidualBand, Sheetness, quantise
from nx47dask.geometry import Box
from nx47dask.kernels.statistics import ScanStatistics
from tests.integration.tiny_model import write_model

SCAN = ScanStatistics(0, 200, 40.0, 30.0)
VOLUME, CORE = Box.of_shape((40, 50, 60)), Box((8, 16, 20), (19, 30, 33))


def test_what_must_be_empty_for_no_probability():
    sheetness = Sheetness(scales=(1,))
    context = CORE.expand((3, 3, 3))
    assert sheetness.empty_box(CORE, VOLUME, SCAN) == context
    assert not quantise(sheetness.respond(np.zeros(context.shape, np.uint8), SCAN), np.uint16).any()
    assert Sheetness(device="cuda").empty_box(CORE, VOLUME, SCAN) is not None
    assert Residual().empty_box(CORE, VOLUME, SCAN) is None  # it answers 0.5 where nothing is
    assert ResidualBand().empty_box(CORE, VOLUME, SCAN) is None


@pytest.mark.parametrize("combine", ["probability", "logit"])
def test_a_fusion_is_empty_where_all_of_its_sources_are(combine):
    small, large = Sheetness(scales=(1,)), Sheetness(scales=(1, 2))
    both = Fusion(((0.3, small), (0.7, large), (0.0, Residual())), combine)
    assert both.empty_box(CORE, VOLUME, SCAN) == CORE.expand((7, 7, 7))
    outer = both.context(CORE, VOLUME, SCAN)
    nothing = both.probability(np.zeros(outer.shape, np.uint8), outer, CORE, VOLUME, SCAN)
    assert not quantise(nothing, np.uint16).any()
    assert Fusion(((0.3, small), (0.7, Residual())), combine).empty_box(CORE, VOLUME, SCAN) is None


def test_a_network_is_empty_where_its_cells_are(tmp_path):
    model = write_model(tmp_path / "m.pt", window_zyx=[8, 16, 16], step_zyx=[4, 8, 8])
    network = Learned(str(model), backend="torch", support_level=3).bind()
    empty = network.empty_box(CORE, VOLUME, SCAN)
    assert empty == Box((8, 16, 16), (24, 32, 40))
    outer = network.context(CORE, VOLUME, SCAN)
    image = np.full(outer.shape, 150, np.uint8)
    image[empty.relative_to(outer.start).slices] = 0
    assert not network.probability(image, outer, CORE, VOLUME, SCAN).any()
    assert Learned(str(model), backend="torch", support_level=None).bind().empty_box(CORE, VOLUME, SCAN) is None
