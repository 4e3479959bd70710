"""Any window, step and part of any volume: a block of learned detection equals the crop of the whole volume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nx47dask.detectors import Learned
from nx47dask.geometry import Box
from nx47dask.kernels.statistics import ScanStatistics
from tests.conftest import sheets
from tests.integration.tiny_model import write_model

WINDOWS = [(8, 8, 8), (5, 12, 12), (1, 9, 16)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Learned(str(write_model(tmp_path_factory.mktemp("model") / "m.pt")), backend="torch")


@st.composite
def boxes(draw, shape):
    ends = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape]
    return Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))


@settings(max_examples=40)
@given(data=st.data())
def test_a_block_is_the_crop_of_the_whole(model, data):
    shape = data.draw(st.tuples(st.integers(1, 16), st.integers(1, 24), st.integers(1, 26)))
    window = data.draw(st.sampled_from(WINDOWS))
    step = tuple(data.draw(st.integers(-(-edge // 3), edge)) for edge in window)
    chosen = replace(
        model,
        window_zyx=window,
        step_zyx=step,
        placement=data.draw(st.sampled_from(["flush", "even"])),
        blend=data.draw(st.sampled_from(["gaussian", "constant"])),
        values=data.draw(st.sampled_from(["probability", "logit"])),
        support_level=data.draw(st.sampled_from([None, 0, 110])),
    ).bind()
    image = sheets(shape, data.draw(st.integers(0, 3)))
    image[: shape[0] // 2, shape[1] // 3 :] = 0
    volume, scan = Box.of_shape(shape), ScanStatistics.of_histogram(np.bincount(image.ravel()))
    whole = chosen.probability(image, volume, volume, volume, scan)
    core = data.draw(boxes(shape))
    outer = chosen.context(core, volume, scan)
    all_run = replace(chosen, settings=replace(chosen.settings, skip=False))
    for detector in (chosen, all_run):
        block = detector.probability(image[outer.slices], outer, core, volume, scan)
        assert block.tobytes() == whole[core.slices].tobytes()
    assert whole.min() >= 0
    assert whole.max() <= 1
