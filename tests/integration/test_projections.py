"""Measured must not exceed projected: memory of worker and client, disk, tasks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import yaml

import nx47dask
from nx47dask.planning.projection import project
from tests.integration.commands import WORKFLOW, finish, launch, write_workflow
from tests.integration.tiny_model import learned, write_model

CASES = [
    pytest.param(64, "tests"),
    *(
        pytest.param(edge, kind, marks=pytest.mark.slow)
        for edge in (96, 160, 224)
        for kind in ("learned 32", "learned 64", "fast", "tests", "surface", "v61.1")
    ),
]


def workflow_of(kind, folder):
    """A preset, or one of the tests' workflows as a file."""
    if kind == "tests":
        return write_workflow(folder)
    if not kind.startswith("learned"):
        return kind
    source = learned(write_model(folder / "model.pt", window_zyx=[int(kind.split()[1])] * 3))
    (folder / "learned.yaml").write_text(yaml.safe_dump({"detect": [source], "postprocess": ["hysteresis"]}))
    return folder / "learned.yaml"


def phantom(folder, edge):
    """A synthetic scan, as the command makes it."""
    code, _, err = finish(launch("phantom", "--out", folder, "--shape", f"{edge},{edge},{edge}"))
    assert code == 0, err
    return folder / "train_images"


@pytest.mark.parametrize(("edge", "kind"), CASES)
def test_a_run_takes_no_more_than_projected(tmp_path, edge, kind):
    images = phantom(tmp_path / "phantom", edge)
    workflow, out = workflow_of(kind, tmp_path), tmp_path / "run"
    options = ("--workflow", workflow, "--workers", 1, "--block", 96)
    code, _, err = finish(launch("run", images, "--out", out, *options, cwd=tmp_path))
    assert code == 0, err
    manifest = json.loads((out / "manifest.json").read_text())
    memory, disk = manifest["memory"], manifest["disk"]
    worker = max(stage["peak_rss_bytes"] for stage in manifest["stages"].values())
    assert 0.3 * memory["projected_worker_bytes"] < worker <= memory["projected_worker_bytes"]
    assert 0.3 * memory["projected_client_bytes"] < memory["client_peak_rss_bytes"] <= memory["projected_client_bytes"]
    kept = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert 0.3 * disk["projected_bytes"] < disk["measured_bytes"] <= disk["projected_bytes"]
    assert kept < 1.2 * disk["projected_bytes"], "with the report, which no plan can know"
    assert "projected." not in (out / "report.md").read_text(), "no warning"
    assert "memory of the client" in (out / "report.html").read_text()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("band", [False, True])
def test_stages_take_the_tasks_and_at_most_the_disk_of_the_plan(tmp_path, dtype, band):
    """Noise, of which nothing compresses."""
    noise = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (40, 70, 60), dtype=dtype)
    tifffile.imwrite(tmp_path / "noise.tif", noise, photometric="minisblack")
    chain = {"detect": ["residual_band"], "postprocess": [{"threshold": {"value": 0.5}}]} if band else WORKFLOW
    settings = {"probability": "uint16"} if dtype == np.uint16 and not band else {}
    (tmp_path / "w.yaml").write_text(yaml.safe_dump(chain | settings))
    options = {"workflow": tmp_path / "w.yaml", "block": 32}
    loads = {
        load.stage: load for load in project(nx47dask.plan([tmp_path / "noise.tif"], tmp_path / "p", **options)).loads
    }
    run = nx47dask.run([tmp_path / "noise.tif"], tmp_path / "run", serial=True, **options)
    stages = run.manifest["stages"]
    assert list(loads) == [stage for stage in stages if stage in loads]
    for stage, load in loads.items():
        own = [usage for name, usage in stages.items() if name == stage or name.startswith(f"{stage}.")]
        if stage == "detect":
            own = [stages["detect"]]
        assert stages[stage]["tasks"] + stages[stage]["skipped"] == load.tasks, stage
        beside = sum(usage["tasks"] for usage in own) - stages[stage]["tasks"]
        assert beside <= load.links + load.merges, stage
        assert sum(usage["stored_bytes"] for usage in own) <= load.stored_bytes, stage
    measured = sum(usage["tasks"] + usage["skipped"] for usage in stages.values())
    assert measured <= sum(load.tasks + load.links + load.merges for load in loads.values())
