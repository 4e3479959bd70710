"""What is not read or computed because it is empty changes no byte of the results."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest
import yaml
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import nx47dask
from nx47dask.stages.emptiness import Occupancy
from tests.conftest import sheets

SHAPE = (20, 24, 26)
basis = st.sampled_from(["value", "volume", "slice"])
labelling = st.fixed_dictionaries({"connectivity": st.sampled_from([6, 26]), "per_slice": st.booleans()})
detectors = st.sampled_from([{"sheetness": {"scales": [1]}}, {"residual": {"sigma_base": 0.6}}])
mask_step = st.one_of(
    st.builds(lambda c, n: {"small_objects": {**c, "min_vox": n}}, labelling, st.integers(1, 60)),
    st.builds(lambda c: {"fill_holes": {**c, "max_vox": None}}, labelling),
    st.builds(lambda r: {"closing": {"radius_zyx_vox": [r, r, r]}}, st.integers(0, 2)),
)
workflows = st.builds(
    lambda d, support, low, by, c, steps: {
        "detect": [d],
        "postprocess": [
            *([{"support": {"radius_vox": 1}}] if support else []),
            {"hysteresis": {"low": low, "high": max(low, 0.8), "by": by, **c}},
            *steps,
        ],
    },
    detectors,
    st.booleans(),
    st.floats(0.3, 0.9),
    basis,
    labelling,
    st.lists(mask_step, max_size=3),
)


def masked(seed, kind):
    """Sheets with much empty space around them, or inside of them."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(SHAPE)
    distance = np.sqrt((z - 10) ** 2 + (y - 12) ** 2 + (x - 12) ** 2)
    if kind == "shell":
        return np.where((distance > 6.5) & (distance < 9), 200, 0).astype(np.uint8)
    if kind == "nothing":
        return np.zeros(SHAPE, np.uint8)
    corner = (z < rng.integers(3, 20)) & (y < rng.integers(3, 16)) & (x < rng.integers(3, 16))
    return np.where(corner, sheets(SHAPE, seed), 0).astype(np.uint8)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("emptiness")


def results(work, workflow, block, name):
    (work / "w.yaml").write_text(yaml.safe_dump(workflow))
    run = nx47dask.run(
        [work / "scan.zarr"],
        work / name,
        workflow=work / "w.yaml",
        block=block,
        serial=True,
        overwrite=True,
        console=Console(quiet=True),
    )
    paths = ("masks/scan.tif", "metrics/slices.csv", "metrics/volumes.json")
    skipped = sum(stage["skipped"] for stage in run.manifest["stages"].values())
    return [hashlib.sha256((run.path / path).read_bytes()).hexdigest() for path in paths], skipped


@pytest.mark.slow
@settings(max_examples=6)
@given(workflows, st.sampled_from(["shell", "corner", "corner", "nothing"]), st.integers(8, 16), st.integers(0, 99))
def test_results_are_those_without_the_shortcut(work, workflow, kind, block, seed):
    shutil.rmtree(work / "scan.zarr", ignore_errors=True)
    zarr.create_array(work / "scan.zarr", data=masked(seed, kind), chunks=(8, 8, 8))
    short, _ = results(work, workflow, block, "short")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Occupancy, "is_empty", lambda self, box: False)
        long, skipped = results(work, workflow, block, "long")
    assert skipped == 0
    assert short == long


def test_empty_blocks_inside_a_hole_are_filled(work):
    shutil.rmtree(work / "scan.zarr", ignore_errors=True)
    zarr.create_array(work / "scan.zarr", data=masked(0, "shell"), chunks=(8, 8, 8))
    steps = [{"support": {"radius_vox": 0}}, {"threshold": {"value": 0.3}}, "fill_holes"]
    workflow = {"detect": ["residual"], "postprocess": steps}
    one, _ = results(work, workflow, 26, "one")
    many, skipped = results(work, workflow, 4, "many")
    assert one == many
    assert skipped > 100
    assert nx47dask.open_run(work / "many").mask[10, 12, 12].compute()
