"""Baselines: frozen whole or not at all, never overwritten, and every change since is named."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import tifffile

import nx47dask
from nx47dask.commands.freeze import freeze
from nx47dask.engine.lock import lock_run
from nx47dask.errors import GateError, InputError, RunLockedError
from nx47dask.io import discover
from nx47dask.runs.baselines import find_run, read_external, verify_folder, write_external
from nx47dask.runs.run import Run, open_run
from nx47dask.workflow import load_workflow
from tests.conftest import sheets
from tests.integration.commands import command

IDS = ("910000001", "910000002")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of two volumes, made once."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "in").mkdir()
    for seed, volume in enumerate(IDS):
        tifffile.imwrite(folder / "in" / f"{volume}.tif", sheets((10, 24, 22), seed), photometric="minisblack")
    return nx47dask.run([folder / "in"], folder / "run", workflow="v61.1", serial=True).path


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """A copy of the run; the current directory is empty."""
    shutil.copytree(made, tmp_path / "run")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return open_run(tmp_path / "run")


@pytest.fixture
def frozen(run, tmp_path):
    return freeze(run, "v61.1", tmp_path / "baselines")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hidden(folder):
    return sorted(path.name for path in folder.glob(".*"))


def edit(path, **values):
    """Change keys of a JSON file that may be read-only."""
    path.chmod(0o644)
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_baseline_holds_the_run_and_its_checksums(run, frozen):
    record = json.loads((frozen / "baseline.json").read_text())
    expected = {f"masks/{volume}.tif" for volume in IDS} | {"manifest.json", "metrics/slices.csv"}
    assert record["artefacts_sha256"].keys() == expected | {"metrics/volumes.json", "workflow.yaml"}
    assert {name: sha256(frozen / name) for name in record["artefacts_sha256"]} == record["artefacts_sha256"]
    assert record["submission_sha256"] == sha256(run.path / "submission.zip")
    assert record["plan_sha256"] == run.manifest["plan_sha256"]
    assert {path.stat().st_mode & 0o222 for path in frozen.rglob("*") if path.is_file()} == {0}
    assert verify_folder(frozen) == 6
    assert hidden(frozen.parent) == []


def test_a_baseline_opens_as_a_run_and_its_workflow_loads(run, frozen):
    found = find_run("v61.1", frozen.parent)
    assert found.volume_metrics == run.volume_metrics
    assert [volume.id for volume in discover([found.path / "masks"])] == list(IDS)
    resolved = json.loads(json.dumps(load_workflow(frozen / "workflow.yaml").resolved))
    assert {"name": "v61.1", **resolved} == run.manifest["workflow"]


def test_a_baseline_is_never_overwritten(run, frozen):
    before = {path: path.read_bytes() for path in frozen.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"v61\.1: exists already, and a baseline is never overwritten"):
        freeze(run, "v61.1", frozen.parent)
    assert {path: path.read_bytes() for path in frozen.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "a b", "-x", "x" * 101])
def test_names_are_safe_file_names(run, tmp_path, name):
    with pytest.raises(InputError, match="--name"):
        freeze(run, name, tmp_path / "baselines")
    assert not (tmp_path / "baselines").exists()


def test_a_tampered_run_cannot_be_frozen(run, tmp_path):
    mask = run.path / "masks" / f"{IDS[1]}.tif"
    before = sha256(mask)
    mask.write_bytes(mask.read_bytes() + b"\0")
    with pytest.raises(InputError, match=f"masks/{IDS[1]}.tif: changed, SHA-256 was {before}, is {sha256(mask)}"):
        freeze(run, "x", tmp_path / "baselines")
    mask.unlink()
    with pytest.raises(InputError, match=f"masks/{IDS[1]}.tif: missing, SHA-256 was {before}"):
        freeze(run, "x", tmp_path / "baselines")
    assert not (tmp_path / "baselines").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"artefacts_sha256": {}}, "the run has no masks of 2 of 2 volumes"),
        ({"submission": {"unfinished": ["7"]}}, "not finished, 7 among its volumes; go on with --resume"),
        ({"artefacts_sha256": {"../x": "0"}}, r"names '\.\./x', which is outside the folder"),
        ({"artefacts_sha256": [1]}, "artefacts_sha256 holds no checksums"),
    ],
)
def test_a_run_that_is_not_whole_cannot_be_frozen(run, tmp_path, values, message):
    edit(run.path / "manifest.json", **values)
    with pytest.raises(InputError, match=message):
        freeze(Run(run.path), "x", tmp_path / "baselines")


def test_damaged_manifests_and_unfinished_runs_are_named(run, frozen, tmp_path):
    with pytest.raises(InputError, match="is a baseline already"):
        freeze(open_run(frozen), "x", tmp_path / "baselines")
    (run.path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest\.json: cannot be read as JSON"):
        freeze(run, "x", tmp_path / "baselines")
    (run.path / "manifest.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"manifest\.json: not the manifest of a run \(artefacts_sha256 is missing\)"):
        find_run(run.path)
    (run.path / "manifest.json").unlink()
    with pytest.raises(InputError, match="no finished run and no baseline"):
        find_run(run.path)


def test_an_interrupted_freeze_leaves_nothing(run, tmp_path, monkeypatch):
    def interrupt(folder, *arguments):
        (folder / "masks").mkdir(parents=True)
        raise KeyboardInterrupt

    folder = tmp_path / "baselines"
    monkeypatch.setattr("nx47dask.commands.freeze._fill", interrupt)
    with pytest.raises(KeyboardInterrupt):
        freeze(run, "x", folder)
    assert [path.name for path in folder.iterdir()] == ["run.lock"]


def test_a_killed_freeze_looks_like_no_baseline_and_is_cleared_by_the_next(run, tmp_path):
    code = f"""
import os
from pathlib import Path
from nx47dask.commands import freeze
freeze.content_digest = lambda record: os._exit(9)  # all is copied, nothing is renamed
freeze.freeze({str(run.path)!r}, "x", Path({str(tmp_path)!r}) / "baselines")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    folder = tmp_path / "baselines"
    assert len(hidden(folder)) == 1
    with pytest.raises(InputError, match="no baseline of that name"):
        find_run("x", folder)
    (folder / ".y.01234567.tmp").mkdir()
    assert verify_folder(freeze(run, "x", folder)) == 6
    assert hidden(folder) == [".y.01234567.tmp"]


def test_one_freeze_at_a_time(run, tmp_path):
    (tmp_path / "baselines").mkdir()
    with lock_run(tmp_path / "baselines"), pytest.raises(RunLockedError, match="another freeze is under way"):
        freeze(run, "x", tmp_path / "baselines")


def test_verify_names_every_difference(frozen):
    changed, missing, extra = (frozen / "masks" / f"{name}.tif" for name in (*IDS, "new"))
    was, gone = sha256(changed), sha256(missing)
    changed.chmod(0o644)
    changed.write_bytes(b"II*\0")
    missing.unlink()
    extra.touch()
    edit(frozen / "baseline.json", name="v61.2")
    with pytest.raises(GateError) as error:
        verify_folder(frozen)
    message = str(error.value)
    assert "4 differences from what was frozen" in message
    assert f"masks/{IDS[0]}.tif: changed, SHA-256 was {was}, is {sha256(changed)}" in message
    assert f"masks/{IDS[1]}.tif: missing, SHA-256 was {gone}" in message
    assert "masks/new.tif: extra" in message
    assert "baseline.json: changed, SHA-256 of its content was" in message


def test_verify_of_damaged_lists(frozen):
    edit(frozen / "baseline.json", schema=2)
    with pytest.raises(GateError, match="schema 2, known is 1"):
        verify_folder(frozen)
    (frozen / "baseline.json").write_text("")
    with pytest.raises(GateError, match=r"baseline\.json: cannot be read as JSON"):
        verify_folder(frozen)


def test_verify_works_on_a_run(run):
    assert verify_folder(run.path) == 5
    (run.path / "notes.txt").touch()  # beside the results, anything may lie
    (run.path / "masks" / ".DS_Store").touch()
    assert verify_folder(run.path) == 5
    (run.path / "masks" / "7.tif").touch()
    with pytest.raises(GateError, match=r"1 difference from the run's manifest:\n  masks/7\.tif: extra"):
        verify_folder(run.path)


def test_external_scores_may_come_later_and_nothing_else(frozen):
    write_external(frozen, public=0.387, note="first")
    write_external(frozen, private=0.41)
    assert read_external(frozen) == {"public": 0.387, "private": 0.41, "note": "first"}
    assert verify_folder(frozen) == 6
    (frozen / "external.json").write_text('{"public": 3}')
    with pytest.raises(GateError, match=r"external\.json: public 3: a score is a number from 0 to 1"):
        verify_folder(frozen)


def test_external_scores_are_frozen_with_the_run(run, tmp_path):
    write_external(run.path, public=0.5)
    assert read_external(freeze(run, "x", tmp_path / "baselines")) == {"public": 0.5}


@pytest.mark.parametrize("value", [-0.1, 1.1, 38.7, float("nan")])
def test_external_scores_are_shares(run, value):
    with pytest.raises(InputError, match=r"--public .*: a score is a number from 0 to 1"):
        write_external(run.path, public=value)
    assert read_external(run.path) == {}


def test_find_run_knows_names_before_folders(run, frozen, monkeypatch):
    monkeypatch.chdir(run.path.parent)
    shutil.copytree(run.path, "v61.1")
    assert find_run("v61.1").path.parent.name == "baselines"
    assert not (find_run("./v61.1").path / "baseline.json").exists()
    with pytest.raises(InputError, match=r"v61\.9: no such run folder.* baselines in baselines: v61\.1$"):
        find_run("v61.9")
    with pytest.raises(InputError, match=r"there is no baseline in .*/nowhere$"):
        find_run("v61.9", run.path.parent / "nowhere")


def test_commands_and_their_exit_codes(run, capsys):
    assert command("freeze", run.path, "--name", "a") == 0
    assert command("freeze", run.path, "--name", "a") == 2
    assert command("verify", "a") == 0
    assert command("record-score", "a", "--public", "0.387") == 0
    assert command("record-score", "a", "--public", "1.387") == 2
    assert command("record-score", "a") == 2
    assert "baselines/a: 6 files unchanged" in capsys.readouterr().out
    os.unlink(f"baselines/a/masks/{IDS[0]}.tif")
    assert command("verify", "a") == 4
    assert "error: baselines/a: 1 difference from what was frozen:" in capsys.readouterr().err
