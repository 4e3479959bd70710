"""Runs from and to object storage: the same bytes as here, through kills, throttling and refusals."""

from __future__ import annotations

import json
import logging
import os
import signal

import numpy as np
import pytest
import tifffile
import zarr

from nx47dask import open_run
from nx47dask.engine import lock_run
from nx47dask.engine.lines import log_files, read_lines
from nx47dask.errors import BlockError, InputError
from nx47dask.files.atomic import write_text
from nx47dask.files.paths import file_sizes, locate
from nx47dask.files.remote import filesystem
from nx47dask.geometry import Box
from nx47dask.io import discover
from tests.conftest import sheets
from tests.integration.commands import command, finish, launch, wait_for, write_workflow
from tests.integration.object_store import (
    ACCESS_KEY,
    BUCKET,
    PRIVATE,
    SECRET_KEY,
    running_store,  # noqa: F401
    store,  # noqa: F401
    web_server,
)

SHAPE = (24, 48, 40)
RUN = f"s3://{BUCKET}/runs/one"
SCROLL = f"s3://{BUCKET}/scroll.zarr"


@pytest.fixture(scope="module")
def scan():
    return sheets(SHAPE)


def write_zarr(path, scan, **layout):
    layout = {"chunks": (16, 16, 16), "shards": (16, 32, 32), **layout}
    zarr.create_array(str(path), shape=scan.shape, dtype=scan.dtype, **layout)[:] = scan


def upload(folder, url):
    filesystem("s3").put(f"{folder}/", f"{url.removeprefix('s3://')}/", recursive=True)


@pytest.fixture(scope="module")
def here(tmp_path_factory, scan):
    """The scan as a Zarr in a local folder, and a run of it."""
    folder = tmp_path_factory.mktemp("here")
    write_zarr(folder / "scroll.zarr", scan)
    options = ("--workflow", write_workflow(folder), "--block", "32", "--serial")
    assert command("run", folder / "scroll.zarr", "--out", folder / "run", *options) == 0
    return folder, options


@pytest.fixture
def scroll(store, here):  # noqa: F811
    """The same Zarr on the S3 server."""
    upload(here[0] / "scroll.zarr", SCROLL)
    store.reset()
    return SCROLL


def masks(folder):
    """Bytes of the results that must not depend on where a run lies."""
    names = ("masks/scroll.tif", "submission.zip", "metrics/slices.csv")
    return {name: (locate(str(folder)) / name).read_bytes() for name in names}


def recorded():
    """(stage, number) of every record on the server, in order."""
    lines = map(json.loads, read_lines(locate(f"{RUN}/ledger/scroll.jsonl")))
    return [(record["stage"], record["number"]) for record in lines]


def test_a_run_on_s3_has_the_bytes_of_a_local_one_and_no_secrets(scroll, here, capfd, caplog):
    folder, options = here
    caplog.set_level(logging.DEBUG, logger="nx47dask")
    assert command("run", scroll, "--out", RUN, *options) == 0
    assert masks(RUN) == masks(folder / "run")
    places = locate(RUN)
    copied = {name for name in file_sizes(places) if name.startswith("store/scroll.zarr/image/")}
    assert copied  # a remote scan is read once
    assert file_sizes(places).keys() - copied == file_sizes(folder / "run").keys() - {"run.lock"}
    shown = "".join(capfd.readouterr()) + caplog.text
    assert "report.html" in shown
    for secret in (SECRET_KEY, ACCESS_KEY):
        assert secret not in shown
        for name in file_sizes(places):
            assert secret.encode() not in (places / name).read_bytes()
    found, local = open_run(RUN), open_run(folder / "run")
    assert found.name == "one"
    assert found.metrics == local.metrics
    for name in ("image", "probability", "mask"):
        np.testing.assert_array_equal(getattr(found, name).compute(), getattr(local, name).compute())
    assert command("report", RUN) == 0


def test_a_killed_run_resumes_from_a_throttled_s3_and_recomputes_nothing_recorded(scroll, store, here):  # noqa: F811
    folder, options = here
    process = launch("run", scroll, "--out", RUN, *options)
    wait_for(lambda: log_files(locate(f"{RUN}/ledger/scroll.jsonl")) and len(recorded()) >= 6, process)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    before = recorded()
    assert (locate(RUN) / "run.lock").exists()
    assert not (locate(RUN) / "manifest.json").exists()
    store.refuse_every = 80
    assert command("run", scroll, "--out", RUN, *options, "--resume") == 0
    assert store.refused >= 3
    after = recorded()
    assert after[: len(before)] == before
    assert len(set(after)) == len(after) > len(before)
    assert masks(RUN) == masks(folder / "run")
    assert not (locate(RUN) / "run.lock").exists()


def test_throttling_is_survived(scroll, store, scan):  # noqa: F811
    store.refuse_every = 3
    (volume,) = discover([scroll])
    np.testing.assert_array_equal(volume.read(Box.of_shape(SHAPE)), scan)
    write_text(locate(RUN) / "note.txt", "kept")
    assert (locate(RUN) / "note.txt").read_text() == "kept"
    assert store.refused >= 5


def test_a_second_client_is_refused(scroll, here, capsys):
    _, options = here
    with lock_run(locate(RUN)):
        assert command("run", scroll, "--out", RUN, *options) == 2
    assert f"process {os.getpid()} on" in capsys.readouterr().err


def test_public_data_is_read_without_credentials(store, here, scan, monkeypatch):  # noqa: F811
    public = f"s3://{BUCKET}/public.zarr"
    upload(here[0] / "scroll.zarr", public)
    store.reset()
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "yes")
    (volume,) = discover([public])
    np.testing.assert_array_equal(volume.read(Box.of_shape(SHAPE)), scan)
    monkeypatch.delenv("AWS_NO_SIGN_REQUEST")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert discover([public]) == [volume]
    assert len(store.requests) > 4
    assert not any(signed for _, _, signed in store.requests)
    with pytest.raises(InputError, match=rf"s3://{PRIVATE}/.*no permission .*AWS_ACCESS_KEY_ID"):
        discover([f"s3://{PRIVATE}/scroll.zarr"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (f"s3://{BUCKET}/none.zarr", "no such object"),
        ("s3://nobody/none.zarr", "no such bucket"),
        (f"s3://{BUCKET}/none.tif", "no such file"),
    ],
)
def test_a_missing_input_says_what_is_missing(store, given, message):  # noqa: F811
    with pytest.raises(InputError, match=f"{given}.*{message}"):
        discover([given])


def test_an_output_that_cannot_be_is_refused(scroll, here, capsys):
    _, options = here
    for out, message in (("s3://nobody/run", "no such bucket"), ("http://127.0.0.1:9/run", "can be read only")):
        assert command("run", scroll, "--out", out, *options) == 2
        assert message in capsys.readouterr().err


def test_an_unreachable_store_is_an_input_error(store, monkeypatch):  # noqa: F811
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(InputError, match=r"s3://.*cannot be read .*127\.0\.0\.1:9"):
        discover([SCROLL])


def test_only_a_missing_chunk_is_the_fill_value(store, tmp_path, scan, monkeypatch):  # noqa: F811
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    write_zarr(tmp_path / "scroll.zarr", scan, shards=None)
    upload(tmp_path / "scroll.zarr", SCROLL)
    (volume,) = discover([SCROLL])
    box = Box((0, 0, 0), (16, 16, 16))
    store.forbidden = "/c/0/0/0"
    with pytest.raises(BlockError, match=r"PermissionError: .*no permission"):
        volume.read(box)
    store.forbidden, store.refuse_every = "", 1
    with pytest.raises(BlockError, match="cannot be read"):
        volume.read(box)
    store.refuse_every = 0
    (locate(SCROLL) / "c" / "0" / "0" / "0").unlink()
    assert not volume.read(box).any()


def test_tiffs_on_s3(store, tmp_path, scan):  # noqa: F811
    tifffile.imwrite(tmp_path / "volume.tif", scan, compression="lzw", photometric="minisblack")
    tifffile.imwrite(tmp_path / "stack.tif", scan, imagej=True)
    (tmp_path / "slices").mkdir()
    for z, plane in enumerate(scan):
        tifffile.imwrite(tmp_path / "slices" / f"{z:03}.tif", plane)
    upload(tmp_path, f"s3://{BUCKET}/tiffs")
    given = [f"s3://{BUCKET}/tiffs/{name}" for name in ("volume.tif", "stack.tif", "slices")]
    volumes = discover(given)
    assert [volume.kind for volume in volumes] == ["tiff", "tiff", "tiff-slices"]
    box = Box((3, 5, 7), (20, 30, 31))
    for volume in volumes:
        assert volume.is_remote
        np.testing.assert_array_equal(volume.read(box), scan[box.slices])
    store.forbidden = "volume.tif"
    with pytest.raises(InputError, match="no permission"):
        discover(given[:1])


@pytest.mark.parametrize("layout", [{"zarr_format": 2, "shards": None}, {"shards": None}, {}])
def test_a_zarr_on_a_web_server_that_fails_now_and_then(tmp_path, scan, layout):
    write_zarr(tmp_path / "scroll.zarr", scan, **layout)
    with web_server(tmp_path, fails=lambda path, number: number % 4 == 0) as url:
        (volume,) = discover([f"{url}/scroll.zarr"])
        np.testing.assert_array_equal(volume.read(Box.of_shape(SHAPE)), scan)


def test_a_run_from_a_web_server(here, tmp_path):
    folder, options = here
    with web_server(folder) as url:
        assert command("run", f"{url}/scroll.zarr", "--out", tmp_path / "run", *options) == 0
    assert masks(tmp_path / "run") == masks(folder / "run")


def test_a_web_server_that_fails_is_no_empty_chunk(tmp_path, scan, monkeypatch):
    monkeypatch.setattr("nx47dask.files.remote.ATTEMPTS", 2)
    monkeypatch.setattr("nx47dask.files.remote._filesystem", _unshared())
    write_zarr(tmp_path / "scroll.zarr", scan, shards=None)
    with web_server(tmp_path, fails=lambda path, number: path.endswith("/c/1/0/0")) as url:
        (volume,) = discover([f"{url}/scroll.zarr"])
        with pytest.raises(BlockError, match="the server answers 500"):
            volume.read(Box.of_shape(SHAPE))
        with pytest.raises(InputError, match=r"no Zarr .* and no TIFF"):
            discover([f"{url}/none"])
    with pytest.raises(InputError, match="cannot be read"):
        discover([f"{url}/scroll.zarr"])


def _unshared():
    """The function that makes filesystems, with a memory of its own."""
    from functools import lru_cache

    from nx47dask.files.remote import _filesystem

    return lru_cache(_filesystem.__wrapped__)
