"""Planted defects are what their names say, and their repair is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import euler_number

from nx47dask.geometry import Box
from nx47dask.phantom.render import Phantom, render
from nx47dask.steps.pinholes import PlugPinholes
from tests.planted import BORDER, Recipe, blurred, plant, read_sheets, repaired

SMOOTH = Recipe(seed=3, holes=30, bridges=12, specks=15, flipped=0.0, smooth_vox=0.0, hole_radius_vox=(0.5, 3.0))


def wavy(shape=(56, 88, 80), pitch=11, thickness=4):
    """Oblique wavy sheets with gaps of about 6 voxels."""
    z, y, x = np.indices(shape)
    height = y + 0.4 * x + 2 * np.sin(x / 13) + 2 * np.sin(z / 17)
    return np.where(height % pitch < thickness, height // pitch + 1, 0).astype(np.uint16)


def phantom(shape=(64, 96, 96)):
    _, label = render(Phantom((160, 200, 200), seed=1, border_vox=0), Box((10, 20, 20), tuple(10 + n for n in shape)))
    return ndimage.label(label == 1, np.ones((3, 3, 3)))[0].astype(np.uint8)


@pytest.fixture(scope="module")
def planted():
    return plant(wavy(), SMOOTH)


def euler(mask):
    return int(euler_number(np.pad(mask, 1), connectivity=1))


def kinds(planted, kind):
    return [one for one in planted.defects if one.kind == kind]


def test_every_defect_counts_in_the_euler_number(planted):
    holes, bridges, specks = (len(kinds(planted, kind)) for kind in ("hole", "bridge", "speck"))
    assert holes >= 8
    assert bridges >= 6
    assert specks >= 5
    assert euler(planted.mask) - euler(planted.sheets != 0) == specks - holes - bridges


def test_defects_are_the_only_changes_and_keep_apart(planted):
    changed = np.zeros(planted.mask.shape, dtype=int)
    boxes = np.zeros(planted.mask.shape, dtype=int)
    for one in planted.defects:
        changed[one.box] += one.changed
        boxes[one.box] += 1
    np.testing.assert_array_equal(changed, planted.mask ^ (planted.sheets != 0))
    assert boxes.max() == 1
    boxes[(slice(BORDER, -BORDER),) * 3] = 0
    assert not boxes.any()


def test_bridges_join_sheets_and_cutting_one_is_noticed(planted):
    one = kinds(planted, "bridge")[0]
    joined, _ = ndimage.label(planted.mask[one.box] & one.region)
    ends = [set(joined[one.sides == side]) for side in (1, 2)]
    assert ends[0] & ends[1]
    result = planted.mask.copy()
    result[one.box] &= ~one.changed
    gone = repaired(planted, result).gone
    assert [place for place, is_gone in zip(planted.defects, gone, strict=True) if is_gone] == [one]


def test_a_bridge_removed_with_its_sheets_is_not_repaired(planted):
    result = planted.mask.copy()
    for one in kinds(planted, "bridge"):
        result[one.box] = False
    assert repaired(planted, result).share("bridge") == 0


@pytest.mark.parametrize("fill", [False, True])
def test_nothing_is_repaired_by_nothing_or_by_everything(planted, fill):
    after = repaired(planted, np.full(planted.mask.shape, fill))
    assert after.share("hole") == fill
    assert after.share("bridge") == 0
    assert after.lost == (not fill)


def test_the_clean_mask_repairs_all_and_the_degraded_one_none(planted):
    after, before = (repaired(planted, mask) for mask in (planted.sheets, planted.mask))
    assert all(after.gone)
    assert not any(before.gone)
    assert after.lost == before.lost == 0


def test_lost_surface_is_what_lacks_by_more_than_a_voxel():
    clean = plant(wavy(), replace(SMOOTH, holes=0, bridges=0, specks=0))
    shrunk = ndimage.binary_erosion(clean.mask, border_value=1)
    assert repaired(clean, shrunk).lost < 0.001
    inner = (slice(BORDER, -BORDER),) * 3
    result = clean.mask.copy()
    result[28:] = False  # all above slice 28 is gone; that slice is within a voxel of what is left
    voxels = np.count_nonzero(clean.mask[inner])
    assert repaired(clean, result).lost == pytest.approx(np.count_nonzero(clean.mask[inner][21:]) / voxels, rel=0.01)


def test_noise_and_seeds():
    sheets = phantom()
    recipe = Recipe(seed=5, holes=20, bridges=0, specks=10, hole_radius_vox=(0.5, 2.0))
    one, same, other = (plant(sheets, each) for each in (recipe, recipe, replace(recipe, seed=6)))
    assert np.array_equal(one.mask, same.mask)
    assert not np.array_equal(one.mask, other.mask)
    assert len(kinds(one, "hole")) >= 8
    after = repaired(one, one.mask)
    assert not any(after.gone)
    assert np.count_nonzero(one.mask ^ (sheets != 0)) > 1000


def test_pinholes_of_one_voxel_are_plugged():
    flat = np.zeros((40, 60, 60), dtype=np.uint8)
    flat[12:15], flat[24:25] = 1, 2
    pierced = plant(flat, replace(SMOOTH, holes=25, bridges=0, specks=0, hole_radius_vox=(0.5, 0.6)))
    assert len(pierced.defects) >= 10
    after = repaired(pierced, PlugPinholes().apply(pierced.mask.view(np.uint8), None))
    assert after.share("hole", (0, 1)) == 1
    assert after.lost == 0


def test_a_blurred_mask_is_about_the_mask(planted):
    probability = blurred(planted.mask, noise=0.0)
    assert probability.dtype == np.uint8
    assert np.count_nonzero((probability >= 128) ^ planted.mask) < 0.03 * planted.mask.size
    noisy = blurred(planted.mask, noise=0.1, seed=1)
    assert (noisy.astype(int) - probability).std() > 8


@pytest.mark.shared
def test_human_sheets(shared):
    sheets = read_sheets(shared / "data/real/instance_masks/02000_02000_02000_relabeled_mask.nrrd")[64:160, 64:176, 64:]
    found = plant(sheets, Recipe(holes=20, bridges=8, specks=10))
    assert len(kinds(found, "hole")) >= 15
    assert len(kinds(found, "bridge")) >= 3
    assert all(repaired(found, found.sheets).gone)
    assert not any(repaired(found, found.mask).gone)
