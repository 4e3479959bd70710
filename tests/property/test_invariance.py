"""Any workflow on any volume, cut in any way, equals the whole volume in scipy and scikit-image."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import nx47dask
from nx47dask.workflow import load_workflow
from tests.conftest import sheets
from tests.integration import reference

connectivity = st.sampled_from([6, 18, 26])
radii = st.lists(st.integers(0, 2), min_size=3, max_size=3)
basis = st.sampled_from(["value", "volume", "slice"])


@st.composite
def probability_steps(draw):
    steps = []
    if draw(st.booleans()):
        steps.append({"support": {"level": draw(st.integers(0, 90)), "radius_vox": draw(st.integers(0, 2))}})
    if draw(st.booleans()):
        steps.append({"smooth": {"sigma_zyx_vox": draw(st.lists(st.floats(0, 1.2), min_size=3, max_size=3))}})
    if draw(st.booleans()):
        steps.append({"smooth_sheet": {"sigma_vox": draw(st.floats(0.3, 2)), "window_vox": draw(st.integers(1, 3))}})
    return steps


@st.composite
def threshold_steps(draw):
    low, high = sorted(draw(st.tuples(st.floats(0.3, 0.95), st.floats(0.3, 0.95))))
    if draw(st.booleans()):
        return [{"threshold": {"value": low, "by": draw(basis)}}]
    return [
        {
            "hysteresis": {
                "low": low,
                "high": high,
                "by": draw(basis),
                "connectivity": draw(connectivity),
                "per_slice": draw(st.booleans()),
            }
        }
    ]


components = st.fixed_dictionaries({"connectivity": connectivity, "per_slice": st.booleans()})
mask_step = st.one_of(
    st.builds(
        lambda c, n, b: {"small_objects": {**c, "min_vox": n, "border_min_vox": b}},
        components,
        st.integers(1, 60),
        st.none() | st.integers(1, 40),
    ),
    st.builds(lambda c, n: {"fill_holes": {**c, "max_vox": n}}, components, st.none() | st.integers(1, 40)),
    st.builds(
        lambda r, s: {"closing": {"radius_zyx_vox": r, "shape": s}}, radii, st.sampled_from(["box", "ellipsoid"])
    ),
    st.builds(
        lambda r, s: {"opening": {"radius_zyx_vox": r, "shape": s}}, radii, st.sampled_from(["box", "ellipsoid"])
    ),
    st.builds(lambda w, n: {"z_coherence": {"window_vox": w, "reach_vox": n}}, st.integers(1, 2), st.integers(0, 2)),
    st.builds(lambda w: {"z_coherence": {"window_vox": w, "rule": "vote"}}, st.integers(1, 3)),
    st.builds(lambda d, p: {"plug_pinholes": {"diagonals": d, "pinholes": p}}, st.booleans(), st.booleans()),
    st.builds(lambda n, w: {"patch_holes": {"width_vox": n, "window_vox": w}}, st.integers(1, 3), st.integers(1, 3)),
    st.builds(lambda n, e: {"thin": {"layers": n, "keep_ends": e}}, st.integers(1, 2), st.booleans()),
    st.builds(lambda n: {"thicken": {"layers": n}}, st.integers(1, 2)),
    st.builds(lambda w: {"clear_border": {"width_zyx_vox": w}}, st.lists(st.integers(0, 6), min_size=3, max_size=3)),
)
workflows = st.builds(
    lambda band, p, t, m: {
        "detect": ["residual_band" if band and not p else {"residual": {"sigma_base": 1.3, "gain": 1.0}}],
        "postprocess": p + t + m,
    },
    st.booleans(),
    probability_steps(),
    threshold_steps(),
    st.lists(mask_step, max_size=4),
)
shapes = st.tuples(st.integers(1, 20), st.integers(1, 26), st.integers(1, 24))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("invariance")


@settings(max_examples=30)
@given(workflows, shapes, st.integers(3, 30), st.integers(0, 9))
def test_any_cut_equals_the_whole_volume(work, workflow, shape, block, seed):
    image = sheets(shape, seed)
    source, path = work / "scan.tif", work / "workflow.yaml"
    tifffile.imwrite(source, image, photometric="minisblack", metadata=None) if shape[0] > 1 else _write_zarr(
        source := work / "scan.zarr", image
    )
    path.write_text(yaml.safe_dump(workflow))
    run = nx47dask.run(
        [source], work / "run", workflow=path, block=block, serial=True, overwrite=True, console=Console(quiet=True)
    )
    expected = reference.run(image, load_workflow(path))
    mask = tifffile.imread(run.path / "masks" / "scan.tif").reshape(shape)
    assert np.array_equal(mask, expected * np.uint8(255))
    rows = (run.path / "metrics" / "slices.csv").read_text().split("\n", 1)[1]
    assert rows == reference.slices_csv("scan", expected)
    assert run["scan"].metrics["mask"] == reference.volume_metrics(expected)


def _write_zarr(path, image):
    import zarr

    shutil.rmtree(path, ignore_errors=True)
    zarr.create_array(path, data=image, chunks=(8, 8, 8))
