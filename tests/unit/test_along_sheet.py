"""Normals of sheets and smoothing along them: exact under cropping, across nothing, over holes."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import euler_number

from nx47dask.kernels.along_sheet import smooth_along_sheet
from nx47dask.kernels.normals import LARGEST_WINDOW, UNIT, normals_radius, sheet_normals
from nx47dask.steps import STEPS
from tests.conftest import crop, sheets
from tests.planes import NORMALS, distance

windows = st.integers(1, LARGEST_WINDOW)
dtypes = st.sampled_from([np.uint8, np.uint16])
shapes = st.tuples(*[st.integers(1, 34)] * 3)


def volume(shape, dtype, seed):
    """Waves, noise and blank regions."""
    rng = np.random.default_rng(seed)
    grey = sheets(shape, seed).astype(np.int64) * (rng.random(shape) < 0.9)
    grey[: shape[0] // 3] //= 200
    return (grey * (np.iinfo(dtype).max // 255)).astype(dtype)


@given(windows, shapes, st.data(), dtypes, st.integers(0, 99))
def test_a_crop_with_the_radius_has_the_same_normals(window, shape, data, dtype, seed):
    whole = volume(shape, dtype, seed)
    core, block, inside = crop(data, shape, normals_radius(window))
    assert np.array_equal(sheet_normals(whole[block], window)[inside], sheet_normals(whole, window)[core])


@given(st.floats(0.1, 4), windows, shapes, st.data(), dtypes, st.integers(0, 99))
def test_a_crop_with_the_radius_is_smoothed_to_the_same_bytes(sigma, window, shape, data, dtype, seed):
    step = STEPS["smooth_sheet"](sigma, window)
    whole = volume(shape, dtype, seed)
    core, block, inside = crop(data, shape, step.radius_zyx()[0])
    assert np.array_equal(step.apply(whole[block], None)[inside], step.apply(whole, None)[core])


@pytest.mark.parametrize("normal", NORMALS)
def test_the_normal_of_a_noisy_plane(normal):
    depth, unit = distance(normal)
    noise = np.random.default_rng(1).random(depth.shape) < 0.02
    normals = sheet_normals(((np.abs(depth) < 1.6) ^ noise).view(np.uint8) * 255, 5)
    cosine = np.abs(normals[14:26, 14:26, 14:26] @ unit) / UNIT
    assert cosine.min() > np.cos(np.radians(8))


@given(windows, st.integers(0, 99))
def test_normals_are_those_of_a_plain_structure_tensor(window, seed):
    levels = volume((24, 20, 22), np.uint8, seed)
    smooth = np.pad(levels, 4, mode="edge").astype(float)
    for size in (5, 3):
        smooth = ndimage.uniform_filter(smooth, size)
    smooth = smooth[4:-4, 4:-4, 4:-4]
    gradient = np.stack([ndimage.correlate1d(smooth, [-1, 0, 1], axis=axis, mode="nearest") for axis in range(3)], -1)
    products = gradient[..., :, None] * gradient[..., None, :]
    tensor = ndimage.uniform_filter(products, (2 * window + 1,) * 3 + (1, 1), mode="constant")
    values = np.linalg.eigvalsh(tensor)
    clear = (values[..., 2] > 2 * values[..., 1]) & (values[..., 2] > 400)
    normals = sheet_normals(levels, window) / UNIT
    along = np.einsum("...i,...ij,...j", normals, tensor, normals)
    assert (along[clear] > 0.93 * values[..., 2][clear]).all()


def test_only_wanted_normals_are_written():
    levels = volume((20, 20, 20), np.uint8, 3)
    where = np.random.default_rng(0).random(levels.shape) < 0.3
    assert np.array_equal(sheet_normals(levels, 3, where), sheet_normals(levels, 3) * where[..., None])
    assert not sheet_normals(np.full((9, 9, 9), 7, np.uint8), 3).any()


@given(st.floats(0.3, 4), windows, shapes, dtypes, st.integers(0, 99))
def test_values_stay_in_range_and_low_ones_stay(sigma, window, shape, dtype, seed):
    before = volume(shape, dtype, seed)
    after = smooth_along_sheet(before, sigma, window)
    assert after.dtype == before.dtype
    assert before.min() <= after.min() <= after.max() <= before.max()
    low = before < 0.1 * np.iinfo(dtype).max
    assert np.array_equal(after[low], before[low])


@pytest.mark.parametrize("normal", NORMALS)
def test_noise_goes_and_the_profile_across_stays(normal):
    depth, _ = distance(normal)
    clean = 0.3 + 0.5 * np.clip(2.5 - np.abs(depth), 0, 1)
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 0.12, clean.shape), 0, 1)
    smooth = smooth_along_sheet(np.rint(noisy * 255).astype(np.uint8), 3.0, 5) / 255
    inner = (slice(10, 30),) * 3
    before, after = (np.abs(one - clean)[inner].mean() for one in (noisy, smooth))
    around = np.abs(ndimage.gaussian_filter(noisy, 1.5) - clean)[inner].mean()
    assert after < 0.5 * before
    assert after < 0.7 * around


@pytest.mark.parametrize("normal", NORMALS)
def test_holes_close_and_sheets_four_voxels_apart_stay_apart(normal):
    depth, _ = distance(normal, 48)
    mask = (np.abs(depth - 2.7) < 1.5) | (np.abs(depth + 2.7) < 1.5)
    place = np.indices(mask.shape) - 24
    beside = np.sqrt(np.maximum((place**2).sum(0) - depth**2, 0))
    pierced = mask.view(np.uint8) * np.uint8(230)
    pierced[mask & (beside < 2)] = 30
    inner = (slice(8, 40),) * 3
    assert euler_number(pierced[inner] >= 128, connectivity=1) == 0
    smooth = smooth_along_sheet(pierced, 3.0, 5)[inner] >= 128
    assert euler_number(smooth, connectivity=1) == 2
    assert cc3d.connected_components(smooth, connectivity=26).max() == 2
