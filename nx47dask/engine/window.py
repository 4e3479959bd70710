"""Scheduling window: runs self-contained tasks of several volumes, a bounded number at a time.

A volume is a *pipeline*: a generator that yields batches of tasks and is sent their records when all are done. While
a volume waits for its last task, the window fills with tasks of the next volume, so that no worker idles. Only the
record of a finished task stays in memory.
"""

from __future__ import annotations

import heapq
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from nx47dask.engine.events import Observer
from nx47dask.engine.ledger import Ledger, Record
from nx47dask.engine.pools import Pool
from nx47dask.engine.tasks import Batch, Failure, Outcome, Pipeline, Result, Task
from nx47dask.errors import BlockError, DeviceMemoryError, Nx47Error, StorageError

__all__ = ["TRIES", "execute"]

logger = logging.getLogger(__name__)

TRIES = 3
T = TypeVar("T")

RETRY_AFTER_S = (0.5, 4.0)
"""Waiting times before the second and the third try, in which a busy store can recover."""
MOST_QUARANTINED = 20
"""Largest number of failed blocks in a stage of a volume. With more, the blocks are not the cause: the volume stops."""


@dataclass
class _Volume:
    """Volume whose pipeline runs."""

    name: str
    pipeline: Pipeline[Any]
    recorded: dict[tuple[str, int], Record]
    batch: Batch = field(init=False)
    waiting: Iterator[Task] = field(init=False)
    records: dict[int, Record] = field(init=False)
    quarantined: list[tuple[Nx47Error, BaseException]] = field(default_factory=list)
    result: Any = None
    error: Nx47Error | None = None
    running: int = 0
    done: bool = False


@dataclass(order=True)
class _Attempt:
    """Attempt at a task, ordered by the earliest time to start; ``count`` is 1 for the first."""

    not_before_s: float
    number: int
    volume: _Volume = field(compare=False)
    task: Task = field(compare=False)
    count: int = field(compare=False, default=1)
    suspected: bool = field(compare=False, default=False)

    @property
    def place(self) -> str:
        return f"{self.volume.name}, {self.volume.batch.stage}, {self.task.place}"


def execute(
    pipelines: Mapping[str, Pipeline[T]],
    pool: Pool,
    ledger: Ledger | None = None,
    observers: Sequence[Observer] = (),
    *,
    most_volumes: int | None = None,
    over: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, T], dict[str, Nx47Error]]:
    """Run the pipelines of several volumes to their ends.

    Tasks with a record in the ledger are not run again. A task that fails is tried three times; then its block is
    *quarantined*: the other tasks of its stage still run, so that a resumed run needs only this block. Then its volume
    stops; other volumes continue. An input or a model that cannot be used stops its volume at once. A task whose worker
    died is only suspected, because another task of that worker may be the cause. It runs again with no other task
    beside it, and counts as failed only if the worker dies again.

    Parameters
    ----------
    pipelines : mapping of volume id to generator
    pool : Pool
    ledger : Ledger, optional
        Without a ledger nothing is recorded, and nothing can be resumed.
    observers : sequence of Observer
    most_volumes : int, optional
        Largest number of volumes in progress at a time; by default as many as are needed to fill the window.
    over : callable
        Called before each start of a task; once it returns True no further task starts. Volumes whose tasks all have
        records still end. Running tasks are abandoned, as when the client is killed.

    Returns
    -------
    results : dict
        Return value of each finished pipeline.
    errors : dict
        Error of each volume that was stopped. A volume in neither dict was unfinished when ``over`` returned True.

    Raises
    ------
    StorageError
        Results cannot be stored, so that no volume could continue.
    """
    return _Window(pipelines, pool, ledger, observers, most_volumes or len(pipelines), over).run()


class _Window:
    def __init__(
        self,
        pipelines: Mapping[str, Pipeline[Any]],
        pool: Pool,
        ledger: Ledger | None,
        observers: Sequence[Observer],
        most_volumes: int,
        over: Callable[[], bool],
    ) -> None:
        self.queued = deque(pipelines.items())
        self.volumes: list[_Volume] = []
        self.finished: list[_Volume] = []
        self.pool = pool
        self.ledger = ledger
        self.observers = [*observers, *pool.observers]
        self.most_volumes = most_volumes
        self.over = over
        self.stopped = False
        self.running: dict[int, _Attempt] = {}
        self.delayed: list[_Attempt] = []
        self.suspects: deque[_Attempt] = deque()
        self.tries = 0

    def run(self) -> tuple[dict[str, Any], dict[str, Nx47Error]]:
        while True:
            self._fill()
            if self.stopped or not (self.running or self.delayed):
                break
            left_s = max(0.0, self.delayed[0].not_before_s - time.monotonic()) if self.delayed else None
            if self.running:
                for outcome in self.pool.wait(left_s):
                    self._settle(self.running.pop(outcome.ticket), outcome)
            elif left_s:
                time.sleep(left_s)
            if self.ledger:
                self.ledger.flush()
        results = {v.name: v.result for v in self.finished if v.done}
        return results, {v.name: v.error for v in self.finished if v.error is not None}

    def _fill(self) -> None:
        """Submit tasks, those of the first volumes first, until the window is full or nothing is ready."""
        if self.suspects:
            if not self.running:
                self._submit(self.suspects.popleft())
            return
        if len(self.running) == 1 and next(iter(self.running.values())).suspected:
            return
        while len(self.running) < self.pool.window:
            if self.delayed and self.delayed[0].not_before_s <= time.monotonic():
                self._submit(heapq.heappop(self.delayed))
                continue
            volume = next((v for v in list(self.volumes) if self._take(v)), None)
            if volume is None:
                if not self.queued or len(self.volumes) >= self.most_volumes:
                    return
                name, pipeline = self.queued.popleft()
                volume = _Volume(name, pipeline, self.ledger.load(name) if self.ledger else {})
                self.volumes.append(volume)
                self._enter(volume, None)

    def _take(self, volume: _Volume) -> bool:
        """Submit the next task of a volume that has no record; return False if there is none."""
        if volume.done or volume.error:
            return False
        for task in volume.waiting:
            record = volume.recorded.get((volume.batch.stage, task.number))
            if record is not None and record.get("key", "") == task.key:
                self._count(volume, task, record, resumed=True)
                continue
            if task.known is not None:
                nothing = {"seconds": 0.0, "worker": "", "peak_rss_bytes": 0, "skipped": True}
                self._record(volume, task, {**task.known, **nothing})
                continue
            self.stopped = self.stopped or self.over()
            if self.stopped:
                self._retire(volume)
                return False
            volume.running += 1
            self._submit(self._attempt(volume, task))
            return True
        if volume.running == 0 and not volume.done:
            self._advance(volume)
            return self._take(volume)
        return False

    def _attempt(self, volume: _Volume, task: Task, count: int = 1, after_s: float = 0.0) -> _Attempt:
        self.tries += 1
        return _Attempt(time.monotonic() + after_s, self.tries, volume, task, count)

    def _submit(self, attempt: _Attempt) -> None:
        name = (attempt.volume.name, attempt.volume.batch.stage, attempt.task.number)
        self.running[attempt.number] = attempt
        self.pool.submit(attempt.number, attempt.task, name, attempt.place)

    def _settle(self, attempt: _Attempt, outcome: Outcome) -> None:
        if outcome.result is None:
            assert outcome.error is not None
            self._fail(attempt, outcome.error, outcome.worker_died)
            return
        attempt.volume.running -= 1
        self._record(attempt.volume, attempt.task, outcome.result)

    def _record(self, volume: _Volume, task: Task, result: Result) -> None:
        # The engine and the worker have added to the result all that a record has.
        record = cast("Record", {"stage": volume.batch.stage, "number": task.number, **result})
        if task.key:
            record["key"] = task.key
        if self.ledger:
            self.ledger.append(volume.name, record)
        self._count(volume, task, record, resumed=False)

    def _count(self, volume: _Volume, task: Task, record: Record, resumed: bool) -> None:
        volume.records[task.number] = record
        for observer in self.observers:
            observer.task_finished(volume.name, record, task.voxels, resumed)

    def _fail(self, attempt: _Attempt, error: BaseException, worker_died: bool) -> None:
        """Try again, quarantine the block, stop its volume or stop the whole run, depending on the error."""
        volume, task = attempt.volume, attempt.task
        hopeless = isinstance(error, Nx47Error) and not isinstance(error, BlockError)
        final = hopeless or (attempt.suspected if worker_died else attempt.count >= TRIES)
        said = _said(attempt, error, worker_died)
        if volume.error is None:
            trace = "".join(getattr(error, "__notes__", None) or traceback.format_exception(error))
            failure = Failure(volume.batch.stage, task.number, task.place, attempt.count, str(said), trace, final)
            for observer in self.observers:
                observer.task_failed(volume.name, failure)
        if isinstance(error, StorageError):
            raise error
        if not final and volume.error is None:
            self._again(attempt, error, worker_died)
            return
        volume.running -= 1
        if volume.error is not None:
            return
        if hopeless and isinstance(error, Nx47Error):
            volume.error = error
            self._retire(volume)
            return
        volume.quarantined.append((said, error))
        if len(volume.quarantined) > MOST_QUARANTINED:
            self._stop(volume, said, f"{len(volume.quarantined)} blocks failed, so it may not be their fault")

    def _again(self, attempt: _Attempt, error: BaseException, worker_died: bool) -> None:
        task = attempt.task
        if isinstance(error, DeviceMemoryError):
            if error.worker:
                self.pool.restart(error.worker)
            task = task.smaller or task
        after_s = 0.0 if worker_died else RETRY_AFTER_S[attempt.count - 1]
        following = self._attempt(attempt.volume, task, attempt.count + 1, after_s)
        if worker_died:
            following.suspected = True
            self.suspects.append(following)
        else:
            heapq.heappush(self.delayed, following)

    def _advance(self, volume: _Volume) -> None:
        if volume.quarantined:
            (first, _), *others = volume.quarantined
            more = f"so did {len(others)} more; " if others else ""
            self._stop(volume, first, f"{more}every other task of {volume.batch.stage} is done")
            return
        for observer in self.observers:
            observer.stage_finished(volume.name, volume.batch.stage)
        self._enter(volume, volume.records)

    def _enter(self, volume: _Volume, records: dict[int, Record] | None) -> None:
        """Start the next stage of a volume, or end the volume."""
        try:
            volume.batch = volume.pipeline.send(records) if records is not None else next(volume.pipeline)
        except StopIteration as stop:
            volume.result, volume.done = stop.value, True
            self._retire(volume)
            return
        volume.waiting, volume.records = iter(volume.batch.tasks), {}
        for observer in self.observers:
            observer.stage_started(volume.name, volume.batch)

    def _stop(self, volume: _Volume, said: Nx47Error, more: str) -> None:
        volume.error = BlockError(f"{said.message}; {more}", hint=said.hint)
        volume.error.__cause__ = volume.quarantined[0][1]
        self._retire(volume)

    def _retire(self, volume: _Volume) -> None:
        self.volumes.remove(volume)
        self.finished.append(volume)


def _said(attempt: _Attempt, error: BaseException, worker_died: bool) -> Nx47Error:
    """Return an error as one of ours, with the place of the attempt; errors of ours stay as they are."""
    if isinstance(error, Nx47Error):
        return error
    if worker_died:
        alone = ", the last time with no other task beside it" if attempt.suspected else ""
        return BlockError(
            f"{attempt.place}: workers ended while they ran it{alone}; most often a worker without memory",
            hint="compare the memory limit of a worker with the plan's",
        )
    return BlockError(f"{attempt.place}: {type(error).__name__}: {error}")
