"""``--bbox`` computes a part as if it were cut out of the whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import nx47dask
from nx47dask.geometry import Box
from tests.conftest import sheets

SHAPE = (26, 34, 30)
LOCAL = {
    "detect": [{"residual": {"sigma_base": 1.1}}],
    "postprocess": [
        {"support": {"level": 40, "radius_vox": 2}},
        {"smooth": {"sigma_zyx_vox": [0.4, 0.8, 0.8]}},
        {"smooth_sheet": {"sigma_vox": 1, "window_vox": 1}},
        {"threshold": {"value": 0.5}},
        {"closing": {"radius_zyx_vox": [1, 2, 1]}},
        {"z_coherence": {"window_vox": 1}},
        "plug_pinholes",
        {"patch_holes": {"width_vox": 2, "window_vox": 1}},
        "thicken",
        {"clear_border": {"width_zyx_vox": [1, 2, 3]}},
    ],
}
COMPONENTS = {
    "detect": ["residual"],
    "postprocess": [{"hysteresis": {"low": 0.4, "high": 0.6}}, {"small_objects": {"min_vox": 9}}, "fill_holes"],
}
QUANTILES = {"detect": ["residual"], "postprocess": [{"threshold": {"value": 0.8, "by": "slice"}}]}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bbox")
    tifffile.imwrite(folder / "scan.tif", sheets(SHAPE), photometric="minisblack")
    for name, workflow in {"local": LOCAL, "components": COMPONENTS, "quantiles": QUANTILES}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(workflow))
    return folder


def run(work, out, workflow, block=12, **options):
    """Run folder of a workflow file of ``work``, or of a preset."""
    path = work / f"{workflow}.yaml"
    source = path if path.exists() else workflow
    quiet = Console(quiet=True)
    scan = work / "scan.tif"
    return nx47dask.run([scan], work / out, workflow=source, block=block, serial=True, console=quiet, **options)


def mask_of(done):
    return tifffile.imread(done.path / "masks" / "scan.tif")


@pytest.fixture(scope="module")
def whole(work):
    masks = {name: mask_of(run(work, f"whole-{name}", name)) for name in ("local", "v61.1")}
    assert all(0 < (mask != 0).mean() < 1 for mask in masks.values())
    return masks


spans = [
    st.tuples(st.integers(0, n - 1), st.integers(1, n)).map(lambda s, n=n: (s[0], min(n, s[0] + s[1]))) for n in SHAPE
]
boxes = st.tuples(*spans).map(lambda found: Box(*zip(*found, strict=True)))


@settings(max_examples=12)
@given(box=boxes, workflow=st.sampled_from(["local", "v61.1"]), block=st.sampled_from([9, 16, 40]))
def test_bbox_is_a_crop_of_the_whole(work, whole, box, workflow, block):
    done = run(work, "part", workflow, block, bbox=str(box), overwrite=True)
    assert np.array_equal(mask_of(done).reshape(box.shape), whole[workflow][box.slices])
    rows = [(row["volume"], row["z"]) for row in done.metrics]
    assert rows == [("scan", z) for z in range(box.start[0], box.stop[0])], "slices are numbered as in the volume"
    assert json.loads((done.path / "manifest.json").read_text())["approximations"] == []
    assert np.array_equal(np.asarray(done.mask).astype(bool), whole[workflow][box.slices] != 0)
    assert np.array_equal(np.asarray(done.image), sheets(SHAPE)[box.slices])


@pytest.mark.parametrize(
    ("workflow", "named"),
    [("components", ("hysteresis", "small_objects", "fill_holes")), ("quantiles", ("quantiles",))],
)
def test_manifest_names_what_is_approximate(work, workflow, named):
    done = run(work, workflow, workflow, bbox="4:20,6:30,5:25")
    notes = json.loads((done.path / "manifest.json").read_text())["approximations"]
    assert all(any(word in note for note in notes) for word in named), notes
    assert all(note.startswith("--bbox") for note in notes)
    assert not (done.path / "submission.zip").exists(), "a part is no submission"
    everything = ",".join(f"0:{n}" for n in SHAPE)
    done = run(work, f"{workflow}-all", workflow, bbox=everything)
    assert json.loads((done.path / "manifest.json").read_text())["approximations"] == []
    assert (done.path / "submission.zip").exists()
