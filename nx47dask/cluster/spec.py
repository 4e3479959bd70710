"""Specs of clusters, read from ``cluster.yaml``, ``NX47DASK_CLUSTER*``, ``--cluster`` and ``--workers``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from nx47dask.cluster.base import (
    NO_WORKER_TIMEOUT_S,
    Bounds,
    ClusterSpec,
    SizedSpec,
    TwoPoolSpec,
    Workers,
    has_a_unit,
)
from nx47dask.errors import InputError

__all__ = [
    "KINDS",
    "Bounds",
    "ClusterSpec",
    "ConnectSpec",
    "CudaSpec",
    "JobQueueSpec",
    "KubernetesSpec",
    "LocalSpec",
    "read_cluster",
]

ENVIRONMENT = "NX47DASK_CLUSTER"


class _OnThisMachine(BaseModel):
    memory_limit: str = "auto"
    """Memory of each worker, such as ``8GiB``; auto divides the machine's memory among them."""
    host: str = "127.0.0.1"
    """Address on which the scheduler and the workers listen."""
    dashboard_address: str | None = None
    """Address of Dask's pages; by default port 8787 for this machine only, or another port when that is taken."""
    local_directory: str | None = None
    no_worker_timeout_s: float | None = Field(default=NO_WORKER_TIMEOUT_S, gt=0)

    _memory_has_a_unit = field_validator("memory_limit")(has_a_unit)


class LocalSpec(_OnThisMachine, SizedSpec):
    """Spec of single-thread worker processes on this machine."""

    starter: ClassVar[str] = "nx47dask.cluster.kinds.local:start"

    kind: Literal["local"] = "local"
    workers: Workers | None = None
    """Number of workers; None: one per CPU, or as many as fit into memory."""

    def for_gpus(self) -> ClusterSpec:
        """Return the same machine with a worker for each of its GPUs; unchanged where Dask scales the workers."""
        if isinstance(self.workers, Bounds):
            return self
        return CudaSpec.model_validate({**self.model_dump(), "kind": "cuda"})


class CudaSpec(_OnThisMachine, TwoPoolSpec):
    """Spec of a worker process for each GPU of this machine, and CPU workers beside them."""

    starter: ClassVar[str] = "nx47dask.cluster.kinds.local:start_cuda"

    kind: Literal["cuda"]
    workers: Workers | None = None
    """Number of CPU workers; None: one per CPU that no GPU worker needs."""
    gpu_workers: int | None = Field(default=None, ge=1)
    """Number of GPU workers; None: one for each visible GPU."""


class JobQueueSpec(TwoPoolSpec):
    """Spec of worker processes in jobs of a batch system."""

    starter: ClassVar[str] = "nx47dask.cluster.kinds.jobqueue:start"

    kind: Literal["slurm", "pbs", "lsf"]
    workers: Workers
    """Number of single-thread worker processes; ``cores`` of them share a job."""
    cores: int = Field(default=1, ge=1)
    """Number of CPUs of a job, and of its worker processes."""
    memory: str
    """Memory of a job, such as ``64GiB``; its workers share it."""
    queue: str | None = None
    account: str | None = None
    walltime: str | None = None
    gpu_workers: int = Field(default=0, ge=0)
    """Number of jobs with one GPU and one worker."""
    gpu_queue: str | None = None
    gpu_memory: str | None = None
    """Memory of a job with a GPU; by default that of the other jobs."""
    gpu_directives: list[str] | None = None
    """Directives that ask for one GPU; by default those of the batch system's manual."""
    job_extra_directives: list[str] = Field(default_factory=list)
    job_script_prologue: list[str] = Field(default_factory=list)
    """Shell lines that run before the worker, such as ``module load``."""
    interface: str | None = None
    """Network interface of the scheduler and the workers, such as ``ib0``."""
    local_directory: str | None = None
    log_directory: str | None = None
    python: str | None = None
    worker_extra_args: list[str] = Field(default_factory=list)
    dashboard_address: str | None = None

    _memory_has_a_unit = field_validator("memory", "gpu_memory")(has_a_unit)

    @field_validator("walltime", mode="before")
    @classmethod
    def _is_quoted(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError('put it in quotes, such as "12:00:00", which YAML takes for a number')  # noqa: TRY004
        return value

    @property
    def extra(self) -> str:
        return self.kind

    @property
    def where_to_look(self) -> str:
        return {"slurm": "see `squeue --me`", "pbs": "see `qstat -u $USER`", "lsf": "see `bjobs`"}[self.kind]

    @property
    def expected_workers(self) -> int:
        for_cpu = super().expected_workers - self.gpu_workers
        return -(-for_cpu // self.cores) * self.cores + self.gpu_workers


class KubernetesSpec(TwoPoolSpec):
    """Spec of single-thread workers in pods, created by the Dask operator."""

    starter: ClassVar[str] = "nx47dask.cluster.kinds.kubernetes:start"

    kind: Literal["kubernetes"]
    image: str
    """Container image; it must have the same releases of nx47dask and its dependencies as this machine."""
    workers: Workers
    gpu_workers: int = Field(default=0, ge=0)
    namespace: str | None = None
    name: str | None = None
    resources: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Requests and limits of a pod, in the form of Kubernetes; the memory limit is also that of the worker."""
    gpu_resources: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Requests and limits that differ for a pod with a GPU; ``nvidia.com/gpu: 1`` is added."""
    env: list[dict[str, Any]] = Field(default_factory=list)
    """Environment of all pods, in the form of Kubernetes (``valueFrom`` takes credentials from a secret)."""

    @property
    def extra(self) -> str:
        return "kubernetes"

    @property
    def where_to_look(self) -> str:
        return "see `kubectl get pods`"


class ConnectSpec(ClusterSpec):
    """Spec of a scheduler that runs already."""

    starter: ClassVar[str] = "nx47dask.cluster.kinds.connect:connect"
    runs_already: ClassVar[bool] = True

    kind: Literal["connect"]
    address: str | None = None
    """Address of the scheduler, such as ``tcp://HOST:8786`` or ``tls://HOST:8786``."""
    scheduler_file: str | None = None
    tls_ca_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    no_worker_timeout_s: float | None = Field(default=NO_WORKER_TIMEOUT_S, gt=0)

    @property
    def where_to_look(self) -> str:
        return "see its dashboard"

    @model_validator(mode="after")
    def _names_a_scheduler(self) -> Self:
        if (self.address is None) == (self.scheduler_file is None):
            raise ValueError("give either the address or the scheduler_file of the scheduler")
        tls = (self.tls_ca_file, self.tls_cert, self.tls_key)
        if any(tls) and not all(tls):
            raise ValueError("TLS takes tls_ca_file, tls_cert and tls_key together")
        return self


_SPECS: tuple[type[ClusterSpec], ...] = (LocalSpec, CudaSpec, JobQueueSpec, KubernetesSpec, ConnectSpec)
KINDS = {name: spec for spec in _SPECS for name in get_args(spec.model_fields["kind"].annotation)}
"""Kinds of clusters, each with the class of its keys in ``cluster.yaml``."""


def read_cluster(
    source: str | None, workers: int | None = None, environ: Mapping[str, str] | None = None
) -> ClusterSpec:
    """Read the spec of a cluster. Options override ``NX47DASK_CLUSTER*``, which override the file.

    Parameters
    ----------
    source : str or None
        YAML file, ``tcp://HOST:PORT`` or scheduler file (.json); None takes ``NX47DASK_CLUSTER``, else
        ``cluster.yaml`` here if there is one, else a local cluster.
    workers : int or None
        Worker processes of a cluster that is started.
    environ : mapping, optional
        Environment; by default that of this process. ``NX47DASK_CLUSTER_<KEY>`` sets a key, as YAML.

    Raises
    ------
    InputError
        The file is missing, or a key or a value is unknown.
    """
    environ = os.environ if environ is None else environ
    place = source or environ.get(ENVIRONMENT) or ("cluster.yaml" if Path("cluster.yaml").is_file() else None)
    values = _read_source(place)
    prefix = f"{ENVIRONMENT}_"
    from_environment = {
        name.removeprefix(prefix).lower(): _yaml(text, name)
        for name, text in sorted(environ.items())
        if name.startswith(prefix)
    }
    on_line = values if source is not None and not _is_yaml(source) else {}
    values = {"kind": "local", **values, **from_environment, **on_line}
    if workers is not None:
        if (kind := KINDS.get(values["kind"])) and kind.runs_already:
            raise InputError(
                f"workers {workers}: a scheduler that runs already has its workers",
                hint=f"leave out --workers {workers}, and start them there",
            )
        values["workers"] = workers
    return _validated(values, from_environment, place or f"kind {values['kind']}")


def _is_yaml(source: str) -> bool:
    return "://" not in source and not source.endswith(".json")


def _read_source(source: str | None) -> dict[str, Any]:
    if source is None:
        return {}
    if "://" in source:
        return {"kind": "connect", "address": source}
    if not Path(source).is_file():
        raise InputError(
            f"{source}: no such cluster file",
            hint="give --cluster a YAML file, tcp://HOST:PORT or a scheduler file",
        )
    if not _is_yaml(source):
        return {"kind": "connect", "scheduler_file": source}
    values = _yaml(Path(source).read_text(encoding="utf-8"), source)
    if not isinstance(values or {}, dict):
        raise InputError(f"{source}: expected keys ({_keys('local')}), found {values!r}")
    return dict(values or {})


def _yaml(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{source}: not YAML: {error}") from error


def _validated(values: dict[str, Any], from_environment: Mapping[str, Any], place: str) -> ClusterSpec:
    kind = values["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        source = f"{ENVIRONMENT}_KIND" if "kind" in from_environment else place
        raise InputError(f"{source}: kind: {kind!r} is unknown; kinds: {', '.join(KINDS)}")
    try:
        return KINDS[kind].model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        names = [str(part) for part in first["loc"] if part not in ("count", "bounds")]
        source = f"{ENVIRONMENT}_{names[0].upper()}" if names and names[0] in from_environment else place
        if first["type"] == "extra_forbidden":
            known = f"keys of kind {kind}: {_keys(kind)}" if len(names) == 1 else "no such key"
            raise InputError(f"{source}: {'.'.join(names)}: unknown; {known}") from None
        given = f" (found {first['input']!r})" if names and first["type"] != "missing" else ""
        message = f"{first['msg'].removeprefix('Value error, ')}{given}"
        raise InputError(": ".join([source, *([".".join(names)] if names else []), message])) from None


def _keys(kind: str) -> str:
    return ", ".join(KINDS[kind].model_fields)
