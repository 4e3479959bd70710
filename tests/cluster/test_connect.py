"""A run on a cluster that was started by hand: a scheduler and two workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import tifffile
from distributed import Client
from rich.console import Console

import nx47dask
from nx47dask.engine import cluster
from tests.conftest import sheets
from tests.integration.commands import command, digests, events, finish, launch, records, wait_for, write_workflow


def dask(command, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{command}", "--no-dashboard", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def start_cluster(folder, workers=2):
    """A scheduler and workers; the path of the scheduler file, its address, and the processes."""
    file = folder / "scheduler.json"
    scheduler = dask("scheduler", "--host", "127.0.0.1", "--port", 0, "--scheduler-file", file)
    deadline = time.monotonic() + 60
    while not file.exists() or not file.read_text().endswith("}"):
        assert scheduler.poll() is None, "the scheduler did not start"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    address = json.loads(file.read_text())["address"]
    options = ("--nthreads", 1, "--no-nanny", "--death-timeout", 20, "--local-directory", folder)
    processes = [scheduler, *(dask("worker", address, *options) for _ in range(workers))]
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=60)
    return file, address, processes


def stop(processes):
    for process in processes:
        process.kill()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    file, address, processes = start_cluster(tmp_path_factory.mktemp("scheduler"))
    yield file, address
    stop(processes)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("connect") / "scan.tif"
    tifffile.imwrite(path, sheets((32, 48, 40)), photometric="minisblack")
    write_workflow(path.parent)
    return path


def arguments(scan, out, *options):
    return ["run", scan, "--out", out, "--workflow", scan.with_name("workflow.yaml"), *options]


@pytest.fixture(scope="module")
def expected(scan):
    done = nx47dask.run(
        [scan],
        scan.with_name("serial"),
        workflow=scan.with_name("workflow.yaml"),
        serial=True,
        block=40,
        console=Console(quiet=True),
    )
    return digests(done.path)


@pytest.mark.parametrize("by", ["file", "address"])
def test_connected_cluster_gives_the_same_bytes(by, running, scan, expected, tmp_path, capsys):
    file, address = running
    out = tmp_path / "run"
    assert command(*arguments(scan, out, "--block", 16, "--cluster", file if by == "file" else address)) == 0
    assert capsys.readouterr().err.startswith("dashboard http://")
    assert digests(out) == expected
    assert (out / "dask-report.html").is_file()
    assert len({event["worker"] for event in events(out, "task-finished")}) == 2


def test_scheduler_is_lost(scan, expected, tmp_path):
    _, address, processes = start_cluster(tmp_path, workers=1)
    out = tmp_path / "run"
    client = launch(*arguments(scan, out, "--block", 16, "--cluster", address))
    try:
        wait_for(lambda: len(records(out)) > 20, client)
        processes[0].kill()
        code, _, stderr = finish(client)
    finally:
        stop(processes)
    assert code == 3
    assert "Traceback" not in stderr
    assert "scheduler is gone" in stderr.splitlines()[-1]
    assert "--resume" in stderr.splitlines()[-1]
    assert command(*arguments(scan, out, "--block", 16, "--serial", "--resume")) == 0
    assert digests(out) == expected


def test_no_scheduler_answers(scan, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT_S", 0.5)
    out = tmp_path / "run"
    for place in ("tcp://127.0.0.1:1", "nonsense://127.0.0.1:8786"):
        assert command("run", scan, "--out", out, "--cluster", place) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: {place}: ")
        assert "dask scheduler" in message
        assert "Traceback" not in message
    assert records(out) == []
    assert command("run", scan, "--out", out, "--serial") == 0, "nothing keeps the run from starting elsewhere"


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("cluster.yaml", "kind: connect", "address"),
        ("cluster.yaml", "workes: 2", "workes"),
        ("cluster.yaml", "memory_limit: lots", "memory_limit"),
        ("cluster.yaml", "kind: [", "YAML"),
        ("scheduler.json", "{}", "scheduler-file"),
    ],
)
def test_bad_cluster_file(name, content, text, scan, tmp_path, capsys):
    path = tmp_path / name
    path.write_text(content)
    assert command("run", scan, "--out", tmp_path / "run", "--cluster", path) == 2
    message = capsys.readouterr().err
    assert text in message
    assert "Traceback" not in message


def test_workers_are_for_local_clusters(scan, tmp_path, capsys):
    assert command("run", scan, "--out", tmp_path / "run", "--cluster", "tcp://127.0.0.1:1", "--workers", 2) == 2
    assert "--workers 2" in capsys.readouterr().err
