"""The report of small real runs: what it says, what it escapes, that it stands alone and stays small."""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import nx47dask
from nx47dask.commands.report import report
from nx47dask.errors import BlockError, InputError
from nx47dask.io import Volume, discover
from nx47dask.reports import figures, html, pictures, volumes
from nx47dask.reports.markup import Cell, table
from nx47dask.reports.pictures import MOST_SLICES
from nx47dask.words import duration, percent
from tests.conftest import sheets
from tests.integration.commands import write_workflow
from tests.pages import Page

LOW, HIGH = {"precision": 0.4, "recall": 0.5, "dice": 0.44}, {"precision": 0.7, "recall": 0.9, "dice": 0.79}


def read_page(run):
    return Page((run.path / "report.html").read_text(encoding="utf-8"))


def write_tiff(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, photometric="minisblack")
    return path


def edit(path, change):
    """Change a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def copy_run(run, folder):
    """A run folder of its own with the stores of another."""
    folder.mkdir()
    for name in ("manifest.json", "metrics"):
        copy = shutil.copytree if name == "metrics" else shutil.copyfile
        copy(run.path / name, folder / name)
    (folder / "store").symlink_to((run.path / "store").resolve())
    return nx47dask.open_run(folder)


def score(value, holes=(), bridges=()):
    """The record of one volume's score."""
    places = {"holes": holes, "bridges": bridges}
    return {
        **dict.fromkeys(("score", "topo", "surface_dice", "voi", "voi_split", "voi_merge"), value),
        "counts": [[1, 2, 3]] * 3,
        "agreement": {"0": LOW, "2": HIGH},
        "defects": {kind: {"count": len(found), "places": list(found)} for kind, found in places.items()},
    }


def add_scores(run, scores, labels):
    """Give a run the scores and labels that ``run --labels`` would."""
    found = {volume.id: volume for volume in discover([labels])}
    edit(run.path / "metrics" / "volumes.json", lambda d: [d["volumes"][v].update(score=s) for v, s in scores.items()])
    recorded = {v: {"path": found[v].path, "kind": "tiff", "fingerprint": found[v].fingerprint} for v in scores}
    edit(run.path / "manifest.json", lambda d: d.update(labels=recorded))
    return nx47dask.open_run(run.path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three volumes: one of 8 bits with a hostile name, one constant, one of 16 bits in a single slice."""
    folder = tmp_path_factory.mktemp("report")
    inputs = [
        write_tiff(folder / "in" / "a&b<c.tif", sheets((12, 40, 36))),
        write_tiff(folder / "in" / "flat.tif", np.full((3, 20, 16), 80, np.uint8)),
        write_tiff(folder / "in" / "one.tif", sheets((1, 30, 34), 1).astype(np.uint16) * 7 + 300),
    ]
    return nx47dask.run(inputs, folder / "out", workflow="v61.1", serial=True)


@pytest.fixture(scope="module")
def page(run):
    return read_page(run)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Two volumes, cut by a box, without scores."""
    folder = tmp_path_factory.mktemp("plain")
    for n, name in enumerate("ab"):
        write_tiff(folder / "in" / f"{name}.tif", sheets((20, 44, 48), n))
        labels = np.zeros((20, 44, 48), np.uint8)
        labels[:, 10:14], labels[:, 30:34], labels[:, :, 44:] = 1, 1, 2
        write_tiff(folder / "labels" / f"{name}.tif", labels)
    workflow = write_workflow(folder)
    return nx47dask.run([folder / "in"], folder / "out", workflow=workflow, serial=True, bbox="2:18,4:44,3:48")


@pytest.fixture
def pair(plain, tmp_path):
    """The two volumes twice, with scores: a baseline and a candidate that is better on one and worse on the other."""
    labels = plain.path.parent / "labels"
    hole = {"box": "6:9,10:14,20:25", "voxels": 12}
    sides = {"before": (0.4, 0.5), "now": (0.46, 0.48)}
    return [
        add_scores(
            copy_run(plain, tmp_path / side), {"a": score(a, holes=[hole]), "b": score(b, bridges=[hole])}, labels
        )
        for side, (a, b) in sides.items()
    ]


def test_verdict_comes_first_and_tells_the_run(run, page):
    masks = [run[volume].metrics["mask"] for volume in run.volumes]
    density = sum(mask["density"] for mask in masks) / 3
    components = sum(mask["components_26"] for mask in masks)
    name, verdict = page.texts[1:3]
    assert name == "out"
    assert verdict.startswith("3 volumes done in ")
    assert verdict.endswith(
        f": mean density {percent(density)}, {components:,} components (26-connected), nothing retried."
    )


def test_warns_of_a_constant_scan_and_an_empty_mask(page):
    assert "The scan is constant: flat (every voxel is 80)." in page.texts
    assert "The mask is empty: flat." in page.texts


def test_says_all_that_was_done_and_with_what(run, page):
    assert "residual_band: {sigma_base: 0.4" in page.text
    assert "threshold: {value: 0.5, by: value}" in page.text
    for part in ("ingest.statistics", "postprocess.1", "measure.merge"):
        assert part in page.texts
    for value in (*run.manifest["artefacts_sha256"].values(), *run.manifest["versions"].values()):
        assert value in page.texts
    for source in run.manifest["inputs"].values():
        assert source["fingerprint"] in page.texts
        assert source["voxels_sha256_by_block"] in page.texts
    assert page.after("threshold", 2) == [f"{run['a&b<c'].metrics['mask']['voxels']:,}", "0"]


def test_escapes_every_name(run, page):
    source = (run.path / "report.html").read_text(encoding="utf-8")
    assert "a&b<c" not in source
    assert "Volume a&b<c" in page.texts
    assert any("a&b<c" in attributes["alt"] for attributes in page.all("img"))


def test_needs_no_other_file(run, page):
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "http" not in (run.path / "report.html").read_text(encoding="utf-8")
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {a["href"][1:] for a in page.all("a")} <= ids


def test_can_be_read_aloud(page):
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert all(a.get("aria-hidden") == "true" or a["aria-label"] for a in page.all("svg"))
    assert {attributes.get("scope") for attributes in page.all("th")} == {"col", "row"}
    assert len(page.all("caption")) == len(page.all("table"))
    assert [len(page.all(tag)) for tag in ("h1", "h2")] == [1, 1 + 3 + 5]
    headings = [tag for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert all(b <= a or int(b[1]) == int(a[1]) + 1 for a, b in itertools.pairwise(headings))


def test_pictures_show_the_planes(run, page):
    planes = [
        re.findall(
            rf"^Overlay of volume a&b<c, ({axis} = \d+)", "\n".join(a["alt"] for a in page.all("img")), re.MULTILINE
        )
        for axis in "zyx"
    ]
    assert [len(set(found)) for found in planes] == [12, MOST_SLICES, MOST_SLICES]
    image, mask = (array.compute(scheduler="synchronous") for array in (run["a&b<c"].image, run["a&b<c"].mask))
    at = planes[1][20].split()[-1]
    scan, over = page.pictures("a&b<c", f"y = {at}")
    plane = image[:, int(at)].astype(float)
    assert np.corrcoef(scan.ravel(), plane.ravel())[0, 1] > 0.98
    np.testing.assert_array_equal(over[..., 3] != 0, mask[:, int(at)] != 0)


def test_uint16_fills_the_grey_scale(run, page):
    scan = run["one"].metrics["scan"]
    assert scan["minimum"] > 255
    plane = page.pictures("one", "z = 0")[0]
    assert plane.min() < 16
    assert plane.max() > 239


def test_a_single_slice_has_no_dice(page):
    labels = [attributes["aria-label"] for attributes in page.all("svg") if "aria-label" in attributes]
    assert labels[-2] == "Continuity (Dice with the slice before), z 0 to 0: no values"


def test_same_folder_gives_same_bytes(run):
    before = [(run.path / name).read_bytes() for name in ("report.html", "report.md")]
    report(nx47dask.open_run(run.path))
    assert [(run.path / name).read_bytes() for name in ("report.html", "report.md")] == before


def test_box_is_named_in_global_voxels(plain):
    page = read_page(plain)
    assert any(text.startswith("Approximate: --bbox: ") for text in page.texts)
    assert {"z = 2", "z = 17", "y = 4", "x = 47"} <= set(page.texts)
    scan, over = page.pictures("a", "z = 10")
    mask = plain["a"].mask.compute(scheduler="synchronous")
    assert scan.shape == (40, 45)
    np.testing.assert_array_equal(over[..., 3] != 0, mask[8] != 0)


def test_zarr_with_leading_axes(tmp_path):
    data = sheets((6, 20, 18))[None, None]
    zarr.save_array(tmp_path / "v.zarr", data)
    done = nx47dask.run([tmp_path / "v.zarr"], tmp_path / "out", workflow="v61.1", serial=True)
    assert [read_page(done).pictures("v", where)[0].shape for where in ("z = 5", "y = 19", "x = 0")] == [
        (20, 18),
        (6, 18),
        (6, 20),
    ]


def test_resumed_retried_and_hungry_runs_say_so(run, tmp_path):
    copy = copy_run(run, tmp_path / "copy")
    changes = {"resumed": 2, "retried": 1, "peak_rss_bytes": 4 << 30}
    edit(copy.path / "manifest.json", lambda d: d["stages"]["detect"].update(changes))
    edit(copy.path / "manifest.json", lambda d: d.update(submission={"unfinished": ["late"]}))
    report(copy)
    text = read_page(copy).text
    assert "after a resume (2 tasks done before)" in text
    assert "1 task retried." in text
    assert "A worker took 4,096 MiB of memory, more than the " in text
    assert "Not finished, so not in this report, and an empty mask in submission.zip: late." in text


def test_without_labels_the_places_are_jumps_of_density(plain):
    densities = [row["density"] for row in plain.metrics if row["volume"] == "a"]
    z = 2 + int(np.argmax(np.abs(np.diff(densities))))
    page = read_page(plain)
    assert page.after("Where the density changes most", 4) == [
        "Each slice beside the one before it.",
        f"z {z} to {z + 1}",
        "--bbox",
        f"{z}:{z + 2},4:44,3:48",
    ]
    assert "Score" not in page.text
    assert {a["id"] for a in page.all("input")} == {"show-prediction", "show-nothing"}


def test_verdict_against_a_baseline(pair):
    baseline, run = pair
    (baseline.path / "external.json").write_text('{"public": 0.387, "note": "first"}')
    (run.path / "external.json").write_text('{"public": 0.401, "note": "late entry"}')
    report(run, baseline=baseline, gates="score>=0,recall>=0.01,components<=0")
    page = read_page(run)
    markdown = (run.path / "report.md").read_text()
    verdict = (
        "Mean score 0.4700, 0.0200 above the baseline before (95 % interval -0.0200 to +0.0600 over 2 volumes). "
        "1 of 3 gates failed: recall>=0.01."
    )
    assert page.texts[2:4] == ["Failed", verdict]
    assert [a["class"] for a in page.all("strong")] == ["bad"]
    assert "There are 2 volumes only" in page.text
    assert "cannot reach p \\< 0.05 with fewer than 6" in markdown
    assert f"**{verdict}**" in markdown
    assert page.after("score", 8) == ["0.4700", "0.4500", "+0.0200", "-0.0200 to +0.0600", "1", "1", "0", "1"]
    assert "| score | 0.4700 | 0.4500 | +0.0200 | -0.0200 to +0.0600 | 1 | 1 | 0 | 1 |" in markdown
    assert page.after("public score", 3) == ["0.4010", "0.3870", "+0.0140"]
    assert "Recorded with the external scores of this run: late entry." in page.texts
    assert "Recorded with the external scores of the baseline before: first." in page.texts
    assert [a["class"] for a in page.all("li") if "class" in a] == ["passed", "failed", "passed"]
    assert "- recall>=0.01 failed: " in markdown
    assert markdown.count("<details>") == markdown.count("</details>") == 1


def test_each_volume_stands_beside_its_baseline(pair):
    baseline, run = pair
    edit(
        baseline.path / "metrics" / "volumes.json",
        lambda d: d["volumes"]["a"]["mask"].update(largest_components_vox=[77]),
    )
    report(run, baseline=nx47dask.open_run(baseline.path))
    page = read_page(run)
    assert page.after("a", 2) == ["0.4600", "+0.0600"]
    assert "score 0.4600 (+0.0600 against the baseline), " in page.text
    assert "77" in page.texts
    source = (run.path / "report.html").read_text()
    assert source.count('class="behind"') == 2 * 3


def test_scores_of_other_labels_are_not_compared(pair):
    baseline, run = pair
    edit(baseline.path / "manifest.json", lambda d: d["labels"]["a"].update(fingerprint="0" * 64))
    baseline = nx47dask.open_run(baseline.path)
    report(run, baseline=baseline)
    page = read_page(run)
    assert "Scores are not compared where the baseline's labels are others or missing: a." in page.texts
    assert page.after("score", 3) == ["0.4800", "0.5000", "-0.0200"]
    edit(baseline.path / "manifest.json", lambda d: d.pop("labels"))
    with pytest.raises(InputError, match=r"score"):
        report(run, baseline=nx47dask.open_run(baseline.path), gates="score>=0")


def test_only_shared_volumes_are_compared(pair, run):
    baseline, candidate = pair
    edit(baseline.path / "manifest.json", lambda d: d["inputs"].pop("b"))
    report(candidate, baseline=nx47dask.open_run(baseline.path))
    page = read_page(candidate)
    assert "Not compared, since only this run has them or the boxes differ: b." in page.texts
    assert page.after("score", 3) == ["0.4600", "0.4000", "+0.0600"]
    with pytest.raises(InputError, match=r"has the volumes a, b, .* has a&b<c, flat, one"):
        report(candidate, baseline=run, gates="density>=0")


def test_defects_are_shown_where_they_are(pair):
    _, run = pair
    report(run)
    page = read_page(run)
    assert page.after("Worst places", 4) == [
        "1 spurious hole and 0 spurious bridges; the largest of each, cut across z, y and x.",
        "Hole 1, 12 voxels",
        "--bbox",
        "8:11,14:18,23:28",
    ]
    frame = next(a["style"] for a in page.all("i") if a.get("style", "").startswith("left"))
    assert frame == "left:44.4%;top:25.0%;width:11.1%;height:10.0%"  # x 20:25 of 45, y 10:14 of 40


def test_overlay_holds_mask_label_and_ignored(pair):
    _, run = pair
    report(run)
    over = read_page(run).pictures("a", "z = 10")[1]
    labels = tifffile.imread(run.path.parents[0] / run.manifest["labels"]["a"]["path"])[10, 4:44, 3:48]
    mask = run["a"].mask[8].compute(scheduler="synchronous") != 0
    expected = np.stack([mask, labels == 1, labels == 2, mask | (labels > 0)], axis=-1)
    np.testing.assert_array_equal(over == 255, expected)


def test_filters_tell_the_classes_apart():
    matrices = {
        name: np.array([float(v) for v in values.split()]).reshape(4, 5)
        for name, values in re.findall(r'id="over-(\w+)".*?values="(.*?)"', html._filters())
    }
    classes = {"none": (0, 0, 0, 0), "both": (1, 1, 0, 1), "predicted": (1, 0, 0, 1), "labelled": (0, 1, 0, 1)}
    classes |= {"ignored": (0, 0, 1, 1)}

    def shown(mode, name):
        return np.clip(matrices[mode] @ [*classes[name], 1], 0, 1)

    for mode in matrices:
        assert shown(mode, "none")[3] == 0
    np.testing.assert_allclose(shown("disagreement", "predicted"), [*html.ORANGE, 0.85])
    np.testing.assert_allclose(shown("disagreement", "labelled"), [*html.BLUE, 0.85])
    np.testing.assert_allclose(shown("disagreement", "both"), [*html.GREEN, 0.4], atol=1e-9)
    np.testing.assert_allclose(shown("disagreement", "ignored"), [*html.GREY, 0.5], atol=1e-9)
    assert [shown("prediction", name)[3] for name in ("both", "predicted", "labelled", "ignored")] == [0.5, 0.5, 0, 0]
    assert [shown("label", name)[3] for name in ("both", "predicted", "labelled", "ignored")] == [0.5, 0, 0.5, 0.5]


def test_lost_labels_are_said(pair):
    _, run = pair
    edit(run.path / "manifest.json", lambda d: d["labels"]["a"].update(path="/nowhere/a.tif"))
    edit(run.path / "manifest.json", lambda d: d["labels"]["b"].update(fingerprint="0" * 64))
    report(nx47dask.open_run(run.path))
    page = read_page(run)
    assert "Drawn without its labels: /nowhere/a.tif: no such file or folder." in page.texts
    assert any(text.endswith("b.tif: not what the run read of volume b, it was changed since.") for text in page.texts)
    assert not page.pictures("a", "z = 10")[1][..., 1:3].any()


def test_files_that_cannot_be_read_are_said(pair, monkeypatch):
    def damaged(volume, box):
        raise BlockError(f"{volume.id}: a chunk cannot be read")

    _, run = pair
    monkeypatch.setattr(Volume, "read", damaged)
    report(run)
    page = read_page(run)
    assert {"Drawn without its labels: a: a chunk cannot be read.", "z = 10"} <= set(page.texts)
    (run.path / "store").unlink()
    report(run)
    assert "No pictures: a: a chunk cannot be read." in read_page(run).texts


def test_without_stores_pictures_come_from_masks_and_inputs(pair, plain):
    _, run = pair
    report(run)
    before = (run.path / "report.html").read_bytes()
    (run.path / "store").unlink()
    shutil.copytree(plain.path / "masks", run.path / "masks")
    report(run)
    assert (run.path / "report.html").read_bytes() == before
    shutil.rmtree(run.path / "masks")
    edit(run.path / "manifest.json", lambda d: d["inputs"]["b"].update(fingerprint="0" * 64))
    report(nx47dask.open_run(run.path))
    page = read_page(run)
    assert not page.all("img")
    lost = [text for text in page.texts if text.startswith("No pictures: ")]
    assert lost[0].endswith("the store of volume a was moved or deleted.")
    assert lost[1].endswith("b.tif: not what the run read of volume b, it was changed since.")
    assert "score" in page.texts


def test_the_baseline_of_the_run_is_remembered(pair, plain):
    baseline, run = pair
    shutil.copytree(plain.path / "masks", baseline.path / "masks")
    recorded = {"path": str(baseline.path), "gates": "score>=0.5"}
    edit(run.path / "manifest.json", lambda d: d.update(baseline=recorded))
    run = nx47dask.open_run(run.path)
    assert [result.passed for result in report(run)] == [False]
    assert "0.0200 above the baseline before" in read_page(run).texts[3]
    assert [str(result.gate) for result in report(run, gates="recall>=0")] == ["recall>=0"]
    assert read_page(run).texts[2] == "Passed"
    assert report(run, baseline=run) == [], "gates belong to the baseline that they were given with"
    assert ", as the baseline now (95 % interval 0 to 0 over 2 volumes)." in read_page(run).texts[2]
    shutil.rmtree(baseline.path)
    assert report(run) == []
    page = read_page(run)
    assert page.texts[2] == "Mean score 0.4700."
    assert any(f"Nothing is compared with the baseline {baseline.path}: " in text for text in page.texts)
    with pytest.raises(InputError, match=r"--gate recall>=0: there is no baseline"):
        report(run, gates="recall>=0")


def test_gates_wait_for_all_volumes(pair):
    baseline, run = pair
    edit(run.path / "manifest.json", lambda d: d.update(submission={"unfinished": ["c"]}))
    run = nx47dask.open_run(run.path)
    assert report(run, baseline=baseline, gates="score>=0.5") == []
    assert "Gates are not checked, since the run is not finished: score>=0.5." in read_page(run).texts
    edit(run.path / "manifest.json", lambda d: d["inputs"].clear())
    with pytest.raises(InputError, match=r"no volume is finished"):
        report(nx47dask.open_run(run.path))


def test_pictures_keep_to_the_size_of_the_page(plain, tmp_path, monkeypatch):
    copy = copy_run(plain, tmp_path / "small")
    sizes = []
    for limit in (200_000, 300_000):
        monkeypatch.setattr(html, "PAGE_BYTES", limit)
        report(copy)
        sizes.append((copy.path / "report.html").stat().st_size)
        alts = "\n".join(a["alt"] for a in read_page(copy).all("img"))
        for volume in "ab":
            at = [
                sorted({int(z) for z in re.findall(rf"Scan of volume {volume}, {axis} = (\d+)", alts)}) for axis in "yx"
            ]
            assert min(map(len, at)) > 1
            assert all(max(np.diff(one)) <= 2 * min(np.diff(one)) + 1 for one in at), "the slices are not evenly spaced"
    assert sizes[0] < 200_000 < sizes[1] < 300_000
    monkeypatch.setattr(html, "PAGE_BYTES", 0)
    report(copy)
    page = read_page(copy)
    assert not page.all("img")
    assert page.texts.count("No pictures: there is no room for them on this page.") == 2


def test_large_volumes_are_read_plane_by_plane(pair, monkeypatch):
    _, run = pair
    report(run)
    at_once = (run.path / "report.html").read_bytes()
    monkeypatch.setattr(pictures, "WHOLE_VOXELS", 0)
    report(run)
    assert (run.path / "report.html").read_bytes() == at_once
    monkeypatch.setattr(pictures, "READ_VOXELS", 1)
    report(run)
    alts = [a["alt"] for a in read_page(run).all("img")]
    assert len({alt for alt in alts if alt.startswith("Scan of volume b, y")}) == 1 + 1  # a slice and a crop


def test_many_volumes_stay_under_6_mb(run, tmp_path):
    """A thousand rows with sparklines are on the page, the rest is in metrics/volumes.json."""
    copy = copy_run(run, tmp_path / "many")
    ids = [f"{n:09d}" for n in range(1200)]
    rows = (run.path / "metrics" / "slices.csv").read_text().splitlines()
    own = [row.removeprefix("a&b<c") for row in rows if row.startswith("a&b<c")]
    (copy.path / "metrics" / "slices.csv").write_text("\n".join([rows[0], *(i + row for i in ids for row in own)]))

    def repeat(values):
        first = values["a&b<c"]
        values.clear()
        values.update(dict.fromkeys(ids, first))

    edit(copy.path / "metrics" / "volumes.json", lambda d: repeat(d["volumes"]))
    edit(copy.path / "manifest.json", lambda d: repeat(d["inputs"]))
    report(nx47dask.open_run(copy.path))
    source = (copy.path / "report.html").read_text()
    assert len(source.encode()) < 6_000_000
    assert source.count('class="spark"') == volumes.LISTED
    assert "200 volumes more in metrics/volumes.json." in source
    assert source.count('<section class="volume"') == volumes.ILLUSTRATED


def test_large_planes_are_shrunk_to_means_and_thin_masks_stay():
    plane = np.zeros((1152, 600), np.uint16)
    plane[:, 300] = 900
    size = figures.fitted(plane.shape, 384)
    scan = np.asarray(Image.open(io.BytesIO(figures.grey_webp(plane, (0, 900), size))).convert("L"))
    over = np.asarray(Image.open(io.BytesIO(figures.classes_png(plane > 0, None, size))).convert("RGBA"))
    assert scan.shape == over.shape[:2] == size == (384, 200)
    assert abs(float(scan[:, 100].mean()) - 85) < 12
    assert (over[:, 100, 3] > 0).all()
    assert not over[:, 99].any()


def test_long_curves_keep_their_dips():
    values = np.full(20_000, 0.9)
    values[12_345] = 0.1
    svg = figures.svg_curve(figures.Curve("Dice", 0, values.tolist(), 1.0))
    heights = [float(y) for y in re.findall(r"[\d.]+,([\d.]+)", svg.split('points="')[1])]
    assert len(heights) <= figures.LARGEST_POINTS
    assert len(set(heights)) == 2
    assert heights.count(max(heights)) == 1


def test_cells_are_escaped_and_sort_by_their_value():
    rows = table("t", ("a", "b"), [("x", "<i>"), ("y", Cell("1,234", 1234))], "tn", sortable=True)
    assert "<td>&lt;i&gt;</td>" in rows
    assert '<td data-value="1234">1,234</td>' in rows
    assert '<table class="sortable">' in rows


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "40 ms"), (0.44, "0.4 s"), (34.4, "34 s"), (725, "12 min 5 s"), (12_000, "3 h 20 min")],
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(("share", "shown"), [(0, "0 %"), (0.1187, "11.9 %"), (0.00002, "0.002 %"), (1, "100.0 %")])
def test_percents(share, shown):
    assert percent(share) == shown
