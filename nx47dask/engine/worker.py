"""Wrapping of a task on a worker: time, peak memory, errors that name their place, releases that agree."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from nx47dask.engine.tasks import Result
from nx47dask.errors import BlockError, ClusterError, Nx47Error
from nx47dask.version import __version__

__all__ = ["NUMERIC_PACKAGES", "dask_setup", "library_versions", "peak_rss_bytes", "release", "run_task"]

NUMERIC_PACKAGES = ("connected-components-3d", "numpy", "scipy", "torch")
"""Libraries whose release may decide a bit."""


def release(name: str) -> str:
    """Release of a package here.

    torch 2.13.0+cpu and +cu130 are one release: what runs a network, and on what device, is part of the plan.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
    """
    return metadata.version(name).partition("+")[0]


@lru_cache(maxsize=1)
def library_versions() -> str:
    """Releases of all that decides the bits of a result, in one line."""
    releases = {name: release(name) for name in NUMERIC_PACKAGES}
    return ", ".join(f"{name} {release}" for name, release in {"nx47dask": __version__, **releases}.items())


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far, in bytes.

    From the kernel's high-water mark of the process where there is one: ``getrusage`` would begin with the peak of the
    process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def dask_setup(worker: Any) -> None:
    """Called by Dask in every process of a local cluster: Ctrl-C is for the client, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_task(
    function: Callable[..., Result], arguments: tuple[Any, ...], place: str, versions: str | None = None
) -> Result:
    """Run a task; its record gains the time, the worker and its peak memory.

    Raises
    ------
    Nx47Error
        The task's own error, or a BlockError that says what it was, with its place in front of the message and its
        traceback as a note: an exception of any other library, or a deep traceback, may not survive the way back.
    ClusterError
        The worker has other releases than the client, ``versions``.
    """
    if versions not in (None, library_versions()):
        raise ClusterError(
            f"{place}: worker {_worker()} has {library_versions()}; the client has {versions}", hint="install the same"
        )
    start = time.perf_counter()
    try:
        result = function(*arguments)
    except Exception as error:
        ours = error if isinstance(error, Nx47Error) else BlockError(f"{type(error).__name__}: {error}")
        placed = ours.at(place)
        placed.add_note(traceback.format_exc())
        raise placed from error
    return {
        **result,
        "seconds": round(time.perf_counter() - start, 4),
        "worker": _worker(),
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _worker() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"
