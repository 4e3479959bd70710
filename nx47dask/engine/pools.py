"""Where a run's tasks go: this process, or a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from nx47dask.engine.events import Observer
from nx47dask.engine.jobs import JobTitle
from nx47dask.engine.spec import ClusterSpec
from nx47dask.engine.tasks import Outcome, Task
from nx47dask.engine.worker import run_task

__all__ = ["Pool", "SerialPool", "open_pool"]


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
        self._running: dict[Future[dict[str, Any]], int] = {}

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


@contextmanager
def open_pool(
    cluster: ClusterSpec | None,
    console: Console,
    report: Path | None = None,
    title: JobTitle | None = None,
    worker_bytes: int | None = None,
) -> Iterator[Pool]:
    """Open a pool for a run.

    Parameters
    ----------
    cluster : ClusterSpec or None
        None runs the tasks in this process, without a cluster.
    console : rich.console.Console
        Its first line says where to watch.
    report : Path, optional
        Where Dask's own report goes.
    title : JobTitle, optional
        Have a page of the running job on the cluster's dashboard, under this title.
    worker_bytes : int, optional
        Memory that a worker of the run needs: how many a local cluster gets when nobody said.

    Raises
    ------
    ClusterError
        The cluster cannot be started or reached.
    """
    if cluster is None:
        console.print("serial: no cluster, no dashboard", highlight=False)
        with closing(SerialPool()) as pool:
            yield pool
        return
    from nx47dask.engine.cluster import open_client, reporting
    from nx47dask.engine.dask_pool import DaskPool
    from nx47dask.engine.feed import watched

    with ExitStack() as stack:
        client = stack.enter_context(open_client(cluster, worker_bytes))
        observers, link = stack.enter_context(watched(client, title)) if title else ([], "")
        job = f"  job {link}" if link else ""
        console.print(f"dashboard {client.dashboard_link}{job}", highlight=False, soft_wrap=True)
        if report is not None:
            stack.enter_context(reporting(client, report))
        yield DaskPool(client, cluster.no_worker_timeout_s, observers, cluster.pools)
