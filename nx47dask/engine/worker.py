"""What wraps a task on a worker: time, peak memory, and errors that name their place."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nx47dask.errors import Nx47Error

__all__ = ["dask_setup", "peak_rss_bytes", "run_task"]


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


def run_task(function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], place: str) -> dict[str, Any]:
    """Run a task; its record gains the time, the worker and its peak memory.

    Raises
    ------
    Nx47Error
        The task's own error, with its place in front of the message.
    """
    start = time.perf_counter()
    try:
        result = function(*arguments)
    except Nx47Error as error:
        raise type(error)(f"{place}: {error}") from error
    return {
        **result,
        "seconds": round(time.perf_counter() - start, 4),
        "worker": f"{socket.gethostname()}-{os.getpid()}",
        "peak_rss_bytes": peak_rss_bytes(),
    }
