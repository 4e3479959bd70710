"""Calibration end to end on small phantoms: what it writes, resumes, repeats and refuses."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import yaml

import nx47dask
from nx47dask import calibrate
from nx47dask.calibration.methods.space import space_from
from nx47dask.engine import Ledger
from nx47dask.engine.deadline import Deadline
from nx47dask.errors import InputError
from nx47dask.phantom.write import write_phantom
from nx47dask.runs.status import read_status
from nx47dask.workflow import load_workflow
from tests.integration.commands import command

SPACE = {
    "detect.residual.weight": [0.0, 0.3, 1.0],
    "postprocess.hysteresis.low": {"low": 0.78, "high": 0.9, "step": 0.02},
    "postprocess.small_objects.min_vox": {"low": 20, "high": 500, "log": True, "integer": True},
    "postprocess.closing.use": [True, False],
}
RESULTS = ("calibration.json", "calibration.csv", "calibration.md", "calibration.html", "per_volume.yaml")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three phantoms of two scrolls in the competition's layout."""
    folder = tmp_path_factory.mktemp("phantoms")
    ids = write_phantom(folder, (24, 40, 40), 3, count=3)
    rows = [f"{name},{7 + (number == 2)}" for number, name in enumerate(ids)]
    (folder / "train.csv").write_text("\n".join(["id,scroll_id", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(yaml.safe_dump(SPACE))
    return path


@pytest.fixture(scope="module")
def once(data, space, tmp_path_factory):
    """A calibration, and what it found."""
    out = tmp_path_factory.mktemp("calibration") / "once"
    return out, calibrate_here(data, out, space)


def calibrate_here(data, out, space, **options):
    settings = {"trials": 6, "serial": True, "space": space, "recall_loss": 1.0} | options
    return calibrate([data / "train_images"], data / "train_labels", out, **settings)


def test_a_candidate_has_the_mask_and_the_score_of_a_run(once, data, tmp_path):
    out, found = once
    workflow = out / ("best.yaml" if found["promoted"] else "candidate.yaml")
    run = nx47dask.run([data / "train_images"], tmp_path / "run", workflow=workflow, serial=True,
                       labels=data / "train_labels", block=16)  # fmt: skip
    for volume, terms in found["workflows"]["best"]["terms"].items():
        score = run.scores[volume]
        assert {name: score[name] for name in ("score", "topo", "surface_dice", "voi")}.items() <= terms.items()
        assert score["agreement"]["2"]["recall"] == terms["recall"]
        assert run.volume_metrics[volume]["mask"]["density"] == terms["density"]
        assert run.volume_metrics[volume]["mask"]["components_26"] == terms["components"]


@pytest.mark.parametrize("records", [30, pytest.param(60, marks=pytest.mark.slow)])
def test_a_killed_search_goes_on_with_the_same_bytes_and_loses_what_was_in_flight(
    once, data, space, tmp_path, monkeypatch, records
):
    out, _ = once
    again, append, count = tmp_path / "again", Ledger.append, 0

    def killed(self, volume, record):
        nonlocal count
        if volume == "candidates":
            count += 1
            if count > records:
                raise KeyboardInterrupt
        append(self, volume, record)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            calibrate_here(data, again, space)
    before = (again / "ledger" / "candidates.jsonl").read_text()
    calibrate_here(data, again, space, resume=True, serial=False, workers=2)
    for name in RESULTS:
        assert (again / name).read_bytes() == (out / name).read_bytes(), name
    whole = (again / "ledger" / "candidates.jsonl").read_text()
    assert whole.startswith(before)
    assert len(whole.splitlines()) == len((out / "ledger" / "candidates.jsonl").read_text().splitlines())


def test_a_search_that_is_out_of_time_ends_with_what_it_has_and_goes_on_later(data, space, tmp_path, monkeypatch):
    def search(rounds, **options):
        over = iter([False] * rounds)

        class Rounds(Deadline):
            def over(self):
                return next(over, True)

        monkeypatch.setattr("nx47dask.calibration.calibrate.Deadline", Rounds)
        found = calibrate_here(data, tmp_path / "out", space, trials=40, **options)
        assert found["workflows"]["best"]["terms"].keys() == {volume["id"] for volume in found["volumes"]}
        return [(trial["study"], trial["number"], trial["candidate"], trial["terms"]) for trial in found["trials"]]

    first = search(1)
    assert len(first) == 4 * 5, "a round of each study"
    second = search(2, resume=True)
    assert len(second) == 2 * len(first)
    assert second[: len(first)] == first


def test_folds_leave_out_volumes_and_scrolls(once):
    _, found = once
    ids = [volume["id"] for volume in found["volumes"]]
    held_out = [fold["held_out"] for fold in found["folds"]]
    assert sorted(map(sorted, held_out)) == sorted([[ids[0]], [ids[1]], [ids[2]], ids[:2]])
    for fold in found["folds"]:
        trials = [trial for trial in found["trials"] if trial["study"] == fold["name"]]
        assert len(trials) == 6
        seen = {volume for trial in trials for volume in trial["terms"]}
        assert seen == set(ids).difference(fold["held_out"]), "a search has seen what it must not"


def test_results_for_people_and_programs(once, data):
    out, found = once
    table = pq.read_table(out / "trials.parquet").to_pylist()
    assert len(table) == len(found["trials"])
    per_volume = yaml.safe_load((out / "per_volume.yaml").read_text())
    assert per_volume.keys() == {volume["id"] for volume in found["volumes"]}
    assert (out / "studies.log").stat().st_size > 0
    name = "best.yaml" if found["promoted"] else "candidate.yaml"
    first, second = (out / name).read_text().splitlines()[:2]
    assert f"nx47dask calibrate {data / 'train_images'}" in first
    assert "held-out score" in second


def test_the_command_says_what_it_found_and_fails_the_gate_where_it_refuses(once, data, space, capsys):
    out, found = once
    given = ("calibrate", data / "train_images", "--labels", data / "train_labels", "--out", out, "--space", space)
    code = command(*given, "--trials", 6, "--recall-loss", 1, "--serial", "--resume")
    told = capsys.readouterr()
    assert code == (0 if found["promoted"] else 4)
    assert told.out.startswith("Calibration of v61.2 on 3 volumes\nHeld-out score 0.")
    assert ("refused" in told.err) == (not found["promoted"])
    status = read_status(out, 0)
    assert (status.state, status.share, status.finished) == ("finished", 1.0, status.volumes)
    assert {stage.name for stage in status.stages} >= {"detect", "search.1a", "around"}
    assert all(stage.done == stage.tasks for stage in status.stages)
    assert command(*given, "--trials", 6, "--serial") == 2, "the folder is taken"
    assert "--resume" in capsys.readouterr().err


def test_one_volume_gives_no_estimate_and_promotes_nothing(data, space, tmp_path):
    image = next((data / "train_images").glob("*.tif"))
    found = calibrate([image], data / "train_labels", tmp_path / "out", space=space, trials=3, serial=True)
    assert not found["promoted"]
    assert any("one volume" in reason for reason in found["reasons"])
    assert not (tmp_path / "out" / "best.yaml").exists()


def test_bad_input_is_refused_before_anything_runs(data, space, tmp_path):
    def refused(match, **options):
        images, labels = options.pop("images", data / "train_images"), options.pop("labels", data / "train_labels")
        with pytest.raises(InputError, match=match):
            calibrate([images], labels, tmp_path / "out", **{"space": space, "serial": True} | options)
        assert not (tmp_path / "out" / "ledger" / "candidates.jsonl").exists()

    few = tmp_path / "few"
    shutil.copytree(data / "train_labels", few)
    first = min(few.glob("*.tif"))
    shape = tifffile.imread(first).shape
    tifffile.imwrite(first, np.full(shape, 2, np.uint8))
    refused("no voxel|no surface|1", labels=few)
    first.unlink()
    refused(f"no labels of {first.stem}", labels=few)
    impossible = tmp_path / "space.yaml"
    impossible.write_text("postprocess.hysteresis.low: {low: 0.9, high: 0.7}\n")
    refused(r"space.yaml, line 1.*0\.9", space=impossible)
    refused("gives a mask", workflow="v61.1", space=None)
    refused("no such run folder", baseline="nothing-here")


def test_a_baseline_of_other_volumes_is_refused(data, space, tmp_path):
    (other,) = write_phantom(tmp_path / "other", (24, 32, 32), 99)
    nx47dask.run([tmp_path / "other" / "train_images"], tmp_path / "run", workflow="fast", serial=True)
    with pytest.raises(InputError, match=f"is of the volumes {other}, not of"):
        calibrate_here(data, tmp_path / "out", space, baseline=str(tmp_path / "run"))


def test_another_space_cannot_take_up_the_folder(once, data, tmp_path, space):
    out, _ = once
    with pytest.raises(InputError, match="another plan"):
        calibrate_here(data, out, space, trials=12, resume=True)


def test_a_grid_is_measured_whole_and_its_best_points_are_scored(data, tmp_path):
    grid = {
        "postprocess.hysteresis.low": {"low": 0.8, "high": 0.9, "step": 0.05},
        "postprocess.hysteresis.high": {"low": 0.85, "high": 0.95, "step": 0.05},
        "postprocess.small_objects.min_vox": [20, 200],
        "postprocess.closing.use": [True, False],
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    out = tmp_path / "out"
    found = calibrate_here(data, out, tmp_path / "grid.yaml", trials=4)
    assert found["method"] == "grid"
    records = [json.loads(line) for line in (out / "ledger" / "candidates.jsonl").read_text().splitlines()]
    measured = [record["cheap"] for record in records if record["stage"] == "shortlist"]
    assert len(measured) == 3 * 2, "one table for each volume, with and without closing"
    assert all(len(cheap) == 16 for cheap in measured), "3 x 3 thresholds, of which one is impossible, x 2 sizes"
    trials = [trial for trial in found["trials"] if trial["study"] == "all"]
    assert len(trials) == 4
    best = np.max([np.mean(cheaps, axis=0).max() for cheaps in (measured[0::2], measured[1::2])])
    first = trials[1]["candidate"]
    index = list(space_from(grid, load_workflow("v61.2").resolved, lambda key, words: words).grid())
    group = [one for one in index if one["postprocess.closing.use"] == first["postprocess.closing.use"]]
    cheaps = (
        measured[0::2] if index[0]["postprocess.closing.use"] == first["postprocess.closing.use"] else measured[1::2]
    )
    assert np.mean(cheaps, axis=0)[group.index(first)] == best
