"""Opening inputs of every kind, and refusing what is no volume."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from nx47dask.errors import BlockError, InputError
from nx47dask.geometry import Box
from nx47dask.io import Volume, discover

SHAPE = (5, 37, 41)


def noise(shape=SHAPE, dtype="uint8", seed=0):
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, shape, dtype=dtype, endpoint=True)


def write_pages(path: Path, data, **options) -> Path:
    tifffile.imwrite(path, data, **{"photometric": "minisblack", "metadata": None, **options})
    return path


def write_slices(folder: Path, data, names=None) -> Path:
    folder.mkdir()
    for z, plane in enumerate(data):
        write_pages(folder / (names[z] if names else f"{z:04d}.tif"), plane)
    return folder


def only(*inputs, **options) -> Volume:
    (volume,) = discover(inputs, **options)
    return volume


def refusal(*inputs, **options) -> str:
    with pytest.raises(InputError) as caught:
        discover(inputs, **options)
    message = str(caught.value)
    assert "Traceback" not in message
    return message


def outcome(path: Path) -> tuple[str, Volume | None]:
    try:
        return "", only(path)
    except InputError as error:
        return str(error), None


def assert_reads(volume: Volume, data) -> None:
    assert (volume.shape, volume.dtype) == (data.shape, data.dtype.name)
    whole = volume.read(Box.of_shape(volume.shape))
    np.testing.assert_array_equal(whole, data)
    assert whole.dtype == np.dtype(volume.dtype)
    box = Box((1, 2, 3), (4, 20, 40))
    np.testing.assert_array_equal(volume.read(box), data[box.slices])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw"},
        {"compression": "zlib", "predictor": True},
        {"compression": "zstd"},
        {"tile": (16, 16), "compression": "lzw"},
        {"bigtiff": True, "byteorder": ">"},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "TYX"}},
        {"metadata": {}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
    ],
    ids=lambda options: "-".join(map(str, options)) or "plain",
)
def test_multipage_tiff_reads_back(tmp_path, dtype, options):
    data = noise(dtype=dtype)
    path = write_pages(tmp_path / "91.scan.v2.tif", data, **options)
    volume = only(path)
    assert (volume.id, volume.kind, volume.path) == ("91", "tiff", str(path))
    assert_reads(pickle.loads(pickle.dumps(volume)), data)


def test_one_directory_stack_is_memory_mapped(tmp_path):
    data = noise(dtype="uint16")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data, photometric="minisblack", truncate=True)
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 1
    assert_reads(only(path), data)


def test_threads_share_a_volume(tmp_path):
    data = noise((40, 64, 64))
    volume = only(write_pages(tmp_path / "a.tif", data, compression="lzw"))
    boxes = [Box((z, 0, 0), (z + 2, 64, 64)) for z in range(38)] * 4
    with ThreadPoolExecutor(4) as pool:
        for box, read in zip(boxes, pool.map(volume.read, boxes), strict=True):
            np.testing.assert_array_equal(read, data[box.slices])


def test_one_slice_volume_declared_as_3d(tmp_path):
    data = noise((1, 9, 8))
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack")
    volume = only(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.read(Box.of_shape((1, 9, 8))), data)


def test_folder_of_volumes_comes_in_natural_order(tmp_path):
    for name in ("v10", "v9", "v100"):
        write_pages(tmp_path / f"{name}.tif", noise())
    (tmp_path / "train.csv").write_text("id\n")
    (tmp_path / "._v9.tif").write_bytes(b"resource fork")
    assert [volume.id for volume in discover([tmp_path])] == ["v9", "v10", "v100"]


def test_inputs_keep_their_order(tmp_path):
    paths = [write_pages(tmp_path / f"{name}.tif", noise()) for name in "cab"]
    assert [volume.id for volume in discover(paths)] == ["c", "a", "b"]


def test_slices_come_in_natural_order(tmp_path):
    data = noise((12, 7, 6), "uint16")
    folder = write_slices(tmp_path / "scroll.7um", data, [f"s_{z + 8}.tif" for z in range(12)])
    volume = only(folder)
    assert (volume.id, volume.kind) == ("scroll.7um", "tiff-slices")
    np.testing.assert_array_equal(volume.read(Box((1, 2, 0), (11, 7, 5))), data[1:11, 2:7, 0:5])


def test_slices_with_a_gap_are_refused(tmp_path):
    folder = write_slices(tmp_path / "s", noise((3, 7, 6)), ["8.tif", "9.tif", "11.tif"])
    assert all(part in refusal(folder) for part in ("11.tif", "slice 11", "slice 9"))


def test_two_slices_of_one_number_are_refused(tmp_path):
    folder = write_slices(tmp_path / "s", noise((2, 7, 6)), ["8.tif", "08.tif"])
    assert "slice 8 follows slice 8" in refusal(folder)


def test_slices_of_two_stacks_are_refused(tmp_path):
    folder = write_slices(tmp_path / "s", noise((2, 7, 6)), ["a1.tif", "b2.tif"])
    assert all(part in refusal(folder) for part in ("b2.tif", "a1.tif"))


@pytest.mark.parametrize(
    ("other", "texts"),
    [(noise((7, 5)), ("(7, 5)", "(7, 6)")), (noise((7, 6), "uint16"), ("uint16", "uint8"))],
    ids=["shape", "dtype"],
)
def test_mixed_slices_are_refused(tmp_path, other, texts):
    folder = write_slices(tmp_path / "s", noise((3, 7, 6)))
    write_pages(folder / "0003.tif", other)
    assert all(part in refusal(folder) for part in ("0003.tif", *texts))


def test_slices_and_volumes_in_one_folder_are_refused(tmp_path):
    folder = write_slices(tmp_path / "s", noise((3, 7, 6)))
    write_pages(folder / "volume.tif", noise())
    assert all(part in refusal(folder) for part in ("0000.tif", "volume.tif"))


def test_slices_that_change_after_discovery_are_refused(tmp_path):
    volume = only(write_slices(tmp_path / "s", noise((3, 7, 6))))
    (tmp_path / "s" / "0002.tif").unlink()
    with pytest.raises(InputError, match="2 slices"):
        volume.read(Box.of_shape(volume.shape))


def test_truncated_slice_is_named_on_reading(tmp_path):
    folder = write_slices(tmp_path / "s", noise((3, 70, 60)))
    path = folder / "0001.tif"
    path.write_bytes(path.read_bytes()[:-100])
    message = refusal(folder)
    assert "0001.tif" in message
    assert f"{path.stat().st_size} bytes" in message


def test_2d_image_is_refused(tmp_path):
    path = write_pages(tmp_path / "flat.tif", noise((7, 6)))
    for given in (path, tmp_path):
        assert all(part in refusal(given) for part in ("flat.tif", "(7, 6)", "2-D"))


@pytest.mark.parametrize(
    ("data", "options", "texts"),
    [
        (np.zeros((3, 8, 8, 3), np.uint8), {"photometric": "rgb"}, ("RGB", "3 samples", "1")),
        (np.zeros((3, 8, 8), np.float32), {}, ("float32", "uint8 or uint16", "np.clip")),
        (np.full((3, 8, 8), np.nan, np.float32), {}, ("float32", "uint8 or uint16")),
        (np.zeros((3, 8, 8), bool), {}, ("bool", "uint8")),
        (np.zeros((3, 8, 8), np.int16), {}, ("int16", "uint8 or uint16")),
        (np.zeros((3, 8, 8), np.uint32), {}, ("uint32", "uint8 or uint16")),
        (np.zeros((3, 8, 8), np.uint8), {"photometric": "miniswhite"}, ("MINISWHITE", "MINISBLACK")),
        (np.zeros((4, 16, 16), np.uint8), {"volumetric": True, "tile": (4, 16, 16)}, ("volumetric", "4 planes")),
        (np.zeros((2, 3, 8, 8), np.uint8), {"imagej": True, "metadata": {"axes": "ZCYX"}}, ("Z=2", "C=3")),
    ],
    ids=["rgb", "float", "nan", "bool", "signed", "uint32", "inverted", "volumetric", "channels"],
)
def test_what_is_no_grey_scan_is_refused(tmp_path, data, options, texts):
    path = write_pages(tmp_path / "bad.tif", data, **options)
    message = refusal(path)
    assert all(part in message for part in ("bad.tif", *texts)), message


def test_pages_of_different_shapes_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "bad.tif") as writer:
        for shape in ((8, 8), (8, 8), (8, 9)):
            writer.write(noise(shape), photometric="minisblack", metadata=None)
    assert all(part in refusal(tmp_path / "bad.tif") for part in ("bad.tif", "page 2 of 3", "(8, 9)", "(8, 8)"))


def test_pages_of_different_dtypes_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "bad.tif") as writer:
        for dtype in ("uint8", "uint16"):
            writer.write(noise((8, 8), dtype), photometric="minisblack", metadata=None)
    assert all(part in refusal(tmp_path / "bad.tif") for part in ("bad.tif", "page 1 of 2", "uint8", "uint16"))


def test_missing_file(tmp_path):
    assert "nowhere.tif: no such file" in refusal(tmp_path / "nowhere.tif")


def test_zero_byte_file(tmp_path):
    (tmp_path / "void.tif").touch()
    assert "void.tif: the file has 0 bytes" in refusal(tmp_path / "void.tif")


@pytest.mark.parametrize("content", [b"II*\0\0\0\0\0", b"II*\0\x08\0\0\0"], ids=["no page", "page beyond the end"])
def test_empty_tiff(tmp_path, content):
    (tmp_path / "void.tif").write_bytes(content)
    message = refusal(tmp_path / "void.tif")
    assert "void.tif" in message
    assert "8 bytes" in message


def test_not_a_tiff(tmp_path):
    (tmp_path / "fake.tif").write_text("id,label\n")
    assert all(part in refusal(tmp_path / "fake.tif") for part in ("fake.tif: not a TIFF", "9 bytes"))


@pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"metadata": {}, "truncate": True}])
def test_truncation_never_loses_voxels_silently(tmp_path, options):
    data = noise((6, 40, 40))
    whole = write_pages(tmp_path / "whole.tif", data, **options).read_bytes()
    path = tmp_path / "cut.tif"
    refused = 0
    sizes = range(len(whole) - 1, 8, -(len(whole) // 25))
    for size in sizes:
        path.write_bytes(whole[:size])
        message, volume = outcome(path)
        if volume is None:
            assert str(path) in message
            assert f"{size} bytes" in message
            refused += 1
        else:  # what was cut off was no voxel
            np.testing.assert_array_equal(volume.read(Box.of_shape(volume.shape)), data)
    assert refused >= len(sizes) - 1


def test_lost_last_pages_are_refused(tmp_path):
    """A file whose pages are written one after the other loses whole pages, which tifffile only logs."""
    path = tmp_path / "cut.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in noise((6, 40, 40)):
            writer.write(plane, photometric="minisblack", metadata=None)
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        second_page = tif.pages[2].offset
    path.write_bytes(whole[:second_page])
    assert all(part in refusal(path) for part in ("after 2 readable pages", str(second_page)))


def test_damaged_page_is_named_on_reading(tmp_path):
    path = write_pages(tmp_path / "a.tif", noise((4, 40, 40)), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[2].dataoffsets[0], tif.pages[2].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = b"\xff" * count
    path.write_bytes(content)
    volume = only(path)
    volume.read(Box((0, 0, 0), (2, 40, 40)))
    with pytest.raises(InputError, match=r"a\.tif, page 2 of 4"):
        volume.read(Box.of_shape(volume.shape))


def test_two_inputs_of_one_id(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_pages(tmp_path / folder / "7.tif", noise())
    message = refusal(tmp_path / "a", tmp_path / "b" / "7.tif")
    assert all(part in message for part in ("id 7", str(tmp_path / "a" / "7.tif"), str(tmp_path / "b" / "7.tif")))


def test_unreadable_file():
    folder = Path(tempfile.mkdtemp())  # tmp_path is closed to other users, so it would hide the file's own permission
    path = write_pages(folder / "secret.tif", noise())
    folder.chmod(0o755)
    path.chmod(0)
    was_root = os.geteuid() == 0
    try:
        if was_root:
            os.seteuid(65534)
        assert "secret.tif: cannot be read (Permission denied)" in refusal(path)
    finally:
        if was_root:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_empty_folder_and_no_input(tmp_path):
    (tmp_path / "train_images").mkdir()
    assert all(part in refusal(tmp_path) for part in (str(tmp_path), "train_images"))
    assert "no input volumes" in refusal()


def test_fingerprint_follows_the_file(tmp_path):
    path = write_pages(tmp_path / "a.tif", noise())
    before = only(path)
    assert only(path) == before
    os.utime(path, ns=(1, 1))
    assert only(path).fingerprint != before.fingerprint


def test_box_outside_is_refused(tmp_path):
    volume = only(write_pages(tmp_path / "a.tif", noise()))
    with pytest.raises(BlockError, match=r"0:6.*\(5, 37, 41\)"):
        volume.read(Box((0, 0, 0), (6, 37, 41)))


# Zarr


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", ">u2"])
def test_plain_zarr_reads_back(tmp_path, zarr_format, dtype):
    data = noise(dtype=np.dtype(dtype).newbyteorder("=").name)
    array = zarr.create_array(
        str(tmp_path / "scan.zarr"), shape=SHAPE, chunks=(2, 16, 16), dtype=dtype, zarr_format=zarr_format
    )
    array[:] = data
    volume = only(tmp_path / "scan.zarr")
    assert (volume.id, volume.kind, volume.component, volume.voxel_um) == ("scan", "zarr", "", None)
    assert_reads(pickle.loads(pickle.dumps(volume)), data)


def write_ome(path: Path, version: str, data, axes="zyx", scale=(2.0, 1.0, 1.0), unit="micrometer") -> Path:
    """An OME-Zarr group with two levels, whose metadata are spelled out here and not made by the package."""
    datasets = []
    for level, step in enumerate((1, 2)):
        array = zarr.create_array(
            str(path / f"s{level}"),
            data=np.ascontiguousarray(data[..., ::step, ::step, ::step]),
            zarr_format=2 if version == "0.4" else 3,
        )
        assert array.ndim == len(axes)
        factors = [1.0] * (len(axes) - 3) + [s * step for s in scale]
        datasets.append({"path": f"s{level}", "coordinateTransformations": [{"type": "scale", "scale": factors}]})
    units = [{"name": a, "type": "space", "unit": unit} if a in "zyx" else {"name": a} for a in axes]
    image = {"axes": units, "datasets": datasets}
    if version == "0.4":
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps({"multiscales": [{"version": "0.4", **image}]}))
    else:
        attributes = {"ome": {"version": "0.5", "multiscales": [image]}}
        (path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}))
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "tczyx"])
def test_ome_zarr_levels(tmp_path, version, axes):
    data = noise((10, 74, 82), "uint16")
    path = write_ome(tmp_path / "scan.ome.zarr", version, data.reshape((1,) * (len(axes) - 3) + data.shape), axes)
    fine, coarse = only(path), only(path, level=1)
    assert (fine.id, fine.component, fine.voxel_um) == ("scan", "s0", (2.0, 1.0, 1.0))
    assert (coarse.component, coarse.voxel_um) == ("s1", (4.0, 2.0, 2.0))
    assert_reads(fine, data)
    assert_reads(coarse, data[::2, ::2, ::2])
    assert fine.fingerprint != coarse.fingerprint
    assert all(part in refusal(path, level=2) for part in ("scan.ome.zarr", "level 2 ", "0 to 1", "--level"))


def test_ome_zarr_voxel_size_in_nanometers_or_unknown(tmp_path):
    path = write_ome(tmp_path / "a.zarr", "0.5", noise(), scale=(7910.0, 7910.0, 7910.0), unit="nanometer")
    assert only(path).voxel_um == pytest.approx((7.91, 7.91, 7.91))
    path = write_ome(tmp_path / "b.zarr", "0.5", noise(), unit="parsec")
    assert only(path).voxel_um is None


def test_ome_zarr_with_channels_or_swapped_axes_is_refused(tmp_path):
    path = write_ome(tmp_path / "a.zarr", "0.5", noise((2, *SHAPE)), "czyx")
    assert all(part in refusal(path) for part in ("a.zarr", "(2, 5, 37, 41)", "length 1"))
    path = write_ome(tmp_path / "b.zarr", "0.5", noise(), "xyz")
    assert all(part in refusal(path) for part in ("b.zarr", "x, y, z", "z, y, x"))


def test_array_inside_an_ome_group(tmp_path):
    data = noise()
    path = write_ome(tmp_path / "scan.zarr", "0.5", data)
    volume = only(path / "s0")
    assert volume.id == "scan"
    assert_reads(volume, data)


def test_folder_of_zarrs_and_level_of_a_plain_one(tmp_path):
    for name in ("v10", "v9"):
        zarr.create_array(str(tmp_path / f"{name}.zarr"), data=noise())
    assert [volume.id for volume in discover([tmp_path])] == ["v9", "v10"]
    assert all(part in refusal(tmp_path, level=1) for part in ("v9.zarr", "level 1 ", "level 0", "--level"))


def test_zarr_and_tiff_inputs_mix(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), data=noise())
    slices = write_slices(tmp_path / "b", noise())
    tif = write_pages(tmp_path / "c.tif", noise())
    assert [v.kind for v in discover([slices, tif, tmp_path / "a.zarr"])] == ["tiff-slices", "tiff", "zarr"]


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (np.zeros(SHAPE, np.float32), ("float32", "uint8 or uint16")),
        (np.zeros(SHAPE, bool), ("bool", "uint8 or uint16")),
        (np.zeros((7, 6), np.uint8), ("(7, 6)", "3 axes")),
        (np.zeros((0, 7, 6), np.uint8), ("(0, 7, 6)", "at least 1 voxel")),
    ],
    ids=["float", "bool", "2d", "empty"],
)
def test_unusable_zarr_is_refused(tmp_path, data, texts):
    zarr.create_array(str(tmp_path / "bad.zarr"), shape=data.shape, dtype=data.dtype, chunks=(4,) * data.ndim)
    assert all(part in refusal(tmp_path / "bad.zarr") for part in ("bad.zarr", *texts))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"zarr_format": 3}', '{"zarr_format": 9, "node_type": "array"}'])
def test_broken_zarr_metadata_is_refused(tmp_path, content):
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text(content)
    assert "bad.zarr" in refusal(tmp_path / "bad.zarr")


def test_ome_group_whose_array_is_missing(tmp_path):
    path = write_ome(tmp_path / "a.zarr", "0.5", noise())
    shutil.rmtree(path / "s1")
    assert all(part in refusal(path, level=1) for part in ("a.zarr", "s1"))


def test_zarr_group_without_multiscales_is_refused(tmp_path):
    zarr.create_group(str(tmp_path / "g.zarr"))
    assert all(part in refusal(tmp_path / "g.zarr") for part in ("g.zarr", "multiscales"))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_missing_chunk_reads_as_fill_and_corrupt_chunk_is_named(tmp_path, zarr_format):
    data = noise((8, 8, 8))
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), shape=(8, 8, 8), chunks=(4, 8, 8), dtype="u1", fill_value=7, zarr_format=zarr_format)[
        :
    ] = data
    first, second = ("c/0/0/0", "c/1/0/0") if zarr_format == 3 else ("0.0.0", "1.0.0")
    (path / first).unlink()
    volume = only(path)
    assert (volume.read(Box((0, 0, 0), (4, 8, 8))) == 7).all()
    (path / second).write_bytes(b"not a chunk")
    with pytest.raises(BlockError, match=r"volume a: .*a\.zarr, box 0:8,0:8,0:8"):
        volume.read(Box.of_shape((8, 8, 8)))


@pytest.mark.shared
def test_shared_scans_are_found(shared):
    volumes = discover([shared / "data" / "simscroll" / "train_images", shared / "data" / "real" / "ct100" / "ct.tif"])
    assert [v.id for v in volumes] == ["910000101", "910000102", "910000103", "910000104", "ct"]
    volume = volumes[3]
    box = Box((100, 50, 60), (104, 300, 320))
    np.testing.assert_array_equal(volume.read(box), tifffile.imread(volume.path)[box.slices])
