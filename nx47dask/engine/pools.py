"""Where a run's tasks go: this process, or a Dask cluster."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

from nx47dask.engine.events import Observer
from nx47dask.engine.tasks import Outcome, Result, Task
from nx47dask.engine.worker import run_task

__all__ = ["Pool", "SerialPool"]


class Pool(Protocol):
    """Where tasks run."""

    @property
    def window(self) -> int:
        """Tasks to have under way."""

    @property
    def observers(self) -> Sequence[Observer]:
        """Who else wants to hear what happens: the page of the running job."""

    @property
    def memory_limit_bytes(self) -> int | None:
        """The least that a worker may take; None where nothing sets a limit."""

    def submit(self, ticket: int, task: Task, name: tuple[str, str, int], place: str) -> None:
        """Start a task, named by volume, stage and number; its outcome carries the ticket."""

    def wait(self, timeout_s: float | None) -> Sequence[Outcome]:
        """Outcomes since the last call; waits for one at least, but no longer than the timeout."""

    def restart(self, worker: str) -> None:
        """Start a worker anew, which frees all that its process holds."""


class SerialPool:
    """Run tasks one by one in this process, without a cluster."""

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
        """Nothing to restart: the process is our own."""

    def close(self) -> None:
        """Wait for the task under way."""
        self._thread.shutdown(cancel_futures=True)
