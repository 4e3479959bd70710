"""The main job on the data beside the project: real CT and simulated scrolls."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from rich.console import Console

import nx47dask

QUIET = Console(quiet=True)


@pytest.mark.shared
def test_v61_1_is_the_frozen_baseline_bit_for_bit(shared, tmp_path):
    golden = shared / "golden" / "v61.1"
    inputs = [shared / "data" / "simscroll" / "train_images", shared / "data" / "real" / "ct128" / "ct.tif"]
    run = nx47dask.run(inputs, tmp_path / "run", workflow="v61.1", workers=2, console=QUIET)
    assert len(run.volumes) == 5
    for volume in run.volumes:
        mask = tifffile.imread(run.path / "masks" / f"{volume}.tif")
        expected = tifffile.imread(golden / ("ct128.tif" if volume == "ct" else f"{volume}.tif"))
        assert np.array_equal(mask, expected), volume


@pytest.mark.shared
@pytest.mark.parametrize("preset", ["surface", "v61.2", "fast"])
def test_presets_find_sheets_in_real_ct(shared, tmp_path, preset):
    """The mask is sparse, and no rarer around the segmented sheet than elsewhere."""
    folder = shared / "data" / "real" / "ct128"
    run = nx47dask.run([folder / "ct.tif"], tmp_path / "run", workflow=preset, serial=True, console=QUIET)
    mask = tifffile.imread(run.path / "masks" / "ct.tif") > 0
    band = tifffile.imread(folder / "segment_band.tif") > 0
    assert 0.04 < mask.mean() < 0.25
    assert mask[band].mean() > 0.8 * mask.mean()


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("preset", ["surface", "v61.1", "v61.2", "fast"])
def test_no_cut_changes_a_byte(shared, tmp_path, preset):
    inputs = [shared / "data" / "simscroll" / "train_images" / "910000101.tif", shared / "data" / "real" / "ct100"]
    artefacts = []
    cuts = [{"block": block, "workers": 2} for block in (64, 96, 128, 160, 512)]
    cuts += [{"block": 96, "workers": 1}, {"block": 96, "serial": True}]
    for cut in cuts:
        run = nx47dask.run(inputs, tmp_path / "run", workflow=preset, overwrite=True, console=QUIET, **cut)
        artefacts.append(run.manifest["artefacts_sha256"])
    assert all(one == artefacts[0] for one in artefacts)
