"""The official score: reference results, terms by other definitions, properties, places of defects."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.metrics import variation_of_information as skimage_variation

from nx47dask.geometry import Box
from nx47dask.kernels.components import Labelling, label
from nx47dask.metrics.defects import find_bridges, find_holes
from nx47dask.metrics.octants import octant_context, octants
from nx47dask.metrics.score import measure_octant, official_score
from nx47dask.metrics.surface import count_within, surface_areas, surface_codes
from nx47dask.metrics.terms import topology_score

VALUES = st.integers(0, 2)
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
AREAS = {1: 3**0.5 / 8, 2: 2**0.5 / 2, 4: 1.0}
"""Of a surface element with one voxel of foreground, two along an edge, four of a face."""


@st.composite
def pairs(draw, values=VALUES):
    shape = draw(SHAPES)
    return draw(hnp.arrays(np.uint8, shape, elements=values)), draw(hnp.arrays(np.uint8, shape, elements=values))


def sheets(shape=(24, 30, 27), period=8, thickness=2):
    """Flat sheets, uint8."""
    z = np.arange(shape[0])[:, None, None] % period < thickness
    return np.broadcast_to(z, shape).astype(np.uint8).copy()


@pytest.mark.shared
def test_reference_results(shared):
    golden = json.loads((shared / "golden" / "score" / "golden.json").read_text())["cases"]
    assert len(golden) >= 16
    names = {
        "score": "score",
        "topo": "topo_score",
        "surface_dice": "surface_dice",
        "voi": "voi_score",
        "voi_split": "voi_split",
        "voi_merge": "voi_merge",
    }
    for name, expected in golden.items():
        arrays = np.load(shared / "golden" / "score" / f"{name}.npz")
        found = official_score(arrays["pred"], arrays["gt"])
        assert found["counts"] == np.sum(expected["octant_counts"], axis=0).tolist(), name
        for ours, theirs in names.items():
            assert found[ours] == pytest.approx(expected[theirs], abs=1e-9), (name, ours)


@pytest.mark.shared
def test_reference_counts_of_every_octant(shared):
    golden = json.loads((shared / "golden" / "score" / "golden.json").read_text())["cases"]
    for name, expected in golden.items():
        arrays = np.load(shared / "golden" / "score" / f"{name}.npz")
        grid = octants(arrays["gt"].shape)
        for octant, counts in zip(grid, expected["octant_counts"], strict=True):
            part = octant_context(grid, octant).slices
            found = measure_octant(grid, octant, arrays["pred"][part], arrays["gt"][part])
            assert found["counts"] == counts, (name, octant)


@given(hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 2)))
def test_labels_score_1_against_themselves(labels):
    found = official_score(labels, labels)
    assert found["score"] == pytest.approx(1, abs=1e-12)
    assert found["agreement"]["0"] == {"precision": 1, "recall": 1, "dice": 1}
    assert [kind["count"] for kind in found["defects"].values()] == [0, 0]


@given(pairs())
def test_terms_stay_in_their_bounds(pair):
    found = official_score(*pair)
    for name in ("score", "topo", "surface_dice", "voi"):
        assert 0 <= found[name] <= 1
    for matched, predicted, labelled in found["counts"]:
        assert 0 <= matched <= min(predicted, labelled)
    for exact, tolerant in zip(found["agreement"]["0"].values(), found["agreement"]["2"].values(), strict=True):
        assert 0 <= exact <= tolerant <= 1


@given(pairs())
def test_ignored_voxels_count_for_nothing(pair):
    prediction, labels = pair
    assert official_score(prediction, labels) == official_score(np.where(labels == 2, 7, prediction), labels)


@given(pairs(), st.integers(1, 255))
def test_any_value_that_is_not_zero_is_foreground(pair, value):
    prediction, labels = pair
    assert official_score(prediction, labels) == official_score(np.where(prediction, value, 0), labels)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flip_changes_nothing_where_the_masks_have_no_noise(axis):
    labels = sheets((24, 30, 28))
    prediction = labels.copy()
    prediction[8:10, 10:13, 4:9] = 0
    prediction[18:24, 20, 20] = 1
    plain, flipped = (
        official_score(prediction, labels),
        official_score(np.flip(prediction, axis), np.flip(labels, axis)),
    )
    for name in ("score", "topo", "surface_dice", "voi"):
        assert plain[name] == pytest.approx(flipped[name], abs=1e-12)


@given(pairs(st.integers(0, 1)))
def test_variation_of_information_is_that_of_whole_masks(pair):
    masks = [one != 0 for one in pair]
    union = masks[0] | masks[1]
    if not union.any():
        return
    whole = [label(mask, Labelling(26))[0][union].astype(np.int64) for mask in masks]
    merge, split = skimage_variation(whole[0], whole[1])
    found = official_score(*pair)
    assert (found["voi_split"], found["voi_merge"]) == pytest.approx((split, merge), abs=1e-9)


def surface_elements(mask):
    """Mixed 2x2x2 neighbourhoods of a mask and their areas where those are simple, else 0."""
    counts = ndimage.convolve(np.pad(mask, 1).astype(int), np.ones((2, 2, 2), int))[1:, 1:, 1:]
    return (counts > 0) & (counts < 8), counts


@given(pairs(st.integers(0, 1)))
def test_agreement_within_two_voxels_is_that_of_the_distance_transform(pair):
    masks = [one != 0 for one in pair]
    found = official_score(*pair)["agreement"]["2"]
    for name, points, others in (("precision", *masks), ("recall", *reversed(masks))):
        near = ndimage.distance_transform_edt(~others) <= 2 if others.any() else np.zeros_like(points)
        expected = (points & near).sum() / points.sum() if points.any() else 1
        assert found[name] == pytest.approx(expected)


@given(pairs())
def test_surface_dice_of_octants_is_that_of_the_whole(pair):
    masks = [(one != 0) & (pair[1] != 2) for one in pair]
    codes = [surface_codes(mask) for mask in masks]
    whole = Box.of_shape(codes[0].shape)
    counts = [count_within(*order, whole) for order in (codes, codes[::-1])]
    total, near = (sum(surface_areas(side[kind]) for side in counts) for kind in (0, 1))
    assert official_score(*pair)["surface_dice"] == pytest.approx(near / total if total else 1, abs=1e-12)


def test_surface_dice_of_shifted_boxes_is_that_of_their_faces_edges_and_corners():
    shape = (20, 20, 20)
    prediction, labels = (np.zeros(shape, np.uint8) for _ in range(2))
    labels[4:10, 4:11, 4:12] = 1
    prediction[4:13, 4:11, 4:12] = 1  # three voxels longer along z: its far face is out of reach
    elements, counts = zip(*(surface_elements(mask) for mask in (prediction, labels)), strict=True)
    weights = [
        np.select([n == 1, n == 2, n == 4], list(AREAS.values())) * e for e, n in zip(elements, counts, strict=True)
    ]
    near = [ndimage.distance_transform_edt(~other) <= 2 for other in elements[::-1]]
    expected = sum((w * n).sum() for w, n in zip(weights, near, strict=True)) / sum(w.sum() for w in weights)
    assert 0.8 < expected < 1
    assert official_score(prediction, labels)["surface_dice"] == pytest.approx(expected, abs=1e-12)


def test_areas_of_all_neighbourhoods_are_those_of_surface_distance():
    tables = pytest.importorskip("surface_distance.lookup_tables")
    theirs = tables.create_table_neighbour_code_to_surface_area((1, 1, 1))
    for code in range(256):
        counts = np.zeros(256, np.int64)
        counts[code] = 1
        # Their code numbers the voxels from the other end.
        assert surface_areas(counts) == pytest.approx(theirs[int(f"{code:08b}"[::-1], 2)], abs=1e-12)


@pytest.mark.parametrize(("prediction", "labels", "expected"), [(0, 0, 1.0), (1, 0, 0.0), (0, 1, 0.0)])
def test_surface_dice_of_empty_masks(prediction, labels, expected):
    shape = (5, 6, 7)
    found = official_score(np.full(shape, prediction, np.uint8), np.full(shape, labels, np.uint8))
    assert found["surface_dice"] == expected


def test_topology_score_leaves_out_dimensions_without_features():
    assert topology_score([(0, 0, 0)] * 3) == 1
    assert topology_score([(2, 3, 3), (0, 0, 0), (0, 0, 0)]) == pytest.approx(2 / 3)
    assert topology_score([(0, 0, 0), (0, 2, 0), (0, 0, 0)]) == pytest.approx(0.2)


def test_octants_are_halves_with_the_larger_first():
    assert [str(octant.box) for octant in octants((5, 1, 4))] == [
        "0:3,0:1,0:2",
        "0:3,0:1,2:4",
        "3:5,0:1,0:2",
        "3:5,0:1,2:4",
    ]


def test_without_places_the_score_is_the_same():
    labels = sheets((24, 30, 28))
    prediction = labels.copy()
    prediction[8:10, 10:13, 4:9] = 0
    expected = {**official_score(prediction, labels), "defects": {}}
    assert official_score(prediction, labels, places=False) == expected


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*\(2, 3, 5\)"):
        official_score(np.zeros((2, 3, 4)), np.zeros((2, 3, 5)))


def test_a_pinhole_is_a_hole_at_its_place():
    labels = sheets() != 0
    prediction = labels.copy()
    prediction[8:10, 20, 11] = False
    (hole,) = find_holes(prediction, labels)
    assert (str(hole.box), hole.voxels) == ("8:10,20:21,11:12", 2)


def test_a_cavity_is_a_hole_unless_the_labels_have_it():
    labels = np.zeros((12, 12, 12), bool)
    labels[2:10, 2:10, 2:10] = True
    prediction = labels.copy()
    prediction[5, 5, 5] = False
    (hole,) = find_holes(prediction, labels)
    assert (str(hole.box), hole.voxels) == ("5:6,5:6,5:6", 1)
    assert find_holes(prediction, prediction) == []


def test_a_notch_in_the_rim_is_no_hole():
    labels = sheets() != 0
    prediction = labels.copy()
    prediction[8:10, :6, 11:15] = False
    assert find_holes(prediction, labels) == []


def test_a_column_between_two_sheets_is_a_bridge_at_its_place():
    labels = sheets() != 0
    prediction = labels.copy()
    prediction[10:16, 5, 7] = True
    (bridge,) = find_bridges(prediction, labels)
    assert 10 <= bridge.box.start[0] <= bridge.box.stop[0] <= 16
    assert (bridge.box.start[1:], bridge.box.stop[1:]) == ((5, 7), (6, 8))
    assert find_bridges(labels, labels) == []


def test_a_handle_of_one_sheet_is_a_bridge():
    labels = sheets((24, 30, 27), period=20) != 0
    prediction = labels.copy()
    prediction[2:6, 5, 7] = prediction[2:6, 5, 15] = prediction[5, 5, 7:16] = True
    (bridge,) = find_bridges(prediction, labels)
    assert (str(bridge.box), bridge.voxels) == ("4:6,5:6,7:16", 11)
    prediction[5, 5, 10] = False  # two horns make no handle
    assert find_bridges(prediction, labels) == []


@pytest.mark.parametrize("width", [3, 12])
def test_a_hole_in_a_prediction_beside_the_labels_is_found_at_its_place(width):
    labels = sheets((24, 48, 48), period=20) != 0
    prediction = np.roll(labels, 1, axis=0)
    prediction[:, 20 : 20 + width, 20 : 20 + width] = False
    places = find_holes(prediction, labels)
    assert len(places) == 2  # of two sheets
    for place in places:
        assert all(a >= 15 and b <= 25 + width for a, b in zip(place.box.start[1:], place.box.stop[1:], strict=True))


def test_defects_on_the_seam_of_octants_are_found_once():
    labels = sheets((32, 64, 64), period=10, thickness=3)
    prediction = labels.copy()
    prediction[10:13, 30:33, 30:33] = 0
    prediction[3:31, 31:33, 10:12] = 1
    defects = official_score(prediction, labels)["defects"]
    assert [place["box"] for place in defects["holes"]["places"]] == ["10:13,30:33,30:33"]
    assert all("31:33,10:12" in place["box"] for place in defects["bridges"]["places"])
    assert defects["bridges"]["count"] >= 1


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.full((2, 3, 4), 3), "these have"),
        (np.full((2, 3, 4), 0.5), "these have"),
        (np.zeros((3, 4)), "three axes"),
        (np.zeros((0, 3, 4)), "three axes"),
    ],
)
def test_labels_that_are_none_are_refused(labels, told):
    with pytest.raises(ValueError, match=told):
        official_score(np.zeros(labels.shape), labels)


def test_places_are_in_voxels_of_the_volume_and_the_largest_come_first():
    labels = sheets((32, 40, 40))
    prediction = labels.copy()
    prediction[24:26, 30, 30] = 0
    prediction[8:10, 25:28, 4:6] = 0
    holes = official_score(prediction, labels)["defects"]["holes"]
    assert holes == {
        "count": 2,
        "places": [{"box": "8:10,25:28,4:6", "voxels": 12}, {"box": "24:26,30:31,30:31", "voxels": 2}],
    }
