"""Campaigns: runs beside each other, one table, and going on where it stopped."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from rich.console import Console

from nx47dask.commands import campaign as stage
from nx47dask.commands.campaign_file import RunMeasures, read_campaign, summarise
from nx47dask.commands.freeze import freeze
from nx47dask.errors import BlockError, GateError, InputError, PlanMismatchError
from nx47dask.files.atomic import sha256_file
from nx47dask.reports.campaign import write_campaign
from nx47dask.runs.baselines import write_external
from nx47dask.runs.measures import volume_measures
from nx47dask.runs.run import open_run
from tests.conftest import sheets
from tests.integration.commands import command
from tests.integration.tiny_runs import score_record

IDS = ("910000001", "910000002")
FILES = ("campaign.md", "campaign.csv", "campaign.json", "campaign.html")
RESIDUAL = {
    "detect": [{"residual": {"sigma_base": 1.3}}],
    "postprocess": [{"hysteresis": {"low": 0.6, "high": 0.8, "by": "volume"}}, {"small_objects": {"min_vox": 20}}],
}
LOW = "postprocess.hysteresis.low=0.5"


RUNS = {
    "old": {"workflow": "v61.1"},
    "new": {"workflow": "residual.yaml"},
    "low": {"workflow": "residual.yaml", "set": [LOW]},
}


def write_campaign_file(folder, **keys):
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump({"volumes": "scans", "baseline": "old", "runs": RUNS, **keys}, sort_keys=False))
    return path


def go(path, **options):
    """Run a campaign in this process; returns what it says on the console as well."""
    said = io.StringIO()
    summary = stage.campaign(path, path.parent / "out", serial=True, console=Console(file=said), **options)
    return summary, said.getvalue()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Scans, a workflow and a campaign that has not been run."""
    folder = tmp_path_factory.mktemp("fresh")
    (folder / "scans").mkdir()
    for seed, volume in enumerate(IDS):
        tifffile.imwrite(folder / "scans" / f"{volume}.tif", sheets((10, 24, 22), seed), photometric="minisblack")
    (folder / "residual.yaml").write_text(yaml.safe_dump(RESIDUAL))
    write_campaign_file(folder)
    return folder


@pytest.fixture(scope="module")
def finished(fresh, tmp_path_factory):
    """The same after the campaign."""
    folder = shutil.copytree(fresh, tmp_path_factory.mktemp("finished") / "all")
    go(folder / "campaign.yaml")
    return folder


@pytest.fixture
def here(finished, tmp_path):
    """A copy of the finished campaign."""
    return shutil.copytree(finished, tmp_path / "here")


@pytest.fixture
def frozen(here):
    """A frozen baseline of the campaign's volumes."""
    return freeze(open_run(here / "out" / "old"), "frozen", here / "baselines")


def contents(out):
    return {name: (out / name).read_bytes() for name in FILES}


def measures(run, name):
    return [open_run(run).volume_metrics[volume]["mask"][name] for volume in IDS]


def test_a_campaign_compares_its_runs(finished):
    out = finished / "out"
    summary = json.loads((out / "campaign.json").read_text())
    density = {name: np.array(measures(out / name, "density")) for name in ("old", "new", "low")}
    assert summary["runs"].keys() == density.keys()
    difference = density["low"] - density["old"]
    low = summary["runs"]["low"]
    assert low["mean"]["density"] == pytest.approx(density["low"].mean())
    assert low["difference"]["density"]["mean"] == pytest.approx(difference.mean())
    assert low["difference"]["density"]["low"] <= difference.mean() <= low["difference"]["density"]["high"]
    assert low["set"] == [LOW]
    assert "difference" not in summary["runs"]["old"]
    for place, volume in enumerate(IDS):
        values = np.array([density[name][place] for name in density])
        spread = summary["spread"][volume]["density"]
        assert spread["range"] == pytest.approx(np.ptp(values))
        assert spread["std"] == pytest.approx(values.std())
        assert spread["max_run"] == list(density)[values.argmax()]
    rows = list(csv.DictReader((out / "campaign.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["old", "new", "low"]
    assert float(rows[2]["density_difference_mean"]) == pytest.approx(difference.mean())
    page = (out / "campaign.md").read_text()
    assert re.search(rf"\| low \| {density['low'].mean():.4f} \|", page)
    assert "no labels, so no scores" in page


def test_a_finished_campaign_runs_nothing_again(here, monkeypatch):
    before = contents(here / "out")
    monkeypatch.setattr(stage, "run", None)
    _, said = go(here / "campaign.yaml")
    assert said.count("finished before, not run again") == 3
    assert contents(here / "out") == before


def test_a_stopped_campaign_goes_on(here, monkeypatch):
    before = contents(here / "out")
    shutil.rmtree(here / "out" / "new")
    (here / "out" / "campaign.json").unlink()
    real, calls = stage.run, []

    def stop_at_first(inputs, out, **options):
        calls.append(out.name)
        if len(calls) == 1:
            raise BlockError("block 3 failed; go on with --resume")
        return real(inputs, out, **options)

    monkeypatch.setattr(stage, "run", stop_at_first)
    with pytest.raises(BlockError, match=r"run new .*: block 3 failed; go on with the same campaign command"):
        go(here / "campaign.yaml")
    assert not (here / "out" / "campaign.json").exists()
    go(here / "campaign.yaml")
    assert calls == ["new", "new"]
    assert contents(here / "out") == before


def test_a_run_whose_mask_is_gone_is_made_again(here):
    before = contents(here / "out")
    (here / "out" / "new" / "masks" / f"{IDS[0]}.tif").unlink()
    _, said = go(here / "campaign.yaml")
    assert said.count("not run again") == 2
    assert contents(here / "out") == before


def test_a_folder_of_another_run_is_refused_before_anything_runs(here, monkeypatch):
    monkeypatch.setattr(stage, "run", None)
    other = {"low": {"workflow": "residual.yaml", "set": ["postprocess.hysteresis.low=0.4"]}}
    with pytest.raises(PlanMismatchError, match=r"out/low: .*low was 0\.5, is 0\.4; delete this folder") as error:
        go(write_campaign_file(here, baseline="low", runs=other))
    assert "--overwrite" not in str(error.value)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("out/new", "is itself a run folder, a campaign makes one for each run; choose another folder"),
        ("scans", f"holds something else ({IDS[0]}.tif, {IDS[1]}.tif); choose another folder"),
        ("campaign.yaml", "is a file; choose another folder"),
    ],
)
def test_a_folder_that_is_no_campaign_is_refused(here, capsys, folder, message):
    before = sorted(here.rglob("*"))
    assert command("campaign", here / "campaign.yaml", "--out", here / folder, "--serial") == 2
    assert f"--out {here / folder}: {message}" in capsys.readouterr().err
    assert sorted(here.rglob("*")) == before


def test_repeats_give_the_same_bytes_or_fail(here):
    path = write_campaign_file(here, baseline="new", runs={"new": {"workflow": "residual.yaml", "repeat": 2}})
    summary, _ = go(path)
    assert summary["runs"]["new"]["repeats"] == [[]]
    assert "| new | 2 | the same bytes every time |" in (here / "out" / "campaign.md").read_text()
    manifest, mask = (here / "out" / "new@2" / name for name in ("manifest.json", f"masks/{IDS[1]}.tif"))
    mask.write_bytes(mask.read_bytes() + b"\0")
    with pytest.raises(GateError, match=rf"run new@2 of .*delete this folder .*\n  masks/{IDS[1]}.tif: changed"):
        go(path)
    changed = json.loads(manifest.read_text())
    changed["artefacts_sha256"][f"masks/{IDS[1]}.tif"] = sha256_file(mask)
    manifest.write_text(json.dumps(changed))
    with pytest.raises(GateError, match=f"run new: the masks of {IDS[1]} differ between repeats"):
        go(path)
    assert f"differ in {IDS[1]}" in (here / "out" / "campaign.md").read_text()


def test_gates_are_checked_after_all_is_written(here):
    for limit, code, word in ((0.5, 4, "failed"), (-0.5, 0, "passed")):
        path = write_campaign_file(here, gates=f"density>={limit}")
        assert command("campaign", path, "--out", here / "out", "--serial") == code
        assert f"| new | density>={limit} | {word} |" in (here / "out" / "campaign.md").read_text()


def test_a_frozen_baseline_stands_beside_the_runs(here, frozen):
    write_external(frozen, public=0.387)
    runs = {"new": RUNS["new"]}
    summary, _ = go(write_campaign_file(here, baseline="frozen", runs=runs), baselines=frozen.parent)
    assert list(summary["runs"]) == ["frozen", "new"]
    components = [measures(folder, "components_26") for folder in (frozen, here / "out" / "new")]
    difference = summary["runs"]["new"]["difference"]["components"]
    assert difference["mean"] == pytest.approx(np.subtract(*components[::-1]).mean())
    page = (here / "out" / "campaign.md").read_text()
    assert "| frozen (baseline) |" in page
    assert "| 0.387 |" in page
    by_path, _ = go(write_campaign_file(here, baseline="baselines/frozen", runs=runs), baselines=here / "nowhere")
    assert by_path["runs"]["new"] == summary["runs"]["new"]


def test_labels_give_scores_to_the_runs_and_to_a_baseline_frozen_without(here, frozen):
    (here / "labels").mkdir()
    for volume in IDS:
        mask = tifffile.imread(frozen / "masks" / f"{volume}.tif")
        tifffile.imwrite(here / "labels" / f"{volume}.tif", (mask != 0).astype(np.uint8), photometric="minisblack")
    path = write_campaign_file(here, labels="labels", baseline="frozen", runs={"new": RUNS["new"]}, gates="score>=0")
    with pytest.raises(GateError, match="run new: score>=0 failed, the difference to frozen is -0"):
        go(path, baselines=frozen.parent)
    summary = json.loads((here / "out" / "campaign.json").read_text())
    assert summary["runs"]["frozen"]["mean"]["score"] == pytest.approx(1)
    assert summary["runs"]["frozen"]["mean"]["clean_volumes"] == 2
    scores = open_run(here / "out" / "new").scores
    mean = np.mean([scores[volume]["score"] for volume in IDS])
    assert summary["runs"]["new"]["difference"]["score"]["mean"] == pytest.approx(mean - 1)
    assert "no run has a higher score than the baseline frozen, 1.0000" in (here / "out" / "campaign.md").read_text()
    (here / "labels" / f"{IDS[1]}.tif").unlink()
    with pytest.raises(InputError, match=f"no labels of {IDS[1]}"):
        go(path, baselines=frozen.parent)


def test_a_baseline_that_cannot_be_used_stops_the_campaign_at_once(here, frozen, make_tiff, monkeypatch):
    monkeypatch.setattr(stage, "run", None)
    path = write_campaign_file(here, baseline="frozen", runs={"fresh": RUNS["new"]})
    scans = here / "scans"
    make_tiff((9, 24, 22), 0, "7.tif", folder=scans)
    with pytest.raises(InputError, match=f"the baseline has no volume 7; it has {IDS[0]}"):
        go(path, baselines=frozen.parent)
    (scans / "7.tif").unlink()
    make_tiff((9, 24, 22), 0, f"{IDS[0]}.tif", folder=scans)
    with pytest.raises(InputError, match=rf"volume {IDS[0]}: its shape is \(9, 24, 22\), in .* it is \(10, 24, 22\)"):
        go(path, baselines=frozen.parent)
    shutil.rmtree(frozen / "masks")
    with pytest.raises(GateError, match="2 differences from what was frozen"):
        go(path, baselines=frozen.parent)
    old = here / "out" / "old" / "manifest.json"
    manifest = json.loads(old.read_text())
    manifest["submission"]["unfinished"] = [manifest["inputs"].popitem()[0]]
    old.write_text(json.dumps(manifest))
    path = write_campaign_file(here, baseline="out/old", runs={"fresh": RUNS["new"]})
    with pytest.raises(
        InputError, match=f"out/old: not finished, {IDS[1]} among its volumes; .* then run the campaign"
    ):
        go(path, baselines=frozen.parent)
    path = write_campaign_file(here, baseline="lost", runs={"fresh": RUNS["new"]})
    with pytest.raises(InputError, match=r"none of the runs \(fresh\): lost: no such run folder.*: frozen$"):
        go(path, baselines=frozen.parent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: key 'volumes' is missing; keys: volumes, labels, baseline, gates, runs"),
        ("volumes: nope\nbaseline: a\nruns: {a: {workflow: fast}}", r"line 1: .*nope: no such file or folder"),
        ("volumes: .\nbaselin: a\nruns: {a: {workflow: fast}}", r"line 2: unknown key 'baselin' \(did you mean 'ba"),
        ("volumes: .\nbaseline: a\nruns: {}", r"line 3: runs is {}: expected at least one"),
        ("volumes: .\nbaseline: a\nruns:\n a: {workflow: faste}", r"line 4: run a: workflow '.*faste': no such file"),
        ("volumes: .\nbaseline: a\nruns:\n a: {workflow: fast}\n a: {workflow: fast}", r"line 5: key 'a' stands here"),
        ("volumes: .\nbaseline: a\nruns:\n a: {workflow: fast, seeds: [1]}", r"line 4: unknown key 'seeds'; allowed"),
        ("volumes: .\nbaseline: 61.1\nruns: {a: {workflow: fast}}", r"line 2: baseline is 61\.1: .* in quotes"),
        ("volumes: .\nbaseline: a\nruns:\n a:", r"line 4: expected keys \(workflow, set, repeat\), found nothing"),
        ("volumes: .\nbaseline: a\nruns:\n a/b: {workflow: fast}", r"line 4: run 'a/b': a name has letters"),
        ("volumes: .\nbaseline: a\nruns:\n a:\n  workflow: fast\n  repeat: 0", r"line 6: runs\.a\.repeat is 0: "),
        ("volumes: .\nbaseline: a\nruns:\n a:\n  workflow: fast\n  set: [a=1]", r"line 6: run a: --set a=1: expected"),
        ("volumes: .\nbaseline: a\ngates: score>=0\nruns: {a: {workflow: fast}}", r"line 3: --gate score>=0: .*labels"),
        ("a: [", "not a YAML file"),
    ],
)
def test_a_bad_file_names_the_line(tmp_path, text, message):
    path = tmp_path / "campaign.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"campaign\.yaml.*{message}"):
        read_campaign(path)


def test_the_example_is_a_campaign(tmp_path):
    example = Path(__file__).resolve().parents[2] / "workflows" / "campaigns" / "delta.yaml"
    path = tmp_path / "workflows" / "campaigns" / "delta.yaml"
    path.parent.mkdir(parents=True)
    shutil.copy(example, path)
    for folder in ("train_images", "train_labels"):
        (tmp_path / "runs" / "sample" / folder).mkdir(parents=True)
    campaign = read_campaign(path)
    assert campaign.baseline == "v61.1"
    assert {run.workflow for run in campaign.runs} == {"v61.1", "v61.2", "fast", "surface"}


def test_scores_are_compared_where_there_are_labels(tmp_path):
    mask = {"density": 0.1, "components_26": 3}
    scores = {"old": (0.3, 0.4), "new": (0.5, 0.7)}
    runs = {
        name: RunMeasures(
            {volume: volume_measures(mask, score_record(score)) for volume, score in zip("ab", pair, strict=True)},
            {"workflow": name, "nx47dask": "1", "external": {}},
        )
        for name, pair in scores.items()
    }
    summary = summarise(runs, "old", "score>=0.2,clean_volumes>=0,recall>=0.1")
    new = summary["runs"]["new"]
    assert new["difference"]["score"]["mean"] == pytest.approx(0.25)
    assert new["mean"]["clean_volumes"] == 2
    assert [gate["passed"] for gate in new["gates"]] == [True, True, False]
    assert summary["spread"]["b"]["score"]["range"] == pytest.approx(0.3)
    write_campaign("x", summary, tmp_path)
    page = (tmp_path / "campaign.md").read_text()
    assert "+0.2500 against old (95 % interval +0.2000 to +0.3000 over 2 volumes)" in page
    assert "There are 2 volumes only" in page
    assert "new fails recall>=0.1." in page
