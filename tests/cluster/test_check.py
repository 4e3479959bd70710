"""``nx47dask cluster check``."""

from __future__ import annotations

import json

import pytest

from nx47dask.cluster import check
from nx47dask.cluster.spec import ConnectSpec
from nx47dask.cluster.start import await_workers, open_client
from nx47dask.errors import ClusterError
from tests.cluster.by_hand import ClusterByHand
from tests.integration.commands import command


def test_local_cluster(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    scan, out = tmp_path / "scan.tif", tmp_path / "runs" / "new"
    scan.write_bytes(b"II*")
    (tmp_path / "cluster.yaml").write_text("{memory_limit: 1GiB, workers: 2}")
    options = ("--input", scan, "--input", tmp_path, "--out", out, "--json", "found.json")
    assert command("cluster", "check", *options, "--workers", 1) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert max(map(len, lines[:-1])) <= 80, "the last line names paths, which are as long as they are"
    row = next(line for line in lines if line.strip().endswith("same"))
    assert row.split()[0] == "0"
    assert "1.0 GiB" in row
    assert lines[-1].startswith("ok: ")
    assert not out.exists(), "nothing is left behind"
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["kind"] == "local"
    assert found["problems"] == {}
    (worker,) = found["workers"]
    assert worker["threads"] == 1
    assert worker["memory_limit_bytes"] == 1 << 30
    assert worker["disk_free_bytes"] > 0
    assert found["versions"]["python"].startswith("3.")


def test_what_a_worker_cannot_reach(tmp_path, capsys):
    denied = tmp_path / "denied.py"
    denied.write_text(
        "from pathlib import Path\n"
        "def write_bytes(path, data):\n"
        "    raise PermissionError(13, 'Permission denied', str(path))\n"
        "Path.write_bytes = write_bytes\n"
    )
    out = tmp_path / "out"
    out.mkdir()
    with ClusterByHand(tmp_path, 2, ("--preload", denied)) as cluster:
        code = command("cluster", "check", cluster.address, "--input", tmp_path / "scan.zarr", "--out", out)
    message = capsys.readouterr().err
    assert code == 2
    assert f"input {tmp_path}/scan.zarr: not there (2 of 2 workers: " in message
    assert "cannot be written" in message
    assert "Traceback" not in message
    assert list(out.iterdir()) == []


def test_out_that_the_client_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    found = check.Check({})
    with check._token(str(tmp_path / "file" / "out"), found) as token:
        assert token is None
    assert "cannot be written from here" in next(iter(found.problems))


def test_folder_that_is_not_shared(tmp_path):
    missing = tmp_path / ".nx47dask-check-12345678"
    assert "has to be shared" in check._unwritable(missing)
    missing.write_bytes(b"another run's")
    assert "another folder" in check._unwritable(missing)
    missing.write_bytes(missing.name.encode())
    assert check._unwritable(missing) == ""
    assert list(tmp_path.iterdir()) == [missing]


def test_input_kinds(tmp_path):
    store = tmp_path / "scan.zarr"
    store.mkdir()
    (store / "zarr.json").write_text("{}")
    assert check._unreadable(store) == check._unreadable(tmp_path) == check._unreadable(store / "zarr.json") == ""
    assert "not there" in check._unreadable(tmp_path / "other.zarr")


def test_fewer_workers_than_expected(tmp_path, capsys):
    with ClusterByHand(tmp_path, 1) as cluster:
        spec = ConnectSpec(kind="connect", address=cluster.address)
        with open_client(spec) as client, pytest.raises(ClusterError, match=r"1 workers of 2 came within 0\.3 s"):
            await_workers(client, spec, 2, 0.3)
