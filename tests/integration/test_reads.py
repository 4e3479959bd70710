"""How often the chunks of a source are read, counted at the store; empty space is read once and never again."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import yaml
import zarr
from rich.console import Console
from zarr.storage import LocalStore

import nx47dask
from nx47dask.detectors import Fusion
from nx47dask.detectors.residual import Residual
from nx47dask.errors import InputError, PlanMismatchError
from nx47dask.geometry import Box, copy_layout
from nx47dask.io import ArrayStore, Volume, discover
from nx47dask.planning.reads import is_copied, source_reads
from nx47dask.stages.detect import widest_scan
from nx47dask.stages.ingest import ingest_block
from nx47dask.stages.volume_job import VolumeJob
from nx47dask.workflow import load_workflow
from tests.conftest import sheets

HALO_2 = {
    "detect": [{"residual": {"sigma_base": 0.5, "sigma_gain": 0}}],
    "postprocess": [{"threshold": {"value": 0.55}}],
}
"""A Gaussian of 0.5 voxels reaches 2, and one more along z."""


@pytest.fixture
def counted(monkeypatch):
    """How often each file of a Zarr was asked for."""
    counts = Counter()
    get = LocalStore.get

    async def counting(self, key, prototype, byte_range=None):
        counts[str(self.root / key)] += 1
        return await get(self, key, prototype, byte_range)

    monkeypatch.setattr(LocalStore, "get", counting)
    return counts


def chunk_reads(counted, source):
    """Reads of each chunk of a source, its metadata left out."""
    return {key: n for key, n in counted.items() if key.startswith(f"{source}/c/")}


def write_source(path, image, chunk):
    zarr.create_array(path, data=image, chunks=(chunk,) * 3, config={"write_empty_chunks": True})
    return path


def start(source, out, workflow, **options):
    path = out.parent / "w.yaml"
    path.write_text(yaml.safe_dump(workflow))
    return nx47dask.run([source], out, workflow=path, serial=True, console=Console(quiet=True), **options)


@pytest.mark.parametrize("copied", [True, False])
def test_a_copied_source_is_read_once(tmp_path, counted, copied):
    source = write_source(tmp_path / "scan.zarr", sheets((64, 96, 80)), 16)
    run = start(source, tmp_path / "run", HALO_2, block=32, copy_input=copied)
    reads = chunk_reads(counted, source)
    mean = sum(reads.values()) / (4 * 6 * 5)
    assert len(reads) == 4 * 6 * 5
    (volume,) = discover([source])
    job = run_job(volume, tmp_path, 32, copied)
    assert mean == pytest.approx(source_reads(job, load_workflow(tmp_path / "w.yaml").bind_detector(), ()))
    assert max(reads.values()) == 1 if copied else mean > 4
    assert np.array_equal(run.image.compute(), sheets((64, 96, 80)))


def run_job(volume, folder, block, copied):
    whole = Box.of_shape(volume.shape)
    return VolumeJob(volume, str(folder / "job"), whole, whole, block, copied)


def test_both_ways_give_the_same_masks(tmp_path):
    source = write_source(tmp_path / "scan.zarr", sheets((40, 50, 60)), 14)
    masks = [start(source, tmp_path / str(copy), HALO_2, block=16, copy_input=copy).mask for copy in (True, False)]
    assert masks[0].any().compute()
    assert np.array_equal(masks[0].compute(), masks[1].compute())


HALO_16 = Fusion(((1.0, Residual(sigma_base=3.75, sigma_gain=0)),))


def test_chunks_of_128_under_blocks_of_256_and_a_halo_of_16(tmp_path, counted):
    """At the sizes of a scroll: ingest reads each chunk of the source, detection reads boxes of the copy."""
    shape = (256, 512, 512)
    image = np.tile(np.random.default_rng(0).integers(1, 9, (128,) * 3, dtype=np.uint8), (2, 4, 4))
    source = write_source(tmp_path / "scan.zarr", image, 128)
    (volume,) = discover([source])
    job = run_job(volume, tmp_path, 256, copied=True)
    job.prepare(job.image_store)
    assert job.image_store.shard == (256,) * 3
    for block in job.ingest_grid:
        ingest_block(job, block.number)
    for block in job.detect_grid:
        box = HALO_16.context(block.box, Box.of_shape(shape), widest_scan(volume))
        assert box == block.box.expand((16, 15, 15)).clip(Box.of_shape(shape))
        assert np.array_equal(job.image.read(box), image[box.slices])
    reads = chunk_reads(counted, source)
    assert len(reads) == 2 * 4 * 4
    assert sum(reads.values()) / len(reads) <= 1.3


def test_what_is_read_in_place_in_numbers(tmp_path):
    """A block of 256 touches 4 x 4 x 4 chunks of 128, less at the border: nine reads a chunk in a scroll."""
    zarr.create_array(tmp_path / "scan.zarr", shape=(2560,) * 3, chunks=(128,) * 3, dtype="uint8")
    (volume,) = discover([tmp_path / "scan.zarr"])
    per_axis = (2 * 3 + 8 * 4) / 20
    in_place = source_reads(run_job(volume, tmp_path, 256, copied=False), HALO_16, ())
    assert in_place == pytest.approx(1 + per_axis**3)
    assert source_reads(run_job(volume, tmp_path, 256, copied=True), HALO_16, ()) == 1.0


@pytest.mark.parametrize(
    ("edges", "shape", "block", "shard", "chunk"),
    [
        ((128, 128, 128), (2000, 2000, 2000), 512, (256, 256, 256), (128, 128, 128)),
        ((100, 96, 64), (2000, 2000, 2000), 512, (300, 288, 256), (100, 96, 128)),
        ((1, 4096, 4096), (2000, 4096, 4096), 512, (8, 4096, 4096), (8, 128, 128)),
        ((131, 131, 131), (2000, 2000, 2000), 256, (262, 262, 262), (131, 131, 131)),
        ((16, 16, 16), (40, 30, 10), 32, (32, 32, 10), (32, 32, 10)),
        ((512, 512, 512), (2000, 2000, 2000), 160, (512, 512, 512), (128, 128, 128)),
    ],
)
def test_shards_of_a_copy_are_whole_chunks_of_the_source(edges, shape, block, shard, chunk):
    assert copy_layout(edges, shape, block) == (shard, chunk)


def test_remote_inputs_are_copied_by_default_and_tiffs_always(tmp_path, make_tiff):
    remote = Volume("a", "zarr", "s3://bucket/a.zarr", "0", (8, 8, 8), "uint8", None, "")
    local = Volume("b", "zarr", str(tmp_path / "b.zarr"), "0", (8, 8, 8), "uint8", None, "")
    assert [is_copied(remote, wanted) for wanted in (None, True, False)] == [True, True, False]
    assert [is_copied(local, wanted) for wanted in (None, True, False)] == [False, True, False]
    (scan,) = discover([make_tiff()])
    assert is_copied(scan, None)
    with pytest.raises(InputError, match="--read-in-place: a block of a TIFF"):
        is_copied(scan, False)


def test_a_resumed_run_reads_as_it_began(tmp_path):
    source = write_source(tmp_path / "scan.zarr", sheets((20, 20, 20)), 10)
    start(source, tmp_path / "run", HALO_2, block=10)
    with pytest.raises(PlanMismatchError, match=r"inputs\.scan\.copied"):
        start(source, tmp_path / "run", HALO_2, block=10, resume=True, copy_input=True)


def test_empty_space_is_read_once_and_its_blocks_never(tmp_path, counted, monkeypatch):
    """Sheets in a corner: chunks beyond its halo are read at ingest alone, and no store of an empty block is read."""
    shape = (64, 96, 96)
    image = np.zeros(shape, np.uint8)
    image[:32, :32, :32] = sheets((32, 32, 32))
    source = write_source(tmp_path / "scan.zarr", image, 16)
    boxes = []
    read = ArrayStore.read

    def reading(self, box):
        boxes.append((self.path.rpartition("/")[2], box))
        return read(self, box)

    monkeypatch.setattr(ArrayStore, "read", reading)
    workflow = {
        "detect": [{"sheetness": {"scales": [1]}}],
        "postprocess": [
            {"support": {"radius_vox": 0}},
            {"hysteresis": {"low": 0.5, "high": 0.6, "by": "slice"}},
            {"small_objects": {"min_vox": 20}},
            {"closing": {"radius_zyx_vox": [1, 1, 1]}},
            "fill_holes",
        ],
    }
    run = start(source, tmp_path / "run", workflow, block=16)
    stages = run.manifest["stages"]
    blocks = 4 * 6 * 6
    assert run.mask.any().compute()
    assert stages["ingest"]["skipped"] == 0
    for name in ("detect", *(name for name in stages if name.startswith("postprocess.") and name.count(".") == 1)):
        assert blocks - 27 <= stages[name]["skipped"] < blocks, name
    reads = chunk_reads(counted, source)
    far = [n for key, n in reads.items() if max(map(int, key.split("/c/")[1].split("/"))) > 3]
    assert len(far) > 50
    assert set(far) == {1}
    tasks = [box for name, box in boxes if name != "mask" or box.shape != (16, 96, 96)]
    assert all(max(box.start) < 48 for box in tasks)
