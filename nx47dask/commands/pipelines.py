"""Pipelines outside a run folder: nothing is recorded, and what failed is raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from rich.console import Console

from nx47dask.cluster.pool import open_pool
from nx47dask.cluster.spec import read_cluster
from nx47dask.engine import Pipeline, execute
from nx47dask.engine.progress import progress_for

__all__ = ["run_pipelines"]

T = TypeVar("T")


def run_pipelines(
    pipelines: Mapping[str, Pipeline[T]],
    *,
    cluster: str | None = None,
    workers: int | None = None,
    serial: bool = False,
    console: Console | None = None,
) -> dict[str, T]:
    """Run the pipelines of several volumes on a cluster and return what each returned.

    Parameters
    ----------
    pipelines : mapping of volume id to generator
    cluster, workers, serial, console
        As for ``nx47dask.run``.

    Raises
    ------
    Nx47Error
        The error of the first pipeline that failed.
    """
    console = console or Console(stderr=True)
    with (
        open_pool(None if serial else read_cluster(cluster, workers), console) as pool,
        progress_for(console, len(pipelines)) as progress,
    ):
        results, errors = execute(pipelines, pool, observers=(progress,))
    for error in errors.values():
        raise error
    return results
