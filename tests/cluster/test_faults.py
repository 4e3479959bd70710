"""A block that always fails, one that takes all memory, a damaged chunk: the rest is done, and resumed."""

from __future__ import annotations

import json

import pytest
import zarr

from tests.cluster.by_hand import ClusterByHand
from tests.conftest import sheets
from tests.integration.commands import command, digests, events, records, straight_run, write_workflow

BLOCK = 16
SHAPE = (32, 48, 48)

FAULT = """
import pathlib, time
import numpy as np
from nx47dask.engine import worker

FOLDER = pathlib.Path({folder!r})

def faulty(function, arguments, place, versions=None, run=worker.run_task):
    if ", detect, block 5 " in place:
        if (FOLDER / "raise").exists():
            return run(fail, (), place, versions)
        hoard = []
        while (FOLDER / "hoard").exists():
            hoard.append(np.ones(16 << 20, np.uint8))
            time.sleep(0.01)
    return run(function, arguments, place, versions)

def fail():
    raise ZeroDivisionError("a fault of this block")

if worker.run_task.__name__ != "faulty":
    worker.run_task = faulty
"""
"""Preloaded by workers: block 5 of detection fails, or takes all memory, while a file is there."""


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """Where files switch faults on."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, faults):
    folder = tmp_path_factory.mktemp("cluster")
    preload = folder / "faulty.py"
    preload.write_text(FAULT.format(folder=str(faults)))
    with ClusterByHand(folder, 2, ("--preload", preload, "--memory-limit", "900MiB"), nanny=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Two volumes, as Zarr with chunks of a block."""
    folder = tmp_path_factory.mktemp("scans")
    write_workflow(folder)
    for seed, name in enumerate(("first", "second")):
        array = zarr.create_array(str(folder / f"{name}.zarr"), data=sheets(SHAPE, seed), chunks=(BLOCK,) * 3)
        assert array.shape == SHAPE
    return folder


def arguments(scans, out, *options):
    inputs = [scans / "first.zarr", scans / "second.zarr"]
    return ["run", *inputs, "--out", out, "--workflow", scans / "workflow.yaml", "--block", BLOCK, *options]


@pytest.fixture(scope="module")
def expected(scans, tmp_path_factory):
    inputs = [scans / "first.zarr", scans / "second.zarr"]
    return straight_run(inputs, tmp_path_factory.mktemp("straight") / "run", BLOCK)


def quarantined(out):
    manifest = json.loads((out / "manifest.json").read_text())
    return sorted((one["volume"], one["stage"], one["number"]) for one in manifest["failures"])


def assert_resumed(arguments, out, expected, blocks):
    """Exactly the quarantined blocks are left of their stage."""
    before = set(records(out))
    missing = {key for key in expected[1] if key[:2] in {block[:2] for block in blocks}} - before
    assert missing == set(blocks)
    assert command(*arguments, "--resume") == 0
    assert digests(out) == expected[0]
    assert quarantined(out) == []
    finished = [(e["volume"], e["stage"], e["number"]) for e in events(out, "task-finished")]
    assert len(finished) == len(set(finished)), "nothing is done twice"


def test_a_poisoned_block_is_quarantined(cluster, faults, scans, expected, tmp_path, capsys):
    out = tmp_path / "run"
    (faults / "raise").touch()
    try:
        assert command(*arguments(scans, out, "--cluster", cluster.address)) == 3
    finally:
        (faults / "raise").unlink()
    message = capsys.readouterr().err
    blocks = [("first", "detect", 5), ("second", "detect", 5)]
    assert quarantined(out) == blocks
    assert "first, detect, block 5 [0:16,16:32,32:48]: ZeroDivisionError: a fault of this block" in message
    assert "Traceback" not in message
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["stages"]["detect"]["retried"] == 4
    assert manifest["stages"]["detect"]["quarantined"] == 2
    for report in ("report.html", "report.md"):
        text = (out / report).read_text()
        assert "block 5 [0:16,16:32,32:48]" in text
        assert "in fail" in text
        assert "ZeroDivisionError: a fault of this block" in text
    assert not (out / "submission.zip").exists()
    assert_resumed(arguments(scans, out, "--cluster", cluster.address), out, expected, blocks)


@pytest.mark.slow
def test_a_block_that_takes_all_memory_is_quarantined(cluster, faults, scans, expected, tmp_path, capsys):
    """Its workers are ended by their nannies; the blocks that were lost with them are done elsewhere."""
    out = tmp_path / "run"
    (faults / "hoard").touch()
    try:
        assert command(*arguments(scans, out, "--cluster", cluster.address)) == 3
    finally:
        (faults / "hoard").unlink()
    blocks = [("first", "detect", 5), ("second", "detect", 5)]
    assert quarantined(out) == blocks
    assert "memory limit" in capsys.readouterr().err
    assert_resumed(arguments(scans, out, "--serial"), out, expected, blocks)


def test_a_damaged_chunk_costs_its_block(scans, expected, tmp_path, capsys):
    out = tmp_path / "run"
    chunk = scans / "first.zarr" / "c" / "1" / "1" / "1"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    try:
        assert command(*arguments(scans, out, "--serial")) == 3
    finally:
        chunk.write_bytes(whole)
    message = capsys.readouterr().err
    assert "first.zarr" in message
    assert "block 13 [16:32,16:32,16:32]" in message
    blocks = [("first", "ingest", 13)]
    assert quarantined(out) == blocks
    assert (out / "masks" / "second.tif").is_file(), "the other volume is done"
    assert_resumed(arguments(scans, out, "--serial"), out, expected, blocks)
