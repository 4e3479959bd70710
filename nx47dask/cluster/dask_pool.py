"""Pool of the workers of a Dask client."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from distributed import Client, KilledWorker, as_completed, get_worker

from nx47dask.cluster.start import workers_of
from nx47dask.engine.events import Observer
from nx47dask.engine.tasks import Outcome, Result, Task
from nx47dask.engine.worker import library_versions, run_task
from nx47dask.errors import ClusterError, DeviceMemoryError, RunStoppedError

__all__ = ["DaskPool", "run_on_worker"]

logger = logging.getLogger(__name__)

TASKS_PER_WORKER = 8
SECONDS_BETWEEN_COUNTS = 2.0
RESTART_TIMEOUT_S = 60.0


class DaskPool:
    """Pool that runs tasks on the workers of a Dask client.

    Parameters
    ----------
    client : distributed.Client
    no_worker_timeout_s : float, optional
        Time without any worker after which the run stops; by default it waits for ever, as for the queue of a batch
        system.
    observers : sequence of Observer
        Observers of the pool itself, such as the page of the running job.
    resources : iterable of str
        Resources that later workers will offer, such as ``GPU``.
    """

    def __init__(
        self,
        client: Client,
        no_worker_timeout_s: float | None = None,
        observers: Sequence[Observer] = (),
        resources: Iterable[str] = (),
    ) -> None:
        self.observers = observers
        self._client = client
        self._no_worker_timeout_s = no_worker_timeout_s
        self._completed = as_completed(loop=client.loop, with_results=True, raise_errors=False)
        self._tickets: dict[Any, int] = {}
        self._run = uuid.uuid4().hex[:8]
        self._workers: Mapping[str, Any] = {}
        self._resources = set(resources)
        self._counted = float("-inf")
        self._last_worker = time.monotonic()
        self._warned = False

    @property
    def window(self) -> int:
        # Asking the scheduler takes a round trip; workers come and go more slowly than tasks.
        if time.monotonic() > self._counted + SECONDS_BETWEEN_COUNTS:
            self._count_workers()
        threads: int = sum(worker["nthreads"] for worker in self._workers.values())
        return TASKS_PER_WORKER * max(1, threads)

    @property
    def memory_limit_bytes(self) -> int | None:
        self._count_workers()
        limits = [worker["memory_limit"] for worker in self._workers.values() if worker["memory_limit"]]
        return min(limits, default=None)

    def submit(self, ticket: int, task: Task, name: tuple[str, str, int], place: str) -> None:
        volume, stage, number = name
        future = self._client.submit(
            run_on_worker,
            task.function,
            task.arguments,
            place,
            library_versions(),
            # Dask groups tasks by the first item; the monitor reads the others.
            key=(f"{stage}-{self._run}", volume, number, ticket),
            pure=False,
            resources=self._offered(task.resources),
        )
        self._tickets[future.key] = ticket
        self._completed.add(future)

    def wait(self, timeout_s: float | None) -> Sequence[Outcome]:
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        condition = self._completed.thread_condition
        while not self._completed.has_ready() and (left := end - time.monotonic()) > 0:
            with condition:
                if not self._completed.has_ready():
                    condition.wait(min(left, SECONDS_BETWEEN_COUNTS))
            if not self._completed.has_ready():
                self._require_cluster()
        return [self._outcome(future, result) for future, result in self._completed.next_batch(block=False)]

    def restart(self, worker: str) -> None:
        try:
            self._client.restart_workers([worker], timeout=RESTART_TIMEOUT_S, raise_for_error=False)
        except (ValueError, OSError) as error:  # it has no nanny, or has ended by itself
            logger.warning("%s: cannot be restarted (%s)", worker, error)

    def _outcome(self, future: Any, result: Any) -> Outcome:
        ticket = self._tickets.pop(future.key)
        if future.status == "finished":
            return Outcome(ticket, result)
        if future.status != "error":
            raise _scheduler_gone()
        _, error, trace = result
        return Outcome(ticket, error=error.with_traceback(trace), worker_died=isinstance(error, KilledWorker))

    def _offered(self, wanted: Mapping[str, float] | None) -> dict[str, float] | None:
        """Return the resources to ask of a worker: those that the task wants, if the pool offers all, else a CPU.

        Dask would let a task wait for ever for a resource that no worker has. Where there are workers for CPU tasks,
        workers with a GPU do not run these.
        """
        asked = dict(wanted) if wanted and self._resources.issuperset(wanted) else {"CPU": 1.0}
        return {name: amount for name, amount in asked.items() if name in self._resources} or None

    def _count_workers(self) -> None:
        try:
            self._workers = workers_of(self._client)
        except ClusterError as error:
            raise _scheduler_gone() from error
        # A resource stays on offer: a task for a GPU waits while the worker with the GPU restarts.
        self._resources |= {name for worker in self._workers.values() for name in worker["resources"]}
        self._counted = time.monotonic()
        if self._workers:
            self._last_worker, self._warned = self._counted, False

    def _require_cluster(self) -> None:
        """Stop the run when the scheduler is gone, or when there has been no worker for too long."""
        if self._client.status not in ("running", "connecting"):
            raise _scheduler_gone()
        self._count_workers()
        alone_s = time.monotonic() - self._last_worker
        if self._no_worker_timeout_s is not None and alone_s > self._no_worker_timeout_s:
            raise RunStoppedError(
                f"there has been no worker for {alone_s:.0f} s", hint="start workers, then go on with --resume"
            )
        if not self._workers and not self._warned:
            logger.warning("no worker is there; waiting for one")
            self._warned = True


def _scheduler_gone() -> RunStoppedError:
    return RunStoppedError("the scheduler is gone", hint="start it again, then go on with --resume")


def run_on_worker(function: Callable[..., Result], arguments: tuple[Any, ...], place: str, versions: str) -> Result:
    """Run a task as :func:`nx47dask.engine.worker.run_task` does, on a Dask worker.

    Raises
    ------
    DeviceMemoryError
        Its GPU has no memory left; the error has the address of the worker, so that it can be restarted.
    Nx47Error
        As for ``run_task``.
    """
    try:
        return run_task(function, arguments, place, versions)
    except DeviceMemoryError as error:
        error.worker = get_worker().address
        raise
