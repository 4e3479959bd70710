"""The sheetness detector: exact under cropping, right eigenvalues, and it finds sheets."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from nx47dask.detectors import Sheetness
from nx47dask.errors import InputError
from nx47dask.geometry import Box
from nx47dask.kernels import sheetness as plates
from nx47dask.kernels.statistics import ScanStatistics
from tests.conftest import sheets

IMAGE = sheets((36, 40, 45))
SCAN = ScanStatistics.of_histogram(np.bincount(IMAGE.ravel()))
DETECTORS = {
    "both faces": Sheetness(side_radius_vox=0),
    "one scale": Sheetness(scales=(2,), side_radius_vox=0),
    "inner face": Sheetness(scales=(1,), side_radius_vox=5),
}
WHOLE = {name: detector.respond(IMAGE, SCAN) for name, detector in DETECTORS.items()}


@st.composite
def boxes(draw, shape):
    ends = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape]
    return Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))


@pytest.mark.parametrize("name", DETECTORS)
@given(box=boxes(IMAGE.shape), threads=st.sampled_from([1, 2]), slab=st.sampled_from([1, 3000, 1 << 16]))
def test_exact_under_cropping(name, box, threads, slab):
    detector = DETECTORS[name]
    read = box.expand(detector.radius_zyx(SCAN)).clip(Box.of_shape(IMAGE.shape))
    before = torch.get_num_threads(), plates._CACHED_VOXELS
    try:
        torch.set_num_threads(threads)
        plates._CACHED_VOXELS = slab
        block = detector.respond(np.ascontiguousarray(IMAGE[read.slices]), SCAN)
    finally:
        torch.set_num_threads(before[0])
        plates._CACHED_VOXELS = before[1]
    assert block[box.relative_to(read.start).slices].tobytes() == WHOLE[name][box.slices].tobytes()


@pytest.mark.parametrize("name", DETECTORS)
def test_range_and_type(name):
    p = WHOLE[name]
    assert p.dtype == np.float32
    assert p.shape == IMAGE.shape
    assert p.min() >= 0
    assert 0.3 < p.max() <= 1


def test_eigenvalues_equal_lapack():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(500, 3, 3))
    half[:20] = np.eye(3) * rng.normal(size=(20, 1, 1))  # isotropic
    half[20:60, :, 2] = 0  # plates and lines
    m = torch.from_numpy((half + half.transpose(0, 2, 1)).astype(np.float32))
    found = plates._eigenvalues(*(m[:, i, j].clone() for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))))
    expected = torch.linalg.eigvalsh(m.double()).flip(-1).numpy()
    np.testing.assert_allclose(np.stack(found, -1), expected, atol=5e-3)


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    radius=st.integers(1, 11),
    seed=st.integers(0, 99),
)
def test_box_sum_equals_a_direct_sum(shape, radius, seed):
    field = np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int32)
    found = plates.box_sum(torch.from_numpy(field), radius).numpy()
    at = tuple(n // 2 for n in shape)
    window = tuple(slice(max(i - radius, 0), i + radius + 1) for i in at)
    assert found[at] == field[window].sum()
    assert found[0, 0, 0] == field[: radius + 1, : radius + 1, : radius + 1].sum()


def test_box_sum_survives_a_running_sum_beyond_32_bits():
    field = torch.full((1, 1, 4000), 2**20, dtype=torch.int32)
    assert plates.box_sum(field, 5)[0, 0, 2000].item() == 11 * 2**20


def slab_image(profile):
    image = np.full((40, 40, 40), 60, np.uint8)
    for offset, value in enumerate(profile):
        image[:, 15 + offset] = value
    return image


def test_a_plate_stands_out_from_lines_and_blobs():
    image = np.full((40, 40, 40), 60, np.uint8)
    image[:, 8:11] = 200  # plate
    image[:, 20:23, 10:13] = 200  # line along z
    image[20:23, 32:35, 20:23] = 200  # blob
    scan = ScanStatistics.of_histogram(np.bincount(image.ravel()))
    p = Sheetness(scales=(1,), side_radius_vox=0).respond(image, scan)
    assert p[20, 9, 20] > 5 * max(p[20, 21, 11], p[21, 33, 21])


def test_the_inner_face_is_the_brighter_rim():
    image = slab_image([150, 140, 130, 130, 130, 130, 130, 170, 190])  # verso at 15, recto at 23
    scan = ScanStatistics.of_histogram(np.bincount(image.ravel()))
    both = Sheetness(scales=(1, 1), side_radius_vox=0).respond(image, scan)[20, :, 20]
    inner = Sheetness(scales=(1, 1), side_radius_vox=12).respond(image, scan)[20, :, 20]
    assert both[14:18].max() > 0.2
    assert inner[14:18].max() < 0.05
    assert inner[21:26].max() > 0.5


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_said():
    with pytest.raises(InputError, match="no CUDA device"):
        Sheetness(device="cuda").respond(IMAGE, SCAN)
    assert Sheetness(device="auto", scales=(1,), side_radius_vox=0).respond(IMAGE, SCAN).any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 30), (40, 2, 3)])
def test_thin_and_constant_volumes(shape):
    image = np.full(shape, 9, np.uint8)
    assert not Sheetness(side_radius_vox=8).respond(image, ScanStatistics(9, 9, 9.0, 0.0)).any()


@pytest.mark.parametrize("bad", [{"scales": []}, {"scales": [9]}, {"contrast": 0}, {"side": 3}, {"device": "tpu"}])
def test_parameters_are_checked_at_the_edge(bad):
    with pytest.raises(ValidationError):
        TypeAdapter(Sheetness).validate_python(bad)
