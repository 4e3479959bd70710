"""Thinning and thickening against the definitions, written with scipy, and against the topology of what went in."""

from __future__ import annotations

import itertools

import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy import ndimage
from skimage.measure import euler_number

from nx47dask.kernels import thinning
from nx47dask.kernels.thinning import layers_radius, thicken, thin
from nx47dask.steps.thinning import Thicken, Thin

CROSS = ndimage.generate_binary_structure(3, 1)
FULL = np.ones((3, 3, 3), dtype=bool)
AROUND = ndimage.generate_binary_structure(3, 2)  # faces and edges
AROUND[1, 1, 1] = False
DIRECTIONS = [(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]

densities = st.floats(0.05, 0.95)
options = st.tuples(st.integers(1, 2), st.booleans())


def noise(shape, density, seed, sigma=0.0):
    """A random mask; with a sigma, lumps and sheets in place of dust."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), sigma)
    return values < np.quantile(values, density)


masks = st.builds(
    noise, st.tuples(*[st.integers(1, 13)] * 3), densities, st.integers(0, 9999), st.sampled_from([0.0, 0.6, 1.2])
)


def pieces(cube, element):
    """Labels of a neighbourhood without its centre."""
    cube = cube.copy()
    cube[1, 1, 1] = False
    return ndimage.label(cube, element)


def is_simple(cube):
    """Whether the centre of a neighbourhood is simple (Bertrand and Malandain)."""
    labels, _ = pieces(cube & AROUND, CROSS)
    return pieces(~cube, FULL)[1] == 1 and np.unique(labels[CROSS & (labels > 0)]).size == 1


def is_p_simple(cube, candidates):
    """Whether the centre is simple whatever candidates are gone."""
    places = np.argwhere(candidates)
    for gone in itertools.product((False, True), repeat=len(places)):
        rest = cube.copy()
        rest[tuple(places[list(gone)].T)] = False
        if not is_simple(rest):
            return False
    return True


def meets_bertrand(cube, candidates):
    """Bertrand's four conditions for the centre."""
    candidates = candidates.copy()
    candidates[1, 1, 1] = False
    filled, empty = cube & ~candidates, ~cube & ~candidates
    filled[1, 1, 1] = empty[1, 1, 1] = False
    labels, _ = pieces(filled & AROUND, CROSS)
    if ndimage.label(empty, FULL)[1] != 1 or np.unique(labels[CROSS & (labels > 0)]).size != 1:
        return False
    for place in np.argwhere(candidates):
        near = tuple(slice(max(0, p - 1), p + 2) for p in place)
        if not empty[near].any():
            return False
        step = place - 1
        if np.abs(step).sum() == 1 and not any(
            filled[tuple(1 + np.array(d))] and filled[tuple(1 + np.array(d) + step)]
            for d in DIRECTIONS
            if np.dot(d, step) == 0
        ):
            return False
    return True


def change(mask, layers, to, stays):
    """Thinning (``to`` False) or thickening (True) of a small mask, voxel by voxel."""
    mask = mask.copy()
    for _ in range(layers):
        border = (mask != to) & ndimage.binary_dilation(mask == to, CROSS) & ~stays(mask)
        for direction in DIRECTIONS:
            beyond = tuple(slice(1 + d, 1 + d + n) for d, n in zip(direction, mask.shape, strict=True))
            candidates = (mask != to) & border & np.pad(mask == to, 1)[beyond]
            padded, marked = np.pad(mask, 1), np.pad(candidates, 1)
            for z, y, x in np.argwhere(candidates):
                window = np.s_[z : z + 3, y : y + 3, x : x + 3]
                if meets_bertrand(padded[window], marked[window]):
                    mask[z, y, x] = to
    return mask


def thin_places(mask):
    """Voxels with no full block of 2 x 2 x 2 within one voxel."""
    blocks = ndimage.binary_opening(np.pad(mask, 2), np.ones((2, 2, 2)))
    return ~ndimage.binary_dilation(blocks, FULL)[2:-2, 2:-2, 2:-2]


def reference_thin(mask, layers, keep_ends):
    return change(mask, layers, False, thin_places if keep_ends else np.zeros_like)


def assert_same_pieces(before, after):
    """One piece for one piece and one cavity for one cavity."""
    assert (after <= before).all()
    # Padded: the outside is background, and cc3d fails on some arrays of one voxel's width.
    before, after = np.pad(before, 1), np.pad(after, 1)
    for outer, inner, connectivity in ((before, after, 6), (~after, ~before, 26)):
        labels, number = cc3d.connected_components(outer, connectivity=connectivity, return_N=True)
        number_inside = cc3d.connected_components(inner, connectivity=connectivity, return_N=True)[1]
        assert number == number_inside == np.count_nonzero(np.bincount(labels[inner]))


def test_p_simple_is_simple_whatever_goes():
    rng = np.random.default_rng(1)
    found = [0, 0]
    near_26, near_6 = thinning._adjacency()
    for _ in range(1500):
        cube = rng.random((3, 3, 3)) < rng.choice([0.2, 0.4, 0.6, 0.8])
        candidates = cube & (rng.random((3, 3, 3)) < 0.3)
        cube[1, 1, 1], candidates[1, 1, 1] = True, False
        if candidates.sum() > 6:
            continue
        filled = cube & ~candidates
        filled[1, 1, 1] = False
        bits = [sum(1 << int(bit) for bit in np.flatnonzero(part)) for part in (filled, candidates)]
        expected = is_p_simple(cube, candidates)
        assert thinning._is_p_simple(*bits, near_26, near_6) == expected
        found[expected] += 1
    assert min(found) > 100


@given(st.tuples(*[st.integers(1, 6)] * 3), densities, st.integers(0, 999), options)
def test_thinning_equals_the_definition(shape, density, seed, option):
    mask = noise(shape, density, seed, 0.5)
    assert (thin(mask, *option) == reference_thin(mask, *option)).all()


@given(st.tuples(*[st.integers(1, 6)] * 3), densities, st.integers(0, 999), st.integers(1, 2))
def test_thickening_equals_the_definition(shape, density, seed, layers):
    mask = noise(shape, density, seed, 0.5)
    assert (thicken(mask, layers) == change(mask, layers, True, np.zeros_like)).all()


@given(masks, st.integers(1, 2))
def test_thickening_keeps_the_topology(mask, layers):
    thick = thicken(mask, layers)
    assert_same_pieces(thick, mask)
    assert euler_number(thick, connectivity=1) == euler_number(mask, connectivity=1)
    assert (thick <= ndimage.binary_dilation(mask, CROSS, iterations=layers)).all()


@given(masks, options)
def test_topology_stays(mask, option):
    thinned = thin(mask, *option)
    assert_same_pieces(mask, thinned)
    # With pieces and cavities the same, the Euler number counts tunnels.
    assert euler_number(thinned, connectivity=1) == euler_number(mask, connectivity=1)


def cell_eulers(cells):
    """Euler number of every mask of a stack, shape (N, Z, Y, X): voxels, pairs, squares and cubes that are all full."""
    total = np.zeros(len(cells), dtype=np.int64)
    for kind in itertools.product((False, True), repeat=3):
        some = cells
        for axis, window in enumerate(kind, start=1):
            low, high = [slice(None)] * 4, [slice(None)] * 4
            low[axis], high[axis] = slice(0, -1), slice(1, None)
            some = some[tuple(low)] & some[tuple(high)] if window else some
        total += (-1) ** sum(kind) * some.sum(axis=(1, 2, 3))
    return total


def check_stack(masks, option):
    """Thin many small masks at once, apart from each other, and compare each with itself."""
    cells = np.pad(masks, ((0, 0), (1, 1), (1, 1), (1, 1)))
    tower = cells.reshape(-1, *cells.shape[2:])
    thinned = thin(tower, *option)
    assert_same_pieces(tower, thinned)
    assert (cell_eulers(thinned.reshape(cells.shape)) == cell_eulers(cells)).all()
    return thinned.sum() / tower.sum()


@pytest.mark.parametrize(
    ("shape", "keep_ends"),
    [
        ((2, 3, 3), False),
        ((2, 2, 4), True),
        ((4, 2, 2), False),
        ((4, 2, 2), True),
        ((1, 4, 4), False),
        ((4, 4, 1), True),
    ],
)
def test_topology_of_every_small_mask_stays(shape, keep_ends):
    size = int(np.prod(shape))
    every = (np.arange(2**size)[:, None] >> np.arange(size)) & 1 == 1
    left = check_stack(every.reshape(-1, *shape), (2, keep_ends))
    # With ends kept, a mask of one voxel's thickness stays whole.
    assert left == 1 if keep_ends and 1 in shape else left < 1


@pytest.mark.parametrize("density", [0.3, 0.5, 0.7, 0.85, 0.95])
def test_topology_of_many_random_masks_stays(density):
    masks = np.random.default_rng(3).random((20000, 4, 5, 4)) < density
    assert check_stack(masks, (1, False)) < 0.95


@given(
    st.data(),
    st.none() | st.booleans(),
    st.integers(1, 2),
    densities,
    st.integers(0, 9999),
    st.sampled_from([0.6, 2.0]),
)
def test_a_crop_with_the_radius_equals_the_crop_of_the_whole(data, keep_ends, layers, density, seed, sigma):
    def result(mask):
        return thicken(mask, layers) if keep_ends is None else thin(mask, layers, keep_ends)

    shape = data.draw(st.tuples(*[st.integers(1, 44)] * 3))
    mask = noise(shape, density, seed, sigma)
    radius = layers_radius(layers, bool(keep_ends))
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    stop = [data.draw(st.integers(a + 1, min(n, a + 9))) for a, n in zip(start, shape, strict=True)]
    low = [max(0, a - radius) for a in start]
    read = tuple(slice(a, b + radius) for a, b in zip(low, stop, strict=True))
    core = tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, low, strict=True))
    whole = result(mask)[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    assert (result(mask[read])[core] == whole).all()


@given(masks, options)
def test_a_layer_takes_only_what_touches_the_background(mask, option):
    core = ndimage.binary_erosion(mask, CROSS, iterations=option[0], border_value=1)
    assert (thin(mask, *option) >= core).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_slab_loses_a_voxel_a_side_and_a_layer(axis, layers):
    mask = np.zeros((15, 15, 15), dtype=bool)
    np.moveaxis(mask, axis, 0)[5:10] = True
    expected = np.zeros_like(mask)
    np.moveaxis(expected, axis, 0)[5 + layers : 10 - layers] = True
    assert (thin(mask, layers) == expected).all()


def test_a_box_shrinks_on_all_sides():
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[2:9, 3:8, 2:11] = True
    expected = np.zeros_like(mask)
    expected[3:8, 4:7, 3:10] = True
    assert (thin(mask) == expected).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_thin_sheet_keeps_its_rim_and_its_hole(axis):
    mask = np.zeros((14, 14, 14), dtype=bool)
    sheet = np.moveaxis(mask, axis, 0)[6]
    sheet[3:11, 2:12] = True
    sheet[6, 6] = False
    assert (thin(mask, 2) == mask).all()
    receded = np.moveaxis(thin(mask, 1, keep_ends=False), axis, 0)[6]
    assert receded[6:8, 7].sum() < 2
    assert not receded[3].any()


def test_an_oblique_thin_sheet_stays():
    z, y, x = np.indices((16, 16, 16))
    mask = ((z == x) | (z == x + 1)) & (y > 3) & (y < 12)
    assert (thin(mask, 2) == mask).all()


def test_a_bump_sinks_and_a_bridge_stays():
    mask = np.zeros((20, 9, 9), dtype=bool)
    mask[4:9] = mask[12:17] = True
    bumpy = mask.copy()
    bumpy[3, 4, 4] = True
    sunk = thin(mask)
    sunk[4, 4, 4] = True
    assert (thin(bumpy) == sunk).all()
    mask[9:12, 4, 4] = True
    thinned = thin(mask)
    assert thinned[8:13, 4, 4].all()
    assert cc3d.connected_components(thinned, connectivity=6, return_N=True)[1] == 1


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 7), (0, 4, 4), (5, 1, 1)])
def test_full_volumes_have_no_border(shape):
    mask = np.ones(shape, dtype=bool)
    assert (thin(mask) == mask).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_sheets_grow_and_never_merge(axis):
    mask = np.zeros((14, 14, 14), dtype=bool)
    sheets = np.moveaxis(mask, axis, 0)
    sheets[3] = sheets[6] = True
    thick = np.moveaxis(thicken(mask, 2), axis, 0)
    # Of a gap of two voxels one stays; the volume's border stops nothing and starts nothing.
    assert thick[1:4].all()
    assert thick[6:9].all()
    assert thick[4:6].sum() == 14 * 14
    assert not thick[[0, *range(9, 14)]].any()


@pytest.mark.parametrize("layers", [1, 2])
def test_a_box_grows_and_thinning_brings_it_back(layers):
    mask = np.zeros((14, 14, 14), dtype=bool)
    mask[4:9, 5:8, 4:10] = True
    thick = thicken(mask, layers)
    assert thick[4 - layers : 9 + layers, 6, 6].all()
    assert (thin(thick, layers) == mask).all()


def test_a_hole_and_a_cavity_stay_open_and_a_pit_fills():
    mask = np.zeros((11, 15, 15), dtype=bool)
    mask[4:7, 2:13, 2:13] = True
    mask[:, 5, 5] = False
    mask[5, 9, 9] = False
    mask[4, 9, 4] = False
    thick = thicken(mask, 2)
    assert not thick[:, 5, 5].any()
    assert not thick[5, 9, 9]
    assert thick[4, 9, 4]


def test_nothing_grows_from_an_empty_volume():
    assert not thicken(np.zeros((5, 6, 7), dtype=bool), 2).any()


def test_the_step_is_the_kernel():
    mask = noise((9, 12, 11), 0.5, 4, 1.0)
    for step in (Thin(), Thin(2), Thin(1, keep_ends=False), Thicken(), Thicken(2)):
        result = step.apply(mask.view(np.uint8), None)
        ends = isinstance(step, Thin) and step.keep_ends
        expected = thin(mask, step.layers, ends) if isinstance(step, Thin) else thicken(mask, step.layers)
        assert result.dtype == np.uint8
        assert (result == expected).all()
        assert step.radius_zyx() == (layers_radius(step.layers, ends),) * 3
    for kind in (Thin, Thicken):
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python({"layers": 3})
