"""The command line, in this process or in one of its own, watched through what it writes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest
import yaml
from rich.console import Console

import nx47dask
from nx47dask.cli import main

DEADLINE_S = 60

WORKFLOW = {
    "detect": [{"residual": {"sigma_base": 1.3}}],
    "postprocess": [
        {"hysteresis": {"low": 0.6, "high": 0.8, "by": "volume"}},
        {"small_objects": {"min_vox": 20}},
        {"closing": {"radius_zyx_vox": [1, 1, 1]}},
        "fill_holes",
    ],
}
"""Quantiles, components and local steps: one of every kind of pass, with masks that are not empty; no torch to load."""


def write_workflow(folder):
    """The workflow of these tests as a file."""
    path = folder / "workflow.yaml"
    path.write_text(yaml.safe_dump(WORKFLOW))
    return path


def straight_run(inputs, out, block):
    """A run without a cluster or a stop, by the workflow beside the inputs: its digests, and the tasks that it has."""
    workflow = inputs[0].with_name("workflow.yaml")
    nx47dask.run(inputs, out, workflow=workflow, serial=True, block=block, console=Console(quiet=True))
    return digests(out), sorted(records(out))


def command(*arguments):
    """Exit code of the command line in this process."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments)])
    finally:
        signal.signal(signal.SIGTERM, before)
    return end.value.code


def launch(*arguments, cwd=None):
    """Start ``nx47dask ARGUMENTS`` in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "nx47dask", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_heed_ctrl_c,
    )


def _heed_ctrl_c():
    """Undo what a shell does to a background job, which may be what runs the tests."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def finish(process):
    """Exit code, standard output and standard error of a process that should end."""
    try:
        out, err = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def wait_for(condition, process):
    """Poll until the condition holds; fails when the process ends before."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.005)


def records(run):
    """(volume, stage, number) of every whole line of the ledger, in order of the files."""
    found = []
    for path in sorted((run / "ledger").glob("*.jsonl")):
        for line in path.read_text().split("\n")[:-1]:
            record = json.loads(line)
            found.append((path.stem, record["stage"], record["number"]))
    return found


def events(run, name):
    """Events of one name, in order."""
    lines = (run / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def runs_of_tasks(run):
    """How often each (volume, stage, number) was finished and recorded."""
    return Counter((e["volume"], e["stage"], e["number"]) for e in events(run, "task-finished"))


def digests(run):
    """SHA-256 of every mask and of ``slices.csv``."""
    paths = [*sorted((run / "masks").iterdir()), run / "metrics" / "slices.csv"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def workers_of(process):
    """Worker processes of a client that started a local cluster."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if any("spawn_main" in word for word in child.cmdline())]


def leftovers(run):
    """Temporary files that a finished or refused run must not leave under its folder."""
    return list(run.rglob("*.tmp"))
