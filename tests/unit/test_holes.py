"""Patches over holes of a sheet: they fill what they should, join nothing, and do not depend on the cut."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import euler_number

from nx47dask.kernels.holes import patch_holes
from nx47dask.kernels.normals import LARGEST_WINDOW, sheet_normals
from nx47dask.steps import STEPS
from tests.conftest import crop, sheets
from tests.planes import NORMALS, distance

FULL, FACES = ndimage.generate_binary_structure(3, 3), ndimage.generate_binary_structure(3, 1)
INNER = (slice(10, 38),) * 3

settings = st.tuples(st.integers(1, 4), st.integers(1, LARGEST_WINDOW))
ragged = st.builds(
    lambda shape, level, noise, seed: (
        (sheets(shape, seed) > level) ^ (np.random.default_rng(seed).random(shape) < noise)
    ),
    st.tuples(*[st.integers(1, 30)] * 3), st.integers(90, 150), st.floats(0, 0.2), st.integers(0, 99),
)  # fmt: skip


def pierced(normal, radius, gap=None):
    """A sheet of three voxels (or two, ``gap`` voxels apart) with a round hole: clean and with the hole."""
    depth, _ = distance(normal, 48)
    clean = np.abs(depth) < 1.5
    place = np.indices(depth.shape) - 24
    beside = np.sqrt(np.maximum((place**2).sum(0) - depth**2, 0))
    mask = clean & (beside > radius)
    if gap is not None:
        other = np.abs(depth - 3 - gap) < 1.5
        return clean | other, mask | other
    return clean, mask


def euler(mask):
    return euler_number(mask, connectivity=1)


@pytest.mark.parametrize("radius", [1.5, 3, 4.5])
@pytest.mark.parametrize("normal", NORMALS)
def test_a_round_hole_is_filled_in_the_thickness_of_the_sheet(normal, radius):
    clean, mask = pierced(normal, radius)
    assert euler(mask[INNER]) == euler(clean[INNER]) - 1
    filled = patch_holes(mask, 10, 7)
    assert euler(filled[INNER]) == euler(clean[INNER])
    assert (filled >= mask).all()
    assert not (filled & ~ndimage.binary_dilation(clean, FULL)).any(), "no thicker than a voxel more"
    assert (clean & ~filled & ~mask).sum() < 0.2 * (clean & ~mask).sum(), "but for its edges"


@pytest.mark.parametrize("normal", NORMALS)
def test_a_wider_hole_stays(normal):
    _, mask = pierced(normal, 6)
    assert np.array_equal(patch_holes(mask, 8, 7), mask)


@pytest.mark.parametrize("normal", NORMALS)
@pytest.mark.parametrize("gap", [2.5, 4])
def test_the_sheet_beside_a_hole_stays_apart(normal, gap):
    clean, mask = pierced(normal, 4, gap)
    filled = patch_holes(mask, 10, 7)
    assert cc3d.connected_components(filled, connectivity=26).max() == 2
    assert euler(filled[INNER]) == euler(clean[INNER]) == 2


def test_what_is_open_to_a_side_or_to_the_border_stays():
    mask = np.zeros((12, 40, 40), dtype=bool)
    mask[5:8, 4:36, 4:36] = True
    mask[:, 18:22, 30:] = False  # a notch
    mask[:, 10:14, :2] = True
    assert np.array_equal(patch_holes(mask, 8, 5), mask)
    cut = mask[:, :, 12:32]
    assert np.array_equal(patch_holes(cut, 8, 5), cut), "the border closes no notch"


@given(ragged, settings)
def test_patches_join_nothing_and_each_closes_a_hole(mask, setting):
    filled = patch_holes(mask, *setting)
    assert (filled >= mask).all()
    before, after = (cc3d.connected_components(np.pad(one, 1), connectivity=26).max() for one in (mask, filled))
    assert before == after
    patches, count = ndimage.label(filled & ~mask, FULL)
    assert euler(np.pad(filled, 1)) >= euler(np.pad(mask, 1)) + count
    pieces, pieces_before = (ndimage.label(one, FACES)[1] for one in (filled, mask))
    assert pieces <= pieces_before
    for number in range(1, count + 1):
        assert (ndimage.label(ndimage.binary_dilation(patches == number, FULL) & mask, FULL))[1] == 1
    for box in ndimage.find_objects(patches):
        assert max(axis.stop - axis.start for axis in box) <= 2 * setting[0] + 2


@given(ragged, settings)
def test_patched_voxels_are_enclosed(mask, setting):
    """Lines in the tangent plane meet foreground on both sides, by floating point within a voxel of where."""
    width, window = setting
    normals = sheet_normals(mask.view(np.uint8) * np.uint8(255), window).astype(float)
    near = np.pad(ndimage.binary_dilation(mask, FULL), width + 1)
    for place in np.argwhere(patch_holes(mask, *setting) & ~mask)[:20]:
        normal = normals[tuple(place)] / np.linalg.norm(normals[tuple(place)])
        tangents = np.linalg.svd(normal[None])[2][1:]
        for angle in np.linspace(0, np.pi, 16, endpoint=False):
            steps = np.arange(-width, width + 1)[:, None] * (np.array([np.cos(angle), np.sin(angle)]) @ tangents)
            met = np.flatnonzero(near[tuple((np.rint(place + steps).astype(int) + width + 1).T)]) - width
            assert met[met >= 0].min() - met[met <= 0].max() <= width + 1


@given(st.data(), ragged, st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_a_crop_with_the_radius_is_patched_alike(data, mask, setting):
    step = STEPS["patch_holes"](*setting)
    core, block, inside = crop(data, mask.shape, step.radius_zyx()[0])
    part = step.apply(np.ascontiguousarray(mask[block]).view(np.uint8), None)
    assert np.array_equal(part[inside], step.apply(mask.view(np.uint8), None)[core])


def test_nothing_and_everything_stay():
    for value in (0, 1):
        mask = np.full((6, 7, 8), value, dtype=bool)
        assert np.array_equal(patch_holes(mask, 8, 7), mask)
