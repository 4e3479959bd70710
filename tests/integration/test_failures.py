"""Killed workers, killed clients, interruptions: a run loses the blocks in flight and nothing else.

Moments are chosen by watching the ledger grow; a process is ended by its own id only.
"""

from __future__ import annotations

import json
import os
import signal

import psutil
import pytest
import tifffile

from tests.conftest import sheets
from tests.integration.commands import (
    command,
    digests,
    events,
    finish,
    launch,
    leftovers,
    records,
    runs_of_tasks,
    straight_run,
    wait_for,
    workers_of,
    write_workflow,
)

BLOCK = 16
WORKERS = 2
IN_FLIGHT = 4 * WORKERS
"""Tasks that a client may have under way: its window."""


def workflow_of(volumes):
    return volumes.with_name("workflow.yaml")


def arguments(volumes, out, *options):
    return ["run", volumes, "--out", out, "--workflow", workflow_of(volumes), "--block", BLOCK, *options]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failures") / "test_images"
    folder.mkdir()
    write_workflow(folder.parent)
    for seed in range(2):
        path = folder / f"91000000{seed}.tif"
        tifffile.imwrite(path, sheets((32, 48, 48), seed), compression="lzw", photometric="minisblack")
    return folder


@pytest.fixture(scope="module")
def expected(volumes, tmp_path_factory):
    """Digests of a straight run and the tasks that it has."""
    return straight_run([volumes], tmp_path_factory.mktemp("straight") / "run", BLOCK)


def start(volumes, out, *options):
    return launch(*arguments(volumes, out, *options))


def resume(volumes, out):
    assert command(*arguments(volumes, out, "--serial", "--resume")) == 0


def reaches(out, count, stage=None):
    """A condition: the ledger has so many records (of a stage)."""
    return lambda: len([one for one in records(out) if stage in (None, one[1])]) >= count


def assert_nothing_lost(out, recorded, expected, in_flight):
    """The run is complete, and tasks that were recorded ran once."""
    assert digests(out) == expected[0]
    assert sorted(set(records(out))) == expected[1]
    runs = runs_of_tasks(out)
    assert not {key: runs[key] for key in recorded if runs[key] != 1}
    assert set(runs) == set(expected[1])
    assert sum(runs.values()) <= len(expected[1]) + in_flight
    assert leftovers(out) == []


def test_killed_workers_cost_the_blocks_in_flight(volumes, tmp_path, expected):
    out = tmp_path / "run"
    client = start(volumes, out, "--workers", WORKERS)
    wait_for(reaches(out, 10), client)
    first = workers_of(client)
    assert len(first) == WORKERS
    first[0].send_signal(signal.SIGKILL)
    wait_for(reaches(out, 40), client)
    for worker in workers_of(client):
        worker.send_signal(signal.SIGKILL)
    code, _, stderr = finish(client)
    assert code == 0, stderr
    assert "Traceback" not in stderr
    assert_nothing_lost(out, records(out), expected, 0)
    assert len({event["worker"] for event in events(out, "task-finished")}) > WORKERS, "nannies start new workers"


def test_killed_client_and_a_second_client(volumes, tmp_path, expected, capsys):
    out = tmp_path / "run"
    client = start(volumes, out, "--workers", WORKERS)
    wait_for(reaches(out, 20), client)
    os.kill(client.pid, signal.SIGSTOP)  # a live client, for as long as it takes to try a second one
    workers = workers_of(client)
    for how in ("--resume", "--overwrite"):
        assert command(*arguments(volumes, out, "--serial", how)) == 2
        message = capsys.readouterr().err
        assert f"process {client.pid}" in message
        assert str(out) in message
        assert [line.partition(": ")[0] for line in message.splitlines()] == ["error", "hint"]
    os.kill(client.pid, signal.SIGKILL)
    code, _, _ = finish(client)
    assert code == -signal.SIGKILL
    psutil.wait_procs(workers, timeout=20)
    assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]

    recorded = records(out)
    volume_ledger = out / "ledger" / f"{recorded[0][0]}.jsonl"
    with volume_ledger.open("a") as stream:  # as a client leaves it that dies while it writes
        stream.write('{"stage":"detect","numb')
    assert not (out / "manifest.json").exists()
    resume(volumes, out)
    assert_nothing_lost(out, recorded, expected, IN_FLIGHT)
    manifest = json.loads((out / "manifest.json").read_text())
    assert sum(stage["resumed"] for stage in manifest["stages"].values()) == len(recorded)


def test_ctrl_c_on_a_cluster(volumes, tmp_path, expected):
    out = tmp_path / "run"
    client = start(volumes, out, "--workers", WORKERS)
    wait_for(reaches(out, 5, "postprocess.1"), client)
    workers = workers_of(client)
    os.killpg(client.pid, signal.SIGINT)  # a terminal sends it to the whole group
    code, _, stderr = finish(client)
    assert code == 130
    assert stderr.splitlines()[-1] == "interrupted; go on with --resume"
    assert "Traceback" not in stderr
    assert not [worker for worker in workers if worker.is_running()]
    recorded = records(out)
    resume(volumes, out)
    assert_nothing_lost(out, recorded, expected, IN_FLIGHT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_without_a_cluster(volumes, tmp_path, expected, number):
    out = tmp_path / "run"
    client = start(volumes, out, "--serial")
    wait_for(reaches(out, 10), client)
    client.send_signal(number)
    code, _, stderr = finish(client)
    assert code == 130
    assert stderr.splitlines()[-1] == "interrupted; go on with --resume"
    assert "Traceback" not in stderr
    recorded = records(out)
    assert 10 <= len(recorded) < len(expected[1])
    resume(volumes, out)
    assert_nothing_lost(out, recorded, expected, 1)


@pytest.fixture
def part(volumes, tmp_path, monkeypatch):
    """A run folder whose client died after 30 tasks of the first volume."""
    from nx47dask.engine import Ledger

    out = tmp_path / "part"
    append, seen = Ledger.append, []

    def dying(ledger, volume, record):
        if len(seen) == 30:
            raise KeyboardInterrupt
        seen.append(record)
        append(ledger, volume, record)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", dying)
        assert command(*arguments(volumes, out, "--serial")) == 130
    assert len(records(out)) == 30
    return out


def test_another_plan_is_refused_with_both_values(volumes, part, capsys):
    cases = {
        ("--block", 24): "inputs.910000000.block was 16, is 24",
        ("--foreground", 1): "foreground was 255, is 1",
        ("--bbox", "0:20,0:30,0:40"): 'box was "0:32,0:48,0:48", is "0:20,0:30,0:40"',
        ("--workflow", "v61.1"): "workflow.detect",
    }
    capsys.readouterr()
    before = records(part)
    for options, difference in cases.items():
        for how in ([], ["--resume"]):
            assert command(*arguments(volumes, part, "--serial", *options, *how)) == 2
            message = capsys.readouterr().err
            assert difference in message
            assert "--overwrite" in message
            assert "Traceback" not in message
    assert records(part) == before


def test_changed_input_is_refused(volumes, tmp_path, capsys):
    scan = tmp_path / "scan.tif"
    tifffile.imwrite(scan, sheets((4, 20, 20)), photometric="minisblack")
    assert command("run", scan, "--out", tmp_path / "run", "--serial") == 0
    tifffile.imwrite(scan, sheets((4, 20, 20), 1), photometric="minisblack")
    capsys.readouterr()
    assert command("run", scan, "--out", tmp_path / "run", "--serial", "--resume") == 2
    assert "inputs.scan.fingerprint was" in capsys.readouterr().err


def test_a_run_is_neither_repeated_nor_lost_by_chance(volumes, part, expected, capsys):
    before = records(part)
    assert command(*arguments(volumes, part, "--serial")) == 2
    message = capsys.readouterr().err
    assert "--resume" in message
    assert "--overwrite" in message
    assert records(part) == before
    assert command("run", volumes, "--out", part, "--serial", "--resume", "--overwrite") == 2
    resume(volumes, part)
    assert_nothing_lost(part, before, expected, 0)
    resume(volumes, part)  # a finished run is complete at once
    assert_nothing_lost(part, before, expected, 0)


def test_overwrite_starts_anew(volumes, part, expected, monkeypatch, capsys):
    """Records of tasks must never outlive the results that they stand for, even when it is interrupted."""
    from nx47dask.runs import folder

    (part / "masks").mkdir(exist_ok=True)
    (part / "masks" / "stale.tif").write_bytes(b"")

    def interrupted(path, remove=folder.remove_tree):
        if path.is_dir():
            raise KeyboardInterrupt
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "remove_tree", interrupted)
        assert command(*arguments(volumes, part, "--serial", "--overwrite")) == 130
    assert command(*arguments(volumes, part, "--serial", "--resume")) == 2
    assert command(*arguments(volumes, part, "--serial")) == 2
    assert "--overwrite" in capsys.readouterr().err.splitlines()[-1]
    assert command(*arguments(volumes, part, "--serial", "--overwrite")) == 0
    assert digests(part) == expected[0]


def test_nothing_to_resume(volumes, tmp_path, capsys):
    out = tmp_path / "none"
    assert command("run", volumes, "--out", out, "--serial", "--resume") == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert not out.exists()


def test_folders_of_others_are_left_alone(volumes, tmp_path, capsys):
    out = tmp_path / "home"
    (out / "masks").mkdir(parents=True)
    (out / "masks" / "precious.tif").write_bytes(b"precious")
    for how in ([], ["--overwrite"], ["--resume"]):
        assert command("run", volumes, "--out", out, "--serial", *how) == 2
    assert "no run folder" in capsys.readouterr().err
    assert [path.relative_to(out).as_posix() for path in sorted(out.rglob("*"))] == ["masks", "masks/precious.tif"]
