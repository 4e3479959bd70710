"""What a plan says it will take, and the refusal of one that does not fit."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import yaml
import zarr

import nx47dask
from nx47dask.cluster.spec import LocalSpec
from nx47dask.commands.estimate import Rates, estimate_time
from nx47dask.errors import InputError
from nx47dask.geometry import BlockGrid
from nx47dask.planning.fit import require_disk, require_memory
from nx47dask.planning.make import with_block
from nx47dask.planning.projection import project
from nx47dask.planning.text import plan_json, plan_lines
from nx47dask.stages.detect import slice_slabs, widest_scan, windows_by_block
from nx47dask.stages.postprocess import stage_name
from tests.integration.commands import WORKFLOW, command, write_workflow

GIB = 1 << 30


@pytest.fixture
def planned(tmp_path):
    """Plan volumes of a shape that have no voxels yet."""

    def plan(shape, workflow="fast", count=1, **options):
        volumes = [tmp_path / f"{'x'.join(map(str, shape))}-{n}.zarr" for n in range(count)]
        for path in volumes:
            if not path.exists():
                zarr.create_array(path, shape=shape, chunks=(128, 128, 128), dtype="uint8")
        return nx47dask.plan(volumes, tmp_path / "run", workflow=workflow, **options)

    return plan


@pytest.mark.parametrize("workflow", ["surface", "fast", "v61.1", "v61.2"])
@pytest.mark.parametrize(
    ("shape", "count", "limit"),
    [
        ((192, 256, 256), 1, 4 * GIB),
        ((320, 320, 320), 1, 12 * GIB),
        ((512, 512, 512), 1, 12 * GIB),
        ((320, 320, 320), 120, 29 * GIB // 4),
    ],
    ids=["quickstart on a laptop", "320 with 24 GiB for two", "512 with 24 GiB for two", "Kaggle"],
)
def test_what_works_on_small_machines_is_not_refused(planned, workflow, shape, count, limit):
    plan = planned(shape, workflow, min(count, 3))
    require_memory(plan, project(plan), limit, LocalSpec())


def test_refusal_names_a_block_that_fits(planned):
    plan = planned((2000, 2000, 2000))
    projection = project(plan)
    needed = projection.worker_bytes
    with pytest.raises(
        InputError, match=r"needs 7\.\d GiB per worker \(for detect\), workers have 3\.0 GiB"
    ) as refused:
        require_memory(plan, projection, 3 * GIB, LocalSpec(workers=2))
    edge = int(str(refused.value).split("--block ")[1].split()[0])
    assert project(with_block(plan, edge)).worker_bytes <= 3 * GIB < needed
    require_memory(plan, projection, needed, LocalSpec(workers=2))


@pytest.mark.parametrize(
    ("spec", "way"),
    [
        (LocalSpec(workers=40), "or --workers 3"),
        (LocalSpec(memory_limit="3GiB"), "or a larger memory_limit in cluster.yaml"),
        (None, "or a machine with more memory"),
    ],
)
def test_refusal_names_the_setting_that_decides_the_memory(planned, monkeypatch, spec, way):
    plan = planned((2000, 2000, 2000))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=24 * GIB))
    with pytest.raises(InputError, match=way):
        require_memory(plan, project(plan), 3 * GIB, spec)


def test_no_block_is_named_where_none_fits(planned):
    plan = planned((2000, 2000, 2000))
    with pytest.raises(InputError, match="workers have 256 MiB: use --workers"):
        require_memory(plan, project(plan), GIB // 4, LocalSpec())


def test_disk_is_refused_with_the_option_that_helps(planned, disk_of, caplog):
    plan = planned((320, 320, 320), count=12)
    bounded = replace(plan, delete_stores=True)
    needed = project(plan).disk_bytes
    free = needed // 4
    disk_of(free)
    with pytest.raises(
        InputError, match=r"needs \d+ MiB to \d+ MiB of disk.* room for \d+ MiB: use --delete-stores \(\d+ MiB to"
    ):
        require_disk(plan, project(plan))
    require_disk(bounded, project(bounded))
    assert len(caplog.records) == 1, "it may not fit either"
    assert not plan.out.exists()
    plan.out.mkdir()
    (plan.out / "stored").write_bytes(b"")
    with (plan.out / "stored").open("r+b") as stream:
        stream.truncate(needed - free)  # what an earlier client of the run has stored
    require_disk(plan, project(plan))
    assert len(caplog.records) == 1


def test_what_fits_if_it_compresses_well_begins_with_a_warning(planned, disk_of, caplog):
    plan = planned((320, 320, 320))
    disk_of(project(plan).disk_bytes // 2)
    require_disk(plan, project(plan))
    assert "room for" in caplog.text
    assert "can be resumed" in caplog.text


@pytest.fixture
def disk_of(monkeypatch):
    """Let every disk have so many bytes free."""
    usage = type(shutil.disk_usage("/"))
    return lambda free: monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free, 0, free))


@pytest.mark.parametrize("before", ["nothing", "a run"])
def test_a_refused_run_leaves_the_folder_as_it_was(make_tiff, tmp_path, monkeypatch, before, capsys):
    scan, run = make_tiff((16, 24, 24), name="scan.tif"), tmp_path / "run"
    arguments = ("run", scan, "--out", run, "--workflow", write_workflow(tmp_path), "--serial", "--overwrite")
    if before == "a run":
        assert command(*arguments) == 0
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != "run.lock"}
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=GIB // 8))
    assert command(*arguments) == 2
    assert "per worker" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != "run.lock"}
    assert after == files
    assert run.exists() == (before == "a run")


def test_the_table_is_aligned_and_sums_up(planned):
    plan = planned((320, 320, 320))
    projection = project(plan)
    lines = plan_lines(plan, projection)
    table = lines[lines.index("") + 1 : len(lines) - 1 - lines[::-1].index("")]
    loads = projection.loads
    assert [row.split()[0] for row in table] == ["stage", *(load.stage for load in loads), "all"]
    end = table[0].index("tasks") + len("tasks")
    assert all(row[end - 1] != " " and row[end] == " " for row in table)
    total = sum(load.tasks + load.links + load.merges for load in loads)
    assert f"{total:,} tasks; links and merges at most" in table[-1]
    assert plan_json(plan, projection)["tasks"] == total
    assert all(len(line) <= 120 for line in lines)


def test_volumes_that_are_cut_alike_share_a_line(planned):
    plan = planned((64, 64, 64), count=3)
    volumes = [line for line in plan_lines(plan, project(plan)) if line.startswith("volume")]
    assert len(volumes) == 1
    assert volumes[0].startswith("volume     3 like 64x64x64-0  64x64x64 uint8  1 blocks of 160³")


def test_plan_as_json(make_tiff, tmp_path, capsys):
    scan = make_tiff((16, 24, 24), name="scan.tif")
    (tmp_path / "w.yaml").write_text(yaml.safe_dump(WORKFLOW))
    assert command("plan", scan, "--workflow", tmp_path / "w.yaml", "--block", "16", "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["volumes"]["scan"]["blocks"] == 4
    assert [stage["stage"] for stage in found["stages"]][:3] == ["ingest", "detect", "postprocess.1"]
    assert found["estimate"] is None
    assert found["bytes_read_per_byte_needed"] == 1


def rates(projection):
    stages = [load.stage for load in projection.loads]
    return Rates(dict.fromkeys(stages, 1e-6), dict.fromkeys(stages, 0.01), 3)


def test_workers_share_a_run_as_far_as_there_are_tasks(planned):
    plans = planned((160, 160, 160)), planned((320, 320, 320), count=3)
    one_block, many = (project(plan) for plan in plans)
    first, second = (estimate_time(plans[0], one_block, rates(one_block), workers) for workers in (1, 8))
    assert first.wall_s == second.wall_s
    serial, shared = (estimate_time(plans[1], many, rates(many), workers) for workers in (1, 2))
    work_s = sum(serial.stages_s.values())
    assert serial.stages_s == shared.stages_s
    assert serial.wall_s - shared.wall_s == pytest.approx(work_s / 2, rel=0.01)
    assert work_s == pytest.approx(sum(1e-6 * load.voxels + 0.01 * load.tasks for load in many.loads))


def chunks_touched(box, edges):
    return math.prod(-(-b // edge) - a // edge for a, b, edge in zip(box.start, box.stop, edges, strict=True))


@pytest.mark.parametrize("workflow", ["surface", "fast", "v61.1", "v61.2"])
@pytest.mark.parametrize("block", [64, 96])
def test_a_projection_sums_up_what_every_block_reads(planned, workflow, block):
    plan = planned((200, 130, 310), workflow, block=block, bbox="20:190,5:120,:")
    (job,), projection = plan.jobs, project(plan)
    scan, reads = widest_scan(job.volume), 0
    contexts = [plan.detector.context(each.box.shift(job.work.start), job.volume_box, scan) for each in job.detect_grid]
    loads = {load.stage: load for load in projection.loads}
    assert loads["detect"].voxels == sum(box.size for box in contexts)
    assert loads["detect"].windows == sum(windows_by_block(plan.networks, job))
    for current in plan.passes:
        outer = [job.context(each.box, current.radius_zyx) for each in job.grid]
        assert loads[stage_name(current.number)].voxels == sum(box.size for box in outer)
        reads += sum(chunks_touched(box.shift(job.work.start), (128,) * 3) for box in outer) * current.reads_image
    reads += sum(chunks_touched(box, (128,) * 3) for box in [each.box for each in job.ingest_grid] + contexts)
    if workflow == "v61.1":
        reads += sum(chunks_touched(slab, (128,) * 3) for _, _, slab in slice_slabs(job, plan.detector, scan))
    assert projection.bytes_read_per_byte == reads / len(BlockGrid(job.volume.shape, (128,) * 3))
