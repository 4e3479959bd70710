"""Events of a run and their observers: the event file, the progress display, the statistics of stages."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict, cast

from nx47dask.engine.ledger import Record
from nx47dask.engine.lines import LineLog
from nx47dask.engine.tasks import Batch, Failure
from nx47dask.version import __version__

__all__ = ["EventFile", "JobTitle", "Observer", "StageStatistics", "StageUsage"]


FLUSHED_S = 2.0


@dataclass(frozen=True, slots=True)
class JobTitle:
    """Title of a job: all that is known of it before it starts.

    Attributes
    ----------
    name : str
        Of the run folder.
    out : str
        The run folder.
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
    """A listener to stages and tasks, in the client; this one does nothing at any of them."""

    def stage_started(self, volume: str, batch: Batch) -> None:
        """A volume enters a stage. The tasks of the batch are the window's to read."""

    def task_finished(self, volume: str, record: Record, voxels: int, resumed: bool) -> None:
        """A task is recorded; ``resumed``: an earlier client had recorded it. ``record["skipped"]``: it never ran."""

    def stage_finished(self, volume: str, stage: str) -> None:
        """All tasks of a stage are recorded."""

    def task_failed(self, volume: str, failure: Failure) -> None:
        """A task failed; unless that is final it is tried again."""


class EventFile(Observer):
    """Append every event to ``events.jsonl`` as one JSON object per line, with the Unix time in seconds.

    In an object store the last seconds of a client that is killed are lost, which nothing depends on.
    """

    def __init__(self, path: Path) -> None:
        self._lines = LineLog(path)
        self._flushed_s = time.monotonic()

    def write(self, event: str, **values: Any) -> None:
        """Write an event of its own."""
        self._lines.append(json.dumps({"time_s": round(time.time(), 3), "event": event, **values}))
        if time.monotonic() - self._flushed_s > FLUSHED_S:
            self._lines.flush()
            self._flushed_s = time.monotonic()

    def close(self) -> None:
        self._lines.close()

    @contextmanager
    def of_run(self, plan: str, title: JobTitle) -> Iterator[None]:
        """An event at the start of a run and one at its end, however it ends; ``plan`` is the plan's SHA-256."""
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
            self.write(
                "task-finished",
                volume=volume,
                stage=record["stage"],
                number=record["number"],
                seconds=record["seconds"],
                worker=record["worker"],
            )

    def stage_finished(self, volume: str, stage: str) -> None:
        self.write("stage-finished", volume=volume, stage=stage)

    def task_failed(self, volume: str, failure: Failure) -> None:
        self.write("task-failed", volume=volume, **asdict(failure))


class FailureRecord(TypedDict):
    """A task that failed in every try, as in the manifest: its volume, and the values of a ``Failure``."""

    volume: str
    stage: str
    number: int
    place: str
    attempt: int
    message: str
    traceback: str
    final: bool


class StageRecord(TypedDict):
    """Usage of a stage as the manifest has it: the values of :class:`StageUsage`, rounded to milliseconds."""

    tasks: int
    resumed: int
    skipped: int
    retried: int
    quarantined: int
    voxels: int
    task_s: float
    wall_s: float
    peak_rss_bytes: int
    stored_bytes: int


@dataclass
class StageUsage:
    """Tasks, time, memory and disk of a stage, over all volumes.

    Attributes
    ----------
    tasks, resumed, skipped, retried, quarantined : int
        Tasks that ran; that an earlier client had done; that did not have to run; that were tried again; that failed
        in every try.
    voxels : int
        Voxels of the tasks that ran.
    task_s : float
        Sum of the tasks' own times.
    wall_s : float
        From the first start to the last finish; stages of different volumes overlap.
    peak_rss_bytes : int
        Largest peak memory of a worker so far, at the end of any of the stage's tasks.
    stored_bytes : int
        Files that the stage's tasks have left, those of an earlier client included.
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

    def record(self) -> StageRecord:
        """As JSON values."""
        return StageRecord(
            tasks=self.tasks,
            resumed=self.resumed,
            skipped=self.skipped,
            retried=self.retried,
            quarantined=self.quarantined,
            voxels=self.voxels,
            task_s=round(self.task_s, 3),
            wall_s=round(self.wall_s, 3),
            peak_rss_bytes=self.peak_rss_bytes,
            stored_bytes=self.stored_bytes,
        )


class StageStatistics(Observer):
    """Sums per stage and per volume for the manifest, and what failed for good."""

    def __init__(self) -> None:
        self.stages: dict[str, StageUsage] = defaultdict(StageUsage)
        self.failures: list[FailureRecord] = []
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
            self.failures.append(cast("FailureRecord", {"volume": volume, **asdict(failure)}))

    def records(self) -> dict[str, StageRecord]:
        """By stage, in the order in which they began."""
        return {stage: usage.record() for stage, usage in self.stages.items()}
