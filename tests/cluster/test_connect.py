"""A run on a cluster that was started by hand: a scheduler and two workers."""

from __future__ import annotations

import time

import pytest
from distributed import Client

from nx47dask.cluster.dask_pool import DaskPool
from nx47dask.cluster.kinds import connect
from nx47dask.errors import RunStoppedError
from tests.cluster.by_hand import ClusterByHand
from tests.cluster.processes import arguments, start_scheduler, start_worker, stop
from tests.integration.commands import command, digests, events, records


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with ClusterByHand(tmp_path_factory.mktemp("scheduler")) as cluster:
        yield cluster.file, cluster.address


@pytest.mark.parametrize("by", ["file", "address"])
def test_connected_cluster_gives_the_same_bytes(by, running, scan, expected, tmp_path, capsys):
    file, address = running
    out = tmp_path / "run"
    assert command(*arguments(scan, out, "--block", 16, "--cluster", file if by == "file" else address)) == 0
    assert capsys.readouterr().err.startswith("dashboard http://")
    assert digests(out) == expected
    assert (out / "dask-report.html").is_file()
    assert len({event["worker"] for event in events(out, "task-finished")}) == 2


def test_tls(certificate, scan, expected, tmp_path, capsys, monkeypatch):
    cert, key = certificate["cert"], certificate["key"]
    tls = ("--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key)
    _, address, scheduler = start_scheduler(tmp_path, "--protocol", "tls", *tls)
    processes = [scheduler, start_worker(address, tmp_path, *tls)]
    assert address.startswith("tls://")
    file = tmp_path / "tls.yaml"
    file.write_text(f"{{kind: connect, address: '{address}', tls_ca_file: {cert}, tls_cert: {cert}, tls_key: {key}}}")
    try:
        assert command(*arguments(scan, tmp_path / "run", "--block", 40, "--cluster", file)) == 0
        assert digests(tmp_path / "run") == expected
        capsys.readouterr()
        monkeypatch.setattr(connect, "CONNECT_TIMEOUT_S", 2)
        assert command(*arguments(scan, tmp_path / "plain", "--cluster", address)) == 2, "without a certificate"
        assert address in capsys.readouterr().err
    finally:
        stop(processes)


@pytest.mark.parametrize("where", ["run", "check"])
def test_worker_with_other_releases(where, scan, tmp_path, capsys):
    preload = tmp_path / "older.py"
    preload.write_text(
        "from importlib import metadata\n"
        "def version(name):\n"
        "    return '1.0' if name in ('scipy', 'zarr') else metadata.distribution(name).version\n"
        "metadata.version = version\n"
    )
    with ClusterByHand(tmp_path, 1, ("--preload", preload)) as cluster:
        if where == "run":
            code = command(*arguments(scan, tmp_path / "run", "--cluster", cluster.address))
            words = ["scipy 1.0", "install the same"]
        else:
            code = command("cluster", "check", cluster.address)
            words = ["scipy is 1.0 there and ", "install the same (1 of 1 workers: "]
    found = capsys.readouterr()
    assert code == 2
    assert all(word in found.err for word in words)
    assert "zarr is" not in found.err, "decides no bits"
    assert where == "run" or "zarr 1.0" in found.out


def test_a_scheduler_that_ends_stops_the_run_resumable(tmp_path):
    """Whenever the client notices: while it asks for workers as well."""
    with (
        ClusterByHand(tmp_path, 1) as cluster,
        Client(cluster.address, timeout=1, set_as_default=False) as client,
    ):
        pool = DaskPool(client)
        assert pool.memory_limit_bytes
        cluster.kill_scheduler()
        deadline = time.monotonic() + 60
        while client.status != "closed":
            assert time.monotonic() < deadline, "the client does not give up"
            time.sleep(0.02)
        for ask in (lambda: pool.memory_limit_bytes, lambda: pool.window, lambda: pool.wait(None)):
            pool._counted = float("-inf")
            with pytest.raises(RunStoppedError, match=r"the scheduler is gone.*--resume"):
                ask()


def test_no_scheduler_answers(scan, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(connect, "CONNECT_TIMEOUT_S", 0.5)
    out = tmp_path / "run"
    for place in ("tcp://127.0.0.1:1", "nonsense://127.0.0.1:8786"):
        assert command(*arguments(scan, out, "--cluster", place)) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: {place}: ")
        assert "dask scheduler" in message
        assert "Traceback" not in message
    assert records(out) == []
    assert command(*arguments(scan, out, "--serial")) == 0, "nothing keeps the run from starting elsewhere"


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
