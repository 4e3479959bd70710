"""``nx47dask status`` of a run folder on an S3 server."""

from __future__ import annotations

import time

import tifffile

from nx47dask.engine import lock_run
from nx47dask.files.paths import locate
from nx47dask.files.remote import filesystem
from nx47dask.runs.status import read_status
from tests.conftest import sheets
from tests.integration.commands import command, write_workflow
from tests.integration.object_store import BUCKET, running_store, store  # noqa: F401

RUN = f"s3://{BUCKET}/runs/status"


def test_status_of_a_run_on_s3(store, tmp_path, capsys):  # noqa: F811
    tifffile.imwrite(tmp_path / "scan.tif", sheets((16, 40, 32)), photometric="minisblack")
    out = tmp_path / "run"
    assert command("run", tmp_path / "scan.tif", "--out", out, "--workflow", write_workflow(tmp_path), "--serial") == 0
    names = [*(out / "ledger").iterdir(), out / "events.jsonl", out / "manifest.json"]
    for path in names:
        filesystem("s3").put_file(str(path), f"{RUN.removeprefix('s3://')}/{path.relative_to(out)}")
    capsys.readouterr()
    store.reset()
    assert command("status", RUN) == 0
    shown = capsys.readouterr().out
    assert "finished" in shown
    assert RUN in shown
    assert {method for method, _, _ in store.requests} <= {"GET", "HEAD"}, "a look writes nothing"
    with lock_run(locate(RUN)):
        found = read_status(locate(RUN), time.time())
    assert found.state == "running"
    assert found.owner.startswith("process ")
    assert read_status(locate(RUN), time.time()).state == "finished"
    assert command("status", f"s3://{BUCKET}/nothing") == 2
