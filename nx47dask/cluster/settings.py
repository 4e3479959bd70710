"""Settings of worker processes and of the scheduler, the same for every kind of cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dask
import distributed.config  # noqa: F401  its defaults have to be there before they are added to

from nx47dask.monitor.names import JOB_PAGE, ROUTES_KEY

__all__ = ["dask_settings", "environment_of", "exported", "process_environment"]

TASKS_IN_REPORT = 500
"""Largest number of tasks in Dask's report, for which the scheduler keeps 2 kB each; events.jsonl has them all."""

# One thread a task, and an allocator that keeps large blocks: returning them to the system after every task costs
# page faults worth 2-4 times the run time of numpy and torch kernels. One arena, because glibc's others hold no block
# above 64 MiB: torch takes 20 % longer with two.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_ARENA_MAX": "1",
}

DASK_SETTINGS = {
    "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
    # Tasks hold no Dask data, so there is nothing to spill; and as the allocator keeps its memory, a worker that
    # pauses above a limit would never go on.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # A task whose worker died twice is the window's to judge: see nx47dask.engine.window.
    "distributed.scheduler.allowed-failures": 1,
    "distributed.scheduler.dashboard.tasks.task-stream-length": TASKS_IN_REPORT,
}

_ENVIRON = ("environ", "pre-spawn-environ")


def dask_settings(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Dask configuration of a run, by dotted key: ours, overridden by the user's.

    Parameters
    ----------
    own : mapping
        Block ``dask`` of ``cluster.yaml``, with dotted or nested keys.
    """
    routes = [*dask.config.get(ROUTES_KEY), JOB_PAGE]
    return {**dict(_leaves(DASK_SETTINGS)), ROUTES_KEY: routes, **dict(_leaves(own))}


def environment_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables that must be set before a worker process starts."""
    names = {key: key.rsplit(".", 1) for key in settings if "." in key}
    return {
        name: str(settings[key])
        for key, (path, name) in names.items()
        if path.endswith(_ENVIRON) and settings[key] is not None
    }


def exported(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings as environment variables, for processes that are started elsewhere."""
    plain = environment_of(settings)
    configuration = {
        "DASK_" + key.upper().replace(".", "__").replace("-", "_"): value if isinstance(value, str) else repr(value)
        for key, value in settings.items()
        if key.rsplit(".", 1)[-1] not in plain
    }
    return plain | configuration


@contextmanager
def process_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the context, for child processes to inherit.

    Dask would keep a value that is set already, such as the shell's ``OMP_NUM_THREADS``, which is meant for a single
    process.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _leaves(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            yield from _leaves(value, here)
        else:
            yield here, value
