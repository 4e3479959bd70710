"""Dask clusters: a local one, or a connection to one that runs; other kinds take their place here.

The only module that imports ``dask.distributed``.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, as_completed, performance_report

from nx47dask.engine.spec import ClusterSpec
from nx47dask.engine.window import Outcome, Task
from nx47dask.engine.worker import run_task
from nx47dask.errors import ClusterError, RunStoppedError

__all__ = ["DaskPool", "open_client", "reporting"]

TASKS_PER_WORKER = 8
SECONDS_BETWEEN_COUNTS = 2.0
TASKS_IN_REPORT = 500
"""The scheduler keeps 2 kB of each task that Dask's report shows; events.jsonl has them all."""
CONNECT_TIMEOUT_S = 20.0
SCHEDULER_GONE = "the scheduler is gone; start it again, then go on with --resume"

# One thread a task, and an allocator that keeps large blocks: returning them to the system after every task costs
# page faults worth 2-4 times the run time of numpy and torch kernels.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_ARENA_MAX": "2",
}


@contextmanager
def open_client(spec: ClusterSpec) -> Iterator[Client]:
    """Start or reach the cluster; it ends with the context if it was started here.

    Raises
    ------
    ClusterError
        The cluster cannot be started or reached.
    """
    settings = {
        "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
        "distributed.scheduler.dashboard.tasks.task-stream-length": TASKS_IN_REPORT,
        **spec.dask,
    }
    with dask.config.set(settings), _quiet():
        if spec.kind == "connect":
            with _connect(spec) as client:
                yield client
            return
        with _start(spec) as cluster, Client(cluster) as client:
            yield client


def _start(spec: ClusterSpec) -> LocalCluster:
    workers = spec.workers or os.cpu_count() or 1
    try:
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=spec.memory_limit,
            dashboard_address=_dashboard_address(),
            silence_logs=logging.CRITICAL,
            preload="nx47dask.engine.worker",
        )
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        raise ClusterError(
            f"a local cluster of {workers} workers did not start ({error}); see memory_limit and dask in cluster.yaml"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's dozens of lines about each start and end of a cluster out of the log, unless all is to be told."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado.application")]
    before = [logger.level for logger in loggers]
    if not logging.getLogger("nx47dask").isEnabledFor(logging.INFO):
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _connect(spec: ClusterSpec) -> Client:
    place = spec.address or _scheduler_address(spec.scheduler_file)
    try:
        client = Client(address=place, timeout=CONNECT_TIMEOUT_S)
        client.wait_for_workers(1, timeout=60)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"{place}: no scheduler with workers answers ({error}); start one with `dask scheduler` and `dask worker`"
        ) from error
    return client


def _scheduler_address(path: str | None) -> str:
    if path is None:
        raise ClusterError("the cluster is of kind 'connect': give the address or the scheduler_file of its scheduler")
    try:
        return str(json.loads(Path(path).read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ClusterError(
            f"{path}: not a scheduler file ({type(error).__name__}: {error}); "
            "`dask scheduler --scheduler-file FILE` writes one"
        ) from error


@contextmanager
def reporting(client: Client, path: Path) -> Iterator[None]:
    """Dask's own report of what runs meanwhile, an HTML file; none when the scheduler, which writes it, is gone."""
    with ExitStack() as report:
        report.enter_context(performance_report(filename=str(path)))
        try:
            yield
        finally:
            if client.status != "running":
                report.pop_all()


def _dashboard_address() -> str:
    """Dask's usual port on this machine when it is free, else any."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 8787))
        except OSError:
            return "127.0.0.1:0"
    return "127.0.0.1:8787"


class DaskPool:
    """Run tasks on the workers of a Dask client.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._completed = as_completed(with_results=True, raise_errors=False)
        self._tickets: dict[Any, int] = {}
        self._run = uuid.uuid4().hex[:8]
        self._threads = 0
        self._resources: set[str] = set()
        self._counted = float("-inf")

    @property
    def window(self) -> int:
        # Asking the scheduler takes a round trip; workers come and go more slowly than tasks.
        if time.monotonic() > self._counted + SECONDS_BETWEEN_COUNTS:
            try:
                workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
            except OSError as error:
                raise RunStoppedError(SCHEDULER_GONE) from error
            self._threads = sum(worker["nthreads"] for worker in workers)
            self._resources = {name for worker in workers for name in worker["resources"]}
            self._counted = time.monotonic()
        return TASKS_PER_WORKER * max(self._threads, 1)

    def submit(self, ticket: int, task: Task, place: str) -> None:
        future = self._client.submit(
            run_task,
            task.function,
            task.arguments,
            place,
            key=f"{task.function.__name__}-{self._run}-{ticket}",
            pure=False,
            resources=self._offered(task.resources),
            allow_other_workers=False,
        )
        self._tickets[future.key] = ticket
        self._completed.add(future)

    def _offered(self, wanted: Mapping[str, float] | None) -> dict[str, float] | None:
        """Of what a task wants, what a worker has; Dask would let it wait for ever for the rest."""
        return {name: amount for name, amount in (wanted or {}).items() if name in self._resources} or None

    def wait(self) -> Sequence[Outcome]:
        outcomes = []
        for future, result in self._completed.next_batch(block=True):
            ticket = self._tickets.pop(future.key)
            if future.status == "finished":
                outcomes.append(Outcome(ticket, result))
            elif future.status == "error":
                outcomes.append(Outcome(ticket, error=result[1]))
            else:
                raise RunStoppedError(SCHEDULER_GONE)
        return outcomes
