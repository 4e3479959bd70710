"""The main job by its command line on a real local cluster."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
import zipfile
from importlib import metadata

import numpy as np
import pytest
import tifffile
from rich.console import Console

import nx47dask
from nx47dask.cli import main
from nx47dask.files.presets import preset_names
from tests.conftest import sheets
from tests.integration.commands import (
    digests,
    events,
    finish,
    launch,
    leftovers,
    records,
    runs_of_tasks,
    write_workflow,
)

SHAPES = {"910000001": (40, 50, 44), "910000002": (31, 48, 30)}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster") / "test_images"
    folder.mkdir()
    for seed, (volume, shape) in enumerate(SHAPES.items()):
        tifffile.imwrite(folder / f"{volume}.tif", sheets(shape, seed), compression="lzw", photometric="minisblack")
    write_workflow(folder.parent)
    return folder


@pytest.fixture(scope="module")
def straight(volumes, tmp_path_factory):
    """Run folder, exit code and output of the default workflow on 2 workers."""
    out = tmp_path_factory.mktemp("straight") / "run"
    return out, finish(launch(*arguments(volumes, out, 24), "--workers", 2))


def arguments(volumes, out, block):
    workflow = volumes.with_name("workflow.yaml")
    return ["run", volumes, "--out", out, "--workflow", workflow, "--block", block]


def run_serially(volumes, out, **options):
    workflow = volumes.with_name("workflow.yaml")
    return nx47dask.run([volumes], out, workflow=workflow, serial=True, console=Console(quiet=True), **options)


def test_output(straight):
    _, (code, stdout, stderr) = straight
    assert code == 0, stderr
    first, *lines = stderr.splitlines()
    assert first.startswith("dashboard http://")
    assert "\x1b" not in stderr
    assert "INFO" not in stderr
    assert "Traceback" not in stderr
    for volume in SHAPES:
        for stage in ("ingest", "detect", "postprocess.1", "measure", "export"):
            assert [line for line in lines if line.split()[:2] == [volume, stage]], (volume, stage)
    assert any("vox/s" in line and "100 %" in line for line in lines)
    assert [line.rsplit("/", 1)[1] for line in stdout.split()] == [
        "masks",
        "submission.zip",
        "volumes.json",
        "report.html",
    ]


def test_run_folder(straight):
    out, _ = straight
    manifest = json.loads((out / "manifest.json").read_text())
    artefacts = manifest["artefacts_sha256"]
    assert {f"masks/{volume}.tif" for volume in SHAPES} | {
        "submission.zip",
        "metrics/slices.csv",
        "metrics/volumes.json",
    } <= artefacts.keys()
    for name, sha256 in artefacts.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == sha256, name
    assert list(manifest["inputs"]) == list(SHAPES)
    assert manifest["approximations"] == []
    for name in ("report.html", "dask-report.html"):
        assert "</html>" in (out / name).read_text().lower()
    assert leftovers(out) == []
    assert not list(out.glob("store/*.zarr/work"))
    assert not list(out.glob("store/*.zarr/summaries"))


def test_masks_and_submission(straight):
    out, _ = straight
    for volume, shape in SHAPES.items():
        with tifffile.TiffFile(out / "masks" / f"{volume}.tif") as tif:
            assert len(tif.pages) == shape[0]
            mask = tif.asarray()
        assert mask.shape == shape
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
    with zipfile.ZipFile(out / "submission.zip") as archive:
        assert archive.namelist() == [f"{volume}.tif" for volume in SHAPES]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        for name in archive.namelist():
            assert archive.read(name) == (out / "masks" / name).read_bytes()


def test_metrics(straight):
    out, _ = straight
    rows = list(csv.DictReader((out / "metrics" / "slices.csv").open()))
    assert [(row["volume"], int(row["z"])) for row in rows] == [(v, z) for v, s in SHAPES.items() for z in range(s[0])]
    known = json.loads((out / "metrics" / "volumes.json").read_text())["volumes"]
    for volume in SHAPES:
        voxels = int((tifffile.imread(out / "masks" / f"{volume}.tif") == 255).sum())
        assert known[volume]["mask"]["voxels"] == voxels > 0
        assert sum(int(row["foreground_vox"]) for row in rows if row["volume"] == volume) == voxels


def test_ledger_and_events(straight):
    out, _ = straight
    recorded = records(out)
    assert {volume for volume, _, _ in recorded} == set(SHAPES)
    assert runs_of_tasks(out) == dict.fromkeys(recorded, 1)
    assert [len(events(out, name)) for name in ("run-started", "run-ended", "task-failed")] == [1, 1, 0]
    workers = {event["worker"] for event in events(out, "task-finished")}
    assert len(workers) == 2, "both workers take part"


def test_same_bytes_however_the_work_is_cut(straight, volumes, tmp_path):
    out, _ = straight
    expected = digests(out)
    for block in (16, 64):
        run = run_serially(volumes, tmp_path / f"serial{block}", block=block)
        assert digests(run.path) == expected, f"--serial, block {block}"
    one = tmp_path / "one"
    code, _, stderr = finish(launch(*arguments(volumes, one, 32), "--workers", 1))
    assert code == 0, stderr
    assert digests(one) == expected
    assert len({event["worker"] for event in events(one, "task-finished")}) == 1


@pytest.mark.parametrize("preset", preset_names())
def test_presets(preset, volumes, tmp_path, capsys):
    results = []
    for block in (24, 64):
        out = tmp_path / str(block)
        arguments = ["run", volumes, "--out", out, "--workflow", preset, "--block", block, "--serial"]
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments)])
        assert end.value.code == 0
        results.append(digests(out))
        assert json.loads((out / "manifest.json").read_text())["workflow"]["name"] == preset
    assert results[0] == results[1]
    assert str(out / "masks") in capsys.readouterr().out


def test_foreground_1(volumes, tmp_path, straight):
    run = run_serially(volumes, tmp_path / "run", foreground=1)
    for volume in SHAPES:
        mask = tifffile.imread(run.path / "masks" / f"{volume}.tif")
        assert np.array_equal(mask * np.uint8(255), tifffile.imread(straight[0] / "masks" / f"{volume}.tif"))


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from nx47dask.cli import main\n"
        "try: main(['run', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'dask', 'distributed', 'zarr', 'numpy', 'scipy'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--resume" in done.stdout
    assert done.stderr.strip() == "[]"


def test_console_script_is_the_module():
    done = subprocess.run([sys.executable, "-m", "nx47dask", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == nx47dask.__version__
    (script,) = metadata.entry_points(group="console_scripts", name="nx47dask")
    assert script.load() is main
