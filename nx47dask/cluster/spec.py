"""Which cluster to use: ``cluster.yaml``, ``NX47DASK_CLUSTER*``, ``--cluster`` and ``--workers``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from nx47dask.errors import InputError

__all__ = [
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
NO_WORKER_TIMEOUT_S = 600.0
"""Where workers do not wait in a queue."""


class Bounds(BaseModel):
    """Between how many workers Dask scales the cluster by itself, as there is work."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum: int = Field(ge=1)
    maximum: int

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.maximum < self.minimum:
            raise ValueError(f"maximum {self.maximum} is below minimum {self.minimum}")
        return self


def _count_or_bounds(value: Any) -> str:
    return "bounds" if isinstance(value, Bounds | dict) else "count"


Workers = Annotated[
    Annotated[int, Field(ge=0), Tag("count")] | Annotated[Bounds, Tag("bounds")], Discriminator(_count_or_bounds)
]


def _has_a_unit(value: str | None) -> str | None:
    if value not in (None, "auto"):
        from dask.utils import parse_bytes

        parse_bytes(value)
    return value


class ClusterSpec(BaseModel):
    """What every kind of cluster has; the keys of ``cluster.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    kind: str
    no_worker_timeout_s: float | None = Field(default=None, gt=0)
    """Stop when there has been no worker for so long; None waits for ever, as in a queue."""
    dask: dict[str, Any] = {}
    """Goes to the Dask configuration as it is, for this run only, here and on the workers that are started."""

    @property
    def pools(self) -> tuple[str, ...]:
        """Resources that tell its pools of workers apart; none for a single pool of CPU workers.

        Dask queues tasks that ask for no resource on the scheduler; others all go to workers at once.
        """
        return ()

    @property
    def expected_workers(self) -> int:
        """How many workers there will be at least."""
        return 1


class _Sized(ClusterSpec):
    """A cluster that is started here, with workers for CPU tasks."""

    workers: Workers | None

    @property
    def expected_workers(self) -> int:
        if isinstance(self.workers, Bounds):
            return self.workers.minimum
        return 1 if self.workers is None else self.workers

    @model_validator(mode="after")
    def _has_workers(self) -> Self:
        if self.expected_workers == 0:
            raise ValueError("no workers at all; workers: 1 is the least")
        return self


class _TwoPools(_Sized):
    """GPU workers beside those for CPU tasks."""

    gpu_workers: int | None = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _can_be_scaled(self) -> Self:
        if self.gpu_workers != 0 and isinstance(self.workers, Bounds):
            raise ValueError(
                "Dask scales one pool of workers, and with gpu_workers there are two: "
                "give workers as a number, or leave gpu_workers out"
            )
        return self

    @property
    def pools(self) -> tuple[str, ...]:
        if self.gpu_workers == 0:
            return ()
        return ("GPU",) if self.workers == 0 else ("CPU", "GPU")

    @property
    def expected_workers(self) -> int:
        return super().expected_workers + (1 if self.gpu_workers is None else self.gpu_workers)


class _OnThisMachine(BaseModel):
    memory_limit: str = "auto"
    """Of each worker, such as ``8GiB``; auto shares the machine's memory out."""
    host: str = "127.0.0.1"
    """Address on which the scheduler and the workers listen."""
    dashboard_address: str | None = None
    """Where Dask's pages are; by default port 8787 for this machine only, or another when that is taken."""
    local_directory: str | None = None
    no_worker_timeout_s: float | None = Field(default=NO_WORKER_TIMEOUT_S, gt=0)

    _memory_has_a_unit = field_validator("memory_limit")(_has_a_unit)


class LocalSpec(_OnThisMachine, _Sized):
    """Single-thread worker processes on this machine."""

    kind: Literal["local"] = "local"
    workers: Workers | None = None
    """None: one per CPU, or as many as there is memory for."""

    def for_gpus(self) -> ClusterSpec:
        """The same machine with a worker for each of its GPUs, for a run that computes on them."""
        if isinstance(self.workers, Bounds):
            return self
        return CudaSpec.model_validate({**self.model_dump(), "kind": "cuda"})


class CudaSpec(_OnThisMachine, _TwoPools):
    """A worker process for each GPU of this machine, and CPU workers beside them."""

    kind: Literal["cuda"]
    workers: Workers | None = None
    """None: one per CPU that has no GPU worker to serve."""
    gpu_workers: int | None = Field(default=None, ge=1)
    """None: one for each visible GPU."""


class JobQueueSpec(_TwoPools):
    """Worker processes in jobs of a batch system."""

    kind: Literal["slurm", "pbs", "lsf"]
    workers: Workers
    """Single-thread worker processes; ``cores`` of them share a job."""
    cores: int = Field(default=1, ge=1)
    """CPUs of a job, and its worker processes."""
    memory: str
    """Of a job, such as ``64GiB``; its workers share it."""
    queue: str | None = None
    account: str | None = None
    walltime: str | None = None
    gpu_workers: int = Field(default=0, ge=0)
    """Jobs with one GPU and one worker."""
    gpu_queue: str | None = None
    gpu_memory: str | None = None
    """Of a job with a GPU; by default that of the others."""
    gpu_directives: list[str] | None = None
    """What asks for one GPU; by default as the batch system's manual has it."""
    job_extra_directives: list[str] = []
    job_script_prologue: list[str] = []
    """Shell lines that go before the worker, such as ``module load``."""
    interface: str | None = None
    """Network interface of the scheduler and the workers, such as ``ib0``."""
    local_directory: str | None = None
    log_directory: str | None = None
    python: str | None = None
    worker_extra_args: list[str] = []
    dashboard_address: str | None = None

    _memory_has_a_unit = field_validator("memory", "gpu_memory")(_has_a_unit)

    @field_validator("walltime", mode="before")
    @classmethod
    def _is_quoted(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError('put it in quotes, such as "12:00:00", which YAML takes for a number')  # noqa: TRY004
        return value

    @property
    def expected_workers(self) -> int:
        for_cpu = super().expected_workers - self.gpu_workers
        return -(-for_cpu // self.cores) * self.cores + self.gpu_workers


class KubernetesSpec(_TwoPools):
    """Single-thread workers in pods, made by the Dask operator."""

    kind: Literal["kubernetes"]
    image: str
    """Holds the same releases of nx47dask and what it needs as this machine."""
    workers: Workers
    gpu_workers: int = Field(default=0, ge=0)
    namespace: str | None = None
    name: str | None = None
    resources: dict[str, dict[str, Any]] = {}
    """Requests and limits of a pod, as Kubernetes has them; the memory limit is the worker's as well."""
    gpu_resources: dict[str, dict[str, Any]] = {}
    """What differs for a pod with a GPU; ``nvidia.com/gpu: 1`` is added."""
    env: list[dict[str, Any]] = []
    """Environment of all pods, as Kubernetes has it (``valueFrom`` takes credentials from a secret)."""


class ConnectSpec(ClusterSpec):
    """A scheduler that runs already."""

    kind: Literal["connect"]
    address: str | None = None
    """Such as ``tcp://HOST:8786`` or ``tls://HOST:8786``."""
    scheduler_file: str | None = None
    tls_ca_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    no_worker_timeout_s: float | None = Field(default=NO_WORKER_TIMEOUT_S, gt=0)

    @model_validator(mode="after")
    def _names_a_scheduler(self) -> Self:
        if (self.address is None) == (self.scheduler_file is None):
            raise ValueError("give either the address or the scheduler_file of the scheduler")
        tls = (self.tls_ca_file, self.tls_cert, self.tls_key)
        if any(tls) and not all(tls):
            raise ValueError("TLS takes tls_ca_file, tls_cert and tls_key together")
        return self


_Kind = Annotated[LocalSpec | CudaSpec | JobQueueSpec | KubernetesSpec | ConnectSpec, Field(discriminator="kind")]
_KINDS: dict[str, type[ClusterSpec]] = {
    name: model
    for model in (LocalSpec, CudaSpec, JobQueueSpec, KubernetesSpec, ConnectSpec)
    for name in get_args(model.model_fields["kind"].annotation)
}


def read_cluster(
    source: str | None, workers: int | None = None, environ: Mapping[str, str] | None = None
) -> ClusterSpec:
    """Resolve ``--cluster`` and ``--workers``, which win over ``NX47DASK_CLUSTER*``, which win over the file.

    Parameters
    ----------
    source : str or None
        A YAML file, ``tcp://HOST:PORT``, a scheduler file (.json), or None: ``NX47DASK_CLUSTER``, else
        ``cluster.yaml`` here if there is one, else a local cluster.
    workers : int or None
        Worker processes of a cluster that is started.
    environ : mapping, optional
        By default that of this process. ``NX47DASK_CLUSTER_<KEY>`` sets a key, as YAML.

    Raises
    ------
    InputError
        The file is missing, or a key or a value is not known.
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
        if values["kind"] == "connect":
            raise InputError(f"--workers {workers}: a scheduler that runs already has its workers; start them there")
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
        raise InputError(f"--cluster {source}: no such file; give a YAML file, tcp://HOST:PORT or a scheduler file")
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
    if not isinstance(kind, str) or kind not in _KINDS:
        source = f"{ENVIRONMENT}_KIND" if "kind" in from_environment else place
        raise InputError(f"{source}: kind: {kind!r} is none; kinds: {', '.join(_KINDS)}")
    try:
        spec: ClusterSpec = TypeAdapter(_Kind).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        names = [str(part) for part in first["loc"] if part not in (kind, "count", "bounds")]
        source = f"{ENVIRONMENT}_{names[0].upper()}" if names and names[0] in from_environment else place
        if first["type"] == "extra_forbidden":
            known = f"keys of kind {kind}: {_keys(kind)}" if len(names) == 1 else "no such key"
            raise InputError(f"{source}: {'.'.join(names)}: unknown; {known}") from None
        found = f" (found {first['input']!r})" if names and first["type"] != "missing" else ""
        message = f"{first['msg'].removeprefix('Value error, ')}{found}"
        raise InputError(": ".join([source, *([".".join(names)] if names else []), message])) from None
    return spec


def _keys(kind: str) -> str:
    return ", ".join(_KINDS[kind].model_fields)
