"""Files of a run that are deleted or cut: resuming notices and makes them again."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import zarr
from rich.console import Console

import nx47dask
from nx47dask.errors import PlanMismatchError
from nx47dask.io import ArrayStore
from tests.conftest import sheets

WORKFLOW = """\
detect:
  - residual: {sigma_base: 1.5}
postprocess:
  - smooth: {sigma_zyx_vox: [0.5, 0.5, 0.5]}
  - hysteresis: {low: 0.55, high: 0.7}
  - fill_holes
"""


@pytest.fixture
def run(tmp_path, make_tiff):
    """Run, or resume, the same small job."""
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    scan = make_tiff((20, 30, 28), name="a.tif")

    def run(**options):
        options = {
            "workflow": tmp_path / "w.yaml",
            "block": 12,
            "serial": True,
            "console": Console(quiet=True),
            **options,
        }
        return nx47dask.run([scan], tmp_path / "run", **options)

    return run


def digests(run):
    files = [run.path / "masks" / "a.tif", run.path / "metrics" / "slices.csv", run.path / "metrics" / "volumes.json"]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


@pytest.mark.parametrize("victim", ["masks/a.tif", "store/a.zarr/slices.csv"])
def test_a_finished_run_makes_lost_results_again(run, victim):
    first = run()
    before = digests(first)
    (first.path / victim).unlink()
    assert digests(run(resume=True)) == before


@pytest.mark.parametrize("victim", ["mask/0/c/0/1/1", "mask/0/zarr.json", "probability/0/c/1/0/1", "mask", "image"])
@pytest.mark.parametrize("how", ["deleted", "emptied"])
def test_an_unfinished_run_makes_lost_blocks_again(run, victim, how):
    first = run()
    before = digests(first)
    ledger = first.path / "ledger" / "a.jsonl"
    records = [json.loads(line) for line in ledger.read_text().splitlines()]
    ledger.write_text(
        "".join(json.dumps(r) + "\n" for r in records if r["stage"].split(".")[0] not in ("measure", "export"))
    )
    path = first.path / "store" / "a.zarr" / victim
    if path.is_dir():
        shutil.rmtree(path)
    elif how == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"")
    assert digests(run(resume=True)) == before


def test_a_finished_run_computes_nothing_on_resume(run):
    run()
    stages = run(resume=True).manifest["stages"]
    assert all(stage["tasks"] == 0 and stage["resumed"] > 0 for stage in stages.values())


def test_another_zarr_of_the_same_metadata_is_another_input(tmp_path):
    options = {"workflow": "v61.1", "serial": True, "console": Console(quiet=True)}
    for name in ("b", "c"):
        store = ArrayStore(str(tmp_path / name / "scan.zarr"), (12, 16, 14), (8, 8, 8), (8, 8, 8), "uint8")
        store.create()
        zarr.open_array(store.path + "/0")[:] = sheets(store.shape)
    nx47dask.run([tmp_path / "b" / "scan.zarr"], tmp_path / "run", **options)
    with pytest.raises(PlanMismatchError, match=r"inputs\.scan\.path.*b/scan\.zarr.*c/scan\.zarr"):
        nx47dask.run([tmp_path / "c" / "scan.zarr"], tmp_path / "run", resume=True, **options)


def test_overwrite_leaves_files_of_others_alone(run, tmp_path):
    first = run()
    (first.path / "notes.txt").write_text("mine")
    before = digests(first)
    assert digests(run(overwrite=True)) == before
    assert (first.path / "notes.txt").read_text() == "mine"
