"""Worker processes on this machine, for its CPUs and its GPUs."""

from __future__ import annotations

import logging
import socket
from typing import Any

import dask
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import LocalCluster, Nanny, Scheduler, SpecCluster
from distributed.system import MEMORY_LIMIT

from nx47dask.cluster.gpus import cpus_beside, visible_gpus
from nx47dask.cluster.spec import Bounds, CudaSpec, LocalSpec
from nx47dask.errors import ClusterError

__all__ = ["free_dashboard_address", "start", "start_cuda", "workers_that_fit"]

DASHBOARD_PORT = 8787


def workers_that_fit(worker_bytes: int | None) -> int:
    """Count the single-thread workers for this machine: one per CPU, fewer if memory is short, at least one.

    Parameters
    ----------
    worker_bytes : int or None
        Memory of the largest task of the run; None where that is not known.
    """
    by_memory = CPU_COUNT if worker_bytes is None else MEMORY_LIMIT // worker_bytes
    return max(1, min(CPU_COUNT, by_memory))


def start(spec: LocalSpec, worker_bytes: int | None = None) -> LocalCluster:
    """Start workers on the CPUs of this machine.

    Parameters
    ----------
    spec : LocalSpec
    worker_bytes : int, optional
        See `workers_that_fit`.
    """
    workers = spec.workers or workers_that_fit(worker_bytes)
    most = workers.maximum if isinstance(workers, Bounds) else workers
    cluster = LocalCluster(
        n_workers=workers.minimum if isinstance(workers, Bounds) else workers,
        threads_per_worker=1,
        memory_limit=_memory_limit(spec.memory_limit, most),
        host=spec.host,
        dashboard_address=spec.dashboard_address or free_dashboard_address(),
        local_directory=spec.local_directory,
        silence_logs=logging.CRITICAL,
        preload=_preload(),
    )
    if isinstance(workers, Bounds):
        cluster.adapt(minimum=workers.minimum, maximum=workers.maximum)
    return cluster


def start_cuda(spec: CudaSpec, worker_bytes: int | None = None) -> SpecCluster:
    """Start a worker for each visible GPU, and CPU workers beside them.

    Raises
    ------
    ClusterError
        There are fewer GPUs than asked for, or none.
    """
    gpus = [gpu.identifier for gpu in visible_gpus()]
    wanted = spec.gpu_workers or max(1, len(gpus))
    if len(gpus) < wanted:
        raise ClusterError(
            f"kind cuda: {len(gpus)} GPUs are visible here and {wanted} wanted",
            hint="see CUDA_VISIBLE_DEVICES and `nvidia-smi -L`, or take kind: local",
        )
    for_cpu = max(1, workers_that_fit(worker_bytes) - wanted) if spec.workers is None else spec.workers
    assert isinstance(for_cpu, int), "the spec refuses bounds beside GPU workers"
    common = {
        "nthreads": 1,
        "host": spec.host,
        "memory_limit": _memory_limit(spec.memory_limit, for_cpu + wanted),
        "local_directory": spec.local_directory,
        "silence_logs": logging.CRITICAL,
        "preload": _preload(),
        "dashboard": False,
    }
    workers = {f"gpu-{n}": _gpu_worker(gpu, common) for n, gpu in enumerate(gpus[:wanted])}
    # A worker for CPU tasks must not take memory of a GPU.
    cpu_worker = {"cls": Nanny, "options": {**common, "resources": {"CPU": 1}, "env": {"CUDA_VISIBLE_DEVICES": ""}}}
    workers |= {f"cpu-{n}": cpu_worker for n in range(for_cpu)}
    dashboard = spec.dashboard_address or free_dashboard_address()
    scheduler = {"host": spec.host, "port": 0, "dashboard": True, "dashboard_address": dashboard}
    return SpecCluster(
        workers=workers, scheduler={"cls": Scheduler, "options": scheduler}, silence_logs=logging.CRITICAL
    )


def free_dashboard_address() -> str:
    """Return Dask's usual port on this machine if it is free, else any port; reachable from this machine only."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", DASHBOARD_PORT))
        except OSError:
            return "127.0.0.1:0"
    return f"127.0.0.1:{DASHBOARD_PORT}"


def _gpu_worker(gpu: str, common: dict[str, Any]) -> dict[str, Any]:
    options = {**common, "resources": {"GPU": 1}, "env": {"CUDA_VISIBLE_DEVICES": gpu}}
    affinity = cpus_beside(gpu)
    return {"cls": Nanny, "options": options | ({"plugins": [affinity]} if affinity else {})}


def _memory_limit(given: str, workers: int) -> int:
    """Return the memory limit of each worker, in bytes."""
    return int(MEMORY_LIMIT // workers) if given == "auto" else int(parse_bytes(given))


def _preload() -> list[str]:
    """List the modules that a worker process imports first: ours, and those of the user's Dask configuration."""
    configured = dask.config.get("distributed.worker.preload")
    return ["nx47dask.engine.worker", *([configured] if isinstance(configured, str) else configured)]
