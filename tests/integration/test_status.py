"""``nx47dask status``: a run that is under way, killed, finished, with a quarantined block, or not there."""

from __future__ import annotations

import json
import signal
import time

import pytest
import tifffile

from nx47dask.engine import lock_run
from nx47dask.errors import InputError
from nx47dask.runs.status import read_status
from tests.conftest import sheets
from tests.integration.commands import command, finish, launch, records, wait_for, write_workflow


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("status")
    for n in range(2):
        (folder / "in").mkdir(exist_ok=True)
        tifffile.imwrite(folder / "in" / f"91000000{n}.tif", sheets((32, 48, 40), n), photometric="minisblack")
    write_workflow(folder)
    return folder


def arguments(scans, out, *options):
    return ["run", scans / "in", "--out", out, "--workflow", scans / "workflow.yaml", "--block", 16, *options]


@pytest.fixture(scope="module")
def finished(scans):
    assert command(*arguments(scans, scans / "finished", "--serial")) == 0
    return scans / "finished"


def status(capsys, run, *options):
    """Exit code and standard output of the command on an 80-column terminal."""
    code = command("status", run, *options)
    return code, capsys.readouterr().out


def test_finished_run(finished, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, text = status(capsys, finished)
    assert code == 0
    assert "2 of 2 volumes finished; 100 % of the work is done" in text
    assert "next: nothing is left to do" in text
    assert max(map(len, text.splitlines()[1:])) <= 80
    code, text = status(capsys, finished, "--json", "-")
    found = json.loads(text)
    assert (code, found["state"], found["owner"], found["left_s"]) == (0, "finished", None, None)
    assert [stage["name"] for stage in found["stages"] if not stage["merges"]] == [
        *("ingest", "detect", *(f"postprocess.{n}" for n in range(1, 6))),
        *("measure", "export"),
    ]
    assert all(stage["done"] == stage["tasks"] for stage in found["stages"])


def test_run_under_way_and_killed(scans, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = scans / "killed"
    client = launch(*arguments(scans, out, "--workers", 1))
    try:
        wait_for(lambda: len(records(out)) > 40, client)
        client.send_signal(signal.SIGSTOP)  # under way for as long as we look
        code, text = status(capsys, out)
        alive = read_status(out, time.time())
    finally:
        client.kill()
        client.send_signal(signal.SIGCONT)
        finish(client)
    assert code == 0
    assert f"running, process {client.pid} on " in text
    assert " left" in text
    assert (alive.state, alive.finished) == ("running", 0)
    assert 0 < alive.share < 1
    assert alive.voxels_per_s > 0
    assert alive.left_s > 0
    detect = next(stage for stage in alive.stages if stage.name == "detect")
    assert detect.tasks == 2 * 18, "a volume that has not begun counts"
    assert "export" in alive.unknown
    code, text = status(capsys, out)
    assert code == 0
    assert "killed or cut off" in text
    flat = " ".join(text.split())
    assert "next: nx47dask run " in flat
    assert flat.endswith("--resume")


def test_quarantined_block_is_named_until_it_is_done(scans, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("nx47dask.engine.window.RETRY_AFTER_S", (0.0, 0.0))
    from nx47dask.stages import measure

    out = scans / "quarantined"
    whole = measure.measure_block

    def broken(job, number, *others):
        if job.id == "910000001" and number == 5:
            raise ValueError("no such\nchunk")
        return whole(job, number, *others)

    with monkeypatch.context() as patch:
        patch.setattr(measure, "measure_block", broken)
        assert command(*arguments(scans, out, "--serial")) == 3
    capsys.readouterr()
    code, text = status(capsys, out)
    text = " ".join(text.split())
    assert code == 0
    assert "stopped before it was complete" in text
    assert "1 of 2 volumes finished" in text
    assert "quarantined: 910000001, measure, block 5 [" in text
    assert "ValueError: no such" in text
    found = read_status(out, time.time())
    assert [(one.volume, one.stage, one.number) for one in found.quarantined] == [("910000001", "measure", 5)]
    assert "\n" not in found.quarantined[0].message
    assert next((s.retried, s.quarantined) for s in found.stages if s.name == "measure") == (2, 1)
    assert command(*arguments(scans, out, "--serial", "--resume")) == 0
    found = read_status(out, time.time())
    assert (found.state, found.quarantined, found.finished) == ("finished", [], 2)


def test_no_run_folder(tmp_path, capsys):
    assert command("status", tmp_path) == 2
    assert "no run folder" in capsys.readouterr().err
    assert command("status", tmp_path / "nowhere") == 2
    capsys.readouterr()
    with lock_run(tmp_path):
        assert command("status", tmp_path) == 2
    assert "is starting a run here" in capsys.readouterr().err


def test_damaged_ledger_is_named(finished, tmp_path):
    (tmp_path / "ledger").mkdir()
    plan = (finished / "ledger" / "plan.json").read_text()
    (tmp_path / "ledger" / "plan.json").write_text(plan)
    assert read_status(tmp_path, time.time()).share == 0
    (tmp_path / "ledger" / "910000001.jsonl").write_text("{\n")
    with pytest.raises(InputError, match=r"910000001\.jsonl"):
        read_status(tmp_path, time.time())


def test_many_records_are_read_in_seconds(finished, tmp_path):
    volumes = json.loads((finished / "ledger" / "plan.json").read_text())
    volumes["inputs"] = {"scroll": volumes["inputs"]["910000000"]}
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "plan.json").write_text(json.dumps(volumes))
    stages, blocks = [f"postprocess.{n}" for n in range(6)], 10_000
    with (tmp_path / "ledger" / "scroll.jsonl").open("w") as ledger, (tmp_path / "events.jsonl").open("w") as events:
        events.write(json.dumps({"time_s": 0.0, "event": "run-started", "workflow": "w", "stages": stages}) + "\n")
        for stage in stages:
            told = {"volume": "scroll", "stage": stage}
            began = {"event": "stage-started", "tasks": blocks, "voxels": blocks}
            events.write(json.dumps({"time_s": 0.0, **began, **told}) + "\n")
            for n in range(blocks):
                files = {f"store/scroll.zarr/work/mask.1/0/c/{n}/{n}/{n}": 12345}
                record = {"stage": stage, "number": n, "seconds": 1.5, "worker": "node-1", "peak_rss_bytes": 1}
                ledger.write(json.dumps({**record, "files": files}) + "\n")
                event = {"time_s": 1.0 * n, "event": "task-finished", **told, "number": n, "seconds": 1.5}
                events.write(json.dumps(event) + "\n")
    start = time.perf_counter()
    found = read_status(tmp_path, 10_000.0)
    assert time.perf_counter() - start < 15
    assert sum(stage.done for stage in found.stages) == 6 * blocks
    assert (found.state, found.share) == ("killed", 1.0)
