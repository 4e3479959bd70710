"""Opening of the pool of a run, on a Dask cluster or in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from rich.console import Console

from nx47dask.cluster.base import ClusterSpec
from nx47dask.engine.events import JobTitle
from nx47dask.engine.pools import Pool, SerialPool

__all__ = ["open_pool"]


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
        Console for the line with the address of the dashboard.
    report : Path, optional
        File for Dask's own report.
    title : JobTitle, optional
        Title of a page of the running job on the cluster's dashboard; without it there is no page.
    worker_bytes : int, optional
        Memory that a worker of the run needs. It decides the number of workers of a local cluster when none is given.

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
    from nx47dask.cluster.dask_pool import DaskPool
    from nx47dask.cluster.start import open_client, reporting
    from nx47dask.monitor.feed import watched

    with ExitStack() as stack:
        client = stack.enter_context(open_client(cluster, worker_bytes))
        observers, link = stack.enter_context(watched(client, title)) if title else ([], "")
        job = f"  job {link}" if link else ""
        console.print(f"dashboard {client.dashboard_link}{job}", highlight=False, soft_wrap=True)
        if report is not None:
            stack.enter_context(reporting(client, report))
        yield DaskPool(client, cluster.no_worker_timeout_s, observers, cluster.pools)
