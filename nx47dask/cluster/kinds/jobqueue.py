"""Worker processes in jobs of SLURM, PBS or LSF."""

from __future__ import annotations

import math
import shlex
from typing import Any

import dask_jobqueue
from dask.utils import parse_bytes
from distributed import Status

from nx47dask.cluster.kinds.local import free_dashboard_address
from nx47dask.cluster.settings import dask_settings, exported
from nx47dask.cluster.spec import Bounds, JobQueueSpec
from nx47dask.errors import ClusterError

__all__ = ["start"]

_CLUSTERS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster"}
_GIVEN = ("queue", "walltime", "interface", "local_directory", "log_directory", "python")
_PBS_RESOURCES = "select="


def start(spec: JobQueueSpec, worker_bytes: int | None = None) -> Any:
    """Submit jobs with workers to the batch system; the scheduler runs in this process.

    Parameters
    ----------
    spec : JobQueueSpec
    worker_bytes : int, optional
        Not used: the spec gives the size of a job.

    Returns
    -------
    dask_jobqueue.JobQueueCluster
        Cluster whose workers come when the batch system starts their jobs.

    Raises
    ------
    ClusterError
        The batch system's commands are not here, or refuse a job.
    """
    kind = getattr(dask_jobqueue, _CLUSTERS[spec.kind])
    dashboard = {"dashboard_address": spec.dashboard_address or free_dashboard_address()}
    cluster = kind(scheduler_options=dashboard, **_cpu_job(spec))
    bounds = spec.workers if isinstance(spec.workers, Bounds) else None
    workers = spec.workers.minimum if isinstance(spec.workers, Bounds) else spec.workers
    jobs = {f"cpu-{n}": cluster.new_spec for n in range(math.ceil(workers / spec.cores))}
    if spec.gpu_workers:
        gpu_job = {"cls": cluster.job_cls, "options": cluster.new_spec["options"] | _gpu_job(spec)}
        jobs |= {f"gpu-{n}": gpu_job for n in range(spec.gpu_workers)}
    cluster.worker_spec.update(jobs)
    _send_jobs(cluster)
    if bounds:
        cluster.adapt(minimum=bounds.minimum, maximum=bounds.maximum)
    return cluster


def _send_jobs(cluster: Any) -> None:
    """Submit the jobs.

    `scale` does the same in the background, where nobody would see that the batch system refuses a job.
    """
    refusal = None
    try:
        cluster.sync(cluster._correct_state)
    except (OSError, RuntimeError, ValueError) as error:
        refusal = " ".join(str(error).split())
    if refusal is not None:
        for job in cluster.workers.values():
            job.status = Status.failed  # else Dask cannot close a cluster whose jobs never existed
        cluster.close()
        raise ClusterError(f"the batch system took no job: {refusal}")


def _cpu_job(spec: JobQueueSpec) -> dict[str, Any]:
    """Return the arguments of dask-jobqueue for a job with CPU workers."""
    given = {name: getattr(spec, name) for name in _GIVEN if getattr(spec, name) is not None}
    if spec.account is not None:
        given["project" if spec.kind == "lsf" else "account"] = spec.account
    settings = dask_settings(spec.dask)
    on_workers = {key: value for key, value in settings.items() if not key.startswith("distributed.scheduler.")}
    return {
        "cores": spec.cores,
        "processes": spec.cores,
        "memory": spec.memory,
        "job_extra_directives": spec.job_extra_directives,
        # Before the user's own lines, which may override them.
        "job_script_prologue": [
            *(f"export {name}={shlex.quote(value)}" for name, value in exported(on_workers).items()),
            *spec.job_script_prologue,
        ],
        "worker_extra_args": [*spec.worker_extra_args, *_resources("CPU" if "CPU" in spec.pools else None)],
        **given,
    }


def _gpu_job(spec: JobQueueSpec) -> dict[str, Any]:
    """Return the arguments that differ for a job with a GPU and one worker."""
    directives = spec.gpu_directives or _ask_for_gpu(spec)
    return {
        "cores": 1,
        "processes": 1,
        "memory": spec.gpu_memory or spec.memory,
        "job_extra_directives": [*spec.job_extra_directives, *directives],
        "job_directives_skip": [_PBS_RESOURCES] if any(_PBS_RESOURCES in directive for directive in directives) else [],
        "worker_extra_args": [*spec.worker_extra_args, *_resources("GPU")],
        **({"queue": spec.gpu_queue} if spec.gpu_queue else {}),
    }


def _ask_for_gpu(spec: JobQueueSpec) -> list[str]:
    """Return the directives that ask for one GPU, from the manuals of sbatch, PBS Professional's qsub and bsub."""
    mebibytes = math.ceil(parse_bytes(spec.gpu_memory or spec.memory) / 2**20)
    return {
        "slurm": ["--gres=gpu:1"],
        "pbs": [f"-l {_PBS_RESOURCES}1:ncpus=1:ngpus=1:mem={mebibytes}MB"],
        "lsf": ['-gpu "num=1"'],
    }[spec.kind]


def _resources(name: str | None) -> list[str]:
    return ["--resources", f"{name}=1"] if name else []
