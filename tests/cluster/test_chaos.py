"""Something is killed at a random moment, many times: the same bytes come out, and only tasks in flight are redone.

One kill in every run of the tests; fifty with ``-m slow``.
"""

from __future__ import annotations

import random
import signal
from collections import Counter

import pytest
import tifffile

from tests.cluster.by_hand import ClusterByHand
from tests.cluster.processes import arguments
from tests.conftest import sheets
from tests.integration.commands import (
    command,
    digests,
    finish,
    launch,
    leftovers,
    records,
    straight_run,
    wait_for,
    write_workflow,
)

WORKERS = 2
IN_FLIGHT = 8 * WORKERS
"""The window of the client: what it has given away and not got back."""
BLOCK = 16
VICTIMS = ("worker", "all workers", "scheduler", "client")

COUNTING = """
from nx47dask.engine import worker

def counting(function, arguments, place, versions=None, run=worker.run_task):
    with open({path!r}, "a") as stream:
        stream.write(place + "\\n")
    return run(function, arguments, place, versions)

if worker.run_task.__name__ != "counting":  # Dask may load a file more than once
    worker.run_task = counting
"""
"""Preloaded by workers: notes every task when it starts."""


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("chaos") / "scan.tif"
    tifffile.imwrite(path, sheets((48, 48, 48)), photometric="minisblack")
    write_workflow(path.parent)
    return path


@pytest.fixture(scope="module")
def expected(scan):
    """Digests of a straight run, and its tasks."""
    return straight_run([scan], scan.with_name("straight"), BLOCK)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """File in which the workers note what they start."""
    return tmp_path_factory.mktemp("started") / "tasks.txt"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, started):
    folder = tmp_path_factory.mktemp("cluster")
    preload = folder / "counting.py"
    preload.write_text(COUNTING.format(path=str(started)))
    with ClusterByHand(folder, WORKERS, ("--preload", preload)) as cluster:
        yield cluster


def kill(victim, cluster, client, chance):
    """Kill, and start again what an operator or a batch system would."""
    if victim == "client":
        client.send_signal(signal.SIGKILL)
    elif victim == "scheduler":
        cluster.kill_scheduler()
        cluster.kill_workers()
        finish(client)
        cluster.start()
    else:
        number = 1 if victim == "worker" else WORKERS
        for _ in range(number):
            cluster.kill_worker(chance.randrange(len(cluster.crew)))
        for _ in range(number):
            cluster.start_worker()


def survive(victim, cluster, scan, started, out, expected, chance):
    """One run with one kill, resumed where its client ended, and what it must have cost at most."""
    masks, tasks = expected
    started.write_text("")
    moment = chance.randrange(1, len(tasks) - 5)
    client = launch(*arguments(scan, out, "--block", BLOCK, "--cluster", cluster.address))
    wait_for(lambda: len(records(out)) >= moment, client)
    kill(victim, cluster, client, chance)
    code, _, stderr = finish(client)
    assert "Traceback" not in stderr
    recorded = set(records(out))
    before = Counter(started.read_text().splitlines())
    assert code == {"client": -signal.SIGKILL, "scheduler": 3}.get(victim, 0), stderr
    if code:
        assert len(recorded) < len(tasks)
        assert command(*arguments(scan, out, "--block", BLOCK, "--cluster", cluster.address, "--resume")) == 0
    assert digests(out) == masks
    assert sorted(set(records(out))) == tasks
    runs = Counter(started.read_text().splitlines())
    assert len(runs) == len(tasks)
    assert sum(runs.values()) - len(tasks) <= IN_FLIGHT, "recomputed"
    recomputed = runs - before
    assert not [place for place in recomputed if place in before and _key(place, tasks) in recorded]
    assert leftovers(out) == []


def _key(place, tasks):
    """Volume and stage of a task's place, with its block where it names one; as in the ledger."""
    volume, stage, what = place.split(", ", 2)
    words = what.split()
    return (volume, stage, int(words[1])) if words[0] == "block" else None


def test_the_scheduler_is_killed(cluster, scan, started, expected, tmp_path):
    """Other tests kill the workers and the client of a local cluster."""
    survive("scheduler", cluster, scan, started, tmp_path / "run", expected, random.Random(1))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills(cluster, scan, started, expected, tmp_path):
    chance = random.Random(47)
    victims = chance.choices(VICTIMS, weights=(4, 2, 1, 3), k=50)
    for number, victim in enumerate(victims):
        survive(victim, cluster, scan, started, tmp_path / str(number), expected, chance)
