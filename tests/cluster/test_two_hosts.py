"""Two hosts that share a folder: network namespaces of this machine, joined by a cable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.cluster.processes import arguments, start_scheduler, start_worker, stop
from tests.integration.commands import digests, events


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts():
    """Names of two namespaces with the addresses 10.47.0.1 and 10.47.0.2."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs root and the command ip")
    names = [f"nx47dask-{os.getpid()}-{letter}" for letter in "ab"]
    try:
        ip("netns", "add", names[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    try:
        ip("netns", "add", names[1])
        ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.47.0.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.slow
def test_two_hosts(hosts, scan, expected, tmp_path):
    first, second = (["ip", "netns", "exec", name] for name in hosts)
    file, address, scheduler = start_scheduler(tmp_path, host="10.47.0.1", before=first)
    processes = [scheduler, *(start_worker(address, tmp_path, before=host) for host in (first, second))]
    try:
        check = nx47dask_in(first, "cluster", "check", file, "--input", scan, "--out", tmp_path / "run")
        run = nx47dask_in(first, *arguments(scan, tmp_path / "run", "--cluster", file, "--block", 24))
    finally:
        stop(processes)
    assert check.returncode == 0, check.stderr
    assert "10.47.0.2:" in check.stdout
    assert run.returncode == 0, run.stderr
    assert len({event["worker"] for event in events(tmp_path / "run", "task-finished")}) == 2
    assert digests(tmp_path / "run") == expected


def nx47dask_in(host, *words):
    command = [*host, sys.executable, "-m", "nx47dask", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
