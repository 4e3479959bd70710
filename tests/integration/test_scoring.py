"""Scoring folders on a cluster and runs with labels, from the command line down."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import zarr

import nx47dask
from nx47dask import official_score, score
from nx47dask.engine.ledger import Ledger
from tests.conftest import sheets
from tests.integration.commands import command

SHAPE = (20, 37, 33)
IDS = ("910000001", "910000002")


def write_tiff(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, compression="lzw", photometric="minisblack")


def make_pair(seed):
    """A prediction of 0 and 255, and labels of 0, 1 and 2."""
    rng = np.random.default_rng(seed)
    scan = sheets(SHAPE, seed)
    labels = (scan > 150).astype(np.uint8)
    labels[:, :, -4:] = 2
    prediction = np.where((scan > 145) ^ (rng.random(SHAPE) < 0.01), 255, 0).astype(np.uint8)
    return prediction, labels


@pytest.fixture
def folders(tmp_path):
    """Folders of predictions and labels of two volumes."""
    for seed, name in enumerate(IDS):
        prediction, labels = make_pair(seed)
        write_tiff(tmp_path / "masks" / f"{name}.tif", prediction)
        write_tiff(tmp_path / "labels" / f"{name}.tif", labels)
    return tmp_path


def expected_scores():
    return {name: official_score(*make_pair(seed)) for seed, name in enumerate(IDS)}


def test_a_cluster_gives_the_scores_of_whole_arrays(folders):
    found = score(folders / "masks", folders / "labels", workers=2)
    expected = expected_scores()
    assert found["volumes"] == expected
    assert found["mean"]["score"] == pytest.approx(sum(record["score"] for record in expected.values()) / 2)
    assert found["mean"]["volumes"] == 2


def test_zarr_is_scored_like_tiff(folders):
    for kind, side in (("masks", 0), ("labels", 1)):
        for seed, name in enumerate(IDS):
            zarr.create_array(folders / f"{kind}-zarr" / f"{name}.zarr", data=make_pair(seed)[side], chunks=(8, 16, 16))
    found = score(folders / "masks-zarr", folders / "labels-zarr", serial=True)
    assert found["volumes"] == expected_scores()


def test_two_files_are_a_pair_whatever_their_names(folders, capsys):
    code = command("score", folders / "masks" / f"{IDS[0]}.tif", folders / "labels" / f"{IDS[0]}.tif", "--serial",
                   "--json", "-")  # fmt: skip
    assert code == 0
    assert json.loads(capsys.readouterr().out)["volumes"] == {IDS[0]: expected_scores()[IDS[0]]}


def test_the_table_shows_every_volume_and_cuts_nothing(folders, capsys):
    assert command("score", folders / "masks", folders / "labels", "--serial", "--json", folders / "s.json") == 0
    shown = capsys.readouterr().out
    for name, record in json.loads((folders / "s.json").read_text())["volumes"].items():
        (line,) = [line for line in shown.splitlines() if name in line]
        assert f"{record['score']:.4f}" in line
        assert "/".join(map(str, record["counts"][0])) in line
    assert "…" not in shown


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "labels" / f"{IDS[1]}.tif").unlink(), (f"no labels of {IDS[1]}",)),
        (
            lambda folder: write_tiff(folder / "labels" / f"{IDS[0]}.tif", np.ones((20, 37, 34), np.uint8)),
            ("20x37x34", "20x37x33", IDS[0]),
        ),
        (
            lambda folder: write_tiff(folder / "labels" / f"{IDS[0]}.tif", make_pair(0)[1] * 3),
            (f"{IDS[0]}.tif", "these are 0, 3", "0 (background), 1 (surface) and 2"),
        ),
        (
            lambda folder: write_tiff(folder / "labels" / f"{IDS[0]}.tif", np.zeros(SHAPE, np.uint8)),
            (f"{IDS[0]}.tif", "no voxel of 24,420 is labelled 1"),
        ),
    ],
)
def test_bad_labels_are_refused(folders, spoil, told, capsys):
    spoil(folders)
    assert command("score", folders / "masks", folders / "labels", "--serial", "--json", folders / "s.json") == 2
    shown = capsys.readouterr().err
    for part in told:
        assert part in shown
    assert not (folders / "s.json").exists()


@pytest.fixture
def scans(folders):
    """Small scans of the labels' ids."""
    for seed, name in enumerate(IDS):
        write_tiff(folders / "scans" / f"{name}.tif", sheets(SHAPE, seed))
    return folders / "scans"


def run(scans, out, *arguments):
    small = ("--workflow", "fast", "--set", "postprocess.small_objects.min_vox=20", "--serial")
    return command("run", scans, "--out", out, *small, *arguments)


def test_a_run_with_labels_has_the_scores_of_its_masks(folders, scans):
    assert run(scans, folders / "run", "--labels", folders / "labels") == 0
    done = nx47dask.open_run(folders / "run")
    expected = score(folders / "run", folders / "labels", serial=True)
    assert done.scores == expected["volumes"]
    assert json.loads((folders / "run" / "metrics" / "volumes.json").read_text())["mean"] == expected["mean"]
    assert set(done.manifest["labels"]) == set(IDS)


def test_a_box_is_scored_against_its_part_of_the_labels(folders, scans):
    assert run(scans, folders / "box", "--labels", folders / "labels", "--bbox", "3:17,5:30,:") == 0
    mask = tifffile.imread(folders / "box" / "masks" / f"{IDS[0]}.tif")
    labels = make_pair(0)[1][3:17, 5:30]
    expected = official_score(mask, labels)
    assert nx47dask.open_run(folders / "box").scores[IDS[0]] == expected
    assert score(folders / "box", folders / "labels", serial=True)["volumes"][IDS[0]] == expected


def test_a_run_without_one_of_its_masks_is_not_scored(folders, scans, capsys):
    assert run(scans, folders / "run") == 0
    (folders / "run" / "masks" / f"{IDS[1]}.tif").unlink()
    assert command("score", folders / "run", folders / "labels", "--serial") == 4
    assert f"masks/{IDS[1]}.tif: missing" in capsys.readouterr().err


@pytest.mark.parametrize("value", [0, 3])
def test_bad_labels_end_a_run_before_it_begins(folders, scans, value, capsys):
    write_tiff(folders / "labels" / f"{IDS[1]}.tif", np.full(SHAPE, value, np.uint8))
    assert run(scans, folders / "run", "--labels", folders / "labels") == 2
    assert f"{IDS[1]}.tif" in capsys.readouterr().err
    assert not (folders / "run").exists()


def test_a_target_that_cannot_be_written_is_refused_first(folders, capsys):
    assert command("score", folders / "masks", folders / "labels", "--json", folders) == 2
    assert "--json" in capsys.readouterr().err


def test_a_box_of_one_slice_is_scored_like_any_other(folders, scans):
    assert run(scans, folders / "box", "--bbox", "5:6,:,:") == 0
    for seed, name in enumerate(IDS):
        write_tiff(folders / "slice" / f"{name}.tif", make_pair(seed)[1][5:6])
    found = score(folders / "box", folders / "slice", serial=True)["volumes"]
    mask = tifffile.imread(folders / "box" / "masks" / f"{IDS[0]}.tif").reshape(1, *SHAPE[1:])
    assert found[IDS[0]] == official_score(mask, make_pair(0)[1][5:6])


def test_labels_that_come_later_or_change_are_scored_on_resume_and_nothing_else_runs(folders, scans):
    out = folders / "run"
    assert run(scans, out) == 0
    assert nx47dask.open_run(out).scores == {}

    assert run(scans, out, "--resume", "--labels", folders / "labels") == 0
    first = nx47dask.open_run(out)
    assert set(first.scores) == set(IDS)
    assert {stage for stage, use in first.manifest["stages"].items() if use["tasks"]} == {"score"}

    other = make_pair(0)[1]
    other[other == 1] = np.where(np.arange((other == 1).sum()) % 5, 1, 0)
    write_tiff(folders / "labels" / f"{IDS[0]}.tif", other)
    assert run(scans, out, "--resume", "--labels", folders / "labels") == 0
    second = nx47dask.open_run(out)
    assert second.scores[IDS[0]] != first.scores[IDS[0]]
    assert second.scores[IDS[1]] == first.scores[IDS[1]]
    assert second.manifest["stages"]["score"]["tasks"] == 8
    assert second.manifest["stages"]["score"]["resumed"] == 8


def test_a_mask_whose_store_was_deleted_is_scored_from_its_file(folders, scans):
    out = folders / "run"
    assert run(scans, out, "--delete-stores") == 0
    assert run(scans, out, "--delete-stores", "--resume", "--labels", folders / "labels") == 0
    assert nx47dask.open_run(out).scores == score(out, folders / "labels", serial=True)["volumes"]


def test_labels_that_do_not_fit_are_refused_before_the_run(folders, scans, capsys):
    (folders / "labels" / f"{IDS[1]}.tif").unlink()
    assert run(scans, folders / "run", "--labels", folders / "labels") == 2
    assert f"no labels of {IDS[1]}" in capsys.readouterr().err
    assert not (folders / "run").exists()


def test_a_gate_without_a_baseline_is_refused(folders, scans, capsys):
    assert run(scans, folders / "run", "--gate", "density>=0") == 2
    assert "--baseline" in capsys.readouterr().err


def test_a_worse_run_fails_the_gate_after_everything_is_written(folders, scans, capsys):
    labels = ("--labels", folders / "labels")
    assert run(scans, folders / "good", *labels) == 0
    worse = ("--set", "postprocess.small_objects.min_vox=100000", "--baseline", folders / "good")
    assert run(scans, folders / "worse", *labels, *worse, "--gate", "recall>=-0.01") == 4
    assert "recall" in capsys.readouterr().err
    assert (folders / "worse" / "report.html").exists()
    assert run(scans, folders / "same", *labels, "--baseline", folders / "good", "--gate", "score>=0,recall>=0") == 0


def test_records_of_octants_survive_the_ledger(folders, scans):
    assert run(scans, folders / "run", "--labels", folders / "labels") == 0
    records = Ledger(folders / "run" / "ledger").load(IDS[0])
    assert len([key for key in records if key[0] == "score"]) == 8
