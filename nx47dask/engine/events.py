"""Events of a run and their observers: the base class, the event file, the statistics of stages."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nx47dask.engine.ledger import Record
from nx47dask.engine.lines import LineLog
from nx47dask.engine.tasks import Batch, Failure
from nx47dask.version import __version__

__all__ = ["EventFile", "JobTitle", "Observer", "StageStatistics", "StageUsage"]


FLUSHED_S = 2.0


@dataclass(frozen=True, slots=True)
class JobTitle:
    """Title of a job: its name and what is known before it starts.

    Attributes
    ----------
    name : str
        Name of the run folder.
    out : str
        Path of the run folder.
    workflow : str
    volumes : tuple of str
        Ids of all volumes.
    stages : tuple of str
        Stages that every volume goes through, in order; there may be more.
    """

    name: str
    out: str
    workflow: str
    volumes: tuple[str, ...]
    stages: tuple[str, ...]


class Observer:
    """Observer of stages and tasks, in the client. The methods of this base class do nothing."""

    def stage_started(self, volume: str, batch: Batch) -> None:
        """Note that a volume starts a stage. Only the window may read the tasks of the batch."""

    def task_finished(self, volume: str, record: Record, voxels: int, resumed: bool) -> None:
        """Note the record of a task.

        Parameters
        ----------
        volume : str
        record : dict
            Has a true ``skipped`` where the task did not have to run.
        voxels : int
            Voxels that the task covers.
        resumed : bool
            True if an earlier client had recorded it.
        """

    def stage_finished(self, volume: str, stage: str) -> None:
        """Note that all tasks of a stage are recorded."""

    def task_failed(self, volume: str, failure: Failure) -> None:
        """Note that a task failed. Unless the failure is final, the task is tried again."""


class EventFile(Observer):
    """Observer that appends every event to ``events.jsonl``, one JSON object per line, with the Unix time in seconds.

    In an object store the events of the last seconds before a client is killed are lost. Nothing depends on them.
    """

    def __init__(self, path: Path) -> None:
        self._lines = LineLog(path)
        self._flushed_s = time.monotonic()

    def write(self, event: str, **values: Any) -> None:
        """Write an event with its values."""
        self._lines.append(json.dumps({"time_s": round(time.time(), 3), "event": event, **values}))
        if time.monotonic() - self._flushed_s > FLUSHED_S:
            self._lines.flush()
            self._flushed_s = time.monotonic()

    def close(self) -> None:
        self._lines.close()

    @contextmanager
    def of_run(self, plan: str, title: JobTitle) -> Iterator[None]:
        """Write an event at the start of a run and at its end, however it ends; ``plan`` is the plan's SHA-256."""
        start = time.perf_counter()
        self.write("run-started", plan=plan, version=__version__, arguments=sys.argv[1:], **asdict(title))
        try:
            yield
        finally:
            self.write("run-ended", seconds=round(time.perf_counter() - start, 3))

    def stage_started(self, volume: str, batch: Batch) -> None:
        self.write("stage-started", volume=volume, stage=batch.stage, tasks=batch.count, voxels=batch.voxels)

    def task_finished(self, volume: str, record: Record, voxels: int, resumed: bool) -> None:
        if not resumed:
            shown = {key: record[key] for key in ("stage", "number", "seconds", "worker")}
            self.write("task-finished", volume=volume, **shown)

    def stage_finished(self, volume: str, stage: str) -> None:
        self.write("stage-finished", volume=volume, stage=stage)

    def task_failed(self, volume: str, failure: Failure) -> None:
        self.write("task-failed", volume=volume, **asdict(failure))


@dataclass
class StageUsage:
    """Tasks, time, memory and storage that a stage used, over all volumes.

    Attributes
    ----------
    tasks, resumed, skipped, retried, quarantined : int
        Numbers of tasks that ran, that an earlier client had done, and that did not have to run; of tries that failed
        and were repeated; and of tasks that failed for good.
    voxels : int
        Voxels of the tasks that ran.
    task_s : float
        Sum of the times of the tasks.
    wall_s : float
        Time from the first start to the last finish; stages of different volumes overlap.
    peak_rss_bytes : int
        Largest peak memory of a worker process, read at the end of each task of the stage.
    stored_bytes : int
        Size of the files that the stage's tasks wrote, those of an earlier client included.
    """

    tasks: int = 0
    resumed: int = 0
    skipped: int = 0
    retried: int = 0
    quarantined: int = 0
    voxels: int = 0
    task_s: float = 0.0
    wall_s: float = 0.0
    peak_rss_bytes: int = 0
    stored_bytes: int = 0
    started: float = field(default=0.0, repr=False)


class StageStatistics(Observer):
    """Observer that sums up stages and volumes for the manifest, and keeps the final failures."""

    def __init__(self) -> None:
        self.stages: dict[str, StageUsage] = defaultdict(StageUsage)
        self.failures: list[dict[str, Any]] = []
        self.stored_bytes: dict[str, int] = defaultdict(int)

    def stage_started(self, volume: str, batch: Batch) -> None:
        usage = self.stages[batch.stage]
        usage.started = usage.started or time.perf_counter()

    def task_finished(self, volume: str, record: Record, voxels: int, resumed: bool) -> None:
        usage = self.stages[record["stage"]]
        if resumed:
            usage.resumed += 1
        elif record.get("skipped"):
            usage.skipped += 1
        else:
            usage.tasks += 1
            usage.voxels += voxels
            usage.task_s += record["seconds"]
        usage.peak_rss_bytes = max(usage.peak_rss_bytes, record["peak_rss_bytes"])
        stored_bytes = sum(record.get("files", {}).values())
        usage.stored_bytes += stored_bytes
        self.stored_bytes[volume] += stored_bytes

    def stage_finished(self, volume: str, stage: str) -> None:
        usage = self.stages[stage]
        usage.wall_s = time.perf_counter() - usage.started

    def task_failed(self, volume: str, failure: Failure) -> None:
        usage = self.stages[failure.stage]
        usage.retried += not failure.final
        usage.quarantined += failure.final
        if failure.final:
            self.failures.append({"volume": volume, **asdict(failure)})

    def records(self) -> dict[str, dict[str, float]]:
        """Return the usage of each stage as plain values, times rounded to milliseconds."""
        return {
            stage: {
                key: round(value, 3) if isinstance(value, float) else value
                for key, value in vars(usage).items()
                if key != "started"
            }
            for stage, usage in self.stages.items()
        }
