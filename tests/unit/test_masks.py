"""Mask TIFFs as the scorer reads them, the submission zip, and what happens when the disk takes no more."""

from __future__ import annotations

import os
import subprocess
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageSequence

from nx47dask.errors import InputError, StorageError
from nx47dask.files.atomic import replace_file, sha256_file, write_text
from nx47dask.geometry import Box
from nx47dask.io import discover, write_mask_tiff, write_submission


def random_mask(shape=(9, 33, 41), density=0.1, seed=0):
    return (np.random.default_rng(seed).random(shape) < density).astype(np.uint8)


def cut(mask, *heights):
    return np.split(mask, np.cumsum(heights))


def pillow_pages(path):
    with Image.open(path) as image:
        return np.stack([np.array(page) for page in ImageSequence.Iterator(image)])


@pytest.mark.parametrize("shape", [(9, 33, 41), (1, 33, 41), (3, 1, 41), (3, 33, 1), (1, 1, 1), (2, 700, 700)])
@pytest.mark.parametrize("foreground", [255, 1])
def test_reads_back_like_the_scorer_and_with_tifffile(tmp_path, shape, foreground):
    mask = random_mask(shape, 0.5)
    path = tmp_path / "7.tif"
    digest = write_mask_tiff(path, [mask], shape, foreground=foreground)
    expected = mask * foreground
    pages = pillow_pages(path)
    assert pages.dtype == np.uint8
    np.testing.assert_array_equal(pages, expected)
    np.testing.assert_array_equal(tifffile.imread(path).reshape(shape), expected)
    assert digest == sha256_file(path)
    with tifffile.TiffFile(path) as tif:
        assert {page.compression.name for page in tif.pages} == {"LZW"}
        assert len(tif.pages) == shape[0]
        assert not tif.is_bigtiff


def test_any_nonzero_value_and_bool_are_foreground(tmp_path):
    mask = random_mask()
    write_mask_tiff(tmp_path / "a.tif", [mask * 2], mask.shape)
    write_mask_tiff(tmp_path / "b.tif", [mask.astype(bool)], mask.shape)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    np.testing.assert_array_equal(pillow_pages(tmp_path / "a.tif"), mask * 255)


def test_bytes_depend_on_the_mask_alone(tmp_path):
    mask = random_mask()
    first = write_mask_tiff(tmp_path / "a.tif", cut(mask, 1, 3), mask.shape)
    second = write_mask_tiff(tmp_path / "other name.tif", cut(mask, 4, 2, 2), mask.shape)
    assert first == second
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        names = {tag.name for page in tif.pages for tag in page.tags}
    assert not names & {"DateTime", "Software", "ImageDescription", "HostComputer"}
    mask[0, 0, 0] ^= 1
    assert write_mask_tiff(tmp_path / "a.tif", [mask], mask.shape) != first


def test_mask_opens_as_a_volume(tmp_path):
    mask = random_mask()
    write_mask_tiff(tmp_path / "7.tif", [mask], mask.shape)
    (volume,) = discover([tmp_path])
    np.testing.assert_array_equal(volume.read(Box.of_shape(mask.shape)), mask * 255)


def test_bigtiff_when_it_could_exceed_4_gib(tmp_path, monkeypatch):
    monkeypatch.setattr("nx47dask.io.tiff._CLASSIC_LIMIT_BYTES", 1000)
    mask = random_mask()
    write_mask_tiff(tmp_path / "a.tif", [mask], mask.shape)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
    np.testing.assert_array_equal(pillow_pages(tmp_path / "a.tif"), mask * 255)


@pytest.mark.parametrize(
    ("slabs", "text"),
    [
        (lambda m: [m[:4]], "4 pages"),
        (lambda m: [m, m[:1]], "(1, 33, 41)"),
        (lambda m: [m[:, :5]], "(9, 5, 41)"),
    ],
    ids=["too few", "too many", "other plane"],
)
def test_wrong_slabs_leave_nothing(tmp_path, slabs, text):
    mask = random_mask()
    with pytest.raises(InputError) as caught:
        write_mask_tiff(tmp_path / "a.tif", slabs(mask), mask.shape)
    assert all(part in str(caught.value) for part in ("a.tif", text, "(9, 33, 41)"))
    assert list(tmp_path.iterdir()) == []


def test_a_failing_source_leaves_the_old_file(tmp_path):
    mask = random_mask()
    before = write_mask_tiff(tmp_path / "a.tif", [mask], mask.shape)

    def broken():
        yield mask[:4]
        raise RuntimeError("a worker went away")

    with pytest.raises(RuntimeError, match="went away"):
        write_mask_tiff(tmp_path / "a.tif", broken(), mask.shape)
    assert sha256_file(tmp_path / "a.tif") == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


# Submission


def write_masks(folder, names=("9", "10", "2")):
    folder.mkdir()
    paths = [folder / f"{name}.tif" for name in names]
    for seed, path in enumerate(paths):
        mask = random_mask(seed=seed)
        write_mask_tiff(path, [mask], mask.shape)
    return paths


def test_submission_holds_stored_masks_at_the_root(tmp_path):
    masks = write_masks(tmp_path / "masks")
    digest = write_submission(tmp_path / "submission.zip", masks)
    assert digest == sha256_file(tmp_path / "submission.zip")
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(path.name for path in masks)
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert all(archive.read(path.name) == path.read_bytes() for path in masks)


def test_submission_bytes_depend_on_the_masks_alone(tmp_path):
    masks = write_masks(tmp_path / "masks")
    first = write_submission(tmp_path / "a.zip", masks)
    for path in masks:
        os.utime(path, ns=(10**18, 10**18))
        path.chmod(0o600)
    assert write_submission(tmp_path / "b.zip", masks[::-1]) == first


def test_submission_with_zip64_members_reads_back(tmp_path, monkeypatch):
    monkeypatch.setattr("nx47dask.io.submission._ZIP64_FROM_BYTES", 0)
    masks = write_masks(tmp_path / "masks")
    write_submission(tmp_path / "a.zip", masks)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.read("9.tif") == masks[0].read_bytes()


def test_submission_refuses_missing_and_equal_names(tmp_path):
    masks = write_masks(tmp_path / "a")
    others = write_masks(tmp_path / "b")
    with pytest.raises(InputError, match=r"nowhere\.tif: no such mask"):
        write_submission(tmp_path / "x.zip", [*masks, tmp_path / "nowhere.tif"])
    with pytest.raises(InputError) as caught:
        write_submission(tmp_path / "x.zip", [masks[0], others[0]])
    assert all(str(path) in str(caught.value) for path in (masks[0], others[0]))
    assert not (tmp_path / "x.zip").exists()


# Atomic files and full disks


def test_write_text_replaces_whole_files(tmp_path):
    path = tmp_path / "new" / "volumes.json"
    write_text(path, "Å")
    write_text(path, "µ\n")
    assert path.read_bytes() == "µ\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["volumes.json"]


def test_replace_file_keeps_the_old_one_on_an_error(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")

    def interrupted():
        with replace_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB that ends with the test; the fixture remounts and unmounts only its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_named_and_left_clean(small_disk):
    noise = random_mask((60, 128, 128), 0.5)
    with pytest.raises(StorageError) as caught:
        write_mask_tiff(small_disk / "a.tif", [noise], noise.shape)
    message = str(caught.value)
    assert all(part in message for part in (str(small_disk / "a.tif"), "No space left", "bytes needed", "bytes free"))
    assert list(small_disk.iterdir()) == []


def test_full_disk_stops_the_submission_and_text(small_disk, tmp_path):
    masks = write_masks(tmp_path / "masks", [str(i) for i in range(40)])
    with pytest.raises(StorageError, match=r"a\.zip.*No space left"):
        write_submission(small_disk / "a.zip", masks)
    with pytest.raises(StorageError, match=r"a\.json.*100,000 bytes needed"):
        write_text(small_disk / "a.json", "x" * 100_000)
    assert list(small_disk.iterdir()) == []


def test_read_only_disk_is_named(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    mask = random_mask()
    with pytest.raises(StorageError, match=r"a\.tif: cannot be written \(Read-only file system\)"):
        write_mask_tiff(small_disk / "a.tif", [mask], mask.shape)


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "masks").touch()
    with pytest.raises(StorageError, match="masks"):
        write_text(tmp_path / "masks" / "a.json", "{}")
