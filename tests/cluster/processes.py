"""Schedulers and workers that are started by hand, each a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

DEADLINE_S = 60


def dask(part, *arguments, before=()):
    """Start ``dask scheduler`` or ``dask worker``; ``before`` is a command that runs it, such as ``ip netns exec``."""
    return subprocess.Popen(
        [*before, sys.executable, "-m", f"distributed.cli.dask_{part}", "--no-dashboard", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def start_scheduler(folder, *arguments, host="127.0.0.1", before=()):
    """A scheduler; the path of its file, its address, and its process."""
    file = folder / "scheduler.json"
    process = dask("scheduler", "--host", host, "--port", 0, "--scheduler-file", file, *arguments, before=before)
    deadline = time.monotonic() + DEADLINE_S
    while not file.exists() or not file.read_text().endswith("}"):
        assert process.poll() is None, "the scheduler did not start"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return file, json.loads(file.read_text())["address"], process


def start_worker(address, folder, *arguments, before=(), nanny=False):
    """A worker with one thread; its process. Without a nanny what ends stays ended."""
    options = ("--nthreads", 1, "--death-timeout", 20, "--local-directory", folder)
    return dask("worker", address, *options, "--nanny" if nanny else "--no-nanny", *arguments, before=before)


def stop(processes):
    for process in processes:
        process.kill()
        process.wait(timeout=30)


def arguments(scan, out, *options):
    """Of a command line that runs a scan with the workflow beside it."""
    return ["run", scan, "--out", out, "--workflow", scan.with_name("workflow.yaml"), *options]
