"""Dask clusters: a local one, or a connection to one that runs; other kinds take their place here."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
from distributed import Client, LocalCluster, performance_report

from nx47dask.engine.spec import ClusterSpec
from nx47dask.errors import ClusterError

__all__ = ["open_client", "reporting"]

TASKS_IN_REPORT = 500
"""The scheduler keeps 2 kB of each task that Dask's report shows; events.jsonl has them all."""
CONNECT_TIMEOUT_S = 20.0

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
        # A task whose worker died twice is the window's to judge: see nx47dask.engine.window.
        "distributed.scheduler.allowed-failures": 1,
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
