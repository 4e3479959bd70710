"""Learned detection in whole runs: the same bytes however it is cut; models, backends and resources in the plan."""

from __future__ import annotations

import functools
import json
import os
import signal

import numpy as np
import pytest
import tifffile
import yaml
from distributed import Scheduler, SpecCluster, Worker, get_worker
from rich.console import Console

import nx47dask
from nx47dask.cluster.dask_pool import DaskPool
from nx47dask.detectors import Fusion, Learned, Sheetness, quantise
from nx47dask.engine import Task, window
from nx47dask.errors import DeviceMemoryError, ModelError, PlanMismatchError
from nx47dask.geometry import Box
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.planning.plan import RunPlan
from nx47dask.planning.projection import project
from nx47dask.planning.text import plan_lines
from nx47dask.stages import detect as detect_stage
from tests.conftest import sheets
from tests.integration import reference
from tests.integration.commands import digests, finish, launch, records, runs_of_tasks, wait_for
from tests.integration.tiny_model import learned, write_model

SHAPE = (40, 48, 56)
VOLUME = Box.of_shape(SHAPE)
STEPS = [
    {"smooth": {"sigma_zyx_vox": [0, 0.7, 0.7]}},
    {"hysteresis": {"low": 0.6, "high": 0.7, "by": "value", "connectivity": 26, "per_slice": False}},
]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def image():
    """A scan with an empty corner: windows to skip."""
    scan = sheets(SHAPE)
    scan[:, 20:, 24:] = 0
    return scan


@pytest.fixture(scope="module")
def work(tmp_path_factory, image):
    """A folder with the scan, two models of different windows, and a workflow."""
    folder = tmp_path_factory.mktemp("learned")
    tifffile.imwrite(folder / "scan.tif", image, photometric="minisblack")
    write_model(folder / "a.pt")
    write_model(folder / "b.pt", seed=1, window_zyx=[12, 20, 20], step_zyx=[7, 10, 13], placement="even")
    write_workflow(folder / "workflow.yaml", learned(folder / "a.pt", batch=3))
    return folder


def write_workflow(path, *sources, steps=STEPS, **settings):
    path.write_text(yaml.safe_dump({"detect": [*sources], "postprocess": steps, **settings}))
    return path


def run(work, out, *overrides, workflow="workflow.yaml", **options):
    options = {"block": 24, "serial": True, "console": QUIET, **options}
    return nx47dask.run([work / "scan.tif"], out, workflow=work / workflow, overrides=overrides, **options)


def detect(image, detector):
    """The probability of a whole volume at once."""
    scan = ScanStatistics.of_histogram(np.bincount(image.ravel()))
    return detector.probability(image, VOLUME, VOLUME, VOLUME, scan)


@pytest.fixture(scope="module")
def expected(work, image):
    probability = quantise(detect(image, Learned(str(work / "a.pt"), backend="torch").bind()))
    assert probability[:, :20].std() > 20
    assert not probability[:, 24:, 24:].any()
    return probability


@pytest.mark.parametrize(
    ("block", "overrides"),
    [
        (16, ()),
        (16, ("detect_block=32", "detect.learned.skip=false")),
        (20, ("detect_block=20",)),
        (24, ("detect_block=50", "detect.learned.batch=1")),
        (64, ()),
    ],
)
def test_the_same_bytes_however_it_is_cut(work, tmp_path, image, expected, block, overrides):
    done = run(work, tmp_path / "run", *overrides, block=block)
    assert np.array_equal(done.probability.compute(), expected)
    mask = reference.postprocess(expected, image, [next(iter(step.items())) for step in STEPS])
    assert np.array_equal(done.mask.compute(), mask)


def test_two_workers_share_one_volume(work, tmp_path, expected):
    out = tmp_path / "run"
    options = ("--workflow", work / "workflow.yaml", "--block", 32, "--workers", 2)
    code, _, stderr = finish(launch("run", work / "scan.tif", "--out", out, *options))
    assert code == 0, stderr
    assert np.array_equal(nx47dask.open_run(out).probability.compute(), expected)
    assert len([record for record in records(out) if record[1] == "detect"]) == 2


def test_killed_and_resumed_on_one_worker(work, tmp_path, expected):
    out = tmp_path / "run"
    options = ("--workflow", work / "workflow.yaml", "--block", 16, "--set", "detect_block=16", "--workers", 1)
    client = launch("run", work / "scan.tif", "--out", out, *options)
    wait_for(lambda: "detect" in [record[1] for record in records(out)], client)
    os.killpg(client.pid, signal.SIGKILL)
    finish(client)
    recorded = [record for record in records(out) if record[1] == "detect"]
    assert 0 < len(recorded) < 3 * 3 * 4
    run(work, out, "detect_block=16", block=16, resume=True)
    assert np.array_equal(nx47dask.open_run(out).probability.compute(), expected)
    assert {runs_of_tasks(out)[record] for record in recorded} == {1}


def test_a_box_is_a_crop_of_the_whole(work, tmp_path, expected):
    done = run(work, tmp_path / "run", bbox="5:29,0:33,13:50")
    assert np.array_equal(done.probability.compute(), expected[5:29, 0:33, 13:50])


@pytest.mark.parametrize("combine", ["probability", "logit"])
def test_an_ensemble_with_another_detector(work, tmp_path, image, combine):
    a = {"overlap": 0.25, "mirrors": ["y", "x"], "weight": 2}
    b = {"values": "logit", "blend": "constant", "rotations": True, "support_level": None}
    sources = (learned(work / "a.pt", **a), learned(work / "b.pt", **b), {"sheetness": {"weight": 0.5}})
    write_workflow(work / f"{combine}.yaml", *sources, combine=combine)
    parts = [
        (2.0, Learned(str(work / "a.pt"), overlap=0.25, mirrors=("y", "x"), backend="torch").bind()),
        (
            1.0,
            Learned(
                str(work / "b.pt"),
                values="logit",
                blend="constant",
                rotations=True,
                support_level=None,
                backend="torch",
            ).bind(),
        ),
        (0.5, Sheetness()),
    ]
    p = np.array([detect(image, detector).astype(np.float64) for _, detector in parts])
    weights = np.array([weight for weight, _ in parts])[:, None, None, None] / 3.5
    odds = np.clip(np.log(np.maximum(p, 1e-30) / np.maximum(1 - p, 1e-30)), -16, 16)
    mean = (p * weights).sum(axis=0) if combine == "probability" else 1 / (1 + np.exp(-(odds * weights).sum(axis=0)))
    found = run(work, tmp_path / "run", workflow=f"{combine}.yaml").probability.compute()
    assert np.array_equal(found, quantise(detect(image, Fusion(tuple(parts), combine))))
    assert np.abs(found / 255 - mean).max() < 0.5 / 255 + 1e-5
    assert len(np.unique(found)) > 50


def test_what_decides_the_result_is_in_plan_and_manifest(work, tmp_path):
    write_model(tmp_path / "m.pt")
    tifffile.imwrite(tmp_path / "scan.tif", sheets((16, 24, 24)), photometric="minisblack")
    write_workflow(tmp_path / "workflow.yaml", learned("m.pt"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        plan = nx47dask.plan(["scan.tif"], "run", workflow="workflow.yaml", block=8)
        lines = plan_lines(plan, project(plan))
        done = run(tmp_path, tmp_path / "run", block=8)
        resumed = functools.partial(run, tmp_path, tmp_path / "run", block=8, resume=True)
        (model,) = done.manifest["models"]
        assert str(tmp_path) not in json.dumps(model)
        assert model["engine"]["backend"] == "torch"
        assert model["engine"]["versions"].keys() == {"torch"}
        assert model["window_zyx"] == [16, 16, 16]
        assert any(line.startswith("model      m " + model["sha256"][:12]) for line in lines)
        assert "windows    scan  4 in 1 blocks of 16x24x24  runs 1.00x" in lines, "two windows in either half and all"
        with pytest.raises(PlanMismatchError, match=r'models\[0\].engine.backend was "torch", is "openvino"'):
            resumed("detect.learned.backend=openvino")
        write_model(tmp_path / "m.pt", seed=5)
        with pytest.raises(PlanMismatchError, match=rf'models\[0\].sha256 was "{model["sha256"]}", is "'):
            resumed()


def test_a_model_that_vanished_after_planning(tmp_path, monkeypatch):
    model = write_model(tmp_path / "gone.pt", seed=7)
    tifffile.imwrite(tmp_path / "scan.tif", sheets((16, 24, 24)), photometric="minisblack")
    write_workflow(tmp_path / "workflow.yaml", learned(model))
    claim = RunPlan.claim
    monkeypatch.setattr(RunPlan, "claim", lambda plan: (claim(plan), model.unlink()))
    with pytest.raises(ModelError, match=r"scan, detect, block 0 .*gone\.pt.*missing on this machine"):
        run(tmp_path, tmp_path / "run")


@pytest.mark.parametrize("by", ["value", "slice", "volume"])
def test_probability_in_16_bits(work, tmp_path, image, by):
    steps = [{"support": {}}, STEPS[0], {"threshold": {"value": 0.7, "by": by}}]
    write_workflow(work / "fine.yaml", learned(work / "a.pt"), steps=steps, probability="uint16")
    done = run(work, tmp_path / "run", workflow="fine.yaml", block=32)
    probability = done.probability.compute()
    fine = quantise(detect(image, Learned(str(work / "a.pt"), backend="torch").bind()), np.uint16)
    assert probability.dtype == np.uint16
    assert np.array_equal(probability, fine)
    attributes = json.loads((done.path / "store/scan.zarr/probability/zarr.json").read_text())["attributes"]
    assert attributes["probability_per_level"] == 1 / 65535
    kept = reference.support(fine, image, 0, 2)
    smooth = reference.smooth(kept, (0, 0.7, 0.7))
    assert smooth.dtype == np.uint16
    assert np.array_equal(done.mask.compute(), reference.binarise(smooth, (0.7,), by)[0])


def test_tasks_of_a_gpu_go_to_workers_that_have_one(work, tmp_path):
    planned = nx47dask.plan(
        [work / "scan.tif"], tmp_path, workflow=work / "workflow.yaml", overrides=["detect.learned.device=cuda"]
    )
    assert planned.detector.uses_gpu
    options = {"nthreads": 1, "dashboard": False, "nanny": False}
    workers = {
        "plain": {"cls": Worker, "options": options},
        "gpu": {"cls": Worker, "options": {**options, "resources": {"GPU": 1}}},
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "dashboard_address": ":0"}}
    with SpecCluster(workers=workers, scheduler=scheduler, silence_logs=50) as cluster, cluster.get_client() as client:
        client.wait_for_workers(2)
        assert set(_places(DaskPool(client), {"GPU": 1.0})) == {"gpu"}
        assert set(_places(DaskPool(client), {"TPU": 1.0})) == {"plain", "gpu"}, "what no worker has is not asked for"


def test_a_gpu_without_memory_gets_the_block_in_pieces(work, tmp_path, monkeypatch):
    """The same bytes as in one piece, and the retry is counted."""
    whole = run(work, tmp_path / "whole", block=16)
    probability, asked = detect_stage._probability, []

    def exhausted(job, detector, scan, thresholds, box):
        asked.append(box)
        if max(box.shape) > 16:
            raise DeviceMemoryError("out of memory")
        return probability(job, detector, scan, thresholds, box)

    monkeypatch.setattr(Fusion, "uses_gpu", property(lambda self: True))
    monkeypatch.setattr(detect_stage, "_probability", exhausted)
    monkeypatch.setattr(window, "RETRY_AFTER_S", (0.0, 0.0))
    pieces = run(work, tmp_path / "pieces", block=16)
    assert np.array_equal(pieces.probability.compute(), whole.probability.compute())
    assert digests(pieces.path) == digests(whole.path)
    assert any(max(box.shape) > 16 for box in asked)
    assert pieces.manifest["stages"]["detect"]["retried"] == len([box for box in asked if max(box.shape) > 16])


def _places(pool, resources):
    """Names of the workers that ran six tasks."""
    assert pool.window
    for number in range(6):
        pool.submit(number, Task(number, "here", _place, (), resources=resources), ("scan", "stage", number), "here")
    found = []
    while len(found) < 6:
        outcomes = pool.wait(None)
        assert [outcome.error for outcome in outcomes if outcome.error] == []
        found += [outcome.result["name"] for outcome in outcomes]
    return found


def _place():
    return {"name": get_worker().name}
