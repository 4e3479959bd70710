"""Plans know where their run will run: for a campaign, for ``plan``, for ``run --dry-run``, for an estimate of time."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tifffile
import yaml

import nx47dask
from nx47dask.commands import campaign as campaign_command
from nx47dask.commands import estimate as estimate_command
from nx47dask.commands import run as run_command
from nx47dask.errors import BlockError, InputError
from nx47dask.planning.projection import project
from nx47dask.planning.text import plan_lines
from tests.conftest import sheets
from tests.integration.commands import command
from tests.integration.tiny_model import learned, write_model

SLURM = {"kind": "slurm", "workers": 2, "memory": "8GiB", "gpu_workers": 1}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current directory with a scan, labels, a workflow with a network, and a cluster that has GPUs."""
    for name, voxels in (("scan", sheets((16, 24, 24))), ("labels", (sheets((16, 24, 24)) > 130).astype(np.uint8))):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", voxels, photometric="minisblack")
    write_model(tmp_path / "m.pt")
    steps = [{"threshold": {"value": 0.6, "by": "value"}}]
    (tmp_path / "network.yaml").write_text(yaml.safe_dump({"detect": [learned("m.pt")], "postprocess": steps}))
    (tmp_path / "slurm.yaml").write_text(yaml.safe_dump(SLURM))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return tmp_path


def test_a_campaign_goes_on_with_the_plans_of_its_runs(here, monkeypatch):
    """Plans of the second call are those that the runs of the first have claimed."""
    runs = {"runs": {"new": {"workflow": "network.yaml"}}}
    (here / "campaign.yaml").write_text(yaml.safe_dump({"volumes": "scan", "baseline": "new", **runs}))
    devices = []

    def claim_and_stop(inputs, out, *, workflow, overrides, labels, where, **options):
        planned = nx47dask.plan(inputs, out, workflow=workflow, overrides=overrides, labels=labels, where=where)
        planned.check(resume=options["resume"])
        planned.claim()
        devices.append([network.runtime.device for network in planned.networks])
        raise BlockError("stopped")

    monkeypatch.setattr(campaign_command, "run", claim_and_stop)
    for _ in range(2):
        with pytest.raises(BlockError, match="run new of the campaign: stopped"):
            nx47dask.campaign("campaign.yaml", "out", cluster="slurm.yaml")
    assert devices == [["cuda"], ["cuda"]]


@pytest.mark.parametrize(
    "given",
    [
        ["--cluster", "slurm.yaml"],
        ["--labels", "labels"],
        ["--serial"],
        ["--serial", "--labels", "labels", "--block", "8", "--delete-stores"],
    ],
)
def test_a_dry_run_and_plan_show_the_plan_of_the_run(here, monkeypatch, capsys, given):
    made = []

    def stop(planned, projection):
        made.append(plan_lines(planned, projection))
        raise InputError("stopped")

    monkeypatch.setattr(run_command, "require_disk", stop)
    arguments = ("scan", "--out", "out", "--workflow", "network.yaml", *given)
    assert command("run", *arguments) == 2
    capsys.readouterr()
    shown = []
    for words in (("plan",), ("run", "--dry-run")):
        assert command(*words, *arguments) == 0
        shown.append(capsys.readouterr().out.splitlines())
    assert shown == made * 2
    text = "\n".join(made[0])
    assert ("torch on cuda" in text) == ("--cluster" in given)
    assert bool(re.search("^score ", text, re.MULTILINE)) == ("--labels" in given)
    assert not (here / "out").exists()


def test_a_serial_run_plans_its_client_to_do_the_work(here):
    plans = [nx47dask.plan(["scan"], "out", workflow="network.yaml", serial=serial) for serial in (False, True)]
    projections = [project(planned) for planned in plans]
    assert projections[0].client_bytes < projections[1].client_bytes
    assert plans[0].digest == plans[1].digest


def test_the_time_of_scoring_is_estimated(here, capsys):
    """The piece is scored as well; of its labels there may be none, which scoring would refuse."""
    voxels = np.full((16, 24, 24), 2, np.uint8)
    voxels[0, 0, 0] = 1
    tifffile.imwrite(here / "labels" / "a.tif", voxels, photometric="minisblack")
    part = ("scan", "--workflow", "fast", "--bbox", "8:16,8:24,8:24", "--labels", "labels")
    assert command("plan", *part, "--calibrate", "--workers", "3") == 0
    out = capsys.readouterr().out
    assert re.search(r"^score .* (ms|s) ", out, re.MULTILINE)
    assert re.search(r"^time +about .* with 3 workers$", out, re.MULTILINE)


def test_a_run_on_gpus_is_not_timed_where_there_are_none(here, monkeypatch, capsys):
    monkeypatch.setattr(estimate_command, "visible_gpus", list)
    arguments = ("plan", "scan", "--workflow", "network.yaml", "--cluster", "slurm.yaml", "--calibrate")
    assert command(*arguments) == 2
    assert "this machine has none" in capsys.readouterr().err
