"""A simulated scroll of 20,000 x 8,000 x 8,000 voxels: the plan, the window, the ledger and Dask, without its voxels.

    python -m tests.benchmarks.bench_scroll [--blocks 10240]

Every stage of a run with three passes is there with its tasks, records of their usual size and summaries of their
groups; the tasks touch no data. Measured in a process of its own: the client with its scheduler, the time of a task,
and how long it takes to find, after the run, that nothing is left to do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import zarr

from nx47dask.cluster.dask_pool import DaskPool
from nx47dask.cluster.spec import LocalSpec
from nx47dask.cluster.start import open_client
from nx47dask.commands.run import job_title
from nx47dask.engine import Batch, Ledger, Pipeline, Task, execute
from nx47dask.engine.events import EventFile, StageStatistics
from nx47dask.engine.worker import peak_rss_bytes
from nx47dask.io import Volume, discover
from nx47dask.monitor.feed import watched
from nx47dask.planning.make import make_plan
from nx47dask.planning.plan import RunPlan
from nx47dask.planning.projection import Projection, project
from nx47dask.planning.text import plan_lines
from nx47dask.stages.volume_job import VolumeJob, describe_block
from nx47dask.workflow import load_workflow

BLOCK = 512
SCROLL = (20000, 8000, 8000)
GIGABYTE = 10**9


def touch_nothing(job: VolumeJob, stage: str, number: int) -> dict[str, Any]:
    """Leave a file of one byte and a record like that of a pass."""
    path = job.summary(stage, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"1")
    changes = {"hysteresis": [123456, 0], "small_objects": [0, 6543]}
    record = {"crc32": 1234567890, "changes": changes, "filled": [number], "shared": 2345}
    return {**record, "files": job.files(path)}


def pipeline(projection: Projection, job: VolumeJob) -> Pipeline:
    """All tasks of the plan in its order."""
    for load in projection.loads:
        grid = job.grid if load.tasks == len(job.grid) else None
        yield Batch(load.stage, _tasks(job, load.stage, load.tasks), load.tasks, job.work.size, grid and grid.counts)
        for kind, count in (("link", load.links), ("merge", load.merges)):
            if count:
                yield Batch(f"{load.stage}.{kind}", _tasks(job, load.stage, count), count, 0)


def _tasks(job: VolumeJob, stage: str, count: int) -> Iterator[Task]:
    if count == len(job.grid):
        return (
            Task(block.number, describe_block(block, job), touch_nothing, (job, stage, block.number), block.box.size)
            for block in job.grid
        )
    return (Task(n, f"part {n}", touch_nothing, (job, stage, n), 1) for n in range(count))


def scroll(folder: Path, blocks: int) -> Volume:
    """A volume of about so many blocks; only its metadata are on the disk."""
    layers = min(40, max(1, blocks // 256))
    path = folder / "scroll.zarr"
    zarr.create_array(path, shape=(min(SCROLL[0], layers * BLOCK), *SCROLL[1:]), chunks=(128, 128, 128), dtype="uint8")
    (volume,) = discover([path])
    return volume


def once(
    planned: RunPlan, projection: Projection, ledger_folder: Path, pool: DaskPool, events: EventFile
) -> tuple[StageStatistics, float]:
    """Run what is not recorded; returns the statistics and the seconds."""
    (job,) = planned.jobs
    statistics = StageStatistics()
    start = time.perf_counter()
    with closing(Ledger(ledger_folder)) as ledger:
        observers = (events, statistics, *pool.observers)
        results, errors = execute({job.id: pipeline(projection, job)}, pool, ledger, observers)
    assert not errors, errors
    assert results == {job.id: None}
    return statistics, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=10240)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        start = time.perf_counter()
        planned = make_plan([scroll(out, options.blocks)], out / "run", load_workflow("fast"), block=BLOCK)
        planned.out.mkdir()
        projection = project(planned)
        print(*plan_lines(planned, projection), f"planned in {time.perf_counter() - start:.1f} s", sep="\n", flush=True)
        before = peak_rss_bytes()
        title = job_title(planned)
        with open_client(LocalSpec(workers=2)) as client, watched(client, title) as (observers, _):
            pool = DaskPool(client, observers=observers)
            with closing(EventFile(planned.out / "events.jsonl")) as events:
                statistics, run_s = once(planned, projection, planned.out / "ledger", pool, events)
                tasks = sum(usage.tasks for usage in statistics.stages.values())
                peak = peak_rss_bytes()
                statistics, resume_s = once(planned, projection, planned.out / "ledger", pool, events)
        assert sum(usage.resumed for usage in statistics.stages.values()) == tasks
        resumed_peak = peak_rss_bytes()
    print(f"{tasks:,} tasks in {run_s:.0f} s: {1000 * run_s / tasks:.2f} ms each   (at most 4)")
    largest = max(load.tasks for load in projection.loads)
    projected = projection.client_bytes / GIGABYTE
    print(f"client and scheduler: {peak / GIGABYTE:.2f} GB, {(peak - before) / largest:.0f} bytes a task of a stage, ")
    print(f"  {resumed_peak / GIGABYTE:.2f} GB with the resume, {projected:.2f} GB projected   (at most 1.5)")
    print(f"resume over the full ledger: all {tasks:,} tasks known after {resume_s:.1f} s   (at most 30)")


if __name__ == "__main__":
    main()
