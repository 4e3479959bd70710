"""Window lattices against counting by hand, MONAI and nnU-Net."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nx47dask.errors import InputError
from nx47dask.geometry import Box, WindowLattice


@st.composite
def lattices(draw):
    edges = [draw(st.tuples(st.integers(1, 40), st.integers(1, 12))) for _ in range(3)]
    steps = tuple(draw(st.integers(1, window)) for _, window in edges)
    shape, window = zip(*edges, strict=True)
    return WindowLattice(shape, window, steps, draw(st.sampled_from(["flush", "even"])))


@st.composite
def lattices_with_boxes(draw):
    lattice = draw(lattices())
    starts = [draw(st.integers(0, n - 1)) for n in lattice.shape]
    stops = [draw(st.integers(a + 1, n)) for a, n in zip(starts, lattice.shape, strict=True)]
    return lattice, Box(tuple(starts), tuple(stops))


def all_windows(lattice):
    for start in itertools.product(*lattice.starts):
        yield Box(start, tuple(a + w for a, w in zip(start, lattice.window, strict=True)))


@given(lattices_with_boxes())
def test_touching_windows_are_those_that_share_a_voxel(case):
    lattice, box = case
    expected = [window for window in all_windows(lattice) if window.clip(box).size]
    assert list(lattice.touching(box)) == expected
    assert lattice.count_touching(box) == len(expected)
    parts = [window.clip(Box.of_shape(lattice.shape)) for window in expected]
    union = Box(
        tuple(min(part.start[axis] for part in parts) for axis in range(3)),
        tuple(max(part.stop[axis] for part in parts) for axis in range(3)),
    )
    assert lattice.context(box) == union


@given(lattices())
def test_every_voxel_is_covered_and_the_most_overlaps_are_counted(lattice):
    covers = np.zeros(lattice.shape, int)
    for window in all_windows(lattice):
        covers[window.clip(Box.of_shape(lattice.shape)).slices] += 1
    assert covers.min() >= 1
    assert covers.max() == lattice.most_overlaps
    assert len(lattice) == np.prod(lattice.counts)


@given(lattices())
def test_a_small_volume_has_one_window_with_the_volume_in_its_middle(lattice):
    for n, w, starts in zip(lattice.shape, lattice.window, lattice.starts, strict=True):
        if n <= w:
            assert starts == (-((w - n) // 2),)
        else:
            assert (starts[0], starts[-1]) == (0, n - w)


def test_half_a_window_gives_27_overlaps_only_where_the_last_is_pushed_back():
    assert WindowLattice((300,) * 3, (96,) * 3, (48,) * 3).most_overlaps == 27
    assert WindowLattice((288,) * 3, (96,) * 3, (48,) * 3).most_overlaps == 8


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("shape", [(48, 49, 100), (16, 40, 17), (97, 20, 31)])
def test_flush_is_monai(shape, overlap):
    utils = pytest.importorskip("monai.inferers.utils")
    window = (16, 20, 17)
    interval = utils._get_scan_interval(shape, window, 3, (overlap,) * 3)
    lattice = WindowLattice(shape, window, interval)
    expected = utils.dense_patch_slices(shape, window, interval)
    assert [window.slices for window in lattice.touching(Box.of_shape(shape))] == expected


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1])
def test_even_is_nnunet(share):
    module = pytest.importorskip("nnunetv2.inference.sliding_window_prediction")
    window = (16, 24, 32)
    for extra in range(120):
        shape = tuple(w + extra for w in window)
        lattice = WindowLattice(shape, window, tuple(int(w * share) for w in window), "even")
        assert list(map(list, lattice.starts)) == module.compute_steps_for_sliding_window(shape, window, share)


@pytest.mark.parametrize(("shape", "step"), [((0, 9, 9), (4, 4, 4)), ((9, 9, 9), (4, 0, 4)), ((9, 9, 9), (4, 4, 9))])
def test_gaps_and_nothing_are_refused(shape, step):
    with pytest.raises(InputError, match="windows along"):
        WindowLattice(shape, (8, 8, 8), step)


def test_a_box_is_aligned_outwards():
    assert Box((-3, 8, 9), (1, 16, 17)).align(8) == Box((-8, 8, 8), (8, 16, 24))
