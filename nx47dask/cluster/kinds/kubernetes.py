"""Workers in pods of Kubernetes, created by the Dask operator."""

from __future__ import annotations

from typing import Any

import httpx
import kr8s
from dask_kubernetes.exceptions import SchedulerStartupError
from dask_kubernetes.operator import KubeCluster

from nx47dask.cluster.settings import dask_settings, exported
from nx47dask.cluster.spec import Bounds, KubernetesSpec
from nx47dask.errors import ClusterError

__all__ = ["start"]

_ERRORS = (
    httpx.HTTPError,
    kr8s.APITimeoutError,
    kr8s.ConnectionClosedError,
    kr8s.NotFoundError,
    kr8s.ServerError,
)


def start(spec: KubernetesSpec, worker_bytes: int | None = None) -> KubeCluster:
    """Create the pods of a cluster with the Dask operator.

    Parameters
    ----------
    spec : KubernetesSpec
    worker_bytes : int, optional
        Not used: the spec gives the size of a pod.

    Raises
    ------
    ClusterError
        Kubernetes cannot be reached, or has no Dask operator.
    """
    try:
        kr8s.api().version()  # a KubeCluster that cannot reach Kubernetes also fails when this process ends
        return _start(spec)
    except (*_ERRORS, SchedulerStartupError) as error:
        raise ClusterError(
            f"kind kubernetes: no cluster ({type(error).__name__}: {error})",
            hint="see `kubectl get daskclusters,pods` and whether the Dask operator is installed",
        ) from error


def _start(spec: KubernetesSpec) -> KubeCluster:
    variables = exported(dask_settings(spec.dask))
    cluster = KubeCluster(
        **{name: value for name in ("name", "namespace") if (value := getattr(spec, name)) is not None},
        image=spec.image,
        n_workers=spec.workers.minimum if isinstance(spec.workers, Bounds) else spec.workers,
        resources=spec.resources,
        # For the scheduler too, which reads some of the settings.
        env=[*({"name": name, "value": value} for name, value in variables.items()), *spec.env],
        worker_command=_command(spec.resources, "CPU" if "CPU" in spec.pools else None),
        quiet=True,
    )
    if isinstance(spec.workers, Bounds):
        cluster.adapt(minimum=spec.workers.minimum, maximum=spec.workers.maximum)
    if spec.gpu_workers:
        resources = _gpu_resources(spec)
        cluster.add_worker_group(
            name="gpu", n_workers=spec.gpu_workers, resources=resources, worker_command=_command(resources, "GPU")
        )
    return cluster


def _gpu_resources(spec: KubernetesSpec) -> dict[str, dict[str, Any]]:
    """Return the requests and limits of a pod with a GPU."""
    merged = {
        part: {**spec.resources.get(part, {}), **spec.gpu_resources.get(part, {})} for part in ("requests", "limits")
    }
    merged["limits"].setdefault("nvidia.com/gpu", 1)
    return {part: values for part, values in merged.items() if values}


def _command(resources: dict[str, dict[str, Any]], name: str | None) -> list[str]:
    """Return the command of a pod of workers; the operator adds the worker's name and the scheduler's address."""
    limit = resources.get("limits", {}).get("memory")
    return [
        *("dask", "worker", "--nthreads", "1"),
        *(("--memory-limit", str(limit)) if limit else ()),
        *(("--resources", f"{name}=1") if name else ()),
    ]
