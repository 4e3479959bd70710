"""The scheduling window: self-contained tasks of several volumes, a bounded number at a time.

A volume is a *pipeline*: a generator that yields batches of tasks and is sent their records when all are done. While
one volume waits for its last task, the window fills with tasks of the next, so no worker idles at a barrier of
another volume. Nothing of a task stays in memory but its record.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from nx47dask.engine.events import Observer
from nx47dask.engine.ledger import Ledger, Record
from nx47dask.engine.worker import run_task
from nx47dask.errors import BlockError, Nx47Error, StorageError

__all__ = ["Batch", "Outcome", "Pipeline", "Pool", "SerialPool", "Task", "execute"]

logger = logging.getLogger(__name__)

TRIES = 3


@dataclass(frozen=True, slots=True)
class Task:
    """One self-contained piece of work: it reads from stores, writes to stores and returns a small record.

    Attributes
    ----------
    number : int
        Identity within its stage (a block's number).
    place : str
        What it works on, for messages: a block and its box.
    function : callable
        Module-level function; takes ``arguments`` and returns a dict of JSON values.
    arguments : tuple
        Small picklable values.
    voxels : int
        Voxels that it covers, for progress.
    resources : dict, optional
        Worker resources that it needs, such as ``{"GPU": 1}``; one that no worker has is not asked for.
    key : str
        Identity of what the task reads beyond the plan of its run; a record of another key does not count.
    """

    number: int
    place: str
    function: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]
    voxels: int = 0
    resources: Mapping[str, float] | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """The tasks of one stage of one volume. ``tasks`` is read lazily."""

    stage: str
    tasks: Iterable[Task]
    count: int
    voxels: int


Pipeline = Generator[Batch, dict[int, Record], Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one try of a task ended: its result, or the error it raised."""

    ticket: int
    result: dict[str, Any] | None = None
    error: BaseException | None = None


class Pool(Protocol):
    """Where tasks run."""

    @property
    def window(self) -> int:
        """Tasks to have under way."""

    def submit(self, ticket: int, task: Task, place: str) -> None:
        """Start a task; its outcome carries the ticket."""

    def wait(self) -> Sequence[Outcome]:
        """Outcomes since the last call; waits for one at least."""


class SerialPool:
    """Run tasks one by one in this process, without a cluster."""

    window = 1

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nx47dask")
        self._running: dict[int, Future[dict[str, Any]]] = {}

    def submit(self, ticket: int, task: Task, place: str) -> None:
        self._running[ticket] = self._thread.submit(run_task, task.function, task.arguments, place)

    def wait(self) -> Sequence[Outcome]:
        ticket = next(iter(self._running))
        future = self._running.pop(ticket)
        error = future.exception()
        return [Outcome(ticket, error=error) if error else Outcome(ticket, future.result())]

    def close(self) -> None:
        """Wait for the task under way."""
        self._thread.shutdown(cancel_futures=True)


@dataclass
class _Volume:
    """A pipeline under way."""

    name: str
    pipeline: Pipeline
    recorded: dict[tuple[str, int], Record]
    batch: Batch = field(init=False)
    waiting: Iterator[Task] = field(init=False)
    records: dict[int, Record] = field(init=False)
    result: Any = None
    error: Nx47Error | None = None
    running: int = 0
    done: bool = False


def execute(
    pipelines: Mapping[str, Pipeline],
    pool: Pool,
    ledger: Ledger | None = None,
    observers: Sequence[Observer] = (),
    *,
    most_volumes: int | None = None,
    over: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, Any], dict[str, Nx47Error]]:
    """Run the pipelines of several volumes to their ends.

    Tasks with a record in the ledger are not run again. A task that fails is tried three times unless its error is
    one of ours (trying again would not help); then its volume stops, and the others go on.

    Parameters
    ----------
    pipelines : mapping of volume id to generator
    pool : Pool
    ledger : Ledger, optional
        Without one nothing is recorded, and nothing can be resumed.
    observers : sequence of Observer
    most_volumes : int, optional
        Volumes to have under way at a time; by default as many as it takes to fill the window.
    over : callable
        Asked before each start of a task; once it says True none is started any more. Volumes whose tasks all have
        records still end; tasks under way are left behind, as when the client is killed.

    Returns
    -------
    results : dict
        What each finished pipeline returned.
    errors : dict
        The error that stopped a volume. One that is in neither was not finished when all was ``over``.

    Raises
    ------
    StorageError
        Results cannot be stored; no volume could go on.
    """
    return _Window(pipelines, pool, ledger, observers, most_volumes or len(pipelines), over).run()


class _Window:
    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
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
        self.observers = observers
        self.most_volumes = most_volumes
        self.over = over
        self.stopped = False
        self.tickets: dict[int, tuple[_Volume, Task, int]] = {}
        self.next_ticket = 0

    def run(self) -> tuple[dict[str, Any], dict[str, Nx47Error]]:
        while True:
            self._fill()
            if self.stopped or not self.tickets:
                break
            for outcome in self.pool.wait():
                self._settle(outcome)
        results = {v.name: v.result for v in self.finished if v.done}
        return results, {v.name: v.error for v in self.finished if v.error is not None}

    def _fill(self) -> None:
        """Submit tasks, those of the first volumes first, until the window is full or nothing is ready."""
        while len(self.tickets) < self.pool.window:
            volume = next((v for v in list(self.volumes) if self._take(v)), None)
            if volume is None:
                if not self.queued or len(self.volumes) >= self.most_volumes:
                    return
                name, pipeline = self.queued.popleft()
                volume = _Volume(name, pipeline, self.ledger.load(name) if self.ledger else {})
                self.volumes.append(volume)
                self._enter(volume, None)

    def _take(self, volume: _Volume) -> bool:
        """Submit the next task of a volume that has no record, if there is one."""
        if volume.done or volume.error:
            return False
        for task in volume.waiting:
            record = volume.recorded.get((volume.batch.stage, task.number))
            if record is None or record.get("key", "") != task.key:
                self.stopped = self.stopped or self.over()
                if self.stopped:
                    self._retire(volume)
                    return False
                volume.running += 1
                self._submit(volume, task, 1)
                return True
            self._count(volume, task, record, resumed=True)
        if volume.running == 0 and not volume.done:
            self._advance(volume)
            return self._take(volume)
        return False

    def _submit(self, volume: _Volume, task: Task, attempt: int) -> None:
        self.next_ticket += 1
        self.tickets[self.next_ticket] = (volume, task, attempt)
        self.pool.submit(self.next_ticket, task, f"{volume.name}, {volume.batch.stage}, {task.place}")

    def _settle(self, outcome: Outcome) -> None:
        volume, task, attempt = self.tickets.pop(outcome.ticket)
        if outcome.result is None:
            self._fail(volume, task, attempt, outcome.error)
            return
        volume.running -= 1
        record = {"stage": volume.batch.stage, "number": task.number, **outcome.result}
        if task.key:
            record["key"] = task.key
        if self.ledger:
            self.ledger.append(volume.name, record)
        self._count(volume, task, record, resumed=False)

    def _count(self, volume: _Volume, task: Task, record: Record, resumed: bool) -> None:
        volume.records[task.number] = record
        for observer in self.observers:
            observer.task_finished(volume.name, record, task.voxels, resumed)

    def _fail(self, volume: _Volume, task: Task, attempt: int, error: BaseException | None) -> None:
        final = isinstance(error, Nx47Error) or attempt == TRIES
        for observer in self.observers:
            observer.task_failed(volume.name, volume.batch.stage, task.number, str(error), final)
        if not final and volume.error is None:
            logger.warning("%s; trying again (%d of %d)", error, attempt + 1, TRIES)
            self._submit(volume, task, attempt + 1)
            return
        if isinstance(error, StorageError):
            raise error
        volume.running -= 1
        if volume.error is None:
            place = f"{volume.name}, {volume.batch.stage}, {task.place}"
            volume.error = (
                error if isinstance(error, Nx47Error) else BlockError(f"{place}: {type(error).__name__}: {error}")
            )
            volume.error.__cause__ = error if volume.error is not error else error.__cause__
            self._retire(volume)

    def _advance(self, volume: _Volume) -> None:
        for observer in self.observers:
            observer.stage_finished(volume.name, volume.batch.stage)
        self._enter(volume, volume.records)

    def _enter(self, volume: _Volume, records: dict[int, Record] | None) -> None:
        """Go to the next stage of a volume, or to its end."""
        try:
            volume.batch = volume.pipeline.send(records) if records is not None else next(volume.pipeline)
        except StopIteration as stop:
            volume.result, volume.done = stop.value, True
            self._retire(volume)
            return
        volume.waiting, volume.records = iter(volume.batch.tasks), {}
        for observer in self.observers:
            observer.stage_started(volume.name, volume.batch.stage, volume.batch.count, volume.batch.voxels)

    def _retire(self, volume: _Volume) -> None:
        self.volumes.remove(volume)
        self.finished.append(volume)
