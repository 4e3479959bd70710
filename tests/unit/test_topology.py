"""Euler numbers, components and holes against scikit-image and scipy, whole and shared out over blocks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import euler_number

from nx47dask.geometry import BlockGrid, Box
from nx47dask.kernels.topology import count_cells

masks = st.tuples(st.tuples(*[st.integers(1, 9)] * 3), st.floats(0.05, 0.9), st.integers(0, 999))
blocks = st.tuples(*[st.integers(1, 6)] * 3)


def random_mask(case):
    shape, density, seed = case
    return np.random.default_rng(seed).random(shape) < density


def perimeter(plane):
    padded = np.pad(plane, 1).astype(int)
    return int(np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum())


@given(masks)
def test_whole_volume_counts(case):
    mask = random_mask(case)
    counts = count_cells(np.pad(mask, 1), (True, True, True))
    assert counts.euler == euler_number(mask, connectivity=3)
    for z, plane in enumerate(mask):
        assert counts.slice_voxels[z] == plane.sum()
        assert counts.slice_euler[z] == euler_number(plane, connectivity=2)
        assert counts.slice_perimeter[z] == perimeter(plane)
        assert counts.slice_overlap[z] == (0 if z == 0 else (plane & mask[z - 1]).sum())


@given(masks, blocks)
def test_blocks_share_the_cells_out(case, block_shape):
    mask = random_mask(case)
    padded = np.pad(mask, 1)
    whole = count_cells(padded, (True, True, True))
    grid = BlockGrid(mask.shape, block_shape)
    euler = 0
    sums = {name: np.zeros(len(mask), dtype=int) for name in ("voxels", "euler", "perimeter", "overlap")}
    for block in grid:
        window = Box(block.box.start, tuple(b + 2 for b in block.box.stop))
        inner = grid.inner_faces(block)
        part = count_cells(padded[window.slices], tuple(not high for _, high in inner))
        euler += part.euler
        for name in sums:
            sums[name][block.box.slices[0]] += getattr(part, f"slice_{name}")
    assert euler == whole.euler
    for name, total in sums.items():
        assert (total == getattr(whole, f"slice_{name}")).all()


@given(masks)
def test_holes_are_components_minus_euler(case):
    for plane in random_mask(case):
        counts = count_cells(np.pad(plane[None], 1), (True, True, True))
        components = ndimage.label(plane, np.ones((3, 3)))[1]
        background = ndimage.label(np.pad(~plane, 1, constant_values=True))[1] - 1
        assert components - counts.slice_euler[0] == background
