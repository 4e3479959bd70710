"""A page that cannot be drawn leaves no gate unchecked and hides no gate that failed."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

import nx47dask
from nx47dask.commands import artefacts, campaign, compare, report
from nx47dask.errors import GateError
from tests.integration.commands import command
from tests.integration.tiny_runs import tiny_run

LOWER = "postprocess.hysteresis.low=0.5"
DENSER = "density<=0"
"""Fails for the run with the lower threshold, passes for the same run again."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the runs ``a`` and ``b``, which is denser."""
    folder = tmp_path_factory.mktemp("runs")
    tiny_run(folder, "a")
    tiny_run(folder, "b", LOWER)
    return folder


@pytest.fixture
def runs(made, tmp_path, monkeypatch):
    """Copies of both in the current directory."""
    shutil.copytree(made, tmp_path / "here", ignore=shutil.ignore_patterns("store"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def broken(*arguments, **options):
    raise ZeroDivisionError("a page that cannot be drawn")


def run_again(overrides):
    return nx47dask.run(
        ["in/12"], "new", workflow="fast", overrides=["postprocess.small_objects.min_vox=20", *overrides],
        baseline="a", gates=DENSER, serial=True,
    )  # fmt: skip


@pytest.mark.parametrize(("overrides", "error"), [([LOWER], GateError), ([], ZeroDivisionError)])
def test_of_a_run(runs, monkeypatch, overrides, error):
    monkeypatch.setattr(artefacts, "write_report", broken)
    with pytest.raises(error, match=r"density<=0 failed: density 0\.|a page that"):
        run_again(overrides)
    assert json.loads((runs / "new" / "manifest.json").read_text())["baseline"]["gates"] == DENSER


def test_of_a_run_that_the_page_tells_nothing_of(runs, monkeypatch):
    """The gates are checked even where the writer of the page returns at once."""
    monkeypatch.setattr(artefacts, "write_report", lambda *arguments, **options: None)
    with pytest.raises(GateError, match="density<=0 failed"):
        run_again([LOWER])


@pytest.mark.parametrize(("candidate", "error"), [("b", GateError), ("a", ZeroDivisionError)])
def test_of_a_comparison(runs, monkeypatch, candidate, error):
    monkeypatch.setattr(compare, "write_comparison", broken)
    with pytest.raises(error):
        nx47dask.compare("a", candidate, "out", gates=DENSER, serial=True)


def test_a_comparison_without_a_folder_writes_nothing(runs):
    before = sorted(runs.rglob("*"))
    found = nx47dask.compare("a", "b", gates=DENSER, serial=True)
    assert [gate["passed"] for gate in found["gates"]] == [False]
    assert sorted(runs.rglob("*")) == before


@pytest.mark.parametrize(("candidate", "error"), [("b", GateError), ("a", ZeroDivisionError)])
def test_of_a_report_that_is_written_again(runs, monkeypatch, candidate, error):
    monkeypatch.setattr(report, "write_report", broken)
    with pytest.raises(error):
        nx47dask.report(candidate, baseline="a", gates=DENSER)
    assert command("report", "b", "--baseline", "a", "--gate", DENSER) == 4


@pytest.mark.parametrize(("overrides", "error"), [([LOWER], GateError), ([], ZeroDivisionError)])
def test_of_a_campaign(runs, monkeypatch, overrides, error):
    runs_of_it = {"new": {"workflow": "fast", "set": ["postprocess.small_objects.min_vox=20", *overrides]}}
    keys = {"volumes": "in/12", "baseline": "a", "gates": DENSER, "runs": runs_of_it}
    (runs / "campaign.yaml").write_text(yaml.safe_dump(keys))
    monkeypatch.setattr(campaign, "write_campaign", broken)
    with pytest.raises(error):
        nx47dask.campaign("campaign.yaml", "out", serial=True)


def test_commands_take_runs_that_are_open(runs):
    done = nx47dask.open_run("b")
    (result,) = nx47dask.report(done, baseline=nx47dask.open_run("a"), gates=DENSER)
    assert str(result.gate) == DENSER
    assert not result.passed
    frozen = nx47dask.freeze(done, "b1", "baselines")
    assert nx47dask.verify("b1", "baselines") == nx47dask.verify(frozen) > 0
    assert nx47dask.compare(done, "b1", serial=True)["masks"]["identical_volumes"] == 2
    assert nx47dask.validate("b/submission.zip", "in/12").valid
