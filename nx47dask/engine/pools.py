"""Pools of workers that run tasks: their interface, and a pool in this process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

from nx47dask.engine.events import Observer
from nx47dask.engine.tasks import Outcome, Result, Task
from nx47dask.engine.worker import run_task

__all__ = ["Pool", "SerialPool"]


class Pool(Protocol):
    """Interface of a pool of workers that run tasks."""

    @property
    def window(self) -> int:
        """Number of tasks to have submitted at a time."""

    @property
    def observers(self) -> Sequence[Observer]:
        """Observers of the pool itself, such as the page of the running job."""

    @property
    def memory_limit_bytes(self) -> int | None:
        """Smallest memory limit of its workers, in bytes; None where nothing sets a limit."""

    def submit(self, ticket: int, task: Task, name: tuple[str, str, int], place: str) -> None:
        """Submit a task, named by volume, stage and number; its outcome has the same ticket."""

    def wait(self, timeout_s: float | None) -> Sequence[Outcome]:
        """Wait for at least one outcome, at most until the timeout; return all outcomes since the last call."""

    def restart(self, worker: str) -> None:
        """Restart a worker, which frees all memory of its process."""


class SerialPool:
    """Pool that runs tasks one after another in this process, without a cluster."""

    window = 1
    observers: Sequence[Observer] = ()
    memory_limit_bytes = None

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nx47dask")
        self._running: dict[Future[Result], int] = {}

    def submit(self, ticket: int, task: Task, name: tuple[str, str, int], place: str) -> None:
        self._running[self._thread.submit(run_task, task.function, task.arguments, place)] = ticket

    def wait(self, timeout_s: float | None) -> Sequence[Outcome]:
        outcomes = []
        for future in wait(self._running, timeout_s, return_when="FIRST_COMPLETED").done:
            ticket, error = self._running.pop(future), future.exception()
            outcomes.append(Outcome(ticket, error=error) if error else Outcome(ticket, future.result()))
        return outcomes

    def restart(self, worker: str) -> None:
        """Do nothing: the process is our own."""

    def close(self) -> None:
        """Wait for the running task and drop those that have not started."""
        self._thread.shutdown(cancel_futures=True)
