"""The pages of docs/: their code runs, their links lead somewhere, they name all there is to name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import nx47dask
from nx47dask import errors
from nx47dask.cli import INTERRUPTED
from nx47dask.cli.reference import reference_text
from nx47dask.metrics.shape import SLICE_COLUMNS
from nx47dask.planning import projection
from nx47dask.planning.make import default_block
from nx47dask.stages import detect, load, score

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.fixture
def run(make_tiff, tmp_path):
    return nx47dask.run([make_tiff((10, 24, 22))], tmp_path / "run", workflow="v61.1", serial=True)


def test_notebook_page_runs(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page("notebooks.md"), re.DOTALL)
    assert len(blocks) == 4
    names = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"notebooks.md, block {number + 1}", "exec"), names)
    assert names["mask_slice"].shape == names["scan_slice"].shape == (24, 22)
    assert names["sizes"].sum() == run.volume_metrics["910000001"]["mask"]["voxels"]


def test_metrics_page_names_every_key(run):
    text = page("metrics.md")
    volume = json.loads((run.path / "metrics" / "volumes.json").read_text())["volumes"]["910000001"]
    changes = {key for step in volume["steps"].values() for key in step}
    keys = {*SLICE_COLUMNS, *volume, *volume["scan"], *volume["mask"], *changes}
    assert {key for key in keys if f"`{key}`" not in text} == set()


def test_exit_codes_are_those_of_the_errors():
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", page("resuming.md"), re.MULTILINE)}
    assert codes == {0, INTERRUPTED} | {getattr(errors, name).exit_code for name in errors.__all__}


def test_memory_page_gives_the_factors_of_the_plan():
    text = page("memory.md")
    assert f"{projection.PROCESS_BYTES >> 20} MiB for the process" in text
    assert f"{projection.LIBRARY_BYTES >> 20} MiB where torch" in text
    assert f"{projection.NETWORK_LIBRARY_BYTES >> 20} MiB more where" in text
    assert f"The client takes {projection.CLIENT_BYTES >> 20} MiB" in text
    assert f"{detect.DETECT_BYTES_PER_VOXEL} bytes for each voxel of a block with the halo of detection" in text
    assert f"{load.PASS_BYTES_PER_VOXEL} bytes for each voxel of a block with the halo of a pass" in text
    assert f"{score.SCORE_BYTES_PER_VOXEL} bytes for each voxel of an octant" in text
    assert {default_block((n, n, n)) for n in (384, 385, 1536, 1537)} == {160, 256, 512}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (DOCS / link).is_file()] == []


def test_steps_page_is_what_the_definitions_say():
    assert page("steps.md").strip() == reference_text().strip(), "run: nx47dask steps > docs/steps.md"
