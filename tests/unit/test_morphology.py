"""Morphology against scipy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from nx47dask.kernels import morphology

cases = st.tuples(
    st.tuples(*[st.integers(1, 14)] * 3), st.tuples(*[st.integers(0, 4)] * 3), st.sampled_from(["box", "ellipsoid"]),
    st.floats(0.02, 0.7), st.integers(0, 99),
)  # fmt: skip


def ellipsoid(radius):
    """The structuring element by its definition, in floating point with a margin for rounding."""
    grids = np.meshgrid(*[np.arange(-r, r + 1) for r in radius], indexing="ij")
    return sum((g / r) ** 2 if r else g * 0.0 for g, r in zip(grids, radius, strict=True)) <= 1 + 1e-9


def element(radius, shape):
    return np.ones([2 * r + 1 for r in radius], dtype=bool) if shape == "box" else ellipsoid(radius)


@given(cases)
def test_dilation_and_erosion_equal_scipy(case):
    size, radius, shape, density, seed = case
    mask = np.random.default_rng(seed).random(size) < density
    structure = element(radius, shape)
    assert (morphology.dilate(mask, radius, shape) == ndimage.binary_dilation(mask, structure)).all()
    expected = ndimage.binary_erosion(mask, structure, border_value=1)
    assert (morphology.erode(mask, radius, shape) == expected).all()


@given(cases)
def test_closing_only_adds_and_opening_only_removes(case):
    size, radius, shape, density, seed = case
    mask = np.random.default_rng(seed).random(size) < density
    assert (morphology.closing(mask, radius, shape) >= mask).all()
    assert (morphology.opening(mask, radius, shape) <= mask).all()


def test_ellipsoid_has_its_radius_along_each_axis():
    seed = np.zeros((5, 7, 3), dtype=bool)
    seed[2, 3, 1] = True
    ball = morphology.dilate(seed, (2, 3, 1), "ellipsoid")
    assert ball[2, 0, 1]
    assert ball[0, 3, 1]
    assert ball[2, 3, 0]
    assert not ball[0, 0, 0]
