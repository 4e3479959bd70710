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
from tests.strategies import steps

workflows = st.builds(
    lambda band, smoothing, mask, after: {
        "detect": ["residual_band" if band and not smoothing else {"residual": {"sigma_base": 1.3, "gain": 1.0}}],
        "postprocess": [*smoothing, mask, *after],
    },
    st.booleans(),
    st.lists(steps("probability", "probability"), max_size=3),
    steps("probability", "mask"),
    st.lists(steps("mask", "mask"), max_size=4),
)
shapes = st.tuples(st.integers(1, 20), st.integers(1, 26), st.integers(1, 24))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("invariance")


@settings(max_examples=30)
@given(workflows, shapes, st.integers(3, 30), st.integers(0, 9))
def test_any_cut_equals_the_whole_volume(work, workflow, shape, block, seed):
    check_any_cut(work, workflow, shape, block, seed)


def check_any_cut(work, workflow, shape, block, seed):
    """A workflow on a volume, block by block, gives the masks and measures of the whole volume."""
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
