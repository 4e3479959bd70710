"""``nx47dask compare``: the numbers against the masks themselves, the files, the gates, bad input."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil

import numpy as np
import pytest
import tifffile

from nx47dask.commands import compare
from nx47dask.commands.freeze import freeze
from nx47dask.errors import InputError
from nx47dask.io import Volume, discover
from nx47dask.metrics.score import official_score
from nx47dask.reports.compare import FILES
from nx47dask.runs.baselines import write_external
from nx47dask.runs.run import open_run
from tests.integration.commands import command
from tests.integration.tiny_runs import VOLUMES, add_scores, score_record, tiny_run

OVERRIDE = "postprocess.hysteresis.low=0.8"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the runs ``a`` and ``b``, which differ in a threshold."""
    folder = tmp_path_factory.mktemp("runs")
    tiny_run(folder, "a")
    tiny_run(folder, "b", OVERRIDE)
    return folder


@pytest.fixture
def runs(made, tmp_path, monkeypatch):
    """Copies of both in the current directory, to be changed by a test."""
    for name in ("a", "b"):
        shutil.copytree(made / name, tmp_path / name, ignore=shutil.ignore_patterns("store"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compared(a="a", b="b", **options):
    return compare.compare(open_run(a), open_run(b), serial=True, **options)


def mask(run, volume):
    return tifffile.imread(f"{run}/masks/{volume}.tif") != 0


def scored(folder, scores, **options):
    """Scores for the volumes of a run, by hand."""
    add_scores(folder, dict(zip(VOLUMES, scores, strict=True)), **options)


def test_numbers_are_those_of_the_masks(runs, monkeypatch):
    monkeypatch.setattr(compare, "SLAB_VOXELS", 5 * 40 * 36)
    boxes, read = [], Volume.read
    monkeypatch.setattr(Volume, "read", lambda self, box: boxes.append(box) or read(self, box))
    found = compared()
    assert max(box.shape[0] for box in boxes) == 5
    for volume in VOLUMES:
        a, b = mask("a", volume), mask("b", volume)
        differing = (a != b).sum((1, 2)).tolist()
        one = found["volumes"][volume]
        assert one["masks"] == {
            "dice": 2 * (a & b).sum() / (a.sum() + b.sum()),
            "iou": (a & b).sum() / (a | b).sum(),
            "added_vox": (b & ~a).sum(),
            "removed_vox": (a & ~b).sum(),
        }
        assert one["slices"]["differing_vox"] == differing
        worst = [w["z"] for w in one["worst_slices"]]
        z = worst[0]
        assert differing[z] == max(differing)
        assert all(abs(a - b) >= 8 for a, b in itertools.combinations(worst, 2))
        assert all(w["differing_vox"] == differing[w["z"]] for w in one["worst_slices"])
        assert one["worst_slices"][0]["dice"] == 2 * (a & b)[z].sum() / (a[z].sum() + b[z].sum())
        assert [one["measures"][side]["density"] for side in compare.SIDES] == [a.mean(), b.mean()]
    assert found["means"]["candidate"]["density"] == np.mean([mask("b", volume).mean() for volume in VOLUMES])
    assert found["paired"]["density"]["wins"] == len(VOLUMES)
    assert [one["path"] for one in found["differences"]["workflow"]] == ["workflow.postprocess.hysteresis.low"]
    assert {one["path"].split(".")[1] for one in found["differences"]["artefacts"]} >= {"masks/910000001"}
    assert found["differences"]["software"] == found["differences"]["inputs"] == []


def test_a_cluster_finds_the_same(runs):
    assert compare.compare(open_run("a"), open_run("b"), workers=1) == compared()


def test_the_same_inputs_give_the_same_bytes(runs, monkeypatch):
    assert command("compare", "a", "b", "--serial") == 0
    monkeypatch.setattr(compare, "SLAB_VOXELS", 1)
    assert command("compare", "a", "b", "--serial", "--out", "again", "--json", "copy.json") == 0
    first = {name: (runs / "compare-a-b" / name).read_bytes() for name in FILES}
    assert first == {name: (runs / "again" / name).read_bytes() for name in FILES}
    assert first["compare.json"] == (runs / "copy.json").read_bytes()
    assert sorted(path.name for path in (runs / "again").iterdir()) == sorted(FILES)


def test_a_run_against_itself_differs_by_nothing(runs, capsys):
    assert command("compare", "a", "a", "--serial", "--gate", "density>=0,components<=0") == 0
    assert "The 2 masks of the two runs are identical" in capsys.readouterr().out
    found = json.loads((runs / "compare-a-a" / "compare.json").read_text())
    assert found["masks"] == {"dice": 1, "iou": 1, "added_vox": 0, "removed_vox": 0, "identical_volumes": 2}
    assert all((one["mean"], one["low"], one["high"], one["p"]) == (0, 0, 0, 1) for one in found["paired"].values())
    assert not any(found["differences"].values())
    assert "No slice differs" in (runs / "compare-a-a" / "compare.md").read_text()


def test_json_alone_goes_to_standard_output(runs, capsys):
    assert command("compare", "a", "b", "--serial", "--json", "-") == 0
    out = capsys.readouterr().out
    assert out == (runs / "compare-a-b" / "compare.json").read_text()
    assert json.loads(out)["candidate"]["path"] == "b"


def test_files_say_what_the_json_says(runs):
    write_external(runs / "a", public=0.387)
    assert command("compare", "a", "b", "--serial") == 0
    found = json.loads((runs / "compare-a-b" / "compare.json").read_text())
    with (runs / "compare-a-b" / "compare.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["volume"] for row in rows] == list(VOLUMES)
    for row in rows:
        one = found["volumes"][row["volume"]]
        assert float(row["dice"]) == one["masks"]["dice"]
        assert int(row["worst_slice_z"]) == one["worst_slices"][0]["z"]
        assert int(row["betti_1_candidate"]) == one["betti"]["candidate"][1]
        assert float(row["density_baseline"]) == one["measures"]["baseline"]["density"]
        assert row["components_baseline"] == str(one["betti"]["baseline"][0])
    text, page = ((runs / "compare-a-b" / name).read_text() for name in ("compare.md", "compare.html"))
    for part in ("b against a", f"{found['masks']['dice']:.4f}", "postprocess.hysteresis.low", "0.387"):
        assert part in text
        assert part in page
    assert "Scores by volume" not in text
    assert page.count("<svg") == len(VOLUMES)
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "http" not in page


def test_names_are_escaped(runs):
    (runs / "b").rename(runs / "<b>|*x*")
    assert command("compare", "a", "<b>|*x*", "--serial", "--out", "out") == 0
    assert "<b>|" not in (runs / "out" / "compare.html").read_text()
    assert r"# \<b>\|\*x\* against a" in (runs / "out" / "compare.md").read_text()


def test_a_gate_fails_after_all_is_written(runs, capsys):
    assert command("compare", "a", "b", "--serial", "--gate", "density<=0,components>=-1000") == 4
    out, err = capsys.readouterr()
    assert "1 of 2 gates: density<=0 failed: density 0." in err
    assert "components>=-1000 passed" in out
    assert sorted(path.name for path in (runs / "compare-a-b").iterdir()) == sorted(FILES)
    gates = json.loads((runs / "compare-a-b" / "compare.json").read_text())["gates"]
    assert [gate["passed"] for gate in gates] == [False, True]
    assert "fails 1 of 2 gates" in (runs / "compare-a-b" / "compare.md").read_text()


def test_scores_for_the_same_labels_are_compared(runs, capsys):
    scored(runs / "a", [score_record(0.5, recall=0.9, holes=1), score_record(0.4, recall=0.8)])
    scored(runs / "b", [score_record(0.6, recall=0.85), score_record(0.45, recall=0.75, bridges=3)])
    assert command("compare", "a", "b", "--serial", "--gate", "score>=0,recall>=-0.05,recall>=-0.04") == 4
    assert "recall>=-0.04 failed: recall 0.85 -> 0.8, difference -0.05" in capsys.readouterr().err
    found = json.loads((runs / "compare-a-b" / "compare.json").read_text())
    assert found["paired"]["score"]["mean"] == pytest.approx(0.075)
    assert (found["paired"]["score"]["low"], found["paired"]["score"]["high"]) == pytest.approx((0.05, 0.1))
    assert [found["means"][side]["clean_volumes"] for side in compare.SIDES] == [1, 1]
    assert found["volumes"][VOLUMES[1]]["defects"]["candidate"] == {"holes": 0, "bridges": 3}
    assert found["labels"] == json.loads((runs / "b" / "manifest.json").read_text())["labels"]
    text, page = ((runs / "compare-a-b" / name).read_text() for name in ("compare.md", "compare.html"))
    assert "Score 0.4500 to 0.5250: +0.0750 (95 % interval +0.0500 to +0.1000 over 2 volumes)." in text
    assert "Scores are those that both runs have for the same labels, /labels." in text
    assert "There are 2 volumes only" in text
    assert '<strong class="bad">Failed</strong> The candidate fails 1 of 3 gates' in page


@pytest.mark.parametrize("other", [None, "other"])
def test_scores_for_other_labels_are_left_out(runs, capsys, other):
    scored(runs / "a", [score_record(0.5)] * 2)
    if other:
        scored(runs / "b", [score_record(0.6)] * 2, fingerprint=other)
    found = compared()
    assert "score" not in found["paired"]
    assert "scores are left out; --labels scores both" in found["notes"][0]
    assert command("compare", "a", "b", "--serial", "--gate", "score>=0") == 2
    assert "score needs scores of both runs for the same labels; give --labels" in capsys.readouterr().err
    assert not (runs / "compare-a-b").exists()


def write_labels(folder, volumes=VOLUMES):
    folder.mkdir()
    for volume in volumes:
        tifffile.imwrite(folder / f"{volume}.tif", mask("a", volume).astype(np.uint8), photometric="minisblack")
    return folder


def test_labels_score_the_run_that_has_no_scores_for_them(runs):
    """Hand-made scores for these labels are taken as they are; those for other labels are not."""
    labels = write_labels(runs / "labels")
    scored(runs / "a", [score_record(0.5)] * 2)
    scored(runs / "b", [score_record(0.1)] * 2)
    manifest = json.loads((runs / "a" / "manifest.json").read_text())
    for label in discover([labels]):
        manifest["labels"][label.id]["fingerprint"] = label.fingerprint
    (runs / "a" / "manifest.json").write_text(json.dumps(manifest))
    found = compared(labels=labels)
    for volume in VOLUMES:
        measures = found["volumes"][volume]["measures"]
        assert measures["baseline"]["score"] == 0.5
        assert measures["candidate"]["score"] == official_score(mask("b", volume), mask("a", volume))["score"] < 1
    assert {name: one["fingerprint"] for name, one in found["labels"].items()} == {
        label.id: label.fingerprint for label in discover([labels])
    }
    assert found["notes"][0] == f"Scores of both runs are against the labels given, {labels}; scored with them now: b."


def test_labels_of_one_run_only_differ_value_by_value(runs):
    scored(runs / "a", [score_record(0.5)] * 2, fingerprint="0123456789abcdef" * 4)
    assert command("compare", "a", "b", "--serial") == 0
    text = (runs / "compare-a-b" / "compare.md").read_text()
    assert f"| {VOLUMES[0]}.path | /labels/{VOLUMES[0]}.tif | none |" in text
    assert f"| {VOLUMES[0]}.fingerprint | 0123456789ab | none |" in text
    assert "{" not in text


def test_worst_slices_are_of_other_places():
    differing = [0] * 40
    differing[10:15] = [5, 9, 9, 8, 5]
    differing[18:22] = [1, 7, 3, 1]
    differing[39] = 2
    assert compare._worst(differing) == [11, 19, 39]


def test_labels_of_a_whole_volume_score_a_part(runs, tmp_path):
    labels = write_labels(runs / "labels")
    for name, overrides in (("d", ()), ("e", (OVERRIDE,))):
        tiny_run(tmp_path, name, *overrides, bbox="2:10,4:40,0:30")
    found = compared("d", "e", labels=labels)
    for volume in VOLUMES:
        expected = official_score(mask("e", volume), mask("a", volume)[2:10, 4:40, 0:30])
        assert found["volumes"][volume]["measures"]["candidate"]["score"] == expected["score"]
        assert found["volumes"][volume]["defects"]["candidate"]["holes"] == expected["defects"]["holes"]["count"]


def test_one_volume_has_no_interval(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, overrides in (("a", ()), ("b", (OVERRIDE,))):
        tiny_run(tmp_path, name, *overrides, volumes=VOLUMES[:1], bbox="2:9,3:33,4:30")
    assert command("compare", "a", "b", "--serial") == 0
    assert "There is one volume only" in capsys.readouterr().out
    found = json.loads((tmp_path / "compare-a-b" / "compare.json").read_text())["volumes"][VOLUMES[0]]
    assert found["shape"] == [7, 30, 26]
    assert min(worst["z"] for worst in found["worst_slices"]) >= 2  # z of the scan, not of the box


def test_a_baseline_is_found_by_name(runs):
    freeze(open_run("a"), "v1", runs / "frozen")
    shutil.rmtree(runs / "a")
    assert command("compare", "v1", "b", "--serial", "--baselines", "frozen") == 0
    assert (runs / "compare-v1-b" / "compare.html").is_file()


def test_other_volumes_are_refused(runs, tmp_path):
    tiny_run(tmp_path, "c", volumes=("910000001", "910000003"))
    with pytest.raises(InputError, match=r"only in a: 910000002; only in c: 910000003"):
        compared("a", "c")


def test_other_shapes_and_parts_are_refused(runs, tmp_path):
    tiny_run(tmp_path, "c", shape=(9, 40, 36))
    with pytest.raises(InputError, match=r"volume 910000001: the masks differ in shape: \(12, 40, 36\) in a, \(9, 40"):
        compared("a", "c")
    for name, bbox in (("d", "0:6,0:40,0:36"), ("e", "6:12,0:40,0:36")):
        tiny_run(tmp_path, name, bbox=bbox)
    with pytest.raises(InputError, match=r"other parts: 0:6,0:40,0:36 in d, 6:12,0:40,0:36 in e"):
        compared("d", "e")


def test_a_run_that_is_not_finished_is_refused(runs, capsys):
    manifest = json.loads((runs / "b" / "manifest.json").read_text())
    manifest["submission"]["unfinished"] = ["910000003"]
    (runs / "b" / "manifest.json").write_text(json.dumps(manifest))
    assert command("compare", "a", "b", "--serial") == 2
    assert "b: not finished, 910000003 among its volumes; go on with --resume, then compare" in capsys.readouterr().err


def test_missing_and_changed_masks_are_refused(runs):
    path = runs / "b" / "masks" / "910000002.tif"
    other = mask("b", "910000002")
    tifffile.imwrite(path, np.where(other.any(), ~other, other).astype(np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match=r"910000002.tif: the mask has [\d,]+ voxels, the metrics of its run say"):
        compared()
    path.unlink()
    with pytest.raises(InputError, match=r"b: no mask of volume 910000002 \(masks/910000002.tif is missing\)"):
        compared()


def test_labels_must_cover_all_volumes(runs):
    labels = write_labels(runs / "labels", VOLUMES[:1])
    with pytest.raises(InputError, match=r"labels: no labels of 910000002; the 1 labels there are of 910000001"):
        compared(labels=labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "nowhere"), "nowhere: no such run folder"),
        (("a", "b", "--gate", "speed>=0"), "no value 'speed'; known: density, components"),
        (("a", "b", "--gate", "score>0"), "expected NAME>=VALUE"),
        (("a", "b", "--gate", "recall>=0"), "recall needs scores"),
        (("a", "b", "--labels", "nolabels"), "nolabels: no such file or folder"),
        (("a", "b", "--out", "b"), "--out b: holds something else (events.jsonl, "),
        (("a", "b", "--out", "b/manifest.json"), "--out b/manifest.json: is a file"),
    ],
)
def test_refused(runs, capsys, arguments, message):
    before = sorted(runs.rglob("*"))
    assert command("compare", *arguments, "--serial") == 2
    assert message in capsys.readouterr().err
    assert sorted(runs.rglob("*")) == before
