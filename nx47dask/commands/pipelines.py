"""Run pipelines outside a run folder: nothing is recorded, and a failure is raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from nx47dask.cluster.where import Where
from nx47dask.engine import Pipeline, execute
from nx47dask.engine.progress import progress_for

__all__ = ["run_pipelines"]

T = TypeVar("T")


def run_pipelines(pipelines: Mapping[str, Pipeline[T]], where: Where) -> dict[str, T]:
    """Run the pipelines of several volumes and return the result of each, by volume id.

    Parameters
    ----------
    pipelines : mapping of volume id to generator
    where : Where

    Raises
    ------
    Nx47Error
        The error of the first pipeline that failed.
    """
    with where.open_pool() as pool, progress_for(where.console, len(pipelines)) as progress:
        results, errors = execute(pipelines, pool, observers=(progress,))
    for error in errors.values():
        raise error
    return results
