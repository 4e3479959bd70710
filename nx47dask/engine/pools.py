"""Where a run's tasks go: this process, or a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rich.console import Console

from nx47dask.engine.spec import ClusterSpec
from nx47dask.engine.window import Pool, SerialPool

__all__ = ["open_pool"]


@contextmanager
def open_pool(cluster: ClusterSpec | None, console: Console, report: Path | None = None) -> Iterator[Pool]:
    """Open a pool for a run.

    Parameters
    ----------
    cluster : ClusterSpec or None
        None runs the tasks in this process, without a cluster.
    console : rich.console.Console
        Its first line says where to watch.
    report : Path, optional
        Where Dask's own report goes.

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
    from nx47dask.engine.cluster import DaskPool, open_client, reporting

    with open_client(cluster) as client:
        console.print(f"dashboard {client.dashboard_link}", highlight=False, soft_wrap=True)
        if report is None:
            yield DaskPool(client)
            return
        with reporting(client, report):
            yield DaskPool(client)
