"""The threshold table against the steps and the official score, mask by mask."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import variation_of_information as skimage_variation

from nx47dask.calibration.methods.table import threshold_table
from nx47dask.errors import InputError
from nx47dask.kernels.components import find_components
from nx47dask.kernels.probability import binarise, level_of
from nx47dask.metrics.score import official_score
from nx47dask.steps.objects import SmallObjects
from nx47dask.steps.thresholds import KeepStrong

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)
LOWS, HIGHS, SIZES = (0.2, 0.4, 0.7), (0.3, 0.4, 0.9, 1.0), (1, 2, 4, 9)
OUTSIDE = ((False, False),) * 3
BASES = st.sampled_from(["value", "volume", "slice"])
CONNECTIVITIES = st.sampled_from([6, 18, 26])


CASES = st.tuples(
    SHAPES, st.sampled_from([0.1, 0.3, 0.9]), st.sampled_from([np.uint8, np.uint16]), st.integers(0, 9999)
)


def random_field(case):
    """Tenths of the full scale, on a share of the voxels."""
    shape, share, dtype, seed = case
    rng = np.random.default_rng(seed)
    tenths = rng.integers(1, 11, shape) * (rng.random(shape) < share)
    return np.rint(tenths / 10 * np.iinfo(dtype).max).astype(dtype)


def random_labels(field, seed, highest):
    """Mostly background, labels to the highest value."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, highest + 1, field.shape) * (rng.random(field.shape) < 0.4)).astype(np.uint8)


def levels_of(field, thresholds, by):
    """Stored levels, by numpy's quantiles."""
    if by == "value":
        return np.array([[level_of(value, field.dtype) for value in thresholds]])
    axes = (1, 2) if by == "slice" else (0, 1, 2)
    quantiles = np.quantile(field, thresholds, axis=axes, method="inverted_cdf")
    return (np.atleast_2d(quantiles.T) + 1).astype(np.int64)


def by_steps(field, low, high, size, by, connectivity):
    """Mask of the two steps on the whole volume, uint8."""
    state = binarise(field, levels_of(field, (low, high), by))
    for step in (KeepStrong(connectivity), SmallObjects(connectivity=connectivity, min_vox=size)):
        found = find_components(state, step.labelling(), step.attributes, OUTSIDE)
        state[np.append(False, step.changes(found.attributes))[found.labels]] = 0
    return (state != 0).astype(np.uint8)


def entries():
    """Positions of the entries, and their thresholds and sizes, that there are masks for."""
    for at in itertools.product(range(len(LOWS)), range(len(HIGHS)), range(len(SIZES))):
        low, high, size = LOWS[at[0]], HIGHS[at[1]], SIZES[at[2]]
        if low <= high:
            yield at, (low, high, size)


@given(CASES, BASES, CONNECTIVITIES)
def test_every_entry_counts_the_mask_of_the_steps(case, by, connectivity):
    field = random_field(case)
    table = threshold_table(field, LOWS, HIGHS, SIZES, by=by, connectivity=connectivity)
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    for at, parameters in entries():
        mask = by_steps(field, *parameters, by, connectivity)
        assert table.voxels[at] == mask.sum()
        assert table.components[at] == ndimage.label(mask, structure)[1]
        assert table.density[at] == mask.mean()


@given(CASES, BASES, CONNECTIVITIES)
def test_agreement_is_that_of_the_official_score(case, by, connectivity):
    field = random_field(case)
    labels = random_labels(field, case[-1] + 1, 2)
    table = threshold_table(field, LOWS, HIGHS, SIZES, by=by, connectivity=connectivity, labels=labels)
    for at, parameters in itertools.islice(entries(), 0, None, 7):
        expected = official_score(by_steps(field, *parameters, by, connectivity), labels, places=False)
        found = {name: getattr(table, name)[at] for name in ("precision", "recall", "dice")}
        assert found == pytest.approx(expected["agreement"]["2"], abs=1e-12)


@given(CASES)
def test_variation_is_that_of_the_official_score_where_nothing_is_left_out(case):
    field = random_field(case)
    labels = random_labels(field, case[-1] + 1, 1)
    table = threshold_table(field, LOWS, HIGHS, SIZES, labels=labels)
    for at, parameters in itertools.islice(entries(), 0, None, 7):
        expected = official_score(by_steps(field, *parameters, "value", 26), labels, places=False)
        assert table.voi[at] == pytest.approx(expected["voi"], abs=1e-9)
        assert table.cheap[at] == pytest.approx((table.dice[at] + expected["voi"]) / 2, abs=1e-9)


def smooth_field(shape, seed):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)


def test_entries_of_a_larger_field_with_many_components():
    field, labels = (smooth_field((30, 33, 35), seed) for seed in (1, 2))
    labels = (labels > 190).astype(np.uint8)
    lows, highs, sizes = (0.75, 0.8, 0.85), (0.85, 0.9, 0.95), (1, 10, 40)
    table = threshold_table(field, lows, highs, sizes, labels=labels)
    assert table.components[0, 0, 0] > 20
    for i, j, k in itertools.product(range(3), repeat=3):
        mask = by_steps(field, lows[i], highs[j], sizes[k], "value", 26)
        union = (mask | labels) != 0
        pieces = [ndimage.label(one, np.ones((3, 3, 3)))[0][union] for one in (mask, labels)]
        split_and_merge = sum(skimage_variation(*pieces))
        assert table.voi[i, j, k] == pytest.approx(1 / (1 + 0.3 * split_and_merge), abs=1e-9)
        near_labels, near_mask = (ndimage.distance_transform_edt(one == 0) <= 2 for one in (labels, mask))
        assert table.precision[i, j, k] == pytest.approx(near_labels[mask != 0].mean(), abs=1e-12)
        assert table.recall[i, j, k] == pytest.approx(near_mask[labels != 0].mean(), abs=1e-12)


def test_a_component_that_is_left_out_in_the_middle_counts_as_one():
    field = np.full((1, 1, 5), 255, np.uint8)
    labels = np.array([1, 1, 2, 1, 1], np.uint8).reshape(field.shape)
    table = threshold_table(field, (0.5,), (0.5,), (1,), labels=labels)
    # One component over two of two voxels: H(labels | prediction) is 1 bit; the official score cuts both alike.
    assert table.voi.item() == pytest.approx(1 / 1.3)
    assert official_score(field, labels)["voi"] == 1
    assert (table.voxels.item(), table.precision.item(), table.recall.item()) == (5, 1, 1)


def test_there_is_no_entry_where_low_exceeds_high():
    field = smooth_field((6, 7, 8), 3)
    table = threshold_table(field, (0.3, 0.6), (0.4, 0.6), (1, 5), labels=(field > 150).astype(np.uint8))
    missing = np.zeros((2, 2, 2), bool)
    missing[1, 0] = True
    for values in (table.density, table.precision, table.recall, table.dice, table.voi, table.cheap):
        assert np.array_equal(np.isnan(values), missing)
    assert np.array_equal(table.voxels == -1, missing)
    assert np.array_equal(table.components == -1, missing)


def test_without_labels_there_are_counts_only():
    field = smooth_field((6, 7, 8), 4)
    table = threshold_table(field, (0.3,), (0.4,), (1,))
    assert table.voxels.item() > 0
    assert np.isnan([table.precision, table.recall, table.dice, table.voi, table.cheap]).all()


FIELD = np.zeros((2, 3, 4), np.uint8)


@pytest.mark.parametrize(
    ("field", "lows", "sizes", "labels", "message"),
    [
        (FIELD, (0.4, 0.4), (1,), None, "lows are"),
        (FIELD, (), (1,), None, "lows are"),
        (FIELD, (0.5, 1.5), (1,), None, "none above 1.0"),
        (FIELD, (0.4,), (5, 1), None, "sizes are"),
        (FIELD, (0.4,), tuple(range(1, 258)), None, "1 to 255"),
        (FIELD[0], (0.4,), (1,), None, "uint8 of"),
        (FIELD.astype(np.float32), (0.4,), (1,), None, "not float32"),
        (FIELD, (0.4,), (1,), FIELD[1:], "labels have shape"),
        (FIELD, (0.4,), (1,), FIELD + np.uint8(255), "go up to 255"),
    ],
)
def test_what_makes_no_table_is_refused(field, lows, sizes, labels, message):
    with pytest.raises(InputError, match=message):
        threshold_table(field, lows, (0.5,), sizes, labels=labels)
