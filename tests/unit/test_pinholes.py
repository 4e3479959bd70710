"""Plugging pinholes and diagonal gaps, against a plain reference and independent counts of what touches what."""

from __future__ import annotations

import itertools

import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import euler_number

from nx47dask.geometry import Index
from nx47dask.kernels.pinholes import diagonal_table, fill_pinholes, join_diagonals
from nx47dask.steps.pinholes import PlugPinholes

FLIPS = [axes for n in range(4) for axes in itertools.combinations(range(3), n)]
SYMMETRIES = list(itertools.product(itertools.permutations(range(3)), FLIPS))
BY_TOUCH = np.ones((3, 3, 3))

masks = st.builds(
    lambda shape, density, seed: np.random.default_rng(seed).random(shape) < density,
    st.tuples(*[st.integers(1, 9)] * 3), st.floats(0.05, 0.9), st.integers(0, 9999),
)  # fmt: skip
switches = st.tuples(st.booleans(), st.booleans())


def window(code):
    return np.array([code >> bit & 1 for bit in range(8)], dtype=bool).reshape(2, 2, 2)


def label(mask, connectivity):
    # A margin, since cc3d 4.1 fails on some arrays of one voxel's width.
    return cc3d.connected_components(np.pad(mask, 1), connectivity=connectivity)[1:-1, 1:-1, 1:-1].astype(int)


def pieces(mask, connectivity):
    return label(mask, connectivity).max(initial=0)


def tunnels(mask):
    """First Betti number where foreground is 6-connected: components + cavities - Euler number."""
    padded = np.pad(mask, 1)
    return pieces(padded, 6) + pieces(~padded, 26) - 1 - int(euler_number(padded, connectivity=1))


def plug(mask, diagonals=True, pinholes=True):
    return PlugPinholes(diagonals=diagonals, pinholes=pinholes).apply(mask.view(np.uint8), None).view(bool)


def wavy_sheet(seed, holes, edge=160):
    """A wavy sheet of one voxel, joined by edges where it climbs, with holes of one voxel."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((edge, edge))
    height = np.rint(8 + 3 * np.sin(x / 17 + seed) + 3 * np.sin(y / 23)).astype(int)
    return (np.arange(18)[:, None, None] == height) & (rng.random((edge, edge)) >= holes)


def test_a_filled_window_is_one_piece_without_tunnels():
    for code, added in enumerate(diagonal_table()):
        assert code & int(added) == 0
        filled = np.pad(window(code | int(added)), 1)
        if code:
            assert pieces(filled, 6) == 1
            assert euler_number(filled, connectivity=1) == 1


def test_a_window_is_left_alone_when_each_of_its_squares_is_joined_by_faces():
    table = diagonal_table()
    for code in range(256):
        cube = window(code)
        squares = [np.take(cube, side, axis=axis) for axis in range(3) for side in (0, 1)]
        joined = all(ndimage.label(square)[1] <= 1 and ndimage.label(~square)[1] <= 1 for square in squares)
        whole = pieces(cube, 6) <= 1 and pieces(~cube, 6) <= 1
        assert (table[code] == 0) == (joined and whole)


def test_images_of_a_window_get_as_many_voxels():
    table = diagonal_table()
    for code in range(256):
        added = {
            int(table[np.packbits(np.flip(window(code).transpose(axes), flips), bitorder="little")[0]]).bit_count()
            for axes, flips in SYMMETRIES
        }
        assert len(added) == 1


def reference_pinholes(mask):
    padded = np.pad(mask, 1)
    out = mask.copy()
    for voxel in np.argwhere(~mask):
        centre = voxel + 1
        ends = [int(padded[tuple(centre - step)]) + int(padded[tuple(centre + step)]) for step in np.eye(3, dtype=int)]
        out[tuple(voxel)] = sorted(ends) == [0, 2, 2]
    sides = ndimage.convolve(out.astype(int), ndimage.generate_binary_structure(3, 1).astype(int), mode="constant")
    return out | (sides == 6)


def reference_diagonals(mask):
    """The rules of the docstring with scipy's labels, voxel by voxel, in a margin that no rule sees past."""
    padded = np.pad(mask, 2)
    wanted = set()
    for corner in itertools.product(*[range(n - 1) for n in padded.shape]):
        cube = padded[tuple(slice(c, c + 2) for c in corner)]
        added = window(int(diagonal_table()[np.packbits(cube, bitorder="little")[0]]))
        wanted |= {tuple(voxel) for voxel in (np.argwhere(added) + corner).tolist()}

    def around(voxel):
        cube = padded[tuple(slice(v - 1, v + 2) for v in voxel)].copy()
        cube[1, 1, 1] = False
        return cube

    fit = {v for v in wanted if pieces(around(v), 26) == 1}
    touched = {v: {tuple(w) for w in np.argwhere(around(v)) + np.array(v) - 1} for v in fit}
    out = mask.copy()
    for voxel in fit:
        beside = [other for other in fit if max(abs(a - b) for a, b in zip(voxel, other, strict=True)) == 1]
        if all(touched[voxel] & touched[other] for other in beside):
            out[tuple(v - 2 for v in voxel)] = True
    return out


@given(masks)
def test_pinholes_equal_the_reference(mask):
    assert np.array_equal(fill_pinholes(mask), reference_pinholes(mask))


@given(masks)
def test_diagonals_equal_the_reference(mask):
    small = mask[:7, :7, :6]
    assert np.array_equal(join_diagonals(small), reference_diagonals(small))


@given(masks, switches)
def test_touching_components_are_neither_joined_nor_lost(mask, on):
    plugged = plug(mask, *on)
    assert (plugged >= mask).all()
    before, after = label(mask, 26), label(plugged, 26)
    pairs = set(zip(before[mask].tolist(), after[mask].tolist(), strict=True))
    assert len(pairs) == before.max() == after.max()


def test_two_contacts_that_face_each_other_are_not_joined_half_way():
    mask = np.zeros((5, 5, 4), dtype=bool)
    mask[0, 2, 0] = mask[0, 3, 1] = True
    mask[1, 0, 2] = mask[2, 1, 2] = True
    assert pieces(mask, 26) == pieces(plug(mask), 26) == 2
    alone = mask.copy()
    alone[1:] = False
    assert plug(alone).sum() == 3


@pytest.mark.parametrize("on", list(itertools.product([False, True], repeat=2)))
def test_sparse_pieces_stay_apart(on):
    rng = np.random.default_rng(11)
    for _ in range(400):
        mask = rng.random(rng.integers(3, 9, 3)) < rng.uniform(0.05, 0.35)
        assert pieces(plug(mask, *on), 26) == pieces(mask, 26)


@given(st.tuples(*[st.integers(1, 20)] * 3), st.floats(0.1, 0.8), st.integers(0, 9999), switches)
def test_a_crop_with_the_radius_equals_the_crop_of_the_whole(shape, density, seed, on):
    """Boxes of any size, at the borders and away from them."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < density
    whole = plug(mask, *on)
    radius = np.array(PlugPinholes(*on).radius_zyx())
    for edge in (1, 1, 2, 2, 3, 9) * 5:
        start = rng.integers(0, shape)
        stop = np.minimum(start + edge, shape)
        low, high = np.maximum(start - radius, 0), np.minimum(stop + radius, shape)
        part = plug(np.ascontiguousarray(mask[tuple(map(slice, low, high))]), *on)
        assert np.array_equal(part[tuple(map(slice, start - low, stop - low))], whole[tuple(map(slice, start, stop))])


@pytest.mark.parametrize("on", [(True, False), (False, True), (True, True)])
def test_one_voxel_at_a_time_equals_the_whole(on):
    rng = np.random.default_rng(3)
    radius = PlugPinholes(*on).radius_zyx()[0]
    for density in (0.2, 0.3, 0.4, 0.8):
        mask = rng.random((30, 30, 30)) < density
        whole = plug(mask, *on)
        for z, y, x in rng.integers(radius, 30 - radius, (1000, 3)):
            cube = tuple(slice(c - radius, c + radius + 1) for c in (z, y, x))
            assert plug(np.ascontiguousarray(mask[cube]), *on)[(radius,) * 3] == whole[z, y, x]


@given(st.integers(0, 999), st.integers(2, 4))
def test_rough_sheets_with_a_gap_stay_apart(seed, distance):
    """Each sheet is one 26-connected piece; between them lie distance - 1 voxels of background or more."""
    rng = np.random.default_rng(seed)
    bottom, top = rng.integers(0, 2, (2, 24, 24))
    depth = np.arange(10)[:, None, None]
    mask = (depth == 1 + bottom) | (depth == 2 + distance + top)
    plugged = plug(mask)
    assert pieces(mask, 26) == pieces(plugged, 26) == 2


def test_a_step_that_climbs_by_edges_is_joined_by_one_voxel_a_contact():
    z, _, x = np.indices((9, 5, 9))
    plugged = plug(z == x)
    assert pieces(z == x, 6) == 9
    assert np.array_equal(plugged, (z == x) | (z + 1 == x))


def test_a_contact_by_a_corner_is_joined_by_two_voxels():
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    plugged = plug(mask)
    assert plugged.sum() == 4
    assert pieces(plugged, 6) == 1


@pytest.mark.parametrize("normal", [0, 1, 2])
@pytest.mark.parametrize("thick", [1, 2, 5])
def test_a_pinhole_is_filled_through_any_thickness(normal, thick):
    sheet = np.zeros((7, 7, 7), dtype=bool)
    np.moveaxis(sheet, normal, 0)[:thick] = True
    holed = sheet.copy()
    np.moveaxis(holed, normal, 0)[:, 3, 3] = False
    assert tunnels(holed) == 1
    assert np.array_equal(plug(holed), sheet)


def test_pits_notches_slits_and_wider_holes_stay():
    sheet = np.zeros((5, 12, 12), dtype=bool)
    sheet[1:3] = True
    sheet[2, 2, 2] = False  # a pit with a floor
    sheet[:, 0, 6] = False  # a notch at the border
    sheet[:, 8, 4:6] = False  # a hole of two voxels
    assert np.array_equal(plug(sheet), sheet)
    slit = np.ones((5, 6, 6), dtype=bool)
    slit[2] = False
    assert np.array_equal(plug(slit), slit)


def test_a_blind_shaft_does_not_become_a_cavity():
    block = np.ones((7, 7, 7), dtype=bool)
    block[3:, 3, 3] = False
    assert plug(block).all()


def test_surfaces_without_contacts_by_edges_do_not_change():
    """Steps of one voxel on a plate, and a ball."""
    z, y, x = np.indices((40, 40, 40))
    for mask in (z < 10 + x // 4, (z - 20) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 < 240):
        assert np.array_equal(plug(mask), mask)


def test_a_noisy_sheet_becomes_watertight():
    """A plane that climbs by one voxel across an edge, with lone pinholes on both sides of that break."""
    rng = np.random.default_rng(5)
    _, x = np.indices((96, 96))
    mask = np.arange(8)[:, None, None] == np.where(x < 48, 3, 4)
    places = 6 * np.indices((16, 16)).reshape(2, -1).T + 2 + rng.integers(0, 3, (256, 2))
    places = places[np.abs(places[:, 1] - 47.5) > 2]
    mask[:, places[:, 0], places[:, 1]] = False
    plugged = plug(mask)
    assert (pieces(mask, 6), tunnels(mask)) == (2, len(places))
    assert (pieces(plugged, 6), tunnels(plugged)) == (1, 0)
    assert plugged.sum() - mask.sum() == len(places) + 96


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_wavy_sheet_with_holes_becomes_one_piece(seed):
    """A hole at a step is wider than one voxel once the step is joined, and stays; without holes there is no leak."""
    mask, whole = wavy_sheet(seed, 0.03), wavy_sheet(seed, 0)
    assert pieces(mask, 6) > 30
    assert pieces(plug(mask), 6) == 1
    assert tunnels(plug(mask)) < tunnels(mask) / 2
    assert (pieces(plug(whole), 6), tunnels(plug(whole))) == (1, 0)


def test_reach():
    assert [PlugPinholes(d, p).radius_zyx()[0] for d in (False, True) for p in (False, True)] == [0, 2, 2, 4]
    zyx: Index = PlugPinholes().radius_zyx()
    assert zyx == (4, 4, 4)
