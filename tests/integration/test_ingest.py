"""``nx47dask ingest``: TIFF to OME-Zarr, and a run that starts from it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import zarr

from tests.integration.commands import command


@pytest.mark.parametrize(("version", "marker"), [("0.5", "zarr.json"), ("0.4", ".zattrs")])
def test_a_tiff_becomes_an_ome_zarr_with_the_same_voxels(tmp_path, make_tiff, capsys, version, marker):
    scan = make_tiff((20, 34, 30), name="a.tif")
    assert command("ingest", scan, "--out", tmp_path / "z", "--serial", "--block", 16, "--ome-version", version) == 0
    image = tifffile.imread(scan)
    assert f"mean {image.mean():.2f}" in capsys.readouterr().out
    store = tmp_path / "z" / "a.zarr"
    assert np.array_equal(zarr.open_array(store / "0")[:], image)
    attributes = json.loads((store / marker).read_text())
    multiscales = attributes["attributes"]["ome"] if version == "0.5" else attributes["multiscales"][0]
    assert multiscales["version"] == version
    assert [path.name for path in (tmp_path / "z").iterdir()] == ["a.zarr"]


def test_a_run_from_the_zarr_equals_one_from_the_tiff(tmp_path, make_tiff):
    scan = make_tiff((20, 34, 30), name="a.tif")
    assert command("ingest", scan, "--out", tmp_path / "z", "--serial") == 0
    for name, source in (("tiff", scan), ("zarr", tmp_path / "z" / "a.zarr")):
        assert command("run", source, "--out", tmp_path / name, "--workflow", "v61.1", "--serial") == 0
    masks = [(tmp_path / name / "masks" / "a.tif").read_bytes() for name in ("tiff", "zarr")]
    assert masks[0] == masks[1]


def test_an_existing_zarr_is_not_overwritten(tmp_path, make_tiff, capsys):
    scan = make_tiff((8, 12, 10), name="a.tif")
    (tmp_path / "z" / "a.zarr").mkdir(parents=True)
    assert command("ingest", scan, "--out", tmp_path / "z", "--serial") == 2
    assert "a.zarr: is there already" in capsys.readouterr().err
