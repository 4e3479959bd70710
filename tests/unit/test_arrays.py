"""Our own stores: round trips, one writer per shard, what is on disk, and failures by name."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from nx47dask.errors import BlockError, InputError, StorageError
from nx47dask.geometry import BlockGrid, Box
from nx47dask.io import ArrayStore, discover

LAYOUTS = [
    # shape, chunk, shard
    ((20, 37, 41), (8, 8, 8), (16, 16, 16)),
    ((20, 37, 41), (16, 16, 16), (16, 16, 16)),
    ((1, 37, 1), (8, 8, 8), (16, 16, 16)),
    ((1, 1, 1), (128, 128, 128), (256, 256, 256)),
    ((5, 6, 7), (128, 128, 128), (128, 128, 128)),
    ((9, 200, 3), (4, 64, 4), (8, 128, 8)),
    ((33, 20, 18), (32, 16, 16), (64, 32, 16)),
]


def filled(tmp_path, shape, chunk, shard, dtype="uint8", zarr_format=3, name="a.zarr"):
    store = ArrayStore(str(tmp_path / name), shape, chunk, shard, dtype, zarr_format)
    store.create()
    data = np.random.default_rng(0).integers(1, 200, shape).astype(dtype)
    for block in BlockGrid(shape, shard):
        store.write(block.box, data[block.box.slices])
    return store, data


def files(store: ArrayStore) -> set[str]:
    root = Path(store.path)
    metadata = {"zarr.json", ".zarray", ".zattrs", ".zgroup"}
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name not in metadata}


@pytest.mark.parametrize("zarr_format", [3, 2])
@pytest.mark.parametrize(("shape", "chunk", "shard"), LAYOUTS)
def test_blocks_read_back_in_any_box(tmp_path, shape, chunk, shard, zarr_format):
    store, data = filled(tmp_path, shape, chunk, shard, zarr_format=zarr_format)
    np.testing.assert_array_equal(store.read(Box.of_shape(shape)), data)
    rng = np.random.default_rng(1)
    for _ in range(10):
        ends = [sorted(rng.integers(0, n + 1, 2)) for n in shape]
        box = Box(tuple(int(a) for a, _ in ends), tuple(int(b) for _, b in ends))
        np.testing.assert_array_equal(store.read(box), data[box.slices])
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    np.testing.assert_array_equal(copy.read(Box.of_shape(shape)), data)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int64", "float32", "bool"])
def test_dtypes(tmp_path, dtype):
    store, data = filled(tmp_path, (20, 9, 9), (8, 8, 8), (16, 16, 16), dtype)
    back = store.read(Box.of_shape(store.shape))
    assert back.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back, data)


def test_one_file_a_shard_and_none_for_zeros(tmp_path):
    store, data = filled(tmp_path, (20, 37, 41), (8, 8, 8), (16, 16, 16))
    assert len(files(store)) == len(BlockGrid(store.shape, store.shard)) == 2 * 3 * 3
    box = Box((16, 32, 32), (20, 37, 41))
    store.write(box, np.zeros(box.shape, np.uint8))
    assert len(files(store)) == 17
    assert "0/c/1/2/2" not in files(store)
    assert not store.read(box).any()
    data[box.slices] = 0
    np.testing.assert_array_equal(store.read(Box.of_shape(store.shape)), data)


def test_zeros_over_several_shards_erase_all_of_them(tmp_path):
    for zarr_format in (3, 2):
        store, data = filled(
            tmp_path, (20, 37, 41), (8, 8, 8), (16, 16, 16), "uint8", zarr_format, f"{zarr_format}.zarr"
        )
        box = Box((0, 16, 0), (20, 37, 41))
        store.write(box, np.zeros(box.shape, np.uint8))
        data[box.slices] = 0
        np.testing.assert_array_equal(store.read(Box.of_shape(store.shape)), data)
        first = store.read(Box((0, 0, 0), (20, 16, 41)))
        assert first.all()
        assert len(files(store)) == (2 * 1 * 3 if zarr_format == 3 else 3 * 2 * 6)


def test_a_shard_is_written_again_whole(tmp_path):
    store, data = filled(tmp_path, (20, 37, 41), (8, 8, 8), (16, 16, 16))
    box = Box((0, 0, 0), (16, 16, 16))
    new = np.zeros(box.shape, np.uint8)
    new[3, 4, 5] = 9
    store.write(box, new)
    data[box.slices] = new
    np.testing.assert_array_equal(store.read(Box.of_shape(store.shape)), data)


@pytest.mark.parametrize(
    ("box", "text"),
    [
        (Box((8, 0, 0), (16, 16, 16)), "along z (8:16)"),
        (Box((0, 0, 0), (16, 24, 16)), "along y (0:24)"),
        (Box((0, 0, 0), (16, 16, 48)), "along x (0:48)"),
        (Box((0, 0, 16), (16, 16, 16)), "along x (16:16)"),
    ],
    ids=["start", "stop", "outside", "empty"],
)
def test_unaligned_writes_are_refused(tmp_path, box, text):
    store, data = filled(tmp_path, (20, 37, 41), (8, 8, 8), (16, 16, 16))
    with pytest.raises(StorageError) as caught:
        store.write(box, np.ones(box.shape, np.uint8))
    message = str(caught.value)
    assert all(part in message for part in (store.path, str(box), text, "16 voxels")), message
    np.testing.assert_array_equal(store.read(Box.of_shape(store.shape)), data)


def test_wrong_shape_or_dtype_is_refused(tmp_path):
    store, _ = filled(tmp_path, (20, 37, 41), (8, 8, 8), (16, 16, 16))
    box = Box((0, 0, 0), (16, 16, 16))
    with pytest.raises(StorageError, match=r"\(16, 16, 16\) uint8.*\(16, 16, 15\) uint8"):
        store.write(box, np.ones((16, 16, 15), np.uint8))
    with pytest.raises(StorageError, match=r"uint8.*uint16"):
        store.write(box, np.ones(box.shape, np.uint16))


def test_uneven_shard_is_refused(tmp_path):
    store = ArrayStore(str(tmp_path / "a.zarr"), (20, 20, 20), (8, 8, 8), (16, 20, 16), "uint8")
    with pytest.raises(InputError, match=r"a\.zarr: a shard of 20 voxels along y is no multiple of the chunk 8"):
        store.create()


def test_reading_outside_is_refused(tmp_path):
    store, _ = filled(tmp_path, (20, 37, 41), (8, 8, 8), (16, 16, 16))
    with pytest.raises(BlockError, match=r"0:21.*\(20, 37, 41\)"):
        store.read(Box((0, 0, 0), (21, 1, 1)))


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_discover_opens_what_was_written(tmp_path, zarr_format):
    store = ArrayStore(str(tmp_path / "7.zarr"), (20, 37, 41), (8, 8, 8), (16, 16, 16), "uint16", zarr_format)
    store.create(voxel_um=(3.24, 3.24, 7.91), name="7", attributes={"nx47": {"scale": 255}})
    data = np.random.default_rng(0).integers(0, 60000, store.shape, dtype=np.uint16)
    store.write(Box.of_shape(store.shape), data)
    (volume,) = discover([store.path])
    assert (volume.id, volume.component, volume.dtype) == ("7", "0", "uint16")
    assert volume.voxel_um == (3.24, 3.24, 7.91)
    np.testing.assert_array_equal(volume.read(Box.of_shape(store.shape)), data)
    assert zarr.open_group(store.path, mode="r").attrs["nx47"] == {"scale": 255}


def test_metadata_is_ome_zarr_0_5(tmp_path):
    store, _ = filled(tmp_path, (20, 37, 41), (8, 8, 8), (16, 16, 16))
    group = json.loads((Path(store.path) / "zarr.json").read_text())
    array = json.loads((Path(store.path) / "0" / "zarr.json").read_text())
    ome = group["attributes"]["ome"]
    assert ome["version"] == "0.5"
    assert [axis["name"] for axis in ome["multiscales"][0]["axes"]] == ["z", "y", "x"] == array["dimension_names"]
    (codec,) = array["codecs"]
    assert codec["name"] == "sharding_indexed"
    assert codec["configuration"]["chunk_shape"] == [8, 8, 8]
    assert [inner["name"] for inner in codec["configuration"]["index_codecs"]] == ["bytes", "crc32c"]
    assert codec["configuration"]["codecs"][-1] == {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    plain, _ = filled(tmp_path, (20, 37, 41), (8, 8, 8), (8, 8, 8), name="plain.zarr")
    array = json.loads((Path(plain.path) / "0" / "zarr.json").read_text())
    assert [codec["name"] for codec in array["codecs"]] == ["bytes", "zstd"]


def test_same_data_give_the_same_bytes(tmp_path):
    one, _ = filled(tmp_path, (20, 37, 41), (8, 8, 8), (16, 16, 16), name="one.zarr")
    two, _ = filled(tmp_path, (20, 37, 41), (8, 8, 8), (16, 16, 16), name="two.zarr")
    for name in files(one) | files(two):
        assert (Path(one.path) / name).read_bytes() == (Path(two.path) / name).read_bytes()


def test_create_overwrite_exists(tmp_path):
    store, data = filled(tmp_path, (20, 37, 41), (8, 8, 8), (16, 16, 16))
    assert store.exists()
    with pytest.raises(StorageError, match=r"a\.zarr: a Zarr store is there already"):
        store.create()
    np.testing.assert_array_equal(store.read(Box.of_shape(store.shape)), data)
    store.create(overwrite=True)
    assert not store.read(Box.of_shape(store.shape)).any()
    store = replace(store, path=str(tmp_path / "none.zarr"))
    assert not store.exists()
    with pytest.raises(BlockError, match=r"none\.zarr/0, box 0:1,0:1,0:1: cannot be read"):
        store.read(Box((0, 0, 0), (1, 1, 1)))


@pytest.mark.parametrize(
    ("edge", "damage"),
    [(16, "cut"), (16, "index"), (16, "noise"), (8, "cut"), (8, "noise")],
)
def test_corrupt_chunk_is_named(tmp_path, edge, damage):
    store, data = filled(tmp_path, (20, 37, 41), (8, 8, 8), (edge,) * 3)
    path = Path(store.path) / "0" / "c" / "0" / "0" / "1"
    content = path.read_bytes()
    broken = {"cut": content[: len(content) // 2], "index": content[:-8] + b"\1" * 8, "noise": b"\xff" * len(content)}
    path.write_bytes(broken[damage])
    elsewhere = Box((0, 0, 0), (8, 8, 8))
    np.testing.assert_array_equal(store.read(elsewhere), data[elsewhere.slices])
    box = Box((0, 0, edge), (16, 16, 41))
    with pytest.raises(BlockError) as caught:
        store.read(box)
    assert all(part in str(caught.value) for part in (store.path, str(box)))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB, of this test alone."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_and_read_only_disk(small_disk):
    store = ArrayStore(str(small_disk / "a.zarr"), (64, 64, 64), (64, 64, 64), (64, 64, 64), "uint8")
    store.create()
    data = np.random.default_rng(0).integers(0, 255, store.shape, dtype=np.uint8)
    with pytest.raises(StorageError) as caught:
        store.write(Box.of_shape(store.shape), data)
    message = str(caught.value)
    assert all(part in message for part in ("a.zarr", "No space left", "262,144 bytes needed", "bytes free"))
    assert files(store) == set()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match="Read-only file system"):
        store.write(Box.of_shape(store.shape), data)
    with pytest.raises(StorageError, match=r"b\.zarr.*Read-only file system"):
        replace(store, path=str(small_disk / "b.zarr")).create()
    assert not store.read(Box.of_shape(store.shape)).any()
