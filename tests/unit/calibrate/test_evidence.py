"""What speaks for gained voxels: labels and structure against references, planted patterns found, honest gains not."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nx47dask.calibration.methods.evidence import F_RATIO, PEAK, Evidence, Pattern, evidence
from nx47dask.calibration.methods.periodicity import find_repetition, ring_counts, slice_counts
from nx47dask.errors import InputError
from nx47dask.geometry import Box
from nx47dask.kernels.morphology import dilate
from nx47dask.phantom.render import Phantom, render

EDGE = 96
AXES = ("z", "y", "x")
KINDS = (*AXES, "rings")
shapes = st.tuples(*[st.integers(1, 20)] * 3)


@functools.cache
def roll(seed):
    """Scan, labels of all sheets, and a baseline that lacks two fifths of them, in lumps."""
    scan, labels = render(Phantom((EDGE,) * 3, seed=seed), Box.of_shape((EDGE,) * 3))
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(scan.shape), 4)
    return scan, labels, (labels == 1) & (field < np.quantile(field, 0.6))


@pytest.fixture(scope="module")
def scroll():
    return roll(3)


def stripes(axis, period, offset=1):
    at = np.arange(EDGE) % period == offset % period
    return np.broadcast_to(np.expand_dims(at, tuple(a for a in range(3) if a != axis)), (EDGE,) * 3)


def rings(period, centre=((EDGE - 1) / 2,) * 2):
    y, x = np.ogrid[:EDGE, :EDGE]
    at = np.rint(np.hypot(y - centre[0], x - centre[1])) % period == 0
    return np.broadcast_to(at, (EDGE,) * 3)


def thinned(mask, share, seed=0):
    return mask & (np.random.default_rng(seed).random(mask.shape) < share)


def strongest(found):
    return max(found.patterns, key=lambda pattern: pattern.share if pattern.repeated else 0)


@given(shapes, st.integers(0, 2), st.integers(0, 99))
def test_tiles_of_slices_hold_every_voxel_once(shape, axis, seed):
    mask = np.random.default_rng(seed).random(shape) < 0.4
    counts, areas = slice_counts(mask, axis)
    others = tuple(a for a in range(3) if a != axis)
    np.testing.assert_array_equal(counts.sum(axis=1), mask.sum(axis=others))
    np.testing.assert_array_equal(areas.sum(axis=1), mask.size // shape[axis])
    assert (counts <= areas).all()


@given(shapes, st.tuples(st.floats(-50, 50), st.floats(-50, 50)), st.integers(0, 99))
def test_tiles_of_rings_hold_every_voxel_once_by_its_distance(shape, centre, seed):
    mask = np.random.default_rng(seed).random(shape) < 0.4
    counts, areas = ring_counts(mask, centre)
    _, y, x = np.indices(shape)
    radius = np.rint(np.hypot(y - centre[0], x - centre[1])).astype(int)
    np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(radius[mask], minlength=len(counts)))
    np.testing.assert_array_equal(areas.sum(axis=1), np.bincount(radius.ravel()))
    assert (counts <= areas).all()


@given(st.integers(2, 14), st.integers(0, 13), st.floats(0.1, 1), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_comb_in_noise_has_its_period_and_its_voxels(period, offset, fill, seed):
    tiles, random = np.full((EDGE, 64), 144), np.random.default_rng(seed)
    noise = random.binomial(144, 0.01, tiles.shape)
    comb = (np.arange(EDGE) % period == offset % period)[:, None] * random.binomial(140, fill * 0.9, tiles.shape)
    found = find_repetition(noise + comb, tiles)
    assert found.period_vox == pytest.approx(period, abs=0.3)
    assert found.peak >= PEAK
    assert found.f_ratio >= F_RATIO
    assert found.voxels == pytest.approx(comb.sum(), rel=0.1)


@given(st.integers(0, 10**6), st.floats(0.01, 0.9))
@settings(max_examples=40, deadline=None)
def test_noise_is_no_comb(seed, share):
    tiles = np.full((EDGE, 64), 144)
    noise = np.random.default_rng(seed).binomial(144, share, tiles.shape)
    found = find_repetition(noise, tiles)
    assert found.peak < PEAK or found.f_ratio < F_RATIO
    assert found.voxels < 0.2 * noise.sum()


def test_a_period_need_not_be_whole():
    comb = np.zeros((240, 64), int)
    comb[np.rint(np.arange(32) * 7.4).astype(int)] = 100
    found = find_repetition(comb, np.full_like(comb, 144))
    assert found.period_vox == pytest.approx(7.4, abs=0.05)
    assert 0.75 * comb.sum() <= found.voxels <= comb.sum()


def test_sheets_at_other_depths_in_every_tile_are_not_common():
    depths, phases = np.arange(EDGE)[:, None], np.random.default_rng(0).integers(0, 12, 64)
    sheets = ((depths + phases) % 12 < 3) * 144
    assert find_repetition(sheets, np.full_like(sheets, 144)).voxels == 0
    flat = ((depths + 0 * phases) % 12 < 3) * 144
    assert find_repetition(flat, np.full_like(flat, 144)).voxels == flat.sum()


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("grown", [0, 1, 2])
@pytest.mark.parametrize("seed", [3, 4])
def test_honest_gains_repeat_nowhere(seed, labelled, grown):
    scan, labels, baseline = roll(seed)
    candidate = dilate(labels == 1, (grown,) * 3)
    found = evidence(scan, baseline, candidate, labels if labelled else None)
    assert not any(pattern.repeated for pattern in found.patterns)
    if labelled:
        assert found.verdict == "surface"


@pytest.mark.parametrize(("axis", "period", "labelled"), [(0, 2, True), (1, 3, False), (1, 16, True), (2, 11, False)])
def test_stripes_are_found_with_axis_and_period(scroll, axis, period, labelled):
    scan, labels, baseline = scroll
    candidate = (labels == 1) | thinned(stripes(axis, period), 0.5)
    found = evidence(scan, baseline, candidate, labels if labelled else None)
    worst = strongest(found)
    assert worst.repeated
    assert worst.kind == AXES[axis]
    assert worst.period_vox == pytest.approx(period, abs=1)
    assert found.verdict != "surface"


@pytest.mark.parametrize(
    ("period", "centre", "labelled"), [(3, None, False), (7, None, True), (6, (-30.0, 47.0), False)]
)
def test_rings_are_found_with_their_period(scroll, period, centre, labelled):
    scan, labels, baseline = scroll
    planted = rings(period) if centre is None else rings(period, centre)
    candidate = (labels == 1) | thinned(planted, 0.5)
    found = evidence(scan, baseline, candidate, labels if labelled else None, centre_yx=centre)
    worst = strongest(found)
    assert worst.repeated
    assert worst.kind == "rings"
    assert worst.period_vox == pytest.approx(period, abs=1)
    assert found.verdict != "surface"


def test_every_gained_voxel_has_the_class_of_its_distance(scroll):
    scan, labels, baseline = scroll
    candidate = thinned(labels < 3, 0.3) | (labels == 1)
    gained, far = candidate & ~baseline, ndimage.distance_transform_edt(labels != 1)
    ignored = gained & (labels == 2) & (far > 2)
    expected = [gained & (far <= 2), ignored & (far <= 8), ignored & (far > 8), gained & (labels == 0) & (far > 2)]
    found = evidence(scan, baseline, candidate, labels)
    shares = [found.on_surface, found.unlabelled_near, found.unlabelled_far, found.background]
    np.testing.assert_allclose(shares, [np.count_nonzero(e) / found.gained for e in expected])
    assert (found.gained, found.lost) == (gained.sum(), 0)


@pytest.mark.parametrize("normal", [(1, 0, 0), (0, 1, 1), (3, -2, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_sheet_of_the_scan_has_structure_and_contrast_and_the_space_beside_it_has_not(normal, dtype):
    shape = (48,) * 3
    depth = (np.indices(shape) - 24).reshape(3, -1).T @ (np.array(normal) / np.linalg.norm(normal))
    depth = depth.reshape(shape)
    scale = np.iinfo(dtype).max // 255
    noise = 4 * np.random.default_rng(0).standard_normal(shape)
    scan = (scale * np.clip(90 + 80 * np.exp(-(depth**2) / 4) + noise, 0, 255)).astype(dtype)
    nothing = np.zeros(shape, bool)
    on_sheet, beside = (evidence(scan, nothing, mask) for mask in (abs(depth) < 1, abs(depth) > 12))
    assert on_sheet.plate_like > 0.95
    assert on_sheet.contrast > 0.99
    assert on_sheet.verdict == "surface"
    assert beside.plate_like < 0.4
    assert beside.contrast < 0.05
    assert beside.verdict == "artefact"


def test_a_dark_sheet_is_no_surface():
    depth = np.broadcast_to(np.abs(np.arange(40) - 20), (40, 40, 40))
    found = evidence((200 - 100 * (depth < 2)).astype(np.uint8), depth > 99, depth < 2)
    assert found.contrast == 0
    assert found.plate_like == 0


def judged(contrast=0.0, on_surface=None, background=None, **pattern):
    rest = None if on_surface is None else 1 - on_surface - background
    known = {"kind": "z", "period_vox": 8.0, "peak": 100.0, "f_ratio": 50.0, "share": 0.0} | pattern
    return Evidence(10, 0, on_surface, rest, 0.0, background, 0.9, contrast, (Pattern(**known),))


@pytest.mark.parametrize(
    ("verdict", "found"),
    [
        ("surface", judged(contrast=0.6)),
        ("mixed", judged(contrast=0.4)),
        ("artefact", judged(contrast=0.3)),
        ("surface", judged(contrast=0.1, on_surface=0.2, background=0.1)),
        ("artefact", judged(contrast=0.9, on_surface=0.1, background=0.8)),
        ("surface", judged(contrast=0.6, on_surface=0.01, background=0.05)),
        ("mixed", judged(contrast=0.9, share=0.06)),
        ("artefact", judged(contrast=0.9, share=0.6)),
        ("surface", judged(contrast=0.9, share=0.6, peak=19.0)),
        ("surface", judged(contrast=0.9, share=0.6, f_ratio=5.0)),
    ],
)
def test_the_verdict_asks_labels_before_contrast_and_patterns_first(verdict, found):
    assert found.verdict == verdict


def test_nothing_gained_has_no_verdict(scroll):
    scan, labels, baseline = scroll
    found = evidence(scan, baseline, baseline & (labels == 0), labels)
    assert (found.gained, found.lost, found.verdict) == (0, baseline.sum(), "none")
    assert found.on_surface is found.contrast is None


def test_evidence_is_json_and_repeatable(scroll):
    scan, labels, baseline = scroll
    found = evidence(scan, baseline, labels == 1, labels).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == {**found, "patterns": list(found["patterns"])}
    assert [pattern["kind"] for pattern in found["patterns"]] == list(KINDS)
    assert found == evidence(scan, baseline, labels == 1, labels).as_dict()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 3), (5, 5, 5), (2, 64, 64)])
def test_thin_volumes_are_judged_too(shape):
    scan = np.full(shape, 100, np.uint8)
    found = evidence(scan, np.zeros(shape, bool), np.ones(shape, bool), np.zeros(shape, np.uint8))
    assert (found.gained, found.background, found.verdict) == (scan.size, 1.0, "artefact")


def test_volumes_of_different_shapes_are_refused():
    scan, mask = np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), bool)
    with pytest.raises(InputError, match=r"labels has shape \(4, 5, 5\), but the volume has \(4, 5, 6\)"):
        evidence(scan, mask, mask, scan[:, :, 1:])
    with pytest.raises(InputError, match=r"whole volumes \(Z, Y, X\)"):
        evidence(scan[0], mask[0], mask[0])
