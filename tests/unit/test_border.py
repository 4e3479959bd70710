"""What happens at the volume's border: cleared there, and asked less of what it cuts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from nx47dask.geometry import Box
from nx47dask.steps.border import ClearBorder
from nx47dask.steps.objects import SmallObjects
from nx47dask.steps.passes import NamedStep, compile_passes
from nx47dask.steps.thresholds import Threshold
from nx47dask.steps.whole import whole_mask

shapes = st.tuples(*[st.integers(1, 24)] * 3)
widths = st.tuples(*[st.integers(0, 6)] * 3)


def test_a_frame_of_the_volume_goes():
    cleared = ClearBorder((1, 2, 0)).apply(np.ones((6, 7, 3), np.uint8), None)
    assert cleared[1:5, 2:5].all()
    assert cleared.sum() == 4 * 3 * 3


def test_an_axis_that_is_all_border_leaves_nothing():
    assert not ClearBorder((3, 0, 0)).apply(np.ones((6, 9, 9), np.uint8), None).any()
    assert ClearBorder((3, 0, 0)).apply(np.ones((7, 9, 9), np.uint8), None)[3].all()


@given(st.data(), shapes, widths, st.integers(0, 999))
def test_a_crop_with_the_radius_equals_the_crop_of_the_whole(data, shape, width, seed):
    mask = (np.random.default_rng(seed).random(shape) < 0.7).view(np.uint8)
    step = ClearBorder(width)
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    core = Box(start, tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))
    outer = core.expand(step.radius_zyx()).clip(Box.of_shape(shape))
    part = step.apply(mask[outer.slices], None)[core.relative_to(outer.start).slices]
    assert (part == step.apply(mask, None)[core.slices]).all()


def test_widths_have_limits():
    for width in ([0, 0, 33], [-1, 0, 0], [1, 1]):
        with pytest.raises(ValidationError):
            TypeAdapter(ClearBorder).validate_python({"width_zyx_vox": width})


def kept(mask, **parameters):
    steps = [NamedStep("threshold", Threshold()), NamedStep("small_objects", SmallObjects(**parameters))]
    return whole_mask(compile_passes(steps), mask.view(np.uint8) * np.uint8(255), None)


def test_less_is_asked_of_what_the_border_cuts():
    mask = np.zeros((8, 8, 8), dtype=bool)
    mask[0, 1, 1:4] = True  # at the border: 3
    mask[4, 7, 6:8] = True  # at the border: 2
    mask[4, 4, 2:6] = True  # inside: 4
    mask[2, 2:7, 5] = True  # inside: 5
    expected = mask.copy()
    expected[4, 4] = expected[4, 7] = False
    assert (kept(mask, min_vox=5, border_min_vox=3) == expected).all()
    assert kept(mask, min_vox=5).sum() == 5
    assert (kept(mask, min_vox=5, border_min_vox=9) == kept(mask, min_vox=5)).all()


def test_the_border_is_looked_at_only_where_it_counts():
    assert SmallObjects().attributes == ("voxels",)
    assert SmallObjects(border_min_vox=5).attributes == ("border", "voxels")
