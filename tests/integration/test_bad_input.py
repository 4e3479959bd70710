"""What a user gets for input, options and disks that cannot be used: one clear message and the right exit code."""

from __future__ import annotations

import gc
import json
import shutil
import signal
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import zarr

from nx47dask.cli import main
from nx47dask.workflow import load_workflow
from tests.conftest import sheets
from tests.integration import reference
from tests.integration.commands import digests, leftovers, write_workflow


@pytest.fixture
def command(capsys, tmp_path):
    """Run the command line in this process; gives the exit code, and what it printed."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments)])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=end.value.code, out=out, err=err)

    run.workflow = write_workflow(tmp_path)
    yield run
    signal.signal(signal.SIGTERM, before)


def serial(command, source, out, *options):
    sources = source if isinstance(source, list) else [source]
    return command("run", *sources, "--out", out, "--serial", "--workflow", command.workflow, *options)


def assert_refused(done, *texts):
    """Exit code 2 and one message without a traceback, perhaps a hint, which name everything they should."""
    assert done.code == 2
    assert done.out == ""
    assert [line.partition(": ")[0] for line in done.err.splitlines()] in (["error"], ["error", "hint"])
    assert "Traceback" not in done.err
    for text in texts:
        assert str(text) in done.err, done.err


def last_words(done):
    """The error and its hint, the last two lines of all that a command says."""
    error, hint = done.err.splitlines()[-2:]
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    return error, hint


def tiff(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, **{"photometric": "minisblack", "compression": "lzw", **options})
    return path


def zarr_scan(path, image, chunk=8):
    zarr.create_array(path, data=image, chunks=(chunk,) * 3, fill_value=0)
    return path


def truncated(path):
    tiff(path, sheets((12, 30, 30)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("no image at all")


def rgb(path):
    tiff(path, np.zeros((4, 20, 20, 3), np.uint8), photometric="rgb")


def unequal_pages(path):
    with tifffile.TiffWriter(path) as writer:
        for height in (20, 20, 21):
            writer.write(np.zeros((height, 20), np.uint8), photometric="minisblack", metadata=None)


def flat(path):
    tiff(path, sheets((1, 20, 20))[0], metadata=None)


def floats(path):
    image = sheets((4, 20, 20)).astype(np.float32)
    image[1, 2, 3] = np.nan
    tiff(path, image)


def bools(path):
    tiff(path, sheets((4, 20, 20)) > 100, compression=None)


def missing(path):
    assert not path.exists()


BAD_TIFFS = {
    truncated: ("truncated", "bytes"),
    empty: ("0 bytes",),
    text: ("not a TIFF", "15 bytes"),
    rgb: ("3 samples", "convert"),
    unequal_pages: ("page 2", "(21, 20)", "(20, 20)"),
    flat: ("2-D", "(20, 20)", "3 axes"),
    floats: ("float32", "uint8 or uint16", "convert"),
    bools: ("bool", "uint8", "convert"),
    missing: ("no such file",),
}


@pytest.mark.parametrize("make", BAD_TIFFS, ids=lambda make: make.__name__)
def test_bad_tiff(make, tmp_path, command):
    path = tmp_path / "in" / "scan.tif"
    path.parent.mkdir()
    make(path)
    out = tmp_path / "run"
    assert_refused(serial(command, path, out), path, *BAD_TIFFS[make])
    assert not out.exists()


def test_one_bad_volume_of_a_folder_is_found_before_work_begins(tmp_path, command):
    tiff(tmp_path / "in" / "good.tif", sheets((4, 20, 20)))
    truncated(tmp_path / "in" / "half.tif")
    assert_refused(serial(command, tmp_path / "in", tmp_path / "run"), tmp_path / "in" / "half.tif")
    assert not (tmp_path / "run").exists()


def test_two_inputs_with_one_id(tmp_path, command):
    first = tiff(tmp_path / "a" / "scan.tif", sheets((4, 20, 20)))
    second = tiff(tmp_path / "b" / "scan.tif", sheets((4, 20, 20), 1))
    assert_refused(serial(command, [first, second], tmp_path / "run"), "scan", first, second, "rename")


def test_traceback_with_debug_only(tmp_path, command):
    arguments = ("run", tmp_path / "none.tif", "--out", tmp_path / "run")
    assert "Traceback" not in command(*arguments).err
    done = command("--debug", *arguments)
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("shape", "block"),
    [((1, 30, 30), 16), ((9, 1, 40), 16), ((9, 40, 1), 16), ((1, 1, 1), 16), ((17, 33, 21), 16), ((3, 5, 4), 64)],
)
def test_odd_shapes_succeed(shape, block, tmp_path, command):
    source = zarr_scan(tmp_path / "scan.zarr", sheets(shape))
    done = serial(command, source, tmp_path / "run", "--block", block)
    assert done.code == 0, done.err
    mask = tifffile.imread(tmp_path / "run" / "masks" / "scan.tif").reshape(shape)
    assert np.array_equal(mask, reference.run(sheets(shape), load_workflow(command.workflow)) * np.uint8(255))


@pytest.mark.parametrize("value", [0, 77, 65535])
@pytest.mark.parametrize("preset", ["v61.1", "v61.2"])
def test_constant_volume_succeeds(value, preset, tmp_path, command):
    source = tiff(tmp_path / "in" / "scan.tif", np.full((12, 20, 20), value, np.uint16))
    done = serial(command, source, tmp_path / "run", "--block", 8, "--workflow", preset)
    assert done.code == 0, done.err
    assert tifffile.imread(tmp_path / "run" / "masks" / "scan.tif").shape == (12, 20, 20)


@pytest.mark.parametrize("out", ["in", "in/run", "."])
def test_output_and_input_inside_one_another(out, tmp_path, command):
    source = tiff(tmp_path / "in" / "scan.tif", sheets((4, 20, 20))).parent
    before = sorted(tmp_path.rglob("*"))
    for options in ((), ("--overwrite",)):
        assert_refused(serial(command, source, tmp_path / out, *options), source, tmp_path / out, "--out")
    assert sorted(tmp_path.rglob("*")) == before


def test_output_under_a_file(tmp_path, command):
    source = tiff(tmp_path / "in" / "scan.tif", sheets((4, 20, 20)))
    (tmp_path / "file").write_bytes(b"")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert_refused(serial(command, source, out), out, "choose another")


OPTIONS = {
    ("--block", "0"): "block",
    ("--block", "-8"): "block",
    ("--bbox", "0:9,0:9"): "0:9,0:9",
    ("--bbox", "0:5,0:20,0:20"): "0:4",
    ("--bbox", "2:2,0:20,0:20"): "2:2",
    ("--foreground", "256"): "256",
    ("--level", "1"): "level",
    ("--workflow", "v99"): "v61.1",
    ("--cluster", "none.yaml"): "none.yaml",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_bad_options(options, tmp_path, command):
    source = tiff(tmp_path / "in" / "scan.tif", sheets((4, 20, 20)))
    arguments = ["run", source, "--out", tmp_path / "run", *options]
    assert_refused(command(*arguments, *(() if "--cluster" in options else ("--serial",))), OPTIONS[options])
    assert not (tmp_path / "run").exists()


WORKFLOWS = {
    "detect: [residual]\npostprocess:\n- hysteresis:\n    low: 0.4\n    hihg: 0.6\n": (
        5,
        "hihg",
        "did you mean 'high'?",
    ),
    "detect: [residual]\npostprocess:\n- hysteresys: {}\n": (3, "hysteresys", "did you mean 'hysteresis'?"),
    "detect: [residual]\nposprocess: []\n": (2, "posprocess", "did you mean 'postprocess'?"),
    "detect: [residual]\npostprocess:\n- small_objects: {min_vox: many}\n": (3, "small_objects.min_vox", "'many'"),
    "detect: [residual]\npostprocess:\n- small_objects: {min_vox: -4}\n": (3, "small_objects.min_vox", "-4"),
    "detect: [residual]\npostprocess:\n- threshold: {value: 0.5}\n- closing: {shape: ball}\n": (
        4,
        "shape",
        "'ellipsoid'",
    ),
    "detect: [residual]\npostprocess: threshold\n": (2, "postprocess", "'threshold'"),
}


@pytest.mark.parametrize("content", WORKFLOWS)
def test_bad_workflow(content, tmp_path, command):
    source = tiff(tmp_path / "in" / "scan.tif", sheets((4, 20, 20)))
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    line, *texts = WORKFLOWS[content]
    done = serial(command, source, tmp_path / "run", "--workflow", path)
    assert_refused(done, f"{path}, line {line}:", *texts)
    assert not (tmp_path / "run").exists()


def test_workflow_that_is_no_yaml(tmp_path, command):
    path = tmp_path / "mine.yaml"
    path.write_text("detect: [residual\n")
    source = tiff(tmp_path / "in" / "scan.tif", sheets((4, 20, 20)))
    done = serial(command, source, tmp_path / "run", "--workflow", path)
    assert done.code == 2
    assert f"{path}: not a YAML file" in done.err
    assert "line 2" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("override", "texts"),
    [
        ("postprocess.threshold.value=high", ("threshold.value", "'high'")),
        ("postprocess.threshold.valeu=0.5", ("valeu", "did you mean 'value'?")),
        ("postprocess.treshold.value=0.5", ("treshold", "did you mean 'threshold'?")),
        ("threshold=0.5", ("SECTION.ITEM.KEY=VALUE",)),
        ("postprocess.threshold.value", ("SECTION.ITEM.KEY=VALUE",)),
    ],
)
def test_bad_override(override, texts, tmp_path, command):
    source = tiff(tmp_path / "in" / "scan.tif", sheets((4, 20, 20)))
    done = serial(command, source, tmp_path / "run", "--workflow", "v61.1", "--set", override)
    assert_refused(done, f"override {override}", "--set", *texts)


def test_corrupt_chunk_stops_and_resumes(tmp_path, command):
    image = sheets((16, 16, 16))
    good = zarr_scan(tmp_path / "good.zarr", image)
    bad = tmp_path / "bad.zarr"
    shutil.copytree(good, bad)
    chunk = bad / "c" / "1" / "1" / "0"
    content = chunk.read_bytes()
    chunk.write_bytes(b"\x00" * len(content))
    out = tmp_path / "run"
    done = serial(command, [bad, good], out, "--block", 8)
    assert done.code == 3
    message, hint = last_words(done)
    assert message.startswith("error: bad, ingest, block ")
    assert "[8:16,8:16,0:8]" in message
    assert str(bad) in message
    assert "--resume" in hint
    assert "Traceback" not in done.err
    assert (out / "masks" / "good.tif").is_file(), "other volumes go on"
    assert not (out / "masks" / "bad.tif").exists()
    assert not (out / "submission.zip").exists()
    assert serial(command, [bad, good], out, "--block", 8, "--resume").code == 3
    chunk.write_bytes(content)
    done = serial(command, [bad, good], out, "--block", 8, "--resume")
    assert done.code == 0, done.err
    masks = digests(out)
    assert masks["bad.tif"] == masks["good.tif"]


def test_both_volumes_stop(tmp_path, command):
    sources = [zarr_scan(tmp_path / f"{name}.zarr", sheets((8, 8, 8))) for name in "ab"]
    for source in sources:
        (source / "c" / "0" / "0" / "0").write_bytes(b"\x00" * 9)
    done = serial(command, sources, tmp_path / "run")
    assert done.code == 3
    assert "2 of 2 volumes stopped" in done.err
    assert "--resume" in done.err
    for source in sources:
        assert str(source) in done.err.split("\nerror: ")[1]


def test_missing_chunk_reads_as_fill_value_and_is_reported(tmp_path, command):
    whole = zarr_scan(tmp_path / "whole" / "scan.zarr", sheets((8, 16, 16)))
    holey = zarr_scan(tmp_path / "holey" / "scan.zarr", sheets((8, 16, 16)))
    (holey / "c" / "0" / "1" / "0").unlink()
    image = sheets((8, 16, 16))
    image[:, 8:, :8] = 0
    filled = zarr_scan(tmp_path / "filled" / "scan.zarr", image)
    for source in (whole, holey, filled):
        assert serial(command, source, tmp_path / f"run-{source.parent.name}", "--block", 8).code == 0
    assert digests(tmp_path / "run-holey") == digests(tmp_path / "run-filled")
    for name, absent in (("whole", 0), ("holey", 1)):
        facts = json.loads((tmp_path / f"run-{name}" / "manifest.json").read_text())["inputs"]["scan"]
        assert (facts["absent_chunks"], facts["chunks"]) == (absent, 4)
        report = (tmp_path / f"run-{name}" / "report.html").read_text()
        assert ("1 of 4 chunk files of the input are absent" in report) == bool(absent)


@pytest.fixture
def small_disk(tmp_path):
    """Mount a small disk; skipped where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")

    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs")
    yield folder, lambda options: mount("-o", f"remount,{options}")
    gc.collect()  # what a traceback still holds keeps the disk busy
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def filled_by_others(monkeypatch):
    """The disk had room when the run began."""
    monkeypatch.setattr("nx47dask.commands.run.require_disk", lambda planned, projection: None)


def test_full_disk_stops_and_resumes(small_disk, filled_by_others, tmp_path, command):
    disk, remount = small_disk
    image = np.random.default_rng(3).integers(1, 255, (48, 64, 64), dtype=np.uint8)
    source = tiff(tmp_path / "in" / "scan.tif", image)
    out, options = disk / "run", ("--block", 24, "--set", "postprocess.threshold.value=0.3", "--workflow")
    workflow = tmp_path / "mine.yaml"
    workflow.write_text("detect: [{residual: {sigma_base: 0.7}}]\npostprocess: [threshold]\n")
    filler = disk / "filler"
    filler.write_bytes(b"\xff" * (700 << 10))
    done = serial(command, source, out, *options, workflow)
    assert done.code == 3
    message, hint = last_words(done)
    assert str(out) in message
    assert "No space left" in message
    assert "bytes free" in message
    assert "resume" in hint
    assert "Traceback" not in done.err
    assert not (out / "masks" / "scan.tif").exists()
    assert not (out / "manifest.json").exists()
    assert leftovers(out) == []
    remount("size=32m")
    done = serial(command, source, out, *options, workflow, "--resume")
    assert done.code == 0, done.err
    assert serial(command, source, tmp_path / "straight", *options, workflow).code == 0
    assert digests(out) == digests(tmp_path / "straight")


@pytest.mark.parametrize("free_kib", [4, 150])
def test_disk_full_at_any_moment(free_kib, small_disk, filled_by_others, tmp_path, command):
    disk, remount = small_disk
    source = tiff(tmp_path / "in" / "scan.tif", sheets((32, 40, 32)))
    filler = disk / "filler"
    filler.write_bytes(b"\xff" * (((1 << 10) - free_kib) << 10))
    done = serial(command, source, disk / "run", "--block", 16)
    assert done.code == 3, done.err
    assert "No space left" in last_words(done)[0]
    assert "Traceback" not in done.err
    remount("size=32m")
    done = serial(command, source, disk / "run", "--block", 16, "--resume")
    if done.code == 2:  # it stopped before the run folder was taken
        assert "nothing to resume" in done.err
        done = serial(command, source, disk / "run", "--block", 16)
    assert done.code == 0, done.err
    assert serial(command, source, tmp_path / "straight", "--block", 16).code == 0
    assert digests(disk / "run") == digests(tmp_path / "straight")


def test_read_only_disk(small_disk, tmp_path, command):
    disk, remount = small_disk
    source = tiff(tmp_path / "in" / "scan.tif", sheets((4, 20, 20)))
    remount("ro")
    assert_refused(serial(command, source, disk / "run"), disk / "run", "Read-only")
