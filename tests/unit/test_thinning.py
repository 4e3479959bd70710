"""Thinning against the definitions, written with scipy, and against the topology of what went in."""

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
from nx47dask.kernels.thinning import thin, thinning_radius
from nx47dask.steps.thinning import Thin

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
    labels, _ = pieces(~cube & AROUND, CROSS)
    return pieces(cube, FULL)[1] == 1 and np.unique(labels[CROSS & (labels > 0)]).size == 1


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
    kept = cube & ~candidates
    kept[1, 1, 1] = False
    labels, _ = pieces(~cube & AROUND, CROSS)
    if ndimage.label(kept, FULL)[1] != 1 or np.unique(labels[CROSS & (labels > 0)]).size != 1:
        return False
    for place in np.argwhere(candidates):
        near = tuple(slice(max(0, p - 1), p + 2) for p in place)
        if not kept[near].any():
            return False
        step = place - 1
        if np.abs(step).sum() == 1 and not any(
            not cube[tuple(1 + np.array(d))] and not cube[tuple(1 + np.array(d) + step)]
            for d in DIRECTIONS
            if np.dot(d, step) == 0
        ):
            return False
    return True


def is_end(cube):
    thin_axis = any(not (cube[a] or cube[b]) for a, b in [((0, 1, 1), (2, 1, 1)), ((1, 0, 1), (1, 2, 1)),
                                                         ((1, 1, 0), (1, 1, 2))])  # fmt: skip
    return thin_axis and cube.sum() - 1 <= 8


def reference_thin(mask, layers, keep_ends):
    """Thinning of a small mask, voxel by voxel."""
    mask = mask.copy()
    for _ in range(layers):
        border = mask & ~ndimage.binary_erosion(mask, CROSS, border_value=1)
        for direction in DIRECTIONS:
            beyond = tuple(slice(1 + d, 1 + d + n) for d, n in zip(direction, mask.shape, strict=True))
            candidates = mask & border & np.pad(~mask, 1)[beyond]
            padded, marked = np.pad(mask, 1), np.pad(candidates, 1)
            for z, y, x in np.argwhere(candidates):
                window = np.s_[z : z + 3, y : y + 3, x : x + 3]
                others = marked[window].copy()
                others[1, 1, 1] = False
                if not (keep_ends and is_end(padded[window])) and meets_bertrand(padded[window], others):
                    mask[z, y, x] = False
    return mask


def assert_same_pieces(before, after):
    """One piece for one piece and one cavity for one cavity."""
    assert (after <= before).all()
    # Padded: the outside is background, and cc3d fails on some arrays of one voxel's width.
    before, after = np.pad(before, 1), np.pad(after, 1)
    for outer, inner, connectivity in ((before, after, 26), (~after, ~before, 6)):
        labels, number = cc3d.connected_components(outer, connectivity=connectivity, return_N=True)
        number_inside = cc3d.connected_components(inner, connectivity=connectivity, return_N=True)[1]
        assert number == number_inside == np.count_nonzero(np.bincount(labels[inner]))


def test_p_simple_is_simple_whatever_goes():
    rng = np.random.default_rng(1)
    found = [0, 0]
    near_26, near_6 = thinning._adjacency()
    for _ in range(1500):
        cube = rng.random((3, 3, 3)) < rng.choice([0.3, 0.5, 0.7, 0.9])
        cube[1, 1, 1], cube[0, 1, 1] = True, False
        # A candidate has background above it; what lies above the neighbourhood is not seen.
        open_above = np.concatenate([np.ones((1, 3, 3), dtype=bool), ~cube[:2]])
        candidates = cube & open_above & (rng.random((3, 3, 3)) < 0.8)
        candidates[1, 1, 1] = False
        if candidates.sum() > 5:
            continue
        kept = cube & ~candidates
        kept[1, 1, 1] = False
        bits = [sum(1 << int(bit) for bit in np.flatnonzero(part)) for part in (kept, candidates)]
        expected = is_p_simple(cube, candidates)
        assert thinning._is_p_simple(*bits, 4, near_26, near_6) == expected
        found[expected] += 1
    assert min(found) > 100


@given(st.tuples(*[st.integers(1, 6)] * 3), densities, st.integers(0, 999), options)
def test_thinning_equals_the_definition(shape, density, seed, option):
    mask = noise(shape, density, seed, 0.5)
    assert (thin(mask, *option) == reference_thin(mask, *option)).all()


@given(masks, options)
def test_topology_stays(mask, option):
    thinned = thin(mask, *option)
    assert_same_pieces(mask, thinned)
    # With pieces and cavities the same, the Euler number counts tunnels.
    assert euler_number(thinned, connectivity=3) == euler_number(mask, connectivity=3)


def cell_eulers(cells):
    """Euler number of every mask of a stack, shape (N, Z, Y, X), with background around each."""
    total = np.zeros(len(cells), dtype=np.int64)
    for kind in itertools.product((False, True), repeat=3):
        some = cells
        for axis, window in enumerate(kind, start=1):
            low, high = [slice(None)] * 4, [slice(None)] * 4
            low[axis], high[axis] = slice(0, -1), slice(1, None)
            some = some[tuple(low)] | some[tuple(high)] if window else some
        total += (-1) ** (1 + sum(kind)) * some.sum(axis=(1, 2, 3))
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
    assert left == 1 if keep_ends and 1 in shape else left < 0.9


@pytest.mark.parametrize("density", [0.3, 0.5, 0.7, 0.85, 0.95])
def test_topology_of_many_random_masks_stays(density):
    masks = np.random.default_rng(3).random((20000, 4, 5, 4)) < density
    assert check_stack(masks, (1, False)) < 0.95


@given(st.data(), options, densities, st.integers(0, 9999), st.sampled_from([0.6, 1.2, 2.0]))
def test_a_crop_with_the_radius_equals_the_crop_of_the_whole(data, option, density, seed, sigma):
    shape = data.draw(st.tuples(*[st.integers(1, 40)] * 3))
    mask = noise(shape, density, seed, sigma)
    radius = thinning_radius(option[0])
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    stop = [data.draw(st.integers(a + 1, min(n, a + 9))) for a, n in zip(start, shape, strict=True)]
    low = [max(0, a - radius) for a in start]
    read = tuple(slice(a, b + radius) for a, b in zip(low, stop, strict=True))
    core = tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, low, strict=True))
    whole = thin(mask, *option)[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    assert (thin(mask[read], *option)[core] == whole).all()


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
    mask = (z == x) & (y > 3) & (y < 12)
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
    assert cc3d.connected_components(thinned, connectivity=26, return_N=True)[1] == 1


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 7), (0, 4, 4), (5, 1, 1)])
def test_full_volumes_have_no_border(shape):
    mask = np.ones(shape, dtype=bool)
    assert (thin(mask) == mask).all()


def test_the_step_is_the_kernel():
    mask = noise((9, 12, 11), 0.5, 4, 1.0)
    for step in (Thin(), Thin(2), Thin(1, keep_ends=False)):
        result = step.apply(mask.view(np.uint8), None)
        assert result.dtype == np.uint8
        assert (result == thin(mask, step.layers, step.keep_ends)).all()
        assert step.radius_zyx() == (thinning_radius(step.layers),) * 3
    with pytest.raises(ValidationError):
        TypeAdapter(Thin).validate_python({"layers": 3})
