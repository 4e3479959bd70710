"""Pieces of a labelled array against scikit-image's Euler number and scipy's boxes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import euler_number

from nx47dask.kernels.pieces import add_pieces, measure_pieces

FULL, FACES = ndimage.generate_binary_structure(3, 3), ndimage.generate_binary_structure(3, 1)

cases = st.builds(
    lambda shape, density, share, seed: (
        (mask := (rng := np.random.default_rng(seed)).random(shape) < density),
        ~mask & (rng.random(shape) < share),
    ),
    st.tuples(*[st.integers(1, 9)] * 3), st.floats(0.1, 0.9), st.floats(0.05, 0.5), st.integers(0, 9999),
)  # fmt: skip


@given(cases)
def test_pieces_change_the_euler_number_and_touch_by_faces(case):
    mask, added = case
    pieces, count = ndimage.label(added, FULL)
    change, touches = add_pieces(mask, pieces.astype(np.uint32), count)
    before = euler_number(np.pad(mask, 1), connectivity=1)
    for number in range(1, count + 1):
        piece = pieces == number
        assert change[number] == euler_number(np.pad(mask | piece, 1), connectivity=1) - before
        assert touches[number] == (ndimage.binary_dilation(piece, FACES) & mask).any()


@given(cases)
def test_extents_are_boxes_and_sizes(case):
    pieces, count = ndimage.label(case[1], FULL)
    row = np.arange(count + 1) - 1
    if count > 1:
        row[1] = -1
    extents = measure_pieces(pieces.astype(np.uint32), row, count)
    for number, box in enumerate(ndimage.find_objects(pieces)[count > 1 :], start=1 + (count > 1)):
        expected = [*(axis.start for axis in box), *(axis.stop - 1 for axis in box), np.sum(pieces == number)]
        assert extents[row[number]].tolist() == expected
