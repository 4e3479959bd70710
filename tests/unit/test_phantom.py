"""Synthetic scrolls: a box is the crop of the whole, labels make sense, files have the competition's layout."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import nx47dask.phantom.write
from nx47dask.errors import InputError, StorageError
from nx47dask.geometry import BlockGrid, Box, Index
from nx47dask.phantom.noise import lattice_noise
from nx47dask.phantom.render import Phantom, render
from nx47dask.phantom.write import write_phantom

if TYPE_CHECKING:
    from pathlib import Path

AXIS = st.one_of(st.just(1), st.integers(1, 40))
SHAPES = st.tuples(AXIS, AXIS, AXIS)
PERCENTILES = (1, 25, 50, 75, 99)


@st.composite
def boxes_in(draw: st.DrawFn, shape: Index) -> Box:
    starts = [draw(st.integers(0, n - 1)) for n in shape]
    stops = [draw(st.integers(a + 1, n)) for a, n in zip(starts, shape, strict=True)]
    return Box(tuple(starts), tuple(stops))


@pytest.fixture(scope="module")
def middle():
    """The middle of a large volume: all sheets, no border."""
    return render(Phantom((320, 320, 320), seed=3), Box((128, 96, 96), (192, 224, 224)))


@settings(max_examples=40, deadline=None)
@given(st.data(), SHAPES, st.integers(0, 2**31))
def test_a_box_is_the_crop_of_the_whole(data: st.DataObject, shape: Index, seed: int) -> None:
    phantom = Phantom(shape, seed)
    box = data.draw(boxes_in(shape))
    whole, part = render(phantom, Box.of_shape(shape)), render(phantom, box)
    for all_of_it, some in zip(whole, part, strict=True):
        assert some.shape == box.shape
        np.testing.assert_array_equal(some, all_of_it[box.slices])


@pytest.mark.parametrize("block", [(7, 33, 50), (40, 16, 17)])
def test_blocks_of_any_size_make_the_same_volume_far_from_the_origin(block: Index) -> None:
    phantom, region = Phantom((5000, 7000, 6000), seed=11), Box((2480, 6400, 900), (2520, 6464, 1000))
    image, label = render(phantom, region)
    for piece in BlockGrid(region.shape, block):
        part_image, part_label = render(phantom, piece.box.shift(region.start))
        np.testing.assert_array_equal(part_image, image[piece.box.slices])
        np.testing.assert_array_equal(part_label, label[piece.box.slices])


def test_dust_is_the_same_in_every_cut() -> None:
    phantom, box = Phantom((48, 48, 48), seed=5, speck_share=1.0), Box((20, 21, 22), (29, 28, 27))
    image, _ = render(phantom, Box.of_shape(phantom.shape))
    plain, _ = render(Phantom((48, 48, 48), seed=5, speck_share=0.0), Box.of_shape(phantom.shape))
    assert (image > plain + 20.0).any()
    np.testing.assert_array_equal(render(phantom, box)[0], image[box.slices])


@pytest.mark.parametrize("shape", [(1, 1, 1), (24, 20, 31), (1, 64, 48), (40, 1, 33), (17, 50, 1)])
def test_any_shape_has_valid_labels(shape: Index) -> None:
    image, label = render(Phantom(shape), Box.of_shape(shape))
    assert image.shape == label.shape == shape
    assert image.dtype == label.dtype == np.uint8
    assert set(np.unique(label)) <= {0, 1, 2}


def test_an_empty_box_is_empty() -> None:
    image, label = render(Phantom((8, 8, 8)), Box((2, 3, 4), (2, 5, 6)))
    assert image.shape == label.shape == (0, 2, 2)


def test_the_seed_decides() -> None:
    box = Box.of_shape((16, 40, 40))
    (first, first_label), (again, _), (other, other_label) = (render(Phantom(box.shape, s), box) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5
    assert (first_label != other_label).any()


def test_the_picture_has_the_greys_of_a_scan(middle) -> None:
    image, _ = middle
    found = np.percentile(image, PERCENTILES)
    assert np.all(np.abs(found - (56, 95, 125, 155, 215)) < (15, 22, 30, 22, 20)), found


def test_surface_and_ignore_shares_are_plausible(middle) -> None:
    _, label = middle
    assert 0.06 < (label == 1).mean() < 0.16  # without the border of a whole volume
    assert 0.005 < (label == 2).mean() < 0.2


def test_the_surface_is_the_thin_concave_face_of_bright_sheets() -> None:
    """Walking outward from the umbilicus: air, then the labelled face, then papyrus."""
    phantom = Phantom((300, 300, 300), seed=4, umbilicus_distance_vox=0, wander_vox=0, waviness=0)
    box = Box((150, 150, 190), (151, 151, 290))
    image, label = (a[0, 0] for a in render(phantom, box))
    starts = np.flatnonzero((label[1:] == 1) & (label[:-1] == 0)) + 1
    starts = starts[(starts >= 4) & (starts < len(label) - 8)]
    runs = [int(np.argmin(label[s:] == 1)) for s in starts]
    assert len(runs) >= 2
    assert all(2 <= n <= 4 for n in runs), runs
    assert np.mean([image[s + 1 : s + 4].mean() - image[s - 3 : s].mean() for s in starts]) > 40


def test_the_border_is_ignored_and_scales_down() -> None:
    _, label = render(Phantom((24, 40, 120)), Box.of_shape((24, 40, 120)))
    for axis, border in enumerate((2, 4, 8)):
        sides = np.moveaxis(label, axis, 0)
        assert (sides[:border] == 2).all()
        assert (sides[-border:] == 2).all()
    assert (label[2:-2, 4:-4, 8:-8] != 2).any()


def test_noise_is_standard_and_local() -> None:
    box = Box((-30, 5, -200), (30, 105, -100))
    noise = lattice_noise(7, box, (5, 6, 7))
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.15
    assert 0.8 < noise.std() < 1.2
    assert np.abs(np.diff(noise, axis=2)).max() < 1.5
    part = Box((-3, 50, -150), (4, 51, -120))
    np.testing.assert_array_equal(lattice_noise(7, part, (5, 6, 7)), noise[part.relative_to(box.start).slices])


def test_files_have_the_layout_of_the_competition(tmp_path: Path) -> None:
    shape, calls = (37, 45, 110), []
    ids = write_phantom(tmp_path, shape, 6, count=2, scroll_id=77, progress=lambda *call: calls.append(call))
    assert ids == ["470000006", "470000007"]
    assert (tmp_path / "train.csv").read_text() == "id,scroll_id\n470000006,77\n470000007,77\n"
    expected = {"train.csv", *(f"{folder}/{i}.tif" for folder in ("train_images", "train_labels") for i in ids)}
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()} == expected
    for seed, volume in zip((6, 7), ids, strict=True):
        image, label = render(Phantom(shape, seed), Box.of_shape(shape))
        np.testing.assert_array_equal(tifffile.imread(tmp_path / f"train_images/{volume}.tif"), image)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / f"train_labels/{volume}.tif"), label)
    size = 37 * 45 * 110
    assert calls[-1] == (2 * size, 2 * size)
    assert all(a < b for (a, _), (b, _) in pairwise(calls))


@pytest.mark.parametrize("shape", [(1, 9, 12), (6, 1, 1), (3, 5, 3), (2, 7, 4)])
def test_one_grey_page_per_slice_even_in_odd_shapes(tmp_path: Path, shape: Index) -> None:
    (volume,) = write_phantom(tmp_path, shape)
    for folder, compressions in (("train_images", {"ADOBE_DEFLATE", "LZW"}), ("train_labels", {"LZW"})):
        with tifffile.TiffFile(tmp_path / folder / f"{volume}.tif") as file:
            assert [page.shape for page in file.pages] == [shape[1:]] * shape[0]
            assert {page.compression.name for page in file.pages} <= compressions
        with Image.open(tmp_path / folder / f"{volume}.tif") as picture:
            assert (picture.n_frames, picture.mode) == (shape[0], "L")


@pytest.mark.parametrize("name", ["train_images/470000001.tif", "train_labels/470000000.tif", "train.csv"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(InputError, match=name.rsplit("/", maxsplit=1)[-1]):
        write_phantom(tmp_path, (4, 8, 8), count=2)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_bytes() == b"mine"


@pytest.mark.parametrize("bad", [{"shape": (0, 8, 8)}, {"seed": -1}, {"count": 0}])
def test_impossible_options_are_refused(tmp_path: Path, bad: dict) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        write_phantom(tmp_path / "new", **{"shape": (4, 8, 8), **bad})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("error", "seen"), [(RuntimeError("stop"), RuntimeError), (OSError(28, "full"), StorageError)])
def test_a_failure_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error, seen) -> None:
    def fail_late(phantom: Phantom, box: Box):
        if box.start[0] > 0:
            raise error
        return render(phantom, box)

    monkeypatch.setattr(nx47dask.phantom.write, "render", fail_late)
    with pytest.raises(seen):
        write_phantom(tmp_path, (40, 8, 8))
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match="out"):
        write_phantom(tmp_path / "out", (4, 8, 8))


def test_no_box_is_a_large_share_of_the_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: list[Box] = []

    def blank(phantom: Phantom, box: Box):
        boxes.append(box)
        return np.zeros(box.shape, np.uint8), np.zeros(box.shape, np.uint8)

    shape = (70, 1500, 900)
    monkeypatch.setattr(nx47dask.phantom.write, "render", blank)
    write_phantom(tmp_path, shape)
    assert sum(box.size for box in boxes) == np.prod(shape)
    assert max(box.size for box in boxes) <= 0.004 * np.prod(shape)


@pytest.mark.shared
def test_greys_are_like_those_of_a_real_scan(shared: Path, middle) -> None:
    scans = [tifffile.imread(shared / "data/real" / name / "ct.tif") for name in ("ct128", "ct100")]
    real = np.array([np.percentile(scan, PERCENTILES) for scan in scans])
    found = np.percentile(middle[0], PERCENTILES)
    assert np.all(found > real.min(axis=0) - 15), found
    assert np.all(found < real.max(axis=0) + 15), found
