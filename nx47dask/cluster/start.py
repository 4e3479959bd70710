"""Dask clusters: started here, in a batch system or in Kubernetes, or running already."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import dask
from distributed import Client, performance_report

from nx47dask.cluster.base import ClusterSpec
from nx47dask.cluster.settings import dask_settings, environment_of, process_environment
from nx47dask.errors import ClusterError, InputError

__all__ = ["await_workers", "open_client", "reporting", "workers_of"]

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 0.2
QUIET_WAIT_S = 5.0


@contextmanager
def open_client(spec: ClusterSpec, worker_bytes: int | None = None) -> Iterator[Client]:
    """Start or reach the cluster; it ends with the context if it was started here.

    The context begins when there is a worker of each pool of the cluster.

    Parameters
    ----------
    spec : ClusterSpec
    worker_bytes : int, optional
        Memory that a worker of the run needs. A local cluster whose spec has no number of workers starts no more than
        fit into this machine.

    Raises
    ------
    ClusterError
        The cluster cannot be started or reached, or no worker came in time.
    """
    start = _starter(spec)  # before the configuration is set, because dask-jobqueue adds its own defaults
    settings = dask_settings(spec.dask)
    with dask.config.set(settings), process_environment(environment_of(settings)), _quiet():
        if spec.runs_already:
            with start(spec) as client:
                yield client
            return
        # The client is not the default client of the process: that would take over the user's own computations.
        with _started(start, spec, worker_bytes) as cluster, Client(cluster, set_as_default=False) as client:
            await_workers(client, spec)
            yield client


def workers_of(client: Client) -> dict[str, Any]:
    """Return the scheduler's data on each worker, by address; the last known data while it does not answer.

    Raises
    ------
    ClusterError
        The scheduler is gone.
    """
    workers: dict[str, Any] | None = client.scheduler_info(n_workers=-1).get("workers")
    if workers is None:  # a client that has given up no longer has a scheduler
        raise ClusterError("the scheduler is gone", hint="start it again")
    return workers


def await_workers(client: Client, spec: ClusterSpec, count: int = 1, timeout_s: float | None = None) -> None:
    """Wait for a number of workers, with at least one of each pool.

    Parameters
    ----------
    client : distributed.Client
    spec : ClusterSpec
    count : int
        Smallest number of workers.
    timeout_s : float, optional
        Longest time to wait; by default the spec's ``no_worker_timeout_s``.

    Raises
    ------
    ClusterError
        The workers did not come in time.
    """
    timeout_s = spec.no_worker_timeout_s if timeout_s is None else timeout_s
    start, told = time.monotonic(), False
    while True:
        workers = workers_of(client).values()
        missing = set(spec.pools) - {name for worker in workers for name in worker["resources"]}
        if len(workers) >= count and not missing:
            return
        waited_s = time.monotonic() - start
        pools = f", none for {' nor '.join(sorted(missing))} tasks" if missing and workers else ""
        what = f"kind {spec.kind}: {len(workers)} workers of {max(count, len(spec.pools))}{pools}"
        if timeout_s is not None and waited_s > timeout_s:
            raise ClusterError(f"{what} came within {timeout_s:g} s", hint=spec.where_to_look)
        if waited_s > QUIET_WAIT_S and not told:
            limit = "" if timeout_s is None else f" at most {timeout_s:g} s"
            logger.warning("%s so far; waiting%s for the others; %s", what, limit, spec.where_to_look)
            told = True
        time.sleep(SECONDS_BETWEEN_LOOKS)


@contextmanager
def reporting(client: Client, path: Path) -> Iterator[None]:
    """Write Dask's own report on the tasks inside the context, an HTML file.

    There is no report when the scheduler, which writes it, is gone, or when the run was refused before it began.
    """
    with client.as_current(), ExitStack() as report:
        report.enter_context(performance_report(filename=str(path)))
        try:
            yield
        except InputError:
            report.pop_all()
            raise
        finally:
            if client.status != "running":
                report.pop_all()


def _starter(spec: ClusterSpec) -> Any:
    """Return the function that starts a kind of cluster; its module imports the packages of the kind."""
    module, _, function = spec.starter.partition(":")
    try:
        return getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        if not spec.extra:
            raise
        message = f'kind {spec.kind}: {error.name} is not installed: pip install "nx47dask[{spec.extra}]"'
        raise ClusterError(message) from error


def _started(start: Any, spec: ClusterSpec, worker_bytes: int | None) -> Any:
    try:
        return start(spec, worker_bytes)
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        if isinstance(error, ClusterError):
            raise
        raise ClusterError(f"kind {spec.kind}: the cluster did not start ({error})", hint=spec.where_to_look) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's dozens of lines on each start and end of a cluster out of the log, unless it logs everything."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado.application")]
    before = [logger.level for logger in loggers]
    if not logging.getLogger("nx47dask").isEnabledFor(logging.INFO):
        for dask_logger in loggers:
            dask_logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for dask_logger, level in zip(loggers, before, strict=True):
            dask_logger.setLevel(level)
