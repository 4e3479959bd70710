"""Places of files: paths and URLs, object stores, and what is refused."""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nx47dask.engine import Ledger, lock_run
from nx47dask.engine.lines import LineLog, log_files, read_lines
from nx47dask.engine.lock import LOCK_FILE
from nx47dask.errors import InputError, RunLockedError, StorageError
from nx47dask.files.atomic import replace_file
from nx47dask.files.paths import file_sizes, file_version, is_remote, locate, remove_tree, size_of
from nx47dask.files.remote import _filesystem, filesystem
from nx47dask.files.summaries import read_summary, write_summary
from nx47dask.geometry import Box
from nx47dask.io import ArrayStore
from tests.integration.object_store import BUCKET, PRIVATE, running_store, store  # noqa: F401

FOLDER = f"s3://{BUCKET}/a"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://bucket/scroll.zarr/", "s3://bucket/scroll.zarr"),
        (Path("s3://bucket/runs/x"), "s3://bucket/runs/x"),
        ("S3://bucket", "s3://bucket"),
        ("https://host:8443/a/b%20c.zarr", "https://host:8443/a/b%20c.zarr"),
    ],
)
def test_urls(text, shown):
    place = locate(text)
    assert is_remote(place)
    assert str(place) == shown
    assert pickle.loads(pickle.dumps(place)) == place
    assert str(place / "x") == f"{shown}/x"
    assert (place / "x").parent == place
    assert (place / "x" / "y").is_relative_to(place)
    assert str((place / "x" / "y").relative_to(place)) == "x/y"


@pytest.mark.parametrize("text", ["runs/x", "/data/a:b", "./s3/x"])
def test_paths_stay_paths(text):
    assert locate(text) == Path(text)
    assert not is_remote(locate(text))


@pytest.mark.parametrize(
    "text",
    ["s3://key:hunter2@bucket/x", "https://me:hunter2@host/x", "https://host/x?token=hunter2", "http://host/x#hunter2"],
)
def test_urls_with_credentials_are_refused_and_not_shown(text):
    with pytest.raises(InputError, match="credentials by the environment") as error:
        locate(text)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("text", ["gs://bucket/x", "ftp://host/x", "s3://"])
def test_other_places_are_refused(text):
    with pytest.raises(InputError):
        locate(text)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    _filesystem.cache_clear()
    with pytest.raises(InputError, match=r'pip install "nx47dask\[s3\]"'):
        filesystem("s3")


def test_files_and_folders_of_a_store(store):  # noqa: F811
    folder = locate(FOLDER)
    assert file_sizes(folder) == {}
    assert list(folder.iterdir()) == []
    assert size_of(folder / "one") is None
    for name in ("one", "sub/two"):
        (folder / name).write_bytes(name.encode())
    assert file_sizes(folder) == {"one": 3, "sub/two": 7}
    assert sorted(path.name for path in folder.iterdir()) == ["one", "sub"]
    assert [path.name for path in folder.rglob("t*")] == ["two"]
    assert (folder.is_dir(), folder.is_file(), (folder / "one").is_file()) == (True, False, True)
    before = file_version(folder / "one")
    (folder / "one").write_bytes(b"ONE")
    assert file_version(folder / "one") != before
    remove_tree(folder)
    remove_tree(folder)
    assert not folder.exists()
    with pytest.raises(FileNotFoundError, match="no such bucket"):
        locate("s3://nobody/x").write_bytes(b"")


def test_no_permission_is_not_taken_for_missing(store, monkeypatch):  # noqa: F811
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "yes")
    for look in (size_of, file_version, file_sizes, lambda path: path.exists(), lambda path: path.is_file()):
        with pytest.raises(PermissionError):
            look(locate(f"s3://{PRIVATE}/x"))


def test_a_put_wins_once(store):  # noqa: F811
    path = locate(f"{FOLDER}/x")
    version = path.put(b"first", None)
    for replaces in (None, '"another"'):
        with pytest.raises(FileExistsError):
            path.put(b"second", replaces)
    assert path.put(b"first", None) == version  # sent again, because its answer was lost
    path.put(b"second", version)
    with pytest.raises(FileExistsError):
        path.put(b"third", version)


def test_replaced_files_appear_whole(store):  # noqa: F811
    path = locate(f"{FOLDER}/mask.tif")
    with contextlib.suppress(KeyError), replace_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert not path.exists()
    with replace_file(path) as temporary:
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    with pytest.raises(StorageError, match="no such bucket"), replace_file(locate("s3://nobody/x")) as temporary:
        temporary.write_bytes(b"")
    write_summary(path, {"a": np.arange(3)})
    assert read_summary(path)["a"].tolist() == [0, 1, 2]


def test_an_array_in_a_store(store, monkeypatch):  # noqa: F811
    array = ArrayStore(f"{FOLDER}/x.zarr", (8, 8, 8), (4, 4, 4), (8, 8, 8), "uint8")
    assert not array.exists()
    array.create()
    assert array.exists()
    box, data = Box.of_shape(array.shape), np.full(array.shape, 7, np.uint8)
    array.write(box, data)
    (_, shard) = array.files(box)
    assert shard.is_file()
    np.testing.assert_array_equal(array.read(box), data)
    array.write(box, data * 0)
    assert not shard.exists()
    assert not array.read(box).any()
    with pytest.raises(StorageError, match="there already"):
        array.create()
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "yes")
    with pytest.raises(StorageError, match="no permission"):
        ArrayStore(f"s3://{PRIVATE}/x.zarr", (8, 8, 8), (4, 4, 4), (8, 8, 8), "uint8").exists()


@pytest.mark.parametrize("folder", ["local", FOLDER])
def test_lines_of_several_writers_in_turn(store, folder, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("nx47dask.engine.lines.SEGMENT_BYTES", 40)
    path = locate(tmp_path / "log.jsonl" if folder == "local" else f"{folder}/log.jsonl")
    assert read_lines(path) == []
    wanted = []
    for writer in range(3):
        log = LineLog(path)
        for number in range(12):
            wanted.append(f"writer {writer} line {number}")
            log.append(wanted[-1])
            if number % 3 == 0:
                log.flush()
                assert read_lines(path) == [line.encode() for line in wanted]
        log.close()
    assert read_lines(path) == [line.encode() for line in wanted]
    assert len(log_files(path)) == (1 if folder == "local" else 3 * 4)


def test_a_torn_line_is_cut_off(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"whole\nto")
    assert read_lines(path) == [b"whole"]
    log = LineLog(path)
    log.append("next")
    log.close()
    assert path.read_bytes() == b"whole\nnext\n"


def test_a_second_writer_is_noticed(store):  # noqa: F811
    first, second = LineLog(locate(f"{FOLDER}/log.jsonl")), LineLog(locate(f"{FOLDER}/log.jsonl"))
    first.append("mine")
    first.flush()
    second.append("mine too")
    with pytest.raises(StorageError, match="somebody else"):
        second.flush()


def test_a_ledger_counts_records_whose_files_are_there(store):  # noqa: F811
    folder = locate(FOLDER)
    written = {f"store/{number}": number + 1 for number in range(4)}
    ledger = Ledger(folder / "ledger")
    for number, (name, size) in enumerate(written.items()):
        (folder / name).write_bytes(b"x" * size)
        ledger.append("scroll", {"stage": "detect", "number": number, "files": {name: size}})
    assert Ledger(folder / "ledger").load("scroll") == {}
    ledger.close()
    (folder / "store/1").unlink()
    (folder / "store/2").write_bytes(b"another size")
    store.reset()
    found = Ledger(folder / "ledger").load("scroll")
    assert sorted(found) == [("detect", 0), ("detect", 3)]
    assert len(store.requests) <= 6  # listings, and the ledger itself
    assert not any("/a/store/" in path for _, path, _ in store.requests)


def test_a_lease_is_held_renewed_and_taken_over(store, monkeypatch):  # noqa: F811
    monkeypatch.setattr("nx47dask.engine.lock.RENEWED_S", 0.05)
    folder = locate(FOLDER)
    with lock_run(folder):
        with (
            pytest.raises(RunLockedError, match=r"process \d+ on .* if it was killed, its lock ends 60 s after"),
            lock_run(folder),
        ):
            pass
        deadline = time.monotonic() + 20
        while store.requests.count(("PUT", f"/{BUCKET}/a/{LOCK_FILE}", True)) < 4:  # one, and one refused, are not it
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not (folder / LOCK_FILE).exists()
    other = {"owner": "process 1 on elsewhere", "pid": 1, "machine": "elsewhere", "id": "x"}
    (folder / LOCK_FILE).write_bytes(json.dumps(other).encode())
    with pytest.raises(RunLockedError, match="process 1 on elsewhere"), lock_run(folder):
        pass
    monkeypatch.setattr("nx47dask.engine.lock.STALE_S", 0)
    with lock_run(folder):
        assert "elsewhere" not in (folder / LOCK_FILE).read_text()
    assert list(folder.iterdir()) == []
