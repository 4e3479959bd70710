"""Files of a finished run that are damaged: every command that reads them says which, and how to get them back."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.integration.commands import command
from tests.integration.tiny_runs import VOLUMES, tiny_run

READERS = (("report", "a"), ("compare", "a", "b", "--serial"), ("report", "b", "--baseline", "a"))
AGAIN = "write it again with nx47dask run ... --resume"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    tiny_run(folder, "a")
    return folder / "a"


@pytest.fixture
def runs(made, tmp_path, monkeypatch):
    """Two copies of a run in the current directory; the first is to be damaged."""
    for name in ("a", "b"):
        shutil.copytree(made, tmp_path / name, ignore=shutil.ignore_patterns("store"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without(text, *keys):
    """A JSON file without the value at a path of keys."""
    content = json.loads(text)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return json.dumps(content)


@pytest.mark.parametrize("reader", READERS, ids=" ".join)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:100], "cannot be read as JSON ("),
        (lambda text: "[]", "expected a JSON object, found list"),
        (lambda text: "{}", "has no 'volumes'"),
        (lambda text: without(text, "volumes", VOLUMES[1]), f"volume {VOLUMES[1]} of the run's manifest is not in it"),
        (lambda text: without(text, "volumes", VOLUMES[0], "mask"), f"volume {VOLUMES[0]} has no 'mask'"),
    ],
    ids=["cut", "list", "empty", "volume", "mask"],
)
def test_damaged_volumes(runs, capsys, reader, damage, message):
    path = runs / "a" / "metrics" / "volumes.json"
    path.write_text(damage(path.read_text()))
    assert command(*reader) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"a/metrics/volumes.json: {message}" in error
    assert AGAIN in error


@pytest.mark.parametrize("reader", [READERS[0], READERS[2]], ids=" ".join)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "cannot be read as slices (line 1 is not volume,z,"),
        (lambda text: text.replace(",holes", "", 1), "cannot be read as slices (line 1 is not volume,z,"),
        (lambda text: text[: text.rindex(",")], "cannot be read as slices (line 25 has 7 values, not 8)"),
        (lambda text: text.replace("0.", "x.", 1), "cannot be read as slices (could not convert string"),
        (lambda text: text[: text.rindex(VOLUMES[1])], f"11 slices of volume {VOLUMES[1]}, the run has 12"),
    ],
    ids=["empty", "head", "cut", "word", "short"],
)
def test_damaged_slices(runs, capsys, reader, damage, message):
    path = runs / "a" / "metrics" / "slices.csv"
    path.write_text(damage(path.read_text()))
    assert command(*reader) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"a/metrics/slices.csv: {message}" in error
    assert AGAIN in error


@pytest.mark.parametrize("reader", READERS, ids=" ".join)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:100], "cannot be read as JSON ("),
        (lambda text: without(text, "inputs"), "not the manifest of a run (inputs is missing)"),
    ],
    ids=["cut", "inputs"],
)
def test_damaged_manifest(runs, capsys, reader, damage, message):
    path = runs / "a" / "manifest.json"
    path.write_text(damage(path.read_text()))
    assert command(*reader) == 2
    assert f"a/manifest.json: {message}" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("arguments", [("report",), ("freeze", "--name", "v1")], ids=" ".join)
def test_no_run(runs, capsys, arguments):
    assert command(*arguments, "nowhere") == 2
    assert "nowhere: no such run folder" in capsys.readouterr().err
    (runs / "a" / "manifest.json").unlink()
    assert command(*arguments, "a") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "if a run is in it, end it with nx47dask run ... --resume" in error
