"""Runs on a machine with little disk and little time: bounded stores, a time limit, the zip where it is looked for."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
import tifffile
from nbclient import NotebookClient
from PIL import Image, ImageSequence
from rich.console import Console

import nx47dask
from nx47dask.cli import main_job
from nx47dask.commands import run as run_module
from nx47dask.engine import Ledger
from nx47dask.engine.deadline import Deadline
from nx47dask.errors import InputError, RunStoppedError
from nx47dask.io import submission
from nx47dask.planning.projection import project
from tests.integration.commands import command, leftovers

NOTEBOOK = Path(__file__).resolve().parents[2] / "workflows" / "kaggle" / "submission.ipynb"
WORKFLOW = """\
detect:
  - residual: {sigma_base: 1.3}
postprocess:
  - hysteresis: {low: 0.55, high: 0.7}
"""
SHAPE = (24, 48, 44)
IDS = [f"91000000{n}" for n in range(1, 5)]


@pytest.fixture
def images(make_tiff, tmp_path):
    """Folder of four small scans."""
    for seed, name in enumerate(IDS):
        make_tiff(SHAPE, seed, f"{name}.tif")
    return tmp_path / "in"


@pytest.fixture
def run(tmp_path):
    """Run the small workflow; ``bounded=True`` is what the profile asks for."""
    workflow = tmp_path / "workflow.yaml"
    workflow.write_text(WORKFLOW)

    def run(inputs, out="run", *, bounded=False, **options):
        if bounded:
            options = {"delete_stores": True, "submission": tmp_path / "submission.zip", **options}
        options = {"workflow": workflow, "serial": True, "console": Console(quiet=True), **options}
        return nx47dask.run([inputs], tmp_path / out, **options)

    return run


def masks_of(path):
    """Masks of a zip as Pillow reads them."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {
            name.removesuffix(".tif"): np.stack(
                [np.asarray(page) for page in ImageSequence.Iterator(Image.open(io.BytesIO(archive.read(name))))]
            )
            for name in archive.namelist()
        }


def stop_after(monkeypatch, asked):
    """Let time be over when the deadline was asked so often."""
    ticks = itertools.count()
    make = lambda limit_s, closing_s: Deadline(asked + 1, 0, clock=lambda: next(ticks))  # noqa: E731
    monkeypatch.setattr(run_module, "Deadline", make)
    monkeypatch.setattr(Deadline, "task_finished", lambda *arguments, **named: None)


def peak_bytes(monkeypatch):
    """Most bytes under the run folder when a task is recorded."""
    peak = [0]
    append = Ledger.append

    def measured(ledger, volume, record):
        append(ledger, volume, record)
        files = [path for path in ledger.folder.parent.rglob("*") if path.is_file()]
        peak[0] = max(peak[0], sum(path.stat().st_size for path in files))

    monkeypatch.setattr(Ledger, "append", measured)
    return peak


def test_stores_go_and_all_else_is_the_same(run, images, tmp_path):
    plain, bounded = run(images, "plain"), run(images, "bounded", bounded=True)
    assert (tmp_path / "submission.zip").read_bytes() == (plain.path / "submission.zip").read_bytes()
    for name in ("submission.zip", "metrics/slices.csv", "metrics/volumes.json"):
        assert (bounded.path / name).read_bytes() == (plain.path / name).read_bytes()
    assert bounded.manifest["artefacts_sha256"] == plain.manifest["artefacts_sha256"]
    assert bounded.manifest["submission"]["unfinished"] == []
    assert (bounded.path / "report.html").is_file()
    left = sorted(str(path.relative_to(bounded.path)) for path in (bounded.path / "store").rglob("*") if path.is_file())
    assert left == [f"store/{name}.zarr/slices.csv" for name in IDS]
    for name in ("image", "mask"):
        np.testing.assert_array_equal(getattr(bounded[IDS[0]], name), getattr(plain[IDS[0]], name))
    with pytest.raises(InputError, match=f"the store of volume {IDS[0]} was moved or deleted"):
        _ = bounded[IDS[0]].probability


def test_the_disk_holds_few_stores_at_a_time(run, images, make_tiff, tmp_path, monkeypatch):
    peak = peak_bytes(monkeypatch)
    for seed in (0, 1):
        make_tiff(SHAPE, seed, f"{IDS[seed]}.tif", folder=tmp_path / "pair")
    run(tmp_path / "pair", "two")
    of_two, peak[0] = peak[0], 0
    run(images, "four", bounded=True)
    assert 0 < peak[0] < of_two


@pytest.mark.parametrize("option", [True, False])
def test_resuming_does_not_bring_deleted_stores_back(run, images, tmp_path, option):
    first = run(images, bounded=True)
    before = {path: path.read_bytes() for path in (first.path / "masks").iterdir()}
    (first.path / "masks" / f"{IDS[2]}.tif").unlink()
    again = run(images, resume=True, delete_stores=option)
    assert {path: path.read_bytes() for path in (again.path / "masks").iterdir()} == before
    assert sum(stage["tasks"] for stage in again.manifest["stages"].values()) > 0
    assert [path.name for path in (again.path / "store").rglob("*") if path.is_file()] == ["slices.csv"] * 4


@pytest.mark.parametrize("member", [0, 2])
def test_a_kill_while_the_zip_is_written_leaves_no_half_zip(run, images, tmp_path, monkeypatch, member):
    whole = run(images, "plain").path / "submission.zip"
    add, added = submission._add, []

    def killed(archive, name, path):
        added.append(name)
        if len(added) > member:
            raise KeyboardInterrupt
        add(archive, name, path)

    monkeypatch.setattr(submission, "_add", killed)
    with pytest.raises(KeyboardInterrupt):
        run(images, bounded=True)
    assert not (tmp_path / "submission.zip").exists()
    assert not (tmp_path / "run" / "submission.zip").exists()
    monkeypatch.setattr(submission, "_add", add)
    again = run(images, bounded=True, resume=True)
    assert (tmp_path / "submission.zip").read_bytes() == whole.read_bytes()
    assert sum(stage["tasks"] for stage in again.manifest["stages"].values()) == 0


def test_no_time_at_all(run, images, tmp_path, caplog):
    with pytest.raises(RunStoppedError, match=r"4 of 4 volumes are not finished; go on with --resume"):
        run(images, bounded=True, time_limit_s=0)
    masks = masks_of(tmp_path / "submission.zip")
    found = {name: (mask.shape, mask.dtype.name, bool(mask.any())) for name, mask in masks.items()}
    assert found == dict.fromkeys(IDS, (SHAPE, "uint8", False))
    assert f"an empty mask in submission.zip: {', '.join(IDS)}" in caplog.text
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["submission"]["unfinished"] == IDS
    assert manifest["inputs"] == {}


def test_time_ends_part_way_and_the_rest_is_done_later(run, images, tmp_path, monkeypatch):
    whole = masks_of(run(images, "plain").path / "submission.zip")
    tasks = len((tmp_path / "plain" / "ledger" / f"{IDS[0]}.jsonl").read_text().splitlines())
    with monkeypatch.context() as patched:
        stop_after(patched, 2 * tasks + 3)
        with pytest.raises(RunStoppedError, match="2 of 4 volumes"):
            run(images, bounded=True, time_limit_s=1)
    stopped = nx47dask.open_run(tmp_path / "run")
    assert stopped.manifest["submission"]["unfinished"] == IDS[2:]
    assert stopped.volumes == list(stopped.volume_metrics) == IDS[:2]
    assert {row["volume"] for row in stopped.metrics} == set(IDS[:2])
    masks = masks_of(tmp_path / "submission.zip")
    for name in IDS:
        np.testing.assert_array_equal(masks[name], whole[name] if name in IDS[:2] else np.zeros(SHAPE))
    assert leftovers(tmp_path) == []
    again = run(images, bounded=True, resume=True)
    assert again.manifest["submission"]["unfinished"] == []
    assert sum(stage["resumed"] for stage in again.manifest["stages"].values()) == 2 * tasks + 3
    for zipped in (tmp_path / "submission.zip", again.path / "submission.zip"):
        assert zipped.read_bytes() == (tmp_path / "plain" / "submission.zip").read_bytes()


def test_a_limit_takes_nothing_from_a_run_that_had_ended(run, images, tmp_path):
    run(images, bounded=True)
    before = (tmp_path / "submission.zip").read_bytes()
    again = run(images, bounded=True, resume=True, time_limit_s=0)
    assert again.manifest["submission"]["unfinished"] == []
    assert (tmp_path / "submission.zip").read_bytes() == before


def test_a_real_clock_on_a_cluster(run, images, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "CLOSING_S", 0.0)
    for copy in range(30):
        shutil.copy(images / f"{IDS[0]}.tif", images / f"{copy}.tif")
    start = time.monotonic()
    with pytest.raises(RunStoppedError, match="of 34 volumes are not finished"):
        run(images, bounded=True, serial=False, workers=1, time_limit_s=2)
    assert time.monotonic() - start < 12
    masks = masks_of(tmp_path / "submission.zip")
    assert len(masks) == 34
    assert {mask.shape for mask in masks.values()} == {SHAPE}


def test_a_damaged_volume_does_not_cost_the_others_their_place(run, images, tmp_path):
    path = images / f"{IDS[1]}.tif"
    with tifffile.TiffFile(path) as tif:
        start, count = tif.pages[3].dataoffsets[0], tif.pages[3].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + count] = b"\xff" * count
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{IDS[1]}.*cannot be read"):
        run(images, bounded=True, time_limit_s=1000)
    assert {name for name, mask in masks_of(tmp_path / "submission.zip").items() if not mask.any()} == {IDS[1]}
    with pytest.raises(InputError, match="cannot be read"):
        run(images, "strict")
    assert not (tmp_path / "strict" / "submission.zip").exists(), "without a limit nothing is made up"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--profile", "kagle"], "--profile kagle: known is kaggle"),
        (["--time-limit", "soon"], "time limit 'soon': expected"),
        (["--submission", "absent/submission.zip"], "there is no folder absent"),
        (["--submission", "submission.zip", "--bbox", "0:4,:,:"], "leave out --bbox 0:4"),
    ],
)
def test_refused_before_anything_is_done(images, tmp_path, capsys, options, message):
    assert command("run", images, "--out", tmp_path / "run", "--serial", *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (None, False, float("inf"))),
        (["--profile", "kaggle"], (Path("/kaggle/working/submission.zip"), True, 30600.0)),
        (
            ["--profile", "kaggle", "--submission", "s.zip", "--keep-stores", "--time-limit", "90"],
            (Path("s.zip"), False, 90.0),
        ),
        (["--delete-stores", "--time-limit", "1h"], (None, True, 3600.0)),
    ],
)
def test_the_profile_gives_defaults(monkeypatch, tmp_path, options, expected):
    given = {}

    def remember(inputs, out, **arguments):
        given.update(arguments)
        return nx47dask.runs.run.Run(tmp_path)

    monkeypatch.setattr(run_module, "run", remember)
    assert command("run", tmp_path, "--out", tmp_path, *options) == 0
    assert (given["submission"], given["delete_stores"], given["time_limit_s"]) == expected


def test_the_plan_counts_the_stores_that_are_there_at_a_time(images, tmp_path, monkeypatch):
    """Of four equal volumes each store less saves as much; masks and zip stay."""
    whole = project(nx47dask.plan([images], tmp_path / "run", workflow="fast")).disk_bytes
    bounded = nx47dask.plan([images], tmp_path / "run", workflow="fast", delete_stores=True)
    sizes = {}
    for count in (2, 3):
        monkeypatch.setattr("nx47dask.planning.plan.VOLUMES_ON_DISK", count)
        assert bounded.most_volumes == count
        sizes[count] = project(bounded).disk_bytes
    assert whole - sizes[3] == sizes[3] - sizes[2] > whole / 5


def test_profiles_are_named_in_the_help():
    shown = main_job.ProfileName.__metadata__[0].help
    kaggle = main_job.PROFILES["kaggle"]
    assert shown == (
        f"kaggle: --submission {kaggle['submission']} --delete-stores --time-limit {kaggle['time_limit']}."
    )


def test_the_notebook_makes_a_submission(images, tmp_path, monkeypatch):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    for name in IDS[2:]:
        (images / f"{name}.tif").unlink()
    monkeypatch.setenv("NX47DASK_IMAGES", str(images))
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # with it, a kernel does not show what the commands print
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    assert set(masks_of(tmp_path / "submission.zip")) == set(IDS[:2])
    assert "<iframe srcdoc=" in cells[-1].outputs[0]["data"]["text/html"]
    assert f"2 volumes in {images}" in str(cells[2].outputs)
    assert "export       100 %" in str(cells[3].outputs)
    assert "\x1b" not in str(cells[3].outputs), "no live display"
    assert "valid: 2 masks" in str(cells[4].outputs)
