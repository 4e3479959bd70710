"""The report of small real runs: what it says, what it escapes, that it stands alone."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import nx47dask
from nx47dask.report import figures
from nx47dask.report.html import write_report
from nx47dask.report.markup import duration, percent, table
from tests.conftest import sheets

VOID = {"meta", "link", "br", "img", "input"}


class Page(HTMLParser):
    """Tags, texts and attributes of a page; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] != "style":
            self.texts.append(" ".join(data.split()))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def pictures(self):
        for attributes in self.all("img"):
            yield attributes, np.asarray(Image.open(io.BytesIO(base64.b64decode(attributes["src"].split(",", 1)[1]))))


def write_tiff(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, photometric="minisblack")
    return path


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
    return Page((run.path / "report.html").read_text(encoding="utf-8"))


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
    text = "\n".join(page.texts)
    assert "residual_band: {sigma_base: 0.4" in text
    assert "threshold: {value: 0.5, by: value}" in text
    for part in ("ingest.statistics", "postprocess.1", "measure.merge"):
        assert part in page.texts
    for value in (*run.manifest["artefacts_sha256"].values(), *run.manifest["versions"].values()):
        assert value in page.texts
    for source in run.manifest["inputs"].values():
        assert source["fingerprint"] in page.texts
        assert source["voxels_sha256_by_block"] in page.texts
    step = page.texts.index("threshold")
    assert page.texts[step + 1 : step + 3] == [f"{run['a&b<c'].metrics['mask']['voxels']:,}", "0"]


def test_escapes_every_name(run, page):
    source = (run.path / "report.html").read_text(encoding="utf-8")
    assert "a&b<c" not in source
    assert "Volume a&b<c" in page.texts
    assert any("a&b<c" in attributes["alt"] for attributes in page.all("img"))


def test_needs_no_other_file(page):
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not page.all("script")
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {a["href"][1:] for a in page.all("a")} <= ids


def test_can_be_read_aloud(page):
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert all(attributes["aria-label"] for attributes in page.all("svg"))
    assert {attributes.get("scope") for attributes in page.all("th")} == {"col", "row"}
    assert len(page.all("caption")) == len(page.all("table"))
    assert [len(page.all(tag)) for tag in ("h1", "h2")] == [1, 1 + 3 + 5]


def test_pictures_show_the_planes(run, page):
    pictures = [picture for _, picture in page.pictures()]
    assert len(pictures) == 3 * 3 * 2
    image, mask = (array.compute(scheduler="synchronous") for array in (run["a&b<c"].image, run["a&b<c"].mask))
    scan = run["a&b<c"].metrics["scan"]
    expected = (image[:, 20, :].astype(float) - scan["minimum"]) / (scan["maximum"] - scan["minimum"])
    np.testing.assert_array_equal(pictures[2], np.round(255 * expected))
    np.testing.assert_array_equal(pictures[3] != 0, mask[:, 20, :] != 0)


def test_uint16_fills_the_grey_scale(run, page):
    scan = run["one"].metrics["scan"]
    assert scan["minimum"] > 255
    plane = [picture for _, picture in page.pictures()][12]
    assert (plane.min(), plane.max()) == (0, 255)


def test_a_single_slice_has_no_dice(page):
    labels = [attributes["aria-label"] for attributes in page.all("svg")]
    assert labels[-1] == "Dice with the slice before, z 0 to 0: no values"


def test_same_folder_gives_same_bytes(run, tmp_path):
    write_report(nx47dask.open_run(run.path), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (run.path / "report.html").read_bytes()


def test_box_is_named_in_global_voxels(make_tiff, tmp_path):
    done = nx47dask.run(
        [make_tiff()], tmp_path / "out", workflow="v61.2", serial=True, bbox="4:20,10:40,2:30", block=16
    )
    page = Page((done.path / "report.html").read_text(encoding="utf-8"))
    assert any(text.startswith("Approximate: --bbox: ") for text in page.texts)
    assert {"z = 12", "y = 25", "x = 16"} <= set(page.texts)
    assert [picture.shape for _, picture in page.pictures()][::2] == [(30, 28), (16, 28), (16, 30)]


def test_zarr_with_leading_axes(tmp_path):
    data = sheets((6, 20, 18))[None, None]
    zarr.save_array(tmp_path / "v.zarr", data)
    done = nx47dask.run([tmp_path / "v.zarr"], tmp_path / "out", workflow="v61.1", serial=True)
    page = Page((done.path / "report.html").read_text(encoding="utf-8"))
    assert [picture.shape for _, picture in page.pictures()][::2] == [(20, 18), (6, 18), (6, 20)]


def test_resumed_retried_and_hungry_runs_say_so(run, tmp_path):
    copy = tmp_path / "copy"
    (copy / "metrics").mkdir(parents=True)
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["stages"]["detect"] |= {"resumed": 2, "retried": 1, "peak_rss_bytes": 4 << 30}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    for name in ("volumes.json", "slices.csv"):
        (copy / "metrics" / name).write_bytes((run.path / "metrics" / name).read_bytes())
    (copy / "store").symlink_to(run.path / "store")
    write_report(nx47dask.open_run(copy), copy / "report.html")
    text = "\n".join(Page((copy / "report.html").read_text()).texts)
    assert "after a resume (2 tasks done before)" in text
    assert "1 task retried." in text
    assert "A worker took 4,096 MiB of memory, more than the " in text


def test_large_planes_are_shrunk_to_means_and_thin_masks_stay():
    plane = np.zeros((1030, 600), np.uint16)
    plane[:, 300] = 900
    assert figures.shrink_factor(plane.shape) == 3
    scan = np.asarray(Image.open(io.BytesIO(figures.scan_png(plane, 0, 900))))
    mask = np.asarray(Image.open(io.BytesIO(figures.mask_png(plane > 0))))
    assert scan.shape == mask.shape == (344, 200)
    assert set(scan[:, 100]) == {85}
    assert (mask[:, 100] > 0).all()
    assert not mask[:, 99].any()


def test_outline_is_stronger_than_the_inside():
    plane = np.zeros((9, 9), bool)
    plane[2:7, 2:7] = True
    alpha = np.asarray(Image.open(io.BytesIO(figures.mask_png(plane))))
    assert alpha[0, 0] == 0
    assert 0 < alpha[4, 4] < alpha[2, 4]


def test_long_curves_keep_their_dips():
    values = np.full(20_000, 0.9)
    values[12_345] = 0.1
    svg = figures.svg_curve(figures.Curve("Dice", 0, values.tolist(), 1.0))
    heights = [float(y) for y in re.findall(r"[\d.]+,([\d.]+)", svg.split('points="')[1])]
    assert len(heights) <= figures.LARGEST_POINTS
    assert len(set(heights)) == 2
    assert heights.count(max(heights)) == 1


def test_cells_are_escaped():
    assert "<td>&lt;i&gt;</td>" in table("t", ("a", "b"), [("x", "<i>")], "tn")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "40 ms"), (0.44, "0.4 s"), (34.4, "34 s"), (725, "12 min 5 s"), (12_000, "3 h 20 min")],
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(("share", "shown"), [(0, "0 %"), (0.1187, "11.9 %"), (0.00002, "0.002 %"), (1, "100.0 %")])
def test_percents(share, shown):
    assert percent(share) == shown


def test_pictures_of_noise_stay_small():
    noise = np.random.default_rng(0).integers(0, 256, (320, 320), dtype=np.uint8)
    picture = len(figures.png_uri(figures.scan_png(noise, 0, 255)) + figures.png_uri(figures.mask_png(noise > 128)))
    assert 4 * 3 * picture < 3_000_000
