"""The residual detector and the frozen V61.1: exact under cropping, equal to the golden masks."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from nx47dask.detectors import Residual, ResidualBand, quantise
from nx47dask.geometry import Box
from nx47dask.kernels.residual import normalise, projected_slices, projection, residual
from nx47dask.kernels.statistics import ScanStatistics
from tests.conftest import sheets


def statistics(image):
    return ScanStatistics.of_histogram(np.bincount(image.ravel()))


@st.composite
def boxes(draw, shape):
    ends = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape]
    return Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))


IMAGE = sheets((24, 30, 27))
SCAN = statistics(IMAGE)
THRESHOLDS = ResidualBand().slice_thresholds(IMAGE, 0, 24, SCAN)


def with_halo(box, radius_zyx):
    read = box.expand(radius_zyx).clip(Box.of_shape(IMAGE.shape))
    return read, box.relative_to(read.start).slices


def test_statistics_equal_numpy():
    assert (SCAN.minimum, SCAN.maximum) == (IMAGE.min(), IMAGE.max())
    assert SCAN.mean == pytest.approx(IMAGE.mean(), rel=1e-14)
    assert SCAN.std == pytest.approx(IMAGE.std(), rel=1e-12)


@given(box=boxes(IMAGE.shape), sigma=st.floats(0.3, 2))
def test_probability_is_exact_under_cropping(box, sigma):
    detector = Residual(sigma_base=sigma)
    read, core = with_halo(box, detector.radius_zyx(SCAN))
    block = detector.respond(np.ascontiguousarray(IMAGE[read.slices]), SCAN)[core]
    assert block.tobytes() == detector.respond(IMAGE, SCAN)[box.slices].tobytes()


@given(box=boxes(IMAGE.shape))
def test_band_is_exact_under_cropping(box):
    band = ResidualBand()
    read, core = with_halo(box, band.radius_zyx(SCAN))
    block = band.band(IMAGE[read.slices], SCAN, THRESHOLDS[read.start[0] : read.stop[0]])[core]
    assert block.tobytes() == band.band(IMAGE, SCAN, THRESHOLDS)[box.slices].tobytes()


@given(start=st.integers(0, 23), n=st.integers(1, 24))
def test_thresholds_do_not_depend_on_the_slab(start, n):
    band, stop = ResidualBand(), min(start + n, 24)
    context = band.radius_zyx(SCAN)[0]
    low = max(start - context, 0)
    slab = np.ascontiguousarray(IMAGE[low : stop + context])
    found = band.slice_thresholds(slab, start - low, stop - start, SCAN)
    assert found.tobytes() == THRESHOLDS[start:stop].tobytes()


@pytest.mark.parametrize("depth", [1, 2, 3, 9, 17])
def test_rolling_slices_equal_the_whole_volume(depth):
    image = IMAGE[:depth]
    whole = projection(residual(normalise(image, SCAN.minimum, SCAN.scale), 0.6))
    rolling = np.stack([*projected_slices(image, 0, depth, SCAN.minimum, SCAN.scale, 0.6)])
    assert rolling.tobytes() == whole.tobytes()


def test_band_drops_its_upper_half():
    proj = np.array([[[-1, 0.2, 0.8, 1.2]]], np.float32)
    from nx47dask.kernels.residual import band_mask

    assert band_mask(proj, np.array([[1, 0]], np.float32)).tolist() == [[[0, 1, 0, 1]]]


def test_a_constant_volume_has_no_surface_and_even_probability():
    image = np.full((5, 6, 7), 40, np.uint8)
    scan = statistics(image)
    thresholds = ResidualBand().slice_thresholds(image, 0, 5, scan)
    assert not ResidualBand().band(image, scan, thresholds).any()
    assert (Residual().respond(image, scan) == 0.5).all()


def test_uint16_gives_the_same_as_uint8_on_a_scaled_range():
    image = IMAGE.astype(np.uint16) * 256
    wide = ScanStatistics(SCAN.minimum * 256, SCAN.maximum * 256, SCAN.mean * 256, SCAN.std * 256)
    np.testing.assert_allclose(Residual().respond(image, wide), Residual().respond(IMAGE, SCAN), atol=1e-5)


def test_probability_rises_with_the_residual():
    image = np.full((9, 9, 9), 100, np.uint8)
    image[4, 4, 4], image[0, 0, 0] = 200, 0
    p = Residual().respond(image, statistics(image))
    assert p[4, 4, 4] == p.max() > 0.5 > p[0, 0, 0] == p.min() >= 0


def test_quantise_rounds_on_one_scale():
    assert quantise(np.array([0, 0.5 / 255 + 1e-4, 0.2, 1], np.float32)).tolist() == [0, 1, 51, 255]


@pytest.mark.parametrize("bad", [{"sigma_base": 0}, {"gain": 1e9}, {"sigma": 1}])
def test_parameters_are_checked_at_the_edge(bad):
    with pytest.raises(ValidationError):
        TypeAdapter(Residual).validate_python(bad)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["ct128", "910000101", "910000104"])
def test_v61_1_equals_the_golden_masks(shared, name):
    path = "real/ct128/ct.tif" if name == "ct128" else f"simscroll/train_images/{name}.tif"
    image = tifffile.imread(shared / "data" / path)
    scan, band = statistics(image), ResidualBand()
    golden = json.loads((shared / f"golden/v61.1/{name}.json").read_text())
    assert scan.std == golden["stats"]["std"]
    thresholds = band.slice_thresholds(image, 0, len(image), scan)
    assert thresholds.tolist() == [row[3:5] for row in golden["slices"]]
    mask = band.band(image, scan, thresholds)
    assert np.array_equal(mask * 255, tifffile.imread(shared / f"golden/v61.1/{name}.tif"))
